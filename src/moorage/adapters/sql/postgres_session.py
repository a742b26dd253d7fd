"""One connection that one thread owns: opened when it is needed, and again after it broke."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from moorage.adapters.sql.database import Work
from moorage.adapters.sql.postgres_errors import is_conflict, is_lost
from moorage.errors import StoreUnavailable

T = TypeVar("T")

TRIES = 5  # of one transaction
PAUSE = 0.05  # seconds at most before one that met a conflict runs again


class Session:
    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._socket: socket.socket | None = None  # a second handle of the connection's
        self._lock = threading.Lock()  # of the handle

    def run(self, work: Work[T]) -> T:
        """Each statement on its own, again on a new connection if the first turned out to be broken."""

        def attempt(connection: Connection) -> T:
            try:
                return work(connection)
            finally:
                connection.rollback()  # says to SQLAlchemy alone that it is over

        return self._try(attempt)

    def transact(self, work: Work[T], *, last: Callable[[Connection, T], None]) -> T:
        """`work`, then `last` with what came of it, in a transaction. Runs it again after a conflict or when
        the connection broke before it was to be committed. Raises StoreUnavailable when it broke in the
        commit: what came of it then is not known."""

        def attempt(connection: Connection) -> T:
            transaction = connection.begin()
            try:
                result = work(connection)
                last(connection, result)
            except BaseException:
                with suppress(DBAPIError):
                    transaction.rollback()
                raise
            try:
                transaction.commit()
            except DBAPIError as error:
                if is_lost(error):
                    raise StoreUnavailable(
                        "the connection to PostgreSQL broke while it wrote; it may have been written"
                    ) from error
                raise
            return result

        return self._try(attempt)

    def interrupt(self) -> None:
        """Cuts the connection under whatever waits for it. From any thread."""
        with self._lock:
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(DBAPIError, psycopg.Error):
                connection.close()

    def _try(self, attempt: Work[T]) -> T:
        for left in reversed(range(TRIES)):
            connection = self._open()
            try:
                return attempt(connection)
            except Exception as error:
                if connection.invalidated or is_lost(error):
                    self.close()
                elif not is_conflict(error):
                    raise
                if isinstance(error, StoreUnavailable) or not left:
                    raise
                if is_conflict(error):
                    time.sleep(random.uniform(0, PAUSE))
        raise AssertionError("the last try returns or raises")

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
            driver = self._connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            with self._lock:
                self._socket = socket.socket(fileno=os.dup(driver.fileno()))
        return self._connection
