"""What PostgreSQL's errors mean to the caller: ask again later, never, or that it was ours.

A server's SQLSTATE decides. An error in connecting has none, as the client library drops it; there the words
decide, and words in another language than English count as an outage.
"""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError

from moorage.errors import StoreError, StoreUnavailable, StoreUnusable

_CONFLICTS = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_TIMEOUTS = frozenset({"55P03", "57014"})  # of a lock, of a statement
_FORBIDDEN = frozenset({"28000", "28P01", "3D000", "42501"})
_AWAY_CLASSES = ("08", "40", "53", "57", "58")  # connection, rollback, resources, operator, system
_AWAY = frozenset({"25006", "25P03", "25P04", "55P03"})  # a standby, times out in a transaction, lock timeout
_FORBIDDEN_WORDS = (
    "password authentication failed",
    "no password supplied",
    "authentication failed",
    "no pg_hba.conf entry",
    "permission denied",
    "does not exist",
    "not permitted to log in",
    "server does not support ssl",
    "certificate verify failed",
    "not currently accepting connections",
)


def is_conflict(error: BaseException) -> bool:
    """Whether the same transaction may pass when it runs again."""
    return isinstance(error, DBAPIError) and _state(error.orig) in _CONFLICTS


def is_lost(error: BaseException) -> bool:
    """Whether the connection has gone with it."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def is_timeout(error: BaseException) -> bool:
    """Whether a statement took too long, most often for a lock: of the rows that it was about alone."""
    return isinstance(error, DBAPIError) and not is_lost(error) and _state(error.orig) in _TIMEOUTS


def is_away(error: Exception) -> bool:
    """Whether the same may pass later."""
    return isinstance(told(error, ""), StoreUnavailable)


def told(error: Exception, place: str) -> Exception:
    """As it leaves the adapter. No values of rows are in it, and no password."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, psycopg.Error):
        return error
    state, words = _state(cause), _words(cause)
    if state in _FORBIDDEN or (state is None and _forbids(words)):
        result: StoreError = StoreUnusable(
            f"PostgreSQL does not let us use {place}: {words}. Set the database URL's user, password and"
            " database right, and give the user the right to create tables in it"
        )
    elif state == "57014":
        result = StoreUnavailable(f"PostgreSQL {place} took too long: {words}")
    elif is_lost(error) or _is_outage(cause, state):
        result = StoreUnavailable(f"PostgreSQL {place} cannot be used now: {words}")
    else:
        result = StoreError(f"the database could not do it: {words}")
    result.__cause__ = error
    return result


def _is_outage(cause: psycopg.Error, state: str | None) -> bool:
    if state is None:
        return isinstance(cause, psycopg.OperationalError)
    return state in _AWAY or state.startswith(_AWAY_CLASSES)


def _state(cause: BaseException | None) -> str | None:
    return cause.sqlstate if isinstance(cause, psycopg.Error) else None


def _forbids(words: str) -> bool:
    lower = words.lower()
    return any(word in lower for word in _FORBIDDEN_WORDS)


def _words(cause: psycopg.Error) -> str:
    """The first line alone: the details of an error quote rows."""
    told = cause.diag.message_primary or str(cause) or type(cause).__name__
    return told.strip().splitlines()[0]
