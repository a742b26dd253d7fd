"""A queue is taken away with all that it has left, however much that is, and whenever its servers come."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from worker_harness import tiny_models
from worker_harness.queue_processes import Queue
from worker_harness.queue_traces import traces
from worker_harness.running import WorkerProcess


def removal(queue: Queue) -> WorkerProcess:
    return queue.start("", env=queue.environment(MOORAGE_WORKER_FACE="queue_removal")).listening()


async def own_traces(queue: Queue, other: Queue) -> list[str]:
    """Without those of another queue whose name begins alike."""
    found = await traces(queue.rabbitmq, queue.redis, queue.name)
    return [name for name in found if other.name not in name]


async def test_nothing_of_a_used_queue_is_left_and_all_of_another(queue: Queue, tmp_path: Path) -> None:
    other = Queue(queue.rabbitmq, queue.redis, queue.start, f"{queue.name}-too")
    worker = queue.ready_worker(tiny_models.picker(tmp_path))
    fronts = [queue.front(), other.front()]
    fronts[0].over(fronts[0].run({"inputs": {"index": [0]}}))
    fronts[1].run({"inputs": {"index": [0]}})
    worker.process.send_signal(signal.SIGTERM)
    assert worker.exit_code() == 0
    fronts[0].run({"inputs": {"index": [1]}})  # for which nobody comes
    fronts[0].process.stop()
    theirs = await traces(queue.rabbitmq, queue.redis, other.name)
    assert len(await own_traces(queue, other)) >= 5

    process = removal(queue)
    await asyncio.to_thread(process.wait_for_line, "is removed")
    assert process.get("/ready").status_code == 200
    assert await own_traces(queue, other) == []
    assert await traces(queue.rabbitmq, queue.redis, other.name) == theirs
    process.process.send_signal(signal.SIGTERM)
    assert process.exit_code() == 0


async def test_what_is_not_there_is_removed(queue: Queue) -> None:
    process = removal(queue)
    await asyncio.to_thread(process.wait_for_line, "is removed")
    assert await traces(queue.rabbitmq, queue.redis, queue.name) == []


async def test_it_is_not_done_before_both_servers_are_there(queue: Queue) -> None:
    front = queue.front()
    front.run({"inputs": {"index": [0]}})
    front.process.stop()
    queue.redis.stop()
    try:
        process = removal(queue)
        await asyncio.to_thread(process.wait_for_line, "Redis cannot be reached")
        assert process.get("/health").status_code == 200
        assert process.get("/ready").status_code == 503
        assert queue.redis.url not in "".join(process.lines)
    finally:
        queue.redis.resume()
    await asyncio.to_thread(process.wait_for_line, "is removed")
    assert process.get("/ready").status_code == 200
    assert await traces(queue.rabbitmq, queue.redis, queue.name) == []
