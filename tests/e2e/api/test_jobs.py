"""The job routes over HTTP: RunPod's words, Moorage's care, and RunPod's own client on top."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any  # JSON of the API
from unittest.mock import ANY

import httpx
import pytest
import runpod
from runpod import AsyncioEndpoint
from runpod.http_client import ClientSession
from standardwebhooks import Webhook

from moorage.domain.identity import Role
from moorage.domain.job import RUN_BYTES, RUNSYNC_BYTES, JobState
from moorage.ports.store import Update

from .conftest import MODEL, Api, at_fault, problem

JOB = {"input": {"inputs": [1, 2, 3]}}


async def ready(api: Api, **body: Any) -> str:
    id_ = await api.deploy(**body)
    await api.until(id_, "ready")
    return id_


async def waiting(api: Api, **body: Any) -> str:
    """A deployment that does not serve, until `serve`."""
    api.compute.faults.never_ready.add("cpu")
    id_ = await api.deploy(provider="fake", **body)
    await api.until(id_, "loading_model")
    return id_


def serve(api: Api) -> None:
    api.compute.faults.never_ready.clear()
    for name in api.compute.endpoints:
        api.compute.notify(name)


async def run(api: Api, deployment: str, **body: Any) -> str:
    answer = await api.owner.post(f"/v2/{deployment}/run", json={**JOB, **body})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"id": ANY, "status": "IN_QUEUE"}
    id_: str = answer.json()["id"]
    return id_


async def over(api: Api, deployment: str, id_: str, seconds: float = 10) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while True:
            answer = await api.owner.get(f"/v2/{deployment}/status/{id_}")
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            if found["status"] not in ("IN_QUEUE", "IN_PROGRESS"):
                return found
            await asyncio.sleep(0.01)


async def health(api: Api, deployment: str) -> dict[str, Any]:
    found: dict[str, Any] = (await api.owner.get(f"/v2/{deployment}/health")).json()
    return found


# -- the life of a job --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["id", "name"])
async def test_a_job_from_the_queue_to_its_result(api: Api, by: str) -> None:
    id_ = await ready(api, name="digits")
    deployment = id_ if by == "id" else "digits"
    job = await run(api, deployment)
    done = await over(api, deployment, job)
    assert done == {"id": job, "status": "COMPLETED", "delayTime": ANY, "executionTime": ANY, "output": ANY}
    assert done["output"]["outputs"] == [1, 2, 3]
    assert (await health(api, deployment))["jobs"] == {
        "completed": 1,
        "failed": 0,
        "inProgress": 0,
        "inQueue": 0,
        "retried": 0,
    }


async def test_runsync_answers_with_the_result(api: Api) -> None:
    id_ = await ready(api)
    answer = await api.owner.post(f"/v2/{id_}/runsync", json={"input": {"prompt": "a harbour", "steps": 4}})
    assert answer.status_code == 200
    assert answer.json()["id"].startswith("sync-")
    assert answer.json()["output"]["outputs"] == "a harbour", "the shorthand is what the worker understands"


async def test_runsync_answers_with_a_ticket_when_the_wait_is_over(api: Api) -> None:
    id_ = await waiting(api)
    answer = await api.owner.post(f"/v2/{id_}/runsync?wait=1000", json=JOB)
    assert answer.json() == {"id": ANY, "status": "IN_QUEUE"}
    serve(api)
    assert (await over(api, id_, answer.json()["id"]))["status"] == "COMPLETED"


async def test_what_was_queued_before_the_deployment_served_runs_when_it_does(api: Api) -> None:
    id_ = await waiting(api)
    jobs = [await run(api, id_) for _ in range(5)]
    assert (await health(api, id_))["jobs"]["inQueue"] == 5
    assert (await health(api, id_))["workers"]["ready"] == 0
    serve(api)
    for job in jobs:
        assert (await over(api, id_, job))["status"] == "COMPLETED"
    assert (await health(api, id_))["workers"]["idle"] == 1


async def test_the_models_refusal_is_the_jobs_error(api: Api) -> None:
    id_ = await ready(api)
    done = await over(api, id_, await run(api, id_, input={"nothing": 1}))
    assert done["status"] == "FAILED"
    assert "output" not in done
    told = json.loads(done["error"])
    assert (told["status"], told["code"]) == (400, "malformed_request")
    assert (await health(api, id_))["jobs"]["failed"] == 1


async def test_a_job_of_a_deployment_that_is_deleted_fails(api: Api) -> None:
    id_ = await waiting(api)
    job = await run(api, id_)
    assert (await api.owner.delete(f"/v1/deployments/{id_}")).status_code == 204
    refused = await api.owner.post(f"/v2/{id_}/run", json=JOB)
    problem(refused, 409, "deployment_over")
    await api.until(id_, "deleted")
    done = await over(api, id_, job)
    assert json.loads(done["error"])["code"] == "deployment_over"


async def test_a_queued_job_is_cancelled_once_and_for_all(api: Api) -> None:
    id_ = await waiting(api)
    job = await run(api, id_)
    for _ in range(2):
        answer = await api.owner.post(f"/v2/{id_}/cancel/{job}")
        assert answer.json() == {"id": job, "status": "CANCELLED"}
    serve(api)
    await over(api, id_, await run(api, id_))
    assert (await over(api, id_, job))["status"] == "CANCELLED"


async def test_what_is_over_is_not_cancelled(api: Api) -> None:
    id_ = await ready(api)
    job = await run(api, id_)
    await over(api, id_, job)
    answer = await api.owner.post(f"/v2/{id_}/cancel/{job}")
    assert answer.json() == {"id": job, "status": "COMPLETED"}


async def test_the_queue_is_purged(api: Api) -> None:
    id_ = await waiting(api)
    jobs = [await run(api, id_) for _ in range(4)]
    answer = await api.owner.post(f"/v2/{id_}/purge-queue")
    assert answer.json() == {"removed": 4, "status": "completed"}
    assert [(await over(api, id_, job))["status"] for job in jobs] == ["CANCELLED"] * 4
    assert (await api.owner.post(f"/v2/{id_}/purge-queue")).json()["removed"] == 0


async def test_a_stream_gives_the_output_once(api: Api) -> None:
    id_ = await ready(api)
    job = await run(api, id_)
    first, second = [(await api.owner.get(f"/v2/{id_}/stream/{job}")).json() for _ in range(2)]
    assert first["status"] == second["status"] == "COMPLETED"
    assert [chunk["output"]["outputs"] for chunk in first["stream"]] == [[1, 2, 3]]
    assert second["stream"] == []


async def test_results_are_forgotten_in_time(api: Api) -> None:
    id_ = await ready(api)
    job = await run(api, id_)
    await over(api, id_, job)
    store = api.service.store
    owner = await store.user_named("owner")
    assert owner is not None
    found = await store.job(job, owner.organization_id)
    assert found is not None
    assert found.ended_at is not None
    early = found.ended_at - timedelta(minutes=30)
    await store.commit([Update(replace(found, ended_at=early))])
    problem(await api.owner.get(f"/v2/{id_}/status/{job}"), 404, "job_not_found")
    problem(await api.owner.post(f"/v2/{id_}/cancel/{job}"), 404, "job_not_found")


async def test_a_job_whose_time_is_over_times_out(api: Api) -> None:
    """Though nobody takes it: its deployment does not serve."""
    id_ = await waiting(api)
    store, clock = api.service.store, api.service.clock
    job = await run(api, id_, policy={"ttl": 10_000})
    owner = await store.user_named("owner")
    assert owner is not None
    found = await store.job(job, owner.organization_id)
    assert found is not None
    await store.commit([Update(replace(found, created_at=clock.now() - timedelta(seconds=10)))])
    assert (await over(api, id_, job))["status"] == "TIMED_OUT"
    api.service.jobs.others_wrote()  # so that it is looked at now
    async with asyncio.timeout(10):
        while (await store.job_counts(id_)).by_state != {JobState.TIMED_OUT: 1}:  # noqa: ASYNC110  # no signal
            await asyncio.sleep(0.01)


async def test_the_same_key_makes_one_job(api: Api) -> None:
    id_ = await ready(api)
    key = {"idempotency-key": "once"}
    answers = await asyncio.gather(
        *(api.owner.post(f"/v2/{id_}/run", json=JOB, headers=key) for _ in range(5))
    )
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await api.owner.post(f"/v2/{id_}/run", json={"input": 2}, headers=key)
    problem(other, 409, "idempotency_key_reused")
    synchronous = [
        await api.owner.post(f"/v2/{id_}/runsync", json=JOB, headers={"idempotency-key": "sync"})
        for _ in range(2)
    ]
    assert synchronous[0].json() == synchronous[1].json()
    assert synchronous[1].headers["idempotent-replayed"] == "true"


# -- webhooks -----------------------------------------------------------------------------------------------


async def test_a_webhook_is_told_of_the_end_signed(api: Api) -> None:
    id_ = await ready(api)
    secret = (await api.owner.get("/v1/webhook-secret")).json()["secret"]
    good = await run(api, id_, webhook=api.receiver.hook)
    bad = await run(api, id_, webhook=api.receiver.hook, input=1)
    completed = await api.receiver.of_type("job.completed")
    failed = await api.receiver.of_type("job.failed")
    for message in (completed, failed):
        Webhook(secret).verify(message.body, message.headers)
    data = completed.json["data"]
    assert data["output"]["outputs"] == [1, 2, 3]
    assert (data["id"], data["status"], data["deployment_id"]) == (good, "COMPLETED", id_)
    assert data["status_url"] == f"{api.url}/v2/{id_}/status/{good}"
    assert (failed.json["data"]["id"], "output" in failed.json["data"]) == (bad, False)
    (first, second) = await api.settled(id_)
    assert {first["state"], second["state"]} == {"delivered"}


async def test_a_cancel_is_told_too(api: Api) -> None:
    id_ = await waiting(api)
    job = await run(api, id_, webhook=api.receiver.hook)
    await api.owner.post(f"/v2/{id_}/cancel/{job}")
    assert (await api.receiver.of_type("job.cancelled")).json["data"]["id"] == job


async def test_a_long_output_is_left_to_be_fetched(api: Api) -> None:
    id_ = await ready(api)
    job = await run(api, id_, webhook=api.receiver.hook, input={"inputs": "x" * 300_000})
    message = await api.receiver.of_type("job.completed")
    assert "output" not in message.json["data"]
    fetched = await api.owner.get(message.json["data"]["status_url"])
    assert fetched.json() == await over(api, id_, job)
    assert len(fetched.json()["output"]["outputs"]) == 300_000


# -- bad input ----------------------------------------------------------------------------------------------


BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({}, "input", "missing"),
    ({"input": None}, "input", "missing"),
    ({"input": 1, "webhok": "x"}, "webhok", "unknown_field"),
    ({"input": 1, "webhook": "http://93.184.215.14/"}, "webhook", "scheme"),
    ({"input": 1, "webhook": "https://10.0.0.1/"}, "webhook", "public_address"),
    ({"input": 1, "webhook": 5}, "webhook", "string_type"),
    ({"input": 1, "policy": {"ttl": 9_999}}, "policy.ttl", "range"),
    ({"input": 1, "policy": {"ttl": 604_800_001}}, "policy.ttl", "range"),
    ({"input": 1, "policy": {"executionTimeout": 4_999}}, "policy.executionTimeout", "range"),
    ({"input": 1, "policy": {"executionTimeout": 604_800_001}}, "policy.executionTimeout", "range"),
    ({"input": 1, "policy": {"executionTimeout": 10**400}}, "policy.executionTimeout", "range"),
    ({"input": 1, "policy": {"ttl": "10000"}}, "policy.ttl", "int_type"),
    ({"input": 1, "policy": {"lowPriority": 1}}, "policy.lowPriority", "bool_type"),
    ({"input": 1, "policy": {"priority": 1}}, "policy.priority", "unknown_field"),
    ({"input": 1, "s3Config": {"bucketName": "b"}}, "s3Config", "provider_takes_jobs"),
]


async def test_a_broken_rule_is_named_and_no_job_is_kept(api: Api, subtests: pytest.Subtests) -> None:
    id_ = await ready(api)
    for body, field, rule in BROKEN:
        for verb in ("run", "runsync"):
            with subtests.test(f"{verb} {body}"[:80]):
                answer = await api.owner.post(f"/v2/{id_}/{verb}", content=json.dumps(body), headers=_JSON)
                at_fault(answer, 422, f"body.{field}", rule)
    assert sum((await health(api, id_))["jobs"].values()) == 0


_JSON = {"content-type": "application/json"}


async def test_what_json_cannot_say_is_malformed(api: Api) -> None:
    id_ = await ready(api)
    for raw in (b'{"input": NaN}', b'{"input": [1e999]}', b'{"input": -Infinity}'):
        answer = await api.owner.post(f"/v2/{id_}/run", content=raw, headers=_JSON)
        at_fault(answer, 400, "body.input", "json")


async def test_any_text_goes_through(api: Api) -> None:
    id_ = await ready(api)
    for text in ("é\U0001f6a2\u0000", "\ud800"):
        raw = json.dumps({"input": {"inputs": text}})
        answer = await api.owner.post(f"/v2/{id_}/runsync", content=raw, headers=_JSON)
        assert answer.json()["status"] == "COMPLETED", answer.text
        assert json.loads(answer.text)["output"]["outputs"] == text


async def test_nesting_without_end_is_malformed(api: Api) -> None:
    id_ = await ready(api)
    for depth in (500, 900, 5_000, 60_000):
        raw = b'{"input": ' + b"[" * depth + b"]" * depth + b"}"
        answer = await api.owner.post(f"/v2/{id_}/run", content=raw, headers=_JSON)
        assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize(("verb", "most"), [("run", RUN_BYTES), ("runsync", RUNSYNC_BYTES)])
async def test_a_request_has_its_size(api: Api, verb: str, most: int) -> None:
    id_ = await waiting(api)
    frame = len(json.dumps({"input": ""}))
    fits = json.dumps({"input": "x" * (most - frame)})
    path = f"/v2/{id_}/{verb}"
    at_fault(await api.owner.post(path, content=fits + " ", headers=_JSON), 413, "body", "max_bytes")
    answer = await api.owner.post(
        path, content=fits, headers=_JSON, params={"wait": 1000} if "sync" in verb else {}
    )
    assert answer.json()["status"] == "IN_QUEUE", answer.text[:200]
    await api.owner.post(f"/v2/{id_}/purge-queue")


async def test_a_wait_has_its_range(api: Api) -> None:
    for wait in ("999", "300001", "x", "", "1e3"):
        answer = await api.owner.post(f"/v2/x/runsync?wait={wait}", json=JOB)
        assert problem(answer, 422)["errors"][0]["field"].startswith("query.wait")


async def test_an_unknown_job_a_foreign_one_and_a_forgotten_one_are_the_same(api: Api) -> None:
    one, other = await ready(api, name="one"), await ready(api, name="other")
    job = await run(api, one)
    for id_ in ("nothing", "0f8fad5b-d9cb-469f-a165-70867728950e-u1", "..%2f..%2fhealth", "x" * 200, job):
        for method, verb in (("GET", "status"), ("GET", "stream"), ("POST", "cancel")):
            answer = await api.owner.request(method, f"/v2/{other}/{verb}/{id_}")
            problem(answer, 404, "job_not_found" if "%2f" not in id_ else None)
    for path in ("status/x", "health"):
        problem(await api.owner.get(f"/v2/no-such/{path}"), 404, "deployment_not_found")
    assert (await over(api, one, job))["status"] == "COMPLETED"


async def test_a_full_queue_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage.services.jobs.QUEUE_JOBS", 2)
    id_ = await waiting(api)
    for _ in range(2):
        await run(api, id_)
    answer = await api.owner.post(f"/v2/{id_}/run", json=JOB)
    problem(answer, 429, "queue_full")
    assert int(answer.headers["retry-after"]) > 0


# -- RunPod's own client ------------------------------------------------------------------------------------


@pytest.fixture
def base_url(api: Api, monkeypatch: pytest.MonkeyPatch) -> str:
    """What RUNPOD_ENDPOINT_BASE_URL sets, which the package reads when it is imported."""
    monkeypatch.setattr(runpod, "endpoint_url_base", f"{api.url}/v2")
    return f"{api.url}/v2"


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


async def test_the_runpod_package_works(api: Api, base_url: str) -> None:
    await ready(api, name="digits")
    key = await api.key(Role.INVOKER)

    def use() -> None:
        endpoint = runpod.Endpoint("digits", api_key=key)
        job = endpoint.run({"inputs": [1, 2]})
        assert job.output(timeout=20)["outputs"] == [1, 2]
        assert job.status() == "COMPLETED"
        assert endpoint.run_sync({"input": {"inputs": "x"}}, timeout=20)["outputs"] == "x"
        assert endpoint.health()["jobs"]["completed"] == 2
        assert endpoint.health()["workers"]["ready"] == 1
        assert [chunk["outputs"] for chunk in endpoint.run({"inputs": "chunk"}).stream()] == ["chunk"]
        failing = endpoint.run({"input": {"neither": 1}})
        while failing.status() != "FAILED":
            time.sleep(0.05)
        assert failing.output() is None

    await in_thread(use)


async def test_the_runpod_package_cancels_and_purges(api: Api, base_url: str) -> None:
    id_ = await waiting(api)
    key = await api.key(Role.INVOKER)

    def use() -> None:
        endpoint = runpod.Endpoint(id_, api_key=key)
        job = endpoint.run({"inputs": 1})
        assert job.status() == "IN_QUEUE"
        assert job.cancel() == {"id": job.job_id, "status": "CANCELLED"}
        assert job.status() == "CANCELLED"
        endpoint.run({"inputs": 2})
        assert endpoint.purge_queue() == {"removed": 1, "status": "completed"}

    await in_thread(use)


async def test_the_runpod_package_hears_of_a_wrong_key_and_an_unknown_endpoint(
    api: Api, base_url: str
) -> None:
    id_ = await ready(api)
    key = await api.key(Role.INVOKER)

    def use() -> None:
        with pytest.raises(RuntimeError, match="401"):
            runpod.Endpoint(id_, api_key="mrg_" + "x" * 43).run({"inputs": 1})
        with pytest.raises(Exception, match="404"):
            runpod.Endpoint("nobody", api_key=key).health()

    await in_thread(use)


async def test_the_asynchronous_client_of_the_runpod_package_works(api: Api, base_url: str) -> None:
    id_ = await ready(api)
    async with ClientSession() as session:
        endpoint = AsyncioEndpoint(id_, session, api_key=await api.key(Role.INVOKER))
        job = await endpoint.run({"inputs": [5]})
        assert (await job.output(timeout=20))["outputs"] == [5]
        assert await job.status() == "COMPLETED"
        assert (await endpoint.health())["jobs"]["completed"] == 1
        assert await endpoint.purge_queue() == {"removed": 0, "status": "completed"}
        assert (await job.cancel())["status"] == "COMPLETED"


async def test_no_log_line_has_an_input_or_an_output(
    api: Api, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    id_ = await ready(api)
    for body in ({"inputs": "sesame-open"}, {"neither": "sesame-open"}):
        await api.owner.post(f"/v2/{id_}/runsync", json={"input": body})
    told = capsys.readouterr()
    assert "job.ran" in told.out + told.err + caplog.text, "else this proves nothing"
    assert "sesame" not in told.out + told.err + caplog.text


async def test_a_model_is_no_deployment_here(api: Api) -> None:
    await ready(api)
    answer = await api.owner.post(f"/v2/{httpx.URL(MODEL).path.replace('/', '%2F')}/run", json=JOB)
    problem(answer, 404)
