"""KEDA's triggers, one for each metric: where it is read and how its value becomes replicas. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any  # Kubernetes objects as they are sent

from moorage.domain.workload import Metric, ScalingTarget
from moorage_kubernetes.queries import (
    DEFAULT_PERCENTILE,
    gateway_query,
    gpu_query,
    gram_query,
    in_flight_query,
)

Object = dict[str, Any]

NEVER_REACHED = "1000000000"
PERCENT_IN_FULL = "100"


@dataclass(frozen=True, slots=True)
class Scaled:
    """What is scaled, and what tells of its load. `access` names the TriggerAuthentication for its queue."""

    deployment_id: str
    name: str
    namespace: str
    access: str
    prometheus: str | None
    queued: bool
    to_zero: bool


def triggers(targets: Sequence[ScalingTarget], scaled: Scaled) -> list[Object]:
    """One for each target, by its place; and what keeps a busy replica where it might be let down to none."""
    made = [
        {**_trigger(target, scaled), "name": _name(target, place)} for place, target in enumerate(targets)
    ]
    return [*made, *(_activity(targets, scaled) if scaled.to_zero else ())]


def per_cent(target: ScalingTarget) -> int:
    """Whole, as autoscalers want it of what is relative to a request."""
    return max(1, round(target.target))


def _name(target: ScalingTarget, place: int) -> str:
    percentile = f"-p{target.percentile or DEFAULT_PERCENTILE}" if target.metric is Metric.LATENCY else ""
    return f"{target.metric.value.replace('_', '-')}{percentile}-{place}"


def _trigger(target: ScalingTarget, scaled: Scaled) -> Object:
    threshold = _number(target.target)
    match target.metric:
        case Metric.CPU | Metric.RAM:
            return {
                "type": "cpu" if target.metric is Metric.CPU else "memory",
                "metricType": "Utilization",
                "metadata": {"value": str(per_cent(target))},
            }
        case Metric.QUEUE_LENGTH:
            return {
                "type": "rabbitmq",
                "metricType": "AverageValue",
                "metadata": {"queueName": scaled.name, "mode": "QueueLength", "value": threshold},
                "authenticationRef": {"name": scaled.access},
            }
        case Metric.GPU:
            query = gpu_query(scaled.namespace, scaled.name)
            return _prometheus(scaled, query, threshold, "Value", none_is_zero=scaled.to_zero)
        case Metric.GRAM:
            query = gram_query(scaled.namespace, scaled.name)
            trigger = _prometheus(scaled, query, threshold, "Value", none_is_zero=scaled.to_zero)
            trigger["metadata"]["activationThreshold"] = PERCENT_IN_FULL  # weights are no activity
            return trigger
        case Metric.LATENCY:
            return _prometheus(scaled, gateway_query(target, scaled.deployment_id), threshold, "Value")
        case Metric.THROUGHPUT | Metric.CONCURRENCY:
            return _prometheus(scaled, gateway_query(target, scaled.deployment_id), threshold)


def _prometheus(
    scaled: Scaled,
    query: str,
    threshold: str,
    metric_type: str = "AverageValue",
    *,
    none_is_zero: bool = True,
) -> Object:
    """`AverageValue` divides a sum by the replicas; `Value` is one already, of a percentage or a time. Where
    no value is no measurement, it must not be read as idle, except at zero replicas, where there is none."""
    return {
        "type": "prometheus",
        "metricType": metric_type,
        "metadata": {
            "serverAddress": scaled.prometheus or "",
            "query": query,
            "threshold": threshold,
            "ignoreNullValues": "true" if none_is_zero else "false",
        },
    }


def _activity(targets: Sequence[ScalingTarget], scaled: Scaled) -> Iterator[Object]:
    """Keeps a replica for as long as a request is under way, whatever else is followed; adds none."""
    watched = any(target.metric is Metric.CONCURRENCY for target in targets)
    if not watched and not scaled.queued and scaled.prometheus is not None:
        yield {
            **_prometheus(scaled, in_flight_query(scaled.deployment_id), NEVER_REACHED),
            "name": "activity",
        }


def _number(value: float) -> str:
    """Without an exponent, which the triggers do not read."""
    return f"{value:.6f}".rstrip("0").rstrip(".")
