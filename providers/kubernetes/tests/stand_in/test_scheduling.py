"""Which pods get a node, and the words for those that do not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from moorage_kubernetes.testing import StandInCluster
from moorage_kubernetes.testing.controllers.fitting import tolerated

from .asking import Api, Json, deployment, event, pod_where, ready

GPU = {"nvidia.com/gpu.product": "NVIDIA-L4"}
TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def on_gpu(name: str = "web", count: int = 1, **pod: Any) -> Json:
    amounts = {"nvidia.com/gpu": str(count)}
    container = {"resources": {"requests": amounts, "limits": amounts}}
    return deployment(name, container=container, tolerations=[TOLERATION], **pod)


@pytest.fixture
async def cluster() -> AsyncIterator[StandInCluster]:
    async with StandInCluster(node=False) as running:
        running.add_node("cpu-1", cpu=4, memory_gib=8)
        running.add_node("gpu-1", GPU, cpu=8, memory_gib=32, gpus=2, taints=[TAINT])
        yield running


def node_of(pod: Json) -> str:
    return str(pod["spec"].get("nodeName", ""))


def unschedulable(pod: Json) -> str:
    for one in pod["status"].get("conditions", ()):
        if one["type"] == "PodScheduled" and one["reason" if "reason" in one else "type"] == "Unschedulable":
            return str(one["message"])
    return ""


async def test_where_it_fits(cluster: StandInCluster, api: Api) -> None:
    await api.apply(on_gpu("a", 2))
    await api.apply(deployment("b"))
    await ready(cluster, "a")
    await ready(cluster, "b")
    assert {
        p["metadata"]["labels"]["app.kubernetes.io/name"]: node_of(p) for p in cluster.objects("pods")
    } == {
        "a": "gpu-1",
        "b": "cpu-1",
    }


async def test_no_free_accelerator(cluster: StandInCluster, api: Api) -> None:
    await api.apply(on_gpu("a", 2))
    await ready(cluster, "a")
    await api.apply(on_gpu("b", 1))
    pod = await pod_where(cluster, unschedulable)
    told = (
        "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: "
        "2 No preemption victims found for incoming pod."
    )
    assert unschedulable(pod) == told
    assert pod["status"]["phase"] == "Pending"
    assert (await event(cluster, "FailedScheduling"))["message"] == told
    await api.apps.delete_namespaced_deployment("a", "default")  # now there is room
    await ready(cluster, "b")


async def test_taints_selectors_and_amounts_have_their_own_words(cluster: StandInCluster, api: Api) -> None:
    big = {"resources": {"requests": {"memory": "16Gi"}}}
    await api.apply(deployment("a", container=big))
    pod = await pod_where(cluster, unschedulable)
    assert unschedulable(pod).startswith(
        "0/2 nodes are available: 1 Insufficient memory, "
        "1 node(s) had untolerated taint {nvidia.com/gpu: present}. preemption: "
    )
    await api.apps.delete_namespaced_deployment("a", "default")
    await cluster.came(lambda: not cluster.objects("pods"))
    await api.apply(
        deployment("b", nodeSelector={"nvidia.com/gpu.product": "NVIDIA-H100"}, tolerations=[TOLERATION])
    )
    pod = await pod_where(cluster, unschedulable)
    assert "2 node(s) didn't match Pod's node affinity/selector" in unschedulable(pod)
    cluster.add_node("h100", {"nvidia.com/gpu.product": "NVIDIA-H100"}, gpus=8)
    await ready(cluster, "b")


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [
        ("In", ["NVIDIA-L4", "X"], True),
        ("In", ["X"], False),
        ("Exists", [], True),
        ("NotIn", ["NVIDIA-L4"], False),
    ],
)
async def test_affinity(
    cluster: StandInCluster, api: Api, operator: str, values: list[str], fits: bool
) -> None:
    wanted: Json = {"key": "nvidia.com/gpu.product", "operator": operator}
    if values:
        wanted["values"] = values
    terms = {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    await api.apply(on_gpu(affinity=affinity))
    pod = await pod_where(cluster, lambda pod: node_of(pod) or unschedulable(pod))
    assert node_of(pod) == ("gpu-1" if fits else "")


async def test_no_node_at_all(api: Api, cluster: StandInCluster) -> None:
    cluster.remove_node("cpu-1")
    cluster.remove_node("gpu-1")
    await api.apply(deployment())
    pod = await pod_where(cluster, unschedulable)
    assert unschedulable(pod) == "no nodes available to schedule pods"


async def test_a_node_that_goes_takes_its_pods(api: Api, cluster: StandInCluster) -> None:
    await api.apply(deployment())
    await ready(cluster)
    cluster.add_node("cpu-2")
    cluster.remove_node("cpu-1")
    await pod_where(cluster, lambda pod: node_of(pod) == "cpu-2")
    await ready(cluster)


async def test_faults_of_scheduling(api: Api, cluster: StandInCluster) -> None:
    cluster.faults.unschedulable = frozenset({"a"})
    cluster.faults.never_scheduled = frozenset({"b"})
    await api.apply(deployment("a"))
    await api.apply(deployment("b"))
    pod = await pod_where(cluster, unschedulable)
    assert "2 Insufficient nvidia.com/gpu" in unschedulable(pod)
    silent = await pod_where(cluster, lambda p: p["metadata"]["labels"]["app.kubernetes.io/name"] == "b")
    assert "conditions" not in silent["status"]
    cluster.faults.clear()
    await ready(cluster, "a")
    await ready(cluster, "b")


def test_tolerations() -> None:
    assert tolerated(TAINT, [{"operator": "Exists"}])
    assert tolerated(TAINT, [{"key": "nvidia.com/gpu", "value": "present"}])
    assert not tolerated(TAINT, [{"key": "nvidia.com/gpu", "value": "other"}])
    assert not tolerated(TAINT, [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}])
