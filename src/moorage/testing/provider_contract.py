"""What every provider must do, as tests that anybody's provider can run.

Subclass `ProviderContract` in a test module, give it the fixtures marked as abstract below, and pytest runs
the suite. It checks the docstrings of `Provider`, `Logs` and `Watch` (`moorage.ports.provider`) from outside,
through the port alone. Needs pytest with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest

from moorage.domain.compute import Availability, Estimate, Feature, Requirements, RuntimeOption
from moorage.domain.deployment import Handle
from moorage.domain.naming import ExternalName, new_id
from moorage.domain.observation import Observation, ReplicaState
from moorage.errors import Gone, NoCapacity
from moorage.ports.provider import (
    Absent,
    Account,
    Credentials,
    Logs,
    Provider,
    RevisionPlan,
    StillThere,
    Watch,
)

Restart = Callable[[], Awaitable[Provider]]


def need(total_bytes: int) -> Requirements:
    """Requirements of a hub model that takes `total_bytes` on the CPU."""
    estimate = Estimate(total_bytes, total_bytes / 10**9, ())
    return Requirements((RuntimeOption("onnx", False, estimate),), replicas=1, source_kind="hub")


async def until_ready(
    provider: Provider, handle: Handle, credentials: Credentials | None, seconds: float
) -> Observation:
    """Observes until every replica is READY; fails on trouble, or when `seconds` are over."""
    end = time.monotonic() + seconds
    while True:
        seen = await provider.observe(handle, credentials)
        assert seen.trouble is None, f"{seen.trouble}: {seen.message} {seen.log_tail}"
        if seen.replicas and all(r.state is ReplicaState.READY for r in seen.replicas):
            return seen
        assert time.monotonic() < end, f"not ready after {seconds} s: {seen}"
        await asyncio.sleep(0.01)


async def until_absent(
    provider: Provider, handle: Handle, credentials: Credentials | None, seconds: float
) -> None:
    """Deletes until the provider answers Absent, as the engine does; fails when `seconds` are over."""
    end = time.monotonic() + seconds
    while isinstance(answer := await provider.delete(handle, credentials), StillThere):
        assert answer.after >= 0
        assert time.monotonic() < end, f"still there after {seconds} s"
        await asyncio.sleep(min(answer.after, 1.0))
    assert answer == Absent()


class ProviderContract:
    """Subclass it and give it `provider`, `restart`, `plan` and `plan_without_room`."""

    ready_within = 20.0  # seconds
    absent_within = 20.0

    @pytest.fixture
    async def provider(self) -> Provider:
        """The provider under test. The fixture must close it and remove all that it started."""
        pytest.fail("the suite needs a fixture `provider` of yours")

    @pytest.fixture
    async def restart(self) -> Restart:
        """A function that gives another provider on the same state, as the next service process would hold
        it. The fixture must close those too."""
        pytest.fail("the suite needs a fixture `restart` of yours")

    @pytest.fixture
    def plan(self) -> RevisionPlan:
        """A plan of one replica that runs and becomes ready."""
        pytest.fail("the suite needs a fixture `plan` of yours")

    @pytest.fixture
    def plan_without_room(self) -> RevisionPlan:
        """A plan that there is no room for."""
        pytest.fail("the suite needs a fixture `plan_without_room` of yours")

    @pytest.fixture
    def credentials(self) -> Credentials | None:
        return None

    @pytest.fixture
    def name(self) -> str:
        return self.new_name()

    @staticmethod
    def new_name() -> str:
        deployment = new_id("dep", datetime.now(UTC), os.urandom(10))
        return str(ExternalName(deployment, revision=1, attempt=1))

    # -- account and offers --

    async def test_describes_itself(self, provider: Provider, credentials: Credentials | None) -> None:
        assert provider.name
        assert all(isinstance(f, Feature) and reason for f, reason in provider.unsupported.items())
        assert isinstance(await provider.check_credentials(credentials), Account)

    async def test_offers_are_priced_and_unique(
        self, provider: Provider, credentials: Credentials | None
    ) -> None:
        offers = await provider.offers(need(1), credentials)
        assert offers
        assert len({o.id for o in offers}) == len(offers)
        for offer in offers:
            assert offer.provider == provider.name
            assert offer.price_per_hour >= 0
            assert offer.price_source
            datetime.fromisoformat(offer.price_as_of)
            assert 0 < offer.usable_bytes <= offer.memory_bytes * max(1, offer.count)
            assert (offer.gpu is None) == (offer.count == 0)

    async def test_offers_too_small_are_listed_all_the_same(
        self, provider: Provider, credentials: Credentials | None
    ) -> None:
        small = {o.id for o in await provider.offers(need(1), credentials)}
        huge = {o.id for o in await provider.offers(need(10**17), credentials)}
        assert huge == small

    async def test_a_plan_offer_is_for_sale(
        self, provider: Provider, plan: RevisionPlan, credentials: Credentials | None
    ) -> None:
        offers = {o.id: o for o in await provider.offers(need(plan.memory_bytes), credentials)}
        assert plan.offer.id in offers
        assert offers[plan.offer.id].availability is not Availability.NONE

    # -- create --

    async def test_becomes_ready_at_a_url_that_answers(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        handle = await provider.create(plan, name, credentials)
        assert (handle.provider, handle.name) == (provider.name, name)
        seen = await until_ready(provider, handle, credentials, self.ready_within)
        assert len(seen.replicas) == plan.replicas
        async with httpx.AsyncClient() as client:
            for replica in seen.replicas:
                assert replica.url is not None
                answer = await client.get(f"{replica.url}/health")
                assert answer.status_code < 500

    async def test_create_again_adopts(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        first = await provider.create(plan, name, credentials)
        before = await until_ready(provider, first, credentials, self.ready_within)
        assert await provider.create(plan, name, credentials) == first
        assert await provider.observe(first, credentials) == before
        assert await self._owned(provider, credentials, name) == [first]

    async def test_create_at_the_same_time_makes_one(
        self,
        provider: Provider,
        restart: Restart,
        plan: RevisionPlan,
        name: str,
        credentials: Credentials | None,
    ) -> None:
        other = await restart()
        both = (provider, other, provider, other)
        handles = await asyncio.gather(*(p.create(plan, name, credentials) for p in both))
        assert handles == [handles[0]] * 4
        seen = await until_ready(provider, handles[0], credentials, self.ready_within)
        assert len(seen.replicas) == plan.replicas
        assert await self._owned(provider, credentials, name) == [handles[0]]

    async def test_no_room_is_no_capacity_and_leaves_nothing(
        self, provider: Provider, plan_without_room: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        with pytest.raises(NoCapacity) as raised:
            await provider.create(plan_without_room, name, credentials)
        assert raised.value.detail
        assert await provider.find(name, credentials) is None
        assert await self._owned(provider, credentials, name) == []

    # -- find, owned, adoption --

    async def test_find_and_owned_agree(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        assert await provider.find(name, credentials) is None
        handle = await provider.create(plan, name, credentials)
        assert await provider.find(name, credentials) == handle
        assert await self._owned(provider, credentials, name) == [handle]

    async def test_the_next_process_adopts(
        self,
        provider: Provider,
        restart: Restart,
        plan: RevisionPlan,
        name: str,
        credentials: Credentials | None,
    ) -> None:
        handle = await provider.create(plan, name, credentials)
        before = await until_ready(provider, handle, credentials, self.ready_within)
        await provider.aclose()
        next_one = await restart()
        assert await next_one.find(name, credentials) == handle
        assert await next_one.observe(handle, credentials) == before
        assert await next_one.create(plan, name, credentials) == handle
        await until_absent(next_one, handle, credentials, self.absent_within)

    async def test_a_handle_made_from_the_name_alone_is_enough(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        """The engine may have died between the effect and storing the handle."""
        await provider.create(plan, name, credentials)
        found = await provider.find(name, credentials)
        assert found is not None
        await until_absent(provider, found, credentials, self.absent_within)

    # -- apply --

    async def test_apply_of_the_same_plan_changes_nothing(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        handle = await provider.create(plan, name, credentials)
        before = await until_ready(provider, handle, credentials, self.ready_within)
        assert (await provider.apply(handle, plan, credentials)).name == name
        assert await provider.observe(handle, credentials) == before

    async def test_apply_scales(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        if Feature.SEVERAL_REPLICAS in provider.unsupported:
            pytest.skip(f"{provider.name}: {provider.unsupported[Feature.SEVERAL_REPLICAS]}")
        handle = await provider.create(plan, name, credentials)
        await until_ready(provider, handle, credentials, self.ready_within)
        for replicas in (2, 1):
            handle = await provider.apply(handle, replace(plan, replicas=replicas), credentials)
            end = time.monotonic() + self.ready_within
            while True:
                seen = await until_ready(provider, handle, credentials, self.ready_within)
                if len(seen.replicas) == replicas:
                    break
                assert time.monotonic() < end, seen
                await asyncio.sleep(0.01)
            assert len({r.url for r in seen.replicas}) == replicas

    async def test_apply_to_what_is_not_there_is_gone(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        with pytest.raises(Gone):
            await provider.apply(Handle(provider.name, name), plan, credentials)

    # -- delete --

    async def test_delete_ends_in_absence(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        handle = await provider.create(plan, name, credentials)
        seen = await until_ready(provider, handle, credentials, self.ready_within)
        assert seen.replicas[0].url is not None
        await until_absent(provider, handle, credentials, self.absent_within)
        assert await provider.find(name, credentials) is None
        assert await self._owned(provider, credentials, name) == []
        with pytest.raises(Gone):
            await provider.observe(handle, credentials)
        assert await provider.delete(handle, credentials) == Absent()

    async def test_delete_of_what_is_not_there_is_absent(
        self, provider: Provider, name: str, credentials: Credentials | None
    ) -> None:
        assert await provider.delete(Handle(provider.name, name), credentials) == Absent()

    async def test_delete_right_after_create_wins(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        handle = await provider.create(plan, name, credentials)
        await until_absent(provider, handle, credentials, self.absent_within)
        assert await provider.find(name, credentials) is None

    async def test_the_name_can_be_used_again_after_absence(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        handle = await provider.create(plan, name, credentials)
        await until_absent(provider, handle, credentials, self.absent_within)
        again = await provider.create(plan, name, credentials)
        await until_ready(provider, again, credentials, self.ready_within)

    async def test_observe_of_what_never_was_is_gone(
        self, provider: Provider, name: str, credentials: Credentials | None
    ) -> None:
        with pytest.raises(Gone):
            await provider.observe(Handle(provider.name, name), credentials)

    # -- logs, watch --

    async def test_logs_are_the_last_lines_oldest_first(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        if not isinstance(provider, Logs):
            pytest.skip(f"{provider.name} has no logs")
        handle = await provider.create(plan, name, credentials)
        await until_ready(provider, handle, credentials, self.ready_within)
        every = [line async for line in provider.logs(handle, credentials, tail=1000, follow=False)]
        assert every
        assert [line.at for line in every] == sorted(line.at for line in every)
        assert all(line.at.tzinfo is not None for line in every)
        last = [line async for line in provider.logs(handle, credentials, tail=1, follow=False)]
        assert len(last) == 1

    async def test_logs_of_what_is_not_there_are_gone(
        self, provider: Provider, name: str, credentials: Credentials | None
    ) -> None:
        if not isinstance(provider, Logs):
            pytest.skip(f"{provider.name} has no logs")
        with pytest.raises(Gone):
            async for _ in provider.logs(Handle(provider.name, name), credentials, tail=1, follow=False):
                pass

    async def test_followed_logs_end_with_the_endpoint(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        if not isinstance(provider, Logs):
            pytest.skip(f"{provider.name} has no logs")
        handle = await provider.create(plan, name, credentials)
        await until_ready(provider, handle, credentials, self.ready_within)
        lines = provider.logs(handle, credentials, tail=1000, follow=True)
        first = await asyncio.wait_for(anext(lines), 5)
        assert first.text

        async def drain() -> None:
            async for _ in lines:
                pass

        draining = asyncio.create_task(drain())
        await until_absent(provider, handle, credentials, self.absent_within)
        await asyncio.wait_for(draining, 5)

    async def test_watch_tells_the_name(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        if not isinstance(provider, Watch):
            pytest.skip(f"{provider.name} does not watch")
        told: asyncio.Queue[str] = asyncio.Queue()

        async def listen() -> None:
            async for changed in provider.watch(credentials):
                told.put_nowait(changed)

        listening = asyncio.create_task(listen())
        try:
            await asyncio.sleep(0)
            handle = await provider.create(plan, name, credentials)
            await until_ready(provider, handle, credentials, self.ready_within)
            async with asyncio.timeout(5):
                while await told.get() != name:
                    pass
            while not told.empty():
                told.get_nowait()
            await until_absent(provider, handle, credentials, self.absent_within)
            async with asyncio.timeout(5):
                while await told.get() != name:
                    pass
        finally:
            listening.cancel()

    # -- helpers --

    @staticmethod
    async def _owned(provider: Provider, credentials: Credentials | None, name: str) -> list[Handle]:
        async with aclosing(provider.owned(credentials)) as handles:  # type: ignore[type-var]  # a generator
            return [handle async for handle in handles if handle.name == name]
