"""Real workers: the `runpod` package in a process of its own, against the fake's worker side."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from moorage_runpod.testing import KEY, FakeRunPod

from .asking import CREATE, create, until, until_statuses, workers
from .program import Started

HANDLER = Path(__file__).with_name("handler.py")
COMMAND = [sys.executable, str(HANDLER)]
REAL = {**CREATE, "image": "acme/real:1"}


@pytest.fixture
async def fake() -> AsyncIterator[FakeRunPod]:
    async with FakeRunPod(images={"acme/real:1": COMMAND, "acme/nothing:1": ["/no/such/program"]}) as running:
        yield running


async def run(client: httpx.AsyncClient, endpoint: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(endpoint["requestUrls"]["runSync"], json={"input": given}, timeout=60)
    told: dict[str, Any] = answer.json()
    return told


async def until_status(client: httpx.AsyncClient, url: str, status: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            told: dict[str, Any] = (await client.get(url)).json()
            if told["status"] == status:
                return told
            await asyncio.sleep(0.02)


def alive(group: int) -> bool:
    """Whether any process of the group is there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_worker_answers_fails_and_stops_at_a_cancel(client: httpx.AsyncClient) -> None:
    made = await create(client, REAL, env={"MODEL": "acme/tiny"}, workers={"min": 0, "max": 1})
    first = await run(client, made, {"a": 1})
    assert (first["status"], first["output"]["echo"]) == ("COMPLETED", {"a": 1})
    group = first["output"]["pid"]
    failed = await run(client, made, {"fail": True})
    assert failed["status"] == "FAILED"
    assert "as it was asked to" in failed["error"]
    assert (await run(client, made, {"refuse": True}))["error"] == "a soft failure"

    seen = (await run(client, made, {"environment": True}))["output"]["environment"]
    assert seen["MODEL"] == "acme/tiny"
    assert seen["RUNPOD_ENDPOINT_ID"] == made["id"]
    assert KEY not in seen.values()
    assert set(seen) - {"PATH", "HOME", "LANG", "PYTHONUNBUFFERED", "MODEL", "LC_CTYPE"} <= {
        name for name in seen if name.startswith(("RUNPOD_", "__CF"))
    }

    # The package takes two jobs at a time, and stops the one that is cancelled.
    urls = made["requestUrls"]
    slow = (await client.post(urls["run"], json={"input": {"sleep": 600}})).json()["id"]
    await until_status(client, urls["status"].replace("{job_id}", slow), "IN_PROGRESS")
    assert (await run(client, made, {"a": 2}))["output"]["pid"] == group
    await client.post(urls["cancel"].replace("{job_id}", slow))
    await until_status(client, urls["status"].replace("{job_id}", slow), "CANCELLED")
    await until_statuses(client, made, "IDLE")

    await client.delete(f"/v2/serverless/{made['id']}")
    await until(lambda: not alive(group))


async def test_a_generator_streams(client: httpx.AsyncClient) -> None:
    made = await create(client, REAL, args="stream")
    job = (await client.post(made["requestUrls"]["run"], json={"input": {"count": 3}})).json()["id"]
    chunks: list[Any] = []
    async with asyncio.timeout(60):
        while True:
            told = (await client.get(f"/v2/{made['id']}/stream/{job}", timeout=60)).json()
            chunks += told["stream"]
            if told["status"] == "COMPLETED" and not told["stream"]:
                break
    assert [c["output"]["number"] for c in chunks] == [0, 1, 2]
    assert (await client.get(f"/v2/{made['id']}/status/{job}")).json()["output"] == [
        {"number": n} for n in range(3)
    ]


async def test_a_worker_that_dies_is_started_again_and_its_job_given_up(client: httpx.AsyncClient) -> None:
    made = await create(client, REAL, workers={"min": 0, "max": 1})
    lost = await run(client, made, {"exit": True})
    assert (lost["status"], lost["error"]) == ("FAILED", "job timed out after 1 retries")
    assert (await run(client, made, {"a": 1}))["status"] == "COMPLETED"
    health = (await client.get(made["requestUrls"]["health"])).json()
    assert health["jobs"]["retried"] == 1


async def test_a_worker_that_cannot_start_loops_and_still_reads_running(client: httpx.AsyncClient) -> None:
    made = await create(client, REAL, args="broken", workers={"min": 1})
    await until_statuses(client, made, "RUNNING")
    told = await workers(client, made)
    assert told["summary"]["unhealthy"] == 0
    url = f"/v2/serverless/{made['id']}/workers/{told['workers'][0]['id']}/logs"
    lines = []
    async with asyncio.timeout(30), client.stream("GET", url) as stream:
        async for line in stream.aiter_lines():
            lines.append(line)
            if sum("exited with exit code 1" in one for one in lines) == 2:
                break
    assert any('"source": "container", "line": "CUDA out of memory"' in line for line in lines)


async def test_a_command_that_is_not_there(client: httpx.AsyncClient, fake: FakeRunPod) -> None:
    made = await create(client, {**REAL, "image": "acme/nothing:1"}, workers={"min": 1})
    await until_statuses(client, made, "RUNNING")
    [worker] = fake.endpoints[0].workers.values()
    assert "cannot start the container" in " ".join(line.text for line in worker.log.tail(100, "container"))


async def test_the_end_of_the_fake_ends_its_workers() -> None:
    async with FakeRunPod(images={"acme/real:1": COMMAND}) as fake:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=fake.api_url, headers=headers, timeout=60) as client:
            made = await create(client, REAL)
            group = (await run(client, made, {"a": 1}))["output"]["pid"]
            assert alive(group)
    await until(lambda: not alive(group))


async def test_a_fake_that_is_killed_leaves_nothing(started: Started) -> None:
    fake = await started("--image", f"acme/real:1={sys.executable} {HANDLER}")
    async with fake.client() as client:
        made = await create(client, REAL)
        group = (await run(client, made, {"a": 1}))["output"]["pid"]
    assert alive(group)
    fake.process.send_signal(signal.SIGKILL)
    await fake.process.wait()
    await until(lambda: not alive(group))
