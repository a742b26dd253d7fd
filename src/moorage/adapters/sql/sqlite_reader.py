"""The reading thread: all reads that wait are answered in one hop, on one connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from moorage.adapters.sql.database import Work
from moorage.adapters.sql.jobs import Inbox, Job, Outcome, deliver
from moorage.adapters.sql.sqlite_errors import retry_while_busy, told

T = TypeVar("T")

BATCH = 64  # reads answered before their callers hear of it


class Reader:
    def __init__(self, connect: Callable[[], Connection], loop: asyncio.AbstractEventLoop) -> None:
        self._connect = connect
        self._loop = loop
        self._inbox = Inbox()
        self._thread = threading.Thread(target=self._serve, name="moorage-sql-reader", daemon=True)
        self._thread.start()

    async def run(self, work: Work[T]) -> T:
        job = Job(self._loop.create_future(), work=work)
        self._inbox.put(job)
        result: T = await job.future
        return result

    def close(self) -> None:
        """Takes nothing more; what waits is still answered. From the event loop only."""
        self._inbox.close()

    def join(self) -> None:
        """Blocks until the thread has ended."""
        self._thread.join()

    def _serve(self) -> None:
        with self._inbox.refusing_at_end(self._loop), retry_while_busy(self._connect) as connection:
            while (jobs := self._inbox.take(BATCH)) is not None:
                deliver(self._loop, [_answer(connection, job) for job in jobs], told)


def _answer(connection: Connection, job: Job) -> Outcome:
    try:
        return Outcome(job, retry_while_busy(lambda: job.work(connection) if job.work else None))
    except Exception as error:  # whatever it is, it is the caller's
        connection.rollback()
        return Outcome(job, error=error)
