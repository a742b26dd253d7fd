"""The whole service on a cluster: its own socket, a webhook receiver, and the provider as installed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # JSON of the API

import httpx
import pytest
import uvicorn
from aiohttp import web
from pydantic import SecretStr

import moorage_kubernetes
from moorage.main import Service, running
from moorage.ports.provider import ProviderConfig
from moorage.server import listening
from moorage.settings import Settings
from moorage_kubernetes.testing import StandInCluster

PASSWORD = "a long enough password"
IMAGE = "registry.example.com/acme/echo:1.0"
GROUP = {"eks.amazonaws.com/nodegroup": "gpus", "node.kubernetes.io/instance-type": "g6.xlarge"}
PROMETHEUS = "http://prometheus.monitoring.svc:9090"
BYOC = "/deployments/model-deployments/"


@dataclass
class Port:
    """A running service, the cluster it deploys to, and an owner who is signed in."""

    service: Service
    url: str
    cluster: StandInCluster
    user: httpx.AsyncClient
    hook: str
    messages: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, method: str, path: str, expected: int, **more: Any) -> Any:
        answer = await self.user.request(method, path, **more)
        assert answer.status_code == expected, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def import_cluster(self, name: str = "ours", **more: str) -> dict[str, Any]:
        """`more` are addresses of tools, beside that of Prometheus."""
        kubeconfig = self.cluster.kubeconfig()
        body = {"name": name, "kubeconfig": kubeconfig, "prometheus_url": PROMETHEUS, **more}
        found: dict[str, Any] = await self.ask("POST", "/clusters/", 201, json=body)
        return found

    async def import_container(self, name: str = "echo") -> str:
        body = {"name": name, "version": "1.0", "container_image": IMAGE}
        found = await self.ask("POST", "/models", 201, json=body)
        assert found["status"] == "SUCCESS"
        uuid: str = found["uuid"]
        return uuid

    async def import_model(self, repo: str, name: str = "digits") -> str:
        """From the Hub."""
        body = {"name": name, "version": "1.0", "hf_model_id": repo}
        found = await self.ask("POST", "/models", 201, json=body)
        assert found["status"] == "SUCCESS"
        uuid: str = found["uuid"]
        return uuid

    async def node_groups(self, cluster: str) -> list[str]:
        found = await self.ask("GET", f"/clusters/{cluster}/nodegroups/", 200)
        return [group["uuid"] for group in found["items"]]

    async def until(self, path: str, *statuses: str, seconds: float = 20) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await self.ask("GET", path, 200)
                    if found["status"] in statuses:
                        return found
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{found}, not {statuses}") from None

    def types(self) -> list[str]:
        """Of the messages, as they came."""
        return [json.loads(content)["type"] for _, content in self.messages]

    async def told(self, type_: str) -> None:
        async with asyncio.timeout(10):
            while type_ not in self.types():
                await self.came.wait()
                self.came.clear()

    def left(self) -> Sequence[str]:
        """What of ours is on the cluster, besides the namespace."""
        kinds = ("deployments", "services", "pods", "secrets", "persistentvolumeclaims", "scaledobjects")
        more = ("poddisruptionbudgets", "horizontalpodautoscalers", "httproutes", "triggerauthentications")
        return [
            f"{kind}/{found['metadata']['name']}"
            for kind in (*kinds, *more)
            for found in self._objects(kind)
            if found["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "moorage"
        ]

    def _objects(self, kind: str) -> list[dict[str, Any]]:
        try:
            return self.cluster.objects(kind)
        except KeyError:  # of an add-on that is not installed
            return []


@contextlib.asynccontextmanager
async def port_on(folder: Path, cluster: StandInCluster, **settings: Any) -> AsyncIterator[Port]:
    messages: list[tuple[Mapping[str, str], bytes]] = []
    came = asyncio.Event()

    async def receive(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        messages.append((headers, await request.read()))
        came.set()
        return web.Response(status=204)

    async with contextlib.AsyncExitStack() as stack:
        app = web.Application()
        app.router.add_post("/hook", receive)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver = f"127.0.0.1:{runner.addresses[0][1]}"
        sock = stack.enter_context(listening("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        hub = {"hub_url": settings["hub_url"]} if "hub_url" in settings else {}
        provider = moorage_kubernetes.provider(
            ProviderConfig(folder / "kubernetes", {}, installation="inst-tests", **hub)
        )
        asked = Settings(
            _env_file=None,
            data_dir=folder,
            public_url=url,
            outbound_allow="127.0.0.1",
            bootstrap_user="owner",
            bootstrap_password=SecretStr(PASSWORD),
            loading_look_seconds=0.1,
            ready_look_seconds=0.3,
            **settings,
        )
        service = await stack.enter_async_context(running(asked, url, providers={"kubernetes": provider}))
        config = uvicorn.Config(
            service.asgi, log_config=None, lifespan="off", access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve(sockets=[sock]))
        async with httpx.AsyncClient(base_url=url, timeout=30) as user:
            answer = await user.post("/auth/token", json={"username": "owner", "password": PASSWORD})
            user.headers["authorization"] = f"Bearer {answer.json()['token']}"
            try:
                yield Port(service, url, cluster, user, f"http://{receiver}/hook", messages, came)
            finally:
                server.should_exit = True
                await serving


@pytest.fixture
async def cluster() -> AsyncIterator[StandInCluster]:
    async with StandInCluster() as found:
        found.add_node("gpu-1", GROUP, cpu=32, memory_gib=128, gpus=4)
        yield found
        assert found.refused == [], "every object that was sent is valid"


@pytest.fixture
async def port(tmp_path: Path, cluster: StandInCluster) -> AsyncIterator[Port]:
    async with port_on(tmp_path / "var", cluster) as found:
        yield found
        cluster.faults.clear()
        assert found.left() == [], "nothing is left"
