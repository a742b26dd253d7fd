"""What runs in a container, beyond the model itself: resources, ports, health, storage, scaling.

Only compute that runs containers reads it. Every field has a value that leaves the choice to the provider, so
that a deployment which says nothing of it runs as it always did. Memory and storage are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Metric(StrEnum):
    """What scaling follows; the unit of the target stands behind each."""

    CPU = "cpu"  # per cent of the request
    RAM = "ram"  # per cent of the request
    GPU = "gpu"  # per cent, as DCGM tells it
    GRAM = "gram"  # per cent of the accelerators' memory
    LATENCY = "latency"  # milliseconds, at a percentile
    THROUGHPUT = "throughput"  # requests a second and replica
    CONCURRENCY = "concurrency"  # requests under way a replica
    QUEUE_LENGTH = "queue_length"  # messages a replica, of a deployment that takes them from a queue


RESOURCE_METRICS = frozenset({Metric.CPU, Metric.RAM})  # any cluster with a metrics server has them
PERCENTILES = (50, 75, 90, 95)


@dataclass(frozen=True, slots=True)
class ScalingTarget:
    metric: Metric
    target: float
    percentile: int | None = None  # of the latency


@dataclass(frozen=True, slots=True)
class Autoscale:
    """`cooldown_seconds` is from the last activity to zero replicas; None: the autoscaler's own."""

    targets: tuple[ScalingTarget, ...]
    cooldown_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """Of one replica. CPU in cores. `gpus` None: as many as the offer has."""

    cpu_request: float | None = None
    cpu_limit: float | None = None
    memory_request: int | None = None
    memory_limit: int | None = None
    gpus: int | None = None


@dataclass(frozen=True, slots=True)
class Ports:
    http: int
    grpc: int | None = None


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """An HTTP GET that answers 2xx when the replica may be sent requests. Times in seconds."""

    path: str
    port: int
    initial_delay: int = 30
    period: int = 10
    timeout: int = 5


class AccessMode(StrEnum):
    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_ONLY_MANY = "ReadOnlyMany"
    READ_WRITE_MANY = "ReadWriteMany"
    READ_WRITE_ONCE_POD = "ReadWriteOncePod"


@dataclass(frozen=True, slots=True)
class Volume:
    """Storage that outlives a replica, and goes with its deployment."""

    name: str
    mount_path: str
    size: int
    access_mode: AccessMode = AccessMode.READ_WRITE_MANY
    storage_class: str | None = None


@dataclass(frozen=True, slots=True)
class Queued:
    """Requests come by a queue beside the replicas; each has `consumers` at work at once."""

    consumers: int = 1


@dataclass(frozen=True, slots=True)
class Workload:
    """`entrypoint` and `command` take the place of the image's own ENTRYPOINT and CMD; empty: they stand.
    `secret_env` names those variables whose values are secrets. `queued` None: requests come by HTTP."""

    resources: Resources = Resources()
    ports: Ports | None = None
    health: HealthCheck | None = None
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_dir: str | None = None
    volumes: tuple[Volume, ...] = ()
    autoscale: Autoscale | None = None
    scale_to_zero: bool = False
    queued: Queued | None = None
    grace_seconds: int | None = None  # from SIGTERM to SIGKILL
    secret_env: tuple[str, ...] = ()
    tag: str | None = None  # "testing", "staging", "production": for people
