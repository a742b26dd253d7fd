"""Jobs in SQL: a queue for each deployment, so that a claim can be fair, and what a job's life ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Connection,
    bindparam,
    case,
    cast,
    delete,
    func,
    null,
    or_,
    select,
    tuple_,
    update,
)

from moorage.adapters.row_codec import from_micros, to_micros
from moorage.adapters.sql import tables
from moorage.adapters.sql.kinds import JOB
from moorage.adapters.sql.reads import due
from moorage.domain.job import Job, JobState, input_id, output_id
from moorage.domain.job_view import JobCounts
from moorage.ports.store import Backlog, Lease

_J = tables.jobs.c
_P = tables.job_payloads.c


def job(connection: Connection, job_id: str, organization_id: str) -> Job | None:
    row = connection.execute(_JOB, {"id": job_id, "organization_id": organization_id}).first()
    return None if row is None else due(JOB, row.body, row.due_at)


def counts(connection: Connection, deployment_id: str) -> JobCounts:
    rows = connection.execute(_COUNTS, {"deployment_id": deployment_id}).all()
    by_state = {JobState(row.state): row.jobs for row in rows}
    return JobCounts(by_state, sum(row.retries for row in rows))


def backlog(connection: Connection, deployment_id: str) -> Backlog:
    row = connection.execute(_BACKLOG, {"deployment_id": deployment_id}).one()
    return Backlog(row.jobs, row.bytes or 0)


def queued(connection: Connection, deployment_id: str, limit: int) -> Sequence[Job]:
    parameters = {"deployment_id": deployment_id, "limit": limit}
    return [due(JOB, row.body, row.due_at) for row in connection.execute(_QUEUED, parameters)]


def queues(connection: Connection, now: datetime) -> Sequence[str]:
    return list(connection.execute(_QUEUES, {"now": to_micros(now)}).scalars())


def claim(connection: Connection, wanted: Mapping[str, int], lease: Lease, now: datetime) -> Sequence[Job]:
    claimed: list[Job] = []
    for deployment_id, limit in wanted.items():
        parameters = {
            "deployment": deployment_id,
            "token": lease.token,
            "until": to_micros(lease.until),
            "now": to_micros(now),
            "limit": limit,
        }
        rows = connection.execute(_CLAIM, parameters).all()
        ordered = sorted(rows, key=lambda row: (row.rank, row.created_at, row.id))  # RETURNING keeps no order
        claimed += [due(JOB, row.body, row.due_at) for row in ordered]
    return claimed


def held(connection: Connection, held: Mapping[str, str]) -> frozenset[str]:
    statement = select(_J.id).where(tuple_(_J.id, _J.lease_token).in_(list(held.items())))
    return frozenset(connection.execute(statement).scalars())


def wake(connection: Connection, deployment_ids: Sequence[str], now: datetime) -> None:
    """As `leases.wake`; what is over sleeps on."""
    at = to_micros(now)
    sooner = case((_J.due_at < at, _J.due_at), else_=at)
    queue = (_J.deployment_id.in_(deployment_ids), _J.expires_at.is_not(None))
    connection.execute(update(tables.jobs).where(*queue).values(due_at=sooner, woken_at=at))


def next_moment(connection: Connection, after: datetime) -> datetime | None:
    found = [connection.execute(query, {"after": to_micros(after)}).scalar() for query in _NEXT]
    moments = [moment for moment in found if moment is not None]
    return from_micros(min(moments)) if moments else None


def expired(connection: Connection, now: datetime, limit: int) -> Sequence[Job]:
    rows = connection.execute(_EXPIRED, {"now": to_micros(now), "limit": limit})
    return [due(JOB, row.body, row.due_at) for row in rows]


def forget(connection: Connection, now: datetime, limit: int) -> int:
    ids = connection.execute(_FORGOTTEN, {"now": to_micros(now), "limit": limit}).scalars().all()
    if ids:
        payloads = [make(id_) for id_ in ids for make in (input_id, output_id)]
        connection.execute(delete(tables.job_payloads).where(_P.id.in_(payloads)))
        connection.execute(delete(tables.jobs).where(_J.id.in_(ids)))
    return len(ids)


_JOB = select(_J.body, _J.due_at).where(
    _J.id == bindparam("id"), _J.organization_id == bindparam("organization_id")
)
_OF_DEPLOYMENT = _J.deployment_id == bindparam("deployment_id")
_IN_QUEUE = _J.state == JobState.IN_QUEUE.value
_COUNTS = (
    select(_J.state, func.count().label("jobs"), func.sum(_J.retries).label("retries"))
    .where(_OF_DEPLOYMENT)
    .group_by(_J.state)
)
_BACKLOG = select(func.count().label("jobs"), cast(func.sum(_J.size), BigInteger).label("bytes")).where(
    _OF_DEPLOYMENT, _IN_QUEUE
)
_QUEUED = (
    select(_J.body, _J.due_at)
    .where(_OF_DEPLOYMENT, _IN_QUEUE)
    .order_by(_J.created_at, _J.id)
    .limit(bindparam("limit"))
)
_FREE = or_(_J.lease_until.is_(None), _J.lease_until <= bindparam("now"))
_QUEUES = select(_J.deployment_id).where(_J.due_at <= bindparam("now"), _FREE).distinct()
_CHOSEN = (
    select(_J.id)
    .where(_J.deployment_id == bindparam("deployment"), _J.due_at <= bindparam("now"), _FREE)
    .order_by(_J.rank, _J.created_at, _J.id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)  # SQLite has one writer at a time and leaves this out
    .cte("chosen")  # as in `leases`
)
_CLAIM = (
    update(tables.jobs)
    .where(_J.id.in_(select(_CHOSEN.c.id)))
    .values(lease_token=bindparam("token"), lease_until=bindparam("until"), woken_at=null())
    .returning(_J.id, _J.rank, _J.created_at, _J.body, _J.due_at)
)
_AFTER: BindParameter[int] = bindparam("after")
_NEXT = (
    select(func.min(_J.due_at)).where(_J.due_at > _AFTER),
    select(func.min(_J.expires_at)).where(_J.expires_at > _AFTER),
    select(func.min(_J.lease_until)).where(_J.lease_token.is_not(None), _J.lease_until > _AFTER),
)
_EXPIRED = (
    select(_J.body, _J.due_at)
    .where(_J.expires_at <= bindparam("now"))
    .order_by(_J.expires_at, _J.id)
    .limit(bindparam("limit"))
)
_FORGOTTEN = (
    select(_J.id)
    .where(_J.forget_at <= bindparam("now"))
    .order_by(_J.forget_at, _J.id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
