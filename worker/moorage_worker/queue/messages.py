"""One job as a message: what the front puts into the queue, and what a worker makes of what it finds there.

Anybody who may write to the queue can put a message there, so nothing in one is taken on trust.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from moorage_worker.errors import BadInput, MalformedBody, RequestError, TooLarge
from moorage_worker.faces.json_body import object_field, parse_object
from moorage_worker.json_types import Json, kind

# What RabbitMQ 4 takes unless it is told otherwise is 16 MiB.
MAX_MESSAGE_BYTES = 16_000_000
FIELDS = ("id", "input", "policy")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_POLICY = {"executionTimeout": (5_000, 7 * 86_400_000), "ttl": (10_000, 7 * 86_400_000)}  # ms, inclusive


@dataclass(frozen=True, slots=True)
class JobMessage:
    """`execution_seconds` is for one run, `expires_at` (epoch seconds) when it is too late to begin."""

    id: str
    asked: Json
    queued_at: float
    execution_seconds: float | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a caller asked for: the id that was given or made, and the message's bytes.

    `digest` tells whether the same id comes again with the same input.
    """

    id: str
    own_id: bool
    digest: str
    body: bytes


class Unreadable(Exception):
    """A message that no worker can do anything with. `job_id` is None where not even that can be read."""

    def __init__(self, job_id: str | None, problem: RequestError) -> None:
        super().__init__(str(problem))
        self.job_id = job_id
        self.problem = problem


def new_job(raw: bytes, made_id: str) -> NewJob:
    """Read the body of `POST /run`. Raises MalformedBody or BadInput."""
    body = parse_object(raw)
    for name in body:
        if name not in FIELDS:
            known = ", ".join(FIELDS)
            raise BadInput(name, "unknown", f"is not a field that this queue knows (known: {known})")
    if "input" not in body:
        raise BadInput("input", "required", "is missing")
    given = body.get("id")
    _check_policy(object_field(body, "policy"))
    job_id = made_id if given is None else checked_id(given)
    message = orjson.dumps({**body, "id": job_id})
    if len(message) > MAX_MESSAGE_BYTES:
        raise _too_large(len(message))
    canonical = orjson.dumps([body["input"], body.get("policy")], option=orjson.OPT_SORT_KEYS)
    return NewJob(job_id, given is not None, hashlib.sha256(canonical).hexdigest(), message)


def checked_id(value: Json) -> str:
    """Raises BadInput for what cannot be a job's id."""
    if not isinstance(value, str):
        raise BadInput("id", "type", f"must be a string, got {kind(value)}")
    if not _ID.fullmatch(value):
        raise BadInput("id", "pattern", "must be 1 to 128 letters, digits or any of . _ : -")
    return value


def read_message(body: bytes, message_id: str | None, queued_at: float | None) -> JobMessage:
    """The job in a message. Its id may stand in the body or be the message's own. Raises Unreadable.

    `queued_at` is in epoch seconds; a message that does not tell counts from now.
    """
    job_id = message_id if message_id is not None and _ID.fullmatch(message_id) else None
    if len(body) > MAX_MESSAGE_BYTES:
        raise Unreadable(job_id, _too_large(len(body)))
    try:
        value = parse_object(body)
        if "id" in value or job_id is None:
            job_id = checked_id(value.get("id"))
        policy = _check_policy(object_field(value, "policy"))
    except (BadInput, MalformedBody) as error:
        raise Unreadable(job_id, error) from error
    asked = value.get("input")
    if "input" not in value:
        raise Unreadable(job_id, BadInput("input", "required", "is missing"))
    begun = time.time() if queued_at is None else queued_at
    return JobMessage(
        id=job_id,
        asked=asked,
        queued_at=begun,
        execution_seconds=_seconds(policy.get("executionTimeout")),
        expires_at=None if "ttl" not in policy else begun + policy["ttl"] / 1000,
    )


def _check_policy(policy: Mapping[str, Json]) -> dict[str, int]:
    checked = {}
    for name, value in policy.items():
        if name not in _POLICY:
            known = ", ".join(_POLICY)
            raise BadInput(f"policy.{name}", "unknown", f"is no rule of this queue (known: {known})")
        low, high = _POLICY[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise BadInput(f"policy.{name}", "range", f"must be a whole number of ms from {low} to {high}")
        checked[name] = value
    return checked


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _too_large(size: int) -> TooLarge:
    return TooLarge(f"a job has at most {MAX_MESSAGE_BYTES} bytes, this one has {size}")
