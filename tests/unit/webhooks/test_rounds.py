"""Rounds of the outbox, what is cut off at its end, and a store that is away when an attempt is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any  # a script's argument, which it does not look at

import pytest
from aiohttp import web

from moorage.domain.delivery import DeliveryState
from moorage.engine.outbox import OutboxLimits
from moorage.errors import StoreUnavailable
from moorage.ports.store import Claimable, Lease, Update, Write
from moorage.testing.store import MemoryStore

from .conftest import Receiver, World

Receive = Callable[..., Awaitable[Receiver]]


class Broken(MemoryStore):
    async def renew(self, kind: Claimable, held: Mapping[str, str], until: datetime) -> frozenset[str]:
        raise ValueError("a bug")


async def never(_: Any) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_round_sends_what_is_due_and_no_more_than_once(world: World, receive: Receive) -> None:
    receiver = await receive()
    rows = await world.enqueue(receiver.url, number=30)
    outboxes = [world.outbox(OutboxLimits(claim=8, per_receiver=2)) for _ in range(2)]
    counts = await asyncio.gather(*(outbox.round(10) for outbox in outboxes))
    assert sum(counts) == 30
    assert {(await world.stored(row)).state for row in rows} == {DeliveryState.DELIVERED}
    assert len(receiver.messages) == 30
    assert await outboxes[0].round(10) == 0


async def test_a_round_beside_the_loop_leaves_it_what_it_holds(world: World, receive: Receive) -> None:
    receiver = await receive()
    async with world.running(world.outbox()) as outbox:
        rows = await world.enqueue(receiver.url, number=10)
        await outbox.round(10)
        for row in rows:
            assert (await world.settled(row)).state is DeliveryState.DELIVERED
    assert len(receiver.messages) == 10


async def test_a_message_is_not_sent_again_after_an_outage_longer_than_its_lease(
    world: World, receive: Receive
) -> None:
    answer = asyncio.Event()

    async def waits(_: Any) -> web.Response:
        await answer.wait()
        return web.Response()

    receiver = await receive(waits)
    async with world.running(world.outbox()) as outbox:
        [row] = await world.enqueue(receiver.url)
        await receiver.until(1)
        world.clock.offset += timedelta(minutes=5)  # no renewal came through meanwhile
        outbox.wake()
        await asyncio.sleep(0.1)
        answer.set()
        assert (await world.settled(row)).state is DeliveryState.DELIVERED
    assert len(receiver.messages) == 1


async def test_the_outbox_does_not_outlive_its_renewals(world: World, receive: Receive) -> None:
    receiver = await receive(never)
    outbox = world.outbox(OutboxLimits(lease=0.3, grace=0.05), store=Broken(world.memory))
    await world.enqueue(receiver.url)
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(5):
            await outbox.run()
    assert caught.group_contains(ValueError, match="a bug")


async def test_renewals_end_although_letting_go_fails(world: World, receive: Receive) -> None:
    receiver = await receive(never)
    async with asyncio.timeout(5):
        outbox = world.outbox(OutboxLimits(grace=0.05), store=Broken(world.memory))
        running = asyncio.create_task(outbox.run())
        await world.enqueue(receiver.url)
        await receiver.until(1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "outbox:renew"]


async def test_what_is_cut_off_at_the_end_another_process_sends_at_once(
    world: World, receive: Receive
) -> None:
    receiver = await receive(never)
    async with world.running(world.outbox(OutboxLimits(lease=600, grace=0.05))):
        await world.enqueue(receiver.url, number=6)
        await receiver.until(4)  # the others wait for a place
    now = world.clock.now()
    free = await world.store.claim_deliveries(Lease("next", now + timedelta(seconds=9)), now, 10)
    assert len(free) == 6


async def test_an_attempt_whose_result_cannot_be_stored_now_is_not_made_again(
    world: World, receive: Receive
) -> None:
    class Flaky(MemoryStore):
        refused = 0

        async def commit(self, writes: Sequence[Write]) -> None:
            if self.refused < 3 and any(isinstance(write, Update) for write in writes):
                self.refused += 1
                raise StoreUnavailable("away")
            await super().commit(writes)

    receiver = await receive()
    store = Flaky(world.memory)
    async with world.running(world.outbox(store=store)):
        [row] = await world.enqueue(receiver.url)
        assert (await world.settled(row)).state is DeliveryState.DELIVERED
    assert (store.refused, len(receiver.messages)) == (3, 1)
