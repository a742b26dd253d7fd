"""How far the removal of a queue is, in the way that a supervisor asks anyway: ready is done."""

from __future__ import annotations

import asyncio

from aiohttp import web

from moorage_worker.faces import probes
from moorage_worker.faces.json_body import json_response


def build_removal_app(done: asyncio.Event) -> web.Application:
    async def ready(_request: web.Request) -> web.Response:
        """200 once nothing of the queue is left, else 503."""
        if done.is_set():
            return json_response({"status": "ready"})
        return json_response({"status": "removing"}, 503, headers={"Retry-After": "1"})

    app = web.Application()
    app.add_routes([web.get("/health", probes.health), web.get("/ready", ready)])
    return app
