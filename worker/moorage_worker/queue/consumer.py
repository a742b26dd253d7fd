"""Takes jobs from the queue, so many at a time, and lets go of each only when its result is safe in Redis.

A message is acknowledged after its result is stored, so a worker that dies leaves its jobs to the next. A job
may run twice for that; it has one result, as the first that is stored stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import AsyncExitStack, suppress

from aio_pika.abc import AbstractIncomingMessage

from moorage_worker.queue.broker import LOST, connect, open_queue, pauses, told
from moorage_worker.queue.handling import RETURN_SECONDS, Delivery, Handler, Verdict
from moorage_worker.queue.settings import QueueSettings, place

log = logging.getLogger(__name__)

# A job may take longer than the half hour that RabbitMQ waits for an acknowledgement unless told (from 3.12).
CONSUMER_MILLISECONDS = 7 * 86_400_000
OPEN_SECONDS = 30.0  # a node that has just come back may need as long
LAST_SECONDS = 2 * RETURN_SECONDS  # of the grace: for giving back what is not done


class Consumer:
    """`run` in a task, then `stop`, then the end of `run` is the end of all work."""

    def __init__(self, settings: QueueSettings, handler: Handler) -> None:
        self._settings = settings
        self._handler = handler
        self.taking = asyncio.Event()  # set while there is a connection and jobs come
        self._stopping = asyncio.Event()
        self._deadline = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Timeout | None = None
        self._told = (settings.name, place(settings.url), settings.consumers)

    def stop(self) -> None:
        """Take no more jobs; the grace begins."""
        if not self._stopping.is_set():
            grace = self._settings.grace_seconds
            self._deadline = asyncio.get_running_loop().time() + grace - min(LAST_SECONDS, grace / 4)
            self._stopping.set()
            if self._opening is not None:
                self._opening.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Consume until stopped, through every loss of the connection."""
        failures, pause = 0, pauses()
        while not self._stopping.is_set():
            try:
                await self._consume()
                failures = 0
                lost = "the connection is lost"
            except LOST as error:
                lost = told(error)
            self.taking.clear()
            if not self._stopping.is_set():
                failures += 1
                log.warning("RabbitMQ at %s: %s; trying again", place(self._settings.url), lost)
                await _within(pause.compute(failures), self._stopping.wait())
        await self._drain()  # what was in hand when the connection was lost

    async def _consume(self) -> None:
        """On one connection. Returns when that is lost, or when all is done after `stop`."""
        async with AsyncExitStack() as open_here:
            async with asyncio.timeout(OPEN_SECONDS) as self._opening:
                connection = await connect(self._settings, "worker")
                await open_here.enter_async_context(connection)
                channel = await connection.channel(publisher_confirms=False)
                queue = await open_queue(connection, channel, self._settings.name)
                await channel.set_qos(prefetch_count=1)  # of each consumer
                cancelled = asyncio.Event()
                underlay = await channel.get_underlay_channel()
                underlay.on_consumer_cancel_callbacks.add(lambda *_: cancelled.set())  # the queue is deleted
                tags = [
                    await queue.consume(self._take, arguments={"x-consumer-timeout": CONSUMER_MILLISECONDS})
                    for _ in range(self._settings.consumers)
                ]
            self._opening = None
            self.taking.set()
            log.info("taking jobs from queue %s at %s, %d at a time", *self._told)
            await _first(channel.closed(), cancelled.wait(), self._stopping.wait())
            if self._stopping.is_set() and not channel.is_closed:
                for tag in tags:
                    await queue.cancel(tag)
                log.info("taking no more jobs, %d in hand", self._handler.in_hand)
                await self._drain()

    async def _take(self, message: AbstractIncomingMessage) -> None:
        # The library ends its own tasks with the connection. A job goes on without one.
        task = asyncio.create_task(self._settle(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, message: AbstractIncomingMessage) -> None:
        verdict = Verdict.BACK
        try:
            if not self._stopping.is_set():
                verdict = await self._handler.handle(_delivery(message))
        except asyncio.CancelledError:
            pass  # before it was begun
        except Exception:  # a bug: the message must not be lost for it, nor hold up the others
            log.exception("unexpected error over message %s", message.message_id)
            verdict = Verdict.DEAD
        with suppress(*LOST):  # it comes again, and finds its result there
            match verdict:
                case Verdict.DONE:
                    await message.ack()
                case Verdict.DEAD:
                    await message.reject(requeue=False)
                case Verdict.BACK:
                    await message.nack(requeue=True)

    async def _drain(self) -> None:
        left = self._deadline - asyncio.get_running_loop().time()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=max(0.0, left))
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=LAST_SECONDS)


def _delivery(message: AbstractIncomingMessage) -> Delivery:
    deliveries = message.headers.get("x-delivery-count", 0)
    return Delivery(
        body=message.body,
        message_id=message.message_id,
        queued_at=None if message.timestamp is None else message.timestamp.timestamp(),
        deliveries=deliveries if isinstance(deliveries, int) else 0,
    )


async def _first(*waits: Awaitable[object]) -> None:
    """Returns with the first of them."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _within(seconds: float, wait: Awaitable[object]) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(wait, seconds)
