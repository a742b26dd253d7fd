"""RabbitMQ, Redis and workers go away and come back: nothing is lost, and callers are told what is wrong."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import _GeneratorContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any  # JSON

import aio_pika
import pytest
from aiohttp.test_utils import TestClient, TestServer
from worker_harness import tiny_models
from worker_harness.queue_inside import WAIT_SECONDS, Inside, inside
from worker_harness.queue_processes import Queue
from worker_harness.queue_servers import PASSWORD, Instance
from worker_harness.stepping import SteppingEngine

from moorage_worker.faces.queue_front import QueueFront, Waiters
from moorage_worker.queue.broker import Publisher
from moorage_worker.queue.notices import listen
from moorage_worker.queue.store import JobStore, connect

ENDLESS = {"inputs": {"rounds": 10**7}}


class SeenWaiters(Waiters):
    """Tells when somebody begins to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.somebody = asyncio.Event()

    def waiting(self, job_id: str) -> _GeneratorContextManager[asyncio.Event]:
        self.somebody.set()
        return super().waiting(job_id)


class FrontInside:
    """The front in the test's own loop."""

    def __init__(self, client: TestClient[Any, Any], publisher: Publisher, waiters: SeenWaiters) -> None:
        self.waiters = waiters
        self._client = client
        self._publisher = publisher

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        async with self._client.request(method, path, json=body) as response:
            return response.status, await response.json()

    async def run(self, asked: object, **more: object) -> tuple[int, Any]:
        return await self.ask("POST", "/run", {"input": asked, **more})

    async def connected(self) -> None:
        await asyncio.wait_for(self._publisher.connected.wait(), WAIT_SECONDS)


@asynccontextmanager
async def front_inside(one: Inside) -> AsyncIterator[FrontInside]:
    settings = one.settings
    publisher, waiters = Publisher(settings), SeenWaiters()
    async with connect(settings.results_url) as client:
        store = JobStore(client, settings)
        notices = listen(settings.results_url, store.ends, waiters.wake, waiters.wake_all)
        behind = [asyncio.create_task(publisher.run()), asyncio.create_task(notices)]
        app = QueueFront(settings.name, publisher, store, waiters).app()
        async with TestClient(TestServer(app)) as http:
            front = FrontInside(http, publisher, waiters)
            await front.connected()
            yield front
        for task in behind:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def away(server: Instance) -> None:
    await asyncio.to_thread(server.stop, signal.SIGTERM)


async def back(server: Instance) -> None:
    await asyncio.to_thread(server.resume)


async def test_rabbitmq_is_killed_and_comes_back(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    async with inside(queue, SteppingEngine()) as one, front_inside(one) as front:
        _, in_hand = await front.run({"inputs": "in hand"})
        _, waits = await front.run({"inputs": "waits"})
        await one.engine_started()
        await away(queue.rabbitmq)
        try:
            one.engine.let_go.set()
            # Its message cannot be acknowledged now, but the result is there for whoever asks.
            status, document = await front.ask("GET", f"/status/{in_hand['id']}?wait=20000")
            assert (status, document["status"]) == (200, "COMPLETED")

            with monkeypatch.context() as impatient:
                impatient.setattr("moorage_worker.faces.queue_front.PUBLISH_SECONDS", 0.3)
                status, problem = await front.run({"inputs": "refused"}, id="order-1")
            assert (status, problem["code"]) == (503, "queue_unavailable")
            assert PASSWORD not in json.dumps(problem)
            assert (await front.ask("GET", "/status/order-1"))[0] == 404, "as if it never was"
            status, health = await front.ask("GET", "/health")
            assert (status, health["jobs"], len(health["problems"])) == (200, None, 1)
            assert (await front.ask("GET", "/ready"))[0] == 503
        finally:
            await back(queue.rabbitmq)
        await front.connected()
        assert (await front.run({"inputs": "again"}, id="order-1"))[0] == 200
        assert await one.output(waits["id"]) == {"inputs": "waits", "parameters": {}}
        assert await one.output("order-1") == {"inputs": "again", "parameters": {}}
        # The message of the first came again, and was let go of without another run.
        assert one.engine.asked == ["in hand", "waits", "again"]
        assert await left(one) == 0


async def left(one: Inside) -> int:
    """By a connection that is newer than the outage."""
    connection = await aio_pika.connect(one.settings.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(one.settings.name, passive=True)
        return queue.declaration_result.message_count or 0


async def test_redis_is_killed_and_comes_back(queue: Queue) -> None:
    async with inside(queue, SteppingEngine()) as one, front_inside(one) as front:
        _, job = await front.run({"inputs": 1})
        await one.engine_started()
        _, second = await front.run({"inputs": 2})
        waiting = asyncio.create_task(front.ask("GET", f"/status/{second['id']}?wait=60000"))
        await asyncio.wait_for(front.waiters.somebody.wait(), WAIT_SECONDS)
        await away(queue.redis)
        try:
            one.engine.let_go.set()
            for method, path in (("GET", "/status/any"), ("GET", "/ready"), ("POST", "/cancel/any")):
                status, problem = await front.ask(method, path)
                assert (status, problem["code"]) == (503, "queue_unavailable")
                assert PASSWORD not in json.dumps(problem)
            assert (await front.run({"inputs": 3}))[0] == 503
            status, health = await front.ask("GET", "/health")
            assert (status, health["workers"]) == (200, None)
        finally:
            await back(queue.redis)
        assert await one.output(job["id"]) == {"inputs": 1, "parameters": {}}
        status, document = await asyncio.wait_for(waiting, WAIT_SECONDS)
        assert (status, document["status"]) == (200, "COMPLETED")
        assert one.engine.asked == [1, 2]


async def test_a_job_whose_record_is_lost_is_done_all_the_same(queue: Queue) -> None:
    async with inside(queue, SteppingEngine()) as one:
        await one.put({"id": "first", "input": {"inputs": 1}})
        await one.put({"id": "second", "input": {"inputs": 2}})
        await one.engine_started()
        async with connect(one.settings.results_url) as client:
            await client.flushall()
        one.engine.let_go.set()
        assert await one.output("first") == {"inputs": 1, "parameters": {}}
        assert await one.output("second") == {"inputs": 2, "parameters": {}}


async def test_a_queue_that_is_deleted_is_made_again_by_whoever_needs_it(queue: Queue) -> None:
    engine = SteppingEngine()
    engine.let_go.set()
    async with inside(queue, engine) as one, front_inside(one) as front:
        one.consumer.taking.clear()
        await one.channel.queue_delete(queue.name)
        _, job = await front.run({"inputs": 1})
        assert await one.output(job["id"]) == {"inputs": 1, "parameters": {}}
        await asyncio.wait_for(one.consumer.taking.wait(), WAIT_SECONDS)


async def test_a_front_and_a_worker_may_be_there_before_the_servers(queue: Queue, tmp_path: Path) -> None:
    model = tiny_models.picker(tmp_path)
    await away(queue.redis)
    try:
        worker = queue.worker(model).ready()
        assert worker.get("/ready").status_code == 200, "the model answers, and waits for jobs"
        front = queue.front()
        assert front.ask("GET", "/health").status_code == 200
        assert front.ask("GET", "/ready").status_code == 503
    finally:
        await back(queue.redis)
    document = front.json("POST", "/runsync", {"input": {"inputs": {"index": [0]}}})
    assert document["output"]["outputs"] == {"value": [1.0]}
    said = repr([worker.lines, front.process.lines])
    assert PASSWORD not in said


def test_a_job_that_kills_its_workers_is_given_up(queue: Queue, tmp_path: Path) -> None:
    model = tiny_models.slow(tmp_path)
    front = queue.front()
    job = front.run(ENDLESS)
    for _ in range(2):
        worker = queue.ready_worker(model, MOORAGE_QUEUE_ATTEMPTS="2")
        front.begun(job, worker)
        worker.stop()
    last = queue.ready_worker(model, MOORAGE_QUEUE_ATTEMPTS="2")
    document = front.over(job)
    assert document["status"] == "FAILED"
    problem = json.loads(document["error"])
    assert problem["code"] == "workers_lost"
    assert problem["detail"] == "the job was begun 2 times, and each time the worker died before it ended"
    after = front.json("POST", "/runsync", {"input": {"inputs": {"rounds": 0}}})
    assert after["output"]["outputs"] == {"largest": 1.0}
    assert last.process.poll() is None


def test_sigterm_gives_back_what_takes_too_long_and_ends_well(queue: Queue, tmp_path: Path) -> None:
    model = tiny_models.slow(tmp_path)
    front = queue.front()
    worker = queue.ready_worker(model, consumers=2, MOORAGE_QUEUE_GRACE_SECONDS="4")
    endless, short = front.run(ENDLESS), front.run({"inputs": {"rounds": 300}})
    front.begun(endless, worker)
    front.begun(short, worker)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for_line("taking no more jobs, 2 in hand")
    waits = front.run({"inputs": {"rounds": 0}})
    assert front.over(short)["output"]["outputs"] == {"largest": 1.0}
    assert worker.exit_code() == 0
    assert worker.lines[-1].endswith("stopped")
    assert front.status(endless) == {"id": endless, "status": "IN_QUEUE"}
    assert front.json("POST", f"/cancel/{endless}")["status"] == "CANCELLED"
    queue.ready_worker(model)
    assert front.over(waits)["status"] == "COMPLETED"
    assert front.status(endless)["status"] == "CANCELLED"


def test_sigterm_while_the_model_loads_ends_at_once(queue: Queue, tmp_path: Path) -> None:
    worker = queue.worker(tiny_models.picker(tmp_path)).listening()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.exit_code() == 0


def test_a_model_that_cannot_be_loaded_ends_the_worker_and_leaves_the_jobs(
    queue: Queue, tmp_path: Path
) -> None:
    broken = tiny_models.picker(tmp_path)
    graph = broken / "onnx" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:50])
    front = queue.front()
    job = front.run({"inputs": {"index": [0]}})
    worker = queue.worker(broken)
    assert worker.exit_code() == 1
    assert "failed to load" in worker.lines[-1]
    assert front.status(job)["status"] == "IN_QUEUE"
