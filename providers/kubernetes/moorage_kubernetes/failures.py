"""What an answer of an API server that is no success means, decided in one place. Pure.

A server says why in a `Status` object: its reason, the causes by field, and a sentence. Two different things
come as 403: an account that may not do it, and an admission that will not have it. Only the sentence tells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any  # JSON of a server, of any shape until it is read

from moorage.errors import (
    Conflict,
    FieldError,
    Gone,
    PermissionMissing,
    ProviderError,
    QuotaExceeded,
    Rejected,
    Retry,
    Unauthorized,
)

MAX_WORDS = 600
RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0

IMPORT_ADVICE = "Import the cluster again with a token or certificate that it accepts."
ACCESS_ADVICE = "Allow it with a Role or ClusterRole for the account that the cluster was imported with."

_NOT_ALLOWED = re.compile(
    r'cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"(?: in API group "(?P<group>[^"]*)")?'
)
_BUSY = (408, 425, 429, 500, 502, 503, 504)


def failure(status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
    """`headers` with names in any case. Whatever is no Status of an API server is passing trouble: a proxy in
    front of it has answered."""
    told = _status(body)
    words = _words(told)
    match status:
        case 401:
            return Unauthorized(f"The cluster refuses the credentials: {words}", advice=IMPORT_ADVICE)
        case 403:
            return _forbidden(told, words)
        case 404:
            return Gone(words or "The cluster does not have it")
        case 409:
            return Conflict(words or "Somebody else changed it meanwhile")
        case 410:
            return Gone(words or "The cluster has forgotten that revision")
        case 400 | 405 | 406 | 413 | 415 | 422 if told:
            return Rejected(f"The cluster does not accept it: {words}", fields=_fields(told))
    if status in _BUSY or not told:
        after = _after(headers, told)
        what = words or "no answer of an API server"
        return Retry(f"The cluster cannot answer now ({status}): {what}", after=after)
    return ProviderError(f"The cluster answered {status}: {words}")


def _forbidden(told: Mapping[str, Any], words: str) -> ProviderError:
    match = _NOT_ALLOWED.search(words)
    if match is not None:
        resource = f"{match['resource']}.{match['group']}" if match["group"] else match["resource"]
        detail = f"The cluster's account may not {match['verb']} {resource}: {words}"
        return PermissionMissing(detail, advice=ACCESS_ADVICE)
    if "because it is being terminated" in words:
        return Retry(f"The namespace is being deleted: {words}", after=5.0)
    if "exceeded quota" in words:
        return QuotaExceeded(f"The namespace's quota does not allow it: {words}")
    if not told or 'User "system:anonymous"' in words:
        return PermissionMissing(f"The cluster does not allow it: {words}", advice=ACCESS_ADVICE)
    return Rejected(f"The cluster's admission refuses it: {words}", fields=_fields(told))


def _status(body: bytes) -> Mapping[str, Any]:
    """The `Status`; empty for anything else."""
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) and told.get("kind") == "Status" else {}


def _words(told: Mapping[str, Any]) -> str:
    words = str(told.get("message") or told.get("reason") or "")
    return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}…"


def _fields(told: Mapping[str, Any]) -> tuple[FieldError, ...]:
    details = told.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return tuple(
        FieldError(
            str(cause.get("field") or ""), str(cause.get("reason") or "invalid"), str(cause["message"])
        )
        for cause in causes or ()
        if isinstance(cause, dict) and cause.get("message")
    )


def _after(headers: Mapping[str, str], told: Mapping[str, Any]) -> float:
    details = told.get("details")
    asked = next((value for name, value in headers.items() if name.lower() == "retry-after"), None)
    if asked is None and isinstance(details, dict):
        asked = details.get("retryAfterSeconds")
    try:
        seconds = float(asked) if asked is not None else RETRY_SECONDS
    except (TypeError, ValueError):
        return RETRY_SECONDS
    return min(max(seconds, RETRY_SECONDS), LONGEST_RETRY_SECONDS)
