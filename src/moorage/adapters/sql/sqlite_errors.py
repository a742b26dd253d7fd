"""What SQLite's errors mean, and waiting for another process's transaction longer than SQLite itself does."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, OperationalError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

from moorage.errors import StoreError, StoreUnavailable, StoreUnusable

T = TypeVar("T")

_UNUSABLE = frozenset(
    {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
)
_AWAY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
RETRIES = 5  # of up to the busy timeout each: half a minute in all


def is_busy(error: BaseException) -> bool:
    """Whether another connection was in the way, so that the same transaction may pass later."""
    cause = error.orig if isinstance(error, OperationalError) else error
    return isinstance(cause, sqlite3.OperationalError) and _code(cause) == sqlite3.SQLITE_BUSY


def _code(error: sqlite3.Error) -> int:
    """The primary code, which is the lower byte: BUSY_SNAPSHOT, BUSY_RECOVERY and the like are kinds of
    busy. 0 for what the driver itself says."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def told(error: Exception, path: Path | str = "the database") -> Exception:
    """As it leaves the adapter; the driver's words hold no values."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, OSError):
        result: StoreError = StoreUnusable(
            f"{path} cannot be used: {cause.strerror}. Give a file that can be made"
        )
    elif not isinstance(cause, sqlite3.Error):
        return error
    elif _code(cause) in _UNUSABLE:
        result = StoreUnusable(f"{path} cannot be used: {cause}. Give another file, or restore a backup")
    elif _code(cause) in _AWAY:
        result = StoreUnavailable(f"{path} cannot be used now: {cause}")
    else:
        result = StoreError(f"the database could not do it: {cause}")
    result.__cause__ = error
    return result


def retry_while_busy(attempt: Callable[[], T]) -> T:
    """Runs a whole transaction, again when it met a lock. It blocks: for threads of ours only."""
    try:
        return (
            attempt()
        )  # nearly always that is all, and it is every read: the machinery of retries costs more
    except (OperationalError, sqlite3.OperationalError) as error:
        if not is_busy(error):
            raise
    retrying = Retrying(
        retry=retry_if_exception(is_busy),
        stop=stop_after_attempt(RETRIES),
        wait=wait_random(0, 0.05),
        reraise=True,
    )
    return retrying(attempt)
