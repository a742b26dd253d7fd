"""Workers tell their state with the secret of their endpoint: it is heard at once, and nothing else is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any  # JSON of the API

import httpx
import pytest
from standardwebhooks import Webhook

from moorage.ports.provider import RevisionPlan

from .conftest import Api, problem


async def loading(api: Api) -> tuple[str, RevisionPlan, str]:
    """A deployment that loads for ever: its id, what its provider was told, and its endpoint's name."""
    api.compute.faults.never_ready.add("cpu")
    id_ = await api.deploy()
    await api.until(id_, "loading_model")
    ((name, endpoint),) = api.compute.endpoints.items()
    return id_, endpoint.plan, name


def said(name: str, state: str, **more: Any) -> dict[str, Any]:
    return {"endpoint": name, "worker": "w1", "state": state, **more}


async def tell(
    api: Api,
    plan: RevisionPlan,
    name: str,
    body: dict[str, Any],
    *,
    secret: str | None = None,
    age: float = 0,
) -> httpx.Response:
    assert plan.callback is not None
    assert plan.callback.url == f"{api.url}/v1/workers/{name}/state"
    text = json.dumps(body)
    at = datetime.now(UTC) - timedelta(seconds=age)
    headers = {
        "content-type": "application/json",
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret or plan.callback.secret).sign("msg_1", at, text),
    }
    async with api.client(None) as worker:
        return await worker.post(plan.callback.url, content=text, headers=headers)


async def test_a_report_is_shown_and_told(api: Api) -> None:
    id_, plan, name = await loading(api)
    for percent in (10, 40, 40):
        answer = await tell(api, plan, name, said(name, "loading", stage="downloading", percent=percent))
        assert answer.status_code == 204, answer.text
    shown = (await api.read(id_))["loading"]
    assert (shown["state"], shown["stage"], shown["percent"]) == ("loading", "downloading", 40)
    events = (await api.owner.get(f"/v1/deployments/{id_}/events")).json()["items"]
    assert [e["type"] for e in events].count("worker.loading") == 1, "a stage is an event, a per cent is none"


async def test_ready_makes_the_engine_look_at_once(api: Api) -> None:
    id_, plan, name = await loading(api)
    api.compute.faults.never_ready.clear()  # nobody tells the engine, and its next look is seconds away
    looks = api.compute.calls["observe"]
    answer = await tell(api, plan, name, said(name, "ready", load_seconds=4.2, from_cache=True))
    assert answer.status_code == 204
    await api.until(id_, "ready", seconds=2)
    assert api.compute.calls["observe"] > looks
    late = await tell(api, plan, name, said(name, "loading", stage="loading"))
    assert late.status_code == 204, "another worker that loads is no news of an endpoint that was ready"
    assert (await api.read(id_))["loading"]["state"] == "ready"


async def test_failed_fails_the_deployment_with_the_cause_and_nothing_left(api: Api) -> None:
    id_, plan, name = await loading(api)
    await tell(api, plan, name, said(name, "failed", cause="CUDA out of memory"))
    failed = await api.until(id_, "failed")
    assert failed["error"]["code"] == "worker_failed"
    assert "CUDA out of memory" in failed["error"]["detail"]
    assert api.compute.endpoints == {}
    problem(await tell(api, plan, name, said(name, "ready")), 404, "endpoint_not_found")


async def test_a_worker_that_fails_beside_ones_that_serve_ends_nothing(api: Api) -> None:
    id_ = await api.deploy()
    await api.until(id_, "ready")
    ((name, endpoint),) = api.compute.endpoints.items()
    await tell(api, endpoint.plan, name, said(name, "failed", cause="a bad host"))
    assert (await api.owner.post(f"/v1/models/{id_}/infer", json={"inputs": 1})).status_code == 200
    assert (await api.read(id_))["status"] == "ready"


async def test_nobody_else_is_heard(api: Api, subtests: pytest.Subtests) -> None:
    id_, plan, name = await loading(api)
    other = f"{name[:-1]}9"
    wrong = "whsec_" + "A" * 43 + "="
    with subtests.test("another secret"):
        problem(await tell(api, plan, name, said(name, "failed"), secret=wrong), 401, "wrong_signature")
    with subtests.test("an old signature"):
        problem(await tell(api, plan, name, said(name, "failed"), age=600), 401, "wrong_signature")
    with subtests.test("a changed body"):
        assert plan.callback is not None
        at = datetime.now(UTC)
        headers = {
            "webhook-id": "m",
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(plan.callback.secret).sign("m", at, "{}"),
        }
        async with api.client(None) as worker:
            answer = await worker.post(plan.callback.url, json=said(name, "failed"), headers=headers)
            problem(answer, 401, "wrong_signature")
            foreign = plan.callback.url.replace(name, other)
            problem(await worker.post(foreign, json=said(other, "failed"), headers=headers), 401)
    with subtests.test("a state that is none"):
        problem(await tell(api, plan, name, said(name, "bored")), 422, "invalid_request")
    assert (await api.read(id_))["loading"] is None
    assert (await api.read(id_))["status"] == "loading_model"


async def test_a_deployment_without_the_shared_cache_gets_no_list(api: Api) -> None:
    _, plan, name = await loading(api)
    assert plan.callback is not None
    at = datetime.now(UTC)
    headers = {
        "webhook-id": "m",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(plan.callback.secret).sign("m", at, ""),
    }
    async with api.client(None) as worker:
        path = f"/v1/workers/{name}/cache"
        problem(await worker.get(path, headers=headers), 404, "not_cached")
        problem(await worker.get(path, headers={**headers, "webhook-id": "n"}), 401, "wrong_signature")
