"""Time and identifiers from the machine."""

from __future__ import annotations

import itertools
import secrets
from datetime import UTC, datetime

from moorage.domain.naming import new_id


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class SystemIds:
    """Ids that are in order within this process: a counter stands behind the milliseconds."""

    def __init__(self) -> None:
        self._counter = itertools.count(secrets.randbelow(256))

    def __call__(self, prefix: str) -> str:
        entropy = (next(self._counter) & 0xFFFFFF).to_bytes(3, "big") + secrets.token_bytes(7)
        return new_id(prefix, datetime.now(UTC), entropy)
