"""What a webhook message is signed with, and how (Standard Webhooks, symmetric `v1`).

The secret is shown to its owner as `whsec_` and the base64 of 32 bytes; the bytes are the HMAC key. A
rotation keeps the old secret for a day: messages then carry both signatures, so that a receiver may change
over at any moment of it. Own code rather than the `standardwebhooks` package, because that one reads every
datetime as naive UTC; the package is the judge in the tests.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from datetime import datetime, timedelta

from moorage.domain.delivery import WebhookSecret

SECRET_BYTES = 32
PREVIOUS_VALID = timedelta(hours=24)
_PREFIX = "whsec_"


def new_secret(entropy: bytes) -> str:
    """`whsec_…` from exactly 32 random bytes."""
    if len(entropy) != SECRET_BYTES:
        raise ValueError(f"a webhook secret is made of {SECRET_BYTES} bytes, not {len(entropy)}")
    return _PREFIX + base64.b64encode(entropy).decode()


def sign(secret: str, message_id: str, at: datetime, payload: str) -> str:
    """`v1,<base64>` over `{id}.{unix seconds}.{payload}`. `at` has a zone."""
    key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    content = f"{message_id}.{int(at.timestamp())}.{payload}".encode()
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def seal_context(organization_id: str) -> str:
    """What a sealed webhook secret is bound to."""
    return f"webhook-secret {organization_id}"


def sealed_in_use(secret: WebhookSecret, now: datetime) -> tuple[str, ...]:
    """The sealed secrets that sign at `now`, the current one first."""
    if previous_valid(secret, now) and secret.previous_sealed is not None:
        return (secret.sealed, secret.previous_sealed)
    return (secret.sealed,)


def previous_valid(secret: WebhookSecret, now: datetime) -> bool:
    expires = secret.previous_expires_at
    return secret.previous_sealed is not None and expires is not None and now < expires


def rotated(secret: WebhookSecret, sealed: str, now: datetime) -> WebhookSecret:
    """`sealed` becomes current; what was current signs too for a day. A still older one ends at once."""
    return replace(
        secret,
        sealed=sealed,
        created_at=now,
        previous_sealed=secret.sealed,
        previous_expires_at=now + PREVIOUS_VALID,
    )
