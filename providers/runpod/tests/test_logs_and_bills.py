"""What an endpoint's workers print, as RunPod streams it, and what RunPod charged for them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from moorage.domain.deployment import Handle
from moorage.errors import Gone
from moorage.ports.provider import BearerKeys, Billing, LogLine, Logs
from moorage.testing.provider_contract import until_absent

from .conftest import CREDENTIALS, House
from .looking import until, until_ready
from .plans import plan


async def test_it_says_what_it_can_do(house: House) -> None:
    provider = house.provider()
    assert isinstance(provider, Logs)
    assert isinstance(provider, BearerKeys)
    assert isinstance(provider, Billing)


async def test_lines_of_all_workers_in_their_order(house: House, name: str) -> None:
    provider = house.provider()
    handle = await provider.create(plan(replicas=2), name, CREDENTIALS)
    await until(provider, handle, lambda seen: len(seen.targets) == 2)
    lines = [line async for line in provider.logs(handle, CREDENTIALS, tail=100, follow=False)]
    assert len({line.replica for line in lines}) == 2
    assert [line.at for line in lines] == sorted(line.at for line in lines)
    last = [line async for line in provider.logs(handle, CREDENTIALS, tail=2, follow=False)]
    assert last == lines[-2:]
    assert [line async for line in provider.logs(handle, CREDENTIALS, tail=0, follow=False)] == []


async def test_a_follower_sees_workers_that_come_later_and_no_line_twice(house: House, name: str) -> None:
    house.fake.simulated.load_seconds = 0.2
    provider = house.provider()
    handle = await provider.create(plan(), name, CREDENTIALS)
    told: list[LogLine] = []
    ready = asyncio.Event()

    async def follow() -> None:
        async for line in provider.logs(handle, CREDENTIALS, tail=10, follow=True):
            told.append(line)
            if "worker is ready" in line.text:
                ready.set()

    following = asyncio.create_task(follow())
    _, handle = await until_ready(provider, handle)
    await asyncio.wait_for(ready.wait(), 10)
    await until_absent(provider, handle, CREDENTIALS, 10)
    await asyncio.wait_for(following, 10)
    assert len(told) == len({(line.at, line.text) for line in told})


async def test_no_past_for_who_wants_none(house: House, name: str) -> None:
    provider = house.provider()
    handle = await provider.create(plan(), name, CREDENTIALS)
    _, handle = await until_ready(provider, handle)
    lines = provider.logs(handle, CREDENTIALS, tail=0, follow=True)
    first = asyncio.ensure_future(anext(lines))
    await house.fake.came(lambda: house.fake.sent("GET /v2/serverless/{id}/workers/{workerId}/logs"))
    [worker] = house.fake.endpoints[0].workers.values()
    async with asyncio.timeout(10):
        while not first.done():  # the stream begins a moment after it was asked for
            worker.log.write("something new")
            await asyncio.wait({first}, timeout=0.05)
    assert (await first).text == "something new"
    await lines.aclose()  # type: ignore[attr-defined]  # a generator


async def test_one_who_stops_following_leaves_no_stream_open(house: House, name: str) -> None:
    provider = house.provider()
    handle = await provider.create(plan(), name, CREDENTIALS)
    _, handle = await until_ready(provider, handle)
    lines = provider.logs(handle, CREDENTIALS, tail=10, follow=True)
    await anext(lines)
    before = asyncio.all_tasks()
    await lines.aclose()  # type: ignore[attr-defined]  # a generator
    assert {t.get_name() for t in asyncio.all_tasks()} <= {t.get_name() for t in before}


async def test_a_bill_is_of_the_endpoint_alone(house: House, name: str) -> None:
    provider = house.provider()
    since = datetime.now(UTC) - timedelta(hours=1)
    handle = await provider.create(plan(), name, CREDENTIALS)
    _, handle = await until_ready(provider, handle)
    bill = await provider.billed(handle, CREDENTIALS, since)
    assert bill.amount > 0
    assert bill.since <= since < bill.until
    [sent] = house.fake.sent("GET /v2/billing/serverless")
    assert sent.query["serverlessId"] == handle.ref["id"]
    idle = await provider.create(plan(), name.replace("-a1", "-a2"), CREDENTIALS)
    assert (await provider.billed(idle, CREDENTIALS, since)).amount == 0


async def test_of_what_never_was(house: House, name: str) -> None:
    provider = house.provider()
    with pytest.raises(Gone):
        await provider.billed(Handle("runpod", name), CREDENTIALS, datetime.now(UTC))
