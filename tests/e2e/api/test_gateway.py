"""The gateway in the whole service: sleep and waking, any path of a replica, what Prometheus reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from moorage.domain.identity import Role
from moorage.testing.provider import InProcessCompute, InProcessSleeper, cpu_offer

from .conftest import NO_CLUSTERS, Api, problem, whole_service

BODY = {"inputs": [1, 2, 3]}


@pytest.fixture
async def sleeper(tmp_path: Path) -> AsyncIterator[tuple[Api, InProcessCompute]]:
    """A service with one more provider, whose endpoints sleep and wake. It has no worker of its own: its
    replicas are those of the provider `fake`."""
    bed = InProcessCompute([cpu_offer("bed", provider="sleeper", memory_gb=8)], name="sleeper")
    provider = InProcessSleeper(bed, unsupported=NO_CLUSTERS)
    async with whole_service(tmp_path / "var", provider) as api:
        bed.replica_url = api.compute.replica_url
        yield api, bed


async def hibernated(api: Api, bed: InProcessCompute) -> str:
    id_ = await api.deploy(provider="sleeper")
    await api.until(id_, "ready")
    for name in bed.endpoints:
        bed.sleep(name)
    await api.until(id_, "hibernated")
    return id_


async def test_an_inference_wakes_what_sleeps_and_is_answered(sleeper: Any) -> None:
    api, bed = sleeper
    id_ = await hibernated(api, bed)
    answers = await asyncio.gather(
        *(api.owner.post(f"/v1/models/{id_}/infer", json=BODY) for _ in range(20)),
    )
    assert [answer.status_code for answer in answers] == [200] * 20
    assert answers[0].json()["outputs"] == [1, 2, 3]
    assert bed.calls["wake"] == 1
    await api.until(id_, "ready")


async def test_a_job_wakes_what_sleeps_and_is_done(sleeper: Any) -> None:
    api, bed = sleeper
    id_ = await hibernated(api, bed)
    answer = await api.owner.post(f"/v2/{id_}/runsync", params={"wait": 10_000}, json={"input": BODY})
    assert answer.json()["status"] == "COMPLETED"
    assert bed.calls["wake"] == 1


async def test_any_path_of_a_replica_and_what_is_counted_of_it(api: Api) -> None:
    id_ = await api.deploy(provider="fake")
    await api.until(id_, "ready")
    name = (await api.read(id_))["name"]
    for key in (id_, name):
        answer = await api.owner.post(f"/v1/deployments/{key}/proxy/infer", json=BODY)
        assert (answer.status_code, answer.json()["outputs"]) == (200, [1, 2, 3])
    missing = await api.owner.get(f"/v1/deployments/{id_}/proxy/nothing/here")
    assert missing.status_code == 404
    assert "application/problem+json" not in missing.headers["content-type"]  # the replica's own answer
    async with api.client(await api.stranger()) as stranger:
        problem(await stranger.get(f"/v1/deployments/{id_}/proxy/infer"), 404, "deployment_not_found")
    async with api.client(f"Bearer {await api.key(Role.VIEWER)}") as viewer:
        problem(await viewer.get(f"/v1/deployments/{id_}/proxy/infer"), 403)
    async with api.client(None) as nobody:
        problem(await nobody.get(f"/v1/deployments/{id_}/proxy/infer"), 401)
        told = (await nobody.get("/metrics")).text
    assert f'moorage_gateway_requests_total{{deployment="{id_}",code="200"}} 2\n' in told
    assert f'moorage_gateway_requests_total{{deployment="{id_}",code="404"}} 1\n' in told
    assert f'moorage_gateway_requests_in_flight{{deployment="{id_}"}} 0\n' in told
    await api.owner.delete(f"/v1/deployments/{id_}")
    await api.until(id_, "deleted")
    assert id_ not in (await api.owner.get("/metrics")).text
