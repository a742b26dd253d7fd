"""Processes on several machines: each looks after its own, and leaves what is another one's as it is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from moorage.domain.deployment import ConditionType, Phase
from moorage.domain.homes import HOME_AWAY
from moorage.engine.loop import Engine
from moorage.ports.provider import RevisionPlan
from moorage.ports.store import ABSENCE

from .conftest import World


class Ahead:
    """The world's time, moved."""

    def __init__(self, world: World) -> None:
        self._now = world.clock.now
        self.ahead = timedelta()

    def now(self) -> datetime:
        return self._now() + self.ahead


@pytest.fixture
def clock(world: World, monkeypatch: pytest.MonkeyPatch) -> Ahead:
    clock = Ahead(world)
    monkeypatch.setattr(world, "clock", clock)
    world.compute.offers[:] = [replace(offer, home="mill") for offer in world.compute.offers]
    return clock


async def until_told(world: World, id_: str, wanted: str, times: int = 1) -> None:
    async with asyncio.timeout(10):
        while (await world.happened(id_)).count(wanted) < times:  # noqa: ASYNC110  # events tell nobody
            await asyncio.sleep(0.005)


async def test_a_machine_that_is_away_is_told_of_and_nothing_is_touched(world: World, clock: Ahead) -> None:
    async with world.driven(world.engine(machine="mill")):
        id_ = await world.deploy()
        before = await world.until(id_, Phase.READY)
    calls = dict(world.compute.calls)
    async with world.driven(world.engine(machine="weir")) as weir:
        assert await weir.round(5) == 0, "it is at home elsewhere"
        clock.ahead += ABSENCE + timedelta(seconds=1)
        weir.wake()
        await until_told(world, id_, "home_away")
        away = await world.read(id_)
        assert replace(away.status, conditions=()) == replace(before.status, conditions=())
        [told] = [c for c in away.status.conditions if c.type is ConditionType.PROGRESSING]
        assert (told.reason, "mill" in told.message) == (HOME_AWAY, True)
        await world.delete(id_)
        clock.ahead += ABSENCE + timedelta(seconds=1)
        weir.wake()
        await world.until(id_, Phase.DELETING)
    assert dict(world.compute.calls) == calls, "nobody asked the provider anything"
    assert len(world.compute.endpoints) == 1
    async with world.driven(world.engine(machine="mill")) as mill:
        await world.store.wake([id_], clock.now())
        mill.wake()
        await world.until(id_, Phase.DELETED)
    assert not world.compute.endpoints


async def test_a_round_drives_what_is_due_to_rest(world: World) -> None:
    engine = world.engine()
    ids = [await world.deploy() for _ in range(5)]
    assert await engine.round(10) >= 5
    for id_ in ids:
        assert (await world.read(id_)).status.phase in (Phase.LOADING_MODEL, Phase.READY)
    assert world.compute.creates.total() == 5


async def test_what_a_round_cannot_finish_in_time_it_lets_go_of(world: World) -> None:
    world.compute.faults.slow["create"] = 30.0
    id_ = await world.deploy()
    engine = world.engine(lease_seconds=600.0)
    assert await engine.round(0.2) == 1
    world.compute.faults.slow.clear()
    async with world.driven(world.engine()):
        await world.until(id_, Phase.READY)
    assert world.compute.creates.total() == 1


async def test_rounds_at_once_and_a_loop_beside_them_double_nothing(world: World) -> None:
    ids = [await world.deploy() for _ in range(20)]
    engines: list[Engine] = [world.engine() for _ in range(3)]
    async with world.driven(engines[0]):
        await asyncio.gather(*(engine.round(10) for engine in engines * 2))
        for id_ in ids:
            await world.until(id_, Phase.READY)
    assert world.compute.creates.total() == 20


async def test_each_machine_sweeps_its_own(
    world: World, plan: RevisionPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one machine alone can see is no duty of a process elsewhere."""
    mill, weir = world.sweeper(), world.sweeper()
    monkeypatch.setattr(world.provider, "home", lambda: "mill", raising=False)
    orphan = "mrg-2akzwwtl62222b3jymffruppbs-r1-a1"
    assert await mill.sweep_when_due() == 0
    assert await mill.sweep_when_due() == 0, "the duty is done for now"
    monkeypatch.setattr(world.provider, "home", lambda: "weir", raising=False)
    await world.provider.create(plan, orphan, None)
    swept = await weir.sweep_when_due()
    assert swept == 1, "another machine's duty is another one"
