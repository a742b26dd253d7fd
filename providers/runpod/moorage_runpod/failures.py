"""What an answer of RunPod's that is no success means, decided in one place. Pure.

RunPod says most things in prose: lack of capacity and worker quotas are told apart by their words alone, and
the same words have come with status 400, 422 and 500. So the words are read before the status.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from moorage.errors import (
    Conflict,
    FieldError,
    Gone,
    NoCapacity,
    PermissionMissing,
    ProviderError,
    QuotaExceeded,
    Rejected,
    Retry,
    Unauthorized,
)

KEY_ADVICE = "Give a RunPod API key with read and write permission on serverless endpoints."
RETRY_SECONDS = 2.0
MOST_WORDS = 500  # of a foreign text that goes into a message

_QUOTA = re.compile(r"workers? quota|worker concurrency cannot go beyond", re.IGNORECASE)
_AT_MOST = re.compile(r"at most (\d+)", re.IGNORECASE)
_CAPACITY = (
    "no longer any instances available",
    "not enough free gpus",
    "resources to deploy your",
    "insufficient capacity",
    "no available machine",
    "out of stock",
)
_VALIDATION = re.compile(r"^(?P<path>\$[^:]*):\s*(?P<message>.*)$", re.DOTALL)
_QUOTED = re.compile(r"'([^']+)'")


class Unanswered(Retry):
    """Nobody knows whether the request was carried out: look before it is sent again."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer as it came. Names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def date(self) -> datetime:
        """The server's clock, ours where it tells none."""
        return _http_date(self.headers.get("date", "")) or datetime.now(UTC)


def failure(reply: Reply, doing: str) -> ProviderError:
    """The error that `reply` (status 300 or more) stands for; `doing` says what was tried: "create it"."""
    problem = _problem(reply.body)
    words = _words(problem)
    told = f"RunPod could not {doing}: {words or f'status {reply.status}'}"
    if reply.status == 401:
        return Unauthorized("RunPod does not accept the API key.", advice=KEY_ADVICE)
    if reply.status == 403:
        return _forbidden(told, problem)
    if reply.status == 404:
        return Gone(told)
    if reply.status == 429:
        return Retry(f"RunPod asks to slow down ({words or 'rate limit'})", after=wait_asked(reply.headers))
    if reply.status == 410:
        return Rejected(
            f"{told}. RunPod has retired the API that was asked.", advice="Update Moorage's RunPod provider."
        )
    return _by_words(words, told) or _by_status(reply, problem, told)


def _forbidden(told: str, problem: Mapping[str, object]) -> ProviderError:
    """RunPod's own refusals are documents; anything else comes from the network in front of it."""
    if problem:
        return PermissionMissing(f"{told}. The API key lacks a permission.", advice=KEY_ADVICE)
    return Retry(f"{told}. The request was stopped before it reached RunPod's API.", after=30.0)


def _by_words(words: str, told: str) -> ProviderError | None:
    if _QUOTA.search(words):
        return QuotaExceeded(
            told,
            limit=quota_limit(words),
            advice="Lower workers_max, delete other endpoints, or have RunPod raise the account's quota.",
        )
    if any(sign in words.lower() for sign in _CAPACITY):
        return NoCapacity(told)
    return None


def _by_status(reply: Reply, problem: Mapping[str, object], told: str) -> ProviderError:
    if reply.status == 409:
        return Conflict(told)
    if reply.status in (408, 425) or reply.status >= 500 or reply.status < 400:
        after = wait_asked(reply.headers, RETRY_SECONDS)
        return Unanswered(told, after=after)
    return Rejected(told, fields=_fields(problem))


def quota_limit(words: str) -> int | None:
    """How many workers this endpoint may have; where that is not said, how many the account may."""
    at_most = _AT_MOST.search(words)
    if at_most is not None:
        return int(at_most[1])
    first = re.search(r"\d+", words[words.lower().find("quota") :] or words) or re.search(r"\d+", words)
    return int(first[0]) if first is not None else None


def wait_asked(headers: Mapping[str, str], default: float = RETRY_SECONDS) -> float:
    """Seconds to wait, from `Retry-After`, else from the window that is used up."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    until = _http_date(text)
    if until is not None:
        return max(0.0, (until - Reply(0, headers).date).total_seconds())
    return exhausted_for(headers) or default


def _http_date(text: str) -> datetime | None:
    try:
        told = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):  # it raises what its parts raise
        return None
    return told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)


def exhausted_for(headers: Mapping[str, str]) -> float | None:
    """Seconds until the last used-up window of the header `ratelimit` opens again; None if none is used up.

    The header reads `"minute";r=0;t=12, "hour";r=2999;t=1812`.
    """
    waits = []
    for window in headers.get("ratelimit", "").split(","):
        left = re.search(r";\s*r=(\d+)", window)
        opens = re.search(r";\s*t=(\d+(?:\.\d+)?)", window)
        if left is not None and opens is not None and int(left[1]) == 0:
            waits.append(float(opens[1]))
    return max(waits, default=None)


def _problem(body: bytes) -> Mapping[str, object]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _words(problem: Mapping[str, object]) -> str:
    for name in ("detail", "error", "message", "title"):
        text = problem.get(name)
        if isinstance(text, str) and text.strip():
            errors = problem.get("errors")
            more = [str(e) for e in errors] if isinstance(errors, list) else []
            return " ".join(" ".join([text, *_told_first(more)]).split())[:MOST_WORDS]
    return ""


def _told_first(errors: list[str]) -> list[str]:
    """With a field missing, RunPod also calls every good field an additional one."""
    missing = [e for e in errors if "missing propert" in e]
    return missing or errors


def _fields(problem: Mapping[str, object]) -> list[FieldError]:
    errors = problem.get("errors")
    found: list[FieldError] = []
    for text in _told_first([str(e) for e in errors] if isinstance(errors, list) else []):
        match = _VALIDATION.match(text)
        path = match["path"].removeprefix("$").strip(".") if match else ""
        message = match["message"] if match else text
        names = _QUOTED.findall(message)
        if "propert" in message and names:
            rule = "missing" if message.startswith("missing") else "unknown"
            found.extend(FieldError(f"{path}.{n}".strip("."), rule, message) for n in names)
        else:
            found.append(FieldError(path or "body", "invalid", message))
    return found
