"""The queue in RabbitMQ: how it is made, reached, and written to.

A quorum queue, because it counts deliveries and outlives a node. A queue that is there already is used as it
is: its owner may have reasons, and a change of our arguments must not lock anybody out.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime

import aio_pika
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractQueue
from aiormq.abc import FieldTable
from aiormq.exceptions import (
    AMQPError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    DeliveryError,
    PublishError,
)
from redis.backoff import ExponentialWithJitterBackoff

from moorage_worker.queue.messages import NewJob
from moorage_worker.queue.settings import QueueSettings, place

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # between tries to connect
DEAD_LETTERS = 1000  # that are kept, the newest
_DEAD_MILLISECONDS = 14 * 86_400_000
# What a lost connection, a refusal, and a channel that went with them look like.
LOST = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError)


class BrokerAway(Exception):
    """RabbitMQ cannot be reached, or does not take the message. Tells the cause, without an address."""


def pauses() -> ExponentialWithJitterBackoff:
    """`compute(failures)` gives the seconds to wait after so many failures in a row."""
    return ExponentialWithJitterBackoff(base=FIRST_PAUSE, cap=LONGEST_PAUSE)


def dead_letters(name: str) -> str:
    """The queue for what nobody could work on."""
    return f"{name}.dead"


async def connect(settings: QueueSettings, role: str) -> AbstractConnection:
    """One connection, as long as it lasts. Raises one of LOST."""
    properties: FieldTable = {"connection_name": f"moorage {role} {settings.name}"}
    return await aio_pika.connect(settings.url, timeout=CONNECT_SECONDS, client_properties=properties)


async def open_queue(connection: AbstractConnection, channel: AbstractChannel, name: str) -> AbstractQueue:
    """The queue, made durable with one for dead letters where there is none. Raises one of LOST."""
    if not await _exists(connection, name):
        log.info("queue %s is made", name)
        dead = dead_letters(name)
        await channel.declare_queue(
            dead,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-max-length": DEAD_LETTERS,
                "x-message-ttl": _DEAD_MILLISECONDS,
            },
        )
        arguments: FieldTable = {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
        }
        await channel.declare_queue(name, durable=True, arguments=arguments)
    return await channel.get_queue(name, ensure=False)


async def _exists(connection: AbstractConnection, name: str) -> bool:
    probe = await connection.channel()  # that there is no such queue closes the channel
    try:
        await probe.declare_queue(name, passive=True)
    except ChannelNotFoundEntity:
        return False
    finally:
        await probe.close()
    return True


class Publisher:
    """Sends messages and waits until the broker has them safe. Keeps one connection, made anew when lost."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._channel: AbstractChannel | None = None
        self.connected = asyncio.Event()  # set while there is a channel

    async def run(self) -> None:
        """Hold the connection until cancelled."""
        failures, pause = 0, pauses()
        while True:
            try:
                connection = await connect(self._settings, "front")
                async with connection:
                    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                    await open_queue(connection, channel, self._settings.name)
                    log.info("queue %s at %s is open", self._settings.name, place(self._settings.url))
                    failures, self._channel = 0, channel
                    self.connected.set()
                    await channel.closed()
                log.warning("the connection to RabbitMQ is lost")
            except LOST as error:
                log.warning("RabbitMQ at %s: %s", place(self._settings.url), told(error))
            finally:
                self.connected.clear()
                self._channel = None
            failures += 1
            await asyncio.sleep(pause.compute(failures))

    async def publish(self, job: NewJob, patience: float) -> None:
        """Returns when the message is safe. It may be in the queue twice then, which workers bear with.

        Waits `patience` seconds for a connection and for the broker's word. Raises BrokerAway.
        """
        message = Message(
            job.body,
            message_id=job.id,
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            timestamp=datetime.now(UTC),
        )
        try:
            async with asyncio.timeout(patience):
                while not await self._sent(message):
                    pass  # on the next channel
        except TimeoutError as error:
            raise BrokerAway("RabbitMQ cannot be reached, or does not confirm messages") from error
        except DeliveryError as error:
            raise BrokerAway(f"RabbitMQ does not take the message: {told(error)}") from error

    async def _sent(self, message: Message) -> bool:
        await self.connected.wait()
        channel = self._channel
        assert channel is not None
        try:
            await channel.default_exchange.publish(message, self._settings.name, mandatory=True)
        except LOST as error:
            if isinstance(error, DeliveryError) and not isinstance(error, PublishError):
                raise  # the broker has said no
            # Where it came back, the queue is deleted: it is made anew with the next channel.
            log.warning("job %s was not sent yet: %s", message.message_id, told(error))
            await self._give_up(channel)
            return False
        return True

    async def _give_up(self, channel: AbstractChannel) -> None:
        if channel is self._channel:
            self.connected.clear()
            self._channel = None
        with suppress(*LOST):
            await channel.close()

    async def waiting(self) -> int:
        """Messages that no worker has yet. Raises BrokerAway."""
        channel = self._channel
        if channel is None:
            raise BrokerAway("RabbitMQ cannot be reached")
        try:
            queue = await channel.declare_queue(self._settings.name, passive=True, timeout=CONNECT_SECONDS)
        except LOST as error:
            raise BrokerAway(f"RabbitMQ does not count the queue: {told(error)}") from error
        return queue.declaration_result.message_count or 0


def told(error: BaseException) -> str:
    """What an error of the library says, without the address that it may quote."""
    return " ".join(str(error).split())[:200] or type(error).__name__
