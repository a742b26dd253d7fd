"""The job routes of deployments on RunPod: their jobs pass through to RunPod, those from before wait here."""

from __future__ import annotations

import asyncio
from typing import Any  # JSON of the API

import httpx
import pytest
import runpod

from moorage_runpod.testing import KEY

from .conftest import Harbour

JOB = {"input": {"inputs": "a harbour"}}


async def ready(port: Harbour, **body: Any) -> str:
    id_ = await port.deploy(**body)
    await port.until(id_, "ready")
    return id_


async def over(port: Harbour, deployment: str, job: str, seconds: float = 20) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while True:
            answer = await port.user.get(f"/v2/{deployment}/status/{job}")
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            if found["status"] not in ("IN_QUEUE", "IN_PROGRESS"):
                return found
            await asyncio.sleep(0.02)


def code(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert KEY not in answer.text
    found: str = answer.json()["code"]
    return found


async def test_jobs_pass_through(port: Harbour) -> None:
    id_ = await ready(port, name="painter")
    answer = await port.user.post("/v2/painter/runsync", json=JOB)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "COMPLETED"
    assert "a harbour" in answer.text
    queued = (await port.user.post(f"/v2/{id_}/run", json=JOB)).json()
    done = await over(port, id_, queued["id"])
    assert (done["id"], done["status"]) == (queued["id"], "COMPLETED")
    assert (await port.service.store.job_counts(id_)).by_state == {}, "none of them is kept here"
    health = (await port.user.get(f"/v2/{id_}/health")).json()
    assert health["jobs"]["completed"] >= 2
    assert health["workers"]["ready"] >= 1
    cancelled = (await port.user.post(f"/v2/{id_}/cancel/{queued['id']}")).json()
    assert cancelled["id"] == queued["id"]
    purged = (await port.user.post(f"/v2/{id_}/purge-queue")).json()
    assert purged == {"removed": 0, "status": "completed"}
    await port.delete(id_)


async def test_the_same_key_makes_one_job_there_too(port: Harbour) -> None:
    id_ = await ready(port)
    key = {"idempotency-key": "once"}
    ids = {(await port.user.post(f"/v2/{id_}/run", json=JOB, headers=key)).json()["id"] for _ in range(3)}
    assert len(ids) == 1
    await port.delete(id_)


async def test_what_came_before_it_was_ready_runs_when_it_is(port: Harbour) -> None:
    port.fake.faults.never_ready = frozenset({"*"})
    id_ = await port.deploy()
    await port.until(id_, "loading_model")
    early = (await port.user.post(f"/v2/{id_}/run", json=JOB)).json()
    assert early["status"] == "IN_QUEUE"
    port.fake.faults.never_ready = frozenset()
    await port.until(id_, "ready")
    done = await over(port, id_, early["id"])
    assert done["status"] == "COMPLETED", done
    assert "a harbour" in str(done["output"])
    await port.delete(id_)


async def test_a_load_balancer_has_jobs_too(port: Harbour) -> None:
    """RunPod has none for it: they are kept here."""
    id_ = await ready(port, endpoint_type="load_balancer")
    answer = await port.user.post(f"/v2/{id_}/runsync", json=JOB)
    assert answer.json()["status"] == "COMPLETED", answer.text
    assert (await port.user.get(f"/v2/{id_}/health")).json()["jobs"]["completed"] == 1
    await port.delete(id_)


async def test_the_runpod_package_reaches_its_own_endpoint_through_here(
    port: Harbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the RunPod key as the key, as its user has it set already."""
    monkeypatch.setattr(runpod, "endpoint_url_base", f"{port.url}/v2")
    id_ = await ready(port, name="painter")

    def use() -> None:
        endpoint = runpod.Endpoint("painter", api_key=KEY)
        assert "a harbour" in str(endpoint.run(JOB).output(timeout=20))
        assert "a harbour" in str(endpoint.run_sync(JOB, timeout=20))
        assert endpoint.health()["workers"]["ready"] >= 1

    await asyncio.to_thread(use)
    await port.delete(id_)


# -- trouble between here and there -------------------------------------------------------------------------


async def test_an_unknown_job_is_404(port: Harbour) -> None:
    id_ = await ready(port)
    for method, verb in (("GET", "status"), ("GET", "stream"), ("POST", "cancel")):
        for job in ("0f8fad5b-d9cb-469f-a165-70867728950e-u1", "..", "a%2Fb", "x%3Fy"):
            answer = await port.user.request(method, f"/v2/{id_}/{verb}/{job}")
            assert answer.status_code == 404, answer.text
    unknown = await port.user.get(f"/v2/{id_}/status/nothing")
    assert code(unknown, 404) == "job_not_found"
    await port.delete(id_)


async def test_another_organization_reaches_nothing(port: Harbour) -> None:
    id_ = await ready(port, name="painter")
    job = (await port.user.post(f"/v2/{id_}/run", json=JOB)).json()["id"]
    other = "rpa_" + "O" * 44
    async with port.client(other) as stranger:
        for name in (id_, "painter"):
            for method, path in (("POST", "run"), ("GET", f"status/{job}"), ("POST", f"cancel/{job}")):
                body = JOB if path == "run" else None
                answer = await stranger.request(method, f"/v2/{name}/{path}", json=body)
                assert answer.status_code in (401, 404), answer.text
    assert (await over(port, id_, job))["status"] == "COMPLETED"
    await port.delete(id_)


@pytest.mark.parametrize(
    ("kind", "status", "told"),
    [
        ("rate_limited", 429, "provider_rate_limit"),
        ("html", 502, "provider_failed"),
        ("bad_gateway", 502, "provider_failed"),
        ("truncated", 502, "provider_failed"),
        ("lost_answer", 502, "provider_failed"),
    ],
)
async def test_what_goes_wrong_at_runpod_is_told(port: Harbour, kind: str, status: int, told: str) -> None:
    id_ = await ready(port)
    port.fake.faults.arm("POST /v2/*/run", kind, times=1, seconds=3)
    answer = await port.user.post(f"/v2/{id_}/run", json=JOB)
    assert code(answer, status) == told
    if status == 429:
        assert answer.headers["retry-after"] == "3"
    assert (await port.user.post(f"/v2/{id_}/run", json=JOB)).status_code == 200
    await port.delete(id_)


async def test_what_runpod_refuses_is_refused_in_its_words(port: Harbour) -> None:
    id_ = await ready(port)
    answer = await port.user.post(f"/v2/{id_}/run", json={**JOB, "policy": {"ttl": 1}})
    assert answer.status_code == 400, answer.text
    await port.delete(id_)
