"""Webhook messages on their way: the schedule and what an answer means (Standard Webhooks).

A delivery is written with the change it tells of. Its id is the message's id and stays the same over all
attempts, so that a receiver can recognise what it has seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum

# Seconds after a failed attempt until the next: the example schedule of the Standard Webhooks specification.
SCHEDULE = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
JITTER = 0.1
KEPT_ATTEMPTS = 20
LONGEST_RETRY_AFTER = 86400.0  # a receiver cannot put a message off for longer than the schedule's last step


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"  # the schedule is over
    DISABLED = "disabled"  # the receiver said 410, now or earlier


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    at: datetime
    status: int | None  # None: no answer
    error: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one receiver. `payload` is the body, byte for byte as it will be signed and sent."""

    id: str
    organization_id: str
    subject_id: str
    event_type: str
    url: str
    payload: str
    created_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    failures: int = 0  # in a row, since creation or the last resend
    attempts: tuple[DeliveryAttempt, ...] = ()
    due_at: datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class Receiver:
    """A URL of an organization that said 410 Gone. Asking for a resend lifts it."""

    id: str  # receiver_id(organization_id, url)
    organization_id: str
    url: str
    disabled_at: datetime | None
    version: int = 0


@dataclass(frozen=True, slots=True)
class WebhookSecret:
    """An organization's signing secrets, sealed. `previous` signs too until it expires."""

    id: str  # the organization's id
    sealed: str = field(repr=False)
    created_at: datetime
    previous_sealed: str | None = field(default=None, repr=False)
    previous_expires_at: datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: a status and the headers' Retry-After, or an error and no status."""

    status: int | None
    error: str | None = None
    retry_after: float | None = None
    seconds: float = 0.0
    body: str = ""


def after_attempt(delivery: Delivery, answer: Answer, now: datetime, luck: float) -> Delivery:
    """The delivery after one attempt. Only 2xx is success; 410 disables; everything else is tried again on
    the schedule, with up to 10 % of jitter from `luck` in [0, 1), and never before a Retry-After."""
    error = answer.error
    if error is None and answer.status is not None and not 200 <= answer.status < 300:
        error = f"the receiver answered {answer.status}; only 2xx counts"
    attempt = DeliveryAttempt(now, answer.status, error, answer.seconds)
    seen = replace(delivery, attempts=(*delivery.attempts, attempt)[-KEPT_ATTEMPTS:])
    if error is None:
        return replace(seen, state=DeliveryState.DELIVERED, due_at=None, failures=0)
    failures = delivery.failures + 1
    if answer.status == 410:
        return replace(seen, state=DeliveryState.DISABLED, due_at=None, failures=failures)
    if failures > len(SCHEDULE):
        return replace(seen, state=DeliveryState.EXHAUSTED, due_at=None, failures=failures)
    wait = SCHEDULE[failures - 1] * (1 + JITTER * luck)
    wait = max(wait, answer.retry_after or 0.0)
    return replace(seen, due_at=now + timedelta(seconds=wait), failures=failures)


def put_off(delivery: Delivery, until: datetime) -> Delivery:
    """Not tried yet, because its receiver is busy with earlier messages; no failure."""
    return replace(delivery, due_at=until)


def disable(delivery: Delivery) -> Delivery:
    """Not sent, because its receiver said 410 to another message."""
    return replace(delivery, state=DeliveryState.DISABLED, due_at=None)


def receiver_id(organization_id: str, url: str) -> str:
    return f"{organization_id} {url}"


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for (a number or an HTTP date), capped; None when it asks
    nothing that can be read."""
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,12}", value):
        return min(float(value), LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000": UTC by the RFC
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)


def resend(delivery: Delivery, now: datetime) -> Delivery:
    """The same message once more, at once, with a fresh schedule."""
    return replace(delivery, state=DeliveryState.PENDING, due_at=now, failures=0)


def message_headers(message_id: str, at: datetime, signatures: tuple[str, ...]) -> Mapping[str, str]:
    """The three headers of the standard; `signatures` are `v1,<base64>` each."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
        "content-type": "application/json",
    }
