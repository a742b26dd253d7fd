"""What the API server of a cluster answers in the place of a replica behind it.

Replicas in a cluster are reached through its API server, which answers by itself when it does not let us
through or finds no replica. Its answer names things of the cluster, and its status would be taken for the
model's: a 401 there means our credentials and not the caller's.
"""

from __future__ import annotations

import orjson
from aiohttp import ClientResponse

from moorage.errors import BadGateway, Problem
from moorage.gateway.problems import NotServing
from moorage.gateway.routes import Route

STATUSES = frozenset({401, 403, 404, 503})
LONGEST = 16 * 1024  # bytes of such an answer


async def judged(response: ClientResponse, route: Route) -> bytes:
    """Raises the problem that the answer stands for. Of a replica's answer, what had to be read of its body:
    all of it, or nothing."""
    if response.status not in STATUSES or response.content_type != "application/json":
        return b""
    if response.content_length is None or response.content_length > LONGEST:
        return b""
    body = await response.content.read()
    problem = own_answer(response.status, body, route)
    if problem is not None:
        raise problem
    return body


def own_answer(status: int, body: bytes, route: Route) -> Problem | None:
    """The problem that the answer stands for; None when it is a replica's."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(told, dict) or (told.get("kind"), told.get("apiVersion")) != ("Status", "v1"):
        return None
    if status in (401, 403):
        return BadGateway(
            "The cluster refused the account that the deployment was made with.",
            code="provider_key_refused",
            advice="Import the cluster again with an account that may proxy to services.",
        )
    message = str(told.get("message", ""))
    if status == 503 and "error trying to reach service" in message and not _never_reached(message):
        return BadGateway(
            "The replica broke off before it had answered.",
            code="replica_failed",
            advice="The request may have been carried out.",
        )
    return NotServing.unreachable(route)


def _never_reached(message: str) -> bool:
    """Whether the API server did not get as far as to send anything."""
    return any(words in message for words in ("dial tcp", "connection refused", "no such host"))
