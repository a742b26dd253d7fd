"""Every request to the control plane: its id, its line in the log, and its place in the counts.

The id is the caller's `X-Request-Id` where it has the form of one, and new otherwise. It goes back with every
answer, into every problem document, and into every line that is logged while the request is worked on.

Requests to models do not come here: the gateway gives them ids of its own making in the same way, and counts
them by deployment.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage.gateway import headers
from moorage.ports.telemetry import Meters, Traces

log = structlog.get_logger(__name__)

NAME = b"x-request-id"
NO_ROUTE = "none"  # the label of all paths that lead nowhere
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_QUIET = frozenset(("/health", "/ready"))  # asked every few seconds by machines
_RECORD = "moorage.request"


@dataclass(slots=True)
class _Record:
    """What becomes known of a request on its way."""

    route: str = NO_ROUTE
    status: int = 500  # nothing was answered: a bug
    head: float | None = None  # when the answer began


class Requests:
    """Outside of everything: an answer to a bug has its id too. `beside` are paths that `app` answers without
    a router."""

    def __init__(self, app: ASGIApp, meters: Meters, traces: Traces, beside: Collection[str] = ()) -> None:
        self._app = app
        self._beside = frozenset(beside)
        self._meters = meters
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = _Record(scope["path"] if scope["path"] in self._beside else NO_ROUTE)
        id_ = headers.request_id(scope["headers"]).encode("ascii")
        began = time.perf_counter()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status, record.head = message["status"], time.perf_counter()
                told = [header for header in message.get("headers", ()) if header[0] != NAME]
                message["headers"] = [*told, (NAME, id_)]
            await send(message)

        kept = []
        for name, value in scope["headers"]:
            if name == b"traceparent":
                self._traces.caused_by(value.decode("latin-1"))
            if name != NAME:
                kept.append((name, value))
        inner = {**scope, "headers": [*kept, (NAME, id_)], _RECORD: record}
        bound = structlog.contextvars.bind_contextvars(request_id=id_.decode("ascii"))
        try:
            await self._app(inner, receive, answer)
        finally:
            self._tell(record, scope["method"], began)
            structlog.contextvars.reset_contextvars(**bound)

    def _tell(self, record: _Record, method: str, began: float) -> None:
        now = time.perf_counter()
        method = method if method in _METHODS else "other"
        self._meters.requested(record.route, method, record.status, (record.head or now) - began)
        if record.route not in _QUIET:
            ms = round((now - began) * 1e3, 2)
            log.info("api.request", method=method, route=record.route, status=record.status, ms=ms)


class RouteNamed:
    """Inside of everything: the router writes the route into the scope that it gets, and outside others have
    made copies of it by then."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            record = scope.get(_RECORD)
            if record is not None:
                record.route = getattr(scope.get("route"), "path", record.route)


def current_id() -> str | None:
    """Of the request that is being worked on."""
    found = structlog.contextvars.get_contextvars().get("request_id")
    return found if isinstance(found, str) else None
