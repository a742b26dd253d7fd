"""`Store` in SQL: each method names the function that does it, and whether it reads or writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

from moorage.adapters.sql import archive, clusters, job_queue, kinds, leases, reads, rows
from moorage.adapters.sql.database import Database
from moorage.adapters.sql.postgres import POOL, PostgresDatabase
from moorage.adapters.sql.sqlite import SqliteDatabase
from moorage.domain.cluster import Cluster, NodeGroup
from moorage.domain.delivery import Delivery, Receiver, WebhookSecret
from moorage.domain.deployment import Deployment
from moorage.domain.event import Event
from moorage.domain.identity import ApiKey, IdempotencyRecord, Organization, ProviderCredential, User
from moorage.domain.job import Job, JobPayload
from moorage.domain.job_view import JobCounts
from moorage.domain.model_version import ModelVersion
from moorage.ports.store import (
    Backlog,
    Claimable,
    Collection,
    DeliveryFilter,
    DeploymentFilter,
    Lease,
    Page,
    Stored,
    Write,
)


class SqlStore:
    """A `moorage.ports.store.Store`, and an `Archive`. Belongs to the event loop in which it was opened."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, url: str, *, pool: int = POOL) -> SqlStore:
        """Opens `sqlite:////absolute/path.db`, of which it makes the file (mode 0600) and its folder where
        they are missing, or `postgresql://user:password@host:port/database`, with at most `pool` connections.
        Brings the tables up to date. Raises ValueError for a URL that cannot be one, StoreUnusable and
        StoreUnavailable."""
        if url.startswith("postgresql"):
            return cls(await PostgresDatabase.open(url, pool))
        return cls(await SqliteDatabase.open(url))

    async def aclose(self) -> None:
        await self._database.aclose()

    def changes(self) -> AsyncIterator[None]:
        return self._database.changes()

    # -- writes. Claims are quiet, and so are renewals unless a lease ends early: they put off what others
    # wait for, and at its end these find out.

    async def commit(self, writes: Sequence[Write]) -> None:
        await self._database.commit(rows.prepare(writes))

    async def claim_deployments(
        self, lease: Lease, now: datetime, limit: int, home: str | None = None
    ) -> Sequence[Deployment]:
        return await self._database.write(
            lambda c: leases.claim(c, kinds.DEPLOYMENT, lease, now, limit, home), quiet=True
        )

    async def claim_deliveries(self, lease: Lease, now: datetime, limit: int) -> Sequence[Delivery]:
        return await self._database.write(
            lambda c: leases.claim(c, kinds.DELIVERY, lease, now, limit), quiet=True
        )

    async def claim_duty(self, duty: str, lease: Lease, now: datetime) -> bool:
        return await self._database.write(lambda c: leases.claim_duty(c, duty, lease, now), quiet=True)

    async def renew(self, kind: Claimable, held: Mapping[str, str], until: datetime) -> frozenset[str]:
        if not held:
            return frozenset()
        renewed, _ = await self._database.write(
            lambda c: leases.renew(c, kind, held, until), quiet=lambda result: not result[1]
        )
        return renewed

    async def wake(self, deployment_ids: Sequence[str], now: datetime) -> None:
        await self._database.write(lambda c: leases.wake(c, deployment_ids, now))

    # -- archive

    async def stored(self, collection: Collection, after: str | None, limit: int) -> Sequence[Stored]:
        return await self._database.read(lambda c: archive.stored(c, collection, after, limit))

    async def restore(self, collection: Collection, rows: Sequence[Stored]) -> None:
        prepared = archive.prepare(collection, rows)
        await self._database.write(lambda c: archive.restore(c, prepared))

    # -- jobs

    async def job(self, job_id: str, organization_id: str) -> Job | None:
        return await self._database.read(lambda c: job_queue.job(c, job_id, organization_id))

    async def job_payload(self, payload_id: str) -> JobPayload | None:
        return await self._database.read(lambda c: reads.row_by(c, kinds.JOB_PAYLOAD, "id", payload_id))

    async def job_counts(self, deployment_id: str) -> JobCounts:
        return await self._database.read(lambda c: job_queue.counts(c, deployment_id))

    async def job_backlog(self, deployment_id: str) -> Backlog:
        return await self._database.read(lambda c: job_queue.backlog(c, deployment_id))

    async def queued_jobs(self, deployment_id: str, limit: int) -> Sequence[Job]:
        return await self._database.read(lambda c: job_queue.queued(c, deployment_id, limit))

    async def job_queues(self, now: datetime) -> Sequence[str]:
        return await self._database.read(lambda c: job_queue.queues(c, now))

    async def claim_jobs(self, wanted: Mapping[str, int], lease: Lease, now: datetime) -> Sequence[Job]:
        if not wanted:
            return []
        return await self._database.write(lambda c: job_queue.claim(c, wanted, lease, now), quiet=True)

    async def jobs_held(self, held: Mapping[str, str]) -> frozenset[str]:
        if not held:
            return frozenset()
        return await self._database.read(lambda c: job_queue.held(c, held))

    async def wake_jobs(self, deployment_ids: Sequence[str], now: datetime) -> None:
        if deployment_ids:
            await self._database.write(lambda c: job_queue.wake(c, deployment_ids, now))

    async def next_job(self, after: datetime) -> datetime | None:
        return await self._database.read(lambda c: job_queue.next_moment(c, after))

    async def expired_jobs(self, now: datetime, limit: int) -> Sequence[Job]:
        return await self._database.read(lambda c: job_queue.expired(c, now, limit))

    async def forget_jobs(self, now: datetime, limit: int) -> int:
        return await self._database.write(lambda c: job_queue.forget(c, now, limit), quiet=True)

    # -- reads

    async def next_due(self, kind: Claimable, now: datetime, home: str | None = None) -> datetime | None:
        return await self._database.read(lambda c: leases.next_due(c, kind, now, home))

    async def deployment(self, deployment_id: str, organization_id: str | None = None) -> Deployment | None:
        return await self._database.read(lambda c: reads.deployment(c, deployment_id, organization_id))

    async def deployments(
        self, organization_id: str, where: DeploymentFilter, cursor: str | None, limit: int
    ) -> Page[Deployment]:
        return await self._database.read(
            lambda c: reads.deployments(c, organization_id, where, cursor, limit)
        )

    async def deployment_named(self, organization_id: str, name: str) -> Deployment | None:
        return await self._database.read(lambda c: reads.deployment_named(c, organization_id, name))

    async def serving(self, ids: Sequence[str] | None = None) -> Sequence[Deployment]:
        return await self._database.read(lambda c: reads.serving(c, ids))

    async def serving_versions(self) -> Mapping[str, int]:
        return await self._database.read(reads.serving_versions)

    async def events(self, subject_id: str, after: str | None, limit: int) -> Sequence[Event]:
        return await self._database.read(lambda c: reads.events(c, subject_id, after, limit))

    async def delivery(self, delivery_id: str, organization_id: str) -> Delivery | None:
        return await self._database.read(lambda c: reads.delivery(c, delivery_id, organization_id))

    async def deliveries(
        self, organization_id: str, where: DeliveryFilter, cursor: str | None, limit: int
    ) -> Page[Delivery]:
        return await self._database.read(lambda c: reads.deliveries(c, organization_id, where, cursor, limit))

    async def receiver(self, receiver_id: str) -> Receiver | None:
        return await self._database.read(lambda c: reads.row_by(c, kinds.RECEIVER, "id", receiver_id))

    async def webhook_secret(self, organization_id: str) -> WebhookSecret | None:
        return await self._database.read(
            lambda c: reads.row_by(c, kinds.WEBHOOK_SECRET, "id", organization_id)
        )

    async def organization(self, organization_id: str) -> Organization | None:
        return await self._database.read(lambda c: reads.row_by(c, kinds.ORGANIZATION, "id", organization_id))

    async def user_named(self, username: str) -> User | None:
        return await self._database.read(lambda c: reads.row_by(c, kinds.USER, "username", username))

    async def api_key(self, key_id: str, organization_id: str) -> ApiKey | None:
        return await self._database.read(lambda c: reads.api_key(c, key_id, organization_id))

    async def api_key_by_hash(self, hash_: str) -> ApiKey | None:
        return await self._database.read(lambda c: reads.row_by(c, kinds.API_KEY, "hash", hash_))

    async def api_keys(self, organization_id: str) -> Sequence[ApiKey]:
        return await self._database.read(lambda c: reads.api_keys(c, organization_id))

    async def provider_credential(self, credential_id: str) -> ProviderCredential | None:
        kind = kinds.PROVIDER_CREDENTIAL
        return await self._database.read(lambda c: reads.row_by(c, kind, "id", credential_id))

    async def provider_credentials(
        self, *, organization_id: str | None = None, provider: str | None = None
    ) -> Sequence[ProviderCredential]:
        return await self._database.read(lambda c: reads.provider_credentials(c, organization_id, provider))

    async def cluster(self, cluster_id: str, organization_id: str) -> Cluster | None:
        return await self._database.read(lambda c: clusters.cluster(c, cluster_id, organization_id))

    async def clusters(self, organization_id: str) -> Sequence[Cluster]:
        return await self._database.read(lambda c: clusters.clusters(c, organization_id))

    async def node_groups(self, organization_id: str, cluster_id: str | None = None) -> Sequence[NodeGroup]:
        return await self._database.read(lambda c: clusters.node_groups(c, organization_id, cluster_id))

    async def node_group(self, group_id: str, organization_id: str) -> NodeGroup | None:
        return await self._database.read(lambda c: clusters.node_group(c, group_id, organization_id))

    async def model_version(self, model_id: str, organization_id: str) -> ModelVersion | None:
        return await self._database.read(lambda c: clusters.model_version(c, model_id, organization_id))

    async def model_versions(
        self, organization_id: str, cursor: str | None, limit: int
    ) -> Page[ModelVersion]:
        return await self._database.read(lambda c: clusters.model_versions(c, organization_id, cursor, limit))

    async def idempotency_record(self, record_id: str) -> IdempotencyRecord | None:
        return await self._database.read(lambda c: reads.row_by(c, kinds.IDEMPOTENCY_RECORD, "id", record_id))
