"""Clusters of Kubernetes over HTTP: what may be imported, what a check tells, and what is refused and why."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON of the API, and YAML

import httpx
import pytest
import yaml

import moorage_kubernetes
from moorage.adapters.outgoing import GuardedOutgoing
from moorage.adapters.outgoing_rules import AllowList
from moorage.ports.provider import ProviderConfig
from moorage_kubernetes.testing import StandInCluster
from moorage_kubernetes.testing.credentials import kubeconfig

from .conftest import Api, problem, whole_service

POOL = {"eks.amazonaws.com/nodegroup": "gpus", "node.kubernetes.io/instance-type": "p5.48xlarge"}
Config = dict[str, Any]


@dataclass
class World:
    api: Api
    cluster: StandInCluster

    @property
    def owner(self) -> httpx.AsyncClient:
        return self.api.owner

    async def post(self, **body: Any) -> httpx.Response:
        return await self.owner.post("/clusters/", json={"name": "production", **body})

    async def refused(self, **body: Any) -> dict[str, Any]:
        """The problem document; nothing was stored, and the cluster was asked nothing with what was given."""
        answer = await self.post(**body)
        found = problem(answer, 422)
        assert (await self.owner.get("/clusters/")).json() == {"items": []}
        assert self.api.rows()["provider_credentials"] == 0
        assert self.cluster.token not in answer.text
        return found


@asynccontextmanager
async def world_with(folder: Path, cluster: StandInCluster, allow: str) -> AsyncIterator[World]:
    guard = GuardedOutgoing(AllowList.parse(allow))
    provider = moorage_kubernetes.provider(
        ProviderConfig(folder / "kubernetes", {}, installation="inst-tests", resolve=guard.resolve)
    )
    async with whole_service(folder, provider) as api:
        yield World(api, cluster)
    await guard.aclose()


@pytest.fixture
async def cluster() -> AsyncIterator[StandInCluster]:
    async with StandInCluster() as found:
        found.add_node("gpu-1", POOL, cpu=16, memory_gib=64, gpus=8)
        found.add_storage_class("gp3", provisioner="ebs.csi.aws.com", default=True)
        yield found


@pytest.fixture
async def world(tmp_path: Path, cluster: StandInCluster) -> AsyncIterator[World]:
    async with world_with(tmp_path / "var", cluster, "127.0.0.1") as found:
        yield found


# -- imported ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["token", "certificate", "values"])
async def test_imported_each_way_with_what_a_check_found(world: World, way: str) -> None:
    cluster = world.cluster
    body: dict[str, Any] = {
        "token": {"kubeconfig": cluster.kubeconfig()},
        "certificate": {"kubeconfig": cluster.kubeconfig(client_certificate=True)},
        "values": cluster.values(),
    }[way]
    answer = await world.post(**body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["server"] == cluster.url
    report = made["report"]
    assert (report["problem"], report["reachable"]) == (None, True)
    assert report["version"].startswith("v1.36")
    assert report["permissions"]
    assert all(permission["allowed"] for permission in report["permissions"])
    assert "keda" in {tool["name"] for tool in report["tools"] if tool["installed"]}
    assert "gp3" in {found["name"] for found in report["storage_classes"]}
    (group,) = [group for group in made["nodegroups"] if group["selector"].get(next(iter(POOL))) == "gpus"]
    assert (group["discovered"], group["nodes"], group["instance_type"]) == (True, 1, "p5.48xlarge")
    assert group["price_per_hour"] == 55.04
    assert group["shape"]["gpus"] == 8


async def test_a_check_follows_the_cluster(world: World) -> None:
    made = (await world.post(kubeconfig=world.cluster.kubeconfig())).json()
    world.cluster.uninstall("keda")
    world.cluster.deny("create", "deployments.apps")
    world.cluster.remove_node("gpu-1")
    checked = (await world.owner.post(f"/clusters/{made['uuid']}/check/")).json()
    report = checked["report"]
    assert "keda" not in {tool["name"] for tool in report["tools"] if tool["installed"]}
    denied = {(p["verb"], p["resource"]) for p in report["permissions"] if not p["allowed"]}
    assert ("create", "deployments.apps") in denied
    assert all(group["instance_type"] != "p5.48xlarge" for group in checked["nodegroups"])


async def test_one_that_is_down_is_shown_as_such_and_found_again(world: World) -> None:
    made = (await world.post(kubeconfig=world.cluster.kubeconfig())).json()
    await world.cluster.go_down()
    down = (await world.owner.post(f"/clusters/{made['uuid']}/check/")).json()
    assert down["report"]["reachable"] is False
    assert down["report"]["problem"]
    uncounted = [{**group, "nodes": None} for group in made["nodegroups"]]
    assert down["nodegroups"] == uncounted, "nothing is thrown away"
    await world.cluster.come_up()
    again = (await world.owner.post(f"/clusters/{made['uuid']}/check/")).json()
    assert again["report"]["reachable"] is True
    assert again["nodegroups"] == made["nodegroups"]


async def test_one_that_is_down_is_imported_and_shown_as_such(world: World) -> None:
    await world.cluster.go_down()
    answer = await world.post(kubeconfig=world.cluster.kubeconfig())
    assert answer.status_code == 201, answer.text
    assert answer.json()["report"]["reachable"] is False


# -- refused -------------------------------------------------------------------------------------------------


def edited(cluster: StandInCluster, edit: Callable[[Config, Config, Config], None]) -> str:
    """The kubeconfig with its parts changed: the whole, the cluster and the user."""
    config: Config = yaml.safe_load(cluster.kubeconfig())
    edit(config, config["clusters"][0]["cluster"], config["users"][0]["user"])
    text: str = yaml.safe_dump(config)
    return text


def _exec(_: Config, __: Config, user: Config) -> None:
    user.clear()
    user["exec"] = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/true"}


def _auth_provider(_: Config, __: Config, user: Config) -> None:
    user.clear()
    user["auth-provider"] = {"name": "oidc", "config": {}}


def _token_file(_: Config, __: Config, user: Config) -> None:
    user.clear()
    user["tokenFile"] = "/etc/hostname"


def _certificate_files(_: Config, __: Config, user: Config) -> None:
    user.clear()
    user |= {"client-certificate": "/etc/hostname", "client-key": "/etc/hostname"}


def _authority_file(_: Config, cluster: Config, __: Config) -> None:
    del cluster["certificate-authority-data"]
    cluster["certificate-authority"] = "/etc/ssl/certs/ca-certificates.crt"


def _plain_http(_: Config, cluster: Config, __: Config) -> None:
    cluster["server"] = cluster["server"].replace("https://", "http://")


def _no_context(config: Config, _: Config, __: Config) -> None:
    config["current-context"] = "nothing"


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (_exec, "exec_plugin"),
        (_auth_provider, "auth_provider"),
        (_token_file, "file_path"),
        (_certificate_files, "file_path"),
        (_authority_file, "file_path"),
        (_plain_http, "https"),
        (_no_context, "known_context"),
    ],
)
async def test_a_kubeconfig_that_reaches_beyond_itself_is_refused(
    world: World, edit: Callable[[Config, Config, Config], None], rule: str
) -> None:
    found = await world.refused(kubeconfig=edited(world.cluster, edit))
    assert ("body.kubeconfig", rule) in {(error["field"], error["rule"]) for error in found["errors"]}
    assert world.cluster.requests == []


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{", "a: b: c", "!!python/object/apply:os.system [true]", "\0", "&a [*a, *a]"]
)
async def test_garbage_is_refused(world: World, text: str) -> None:
    found = await world.refused(kubeconfig=text)
    assert {error["field"] for error in found["errors"]} == {"body.kubeconfig"}


async def test_a_wrong_token_is_refused_by_its_code(world: World) -> None:
    values = {**world.cluster.values(), "token": "wrong-token"}
    found = await world.refused(**values)
    assert found["code"] == "credential_refused"
    assert "wrong-token" not in str(found)


async def test_a_server_of_another_authority_is_not_trusted(world: World) -> None:
    async with StandInCluster() as other:
        found = await world.refused(**{**world.cluster.values(), "certificate_authority": other.ca})
    assert "certificate" in found["detail"]


async def test_an_expired_certificate_of_the_server_is_refused(world: World) -> None:
    async with StandInCluster(expired_certificate=True) as expired:
        found = await world.refused(kubeconfig=expired.kubeconfig())
        assert "expired" in found["detail"]
        assert expired.requests == []


async def test_an_expired_certificate_of_the_user_is_refused_before_anything_is_asked(world: World) -> None:
    cluster = world.cluster
    text = kubeconfig(cluster.url, cluster.ca, pair=cluster.client_pair(expired=True))
    found = await world.refused(kubeconfig=text)
    assert "expired" in found["detail"]
    assert cluster.requests == []


@pytest.mark.parametrize("server", ["https://10.0.0.1:6443", "https://169.254.169.254", "https://[::1]:6443"])
async def test_a_private_address_is_refused_unless_the_operator_allows_it(world: World, server: str) -> None:
    found = await world.refused(**{**world.cluster.values(), "server": server})
    assert "may not be connected to" in found["detail"]


async def test_nothing_is_connected_to_that_the_operator_did_not_allow(
    tmp_path: Path, cluster: StandInCluster
) -> None:
    async with world_with(tmp_path / "var", cluster, "") as world:
        await world.refused(kubeconfig=cluster.kubeconfig())
    assert cluster.requests == []
