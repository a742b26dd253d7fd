"""Between the BYOC document's words and the domain's: requests become workloads, deployments become answers.

Nothing is decided here. What the document says has no effect (`consumer_count` of a deployment that takes no
messages) has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any  # answers are JSON

from moorage.api.byoc_schemas import (
    AdvancedConfiguration,
    AutoscaleConfig,
    ByocChangeRequest,
    ByocDeploymentRequest,
    CustomConfiguration,
    HealthCheck,
    Ports,
    VolumeClaim,
)
from moorage.domain import workload as domain
from moorage.domain.compute import GIB
from moorage.domain.deployment import Deployment, Phase
from moorage.domain.naming import id_of, slug_of, uuid_of
from moorage.domain.request import NewDeployment
from moorage.domain.view import instant
from moorage.domain.workload import AccessMode, Autoscale, Metric, Queued, Resources, ScalingTarget, Workload
from moorage.domain.workload_rules import default_volume_name
from moorage.services.changes import Change

STATUS = {
    Phase.VALIDATING: "DEPLOYING",
    Phase.SELECTING_GPU: "DEPLOYING",
    Phase.CREATING_ENDPOINT: "DEPLOYING",
    Phase.LOADING_MODEL: "DEPLOYING",
    Phase.READY: "DEPLOYED",
    Phase.UPDATING: "UPDATING",
    Phase.STOPPING: "STOPPED",
    Phase.STOPPED: "STOPPED",
    Phase.HIBERNATING: "STOPPED",
    Phase.HIBERNATED: "STOPPED",
    Phase.WAKING: "STOPPED",
    Phase.FAILED: "FAILED",
    Phase.DELETING: "DELETING",
    Phase.DELETED: "DELETED",
}


# -- what is asked ---------------------------------------------------------------------------------------


def new_deployment(body: ByocDeploymentRequest) -> NewDeployment:
    return NewDeployment(
        model_id=id_of("mdl", body.model_repo),
        name=body.name,
        min_replicas=body.min_pod_replicas,
        max_replicas=body.max_pod_replicas,
        env={**(body.env_variables or {}), **(body.secret_env_variables or {})},
        cluster=id_of("cls", body.cluster),
        node_groups=tuple(dict.fromkeys(id_of("ngp", uuid) for uuid in body.nodegroups)),
        workload=_workload(body),
        user_webhook_url=body.webhook_url,
    )


def change(current: Deployment, body: ByocChangeRequest) -> Change:
    """Fields that are absent, or null, stay as they are."""
    env = None
    if body.env_variables is not None or body.secret_env_variables is not None:
        env = {**(body.env_variables or {}), **(body.secret_env_variables or {})}
    old = current.spec.workload or Workload()
    new = _changed(old, body)
    return Change(
        min_replicas=body.min_pod_replicas,
        max_replicas=body.max_pod_replicas,
        workload=None if new == old else new,
        env=env,
        webhook_url=body.webhook_url,
    )


def _workload(body: ByocDeploymentRequest) -> Workload:
    overrides = (body.advanced_configuration or AdvancedConfiguration()).runtime_overrides
    queued = None
    if body.async_deployment_type == "ASYNC":
        queued = Queued() if overrides.consumer_count is None else Queued(overrides.consumer_count)
    custom = body.deployment_custom_configuration or CustomConfiguration()
    return Workload(
        resources=Resources(
            body.cpu_request,
            body.cpu_limit,
            body.memory_request * GIB,
            body.memory_limit * GIB,
            body.gpu_request,
        ),
        ports=None if body.ports is None else _ports(body.ports),
        health=None if body.healthcheck is None else _health(body.healthcheck),
        entrypoint=tuple(custom.entrypoint or ()),
        command=tuple(custom.command or ()),
        working_dir=custom.workingDir,
        volumes=tuple(_volume(claim) for claim in body.persistent_volume_claims or ()),
        autoscale=_autoscale(body.autoscale_config),
        scale_to_zero=body.scale_to_zero_enabled,
        queued=queued,
        grace_seconds=overrides.termination_grace_period_seconds,
        secret_env=tuple(sorted(body.secret_env_variables or ())),
        tag=body.deployment_tag,
    )


def _changed(old: Workload, body: ByocChangeRequest) -> Workload:
    new = replace(old, resources=_changed_resources(old.resources, body))
    if body.autoscale_config is not None:
        new = replace(new, autoscale=_autoscale(body.autoscale_config))
    if body.scale_to_zero_enabled is not None:
        new = replace(new, scale_to_zero=body.scale_to_zero_enabled)
    if body.deployment_tag is not None:
        new = replace(new, tag=body.deployment_tag)
    if body.ports is not None:
        new = replace(new, ports=_ports(body.ports))
    if body.healthcheck is not None:
        new = replace(new, health=_health(body.healthcheck))
    if (custom := body.deployment_custom_configuration) is not None:
        entrypoint, command = tuple(custom.entrypoint or ()), tuple(custom.command or ())
        new = replace(new, entrypoint=entrypoint, command=command, working_dir=custom.workingDir)
    if body.env_variables is not None or body.secret_env_variables is not None:
        new = replace(new, secret_env=tuple(sorted(body.secret_env_variables or ())))
    return _overridden(new, body.advanced_configuration)


def _changed_resources(old: Resources, body: ByocChangeRequest) -> Resources:
    asked = {
        "cpu_request": body.cpu_request,
        "cpu_limit": body.cpu_limit,
        "memory_request": None if body.memory_request is None else body.memory_request * GIB,
        "memory_limit": None if body.memory_limit is None else body.memory_limit * GIB,
        "gpus": body.gpu_request,
    }
    return replace(old, **{name: amount for name, amount in asked.items() if amount is not None})


def _overridden(workload: Workload, advanced: AdvancedConfiguration | None) -> Workload:
    if advanced is None:
        return workload
    overrides = advanced.runtime_overrides
    if overrides.consumer_count is not None and workload.queued is not None:
        workload = replace(workload, queued=Queued(overrides.consumer_count))
    if overrides.termination_grace_period_seconds is not None:
        workload = replace(workload, grace_seconds=overrides.termination_grace_period_seconds)
    return workload


def _ports(ports: Ports) -> domain.Ports:
    return domain.Ports(ports.http.port, None if ports.grpc is None else ports.grpc.port)


def _health(check: HealthCheck) -> domain.HealthCheck:
    return domain.HealthCheck(
        check.path, check.port, check.initialDelaySeconds, check.periodSeconds, check.timeoutSeconds
    )


def _volume(claim: VolumeClaim) -> domain.Volume:
    return domain.Volume(
        default_volume_name(claim.mount_path) if claim.name is None else claim.name,
        claim.mount_path,
        int(claim.size) * GIB,
        AccessMode(claim.access_mode),
        claim.storage_class,
    )


def _autoscale(config: AutoscaleConfig) -> Autoscale:
    targets = tuple(ScalingTarget(Metric(t.metric), t.target, t.percentile) for t in config.targets)
    return Autoscale(targets, config.cooldown_period)


# -- what is answered ------------------------------------------------------------------------------------


def created(deployment: Deployment) -> dict[str, Any]:
    """The documented body of a 201."""
    spec = deployment.spec
    return {
        "uuid": str(uuid_of(deployment.id)),
        "name": deployment.name,
        "slug": slug_of(deployment.id),
        "org": str(uuid_of(deployment.organization_id)),
        "model_repo": None if spec.model_version_id is None else str(uuid_of(spec.model_version_id)),
        "cluster": str(uuid_of(spec.policy.cluster or "")),
        "node_groups": [str(uuid_of(id_)) for id_ in spec.policy.node_groups],
        "min_pod_replicas": spec.min_replicas,
        "max_pod_replicas": spec.max_replicas,
        "autoscale_config": _autoscale_config(spec.workload),
    }


def detail(deployment: Deployment, public_url: str) -> dict[str, Any]:
    status, workload = deployment.status, deployment.spec.workload or Workload()
    failure = status.failure
    told = None
    if failure is not None:
        told = {"code": failure.code, "detail": failure.detail, "advice": failure.advice}
    return {
        **created(deployment),
        "status": STATUS[deployment.phase],
        "phase": deployment.phase.value,
        "failure": told,
        "setback": status.setback,
        "replicas": {"desired": max(1, deployment.spec.min_replicas), "ready": status.replicas.ready},
        **_workload_detail(workload),
        "env_names": list(deployment.spec.env_names),
        "webhook_url": deployment.spec.webhook_url,
        "endpoint_url": f"{public_url}/v1/models/{deployment.id}/infer" if status.ready_at else None,
        "created_at": instant(deployment.created_at),
    }


def _workload_detail(workload: Workload) -> dict[str, Any]:
    resources, health = workload.resources, workload.health
    custom = {
        "entrypoint": list(workload.entrypoint) or None,
        "command": list(workload.command) or None,
        "workingDir": workload.working_dir,
    }
    overrides = {"termination_grace_period_seconds": workload.grace_seconds}
    if workload.queued is not None:
        overrides["consumer_count"] = workload.queued.consumers
    return {
        "deployment_tag": workload.tag,
        "async_deployment_type": "SYNC" if workload.queued is None else "ASYNC",
        "scale_to_zero_enabled": workload.scale_to_zero,
        "cpu_request": _number(resources.cpu_request),
        "cpu_limit": _number(resources.cpu_limit),
        "memory_request": _gib(resources.memory_request),
        "memory_limit": _gib(resources.memory_limit),
        "gpu_request": resources.gpus,
        "ports": _given({"http": workload.ports.http, "grpc": workload.ports.grpc}, as_port=True)
        if workload.ports
        else None,
        "healthcheck": {
            "path": health.path,
            "port": health.port,
            "initialDelaySeconds": health.initial_delay,
            "periodSeconds": health.period,
            "timeoutSeconds": health.timeout,
        }
        if health
        else None,
        "persistent_volume_claims": [_claim(volume) for volume in workload.volumes],
        "deployment_custom_configuration": _given(custom) or None,
        "advanced_configuration": {"runtime_overrides": _given(overrides)},
    }


def _claim(volume: domain.Volume) -> dict[str, Any]:
    return _given(
        {
            "mount_path": volume.mount_path,
            "size": str(volume.size // GIB),
            "name": volume.name,
            "access_mode": volume.access_mode.value,
            "storage_class": volume.storage_class,
        }
    )


def _autoscale_config(workload: Workload | None) -> dict[str, Any]:
    autoscale = None if workload is None else workload.autoscale
    if autoscale is None:
        return {"targets": []}
    targets = [
        _given({"metric": t.metric.value, "target": _number(t.target), "percentile": t.percentile})
        for t in autoscale.targets
    ]
    return _given({"targets": targets, "cooldown_period": autoscale.cooldown_seconds})


def _given(values: Mapping[str, Any], *, as_port: bool = False) -> dict[str, Any]:
    """What was given, and nothing for what was not."""
    return {name: {"port": v} if as_port else v for name, v in values.items() if v is not None}


def _number(amount: float | None) -> float | int | None:
    """Whole numbers as they were sent: `80`, not `80.0`."""
    return int(amount) if amount is not None and amount == int(amount) else amount


def _gib(amount: int | None) -> float | int | None:
    return None if amount is None else _number(amount / GIB)
