"""Every way in which the fake can be told to misbehave does what it says, and ends."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from moorage_runpod.testing import KEY, FakeRunPod, Kind, drift
from moorage_runpod.testing.faults import Faults

from .asking import CREATE, create, statuses, until_statuses, workers

CREATING = "POST /v2/serverless"
ON_ONE = {"workers": {"min": 1, "max": 3}}


async def test_a_lost_answer_comes_after_the_effect(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.faults.arm(CREATING, Kind.LOST_ANSWER, times=2)
    for number in (1, 2):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/v2/serverless", json=CREATE)
        assert len(fake.endpoints) == number
    await create(client)
    fake.faults.arm("DELETE /v2/serverless/{id}", "lost_answer")
    with pytest.raises(httpx.RemoteProtocolError):
        await client.delete(f"/v2/serverless/{fake.endpoints[0].id}")
    assert len(fake.endpoints) == 2


@pytest.mark.parametrize("kind", [Kind.LOST_REQUEST, Kind.HTML, Kind.BAD_GATEWAY, Kind.UNAVAILABLE])
async def test_what_never_arrives_has_no_effect(
    fake: FakeRunPod, client: httpx.AsyncClient, kind: Kind
) -> None:
    fake.faults.arm(CREATING, kind)
    try:
        answer = await client.post("/v2/serverless", json=CREATE)
    except httpx.RemoteProtocolError:
        assert kind is Kind.LOST_REQUEST
    else:
        expected = {Kind.HTML: (200, "<!DOCTYPE"), Kind.BAD_GATEWAY: (502, "<!DOCTYPE")}
        status, start = expected.get(kind, (503, '{"title"'))
        assert (answer.status_code, answer.text[: len(start)]) == (status, start)
    assert fake.endpoints == []
    assert len(fake.requests) == 1
    await create(client)


async def test_half_an_answer_comes_after_the_effect(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.faults.arm(CREATING, Kind.TRUNCATED)
    answer = await client.post("/v2/serverless", json=CREATE)
    assert answer.status_code == 201
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        answer.json()
    assert len(fake.endpoints) == 1


async def test_a_rate_limit_says_when_it_ends(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.faults.arm("* /v2/serverless*", Kind.RATE_LIMITED, times=2, seconds=7)
    for method, path in (("POST", "/v2/serverless"), ("GET", "/v2/serverless/x/workers")):
        answer = await client.request(method, path, json=CREATE)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        assert answer.headers["ratelimit"].startswith('"minute";r=0;t=7')
    await create(client)


async def test_slowness_comes_before_anything_else(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.faults.arm("GET /v2/catalog/gpus", Kind.SLOW, times=None, seconds=0.05)
    fake.faults.arm("GET /v2/catalog/gpus", Kind.UNAVAILABLE)
    begun = time.monotonic()
    assert (await client.get("/v2/catalog/gpus")).status_code == 503
    assert (await client.get("/v2/catalog/gpus")).status_code == 200
    assert time.monotonic() - begun >= 0.1
    fake.faults.clear()
    assert fake.faults.met("GET /v2/catalog/gpus") == ()


async def test_a_throttled_pool_holds_workers_until_it_is_not(
    fake: FakeRunPod, client: httpx.AsyncClient
) -> None:
    fake.faults.throttled_pools = frozenset({"AMPERE_24"})
    made = await create(client, **ON_ONE)
    await until_statuses(client, made, "THROTTLED")
    [worker] = (await workers(client, made))["workers"]
    assert (worker["gpuTypeId"], worker["dataCenterId"], worker["startedAt"]) == (None, None, None)
    health = (await client.get(made["requestUrls"]["health"])).json()
    assert (health["workers"]["throttled"], health["workers"]["ready"]) == (1, 0)
    elsewhere = await create(client, gpu={"pools": ["AMPERE_24", "ADA_24"]}, **ON_ONE)
    await until_statuses(client, elsewhere, "IDLE")
    assert (await workers(client, elsewhere))["workers"][0]["gpuTypeId"] == "NVIDIA GeForce RTX 4090"
    fake.faults.throttled_pools = frozenset()
    await until_statuses(client, made, "IDLE")


async def test_a_pool_where_no_worker_appears(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.faults.absent_pools = frozenset({"AMPERE_24"})
    made = await create(client)
    job = (await client.post(made["requestUrls"]["run"], json={"input": {"a": 1}})).json()
    await asyncio.sleep(0.1)
    assert (await workers(client, made))["summary"]["total"] == 0
    url = made["requestUrls"]["status"].replace("{job_id}", job["id"])
    assert (await client.get(url)).json()["status"] == "IN_QUEUE"
    fake.faults.absent_pools = frozenset()
    await client.get(f"/v2/{made['id']}/stream/{job['id']}?wait=10000")
    assert (await client.get(url)).json()["status"] == "COMPLETED"


@pytest.mark.parametrize("status", ["RUNNING", "THROTTLED", "UNHEALTHY"])
async def test_a_crash_loop_shows_in_the_log(
    fake: FakeRunPod, client: httpx.AsyncClient, status: str
) -> None:
    fake.faults.crash_status = status
    fake.faults.crash_loops = frozenset({"paint*"})
    made = await create(client, **ON_ONE)
    await until_statuses(client, made, status)
    told = await workers(client, made)
    assert told["summary"]["unhealthy"] == (status == "UNHEALTHY")
    url = f"/v2/serverless/{made['id']}/workers/{told['workers'][0]['id']}/logs"
    lines: list[str] = []
    async with asyncio.timeout(10), client.stream("GET", url) as stream:
        async for line in stream.aiter_lines():
            lines.append(line)
            if sum("exit code 1" in one for one in lines) == 2:
                break
    assert sum("No module named 'weights'" in line for line in lines) == 2
    other = await create(client, name="other", **ON_ONE)
    await until_statuses(client, other, "IDLE")
    fake.faults.crash_loops = frozenset()
    await until_statuses(client, made, "IDLE")


async def test_a_worker_that_is_never_ready(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.faults.never_ready = frozenset({"acme/worker:1"})
    made = await create(client, **ON_ONE)
    await until_statuses(client, made, "INITIALIZING")
    await asyncio.sleep(0.1)
    assert await statuses(client, made) == ["INITIALIZING"]
    fake.faults.never_ready = frozenset()
    await until_statuses(client, made, "IDLE")


async def test_drift_takes_the_workers_away(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    made = await create(client, **ON_ONE)
    await until_statuses(client, made, "IDLE")
    assert drift(fake.cloud, "painter") == 1
    await until_statuses(client, made)
    assert (await client.get(f"/v2/serverless/{made['id']}")).json()["workers"]["max"] == 0
    await client.patch(f"/v2/serverless/{made['id']}", json=ON_ONE)
    await until_statuses(client, made, "IDLE")


async def test_a_list_that_lags_knows_an_endpoint_by_its_id(
    fake: FakeRunPod, client: httpx.AsyncClient
) -> None:
    now = 1_800_000_000.0
    fake.cloud.clock = lambda: now
    fake.faults.list_lag_seconds = 5
    made = await create(client)
    assert (await client.get("/v2/serverless")).json() == {"endpoints": []}
    assert (await client.get(f"/v2/serverless/{made['id']}")).status_code == 200
    fake.cloud.clock = lambda: now + 5
    assert len((await client.get("/v2/serverless")).json()["endpoints"]) == 1


async def test_a_scope_can_be_taken_from_every_key(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.faults.denied_scopes = frozenset({"serverless:write", "jobs:read"})
    assert (await client.post("/v2/serverless", json=CREATE)).status_code == 403
    assert (await client.get("/v2/serverless")).status_code == 200
    fake.faults.denied_scopes = frozenset({"jobs:read"})
    made = await create(client)
    assert (await client.get(made["requestUrls"]["health"])).status_code == 403


async def test_an_image_that_does_not_exist(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.faults.missing_images = frozenset({"acme/worker:1"})
    answer = await client.post("/v2/serverless", json=CREATE)
    assert (answer.status_code, answer.json()["detail"]) == (422, "image acme/worker:1 not found")


async def test_a_fresh_log_may_be_refused(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.faults.unresolved_log_seconds = 3600
    made = await create(client, **ON_ONE)
    await until_statuses(client, made, "IDLE")
    [worker] = fake.endpoints[0].workers
    url = f"/v2/serverless/{made['id']}/workers/{worker}/logs"
    assert (await client.get(url)).status_code == 403
    assert (await client.get(f"/v2/serverless/{made['id']}/workers/nope/logs")).status_code == 404


def test_faults_from_json() -> None:
    faults, told = Faults(), []
    faults.on_change = lambda: told.append(1)
    faults.update(
        {"throttled_pools": ["A", "B"], "crash_lines": ["x"], "routes": [{"route": "*", "kind": "html"}]}
    )
    assert (faults.throttled_pools, faults.crash_lines) == (frozenset({"A", "B"}), ("x",))
    assert faults.met("GET /x")[0].kind is Kind.HTML
    assert told
    with pytest.raises(ValueError, match="unknown fault troubled_pools; known: routes, throttled_pools"):
        faults.update({"troubled_pools": []})
    with pytest.raises(ValueError, match="explode"):
        faults.update({"routes": [{"route": "*", "kind": "explode"}]})
    faults.clear()
    assert faults == Faults()


async def test_a_worker_that_the_fake_itself_fails_is_not_silent() -> None:
    async def misuse() -> None:
        async with FakeRunPod() as fake:
            fake.simulated.load_seconds = "soon"  # type: ignore[assignment]  # on purpose
            headers = {"Authorization": f"Bearer {KEY}"}
            async with httpx.AsyncClient(base_url=fake.api_url, headers=headers) as client:
                await create(client, **ON_ONE)
            async with asyncio.timeout(10):
                await fake.endpoints[0].changes.until(lambda: fake.cloud.records.broken_answers or None)

    with pytest.raises(AssertionError, match=r"worker-\w+ failed: (.|\n)*TypeError"):
        await misuse()
