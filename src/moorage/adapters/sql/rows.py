"""Units of work: writes made ready outside the database, then executed together.

Everything slow (JSON) and everything that can be wrong with a value happens in `prepare`, before a
transaction is open. `write_units` then writes any number of units in few statements: rows for one table go in
one statement, whichever unit they are of. That reorders writes of units that came at the same moment, which
no caller can tell from their having come in that order, because all of them succeed or none does: when one
fails, the units run again one after another (`write_alone`), and that run decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    Update,
    and_,
    bindparam,
    case,
    func,
    insert,
    null,
    select,
    update,
)
from sqlalchemy import Insert as TableInsert
from sqlalchemy.exc import IntegrityError

from moorage.adapters.sql import tables
from moorage.adapters.sql.kinds import Kind, Value, event_values, kind_of
from moorage.domain.event import Event
from moorage.errors import AlreadyExists, StaleWrite
from moorage.ports import store as ports
from moorage.ports.store import Append, Insert, Row, Write

# Columns that no update changes: leaving them out leaves their indexes alone.
_FIXED = frozenset(
    {
        "id",
        "organization_id",
        "subject_id",
        "deployment_id",
        "cluster_id",
        "model_version",
        "created_at",
        "rank",
        "size",
    }
)


@dataclass(frozen=True, slots=True)
class Inserted:
    """`kind` is None for an event, which is never changed and has its id within its subject."""

    table: Table
    values: dict[str, Value]
    kind: Kind[Row] | None


@dataclass(frozen=True, slots=True)
class Updated:
    statement: Update
    parameters: dict[str, Value]
    values: dict[str, Value]
    kind: Kind[Row]


Prepared = Inserted | Updated
Unit = Sequence[Prepared]


def prepare(writes: Sequence[Write]) -> Unit:
    """Raises ValueError for an update with a lease of a row that cannot be leased."""
    return [_prepare(write) for write in writes]


def prepare_event(event: Event) -> Inserted:
    return Inserted(tables.events, event_values(event), None)


def write_units(connection: Connection, units: Sequence[Unit]) -> None:
    """Writes all units or raises: IntegrityError or StaleWrite, and then the transaction must be undone."""
    inserts: dict[Table, list[dict[str, Value]]] = {}
    updates: list[Updated] = []
    for unit in units:
        for write in unit:
            if isinstance(write, Inserted):
                inserts.setdefault(write.table, []).append(write.values)
            else:
                updates.append(write)
    for table, rows in inserts.items():
        connection.execute(_insert(table), rows)
    for statement, same in _by_statement(updates).items():
        _update(connection, statement, same)


def write_alone(connection: Connection, unit: Unit) -> None:
    """One unit, write by write, to learn which of them cannot be: raises AlreadyExists or StaleWrite.

    To be called inside a savepoint or transaction of its own, which the caller undoes after an error.
    """
    for write in unit:
        try:
            with connection.begin_nested():
                if isinstance(write, Inserted):
                    connection.execute(_insert(write.table), [write.values])
                else:
                    _update(connection, write.statement, [write])
        except IntegrityError as error:
            raise _clash(connection, write) from error


def _prepare(write: Write) -> Prepared:
    match write:
        case Append(event):
            return prepare_event(event)
        case Insert(row):
            kind = kind_of(row)
            return Inserted(kind.table, kind.values(row, 1), kind)
        case ports.Update(row, lease, release):
            return _prepare_update(row, lease, release)


def _prepare_update(row: Row, lease: str | None, release: bool) -> Updated:
    kind = kind_of(row)
    if lease is not None and not kind.leased:
        raise ValueError(f"a row of kind {kind.name} cannot be leased; update it without a lease")
    values = kind.values(row, row.version + 1)
    changed = tuple(name for name in values if name not in _FIXED)
    parameters: dict[str, Value] = {f"new_{name}": values[name] for name in changed}
    parameters |= {"row_id": row.id, "read_version": row.version}
    if lease is not None:
        parameters["held_by"] = lease
    statement = _update_statement(kind.table, changed, lease is not None, release and kind.leased)
    return Updated(statement, parameters, values, kind)


@cache
def _insert(table: Table) -> TableInsert:
    return insert(table)


@cache
def _update_statement(table: Table, changed: tuple[str, ...], leased: bool, release: bool) -> Update:
    """Compare-and-set on id, version and, if asked for, the lease."""
    columns = table.c
    match = and_(columns.id == bindparam("row_id"), columns.version == bindparam("read_version"))
    # Any: columns of several types
    changes: dict[str, ColumnElement[Any]] = {name: bindparam(f"new_{name}") for name in changed}
    if leased:
        match = and_(match, columns.lease_token == bindparam("held_by"))
        if "woken_at" in columns:
            # A wake that came after the claim was not seen by its holder: it stands.
            due_at: ColumnElement[Any] = func.coalesce(columns.woken_at, bindparam("new_due_at"))
            if "expires_at" in columns:  # a job that is over stays so
                over = bindparam("new_expires_at", type_=columns.expires_at.type).is_(None)
                due_at = case((over, null()), else_=due_at)
            changes["due_at"] = due_at
    if release:
        changes["lease_token"] = null()
        changes["lease_until"] = null()
    if "held_name" in columns:
        # Once free a name is not taken back, even when a failed deployment is later being deleted.
        changes["held_name"] = case((columns.held_name.is_(None), null()), else_=bindparam("new_held_name"))
    return update(table).where(match).values(changes)


def _by_statement(updates: Sequence[Updated]) -> dict[Update, list[Updated]]:
    """In the order of their ids: processes that update the same rows then wait for each other in one
    direction, and none of them has to give way."""
    ordered: dict[Update, list[Updated]] = {}
    for write in sorted(updates, key=lambda write: str(write.values["id"])):
        ordered.setdefault(write.statement, []).append(write)
    return ordered


def _update(connection: Connection, statement: Update, writes: Sequence[Updated]) -> None:
    """All of them in one hop to the database. Each can change one row at most, so the sum tells."""
    changed = connection.execute(statement, [write.parameters for write in writes]).rowcount
    if changed != len(writes):
        first = writes[0]
        raise StaleWrite(
            f"{first.kind.name} {first.values['id']} is not at version {first.parameters['read_version']},"
            " or its lease is another's; read it again and decide again"
        )


def _clash(connection: Connection, write: Prepared) -> AlreadyExists:
    """Which key it was: the unique one when another row has it, the id otherwise."""
    values = write.values
    if write.kind is None:
        return AlreadyExists("event", str(values["id"]))
    id_ = str(values["id"])
    same_key = write.kind.unique_key(values)
    if same_key and write.kind.unique is not None:
        other = select(write.kind.table.c.id).where(*same_key, write.kind.table.c.id != id_)
        if connection.execute(other).first() is not None:
            told = write.kind.unique.told
            return AlreadyExists(write.kind.name, " ".join(str(values[name]) for name in told) or id_)
    return AlreadyExists(write.kind.name, id_)
