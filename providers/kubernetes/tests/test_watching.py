"""A cluster is watched: what happens is told, what is quiet costs nothing, a lost watch is made up for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from moorage.domain.deployment import Handle
from moorage.domain.observation import ReplicaState
from moorage.ports.provider import Credentials
from moorage.testing.provider_contract import ProviderContract, until_absent
from moorage_kubernetes.cluster_provider import KubernetesProvider

from . import plans
from .conftest import House
from .looking import SECONDS, serves, until

MANY = 1000


@dataclass
class Listener:
    """Hears the names that a provider tells."""

    provider: KubernetesProvider
    credentials: Credentials
    heard: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def listen(self) -> None:
        async for name in self.provider.watch(self.credentials):
            self.heard.put_nowait(name)

    async def hears(self, name: str) -> None:
        async with asyncio.timeout(SECONDS):
            while await self.heard.get() != name:
                pass

    def forget(self) -> None:
        while not self.heard.empty():
            self.heard.get_nowait()


@pytest.fixture
async def listener(house: House) -> AsyncIterator[Listener]:
    listener = Listener(house.provider(), house.credentials)
    listening = asyncio.create_task(listener.listen())
    yield listener
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def served(listener: Listener, name: str) -> Handle:
    handle = await listener.provider.create(plans.plan(), name, listener.credentials)
    await until(listener.provider, handle, listener.credentials, serves)
    return handle


async def until_quiet(house: House, listener: Listener, handle: Handle) -> None:
    """Until a look costs no request."""
    async with asyncio.timeout(SECONDS):
        while True:
            before = len(house.cluster.requests)
            await listener.provider.observe(handle, listener.credentials)
            if len(house.cluster.requests) == before:
                return
            await asyncio.sleep(0.02)


async def test_what_serves_costs_no_request(house: House, listener: Listener, name: str) -> None:
    handle = await served(listener, name)
    await until_quiet(house, listener, handle)
    before = len(house.cluster.requests)
    for _ in range(50):
        seen = await listener.provider.observe(handle, listener.credentials)
        assert seen.targets
    assert len(house.cluster.requests) == before


async def test_without_a_watch_the_cluster_is_asked(house: House, name: str) -> None:
    provider = house.provider()
    handle = await provider.create(plans.plan(), name, house.credentials)
    await until(provider, handle, house.credentials, serves)
    before = len(house.cluster.requests)
    await provider.observe(handle, house.credentials)
    assert len(house.cluster.requests) == before + 2


async def test_a_pod_that_fails_wakes_its_deployment(house: House, listener: Listener, name: str) -> None:
    handle = await served(listener, name)
    await until_quiet(house, listener, handle)
    listener.forget()
    house.cluster.faults.readiness_probe = frozenset({"*"})
    await listener.hears(name)
    await until(listener.provider, handle, listener.credentials, lambda s: not s.targets)


@pytest.mark.parametrize("how", ["drop", "expire"])
async def test_a_lost_watch_tells_what_happened_meanwhile(
    house: House, listener: Listener, name: str, how: str
) -> None:
    handle = await served(listener, name)
    await until_quiet(house, listener, handle)
    listener.forget()
    house.cluster.drop_watches() if how == "drop" else house.cluster.expire_watches()
    house.cluster.faults.readiness_probe = frozenset({"*"})
    await listener.hears(name)
    await until(listener.provider, handle, listener.credentials, lambda s: not s.targets)
    house.cluster.faults.clear()
    await until(listener.provider, handle, listener.credentials, serves)
    await until_quiet(house, listener, handle)


async def test_a_cluster_that_was_away_is_listed_again(house: House, listener: Listener, name: str) -> None:
    handle = await served(listener, name)
    await until_quiet(house, listener, handle)
    await house.cluster.go_down()
    listener.forget()
    house.cluster.remove_node("node-1")
    house.cluster.compact()
    await house.cluster.come_up()
    await listener.hears(name)
    seen = await until(
        listener.provider, handle, listener.credentials, lambda s: s.replicas and not s.targets
    )
    assert seen.replicas[0].state is ReplicaState.STARTING


async def test_a_deletion_is_told(house: House, listener: Listener, name: str) -> None:
    handle = await served(listener, name)
    listener.forget()
    await until_absent(listener.provider, handle, listener.credentials, 10)
    await listener.hears(name)


async def test_who_begins_to_watch_hears_of_what_is_there(house: House, name: str) -> None:
    provider = house.provider()
    await provider.create(plans.plan(), name, house.credentials)
    listener = Listener(house.provider(), house.credentials)
    listening = asyncio.create_task(listener.listen())
    try:
        await listener.hears(name)
    finally:
        listening.cancel()


async def test_an_own_write_is_seen_at_once(house: House, listener: Listener, name: str) -> None:
    handle = await served(listener, name)
    await until_quiet(house, listener, handle)
    for replicas in (2, 1, 2, 1):
        await listener.provider.apply(handle, plans.plan(replicas=replicas), listener.credentials)
        seen = await listener.provider.observe(handle, listener.credentials)
        assert seen.drift is None, "an older state was taken for a change of somebody else's"


async def test_bookkeeping_of_the_cluster_wakes_nobody(house: House, listener: Listener, name: str) -> None:
    handle = await served(listener, name)
    await until_quiet(house, listener, handle)
    listener.forget()
    house.cluster.watches.began.clear()
    for _ in range(3):
        house.cluster.drop_watches()
        await asyncio.wait_for(house.cluster.watches.began.wait(), SECONDS)
        house.cluster.watches.began.clear()
    await until_quiet(house, listener, handle)
    assert listener.heard.empty()


async def test_a_thousand_deployments_cost_no_requests_while_nothing_happens(
    house: House, listener: Listener
) -> None:
    """Each of them is looked at, as the engine does once a minute, and the requests are counted."""
    house.cleans = False
    for number in range(20):
        house.cluster.add_node(f"more-{number}", plans.GROUP, cpu=64, memory_gib=256)
    handles = []
    turns = asyncio.Semaphore(8)

    async def one(name: str) -> None:
        async with turns:
            handles.append(await listener.provider.create(plans.plan(), name, listener.credentials))

    await asyncio.gather(*(one(ProviderContract.new_name()) for _ in range(MANY)))
    for handle in handles:
        await until(listener.provider, handle, listener.credentials, serves, 100)
    before = len(house.cluster.requests)
    for handle in handles:
        assert (await listener.provider.observe(handle, listener.credentials)).targets
    spent = [r.name for r in house.cluster.requests[before:]]
    assert len(spent) <= 2, spent  # a watch may have come to its end
