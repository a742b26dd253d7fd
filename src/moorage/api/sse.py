"""Server-sent events, for readers that said `Accept: text/event-stream`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from fastapi import Request
from fastapi.sse import EventSourceResponse, format_sse_event

KEEPALIVE = b": keep-alive\n\n"
KEEPALIVE_SECONDS = 15.0


def wanted(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def frame(data: Mapping[str, object], *, event: str | None = None, id_: str | None = None) -> bytes:
    return format_sse_event(data_str=json.dumps(data, ensure_ascii=False), event=event, id=id_)


async def kept_alive(frames: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """The frames, and a comment whenever none has come for `KEEPALIVE_SECONDS`, so that neither a proxy nor
    the reader takes a quiet stream for a dead one. A reader that leaves ends the frames too."""
    coming: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(frames, None))
            while not (await asyncio.wait({coming}, timeout=KEEPALIVE_SECONDS))[0]:
                yield KEEPALIVE
            found = coming.result()
            if found is None:
                return
            yield found
    finally:
        if coming is not None and coming.cancel():
            await asyncio.wait({coming})
        await frames.aclose()


def stream(frames: AsyncIterator[bytes]) -> EventSourceResponse:
    return EventSourceResponse(frames, headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
