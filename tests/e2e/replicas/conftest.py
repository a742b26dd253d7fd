"""Two processes of the service on one store, each on a machine of its own as far as it knows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # JSON of the API

import httpx
import pytest
from aiohttp import web

from moorage.testing.hub import HubStandIn
from moorage.testing.killing import KillableService, Life
from moorage.testing.postgres import PostgresMissing, PostgresServer
from moorage.testing.replicas import Replicas

TESTS = Path(__file__).parents[2]
DIGITS = TESTS.parent / "examples" / "digits"
STUB = TESTS / "crash" / "stub_worker.py"
PASSWORD = "a long enough password"
TICK_TOKEN = "a token of the scheduler's"


@dataclass
class Receiver:
    """Remembers the types of the messages by their ids."""

    url: str = ""
    types: dict[str, str] = field(default_factory=dict)

    async def receive(self, request: web.Request) -> web.Response:
        self.types[request.headers["webhook-id"]] = json.loads(await request.text())["type"]
        return web.Response(status=204)

    def count(self) -> dict[str, int]:
        """Messages by type."""
        found: dict[str, int] = defaultdict(int)
        for type_ in self.types.values():
            found[type_.removeprefix("deployment.")] += 1
        return found


class Fleet:
    """The replicas of one test, its Hub and its receiver."""

    def __init__(self, replicas: Replicas, hub: HubStandIn, receiver: Receiver) -> None:
        self.replicas = replicas
        self.hub = hub
        self.receiver = receiver
        self.lives: list[Life] = []
        self._clients: list[httpx.AsyncClient] = []
        self._numbers = iter(range(1000))

    async def start(self, machine: str, **environ: str) -> tuple[KillableService, Life]:
        """A replica that answers."""
        service = self.replicas.make(machine, **environ)
        return service, await self.again(service)

    async def again(self, service: KillableService) -> Life:
        life = await asyncio.to_thread(service.start)
        self.lives.append(life)
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
            while (await http.get("/ready")).status_code != 200:  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.05)
        return life

    async def owner(self, service: KillableService) -> httpx.AsyncClient:
        body = {"username": "owner", "password": PASSWORD}
        client = httpx.AsyncClient(base_url=service.url, timeout=30)
        self._clients.append(client)
        answer = await client.post("/auth/token", json=body)
        assert answer.status_code == 200, answer.text
        client.headers["authorization"] = f"Bearer {answer.json()['token']}"
        return client

    async def deploy(self, owner: httpx.AsyncClient) -> str:
        env = {"CRASH_DIR": str(self.replicas.folder), "CRASH_DEPLOYMENT": str(next(self._numbers))}
        body = {"hf_model_id": "moorage/digits", "env": env, "user_webhook_url": self.receiver.url}
        answer = await owner.post("/v1/deployments", json=body)
        assert answer.status_code == 202, answer.text
        id_: str = answer.json()["deployment_id"]
        return id_

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
        for life in self.lives:
            life.kill()
        self.replicas.close()
        _kill_all_of(self.replicas.folder)


def _kill_all_of(folder: Path) -> None:
    """The processes, of whatever parent, that were started for this test."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if str(folder).encode() in told:
                    os.kill(int(entry.name), signal.SIGKILL)


async def read(owner: httpx.AsyncClient, id_: str) -> dict[str, Any]:
    answer = await owner.get(f"/v1/deployments/{id_}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def until(owner: httpx.AsyncClient, id_: str, *statuses: str) -> dict[str, Any]:
    while (found := await read(owner, id_))["status"] not in statuses:  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.05)
    return found


async def infer(owner: httpx.AsyncClient, id_: str) -> dict[str, Any]:
    """The answer, once the route has come to that replica."""
    while (answer := await owner.post(f"/v1/models/{id_}/infer", json={"inputs": [1]})).status_code != 200:
        assert answer.status_code in (404, 503), answer.text
        await asyncio.sleep(0.05)
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Not to be stopped."""
    try:
        server = PostgresServer().__enter__()
    except PostgresMissing as missing:
        pytest.skip(f"no PostgreSQL: {missing}")
    yield server
    server.__exit__(None, None, None)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_post("/hook", found.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield found
    await runner.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path, receiver: Receiver) -> AsyncIterator[Fleet]:
    if request.param == "sqlite":
        database = f"sqlite:///{tmp_path / 'shared.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        database = await asyncio.to_thread(server.new_database)
    async with HubStandIn() as hub:
        await hub.add_repo("moorage/digits", DIGITS)
        replicas = Replicas(
            tmp_path,
            database,
            hub_url=hub.url,
            outbound_allow="127.0.0.1",
            bootstrap_user="owner",
            bootstrap_password=PASSWORD,
            managed_worker_command=f"{sys.executable} -S -E {STUB}",
            tick_token=TICK_TOKEN,
        )
        found = Fleet(replicas, hub, receiver)
        try:
            yield found
        except BaseException:
            print(replicas.logs())
            raise
        finally:
            await found.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """What the processes told, beside the failure of a test."""
    outcome: Any = yield  # the plugin framework's own
    fleet = getattr(item, "funcargs", {}).get("fleet")
    if call.when == "call" and outcome.get_result().failed and fleet is not None:
        outcome.get_result().sections.append(("what the replicas told", fleet.replicas.logs()))
