"""Which URL of an endpoint is asked for what: RunPod's own `requestUrls`, word for word.

The key goes with every request there, so a URL is used only where the key stays secret on its way.
"""

from __future__ import annotations

from typing import Literal

from moorage.errors import Retry
from moorage_runpod.wire import Endpoint

Request = Literal["run", "run_sync", "status", "health", "base"]


def request_url(endpoint: Endpoint, request: Request, api_url: str) -> str:
    """Raises Retry when RunPod names none, or one that would show the key."""
    urls = endpoint.request_urls
    url = None if urls is None else getattr(urls, request)
    if not isinstance(url, str):
        raise Retry(f"RunPod names no URL of {endpoint.name} for '{request}'")
    if not url.startswith("https://") and not api_url.startswith("http://"):
        raise Retry(f"RunPod names a URL of {endpoint.name} that is not https")
    return url


def base_url(endpoint: Endpoint, api_url: str) -> str:
    """What a replica's paths follow: those of the job API, or the worker's own."""
    if endpoint.balanced:
        return request_url(endpoint, "base", api_url).rstrip("/")
    return request_url(endpoint, "run_sync", api_url).removesuffix("/runsync")
