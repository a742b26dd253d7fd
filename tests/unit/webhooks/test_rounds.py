"""Rounds of the outbox, what is cut off at its end, and a store that is away when an attempt is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any  # a script's argument, which it does not look at

from aiohttp import web

from moorage.domain.delivery import DeliveryState
from moorage.engine.outbox import OutboxLimits
from moorage.errors import StoreUnavailable
from moorage.ports.store import Lease, Update, Write
from moorage.testing.store import MemoryStore

from .conftest import Receiver, World

Receive = Callable[..., Awaitable[Receiver]]


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


async def test_what_is_cut_off_at_the_end_another_process_sends_at_once(
    world: World, receive: Receive
) -> None:
    async def never(_: Any) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

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
