"""One server on loopback that stands for every pod without a process: it says what it was sent."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.testing.store import Store

Answer = Callable[[web.Request, Json], Awaitable[web.StreamResponse]]
HEALTHY = ("/health", "/healthz", "/ready", "/ping", "/v1/health")


async def echo(request: web.Request, pod: Json) -> web.StreamResponse:
    """Health at its usual paths; `/stream` in pieces, one for each `count`; all else is told back."""
    if request.path in HEALTHY:
        return web.json_response({"status": "ok"})
    if request.path == "/stream":
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(int(request.query.get("count", 3))):
            await response.write(f"data: {number}\n\n".encode())
        return response
    raw = await request.read()
    try:
        body = json.loads(raw) if raw else None
    except ValueError:
        body = raw.decode("utf-8", "replace")
    told = {
        "pod": pod["metadata"]["name"],
        "image": pod["spec"]["containers"][0]["image"],
        "port": int(request.headers.get("X-Stand-In-Port", 0)),
        "method": request.method,
        "path": request.path,
        "query": dict(request.query),
        "headers": {name.lower(): value for name, value in request.headers.items()},
        "body": body,
    }
    return web.json_response(told)


class SimulatedPods:
    """`answer` may be replaced at any time."""

    def __init__(self, store: Store) -> None:
        self.answer: Answer = echo
        self.port = 0
        self._store = store
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=1024**3)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        found = self._store.by_uid(request.headers.get("X-Stand-In-Pod", ""))
        if found is None:
            return web.Response(status=502, text="no such pod")
        return await self.answer(request, found[1])
