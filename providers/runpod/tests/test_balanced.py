"""Endpoints behind RunPod's load balancer: proved by their ping, spoken to over HTTP."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from moorage.domain.compute import EndpointType, Serverless
from moorage.domain.observation import Access, Face, Trouble
from moorage.testing.provider_contract import until_absent
from moorage_runpod.testing import KEY

from .conftest import CREDENTIALS, House
from .looking import until, until_ready, until_trouble
from .plans import plan

LB = plan(serverless=Serverless(endpoint_type=EndpointType.LOAD_BALANCER))
KEPT = replace(LB, serverless=replace(LB.serverless, workers_min=1))


@pytest.fixture(autouse=True)
def short_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The balancer holds a ping as long as there is no worker."""
    monkeypatch.setattr("moorage_runpod.api.PING_SECONDS", 0.2)


async def test_a_ping_proves_it_and_its_url_takes_requests(house: House, name: str) -> None:
    provider = house.provider()
    handle = await provider.create(LB, name, CREDENTIALS)
    seen, handle = await until_ready(provider, handle)
    assert seen.access == Access(Face.HTTP, "api_key")
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as client:
        answer = await client.post(f"{seen.targets[0]}/infer", json={"inputs": "a boat"})
    assert answer.json()["outputs"] == "a boat"
    seen, _ = await until_ready(provider, handle)
    assert house.fake.sent("POST /v2/{endpoint}/run") == []
    await until_absent(provider, handle, CREDENTIALS, 10)


async def test_it_loads_before_it_is_ready(house: House, name: str) -> None:
    house.fake.faults.never_ready = frozenset({name})
    provider = house.provider()
    handle = await provider.create(KEPT, name, CREDENTIALS)
    seen, handle = await until(provider, handle, lambda seen: seen.stage == "starting")
    assert seen.targets == ()
    house.fake.faults.never_ready = frozenset()
    await until_ready(provider, handle)


async def test_without_room(house: House, name: str) -> None:
    house.fake.faults.throttled_pools = frozenset({"AMPERE_24"})
    provider = house.provider(CAPACITY_SECONDS="0.3")
    handle = await provider.create(KEPT, name, CREDENTIALS)
    assert (await until_trouble(provider, handle)).trouble is Trouble.NO_CAPACITY
    await until_absent(provider, handle, CREDENTIALS, 10)
    assert house.names() == []


async def test_a_crash_loop(house: House, name: str) -> None:
    house.fake.faults.crash_loops = frozenset({name})
    provider = house.provider()
    handle = await provider.create(KEPT, name, CREDENTIALS)
    seen = await until_trouble(provider, handle)
    assert seen.trouble is Trouble.CRASH_LOOP
    assert seen.log_tail
