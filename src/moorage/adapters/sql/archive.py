"""All rows of a collection as they lie, and back: how a store is moved to another one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, insert, null, select, tuple_
from sqlalchemy.exc import IntegrityError

from moorage.adapters.sql import tables
from moorage.adapters.sql.kinds import DEPLOYMENT, EVENT_CODEC, Kind, kind_named
from moorage.adapters.sql.reads import due
from moorage.adapters.sql.rows import Inserted, prepare_event, write_alone
from moorage.domain.event import Event
from moorage.ports.store import Collection, Stored

LIMIT = 500  # rows restored at once


def stored(connection: Connection, collection: Collection, after: str | None, limit: int) -> Sequence[Stored]:
    if collection == "event":
        return _events(connection, after, limit)
    kind = kind_named(collection)
    rows = connection.execute(_stored(kind), {"after": after or "", "limit": limit})
    return [Stored(due(kind, row.body, row.due_at), row.holds_name is not None) for row in rows]


def prepare(collection: Collection, rows: Sequence[Stored]) -> Sequence[Inserted]:
    """Raises ValueError for too many."""
    if len(rows) > LIMIT:
        raise ValueError(f"{len(rows)} rows are to be restored at once; give at most {LIMIT}")
    return [_prepare(collection, stored) for stored in rows]


def restore(connection: Connection, rows: Sequence[Inserted]) -> None:
    """Raises AlreadyExists where another row has the same unique key; then the transaction must be undone."""
    if not rows:
        return
    table = rows[0].table
    key = tuple(table.primary_key.columns)
    there = [tuple(row.values[column.name] for column in key) for row in rows]
    connection.execute(delete(table).where(tuple_(*key).in_(there)))
    try:
        with connection.begin_nested():
            connection.execute(insert(table), [row.values for row in rows])
    except IntegrityError:
        write_alone(connection, rows)


def _events(connection: Connection, after: str | None, limit: int) -> Sequence[Stored]:
    """By subject and id, as their index has them. That is the order of their keys, `subject/id`, as no
    subject's id begins with the whole of another's."""
    subject, _, id_ = (after or "").rpartition("/")
    rows = connection.execute(_EVENTS, {"subject": subject, "id": id_, "limit": limit})
    return [Stored(EVENT_CODEC.load(body)) for body in rows.scalars()]


def _prepare(collection: Collection, stored: Stored) -> Inserted:
    row = stored.row
    if isinstance(row, Event):
        return prepare_event(row)
    kind = kind_named(collection)
    values = kind.values(row, row.version)
    if kind is DEPLOYMENT and not stored.holds_name:
        values["held_name"] = None
    return Inserted(kind.table, values, kind)


@cache
def _stored(kind: Kind[Any]) -> Select[Any]:  # Any: the row's columns differ by kind
    columns = kind.table.c
    due_at = columns.due_at if kind.leased else null()
    holds_name = columns.held_name if kind is DEPLOYMENT else null()
    return (
        select(columns.body, due_at.label("due_at"), holds_name.label("holds_name"))
        .where(columns.id > bindparam("after"))
        .order_by(columns.id)
        .limit(bindparam("limit"))
    )


_E = tables.events.c
_EVENTS = (
    select(_E.body)
    .where(tuple_(_E.subject_id, _E.id) > tuple_(bindparam("subject"), bindparam("id")))
    .order_by(_E.subject_id, _E.id)
    .limit(bindparam("limit"))
)
