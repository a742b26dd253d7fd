"""What the platform under the service asks of it, beside the API that users know: `POST /internal/tick`.

In front of the application and not in it, because it is no part of the API and of its document. Without a
token in the settings it is not there.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

import orjson
import structlog

from moorage.engine.ticks import Ticked
from moorage.errors import Problem, StoreUnavailable, Unauthenticated
from moorage.gateway import headers
from moorage.gateway.asgi import App, RawHeaders, Receive, Scope, Send
from moorage.gateway.problems import MethodNotAllowed, send_problem

log = structlog.get_logger(__name__)

TICK = "/internal/tick"


class InternalFront:
    """Answers ticks, and leads all else to the application."""

    def __init__(self, app: App, token: str, tick: Callable[[], Awaitable[Ticked]]) -> None:
        self._app = app
        self._token = token.encode()
        self._tick = tick

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != TICK:
            await self._app(scope, receive, send)
            return
        try:
            self._admit(scope["method"], scope["headers"])
            ticked = await self._tick()
        except Problem as problem:
            await send_problem(send, problem, headers.request_id(scope["headers"]))
        except StoreUnavailable as error:
            await send_problem(send, error.problem, headers.request_id(scope["headers"]))
        except Exception:
            log.exception("tick.bug")
            bug = Problem("The service has a bug; its log has the cause.")
            await send_problem(send, bug, headers.request_id(scope["headers"]))
        else:
            log.info("tick", deployments=ticked.deployments, deliveries=ticked.deliveries, jobs=ticked.jobs)
            await _answer(send, ticked)

    def _admit(self, method: str, given: RawHeaders) -> None:
        """Raises MethodNotAllowed and Unauthenticated."""
        if method != "POST":
            raise MethodNotAllowed(method, ["POST"])
        text = next((value for name, value in given if name == b"authorization"), b"")
        scheme, _, token = text.strip().partition(b" ")
        fits = hmac.compare_digest(token.strip(), self._token)
        if scheme.lower() != b"bearer" or not fits:
            raise Unauthenticated(
                "The token is not the one of this service's ticks.",
                code="token_invalid",
                advice="Send `Authorization: Bearer …` with the value of MOORAGE_TICK_TOKEN.",
            )


async def _answer(send: Send, ticked: Ticked) -> None:
    due = ticked.next_due
    body = orjson.dumps(
        {
            "deployments": ticked.deployments,
            "deliveries": ticked.deliveries,
            "jobs": ticked.jobs,
            "next_due": None if due is None else due.isoformat(),
        }
    )
    kind = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": kind})
    await send({"type": "http.response.body", "body": body})
