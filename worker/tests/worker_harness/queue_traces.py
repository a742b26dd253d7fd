"""What there is of a queue in RabbitMQ and Redis, asked of both."""

from __future__ import annotations

import aio_pika
from aio_pika.exceptions import ChannelNotFoundEntity
from redis.asyncio import Redis as RedisClient

from worker_harness.queue_servers import RabbitMQ, Redis


async def traces(rabbitmq: RabbitMQ, redis: Redis, name: str) -> list[str]:
    """Names of queues, and of all keys that the name is in."""
    found: list[str] = []
    async with await aio_pika.connect(rabbitmq.url) as connection:
        for queue in (name, f"{name}.dead"):
            channel = await connection.channel()
            try:
                await channel.declare_queue(queue, passive=True)
                found.append(queue)
            except ChannelNotFoundEntity:
                pass
    async with RedisClient.from_url(redis.url) as store:
        found += [key.decode() async for key in store.scan_iter() if name in key.decode()]
    return sorted(found)
