"""The Hub's HTTP calls, each in a thread, each bounded in time and size.

`huggingface_hub` has no asynchronous client. A call that is given up goes on in its thread until its own
timeout, so the threads are the Wire's own: a Hub that hangs must not take those of the rest of the process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TypeVar

from huggingface_hub import HfApi, ModelInfo, get_session, hf_hub_url
from huggingface_hub.errors import SafetensorsParsingError

# Public, but loaded lazily in a way that mypy does not see as an export.
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    SafetensorsFileMetadata,
    build_hf_headers,
    hf_raise_for_status,
)

from moorage.errors import ModelUnreadable

R = TypeVar("R")


class Wire:
    """`endpoint` has no slash at its end; `timeout` is seconds per request; at most `at_once` run."""

    def __init__(self, endpoint: str, *, timeout: float, at_once: int) -> None:
        # token=False: a token that lies on this machine is the operator's and must not read for a tenant.
        self._api = HfApi(
            endpoint=endpoint, token=False, library_name="moorage", library_version=version("moorage")
        )
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="hub")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def info(self, repo_id: str, revision: str | None, token: str | None) -> ModelInfo:
        return await self._call(
            lambda: self._api.model_info(
                repo_id, revision=revision, files_metadata=True, timeout=self._timeout, token=token or False
            )
        )

    async def check_access(self, repo_id: str, token: str | None) -> None:
        """Raises GatedRepoError when files may not be read, though the metadata may."""
        await self._call(lambda: self._check_access(repo_id, token))

    async def safetensors_header(
        self, repo_id: str, name: str, commit: str, token: str | None
    ) -> SafetensorsFileMetadata:
        """Reads the header by range; headers over 25 MB are refused by huggingface_hub."""
        try:
            return await self._call(
                lambda: self._api.parse_safetensors_file_metadata(
                    repo_id, name, revision=commit, token=token or False, timeout=self._timeout
                )
            )
        except (
            AttributeError,
            TypeError,
            ValueError,
            RecursionError,
        ) as error:  # JSON, but not of the header's form
            raise SafetensorsParsingError(f"the header of {name} has not the form of one") from error

    async def json_object(
        self, repo_id: str, name: str, commit: str, token: str | None, limit: int
    ) -> dict[str, object]:
        """A small JSON file. Raises ModelUnreadable when it is over `limit` bytes or no JSON object."""
        body = await self._call(lambda: self._read(repo_id, name, commit, token, limit))
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ModelUnreadable(
                f"{name} of {repo_id} is not valid JSON.", advice="Correct the file in the repository."
            ) from error
        if not isinstance(value, dict):
            raise ModelUnreadable(
                f"{name} of {repo_id} is not a JSON object.", advice="Correct the file in the repository."
            )
        return value

    def _read(self, repo_id: str, name: str, commit: str, token: str | None, limit: int) -> bytes:
        url = hf_hub_url(repo_id, name, revision=commit, endpoint=self._api.endpoint)
        headers = self._headers(token)
        body = bytearray()
        with get_session().stream("GET", url, headers=headers, timeout=self._timeout) as response:
            if response.is_error:
                response.read()
            hf_raise_for_status(response)
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > limit:
                    raise ModelUnreadable(
                        f"{name} of {repo_id} is over {limit} bytes, which is absurd for such a file.",
                        advice="Correct the file in the repository.",
                    )
        return bytes(body)

    def _check_access(self, repo_id: str, token: str | None) -> None:
        # As HfApi.auth_check, which takes no timeout and so may hold its thread for ever.
        url = f"{self._api.endpoint}/api/models/{repo_id}/auth-check"
        response = get_session().get(url, headers=self._headers(token), timeout=self._timeout)
        hf_raise_for_status(response)

    def _headers(self, token: str | None) -> dict[str, str]:
        return build_hf_headers(
            token=token or False,
            library_name=self._api.library_name,
            library_version=self._api.library_version,
        )

    async def _call(self, call: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
