"""Where everything is kept: rows with compare-and-set, leases, and units of work.

The docstrings are the contract, which `moorage.testing.store_contract` checks on every adapter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Literal, Protocol, TypeVar

from moorage.domain.cluster import Cluster, NodeGroup
from moorage.domain.delivery import Delivery, Receiver, WebhookSecret
from moorage.domain.deployment import Deployment, Phase
from moorage.domain.event import Event
from moorage.domain.identity import ApiKey, IdempotencyRecord, Organization, ProviderCredential, User
from moorage.domain.job import Job, JobPayload
from moorage.domain.job_view import JobCounts
from moorage.domain.model import (
    ContainerImage,
    HubModel,
    UploadedModel,
)
from moorage.domain.model_version import ModelVersion

Row = (
    Organization
    | User
    | ApiKey
    | ProviderCredential
    | IdempotencyRecord
    | Deployment
    | Delivery
    | Receiver
    | WebhookSecret
    | Job
    | JobPayload
    | Cluster
    | NodeGroup
    | ModelVersion
)
Claimable = Literal["deployments", "deliveries", "jobs"]
ABSENCE = timedelta(seconds=60)  # so long overdue, a deployment may be claimed away from home
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on rows until `until`. `token` is unique to the claim and fences every write made under it."""

    token: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Insert:
    """A new row; it is stored with version 1."""

    row: Row


@dataclass(frozen=True, slots=True)
class Update:
    """Compare-and-set: `row.version` is the version that was read, the stored one becomes the next.

    With `lease`, the row must still be leased under that token (whether or not the lease has run out, as long
    as nobody else took it); `release` ends the lease with the same write, whoever holds it. Without either, a
    lease on the row stays as it is. Under a lease, a wake that came after the claim stands against the row's
    `due_at`.
    """

    row: Row
    lease: str | None = None
    release: bool = False


@dataclass(frozen=True, slots=True)
class Append:
    event: Event


Write = Insert | Update | Append


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: tuple[T, ...]
    next_cursor: str | None  # opaque; None on the last page


def holds_name(deployment: Deployment) -> bool:
    """Whether its name is taken because of it."""
    return deployment.status.phase not in (Phase.DELETED, Phase.FAILED)


def is_routed(deployment: Deployment) -> bool:
    """Whether requests may be sent to it: answered, told to come back later, or the cause to wake it."""
    return deployment.status.phase not in (Phase.DELETED, Phase.FAILED)


def provider_of(deployment: Deployment) -> str:
    """Where it is placed now; before that, where its owner wants it."""
    attempt = deployment.status.attempt
    return deployment.spec.policy.provider if attempt is None else attempt.rung.offer.provider


def home_of(deployment: Deployment) -> str | None:
    """The machine whose process alone can look after it; None when any process can."""
    attempt = deployment.status.attempt
    return None if attempt is None else attempt.rung.offer.home


def model_of(deployment: Deployment) -> str:
    """What it serves, in one word: a repo id, a model id or an image."""
    match deployment.spec.source:
        case HubModel(repo_id):
            return repo_id
        case UploadedModel(model_id):
            return model_id
        case ContainerImage(image):
            return image


@dataclass(frozen=True, slots=True)
class DeploymentFilter:
    """What a list is narrowed to: `Deployment.phase`, `provider_of`, `model_of`, and the exact name."""

    phases: frozenset[Phase] = frozenset()  # empty: all
    provider: str | None = None
    model: str | None = None  # repo id, model id or image
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """Of one deployment: jobs in its queue, and the bytes that they brought."""

    jobs: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    state: str | None = None
    subject_id: str | None = None


class Store(Protocol):
    """Rows with compare-and-set, leases, and units of work.

    A unit of work is a plain sequence of writes, so that any engine with an atomic batch can be a store. Ids
    are global; reads that serve a user take the organization and never cross it.
    """

    async def commit(self, writes: Sequence[Write]) -> None:
        """All or nothing, durable when it returns. Raises AlreadyExists or StaleWrite.

        AlreadyExists has the row's kind (`deployment`, `api_key`, …) and the key that was met: the name of a
        deployment, a user or a cluster, `name version` of a model version, else the id. Clusters and model
        versions that were removed hold no name. Whoever is cancelled while waiting does not know what came
        of it.
        """

    async def deployment(self, deployment_id: str, organization_id: str | None = None) -> Deployment | None:
        """None too when it belongs to another organization than the one given."""

    async def deployments(
        self, organization_id: str, where: DeploymentFilter, cursor: str | None, limit: int
    ) -> Page[Deployment]:
        """Newest first. Raises ValueError for a cursor that is none of ours."""

    async def deployment_named(self, organization_id: str, name: str) -> Deployment | None:
        """The one that holds the name now; a name is free again when its deployment is deleted or failed,
        and stays free when a failed deployment is deleted later."""

    async def serving(self, ids: Sequence[str] | None = None) -> Sequence[Deployment]:
        """Of all organizations, those that are routed (`is_routed`), by id: what the gateway's table is made
        of. Where `ids` are given, of these alone."""

    async def serving_versions(self) -> Mapping[str, int]:
        """The version of each that is routed, by id: cheap, for whoever knows the rows and asks what is
        new."""

    async def events(self, subject_id: str, after: str | None, limit: int) -> Sequence[Event]:
        """Oldest first, those after the event id `after`."""

    async def delivery(self, delivery_id: str, organization_id: str) -> Delivery | None: ...

    async def deliveries(
        self, organization_id: str, where: DeliveryFilter, cursor: str | None, limit: int
    ) -> Page[Delivery]: ...

    async def receiver(self, receiver_id: str) -> Receiver | None: ...

    async def webhook_secret(self, organization_id: str) -> WebhookSecret | None: ...

    async def organization(self, organization_id: str) -> Organization | None: ...

    async def user_named(self, username: str) -> User | None: ...

    async def api_key(self, key_id: str, organization_id: str) -> ApiKey | None: ...

    async def api_key_by_hash(self, hash_: str) -> ApiKey | None: ...

    async def api_keys(self, organization_id: str) -> Sequence[ApiKey]: ...

    async def provider_credential(self, credential_id: str) -> ProviderCredential | None: ...

    async def provider_credentials(
        self, *, organization_id: str | None = None, provider: str | None = None
    ) -> Sequence[ProviderCredential]:
        """Oldest first, the removed ones too; of all organizations where none is given."""

    async def cluster(self, cluster_id: str, organization_id: str) -> Cluster | None:
        """A removed one too."""

    async def clusters(self, organization_id: str) -> Sequence[Cluster]:
        """Those that are there, oldest first."""

    async def node_groups(self, organization_id: str, cluster_id: str | None = None) -> Sequence[NodeGroup]:
        """Those that are there, oldest first; of all clusters of the organization where none is given."""

    async def node_group(self, group_id: str, organization_id: str) -> NodeGroup | None:
        """A removed one too."""

    async def model_version(self, model_id: str, organization_id: str) -> ModelVersion | None:
        """A removed one too."""

    async def model_versions(
        self, organization_id: str, cursor: str | None, limit: int
    ) -> Page[ModelVersion]:
        """Those that are there, newest first. Raises ValueError for a cursor that is none of ours."""

    async def idempotency_record(self, record_id: str) -> IdempotencyRecord | None: ...

    async def claim_deployments(
        self, lease: Lease, now: datetime, limit: int, home: str | None = None
    ) -> Sequence[Deployment]:
        """Leases up to `limit` rows that are due and that nobody holds, longest due first. A lease that has
        run out holds nothing. Rows that are at home (`home_of`) on another machine than the one given are
        left to it, until they have been due for `ABSENCE`."""

    async def claim_deliveries(self, lease: Lease, now: datetime, limit: int) -> Sequence[Delivery]: ...

    async def claim_duty(self, duty: str, lease: Lease, now: datetime) -> bool:
        """A lease on a named duty that one process at a time has (the sweeper). Kept until it runs out."""

    async def renew(self, kind: Claimable, held: Mapping[str, str], until: datetime) -> frozenset[str]:
        """Leases end at `until` instead; `held` maps row ids to lease tokens. Returns the ids that are still
        held so, those among them whose lease had run out and that nobody took."""

    async def wake(self, deployment_ids: Sequence[str], now: datetime) -> None:
        """Makes them due at once. Not a change: versions stay. One that is held is due when its holder lets
        go, whatever the holder writes."""

    async def next_due(self, kind: Claimable, now: datetime, home: str | None = None) -> datetime | None:
        """The earliest moment, not before `now`, at which a claim of that kind (and `home`) would find
        something if nothing else happened; None for never."""

    async def job(self, job_id: str, organization_id: str) -> Job | None: ...

    async def job_payload(self, payload_id: str) -> JobPayload | None: ...

    async def job_counts(self, deployment_id: str) -> JobCounts: ...

    async def job_backlog(self, deployment_id: str) -> Backlog: ...

    async def queued_jobs(self, deployment_id: str, limit: int) -> Sequence[Job]:
        """Those in the queue, held or not, oldest first."""

    async def job_queues(self, now: datetime) -> Sequence[str]:
        """Ids of the deployments that have jobs which a claim would find."""

    async def claim_jobs(self, wanted: Mapping[str, int], lease: Lease, now: datetime) -> Sequence[Job]:
        """Leases, of each deployment named, up to so many jobs that are due and that nobody holds: those of
        low priority last, else oldest first."""

    async def jobs_held(self, held: Mapping[str, str]) -> frozenset[str]:
        """Which of these ids are leased under the token given for each. Renews nothing."""

    async def wake_jobs(self, deployment_ids: Sequence[str], now: datetime) -> None:
        """Makes due what these deployments have that is not over, as `wake` does. A holder that ends a job
        ends it for good."""

    async def next_job(self, after: datetime) -> datetime | None:
        """The earliest moment later than `after` at which a job becomes due or expires, or a lease on one
        runs out; None for never."""

    async def expired_jobs(self, now: datetime, limit: int) -> Sequence[Job]:
        """Those that are not over and whose time is, held or not, oldest first."""

    async def forget_jobs(self, now: datetime, limit: int) -> int:
        """Deletes up to `limit` jobs that are over and need not be kept any longer, with their payloads.
        Returns how many there were."""

    def changes(self) -> AsyncIterator[None]:
        """Yields when another process may have written, without end. This process's own writes are not
        told: whoever made them knows. Several writes may be told as one, and once too often is allowed."""

    async def aclose(self) -> None: ...


Collection = Literal[
    "organization",
    "user",
    "api_key",
    "provider_credential",
    "cluster",
    "node_group",
    "model_version",
    "idempotency_record",
    "receiver",
    "webhook_secret",
    "deployment",
    "delivery",
    "job",
    "job_payload",
    "event",
]


@dataclass(frozen=True, slots=True)
class Stored:
    """A row as it lies in a store, with its version and `due_at`; leases and wakes are not kept."""

    row: Row | Event
    holds_name: bool = False  # whether the unique name in it is taken because of it

    @property
    def key(self) -> str:
        """Its place in the order of `Archive.stored`."""
        return f"{self.row.subject_id}/{self.row.id}" if isinstance(self.row, Event) else self.row.id


class Archive(Protocol):
    """What a store does besides, so that all it holds can be moved to another one while no service runs."""

    async def stored(self, collection: Collection, after: str | None, limit: int) -> Sequence[Stored]:
        """Those of a collection whose key is greater than `after`, by key, compared byte by byte."""

    async def restore(self, collection: Collection, rows: Sequence[Stored]) -> None:
        """Writes them as they are, all or none; what is there under the same key is replaced. At most 500."""
