"""A sliding window over failures: the rule that slows down guessing.

Pure and bounded. The newest moments are kept, at most as many as the rule allows, since more would change
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class FailureWindow:
    """At most `allowed` failures within `length`."""

    allowed: int
    length: timedelta

    def recent(self, failures: tuple[datetime, ...], now: datetime) -> tuple[datetime, ...]:
        """Those that still count."""
        return tuple(moment for moment in failures if now - moment < self.length)

    def with_failure(self, failures: tuple[datetime, ...], now: datetime) -> tuple[datetime, ...]:
        return (*self.recent(failures, now), now)[-self.allowed :]

    def wait(self, failures: tuple[datetime, ...], now: datetime) -> float | None:
        """Seconds until one more try may be made; None: at once."""
        recent = self.recent(failures, now)
        if len(recent) < self.allowed:
            return None
        return (recent[-self.allowed] + self.length - now).total_seconds()
