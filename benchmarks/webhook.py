"""How long a user waits for the news: from a worker's first healthy answer to the webhook being received.

The managed provider starts real processes, whose program notes when it first answered that it is ready. The
receiver is in this process. Both read the monotonic clock, which is one for all processes of a machine.

    python -m benchmarks.webhook
"""

from __future__ import annotations

import asyncio
import math
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvloop
from aiohttp import web

from benchmarks.service import HOST, MODEL, ServiceProcess, service
from benchmarks.table import Row, table

COUNT = 60
AT_ONCE = 3  # deployments that start at the same time
LONGEST = 30.0  # seconds for one deployment to be ready or deleted

_WORKER = Path(__file__).with_name("webhook_worker.py")


class _Receiver:
    """Knows when the message of each type came, by deployment."""

    def __init__(self) -> None:
        self.url = ""
        self._came: dict[tuple[str, str], asyncio.Future[float]] = {}

    async def receive(self, request: web.Request) -> web.Response:
        now = time.monotonic()
        message = await request.json()
        came = self._future(message["data"]["deployment_id"], message["type"])
        if not came.done():  # at least once is what is promised
            came.set_result(now)
        return web.Response(status=204)

    async def when(self, deployment_id: str, type_: str) -> float:
        async with asyncio.timeout(LONGEST):
            return await asyncio.shield(self._future(deployment_id, type_))

    def _future(self, deployment_id: str, type_: str) -> asyncio.Future[float]:
        return self._came.setdefault((deployment_id, type_), asyncio.get_running_loop().create_future())


@asynccontextmanager
async def _receiver() -> AsyncIterator[_Receiver]:
    found, app = _Receiver(), web.Application()
    app.router.add_post("/hook", found.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        found.url = f"http://{HOST}:{runner.addresses[0][1]}/hook"
        yield found
    finally:
        await runner.cleanup()


async def _one(http: httpx.AsyncClient, receiver: _Receiver, note: Path) -> float:
    """Seconds. The deployment is gone when this returns: a worker outlives a service, by design."""
    asked = {"hf_model_id": MODEL, "user_webhook_url": receiver.url, "env": {"BENCH_NOTE": str(note)}}
    accepted = (await http.post("/v1/deployments", json=asked)).raise_for_status().json()
    id_ = accepted["deployment_id"]
    try:
        received = await receiver.when(id_, "deployment.ready")
    finally:
        (await http.delete(f"/v1/deployments/{id_}")).raise_for_status()
        await receiver.when(id_, "deployment.deleted")
    return received - _noted(note)


def _noted(note: Path) -> float:
    return float(note.read_text())


async def _measure(served: ServiceProcess, folder: Path) -> list[float]:
    notes = iter([folder / f"{number}.ready" for number in range(COUNT)])
    seconds: list[float] = []
    headers = {"authorization": served.headers["authorization"]}
    async with (
        _receiver() as receiver,
        httpx.AsyncClient(base_url=served.url, headers=headers, timeout=LONGEST) as http,
        asyncio.TaskGroup() as group,
    ):

        async def work() -> None:
            seconds.extend([await _one(http, receiver, note) for note in notes])

        for _ in range(AT_ONCE):
            group.create_task(work())
    return sorted(seconds)


async def run() -> list[Row]:
    environ = {"MOORAGE_MANAGED_WORKER_COMMAND": f"{sys.executable} -S -E {_WORKER}"}
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder) / "var", managed=True, environ=environ) as served,
    ):
        seconds = await _measure(served, Path(folder))
    p50, p99 = (seconds[math.ceil(len(seconds) * q) - 1] for q in (0.5, 0.99))
    return [
        Row(f"worker healthy to webhook received, n {len(seconds)}: p50", p50 * 1e3, "ms"),
        Row("  p99", p99 * 1e3, "ms", 1_000, at_most=True),
    ]


def main() -> None:
    print(table(uvloop.run(run())))


if __name__ == "__main__":
    main()
