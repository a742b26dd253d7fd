"""One inference as a face sees it: it may be told how far it is, and may stop wanting it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

EVERY_SECONDS = 1.0  # between two words on how far it is


class WatchedRun:
    """A `Run`. `told` is called from the engine's thread, not too often."""

    def __init__(self, told: Callable[[float, str], None] | None = None) -> None:
        self._told = told
        self._told_at = 0.0
        self._cancelled = threading.Event()

    def progress(self, done: float, what: str) -> None:
        now = time.monotonic()
        if self._told is not None and now - self._told_at >= EVERY_SECONDS:
            self._told_at = now
            self._told(done, what)

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        self._cancelled.set()
