"""Load-balancing endpoints: HTTP straight to a worker."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from moorage_runpod.testing import FakeRunPod

from .asking import BALANCED, create, until_statuses, workers

SERVER = Path(__file__).with_name("server.py")


@pytest.fixture
async def fake() -> AsyncIterator[FakeRunPod]:
    async with FakeRunPod(images={"acme/server:1": [sys.executable, str(SERVER)]}) as running:
        yield running


async def test_a_request_wakes_a_worker(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.simulated.load_seconds = 0.1
    made = await create(client, BALANCED)
    urls = made["requestUrls"]
    assert (await workers(client, made))["workers"] == []
    answer = await client.post(f"{urls['base']}/infer", json={"inputs": [1, 2]})
    assert answer.json()["outputs"] == [1, 2]
    [worker] = (await workers(client, made))["workers"]
    assert answer.headers["x-runpod-worker-id"] == worker["id"]
    assert (await client.get(urls["health"])).status_code == 200
    assert (await client.post(f"{urls['base']}/infer", headers={"Authorization": ""})).status_code == 401


async def test_nobody_comes(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.faults.throttled_pools = frozenset({"*"})
    fake.balancer.wait_seconds = 0.05
    made = await create(client, BALANCED)
    answer = await client.get(made["requestUrls"]["health"])
    assert (answer.status_code, answer.json()) == (503, {"error": "no workers available"})


async def test_more_requests_get_more_workers(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.simulated.answer_seconds = 2.0  # long enough to be seen at work together on a busy machine
    made = await create(client, BALANCED, scaling={"type": "REQUEST_COUNT", "requestCount": 1})
    base = made["requestUrls"]["base"]
    asking = asyncio.gather(*(client.post(f"{base}/infer", json={"inputs": n}) for n in range(3)))
    await until_statuses(client, made, "RUNNING", "RUNNING", "RUNNING")
    assert [a.json()["outputs"] for a in await asking] == [0, 1, 2]


async def test_a_real_server_behind_it(client: httpx.AsyncClient) -> None:
    made = await create(
        client, BALANCED, image="acme/server:1", env={"HEALTH_CHECK_PATH": "/healthz"}, workers={"min": 1}
    )
    base = made["requestUrls"]["base"]
    assert made["requestUrls"]["health"] == f"{base}/healthz"
    await until_statuses(client, made, "IDLE")
    answer = await client.put(f"{base}/any/path?a=1", content=b"x" * 100_000)
    assert answer.status_code == 418
    assert answer.json() == {"path": "/any/path?a=1", "method": "PUT", "bytes": 100_000, "key": None}
    gone = await client.post(f"{base}/exit")
    assert gone.status_code == 502
    async with asyncio.timeout(20):  # until it is started again
        while (await client.put(f"{base}/again")).status_code != 418:
            assert (await workers(client, made))["summary"]["total"] == 1
