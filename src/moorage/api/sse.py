"""Server-sent events, for readers that said `Accept: text/event-stream`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping

from fastapi import Request
from fastapi.sse import EventSourceResponse, format_sse_event

KEEPALIVE = b": keep-alive\n\n"


def wanted(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def frame(data: Mapping[str, object], *, event: str | None = None, id_: str | None = None) -> bytes:
    return format_sse_event(data_str=json.dumps(data, ensure_ascii=False), event=event, id=id_)


def stream(frames: AsyncIterator[bytes]) -> EventSourceResponse:
    return EventSourceResponse(frames, headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
