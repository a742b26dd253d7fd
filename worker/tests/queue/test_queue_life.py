"""Jobs from the front through RabbitMQ to a worker and back through Redis: every part a process, or real."""

from __future__ import annotations

from pathlib import Path

import pytest
from worker_harness import tiny_models
from worker_harness.queue_processes import Queue


@pytest.fixture(scope="module")
def picker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.picker(tmp_path_factory.mktemp("picker"))


def test_a_job_goes_through_the_queue(queue: Queue, picker: Path) -> None:
    front = queue.front()
    job = front.run({"inputs": {"index": [1, 2]}})
    assert front.status(job) == {"id": job, "status": "IN_QUEUE"}
    worker = queue.ready_worker(picker)
    document = front.over(job)
    assert document["status"] == "COMPLETED"
    assert document["output"]["outputs"] == {"value": [2.0, 3.0]}
    assert document["executionTime"] >= 0
    assert document["workerId"].endswith(f":{worker.process.pid}")
