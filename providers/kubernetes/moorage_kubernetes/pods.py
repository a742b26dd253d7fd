"""The pod of a replica, out of a plan. Pure.

The image decides what may be asked of a pod: our worker runs without any privilege, an image that somebody
brought may need root. What a replica asks of a node is the same sum that its offer was made with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any  # Kubernetes objects as they are sent

from moorage.domain.compute import GIB
from moorage.domain.model import ContainerImage, HubModel
from moorage.domain.workload import HealthCheck, Workload
from moorage.errors import FieldError, Rejected
from moorage.ports.provider import RevisionPlan
from moorage_kubernetes.demand import replica_demand
from moorage_kubernetes.environment import MODELS, PORT, Environment, grace_seconds, http_port
from moorage_kubernetes.nodes import GPU_RESOURCE
from moorage_kubernetes.quantities import cpu_quantity, memory_quantity
from moorage_kubernetes.settings import KubernetesSettings, image_variable

Object = dict[str, Any]

CONTAINER = "model"
WORKER_USER = 10001
SHM = "/dev/shm"  # noqa: S108  # in a container
DRAIN_SECONDS = 5  # that a pod goes on serving after it was taken out of the routes
LEAST_SHM, UNKNOWN_SHM = 64 * 1024**2, GIB
FRONT_RESOURCES = {"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"memory": "512Mi"}}


@dataclass(frozen=True, slots=True)
class Names:
    """Of what a pod refers to; `registry` is the secret that opens its image's registry. `match` are the
    labels that its kin have."""

    secret: str
    registry: str | None
    match: Mapping[str, str]


def image_of(plan: RevisionPlan, settings: KubernetesSettings) -> str:
    """Raises Rejected where there is none."""
    match plan.source:
        case ContainerImage(image):
            return image
        case HubModel():
            image = settings.images.get(plan.runtime, "")
            if image:
                return image
            message = f"no worker image is known for {plan.runtime}: set {image_variable(plan.runtime)}"
            raise Rejected(message, fields=(FieldError("runtime", "no_image", message),))
    message = "Kubernetes runs models of the Hugging Face Hub and container images only"
    raise Rejected(message, fields=(FieldError("source", "unsupported", message),))


def replica_pod(
    plan: RevisionPlan, settings: KubernetesSettings, environment: Environment, names: Names
) -> Object:
    """The spec of a pod. Raises Rejected."""
    workload = plan.workload or Workload()
    own = isinstance(plan.source, HubModel)
    gpus = gpus_of(plan)
    grace = grace_seconds(workload)
    mounts, volumes = _volumes(plan)
    container: Object = {
        "name": CONTAINER,
        "image": image_of(plan, settings),
        "env": environment.entries(names.secret),
        "ports": _ports(plan),
        "resources": _resources(plan, workload, gpus),
        **_probes(plan, workload, settings),
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if workload.entrypoint:
        container["command"] = list(workload.entrypoint)
    if workload.command:
        container["args"] = list(workload.command)
    if workload.working_dir is not None:
        container["workingDir"] = workload.working_dir
    if own:
        container["securityContext"] = locked_down()
    if workload.queued is None and grace > 2 * DRAIN_SECONDS:
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}}
    spec: Object = {
        **_common(names),
        "terminationGracePeriodSeconds": grace,
        "containers": [container],
        "volumes": volumes,
        "topologySpreadConstraints": [_spread(names.match)],
        **_placement(plan, gpus),
    }
    if own and workload.volumes:
        spec["securityContext"]["fsGroup"] = WORKER_USER
    return spec


def front_pod(image: str, environment: Environment, names: Names) -> Object:
    """Of the front of a queue: it has no model, and needs little."""
    container: Object = {
        "name": CONTAINER,
        "image": image,
        "env": environment.entries(names.secret),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": FRONT_RESOURCES,
        "startupProbe": _http_probe("/ready", PORT, period=2, failures=60),
        "readinessProbe": _http_probe("/ready", PORT, period=5, failures=3),
        "livenessProbe": _http_probe("/health", PORT, period=15, failures=4),
        "securityContext": locked_down(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {**_common(names), "terminationGracePeriodSeconds": 30, "containers": [container]}


def gpus_of(plan: RevisionPlan) -> int:
    """As the offer said."""
    told = plan.offer.ref.get("gpus", "")
    return int(told) if told.isdecimal() else plan.offer.count


def locked_down() -> Object:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


# -- parts ---------------------------------------------------------------------------------------------------


def _common(names: Names) -> Object:
    spec: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
    }
    if names.registry is not None:
        spec["imagePullSecrets"] = [{"name": names.registry}]
    return spec


def _ports(plan: RevisionPlan) -> list[Object]:
    ports: list[Object] = [{"name": "http", "containerPort": http_port(plan), "protocol": "TCP"}]
    asked = plan.workload.ports if plan.workload is not None else None
    if asked is not None and asked.grpc is not None:
        ports.append({"name": "grpc", "containerPort": asked.grpc, "protocol": "TCP"})
    return ports


def _resources(plan: RevisionPlan, workload: Workload, gpus: int) -> Object:
    demand = replica_demand(plan.workload, plan.memory_bytes, gpus)
    asked = workload.resources
    requests: dict[str, str] = {"cpu": cpu_quantity(demand.cpu)}
    limits: dict[str, str] = {}
    if demand.memory:
        requests["memory"] = memory_quantity(demand.memory)
    if asked.cpu_limit is not None:
        limits["cpu"] = cpu_quantity(asked.cpu_limit)
    if asked.memory_limit is not None:
        limits["memory"] = memory_quantity(asked.memory_limit)
    if gpus:
        requests[GPU_RESOURCE] = limits[GPU_RESOURCE] = str(gpus)
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _probes(plan: RevisionPlan, workload: Workload, settings: KubernetesSettings) -> Object:
    """Nothing but the start has much time: a model loads once, and then answers or does not."""
    health, window = workload.health, settings.start_window
    if health is not None:
        return _asked_probes(health, window)
    port = http_port(plan)
    if isinstance(plan.source, HubModel):
        return {
            "startupProbe": _http_probe("/ready", port, period=5, failures=math.ceil(window / 5)),
            "readinessProbe": _http_probe("/ready", port, period=5, failures=3),
            "livenessProbe": _http_probe("/health", port, period=15, failures=4),
        }
    listens: Object = {"tcpSocket": {"port": port}, "timeoutSeconds": 5}
    return {
        "startupProbe": {**listens, "periodSeconds": 5, "failureThreshold": math.ceil(window / 5)},
        "readinessProbe": {**listens, "periodSeconds": 10, "failureThreshold": 3},
    }


def _asked_probes(health: HealthCheck, window: float) -> Object:
    def probe(failures: int, **more: int) -> Object:
        return _http_probe(health.path, health.port, health.period, failures, timeout=health.timeout) | more

    return {
        "startupProbe": probe(math.ceil(window / health.period), initialDelaySeconds=health.initial_delay),
        "readinessProbe": probe(3),
        "livenessProbe": probe(max(3, math.ceil(60 / health.period))),
    }


def _http_probe(path: str, port: int, period: int, failures: int, *, timeout: int = 5) -> Object:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _volumes(plan: RevisionPlan) -> tuple[list[Object], list[Object]]:
    """The mounts and what is mounted."""
    workload = plan.workload or Workload()
    made: list[tuple[str, Object]] = [
        (volume.mount_path, {"name": f"claim-{place}", "persistentVolumeClaim": {"claimName": volume.name}})
        for place, volume in enumerate(workload.volumes)
    ]
    taken = {volume.mount_path.rstrip("/") for volume in workload.volumes}
    if SHM not in taken:
        memory = {"medium": "Memory", "sizeLimit": memory_quantity(_shm(plan, workload))}
        made.append((SHM, {"name": "shm", "emptyDir": memory}))
    if isinstance(plan.source, HubModel) and MODELS not in taken:
        made.append((MODELS, {"name": "models", "emptyDir": {}}))
    return [{"name": v["name"], "mountPath": path} for path, v in made], [v for _, v in made]


def _shm(plan: RevisionPlan, workload: Workload) -> int:
    """Half of the memory, of which it is a part."""
    requested = replica_demand(plan.workload, plan.memory_bytes, gpus_of(plan)).memory
    memory = workload.resources.memory_limit or requested
    half = memory // 2 if memory else UNKNOWN_SHM
    return max(LEAST_SHM, half // 1024**2 * 1024**2)


def _spread(match: Mapping[str, str]) -> Object:
    """Over zones, as far as there is a choice."""
    return {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": dict(match)},
    }


def _placement(plan: RevisionPlan, gpus: int) -> Object:
    """On the nodes of the offer."""
    made: Object = {}
    wanted = _selector(plan.offer.ref)
    if wanted:
        expressions = [{"key": k, "operator": "In", "values": [v]} for k, v in sorted(wanted.items())]
        terms = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
        made["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    if gpus:
        made["tolerations"] = [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}]
    return made


def _selector(ref: Mapping[str, str]) -> dict[str, str]:
    return {str(k): str(v) for k, v in json.loads(ref.get("selector") or "{}").items()}
