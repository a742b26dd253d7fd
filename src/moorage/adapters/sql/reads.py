"""Reads: each a function on one connection, with statements built once.

What serves a user takes the organization and has it in the statement, so that a foreign id finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, bindparam, null, select, tuple_

from moorage.adapters.paging import Position, decode_cursor, encode_cursor
from moorage.adapters.row_codec import maybe_instant
from moorage.adapters.sql import tables
from moorage.adapters.sql.kinds import (
    API_KEY,
    DELIVERY,
    DEPLOYMENT,
    EVENT_CODEC,
    PROVIDER_CREDENTIAL,
    Kind,
)
from moorage.domain.delivery import Delivery
from moorage.domain.deployment import Deployment
from moorage.domain.event import Event
from moorage.domain.identity import ApiKey, ProviderCredential
from moorage.domain.job import Job
from moorage.ports.store import DeliveryFilter, DeploymentFilter, Page, Row

R = TypeVar("R", bound=Row)

# One test of a row in a WHERE.
Condition: TypeAlias = ColumnElement[bool]


def row_by(connection: Connection, kind: Kind[R], column: str, value: str) -> R | None:
    """The one row that has `value` in a unique column. For kinds without `due_at`."""
    body = connection.execute(_body_by(kind, column), {"value": value}).scalar()
    return None if body is None else kind.codec.load(body)


def deployment(connection: Connection, deployment_id: str, organization_id: str | None) -> Deployment | None:
    row = connection.execute(_DEPLOYMENT_BY_ID, {"value": deployment_id}).first()
    if row is None or (organization_id is not None and row.organization_id != organization_id):
        return None
    return due(DEPLOYMENT, row.body, row.due_at)


def deployment_named(connection: Connection, organization_id: str, name: str) -> Deployment | None:
    parameters = {"organization_id": organization_id, "name": name}
    row = connection.execute(_DEPLOYMENT_NAMED, parameters).first()
    return None if row is None else due(DEPLOYMENT, row.body, row.due_at)


def serving(connection: Connection, ids: Sequence[str] | None) -> Sequence[Deployment]:
    statement = _SERVING if ids is None else _SERVING.where(_D.id.in_(ids))
    return [due(DEPLOYMENT, row.body, row.due_at) for row in connection.execute(statement)]


def serving_versions(connection: Connection) -> Mapping[str, int]:
    return {row.id: row.version for row in connection.execute(_SERVING_VERSIONS)}


def deployments(
    connection: Connection, organization_id: str, where: DeploymentFilter, cursor: str | None, limit: int
) -> Page[Deployment]:
    columns = tables.deployments.c
    conditions = [columns.organization_id == organization_id]
    if where.phases:
        conditions.append(columns.phase.in_(sorted(phase.value for phase in where.phases)))
    for column, value in (("provider", where.provider), ("model", where.model), ("name", where.name)):
        if value is not None:
            conditions.append(columns[column] == value)
    return page(connection, DEPLOYMENT, conditions, cursor, limit)


def delivery(connection: Connection, delivery_id: str, organization_id: str) -> Delivery | None:
    parameters = {"id": delivery_id, "organization_id": organization_id}
    row = connection.execute(_DELIVERY, parameters).first()
    return None if row is None else due(DELIVERY, row.body, row.due_at)


def deliveries(
    connection: Connection, organization_id: str, where: DeliveryFilter, cursor: str | None, limit: int
) -> Page[Delivery]:
    columns = tables.deliveries.c
    conditions = [columns.organization_id == organization_id]
    if where.state is not None:
        conditions.append(columns.state == where.state)
    if where.subject_id is not None:
        conditions.append(columns.subject_id == where.subject_id)
    return page(connection, DELIVERY, conditions, cursor, limit)


def events(connection: Connection, subject_id: str, after: str | None, limit: int) -> Sequence[Event]:
    parameters = {"subject_id": subject_id, "after": after or "", "limit": limit}
    return [EVENT_CODEC.load(body) for body in connection.execute(_EVENTS, parameters).scalars()]


def api_key(connection: Connection, key_id: str, organization_id: str) -> ApiKey | None:
    key = row_by(connection, API_KEY, "id", key_id)
    return key if key is not None and key.organization_id == organization_id else None


def api_keys(connection: Connection, organization_id: str) -> Sequence[ApiKey]:
    bodies = connection.execute(_API_KEYS, {"organization_id": organization_id}).scalars()
    return [API_KEY.codec.load(body) for body in bodies]


def provider_credentials(
    connection: Connection, organization_id: str | None, provider: str | None
) -> Sequence[ProviderCredential]:
    columns = tables.provider_credentials.c
    statement = select(columns.body).order_by(columns.created_at, columns.id)
    for column, value in ((columns.organization_id, organization_id), (columns.provider, provider)):
        if value is not None:
            statement = statement.where(column == value)
    return [PROVIDER_CREDENTIAL.codec.load(body) for body in connection.execute(statement).scalars()]


def due(kind: Kind[R], body: str, due_at: int | None) -> R:
    """The value in `body`; where it can be due, with `due_at` from its column: a wake writes there alone."""
    row = kind.codec.load(body)
    instant = maybe_instant(due_at)
    if not isinstance(row, Deployment | Delivery | Job) or row.due_at == instant:
        return row
    return replace(row, due_at=instant)


def page(
    connection: Connection, kind: Kind[R], conditions: Sequence[Condition], cursor: str | None, limit: int
) -> Page[R]:
    """Newest first. One row more than asked for is read, to know whether another page follows."""
    columns = kind.table.c
    position = tuple_(columns.created_at, columns.id)
    due_at = columns.due_at if kind.leased else null().label("due_at")
    statement = select(columns.created_at, columns.id, columns.body, due_at).where(*conditions)
    if cursor is not None:
        last = decode_cursor(cursor)
        statement = statement.where(position < tuple_(last.created_at, last.id))
    statement = statement.order_by(columns.created_at.desc(), columns.id.desc()).limit(limit + 1)
    rows = connection.execute(statement).all()
    items = tuple(due(kind, row.body, row.due_at) for row in rows[:limit])
    if len(rows) <= limit or not items:
        return Page(items, None)
    return Page(items, encode_cursor(Position(rows[limit - 1].created_at, rows[limit - 1].id)))


@cache
def _body_by(kind: Kind[Any], column: str) -> Select[str]:  # Any: every kind has these columns
    return select(kind.table.c.body).where(kind.table.c[column] == bindparam("value"))


_D = tables.deployments.c
_DEPLOYMENT_BY_ID = select(_D.body, _D.due_at, _D.organization_id).where(_D.id == bindparam("value"))
_DEPLOYMENT_NAMED = select(_D.body, _D.due_at).where(
    _D.organization_id == bindparam("organization_id"), _D.held_name == bindparam("name")
)
_SERVING = select(_D.body, _D.due_at).where(tables.SERVING).order_by(_D.id)
_SERVING_VERSIONS = select(_D.id, _D.version).where(tables.SERVING)

_V = tables.deliveries.c
_DELIVERY = select(_V.body, _V.due_at).where(
    _V.id == bindparam("id"), _V.organization_id == bindparam("organization_id")
)

_E = tables.events.c
_EVENTS = (
    select(_E.body)
    .where(_E.subject_id == bindparam("subject_id"), _E.id > bindparam("after"))
    .order_by(_E.id)
    .limit(bindparam("limit"))
)

_K = tables.api_keys.c
_API_KEYS = (
    select(_K.body).where(_K.organization_id == bindparam("organization_id")).order_by(_K.created_at, _K.id)
)
