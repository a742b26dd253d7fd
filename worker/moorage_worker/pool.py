"""Runs inferences in a few threads behind a bounded queue.

A queue without a bound would answer every caller late. A full one says so at once, with the time after which
it is worth coming back, taken from how long inferences have really been.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from moorage_worker.errors import Busy

T = TypeVar("T")

_MAX_RETRY_AFTER = 60
# Weight of the newest inference in the running mean.
_NEWEST = 0.2


def retry_after(admitted: int, threads: int, mean_seconds: float) -> int:
    """Whole seconds until the queue has probably moved: at least 1, at most a minute."""
    return max(1, min(_MAX_RETRY_AFTER, math.ceil(admitted / threads * mean_seconds)))


class InferencePool:
    """`threads` inferences at a time, `max_waiting` more in the queue. Used from one event loop."""

    def __init__(self, threads: int, max_waiting: int) -> None:
        self._threads = threads
        self._limit = threads + max_waiting
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._admitted = 0
        self._mean_seconds = 0.0

    @property
    def admitted(self) -> int:
        """Requests that run or wait."""
        return self._admitted

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread. Raises Busy without running it when the queue is full.

        A caller that goes away does not free its place before its thread is done.
        """
        if self._admitted >= self._limit:
            raise Busy(self._admitted, retry_after(self._admitted, self._threads, self._mean_seconds))
        self._admitted += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, _timed, work)
        future.add_done_callback(self._release)
        answer, seconds = await asyncio.shield(future)
        self._mean_seconds += _NEWEST * (seconds - self._mean_seconds)
        return answer

    def _release(self, future: asyncio.Future[tuple[T, float]]) -> None:
        self._admitted -= 1
        # A caller that went away asks no more how it ended, and asyncio would complain about that.
        if not future.cancelled():
            future.exception()


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.monotonic()
    return work(), time.monotonic() - started
