"""Clusters over HTTP: imported, looked over, used, removed; by a provider in memory whose accounts they are.

`providers/kubernetes` shows the same with clusters of Kubernetes.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any  # JSON of the API
from uuid import UUID

import httpx
import pytest
from jsonschema_rs import Draft202012Validator

from moorage.domain.cluster import ClusterReport, FoundGroup, GpuNode, Grant, NodeShape, StorageClass, Tool
from moorage.domain.identity import Role
from moorage.domain.naming import id_of
from moorage.domain.workload import AccessMode
from moorage.errors import PermissionMissing
from moorage.testing.clusters import OPENS, FakeCluster, InProcessClusters

from .conftest import MODEL, Api, at_fault, problem, whole_service

SERVER = "https://k8s.example:6443"
GPU = FoundGroup(
    "gpu", {"pool": "gpu"}, 2, NodeShape(4.0, 2**34, "NVIDIA-L4", 1, 24 * 2**30), "p5.48xlarge", "us-east-1"
)
REPORT = ClusterReport(
    datetime(2026, 11, 21, tzinfo=UTC),
    version="v1.34.2",
    grants=(Grant("create", "deployments.apps", True, "running anything"),),
    storage_classes=(StorageClass("gp3", "ebs.csi.aws.com", True, (AccessMode.READ_WRITE_ONCE,)),),
    tools=(Tool("keda", True, "2.18.1"), Tool("redis", False)),
    gateway_classes=("eg",),
    gpu_nodes=(GpuNode("node-1", "NVIDIA-L4", 24 * 2**30, 1, 1),),
    node_groups=(GPU,),
    warnings=("no metrics server",),
)
DECLARED: dict[str, Any] = {
    "name": "big",
    "selector": {"pool": "big"},
    "price_per_hour": 4.2,
    "max_nodes": 3,
    "shape": {"cpus": 8, "memory_gib": 32, "gpu": "NVIDIA-L4", "gpus": 1, "gpu_memory_gib": 24},
}


@dataclass
class World:
    api: Api
    provider: InProcessClusters
    owner: httpx.AsyncClient

    @property
    def cluster(self) -> FakeCluster:
        return self.provider.clusters[SERVER]

    async def imported(self, **change: Any) -> dict[str, Any]:
        answer = await self.owner.post("/clusters/", json=asked(**change))
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def declared(self, cluster: str, **change: Any) -> dict[str, Any]:
        answer = await self.owner.post(f"/clusters/{cluster}/nodegroups/", json={**DECLARED, **change})
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document


def asked(**change: Any) -> dict[str, Any]:
    body = {"name": "production", "server": SERVER, "certificate_authority": "PEM", "token": OPENS, **change}
    return {name: value for name, value in body.items() if value is not None}


def by_kubeconfig(text: str, **change: Any) -> dict[str, Any]:
    return asked(server=None, certificate_authority=None, token=None, kubeconfig=text, **change)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    provider = InProcessClusters()
    provider.clusters[SERVER] = FakeCluster(report=REPORT)
    async with whole_service(tmp_path / "var", provider) as api:
        yield World(api, provider, api.owner)


# -- importing -----------------------------------------------------------------------------------------------


async def test_a_cluster_is_imported_with_its_report_and_its_groups(world: World) -> None:
    made = await world.imported(namespace="models")
    assert (made["name"], made["provider"], made["server"]) == ("production", "clusters", SERVER)
    report = made["report"]
    assert (report["reachable"], report["problem"], report["version"]) == (True, None, "v1.34.2")
    assert report["permissions"][0]["allowed"] is True
    assert report["storage_classes"][0]["access_modes"] == ["ReadWriteOnce"]
    assert [tool["name"] for tool in report["tools"] if tool["installed"]] == ["keda"]
    assert report["gpu_nodes"] == [
        {"node": "node-1", "product": "NVIDIA-L4", "memory_gib": 24.0, "count": 1, "free": 1}
    ]
    (group,) = made["nodegroups"]
    assert (group["name"], group["selector"], group["nodes"]) == ("gpu", {"pool": "gpu"}, 2)
    assert group["price_per_hour"] == 55.04
    assert group["cluster"] == made["uuid"]
    assert UUID(made["uuid"])
    assert UUID(group["uuid"])
    assert (await world.owner.get(f"/clusters/{made['uuid']}")).json() == made
    assert (await world.owner.get("/clusters/")).json() == {"items": [made]}


async def test_what_opens_it_is_sealed_and_never_shown(world: World) -> None:
    secret = "a-token-that-nobody-sees"
    world.cluster.token = secret
    made = await world.imported(token=secret, rabbitmq_url="amqp://guest:hidden@rabbit:5672")
    id_ = made["uuid"]
    await world.declared(id_)
    for path in ("/clusters/", f"/clusters/{id_}", f"/clusters/{id_}/nodegroups/", "/v1/credentials"):
        text = (await world.owner.get(path)).text
        assert secret not in text
        assert "hidden" not in text
    files = (Path(world.api.service.settings.store_url.removeprefix("sqlite:///"))).parent.glob("moorage.db*")
    stored = b"".join(file.read_bytes() for file in files)
    assert b"production" in stored
    assert secret.encode() not in stored
    assert b"guest:hidden" not in stored


async def test_its_account_is_no_account_of_the_credentials_surface(world: World) -> None:
    await world.imported()
    assert world.api.rows()["provider_credentials"] == 1
    assert (await world.owner.get("/v1/credentials")).json() == {"items": []}
    store = world.api.service.store
    (row,) = await store.provider_credentials(provider="clusters")
    problem(await world.owner.delete(f"/v1/credentials/{row.id}"), 404, "credential_not_found")
    body = {"provider": "clusters", "name": "x", "values": {"server": SERVER, "token": OPENS}}
    refused = await world.owner.post("/v1/credentials", json=body)
    assert "POST /clusters/" in at_fault(refused, 422, "body.provider", "imported")["advice"]
    named = {"hf_model_id": MODEL, "credential": row.id}
    at_fault(
        await world.owner.post("/v1/deployments", json=named), 422, "body.credential", "known_credential"
    )


async def test_a_kubeconfig_does_as_well(world: World) -> None:
    text = json.dumps({"server": SERVER, "token": OPENS})
    answer = await world.owner.post("/clusters/", json=by_kubeconfig(text))
    assert answer.status_code == 201
    assert answer.json()["server"] == SERVER


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (asked(name="\n"), "body.name", "name"),
        (asked(name="x" * 65), "body.name", "string_too_long"),
        (asked(name=7), "body.name", "string_type"),
        (asked(server="http://k8s.example"), "body.server", "scheme"),
        (asked(token=None), "body.token", "required"),
        (asked(token="wrong"), "body.token", "accepted_by_cluster"),
        (asked(kubeconfig="{}"), "body.kubeconfig", "exactly_one_access"),
        (asked(kubeconfig="{}"), "body.server", "exactly_one_access"),
        ({"name": "x"}, "body.kubeconfig", "exactly_one_access"),
        (by_kubeconfig("no JSON"), "body.kubeconfig", "readable"),
        (
            by_kubeconfig(json.dumps({"server": SERVER, "token": "wrong"})),
            "body.kubeconfig",
            "accepted_by_cluster",
        ),
        (asked(tokn="x"), "body.tokn", "unknown_field"),
    ],
)
async def test_what_cannot_be_imported_is_told_by_field_and_not_stored(
    world: World, body: dict[str, Any], field: str, rule: str
) -> None:
    at_fault(await world.owner.post("/clusters/", json=body), 422, field, rule)
    assert (await world.owner.get("/clusters/")).json() == {"items": []}
    assert world.api.rows()["provider_credentials"] == 0


async def test_a_refused_token_is_told_by_its_code_without_the_token(world: World) -> None:
    answer = await world.owner.post("/clusters/", json=asked(token="a-wrong-token"))
    found = problem(answer, 422, "credential_refused")
    assert found["advice"] == "Make a new one."
    assert "a-wrong-token" not in answer.text


async def test_a_cluster_that_cannot_be_reached_is_kept_and_shown_as_such(world: World) -> None:
    world.cluster.answers = False
    made = await world.imported()
    assert made["report"]["reachable"] is False
    assert made["report"]["problem"] == f"{SERVER} does not answer"
    assert made["nodegroups"] == []
    world.cluster.answers = True
    checked = await world.owner.post(f"/clusters/{made['uuid']}/check")
    assert checked.status_code == 200
    assert checked.json()["report"]["reachable"] is True
    assert [group["name"] for group in checked.json()["nodegroups"]] == ["gpu"]


async def test_one_that_lets_us_do_too_little_is_imported_and_reported_on(world: World) -> None:
    world.provider.compute.faults.raise_next("check_credentials", PermissionMissing("may not list nodes"))
    world.cluster.report = replace(REPORT, grants=(Grant("list", "nodes", False, "offers"),))
    made = await world.imported()
    assert made["report"]["permissions"] == [
        {"verb": "list", "resource": "nodes", "allowed": False, "needed_for": "offers"}
    ]


async def test_a_name_is_one_clusters(world: World) -> None:
    made = await world.imported()
    taken = await world.owner.post("/clusters/", json=asked(name=" production "))
    at_fault(taken, 409, "body.name", "unique_in_organization")
    assert (await world.owner.delete(f"/clusters/{made['uuid']}")).status_code == 204
    again = await world.imported()
    assert again["uuid"] != made["uuid"]
    assert [group["uuid"] for group in again["nodegroups"]] != [group["uuid"] for group in made["nodegroups"]]


async def test_an_import_that_is_sent_again_does_not_happen_again(world: World) -> None:
    headers = {"idempotency-key": "import-1"}
    answers = [await world.owner.post("/clusters/", json=asked(), headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert len((await world.owner.get("/clusters/")).json()["items"]) == 1
    other = await world.owner.post("/clusters/", json=asked(name="other"), headers=headers)
    problem(other, 409, "idempotency_key_reused")
    path, headers = f"/clusters/{answers[0].json()['uuid']}/nodegroups/", {"idempotency-key": "group-1"}
    groups = [await world.owner.post(path, json=DECLARED, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in groups] == [201, 201]
    assert groups[0].json() == groups[1].json()


async def test_where_no_provider_takes_clusters_that_is_said(api: Api) -> None:
    found = problem(await api.owner.post("/clusters/", json=asked()), 503, "no_cluster_provider")
    assert found["advice"]


# -- checking ------------------------------------------------------------------------------------------------


async def test_groups_follow_the_checks_and_keep_their_ids(world: World) -> None:
    made = await world.imported()
    (gpu,) = made["nodegroups"]
    own = await world.declared(made["uuid"])
    path = f"/clusters/{made['uuid']}"
    world.cluster.report = replace(REPORT, node_groups=())
    gone = (await world.owner.post(f"{path}/check")).json()
    assert gone["nodegroups"] == [own]
    world.cluster.report = REPORT
    back = (await world.owner.post(f"{path}/check")).json()
    assert {group["uuid"] for group in back["nodegroups"]} == {own["uuid"], gpu["uuid"]}
    # While it does not answer nothing is thrown away.
    world.cluster.answers = False
    silent = (await world.owner.post(f"{path}/check")).json()
    assert silent["report"]["problem"]
    assert {group["uuid"] for group in silent["nodegroups"]} == {own["uuid"], gpu["uuid"]}
    assert (await world.owner.get(path)).json() == silent


async def test_a_token_that_was_taken_back_shows_in_the_report(world: World) -> None:
    made = await world.imported()
    world.cluster.token = "another"
    checked = (await world.owner.post(f"/clusters/{made['uuid']}/check")).json()
    assert checked["report"]["problem"] == "The cluster refuses the token."
    assert len(checked["nodegroups"]) == 1


# -- node groups ---------------------------------------------------------------------------------------------


async def test_a_group_is_declared_listed_and_removed(world: World) -> None:
    made = await world.imported()
    path = f"/clusters/{made['uuid']}/nodegroups/"
    own = await world.declared(made["uuid"])
    assert (own["discovered"], own["nodes"], own["max_nodes"]) == (False, None, 3)
    assert (own["price_per_hour"], own["price_source"]) == (4.2, "given by its owner")
    assert own["shape"] == {**DECLARED["shape"], "cpus": 8.0, "memory_gib": 32.0, "gpu_memory_gib": 24.0}
    assert (await world.owner.get(path)).json()["items"] == [*made["nodegroups"], own]
    assert (await world.owner.delete(f"{path}{own['uuid']}")).status_code == 204
    assert (await world.owner.delete(f"{path}{own['uuid']}")).status_code == 204, "repeating is safe"
    assert (await world.owner.get(path)).json()["items"] == made["nodegroups"]


async def test_declaring_what_was_discovered_takes_its_place(world: World) -> None:
    made = await world.imported()
    (gpu,) = made["nodegroups"]
    own = await world.declared(
        made["uuid"], name="ours", selector={"pool": "gpu"}, max_nodes=None, shape=None
    )
    assert (own["uuid"], own["discovered"], own["price_per_hour"]) == (gpu["uuid"], False, 4.2)
    assert (own["instance_type"], own["shape"], own["nodes"]) == ("p5.48xlarge", gpu["shape"], 2)
    checked = (await world.owner.post(f"/clusters/{made['uuid']}/check")).json()
    assert checked["nodegroups"] == [own]


@pytest.mark.parametrize(
    ("change", "status", "field", "rule"),
    [
        ({"selector": {}}, 422, "body.selector", "length"),
        ({"selector": {"a b": "c"}}, 422, "body.selector.a b", "label_key"),
        ({"selector": {"a": "b c"}}, 422, "body.selector.a", "label_value"),
        ({"price_per_hour": -1}, 422, "body.price_per_hour", "range"),
        ({"max_nodes": 0}, 422, "body.max_nodes", "range"),
        ({"shape": None}, 422, "body.shape", "needed_by_max_nodes"),
        ({"shape": {"cpus": 1, "memory_gib": 1e308}}, 422, "body.shape.memory_gib", "less_than_equal"),
        ({"shape": {"cpus": 0, "memory_gib": 1}}, 422, "body.shape.cpus", "greater_than"),
        ({"shape": {"cpus": 1, "memory_gib": 1, "gpu": "L4"}}, 422, "body.shape.gpus", "required"),
        ({"name": "gpu"}, 409, "body.name", "unique_in_cluster"),
        ({"name": "other"}, 409, "body.selector", "unique_in_cluster"),
        ({"colour": "blue"}, 422, "body.colour", "unknown_field"),
    ],
)
async def test_a_group_that_cannot_be_declared(
    world: World, change: dict[str, Any], status: int, field: str, rule: str
) -> None:
    made = await world.imported()
    await world.declared(made["uuid"])
    path = f"/clusters/{made['uuid']}/nodegroups/"
    at_fault(await world.owner.post(path, json={**DECLARED, **change}), status, field, rule)
    assert len((await world.owner.get(path)).json()["items"]) == 2


async def test_a_discovered_group_is_not_removed_by_hand(world: World) -> None:
    made = await world.imported()
    (gpu,) = made["nodegroups"]
    answer = await world.owner.delete(f"/clusters/{made['uuid']}/nodegroups/{gpu['uuid']}")
    problem(answer, 409, "node_group_discovered")


async def test_a_group_of_another_cluster_is_not_there(world: World) -> None:
    world.provider.clusters["https://two.example"] = FakeCluster()
    first = await world.imported()
    second = await world.imported(name="second", server="https://two.example")
    own = await world.declared(first["uuid"])
    answer = await world.owner.delete(f"/clusters/{second['uuid']}/nodegroups/{own['uuid']}")
    problem(answer, 404, "node_group_not_found")
    assert len((await world.owner.get(f"/clusters/{first['uuid']}/nodegroups/")).json()["items"]) == 2


# -- using and removing --------------------------------------------------------------------------------------


async def test_a_cluster_stays_while_a_deployment_uses_it(world: World) -> None:
    made = await world.imported()
    path = f"/clusters/{made['uuid']}"
    body = {"hf_model_id": MODEL, "provider": "clusters", "name": "on-cluster"}
    deployed = await world.owner.post("/v1/deployments", json=body)
    assert deployed.status_code == 202, deployed.text
    id_ = deployed.json()["deployment_id"]
    await world.api.until(id_, "ready")
    refused = problem(await world.owner.delete(path), 409, "cluster_in_use")
    assert "'on-cluster'" in refused["detail"]
    await world.owner.delete(f"/v1/deployments/{id_}")
    await world.api.until(id_, "deleted")
    assert world.provider.compute.endpoints == {}
    assert (await world.owner.delete(path)).status_code == 204
    assert (await world.owner.delete(path)).status_code == 204, "repeating is safe"
    for gone in (path, f"{path}/nodegroups/"):
        problem(await world.owner.get(gone), 404, "cluster_not_found")
    problem(await world.owner.post(f"{path}/check"), 404, "cluster_not_found")
    (credential,) = await world.api.service.store.provider_credentials(provider="clusters")
    assert (credential.sealed, credential.removed_at is None) == ("", False)
    problem(await world.owner.post("/v1/deployments", json=body), 422, "does_not_fit")


# -- who may, and in what form -------------------------------------------------------------------------------


async def test_who_may_what(world: World) -> None:
    made = await world.imported()
    path = f"/clusters/{made['uuid']}"
    own = await world.declared(made["uuid"])
    reads = [("GET", "/clusters/"), ("GET", path), ("GET", f"{path}/nodegroups/")]
    changes = [
        ("POST", f"{path}/check", None),
        ("POST", f"{path}/nodegroups/", {**DECLARED, "name": "n", "selector": {"n": "1"}}),
        ("DELETE", f"{path}/nodegroups/{own['uuid']}", None),
        ("POST", "/clusters/", asked(name="another")),
        ("DELETE", path, None),
    ]
    for role in (Role.DEPLOYER, Role.VIEWER, Role.INVOKER, Role.ADMIN):
        async with world.api.client(f"Bearer {await world.api.key(role)}") as client:
            for method, to in reads:
                answer = await client.request(method, to)
                assert answer.status_code == (403 if role is Role.INVOKER else 200), (role, to)
            for method, to, body in changes:
                answer = await client.request(method, to, json=body)
                assert answer.is_success == (role is Role.ADMIN), (role, method, to, answer.text)
                if role is not Role.ADMIN:
                    problem(answer, 403)
    async with world.api.client(None) as nobody:
        for method, to, body in changes:
            problem(await nobody.request(method, to, json=body), 401)


async def test_another_organization_sees_nothing_of_it(world: World) -> None:
    made = await world.imported()
    path = f"/clusters/{made['uuid']}"
    own = await world.declared(made["uuid"])
    async with world.api.client(await world.api.stranger()) as stranger:
        assert (await stranger.get("/clusters/")).json() == {"items": []}
        for method, to, body in (
            ("GET", path, None),
            ("DELETE", path, None),
            ("POST", f"{path}/check", None),
            ("GET", f"{path}/nodegroups/", None),
            ("POST", f"{path}/nodegroups/", DECLARED),
            ("DELETE", f"{path}/nodegroups/{own['uuid']}", None),
        ):
            problem(await stranger.request(method, to, json=body), 404, "cluster_not_found")
        # The name is free there, and the account is not lent.
        plan = (await stranger.post("/v1/deployments/plan", json={"hf_model_id": MODEL})).json()
        assert "clusters" not in {rung["provider"] for rung in plan["ladder"]}
        assert (await stranger.post("/clusters/", json=asked())).status_code == 201
    assert (await world.owner.get(path)).json()["nodegroups"][-1] == own


async def test_ids_in_both_forms_and_paths_with_and_without_the_slash(world: World) -> None:
    made = await world.imported()
    id_ = id_of("cls", UUID(made["uuid"]))
    for path in (f"/clusters/{made['uuid']}", f"/clusters/{id_}", f"/clusters/{made['uuid'].upper()}"):
        for end in ("", "/"):
            assert (await world.owner.get(path + end)).json()["uuid"] == made["uuid"]
            assert (await world.owner.get(f"{path}/nodegroups{end}")).status_code == 200
            assert (await world.owner.post(f"{path}/check{end}")).status_code == 200
    assert (await world.owner.get("/clusters")).json() == (await world.owner.get("/clusters/")).json()
    assert (await world.owner.post("/clusters", json=asked(name="slashless"))).status_code == 201
    for strange in ("x", "cls_", "dep_27k4m6q2x5y3zj7abcdefghijk", "0" * 36, "%00"):
        problem(await world.owner.get(f"/clusters/{strange}"), 404, "cluster_not_found")


async def test_every_answer_keeps_the_documents_schema(world: World) -> None:
    document = (await world.owner.get("/openapi.json")).json()
    made = await world.imported()
    path = f"/clusters/{made['uuid']}"
    own = await world.declared(made["uuid"])
    world.cluster.answers = False
    answers = {
        "GET /clusters/": await world.owner.get("/clusters/"),
        "GET /clusters/{cluster_id}/": await world.owner.get(path),
        "POST /clusters/{cluster_id}/check/": await world.owner.post(f"{path}/check"),
        "GET /clusters/{cluster_id}/nodegroups/": await world.owner.get(f"{path}/nodegroups/"),
        "POST /clusters/": await world.owner.post("/clusters/", json=asked(name="second")),
        "POST /clusters/{cluster_id}/nodegroups/": await world.owner.post(
            f"{path}/nodegroups/", json={**DECLARED, "name": "second", "selector": {"s": ""}}
        ),
        "DELETE /clusters/{cluster_id}/nodegroups/{group_id}/": await world.owner.delete(
            f"{path}/nodegroups/{own['uuid']}"
        ),
        "DELETE /clusters/{cluster_id}/": await world.owner.delete(path),
    }
    documented = {
        f"{method.upper()} {to}"
        for to, methods in document["paths"].items()
        for method in methods
        if to.startswith("/clusters")
    }
    assert set(answers) == documented
    for name, answer in answers.items():
        method, to = name.split(" ")
        promised = document["paths"][to][method.lower()]["responses"][str(answer.status_code)]
        if answer.status_code != 204:
            schema = promised["content"]["application/json"]["schema"]
            Draft202012Validator({"components": document["components"], **schema}).validate(answer.json())
    assert not re.search("(?i)sealed", answers["GET /clusters/"].text)
