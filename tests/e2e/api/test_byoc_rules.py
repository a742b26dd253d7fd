"""Each rule of the BYOC document broken once, through HTTP: 400, the field, the rule, and nothing stored.

What is told is compared word for word where the document has words. A rule that the document leaves out, and
that every cluster has, is broken here too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any  # JSON of the API
from uuid import uuid4

import pytest
import pytest_asyncio

from moorage.api.byoc_errors import NAME_TAKEN, NODE_GROUPS_EXPECTED, NOT_FOUND, REQUIRED
from moorage.domain.naming import uuid_of

from .byoc_world import ROOT, Body, Place, World, bring, clusters, owners_world
from .conftest import whole_service

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHOLE = "non_field_errors"
NOBODY = "5f0c1d2e-3a4b-4c5d-8e6f-708192a3b4c5"


@dataclass(frozen=True)
class Crowded(Place):
    others: World  # of another organization


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Crowded]:
    provider = clusters()
    async with whole_service(tmp_path_factory.mktemp("byoc") / "var", provider) as api:
        await api.stranger("others")
        user = await api.service.store.user_named("owner-of-others")
        assert user is not None
        theirs = await bring(api, user.organization_id, "theirs")
        yield Crowded(api, await owners_world(api), provider, theirs)


async def refused(place: Place, body: Any) -> Body:
    """What is told of the body, which is refused with 400 and leaves nothing behind."""
    before = place.api.rows()["deployments"]
    answer = await place.api.owner.post(ROOT, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert place.api.rows()["deployments"] == before
    told: Body = answer.json()
    for field, message in told.items():
        texts = message if field == WHOLE else [message]
        assert texts, field
        assert all(isinstance(text, str) and text for text in texts), field
    return told


def targets(*given: Body, **more: Any) -> Body:
    return {"autoscale_config": {"targets": list(given), **more}}


def health(**changes: Any) -> Body:
    return {"healthcheck": {"path": "/health", "port": 8200, **changes}}


def claim(**changes: Any) -> Body:
    given = {"mount_path": "/data", "size": "50", **changes}
    return {"persistent_volume_claims": [{k: v for k, v in given.items() if v is not None}]}


GPU = {"metric": "gpu", "target": 80}
CPU = {"metric": "cpu", "target": 80}


@pytest.mark.parametrize(
    "field",
    [
        "model_repo",
        "name",
        "cluster",
        "cpu_request",
        "cpu_limit",
        "memory_request",
        "memory_limit",
        "min_pod_replicas",
        "max_pod_replicas",
        "autoscale_config",
    ],
)
async def test_a_required_field_is_missed_by_name(place: Place, field: str) -> None:
    assert await refused(place, place.world.body(**{field: None})) == {field: REQUIRED}


@pytest.mark.parametrize("given", [None, [], "ngp", {}, 5, "null"])
async def test_missing_node_groups_are_told_in_the_documents_words(place: Place, given: Any) -> None:
    body = place.world.body(nodegroups=given)
    if given == "null":
        body["nodegroups"] = None
    assert await refused(place, body) == {"nodegroups": NODE_GROUPS_EXPECTED}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cpu_request": 0}, "CPU request and limit must be greater than 0"),
        ({"cpu_request": -1, "cpu_limit": -1}, "CPU request and limit must be greater than 0"),
        ({"cpu_limit": 0}, "CPU request and limit must be greater than 0"),
        ({"cpu_limit": 1}, "CPU limit must be greater than or equal to CPU request"),
        ({"memory_request": 0}, "Memory request and limit must be greater than 0"),
        ({"memory_limit": 7}, "Memory limit must be greater than or equal to memory request"),
    ],
)
async def test_resources_are_told_as_the_document_does(place: Place, changes: Body, words: str) -> None:
    assert await refused(place, place.world.body(**changes)) == {WHOLE: [words]}


async def test_what_is_wrong_at_once_is_told_at_once(place: Place) -> None:
    body = place.world.body(cpu_request=0, memory_limit=1, scale_to_zero_enabled=True, **health(port=0))
    body["autoscale_config"] = {"targets": [CPU, CPU]}
    assert await refused(place, body) == {
        WHOLE: [
            "CPU request and limit must be greater than 0",
            "Memory limit must be greater than or equal to memory request",
        ],
        "healthcheck": "port: The port is from 1 to 65535.",
        "autoscale_config": ("targets[1].metric: cpu has a target already; one target for each metric."),
        "scale_to_zero_enabled": (
            "Scaling to zero needs a metric besides cpu and ram: no replica uses none of them."
        ),
    }


# (what is changed of a call that is right, the field that is told, a part of what is told)
BROKEN: list[tuple[Body, str, str]] = [
    ({"name": "ab"}, "name", "3 to 30"),
    ({"name": "a" * 31}, "name", "3 to 30"),
    ({"name": "1st-model"}, "name", "a letter first"),
    ({"name": "My_Model"}, "name", "lower-case"),
    ({"name": "model-"}, "name", "no hyphen last"),
    ({"min_pod_replicas": 0}, "min_pod_replicas", "1 to 100"),
    ({"max_pod_replicas": 101}, "max_pod_replicas", "1 to 100"),
    ({"min_pod_replicas": 4}, WHOLE, "min_pod_replicas (4) is above max_pod_replicas (3)"),
    ({"deployment_tag": "prod"}, "deployment_tag", "'testing', 'staging' or 'production'"),
    ({"scale_to_zero_enabled": "yes"}, "scale_to_zero_enabled", "valid boolean"),
    ({"cpu_request": 1.5}, "cpu_request", "valid integer"),
    ({"cpu_request": "2"}, "cpu_request", "valid integer"),
    ({"cpu_request": True}, "cpu_request", "valid integer"),
    ({"memory_limit": 10**30}, "memory_limit", "less than"),
    ({"gpu_request": -1}, "gpu_request", "0 to 64"),
    ({"model_repo": "not-a-uuid"}, "model_repo", "UUID"),
    ({"cluster": 7}, "cluster", "UUID"),
    ({"nodegroups": ["x"]}, "nodegroups", "[0]"),
    ({"async_deployment_type": "BOTH"}, "async_deployment_type", "'ASYNC' or 'SYNC'"),
    ({"replicas": 3}, "replicas", "There is no field replicas"),
    # autoscaling
    (targets(), "autoscale_config", "targets: targets must be a non-empty array"),
    ({"autoscale_config": {}}, "autoscale_config", f"targets: {REQUIRED}"),
    ({"autoscale_config": []}, "autoscale_config", "JSON object"),
    (targets({"metric": "disk", "target": 1}), "autoscale_config", "targets[0].metric: It must be 'cpu'"),
    (targets({"metric": "gpu"}), "autoscale_config", f"targets[0].target: {REQUIRED}"),
    (targets({"metric": "gpu", "target": 0}), "autoscale_config", "targets[0].target: target is above 0"),
    (targets({"metric": "gpu", "target": "80"}), "autoscale_config", "valid number"),
    (targets({"metric": "gram", "target": 101}), "autoscale_config", "at most 100 per cent"),
    (targets(GPU, CPU, GPU), "autoscale_config", "targets[2].metric: gpu has a target already"),
    (targets({**GPU, "percentile": 95}), "autoscale_config", "only for latency"),
    (
        targets({"metric": "latency", "target": 500, "percentile": 99}),
        "autoscale_config",
        "targets[0].percentile: percentile must be one of: 50, 75, 90, 95",
    ),
    (
        targets({"metric": "queue_length", "target": 5}),
        "autoscale_config",
        "queue_length is only available for async deployments",
    ),
    (targets(GPU, cooldown_period=300), "autoscale_config", "only for deployments that scale to zero"),
    (
        {**targets(GPU, cooldown_period=-1), "scale_to_zero_enabled": True},
        "autoscale_config",
        "cooldown_period: cooldown_period is from 0",
    ),
    ({**targets(CPU), "scale_to_zero_enabled": True}, "scale_to_zero_enabled", "besides cpu and ram"),
    (targets(GPU, window=5), "autoscale_config", "There is no field window"),
    # health checks
    ({"healthcheck": None}, "healthcheck", "required for imported containers"),
    ({"healthcheck": {"port": 80}}, "healthcheck", f"path: {REQUIRED}"),
    ({"healthcheck": {"path": "/"}}, "healthcheck", f"port: {REQUIRED}"),
    (health(path="health"), "healthcheck", "path: The path starts with '/'"),
    (health(port=65536), "healthcheck", "port: The port is from 1 to 65535"),
    (health(initialDelaySeconds=-1), "healthcheck", "initialDelaySeconds: It is from 0"),
    (health(periodSeconds=0), "healthcheck", "periodSeconds: It is from 1"),
    (health(timeoutSeconds=0), "healthcheck", "timeoutSeconds: It is from 1"),
    # ports
    ({"ports": None}, "ports", "required for imported containers"),
    ({"ports": {"grpc": {"port": 9000}}}, "ports", f"http: {REQUIRED}"),
    ({"ports": {"http": {"port": 0}}}, "ports", "http.port: The http port is from 1 to 65535"),
    ({"ports": {"http": {"port": 80}, "grpc": {"port": 65536}}}, "ports", "grpc.port"),
    ({"ports": {"http": {"port": 80}, "grpc": {"port": 80}}}, "ports", "different ports"),
    (
        {"ports": {"http": {"port": 80}, "udp": {"port": 53}}},
        "ports",
        "Only http and grpc protocols are supported",
    ),
    # storage
    (claim(mount_path=None), "persistent_volume_claims", f"[0].mount_path: {REQUIRED}"),
    (claim(size=None), "persistent_volume_claims", f"[0].size: {REQUIRED}"),
    (claim(mount_path="data"), "persistent_volume_claims", "[0].mount_path: The mount path is absolute"),
    (claim(mount_path="/a/../b"), "persistent_volume_claims", "without '.' or '..'"),
    (claim(size="0"), "persistent_volume_claims", "[0].size: It must be a positive whole number of Gi"),
    (claim(size="5.5"), "persistent_volume_claims", "positive whole number of Gi, as a string"),
    (claim(size="50Gi"), "persistent_volume_claims", "positive whole number of Gi, as a string"),
    (claim(size=50), "persistent_volume_claims", "[0].size: It must be a valid string"),
    (claim(name="PVC_1"), "persistent_volume_claims", "[0].name: The name has at most 63 lower-case"),
    (claim(access_mode="ReadWrite"), "persistent_volume_claims", "'ReadWriteMany'"),
    (
        {"persistent_volume_claims": claim()["persistent_volume_claims"] * 2},
        "persistent_volume_claims",
        "[1].mount_path: Each volume has a mount path of its own",
    ),
    (
        {
            "persistent_volume_claims": [
                *claim()["persistent_volume_claims"],
                *claim(mount_path="/Data")["persistent_volume_claims"],
            ]
        },
        "persistent_volume_claims",
        "pvc-data is the name of several volumes",
    ),
    # container
    (
        {"deployment_custom_configuration": {"entrypoint": []}},
        "deployment_custom_configuration",
        "entrypoint",
    ),
    (
        {"deployment_custom_configuration": {"entrypoint": "python"}},
        "deployment_custom_configuration",
        "entrypoint: It must be a valid list",
    ),
    (
        {"deployment_custom_configuration": {"command": [1]}},
        "deployment_custom_configuration",
        "command[0]: It must be a valid string",
    ),
    (
        {"deployment_custom_configuration": {"workingDir": "app"}},
        "deployment_custom_configuration",
        "workingDir: The working directory is an absolute path",
    ),
    ({"env_variables": {"1ST": "x"}}, "env_variables", "1ST: A name has at most 128 letters"),
    ({"env_variables": {"MOORAGE_X": "x"}}, "env_variables", "the service's own"),
    ({"env_variables": {"PORT": 80}}, "env_variables", "PORT: It must be a valid string"),
    ({"env_variables": ["A=1"]}, "env_variables", "valid dictionary"),
    # async and advanced
    ({"async_deployment_type": "ASYNC"}, "async_deployment_type", "only available for custom models"),
    (
        {"advanced_configuration": {"runtime_overrides": {"termination_grace_period_seconds": -1}}},
        "advanced_configuration",
        "runtime_overrides.termination_grace_period_seconds: The termination grace period is from 0",
    ),
    (
        {"advanced_configuration": {"runtime_overrides": {"consumers": 1}}},
        "advanced_configuration",
        "There is no field consumers",
    ),
]


@pytest.mark.parametrize(
    ("changes", "field", "words"), BROKEN, ids=[f"{field}-{words}"[:70] for _, field, words in BROKEN]
)
async def test_a_broken_rule_is_told_by_its_field(
    place: Place, changes: Body, field: str, words: str
) -> None:
    told = await refused(place, place.world.body(**changes))
    assert told.keys() == {field}, told
    assert words in str(told[field] if field != WHOLE else told[field][0])


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"env_variables": {"A": "1"}}, "env_variables", "only for imported containers"),
        ({"secret_env_variables": {"A": "1"}}, "env_variables", "only for imported containers"),
        (
            {"deployment_custom_configuration": {"command": ["--x"]}},
            "deployment_custom_configuration",
            "command: Only an imported container",
        ),
        (
            {
                "async_deployment_type": "ASYNC",
                "advanced_configuration": {"runtime_overrides": {"consumer_count": 0}},
            },
            "advanced_configuration",
            "runtime_overrides.consumer_count: consumer_count is from 1",
        ),
    ],
)
async def test_a_custom_model_has_rules_of_its_own(
    place: Place, changes: Body, field: str, words: str
) -> None:
    told = await refused(place, place.world.custom_body(**changes))
    assert told.keys() == {field}, told
    assert words in told[field]


async def test_only_what_is_there_can_be_named(place: Crowded) -> None:
    ours, theirs = place.world, place.others
    told = await refused(place, ours.body(model_repo=str(uuid4())))
    assert told.keys() == {"model_repo"}
    assert await refused(place, ours.body(model_repo=str(uuid_of(theirs.container.id)))) != {}
    told = await refused(place, ours.body(model_repo=str(uuid_of(ours.failed.id))))
    assert told.keys() == {"model_repo"}
    assert "SUCCESS" in told["model_repo"]
    for cluster in (uuid4(), uuid_of(theirs.cluster.id)):
        assert (await refused(place, ours.body(cluster=str(cluster)))).keys() == {"cluster"}
    for group in (uuid4(), uuid_of(theirs.groups[0].id)):
        mixed = [str(uuid_of(ours.groups[0].id)), str(group)]
        assert (await refused(place, ours.body(nodegroups=mixed))).keys() == {"nodegroups"}


async def test_a_taken_name_is_told_in_the_documents_words(place: Place) -> None:
    body = place.world.body(name="taken-name")
    assert (await place.api.owner.post(ROOT, json=body)).status_code == 201
    assert await refused(place, body) == {WHOLE: [NAME_TAKEN]}


@pytest.mark.parametrize(
    ("content", "type_", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'"text"', "application/json", 400),
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b'{"name": "' + b"x" * 3_000_000 + b'"}', "application/json", 413),
    ],
)
async def test_what_is_no_request_at_all_is_told_in_the_same_shape(
    place: Place, content: bytes, type_: str, status: int
) -> None:
    answer = await place.api.owner.post(ROOT, content=content, headers={"content-type": type_})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert told.keys() <= {"detail", WHOLE}, told
    assert told


# -- of what is there already ----------------------------------------------------------------------------


def fresh() -> str:
    return f"n-{uuid4().hex[:20]}"


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({}, "non_field_errors", "at least one field"),
        ({"cluster": str(uuid4())}, "cluster", "cluster cannot be changed"),
        ({"name": "other"}, "name", "name cannot be changed"),
        ({"nodegroups": []}, "nodegroups", "nodegroups cannot be changed"),
        ({"async_deployment_type": "ASYNC"}, "async_deployment_type", "cannot be changed"),
        ({"cpu_limit": 1}, "non_field_errors", "CPU limit must be greater than or equal to CPU request"),
        ({"min_pod_replicas": 0}, "min_pod_replicas", "1 to 100"),
        ({"max_pod_replicas": 0}, "max_pod_replicas", "1 to 100"),
        ({"autoscale_config": {"targets": []}}, "autoscale_config", "non-empty"),
        ({"ports": {"http": {"port": 0}}}, "ports", "1 to 65535"),
        ({"colour": "red"}, "colour", "no field colour"),
    ],
)
async def test_a_change_keeps_the_rules(place: Place, changes: Body, field: str, words: str) -> None:
    uuid = (await place.create(name=fresh()))["uuid"]
    before = await place.row(uuid)
    answer = await place.api.owner.patch(f"{ROOT}{uuid}/", json=changes)
    assert answer.status_code == 400, answer.text
    assert words in str(answer.json()[field])
    assert (await place.row(uuid)).spec == before.spec


async def test_scaling_needs_a_bound(place: Place) -> None:
    uuid = (await place.create(name=fresh()))["uuid"]
    for body in ({}, {"min_pod_replicas": None}):
        answer = await place.api.owner.post(f"{ROOT}{uuid}/scale/", json=body)
        assert answer.status_code == 400
        assert answer.json().keys() == {"non_field_errors"}
    answer = await place.api.owner.post(f"{ROOT}{uuid}/scale/", json={"max_pod_replicas": 9})
    assert (answer.json()["min_pod_replicas"], answer.json()["max_pod_replicas"]) == (1, 9)


@pytest.mark.parametrize("uuid", ["x", "%00", "dep_27k4m6q2x5y3zj7abcdefghijk", NOBODY, "é" * 300])
async def test_what_is_no_deployment_of_ours_is_not_found(place: Place, uuid: str) -> None:
    answer = await place.api.owner.get(f"{ROOT}{uuid}/")
    assert (answer.status_code, answer.json()) == (404, {"detail": NOT_FOUND})
    answer = await place.api.owner.put(f"{ROOT}{uuid}/")
    assert answer.status_code == 405
    assert answer.json().keys() == {"detail"}


async def test_a_deployment_that_is_on_no_cluster_is_not_of_this_surface(place: Place) -> None:
    id_ = await place.api.deploy()
    answer = await place.api.owner.get(f"{ROOT}{uuid_of(id_)}/")
    assert (answer.status_code, answer.json()) == (404, {"detail": NOT_FOUND})
