"""One organization sees and changes nothing of another, on every route, though it knows every id.

The routes are read from the service's own OpenAPI document. A route that is added without a line in `CASES`
fails here, so that nobody forgets to decide what a stranger gets. `test_roles` has who may call what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any  # JSON of the API

import httpx
import pytest

from moorage.api.byoc import PREFIX as BYOC
from moorage.api.clusters import PREFIX as CLUSTERS
from moorage.domain.delivery import Delivery, DeliveryState
from moorage.ports.store import Insert

from .conftest import MODEL, VENDOR_TOKEN, Api

CREDENTIAL = {"provider": "vendor", "name": "account", "values": {"token": VENDOR_TOKEN}}
ELSEWHERE = (BYOC, CLUSTERS)  # in `test_byoc` and `test_clusters`
CUSTOM = {"name": "a-model", "version": "1", "hf_model_id": MODEL}
HOOK = "https://127.0.0.1:9/our-secret-hook"


class Stranger(Enum):
    """What an owner of another organization gets who knows our ids."""

    HIDDEN = auto()  # 404, as if it did not exist
    EMPTY = auto()  # a list without ours
    OWN = auto()  # it is about the caller's own organization, and shows nothing of ours


@dataclass(frozen=True)
class Case:
    stranger: Stranger
    body: Mapping[str, Any] | None = None


# In the order in which they are called: what deletes comes last.
CASES: dict[tuple[str, str], Case] = {
    ("POST", "/v1/models/{model}/infer"): Case(Stranger.HIDDEN, {"inputs": 1}),
    ("POST", "/v2/{deployment}/run"): Case(Stranger.HIDDEN, {"input": 1}),
    ("POST", "/v2/{deployment}/runsync"): Case(Stranger.HIDDEN, {"input": 1}),
    ("GET", "/v2/{deployment}/status/{job}"): Case(Stranger.HIDDEN),
    ("GET", "/v2/{deployment}/stream/{job}"): Case(Stranger.HIDDEN),
    ("POST", "/v2/{deployment}/cancel/{job}"): Case(Stranger.HIDDEN),
    ("POST", "/v2/{deployment}/purge-queue"): Case(Stranger.HIDDEN),
    ("GET", "/v2/{deployment}/health"): Case(Stranger.HIDDEN),
    ("GET", "/v1/deployments"): Case(Stranger.EMPTY),
    ("POST", "/v1/deployments/plan"): Case(Stranger.OWN, {"hf_model_id": MODEL}),
    ("GET", "/v1/deployments/{deployment_id}"): Case(Stranger.HIDDEN),
    ("GET", "/v1/deployments/{deployment_id}/events"): Case(Stranger.HIDDEN),
    ("GET", "/v1/deployments/{deployment_id}/logs"): Case(Stranger.HIDDEN),
    ("GET", "/v1/deployments/{deployment_id}/cost"): Case(Stranger.HIDDEN),
    ("PATCH", "/v1/deployments/{deployment_id}"): Case(Stranger.HIDDEN, {"max_replicas": 2}),
    ("POST", "/v1/deployments/{deployment_id}/scale"): Case(Stranger.HIDDEN, {"min_replicas": 2}),
    ("POST", "/v1/deployments/{deployment_id}/stop"): Case(Stranger.HIDDEN),
    ("POST", "/v1/deployments/{deployment_id}/start"): Case(Stranger.HIDDEN),
    ("POST", "/v1/deployments/{deployment_id}/wake"): Case(Stranger.HIDDEN),
    ("GET", "/v1/gpus"): Case(Stranger.OWN),
    ("GET", "/v1/credentials"): Case(Stranger.EMPTY),
    ("DELETE", "/v1/credentials/{credential_id}"): Case(Stranger.HIDDEN),
    ("POST", "/v1/credentials"): Case(Stranger.OWN, CREDENTIAL),
    ("GET", "/models"): Case(Stranger.EMPTY),
    ("GET", "/models/{model_id}"): Case(Stranger.HIDDEN),
    ("DELETE", "/models/{model_id}"): Case(Stranger.HIDDEN),
    ("POST", "/models"): Case(Stranger.OWN, CUSTOM),
    ("GET", "/v1/webhook-secret"): Case(Stranger.OWN),
    ("POST", "/v1/webhook-secret/rotate"): Case(Stranger.OWN),
    ("GET", "/v1/deliveries"): Case(Stranger.EMPTY),
    ("POST", "/v1/deliveries/{delivery_id}/resend"): Case(Stranger.HIDDEN),
    ("GET", "/v1/keys"): Case(Stranger.EMPTY),
    ("DELETE", "/v1/keys/{key_id}"): Case(Stranger.HIDDEN),
    ("DELETE", "/v1/deployments/{deployment_id}"): Case(Stranger.HIDDEN),
    ("POST", "/v1/keys"): Case(Stranger.OWN, {"name": "new", "role": "viewer"}),
    ("POST", "/v1/deployments"): Case(Stranger.OWN, {"hf_model_id": MODEL}),
}
PUBLIC = {
    ("POST", "/auth/token"),
    ("GET", "/health"),
    ("GET", "/ready"),
    # with the signature of an endpoint's own workers, which `test_worker_reports` tries
    ("POST", "/v1/workers/{endpoint}/state"),
    ("GET", "/v1/workers/{endpoint}/cache"),
}


@dataclass(frozen=True)
class Ours:
    """One of everything that an organization can own, and what must never be read outside of it."""

    ids: Mapping[str, str]
    secrets: tuple[str, ...]

    def path(self, template: str) -> str:
        return template.format(**self.ids)


async def _ours(api: Api) -> Ours:
    deployment_id = await api.deploy(name="our-deployment")
    await api.until(deployment_id, "ready")
    made = (await api.owner.post("/v1/keys", json={"name": "our-key", "role": "viewer"})).json()
    owner = await api.service.store.user_named("owner")
    assert owner is not None
    delivery = Delivery(
        api.service.new_id("msg"),
        owner.organization_id,
        deployment_id,
        "deployment.ready",
        HOOK,
        "{}",
        api.service.clock.now(),
        DeliveryState.DELIVERED,
    )
    await api.service.store.commit([Insert(delivery)])
    stored = (await api.owner.post("/v1/credentials", json={**CREDENTIAL, "name": "our-account"})).json()
    model = (await api.owner.post("/models", json={**CUSTOM, "name": "our-own-model"})).json()
    secret = (await api.owner.get("/v1/webhook-secret")).json()["secret"]
    body = {"input": {"inputs": "our-input"}}
    job = (await api.owner.post(f"/v2/{deployment_id}/runsync", json=body)).json()
    assert job["output"]["outputs"] == "our-input"
    ids = {
        "deployment_id": deployment_id,
        "deployment": deployment_id,
        "job": job["id"],
        "model": deployment_id,
        "delivery_id": delivery.id,
        "key_id": made["id"],
        "credential_id": stored["id"],
        "model_id": model["uuid"],
    }
    words = ("our-deployment", "our-key", "our-account", "our-input", "our-own-model")
    return Ours(ids, (*words, made["hint"], HOOK, secret, owner.organization_id))


async def _call(
    api: Api, authorization: str | None, method: str, path: str, case: Case, **more: str
) -> httpx.Response:
    headers = more if authorization is None else {"authorization": authorization, **more}
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as anybody:
        return await anybody.request(method, path, json=case.body, headers=headers)


async def test_every_route_has_a_case(api: Api) -> None:
    paths = (await api.owner.get("/openapi.json")).json()["paths"]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    routes = {(method, path) for method, path in routes if not path.startswith(ELSEWHERE)}
    assert routes == CASES.keys() | PUBLIC, "decide in CASES what a stranger gets"


async def test_a_stranger_who_knows_our_ids_gets_nothing(api: Api, subtests: pytest.Subtests) -> None:
    ours, stranger = await _ours(api), await api.stranger()
    views = [
        f"/v1/deployments/{ours.ids['deployment_id']}/events",
        "/v1/deliveries",
        "/v1/keys",
        "/v1/credentials",
        "/models",
        "/v1/webhook-secret",
        f"/v2/{ours.ids['deployment']}/status/{ours.ids['job']}",
        f"/v2/{ours.ids['deployment']}/health",
    ]
    before = [(await api.owner.get(view)).json() for view in views]
    for (method, template), case in CASES.items():
        with subtests.test(f"{method} {template}"):
            answer = await _call(api, stranger, method, ours.path(template), case)
            assert not [secret for secret in ours.secrets if secret in answer.text]
            if case.stranger is Stranger.HIDDEN:
                unknown = template.format(**dict.fromkeys(ours.ids, "no-such-id"))
                never = await _call(api, stranger, method, unknown, case)
                assert answer.status_code == never.status_code == 404, answer.text
                assert answer.json()["code"] == never.json()["code"], "or one learns that it exists"
            elif case.stranger is Stranger.EMPTY:
                assert answer.json() in ([], {"items": []}, {"items": [], "next_cursor": None})
            else:
                assert answer.is_success, answer.text
                assert not [id_ for id_ in ours.ids.values() if id_ in answer.text]
    assert [(await api.owner.get(view)).json() for view in views] == before
    assert (await api.owner.get("/v1/deployments")).json()["items"][0]["status"] == "ready"
    assert len((await api.owner.get("/v1/deployments")).json()["items"]) == 1


async def test_filters_cursors_and_streams_open_no_side_door(api: Api, subtests: pytest.Subtests) -> None:
    ours, stranger = await _ours(api), {"authorization": await api.stranger()}
    await api.deploy()
    cursor = (await api.owner.get("/v1/deployments", params={"limit": 1})).json()["next_cursor"]
    assert len((await api.owner.get("/v1/deployments", params={"cursor": cursor})).json()["items"]) == 1
    for path, query in (
        ("/v1/deployments", {"name": "our-deployment"}),
        ("/v1/deployments", {"model": MODEL}),
        ("/v1/deployments", {"cursor": cursor}),
        ("/v1/deliveries", {"deployment_id": ours.ids["deployment_id"]}),
        ("/v1/deliveries", {"state": "delivered"}),
    ):
        with subtests.test(f"{path} {query}"):
            mine = await api.owner.get(path, params=query)
            assert mine.json()["items"], "else this proves nothing"
            assert (await api.owner.get(path, params=query, headers=stranger)).json()["items"] == []
    for part in ("events", "logs"):
        with subtests.test(f"stream of {part}"):
            path = f"/v1/deployments/{ours.ids['deployment_id']}/{part}"
            headers = {**stranger, "accept": "text/event-stream"}
            assert (await api.owner.get(path, headers=headers)).status_code == 404
    for model in ("our-deployment", MODEL):
        with subtests.test(f"inference by {model}"):
            infer = f"/v1/models/{model}/infer"
            assert (await api.owner.post(infer, json={"inputs": 1})).status_code != 404
            assert (await api.owner.post(infer, json={"inputs": 1}, headers=stranger)).status_code == 404
    with subtests.test("a name is taken in its own organization only"):
        body = {"hf_model_id": MODEL, "name": "our-deployment"}
        assert (await api.owner.post("/v1/deployments", json=body)).json()["code"] == "name_taken"
        assert (await api.owner.post("/v1/deployments", json=body, headers=stranger)).status_code == 202
