"""The job API over the queue: what RunPod's clients, and Moorage, know how to call. Loads no model.

A job is noted in Redis, then sent to RabbitMQ, and only then accepted: whoever has the answer has a job that
is not lost. The ends of jobs are told through Redis, so a caller who waits costs nothing until then.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Handler

from moorage_worker.errors import BadInput, IdTaken, NoSuchJob, QueueUnavailable
from moorage_worker.faces.json_body import encode, json_response
from moorage_worker.faces.problems import errors_as_answers
from moorage_worker.queue.broker import BrokerAway, Publisher
from moorage_worker.queue.messages import MAX_MESSAGE_BYTES, NewJob, new_job
from moorage_worker.queue.records import JobRecord, Status, health_document, job_document
from moorage_worker.queue.store import JobStore, StoreAway

log = logging.getLogger(__name__)

PUBLISH_SECONDS = 8.0  # less than callers of `/run` wait for an answer
WAIT_MILLISECONDS = (1_000, 90_000, 300_000)  # least, default, most
LARGE_BYTES = 64 * 1024  # what takes so long to read that a thread should


@dataclass
class Waiters:
    """Those who wait for the end of a job, by its id."""

    _events: defaultdict[str, set[asyncio.Event]] = field(default_factory=lambda: defaultdict(set))

    @contextmanager
    def waiting(self, job_id: str) -> Iterator[asyncio.Event]:
        """The event is set when it is time to look at the job."""
        event = asyncio.Event()
        self._events[job_id].add(event)
        try:
            yield event
        finally:
            self._events[job_id].discard(event)
            if not self._events[job_id]:
                del self._events[job_id]

    def wake(self, job_id: str) -> None:
        for event in self._events.get(job_id, ()):
            event.set()

    def wake_all(self) -> None:
        """After a time in which ends may have been missed."""
        for job_id in list(self._events):
            self.wake(job_id)


class QueueFront:
    """The handlers, over one queue."""

    def __init__(self, name: str, publisher: Publisher, store: JobStore, waiters: Waiters) -> None:
        self._name = name
        self._publisher = publisher
        self._store = store
        self._waiters = waiters

    def app(self) -> web.Application:
        """Every path twice: alone, and as RunPod has it, below the name of an endpoint, here the queue's."""
        app = web.Application(
            client_max_size=MAX_MESSAGE_BYTES, middlewares=[errors_as_answers, outages_as_errors]
        )
        for base in ("", f"/v2/{self._name}"):
            app.add_routes(
                [
                    web.post(f"{base}/run", self.run),
                    web.post(f"{base}/runsync", self.run_and_wait),
                    web.get(f"{base}/status/{{job}}", self.status),
                    web.post(f"{base}/cancel/{{job}}", self.cancel),
                    web.get(f"{base}/health", self.health),
                    web.get(f"{base}/ready", self.ready),
                ]
            )
        return app

    async def run(self, request: web.Request) -> web.Response:
        """`{"id", "status"}` of a job that is in the queue, or that was there before by the same id."""
        job = await self._asked(request, "")
        return _ticket(job.id, await self._accept(job))

    async def run_and_wait(self, request: web.Request) -> web.Response:
        """The job's document if it is over within `wait` milliseconds, else as `run` answers."""
        seconds = _wait_seconds(request.query.get("wait", str(WAIT_MILLISECONDS[1])))
        job = await self._asked(request, "sync-")
        status = await self._accept(job)
        record = await self._waited(job.id, seconds)
        if record is None or not record.status.final:
            return _ticket(job.id, status if record is None else record.status)
        return _json(job_document(job.id, record))

    async def status(self, request: web.Request) -> web.Response:
        """The job's document; with `wait` milliseconds, when it is over, or after that time."""
        job_id = request.match_info["job"]
        wait = request.query.get("wait")
        if wait is None:
            record = await self._store.find(job_id)
        else:
            record = await self._waited(job_id, _wait_seconds(wait))
        if record is None:
            raise _no_job(job_id)
        return _json(job_document(job_id, record))

    async def cancel(self, request: web.Request) -> web.Response:
        """A run under way is stopped where the engine can stop. A job that is over stays as it is."""
        job_id = request.match_info["job"]
        status = await self._store.cancel(job_id)
        if status is None:
            raise _no_job(job_id)
        return _ticket(job_id, status)

    async def health(self, _request: web.Request) -> web.Response:
        """Counts of jobs and workers. Answers 200 as long as the process lives: what cannot be counted now is
        null, and `problems` says why."""
        try:
            (totals, words, now), waiting = await asyncio.gather(
                self._store.counts(), self._publisher.waiting()
            )
        except (StoreAway, BrokerAway) as error:
            return json_response({"jobs": None, "workers": None, "problems": [str(error)]})
        return json_response(health_document(totals, words, now, waiting))

    async def ready(self, _request: web.Request) -> web.Response:
        """200 when a job can be accepted, else 503 with what is missing."""
        try:
            await self._store.ping()
        except StoreAway as error:
            raise QueueUnavailable(str(error)) from error
        if not self._publisher.connected.is_set():
            raise QueueUnavailable("RabbitMQ cannot be reached")
        return json_response({"status": "ready"})

    async def _asked(self, request: web.Request, prefix: str) -> NewJob:
        raw = await request.read()
        made_id = f"{prefix}{uuid.uuid4()}"
        if len(raw) < LARGE_BYTES:
            return new_job(raw, made_id)
        return await asyncio.to_thread(new_job, raw, made_id)

    async def _accept(self, job: NewJob) -> Status:
        known = await self._store.accept(job.id, job.digest)
        if not known.new and known.digest and known.digest != job.digest:
            raise IdTaken(
                f"id: {job.id} has come before with another input; choose another id, or leave it out"
            )
        if known.sent or known.status is not Status.IN_QUEUE:
            return known.status
        # A message of the same job that was sent but not confirmed does no harm: one result is stored.
        try:
            await self._publisher.publish(job, PUBLISH_SECONDS)
        except BrokerAway:
            if known.new:
                await self._store.forget(job.id)
            raise
        if job.own_id:
            await self._store.sent(job.id)
        return known.status

    async def _waited(self, job_id: str, seconds: float) -> JobRecord | None:
        """The record when the job is over, or when the time is."""
        with self._waiters.waiting(job_id) as told:
            try:
                async with asyncio.timeout(seconds):
                    while True:
                        with suppress(StoreAway):  # all are told when Redis is back
                            record = await self._store.find(job_id)
                            if record is None or record.status.final:
                                return record
                        await told.wait()
                        told.clear()
            except TimeoutError:
                return await self._store.find(job_id)


@web.middleware
async def outages_as_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (StoreAway, BrokerAway) as error:
        raise QueueUnavailable(str(error)) from error


def _wait_seconds(text: str) -> float:
    least, _, most = WAIT_MILLISECONDS
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise BadInput("wait", "range", f"must be a whole number of milliseconds from {least} to {most}")
    return int(text) / 1000


def _no_job(job_id: str) -> NoSuchJob:
    return NoSuchJob(
        f"there is no job {job_id[:128]!r}, or it is forgotten: results are kept for a time only"
    )


def _ticket(job_id: str, status: Status) -> web.Response:
    return _json(encode({"id": job_id, "status": status.value}))


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
