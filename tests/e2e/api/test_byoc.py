"""The BYOC surface: the document's examples replayed, a deployment's life in its words, and who may what.

The rules, broken one by one, are in `test_byoc_rules`. What becomes of a deployment on a real cluster is
shown by the tests of that provider.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON of the API
from uuid import UUID, uuid4

import httpx
import pytest
from jsonschema_rs import Draft202012Validator

from moorage.api.byoc_errors import NAME_TAKEN, NODE_GROUPS_EXPECTED, NOT_FOUND
from moorage.api.byoc_schemas import CREATE, CREATED
from moorage.api.byoc_translation import STATUS
from moorage.domain.deployment import Phase
from moorage.domain.identity import Role
from moorage.domain.naming import id_of, uuid_of
from moorage.domain.workload import (
    AccessMode,
    Autoscale,
    HealthCheck,
    Metric,
    Ports,
    Queued,
    Resources,
    ScalingTarget,
    Volume,
    Workload,
)

from .byoc_world import ROOT, Place, bring, clusters, owners_world
from .conftest import whole_service

GIB = 1024**3


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    provider = clusters()
    async with whole_service(tmp_path / "var", provider) as api:
        yield Place(api, await owners_world(api), provider)


# -- the document's examples -----------------------------------------------------------------------------


async def test_the_create_call_of_the_document_gets_its_documented_body(place: Place) -> None:
    """Every field as it is written there but for the ids, which must be of things that are there."""
    body = place.world.body()
    assert {k for k in CREATE if body[k] != CREATE[k]} == {"model_repo", "cluster", "nodegroups"}
    answer = await place.api.owner.post(ROOT, json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert list(made) == list(CREATED), "these fields, in this order, and no other"
    assert made == {
        **CREATED,
        "uuid": made["uuid"],
        "slug": made["slug"],
        "org": str(uuid_of(place.world.organization_id)),
        "model_repo": body["model_repo"],
        "cluster": body["cluster"],
        "node_groups": body["nodegroups"],
    }
    assert UUID(made["uuid"])
    assert re.fullmatch("[a-z]{9}", made["slug"])
    assert answer.headers["location"] == f"{ROOT}{made['uuid']}/"


async def test_the_three_errors_of_the_document_are_answered_word_for_word(place: Place) -> None:
    post = place.api.owner.post
    await place.create()
    for body, expected in (
        (
            place.world.body(),
            {"non_field_errors": ["Deployment with this name already exists for this organization."]},
        ),
        (
            place.world.body(nodegroups=None),
            {"nodegroups": "List of node groups to be deployed on is expected"},
        ),
        (
            place.world.body(name="other", cpu_request=0),
            {"non_field_errors": ["CPU request and limit must be greater than 0"]},
        ),
    ):
        answer = await post(ROOT, json=body)
        assert (answer.status_code, answer.json()) == (400, expected)
    # `test_byoc_rules` compares with the constants
    assert NAME_TAKEN == "Deployment with this name already exists for this organization."
    assert NODE_GROUPS_EXPECTED == "List of node groups to be deployed on is expected"


async def test_every_schema_of_the_document_reaches_the_workload(place: Place) -> None:
    """Its autoscaling, health check, port, storage, container and advanced examples in one call."""
    made = await place.create(
        gpu_request=1,
        scale_to_zero_enabled=True,
        deployment_tag="staging",
        autoscale_config={
            "targets": [
                {"metric": "cpu", "target": 80},
                {"metric": "gpu", "target": 75},
                {"metric": "latency", "target": 500, "percentile": 95},
            ],
            "cooldown_period": 300,
        },
        healthcheck={
            "path": "/health",
            "port": 8200,
            "initialDelaySeconds": 30,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
        },
        ports={"http": {"port": 8200}, "grpc": {"port": 9000}},
        persistent_volume_claims=[
            {"mount_path": "/data", "size": "50", "name": "pvc-data", "access_mode": "ReadWriteMany"},
            {"mount_path": "/var/Cache", "size": "5"},
        ],
        deployment_custom_configuration={
            "entrypoint": ["python", "-m", "app"],
            "command": ["--port", "8200"],
            "workingDir": "/app",
        },
        env_variables={"MODE": "fast"},
        secret_env_variables={"TOKEN": "s3cret"},
    )
    assert made["autoscale_config"]["cooldown_period"] == 300
    assert made["autoscale_config"]["targets"][2] == {"metric": "latency", "target": 500, "percentile": 95}
    row = await place.row(made["uuid"])
    assert row.spec.workload == Workload(
        resources=Resources(2, 4, 8 * GIB, 16 * GIB, 1),
        ports=Ports(8200, 9000),
        health=HealthCheck("/health", 8200, 30, 10, 5),
        entrypoint=("python", "-m", "app"),
        command=("--port", "8200"),
        working_dir="/app",
        volumes=(
            Volume("pvc-data", "/data", 50 * GIB, AccessMode.READ_WRITE_MANY),
            Volume("pvc-var-cache", "/var/Cache", 5 * GIB, AccessMode.READ_WRITE_MANY),
        ),
        autoscale=Autoscale(
            (
                ScalingTarget(Metric.CPU, 80),
                ScalingTarget(Metric.GPU, 75),
                ScalingTarget(Metric.LATENCY, 500, 95),
            ),
            300,
        ),
        scale_to_zero=True,
        queued=None,  # `consumer_count` of a deployment that takes no messages has no effect
        grace_seconds=45,
        secret_env=("TOKEN",),
        tag="staging",
    )
    assert row.spec.source == place.world.container.source
    assert row.spec.policy.cluster == place.world.cluster.id
    assert row.spec.env_names == ("MODE", "TOKEN")
    text = (await place.api.owner.get(f"{ROOT}{made['uuid']}/")).text
    assert "s3cret" not in text
    assert "fast" not in text


async def test_a_custom_model_may_take_its_requests_from_a_queue(place: Place) -> None:
    body = place.world.custom_body(
        name="queued",
        async_deployment_type="ASYNC",
        autoscale_config={"targets": [{"metric": "queue_length", "target": 10}]},
    )
    made = await place.create(body)
    row = await place.row(made["uuid"])
    assert row.spec.workload is not None
    assert row.spec.workload.queued == Queued(3)
    found = await place.read(made["uuid"])
    assert found["async_deployment_type"] == "ASYNC"
    assert found["advanced_configuration"]["runtime_overrides"]["consumer_count"] == 3


async def test_defaults_are_those_of_the_document(place: Place) -> None:
    made = await place.create(
        deployment_tag=None, scale_to_zero_enabled=None, advanced_configuration=None, name="plain"
    )
    found = await place.read(made["uuid"])
    expected = {
        "deployment_tag": "production",
        "scale_to_zero_enabled": False,
        "async_deployment_type": "SYNC",
        "healthcheck": {
            "path": "/health",
            "port": 8200,
            "initialDelaySeconds": 30,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
        },
        "persistent_volume_claims": [],
    }
    assert {name: found[name] for name in expected} == expected


# -- a life ----------------------------------------------------------------------------------------------


async def test_a_life_in_the_documents_words(place: Place) -> None:
    api, uuid = place.api, (await place.create())["uuid"]
    path = f"{ROOT}{uuid}/"
    ready = await place.until(uuid, "DEPLOYED")
    assert ready["replicas"] == {"desired": 1, "ready": 1}
    assert ready["failure"] is None
    assert ready["endpoint_url"] == f"{api.url}/v1/models/{id_of('dep', UUID(uuid))}/infer"

    scaled = await api.owner.post(f"{path}scale/", json={"min_pod_replicas": 2, "max_pod_replicas": 5})
    assert scaled.status_code == 200, scaled.text
    assert (scaled.json()["min_pod_replicas"], scaled.json()["max_pod_replicas"]) == (2, 5)
    await place.when(uuid, lambda found: bool(found["replicas"]["ready"] == 2))

    stopped = await api.owner.post(f"{path}stop/")
    assert stopped.status_code == 200, stopped.text
    assert (await place.until(uuid, "STOPPED"))["min_pod_replicas"] == 2, "what was asked for stays"
    assert (await api.owner.post(f"{path}stop/")).status_code == 200, "repeating is safe"

    started = await api.owner.post(f"{path}start/")
    assert started.status_code == 200, started.text
    assert (await place.until(uuid, "DEPLOYED"))["replicas"]["desired"] == 2

    assert (await api.owner.delete(path)).status_code == 204
    assert (await place.until(uuid, "DELETED", "DELETING"))["uuid"] == uuid
    await place.until(uuid, "DELETED")
    assert place.provider.compute.endpoints == {}
    assert (await api.owner.post(f"{path}start/")).status_code == 409, "it is over"


async def test_a_change_leaves_what_it_does_not_name(place: Place) -> None:
    uuid = (await place.create(env_variables={"A": "1"}))["uuid"]
    await place.until(uuid, "DEPLOYED")
    before = await place.row(uuid)
    assert before.spec.workload is not None
    changes = {
        "cpu_limit": 8,
        "deployment_tag": "testing",
        "autoscale_config": {"targets": [{"metric": "concurrency", "target": 4}]},
        "healthcheck": {"path": "/ready", "port": 8200},
    }
    answer = await place.api.owner.patch(f"{ROOT}{uuid}/", json=changes)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert {name: told[name] for name in ("cpu_limit", "deployment_tag", "autoscale_config")} == {
        name: changes[name] for name in ("cpu_limit", "deployment_tag", "autoscale_config")
    }
    after = await place.row(uuid)
    assert after.spec.workload is not None
    assert after.spec.workload.ports == before.spec.workload.ports
    assert after.spec.workload.resources == Resources(2, 8, 8 * GIB, 16 * GIB)
    assert after.spec.env_names == ("A",)
    assert after.generation == before.generation + 1
    await place.until(uuid, "DEPLOYED")


async def test_a_failure_says_why_and_what_to_do(place: Place) -> None:
    place.provider.compute.faults.crash_loop.add("pool")
    uuid = (await place.create())["uuid"]
    found = await place.until(uuid, "FAILED")
    assert found["failure"]["code"]
    assert found["failure"]["detail"]


def test_every_phase_has_a_documented_status() -> None:
    assert STATUS.keys() == set(Phase)
    assert set(STATUS.values()) == {
        "DEPLOYING",
        "DEPLOYED",
        "UPDATING",
        "STOPPED",
        "FAILED",
        "DELETING",
        "DELETED",
    }


# -- lists, slashes, repetitions -------------------------------------------------------------------------


async def test_the_list_has_what_is_on_clusters_newest_first(place: Place) -> None:
    made = [(await place.create(name=f"model-{n}"))["uuid"] for n in range(3)]
    await place.api.deploy(name="elsewhere")
    whole = (await place.api.owner.get(ROOT)).json()
    assert [found["uuid"] for found in whole["results"]] == made[::-1]
    assert whole["next_cursor"] is None
    paged: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = (await place.api.owner.get(ROOT, params=params)).json()
        paged += [found["uuid"] for found in page["results"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert paged == made[::-1]
    for query in ({"limit": "0"}, {"cursor": "nonsense"}, {"offset": "1"}):
        answer = await place.api.owner.get(ROOT, params=query)
        assert answer.status_code == 400
        assert answer.json().keys() == query.keys()


async def test_the_slash_at_the_end_may_be_left_out(place: Place) -> None:
    api = place.api
    answer = await api.owner.post(ROOT.rstrip("/"), json=place.world.body())
    assert answer.status_code == 201
    uuid = answer.json()["uuid"]
    for path in (f"{ROOT}{uuid}", f"{ROOT}{uuid}/", ROOT.rstrip("/"), ROOT):
        assert (await api.owner.get(path)).status_code == 200, path
    assert (await api.owner.post(f"{ROOT}{uuid}/stop")).status_code == 200
    assert (await api.owner.delete(f"{ROOT}{uuid}")).status_code == 204


async def test_a_repeated_create_with_a_key_gets_its_first_answer(place: Place) -> None:
    post, body, key = place.api.owner.post, place.world.body(), {"idempotency-key": "once"}
    answers = await asyncio.gather(*(post(ROOT, json=body, headers=key) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    other = await post(ROOT, json=place.world.body(name="other"), headers=key)
    assert other.status_code == 409
    assert other.json().keys() == {"detail"}
    assert place.api.rows()["deployments"] == 1


async def test_a_failed_deployments_name_is_free_again(place: Place) -> None:
    place.provider.compute.faults.crash_loop.add("pool")
    await place.until((await place.create())["uuid"], "FAILED")
    place.provider.compute.faults.crash_loop.clear()
    await place.until((await place.create())["uuid"], "DEPLOYED")


# -- who may what ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    status: int
    writes: bool
    body: Mapping[str, Any] | None = None


ROUTES = (
    Route("GET", "{uuid}/", 200, writes=False),
    Route("PATCH", "{uuid}/", 200, writes=True, body={"max_pod_replicas": 4}),
    Route("POST", "{uuid}/scale/", 200, writes=True, body={"max_pod_replicas": 5}),
    Route("POST", "{uuid}/stop/", 200, writes=True),
    Route("POST", "{uuid}/start/", 200, writes=True),
    Route("DELETE", "{uuid}/", 204, writes=True),
)


async def send(client: httpx.AsyncClient, route: Route, uuid: str) -> httpx.Response:
    return await client.request(route.method, ROOT + route.path.format(uuid=uuid), json=route.body)


async def test_every_route_is_in_the_tables_of_this_file(place: Place) -> None:
    paths = (await place.api.owner.get("/openapi.json")).json()["paths"]
    ours = {(m.upper(), p.removeprefix(ROOT)) for p, ms in paths.items() if p.startswith(ROOT) for m in ms}
    assert ours == {(r.method, r.path) for r in ROUTES} | {("GET", ""), ("POST", "")}


async def test_a_stranger_sees_and_changes_nothing(place: Place, subtests: pytest.Subtests) -> None:
    uuid = (await place.create())["uuid"]
    before = await place.until(uuid, "DEPLOYED")
    async with place.api.client(await place.api.stranger()) as stranger:
        for route in ROUTES:
            with subtests.test(f"{route.method} {route.path}"):
                answer = await send(stranger, route, uuid)
                never = await send(stranger, route, str(uuid4()))
                assert (answer.status_code, answer.json()) == (404, {"detail": NOT_FOUND})
                assert (never.status_code, never.json()) == (404, {"detail": NOT_FOUND})
        assert (await stranger.get(ROOT)).json() == {"results": [], "next_cursor": None}
        with subtests.test("on our cluster"):
            answer = await stranger.post(ROOT, json=place.world.body(name="theirs"))
            assert answer.status_code == 400
            assert place.world.cluster.name not in answer.text
        with subtests.test("a name is taken in its own organization only"):
            user = await place.api.service.store.user_named("owner-of-strangers")
            assert user is not None
            theirs = await bring(place.api, user.organization_id, "theirs")
            assert (await stranger.post(ROOT, json=theirs.body())).status_code == 201
    assert await place.read(uuid) == before


async def test_each_role_may_do_its_own(place: Place, subtests: pytest.Subtests) -> None:
    for role in Role:
        async with place.api.client(f"Bearer {await place.api.key(role)}") as client:
            writes = role in (Role.OWNER, Role.ADMIN, Role.DEPLOYER)
            reads = writes or role is Role.VIEWER
            answer = await client.post(ROOT, json=place.world.body(name=f"of-{role.value}"))
            assert answer.status_code == (201 if writes else 403), answer.text
            assert (await client.get(ROOT)).status_code == (200 if reads else 403)
            for route in ROUTES:
                with subtests.test(f"{role.value} {route.method} {route.path}"):
                    uuid = (await place.create(name=f"for-{uuid4().hex[:20]}"))["uuid"]
                    answer = await send(client, route, uuid)
                    may = writes if route.writes else reads
                    assert answer.status_code == (route.status if may else 403), answer.text
                    if not may:
                        assert answer.json().keys() == {"detail"}


async def test_without_a_token_nothing_is_told(place: Place, subtests: pytest.Subtests) -> None:
    async with place.api.client(None) as nobody:
        answers = [await send(nobody, route, str(uuid4())) for route in ROUTES]
        answers += [await nobody.get(ROOT), await nobody.post(ROOT, json=place.world.body())]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.json().keys() == {"detail"}
        assert answer.headers["www-authenticate"].startswith("Bearer")


# -- the OpenAPI document --------------------------------------------------------------------------------


async def test_answers_keep_the_schema_of_the_openapi_document(place: Place) -> None:
    document = (await place.api.owner.get("/openapi.json")).json()

    def check(method: str, path: str, answer: httpx.Response) -> None:
        content = document["paths"][ROOT + path][method]["responses"][str(answer.status_code)]["content"]
        schema = {"components": document["components"], **content["application/json"]["schema"]}
        Draft202012Validator(schema).validate(answer.json())

    owner = place.api.owner
    made = await owner.post(ROOT, json=place.world.body())
    check("post", "", made)
    uuid = made.json()["uuid"]
    check("get", "", await owner.get(ROOT))
    for route in ROUTES[:-1]:
        check(route.method.lower(), route.path, await send(owner, route, uuid))
    check("get", "{uuid}/", await owner.get(f"{ROOT}{uuid4()}/"))
    for body in (place.world.body(), place.world.body(name="x"), {"name": 5}):
        check("post", "", await owner.post(ROOT, json=body))
