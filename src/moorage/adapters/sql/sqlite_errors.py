"""Waiting for another process's transaction, beyond what SQLite itself waits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import OperationalError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

T = TypeVar("T")

RETRIES = 5  # of up to the busy timeout each: half a minute in all


def is_busy(error: BaseException) -> bool:
    """Whether another connection was in the way, so that the same transaction may pass later."""
    cause = error.orig if isinstance(error, OperationalError) else error
    # The lower byte is the primary code; BUSY_SNAPSHOT, BUSY_RECOVERY and the like are kinds of busy.
    return (
        isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    )


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
