"""RunPod's rules about endpoints that a schema cannot say. Pure: a valid body becomes a spec or a Problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from moorage_runpod.testing.catalog import Catalog
from moorage_runpod.testing.endpoint import (
    IDLE_TIMEOUT,
    LOAD_BALANCER,
    QUEUE,
    QUEUE_DELAY,
    REQUEST_COUNT,
    Cpu,
    EndpointSpec,
    Gpu,
    Json,
    Scaling,
)
from moorage_runpod.testing.problems import Problem, bad_request, not_found

IDLE_TIMEOUT_RULE = "idleTimeout does not apply to queue-based endpoints scaling on requestCount"
_CONTAINER = ("image", "args", "disk", "ports", "env", "registry")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an endpoint may refer to: `template` and `volume` find one of the account's by its id."""

    catalog: Catalog
    template: Callable[[str], Json | None]
    volume: Callable[[str], Json | None]
    missing_images: frozenset[str] = frozenset()


def created(body: Json, around: Surroundings) -> EndpointSpec:
    """The spec of a create. Raises Problem."""
    if ("gpu" in body) == ("cpu" in body):
        raise bad_request("exactly one of gpu or cpu must be specified")
    body = _with_template(body, around)
    workers, scaling = body.get("workers", {}), _scaling(body["scaling"])
    spec = EndpointSpec(
        name=body["name"],
        type=body["type"],
        scaling=scaling,
        image=body["image"],
        gpu=_gpu(body["gpu"], None, around.catalog) if "gpu" in body else None,
        cpu=_cpus(body["cpu"], around.catalog) if "cpu" in body else (),
        workers_min=workers.get("min", 0),
        workers_max=workers.get("max", 3),
        idle_timeout=_idle_timeout(workers, body["type"], scaling, IDLE_TIMEOUT),
        # RunPod's document says 300000; its API answers 0.
        timeout=body.get("timeout", 0),
        flashboot=body.get("flashboot", "OFF"),
        data_center_ids=tuple(body.get("dataCenterIds", ())),
        network_volumes=tuple(body.get("networkVolumes", ())),
    )
    return checked(_with_container(spec, body), around)


def patched(spec: EndpointSpec, body: Json, around: Surroundings) -> EndpointSpec:
    """The spec after a PATCH; only what `body` names changes. Raises Problem."""
    if ("cpu" in body and spec.gpu is not None) or ("gpu" in body and spec.gpu is None):
        raise bad_request("the compute family of an endpoint cannot be changed")
    body = _with_template(body, around)
    workers = body.get("workers", {})
    scaling = _scaling(body["scaling"]) if "scaling" in body else spec.scaling
    if spec.type == LOAD_BALANCER and scaling.type != REQUEST_COUNT:
        raise bad_request("load balancing endpoints must scale on REQUEST_COUNT")
    spec = replace(
        _with_container(spec, body),
        name=body.get("name", spec.name),
        scaling=scaling,
        gpu=_gpu(body["gpu"], spec.gpu, around.catalog) if "gpu" in body else spec.gpu,
        cpu=_cpus(body["cpu"], around.catalog) if "cpu" in body else spec.cpu,
        workers_min=workers.get("min", spec.workers_min),
        workers_max=workers.get("max", spec.workers_max),
        idle_timeout=_idle_timeout(workers, spec.type, scaling, spec.idle_timeout or IDLE_TIMEOUT),
        timeout=body.get("timeout", spec.timeout),
        flashboot=body.get("flashboot", spec.flashboot),
        data_center_ids=tuple(body.get("dataCenterIds", spec.data_center_ids)),
        network_volumes=tuple(body.get("networkVolumes", spec.network_volumes)),
    )
    return checked(spec, around)


def checked(spec: EndpointSpec, around: Surroundings) -> EndpointSpec:
    """The rules about several fields at once."""
    if spec.image in around.missing_images:
        raise Problem(422, f"image {spec.image} not found")
    if spec.workers_min > spec.workers_max:
        raise bad_request("workers.min must not exceed workers.max")
    unknown = [d for d in spec.data_center_ids if d not in around.catalog.data_centers]
    if unknown:
        raise bad_request(f"unknown data center {unknown[0]}")
    _check_volumes(spec, around)
    return spec


def check_quota(wanted: int, others: int, quota: int) -> None:
    """`wanted` is workers.max of this endpoint, `others` that of all the account's other ones. Raises 400."""
    if wanted + others > quota:
        raise bad_request(
            f"Max workers across all endpoints must not exceed your workers quota ({quota}). Reduce the max"
            " workers for other endpoints or lower the max worker count for this endpoint to at most"
            f" {max(0, quota - others)}."
        )


def _with_template(body: Json, around: Surroundings) -> Json:
    """The body as if the template's container settings stood in it; the body's own win, env by key."""
    if "templateId" not in body:
        return body
    template = around.template(body["templateId"])
    if template is None:
        raise not_found()
    if not template["serverless"]:
        raise Problem(422, "templateId must name a serverless template")
    merged = {name: template[name] for name in _CONTAINER} | body
    merged["env"] = {**template["env"], **body.get("env", {})}
    gpu = body.get("gpu")
    if gpu is not None and "allowedCudaVersions" not in gpu and "minCudaVersion" not in gpu:
        merged["gpu"] = gpu | {"allowedCudaVersions": template["allowedCudaVersions"]}
    return merged


def _with_container(spec: EndpointSpec, body: Json) -> EndpointSpec:
    return replace(
        spec,
        image=body.get("image", spec.image),
        args=body.get("args", spec.args),
        disk=body.get("disk", spec.disk),
        ports=tuple(body.get("ports", spec.ports)),
        env=dict(body.get("env", spec.env)),
        registry=body.get("registry", spec.registry),
    )


def _scaling(told: Json) -> Scaling:
    return Scaling(told["type"], told["queueDelay" if told["type"] == QUEUE_DELAY else "requestCount"])


def _idle_timeout(workers: Mapping[str, int], kind: str, scaling: Scaling, default: int) -> int | None:
    if kind == QUEUE and scaling.type == REQUEST_COUNT:
        if "idleTimeout" in workers:
            raise Problem(422, IDLE_TIMEOUT_RULE)
        return None
    return workers.get("idleTimeout", default)


def _gpu(told: Json, old: Gpu | None, catalog: Catalog) -> Gpu:
    base = old or Gpu(())
    gpu = Gpu(
        pools=tuple(told.get("pools", base.pools)),
        count=told.get("count", base.count),
        # Pools without excludedTypes clear them.
        excluded_types=tuple(told.get("excludedTypes", () if "pools" in told else base.excluded_types)),
        allowed_cuda_versions=tuple(told.get("allowedCudaVersions", base.allowed_cuda_versions)),
        min_cuda_version=told.get("minCudaVersion", base.min_cuda_version) or None,
    )
    unknown = [p for p in gpu.pools if p not in catalog.pools]
    if unknown:
        raise bad_request(f"unknown gpu pool {unknown[0]}")
    types = {g.id for pool in gpu.pools for g in catalog.pool(pool)}
    foreign = [t for t in gpu.excluded_types if t not in types]
    if foreign:
        raise bad_request(f"excluded gpu type {foreign[0]} is not in the listed pools")
    if types <= set(gpu.excluded_types):
        raise bad_request("excludedTypes leaves no gpu type to run on")
    if gpu.allowed_cuda_versions and gpu.min_cuda_version:
        raise bad_request("allowedCudaVersions and minCudaVersion are mutually exclusive")
    return gpu


def _cpus(told: Sequence[Json], catalog: Catalog) -> tuple[Cpu, ...]:
    chosen = []
    for one in told:
        flavor, vcpus = catalog.cpus.get(one["id"]), one["vcpuCount"]
        if flavor is None:
            raise bad_request(f"unknown cpu flavor {one['id']}")
        if vcpus & (vcpus - 1) or vcpus > flavor.most:
            raise bad_request(f"vcpuCount must be a power of 2 and at most {flavor.most}")
        chosen.append(Cpu(flavor.id, vcpus, int(vcpus * flavor.ram)))
    return tuple(chosen)


def _check_volumes(spec: EndpointSpec, around: Surroundings) -> None:
    used: set[str] = set()
    for name in spec.network_volumes:
        volume = around.volume(name)
        if volume is None:
            raise bad_request(f"network volume {name} not found")
        center = volume["dataCenter"]
        if center in used:
            raise bad_request(f"only one network volume per data center is allowed ({center})")
        if spec.data_center_ids and center not in spec.data_center_ids:
            raise bad_request(f"network volume {name} is in {center}, which is not in dataCenterIds")
        used.add(center)
