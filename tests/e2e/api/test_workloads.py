"""The same workload on the canonical surface: `workload`, `cluster` and `model_id` of `/v1/deployments`, and
changes of what is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any  # JSON of the API

import httpx
import pytest
import pytest_asyncio

from moorage.domain.workload import (
    AccessMode,
    Autoscale,
    HealthCheck,
    Metric,
    Ports,
    Resources,
    ScalingTarget,
    Volume,
    Workload,
)

from .byoc_world import ROOT, Place, World, clusters, owners_world
from .conftest import MODEL, at_fault, problem, whole_service

pytestmark = pytest.mark.asyncio(loop_scope="module")

V1 = "/v1/deployments"
GIB = 1024**3
WORKLOAD: dict[str, Any] = {
    "resources": {
        "cpu_request": 0.5,
        "cpu_limit": 4,
        "memory_request": "8Gi",
        "memory_limit": 16 * GIB,
        "gpus": 1,
    },
    "ports": {"http": 8200, "grpc": 9000},
    "health": {"path": "/health", "port": 8200, "initial_delay": 5},
    "entrypoint": ["python", "-m", "app"],
    "command": ["--port", "8200"],
    "working_dir": "/app",
    "volumes": [{"mount_path": "/data", "size": "50Gi", "access_mode": "ReadWriteOnce"}],
    "autoscale": {
        "targets": [{"metric": "latency", "target": 500, "percentile": 95}],
        "cooldown_seconds": 60,
    },
    "scale_to_zero": True,
    "grace_seconds": 45,
    "secret_env": ["TOKEN"],
    "tag": "testing",
}
MEANT = Workload(
    resources=Resources(0.5, 4, 8 * GIB, 16 * GIB, 1),
    ports=Ports(8200, 9000),
    health=HealthCheck("/health", 8200, 5),
    entrypoint=("python", "-m", "app"),
    command=("--port", "8200"),
    working_dir="/app",
    volumes=(Volume("pvc-data", "/data", 50 * GIB, AccessMode.READ_WRITE_ONCE),),
    autoscale=Autoscale((ScalingTarget(Metric.LATENCY, 500, 95),), 60),
    scale_to_zero=True,
    grace_seconds=45,
    secret_env=("TOKEN",),
    tag="testing",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    provider = clusters()
    async with whole_service(tmp_path_factory.mktemp("workloads") / "var", provider) as api:
        yield Place(api, await owners_world(api), provider)


def body(world: World, **changes: Any) -> dict[str, Any]:
    return {
        "model_id": world.container.id,
        "cluster": world.cluster.id,
        "node_groups": [world.groups[0].id],
        "workload": WORKLOAD,
        "env": {"TOKEN": "s3cret", "MODE": "fast"},
        **changes,
    }


async def test_a_workload_is_stored_as_it_was_meant(place: Place) -> None:
    answer = await place.api.owner.post(V1, json=body(place.world))
    assert answer.status_code == 202, answer.text
    id_ = answer.json()["deployment_id"]
    row = await place.api.service.store.deployment(id_)
    assert row is not None
    assert row.spec.workload == MEANT
    assert row.spec.policy.cluster == place.world.cluster.id
    assert row.spec.policy.node_groups == (place.world.groups[0].id,)
    assert row.spec.model_version_id == place.world.container.id
    await place.api.until(id_, "ready")
    (endpoint,) = [e for e in place.provider.compute.endpoints.values() if e.plan.deployment_id == id_]
    assert endpoint.plan.workload == MEANT, "its provider is told all of it"
    listed = (await place.api.owner.get(ROOT)).json()["results"]
    assert any(found["scale_to_zero_enabled"] for found in listed), "the BYOC surface shows it too"


@pytest.mark.parametrize(
    ("workload", "field", "rule"),
    [
        ({"resources": {"cpu_request": 0}}, "workload.resources.cpu_request", "greater_than_zero"),
        ({"resources": {"memory_request": "8GB"}}, "workload.resources.memory_request", "bytes"),
        ({"resources": {"memory_request": True}}, "workload.resources.memory_request", "int_type"),
        ({"autoscale": {"targets": []}}, "workload.autoscale.targets", "non_empty"),
        (
            {"autoscale": {"targets": [{"metric": "disk", "target": 1}]}},
            "workload.autoscale.targets.0.metric",
            "literal_error",
        ),
        ({"ports": None}, "workload.ports", "required_for_imported_containers"),
        ({"port": 80}, "workload.port", "unknown_field"),
        ({"queued": {}}, "workload.queued", "only_for_custom_models"),
        ({"secret_env": ["OTHER"]}, "workload.secret_env", "named_in_env"),
    ],
)
async def test_a_broken_rule_is_told_by_its_field_and_name(
    place: Place, workload: dict[str, Any], field: str, rule: str
) -> None:
    answer = await place.api.owner.post(V1, json=body(place.world, workload={**WORKLOAD, **workload}))
    at_fault(answer, 422, f"body.{field}", rule)


async def change(place: Place, path: str, **sent: Any) -> httpx.Response:
    method = "POST" if path.rpartition("/")[2] in ("scale", "stop", "start", "wake") else "PATCH"
    return await place.api.owner.request(method, f"{V1}/{path}", json=sent or None)


async def test_what_is_there_is_changed_stopped_started_and_scaled(place: Place) -> None:
    id_ = (await place.api.owner.post(V1, json=body(place.world))).json()["deployment_id"]
    await place.api.until(id_, "ready")
    faster = {**WORKLOAD, "resources": {"cpu_request": 2, "cpu_limit": 4}}
    answer = await change(place, id_, workload=faster, env={"TOKEN": "other"}, max_replicas=3)
    assert answer.status_code == 202, answer.text
    assert answer.json()["deployment_id"] == id_
    assert answer.json()["env"] == ["TOKEN"]
    row = await place.api.service.store.deployment(id_)
    assert row is not None
    assert row.spec.workload is not None
    assert row.spec.workload.resources == Resources(2, 4)
    assert row.spec.max_replicas == 3

    answer = await change(place, f"{id_}/scale", min_replicas=2)
    assert answer.status_code == 202, answer.text
    assert answer.json()["replicas"]["desired"] == 2
    assert (await change(place, f"{id_}/stop")).status_code == 202
    await place.api.until(id_, "stopped")
    assert (await change(place, f"{id_}/wake")).status_code == 202, "nothing sleeps here: nothing happens"
    assert (await place.api.read(id_))["status"] == "stopped"
    assert (await change(place, f"{id_}/start")).status_code == 202
    await place.api.until(id_, "ready")
    assert (await place.api.owner.delete(f"{V1}/{id_}")).status_code == 204
    await place.api.until(id_, "deleted")
    for wish in ("stop", "start"):
        problem(await change(place, f"{id_}/{wish}"), 409, "deployment_is_over")


@pytest.mark.parametrize(
    ("path", "sent", "field", "rule"),
    [
        ("", {}, "body", "missing"),
        ("", {"min_replicas": 0}, "body.min_replicas", "range"),
        ("", {"min_replicas": 4, "max_replicas": 3}, "body.min_replicas", "min_at_most_max"),
        ("", {"cluster": "cls_x"}, "body.cluster", "unknown_field"),
        ("", {"env": {"1X": "y"}}, "body.env.1X", "env_name"),
        ("", {"workload": {"tag": "prod"}}, "body.workload.tag", "literal_error"),
        ("", {"user_webhook_url": "http://10.0.0.1/"}, "body.user_webhook_url", None),
        ("/scale", {"max_replicas": 3}, "body.min_replicas", "missing"),
        ("/scale", {"min_replicas": 0}, "body.min_replicas", "range"),
    ],
)
async def test_a_change_keeps_the_rules(
    place: Place, path: str, sent: dict[str, Any], field: str, rule: str | None
) -> None:
    id_ = await place.api.deploy(hf_model_id=MODEL)
    before = await place.api.service.store.deployment(id_)
    answer = await change(place, f"{id_}{path}", **sent)
    told = problem(answer, 422)
    assert [e["field"] for e in told["errors"]] == [field], told
    assert rule is None or told["errors"][0]["rule"] == rule
    after = await place.api.service.store.deployment(id_)
    assert before is not None
    assert after is not None
    assert after.spec == before.spec


async def test_an_empty_change_is_refused(place: Place) -> None:
    id_ = await place.api.deploy(hf_model_id=MODEL)
    answer = await place.api.owner.patch(f"{V1}/{id_}", json={})
    at_fault(answer, 422, "body", "something_to_change")
