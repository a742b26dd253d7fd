"""What the event loop hands to a database thread, and how the answers come back: one hop each way a batch."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from moorage.adapters.sql.database import Work
from moorage.adapters.sql.rows import Unit
from moorage.errors import StoreError


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A function to run, or a unit of work to write. Any: jobs of all result types share a queue; the method
    that makes a job knows its type."""

    future: asyncio.Future[Any]
    work: Work[Any] | None = None
    unit: Unit | None = None
    quiet: bool | Callable[[Any], bool] = False  # as in `Database.write`


@dataclass(frozen=True, slots=True)
class Outcome:
    job: Job
    result: Any = None
    error: Exception | None = None

    @property
    def quiet(self) -> bool:
        """Whether no other process need hear of it: a unit that failed was not written."""
        quiet = self.job.quiet
        return self.error is not None or (quiet(self.result) if callable(quiet) else quiet)


class Inbox:
    """A queue that a thread empties in batches, until it is closed and empty."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closed = False

    def put(self, job: Job) -> None:
        """From the event loop only. Raises StoreError when closed."""
        if self._closed:
            raise StoreError("the store is closed")
        self._queue.put(job)

    def close(self) -> None:
        """From the event loop only."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)

    def take(self, limit: int, timeout: float | None = None) -> list[Job] | None:
        """What waits, at most `limit`; waits for the first. Nothing after `timeout` seconds; None at the end,
        to every thread that asks. Jobs whose callers have gone away are left out."""
        jobs: list[Job] = []
        try:
            job = self._queue.get(timeout=timeout)
            while True:
                if job is None:
                    self._queue.put(None)
                    if not jobs:
                        return None
                    break
                jobs.append(job)
                if len(jobs) >= limit:
                    break
                job = self._queue.get_nowait()
        except queue.Empty:
            pass
        return [job for job in jobs if not job.future.cancelled()]

    @contextmanager
    def refusing_at_end(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Around a thread's life: when it ends, whyever, nobody is left to wait for it without end."""
        try:
            yield
        finally:
            call_in(loop, self._refuse)

    def _refuse(self) -> None:
        """In the loop, where jobs are put: none comes in between."""
        self._closed = True
        while not self._queue.empty():
            job = self._queue.get_nowait()
            if job is not None and not job.future.done():
                job.future.set_exception(StoreError("the database thread has ended; start the service again"))
        self._queue.put(None)


def deliver(
    loop: asyncio.AbstractEventLoop, outcomes: Sequence[Outcome], told: Callable[[Exception], Exception]
) -> None:
    """Wakes all callers with one hop. `told` puts errors in our words: no exception of SQLAlchemy's leaves
    the adapter."""
    ready = [outcome if outcome.error is None else _in_words(outcome, told) for outcome in outcomes]
    call_in(loop, lambda: _resolve(ready))


def call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Calls in the loop's thread, or not at all when the loop has ended: then nobody waits."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _resolve(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        future = outcome.job.future
        if future.done():  # cancelled meanwhile
            continue
        if outcome.error is not None:
            future.set_exception(outcome.error)
        else:
            future.set_result(outcome.result)


def _in_words(outcome: Outcome, told: Callable[[Exception], Exception]) -> Outcome:
    return Outcome(outcome.job, error=None if outcome.error is None else told(outcome.error))
