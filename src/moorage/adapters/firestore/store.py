"""`Store` in Firestore: each method names what does it, and whether others are told.

Changes of rows, wakes and leases that end early are told to other processes. Claims and renewals are not:
they give nobody something to do, and each would cost a write more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from moorage.adapters.firestore import kinds
from moorage.adapters.firestore.address import parse
from moorage.domain.cluster import Cluster, NodeGroup
from moorage.domain.delivery import Delivery, Receiver, WebhookSecret
from moorage.domain.deployment import Deployment
from moorage.domain.event import Event
from moorage.domain.identity import ApiKey, IdempotencyRecord, Organization, ProviderCredential, User
from moorage.domain.job import Job, JobPayload
from moorage.domain.job_view import JobCounts
from moorage.domain.model_version import ModelVersion
from moorage.errors import StoreUnusable
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

if TYPE_CHECKING:
    from moorage.adapters.firestore.opening import Opened


class FirestoreStore:
    """A `moorage.ports.store.Store` and `Archive`. Belongs to the event loop in which it was opened."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    @classmethod
    async def open(cls, url: str) -> FirestoreStore:
        """Opens `firestore://project/database`; the emulator with `?emulator=host:port`, or where
        FIRESTORE_EMULATOR_HOST says. Raises ValueError for a URL that cannot be one, StoreUnusable where the
        database can never be used as it is, and StoreUnavailable where nothing answers."""
        address = parse(url)
        try:
            from moorage.adapters.firestore.opening import open_database  # an extra that not all install
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("google", "grpc"):
                raise
            raise StoreUnusable(
                "Firestore's client is not installed; run `pip install 'moorage[firestore]'`"
            ) from error
        return cls(await open_database(address))

    async def aclose(self) -> None:
        await self._opened.close()

    def changes(self) -> AsyncIterator[None]:
        """Told within two seconds of the write, mostly at once."""
        return self._opened.news.changes()

    # -- writes

    async def commit(self, writes: Sequence[Write]) -> None:
        await self._opened.units.commit(writes)
        if writes:
            self._opened.news.tell()

    async def claim_deployments(
        self, lease: Lease, now: datetime, limit: int, home: str | None = None
    ) -> Sequence[Deployment]:
        return await self._opened.leases.claim_deployments(lease, now, limit, home)

    async def claim_deliveries(self, lease: Lease, now: datetime, limit: int) -> Sequence[Delivery]:
        return await self._opened.leases.claim_deliveries(lease, now, limit)

    async def claim_duty(self, duty: str, lease: Lease, now: datetime) -> bool:
        return await self._opened.leases.claim_duty(duty, lease, now)

    async def renew(self, kind: Claimable, held: Mapping[str, str], until: datetime) -> frozenset[str]:
        renewed, sooner = await self._opened.leases.renew(kind, held, until)
        if sooner:
            self._opened.news.tell()
        return renewed

    async def wake(self, deployment_ids: Sequence[str], now: datetime) -> None:
        await self._opened.leases.wake(deployment_ids, now)
        self._opened.news.tell()

    # -- jobs

    async def job(self, job_id: str, organization_id: str) -> Job | None:
        return await self._opened.reads.row_of(kinds.JOB, job_id, organization_id)

    async def job_payload(self, payload_id: str) -> JobPayload | None:
        return await self._opened.reads.row(kinds.JOB_PAYLOAD, payload_id)

    async def job_counts(self, deployment_id: str) -> JobCounts:
        return await self._opened.jobs.counts(deployment_id)

    async def job_backlog(self, deployment_id: str) -> Backlog:
        return await self._opened.jobs.backlog(deployment_id)

    async def queued_jobs(self, deployment_id: str, limit: int) -> Sequence[Job]:
        return await self._opened.jobs.queued(deployment_id, limit)

    async def job_queues(self, now: datetime) -> Sequence[str]:
        return await self._opened.jobs.queues(now)

    async def claim_jobs(self, wanted: Mapping[str, int], lease: Lease, now: datetime) -> Sequence[Job]:
        return await self._opened.jobs.claim(wanted, lease, now)

    async def jobs_held(self, held: Mapping[str, str]) -> frozenset[str]:
        return await self._opened.leases.held("jobs", held)

    async def wake_jobs(self, deployment_ids: Sequence[str], now: datetime) -> None:
        if deployment_ids:
            await self._opened.jobs.wake(deployment_ids, now)
            self._opened.news.tell()

    async def next_job(self, after: datetime) -> datetime | None:
        return await self._opened.jobs.next_moment(after)

    async def expired_jobs(self, now: datetime, limit: int) -> Sequence[Job]:
        return await self._opened.jobs.expired(now, limit)

    async def forget_jobs(self, now: datetime, limit: int) -> int:
        return await self._opened.jobs.forget(now, limit)

    # -- reads

    async def next_due(self, kind: Claimable, now: datetime, home: str | None = None) -> datetime | None:
        return await self._opened.leases.next_due(kind, now, home)

    async def deployment(self, deployment_id: str, organization_id: str | None = None) -> Deployment | None:
        return await self._opened.reads.row_of(kinds.DEPLOYMENT, deployment_id, organization_id)

    async def deployments(
        self, organization_id: str, where: DeploymentFilter, cursor: str | None, limit: int
    ) -> Page[Deployment]:
        return await self._opened.reads.deployments(organization_id, where, cursor, limit)

    async def deployment_named(self, organization_id: str, name: str) -> Deployment | None:
        return await self._opened.reads.deployment_named(organization_id, name)

    async def serving(self, ids: Sequence[str] | None = None) -> Sequence[Deployment]:
        return await self._opened.reads.serving(ids)

    async def serving_versions(self) -> Mapping[str, int]:
        return await self._opened.reads.serving_versions()

    async def events(self, subject_id: str, after: str | None, limit: int) -> Sequence[Event]:
        return await self._opened.reads.events(subject_id, after, limit)

    async def delivery(self, delivery_id: str, organization_id: str) -> Delivery | None:
        return await self._opened.reads.row_of(kinds.DELIVERY, delivery_id, organization_id)

    async def deliveries(
        self, organization_id: str, where: DeliveryFilter, cursor: str | None, limit: int
    ) -> Page[Delivery]:
        return await self._opened.reads.deliveries(organization_id, where, cursor, limit)

    async def receiver(self, receiver_id: str) -> Receiver | None:
        return await self._opened.reads.row(kinds.RECEIVER, receiver_id)

    async def webhook_secret(self, organization_id: str) -> WebhookSecret | None:
        return await self._opened.reads.row(kinds.WEBHOOK_SECRET, organization_id)

    async def organization(self, organization_id: str) -> Organization | None:
        return await self._opened.reads.row(kinds.ORGANIZATION, organization_id)

    async def user_named(self, username: str) -> User | None:
        return await self._opened.reads.user_named(username)

    async def api_key(self, key_id: str, organization_id: str) -> ApiKey | None:
        return await self._opened.reads.row_of(kinds.API_KEY, key_id, organization_id)

    async def api_key_by_hash(self, hash_: str) -> ApiKey | None:
        return await self._opened.reads.api_key_by_hash(hash_)

    async def api_keys(self, organization_id: str) -> Sequence[ApiKey]:
        return await self._opened.reads.api_keys(organization_id)

    async def provider_credential(self, credential_id: str) -> ProviderCredential | None:
        return await self._opened.reads.row(kinds.PROVIDER_CREDENTIAL, credential_id)

    async def provider_credentials(
        self, *, organization_id: str | None = None, provider: str | None = None
    ) -> Sequence[ProviderCredential]:
        return await self._opened.reads.provider_credentials(organization_id, provider)

    async def cluster(self, cluster_id: str, organization_id: str) -> Cluster | None:
        return await self._opened.reads.row_of(kinds.CLUSTER, cluster_id, organization_id)

    async def clusters(self, organization_id: str) -> Sequence[Cluster]:
        return await self._opened.reads.clusters(organization_id)

    async def node_groups(self, organization_id: str, cluster_id: str | None = None) -> Sequence[NodeGroup]:
        return await self._opened.reads.node_groups(organization_id, cluster_id)

    async def node_group(self, group_id: str, organization_id: str) -> NodeGroup | None:
        return await self._opened.reads.row_of(kinds.NODE_GROUP, group_id, organization_id)

    async def model_version(self, model_id: str, organization_id: str) -> ModelVersion | None:
        return await self._opened.reads.row_of(kinds.MODEL_VERSION, model_id, organization_id)

    async def model_versions(
        self, organization_id: str, cursor: str | None, limit: int
    ) -> Page[ModelVersion]:
        return await self._opened.reads.model_versions(organization_id, cursor, limit)

    async def idempotency_record(self, record_id: str) -> IdempotencyRecord | None:
        return await self._opened.reads.row(kinds.IDEMPOTENCY_RECORD, record_id)

    # -- all of it, for a move

    async def stored(self, collection: Collection, after: str | None, limit: int) -> Sequence[Stored]:
        return await self._opened.archive.stored(collection, after, limit)

    async def restore(self, collection: Collection, rows: Sequence[Stored]) -> None:
        await self._opened.archive.restore(collection, rows)
        if rows:
            self._opened.news.tell()
