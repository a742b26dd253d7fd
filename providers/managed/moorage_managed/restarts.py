"""When a worker that exited is started again, and when to give up. Pure: a test can read the schedule."""

from __future__ import annotations

from dataclasses import dataclass, replace

from moorage.domain.retry import Backoff

CRASHES_IN_A_ROW = 5  # without ever having been ready
RESTARTS_IN_WINDOW = 12
WINDOW_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class StartAgain:
    after: float  # seconds


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


@dataclass(frozen=True, slots=True)
class Crashes:
    """The crashes of one replica so far: in a row without being ready, and when they were (monotonic)."""

    in_a_row: int = 0
    at: tuple[float, ...] = ()

    def ready(self) -> Crashes:
        return replace(self, in_a_row=0)

    def crashed(self, now: float) -> Crashes:
        recent = tuple(t for t in self.at if t > now - WINDOW_SECONDS)
        return Crashes(self.in_a_row + 1, (*recent, now))


def after_crash(crashes: Crashes, how: str, backoff: Backoff, luck: float) -> StartAgain | GiveUp:
    """What to do after the last of `crashes`; `how` says how the worker ended."""
    if crashes.in_a_row >= CRASHES_IN_A_ROW:
        return GiveUp(f"the worker {how}; it ended {crashes.in_a_row} times in a row without becoming ready")
    if len(crashes.at) > RESTARTS_IN_WINDOW:
        return GiveUp(f"the worker {how}; it ended {len(crashes.at)} times within {WINDOW_SECONDS:.0f} s")
    return StartAgain(backoff.delay(crashes.in_a_row, luck))
