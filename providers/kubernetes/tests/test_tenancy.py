"""The same code serves an operator's cluster: a namespace for each organization, with walls around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from moorage.domain.compute import GIB
from moorage.domain.deployment import Handle
from moorage.domain.observation import Observation, Trouble
from moorage.ports.provider import Credentials, RevisionPlan, StillThere
from moorage.testing.provider_contract import ProviderContract
from moorage_kubernetes.client import Clients
from moorage_kubernetes.endpoints import ClusterEndpoints
from moorage_kubernetes.tenancy import NamespaceForEach, Quota
from moorage_kubernetes.testing import StandInCluster

from . import plans

QUOTA = Quota(cpus=4, memory_bytes=16 * GIB, pods=2)


@pytest.fixture
async def endpoints(stand_in: StandInCluster) -> AsyncIterator[ClusterEndpoints]:
    clients = Clients(None)
    client = clients.of(Credentials(stand_in.values()))
    tenancy = NamespaceForEach(prefix="tenants", quota=QUOTA)
    made = ClusterEndpoints(client, plans.settings(), tenancy, provider="managed")
    yield made
    await made.aclose()
    await clients.aclose()


def of(organization: str) -> RevisionPlan:
    return replace(plans.plan(), organization_id=organization)


async def until(
    endpoints: ClusterEndpoints, handle: Handle, stand_in: StandInCluster, what: str
) -> Observation:
    """Looks after each change of the cluster."""
    async with asyncio.timeout(15):
        while True:
            moved = stand_in.world.store.moved
            seen = await endpoints.observe(handle)
            if getattr(seen, what):
                return seen
            await moved.wait()


async def removed(endpoints: ClusterEndpoints, handle: Handle) -> None:
    async with asyncio.timeout(15):
        answer = await endpoints.delete(handle)
        while isinstance(answer, StillThere):
            await asyncio.sleep(answer.after)
            answer = await endpoints.delete(handle)


async def test_organizations_are_kept_apart(endpoints: ClusterEndpoints, stand_in: StandInCluster) -> None:
    handles = [
        await endpoints.create(of(organization), ProviderContract.new_name())
        for organization in ("org_a", "org_b")
    ]
    assert [h.ref for h in handles] == [{"namespace": "tenants-org-a"}, {"namespace": "tenants-org-b"}]
    for handle in handles:
        await until(endpoints, handle, stand_in, "targets")
        namespace = handle.ref["namespace"]
        assert stand_in.object("resourcequotas", "moorage", namespace)
        assert stand_in.object("limitranges", "moorage", namespace)
        assert stand_in.object("networkpolicies", "moorage", namespace)
        labels = stand_in.object("namespaces", namespace)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "baseline"
    assert stand_in.refused == []


async def test_a_name_alone_is_found_in_whatever_namespace(
    endpoints: ClusterEndpoints, stand_in: StandInCluster
) -> None:
    handle = await endpoints.create(of("org_a"), ProviderContract.new_name())
    assert await endpoints.find(handle.name) == handle
    assert [h async for h in endpoints.owned()] == [handle]
    bare = Handle("managed", handle.name)
    await until(endpoints, bare, stand_in, "targets")
    await removed(endpoints, bare)
    assert await endpoints.find(handle.name) is None
    assert [h async for h in endpoints.owned()] == []


async def test_the_quota_of_one_is_no_capacity_for_it_alone(
    endpoints: ClusterEndpoints, stand_in: StandInCluster
) -> None:
    work = plans.workload(resources=replace(plans.SMALL, cpu_request=5, cpu_limit=5))
    big = replace(of("org_a"), source=plans.IMAGE, workload=work)
    full = await endpoints.create(big, ProviderContract.new_name())
    seen = await until(endpoints, full, stand_in, "trouble")
    assert seen.trouble is Trouble.NO_CAPACITY
    assert "exceeded quota" in (seen.message or "")
    other = await endpoints.create(of("org_b"), ProviderContract.new_name())
    await until(endpoints, other, stand_in, "targets")
