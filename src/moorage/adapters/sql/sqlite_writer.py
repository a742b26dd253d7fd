"""The writing thread: group commit.

Units that wait become one transaction. It is tried without savepoints first, all units' rows in few
statements; nearly always that is all. When a unit cannot be written, the transaction is undone and the same
units run one after another, each in a savepoint, so that the one at fault is found and fails alone.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from moorage.adapters.sql.database import Work
from moorage.adapters.sql.jobs import Inbox, Job, Outcome, call_in, deliver
from moorage.adapters.sql.rows import Unit, write_alone, write_units
from moorage.adapters.sql.sqlite_errors import is_busy, retry_while_busy, told

T = TypeVar("T")

BATCH = 256  # units in one transaction
WATCH_PERIOD = 0.2  # seconds between looks for other processes' writes


class Writer:
    """`changed` is called in the loop when another process has written; see `watch`."""

    def __init__(
        self, connect: Callable[[], Connection], loop: asyncio.AbstractEventLoop, changed: Callable[[], None]
    ) -> None:
        self._connect = connect
        self._loop = loop
        self._changed = changed
        self._watching = False
        self._inbox = Inbox()
        self._thread = threading.Thread(target=self._serve, name="moorage-sql-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Work[T]) -> T:
        job = Job(self._loop.create_future(), work=work)
        self._inbox.put(job)
        result: T = await job.future
        return result

    async def commit(self, unit: Unit) -> None:
        job = Job(self._loop.create_future(), unit=unit)
        self._inbox.put(job)
        await job.future

    def watch(self, watching: bool) -> None:
        """Whether to look for other processes' writes. The first look tells of all since the store opened."""
        self._watching = watching

    def close(self) -> None:
        """Takes nothing more; what waits is still written. From the event loop only."""
        self._inbox.close()

    def join(self) -> None:
        """Blocks until the thread has ended."""
        self._thread.join()

    def _serve(self) -> None:
        with self._inbox.refusing_at_end(self._loop), retry_while_busy(self._connect) as connection:
            seen = _look(connection, None)
            while (jobs := self._inbox.take(BATCH, WATCH_PERIOD)) is not None:
                if jobs:
                    deliver(self._loop, _outcomes(connection, jobs), told)
                if self._watching and (version := _look(connection, seen)) != seen:
                    seen = version
                    call_in(self._loop, self._changed)


def _outcomes(connection: Connection, jobs: Sequence[Job]) -> Sequence[Outcome]:
    for run in (_together, _one_by_one):
        try:
            return retry_while_busy(partial(run, connection, jobs))
        except Exception as error:  # of a unit when together; of the transaction itself (a full disk) after
            outcomes = [Outcome(job, error=error) for job in jobs]
            if is_busy(error):
                break
    return outcomes


def _together(connection: Connection, jobs: Sequence[Job]) -> list[Outcome]:
    with connection.begin():
        write_units(connection, [job.unit for job in jobs if job.unit is not None])
        return [Outcome(job, job.work(connection) if job.work else None) for job in jobs]


def _one_by_one(connection: Connection, jobs: Sequence[Job]) -> list[Outcome]:
    with connection.begin():
        return [_alone(connection, job) for job in jobs]


def _alone(connection: Connection, job: Job) -> Outcome:
    try:
        with connection.begin_nested():
            if job.unit is not None:
                write_alone(connection, job.unit)
            return Outcome(job, job.work(connection) if job.work else None)
    except Exception as error:
        if is_busy(error):
            raise
        return Outcome(job, error=error)


def _look(connection: Connection, seen: int | None) -> int | None:
    """What was seen before when the file cannot be read now: it is looked at again, and writes are told their
    own errors. The thread must not end by it."""
    try:
        return _data_version(connection)
    except sqlite3.Error:
        return seen


def _data_version(connection: Connection) -> int:
    """A number that changes when another connection has committed, not when this one has. Asked of the driver
    itself: SQLAlchemy would open a transaction for it."""
    driver = connection.connection.dbapi_connection
    assert isinstance(driver, sqlite3.Connection)
    version: int = retry_while_busy(lambda: driver.execute("PRAGMA data_version").fetchone()[0])
    return version
