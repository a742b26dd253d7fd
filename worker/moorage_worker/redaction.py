"""Keeps this process's secrets out of what it says: log lines, reports, and the errors that callers get.

No code of ours puts them there. A library may, in the text of an exception that is passed on as a cause.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

QUEUE_URL = "MOORAGE_QUEUE_URL"
RESULTS_URL = "MOORAGE_RESULTS_URL"
SECRET_VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "MOORAGE_CACHE_ACCESS_KEY_ID",
    "MOORAGE_CACHE_SECRET_ACCESS_KEY",
    "MOORAGE_CALLBACK_SECRET",
    "RUNPOD_AI_API_KEY",
    "RUNPOD_API_KEY",
)
URL_VARIABLES = (QUEUE_URL, RESULTS_URL)  # addresses with a password in them
_SHORTEST = 6  # a shorter value is a placeholder, and would blank out innocent text


def without_secrets(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text with each secret value replaced by the name of its variable, in angle brackets."""
    for variable in SECRET_VARIABLES:
        text = _without(text, environ.get(variable, "").strip(), variable)
    for variable in URL_VARIABLES:
        url = environ.get(variable, "").strip()
        for password in _passwords(url):
            text = _without(text, password, variable)
    return text


def _without(text: str, value: str, variable: str) -> str:
    return text.replace(value, f"<{variable}>") if len(value) >= _SHORTEST else text


def _passwords(url: str) -> tuple[str, ...]:
    """As the address writes it, and as it is sent; longest first, as one may hold the other."""
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        return (url,)
    return tuple(sorted({password, unquote(password)}, key=len, reverse=True))
