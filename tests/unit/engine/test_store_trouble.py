"""A store that is away, for the loops: nothing is lost, no log is flooded, and work goes on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any  # arguments of the store's operations, passed through

import pytest
from structlog.testing import capture_logs

from moorage.adapters.system import SystemClock
from moorage.domain.decide import Patience
from moorage.domain.deployment import Phase
from moorage.domain.naming import ExternalName
from moorage.domain.retry import Backoff
from moorage.engine.store_trouble import TRIES, StoreTrouble
from moorage.errors import StaleWrite, StoreError, StoreUnavailable

from .conftest import World


class MovableClock(SystemClock):
    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return super().now() + self.offset


OPERATIONS = ("claim_deployments", "next_due", "commit", "deployment", "renew", "wake")


class Away:
    """Makes every operation of the world's store fail while it is set; some are done all the same."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away = False
        self.lost_answers = 0  # so many commits are done, and nobody hears of it
        self.refused = 0
        for name in OPERATIONS:
            monkeypatch.setattr(world.store, name, self._failing(name, getattr(world.store, name)))

    def _failing(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def failing(*args: Any, **kwargs: Any) -> Any:
            if self.away:
                self.refused += 1
                raise StoreUnavailable("the store is away")
            answer = await call(*args, **kwargs)
            if name == "commit" and self.lost_answers:
                self.lost_answers -= 1
                raise StoreUnavailable("the answer was lost")
            return answer

        return failing


@pytest.fixture
def store(world: World, monkeypatch: pytest.MonkeyPatch) -> Away:
    return Away(world, monkeypatch)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  # what is looked at tells nobody
            await asyncio.sleep(0.005)


async def test_work_goes_on_when_the_store_is_back(world: World, store: Away) -> None:
    id_ = await world.deploy()
    store.away = True
    async with world.driven():
        await until(lambda: store.refused > 1)
        store.away = False
        ready = await world.until(id_, Phase.READY)
    assert world.compute.creates == {str(ExternalName(ready.id, 1, 1)): 1}


async def test_what_an_effect_brought_is_kept_until_it_can_be_stored(world: World, store: Away) -> None:
    world.compute.faults.slow["create"] = 0.1
    async with world.driven():
        id_ = await world.deploy()
        await until(lambda: world.compute.calls["create"] == 1)
        store.away = True
        await until(lambda: world.compute.creates.total() == 1 and store.refused > 0)
        store.away = False
        await world.until(id_, Phase.READY)
    assert world.compute.calls["create"] == 1, "the effect is not done again because its result had to wait"


async def test_a_write_whose_answer_was_lost_is_neither_repeated_nor_forgotten(
    world: World, store: Away
) -> None:
    id_ = await world.deploy()
    store.lost_answers = 3
    async with world.driven():
        ready = await world.until(id_, Phase.READY)
    assert store.lost_answers == 0
    assert await world.happened(ready.id) == ["selecting_gpu", "creating_endpoint", "loading_model", "ready"]
    assert world.compute.creates.total() == 1


async def test_signals_of_a_provider_outlive_the_store_s_absence(world: World, store: Away) -> None:
    world.patience = Patience(ready_timeout=60, loading_look=60, ready_look=60)
    async with world.driven() as engine:
        id_ = await world.deploy()
        await world.until(id_, Phase.READY)
        looks = world.compute.calls["observe"]
        store.away = True
        engine.signal(id_)
        await until(lambda: store.refused > 1)
        store.away = False
        await until(lambda: world.compute.calls["observe"] > looks)


async def test_signals_that_a_round_could_not_store_are_kept_for_the_next(
    world: World, store: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, told, away = world.engine(), list[str](), [True]

    async def wake(deployment_ids: Any, now: Any) -> None:
        if away:
            raise StoreUnavailable("the store is away")
        told.extend(deployment_ids)

    monkeypatch.setattr(world.store, "wake", wake)
    engine.signal("dep")
    await engine.round(0.1)
    away.clear()
    await engine.round(5)
    assert told == ["dep"]


async def test_a_round_raises_the_store_s_error_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: Any) -> Any:
        raise StaleWrite("no")

    monkeypatch.setattr(world.store, "claim_deployments", refused)
    with pytest.raises(StoreError):
        await world.engine().round(5)


async def test_what_is_in_hand_is_not_claimed_again_after_an_outage_longer_than_its_lease(
    world: World, store: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = world.clock = MovableClock()
    claims: list[list[str]] = []
    claim = world.store.claim_deployments

    async def recorded(*args: Any, **kwargs: Any) -> Any:
        claims.append([])
        found = await claim(*args, **kwargs)
        claims[-1] += [row.id for row in found]
        return found

    monkeypatch.setattr(world.store, "claim_deployments", recorded)
    world.compute.faults.slow["create"] = 1.5
    async with world.driven(world.engine(lease_seconds=30)) as engine:
        id_ = await world.deploy()
        engine.wake()
        await until(lambda: world.compute.calls["create"] == 1)
        store.away = True
        engine.wake()
        await until(lambda: store.refused > 0)
        clock.offset += timedelta(seconds=60)
        store.away = False
        before = len(claims)
        engine.wake()
        await until(
            lambda: len(claims) > before + 1 or (len(claims) > before and world.compute.creates.total() == 1)
        )
        await world.until(id_, Phase.READY)
    assert claims[before] == [], "it was still in hand"
    assert world.compute.calls["create"] == 1


async def test_trouble_is_told_when_it_begins_doubles_and_ends() -> None:
    trouble = StoreTrouble("t")
    with capture_logs() as told:
        pauses = [trouble.failed(StoreUnavailable("away")) for _ in range(100)]
        trouble.worked()
        trouble.worked()
    assert [entry["failures"] for entry in told] == [1, 2, 4, 8, 16, 32, 64, 100]
    assert [entry["event"] for entry in told] == ["store.failed"] * 7 + ["store.works_again"]
    assert max(pauses) <= 5
    assert len(set(pauses[10:])) > 10, "jitter: processes that failed together do not come back together"


async def test_insisting_ends_with_an_answer_or_with_what_waiting_does_not_help() -> None:
    async def answers(errors: list[StoreError]) -> int:
        left = list(errors)

        async def call() -> int:
            if left:
                raise left.pop(0)
            return 7

        return await StoreTrouble("t", Backoff(base=0.0001, cap=0.0001)).insist(call)

    assert await answers([StoreUnavailable("away")] * 20) == 7
    assert await answers([StoreError("the disk is full")] * (TRIES - 1)) == 7
    with pytest.raises(StoreError, match="full"):
        await answers([StoreError("the disk is full")] * TRIES)
    with pytest.raises(StaleWrite):
        await answers([StoreUnavailable("away"), StaleWrite("taken")])
