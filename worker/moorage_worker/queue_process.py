"""The life of the process on a queue: as a worker that takes jobs from it, as the front that fills it, or to
take it away.

A worker takes no job before its model answers: jobs that wait for it would be kept from other workers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress

from moorage_worker.arrival import Arrival
from moorage_worker.cache.results import ResultBucket
from moorage_worker.ending import EXIT_FAILED, EXIT_OK, End
from moorage_worker.errors import cause_line
from moorage_worker.faces.app import build_probe_app
from moorage_worker.faces.context import ServingContext
from moorage_worker.faces.media_results import MediaResults
from moorage_worker.faces.queue_front import QueueFront, Waiters
from moorage_worker.faces.queue_removal import build_removal_app
from moorage_worker.pool import InferencePool
from moorage_worker.process import Port, listen, open_port
from moorage_worker.queue.broker import Publisher
from moorage_worker.queue.consumer import Consumer
from moorage_worker.queue.handling import RETURN_SECONDS, Handler
from moorage_worker.queue.notices import listen as listen_for_notices
from moorage_worker.queue.removal import Removal
from moorage_worker.queue.settings import QueueSettings
from moorage_worker.queue.store import JobStore, StoreAway, connect
from moorage_worker.queue.work import Work
from moorage_worker.settings import WorkerSettings

log = logging.getLogger(__name__)
# It tells every lost connection with a traceback; the queue's own modules tell it in a line.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)

SAY_SECONDS = 3.0  # between two signs of life


async def serve_queue(settings: WorkerSettings) -> int:
    """Work on the queue until a signal or a failed load; returns the exit code.

    Threads may still be busy when this returns, so the caller must end the process without joining them.
    """
    end = End()
    arrival = Arrival(settings)
    service = _QueueService(settings, arrival)
    app = build_probe_app(service.context, settings.health_path)
    try:
        ports = await listen(settings, service.context, app)
    except OSError as error:
        log.error("cannot listen: %s", error)  # noqa: TRY400  # the error names the address
        return EXIT_FAILED
    serving = asyncio.create_task(service.run())
    serving.add_done_callback(lambda task: end.fail_with(None if task.cancelled() else task.exception()))
    arrival.loaded.add_done_callback(lambda loaded: end.fail_with(loaded.exception()))
    arrival.begin()
    failure = await end.reached()
    if failure is None:
        service.stop()
        await asyncio.wait([serving])
        if not serving.cancelled():
            failure = serving.exception()
    await _close(ports)
    if failure is None:
        log.info("stopped")
        return EXIT_OK
    if arrival.readiness.model is None:
        log.error("model %s failed to load: %s", settings.model_id, cause_line(failure))
    else:
        log.error("unexpected error: %s", cause_line(failure), exc_info=failure)
    return EXIT_FAILED


class _QueueService:
    """Waits for the model, then consumes until it is stopped."""

    def __init__(self, settings: WorkerSettings, arrival: Arrival) -> None:
        self._settings = settings
        self._queue = _queue(settings)
        self._arrival = arrival
        # The consumers bound the jobs in hand. A cancelled one may keep its thread, for which the next waits.
        self._pool = InferencePool(self._queue.consumers, max_waiting=sys.maxsize)
        self._media = MediaResults(ResultBucket.of(settings.cache))
        self._news = asyncio.Event()  # the worker is another than it last said
        self._moved = asyncio.Event()  # the model is there, or the end has come
        self._stopping = False
        self._consumer: Consumer | None = None
        self._handler: Handler | None = None
        loop = asyncio.get_running_loop()
        arrival.loaded.add_done_callback(lambda _: loop.call_soon_threadsafe(self._moved.set))

    @property
    def context(self) -> ServingContext:
        settings = self._settings
        return ServingContext(
            settings.model_id, settings.model, self._arrival.readiness, self._pool, self._media
        )

    def stop(self) -> None:
        self._stopping = True
        self._moved.set()
        if self._consumer is not None:
            self._consumer.stop()

    async def run(self) -> None:
        queue, worker = self._queue, f"{socket.gethostname()}:{os.getpid()}"
        async with connect(queue.results_url) as client:
            store = JobStore(client, queue)
            async with _behind(self._say(store, worker)):
                await self._moved.wait()
                if not self._stopping and self._arrival.readiness.model is not None:
                    await self._consume(store, worker)
            with suppress(StoreAway, TimeoutError):
                async with asyncio.timeout(RETURN_SECONDS):
                    await store.take_leave(worker)

    async def _consume(self, store: JobStore, worker: str) -> None:
        model = self._arrival.readiness.require()
        work = Work(self._settings.model_id, model, self._pool, self._media)
        handler = self._handler = Handler(store, work, worker, self._queue.attempts)
        self._news.set()
        self._consumer = Consumer(self._queue, handler)
        looking: set[asyncio.Task[None]] = set()

        def resumed() -> None:
            task = asyncio.create_task(handler.look_up_cancellations())
            looking.add(task)
            task.add_done_callback(looking.discard)

        notices = listen_for_notices(self._queue.results_url, store.cancellations, handler.cancel, resumed)
        async with _behind(notices):
            await self._consumer.run()

    async def _say(self, store: JobStore, worker: str) -> None:
        while True:
            handler = self._handler
            with suppress(StoreAway):
                in_hand = 0 if handler is None else handler.in_hand
                await store.say(worker, ready=handler is not None, in_hand=in_hand)
            self._news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), SAY_SECONDS)


async def serve_front(settings: WorkerSettings) -> int:
    """Take jobs over HTTP until a signal; returns the exit code. Starts without RabbitMQ and Redis, too."""
    queue = _queue(settings)
    end = End()
    publisher, waiters = Publisher(queue), Waiters()
    async with connect(queue.results_url) as client:
        store = JobStore(client, queue)
        front = QueueFront(queue.name, publisher, store, waiters)
        try:
            port = await open_port(front.app(), settings.host, settings.port)
        except OSError as error:
            log.error("cannot listen: %s", error)  # noqa: TRY400  # the error names the address
            return EXIT_FAILED
        log.info("listening on %s, front of queue %s", port.site.name, queue.name)
        notices = listen_for_notices(queue.results_url, store.ends, waiters.wake, waiters.wake_all)
        async with _behind(publisher.run()), _behind(notices):
            await end.reached()
            await _close([port])
    log.info("stopped")
    return EXIT_OK


async def serve_removal(settings: WorkerSettings) -> int:
    """Take the queue away, then be ready until a signal; returns the exit code."""
    end = End()
    removal = Removal(_queue(settings))
    try:
        port = await open_port(build_removal_app(removal.done), settings.host, settings.port)
    except OSError as error:
        log.error("cannot listen: %s", error)  # noqa: TRY400  # the error names the address
        return EXIT_FAILED
    log.info("listening on %s, removal of queue %s", port.site.name, _queue(settings).name)
    async with _behind(removal.run()):
        await end.reached()
        await _close([port])
    return EXIT_OK


def _queue(settings: WorkerSettings) -> QueueSettings:
    assert settings.queue is not None, "parse_settings reads it for these faces"
    return settings.queue


async def _close(ports: list[Port]) -> None:
    for port in ports:
        await port.site.stop()
    for port in ports:
        await port.runner.cleanup()


@asynccontextmanager
async def _behind(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run it beside the body, and end it with that. What goes wrong in it is logged."""

    def tell(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("unexpected error behind the service", exc_info=error)

    task = asyncio.create_task(work)
    task.add_done_callback(tell)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
