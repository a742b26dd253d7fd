"""The front as its callers know it: the job API, told to RunPod's own client, too."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any  # JSON of a model

import aiohttp
import pytest
import runpod
from worker_harness import tiny_models
from worker_harness.queue_processes import Front, Queue
from worker_harness.queue_servers import RabbitMQ, Redis
from worker_harness.running import StartWorker

ASKED = {"inputs": {"index": [1, 2]}}
PICKED = {"value": [2.0, 3.0]}


@pytest.fixture(scope="module")
def served(
    rabbitmq: RabbitMQ, redis: Redis, start_worker: StartWorker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Queue, Front]:
    """A queue with a worker, and its front."""
    queue = Queue(rabbitmq, redis, start_worker)
    front = queue.front()
    queue.ready_worker(tiny_models.picker(tmp_path_factory.mktemp("picker")), consumers=2)
    return queue, front


@pytest.fixture(scope="module")
def front(served: tuple[Queue, Front]) -> Front:
    return served[1]


@pytest.fixture(scope="module")
def alone(rabbitmq: RabbitMQ, redis: Redis, start_worker: StartWorker) -> Front:
    """The front of a queue without workers."""
    return Queue(rabbitmq, redis, start_worker).front()


def test_a_synchronous_job_is_answered_with_its_result(front: Front) -> None:
    document = front.json("POST", "/runsync", {"input": ASKED})
    assert document["id"].startswith("sync-")
    assert document["status"] == "COMPLETED"
    assert document["output"]["outputs"] == PICKED
    assert document["output"].keys() == {"model_id", "outputs", "metadata"}
    assert document["delayTime"] >= 0
    assert document["executionTime"] >= 0


def test_a_synchronous_job_that_is_not_done_in_time_is_waited_for_later(alone: Front) -> None:
    ticket = alone.json("POST", "/runsync?wait=1000", {"input": ASKED})
    assert ticket == {"id": ticket["id"], "status": "IN_QUEUE"}
    assert alone.status(ticket["id"]) == ticket


@pytest.mark.parametrize("wait", ["999", "300001", "soon", "-1", "", "1e3"])
def test_a_wrong_wait_is_refused(alone: Front, wait: str) -> None:
    problem = refused(alone, f"/runsync?wait={wait}", b'{"input": 1}', 422)
    assert problem["errors"][0]["field"] == "wait"


def refused(front: Front, path: str, content: bytes, status: int) -> Any:
    response = front.send(path, content)
    assert response.status_code == status, response.text
    return response.json()


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"{}", 422, "input"),
        (b'{"input": 1, "webhook": "https://example.com"}', 422, "webhook"),
        (b'{"input": 1, "id": ""}', 422, "id"),
        (b'{"input": 1, "id": 7}', 422, "id"),
        (b'{"input": 1, "id": "a b"}', 422, "id"),
        (b'{"input": 1, "policy": []}', 422, "policy"),
        (b'{"input": 1, "policy": {"ttl": 9999}}', 422, "policy.ttl"),
        (b'{"input": 1, "policy": {"executionTimeout": 5000.5}}', 422, "policy.executionTimeout"),
        (b'{"input": 1, "policy": {"lowPriority": true}}', 422, "policy.lowPriority"),
        (b'{"input": "' + b"x" * 16_000_000 + b'"}', 413, None),
        # With the id that the front gives it is one message too large.
        (b'{"input": "' + b"x" * (16_000_000 - 20) + b'"}', 413, None),
    ],
    ids=lambda value: value[:40].decode() if isinstance(value, bytes) else None,
)
def test_a_wrong_body_is_refused_and_nothing_is_queued(
    alone: Front, body: bytes, status: int, field: str | None
) -> None:
    before = alone.json("GET", "/health")["jobs"]["inQueue"]
    problem = refused(alone, "/run", body, status)
    assert problem["status"] == status
    assert field is None or problem["errors"][0]["field"] == field
    assert alone.json("GET", "/health")["jobs"]["inQueue"] == before


def test_a_large_input_that_fits_goes_through(front: Front) -> None:
    job = front.run({"inputs": {"index": [1]}, "padding": "x" * 15_000_000})
    assert json.loads(front.over(job)["error"])["errors"][0]["field"] == "padding"


def test_a_failed_job_tells_a_problem(front: Front) -> None:
    document = front.json("POST", "/runsync", {"input": {"inputs": {"index": [7]}}})
    assert document["status"] == "FAILED"
    assert "output" not in document
    problem = json.loads(document["error"])
    assert (problem["status"], problem["code"]) == (500, "engine_failed")


def test_an_id_makes_a_job_one_however_often_it_is_asked_for(front: Front) -> None:
    completed = front.json("GET", "/health")["jobs"]["completed"]
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(front.run, ASKED, id="order-1") for _ in range(8)]
        assert {one.result() for one in asked} == {"order-1"}
    document = front.over("order-1")
    again = front.json("POST", "/run", {"input": ASKED, "id": "order-1"})
    assert again == {"id": "order-1", "status": "COMPLETED"}
    assert front.json("POST", "/runsync", {"input": ASKED, "id": "order-1"}) == document
    front.json("POST", "/runsync", {"input": ASKED})
    assert front.json("GET", "/health")["jobs"]["completed"] == completed + 2


def test_an_id_that_comes_with_another_input_is_a_conflict(front: Front) -> None:
    front.run(ASKED, id="order-2")
    problem = refused(front, "/run", b'{"id": "order-2", "input": {"inputs": {"index": [0]}}}', 409)
    assert problem["code"] == "id_taken"


def test_repeating_an_id_sends_no_second_message(alone: Front) -> None:
    before = alone.json("GET", "/health")["jobs"]["inQueue"]
    for _ in range(3):
        alone.run(ASKED, id="order-3")
    assert alone.json("GET", "/health")["jobs"]["inQueue"] == before + 1


def test_cancelling_is_final_and_may_be_repeated(alone: Front) -> None:
    job = alone.run(ASKED)
    for _ in range(2):
        assert alone.json("POST", f"/cancel/{job}") == {"id": job, "status": "CANCELLED"}
    assert alone.status(job)["status"] == "CANCELLED"


def test_a_job_that_is_over_is_not_cancelled(front: Front) -> None:
    job = front.json("POST", "/runsync", {"input": ASKED})["id"]
    assert front.json("POST", f"/cancel/{job}") == {"id": job, "status": "COMPLETED"}
    assert front.status(job)["output"]["outputs"] == PICKED


def test_cancelling_ends_the_wait_of_others(alone: Front) -> None:
    job = alone.run(ASKED)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(alone.json, "GET", f"/status/{job}?wait=60000")
        alone.json("POST", f"/cancel/{job}")
        assert waiting.result(30)["status"] == "CANCELLED"


@pytest.mark.parametrize(("method", "path"), [("GET", "/status/nobody"), ("POST", "/cancel/nobody")])
def test_a_job_that_nobody_knows_is_not_found(alone: Front, method: str, path: str) -> None:
    response = alone.ask(method, path)
    assert (response.status_code, response.json()["code"]) == (404, "job_not_found")


def test_health_counts_jobs_and_workers(front: Front, alone: Front) -> None:
    front.json("POST", "/runsync", {"input": ASKED})
    health = front.json("GET", "/health")
    assert health["workers"]["ready"] == health["workers"]["idle"] + health["workers"]["running"] == 1
    assert health["jobs"]["completed"] >= 1
    assert health["jobs"]["inQueue"] == 0
    waiting = alone.json("GET", "/health")
    assert waiting["workers"]["ready"] == 0
    alone.run(ASKED)
    assert alone.json("GET", "/health")["jobs"]["inQueue"] == waiting["jobs"]["inQueue"] + 1
    assert alone.json("GET", "/ready") == {"status": "ready"}


def test_below_the_name_of_another_queue_is_nothing(front: Front) -> None:
    assert front.ask("POST", "/v2/another/run", {"input": ASKED}).status_code == 404


@pytest.fixture
def endpoint_url(served: tuple[Queue, Front], monkeypatch: pytest.MonkeyPatch) -> str:
    queue, front = served
    monkeypatch.setattr(runpod, "endpoint_url_base", f"{front.url}/v2")
    return queue.name


def test_runpods_client_drives_the_queue(endpoint_url: str) -> None:
    endpoint = runpod.Endpoint(endpoint_url, api_key="not-needed")
    assert endpoint.run_sync({"input": ASKED}, timeout=30)["outputs"] == PICKED
    job = endpoint.run({"input": ASKED})
    assert job.output(timeout=30)["outputs"] == PICKED
    assert job.status() == "COMPLETED"
    assert endpoint.health()["workers"]["ready"] == 1
    assert job.cancel()["status"] == "COMPLETED"


async def test_runpods_asynchronous_client_drives_the_queue(
    endpoint_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runpod, "api_key", "not-needed")
    async with aiohttp.ClientSession() as session:
        endpoint = runpod.AsyncioEndpoint(endpoint_url, session)
        job = await endpoint.run(ASKED)
        output = await asyncio.wait_for(job.output(timeout=30), 40)
        assert output["outputs"] == PICKED
        assert (await endpoint.health())["jobs"]["inQueue"] == 0
