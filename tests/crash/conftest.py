"""A world around the killable service: a Hub, a webhook receiver, and a look at what is left of it all."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from moorage.testing.hub import HubStandIn
from moorage.testing.killing import KillableService

HERE = Path(__file__).parent
DIGITS = HERE.parent.parent / "examples" / "digits"
PASSWORD = "a long enough password"


@dataclass
class Receiver:
    """Remembers every message; `bodies` by message id, each time it came."""

    url: str = ""
    bodies: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    async def receive(self, request: web.Request) -> web.Response:
        self.bodies[request.headers["webhook-id"]].append(await request.text())
        return web.Response(status=204)

    def ids(self, deployment_id: str) -> dict[str, set[str]]:
        """Message ids by type, of one deployment."""
        found: dict[str, set[str]] = defaultdict(set)
        for id_, bodies in self.bodies.items():
            message = json.loads(bodies[0])
            if message["data"]["deployment_id"] == deployment_id:
                found[message["type"]].add(id_)
        return found


@pytest.fixture
async def hub() -> AsyncIterator[str]:
    stand_in = HubStandIn()
    async with stand_in:
        await stand_in.add_repo("moorage/digits", DIGITS)
        yield stand_in.url


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_post("/hook", found.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield found
    await runner.cleanup()


@pytest.fixture
def service(tmp_path: Path, hub: str) -> Iterator[KillableService]:
    (tmp_path / "locks").mkdir()
    environ = {
        "MOORAGE_DATA_DIR": str(tmp_path / "var"),
        "MOORAGE_HUB_URL": hub,
        "MOORAGE_OUTBOUND_ALLOW": "127.0.0.1",
        "MOORAGE_BOOTSTRAP_USER": "owner",
        "MOORAGE_BOOTSTRAP_PASSWORD": PASSWORD,
        "MOORAGE_LEASE_SECONDS": "0.3",
        "MOORAGE_MANAGED_WORKER_COMMAND": f"{sys.executable} -S -E {HERE / 'stub_worker.py'}",
    }
    found = KillableService(environ, tmp_path / "service.log")
    yield found
    found.close()
    for pid in processes_of(tmp_path):  # a test that failed leaves nothing on the machine either
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes_of(folder: Path) -> dict[int, str]:
    """Command lines by pid of all processes, of whatever parent, that were started for this test."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command, environ = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in command + environ:
                found[int(entry.name)] = command.replace(b"\0", b" ").decode()
    return found
