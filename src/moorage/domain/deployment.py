"""A deployment: what its owner wants, and what is true of it.

`spec` and `deleted_at` are desired and written by users through services; `status` is observed and written by
the engine alone. Everything is immutable: a change is a new value, compared and set in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from moorage.domain.compute import Estimate, PlacementPolicy, RefusedOffer, Rung, Serverless
from moorage.domain.model import ModelCache, ModelProfile, Source
from moorage.domain.observation import Access, WorkerReport
from moorage.domain.workload import Workload


class Phase(StrEnum):
    VALIDATING = "validating"
    SELECTING_GPU = "selecting_gpu"
    CREATING_ENDPOINT = "creating_endpoint"
    LOADING_MODEL = "loading_model"
    READY = "ready"
    UPDATING = "updating"
    STOPPING = "stopping"
    STOPPED = "stopped"
    HIBERNATING = "hibernating"
    HIBERNATED = "hibernated"
    WAKING = "waking"
    DELETING = "deleting"
    DELETED = "deleted"
    FAILED = "failed"


class ConditionType(StrEnum):
    MODEL_VALIDATED = "ModelValidated"
    PLACED = "Placed"
    ENDPOINT_CREATED = "EndpointCreated"
    SERVING = "Serving"
    PROGRESSING = "Progressing"
    CAPACITY_AVAILABLE = "CapacityAvailable"
    CLEANED_UP = "CleanedUp"


class Truth(StrEnum):
    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    type: ConditionType
    status: Truth
    reason: str
    message: str
    since: datetime


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """What the owner asked for. `secrets` is sealed JSON of `env`, `hf_token`, `cache`, `registry`, or None.
    `credentials` has the id of a stored credential for each provider that needs one and has one."""

    source: Source
    policy: PlacementPolicy = PlacementPolicy()
    min_replicas: int = 1
    max_replicas: int = 1
    task: str | None = None
    context_length: int | None = None
    concurrency: int | None = None
    env_names: tuple[str, ...] = ()
    secrets: str | None = field(default=None, repr=False)
    webhook_url: str | None = None
    capacity_deadline_seconds: float = 1800.0
    serverless: Serverless = Serverless()
    cache: ModelCache = ModelCache()
    credentials: Mapping[str, str] = field(default_factory=dict)
    workload: Workload | None = None
    model_version_id: str | None = None  # of a registered model, where `source` came from one
    stopped: bool = False  # its owner wants no replica, and to keep the rest


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a deployment failed: a stable code, the cause in words, and what to do."""

    code: str
    detail: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Handle:
    """How a provider finds again what it made. `name` is ours and deterministic; `ref` is the provider's."""

    provider: str
    name: str
    ref: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one rung. It is stored before anything is created, and removed only after the endpoint's
    absence is confirmed: at any moment it names all that may exist for the deployment."""

    number: int
    rung: Rung
    name: str
    started_at: datetime
    handle: Handle | None = None  # None: intent stored, effect unknown
    refusal: RefusedOffer | None = None  # set: no capacity; being removed, then the next rung
    failed: bool = False  # set: `status.failure` says why; being removed, then `failed`
    generation: int = 1  # of the spec that was given to the provider last

    @property
    def abandoned(self) -> bool:
        return self.failed or self.refusal is not None


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    desired: int = 0
    ready: int = 0


@dataclass(frozen=True, slots=True)
class Meter:
    """Money spent: `accrued` USD up to `since`, and from then on `per_hour`, while something runs."""

    accrued: float = 0.0
    per_hour: float = 0.0
    since: datetime | None = None

    def at(self, now: datetime) -> float:
        if self.since is None:
            return self.accrued
        return self.accrued + self.per_hour * max(0.0, (now - self.since).total_seconds()) / 3600

    def start(self, per_hour: float, now: datetime) -> Meter:
        return Meter(self.at(now), per_hour, now)

    def stop(self, now: datetime) -> Meter:
        return Meter(self.at(now))


@dataclass(frozen=True, slots=True)
class Status:
    phase: Phase
    phase_since: datetime
    seeking_since: datetime  # when the search for compute began that the capacity deadline counts from
    phase_seconds: Mapping[str, float] = field(default_factory=dict)  # of the phases that are over
    conditions: tuple[Condition, ...] = ()
    profile: ModelProfile | None = None
    estimate: Estimate | None = None
    ladder: tuple[Rung, ...] = ()  # rungs not yet tried in this round
    round: int = 0  # how often offers were collected
    attempt: Attempt | None = None
    attempts: int = 0
    refused: tuple[RefusedOffer, ...] = ()  # the story of this round, told on failure
    failure: Failure | None = None
    replicas: ReplicaCounts = ReplicaCounts()
    targets: tuple[str, ...] = ()  # base URLs of the replicas that answer, read by the gateway
    access: Access = Access()  # how they are spoken to
    ready_at: datetime | None = None
    meter: Meter = Meter()
    setbacks: int = 0  # passing failures in a row of the step under way
    setback: str | None = None  # the last of them, in words
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """`version` counts writes and is what compare-and-set compares; `due_at` is when the engine should look
    again, None for never; both are kept by the store as columns. `report` is written by its workers.
    `generation` counts changes of the spec, `wake_at` is when somebody last wanted it awake."""

    id: str
    organization_id: str
    name: str
    spec: DeploymentSpec
    status: Status
    created_at: datetime
    created_by: str
    revision: int = 1
    deleted_at: datetime | None = None  # set: its owner wants it gone
    report: WorkerReport | None = None
    generation: int = 1
    wake_at: datetime | None = None
    due_at: datetime | None = None
    version: int = 0

    @property
    def account(self) -> str | None:
        """The stored credential that opens where it is now; None where none is needed."""
        attempt = self.status.attempt
        if attempt is None:
            return None
        offer = attempt.rung.offer
        return offer.account or self.spec.credentials.get(offer.provider)

    def stored(self) -> Deployment:
        """As a reader would find it after this value was committed."""
        return replace(self, version=self.version + 1)

    @property
    def phase(self) -> Phase:
        """The phase to show: a deletion counts from the moment it was asked for."""
        if self.deleted_at is not None and self.status.phase is not Phase.DELETED:
            return Phase.DELETING
        return self.status.phase


def with_condition(
    conditions: tuple[Condition, ...],
    type_: ConditionType,
    status: Truth,
    reason: str,
    message: str,
    now: datetime,
) -> tuple[Condition, ...]:
    """`conditions` with `type_` set; `since` moves only when the truth or the reason changes."""
    old = next((c for c in conditions if c.type is type_), None)
    if old is not None and old.status is status and old.reason == reason:
        new = replace(old, message=message)
    else:
        new = Condition(type_, status, reason, message, now)
    return (*(c for c in conditions if c.type is not type_), new)
