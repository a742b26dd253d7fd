"""The outbox against a real receiver: what is sent, what an answer does, who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from moorage.adapters.secrets import KeyRing
from moorage.domain.delivery import SCHEDULE, Delivery, DeliveryState
from moorage.domain.identity import Principal, Role
from moorage.engine.outbox import OutboxLimits
from moorage.errors import StoreError
from moorage.ports.store import Lease
from moorage.services.webhooks import Webhooks
from moorage.testing.store import Memory, MemoryStore

OWNER = Principal("usr_1", "org_1", Role.OWNER)
# The fixtures' classes live in conftest, which cannot be imported from here.
World = Any
Receive = Callable[..., Awaitable[Any]]


def service(world: World) -> Webhooks:
    def wake_all() -> None:
        for outbox in world.woken:
            outbox.wake()

    return Webhooks(world.store, world.ring, world.clock, world.new_id, wake_all)


def answering(status: int, **headers: str) -> Callable[[Any], Awaitable[web.Response]]:
    async def answer(_: Any) -> web.Response:
        return web.Response(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


# -- sending ------------------------------------------------------------------------------------------


async def test_message_is_sent_and_its_signature_verifies(world: World, receive: Receive) -> None:
    receiver = await receive()
    async with world.running(world.outbox()):
        [delivery] = await world.enqueue(receiver.url)
        after = await world.settled(delivery)
    [message] = receiver.messages
    secret = (await service(world).secret(OWNER)).current
    assert Webhook(secret).verify(message.body, message.headers) == {
        "type": "deployment.ready",
        "data": {"name": "é"},
    }
    assert message.headers["webhook-id"] == delivery.id
    assert message.headers["content-type"] == "application/json"
    assert message.body == delivery.payload
    assert (after.state, after.due_at, after.attempts[0].status) == (DeliveryState.DELIVERED, None, 204)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(message.body + " ", message.headers)


async def test_wake_sends_at_once(world: World, receive: Receive) -> None:
    receiver = await receive()
    loop = asyncio.get_running_loop()
    async with world.running(world.outbox()):
        await asyncio.sleep(0.05)  # it sleeps by now
        took = []
        for number in range(1, 11):
            began = loop.time()
            await world.enqueue(receiver.url)
            await receiver.until(number)
            took.append(loop.time() - began)
    assert sorted(took)[5] < 0.1


async def test_what_was_due_before_the_start_is_sent_without_a_wake(world: World, receive: Receive) -> None:
    receiver = await receive()
    await world.enqueue(receiver.url, number=3)
    async with world.running(world.outbox()):
        await receiver.until(3)


async def test_what_is_due_later_is_sent_then_without_a_wake(world: World, receive: Receive) -> None:
    receiver = await receive()
    world.clock.offset = timedelta(seconds=0.4)
    await world.enqueue(receiver.url)
    world.clock.offset = timedelta()
    async with world.running(world.outbox()):
        await asyncio.sleep(0.2)
        assert receiver.messages == []
        await receiver.until(1, seconds=2)


async def test_idle_outbox_does_not_ask_the_store_again_and_again(world: World) -> None:
    class Counted(MemoryStore):
        claims = 0

        async def claim_deliveries(self, lease: Lease, now: datetime, limit: int) -> Sequence[Delivery]:
            self.claims += 1
            return await super().claim_deliveries(lease, now, limit)

    store = Counted(world.memory)
    async with world.running(world.outbox(store=store)):
        await asyncio.sleep(0.3)
    assert store.claims == 1


# -- answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 307, 400, 404, 500])
async def test_only_2xx_is_success(world: World, receive: Receive, status: int) -> None:
    receiver = await receive(answering(status, location="/elsewhere"))
    async with world.running(world.outbox()):
        [delivery] = await world.enqueue(receiver.url)
        after = await world.settled(delivery)
    assert (after.state, after.failures, after.attempts[0].status) == (DeliveryState.PENDING, 1, status)
    assert after.due_at == after.attempts[0].at + timedelta(seconds=SCHEDULE[0])
    assert len(receiver.messages) == 1


async def test_retry_after_is_honoured(world: World, receive: Receive) -> None:
    receiver = await receive(answering(503, retry_after="120"))
    async with world.running(world.outbox()):
        [delivery] = await world.enqueue(receiver.url)
        after = await world.settled(delivery)
    assert after.due_at == after.attempts[0].at + timedelta(seconds=120)


async def test_every_attempt_of_the_schedule_has_one_id_and_then_it_is_over(
    world: World, receive: Receive
) -> None:
    receiver = await receive(answering(500))
    outbox = world.outbox()
    async with world.running(outbox):
        [delivery] = await world.enqueue(receiver.url)
        for number in range(1, len(SCHEDULE) + 2):
            after = await world.settled(delivery, attempts=number)
            if after.due_at is not None:
                world.clock.offset += after.due_at - world.clock.now()
                outbox.wake()
    assert (after.state, after.failures) == (DeliveryState.EXHAUSTED, len(SCHEDULE) + 1)
    assert set(receiver.ids) == {delivery.id}
    assert len(receiver.ids) == len(SCHEDULE) + 1
    assert len({message.headers["webhook-timestamp"] for message in receiver.messages}) > len(SCHEDULE)
    [event] = await world.store.events("dep_1", None, 10)
    assert event.type == "webhook.exhausted"


async def test_410_disables_the_receiver_and_its_other_messages_unsent(
    world: World, receive: Receive
) -> None:
    receiver = await receive(answering(410))
    async with world.running(world.outbox()):
        [first] = await world.enqueue(receiver.url)
        assert (await world.settled(first)).state is DeliveryState.DISABLED
        [second] = await world.enqueue(receiver.url)
        [elsewhere] = await world.enqueue(receiver.url + "/other")
        after = await world.settled(second)
        await world.settled(elsewhere)
    assert (after.state, after.attempts) == (DeliveryState.DISABLED, ())
    assert receiver.ids == [first.id, elsewhere.id]
    types = [event.type for event in await world.store.events("dep_1", None, 10)]
    assert types == ["webhook.disabled"] * 3


async def test_many_410_at_once_disable_once(world: World, receive: Receive) -> None:
    receiver = await receive(answering(410))
    rows = await world.enqueue(receiver.url, number=20)
    async with world.running(world.outbox(OutboxLimits(per_receiver=10))):
        settled = [await world.settled(row) for row in rows]
    assert {row.state for row in settled} == {DeliveryState.DISABLED}


async def test_resend_reenables_a_disabled_receiver(world: World, receive: Receive) -> None:
    answers = [410, 204]

    async def recovering(_: Any) -> web.Response:
        return web.Response(status=answers.pop(0))

    receiver = await receive(recovering)
    async with world.running(world.outbox()):
        [delivery] = await world.enqueue(receiver.url)
        await world.settled(delivery)
        await service(world).resend(OWNER, delivery.id)
        after = await world.settled(delivery, attempts=2)
    assert after.state is DeliveryState.DELIVERED
    assert receiver.ids == [delivery.id] * 2


async def test_address_that_became_private_is_a_failed_attempt_in_words(world: World) -> None:
    async with world.running(world.outbox()):
        [delivery] = await world.enqueue("https://10.0.0.1/hook")
        after = await world.settled(delivery)
    assert (after.state, after.failures) == (DeliveryState.PENDING, 1)
    assert after.attempts[0].error is not None
    assert "refused by the rule public_address" in after.attempts[0].error


async def test_receiver_that_never_answers_fails_by_time(world: World, receive: Receive) -> None:
    async def hang(_: Any) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    receiver = await receive(hang)
    async with world.running(world.outbox(timeout=0.2)):
        [delivery] = await world.enqueue(receiver.url)
        after = await world.settled(delivery, seconds=3)
    assert after.attempts[0].status is None
    assert 0.15 < after.attempts[0].seconds < 2


# -- secrets ------------------------------------------------------------------------------------------


async def test_rotation_signs_with_both_for_a_day(world: World, receive: Receive) -> None:
    receiver = await receive()
    webhooks = service(world)
    old = (await webhooks.secret(OWNER)).current
    shown = await webhooks.rotate(OWNER)
    assert shown.previous == old
    assert shown.current != old
    async with world.running(world.outbox()):
        await world.enqueue(receiver.url)
        [message] = await receiver.until(1)
        for secret in (old, shown.current):
            Webhook(secret).verify(message.body, message.headers)
        world.clock.offset = timedelta(hours=24, seconds=1)
        await world.enqueue(receiver.url)
        late = (await receiver.until(2))[1]
    assert len(late.headers["webhook-signature"].split(" ")) == 1
    assert (await webhooks.secret(OWNER)).previous is None


async def test_first_message_and_first_look_at_the_secret_agree_in_a_race(
    world: World, receive: Receive
) -> None:
    receiver = await receive()
    async with world.running(world.outbox()):
        await world.enqueue(receiver.url, number=4)
        shown = await service(world).secret(OWNER)
        for message in await receiver.until(4):
            Webhook(shown.current).verify(message.body, message.headers)


async def test_lost_key_is_a_failure_that_rotation_heals(world: World, receive: Receive) -> None:
    receiver = await receive()
    await service(world).secret(OWNER)
    world.ring = KeyRing([("k2", bytes(32))])
    async with world.running(world.outbox()):
        [delivery] = await world.enqueue(receiver.url)
        failed = await world.settled(delivery)
        assert failed.attempts[0].error is not None
        assert "rotate it" in failed.attempts[0].error
        shown = await service(world).rotate(OWNER)
        assert shown.previous is None
        await world.enqueue(receiver.url)
        [message] = await receiver.until(1)
    Webhook(shown.current).verify(message.body, message.headers)


# -- many at once -------------------------------------------------------------------------------------


async def test_slow_receiver_holds_up_nobody_else(world: World, receive: Receive) -> None:
    release = asyncio.Event()

    async def wait(_: Any) -> web.Response:
        await release.wait()
        return web.Response()

    slow, fast = await receive(wait), await receive()
    limits = OutboxLimits(in_flight=8, per_receiver=2, queued_per_receiver=3, held=12, claim=4)
    rows = await world.enqueue(slow.url, number=30)
    async with world.running(world.outbox(limits)):
        await slow.until(2)
        await world.enqueue(fast.url, number=5)
        await fast.until(5, seconds=2)
        assert slow.busiest == 2
        release.set()
        settled = [await world.settled(row, seconds=20) for row in rows]
    assert {row.state for row in settled} == {DeliveryState.DELIVERED}
    assert sorted(slow.ids) == sorted(row.id for row in rows)
    assert slow.busiest == 2


async def test_two_outboxes_share_the_work_without_doubles(world: World, receive: Receive) -> None:
    receiver = await receive()
    rows = await world.enqueue(receiver.url, number=100)
    limits = OutboxLimits(claim=7)
    async with world.running(world.outbox(limits)), world.running(world.outbox(limits)):
        for row in rows:
            assert (await world.settled(row)).state is DeliveryState.DELIVERED
    assert sorted(receiver.ids) == sorted(row.id for row in rows)


# -- ends ---------------------------------------------------------------------------------------------


async def test_shutdown_finishes_what_is_sent_and_releases_what_waits(world: World, receive: Receive) -> None:
    async def slowly(_: Any) -> web.Response:
        await asyncio.sleep(0.2)
        return web.Response()

    receiver = await receive(slowly)
    rows = await world.enqueue(receiver.url, number=5)
    async with world.running(world.outbox(OutboxLimits(per_receiver=1))):
        await receiver.until(1)
    states = [(await world.stored(row)).state for row in rows]
    assert sorted(states) == ["delivered", "pending", "pending", "pending", "pending"]
    now = world.clock.now()
    free = await world.store.claim_deliveries(Lease("next", now + timedelta(seconds=9)), now, 10)
    assert len(free) == 4
    assert len(receiver.messages) == 1


async def test_result_of_a_lost_lease_is_not_stored(world: World, receive: Receive) -> None:
    async def slower_than_the_lease(_: Any) -> web.Response:
        world.clock.offset += timedelta(minutes=5)
        now = world.clock.now()
        [taken] = await world.store.claim_deliveries(Lease("other", now + timedelta(minutes=5)), now, 1)
        assert taken.attempts == ()
        return web.Response()

    receiver = await receive(slower_than_the_lease)
    async with world.running(world.outbox()):
        [delivery] = await world.enqueue(receiver.url)
        await receiver.until(1)
    stored = await world.stored(delivery)
    assert (stored.state, stored.attempts) == (DeliveryState.PENDING, ())


async def test_lease_is_renewed_while_a_slow_receiver_is_waited_for(world: World, receive: Receive) -> None:
    async def slowly(_: Any) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    receiver = await receive(slowly)
    [delivery] = await world.enqueue(receiver.url)
    limits = OutboxLimits(lease=0.3)
    async with world.running(world.outbox(limits)), world.running(world.outbox(limits)):
        after = await world.settled(delivery)
    assert after.state is DeliveryState.DELIVERED
    assert receiver.ids == [delivery.id]


async def test_store_that_fails_for_a_while_is_asked_again(world: World, receive: Receive) -> None:
    class Faulty(MemoryStore):
        def __init__(self, memory: Memory) -> None:
            super().__init__(memory)
            self.failures = 2

        async def claim_deliveries(self, lease: Lease, now: datetime, limit: int) -> Sequence[Delivery]:
            if self.failures:
                self.failures -= 1
                raise StoreError("the database is away")
            return await super().claim_deliveries(lease, now, limit)

    receiver = await receive()
    await world.enqueue(receiver.url)
    async with world.running(world.outbox(store=Faulty(world.memory))):
        await receiver.until(1, seconds=5)
