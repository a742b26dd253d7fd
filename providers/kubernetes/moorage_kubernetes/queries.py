"""The Prometheus queries that scaling follows.

Two sources. The DCGM exporter tells of accelerators, by namespace and pod. Moorage's own gateway, through
which all requests go, tells of requests, by deployment: the cluster's Prometheus must scrape its `/metrics`.
"""

from __future__ import annotations

from types import MappingProxyType

from moorage.domain.workload import Metric, ScalingTarget

GATEWAY_METRICS = MappingProxyType(
    {
        Metric.THROUGHPUT: "moorage_gateway_requests_total",
        Metric.LATENCY: "moorage_gateway_request_duration_seconds_bucket",
        Metric.CONCURRENCY: "moorage_gateway_requests_in_flight",
    }
)
"""What the gateway exports, each with the label `deployment` (the deployment's id): a counter of requests
that ended, a histogram of their seconds, a gauge of those under way."""

DEFAULT_PERCENTILE = 95
WINDOW = "2m"  # four scrapes at the usual 30 seconds


def gateway_query(target: ScalingTarget, deployment_id: str) -> str:
    """Requests a second, milliseconds at a percentile, or requests under way; of all replicas together."""
    series = f'{GATEWAY_METRICS[target.metric]}{{deployment="{deployment_id}"}}'
    if target.metric is Metric.CONCURRENCY:
        return f"sum({series})"
    rate = f"rate({series}[{WINDOW}])"
    if target.metric is Metric.THROUGHPUT:
        return f"sum({rate})"
    quantile = (target.percentile or DEFAULT_PERCENTILE) / 100
    # Without requests there is no quantile but NaN, which no autoscaler can count with.
    return f"1000 * histogram_quantile({quantile:g}, sum by (le) ({rate})) >= 0 or vector(0)"


def in_flight_query(deployment_id: str) -> str:
    return gateway_query(ScalingTarget(Metric.CONCURRENCY, 1), deployment_id)


def gpu_query(namespace: str, name: str) -> str:
    """Per cent of the time that the accelerators of Deployment `name` were busy, on average."""
    return f"avg({_dcgm('DCGM_FI_DEV_GPU_UTIL', namespace, name)})"


def gram_query(namespace: str, name: str) -> str:
    """Per cent of their memory that is in use, all together."""
    used = f"sum({_dcgm('DCGM_FI_DEV_FB_USED', namespace, name)})"
    free = f"sum({_dcgm('DCGM_FI_DEV_FB_FREE', namespace, name)})"
    return f"100 * {used} / ({used} + {free})"


def _dcgm(metric: str, namespace: str, name: str) -> str:
    """Pods of one ReplicaSet or the other. A Prometheus that keeps its own labels renames the exporter's."""
    pods = f"{name}-[a-z0-9]+-[a-z0-9]{{5}}"
    plain = f'{metric}{{namespace="{namespace}",pod=~"{pods}"}}'
    renamed = f'{metric}{{exported_namespace="{namespace}",exported_pod=~"{pods}"}}'
    return f"{plain} or {renamed}"
