"""From a plan to the bodies of POST and PATCH: what an endpoint should be, and what of it is not so yet.

Pure, so that every body can be held against RunPod's OpenAPI document without a server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from moorage.domain.compute import GB
from moorage.domain.model import ContainerImage, HubModel
from moorage.errors import FieldError, Rejected
from moorage.ports.provider import RevisionPlan
from moorage_runpod.environment import (
    WORKERS_MAX,
    WORKERS_MAX_ASKED,
    exposed_ports,
    marks,
    refuse_reserved,
    worker_environment,
)
from moorage_runpod.pools import PoolChoice
from moorage_runpod.scaling import Scaling, scaling_of
from moorage_runpod.settings import RunPodSettings, image_variable
from moorage_runpod.wire import Endpoint

LEAST_DISK_GB = 20
DISK_BESIDE_WEIGHTS_GB = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """An endpoint as it should be. `env` is without the marks, which depend on what the quota allows."""

    name: str
    image: str
    pool: PoolChoice
    scaling: Scaling
    env: Mapping[str, str] = field(repr=False)
    ports: tuple[str, ...]
    disk: int
    data_centers: tuple[str, ...]
    network_volumes: tuple[str, ...]
    settings: RunPodSettings = field(repr=False)

    @property
    def least_workers(self) -> int:
        """Fewer than these are no use."""
        return max(1, self.scaling.workers_min)

    def environment(self, allowed: int | None = None) -> dict[str, str]:
        return {**self.env, **marks(self.settings, self.scaling.workers_max, allowed)}


def wanted(plan: RevisionPlan, name: str, settings: RunPodSettings) -> Wanted:
    """Raises Rejected with the fields at fault."""
    refuse_reserved(plan.env)
    scaling = scaling_of(plan.serverless, plan.replicas, settings)
    return Wanted(
        name=name,
        image=_image(plan, settings),
        pool=PoolChoice.of(plan.offer.id),
        scaling=scaling,
        env=worker_environment(plan, name, settings, balanced=scaling.balanced),
        ports=tuple(exposed_ports(plan, balanced=scaling.balanced)),
        disk=settings.disk_gb or _disk(plan),
        data_centers=tuple(sorted(set(plan.serverless.data_centers))),
        network_volumes=tuple(sorted(set(plan.serverless.network_volumes))),
        settings=settings,
    )


def create_body(goal: Wanted, allowed: int | None = None) -> dict[str, object]:
    """`allowed` is the most workers that the account's quota leaves, where that is less than wanted."""
    gpu: dict[str, object] = {"pools": [goal.pool.pool], "count": goal.pool.count}
    if goal.settings.min_cuda is not None:
        gpu["minCudaVersion"] = goal.settings.min_cuda
    body: dict[str, object] = {
        "name": goal.name,
        "type": goal.scaling.kind,
        "image": goal.image,
        "env": goal.environment(allowed),
        "disk": goal.disk,
        "gpu": gpu,
        "workers": goal.scaling.workers(allowed),
        "scaling": goal.scaling.scaling,
        "timeout": goal.scaling.timeout_ms,
        "flashboot": goal.scaling.flashboot,
    }
    optional = {
        "ports": list(goal.ports),
        "dataCenterIds": list(goal.data_centers),
        "networkVolumes": list(goal.network_volumes),
        "registry": goal.settings.registry,
        "templateId": goal.settings.template_id,
    }
    return body | {key: value for key, value in optional.items() if value}


def patch_body(goal: Wanted, there: Endpoint, allowed: int | None = None) -> dict[str, object]:
    """Only what differs; empty when nothing does. A quota met before counts on, until another number is
    wanted."""
    allowed = allowed if allowed is not None else _allowed_before(goal, there)
    body: dict[str, object] = {}
    env = goal.environment(allowed)
    if goal.settings.template_id is not None:  # its variables are the endpoint's too
        env = {**{k: v for k, v in there.env.items() if k not in (WORKERS_MAX, WORKERS_MAX_ASKED)}, **env}
    if dict(there.env) != env:
        body["env"] = env
    if there.image != goal.image:
        body["image"] = goal.image
    if dict(there.scaling) != dict(goal.scaling.scaling):
        body["scaling"] = goal.scaling.scaling
    workers = goal.scaling.workers(allowed)
    if _workers_there(there, workers) != workers:
        body["workers"] = workers
    if there.timeout != goal.scaling.timeout_ms:
        body["timeout"] = goal.scaling.timeout_ms
    if there.flashboot != goal.scaling.flashboot:
        body["flashboot"] = goal.scaling.flashboot
    if sorted(there.data_center_ids) != list(goal.data_centers):
        body["dataCenterIds"] = list(goal.data_centers)
    if sorted(there.network_volumes) != list(goal.network_volumes):
        body["networkVolumes"] = list(goal.network_volumes)
    return body


def drift(there: Endpoint) -> str | None:
    """How the number of workers was changed behind our back, by somebody or, after days without requests, by
    RunPod; None if it was not."""
    mark = there.env.get(WORKERS_MAX, "")
    if not mark.isdecimal() or int(mark) == there.workers.max:
        return None
    return f"workers_max was {mark} and is {there.workers.max} at RunPod"


def _allowed_before(goal: Wanted, there: Endpoint) -> int | None:
    asked, got = there.env.get(WORKERS_MAX_ASKED, ""), there.env.get(WORKERS_MAX, "")
    if got.isdecimal() and asked == str(goal.scaling.workers_max) and int(got) >= goal.least_workers:
        return int(got)
    return None


def _workers_there(there: Endpoint, wanted_: Mapping[str, int]) -> dict[str, int]:
    """With `idleTimeout` only where one is wanted: RunPod may tell one that does not apply."""
    told = {"min": there.workers.min, "max": there.workers.max}
    if "idleTimeout" in wanted_ and there.workers.idle_timeout is not None:
        told["idleTimeout"] = there.workers.idle_timeout
    return told


def _image(plan: RevisionPlan, settings: RunPodSettings) -> str:
    match plan.source:
        case ContainerImage(image):
            return image
        case HubModel():
            image = settings.images.get(plan.runtime, "")
            if image:
                return image
            message = f"no worker image is known for {plan.runtime}: set {image_variable(plan.runtime)}"
            raise Rejected(message, fields=(FieldError("runtime", "no_image", message),))
        case _:
            message = "RunPod runs models of the Hugging Face Hub and container images only"
            raise Rejected(message, fields=(FieldError("source", "unsupported", message),))


def _disk(plan: RevisionPlan) -> int:
    """Room for weights as they are downloaded, which may be of twice the width that they are loaded with."""
    return max(LEAST_DISK_GB, math.ceil(2 * plan.memory_bytes / GB) + DISK_BESIDE_WEIGHTS_GB)
