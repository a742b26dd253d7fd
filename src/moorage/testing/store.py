"""A store in memory, for tests of what stands on a store.

It keeps the whole contract (`store_contract`), uniqueness, leases and wakes included, and gives way to other
tasks before every operation, as a real one does: a race that the real one would show shows here too.
"""

from __future__ import annotations

import asyncio
from collections import ChainMap, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias, TypeVar

from moorage.domain.cluster import Cluster, NodeGroup
from moorage.domain.delivery import Delivery, Receiver, WebhookSecret
from moorage.domain.deployment import Deployment
from moorage.domain.event import Event
from moorage.domain.identity import ApiKey, IdempotencyRecord, Organization, ProviderCredential, User
from moorage.domain.job import Job, JobPayload
from moorage.domain.model_version import ModelVersion
from moorage.errors import AlreadyExists, StaleWrite
from moorage.ports.store import (
    ABSENCE,
    Append,
    Claimable,
    DeliveryFilter,
    DeploymentFilter,
    Insert,
    Lease,
    Page,
    Row,
    Update,
    Write,
    holds_name,
    home_of,
    is_routed,
    model_of,
    provider_of,
)
from moorage.testing.store_clusters import Brought
from moorage.testing.store_jobs import JobQueues
from moorage.testing.store_pages import page

R = TypeVar("R", bound=Row)
L = TypeVar("L", Deployment, Delivery)
Key: TypeAlias = tuple[str, ...]  # the kind, then what must be unique in it

_KINDS: dict[type, str] = {
    Organization: "organization",
    User: "user",
    ApiKey: "api_key",
    ProviderCredential: "provider_credential",
    IdempotencyRecord: "idempotency_record",
    Deployment: "deployment",
    Delivery: "delivery",
    Job: "job",
    JobPayload: "job_payload",
    Receiver: "receiver",
    WebhookSecret: "webhook_secret",
    Cluster: "cluster",
    NodeGroup: "node_group",
    ModelVersion: "model_version",
}
_CLAIMED: dict[Claimable, str] = {"deployments": "deployment", "deliveries": "delivery", "jobs": "job"}
_Leased = Deployment | Delivery | Job


@dataclass(frozen=True, slots=True)
class Cell:
    """A row, and what the store keeps beside it."""

    row: Row
    lease: Lease | None = None
    due_at: datetime | None = None
    woken_at: datetime | None = None
    holds_name: bool = False

    def free_at(self, home: str | None) -> datetime | None:
        """From when a claim for that machine finds it, if nothing else happens; None for never."""
        if self.due_at is None:
            return None
        due_at = self.due_at
        if isinstance(self.row, Deployment) and home_of(self.row) not in (None, home):
            due_at += ABSENCE
        return due_at if self.lease is None else max(due_at, self.lease.until)

    def claimable(self, now: datetime, home: str | None = None) -> bool:
        return (free_at := self.free_at(home)) is not None and free_at <= now


@dataclass(slots=True)
class Memory:
    """What stores share that are, as it were, several processes on one database."""

    cells: dict[Key, Cell] = field(default_factory=dict)
    taken: dict[Key, str | None] = field(default_factory=dict)  # unique key: the id that has it
    events: dict[str, dict[str, Event]] = field(default_factory=lambda: defaultdict(dict))
    duties: dict[str, Lease] = field(default_factory=dict)
    listeners: dict[asyncio.Event, MemoryStore] = field(default_factory=dict)


class MemoryStore(JobQueues, Brought):
    """A `moorage.ports.store.Store`. Give two of them one `Memory` to have two processes' views of it."""

    def __init__(self, memory: Memory | None = None) -> None:
        self._memory = memory or Memory()
        self._closed = False

    async def commit(self, writes: Sequence[Write]) -> None:
        await asyncio.sleep(0)
        unit = _Unit(self._memory)
        for write in writes:
            unit.write(write)
        unit.apply()
        self._tell_others()

    # -- reads

    async def deployment(self, deployment_id: str, organization_id: str | None = None) -> Deployment | None:
        found = await self._row(Deployment, deployment_id)
        foreign = found is not None and organization_id not in (None, found.organization_id)
        return None if foreign else found

    async def deployments(
        self, organization_id: str, where: DeploymentFilter, cursor: str | None, limit: int
    ) -> Page[Deployment]:
        def fits(row: Deployment) -> bool:
            return (
                row.organization_id == organization_id
                and (not where.phases or row.phase in where.phases)
                and where.provider in (None, provider_of(row))
                and where.model in (None, model_of(row))
                and where.name in (None, row.name)
            )

        return page([row for row in await self._rows(Deployment) if fits(row)], cursor, limit)

    async def deployment_named(self, organization_id: str, name: str) -> Deployment | None:
        id_ = self._memory.taken.get(("deployment", organization_id, name))
        return None if id_ is None else await self._row(Deployment, id_)

    async def serving(self, ids: Sequence[str] | None = None) -> Sequence[Deployment]:
        wanted = None if ids is None else frozenset(ids)
        routed = [row for row in await self._rows(Deployment) if is_routed(row)]
        return [row for row in routed if wanted is None or row.id in wanted]

    async def serving_versions(self) -> Mapping[str, int]:
        return {row.id: row.version for row in await self.serving()}

    async def events(self, subject_id: str, after: str | None, limit: int) -> Sequence[Event]:
        await asyncio.sleep(0)
        events = self._memory.events[subject_id]
        return [events[id_] for id_ in sorted(events) if id_ > (after or "")][:limit]

    async def delivery(self, delivery_id: str, organization_id: str) -> Delivery | None:
        found = await self._row(Delivery, delivery_id)
        return found if found is not None and found.organization_id == organization_id else None

    async def deliveries(
        self, organization_id: str, where: DeliveryFilter, cursor: str | None, limit: int
    ) -> Page[Delivery]:
        def fits(row: Delivery) -> bool:
            return (
                row.organization_id == organization_id
                and where.state in (None, row.state)
                and where.subject_id in (None, row.subject_id)
            )

        return page([row for row in await self._rows(Delivery) if fits(row)], cursor, limit)

    async def receiver(self, receiver_id: str) -> Receiver | None:
        return await self._row(Receiver, receiver_id)

    async def webhook_secret(self, organization_id: str) -> WebhookSecret | None:
        return await self._row(WebhookSecret, organization_id)

    async def organization(self, organization_id: str) -> Organization | None:
        return await self._row(Organization, organization_id)

    async def user_named(self, username: str) -> User | None:
        return next((user for user in await self._rows(User) if user.username == username), None)

    async def api_key(self, key_id: str, organization_id: str) -> ApiKey | None:
        found = await self._row(ApiKey, key_id)
        return found if found is not None and found.organization_id == organization_id else None

    async def api_key_by_hash(self, hash_: str) -> ApiKey | None:
        return next((key for key in await self._rows(ApiKey) if key.hash == hash_), None)

    async def api_keys(self, organization_id: str) -> Sequence[ApiKey]:
        keys = [key for key in await self._rows(ApiKey) if key.organization_id == organization_id]
        return sorted(keys, key=lambda key: (key.created_at, key.id))

    async def provider_credential(self, credential_id: str) -> ProviderCredential | None:
        return await self._row(ProviderCredential, credential_id)

    async def provider_credentials(
        self, *, organization_id: str | None = None, provider: str | None = None
    ) -> Sequence[ProviderCredential]:
        found = [
            row
            for row in await self._rows(ProviderCredential)
            if organization_id in (None, row.organization_id) and provider in (None, row.provider)
        ]
        return sorted(found, key=lambda row: (row.created_at, row.id))

    async def idempotency_record(self, record_id: str) -> IdempotencyRecord | None:
        return await self._row(IdempotencyRecord, record_id)

    # -- leases

    async def claim_deployments(
        self, lease: Lease, now: datetime, limit: int, home: str | None = None
    ) -> Sequence[Deployment]:
        return await self._claim(Deployment, lease, now, limit, home)

    async def claim_deliveries(self, lease: Lease, now: datetime, limit: int) -> Sequence[Delivery]:
        return await self._claim(Delivery, lease, now, limit)

    async def claim_duty(self, duty: str, lease: Lease, now: datetime) -> bool:
        await asyncio.sleep(0)
        held = self._memory.duties.get(duty)
        if held is not None and held.until > now:
            return False
        self._memory.duties[duty] = lease
        self._tell_others()
        return True

    async def renew(self, kind: Claimable, held: Mapping[str, str], until: datetime) -> frozenset[str]:
        await asyncio.sleep(0)
        still_held = set()
        for id_, token in held.items():
            key = (_CLAIMED[kind], id_)
            cell = self._memory.cells.get(key)
            if cell is not None and cell.lease is not None and cell.lease.token == token:
                self._memory.cells[key] = replace(cell, lease=Lease(token, until))
                still_held.add(id_)
        self._tell_others()
        return frozenset(still_held)

    async def wake(self, deployment_ids: Sequence[str], now: datetime) -> None:
        await asyncio.sleep(0)
        for id_ in deployment_ids:
            cell = self._memory.cells.get(("deployment", id_))
            if cell is not None:
                due_at = now if cell.due_at is None else min(cell.due_at, now)
                self._memory.cells["deployment", id_] = replace(cell, due_at=due_at, woken_at=now)
        self._tell_others()

    async def next_due(self, kind: Claimable, now: datetime, home: str | None = None) -> datetime | None:
        await asyncio.sleep(0)
        of_kind = (cell for (of, *_), cell in self._memory.cells.items() if of == _CLAIMED[kind])
        moments = (cell.free_at(home) for cell in of_kind)
        return min((max(moment, now) for moment in moments if moment is not None), default=None)

    # -- others

    async def changes(self) -> AsyncIterator[None]:
        changed = asyncio.Event()
        self._memory.listeners[changed] = self
        try:
            while not self._closed:
                await changed.wait()
                changed.clear()
                if not self._closed:
                    yield None
        finally:
            del self._memory.listeners[changed]

    async def aclose(self) -> None:
        self._closed = True
        for changed, listener in self._memory.listeners.items():
            if listener is self:
                changed.set()

    # -- inside

    def _tell_others(self) -> None:
        for changed, listener in self._memory.listeners.items():
            if listener is not self:
                changed.set()

    async def _row(self, type_: type[R], id_: str) -> R | None:
        await asyncio.sleep(0)
        cell = self._memory.cells.get((_KINDS[type_], id_))
        return None if cell is None else _read(cell, type_)

    async def _rows(self, type_: type[R]) -> Sequence[R]:
        await asyncio.sleep(0)
        kind = _KINDS[type_]
        return [_read(cell, type_) for key, cell in self._memory.cells.items() if key[0] == kind]

    async def _claim(
        self, type_: type[L], lease: Lease, now: datetime, limit: int, home: str | None = None
    ) -> Sequence[L]:
        await asyncio.sleep(0)
        kind = _KINDS[type_]
        of_kind = ((key, cell) for key, cell in self._memory.cells.items() if key[0] == kind)
        due = [key for key, cell in of_kind if cell.claimable(now, home)]
        due.sort(key=lambda key: (self._memory.cells[key].due_at or now, key))
        for key in due[:limit]:
            self._memory.cells[key] = replace(self._memory.cells[key], lease=lease, woken_at=None)
        self._tell_others()
        return [_read(self._memory.cells[key], type_) for key in due[:limit]]


class _Unit:
    """Writes on top of the memory, which is untouched until all of them have passed."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._cells: ChainMap[Key, Cell] = ChainMap({}, memory.cells)
        self._taken: ChainMap[Key, str | None] = ChainMap({}, memory.taken)
        self._events: dict[tuple[str, str], Event] = {}

    def write(self, write: Write) -> None:
        match write:
            case Insert(row):
                self._insert(row)
            case Update():
                self._update(write)
            case Append(event):
                self._append(event)

    def apply(self) -> None:
        self._memory.cells.update(self._cells.maps[0])
        self._memory.taken.update(self._taken.maps[0])
        for (subject_id, id_), event in self._events.items():
            self._memory.events[subject_id][id_] = event

    def _insert(self, row: Row) -> None:
        kind = _KINDS[type(row)]
        if (kind, row.id) in self._cells:
            raise AlreadyExists(kind, row.id)
        holds = isinstance(row, Deployment) and holds_name(row)
        self._put(row, Cell(replace(row, version=1), due_at=_due_at(row), holds_name=holds))

    def _update(self, write: Update) -> None:
        row, kind = write.row, _KINDS[type(write.row)]
        if write.lease is not None and not isinstance(row, _Leased):
            raise ValueError(f"a row of kind {kind} cannot be leased; update it without a lease")
        old = self._cells.get((kind, row.id))
        token = old.lease.token if old is not None and old.lease is not None else None
        if old is None or old.row.version != row.version or write.lease not in (None, token):
            raise StaleWrite(f"{kind} {row.id} is not at version {row.version}, or its lease is another's")
        due_at = _due_at(row)
        over = isinstance(row, Job) and row.state.final
        if write.lease is not None and old.woken_at is not None and not over:
            due_at = old.woken_at
        holds = old.holds_name and isinstance(row, Deployment) and holds_name(row)
        lease = None if write.release else old.lease
        new = replace(row, version=row.version + 1)
        self._forget_key(old)
        self._put(row, Cell(new, lease, due_at, old.woken_at, holds))

    def _append(self, event: Event) -> None:
        key = (event.subject_id, event.id)
        if key in self._events or event.id in self._memory.events[event.subject_id]:
            raise AlreadyExists("event", event.id)
        self._events[key] = event

    def _put(self, row: Row, cell: Cell) -> None:
        unique = _unique(cell)
        if unique is not None:
            key, told = unique
            if self._taken.get(key) is not None:
                raise AlreadyExists(key[0], told)
            self._taken[key] = row.id
        self._cells[_KINDS[type(row)], row.id] = cell

    def _forget_key(self, cell: Cell) -> None:
        unique = _unique(cell)
        if unique is not None:
            self._taken[unique[0]] = None


def _unique(cell: Cell) -> tuple[Key, str] | None:
    """The key that no other row may have, and how an error calls it."""
    match cell.row:
        case User() as user:
            return ("user", user.username), user.username
        case ApiKey() as key:
            return ("api_key", key.hash), key.id
        case Deployment() as deployment if cell.holds_name:
            return ("deployment", deployment.organization_id, deployment.name), deployment.name
        case Cluster(removed_at=None) as cluster:
            return ("cluster", cluster.organization_id, cluster.name), cluster.name
        case ModelVersion(removed_at=None) as model:
            name = (model.name, model.model_version)
            return ("model_version", model.organization_id, *name), " ".join(name)
    return None


def _due_at(row: Row) -> datetime | None:
    return row.due_at if isinstance(row, _Leased) else None


def _read(cell: Cell, type_: type[R]) -> R:
    row = cell.row
    assert isinstance(row, type_)
    if isinstance(row, _Leased):
        return replace(row, due_at=cell.due_at)
    return row
