"""What the core needs from outside, as protocols.

Adapters and providers implement them, `main` connects them. Each protocol's docstring is its contract;
`moorage.testing` holds the suites that check it, for our adapters and for a third party's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar, runtime_checkable

from moorage.domain.cluster import Cluster, ClusterReport, NodeGroup
from moorage.domain.compute import Bill, Feature, Offer, Requirements, Serverless
from moorage.domain.delivery import Delivery, Receiver, WebhookSecret
from moorage.domain.deployment import Deployment, Handle, Phase
from moorage.domain.event import Event
from moorage.domain.identity import ApiKey, IdempotencyRecord, Organization, ProviderCredential, User
from moorage.domain.image_reference import ImageReference
from moorage.domain.job import Job, JobPayload
from moorage.domain.job_view import JobCounts
from moorage.domain.model import (
    CacheScope,
    ContainerImage,
    HubModel,
    ModelProfile,
    Source,
    UploadedModel,
)
from moorage.domain.model_version import ModelVersion
from moorage.domain.observation import Observation
from moorage.domain.workload import Workload

# -- small ones ---------------------------------------------------------------------------------------


class Clock(Protocol):
    def now(self) -> datetime:
        """The time, with zone UTC."""


class SecretBox(Protocol):
    """Authenticated sealing under a key ring. `context` is bound to the text: a sealed value moved to
    another place does not open."""

    def seal(self, secret: bytes, context: str) -> str: ...

    def open(self, sealed: str, context: str) -> bytes:
        """Raises ValueError when the text was changed, moved, or sealed under a key that is gone."""

    def derive(self, purpose: str) -> tuple[bytes, ...]:
        """32 bytes for another use, one for each key of the ring: sign with the first, accept all."""


@dataclass(frozen=True, slots=True)
class OutgoingAnswer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes  # cut at the guard's limit


class Outgoing(Protocol):
    """The one way to a URL that a user gave: https, public addresses only, pinned after resolution, no
    redirects, bounded answer and time."""

    async def check(self, url: str) -> None:
        """Raises OutgoingRefused with the rule that the URL breaks; connects to nothing."""

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float
    ) -> OutgoingAnswer:
        """Checks again, then sends. Raises OutgoingRefused, or OutgoingFailed when no answer came."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> OutgoingAnswer:
        """`request` with the method POST."""


class ModelHub(Protocol):
    async def profile(self, model: HubModel, token: str | None) -> ModelProfile:
        """Reads metadata only, never weights. Raises a ModelError, or HubUnavailable."""


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """What opens a private registry of images; `server` is its host."""

    server: str
    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ImageFound:
    """`digest` is of what a pull of the reference would get now: one image, or an index of several."""

    digest: str


class ImageRegistry(Protocol):
    async def look(self, image: ImageReference, access: RegistryAccess | None) -> ImageFound:
        """Asks the image's registry whether it exists; pulls nothing. Raises ImageMissing, RegistryRefused
        or RegistrySilent."""


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of a model in the shared cache; `url` opens it for a while, and for reading only."""

    path: str
    size: int
    url: str = field(repr=False)


class SharedModelCache(Protocol):
    """The operator's bucket of weights, for models of its list."""

    async def manifest(self, repo_id: str, revision: str) -> Sequence[CachedFile] | None:
        """All files of the model at that commit; None when it is not there whole. Raises OSError when the
        bucket cannot be read."""


# -- providers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens an account at a provider. Never printed."""

    values: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """Who the credentials turned out to be, in the provider's words."""

    id: str
    detail: str = ""


OPERATOR = "operator:"  # begins the ids of accounts that are the operator's own


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """An account, opened: a stored one of an organization, whose `id` is its credential's, or one of the
    operator's. `name` is the cluster's, where it is one, and `node_groups` are those of that cluster."""

    provider: str
    id: str
    credentials: Credentials
    name: str | None = None
    node_groups: tuple[NodeGroup, ...] = ()

    @property
    def of_operator(self) -> bool:
        return self.id.startswith(OPERATOR)


@dataclass(frozen=True, slots=True)
class Callback:
    """Where a worker tells its state, and what it signs with: a secret (`whsec_…`) of its endpoint alone."""

    url: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WorkerCache:
    """Where a worker finds and keeps weights. Private: `url` is the owner's `s3://bucket/prefix`, opened by
    its keys. Shared: `url` is of the list of files that this service signs, and there are no keys."""

    scope: CacheScope
    url: str
    endpoint_url: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RevisionPlan:
    """All that a provider needs to run one revision. `env` and `hub_token` are opened secrets."""

    deployment_id: str
    organization_id: str
    revision: int
    source: Source  # pinned to a commit or digest
    runtime: str
    offer: Offer
    replicas: int
    memory_bytes: int  # of one replica, from the estimate
    task: str | None = None
    context_length: int | None = None
    concurrency: int | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    hub_token: str | None = field(default=None, repr=False)
    serverless: Serverless = Serverless()
    cache: WorkerCache | None = None
    callback: Callback | None = None  # None: this service cannot be reached by a worker
    dtype: str | None = None  # of the weights, where the model's spec knows better than its files
    variant: str | None = None
    max_replicas: int = 1  # up to which an autoscaler may go; `replicas` is the least
    workload: Workload | None = None
    registry: RegistryAccess | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """The provider has confirmed that nothing of that name exists."""


@dataclass(frozen=True, slots=True)
class StillThere:
    """Deletion is under way; ask again after `after` seconds."""

    after: float = 1.0


class Provider(Protocol):
    """Compute that can run deployments.

    Every call may be repeated, and may be made by a process that died since the last one. `create` adopts
    what already exists under the name; it never makes a second. `delete` of what is not there is `Absent`.
    Errors are `ProviderError`s of `moorage.errors`, nothing else.
    """

    name: str
    unsupported: Mapping[Feature, str]
    credential_fields: Mapping[str, str]  # name and meaning of what opens an account; empty: none is needed

    async def check_credentials(self, credentials: Credentials | None) -> Account:
        """Raises Unauthorized when they are refused, PermissionMissing when they open too little."""

    async def offers(self, need: Requirements, credentials: Credentials | None) -> Sequence[Offer]:
        """What is sold now. An offer too small for `need` is listed all the same, so that it can be refused
        with its reason; one whose room is taken has availability NONE."""

    async def find(self, name: str, credentials: Credentials | None) -> Handle | None: ...

    async def create(self, plan: RevisionPlan, name: str, credentials: Credentials | None) -> Handle:
        """Starts what `plan` says under `name`, or adopts it. Raises NoCapacity when there is no room."""

    async def observe(self, handle: Handle, credentials: Credentials | None) -> Observation:
        """Raises Gone when nothing of that name exists."""

    async def apply(self, handle: Handle, plan: RevisionPlan, credentials: Credentials | None) -> Handle:
        """Changes what runs (replicas, env) to what `plan` says."""

    async def delete(self, handle: Handle, credentials: Credentials | None) -> Absent | StillThere: ...

    def owned(self, credentials: Credentials | None) -> AsyncIterator[Handle]:
        """Everything the provider holds under our tag."""

    async def aclose(self) -> None:
        """Lets go of connections and watches. What runs goes on running."""


@dataclass(frozen=True, slots=True)
class LogLine:
    at: datetime
    replica: str
    text: str


@runtime_checkable
class Logs(Protocol):
    """A provider whose replicas' logs can be read."""

    def logs(
        self, handle: Handle, credentials: Credentials | None, *, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        """The last `tail` lines, oldest first, then new ones as they come if `follow`. Raises Gone."""


@runtime_checkable
class BearerKeys(Protocol):
    """A provider whose own account keys are taken as bearer tokens: the account is the tenant, and pays."""

    def credentials_of(self, bearer: str) -> Credentials | None:
        """Of a token that has the form of this provider's keys; None for any other. Asks nobody."""


@runtime_checkable
class OperatorAccounts(Protocol):
    """A provider with accounts of the operator's own, on which all organizations of this service may be
    placed, each apart from the others."""

    def operator_accounts(self) -> Mapping[str, Credentials]:
        """By a name that stays the same over restarts. Asks nobody."""


@runtime_checkable
class Billing(Protocol):
    """A provider that tells what it charged for an endpoint."""

    async def billed(self, handle: Handle, credentials: Credentials | None, since: datetime) -> Bill: ...


@runtime_checkable
class Stop(Protocol):
    """A provider whose endpoints can be without a replica and keep the rest: volumes, addresses, names. One
    that cannot has its endpoint deleted, and made again."""

    async def stop(self, handle: Handle, credentials: Credentials | None) -> Absent | StillThere:
        """`Absent` when no replica is left. `apply` starts it again. Raises Gone."""


@runtime_checkable
class Wake(Protocol):
    """A provider whose endpoints may be let down to no replica by their autoscaler (`Observation.asleep`)."""

    async def wake(self, handle: Handle, credentials: Credentials | None) -> None:
        """Have it start a replica now, whatever the autoscaler thinks, until one is ready. Raises Gone."""


@runtime_checkable
class Clusters(Protocol):
    """A provider whose accounts are clusters that organizations import."""

    def read_access(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """The values of the credential, out of what a user gave: `kubeconfig`, or `server`,
        `certificate_authority` and `token`; and the optional ones. Asks nobody. Raises Rejected, by field."""

    async def check(self, credentials: Credentials) -> ClusterReport:
        """What the cluster has, and what we may do there. One that cannot be read has a `problem`."""


@runtime_checkable
class Watch(Protocol):
    """A provider that tells when something changed, so that nobody has to poll it. It is watched once for
    each account, or with None where it needs none."""

    def watch(self, credentials: Credentials | None) -> AsyncIterator[str]:
        """External names whose state may have changed since the watch began, without end."""


class Resolve(Protocol):
    """The one guard for outgoing connections, for providers that connect where users say."""

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """IP addresses that may be connected to now. Raises OutgoingRefused when the host is, or leads to, an
        address that is not public and that the operator did not allow; OSError when it is not known."""


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """What a provider's factory gets. The entry point `moorage.providers` names a
    `Callable[[ProviderConfig], Provider]`; it is called inside the running event loop."""

    data_dir: Path  # the provider's own folder; survives restarts
    environ: Mapping[str, str] = field(repr=False)  # MOORAGE_* settings, its own among them
    hub_url: str = "https://huggingface.co"
    installation: str = (
        ""  # tells what this installation made from what another one did with the same account
    )
    resolve: Resolve | None = None  # the guard for addresses that users gave


# -- store ------------------------------------------------------------------------------------------------

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

    async def serving(self) -> Sequence[Deployment]:
        """Of all organizations, those that are routed (`is_routed`): what the gateway's table is made of."""

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

    async def claim_deployments(self, lease: Lease, now: datetime, limit: int) -> Sequence[Deployment]:
        """Leases up to `limit` rows that are due and that nobody holds, longest due first. A lease that has
        run out holds nothing."""

    async def claim_deliveries(self, lease: Lease, now: datetime, limit: int) -> Sequence[Delivery]: ...

    async def claim_duty(self, duty: str, lease: Lease, now: datetime) -> bool:
        """A lease on a named duty that one process at a time has (the sweeper). Kept until it runs out."""

    async def renew(self, kind: Claimable, held: Mapping[str, str], until: datetime) -> frozenset[str]:
        """Leases end at `until` instead; `held` maps row ids to lease tokens. Returns the ids that are still
        held so, those among them whose lease had run out and that nobody took."""

    async def wake(self, deployment_ids: Sequence[str], now: datetime) -> None:
        """Makes them due at once. Not a change: versions stay. One that is held is due when its holder lets
        go, whatever the holder writes."""

    async def next_due(self, kind: Claimable, now: datetime) -> datetime | None:
        """The earliest moment, not before `now`, at which a claim of that kind would find something if
        nothing else happened; None for never."""

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
