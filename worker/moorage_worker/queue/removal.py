"""Takes a queue away with all that it has left: messages, dead letters, and the records of jobs.

For when the workers and the front are gone: while one of them lives, it makes its queue anew. RabbitMQ and
Redis may be away for the moment, and what is gone already is no error, so it may be begun again at any time.
"""

from __future__ import annotations

import asyncio
import logging

from moorage_worker.queue.broker import LOST, connect, dead_letters, pauses, told
from moorage_worker.queue.settings import QueueSettings, place
from moorage_worker.queue.store import JobStore, StoreAway
from moorage_worker.queue.store import connect as connect_store

log = logging.getLogger(__name__)

DELETE_SECONDS = 30.0  # for RabbitMQ to delete one queue


class Removal:
    """`done` is set when nothing is left."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self.done = asyncio.Event()

    async def run(self) -> None:
        """Returns when nothing is left. Goes on trying until cancelled."""
        failures, pause = 0, pauses()
        while not self.done.is_set():
            try:
                await self._remove()
            except LOST as error:
                log.warning("RabbitMQ at %s: %s", place(self._settings.url), told(error))
            except StoreAway as error:
                log.warning("%s", error)
            else:
                log.info("queue %s is removed", self._settings.name)
                self.done.set()
                return
            failures += 1
            await asyncio.sleep(pause.compute(failures))

    async def _remove(self) -> None:
        name = self._settings.name
        connection = await connect(self._settings, "removal")
        async with connection:
            channel = await connection.channel()
            for queue in (name, dead_letters(name)):
                await channel.queue_delete(queue, timeout=DELETE_SECONDS)
        async with connect_store(self._settings.results_url) as client:
            await JobStore(client, self._settings).remove()
