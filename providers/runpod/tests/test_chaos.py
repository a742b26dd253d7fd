"""Whole lives of endpoints while RunPod misbehaves at random and the service dies now and then: by seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from moorage.domain.deployment import Handle
from moorage.domain.observation import Observation
from moorage.errors import Retry
from moorage.ports.provider import StillThere
from moorage.testing.provider_contract import ProviderContract
from moorage_runpod.serverless import RunPodProvider
from moorage_runpod.testing import Kind

from .conftest import CREDENTIALS, House
from .looking import remembered
from .plans import plan

LIVES = 4
T = TypeVar("T")

ONE = "/v2/serverless/{id}"
ROUTES = [
    "POST /v2/serverless",
    "GET /v2/serverless",
    f"GET {ONE}",
    f"DELETE {ONE}",
    f"PATCH {ONE}",
    f"GET {ONE}/workers",
    "POST /v2/{endpoint}/run",
    "GET /v2/{endpoint}/health",
    "GET /v2/{endpoint}/status/{job}",
]
# A used-up rate limit is waited for by the second, so it has its own tests.
KINDS = [kind for kind in Kind if kind is not Kind.RATE_LIMITED]


class Engine:
    """Repeats what it is told to repeat; at a whim by the next process, which knows only what was stored."""

    def __init__(self, house: House, chance: random.Random) -> None:
        self._house = house
        self._chance = chance
        self._provider = house.provider()

    async def persist(self, act: Callable[[RunPodProvider], Awaitable[T]]) -> T:
        while True:
            if self._chance.random() < 0.1:
                self._provider = self._house.provider()
            try:
                return await act(self._provider)
            except Retry as error:
                await asyncio.sleep(min(error.after, 0.02))

    async def live(self, name: str) -> None:
        handle = await self.persist(lambda p: p.create(plan(), name, CREDENTIALS))
        while not (seen := await self.look(handle)).targets:
            assert seen.trouble is None, seen
            handle = remembered(handle, seen)
            await asyncio.sleep(0.01)
        await self.persist(lambda p: p.apply(handle, plan(SHAPE="square"), CREDENTIALS))
        assert self._house.names().count(name) == 1
        await self.remove(handle)

    async def look(self, handle: Handle) -> Observation:
        return await self.persist(lambda p: p.observe(handle, CREDENTIALS))

    async def remove(self, handle: Handle) -> None:
        while True:
            answer = await self.persist(lambda p: p.delete(handle, CREDENTIALS))
            if not isinstance(answer, StillThere):
                return
            await asyncio.sleep(min(answer.after, 0.02))


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_doubled_and_nothing_is_left(house: House, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(40):
        house.fake.faults.arm(chance.choice(ROUTES), chance.choice(KINDS), seconds=0.01)
    engine = Engine(house, chance)
    names = [ProviderContract.new_name() for _ in range(LIVES)]
    async with asyncio.timeout(60):
        await asyncio.gather(*(engine.live(name) for name in names))
    assert house.names() == []
    assert house.fake.cloud.creates == LIVES
