"""A provider on a fake RunPod, with proof at the end of each test that all it sent was valid."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import moorage_runpod
from moorage.domain.compute import Offer
from moorage.ports.provider import Credentials, ProviderConfig
from moorage.testing.provider_contract import ProviderContract, need, until_absent
from moorage_runpod.serverless import RunPodProvider
from moorage_runpod.testing import KEY, FakeRunPod

from .plans import INSTALLATION

CREDENTIALS = Credentials({"api_key": KEY})


@dataclass
class House:
    """Makes providers on one RunPod, as one service process after the other would hold them."""

    fake: FakeRunPod
    providers: list[RunPodProvider] = field(default_factory=list)

    def provider(self, installation: str = INSTALLATION, **settings: str) -> RunPodProvider:
        environ = {
            "API_URL": self.fake.api_url,
            "LOG_SECONDS": "0",
            "LIST_LAG_SECONDS": "0.2",
            "CAPACITY_SECONDS": "30",
            **settings,
        }
        named = {f"MOORAGE_RUNPOD_{name}": value for name, value in environ.items()}
        made = moorage_runpod.provider(ProviderConfig(Path("unused"), named, installation=installation))
        self.providers.append(made)
        return made

    async def offer(self, pool: str = "AMPERE_24") -> Offer:
        offers = await self.provider().offers(need(1), CREDENTIALS)
        return next(o for o in offers if o.id == pool)

    def names(self) -> list[str]:
        """Of all endpoints that are at RunPod now."""
        return [e.spec.name for e in self.fake.endpoints]

    async def close(self) -> None:
        self.fake.faults.clear()
        last = self.provider()
        for handle in [handle async for handle in last.owned(CREDENTIALS)]:
            await until_absent(last, handle, CREDENTIALS, 20)
        for provider in self.providers:
            await provider.aclose()
        assert [(r.name, r.errors) for r in self.fake.invalid_requests] == []


@pytest.fixture
async def fake() -> AsyncIterator[FakeRunPod]:
    async with FakeRunPod() as running:
        yield running


@pytest.fixture
async def house(fake: FakeRunPod) -> AsyncIterator[House]:
    house = House(fake)
    yield house
    await house.close()


@pytest.fixture
def name() -> str:
    return ProviderContract.new_name()


__all__ = ["CREDENTIALS", "House"]
