"""Answers get lost and processes die: nothing is doubled, nothing is left over, whatever step it hits."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from kubernetes_asyncio import client

import moorage_kubernetes
from moorage.domain.deployment import Handle
from moorage.domain.workload import AccessMode, Autoscale, Metric, ScalingTarget, Volume
from moorage.errors import Gone, ProviderError, Retry
from moorage.ports.outside import RegistryAccess
from moorage.ports.provider import RevisionPlan
from moorage.testing.provider_contract import ProviderContract, until_absent
from moorage_kubernetes.testing import ANY_MODE, Kind

from . import plans
from .conftest import House
from .looking import serves, until

SHARED = Volume("pvc-data", "/data", 1024**3, AccessMode.READ_WRITE_MANY, "shared")
BY_CPU = Autoscale((ScalingTarget(Metric.CPU, 80),))


@pytest.fixture
def plan(house: House) -> RevisionPlan:
    """With an object of every kind that a plain deployment has."""
    house.cluster.add_storage_class("shared", ANY_MODE)
    plan = plans.image_plan(max_replicas=3, autoscale=BY_CPU, volumes=(SHARED,))
    return replace(plan, registry=RegistryAccess("registry.example.com", "robot", "hush"))


async def routes_of_a_create(house: House, plan: RevisionPlan) -> list[str]:
    """The paths, with `*` for the endpoint's name."""
    provider, name = house.provider(), ProviderContract.new_name()
    before = len(house.cluster.requests)
    handle = await provider.create(plan, name, house.credentials)
    routes = [r.name.replace(name, "*") for r in house.cluster.requests[before:]]
    await until_absent(provider, handle, house.credentials, 20)
    return list(dict.fromkeys(routes))


@pytest.mark.parametrize("kind", [Kind.LOSE_ANSWER, Kind.LOSE_REQUEST, Kind.UNAVAILABLE])
async def test_a_create_that_broke_off_anywhere_is_finished_by_the_next(
    house: House, plan: RevisionPlan, kind: Kind
) -> None:
    for route in await routes_of_a_create(house, plan):
        name = ProviderContract.new_name()
        house.cluster.faults.arm(route, kind)
        with contextlib.suppress(Retry):  # and nothing else
            await house.provider().create(plan, name, house.credentials)
        house.cluster.faults.clear()
        provider = house.provider()
        handle = await provider.create(plan, name, house.credentials)
        await until(provider, handle, house.credentials, serves)
        assert len(house.cluster.objects("deployments")) == 1, route
        assert len(house.cluster.objects("scaledobjects")) == 1, route
        for secret in house.cluster.objects("secrets", plans.NAMESPACE):
            assert secret["metadata"].get("ownerReferences"), route
        await until_absent(provider, handle, house.credentials, 20)
        assert house.left() == {}, route


async def test_what_a_create_left_that_broke_off_is_found_and_removed(
    house: House, plan: RevisionPlan
) -> None:
    for route in await routes_of_a_create(house, plan):
        name = ProviderContract.new_name()
        house.cluster.faults.arm(route, Kind.LOSE_REQUEST, times=None)
        with contextlib.suppress(Retry):
            await house.provider().create(plan, name, house.credentials)
        house.cluster.faults.clear()
        provider = house.provider()
        owned = [h async for h in provider.owned(house.credentials)]
        found = await provider.find(name, house.credentials)
        if house.left():
            assert found is not None, route
            assert owned == [found], route
            await until_absent(provider, found, house.credentials, 20)
        assert house.left() == {}, route


@pytest.mark.parametrize("kind", [Kind.LOSE_ANSWER, Kind.LOSE_REQUEST, Kind.TOO_MANY])
async def test_a_deletion_whose_answers_are_lost_ends_in_absence(
    house: House, plan: RevisionPlan, kind: Kind
) -> None:
    provider, name = house.provider(), ProviderContract.new_name()
    handle = await provider.create(plan, name, house.credentials)
    await until(provider, handle, house.credentials, serves)
    house.cluster.faults.arm("DELETE *", kind, times=6)
    for _ in range(8):
        with contextlib.suppress(Retry):
            await provider.delete(handle, house.credentials)
    await until_absent(provider, handle, house.credentials, 20)
    assert house.left() == {}


async def test_what_is_left_without_its_deployment_is_owned_still(house: House, plan: RevisionPlan) -> None:
    provider, name = house.provider(), ProviderContract.new_name()
    handle = await provider.create(plan, name, house.credentials)
    await until(provider, handle, house.credentials, serves)
    api = await house.cluster.api_client()
    async with api:
        await client.AppsV1Api(api).delete_namespaced_deployment(
            name, plans.NAMESPACE, propagation_policy="Orphan"
        )
    await house.cluster.came(lambda: not house.cluster.objects("deployments"))
    with pytest.raises(Gone):
        await provider.observe(handle, house.credentials)
    assert [h async for h in provider.owned(house.credentials)] == [handle]
    assert await provider.find(name, house.credentials) == handle


async def test_another_installation_owns_nothing_of_it(house: House, plan: RevisionPlan) -> None:
    provider, name = house.provider(), ProviderContract.new_name()
    await provider.create(plan, name, house.credentials)
    other = moorage_kubernetes.provider(replace(plans.config(), installation="inst_other"))
    try:
        assert [h async for h in other.owned(house.credentials)] == []
    finally:
        await other.aclose()


async def test_a_cluster_that_is_away_is_said_to_be_and_nothing_is_thrown_away(
    house: House, plan: RevisionPlan
) -> None:
    provider, name = house.provider(), ProviderContract.new_name()
    handle = await provider.create(plan, name, house.credentials)
    await until(provider, handle, house.credentials, serves)
    await house.cluster.go_down()
    calls = (
        provider.observe(handle, house.credentials),
        provider.create(plan, name, house.credentials),
        provider.apply(handle, plan, house.credentials),
        provider.stop(handle, house.credentials),
        provider.delete(handle, house.credentials),
        provider.find(name, house.credentials),
    )
    for call in calls:
        with pytest.raises(Retry, match="cannot be reached"):
            await call
    await house.cluster.come_up()
    assert (await provider.observe(handle, house.credentials)).targets


@pytest.mark.parametrize("kind", [Kind.INTERNAL, Kind.UNAVAILABLE, Kind.GATEWAY_TIMEOUT, Kind.TOO_MANY])
async def test_passing_trouble_is_told_as_such(house: House, name: str, kind: Kind) -> None:
    house.cluster.faults.arm("*", kind, times=1, seconds=7)
    with pytest.raises(Retry) as raised:
        await house.provider().observe(Handle("kubernetes", name), house.credentials)
    assert raised.value.after == (7 if kind is Kind.TOO_MANY else 1)


async def test_a_cluster_that_hangs_is_not_waited_for_without_end(house: House, name: str) -> None:
    house.cluster.faults.arm("*", Kind.SLOW, seconds=30)
    with pytest.raises(Retry, match="in time"):
        await house.provider(CALL_SECONDS="0.2").observe(Handle("kubernetes", name), house.credentials)


async def test_no_exception_of_the_library_leaves(house: House, name: str) -> None:
    house.cluster.uninstall("keda")
    with pytest.raises(ProviderError):
        await house.provider().wake(Handle("kubernetes", name), house.credentials)
