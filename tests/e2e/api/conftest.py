"""The whole service, on a real socket, with a Hub, a worker, a receiver, and a provider whose faults can be
switched on.

`api` is a fresh service for each test. `shared` is one for a whole module, for tests that change nothing or
do not mind what others changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any  # JSON of the API

import httpx
import pytest
import pytest_asyncio
import uvicorn
from aiohttp import web

from moorage.adapters.outgoing import GuardedOutgoing
from moorage.adapters.outgoing_rules import Address, AllowList
from moorage.domain.compute import Feature
from moorage.domain.identity import Organization, Role, User
from moorage.main import Service, running
from moorage.ports.provider import Provider
from moorage.ports.store import Insert
from moorage.server import listening
from moorage.settings import Settings
from moorage.testing.hub import HubStandIn
from moorage.testing.provider import InProcessCompute, InProcessProvider, InProcessVendor, cpu_offer

from .registry_stand_in import RegistryStandIn

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
PASSWORD = "a long enough password"
MODEL = "moorage/digits"
VENDOR_TOKEN = "fake_" + "k" * 40
WEAK_TOKEN = "fake_" + "w" * 40
NO_CLUSTERS = {Feature.CLUSTER: "it has no clusters"}
TABLES = (
    "deployments",
    "events",
    "deliveries",
    "idempotency_records",
    "api_keys",
    "receivers",
    "provider_credentials",
    "jobs",
    "model_versions",
)


@dataclass(frozen=True)
class Message:
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """A webhook receiver that answers `status` and keeps every message."""

    url: str = ""
    status: int = 204
    messages: list[Message] = field(default_factory=list)
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/hook", self._receive)
        return app

    @property
    def hook(self) -> str:
        return f"{self.url}/hook"

    async def until(self, wanted: Callable[[list[Message]], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds), self._came:
            await self._came.wait_for(lambda: wanted(self.messages))

    async def of_type(self, type_: str, seconds: float = 10) -> Message:
        """The first message of that type, when it has come."""
        await self.until(lambda messages: any(m.json["type"] == type_ for m in messages), seconds)
        return next(m for m in self.messages if m.json["type"] == type_)

    async def _receive(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        async with self._came:
            self.messages.append(Message(headers, await request.read()))
            self._came.notify_all()
        return web.Response(status=self.status)


@dataclass
class Api:
    """A running service, and its first owner."""

    service: Service
    url: str
    hub: HubStandIn
    compute: InProcessCompute
    vendor: InProcessCompute  # of a second provider, where one needs an account
    receiver: Receiver
    owner: httpx.AsyncClient
    registry: RegistryStandIn

    def client(self, authorization: str | None) -> httpx.AsyncClient:
        """To be closed by who asked for it."""
        headers = {} if authorization is None else {"authorization": authorization}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20)

    async def key(self, role: Role) -> str:
        """A fresh API key of the owner's organization."""
        answer = await self.owner.post("/v1/keys", json={"name": f"test-{role}", "role": role.value})
        assert answer.status_code == 201, answer.text
        text: str = answer.json()["key"]
        return text

    async def stranger(self, organization: str = "strangers") -> str:
        """The Authorization of the owner of another organization; there is no route that makes one."""
        store, ids, now = self.service.store, self.service.new_id, self.service.clock.now()
        username = f"owner-of-{organization}"
        if await store.user_named(username) is None:
            mine = await store.user_named("owner")
            assert mine is not None
            other = Organization(ids("org"), organization, now)
            user = User(ids("usr"), other.id, username, mine.password_hash, Role.OWNER, now)
            await store.commit([Insert(other), Insert(user)])
        return await sign_in(self.url, username)

    async def deploy(self, **body: Any) -> str:
        answer = await self.owner.post("/v1/deployments", json={"hf_model_id": MODEL, **body})
        assert answer.status_code == 202, answer.text
        id_: str = answer.json()["deployment_id"]
        return id_

    async def read(self, deployment_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.owner.get(f"/v1/deployments/{deployment_id}")).json()
        return found

    async def until(self, deployment_id: str, *statuses: str, seconds: float = 10) -> dict[str, Any]:
        """The deployment once it has one of the statuses."""
        async with asyncio.timeout(seconds):
            while True:
                found = await self.read(deployment_id)
                if found["status"] in statuses:
                    return found
                await asyncio.sleep(0.02)

    async def settled(self, deployment_id: str, seconds: float = 10) -> list[dict[str, Any]]:
        """The deployment's deliveries, when none of them is on its way."""
        async with asyncio.timeout(seconds):
            while True:
                where = {"deployment_id": deployment_id}
                found: list[dict[str, Any]] = (await self.owner.get("/v1/deliveries", params=where)).json()[
                    "items"
                ]
                if found and all(delivery["state"] != "pending" for delivery in found):
                    return found
                await asyncio.sleep(0.02)

    async def delivery(self, delivery_id: str, seconds: float = 10) -> AsyncIterator[dict[str, Any]]:
        """The delivery, again and again, until who asked has seen enough."""
        async with asyncio.timeout(seconds):
            while True:
                items = (await self.owner.get("/v1/deliveries")).json()["items"]
                yield next(item for item in items if item["id"] == delivery_id)
                await asyncio.sleep(0.02)

    def rows(self) -> dict[str, int]:
        """How many rows there are, counted in the database file itself."""
        path = self.service.settings.store_url.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return {t: database.execute(f"select count(*) from {t}").fetchone()[0] for t in TABLES}


async def sign_in(url: str, username: str) -> str:
    async with httpx.AsyncClient(base_url=url, timeout=20) as http:
        answer = await http.post("/auth/token", json={"username": username, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        return f"Bearer {answer.json()['token']}"


def problem(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The problem document of the answer, which is whole and has that status and code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["type"] == f"urn:moorage:problem:{found['code']}"
    assert found["detail"]
    assert found["title"]
    if code is not None:
        assert found["code"] == code, found
    return found


def at_fault(answer: httpx.Response, status: int, field: str, rule: str) -> dict[str, Any]:
    """The problem document of the answer, which names that field and that rule."""
    found = problem(answer, status)
    named = {(e["field"], e["rule"]) for e in found["errors"]}
    assert (field, rule) in named, found
    assert all(e["message"] for e in found["errors"])
    return found


async def _infer(request: web.Request) -> web.Response:
    """A worker that answers every model's requests with what it was sent, if it is of the documented form."""
    try:
        body = await request.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and "inputs" in body and isinstance(body.get("parameters", {}), dict):
        answer = {"model_id": request.match_info["name"], "outputs": body["inputs"], "metadata": {}}
        return web.json_response(answer)
    told = {"type": "about:blank", "title": "Malformed request", "status": 400, "code": "malformed_request"}
    text = json.dumps({**told, "detail": "The body is no object with inputs and parameters."})
    return web.Response(status=400, text=text, content_type="application/problem+json")


async def _only_this_machine(host: str, port: int) -> Sequence[Address]:
    """The system's own look-up, without the name servers: tests reach nobody outside."""
    host = "127.0.0.1" if host == "localhost" else host
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [ip_address(entry[4][0]) for entry in found]


@contextlib.asynccontextmanager
async def _listening(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def whole_service(folder: Path, *more: Provider) -> AsyncIterator[Api]:
    """`more` are providers beside the two that are always there, neither of which has clusters."""
    worker = web.Application()
    worker.router.add_post("/{name}/{index}/infer", _infer)
    receiver, registry = Receiver(), RegistryStandIn()
    async with contextlib.AsyncExitStack() as stack:
        hub = await stack.enter_async_context(HubStandIn())
        await hub.add_repo(MODEL, DIGITS)
        worker_url = await stack.enter_async_context(_listening(worker))
        receiver.url = await stack.enter_async_context(_listening(receiver.app()))
        registry.url = await stack.enter_async_context(_listening(registry.app()))
        compute = InProcessCompute(
            [cpu_offer("cpu", provider="fake", memory_gb=8)],
            name="fake",
            replica_url=lambda name, index: f"{worker_url}/{name}/{index}",
        )
        vendor = InProcessCompute(
            [cpu_offer("rented", provider="vendor", memory_gb=8, price=0.5)],
            name="vendor",
            replica_url=lambda name, index: f"{worker_url}/{name}/{index}",
        )
        selling = InProcessVendor(vendor, token=VENDOR_TOKEN, weak_token=WEAK_TOKEN)
        selling.unsupported = NO_CLUSTERS
        providers: dict[str, Provider] = {
            "fake": InProcessProvider(compute, unsupported=NO_CLUSTERS),
            "vendor": selling,
            **{provider.name: provider for provider in more},
        }
        sock = stack.enter_context(listening("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        allowed = f"{receiver.url.removeprefix('http://')}, {registry.host}"
        outgoing = GuardedOutgoing(AllowList.parse(allowed), resolve=_only_this_machine)
        stack.push_async_callback(outgoing.aclose)
        settings = Settings(
            _env_file=None,
            data_dir=folder,
            hub_url=hub.url,
            outbound_allow=allowed,
            public_url=url,
            bootstrap_user="owner",
            bootstrap_password=PASSWORD,
        )
        service = await stack.enter_async_context(
            running(settings, url, providers=providers, outgoing=outgoing)
        )
        config = uvicorn.Config(
            service.asgi, log_config=None, lifespan="off", access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve(sockets=[sock]))
        async with httpx.AsyncClient(base_url=url, timeout=20) as owner:
            owner.headers["authorization"] = await sign_in(url, "owner")
            try:
                yield Api(service, url, hub, compute, vendor, receiver, owner, registry)
            finally:
                server.should_exit = True
                await serving


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with whole_service(tmp_path / "var") as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    async with whole_service(tmp_path_factory.mktemp("service") / "var") as found:
        yield found
