"""One deployment on RunPod from the key to its absence, and everything that RunPod can do in between."""

from __future__ import annotations

import json

import pytest
from standardwebhooks import Webhook

from moorage_runpod.testing import KEY
from moorage_runpod.testing.drift import drift

from .conftest import MODEL, Harbour


async def test_from_the_key_to_nothing_left(port: Harbour) -> None:
    """The key is the bearer token: plan, create, fall to the next pool, ready, webhook, infer, delete."""
    plan = (await port.user.post("/v1/deployments/plan", json={"hf_model_id": MODEL})).json()
    pools = [rung["gpu"] for rung in plan["ladder"]]
    assert len(pools) > 2
    prices = [rung["price_per_hour"] for rung in plan["ladder"]]
    assert prices == sorted(prices)
    first = port.fake.catalog
    assert first is not None
    offers = (await port.user.get("/v1/gpus")).json()["items"]
    port.fake.faults.throttled_pools = frozenset({offers[0]["id"]})

    id_ = await port.deploy(user_webhook_url=port.hook)
    ready = await port.until(id_, "ready")
    assert (ready["provider"], ready["attempts"], ready["runtime"]) == ("runpod", 2, "diffusers")
    happened = await port.happened(id_)
    assert happened.count("deployment.capacity_fallback") == 1
    assert happened.index("deployment.capacity_fallback") < happened.index("deployment.endpoint_removed")
    answer = await port.user.post(f"/v1/models/{id_}/infer", json={"inputs": "a harbour"})
    assert answer.status_code == 200, answer.text
    assert "a harbour" in answer.text

    secret = (await port.user.get("/v1/webhook-secret")).json()["secret"]
    told = [json.loads(body)["type"] for _, body in port.messages]
    assert "deployment.ready" in told
    for headers, body in port.messages:
        Webhook(secret).verify(body, dict(headers))

    await port.delete(id_)
    assert port.fake.endpoints == []


async def test_others_do_not_try_the_pool_that_was_just_refused(port: Harbour) -> None:
    offers = (await port.user.get("/v1/gpus")).json()["items"]
    port.fake.faults.absent_pools = frozenset({offers[0]["id"]})
    first, second = await port.deploy(), ""
    assert (await port.until(first, "ready"))["attempts"] == 2
    second = await port.deploy()
    assert (await port.until(second, "ready"))["attempts"] == 1
    await port.delete(first)
    await port.delete(second)


async def test_a_crash_loop_fails_with_the_logs_last_lines(port: Harbour) -> None:
    port.fake.faults.crash_loops = frozenset({"*"})
    id_ = await port.deploy()
    failed = await port.until(id_, "failed")
    assert failed["error"]["code"] == "crash_loop"
    assert "No module named 'weights'" in failed["error"]["detail"]
    assert port.fake.endpoints == []
    assert (await port.happened(id_)).count("deployment.capacity_fallback") == 0


@pytest.mark.parametrize("kind", ["lost_answer", "truncated", "html", "bad_gateway", "unavailable"])
async def test_answers_that_get_lost_double_nothing(port: Harbour, kind: str) -> None:
    port.fake.faults.arm("POST /v2/serverless", kind, times=2)
    id_ = await port.deploy()
    await port.until(id_, "ready")
    assert len(port.fake.endpoints) == 1
    port.fake.faults.arm("DELETE /v2/serverless/*", kind, times=2)
    await port.delete(id_)
    assert port.fake.endpoints == []


async def test_a_quota_lowers_the_workers_or_fails_clearly(port: Harbour) -> None:
    port.fake.faults.workers_quota = 2
    id_ = await port.deploy(workers_max=5)
    await port.until(id_, "ready")
    (endpoint,) = port.fake.endpoints
    assert endpoint.spec.workers_max == 2
    other = await port.deploy()
    failed = await port.until(other, "failed")
    assert failed["error"]["code"] == "quota_exceeded"
    assert "quota" in failed["error"]["detail"]
    await port.delete(id_)


async def test_a_limit_of_requests_is_waited_out(port: Harbour) -> None:
    port.fake.faults.arm("POST /v2/serverless", "rate_limited", times=2, seconds=0.3)
    id_ = await port.deploy()
    await port.until(id_, "ready")
    assert "deployment.setback" in await port.happened(id_)
    await port.delete(id_)


async def test_drift_is_told_and_put_back(port: Harbour) -> None:
    id_ = await port.deploy()
    await port.until(id_, "ready")
    (endpoint,) = port.fake.endpoints
    asked = endpoint.spec.workers_max
    assert drift(port.fake.cloud, endpoint.id, 0) == 1
    await port.fake.came(lambda: port.fake.sent("PATCH /v2/serverless/{id}"))
    told = await port.told(id_, "deployment.drift_corrected")
    assert "workers" in told["message"]
    (endpoint,) = port.fake.endpoints
    assert endpoint.spec.workers_max == asked
    assert (await port.read(id_))["status"] == "ready"
    await port.delete(id_)


async def test_nothing_is_ready_while_a_worker_only_initialises(port: Harbour) -> None:
    port.fake.faults.never_ready = frozenset({"*"})
    id_ = await port.deploy()
    await port.until(id_, "loading_model")
    await port.fake.came(lambda: len(port.fake.sent("GET /v2/serverless/{id}/workers")) > 3)
    assert (await port.read(id_))["status"] == "loading_model"
    port.fake.faults.never_ready = frozenset()
    await port.until(id_, "ready")
    await port.delete(id_)


async def test_a_load_balancer_answers_too(port: Harbour) -> None:
    id_ = await port.deploy(endpoint_type="load_balancer")
    await port.until(id_, "ready")
    answer = await port.user.post(f"/v1/models/{id_}/infer", json={"inputs": 1})
    assert answer.status_code == 200, answer.text
    await port.delete(id_)


async def test_keys_that_are_refused_or_may_too_little(port: Harbour) -> None:
    async with port.client("rpa_" + "X" * 44) as stranger:
        answer = await stranger.get("/v1/deployments")
        assert (answer.status_code, answer.json()["code"]) == (401, "provider_key_refused")
    port.fake.faults.denied_scopes = frozenset({"serverless:read", "serverless:write"})
    async with port.client(KEY) as owner:
        answer = await owner.get("/v1/deployments")
        assert (answer.status_code, answer.json()["code"]) == (403, "provider_permission_missing")


async def test_an_unknown_pool_is_refused_with_what_there_is(port: Harbour) -> None:
    answer = await port.user.post("/v1/deployments", json={"hf_model_id": MODEL, "gpu_tier": "H900"})
    assert (answer.status_code, answer.json()["code"]) == (422, "does_not_fit")
    assert "drop gpu_tier" in answer.json()["advice"]
    assert (await port.user.get("/v1/deployments")).json()["items"] == []
