"""Jobs at the replicas that the gateway's routes name: what the engine's runner of jobs asks.

A replica with an HTTP face gets the job's input as a request to `/infer`; one that takes jobs itself gets it
as a job. Whatever comes of it is told as an ending, because a job has nobody on the line.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping

import orjson
from aiohttp import ClientError, ClientResponse, ClientSession

from moorage.connections import Connections
from moorage.domain.job import (
    OUTPUT_BYTES,
    BrokenOff,
    Ending,
    Job,
    NotServing,
    NotTaken,
    Output,
    Refusal,
)
from moorage.domain.observation import Face
from moorage.errors import BadGateway, Problem, Unavailable
from moorage.gateway import api_server
from moorage.gateway.job_face import JobCall
from moorage.gateway.routes import Route, RoutePublisher
from moorage.gateway.upstream import NothingSent, OpenAuth
from moorage.gateway.waking import Waker, asleep
from moorage.ports.outside import Resolve
from moorage.upstream_auth import UpstreamAuth

CONNECT_SECONDS = 2.0
LONGEST_CAUSE = 2000  # characters of an error that is no problem document
LONGEST_PROBLEM = 64 * 1024  # bytes of one that is


class JobReplicas:
    """An `engine.job_attempt.Replicas`. `auth` opens what goes with requests to a route; `resolve` is the
    guard for hosts that users named. A job for a deployment that sleeps has `waker` wake it: it does not wait
    here, because jobs wait in the store."""

    def __init__(
        self,
        routes: RoutePublisher,
        auth: OpenAuth,
        resolve: Resolve | None = None,
        waker: Waker | None = None,
    ) -> None:
        self._routes = routes
        self._waker = waker
        self._auth = auth
        self._connections = Connections(CONNECT_SECONDS, resolve)
        self._turns: Counter[str] = Counter()

    def places(self, deployment_id: str) -> int:
        route = self._routes.current.route(deployment_id)
        return 0 if route is None else len(route.targets)

    def missed(self, deployment_id: str) -> None:
        route = self._routes.current.route(deployment_id)
        if route is not None and self._waker is not None and asleep(route):
            self._waker.rouse(deployment_id)

    async def run(self, job: Job, text: str) -> Ending:
        route = self._routes.current.route(job.deployment_id)
        if route is None or not route.targets:
            return NotServing()
        try:
            auth = await self._auth(route)
            session = self._connections.session(guarded=auth.guarded)
            targets = self._in_turn(route)
            if route.access.face is Face.JOBS:
                call = JobCall(session, targets[0], auth)
                return Output((await call.run(b'{"input":%b}' % text.encode())).decode())
            return await _infer(session, route, targets, job, text.encode(), auth)
        except Unavailable as problem:
            return NotTaken(problem.retry_after)
        except Problem as problem:
            if problem.code == "replica_failed":
                return BrokenOff(_text(problem.members()))
            return _refusal(problem)
        except NothingSent:
            return NotTaken()
        except (ClientError, ConnectionError) as error:
            broken = BadGateway(
                f"The replica broke off before its answer was complete ({type(error).__name__}).",
                code="replica_failed",
                advice="See the deployment's logs.",
            )
            return BrokenOff(_text(broken.members()))

    async def aclose(self) -> None:
        await self._connections.aclose()

    def _in_turn(self, route: Route) -> tuple[str, ...]:
        """Its targets, beginning with the one whose turn it is."""
        if len(self._turns) > 2 * len(self._routes.current) + 16:  # most belong to deployments that are gone
            self._turns.clear()
        self._turns[route.deployment_id] += 1
        first = self._turns[route.deployment_id] % len(route.targets)
        return (*route.targets[first:], *route.targets[:first])


async def _infer(
    session: ClientSession,
    route: Route,
    targets: tuple[str, ...],
    job: Job,
    body: bytes,
    auth: UpstreamAuth,
) -> Ending:
    headers = {
        "content-type": "application/json",
        "user-agent": "moorage",
        "x-request-id": job.id,
        **auth.headers(),
    }
    for target in targets:
        url = f"{target.rstrip('/')}/infer"
        try:
            response = await session.post(
                url, data=body, headers=headers, allow_redirects=False, ssl=auth.tls or True
            )
        except NothingSent:
            continue
        async with response:
            read = b"" if auth.tls is None else await api_server.judged(response, route)
            return await _ending(response, read)
    return NotTaken()


async def _ending(response: ClientResponse, read: bytes) -> Ending:
    """`read` is what was read of the answer's body already: all of it, or nothing."""
    if response.status in (429, 503):
        after = response.headers.get("retry-after", "")
        return NotTaken(float(after) if after.isdecimal() else None)
    refused = not 200 <= response.status < 300
    body = read or await _read(response, LONGEST_PROBLEM if refused else OUTPUT_BYTES)
    if refused:
        return Refusal(_error(response.status, body or b""))
    if body is None:
        return _refusal(
            BadGateway(
                f"The model's answer has more than {OUTPUT_BYTES} bytes.",
                code="output_too_large",
                advice='Have it kept in your bucket, with the parameter "result": "s3".',
            )
        )
    kind = response.content_type
    if kind != "application/json" and not kind.endswith("+json"):
        return Output(_text({"content_type": kind, "base64": base64.b64encode(body).decode()}))
    text = _json_text(body)
    if text is None:
        return _refusal(
            BadGateway("The model's answer is not JSON, though it says so.", code="output_no_json")
        )
    return Output(text)


async def _read(response: ClientResponse, limit: int) -> bytes | None:
    """The body, None when it has more than `limit` bytes."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _json_text(body: bytes) -> str | None:
    try:
        text = body.decode()
        json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _error(status: int, body: bytes) -> str:
    """A problem document as the replica wrote it; anything else becomes one."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        told = None
    if isinstance(told, dict) and isinstance(told.get("status"), int):
        return _text(told)
    problem = BadGateway(
        f"The model answered {status}: {body.decode(errors='replace')[:LONGEST_CAUSE]}", code="model_error"
    )
    return _text({**problem.members(), "status": status})


def _refusal(problem: Problem) -> Refusal:
    return Refusal(_text(problem.members()))


def _text(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))
