"""Accounts at a provider: stored, used and removed; or brought as the bearer token, which is the tenant."""

from __future__ import annotations

import asyncio
from typing import Any  # JSON of the API

import httpx
import pytest

from moorage.errors import Retry

from .conftest import MODEL, VENDOR_TOKEN, WEAK_TOKEN, Api, at_fault, problem

STORED = {"provider": "vendor", "name": "main", "values": {"token": VENDOR_TOKEN}}
ON_VENDOR = {"hf_model_id": MODEL, "provider": "vendor"}
BEARER = f"Bearer {VENDOR_TOKEN}"


def stored(**change: Any) -> dict[str, Any]:
    return {**STORED, **change}


async def until(client: httpx.AsyncClient, id_: str, status: str) -> None:
    async with asyncio.timeout(10):
        while True:
            if (await client.get(f"/v1/deployments/{id_}")).json()["status"] == status:
                return
            await asyncio.sleep(0.02)


async def test_without_an_account_the_provider_is_refused_with_what_to_do(api: Api) -> None:
    plan = (await api.owner.post("/v1/deployments/plan", json={"hf_model_id": MODEL})).json()
    assert [rung["provider"] for rung in plan["ladder"]] == ["fake"]
    refused = next(r for r in plan["refused"] if r["provider"] == "vendor")
    assert "no vendor account is known: token is missing" in refused["reason"]
    answer = await api.owner.post("/v1/deployments", json=ON_VENDOR)
    found = problem(answer, 422, "does_not_fit")
    assert "POST /v1/credentials" in found["advice"]
    assert api.rows()["deployments"] == 0


async def test_a_stored_account_is_used_and_stays_while_it_is_needed(api: Api) -> None:
    made = await api.owner.post("/v1/credentials", json=STORED)
    assert made.status_code == 201
    assert VENDOR_TOKEN not in made.text
    answer = await api.owner.post("/v1/deployments", json=ON_VENDOR)
    id_ = answer.json()["deployment_id"]
    ready = await api.until(id_, "ready")
    assert ready["provider"] == "vendor"
    path = f"/v1/credentials/{made.json()['id']}"
    problem(await api.owner.delete(path), 409, "credential_in_use")
    await api.owner.delete(f"/v1/deployments/{id_}")
    await api.until(id_, "deleted")
    assert api.vendor.endpoints == {}
    assert (await api.owner.delete(path)).status_code == 204
    assert (await api.owner.delete(path)).status_code == 204, "repeating is safe"
    assert (await api.owner.get("/v1/credentials")).json()["items"] == []
    problem(await api.owner.post("/v1/deployments", json=ON_VENDOR), 422, "does_not_fit")


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (stored(values={"token": "fake_wrong"}), "body.values.token", "accepted_by_provider"),
        (stored(values={"token": WEAK_TOKEN}), "body.values.token", "enough_permission"),
        (stored(values={}), "body.values.token", "required"),
        (stored(values={"token": VENDOR_TOKEN, "key": "x"}), "body.values.key", "unknown_field"),
        (stored(provider="fake"), "body.provider", "known_provider"),
        (stored(provider="nobody"), "body.provider", "known_provider"),
        (stored(name="\n"), "body.name", "name"),
    ],
)
async def test_an_account_that_cannot_be_used_is_not_stored(
    api: Api, body: dict[str, Any], field: str, rule: str
) -> None:
    found = at_fault(await api.owner.post("/v1/credentials", json=body), 422, field, rule)
    assert VENDOR_TOKEN not in str(found)
    assert api.rows()["provider_credentials"] == 0


async def test_one_of_several_accounts_is_chosen_by_name(api: Api) -> None:
    for name in ("first", "second"):
        assert (await api.owner.post("/v1/credentials", json=stored(name=name))).status_code == 201
    problem(await api.owner.post("/v1/credentials", json=stored(name="first")), 409, "name_taken")
    chosen = await api.owner.post("/v1/deployments", json={**ON_VENDOR, "credential": "second"})
    assert chosen.status_code == 202
    unknown = await api.owner.post("/v1/deployments", json={**ON_VENDOR, "credential": "third"})
    assert "first, second" in at_fault(unknown, 422, "body.credential", "known_credential")["detail"]


async def test_a_provider_that_does_not_answer_is_no_refusal(api: Api) -> None:
    api.vendor.faults.raise_next("check_credentials", Retry("the vendor is busy"))
    problem(await api.owner.post("/v1/credentials", json=STORED), 503, "unavailable")


async def test_the_key_is_the_tenant(api: Api) -> None:
    """No registration: plan, deploy, infer and delete with the provider's own key, in a world of its own."""
    async with api.client(BEARER) as tenant:
        plan = (await tenant.post("/v1/deployments/plan", json={"hf_model_id": MODEL})).json()
        assert [rung["provider"] for rung in plan["ladder"]] == ["vendor"]
        assert "own organizations" in next(r["reason"] for r in plan["refused"] if r["provider"] == "fake")
        made = await tenant.post("/v1/deployments", json={"hf_model_id": MODEL})
        assert made.status_code == 202, made.text
        id_ = made.json()["deployment_id"]
        await until(tenant, id_, "ready")
        assert (await tenant.post(f"/v1/models/{id_}/infer", json={"inputs": 1})).json()["outputs"] == 1
        cost = (await tenant.get(f"/v1/deployments/{id_}/cost")).json()
        assert cost["billed"]["amount"] == 0.25
        problem(await api.owner.get(f"/v1/deployments/{id_}"), 404)
        assert (await api.owner.get("/v1/deployments")).json()["items"] == []
        assert (await tenant.delete(f"/v1/deployments/{id_}")).status_code == 204
        await until(tenant, id_, "deleted")
    assert api.vendor.endpoints == {}


async def test_a_key_is_shown_to_its_provider_once(api: Api) -> None:
    async with api.client(BEARER) as tenant:
        answers = await asyncio.gather(*(tenant.get("/v1/deployments") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
    assert api.vendor.calls["check_credentials"] == 1


async def test_reading_with_a_key_stores_nothing_of_it(api: Api) -> None:
    async with api.client(BEARER) as tenant:
        assert (await tenant.get("/v1/gpus")).status_code == 200
        refused = await tenant.post("/v1/deployments", json={"hf_model_id": MODEL, "gpu_tier": "H100"})
        problem(refused, 422, "does_not_fit")
    assert api.rows()["provider_credentials"] == 0


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [("fake_wrong", 401, "provider_key_refused"), (WEAK_TOKEN, 403, "provider_permission_missing")],
)
async def test_a_key_that_is_refused_is_told_apart_from_one_that_may_too_little(
    api: Api, token: str, status: int, code: str
) -> None:
    async with api.client(f"Bearer {token}") as tenant:
        found = problem(await tenant.get("/v1/deployments"), status, code)
        assert token not in str(found)
        asked = api.vendor.calls["check_credentials"]
        problem(await tenant.post("/v1/models/x/infer", json={}), status, code)
        if status == 401:
            assert api.vendor.calls["check_credentials"] == asked, "it is not shown again so soon"


async def test_a_provider_that_cannot_be_asked_is_unavailable(api: Api) -> None:
    api.vendor.faults.raise_next("check_credentials", Retry("the vendor is busy"))
    async with api.client(BEARER) as tenant:
        problem(await tenant.get("/v1/deployments"), 503)
        assert (await tenant.get("/v1/deployments")).status_code == 200


async def test_two_creates_at_once_store_the_account_once(api: Api) -> None:
    async with api.client(BEARER) as tenant:
        body = {"hf_model_id": MODEL}
        answers = await asyncio.gather(*(tenant.post("/v1/deployments", json=body) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["deployment_id"] for answer in answers}) == 8
    assert api.rows()["provider_credentials"] == 1


async def test_what_can_be_had_is_listed_with_price_and_reason(api: Api) -> None:
    before = (await api.owner.get("/v1/gpus")).json()
    assert [offer["id"] for offer in before["items"]] == ["cpu"]
    assert [refused["provider"] for refused in before["refused"]] == ["vendor"]
    await api.owner.post("/v1/credentials", json=STORED)
    after = (await api.owner.get("/v1/gpus")).json()
    assert [(offer["id"], offer["price_per_hour"]) for offer in after["items"]] == [
        ("cpu", 0.05),
        ("rented", 0.5),
    ]
    assert after["refused"] == []
