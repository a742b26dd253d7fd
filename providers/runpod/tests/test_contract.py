"""The provider keeps the provider contract, against a RunPod that behaves."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from moorage.ports.provider import Credentials, Provider, RevisionPlan
from moorage.testing.provider_contract import ProviderContract, Restart, until_absent, until_ready
from moorage_runpod.testing import FakeRunPod

from .conftest import CREDENTIALS, House
from .plans import plan as a_plan


class TestRunPodProvider(ProviderContract):
    @pytest.fixture
    async def provider(self, house: House) -> Provider:
        return house.provider()

    @pytest.fixture
    async def restart(self, house: House) -> Restart:
        async def again() -> Provider:
            return house.provider()

        return again

    @pytest.fixture
    async def plan(self, house: House) -> RevisionPlan:
        return replace(a_plan(), offer=await house.offer())

    @pytest.fixture
    async def plan_without_room(self, plan: RevisionPlan, fake: FakeRunPod) -> RevisionPlan:
        fake.faults.throttled_pools = frozenset({"AMPERE_24"})
        return plan

    @pytest.fixture
    def credentials(self) -> Credentials | None:
        return CREDENTIALS

    async def test_no_room_is_no_capacity_and_leaves_nothing(
        self, provider: Provider, plan_without_room: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        """RunPod takes an endpoint that it has no machine for, and says nothing. So `observe` tells of it,
        once no worker has come for the patience (see `test_capacity`), and the engine deletes."""
        handle = await provider.create(plan_without_room, name, credentials)
        seen = await provider.observe(handle, credentials)
        assert seen.trouble is None
        assert seen.targets == ()
        await until_absent(provider, handle, credentials, self.absent_within)
        assert await provider.find(name, credentials) is None
        assert await self._owned(provider, credentials, name) == []

    async def test_apply_scales(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        """As in the contract, but for the URLs: RunPod's workers share one, and share out its jobs."""
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
            assert len({r.id for r in seen.replicas}) == replicas
            assert len({r.url for r in seen.replicas}) == 1
