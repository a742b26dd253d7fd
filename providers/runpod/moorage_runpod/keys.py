"""What a RunPod API key looks like, and who it stands for. Pure; nobody is asked."""

from __future__ import annotations

import hashlib
import re

from moorage.errors import Unauthorized
from moorage.ports.provider import Credentials
from moorage_runpod.failures import KEY_ADVICE

FIELD = "api_key"

# Today's form, and the older one of 40 capitals and digits. Neither can be a key or a token of Moorage's own.
_FORMS = re.compile(r"rpa_[A-Za-z0-9_]{1,200}|[A-Z0-9]{40}")


def has_key_form(text: str) -> bool:
    return _FORMS.fullmatch(text) is not None


def key_of(credentials: Credentials | None) -> str:
    """Raises Unauthorized when there is none that could go into a header."""
    key = (credentials.values.get(FIELD, "") if credentials is not None else "").strip()
    if not key:
        raise Unauthorized("No RunPod API key was given.", advice=KEY_ADVICE)
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise Unauthorized("That is no RunPod API key.", advice=KEY_ADVICE)
    return key


def account_id(key: str) -> str:
    """Stable for the key, and no way back to it. RunPod's API does not tell whose a key is."""
    return "runpod-" + hashlib.sha256(b"moorage runpod account\0" + key.encode()).hexdigest()[:32]
