"""Compute for sale, and what a model needs of it.

Offers are what providers sell now; rungs are offers in the order they will be tried; refusals keep the reason
for everything that was not chosen, because a user who cannot be placed needs the whole story.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from moorage.domain.cluster import NodeGroup
from moorage.domain.model import SizedItem
from moorage.domain.workload import Workload
from moorage.errors import FieldError

GIB = 1024**3
GB = 10**9


class Availability(StrEnum):
    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    UNKNOWN = "unknown"


class Feature(StrEnum):
    """What a deployment may ask for and a provider may be unable to do."""

    CONTAINER_IMAGE = "container_image"
    HUB_MODEL = "hub_model"
    GPU = "gpu"
    SPOT = "spot"
    REGION = "region"
    SEVERAL_REPLICAS = "several_replicas"
    SERVERLESS = "serverless"
    MODEL_CACHE = "model_cache"
    WORKLOAD = "workload"  # resources, ports, volumes and scaling of a container
    CLUSTER = "cluster"  # a cluster or node groups were named


@dataclass(frozen=True, slots=True)
class Offer:
    """One thing a provider sells now, for one replica.

    `usable_bytes` is what a replica can really allocate over all its accelerators (or of main memory, for a
    CPU offer), below the nominal `memory_bytes` of one accelerator times `count`. Prices are USD per hour.
    """

    id: str  # unique and stable within the provider
    provider: str
    gpu: str | None
    count: int  # accelerators per replica, 0 for a CPU offer
    memory_bytes: int
    usable_bytes: int
    price_per_hour: float
    price_source: str
    price_as_of: str  # ISO date
    region: str | None = None
    spot: bool = False
    availability: Availability = Availability.UNKNOWN
    compute_capability: float | None = None
    cuda: float | None = None
    engines: tuple[str, ...] | None = None  # runtimes that can run there; None: any
    engines_missing: tuple[tuple[str, str], ...] = ()  # (runtime, why it cannot and what to install)
    load_seconds: float | None = None
    note: str | None = None  # e.g. how much is free of how much
    by_running: bool = False  # billed by the replicas that run, as `Observation.running` tells; else by all
    account: str | None = None  # the stored credential under which it was offered
    ref: Mapping[str, str] = field(default_factory=dict)  # what the provider wants to find in it again
    home: str | None = None  # the machine whose process alone can start and see it; None: any process can


@dataclass(frozen=True, slots=True)
class Estimate:
    """Memory of one replica as an itemised sum. `min_vram_gb` is the tier it is snapped up to (GB)."""

    total_bytes: int
    min_vram_gb: float
    items: tuple[SizedItem, ...]


@dataclass(frozen=True, slots=True)
class Concession:
    """A smaller wish, in words for the user, and what the model would need with it."""

    change: str
    total_bytes: int


@dataclass(frozen=True, slots=True)
class RuntimeOption:
    """One way to run the model: a runtime of the registry, on CPU or GPU, with its own estimate."""

    runtime: str
    accelerator: bool  # True: needs a GPU; False: runs on the CPU
    estimate: Estimate
    min_compute_capability: float | None = None
    min_cuda: float | None = None
    shards: bool = False  # several accelerators can share one replica
    heads: int | None = None  # attention heads, which must divide by the number of shards
    per_shard_bytes: int = 0  # what each further accelerator costs on top
    concessions: tuple[Concession, ...] = ()  # what would need less, the smallest cut first


class EndpointType(StrEnum):
    QUEUE = "queue"
    LOAD_BALANCER = "load_balancer"


class ScalerType(StrEnum):
    QUEUE_DELAY = "queue_delay"  # seconds that a request may wait before a worker is added
    REQUEST_COUNT = "request_count"  # requests for which one worker is kept


@dataclass(frozen=True, slots=True)
class Serverless:
    """The owner's wishes about compute that scales by workers, down to none. None means: the provider's own
    default. Times are in seconds."""

    endpoint_type: EndpointType | None = None
    workers_min: int | None = None
    workers_max: int | None = None
    idle_timeout: int | None = None  # that a worker stays after its last request
    execution_timeout: float | None = None  # of one request
    flashboot: bool | None = None
    network_volumes: tuple[str, ...] = ()
    data_centers: tuple[str, ...] = ()
    scaler_type: ScalerType | None = None
    scaler_value: float | None = None

    @property
    def asked(self) -> bool:
        """Whether there is any wish."""
        return self != Serverless()


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the core asks a provider for. A provider may use it to leave out what can never fit."""

    options: tuple[RuntimeOption, ...]
    replicas: int
    source_kind: str  # "hub" | "upload" | "image"
    region: str | None = None
    spot: bool | None = None
    serverless: Serverless = Serverless()
    model_cache: bool = False
    max_replicas: int = 1
    workload: Workload | None = None
    node_groups: tuple[NodeGroup, ...] = ()  # of the account that is asked, as the service knows them
    cluster: bool = False  # whether a cluster was named


@dataclass(frozen=True, slots=True)
class PlacementPolicy:
    """The owner's wishes about compute. None means: no wish. With `own_accounts_only` nothing is placed on
    compute that is not the owner's own account somewhere."""

    provider: str = "auto"
    gpu_tier: str | None = None
    region: str | None = None
    spot: bool | None = None
    max_price_per_hour: float | None = None
    own_accounts_only: bool = False
    cluster: str | None = None  # id of an imported cluster
    node_groups: tuple[str, ...] = ()  # ids; empty: any of the cluster's


@dataclass(frozen=True, slots=True)
class Rung:
    """An offer that fits, with the runtime that would run on it."""

    offer: Offer
    runtime: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class RefusedOffer:
    """An offer that does not do, why, and the smallest change of the request that would make it do."""

    provider: str
    gpu: str | None
    count: int
    reason: str
    smallest_change: str | None = None
    region: str | None = None
    price_per_hour: float | None = None  # None: the provider as a whole is refused
    fields: tuple[FieldError, ...] = ()  # parts of the request that the provider named; below its body

    @property
    def where(self) -> str:
        """In words: the offer, or the provider where none of its offers was looked at."""
        if self.price_per_hour is None and self.gpu is None:
            return self.provider
        return f"{self.provider} {self.gpu or 'CPU'} x{self.count or 1}"


@dataclass(frozen=True, slots=True)
class Bill:
    """What a provider says that it charged, USD, from `since` to `until`."""

    amount: float
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Placement:
    ladder: tuple[Rung, ...]
    refused: tuple[RefusedOffer, ...]
