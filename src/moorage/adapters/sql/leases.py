"""Leases: who may work on what until when. Each claim is one statement, so that no two claims overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    case,
    func,
    insert,
    not_,
    null,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from moorage.adapters.row_codec import from_micros, to_micros
from moorage.adapters.sql import tables
from moorage.adapters.sql.kinds import Kind
from moorage.adapters.sql.reads import due
from moorage.domain.delivery import Delivery
from moorage.domain.deployment import Deployment
from moorage.domain.job import Job
from moorage.ports.store import ABSENCE, Claimable, Lease

L = TypeVar("L", Deployment, Delivery, Job)

_ABSENCE = ABSENCE // timedelta(microseconds=1)

_LEASED: dict[Claimable, Table] = {
    "deployments": tables.deployments,
    "deliveries": tables.deliveries,
    "jobs": tables.jobs,
}


def claim(
    connection: Connection, kind: Kind[L], lease: Lease, now: datetime, limit: int, home: str | None = None
) -> Sequence[L]:
    parameters: dict[str, str | int | None] = {
        "token": lease.token,
        "until": to_micros(lease.until),
        "now": to_micros(now),
        "limit": limit,
    }
    if "home" in kind.table.c:
        parameters["machine"] = home
    rows = connection.execute(_claim(kind.table), parameters).all()
    # RETURNING keeps no order.
    return [due(kind, row.body, row.due_at) for row in sorted(rows, key=lambda row: (row.due_at, row.id))]


def claim_duty(connection: Connection, duty: str, lease: Lease, now: datetime) -> bool:
    values = {"lease_token": lease.token, "lease_until": to_micros(lease.until)}
    columns = tables.duties.c
    if connection.execute(select(columns.name).where(columns.name == duty)).first() is None:
        try:
            with connection.begin_nested():
                connection.execute(insert(tables.duties), {"name": duty, **values})
        except IntegrityError:  # somebody was quicker
            return False
        return True
    taken = update(tables.duties).where(columns.name == duty, columns.lease_until <= to_micros(now))
    return connection.execute(taken.values(values)).rowcount == 1


def renew(
    connection: Connection, kind: Claimable, held: Mapping[str, str], until: datetime
) -> tuple[frozenset[str], bool]:
    """The ids that are still held, and whether any is free sooner than it would have been."""
    table, end = _LEASED[kind], to_micros(until)
    still_held = tuple_(table.c.id, table.c.lease_token).in_(list(held.items()))
    latest = connection.execute(select(func.max(table.c.lease_until)).where(still_held)).scalar()
    renewed = update(table).where(still_held).values(lease_until=end).returning(table.c.id)
    return frozenset(connection.execute(renewed).scalars()), latest is not None and latest > end


def wake(connection: Connection, deployment_ids: Sequence[str], now: datetime) -> None:
    """`due_at` for the next claim; `woken_at` so that the write of a holder, who has not seen what the wake
    is about, does not put it off (`rows`)."""
    columns, at = tables.deployments.c, to_micros(now)
    sooner = case((columns.due_at < at, columns.due_at), else_=at)
    statement = update(tables.deployments).where(columns.id.in_(deployment_ids))
    connection.execute(statement.values(due_at=sooner, woken_at=at))


def next_due(
    connection: Connection, kind: Claimable, now: datetime, home: str | None = None
) -> datetime | None:
    table = _LEASED[kind]
    parameters = {"machine": home} if "home" in table.c else {}
    found = [connection.execute(query, parameters).scalar() for query in _next_due(table)]
    moments = [moment for moment in found if moment is not None]
    return max(from_micros(min(moments)), now) if moments else None


@cache
def _claim(table: Table) -> Update:
    columns = table.c
    free = or_(columns.lease_until.is_(None), columns.lease_until <= bindparam("now"))
    chosen = (
        select(columns.id)
        .where(columns.due_at <= bindparam("now"), free)
        .order_by(columns.due_at, columns.id)
        .limit(bindparam("limit"))
        .with_for_update(skip_locked=True)  # SQLite has one writer at a time and leaves this out
    )
    if "home" in columns:
        chosen = chosen.where(_due_here(table) <= bindparam("now"))
    changes: dict[str, ColumnElement[Any]] = {  # Any: columns of several types
        "lease_token": bindparam("token"),
        "lease_until": bindparam("until"),
    }
    if "woken_at" in columns:
        changes["woken_at"] = null()
    # As a subquery PostgreSQL may run it once for each row that it looks at, and lock more than the limit.
    once = chosen.cte("chosen")
    statement = update(table).where(columns.id.in_(select(once.c.id))).values(changes)
    return statement.returning(columns.id, columns.body, columns.due_at)


@cache
def _next_due(table: Table) -> Sequence[Select[int]]:
    """Of the rows that nobody holds (the due index from its start), and of the few that somebody holds."""
    columns = table.c
    free = (
        select(columns.due_at)
        .where(columns.due_at.is_not(None), columns.lease_token.is_(None))
        .order_by(columns.due_at)
        .limit(1)
    )
    due_at = _due_here(table)
    later = case((columns.lease_until > due_at, columns.lease_until), else_=due_at)
    held = select(func.min(later)).where(columns.lease_token.is_not(None), columns.due_at.is_not(None))
    if "home" not in columns:
        return free, held
    elsewhere = free.with_only_columns(due_at).where(_elsewhere(table))
    return free.where(not_(_elsewhere(table))), held, elsewhere


def _elsewhere(table: Table) -> ColumnElement[bool]:
    """Whether a row is at home on another machine than the one that asks."""
    return and_(table.c.home.is_not(None), table.c.home.is_distinct_from(bindparam("machine")))


def _due_here(table: Table) -> ColumnElement[int]:
    """When a row may be claimed by the machine that asks, if nobody holds it."""
    if "home" not in table.c:
        return table.c.due_at
    return case((_elsewhere(table), table.c.due_at + _ABSENCE), else_=table.c.due_at)
