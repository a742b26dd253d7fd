"""Who may do what, and that one organization sees nothing of another: each route, each role.

The routes are read from the service's own OpenAPI document. A route that is added without a line in `CASES`
fails here, so that nobody forgets to decide who may call it and what a stranger gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any  # JSON of the API

import httpx
import pytest

from moorage.domain.delivery import Delivery, DeliveryState
from moorage.domain.identity import Organization, Role, User
from moorage.ports import Insert

from .conftest import MODEL, PASSWORD, Api

ADMINS = frozenset({Role.OWNER, Role.ADMIN})
DEPLOYERS = ADMINS | {Role.DEPLOYER}
READERS = DEPLOYERS | {Role.VIEWER}
INVOKERS = DEPLOYERS | {Role.INVOKER}
HOOK = "https://127.0.0.1:9/our-secret-hook"


class Stranger(Enum):
    """What an owner of another organization gets who knows our ids."""

    HIDDEN = auto()  # 404, as if it did not exist
    EMPTY = auto()  # a list without ours
    OWN = auto()  # it is about the caller's own organization, and shows nothing of ours


@dataclass(frozen=True)
class Case:
    allowed: frozenset[Role]
    stranger: Stranger
    body: Mapping[str, Any] | None = None


# In the order in which they are called: what deletes comes last.
CASES: dict[tuple[str, str], Case] = {
    ("POST", "/v1/models/{model}/infer"): Case(INVOKERS, Stranger.HIDDEN, {"inputs": 1}),
    ("GET", "/v1/deployments"): Case(READERS, Stranger.EMPTY),
    ("POST", "/v1/deployments/plan"): Case(READERS, Stranger.OWN, {"hf_model_id": MODEL}),
    ("GET", "/v1/deployments/{deployment_id}"): Case(READERS, Stranger.HIDDEN),
    ("GET", "/v1/deployments/{deployment_id}/events"): Case(READERS, Stranger.HIDDEN),
    ("GET", "/v1/deployments/{deployment_id}/logs"): Case(READERS, Stranger.HIDDEN),
    ("GET", "/v1/webhook-secret"): Case(ADMINS, Stranger.OWN),
    ("POST", "/v1/webhook-secret/rotate"): Case(ADMINS, Stranger.OWN),
    ("GET", "/v1/deliveries"): Case(READERS, Stranger.EMPTY),
    ("POST", "/v1/deliveries/{delivery_id}/resend"): Case(ADMINS, Stranger.HIDDEN),
    ("GET", "/v1/keys"): Case(ADMINS, Stranger.EMPTY),
    ("DELETE", "/v1/keys/{key_id}"): Case(ADMINS, Stranger.HIDDEN),
    ("DELETE", "/v1/deployments/{deployment_id}"): Case(DEPLOYERS, Stranger.HIDDEN),
    ("POST", "/v1/keys"): Case(ADMINS, Stranger.OWN, {"name": "new", "role": "viewer"}),
    ("POST", "/v1/deployments"): Case(DEPLOYERS, Stranger.OWN, {"hf_model_id": MODEL}),
}
PUBLIC = {("POST", "/auth/token"), ("GET", "/health")}


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
    secret = (await api.owner.get("/v1/webhook-secret")).json()["secret"]
    ids = {
        "deployment_id": deployment_id,
        "model": deployment_id,
        "delivery_id": delivery.id,
        "key_id": made["id"],
    }
    return Ours(ids, ("our-deployment", "our-key", made["hint"], HOOK, secret, owner.organization_id))


async def _stranger(api: Api) -> str:
    """The Authorization of another organization's owner; there is no route that makes one."""
    store, new_id, now = api.service.store, api.service.new_id, api.service.clock.now()
    mine = await store.user_named("owner")
    assert mine is not None
    other = Organization(new_id("org"), "strangers", now)
    user = User(new_id("usr"), other.id, "stranger", mine.password_hash, Role.OWNER, now)
    await store.commit([Insert(other), Insert(user)])
    answer = await api.owner.post("/auth/token", json={"username": "stranger", "password": PASSWORD})
    return f"Bearer {answer.json()['token']}"


async def _call(
    api: Api, authorization: str | None, method: str, path: str, case: Case, **more: str
) -> httpx.Response:
    headers = more if authorization is None else {"authorization": authorization, **more}
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as anybody:
        return await anybody.request(method, path, json=case.body, headers=headers)


async def test_every_route_has_a_case(api: Api) -> None:
    paths = (await api.owner.get("/openapi.json")).json()["paths"]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert routes == CASES.keys() | PUBLIC, "decide in CASES who may call it, and what a stranger gets"


async def test_every_route_but_the_public_ones_needs_a_token(api: Api, subtests: pytest.Subtests) -> None:
    for (method, template), case in CASES.items():
        with subtests.test(f"{method} {template}"):
            path = template.format(deployment_id="dep_x", model="dep_x", delivery_id="msg_x", key_id="key_x")
            answer = await _call(api, None, method, path, case)
            assert answer.status_code == 401, answer.text
            assert answer.json()["code"] == "missing_credentials"
            assert answer.headers["www-authenticate"].startswith("Bearer")
    async with httpx.AsyncClient(base_url=api.url) as anybody:
        assert (await anybody.get("/health")).status_code == 200


async def test_each_role_may_do_what_it_is_for_and_no_more(api: Api, subtests: pytest.Subtests) -> None:
    ours = await _ours(api)
    keys = {}
    for role in Role:
        made = await api.owner.post("/v1/keys", json={"name": role.value, "role": role.value})
        keys[role] = f"Bearer {made.json()['key']}"
    for (method, template), case in CASES.items():
        for role in sorted(Role, key=lambda role: role in case.allowed):  # the refused first: nothing is done
            with subtests.test(f"{role} {method} {template}"):
                answer = await _call(api, keys[role], method, ours.path(template), case)
                if role in case.allowed:
                    assert answer.status_code not in (401, 403, 404, 405, 422, 500), answer.text
                else:
                    assert answer.status_code == 403, answer.text
                    assert answer.headers["content-type"] == "application/problem+json"
                    assert role.value in answer.json()["detail"]


async def test_a_role_is_given_and_taken_only_by_those_above_it(api: Api) -> None:
    made = {}
    for role in Role:
        made[role] = (await api.owner.post("/v1/keys", json={"name": "x", "role": role.value})).json()
    admin = {"authorization": f"Bearer {made[Role.ADMIN]['key']}"}
    refused = await api.owner.post("/v1/keys", json={"name": "x", "role": "owner"}, headers=admin)
    assert (refused.status_code, refused.json()["code"]) == (403, "role_not_grantable")
    refused = await api.owner.delete(f"/v1/keys/{made[Role.OWNER]['id']}", headers=admin)
    assert (refused.status_code, refused.json()["code"]) == (403, "role_not_grantable")
    assert (await api.owner.delete(f"/v1/keys/{made[Role.VIEWER]['id']}", headers=admin)).status_code == 200
    owner = {"authorization": f"Bearer {made[Role.OWNER]['key']}"}
    assert (await api.owner.get("/v1/keys", headers=owner)).status_code == 200, "it was not taken"


async def test_a_stranger_who_knows_our_ids_gets_nothing(api: Api, subtests: pytest.Subtests) -> None:
    ours, stranger = await _ours(api), await _stranger(api)
    views = [
        f"/v1/deployments/{ours.ids['deployment_id']}/events",
        "/v1/deliveries",
        "/v1/keys",
        "/v1/webhook-secret",
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
                assert answer.json()["items"] == []
            else:
                assert answer.is_success, answer.text
                assert not [id_ for id_ in ours.ids.values() if id_ in answer.text]
    assert [(await api.owner.get(view)).json() for view in views] == before
    assert (await api.owner.get("/v1/deployments")).json()["items"][0]["status"] == "ready"
    assert len((await api.owner.get("/v1/deployments")).json()["items"]) == 1


async def test_filters_cursors_and_streams_open_no_side_door(api: Api, subtests: pytest.Subtests) -> None:
    ours, stranger = await _ours(api), {"authorization": await _stranger(api)}
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
