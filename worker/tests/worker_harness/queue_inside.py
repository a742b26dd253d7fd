"""The worker's side of a queue inside the test's own loop, over an engine that the test holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any  # JSON of a job

import aio_pika
import orjson

from moorage_worker.cache.results import ResultBucket
from moorage_worker.engines.base import QUIET, Run
from moorage_worker.faces.media_results import MediaResults
from moorage_worker.json_types import Json, JsonObject
from moorage_worker.pool import InferencePool
from moorage_worker.queue.broker import dead_letters
from moorage_worker.queue.consumer import Consumer
from moorage_worker.queue.handling import Handler
from moorage_worker.queue.notices import listen
from moorage_worker.queue.records import JobRecord
from moorage_worker.queue.settings import QueueSettings
from moorage_worker.queue.store import JobStore, connect
from moorage_worker.queue.work import Work
from worker_harness.queue_processes import Queue
from worker_harness.stepping import SteppingEngine, loaded

WAIT_SECONDS = 20.0


class MeetingEngine(SteppingEngine):
    """No run ends before so many are under way at once; knows how many there ever were at once."""

    def __init__(self, parties: int) -> None:
        super().__init__()
        self._barrier = threading.Barrier(parties, timeout=WAIT_SECONDS)
        self._lock = threading.Lock()
        self._under_way = 0
        self.most = 0

    def infer(self, inputs: Json, parameters: JsonObject, run: Run = QUIET) -> object:
        with self._lock:
            self._under_way += 1
            self.most = max(self.most, self._under_way)
        self._barrier.wait()
        with self._lock:
            self._under_way -= 1
        return {"inputs": inputs}


class Inside:
    """A consumer, its store, and a channel of the test's own."""

    def __init__(
        self,
        settings: QueueSettings,
        store: JobStore,
        engine: SteppingEngine,
        channel: aio_pika.abc.AbstractChannel,
    ) -> None:
        self.settings = settings
        self.store = store
        self.engine = engine
        self.channel = channel
        pool = InferencePool(settings.consumers, 1000)
        work = Work("acme/m", loaded(engine), pool, MediaResults(ResultBucket(None)))
        self.handler = Handler(store, work, "worker-1", settings.attempts)
        self.consumer = Consumer(settings, self.handler)
        self.ended = asyncio.Event()

    async def put(self, body: bytes | dict[str, Any], message_id: str | None = None) -> None:
        """A message as anybody may write it."""
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        message = aio_pika.Message(raw, message_id=message_id)
        await self.channel.default_exchange.publish(message, self.settings.name, mandatory=True)

    async def over(self, job: str) -> JobRecord:
        """The record of a job, once that is over."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                self.ended.clear()
                record = await self.store.find(job)
                if record is not None and record.status.final:
                    return record
                await self.ended.wait()

    async def output(self, job: str) -> Any:
        record = await self.over(job)
        assert record.output is not None, record
        return orjson.loads(record.output)["outputs"]

    async def problem(self, job: str) -> Any:
        record = await self.over(job)
        assert record.error is not None, record
        return orjson.loads(record.error)

    async def dead_letter(self) -> bytes:
        """Takes the first of the dead letters, waited for."""
        queue = await self.channel.get_queue(dead_letters(self.settings.name))
        async with queue.iterator(timeout=WAIT_SECONDS) as letters:
            async for letter in letters:
                await letter.ack()
                return letter.body
        raise AssertionError("no dead letter")

    async def left(self) -> int:
        """Messages that nobody has."""
        queue = await self.channel.declare_queue(self.settings.name, passive=True)
        return queue.declaration_result.message_count or 0

    async def engine_started(self) -> None:
        assert await asyncio.to_thread(self.engine.started.wait, WAIT_SECONDS)

    async def engine_stopped(self) -> None:
        assert await asyncio.to_thread(self.engine.stopped.wait, WAIT_SECONDS)


@asynccontextmanager
async def inside(queue: Queue, engine: SteppingEngine, **variables: str) -> AsyncIterator[Inside]:
    """Consuming, until it is left: the consumer stops then."""
    settings = QueueSettings.read(queue.environment(**{"MOORAGE_QUEUE_GRACE_SECONDS": "1", **variables}))
    connection = await aio_pika.connect(settings.url)
    async with connection, connect(settings.results_url) as client:
        channel = await connection.channel(on_return_raises=True)
        one = Inside(settings, JobStore(client, settings), engine, channel)
        listening = asyncio.Event()
        ends = asyncio.create_task(
            listen(settings.results_url, one.store.ends, lambda _: one.ended.set(), one.ended.set)
        )
        cancellations = asyncio.create_task(
            listen(settings.results_url, one.store.cancellations, one.handler.cancel, listening.set)
        )
        consuming = asyncio.create_task(one.consumer.run())
        await asyncio.wait_for(listening.wait(), WAIT_SECONDS)
        try:
            await asyncio.wait_for(one.consumer.taking.wait(), WAIT_SECONDS)
            yield one
        finally:
            one.consumer.stop()
            await asyncio.wait_for(consuming, WAIT_SECONDS)
            for task in (ends, cancellations):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
