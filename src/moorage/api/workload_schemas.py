"""What runs in a container, in the words of the deployments surface: the domain's own, in JSON.

Amounts of memory and storage are bytes, or text such as `8Gi`, as people write them for clusters.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal  # Any: what is validated may be anything

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from moorage.domain import workload as domain
from moorage.domain.workload import AccessMode, Autoscale, Metric, Queued, Resources, ScalingTarget
from moorage.domain.workload_rules import default_volume_name

Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Argument = Annotated[str, StringConstraints(max_length=4096)]
Whole = Annotated[int, Field(ge=-(2**31), lt=2**31)]  # beyond it nothing is meant, and rules are the domain's
Arguments = Annotated[list[Argument], Field(max_length=128)]

_AMOUNT = re.compile(r"([0-9]{1,15})(Mi|Gi|Ti)")
_UNITS = {"Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4}


def _bytes(given: Any) -> Any:
    """Numbers and everything that is no text are left to the schema."""
    if not isinstance(given, str):
        return given
    amount = _AMOUNT.fullmatch(given)
    if amount is None:
        raise PydanticCustomError("bytes", "It is a number of bytes, or a whole number of Mi, Gi or Ti.")
    return int(amount[1]) * _UNITS[amount[2]]


Bytes = Annotated[
    int,
    Field(ge=-(2**63), lt=2**63),
    BeforeValidator(_bytes),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^[0-9]{1,15}(Mi|Gi|Ti)$"}],
            "description": "Bytes, or text such as `8Gi`.",
        }
    ),
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ResourcesRequest(_Part):
    """Of one replica."""

    cpu_request: float | None = Field(None, description="Cores, above 0.")
    cpu_limit: float | None = Field(None, description="At least `cpu_request`.")
    memory_request: Bytes | None = None
    memory_limit: Bytes | None = Field(None, description="At least `memory_request`.")
    gpus: Whole | None = Field(None, description="As many as the offer has when absent.")


class PortsRequest(_Part):
    http: Whole
    grpc: Whole | None = None


class HealthRequest(_Part):
    """An HTTP GET that answers 2xx when a replica may be sent requests. Times in seconds."""

    path: Text
    port: Whole
    initial_delay: Whole = 30
    period: Whole = 10
    timeout: Whole = 5


class VolumeRequest(_Part):
    mount_path: Text
    size: Bytes
    name: Text | None = Field(None, description="`pvc-<mount_path>` when absent.")
    access_mode: Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"] = (
        "ReadWriteMany"
    )
    storage_class: Text | None = Field(None, description="The cluster's default when absent.")


class TargetRequest(_Part):
    metric: Literal["cpu", "gpu", "ram", "gram", "latency", "throughput", "concurrency", "queue_length"]
    target: float = Field(description="Per cent, ms, requests a second, requests or messages per replica.")
    percentile: Whole | None = Field(None, description="50, 75, 90 or 95; for latency only.")


class AutoscaleRequest(_Part):
    targets: list[TargetRequest] = Field(max_length=64, description="One for each metric.")
    cooldown_seconds: Whole | None = Field(None, description="Before zero; only with `scale_to_zero`.")


class QueuedRequest(_Part):
    """Requests come by a queue beside the replicas."""

    consumers: Whole = 1


class WorkloadRequest(_Part):
    """What runs in the container. Only compute that runs containers can keep it."""

    resources: ResourcesRequest = ResourcesRequest()
    ports: PortsRequest | None = None
    health: HealthRequest | None = None
    entrypoint: Arguments = Field(default_factory=list, description="In place of the image's own.")
    command: Arguments = Field(default_factory=list, description="In place of the image's CMD.")
    working_dir: Text | None = None
    volumes: list[VolumeRequest] = Field(default_factory=list, max_length=64)
    autoscale: AutoscaleRequest | None = None
    scale_to_zero: bool = False
    queued: QueuedRequest | None = None
    grace_seconds: Whole | None = Field(None, description="From SIGTERM to SIGKILL.")
    secret_env: list[Text] = Field(
        default_factory=list, max_length=256, description="Names of `env` whose values are secrets."
    )
    tag: Literal["testing", "staging", "production"] | None = None

    def to_domain(self) -> domain.Workload:
        return domain.Workload(
            resources=Resources(**self.resources.model_dump()),
            ports=None if self.ports is None else domain.Ports(**self.ports.model_dump()),
            health=None if self.health is None else domain.HealthCheck(**self.health.model_dump()),
            entrypoint=tuple(self.entrypoint),
            command=tuple(self.command),
            working_dir=self.working_dir,
            volumes=tuple(_volume(volume) for volume in self.volumes),
            autoscale=None if self.autoscale is None else _autoscale(self.autoscale),
            scale_to_zero=self.scale_to_zero,
            queued=None if self.queued is None else Queued(self.queued.consumers),
            grace_seconds=self.grace_seconds,
            secret_env=tuple(self.secret_env),
            tag=self.tag,
        )


def _volume(volume: VolumeRequest) -> domain.Volume:
    return domain.Volume(
        default_volume_name(volume.mount_path) if volume.name is None else volume.name,
        volume.mount_path,
        volume.size,
        AccessMode(volume.access_mode),
        volume.storage_class,
    )


def _autoscale(asked: AutoscaleRequest) -> Autoscale:
    targets = tuple(ScalingTarget(Metric(t.metric), t.target, t.percentile) for t in asked.targets)
    return Autoscale(targets, asked.cooldown_seconds)
