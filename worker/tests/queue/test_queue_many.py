"""Ten thousand jobs, one worker killed and one told to go meanwhile: none lost, none with two results."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from pathlib import Path

import orjson
from redis.asyncio import Redis
from worker_harness import tiny_models
from worker_harness.queue_processes import Queue

from moorage_worker.queue.broker import Publisher
from moorage_worker.queue.messages import new_job
from moorage_worker.queue.settings import QueueSettings
from moorage_worker.queue.store import JobStore, connect

JOBS = 10_000
AT_ONCE = 200  # messages that are sent and not confirmed yet
CONSUMERS = 8


async def reach(store: JobStore, count: int) -> None:
    """Returns when so many jobs are completed."""
    totals: dict[str, int] = {}
    while totals.get("COMPLETED", 0) < count:  # a notice may be missed, the count may not
        await asyncio.sleep(0.05)
        totals, _, _ = await store.counts()


async def test_none_of_ten_thousand_jobs_is_lost(queue: Queue, tmp_path: Path) -> None:
    model = tiny_models.picker(tmp_path)
    settings = QueueSettings.read(queue.environment())
    async with connect(settings.results_url) as client, asyncio.TaskGroup() as group:
        store = JobStore(client, settings)
        publisher = Publisher(settings)
        connected = group.create_task(publisher.run())
        killed, drained = (queue.worker(model, consumers=CONSUMERS) for _ in range(2))
        publishing = group.create_task(publish(publisher, range(JOBS)))

        await reach(store, JOBS // 5)
        killed.process.send_signal(signal.SIGKILL)
        stays = queue.worker(model, consumers=CONSUMERS)
        await reach(store, JOBS // 2)
        drained.process.send_signal(signal.SIGTERM)
        await publishing
        await reach(store, JOBS)

        assert await asyncio.to_thread(drained.exit_code) == 0
        assert await results(client, settings.name) == {f"job-{n}": float(n % 3 + 1) for n in range(JOBS)}
        totals, _, _ = await store.counts()
        assert totals.pop("retried", 0) <= CONSUMERS, "only what the killed worker had in hand ran twice"
        assert totals == {"COMPLETED": JOBS}, "no job has two results"
        stays.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(stays.exit_code) == 0
        assert await publisher.waiting() == 0
        connected.cancel()


async def publish(publisher: Publisher, numbers: Iterable[int]) -> None:
    waiting = iter(numbers)

    async def one_after_another() -> None:
        for number in waiting:
            body = {"id": f"job-{number}", "input": {"inputs": {"index": [number % 3]}}}
            await publisher.publish(new_job(orjson.dumps(body), ""), patience=30.0)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_another())


async def results(client: Redis, name: str) -> dict[str, float]:
    """The number in the output of every job."""
    prefix = f"moorage:{{{name}}}:job:"
    found: dict[str, float] = {}
    keys = [key async for key in client.scan_iter(match=f"{prefix}*", count=1000)]
    for start in range(0, len(keys), 1000):
        part = keys[start : start + 1000]
        pipe = client.pipeline(transaction=False)
        for key in part:
            pipe.hget(key, "output")
        for key, output in zip(part, await pipe.execute(), strict=True):
            found[key.decode().removeprefix(prefix)] = orjson.loads(output)["outputs"]["value"][0]
    return found
