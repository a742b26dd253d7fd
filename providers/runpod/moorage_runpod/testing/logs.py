"""A worker's log as RunPod keeps it: lines with a source and a time each, to be read from any point on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from moorage_runpod.testing.changes import Changes
from moorage_runpod.testing.endpoint import rfc3339

CONTAINER, SYSTEM = "container", "system"
KEPT_LINES = 5000
_TICK = 1e-6  # seconds between two lines, so that a time names one line


@dataclass(frozen=True, slots=True)
class LogLine:
    at: float
    source: str
    text: str

    def as_event(self) -> bytes:
        ts = rfc3339(self.at)
        data = json.dumps({"ts": ts, "source": self.source, "line": self.text})
        return f"id: {ts}\ndata: {data}\n\n".encode()


class Log:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lines: list[LogLine] = []
        self._last = 0.0
        self.closed = False
        self.changes = Changes()

    def write(self, text: str, source: str = CONTAINER) -> None:
        # Whole microseconds, as readers see them: a time that was rounded on its way finds its line again.
        self._last = round(max(self._clock(), self._last + _TICK), 6)
        self._lines.append(LogLine(self._last, source, text))
        del self._lines[:-KEPT_LINES]
        self.changes.tell()

    def close(self) -> None:
        self.closed = True
        self.changes.tell()

    def tail(self, count: int, source: str | None) -> list[LogLine]:
        lines = [line for line in self._lines if source in (None, line.source)]
        return lines[-count:] if count else []

    def after(self, at: float, source: str | None, *, inclusive: bool = False) -> list[LogLine]:
        """Lines later than `at`, which may be rounded to microseconds."""
        edge = at - _TICK / 2 if inclusive else at + _TICK / 2
        return [line for line in self._lines if line.at >= edge and source in (None, line.source)]

    @property
    def last(self) -> float:
        return self._last
