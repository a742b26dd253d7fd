"""What one process tells the others through Redis, so that nobody has to ask again and again.

A notice is only heard by who listens just then. Whoever relies on one is told, too, when listening begins
anew: what was missed in between has to be looked up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from moorage_worker.queue.broker import pauses

log = logging.getLogger(__name__)

LOOK_SECONDS = 15.0  # without a notice, before the connection is tried


async def listen(url: str, channel: str, heard: Callable[[str], None], resumed: Callable[[], None]) -> None:
    """Call `heard` with each notice, and `resumed` whenever none can be missed any more. Until cancelled."""
    failures, pause = 0, pauses()
    while True:
        client = Redis.from_url(url, socket_connect_timeout=3.0, health_check_interval=int(LOOK_SECONDS) // 2)
        try:
            async with client, client.pubsub() as notices:
                await notices.subscribe(channel)
                while True:
                    notice = await notices.get_message(timeout=LOOK_SECONDS)
                    if notice is None:
                        continue
                    if notice["type"] == "subscribe":  # again, too, after the library has reconnected
                        failures = 0
                        resumed()
                    elif notice["type"] == "message":
                        heard(notice["data"].decode())
        except (RedisError, OSError, TimeoutError) as error:
            failures += 1
            if failures == 1:
                log.warning("notices from Redis are cut off: %s", type(error).__name__)
        await asyncio.sleep(pause.compute(failures))
