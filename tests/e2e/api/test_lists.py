"""Deployments as they are listed, named, shown and deleted."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any  # JSON of the API

import pytest

from moorage.testing.hub import Fault
from moorage.testing.provider import Call

from .conftest import DIGITS, MODEL, Api, at_fault, problem

PATH = "/v1/deployments"


async def listed(api: Api, **params: Any) -> list[str]:
    """The ids of all pages, newest first."""
    found: list[str] = []
    while True:
        page = (await api.owner.get(PATH, params=params)).json()
        found += [item["deployment_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]


async def test_pages_stay_in_place_while_deployments_are_made_and_deleted(api: Api) -> None:
    before = [await api.deploy() for _ in range(9)]
    first = (await api.owner.get(PATH, params={"limit": 4})).json()
    seen = [item["deployment_id"] for item in first["items"]]
    cursor = first["next_cursor"]
    while cursor is not None:
        await api.deploy()
        await api.owner.delete(f"{PATH}/{seen[-1]}")
        page = (await api.owner.get(PATH, params={"limit": 4, "cursor": cursor})).json()
        seen += [item["deployment_id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == before[::-1], "each that was there once, none that came later"
    assert len(await listed(api, limit=5)) == 11


async def test_lists_are_narrowed_by_status_provider_model_and_name(api: Api) -> None:
    await api.hub.add_repo("acme/other", DIGITS)
    ready = await api.deploy(name="first-one")
    other = await api.deploy(hf_model_id="acme/other", name="second-one", provider="fake")
    gone = await api.deploy()
    for id_ in (ready, other, gone):
        await api.until(id_, "ready")
    await api.owner.delete(f"{PATH}/{gone}")
    await api.until(gone, "deleted")
    api.compute.faults.no_capacity.add("cpu")
    failed = await api.deploy(capacity_deadline_seconds=1)
    await api.until(failed, "failed")
    assert await listed(api) == [failed, gone, other, ready]
    assert await listed(api, status="ready") == [other, ready]
    assert await listed(api, status=["failed", "deleted"]) == [failed, gone]
    assert await listed(api, status="hibernated") == []
    assert await listed(api, model="acme/other") == [other]
    assert await listed(api, name="first-one") == [ready]
    assert await listed(api, name="FIRST-ONE") == []
    assert await listed(api, provider="fake", status="ready") == [other, ready]
    assert await listed(api, provider="nowhere") == []
    assert await listed(api, model=MODEL, status="ready", limit=1) == [ready]


async def test_a_name_is_taken_once_and_free_again_after_deletion(api: Api) -> None:
    id_ = await api.deploy(name="digits")
    await api.until(id_, "ready")
    before = api.rows()
    answer = await api.owner.post(PATH, json={"hf_model_id": MODEL, "name": "digits"})
    found = at_fault(answer, 409, "body.name", "unique_in_organization")
    assert found["code"] == "name_taken"
    assert api.rows() == before
    await api.owner.delete(f"{PATH}/{id_}")
    await api.until(id_, "deleted")
    again = await api.deploy(name="digits")
    assert again != id_


async def test_of_twenty_creates_with_one_name_one_wins(api: Api) -> None:
    body = {"hf_model_id": MODEL, "name": "wanted-by-all"}
    answers = await asyncio.gather(*(api.owner.post(PATH, json=body) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 19
    assert api.rows()["deployments"] == 1


async def test_the_view_tells_phases_durations_conditions_and_cost(api: Api) -> None:
    id_ = await api.deploy(env={"MODE": "fast"}, hf_token=None)
    ready = await api.until(id_, "ready")
    assert set(ready["phase_durations"]) == {
        *("validating", "selecting_gpu", "creating_endpoint", "loading_model", "ready")
    }
    assert all(seconds >= 0 for seconds in ready["phase_durations"].values())
    lived = datetime.fromisoformat(ready["ready_at"]) - datetime.fromisoformat(ready["created_at"])
    to_ready = sum(s for phase, s in ready["phase_durations"].items() if phase != "ready")
    assert to_ready == pytest.approx(lived.total_seconds(), abs=0.01)
    conditions = {c["type"]: c for c in ready["conditions"]}
    for name in ("ModelValidated", "Placed", "EndpointCreated", "Serving"):
        assert conditions[name]["status"] == "true", name
        assert conditions[name]["reason"]
        assert conditions[name]["since"].endswith("Z")
    assert ready["price_per_hour"] == 0.05
    assert ready["env"] == ["MODE"], "names, never values"
    await asyncio.sleep(0.05)
    later = await api.read(id_)
    assert 0 <= ready["cost"]["accrued"] < later["cost"]["accrued"] < 0.05
    assert later["cost"]["currency"] == "USD"
    await api.owner.delete(f"{PATH}/{id_}")
    deleted = await api.until(id_, "deleted")
    await asyncio.sleep(0.05)
    assert (await api.read(id_))["cost"] == deleted["cost"], "what is gone costs nothing more"
    assert (await api.read(id_))["phase_durations"] == deleted["phase_durations"]


async def test_a_failure_reads_with_code_detail_and_advice_and_leaves_nothing(api: Api) -> None:
    api.compute.faults.crash_loop.add("cpu")
    id_ = await api.deploy()
    failed = await api.until(id_, "failed")
    assert failed["error"]["code"]
    assert failed["error"]["detail"]
    assert failed["endpoint_url"] is None
    assert failed["replicas"]["ready"] == 0
    assert not api.compute.endpoints
    problem(await api.owner.post(f"/v1/models/{id_}/infer", json={"inputs": 1}), 503)


@pytest.mark.parametrize("slow", ["create", "observe"])
async def test_a_delete_while_creating_wins(api: Api, slow: Call) -> None:
    api.compute.faults.slow[slow] = 0.3
    id_ = await api.deploy()
    await api.until(id_, "creating_endpoint", "loading_model")
    assert (await api.owner.delete(f"{PATH}/{id_}")).status_code == 204
    deleted = await api.until(id_, "deleted", seconds=20)
    assert deleted["ready_at"] is None
    assert not api.compute.endpoints


async def test_a_delete_while_the_model_is_validated_wins(api: Api) -> None:
    api.hub.fault = Fault.DOWN
    id_ = await api.deploy()
    assert (await api.owner.delete(f"{PATH}/{id_}")).status_code == 204
    await api.until(id_, "deleted")
    assert not api.compute.creates


async def test_deletes_repeated_at_once_and_later_all_succeed_and_are_told_once(api: Api) -> None:
    api.compute.faults.still_there = 3
    id_ = await api.deploy()
    await api.until(id_, "ready")
    answers = await asyncio.gather(*(api.owner.delete(f"{PATH}/{id_}") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {204}
    await api.until(id_, "deleted")
    assert (await api.owner.delete(f"{PATH}/{id_}")).status_code == 204
    items = (await api.owner.get(f"{PATH}/{id_}/events")).json()["items"]
    types = [item["type"] for item in items]
    assert types.count("deployment.delete_requested") == 1
    assert types.count("deployment.deleted") == 1


async def test_a_plan_creates_nothing_and_explains_itself(api: Api) -> None:
    before = api.rows()
    plan = (await api.owner.post(f"{PATH}/plan", json={"hf_model_id": MODEL})).json()
    assert plan["estimate"]["total_bytes"] == sum(item["bytes"] for item in plan["estimate"]["items"])
    assert [rung["provider"] for rung in plan["ladder"]] == ["fake"]
    assert plan["ladder"][0]["gpu"] is None
    dear = (
        await api.owner.post(f"{PATH}/plan", json={"hf_model_id": MODEL, "max_price_per_hour": 0.01})
    ).json()
    assert dear["ladder"] == []
    assert "0.05" in dear["refused"][0]["smallest_change"]
    assert api.rows() == before


async def test_the_address_of_a_new_deployment_is_told_and_works(api: Api) -> None:
    answer = await api.owner.post(PATH, json={"hf_model_id": MODEL})
    assert answer.json().keys() == {"deployment_id", "name", "status"}
    assert answer.json()["status"] == "validating"
    assert (await api.owner.get(answer.headers["location"])).json()["name"] == answer.json()["name"]
