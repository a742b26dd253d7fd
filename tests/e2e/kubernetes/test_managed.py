"""The whole service with managed compute on two clusters of the operator's."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON of the API, and Kubernetes objects as they are read

import httpx
import pytest
import uvicorn
from pydantic import SecretStr

import moorage_managed
from moorage.domain.identity import Organization, Role, User
from moorage.main import Service, running
from moorage.ports.provider import Provider, ProviderConfig
from moorage.ports.store import Insert
from moorage.server import listening
from moorage.settings import Settings
from moorage.testing.provider import InProcessCompute, InProcessVendor
from moorage_kubernetes.testing import StandInCluster

PASSWORD = "a long enough password"
KEY = "fake_" + "k" * 40  # of an account at another vendor
POOL = {"cloud.google.com/gke-nodepool": "gpus", "nvidia.com/gpu.product": "NVIDIA-L4"}
PRICE = "moorage.io/price-per-hour"
EACH_KIND = (
    *("deployments", "services", "pods", "secrets", "persistentvolumeclaims", "poddisruptionbudgets"),
    *("scaledobjects", "horizontalpodautoscalers", "httproutes", "triggerauthentications"),
)


@dataclass
class Estate:
    """A running service on clusters `cheap` and `dear`, and an owner who is signed in."""

    service: Service
    url: str
    cheap: StandInCluster
    dear: StandInCluster
    owner: httpx.AsyncClient

    @contextlib.asynccontextmanager
    async def another(self) -> AsyncIterator[httpx.AsyncClient]:
        """The owner of another organization; there is no route that makes one."""
        store, ids, now = self.service.store, self.service.new_id, self.service.clock.now()
        mine = await store.user_named("owner")
        assert mine is not None
        other = Organization(ids("org"), "others", now)
        user = User(ids("usr"), other.id, "other", mine.password_hash, Role.OWNER, now)
        await store.commit([Insert(other), Insert(user)])
        async with signed_in(self.url, "other") as found:
            yield found

    def placed(self) -> dict[str, list[str]]:
        """Namespaces of what runs, by cluster."""
        return {
            name: sorted(found["metadata"]["namespace"] for found in cluster.objects("deployments"))
            for name, cluster in (("cheap", self.cheap), ("dear", self.dear))
        }

    def left(self) -> list[str]:
        return [
            f"{kind}/{found['metadata']['name']}"
            for cluster in (self.cheap, self.dear)
            for kind in EACH_KIND
            for found in cluster.objects(kind)
            if found["metadata"]["namespace"] != "default"
        ]


@contextlib.asynccontextmanager
async def signed_in(url: str, username: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as user:
        answer = await user.post("/auth/token", json={"username": username, "password": PASSWORD})
        user.headers["authorization"] = f"Bearer {answer.json()['token']}"
        yield user


async def deploy(user: httpx.AsyncClient, **more: Any) -> str:
    answer = await user.post("/v1/deployments", json=body(**more))
    assert answer.status_code == 202, answer.text
    id_: str = answer.json()["deployment_id"]
    return id_


def body(*, gpus: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "container_image": "registry.example.com/acme/echo:1.0",
        "workload": {
            "resources": {"cpu_request": 1, "memory_request": "1Gi", "memory_limit": "2Gi", "gpus": gpus},
            "ports": {"http": 8200},
            "health": {"path": "/health", "port": 8200, "initial_delay": 0, "period": 1, "timeout": 1},
        },
        **more,
    }


async def until(user: httpx.AsyncClient, id_: str, status: str, seconds: float = 20) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = (await user.get(f"/v1/deployments/{id_}")).json()
                if found["status"] == status:
                    return found
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{found}, not {status}") from None


async def remove(user: httpx.AsyncClient, *ids: str) -> None:
    for id_ in ids:
        assert (await user.delete(f"/v1/deployments/{id_}")).status_code == 204
    for id_ in ids:
        await until(user, id_, "deleted")


def driver(folder: Path, cheap: StandInCluster, dear: StandInCluster) -> dict[str, str]:
    """The operator's settings."""
    folder.mkdir()
    (folder / "cheap.yaml").write_text(cheap.kubeconfig())
    (folder / "costly").write_text(dear.kubeconfig(client_certificate=True))
    return {
        "MOORAGE_MANAGED_DRIVER": "kubernetes",
        "MOORAGE_MANAGED_KUBECONFIGS": f"{folder / 'cheap.yaml'}{os.pathsep}dear={folder / 'costly'}",
    }


@contextlib.asynccontextmanager
async def estate_on(
    folder: Path, cheap: StandInCluster, dear: StandInCluster, environ: Mapping[str, str], look_seconds: float
) -> AsyncIterator[Estate]:
    """Nothing but the watches drives the engine where `look_seconds` are longer than a test."""
    environ = {**driver(folder, cheap, dear), **environ}
    providers: dict[str, Provider] = {
        "managed": moorage_managed.provider(ProviderConfig(folder / "managed", environ, installation="inst")),
        "vendor": InProcessVendor(InProcessCompute(name="vendor"), token=KEY),
    }
    async with contextlib.AsyncExitStack() as stack:
        sock = stack.enter_context(listening("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        settings = Settings(
            _env_file=None,
            data_dir=folder,
            public_url=url,
            bootstrap_user="owner",
            bootstrap_password=SecretStr(PASSWORD),
            loading_look_seconds=look_seconds,
            ready_look_seconds=look_seconds,
        )
        service = await stack.enter_async_context(running(settings, url, providers=providers))
        config = uvicorn.Config(
            service.asgi, log_config=None, lifespan="off", access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve(sockets=[sock]))
        async with signed_in(url, "owner") as owner:
            try:
                yield Estate(service, url, cheap, dear, owner)
            finally:
                server.should_exit = True
                await serving


@pytest.fixture
async def clusters() -> AsyncIterator[tuple[StandInCluster, StandInCluster]]:
    async with StandInCluster(node=False) as cheap, StandInCluster(node=False) as dear:
        cheap.add_node("gpu-1", {**POOL, PRICE: "0.4"}, gpus=2)
        dear.add_node("gpu-1", {**POOL, PRICE: "1.2"}, gpus=2)
        yield cheap, dear
        assert cheap.refused + dear.refused == [], "every object that was sent is valid"


@pytest.fixture
async def estate(tmp_path: Path, clusters: tuple[StandInCluster, StandInCluster]) -> AsyncIterator[Estate]:
    async with estate_on(tmp_path / "var", *clusters, {}, look_seconds=3600) as found:
        yield found
        assert found.left() == [], "nothing is left"


async def test_the_cheaper_cluster_is_chosen_and_answers(estate: Estate) -> None:
    id_ = await deploy(estate.owner, min_replicas=2)
    shown = await until(estate.owner, id_, "ready")
    assert (shown["provider"], shown["gpu_allocated"]) == ("managed", "L4")
    assert shown["price_per_hour"] == pytest.approx(0.2)  # one of the two GPUs of a node
    assert {name: len(found) for name, found in estate.placed().items()} == {"cheap": 1, "dear": 0}
    answer = await estate.owner.post(f"/v1/models/{id_}/infer", json={"inputs": "hello"})
    assert answer.status_code == 200, answer.text
    assert "hello" in answer.text
    await remove(estate.owner, id_)
    assert estate.left() == []


async def test_the_other_cluster_is_chosen_where_the_cheaper_one_is_full(estate: Estate) -> None:
    estate.cheap.add(somebody_else())
    await estate.cheap.came(lambda: [p for p in estate.cheap.objects("pods") if p["spec"].get("nodeName")])
    id_ = await deploy(estate.owner)
    await until(estate.owner, id_, "ready")
    assert {name: len(found) for name, found in estate.placed().items()} == {"cheap": 0, "dear": 1}
    answer = await estate.owner.post(f"/v1/models/{id_}/infer", json={"inputs": "hello"})
    assert answer.status_code == 200, answer.text
    await remove(estate.owner, id_)


def somebody_else() -> dict[str, Any]:
    """A pod that takes all GPUs."""
    limits = {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "2"}
    container = {"name": "train", "image": "registry.example.com/train:1", "resources": {"limits": limits}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "somebody-else", "namespace": "default"},
        "spec": {"containers": [container]},
    }


async def test_what_a_quota_refuses_is_tried_on_the_other_cluster(
    tmp_path: Path, clusters: tuple[StandInCluster, StandInCluster]
) -> None:
    """By the nodes there was room: that the organization may not have more shows only at the pods."""
    environ = {"MOORAGE_MANAGED_QUOTA_GPUS": "1", "MOORAGE_KUBERNETES_CAPACITY_PATIENCE_SECONDS": "0.1"}
    async with estate_on(tmp_path / "var", *clusters, environ, look_seconds=0.1) as estate:
        first = await deploy(estate.owner)
        await until(estate.owner, first, "ready")
        second = await deploy(estate.owner)
        await until(estate.owner, second, "ready")
        assert {name: len(found) for name, found in estate.placed().items()} == {"cheap": 1, "dear": 1}
        events = (await estate.owner.get(f"/v1/deployments/{second}/events")).json()["items"]
        assert any("exceeded quota" in event["message"] for event in events)
        await remove(estate.owner, first, second)
        assert estate.left() == []


async def test_each_organization_has_a_namespace_of_its_own(estate: Estate) -> None:
    async with estate.another() as other:
        ids = [(user, await deploy(user, provider="managed")) for user in (estate.owner, other)]
        for user, id_ in ids:
            await until(user, id_, "ready")
            answer = await user.post(f"/v1/models/{id_}/infer", json={"inputs": 1})
            assert answer.status_code == 200, answer.text
        spaces = estate.placed()["cheap"]
        assert len(set(spaces)) == 2
        assert all(space.startswith("moorage-org-") for space in spaces)
        for space in spaces:
            for kind in ("resourcequotas", "limitranges", "networkpolicies"):
                assert len(estate.cheap.objects(kind, space)) == 1, kind
        (mine, my_id), (theirs, their_id) = ids
        assert (await theirs.post(f"/v1/models/{my_id}/infer", json={"inputs": 1})).status_code == 404
        await remove(mine, my_id)
        await remove(theirs, their_id)


async def test_an_account_elsewhere_is_never_placed_on_the_operator_s_clusters(estate: Estate) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=estate.url, headers=headers, timeout=30) as tenant:
        answer = await tenant.post("/v1/deployments", json=body(provider="managed"))
        assert (answer.status_code, answer.json()["code"]) == (422, "does_not_fit")
        assert "for its own organizations" in answer.text
        id_ = await deploy(tenant)
        assert (await until(tenant, id_, "ready"))["provider"] == "vendor"
        assert estate.placed() == {"cheap": [], "dear": []}
        await remove(tenant, id_)


async def test_the_operator_s_clusters_are_no_account_that_anybody_sees_or_names(estate: Estate) -> None:
    assert (await estate.owner.get("/v1/credentials")).json()["items"] == []
    assert (await estate.owner.get("/clusters/")).json()["items"] == []
    answer = await estate.owner.post("/v1/deployments", json=body(cluster="operator:managed/cheap"))
    assert answer.status_code == 422
    answer = await estate.owner.post("/v1/deployments", json=body(credential="operator:managed/cheap"))
    assert answer.status_code == 422


async def test_a_node_that_is_lost_is_told_by_the_watch(estate: Estate) -> None:
    """Nothing else looks before an hour is over, and little is asked for what the watch has told."""
    id_ = await deploy(estate.owner)
    await until(estate.owner, id_, "ready")
    before = len(estate.cheap.requests)
    (pod,) = estate.cheap.objects("pods")
    estate.cheap.remove_node("gpu-1")
    await until(estate.owner, id_, "loading_model")
    asked = [str(seen) for seen in estate.cheap.requests[before:]]
    assert len(asked) < 20, asked
    estate.cheap.add_node("gpu-2", {**POOL, PRICE: "0.4"}, gpus=2)
    await until(estate.owner, id_, "ready")
    assert [found["metadata"]["name"] for found in estate.cheap.objects("pods")] != [pod["metadata"]["name"]]
    await remove(estate.owner, id_)
