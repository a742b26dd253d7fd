"""The whole service in a process of its own, as `moorage serve` runs it, for a load that comes from outside.

A pipe asks it what only the process itself knows (its CPU time, its memory), and pauses the engine, so that
what a request costs can be told apart from what the deployment costs after it.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import httpx
import uvicorn
import uvloop

from moorage.adapters import logging as service_logging
from moorage.domain.naming import parse_external_name
from moorage.gateway import heap
from moorage.main import Service, running
from moorage.ports.provider import Provider
from moorage.server import listening
from moorage.settings import Settings
from moorage.testing.provider import InProcessCompute, InProcessProvider

HOST = "127.0.0.1"
MODEL = "moorage/digits"
PASSWORD = "a password for benchmarks"
_DIGITS = Path(__file__).parent.parent / "examples" / "digits"

Question = Literal["usage", "pause", "resume", "serving", "ready", "end"]


@dataclass(frozen=True, slots=True)
class InMemory:
    """The compute that the service holds in its own memory: after how many seconds an endpoint answers, and
    where all of them do."""

    ready_after: float = 0.0
    replica_url: str = "http://127.0.0.1:9"


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds of all the process's threads since it began; resident memory in bytes."""

    cpu: float
    resident: int


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    port: int
    key: str  # of an owner
    startup: float  # seconds from opening the store until it serves, its modules loaded before
    _pipe: Connection

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}", "content-type": "application/json"}

    def usage(self) -> Usage:
        self._pipe.send("usage")
        found: Usage = self._pipe.recv()
        return found

    def serving(self) -> int:
        """How many deployments have an endpoint that answers."""
        self._pipe.send("serving")
        found: int = self._pipe.recv()
        return found

    def ready(self) -> dict[str, float]:
        """When the endpoint of each deployment answered first, on the machine's monotonic clock."""
        self._pipe.send("ready")
        found: dict[str, float] = self._pipe.recv()
        return found

    def pause_engine(self) -> None:
        """Nothing is driven until `resume_engine`: deployments stay as they were accepted."""
        self._pipe.send("pause")
        self._pipe.recv()

    def resume_engine(self) -> None:
        self._pipe.send("resume")
        self._pipe.recv()


@contextmanager
def service(
    folder: Path,
    *,
    managed: bool = False,
    environ: Mapping[str, str] | None = None,
    loading_look: float = 5.0,
    memory: InMemory | None = None,
    database_url: str | None = None,
) -> Iterator[ServiceProcess]:
    """With the provider in memory, ready at once if nothing else is said, or with `managed`, all those that
    are installed. On SQLite in the folder unless `database_url` names another store."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    with _hub() as hub_url:
        settings = Settings(
            data_dir=folder,
            database_url=database_url,
            hub_url=hub_url,
            outbound_allow=HOST,
            bootstrap_user="bench",
            bootstrap_password=PASSWORD,
            log_level="warning",
            loading_look_seconds=loading_look,
        )
        process = spawn.Process(
            target=_run,
            args=(there, settings, None if managed else memory or InMemory(), dict(environ or {})),
            daemon=True,
            name="service",
        )
        process.start()
        there.close()
        try:
            port, startup = here.recv()
            yield ServiceProcess(port, _api_key(port), startup, here)
        finally:
            with suppress(OSError):
                here.send("end")
            process.join(20)
            if process.is_alive():
                process.kill()


@contextmanager
def _hub() -> Iterator[str]:
    command = [sys.executable, "-m", "moorage.testing.hub", "--repo", f"{MODEL}={_DIGITS}", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


def _api_key(port: int) -> str:
    with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=30) as client:
        signed_in = client.post("/auth/token", json={"username": "bench", "password": PASSWORD})
        headers = {"authorization": f"Bearer {signed_in.raise_for_status().json()['token']}"}
        made = client.post("/v1/keys", json={"name": "bench", "role": "owner"}, headers=headers)
        key: str = made.raise_for_status().json()["key"]
        return key


# -- in the process ---------------------------------------------------------------------------------------


def _run(pipe: Connection, settings: Settings, memory: InMemory | None, environ: Mapping[str, str]) -> None:
    os.environ.update(environ)
    uvloop.run(_serve(pipe, settings, memory))


async def _serve(pipe: Connection, settings: Settings, memory: InMemory | None) -> None:
    service_logging.configure("json", settings.log_level)
    compute = None if memory is None else _compute(memory)
    providers: dict[str, Provider] | None = None
    if compute is not None:
        providers = {compute.name: InProcessProvider(compute)}
    with listening(HOST, 0) as sock:
        port = sock.getsockname()[1]
        began = time.perf_counter()
        async with running(settings, f"http://{HOST}:{port}", providers=providers) as found:
            startup = time.perf_counter() - began
            config = uvicorn.Config(
                found.asgi, log_config=None, access_log=False, lifespan="off", server_header=False
            )
            server = uvicorn.Server(config)
            heap.settle()
            questions = asyncio.create_task(_answer(pipe, found, compute, server))
            pipe.send((port, startup))
            await server.serve(sockets=[sock])
            await questions


def _compute(memory: InMemory) -> InProcessCompute:
    return InProcessCompute(ready_after=memory.ready_after, replica_url=lambda _name, _i: memory.replica_url)


async def _answer(
    pipe: Connection, found: Service, compute: InProcessCompute | None, server: uvicorn.Server
) -> None:
    while True:
        try:
            question: Question = await asyncio.to_thread(pipe.recv)
        except EOFError:  # whoever measures has died
            question = "end"
        match question:
            case "usage":
                pipe.send(Usage(_cpu(), _resident()))
            case "serving":
                pipe.send(sum(bool(route.targets) for route in found.routes.current.routes()))
            case "ready":
                pipe.send({} if compute is None else _ready(compute))
            case "pause":
                engine = next(task for task in found.tasks if task.get_name() == "engine")
                engine.cancel()
                await asyncio.wait([engine])
                found.tasks.remove(engine)
                pipe.send(None)
            case "resume":
                found.tasks.append(asyncio.create_task(found.engine.run(), name="engine"))
                pipe.send(None)
            case "end":
                server.should_exit = True
                return


def _ready(compute: InProcessCompute) -> dict[str, float]:
    names = ((parse_external_name(name), endpoint) for name, endpoint in compute.endpoints.items())
    return {name.deployment_id: endpoint.ready_at for name, endpoint in names if name is not None}


def _cpu() -> float:
    times = os.times()
    return times.user + times.system


def _resident() -> int:
    """From Linux's /proc; 0 elsewhere."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
