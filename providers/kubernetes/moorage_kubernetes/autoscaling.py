"""What makes a deployment follow its load: KEDA's objects, or the autoscaler that every cluster has. Pure.

KEDA carries all metrics. Without it only CPU and memory can be followed, by a HorizontalPodAutoscaler; what
else was asked for is refused with the tool that it takes. Nothing is scaled by half of what was asked.

No `fallback` is set. An autoscaler that gets no value leaves the replicas as they are, and does not take them
to zero, which is what a model under load needs; a fixed number in its place would take replicas away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any  # Kubernetes objects as they are read

from moorage.domain.workload import RESOURCE_METRICS, Autoscale, Metric, ScalingTarget, Workload
from moorage.errors import FieldError, Rejected
from moorage.ports.provider import RevisionPlan
from moorage_kubernetes.queries import GATEWAY_METRICS
from moorage_kubernetes.tools import ClusterTools
from moorage_kubernetes.triggers import Object, Scaled, per_cent, triggers

QUEUE_URL_KEY = "MOORAGE_QUEUE_URL"  # in the deployment's Secret
POLLING_SECONDS = 15
COOLDOWN_SECONDS = 300
# A model may load for long before its first request; it should not be let down to zero before it was ready.
INITIAL_COOLDOWN_SECONDS = 1800

# These never fall to nothing as long as a replica runs, so that none of them can tell that it is idle.
NEVER_IDLE = frozenset({Metric.CPU, Metric.RAM, Metric.GRAM})

INSTALL = {
    "keda": "install KEDA on the cluster",
    "metrics-server": "install metrics-server on the cluster",
    "prometheus": "install Prometheus on the cluster, or give its address as prometheus_url",
    "rabbitmq": "install RabbitMQ on the cluster, or give its address as rabbitmq_url",
    "redis": "install Redis on the cluster, or give its address as redis_url",
}


def scaling_objects(
    plan: RevisionPlan, name: str, namespace: str, labels: Mapping[str, str], tools: ClusterTools
) -> list[Object]:
    """The objects that scale Deployment `name`; none where there is nothing to scale. Raises Rejected that
    names each field that cannot be had and the tool it would take."""
    workload = plan.workload or Workload()
    refuse_scaling(workload, plan.replicas, plan.max_replicas, tools)
    autoscale = workload.autoscale
    if autoscale is None or not _scales(workload, plan.replicas, plan.max_replicas):
        return []
    metadata: Object = {"name": name, "namespace": namespace, "labels": dict(labels)}
    if not tools.keda:
        return [_horizontal(plan, autoscale, metadata)]
    objects = [_scaled_object(plan, workload, autoscale, metadata, tools)]
    if any(target.metric is Metric.QUEUE_LENGTH for target in autoscale.targets):
        objects.insert(0, _queue_access(metadata))
    return objects


def refuse_scaling(workload: Workload, replicas: int, max_replicas: int, tools: ClusterTools) -> None:
    """Raises Rejected where the workload cannot have the queue or the scaling that it asks for."""
    scales = _scales(workload, replicas, max_replicas)
    refusals = [*_without_rules(workload), *_without_tools(workload, tools, scales=scales)]
    if refusals:
        messages = dict.fromkeys(error.message for error in refusals)
        raise Rejected("; ".join(messages), fields=refusals, advice=_advice(refusals))


def may_sleep(scaled_object: Mapping[str, Any]) -> bool:
    """Whether KEDA may let the deployment of a ScaledObject down to no replica. One whose least is above one
    has none when idle, and its least when not."""
    spec = scaled_object.get("spec") or {}
    return 0 in (spec.get("minReplicaCount", 0), spec.get("idleReplicaCount"))


def _scales(workload: Workload, replicas: int, max_replicas: int) -> bool:
    return workload.scale_to_zero or max_replicas > replicas


# -- refusals ---------------------------------------------------------------------------------------------


def _without_rules(workload: Workload) -> Iterator[FieldError]:
    """What no tool would help with."""
    if workload.autoscale is None:
        return
    for index, target in enumerate(workload.autoscale.targets):
        field = f"workload.autoscale.targets[{index}]"
        if target.metric is Metric.QUEUE_LENGTH and workload.queued is None:
            message = "queue_length is only for async deployments"
            yield FieldError(f"{field}.metric", "async_only", message)
        if target.percentile is not None and target.metric is not Metric.LATENCY:
            message = f"percentile is only for latency, not for {target.metric}"
            yield FieldError(f"{field}.percentile", "latency_only", message)
        if target.metric in GATEWAY_METRICS and workload.queued is not None:
            message = (
                f"{target.metric} is of requests, and an async deployment takes messages: use queue_length"
            )
            yield FieldError(f"{field}.metric", "sync_only", message)
    if workload.scale_to_zero and all(t.metric in NEVER_IDLE for t in workload.autoscale.targets):
        asked = ", ".join(t.metric for t in workload.autoscale.targets)
        message = (
            f"a deployment that follows {asked} alone cannot scale to zero: none of it tells that no request "
            "is under way; add a target of throughput, concurrency, latency, gpu or queue_length"
        )
        yield FieldError("workload.scale_to_zero", "needs_activity_metric", message)


def _without_tools(workload: Workload, tools: ClusterTools, *, scales: bool) -> Iterator[FieldError]:
    if workload.queued is not None:
        for tool, address in (("rabbitmq", tools.rabbitmq), ("redis", tools.redis)):
            if address is None:
                yield _missing("workload.queued", "an async deployment", tool)
    if workload.autoscale is None or not scales:
        return
    if workload.scale_to_zero and not tools.keda:
        yield _missing("workload.scale_to_zero", "scaling to zero", "keda")
    for index, target in enumerate(workload.autoscale.targets):
        for tool in _missing_tools(target, tools):
            yield _missing(f"workload.autoscale.targets[{index}].metric", f"metric {target.metric}", tool)


def _missing_tools(target: ScalingTarget, tools: ClusterTools) -> Iterator[str]:
    if target.metric in RESOURCE_METRICS:
        if not tools.metrics_server:
            yield "metrics-server"
        return
    if not tools.keda:
        yield "keda"
    if target.metric is Metric.QUEUE_LENGTH:
        return  # without RabbitMQ the deployment as a whole is refused
    if tools.prometheus is None:
        yield "prometheus"


def _missing(field: str, what: str, tool: str) -> FieldError:
    message = f"{what} needs {tool}, which was not found on the cluster: {INSTALL[tool]}"
    return FieldError(field, f"needs_{tool}", message)


def _advice(refusals: Iterable[FieldError]) -> str | None:
    if any(error.rule.removeprefix("needs_") in INSTALL for error in refusals):
        return "When it is there, have the cluster checked again: POST /clusters/{id}/check."
    return None


# -- objects ----------------------------------------------------------------------------------------------


def _scaled_object(
    plan: RevisionPlan, workload: Workload, autoscale: Autoscale, metadata: Object, tools: ClusterTools
) -> Object:
    name = metadata["name"]
    scaled = Scaled(
        deployment_id=plan.deployment_id,
        name=name,
        namespace=metadata["namespace"],
        access=name,
        prometheus=tools.prometheus,
        queued=workload.queued is not None,
        to_zero=workload.scale_to_zero,
    )
    spec: Object = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "pollingInterval": POLLING_SECONDS,
        "minReplicaCount": plan.replicas,
        "maxReplicaCount": max(plan.max_replicas, plan.replicas),
        "triggers": triggers(autoscale.targets, scaled),
    }
    if workload.scale_to_zero:
        spec["minReplicaCount" if plan.replicas == 1 else "idleReplicaCount"] = 0
        cooldown = COOLDOWN_SECONDS if autoscale.cooldown_seconds is None else autoscale.cooldown_seconds
        spec["cooldownPeriod"] = cooldown
        spec["initialCooldownPeriod"] = max(cooldown, INITIAL_COOLDOWN_SECONDS)
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": metadata, "spec": spec}


def _queue_access(metadata: Object) -> Object:
    """The broker's address holds a password: KEDA reads it from the Secret where the consumers find it."""
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": metadata,
        "spec": {"secretTargetRef": [{"parameter": "host", "name": metadata["name"], "key": QUEUE_URL_KEY}]},
    }


def _horizontal(plan: RevisionPlan, autoscale: Autoscale, metadata: Object) -> Object:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"]},
            "minReplicas": plan.replicas,
            "maxReplicas": max(plan.max_replicas, plan.replicas),
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu" if target.metric is Metric.CPU else "memory",
                        "target": {"type": "Utilization", "averageUtilization": per_cent(target)},
                    },
                }
                for target in autoscale.targets
            ],
        },
    }
