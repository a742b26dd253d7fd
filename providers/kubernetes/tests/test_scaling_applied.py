"""A cluster takes the objects that scale a deployment, and does with them what was asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from moorage.domain.workload import Queued
from moorage.ports.provider import RevisionPlan
from moorage_kubernetes.autoscaling import scaling_objects
from moorage_kubernetes.testing import StandInCluster
from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.tools import ClusterTools

from .test_autoscaling import EVERYTHING, LABELS, NAME, NAMESPACE, PLAIN, plan, target


@pytest.fixture
async def cluster() -> AsyncIterator[StandInCluster]:
    async with StandInCluster(speed=10_000) as running:
        running.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        running.add(deployment())
        yield running
        assert running.refused == []


def deployment() -> Json:
    container = {"name": "c", "image": "acme/app", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": NAME}},
            "template": {"metadata": {"labels": {"app": NAME}}, "spec": {"containers": [container]}},
        },
    }


async def reaches(cluster: StandInCluster, replicas: int) -> None:
    def settled() -> bool:
        return bool(cluster.object("deployments", NAME, NAMESPACE)["spec"].get("replicas") == replicas)

    await cluster.came(settled)


def apply(cluster: StandInCluster, asked: RevisionPlan, tools: ClusterTools) -> None:
    for made in scaling_objects(asked, NAME, NAMESPACE, LABELS, tools):
        cluster.add(made)


@pytest.mark.parametrize("tools", [EVERYTHING, PLAIN])
async def test_replicas_follow_the_load_between_the_bounds(
    cluster: StandInCluster, tools: ClusterTools
) -> None:
    apply(cluster, plan(target("cpu"), target("ram"), replicas=2, most=4), tools)
    await reaches(cluster, 2)
    cluster.recommend(NAME, 9)
    await reaches(cluster, 4)


@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_deployment_sleeps_when_idle_and_wakes_as_large_as_asked_for(
    cluster: StandInCluster, replicas: int
) -> None:
    apply(cluster, plan(target("throughput"), replicas=replicas, scale_to_zero=True, cooldown=1), EVERYTHING)
    cluster.set_active(NAME, active=True)
    await reaches(cluster, replicas)
    cluster.set_active(NAME, active=False)
    await reaches(cluster, 0)
    cluster.set_active(NAME, active=True)
    await reaches(cluster, replicas)


async def test_a_queues_objects_are_taken(cluster: StandInCluster) -> None:
    apply(cluster, plan(target("queue_length", 5), queued=Queued()), EVERYTHING)
    assert cluster.object("triggerauthentications", NAME, NAMESPACE)
