"""Who may do what, route by route. What another organization gets is in `test_isolation`.

The table has a row for every route that the application's routers hold. A new route without a row fails.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any  # JSON of the API

import httpx
import pytest
import pytest_asyncio
from fastapi import APIRouter
from fastapi.routing import APIRoute

import moorage.api
from moorage.api.byoc import PREFIX as BYOC
from moorage.api.clusters import PREFIX as CLUSTERS
from moorage.domain.identity import Role

from .conftest import MODEL, VENDOR_TOKEN, Api, problem

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEPLOYERS = frozenset({Role.OWNER, Role.ADMIN, Role.DEPLOYER})
READERS = DEPLOYERS | {Role.VIEWER}
INVOKERS = DEPLOYERS | {Role.INVOKER}
MANAGERS = frozenset({Role.OWNER, Role.ADMIN})
OWNED = ("deployments", "api_keys", "provider_credentials", "jobs", "model_versions")
JOB = {"input": {"inputs": [1]}}
ELSEWHERE = (BYOC, CLUSTERS)  # in `test_byoc` and `test_clusters`
ANYBODY = None  # needs no credentials at all


@dataclass(frozen=True)
class Case:
    """One route: who may use it, what it answers them, and what to send."""

    method: str
    path: str
    may: frozenset[Role] | None
    status: int = 200
    json: dict[str, Any] | None = None


CASES = (
    Case("GET", "/health", ANYBODY),
    Case("GET", "/ready", ANYBODY),
    Case("POST", "/auth/token", ANYBODY, 401, {"username": "nobody", "password": "nothing"}),
    Case("POST", "/v1/deployments", DEPLOYERS, 202, {"hf_model_id": MODEL}),
    Case("POST", "/v1/deployments/plan", READERS, 200, {"hf_model_id": MODEL}),
    Case("GET", "/v1/deployments", READERS),
    Case("GET", "/v1/deployments/{deployment_id}", READERS),
    Case("GET", "/v1/deployments/{deployment_id}/events", READERS),
    Case("GET", "/v1/deployments/{deployment_id}/logs", READERS),
    Case("DELETE", "/v1/deployments/{deployment_id}", DEPLOYERS, 204),
    Case("PATCH", "/v1/deployments/{deployment_id}", DEPLOYERS, 202, {"max_replicas": 2}),
    Case("POST", "/v1/deployments/{deployment_id}/scale", DEPLOYERS, 202, {"min_replicas": 2}),
    Case("POST", "/v1/deployments/{deployment_id}/stop", DEPLOYERS, 202),
    Case("POST", "/v1/deployments/{deployment_id}/start", DEPLOYERS, 202),
    Case("POST", "/v1/deployments/{deployment_id}/wake", DEPLOYERS, 202),
    Case("POST", "/v1/models/{model:path}/infer", INVOKERS, 200, {"inputs": [1, 2, 3]}),
    Case("POST", "/v2/{deployment}/run", INVOKERS, 200, JOB),
    Case("POST", "/v2/{deployment}/runsync", INVOKERS, 200, JOB),
    Case("GET", "/v2/{deployment}/status/{job}", INVOKERS),
    Case("GET", "/v2/{deployment}/stream/{job}", INVOKERS),
    Case("POST", "/v2/{deployment}/cancel/{job}", INVOKERS),
    Case("POST", "/v2/{deployment}/purge-queue", INVOKERS),
    Case("GET", "/v2/{deployment}/health", INVOKERS),
    Case("GET", "/v1/deployments/{deployment_id}/cost", READERS),
    Case("GET", "/v1/gpus", READERS),
    Case("POST", "/v1/credentials", MANAGERS, 201),
    Case("GET", "/v1/credentials", READERS),
    Case("DELETE", "/v1/credentials/{credential_id}", MANAGERS, 204),
    Case("POST", "/models", DEPLOYERS, 201),
    Case("GET", "/models", READERS),
    Case("GET", "/models/{model_id}", READERS),
    Case("DELETE", "/models/{model_id}", DEPLOYERS),
    Case("POST", "/v1/workers/{endpoint}/state", ANYBODY, 422, {}),  # signed, not with a bearer token
    Case("GET", "/v1/workers/{endpoint}/cache", ANYBODY, 422),
    Case("GET", "/v1/webhook-secret", MANAGERS),
    Case("POST", "/v1/webhook-secret/rotate", MANAGERS),
    Case("GET", "/v1/deliveries", READERS),
    Case("POST", "/v1/deliveries/{delivery_id}/resend", MANAGERS, 202),
    Case("POST", "/v1/keys", MANAGERS, 201, {"name": "ci", "role": "viewer"}),
    Case("GET", "/v1/keys", MANAGERS),
    Case("DELETE", "/v1/keys/{key_id}", MANAGERS, 200),
)
GUARDED = tuple(case for case in CASES if case.may is not ANYBODY)


def _name(case: Case) -> str:
    return f"{case.method} {case.path}"


@dataclass
class World:
    """One service with something of each kind in it, and a client for each role."""

    api: Api
    roles: dict[Role, httpx.AsyncClient]
    stranger: httpx.AsyncClient

    async def fill(self, case: Case) -> str:
        """The case's path with ids of the owner's organization; what is consumed is made anew."""
        path = case.path
        if any(name in path for name in ("{deployment_id}", "{model:path}", "{deployment}")):
            id_ = await self.api.deploy()
            await self.api.until(id_, "ready")
            path = path.replace("{deployment_id}", id_).replace("{model:path}", id_)
            path = path.replace("{deployment}", id_)
            if "{job}" in path:
                made = await self.api.owner.post(f"/v2/{id_}/run", json=JOB)
                path = path.replace("{job}", made.json()["id"])
        if "{delivery_id}" in path:
            path = path.replace("{delivery_id}", await self._delivery())
        if "{key_id}" in path:
            made = await self.api.owner.post("/v1/keys", json={"name": "doomed", "role": "viewer"})
            path = path.replace("{key_id}", made.json()["id"])
        if "{credential_id}" in path:
            path = path.replace("{credential_id}", await self._credential())
        if "{model_id}" in path:
            body = await self.body(Case("POST", "/models", DEPLOYERS))
            made = await self.api.owner.post("/models", json=body)
            path = path.replace("{model_id}", made.json()["uuid"])
        path = path.replace("{endpoint}", "mrg-nobody-r1-a1")
        assert "{" not in path
        return path

    async def body(self, case: Case) -> dict[str, Any] | None:
        """What to send; the names of credentials and models are used once."""
        if (case.method, case.path) == ("POST", "/models"):
            return {"name": self.api.service.new_id("x"), "version": "1", "hf_model_id": MODEL}
        if (case.method, case.path) != ("POST", "/v1/credentials"):
            return case.json
        return {
            "provider": "vendor",
            "name": self.api.service.new_id("crd"),
            "values": {"token": VENDOR_TOKEN},
        }

    async def _credential(self) -> str:
        body = await self.body(Case("POST", "/v1/credentials", MANAGERS))
        return str((await self.api.owner.post("/v1/credentials", json=body)).json()["id"])

    async def _delivery(self) -> str:
        """One that has arrived, so that it may be sent again."""
        api = self.api
        id_ = await api.deploy(user_webhook_url=api.receiver.hook)
        await api.until(id_, "ready")
        return str((await api.settled(id_))[0]["id"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(shared: Api) -> AsyncIterator[World]:
    roles = {role: shared.client(f"Bearer {await shared.key(role)}") for role in Role}
    stranger = shared.client(await shared.stranger())
    yield World(shared, roles, stranger)
    for client in (*roles.values(), stranger):
        await client.aclose()


async def test_every_route_of_the_application_has_a_case() -> None:
    """The routers are looked for in the package, not in the document: a hidden route counts too."""
    found = set()
    for module in pkgutil.iter_modules(moorage.api.__path__):
        for value in vars(importlib.import_module(f"moorage.api.{module.name}")).values():
            if isinstance(value, APIRouter):
                routes = [route for route in value.routes if isinstance(route, APIRoute)]
                found |= {(method, route.path) for route in routes for method in route.methods or ()}
    found = {(method, path) for method, path in found if not path.startswith(ELSEWHERE)}
    assert found == {(case.method, case.path) for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=_name)
async def test_without_credentials_only_what_is_open_answers(world: World, case: Case) -> None:
    path = await world.fill(case)
    async with world.api.client(None) as nobody:
        answer = await nobody.request(case.method, path, json=await world.body(case))
    if case.may is ANYBODY:
        assert answer.status_code == case.status
    else:
        problem(answer, 401, "missing_credentials")


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("case", GUARDED, ids=_name)
async def test_each_role_may_do_its_own_and_no_more(world: World, case: Case, role: Role) -> None:
    assert case.may is not None
    path = await world.fill(case)
    before = world.api.rows()
    answer = await world.roles[role].request(case.method, path, json=await world.body(case))
    if role in case.may:
        assert answer.status_code == case.status, answer.text
        return
    found = problem(answer, 403, "forbidden")
    assert role.value in found["detail"]
    if case.method == "DELETE":
        assert (await world.api.owner.request(case.method, path)).status_code < 300, "it was still there"
    elif case.method == "POST":
        after = world.api.rows()
        assert {t: after[t] for t in OWNED} == {t: before[t] for t in OWNED}


@pytest.mark.parametrize("model", ["only-by-name", MODEL])
async def test_another_organizations_model_is_not_reached_by_name(world: World, model: str) -> None:
    if model != MODEL:
        await world.api.until(await world.api.deploy(name=model), "ready")
    answer = await world.stranger.post(f"/v1/models/{model}/infer", json={"inputs": [1]})
    problem(answer, 404, "deployment_not_found")


async def test_names_are_each_organizations_own(world: World) -> None:
    body = {"hf_model_id": MODEL, "name": "same-name"}
    assert (await world.api.owner.post("/v1/deployments", json=body)).status_code == 202
    made = await world.stranger.post("/v1/deployments", json=body)
    assert made.status_code == 202
    gone = await world.stranger.delete(f"/v1/deployments/{made.json()['deployment_id']}")
    assert gone.status_code == 204


async def test_an_admin_gives_and_takes_no_ownership(world: World) -> None:
    admin = world.roles[Role.ADMIN]
    problem(await admin.post("/v1/keys", json={"name": "x", "role": "owner"}), 403, "role_not_grantable")
    owners = await world.api.owner.post("/v1/keys", json={"name": "x", "role": "owner"})
    problem(await admin.delete(f"/v1/keys/{owners.json()['id']}"), 403, "role_not_grantable")
