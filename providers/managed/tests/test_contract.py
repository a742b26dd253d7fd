"""The real local driver, with real processes, keeps the provider contract."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorage.ports.provider import Provider, RevisionPlan
from moorage.testing.provider_contract import ProviderContract, Restart

from .conftest import House


class TestLocalProvider(ProviderContract):
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
        return await house.plan()

    @pytest.fixture
    async def plan_without_room(self, plan: RevisionPlan) -> RevisionPlan:
        return replace(plan, memory_bytes=10**12)
