"""SQLite, so that one process serves thousands of durable commits a second.

A commit costs a sync of the disk and a thread hop costs a switch, so neither is spent per unit of work: one
thread writes, and commits all units that wait as one transaction (group commit); one thread reads, and
answers all reads that wait in one hop. Each thread owns its connection. Several processes may share the file:
SQLite's write lock orders their transactions.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from moorage.adapters.sql.database import Work
from moorage.adapters.sql.migrate import migrate
from moorage.adapters.sql.rows import Unit
from moorage.adapters.sql.sqlite_errors import is_busy, retry_while_busy, told
from moorage.adapters.sql.sqlite_reader import Reader
from moorage.adapters.sql.sqlite_writer import Writer

T = TypeVar("T")

LOCK_STEP = (0.0002, 0.001)  # seconds between two tries to take the write lock
BUSY_TIMEOUT = 5.0  # seconds that one try of a transaction waits for another process's


class SqliteDatabase:
    """A `Database` on one file."""

    def __init__(self, path: Path) -> None:
        self._changed: set[asyncio.Event] = set()
        self._closed = False
        loop = asyncio.get_running_loop()
        self._writer = Writer(make_engine(path, writes=True).connect, loop, self._tell_change)
        self._reader = Reader(make_engine(path, writes=False).connect, loop)

    @classmethod
    async def open(cls, url: str) -> SqliteDatabase:
        """Raises ValueError for a URL without a file, StoreUnusable and StoreUnavailable."""
        path = file_of(url)
        try:
            await asyncio.to_thread(prepare_file, path)
        except (OSError, sqlite3.Error, DBAPIError) as error:
            raise told(error, path) from error
        return cls(path)

    async def read(self, work: Work[T]) -> T:
        return await self._reader.run(work)

    async def write(self, work: Work[T], *, quiet: bool | Callable[[T], bool] = False) -> T:
        return await self._writer.run(work)

    async def commit(self, unit: Unit) -> None:
        if unit:
            await self._writer.commit(unit)

    async def changes(self) -> AsyncIterator[None]:
        """SQLite has no signal between processes. While somebody listens, the writer's connection is asked a
        few times a second whether another connection has committed; its own commits do not count there."""
        changed = asyncio.Event()
        self._changed.add(changed)
        self._writer.watch(True)
        try:
            while not self._closed:
                await changed.wait()
                changed.clear()
                if not self._closed:
                    yield None
        finally:
            self._changed.discard(changed)
            self._writer.watch(bool(self._changed))

    async def aclose(self) -> None:
        """Finishes what waits, then closes. Iterators of `changes` end."""
        self._closed = True
        self._tell_change()
        self._writer.close()
        self._reader.close()
        await asyncio.gather(asyncio.to_thread(self._writer.join), asyncio.to_thread(self._reader.join))

    def _tell_change(self) -> None:
        for changed in self._changed:
            changed.set()


def file_of(url: str) -> Path:
    """Raises ValueError unless `url` is SQLite's with a file: the threads and processes have to share it."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError("the database URL is none; give sqlite:////path/to.db") from error
    if parsed.get_backend_name() != "sqlite":
        raise ValueError(
            f"database {parsed.get_backend_name()!r} is not supported; give sqlite:////path/to.db"
        )
    if parsed.database in (None, "", ":memory:") or parsed.query:
        raise ValueError("the SQLite URL must name a file and have no options: sqlite:////path/to.db")
    return Path(str(parsed.database))


def prepare_file(path: Path) -> None:
    """Makes folder and file, for the owner's eyes only, and brings the tables up to date."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    retry_while_busy(lambda: _use_wal(path))
    with make_engine(path, writes=True).connect() as connection:
        retry_while_busy(lambda: _migrate(connection))


def make_engine(path: Path, *, writes: bool) -> Engine:
    """Connections that belong to the thread that opens them. With `writes`, every transaction takes the
    write lock at its beginning, where waiting for it is safe; without, nothing is ever locked."""
    engine = create_engine(
        f"sqlite:///{path}", poolclass=NullPool, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT}
    )
    # One statement for all rows of a batch: sqlite3 lets go of the GIL at each row of an `executemany`, and a
    # busy event loop takes milliseconds to give it back.
    engine.dialect.use_insertmanyvalues_wo_returning = True
    event.listen(engine, "connect", _configure)
    if writes:
        event.listen(engine, "begin", _begin)
    return engine


def _configure(dbapi_connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    dbapi_connection.isolation_level = None  # the driver is to open no transactions of its own
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")  # a commit is on disk when it returns, in WAL mode too
    cursor.close()


def _begin(connection: Connection) -> None:
    """Takes the write lock. SQLite's own waiting sleeps ever longer, up to 100 ms, and so a process that
    writes all the time would starve the others; short steps give each its turn."""
    _wait_at_most(connection, 0)
    try:
        end = time.monotonic() + BUSY_TIMEOUT
        while not _try_begin(connection, last=time.monotonic() >= end):
            time.sleep(random.uniform(*LOCK_STEP))
    finally:
        _wait_at_most(connection, BUSY_TIMEOUT)


def _try_begin(connection: Connection, *, last: bool) -> bool:
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    except OperationalError as error:
        if last or not is_busy(error):
            raise
        return False
    return True


def _wait_at_most(connection: Connection, seconds: float) -> None:
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(seconds * 1000)}")


def _use_wal(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def _migrate(connection: Connection) -> None:
    with connection.begin():
        migrate(connection)
