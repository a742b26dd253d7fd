"""What an endpoint asks for, as plain values, and how the API tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]  # Any: JSON of the wire

QUEUE, LOAD_BALANCER = "QUEUE", "LOAD_BALANCER"
QUEUE_DELAY, REQUEST_COUNT = "QUEUE_DELAY", "REQUEST_COUNT"
IDLE_TIMEOUT = 10


@dataclass(frozen=True, slots=True)
class Gpu:
    pools: tuple[str, ...]
    count: int = 1
    excluded_types: tuple[str, ...] = ()
    allowed_cuda_versions: tuple[str, ...] = ()
    min_cuda_version: str | None = None

    def as_json(self) -> Json:
        told: Json = {
            "pools": list(self.pools),
            "count": self.count,
            "allowedCudaVersions": list(self.allowed_cuda_versions),
            "minCudaVersion": self.min_cuda_version,
        }
        if self.excluded_types:
            told["excludedTypes"] = list(self.excluded_types)
        return told


@dataclass(frozen=True, slots=True)
class Cpu:
    """`memory` in GB."""

    id: str
    vcpus: int
    memory: int

    def as_json(self) -> Json:
        return {"id": self.id, "vcpuCount": self.vcpus, "memory": self.memory}


@dataclass(frozen=True, slots=True)
class Scaling:
    """`value`: seconds of queue delay, or requests a worker."""

    type: str
    value: float

    def as_json(self) -> Json:
        if self.type == QUEUE_DELAY:
            return {"type": self.type, "queueDelay": self.value}
        return {"type": self.type, "requestCount": int(self.value)}


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """`timeout` in ms, 0 for RunPod's default; `idle_timeout` in seconds, None where it does not apply."""

    name: str
    type: str
    scaling: Scaling
    image: str
    gpu: Gpu | None = None
    cpu: tuple[Cpu, ...] = ()
    args: str = ""
    disk: int = 20
    ports: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    registry: str | None = None
    workers_min: int = 0
    workers_max: int = 3
    idle_timeout: int | None = IDLE_TIMEOUT
    data_center_ids: tuple[str, ...] = ()
    network_volumes: tuple[str, ...] = ()
    timeout: int = 0
    flashboot: str = "OFF"

    @property
    def balanced(self) -> bool:
        return self.type == LOAD_BALANCER

    @property
    def pools(self) -> tuple[str, ...]:
        """GPU pools, or CPU flavours, in order."""
        return self.gpu.pools if self.gpu is not None else tuple(c.id for c in self.cpu)

    @property
    def gpu_count(self) -> int:
        return self.gpu.count if self.gpu is not None else 0

    def as_json(self) -> Json:
        workers: Json = {"min": self.workers_min, "max": self.workers_max}
        if self.idle_timeout is not None:
            workers["idleTimeout"] = self.idle_timeout
        compute = {"gpu": self.gpu.as_json()} if self.gpu else {"cpu": [c.as_json() for c in self.cpu]}
        return {
            "name": self.name,
            "type": self.type,
            "image": self.image,
            "args": self.args,
            "disk": self.disk,
            "ports": list(self.ports),
            "env": dict(self.env),
            "registry": self.registry,
            **compute,
            "workers": workers,
            "scaling": self.scaling.as_json(),
            "dataCenterIds": list(self.data_center_ids),
            "networkVolumes": list(self.network_volumes),
            "timeout": self.timeout,
            "flashboot": self.flashboot,
        }


# Fields whose change is a release, by the name that a release's diff gives them.
_RELEASED = {
    "template.imageName": "image",
    "template.dockerArgs": "args",
    "template.containerDiskInGb": "disk",
    "template.env": "env",
    "template.ports": "ports",
    "template.containerRegistryAuthId": "registry",
    "gpu": "gpu",
    "cpu": "cpu",
    "locations": "dataCenterIds",
    "networkVolumes": "networkVolumes",
    "flashBootType": "flashboot",
}


def release_diff(old: EndpointSpec, new: EndpointSpec) -> list[Json]:
    """What a change of `old` to `new` rolls out; empty where it applies at once."""
    before, after = old.as_json(), new.as_json()
    return [
        {"field": told, "old": before.get(name), "new": after.get(name)}
        for told, name in _RELEASED.items()
        if before.get(name) != after.get(name)
    ]


def rfc3339(at: float) -> str:
    """Seconds since 1970 as `2026-11-21T00:00:00.000000Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def request_urls(endpoint_id: str, spec: EndpointSpec, base: str) -> Json:
    """`base` is where the fake listens, for both of RunPod's hosts."""
    if spec.balanced:
        own = f"{base}/lb/{endpoint_id}"
        return {"base": own, "health": own + spec.env.get("HEALTH_CHECK_PATH", "/ping")}
    own = f"{base}/v2/{endpoint_id}"
    return {
        "run": f"{own}/run",
        "runSync": f"{own}/runsync",
        "status": f"{own}/status/{{job_id}}",
        "stream": f"{own}/stream/{{job_id}}",
        "cancel": f"{own}/cancel/{{job_id}}",
        "retry": f"{own}/retry/{{job_id}}",
        "purgeQueue": f"{own}/purge-queue",
        "health": f"{own}/health",
    }
