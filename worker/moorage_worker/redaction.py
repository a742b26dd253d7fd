"""Keeps this process's secrets out of what it says: log lines, reports, and the errors that callers get.

No code of ours puts them there. A library may, in the text of an exception that is passed on as a cause.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

SECRET_VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "MOORAGE_CACHE_ACCESS_KEY_ID",
    "MOORAGE_CACHE_SECRET_ACCESS_KEY",
    "MOORAGE_CALLBACK_SECRET",
    "RUNPOD_AI_API_KEY",
    "RUNPOD_API_KEY",
)
_SHORTEST = 6  # a shorter value is a placeholder, and would blank out innocent text


def without_secrets(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text with each secret value replaced by the name of its variable, in angle brackets."""
    for variable in SECRET_VARIABLES:
        value = environ.get(variable, "").strip()
        if len(value) >= _SHORTEST:
            text = text.replace(value, f"<{variable}>")
    return text
