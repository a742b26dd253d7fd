"""A webhook receiver in a process of its own, which notes when each message came.

In the process of the load, an arrival would wait for what the load does just then. Instants are of the
monotonic clock, which is one for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import uvloop
from aiohttp import web

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ReceiverProcess:
    url: str
    _pipe: Connection

    def came(self) -> dict[str, float]:
        """When the first message of its type came, by deployment id."""
        self._pipe.send("came")
        found: dict[str, float] = self._pipe.recv()
        return found


@contextmanager
def receiver(event_type: str) -> Iterator[ReceiverProcess]:
    """Takes messages of every type, and notes those of one."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_run, args=(there, event_type), daemon=True, name="receiver")
    process.start()
    there.close()
    try:
        yield ReceiverProcess(f"http://{HOST}:{here.recv()}/hook", here)
    finally:
        with suppress(OSError):
            here.send("end")
        process.join(5)
        if process.is_alive():
            process.kill()


def _run(pipe: Connection, event_type: str) -> None:
    uvloop.run(_serve(pipe, event_type))


async def _serve(pipe: Connection, event_type: str) -> None:
    came: dict[str, float] = {}

    async def receive(request: web.Request) -> web.Response:
        now = time.monotonic()
        message = await request.json()
        if message["type"] == event_type:
            came.setdefault(message["data"]["deployment_id"], now)  # at least once is what is promised
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        pipe.send(runner.addresses[0][1])
        with suppress(EOFError):  # whoever measures has died
            while await asyncio.to_thread(pipe.recv) == "came":
                pipe.send(came)
    finally:
        await runner.cleanup()
