"""`POST /infer`: a request in the words of the task, not of its tensors."""

from __future__ import annotations

import asyncio

from aiohttp import web

from moorage_worker.faces.answers import answer
from moorage_worker.faces.context import CONTEXT
from moorage_worker.faces.json_body import parse_object
from moorage_worker.faces.runs import WatchedRun


async def infer(request: web.Request) -> web.Response:
    """Answer `{"inputs", "parameters"}` with `{"model_id", "outputs", "metadata"}`. A caller that goes away
    is not worked for any longer, where the engine can stop."""
    context = request.app[CONTEXT]
    loaded = context.readiness.require()
    raw = await request.read()
    run = WatchedRun()
    # Decoding and encoding are part of the job: megabytes of pixels must not hold up the event loop.
    try:
        found = await context.pool.run(
            lambda: answer(loaded, context.model_id, parse_object(raw), context.media, run)
        )
    except asyncio.CancelledError:
        run.cancel()
        raise
    return web.Response(body=found, content_type="application/json")
