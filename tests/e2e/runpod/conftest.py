"""The whole service on a fake RunPod: its own socket, a Hub, a receiver, and the provider as installed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # JSON of the API

import httpx
import pytest
import uvicorn
from aiohttp import web

import moorage_runpod
from moorage.main import Service, running
from moorage.ports.provider import ProviderConfig
from moorage.server import listening
from moorage.settings import Settings
from moorage.testing.hub import HubStandIn
from moorage_runpod.testing import KEY, FakeRunPod

MODEL = "acme/tiny-painter"
SETTINGS = {
    "CAPACITY_SECONDS": "1.2",
    "LOG_SECONDS": "0",
    "LIST_LAG_SECONDS": "0.2",
}


def write_pipeline(folder: Path) -> Path:
    """A repository laid out as a diffusers pipeline, with a few bytes of weights."""
    header = json.dumps({"w": {"dtype": "F16", "shape": [512], "data_offsets": [0, 1024]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(1024)
    for component in ("unet", "vae"):
        (folder / component).mkdir(parents=True)
        (folder / component / "diffusion_pytorch_model.safetensors").write_bytes(weights)
        (folder / component / "config.json").write_text("{}")
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "README.md").write_text("---\nlibrary_name: diffusers\npipeline_tag: text-to-image\n---\n")
    return folder


@dataclass
class Harbour:
    """A running service, what it stands on, and a user with a RunPod key."""

    service: Service
    url: str
    fake: FakeRunPod
    hub: HubStandIn
    user: httpx.AsyncClient
    hook: str
    messages: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)

    async def deploy(self, **body: Any) -> str:
        answer = await self.user.post("/v1/deployments", json={"hf_model_id": MODEL, **body})
        assert answer.status_code == 202, answer.text
        id_: str = answer.json()["deployment_id"]
        return id_

    async def read(self, id_: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.user.get(f"/v1/deployments/{id_}")).json()
        return found

    async def until(self, id_: str, *statuses: str, seconds: float = 20) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await self.read(id_)
                    if found["status"] in statuses:
                        return found
                    await asyncio.sleep(0.02)
        except TimeoutError:
            told = [f"{e['type']}: {e['message']}" for e in await self.events(id_)]
            raise AssertionError(f"{found['status']}, not {statuses}: {told}") from None

    async def delete(self, id_: str) -> None:
        assert (await self.user.delete(f"/v1/deployments/{id_}")).status_code == 204
        await self.until(id_, "deleted")

    async def events(self, id_: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (
            await self.user.get(f"/v1/deployments/{id_}/events", params={"limit": 1000})
        ).json()["items"]
        return items

    async def told(self, id_: str, type_: str) -> dict[str, Any]:
        """The one event of that type, when it has come."""
        async with asyncio.timeout(10):
            while True:
                found = [event for event in await self.events(id_) if event["type"] == type_]
                if found:
                    (event,) = found
                    return event
                await asyncio.sleep(0.02)

    async def happened(self, id_: str) -> list[str]:
        return [event["type"] for event in await self.events(id_)]

    def client(self, bearer: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {bearer}"}, timeout=20)


@contextlib.asynccontextmanager
async def harbour(
    folder: Path,
    fake: FakeRunPod,
    hub: HubStandIn,
    runpod: Mapping[str, str] = SETTINGS,
    **settings: Any,
) -> AsyncIterator[Harbour]:
    """The service on `fake` and `hub`, with a webhook receiver and a user whose token is the RunPod key."""
    messages: list[tuple[Mapping[str, str], bytes]] = []

    async def receive(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        messages.append((headers, await request.read()))
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
        environ = {f"MOORAGE_RUNPOD_{name}": value for name, value in runpod.items()}
        environ["MOORAGE_RUNPOD_API_URL"] = fake.api_url
        provider = moorage_runpod.provider(
            ProviderConfig(folder / "runpod", environ, hub.url, installation="inst-tests")
        )
        asked = Settings(
            _env_file=None,
            data_dir=folder,
            public_url=url,
            hub_url=hub.url,
            outbound_allow=receiver,
            loading_look_seconds=0.1,
            ready_look_seconds=0.3,
            **settings,
        )
        service = await stack.enter_async_context(running(asked, url, providers={"runpod": provider}))
        config = uvicorn.Config(
            service.asgi, log_config=None, lifespan="off", access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve(sockets=[sock]))
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as user:
            try:
                yield Harbour(service, url, fake, hub, user, f"http://{receiver}/hook", messages)
            finally:
                server.should_exit = True
                await serving


@pytest.fixture(autouse=True)
def every_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


@pytest.fixture
async def fake() -> AsyncIterator[FakeRunPod]:
    async with FakeRunPod() as found:
        yield found
        assert [(r.name, r.errors) for r in found.invalid_requests] == [], "all that was sent is valid"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubStandIn]:
    async with HubStandIn() as found:
        await found.add_repo(MODEL, write_pipeline(tmp_path / "painter"))
        yield found


@pytest.fixture
async def port(tmp_path: Path, fake: FakeRunPod, hub: HubStandIn) -> AsyncIterator[Harbour]:
    async with harbour(tmp_path / "var", fake, hub) as found:
        yield found
        fake.faults.clear()
        assert [e.spec.name for e in fake.endpoints] == [], "nothing is left that bills"
