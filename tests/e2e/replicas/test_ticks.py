"""POST /internal/tick: one round of all work, for a process that has no time of its own between requests."""

from __future__ import annotations

import asyncio
from typing import Any  # JSON of the API

import httpx
import pytest

from moorage.testing.killing import KillableService

from .conftest import TICK_TOKEN, Fleet, infer, read

pytestmark = pytest.mark.timeout(120)


async def tick(service: KillableService, token: str = TICK_TOKEN) -> httpx.Response:
    async with httpx.AsyncClient(base_url=service.url, timeout=40) as http:
        return await http.post("/internal/tick", headers={"authorization": f"Bearer {token}"})


async def ticked(service: KillableService) -> dict[str, Any]:
    answer = await tick(service)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert set(found) == {"deployments", "deliveries", "jobs", "next_due"}
    return found


async def test_ticks_do_what_loops_would(fleet: Fleet) -> None:
    service, _ = await fleet.start("mill", tick_only="true", loading_look_seconds="0.1")
    owner = await fleet.owner(service)
    assert await ticked(service) == {"deployments": 0, "deliveries": 0, "jobs": 0, "next_due": None}
    id_ = await fleet.deploy(owner)
    assert (await read(owner, id_))["status"] == "validating"
    first = await ticked(service)
    assert first["deployments"] >= 1
    assert first["next_due"] is not None, "the endpoint is to be looked at"
    assert fleet.receiver.count()["creating_endpoint"] == 1, "what happened was told within the same round"
    while (await read(owner, id_))["status"] != "ready":
        await ticked(service)
    await infer(owner, id_)
    queued = await owner.post(f"/v2/{id_}/run", json={"input": {"inputs": [1]}})
    assert queued.status_code == 200, queued.text
    assert (await ticked(service))["jobs"] >= 1
    status = await owner.get(f"/v2/{id_}/status/{queued.json()['id']}")
    assert status.json()["status"] == "COMPLETED", status.text
    assert (await owner.delete(f"/v1/deployments/{id_}")).status_code == 204
    while (await read(owner, id_))["status"] != "deleted":
        await ticked(service)
    assert set(fleet.receiver.count().values()) == {1}


async def test_ticks_at_once_double_nothing(fleet: Fleet) -> None:
    mill, _ = await fleet.start("mill", tick_only="true")
    weir, _ = await fleet.start("weir", tick_only="true")
    owner = await fleet.owner(mill)
    ids = [await fleet.deploy(owner) for _ in range(3)]
    while {(await read(owner, id_))["status"] for id_ in ids} != {"ready"}:
        await asyncio.gather(*(ticked(service) for service in (mill, weir, mill, weir)))
    counts = fleet.receiver.count()
    assert set(counts.values()) == {3}, counts
    assert not (fleet.replicas.folder / "DOUBLED").exists()


async def test_a_tick_beside_running_loops_is_welcome(fleet: Fleet) -> None:
    service, _ = await fleet.start("mill")
    owner = await fleet.owner(service)
    id_ = await fleet.deploy(owner)
    while (await read(owner, id_))["status"] != "ready":
        await ticked(service)
    assert set(fleet.receiver.count().values()) <= {1}


async def test_who_may_tick(fleet: Fleet) -> None:
    service, _ = await fleet.start("mill", tick_only="true")
    for token in ("nothing", "wrong", TICK_TOKEN + "x"):
        refused = await tick(service, token)
        assert (refused.status_code, refused.json()["code"]) == (401, "token_invalid"), refused.text
        assert refused.headers["content-type"] == "application/problem+json"
    owner = await fleet.owner(service)
    assert (await owner.post("/internal/tick")).status_code == 401, "an owner is no scheduler"
    assert (await owner.get("/internal/tick")).status_code == 405
    assert "/internal/tick" not in (await owner.get("/openapi.json")).text


async def test_without_a_token_there_are_no_ticks(fleet: Fleet) -> None:
    service = fleet.replicas.make("mill")
    del service.environ["MOORAGE_TICK_TOKEN"]
    await fleet.again(service)
    assert (await tick(service)).status_code == 404
