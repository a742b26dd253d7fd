"""The job API of the fake, with the `runpod` package as its client and by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import runpod
from runpod.endpoint.runner import Endpoint as SdkEndpoint

from moorage_runpod.testing import KEY, Account, FakeRunPod

from .asking import BALANCED, create, until_statuses

Connect = Callable[..., SdkEndpoint]


@pytest.fixture
def connect(fake: FakeRunPod, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """The package's endpoint object; it reads this address when it is made."""
    monkeypatch.setattr(runpod, "endpoint_url_base", fake.job_url)
    return lambda endpoint, key=KEY: runpod.Endpoint(endpoint["id"], api_key=key)


async def test_the_package_runs_jobs(fake: FakeRunPod, client: httpx.AsyncClient, connect: Connect) -> None:
    endpoint = connect(await create(client))

    def use() -> list[Any]:
        synced = endpoint.run_sync({"inputs": "a"}, timeout=10)
        job = endpoint.run({"input": {"inputs": "b"}})
        return [synced["outputs"], job.output(timeout=10)["outputs"], job.status(), endpoint.health()]

    *told, health = await asyncio.to_thread(use)
    assert told == ["a", "b", "COMPLETED"]
    assert health["jobs"]["completed"] == 2
    assert health["workers"]["ready"] == 1


async def test_a_job_that_fails(fake: FakeRunPod, client: httpx.AsyncClient, connect: Connect) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such prompt")

    fake.simulated.answer = fail
    made = await create(client)
    endpoint = connect(made)
    job = await asyncio.to_thread(lambda: endpoint.run({"inputs": "a"}))
    assert await asyncio.to_thread(lambda: job.output(timeout=10)) is None
    told = (await client.get(f"/v2/{made['id']}/status/{job.job_id}")).json()
    assert (told["status"], told["error"]) == ("FAILED", "ValueError: no such prompt")
    fake.simulated.answer = lambda spec, given: given
    again = await client.post(f"/v2/{made['id']}/retry/{job.job_id}")
    assert again.json() == {"id": job.job_id, "status": "IN_QUEUE"}
    assert await asyncio.to_thread(lambda: job.rp_client.get(f"{made['id']}/health")) is not None
    assert (await until_ended(client, made, job.job_id))["output"] == {"inputs": "a"}
    refused = await client.post(f"/v2/{made['id']}/retry/{job.job_id}")
    assert refused.status_code == 400


async def until_ended(client: httpx.AsyncClient, endpoint: dict[str, Any], job: str) -> dict[str, Any]:
    """Holds on the stream route, which answers when the job ended."""
    async with asyncio.timeout(20):
        await client.get(f"/v2/{endpoint['id']}/stream/{job}?wait=20000")
    told: dict[str, Any] = (await client.get(f"/v2/{endpoint['id']}/status/{job}")).json()
    return told


async def test_cancel_and_purge(fake: FakeRunPod, client: httpx.AsyncClient, connect: Connect) -> None:
    fake.faults.throttled_pools = frozenset({"*"})
    endpoint = connect(await create(client))

    def use() -> list[Any]:
        jobs = [endpoint.run({"a": n}) for n in range(3)]
        cancelled = jobs[0].cancel()
        return [cancelled["status"], endpoint.purge_queue(), [j.status() for j in jobs]]

    assert await asyncio.to_thread(use) == [
        "CANCELLED",
        {"removed": 2, "status": "completed"},
        ["CANCELLED"] * 3,
    ]


@pytest.mark.usefixtures("connect")
async def test_the_packages_async_client(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runpod, "api_key", KEY)
    made = await create(client)
    async with aiohttp.ClientSession() as session:
        endpoint = runpod.AsyncioEndpoint(made["id"], session)
        job = await endpoint.run({"inputs": "a"})
        assert (await job.output(timeout=10))["outputs"] == "a"
        assert (await endpoint.health())["jobs"]["completed"] == 1


async def test_the_bare_key_is_taken_too(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    made = await create(client)
    async with httpx.AsyncClient() as bare:
        answer = await bare.get(made["requestUrls"]["health"], headers={"Authorization": KEY})
    assert answer.status_code == 200


async def test_who_may(fake: FakeRunPod, client: httpx.AsyncClient, connect: Connect) -> None:
    fake.accounts.append(Account("other", {"rpa_other": frozenset({"*"})}))
    made = await create(client)
    with pytest.raises(RuntimeError, match="401"):
        await asyncio.to_thread(connect(made, "rpa_nobody").run, {"a": 1})
    with pytest.raises(requests.HTTPError, match="404"):
        await asyncio.to_thread(connect(made, "rpa_other").run, {"a": 1})
    assert (await client.get(f"/v2/{made['id']}/status/nope")).status_code == 404
    balanced = await create(client, BALANCED)
    assert (await client.post(f"/v2/{balanced['id']}/run", json={"input": {}})).status_code == 400


async def test_runsync_gives_up_waiting_not_the_job(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.faults.throttled_pools = frozenset({"*"})
    made = await create(client)
    urls = made["requestUrls"]
    body = {"input": {"moorage": "warm_up"}}
    told = (await client.post(urls["runSync"], params={"wait": 1000}, json=body)).json()
    assert told == {"id": told["id"], "status": "IN_QUEUE"}
    assert told["id"].startswith("sync-")
    fake.faults.throttled_pools = frozenset()
    ended = await until_ended(client, made, told["id"])
    assert ended["output"]["ready"] is True
    for wait in ("999", "300001", "soon"):
        refused = await client.post(urls["runSync"], params={"wait": wait}, json=body)
        assert refused.status_code == 400


async def test_a_load_takes_its_time_and_idle_workers_go(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.simulated.load_seconds = 0.3
    made = await create(client, workers={"min": 0, "max": 1, "idleTimeout": 1})
    assert (await client.get(f"/v2/serverless/{made['id']}/workers")).json()["workers"] == []
    job = (await client.post(made["requestUrls"]["run"], json={"input": {"a": 1}})).json()
    await until_statuses(client, made, "INITIALIZING")
    assert (await until_ended(client, made, job["id"]))["status"] == "COMPLETED"
    await until_statuses(client, made, "IDLE")
    await until_statuses(client, made)


async def test_a_deleted_endpoint_ends_what_waits_for_it(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.faults.never_ready = frozenset({"*"})
    made = await create(client)
    url = made["requestUrls"]["runSync"]
    waiting = asyncio.create_task(client.post(url, json={"input": {"a": 1}}))
    await until_statuses(client, made, "INITIALIZING")
    await client.delete(f"/v2/serverless/{made['id']}")
    assert (await waiting).json()["status"] == "CANCELLED"
    assert fake.cloud.running_workers == 0
    assert (await client.post(url, json={"input": {"a": 1}})).status_code == 404


async def test_too_much_is_refused(client: httpx.AsyncClient) -> None:
    made = await create(client)
    huge = {"input": {"text": "x" * 10_000_000}}
    refused = await client.post(made["requestUrls"]["run"], json=huge)
    assert refused.status_code == 400
    assert "10000000 bytes" in refused.json()["detail"]
