"""Whether a loop goes round: told by the loop, read by whoever asks after the service's health.

A loop that is stuck says nothing, so it cannot be asked. It says beforehand by when it will come round again;
who is late by more than `GRACE` is stuck, and who died a moment ago is dying, however often it is begun anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

GRACE = 10.0  # seconds
DYING = 10.0  # seconds after a death


class Pulse:
    """`monotonic` is in seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._expected: float | None = None  # by when it comes round
        self._died: float | None = None
        self._due: datetime | None = None

    # -- told by the loop

    def began(self) -> None:
        """It runs, and has its first round before it."""
        self._expected = self._monotonic()

    def round(self) -> None:
        """It went round once, and begins another round at once."""
        self._expected = self._monotonic()

    def sleeps(self, seconds: float) -> None:
        """It need not come round before; a signal may make it."""
        self._expected = self._monotonic() + seconds

    def behind(self, due: datetime | None) -> None:
        """The earliest moment at which something is due that nobody has in hand, as far as is known."""
        self._due = due

    def died(self) -> None:
        self._died = self._monotonic()

    # -- asked by others

    def trouble(self) -> str | None:
        """In words, what is wrong with it; None: it goes round, or waits for a known moment, or was never
        begun, because here it runs only when it is asked to."""
        now = self._monotonic()
        if self._died is not None and now - self._died < DYING:
            return (
                f"It died {now - self._died:.0f} s ago of a bug, and was begun again; the log has the cause."
            )
        if self._expected is not None and now - self._expected > GRACE:
            return f"It has not come round for {now - self._expected:.0f} s."
        return None

    def lag(self, now: datetime) -> float:
        """Seconds that what is due has waited for a free hand: an upper bound, because between two rounds
        only the earliest moment is known."""
        return 0.0 if self._due is None else max(0.0, (now - self._due).total_seconds())
