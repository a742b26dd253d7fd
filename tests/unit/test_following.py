"""What other processes write, followed: at once, not too often, and through every absence of the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime

from moorage.domain.deployment import Deployment, Phase
from moorage.errors import StoreUnavailable
from moorage.following import (
    AT_MOST,
    QUIET_SECONDS,
    REACHES_ALL_WITHIN,
    Following,
    Part,
    PublishedRoutes,
    wake_at_home,
)
from moorage.gateway.routes import RoutePublisher
from moorage.ports.store import Insert, Update
from moorage.testing.store import Memory, MemoryStore
from moorage.testing.store_rows import NOW, at_home, deployment, in_phase


@contextlib.asynccontextmanager
async def running(following: Following) -> AsyncIterator[None]:
    task = asyncio.create_task(following.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  # what is looked at tells nobody
            await asyncio.sleep(0.005)


class Looks:
    """Counts, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.count = self.failures = self.seen = 0
        self.store: MemoryStore | None = None

    async def look(self) -> None:
        self.count += 1
        if self.store is not None:
            self.seen = len(await self.store.serving())
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")


async def test_many_writes_are_followed_by_few_looks_and_none_is_missed() -> None:
    memory, looks = Memory(), Looks()
    mine, other = MemoryStore(memory), MemoryStore(memory)
    looks.store = mine
    async with running(Following(mine.changes, [Part("looks", looks.look)])):
        await until(lambda: looks.count == 1)  # at the beginning
        await asyncio.sleep(2 * QUIET_SECONDS)
        for number in range(200):
            await other.commit([Insert(deployment(number))])
        written = len(await mine.serving())
        await until(lambda: looks.seen == written)
    assert 2 <= looks.count < 20


async def test_a_look_that_failed_is_taken_again() -> None:
    looks = Looks()
    looks.failures = 2
    store = MemoryStore()
    async with running(Following(store.changes, [Part("looks", looks.look)])):
        await until(lambda: looks.count == 3)


async def test_news_that_break_off_end_nothing_and_are_made_up_for() -> None:
    looks, begun = Looks(), 0

    async def changes() -> AsyncIterator[None]:
        nonlocal begun
        begun += 1
        if begun < 4:
            raise StoreUnavailable("away")
        await asyncio.Event().wait()
        yield None

    async with running(Following(changes, [Part("looks", looks.look, every=0.0)])):
        await until(lambda: begun == 4 and looks.count >= 4)


async def test_news_that_were_lost_are_made_up_for() -> None:
    looks = Looks()

    async def silence() -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield None

    parts = [Part("looks", looks.look, every=0.0)]
    async with running(Following(silence, parts, reminded_every=0.02)):
        await until(lambda: looks.count >= 4)


def test_a_part_that_takes_long_is_looked_at_less_often_and_in_time() -> None:
    part = Part("p", Looks().look)
    assert part.pause(0.001) == QUIET_SECONDS
    assert part.pause(0.2) == 0.8
    assert part.pause(60) == AT_MOST < REACHES_ALL_WITHIN


# -- routes


class House:
    def __init__(self) -> None:
        memory = Memory()
        self.store, self.other = MemoryStore(memory), MemoryStore(memory)
        self.routes, self.opened = RoutePublisher(), list[str]()
        self.published = PublishedRoutes(self.store, self.routes, self.opened.append)

    def phase(self, row: Deployment) -> Phase | None:
        route = self.routes.current.route(row.id)
        return None if route is None else route.phase


async def test_routes_come_change_and_go_as_others_write() -> None:
    house = House()
    row = deployment(1, phase=Phase.LOADING_MODEL)
    await house.other.commit([Insert(row)])
    await house.published.load()
    assert house.phase(row) is Phase.LOADING_MODEL
    serving = replace(row, version=1, status=replace(row.status, phase=Phase.READY, targets=("http://a",)))
    await house.other.commit([Update(serving)])
    await house.published.load()
    assert (house.phase(row), house.opened) == (Phase.READY, [row.id]), "its jobs are woken, once"
    await house.published.load()
    assert house.opened == [row.id], "what is known already is no news"
    await house.other.commit([Update(in_phase(replace(serving, version=2), Phase.DELETED))])
    await house.published.load()
    assert house.phase(row) is None


async def test_what_this_process_knows_better_stays() -> None:
    house = House()
    row = deployment(1)
    await house.store.commit([Insert(row)])
    newer = in_phase(replace(row, version=9), Phase.UPDATING)
    house.published.publish(newer)
    await house.published.load()
    assert house.phase(row) is Phase.UPDATING


async def test_what_is_at_home_here_is_woken() -> None:
    class Clock:
        def now(self) -> datetime:
            return NOW.astimezone(UTC)

    house = House()
    rows = at_home(deployment(1), "mill"), at_home(deployment(2), "weir"), deployment(3)
    rows = tuple(replace(row, due_at=None) for row in rows)  # type: ignore[assignment]  # still three
    await house.store.commit([Insert(row) for row in rows])
    await wake_at_home(house.store, await house.published.load(), "mill", Clock())
    assert await house.store.next_due("deployments", NOW, "mill") == NOW
    assert await house.store.next_due("deployments", NOW, "weir") == NOW.replace(minute=NOW.minute + 1)
