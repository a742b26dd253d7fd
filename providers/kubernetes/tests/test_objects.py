"""Every object that a plan gives is valid to the letter, for each version of Kubernetes that is supported."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any  # Kubernetes objects as they are sent

import kubernetes_validate
import pytest

from moorage.domain.compute import GIB
from moorage.domain.model import CacheScope, HubModel, UploadedModel
from moorage.domain.workload import (
    AccessMode,
    Autoscale,
    HealthCheck,
    Metric,
    Ports,
    Queued,
    Resources,
    ScalingTarget,
    Volume,
    Workload,
)
from moorage.errors import Rejected
from moorage.ports.outside import RegistryAccess
from moorage.ports.provider import Callback, RevisionPlan, WorkerCache
from moorage_kubernetes import marks
from moorage_kubernetes.objects import Goal, goal_of, owned_by
from moorage_kubernetes.tenancy import NamespaceForEach, OneNamespace, Quota
from moorage_kubernetes.tools import ClusterTools
from moorage_kubernetes.volumes import claim

from . import plans

VERSIONS = ("1.34", "1.35", "1.36")
NAME = "mrg-2akzvmqnbojlkro5kmvtyppobs-r1-a1"
SETTINGS = plans.settings()
TOOLS = ClusterTools(
    keda=True,
    metrics_server=True,
    prometheus="http://prometheus:9090",
    rabbitmq="amqp://user:hush@rabbitmq:5672",
    redis="redis://redis:6379",
    gateway_api=True,
    envoy_gateway=True,
)
BUILT_IN = ("v1", "apps/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1")


def volume(mode: AccessMode) -> Volume:
    return Volume("pvc-data", "/data", 50 * GIB, mode, "shared")


PLANS = {
    "model": plans.plan(),
    "model on gpus": plans.plan(gpus=2, env={"A": "b"}),
    "image": plans.image_plan(),
    "image without a workload": plans.plan(plans.IMAGE, env={"PORT": "7000"}),
    "everything": replace(
        plans.image_plan(
            replicas=2,
            max_replicas=5,
            env={"PLAIN": "a", "EMPTY": "", "SECRET": "hush"},
            secret_env=("SECRET",),
            ports=Ports(http=8200, grpc=9000),
            entrypoint=("python", "-m", "app"),
            command=("--port", "8200"),
            working_dir="/app",
            volumes=(volume(AccessMode.READ_WRITE_MANY), Volume("shm", "/dev/shm", GIB)),
            autoscale=Autoscale((ScalingTarget(Metric.CPU, 80), ScalingTarget(Metric.LATENCY, 500, 95))),
            scale_to_zero=True,
            grace_seconds=45,
        ),
        registry=RegistryAccess("registry.example.com", "robot", "hush"),
        hub_token="hf_hush",
    ),
    "model with everything": replace(
        plans.plan(
            workload=Workload(volumes=(volume(AccessMode.READ_WRITE_ONCE),), resources=Resources(gpus=1)),
            gpus=1,
        ),
        callback=Callback("https://m.example.com/cb", "whsec_hush"),
        cache=WorkerCache(CacheScope.PRIVATE, "s3://b/p", "https://s3.example.com", "id", "hush"),
        dtype="float16",
        variant="fp16",
    ),
    "queue": plans.plan(
        workload=Workload(
            queued=Queued(3), autoscale=Autoscale((ScalingTarget(Metric.QUEUE_LENGTH, 5),)), grace_seconds=45
        ),
        max_replicas=4,
    ),
}


def goal(plan: RevisionPlan, gateway: str = "edge/public") -> Goal:
    return goal_of(plan, NAME, plans.NAMESPACE, SETTINGS, TOOLS, gateway)


def objects(goal_: Goal) -> Iterator[dict[str, Any]]:
    owner = {"metadata": {"name": NAME, "uid": "0b36dbd3-4e1e-4b4e-8e1d-3a2f7c0c7e4e"}}
    yield from goal_.deployments
    for each in (goal_.service, *goal_.secrets, *goal_.budgets, *goal_.extras):
        yield each
        yield owned_by(each, owner)
    for each_volume in goal_.volumes:
        yield claim(each_volume, plans.NAMESPACE, goal_.labels)


def container(plan: RevisionPlan) -> dict[str, Any]:
    found: dict[str, Any] = pod(plan)["containers"][0]
    return found


def pod(plan: RevisionPlan) -> dict[str, Any]:
    found: dict[str, Any] = goal(plan).deployments[0]["spec"]["template"]["spec"]
    return found


def environment(plan: RevisionPlan) -> dict[str, Any]:
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container(plan)["env"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", PLANS)
def test_every_object_is_strictly_valid(case: str, version: str) -> None:
    for each in objects(goal(PLANS[case])):
        if each["apiVersion"] in BUILT_IN:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_furniture_of_a_tenant_is_strictly_valid(version: str) -> None:
    quota = Quota(cpus=16, memory_bytes=64 * GIB, gpus=2, storage_bytes=500 * GIB, pods=50)
    for tenancy in (OneNamespace("models"), NamespaceForEach(quota=quota), NamespaceForEach(entrances=())):
        for each in tenancy.furniture("org_2akzvngygk223qij6uoeront6w", "inst_tests"):
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("case", PLANS)
def test_the_same_plan_gives_the_same_objects(case: str) -> None:
    assert list(objects(goal(PLANS[case]))) == list(objects(goal(PLANS[case])))


@pytest.mark.parametrize("case", PLANS)
def test_no_secret_stands_outside_a_secret(case: str) -> None:
    made = goal(PLANS[case])
    others = [*made.deployments, made.service, *made.budgets, *made.extras]
    told = json.dumps(others)
    assert "hush" not in told
    assert base64.b64encode(b"hush").decode().rstrip("=") not in told
    assert "hush" not in repr(made.secrets[0]["metadata"])


@pytest.mark.parametrize("case", PLANS)
def test_the_rollout_has_more_time_than_a_container_has_to_start(case: str) -> None:
    for deployment in goal(PLANS[case]).deployments:
        probe = deployment["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
        window = probe["periodSeconds"] * probe["failureThreshold"] + probe.get("initialDelaySeconds", 0)
        assert deployment["spec"]["progressDeadlineSeconds"] > window


def test_replicas_are_never_applied() -> None:
    for plan in PLANS.values():
        for deployment in goal(plan).deployments:
            assert "replicas" not in deployment["spec"]


# -- what a pod gets --------------------------------------------------------------------------------------


def test_a_gpu_pod_asks_for_gpus_and_goes_to_its_group() -> None:
    spec = pod(plans.plan(gpus=2))
    resources = spec["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "2"
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    affinity = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = affinity["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "cloud.google.com/gke-nodepool", "operator": "In", "values": ["cpu"]}
    ]


def test_resources_are_those_that_were_asked_for() -> None:
    assert container(plans.image_plan())["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"cpu": "1", "memory": "2Gi"},
    }


def test_an_imported_container_may_be_root_and_our_worker_may_nothing() -> None:
    assert "securityContext" not in container(plans.image_plan())
    assert container(plans.plan())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    for plan in PLANS.values():
        assert pod(plan)["automountServiceAccountToken"] is False
        assert pod(plan)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_health_check_of_the_owner_is_all_three_probes() -> None:
    health = HealthCheck("/up", 8201, initial_delay=30, period=10, timeout=7)
    made = container(plans.image_plan(health=health))
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert made[name]["httpGet"] == {"path": "/up", "port": 8201}
        assert (made[name]["periodSeconds"], made[name]["timeoutSeconds"]) == (10, 7)
    assert made["startupProbe"]["initialDelaySeconds"] == 30
    assert made["startupProbe"]["failureThreshold"] == 180


def test_the_command_of_the_owner_takes_the_place_of_the_images() -> None:
    made = container(PLANS["everything"])
    assert made["command"] == ["python", "-m", "app"]
    assert made["args"] == ["--port", "8200"]
    assert made["workingDir"] == "/app"
    assert "command" not in container(plans.image_plan())


def test_a_volume_that_one_node_holds_is_let_go_of_before_a_new_pod() -> None:
    once = goal(plans.image_plan(volumes=(volume(AccessMode.READ_WRITE_ONCE),))).deployments[0]
    many = goal(plans.image_plan(volumes=(volume(AccessMode.READ_WRITE_MANY),))).deployments[0]
    assert once["spec"]["strategy"] == {"type": "Recreate"}
    assert many["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_shared_memory_is_the_owners_where_it_mounts_its_own() -> None:
    assert "/dev/shm" in [m["mountPath"] for m in container(plans.plan())["volumeMounts"]]
    mounts = [m["mountPath"] for m in container(PLANS["everything"])["volumeMounts"]]
    assert mounts == ["/data", "/dev/shm"]


def test_the_worker_is_told_what_to_serve() -> None:
    env = environment(PLANS["model with everything"])
    assert env["MOORAGE_WORKER_MODEL"] == "acme/writer"
    assert env["MOORAGE_WORKER_FACE"] == "http"
    assert env["MOORAGE_WORKER_DTYPE"] == "float16"
    assert env["MOORAGE_CALLBACK_URL"] == "https://m.example.com/cb"
    assert env["MOORAGE_CALLBACK_SECRET"] == {
        "secretKeyRef": {"name": NAME, "key": "MOORAGE_CALLBACK_SECRET"}
    }
    assert env["PORT"] == "8000"


def test_a_consumer_has_its_grace_from_its_owner() -> None:
    plan = PLANS["queue"]
    assert environment(plan)["MOORAGE_QUEUE_GRACE_SECONDS"] == "45"
    assert pod(plan)["terminationGracePeriodSeconds"] == 45
    assert "lifecycle" not in container(plan)
    service = goal(plan).service
    assert service["spec"]["selector"] == {marks.ENDPOINT: NAME, marks.ROLE: marks.FRONT}


def test_a_short_grace_leaves_no_time_to_drain() -> None:
    assert "lifecycle" not in container(plans.image_plan(grace_seconds=5))
    assert container(plans.image_plan(grace_seconds=60))["lifecycle"] == {
        "preStop": {"sleep": {"seconds": 5}}
    }


# -- what is refused --------------------------------------------------------------------------------------


def test_names_of_the_platform_are_refused() -> None:
    with pytest.raises(Rejected) as raised:
        goal(plans.plan(env={"MOORAGE_WORKER_MODEL": "mine"}))
    assert [e.field for e in raised.value.fields] == ["env.MOORAGE_WORKER_MODEL"]


def test_a_runtime_without_an_image_is_refused_with_the_setting() -> None:
    with pytest.raises(Rejected, match="MOORAGE_KUBERNETES_IMAGE_VLLM"):
        goal(replace(plans.plan(), runtime="vllm"))


def test_an_uploaded_model_is_refused() -> None:
    with pytest.raises(Rejected, match="Hugging Face Hub and container images only"):
        goal(replace(plans.plan(), source=UploadedModel("mdl_x")))


def test_an_imported_container_takes_no_queue() -> None:
    with pytest.raises(Rejected) as raised:
        goal(plans.image_plan(queued=Queued()))
    assert raised.value.fields[0].field == "workload.queued"


def test_the_image_of_a_runtime_is_the_operators() -> None:
    settings = plans.settings(IMAGE="registry.local/worker:{engine}", IMAGE_VLLM="vllm/vllm-openai:v1")
    made = goal_of(plans.plan(HubModel("a/b")), NAME, "ns", settings, TOOLS)
    image = made.deployments[0]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "registry.local/worker:onnx"
    assert settings.images["vllm"] == "vllm/vllm-openai:v1"


def test_a_tenant_has_a_namespace_of_its_own() -> None:
    tenancy = NamespaceForEach(prefix="tenants")
    names = {tenancy.namespace(o) for o in ("org_a", "org-a", "ORG_A", "org_b", "o" * 99)}
    assert len(names) == 5
    assert all(len(n) <= 63 for n in names)
    room, *_ = tenancy.furniture("org_a", "inst_tests")
    assert room["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"
