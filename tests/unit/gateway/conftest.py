"""Real servers on loopback: the gateway under uvicorn, workers under aiohttp or on raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from aiohttp import ClientSession, TCPConnector, web

from moorage.domain.identity import Principal, Role
from moorage.errors import Unauthenticated
from moorage.gateway.asgi import RawHeaders, Receive, Scope, Send
from moorage.gateway.limits import Limits
from moorage.gateway.proxy import Gateway
from moorage.gateway.routes import Route, RoutePublisher, RouteTable

PRINCIPALS = {
    b"Bearer ours": Principal("key_1", "org_ours", Role.INVOKER),
    b"Bearer viewer": Principal("key_2", "org_ours", Role.VIEWER),
    b"Bearer theirs": Principal("key_3", "org_theirs", Role.OWNER),
}


def authenticate(headers: RawHeaders) -> Principal:
    for name, value in headers:
        if name == b"authorization" and value in PRINCIPALS:
            return PRINCIPALS[value]
    raise Unauthenticated("No valid token was given.")


class _Server(uvicorn.Server):
    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()


@dataclass
class House:
    """A gateway that serves, and what reached its fallback."""

    gateway: Gateway
    routes: RoutePublisher
    session: ClientSession
    base: str = ""
    port: int = 0
    fell_through: list[str] = field(default_factory=list)

    def publish(self, *targets: str, **changes: Any) -> Route:
        """Routes `dep_1`, named `digits`, of `org_ours`, serving `org/digits`, to these targets."""
        values = {
            "deployment_id": "dep_1",
            "organization_id": "org_ours",
            "name": "digits",
            "models": ("org/digits",),
            "targets": targets,
        }
        route = Route(**(values | changes))
        self.routes.publish(self.routes.current.with_route(route))
        return route

    def infer(self, model: str = "digits", token: str = "ours", **options: Any) -> Any:
        headers = {"authorization": f"Bearer {token}"} | options.pop("headers", {})
        return self.session.post(f"{self.base}/v1/models/{model}/infer", headers=headers, **options)


@pytest.fixture
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    """Parametrize indirectly with `Limits` for other limits."""
    fell_through: list[str] = []

    async def fallback(scope: Scope, receive: Receive, send: Send) -> None:
        fell_through.append(f"{scope['method']} {scope['path']}")
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"fallback"})

    routes = RoutePublisher(RouteTable())
    gateway = Gateway(routes, authenticate, fallback, limits=getattr(request, "param", Limits()))
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listening.getsockname()[1]
    server = _Server(uvicorn.Config(gateway, lifespan="off", log_level="critical", access_log=False))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    async with ClientSession(connector=TCPConnector(limit=0), auto_decompress=False) as session:
        yield House(gateway, routes, session, f"http://127.0.0.1:{port}", port, fell_through)
    server.should_exit = server.force_exit = True
    await serving
    await gateway.aclose()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
StartWorker = Callable[[Handler], Awaitable[str]]


@pytest.fixture
async def worker() -> AsyncIterator[StartWorker]:
    """Starts workers whose `/infer` is the handler; gives their base URL."""
    runners = []

    async def start(handler: Handler) -> str:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/infer", handler)
        runner = web.AppRunner(app, auto_decompress=False, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
StartPeer = Callable[[Peer], Awaitable[str]]


@pytest.fixture
async def raw_worker() -> AsyncIterator[StartPeer]:
    """Starts workers that are handed the bare connection."""
    servers = []

    async def start(peer: Peer) -> str:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                await peer(reader, writer)
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def refusing() -> Iterator[str]:
    """The base URL of a port that is held but refuses connections."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def problem() -> Callable[[Any], Awaitable[dict[str, Any]]]:
    """Reads an answer as a problem document and checks what every one has."""

    async def read(response: Any) -> dict[str, Any]:
        assert response.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(await response.read())
        assert document["status"] == response.status
        assert document["request_id"] == response.headers["x-request-id"]
        assert document.keys() >= {"type", "title", "detail", "code", "errors"}
        return document

    return read
