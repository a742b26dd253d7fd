"""The one rule for waiting before trying again.

Pure, so that the engine, the outbox and a supervisor can all use it and a test can read the schedule.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential from `base` to `cap` seconds; `spread` is the share that jitter may take off."""

    base: float
    cap: float
    factor: float = 2.0
    spread: float = 0.25

    def delay(self, failures: int, luck: float = 0.0) -> float:
        """Seconds to wait after the `failures`-th failure in a row (from 1); `luck` is in [0, 1)."""
        exponent = min(max(failures, 1) - 1, 64)
        full = min(self.cap, self.base * self.factor**exponent)
        return full * (1 - self.spread * luck)
