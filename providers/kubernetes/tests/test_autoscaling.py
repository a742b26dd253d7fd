"""What was asked of scaling becomes objects that a cluster accepts, or is refused with what it would take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.compute import Offer
from moorage.domain.model import ContainerImage
from moorage.domain.workload import Autoscale, Metric, Queued, ScalingTarget, Workload
from moorage.errors import FieldError, Rejected
from moorage.ports.provider import RevisionPlan
from moorage_kubernetes.autoscaling import may_sleep, scaling_objects
from moorage_kubernetes.queries import GATEWAY_METRICS, gateway_query, gpu_query, gram_query
from moorage_kubernetes.testing.resources import ADD_ONS
from moorage_kubernetes.testing.schemas import VERSIONS, Schemas
from moorage_kubernetes.tools import ClusterTools

NAME, NAMESPACE = "mrg-22222222222222222222222222-r1-a1", "moorage"
LABELS = {"app.kubernetes.io/managed-by": "moorage", "moorage.io/deployment": "dep_x"}
EVERYTHING = ClusterTools(
    keda=True,
    metrics_server=True,
    prometheus="http://prometheus.monitoring.svc:9090",
    rabbitmq="amqp://rabbitmq.messages.svc:5672",
    redis="redis://redis.messages.svc:6379",
)
PLAIN = ClusterTools(metrics_server=True)
OFFER = Offer("ngp_a", "kubernetes", None, 0, 1, 1, 0.0, "made up for tests", "2026-11-21")
KEDA_KINDS = {resource.kind: resource for resource in ADD_ONS["keda"]}


def plan(
    *targets: ScalingTarget,
    replicas: int = 1,
    most: int = 3,
    cooldown: int | None = None,
    **workload: Any,  # of a Workload
) -> RevisionPlan:
    return RevisionPlan(
        deployment_id="dep_x",
        organization_id="org_x",
        revision=1,
        source=ContainerImage("acme/app"),
        runtime="image",
        offer=OFFER,
        replicas=replicas,
        memory_bytes=0,
        max_replicas=most,
        workload=Workload(autoscale=Autoscale(targets, cooldown) if targets else None, **workload),
    )


def target(metric: str, value: float = 80, percentile: int | None = None) -> ScalingTarget:
    return ScalingTarget(Metric(metric), value, percentile)


def made(asked: RevisionPlan, tools: ClusterTools = EVERYTHING) -> list[dict[str, Any]]:
    objects = scaling_objects(asked, NAME, NAMESPACE, LABELS, tools)
    for each in objects:
        assert_valid(each)
        assert each["metadata"] == {"name": NAME, "namespace": NAMESPACE, "labels": LABELS}
    return objects


def spec_of(asked: RevisionPlan) -> Any:
    (scaled,) = made(asked)
    assert scaled["kind"] == "ScaledObject"
    return scaled["spec"]


def trigger_of(asked: ScalingTarget, **more: Any) -> Any:
    return spec_of(plan(asked, **more))["triggers"][0]


def refused(asked: RevisionPlan, tools: ClusterTools = EVERYTHING) -> Rejected:
    with pytest.raises(Rejected) as caught:
        scaling_objects(asked, NAME, NAMESPACE, LABELS, tools)
    return caught.value


def assert_valid(made: dict[str, Any]) -> None:
    resource = KEDA_KINDS.get(made["kind"])
    for version in VERSIONS:
        if resource is None:
            kubernetes_validate.validate(made, version, strict=True)
        else:
            schemas = Schemas(version)
            assert schemas.errors(resource, made) == []
            assert schemas.unknown_fields(resource, made) == []


def test_the_judge_refuses_what_is_wrong() -> None:
    (scaled,) = scaling_objects(plan(target("cpu")), NAME, NAMESPACE, LABELS, EVERYTHING)
    scaled["spec"]["triggers"][0]["metadata"]["value"] = 80
    with pytest.raises(AssertionError):
        assert_valid(scaled)


# -- objects ----------------------------------------------------------------------------------------------


def test_the_whole_object_of_a_latency_target() -> None:
    spec = spec_of(plan(target("latency", 500, 95), replicas=2, most=8))
    assert spec == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
        "pollingInterval": 15,
        "minReplicaCount": 2,
        "maxReplicaCount": 8,
        "triggers": [
            {
                "name": "latency-p95-0",
                "type": "prometheus",
                "metricType": "Value",
                "metadata": {
                    "serverAddress": "http://prometheus.monitoring.svc:9090",
                    "query": "1000 * histogram_quantile(0.95, sum by (le) (rate("
                    'moorage_gateway_request_duration_seconds_bucket{deployment="dep_x"}[2m])))'
                    " >= 0 or vector(0)",
                    "threshold": "500",
                    "ignoreNullValues": "true",
                },
            }
        ],
    }


@pytest.mark.parametrize(("metric", "kind"), [("cpu", "cpu"), ("ram", "memory")])
def test_cpu_and_memory_are_shares_of_the_request(metric: str, kind: str) -> None:
    trigger = trigger_of(target(metric, 79.6))
    assert (trigger["type"], trigger["metricType"], trigger["metadata"]) == (
        kind,
        "Utilization",
        {"value": "80"},
    )


@pytest.mark.parametrize("metric", ["throughput", "concurrency"])
def test_sums_over_all_replicas_are_divided_by_them(metric: str) -> None:
    trigger = trigger_of(target(metric, 12.5))
    assert (trigger["metricType"], trigger["metadata"]["threshold"]) == ("AverageValue", "12.5")
    assert f'{GATEWAY_METRICS[Metric(metric)]}{{deployment="dep_x"}}' in trigger["metadata"]["query"]


@pytest.mark.parametrize("metric", ["gpu", "gram"])
def test_accelerators_are_averages_already_and_silence_is_not_idleness(metric: str) -> None:
    trigger = trigger_of(target(metric))
    assert trigger["metricType"] == "Value"
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    to_zero = trigger_of(target(metric), scale_to_zero=True) if metric == "gpu" else trigger
    assert to_zero["metadata"]["ignoreNullValues"] == ("true" if metric == "gpu" else "false")


def test_queries_name_the_pods_of_this_deployment_whatever_prometheus_calls_them() -> None:
    query = gpu_query(NAMESPACE, NAME)
    pods = f"{NAME}-[a-z0-9]+-[a-z0-9]{{5}}"
    assert query == (
        f'avg(DCGM_FI_DEV_GPU_UTIL{{namespace="moorage",pod=~"{pods}"}} or '
        f'DCGM_FI_DEV_GPU_UTIL{{exported_namespace="moorage",exported_pod=~"{pods}"}})'
    )
    memory = gram_query(NAMESPACE, NAME)
    assert memory.startswith("100 * sum(DCGM_FI_DEV_FB_USED{")
    assert memory.count("DCGM_FI_DEV_FB_USED{") == 4
    assert memory.count("DCGM_FI_DEV_FB_FREE{") == 2


def test_a_latency_without_a_percentile_is_the_95th() -> None:
    assert gateway_query(target("latency"), "dep_x") == gateway_query(
        target("latency", percentile=95), "dep_x"
    )
    assert "histogram_quantile(0.5," in gateway_query(target("latency", percentile=50), "dep_x")


def test_every_target_has_a_trigger_of_its_own_name() -> None:
    asked = [target("cpu"), target("gpu"), target("latency", 500, 50), target("latency", 900, 95)]
    names = [trigger["name"] for trigger in spec_of(plan(*asked))["triggers"]]
    assert names == ["cpu-0", "gpu-1", "latency-p50-2", "latency-p95-3"]


def test_a_queue_is_read_with_what_the_consumers_secret_holds() -> None:
    access, scaled = made(plan(target("queue_length", 5), queued=Queued(3)))
    assert access["kind"] == "TriggerAuthentication"
    assert access["spec"] == {
        "secretTargetRef": [{"parameter": "host", "name": NAME, "key": "MOORAGE_QUEUE_URL"}]
    }
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger == {
        "name": "queue-length-0",
        "type": "rabbitmq",
        "metricType": "AverageValue",
        "metadata": {"queueName": NAME, "mode": "QueueLength", "value": "5"},
        "authenticationRef": {"name": NAME},
    }
    assert "rabbitmq.messages" not in str([access, scaled]), "the address holds a password"


def test_to_zero_with_the_cooldown_asked_for() -> None:
    spec = spec_of(plan(target("concurrency", 4), scale_to_zero=True, cooldown=60))
    assert (spec["minReplicaCount"], spec["cooldownPeriod"], spec["initialCooldownPeriod"]) == (0, 60, 1800)
    assert len(spec["triggers"]) == 1, "requests under way are watched already"
    assert spec_of(plan(target("concurrency", 4), scale_to_zero=True))["cooldownPeriod"] == 300


def test_a_cooldown_is_only_for_what_may_go_to_zero() -> None:
    assert "cooldownPeriod" not in spec_of(plan(target("concurrency", 4), cooldown=60))


def test_to_zero_and_back_to_as_many_as_asked_for() -> None:
    (scaled,) = made(plan(target("throughput"), replicas=2, scale_to_zero=True))
    assert (scaled["spec"]["minReplicaCount"], scaled["spec"]["idleReplicaCount"]) == (2, 0)
    assert may_sleep(scaled)
    (one,) = made(plan(target("throughput"), scale_to_zero=True))
    assert may_sleep(one)
    (never,) = made(plan(target("throughput")))
    assert not may_sleep(never)


def test_what_may_go_to_zero_stays_while_a_request_is_under_way() -> None:
    activity = spec_of(plan(target("gpu"), scale_to_zero=True))["triggers"][-1]
    assert activity["name"] == "activity"
    assert activity["metadata"]["query"] == 'sum(moorage_gateway_requests_in_flight{deployment="dep_x"})'
    assert float(activity["metadata"]["threshold"]) >= 1e9, "it must not add replicas"


def test_memory_full_of_weights_is_no_activity() -> None:
    first = spec_of(plan(target("gram"), target("gpu"), scale_to_zero=True))["triggers"][0]
    assert first["metadata"]["activationThreshold"] == "100"


def test_without_keda_cpu_and_memory_are_followed_by_the_clusters_own_autoscaler() -> None:
    (scaler,) = made(plan(target("cpu", 75), target("ram", 80), replicas=2, most=6), PLAIN)
    assert scaler["kind"] == "HorizontalPodAutoscaler"
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 6)
    assert [m["resource"] for m in scaler["spec"]["metrics"]] == [
        {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 75}},
        {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 80}},
    ]


def test_where_nothing_can_scale_there_is_nothing_and_no_tool_is_missed() -> None:
    assert made(plan(target("gpu"), replicas=2, most=2), ClusterTools()) == []
    assert made(plan(), ClusterTools()) == []


# -- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["gpu", "gram", "latency", "throughput", "concurrency"])
def test_without_keda_the_other_metrics_are_refused_by_place_and_tool(metric: str) -> None:
    error = refused(plan(target("cpu"), target(metric)), PLAIN)
    assert [(e.field, e.rule) for e in error.fields] == [
        ("workload.autoscale.targets[1].metric", "needs_keda"),
        ("workload.autoscale.targets[1].metric", "needs_prometheus"),
    ]
    assert f"metric {metric} needs keda, which was not found on the cluster" in error.detail
    assert "install KEDA" in error.detail
    assert "prometheus_url" in error.detail
    assert "checked again" in (error.advice or "")


def test_without_a_metrics_server_nothing_tells_cpu_and_memory() -> None:
    for tools in (ClusterTools(), replace(EVERYTHING, metrics_server=False)):
        error = refused(plan(target("ram")), tools)
        assert [(e.field, e.rule) for e in error.fields] == [
            ("workload.autoscale.targets[0].metric", "needs_metrics-server")
        ]


def test_without_keda_nothing_goes_to_zero() -> None:
    tools = replace(EVERYTHING, keda=False)
    error = refused(plan(target("throughput"), scale_to_zero=True), tools)
    assert ("workload.scale_to_zero", "needs_keda") in [(e.field, e.rule) for e in error.fields]


@pytest.mark.parametrize("metrics", [["cpu"], ["ram", "cpu"], ["gram"], ["gram", "cpu"]])
def test_what_cannot_tell_idleness_cannot_go_to_zero_alone(metrics: list[str]) -> None:
    error = refused(plan(*(target(m) for m in metrics), scale_to_zero=True))
    assert [(e.field, e.rule) for e in error.fields] == [("workload.scale_to_zero", "needs_activity_metric")]
    assert f"follows {', '.join(metrics)} alone cannot scale to zero" in error.detail
    assert error.advice is None, "nothing that one could install"


@pytest.mark.parametrize("tool", ["rabbitmq", "redis"])
def test_a_deployment_that_takes_messages_needs_its_tools_even_unscaled(tool: str) -> None:
    tools = replace(EVERYTHING, rabbitmq=None) if tool == "rabbitmq" else replace(EVERYTHING, redis=None)
    error = refused(plan(queued=Queued(), most=1), tools)
    assert [(e.field, e.rule) for e in error.fields] == [("workload.queued", f"needs_{tool}")]
    assert f"an async deployment needs {tool}" in error.detail
    assert f"{tool}_url" in error.detail


@pytest.mark.parametrize(
    ("asked", "workload", "field", "rule"),
    [
        (target("queue_length"), {}, "metric", "async_only"),
        (target("cpu", percentile=95), {}, "percentile", "latency_only"),
        (target("latency"), {"queued": Queued()}, "metric", "sync_only"),
    ],
)
def test_rules_of_the_document_hold_even_where_nothing_scales(
    asked: ScalingTarget, workload: dict[str, Any], field: str, rule: str
) -> None:
    for most in (1, 3):
        error = refused(plan(asked, most=most, **workload))
        assert [(e.field, e.rule) for e in error.fields] == [(f"workload.autoscale.targets[0].{field}", rule)]


def test_all_that_is_missing_is_told_at_once() -> None:
    asked = plan(target("gpu"), target("queue_length"), queued=Queued())
    rules = {(e.field, e.rule) for e in refused(asked, ClusterTools()).fields}
    assert rules == {
        ("workload.queued", "needs_rabbitmq"),
        ("workload.queued", "needs_redis"),
        ("workload.autoscale.targets[0].metric", "needs_keda"),
        ("workload.autoscale.targets[0].metric", "needs_prometheus"),
        ("workload.autoscale.targets[1].metric", "needs_keda"),
    }


# -- whatever is asked ------------------------------------------------------------------------------------

TARGETS = st.builds(
    ScalingTarget,
    st.sampled_from([m for m in Metric if m is not Metric.QUEUE_LENGTH]),
    st.floats(0.001, 1e7, allow_nan=False),
)


@given(
    targets=st.lists(TARGETS, min_size=1, max_size=5),
    replicas=st.integers(1, 5),
    more=st.integers(0, 50),
    to_zero=st.booleans(),
    tools=st.sampled_from([EVERYTHING, PLAIN, ClusterTools(), replace(EVERYTHING, prometheus=None)]),
)
def test_valid_objects_or_a_refusal_by_field(
    targets: list[ScalingTarget], replicas: int, more: int, to_zero: bool, tools: ClusterTools
) -> None:
    asked = plan(*targets, replicas=replicas, most=replicas + more, scale_to_zero=to_zero)
    fields: tuple[FieldError, ...] | None = None
    try:
        objects = scaling_objects(asked, NAME, NAMESPACE, LABELS, tools)
    except Rejected as error:
        fields = error.fields
    if fields is not None:
        assert fields, "a refusal names what is at fault"
        return
    assert bool(objects) == (to_zero or more > 0)
    for each in objects:
        assert_valid(each)
        for trigger in each["spec"].get("triggers", ()):
            number = trigger["metadata"].get("threshold", trigger["metadata"].get("value"))
            assert float(number) > 0
            assert "e" not in number
