"""Threads that answer the event loop's jobs, each with a connection of its own.

Threads, not coroutines: statements are made and rows are read in the interpreter, for milliseconds at a time,
and the loop that proxies requests is not to wait for that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from sqlalchemy import Connection

from moorage.adapters.sql.jobs import Inbox, Job, Outcome, deliver
from moorage.adapters.sql.postgres_errors import told
from moorage.adapters.sql.postgres_session import Session
from moorage.errors import StoreUnavailable

DEADLINE = 12.0  # seconds until a caller hears that there is no answer

Answer: TypeAlias = Callable[[Session, Sequence[Job]], Sequence[Outcome]]


class Lane:
    """`answer` gets what waits, up to `batch` jobs at once, in one of the threads."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Connection],
        answer: Answer,
        *,
        place: str,
        threads: int,
        batch: int,
    ) -> None:
        self._connect = connect
        self._answer = answer
        self._place = place
        self._batch = batch
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox()
        self._lock = threading.Lock()
        self._at_work: dict[Job, Session] = {}
        self._threads = [
            threading.Thread(target=self._serve, name=f"moorage-sql-{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def ask(self, job: Job) -> Any:  # Any: jobs of all result types share a queue
        """Raises StoreUnavailable when there is no answer in time. What was asked may still be done."""
        self._inbox.put(job)
        try:
            async with asyncio.timeout(DEADLINE) as deadline:
                return await job.future
        except TimeoutError:
            if not deadline.expired():
                raise
        with self._lock:
            session = self._at_work.get(job)
            if session is not None:
                session.interrupt()
        raise StoreUnavailable(f"PostgreSQL {self._place} did not answer within {DEADLINE:.0f} seconds")

    def close(self) -> None:
        """Takes nothing more; what waits is still answered. From the event loop only."""
        self._inbox.close()

    def join(self) -> None:
        """Blocks until the threads have ended."""
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        session = Session(self._connect)
        try:
            with self._inbox.refusing_at_end(self._loop):
                while (jobs := self._inbox.take(self._batch)) is not None:
                    if jobs:
                        deliver(self._loop, self._outcomes(session, jobs), partial(told, place=self._place))
        finally:
            session.close()

    def _outcomes(self, session: Session, jobs: Sequence[Job]) -> Sequence[Outcome]:
        with self._lock:
            self._at_work.update(dict.fromkeys(jobs, session))
        try:
            return self._answer(session, jobs)
        except Exception as error:  # whatever it is, it is the callers'
            return [Outcome(job, error=error) for job in jobs]
        finally:
            with self._lock:
                for job in jobs:
                    del self._at_work[job]
