"""The in-process provider keeps the contract, and its faults do what they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from moorage.domain.model import HubModel
from moorage.domain.observation import ReplicaState, Trouble
from moorage.errors import Gone, NoCapacity, Retry, Unauthorized
from moorage.ports.provider import Absent, Credentials, Provider, RevisionPlan, StillThere
from moorage.testing.provider import InProcessCompute, InProcessProvider, cpu_offer
from moorage.testing.provider_contract import ProviderContract, Restart, need

SMALL = cpu_offer("small", memory_gb=1)
ROOMY = cpu_offer("roomy", memory_gb=64)
PLAN = RevisionPlan(
    deployment_id="dep_x",
    organization_id="org_x",
    revision=1,
    source=HubModel("acme/model", "0" * 40),
    runtime="onnx",
    offer=ROOMY,
    replicas=1,
    memory_bytes=2 * 10**9,
)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
    await writer.drain()
    writer.close()


@pytest.fixture
async def compute() -> AsyncIterator[InProcessCompute]:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def url(name: str, index: int) -> str:
        return f"http://127.0.0.1:{port}/{name}/{index}"

    async with server:
        yield InProcessCompute([SMALL, ROOMY], ready_after=0.03, replica_url=url, room={"small": 1})


class TestInProcessProvider(ProviderContract):
    @pytest.fixture
    async def provider(self, compute: InProcessCompute) -> Provider:
        return InProcessProvider(compute)

    @pytest.fixture
    async def restart(self, compute: InProcessCompute) -> Restart:
        async def again() -> Provider:
            return InProcessProvider(compute)

        return again

    @pytest.fixture
    def plan(self) -> RevisionPlan:
        return PLAN

    @pytest.fixture
    def plan_without_room(self) -> RevisionPlan:
        return replace(PLAN, offer=SMALL)


class TestFaults:
    @pytest.fixture
    def compute(self) -> InProcessCompute:
        return InProcessCompute([SMALL, ROOMY], room={"small": 1})

    @pytest.fixture
    def provider(self, compute: InProcessCompute) -> InProcessProvider:
        return InProcessProvider(compute)

    async def test_room_is_used_up_and_given_back(
        self, compute: InProcessCompute, provider: InProcessProvider
    ) -> None:
        plan = replace(PLAN, offer=SMALL, memory_bytes=10)
        handle = await provider.create(plan, "one", None)
        with pytest.raises(NoCapacity):
            await provider.create(plan, "two", None)
        assert await provider.delete(handle, None) == Absent()
        await provider.create(plan, "two", None)

    async def test_no_capacity_by_offer(self, compute: InProcessCompute, provider: InProcessProvider) -> None:
        compute.faults.no_capacity.add("roomy")
        with pytest.raises(NoCapacity):
            await provider.create(PLAN, "one", None)
        compute.faults.no_capacity.clear()
        await provider.create(PLAN, "one", None)

    @pytest.mark.parametrize(
        ("fault", "trouble"),
        [("crash_loop", Trouble.CRASH_LOOP), ("throttled", Trouble.NO_CAPACITY), ("never_ready", None)],
    )
    async def test_trouble_after_create(
        self, compute: InProcessCompute, provider: InProcessProvider, fault: str, trouble: Trouble | None
    ) -> None:
        handle = await provider.create(PLAN, "one", None)
        getattr(compute.faults, fault).add("roomy")
        seen = await provider.observe(handle, None)
        assert seen.trouble is trouble
        assert not any(r.state is ReplicaState.READY for r in seen.replicas)
        getattr(compute.faults, fault).clear()
        assert (await provider.observe(handle, None)).replicas[0].state is ReplicaState.READY

    async def test_a_lost_answer_has_had_its_effect(
        self, compute: InProcessCompute, provider: InProcessProvider
    ) -> None:
        compute.faults.lose_next("create")
        with pytest.raises(Retry):
            await provider.create(PLAN, "one", None)
        assert await provider.find("one", None) is not None
        await provider.create(PLAN, "one", None)
        assert compute.creates == {"one": 1}

    async def test_an_error_raised_next_has_no_effect(
        self, compute: InProcessCompute, provider: InProcessProvider
    ) -> None:
        compute.faults.raise_next("create", Retry("busy"), times=2)
        for _ in range(2):
            with pytest.raises(Retry):
                await provider.create(PLAN, "one", None)
        assert compute.endpoints == {}
        await provider.create(PLAN, "one", None)

    async def test_slow_creates_of_one_name_still_make_one(
        self, compute: InProcessCompute, provider: InProcessProvider
    ) -> None:
        compute.faults.slow["create"] = 0.02
        await asyncio.gather(*(provider.create(PLAN, "one", None) for _ in range(5)))
        assert compute.creates["one"] == 1

    async def test_delete_is_still_there_as_often_as_told(
        self, compute: InProcessCompute, provider: InProcessProvider
    ) -> None:
        compute.faults.still_there = 2
        handle = await provider.create(PLAN, "one", None)
        answers = [await provider.delete(handle, None) for _ in range(3)]
        assert [type(a) for a in answers] == [StillThere, StillThere, Absent]
        assert compute.deletes["one"] == 1

    async def test_vanished_is_gone(self, compute: InProcessCompute, provider: InProcessProvider) -> None:
        handle = await provider.create(PLAN, "one", None)
        compute.vanish("one")
        with pytest.raises(Gone):
            await provider.observe(handle, None)

    async def test_a_crash_keeps_its_last_words(
        self, compute: InProcessCompute, provider: InProcessProvider
    ) -> None:
        handle = await provider.create(PLAN, "one", None)
        compute.crash("one", ["no such file"])
        seen = await provider.observe(handle, None)
        assert (seen.trouble, seen.log_tail) == (Trouble.CRASH_LOOP, ("no such file",))

    async def test_credentials_are_checked_when_a_token_is_set(
        self, compute: InProcessCompute, provider: InProcessProvider
    ) -> None:
        compute.faults.accepted_token = "right"
        with pytest.raises(Unauthorized):
            await provider.offers(need(1), Credentials({"token": "wrong"}))
        assert await provider.offers(need(1), Credentials({"token": "right"}))

    async def test_aclose_ends_watches(self, provider: InProcessProvider) -> None:
        watch = provider.watch(None)
        listening = asyncio.ensure_future(anext(watch, None))
        await asyncio.sleep(0)
        await provider.aclose()
        assert await asyncio.wait_for(listening, 1) is None
