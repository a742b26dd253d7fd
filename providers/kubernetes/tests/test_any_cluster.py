"""What every cluster must be able to do, on stand-ins and on a real one.

`MOORAGE_TEST_KUBECONFIG` is the path of the real one's kubeconfig. It may have no node, or no kubelet: pods
then stay Pending, which must be told with its reason. What is made there has a namespace of its own.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest

import moorage_kubernetes
from moorage.domain.model import ContainerImage
from moorage.domain.observation import Observation
from moorage.domain.workload import Autoscale, Metric, ScalingTarget
from moorage.ports.provider import Credentials, RevisionPlan
from moorage.testing.provider_contract import ProviderContract, until_absent
from moorage_kubernetes.cluster_provider import KubernetesProvider
from moorage_kubernetes.testing import StandInCluster

from . import plans
from .looking import until

REAL = os.environ.get("MOORAGE_TEST_KUBECONFIG")
KUBECONFIG = None if REAL is None else Path(REAL).read_text()
PAUSE = ContainerImage("registry.k8s.io/pause:3.10")


@dataclass
class Reached:
    provider: KubernetesProvider
    credentials: Credentials


@pytest.fixture(params=["stand-in", "without a node", "without a kubelet", "real"])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Reached]:
    provider = moorage_kubernetes.provider(plans.config())
    namespace = f"moorage-test-{uuid4().hex[:8]}"
    if request.param == "real":
        if KUBECONFIG is None:
            pytest.skip("MOORAGE_TEST_KUBECONFIG names no cluster")
        given = {"kubeconfig": KUBECONFIG, "namespace": namespace}
        yield Reached(provider, Credentials(provider.read_access(given)))
    else:
        async with StandInCluster(node=False) as stand_in:
            if request.param != "without a node":
                stand_in.add_node("node-1", plans.GROUP)
            stand_in.faults.no_kubelet = request.param == "without a kubelet"
            given = {"kubeconfig": stand_in.kubeconfig(), "namespace": namespace}
            yield Reached(provider, Credentials(provider.read_access(given)))
            assert [(r.name, r.refusal) for r in stand_in.refused] == []
    await provider.aclose()


def plan(replicas: int = 1, **more: object) -> RevisionPlan:
    made = plans.plan(PAUSE, replicas=replicas, max_replicas=3, workload=plans.workload(**more))
    return replace(made, offer=replace(made.offer, ref={"gpus": "0", "selector": "{}"}))


def runs_or_says_why(count: int, seen: Observation) -> bool:
    """So many pods, each ready or with what it waits for."""
    told = [r.url is not None or bool(r.message) for r in seen.replicas]
    return len(told) == count and (all(told) or bool(seen.message))


async def test_imported_and_looked_over(cluster: Reached) -> None:
    report = await cluster.provider.check(cluster.credentials)
    assert report.problem is None
    assert report.version
    assert report.grants


@pytest.mark.timeout(180)
async def test_applied_updated_scaled_and_deleted(cluster: Reached) -> None:
    provider, credentials = cluster.provider, cluster.credentials
    name = ProviderContract.new_name()
    handle = await provider.create(plan(), name, credentials)
    try:
        assert await provider.find(name, credentials) is not None
        await until(provider, handle, credentials, lambda seen: runs_or_says_why(1, seen), 60)
        handle = await provider.apply(handle, plan(2), credentials)
        await until(provider, handle, credentials, lambda seen: len(seen.replicas) >= 2, 60)
        scaled = Autoscale((ScalingTarget(Metric.CPU, 80),))
        handle = await provider.apply(handle, plan(1, autoscale=scaled), credentials)
        changed = replace(plan(1, autoscale=scaled), env={"GREETING": "two"})
        handle = await provider.apply(handle, changed, credentials)
        seen = await provider.observe(handle, credentials)
        assert seen.drift is None
    finally:
        await until_absent(provider, handle, credentials, 60)
    assert await provider.find(name, credentials) is None
    assert [h async for h in provider.owned(credentials) if h.name == name] == []
