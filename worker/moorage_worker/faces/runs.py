"""One inference as a face sees it: it may be told how far it is, and may stop wanting it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from moorage_worker.pacing import Pace

EVERY_SECONDS = 1.0  # between two words on how far it is

Told = Callable[[float, str], None]


def _untold(done: float, what: str) -> None:
    """For a face that has no way to pass progress on."""


class WatchedRun:
    """A `Run`. `told` is called from the engine's thread, not too often."""

    def __init__(self, told: Told = _untold) -> None:
        self._told = told
        self._pace = Pace(EVERY_SECONDS)
        self._cancelled = threading.Event()

    def progress(self, done: float, what: str) -> None:
        if not self.cancelled and self._pace.due(None, time.monotonic()):
            self._told(done, what)

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        self._cancelled.set()
