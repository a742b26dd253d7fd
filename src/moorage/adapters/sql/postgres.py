"""PostgreSQL, so that any number of processes serve one set of rows.

As with SQLite, what waits is written together: one transaction, one sync of the disk and a few round trips
for all units that came meanwhile. Reads go side by side, each on its own.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from moorage.adapters.sql.database import Work
from moorage.adapters.sql.jobs import Job, Outcome
from moorage.adapters.sql.migrate import is_current, migrate
from moorage.adapters.sql.postgres_errors import is_away, is_timeout, told
from moorage.adapters.sql.postgres_lane import Lane
from moorage.adapters.sql.postgres_news import News, tell
from moorage.adapters.sql.postgres_session import Session
from moorage.adapters.sql.postgres_url import connection_parameters, place
from moorage.adapters.sql.rows import Unit, write_alone, write_units
from moorage.errors import StoreUnusable

T = TypeVar("T")

POOL = 10  # connections, if not told otherwise
LEAST_POOL = 3  # one that listens, one that writes, one that reads
BATCH = 256  # units in one transaction
OLDEST = 13  # version of the server
MIGRATIONS = 0x6D6F6F72  # the lock of whoever brings the tables up to date
_TIMEOUTS = {"statement_timeout": "10s", "lock_timeout": "5s", "idle_in_transaction_session_timeout": "60s"}
# Of each unit alone after all together waited: the others wait on (`postgres_lane.DEADLINE`).
_TIMEOUTS_ALONE = {"lock_timeout": "1s"}
_MIGRATION_TIMEOUTS = {"statement_timeout": "0", "lock_timeout": "60s"}


class PostgresDatabase:
    """A `Database` with `pool` connections at most."""

    def __init__(self, parameters: Mapping[str, Any], pool: int) -> None:
        write, read = make_engine(parameters).connect, make_engine(parameters, writes=False).connect
        where = place(parameters)
        writers = max(1, (pool - 1) // 4)
        self._changed: set[asyncio.Event] = set()
        self._closed = False
        self._name = secrets.token_hex(8)
        self._news = News(parameters, self._name, self._tell_change)
        self._writes = Lane("writer", write, self._write, place=where, threads=writers, batch=BATCH)
        self._reads = Lane("reader", read, _read, place=where, threads=pool - 1 - writers, batch=1)

    @classmethod
    async def open(cls, url: str, pool: int = POOL) -> PostgresDatabase:
        """Brings the tables up to date. Raises ValueError, StoreUnusable or StoreUnavailable."""
        if pool < LEAST_POOL:
            raise ValueError(f"the pool has {pool} connections; PostgreSQL needs at least {LEAST_POOL}")
        parameters = connection_parameters(url)
        await asyncio.to_thread(prepare, parameters)
        database = cls(parameters, pool)
        try:
            await database._news.start()
        except Exception as error:
            await database.aclose()
            raise told(error, place(parameters)) from error
        return database

    async def read(self, work: Work[T]) -> T:
        result: T = await self._reads.ask(Job(_future(), work=work))
        return result

    async def write(self, work: Work[T], *, quiet: bool | Callable[[T], bool] = False) -> T:
        result: T = await self._writes.ask(Job(_future(), work=work, quiet=quiet))
        return result

    async def commit(self, unit: Unit) -> None:
        if unit:
            await self._writes.ask(Job(_future(), unit=unit))

    async def changes(self) -> AsyncIterator[None]:
        changed = asyncio.Event()
        self._changed.add(changed)
        try:
            while not self._closed:
                await changed.wait()
                changed.clear()
                if not self._closed:
                    yield None
        finally:
            self._changed.discard(changed)

    async def aclose(self) -> None:
        """Finishes what waits, then closes. Iterators of `changes` end."""
        self._closed = True
        self._tell_change()
        await self._news.aclose()
        self._writes.close()
        self._reads.close()
        await asyncio.gather(asyncio.to_thread(self._writes.join), asyncio.to_thread(self._reads.join))

    def _tell_change(self) -> None:
        for changed in self._changed:
            changed.set()

    def _write(self, session: Session, jobs: Sequence[Job]) -> Sequence[Outcome]:
        """All together in few statements; if one of them cannot be, one after another, so that it fails
        alone."""
        try:
            return session.transact(partial(_together, jobs=jobs), last=self._tell_others)
        except Exception as error:
            waited = is_timeout(error)
            if (is_away(error) and not waited) or (len(jobs) == 1 and (waited or jobs[0].work is not None)):
                raise
        return session.transact(partial(_one_by_one, jobs=jobs, waited=waited), last=self._tell_others)

    def _tell_others(self, connection: Connection, outcomes: Sequence[Outcome]) -> None:
        if not all(outcome.quiet for outcome in outcomes):
            tell(connection, self._name)


def prepare(parameters: Mapping[str, Any]) -> None:
    """Brings the tables up to date, one process at a time. Raises StoreUnusable or StoreUnavailable."""
    try:
        with make_engine(parameters).connect() as connection:
            _check_server(connection)
            if is_current(connection):
                return
            connection.rollback()
            with connection.begin():
                _set(connection, _MIGRATION_TIMEOUTS, local=True)
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (MIGRATIONS,))
                migrate(connection)
    except (DBAPIError, psycopg.Error) as error:
        raise told(error, place(parameters)) from error


def make_engine(parameters: Mapping[str, Any], *, writes: bool = True) -> Engine:
    """Connections that belong to whoever opens them. Without `writes` each statement stands alone: a read
    needs no transaction, nor the two round trips that one costs."""
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: _connect(parameters),
        poolclass=NullPool,
        isolation_level="READ COMMITTED" if writes else "AUTOCOMMIT",
        use_native_hstore=False,
        hide_parameters=True,
    )


def _connect(parameters: Mapping[str, Any]) -> psycopg.Connection[Any]:
    connection = psycopg.connect(autocommit=True, **parameters)
    try:
        settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _TIMEOUTS.items())
        connection.execute(f"SELECT {settings}".encode())
    except BaseException:
        connection.close()
        raise
    return connection


def _set(connection: Connection, settings: Mapping[str, str], *, local: bool) -> None:
    for name, value in settings.items():
        connection.exec_driver_sql("SELECT set_config(%s, %s, %s)", (name, value, local))


def _check_server(connection: Connection) -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    if driver.info.server_version < OLDEST * 10_000:
        raise StoreUnusable(
            f"PostgreSQL {driver.info.server_version // 10_000} is too old; use {OLDEST} or newer"
        )
    encoding = driver.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreUnusable(f"the database's encoding is {encoding}; create one with ENCODING 'UTF8'")


def _together(connection: Connection, jobs: Sequence[Job]) -> Sequence[Outcome]:
    awaited = _awaited(jobs)
    write_units(connection, [job.unit for job in awaited if job.unit is not None])
    return [Outcome(job, job.work(connection) if job.work else None) for job in awaited]


def _one_by_one(connection: Connection, jobs: Sequence[Job], waited: bool) -> Sequence[Outcome]:
    if waited:
        _set(connection, _TIMEOUTS_ALONE, local=True)
    return [_alone(connection, job) for job in _awaited(jobs)]


def _awaited(jobs: Sequence[Job]) -> Sequence[Job]:
    """Without those that were given up, when this is not the first try."""
    return [job for job in jobs if not job.future.cancelled()]


def _alone(connection: Connection, job: Job) -> Outcome:
    try:
        with connection.begin_nested():
            if job.unit is not None:
                write_alone(connection, job.unit)
            return Outcome(job, job.work(connection) if job.work else None)
    except Exception as error:
        if is_away(error) and not is_timeout(error):  # of the whole transaction
            raise
        return Outcome(job, error=error)


def _read(session: Session, jobs: Sequence[Job]) -> Sequence[Outcome]:
    return [Outcome(job, session.run(job.work) if job.work else None) for job in jobs]


def _future() -> asyncio.Future[Any]:  # Any: as jobs
    return asyncio.get_running_loop().create_future()
