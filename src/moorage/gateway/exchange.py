"""One request, from the route it found to the last byte of its answer.

A request is sent at most once. Another replica is tried only when nothing of it had been sent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial

from aiohttp import ClientError, ClientResponse, ClientSSLError

from moorage.connections import Connections
from moorage.domain.observation import Face
from moorage.errors import BadGateway, NotFound, Problem
from moorage.gateway import api_server
from moorage.gateway import headers as hygiene
from moorage.gateway.asgi import Receive, Scope, Send
from moorage.gateway.interruption import CallerLeft, Interruption
from moorage.gateway.job_face import JobCall, input_of
from moorage.gateway.limits import Lateness, Limits
from moorage.gateway.metering import CLIENT_CLOSED_REQUEST, Meter
from moorage.gateway.paths import moved, prefix_of
from moorage.gateway.problems import JobsOnly, NotServing, send_problem
from moorage.gateway.routes import Route
from moorage.gateway.upload import WHOLE_AT_MOST, Upload, too_large
from moorage.gateway.upstream import Lanes, NothingSent, OpenAuth, end, send, with_query
from moorage.gateway.waking import Waker, asleep
from moorage.upstream_auth import NO_AUTH, UpstreamAuth

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Surroundings:
    """What all requests share. Without a `waker` nobody waits for a deployment that sleeps."""

    limits: Limits
    late: Lateness
    meter: Meter
    connections: Connections
    auth: OpenAuth
    lanes: Lanes
    waker: Waker | None = None


class Exchange:
    """`below` is the path at the replica, encoded and with a slash before it; None is that of inferences."""

    __slots__ = (
        "_below",
        "_interruption",
        "_lane",
        "_out",
        "_request_id",
        "_scope",
        "_send",
        "_sent",
        "_status",
        "_upload",
    )

    def __init__(
        self,
        out: Surroundings,
        route: Route,
        below: str | None,
        request_id: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._out = out
        self._lane = out.lanes.of(route)
        self._below = below
        self._request_id = request_id
        self._scope = scope
        self._send = send
        self._interruption = Interruption(receive)
        self._upload = Upload(receive, out.limits.body_bytes)
        self._status = 0  # of the answer, once its head is sent to the caller
        self._sent = 0  # bytes of the answer's body

    async def run(self) -> None:
        """Forwards, or answers with a problem; counts either way. Raises only what is a mistake of ours."""
        began = time.perf_counter()
        tally = self._out.meter.begin(self._lane.route.deployment_id)
        outcome = 500
        try:
            outcome = await self._forward_or_explain()
        finally:
            self._interruption.over()
            tally.end(outcome, time.perf_counter() - began, self._upload.received, self._sent)

    async def _forward_or_explain(self) -> int:
        try:
            await self._forward()
        except asyncio.CancelledError:
            reason = self._interruption.cleared()
            if reason is None:
                raise
            return await self._explain(reason)
        except (Problem, CallerLeft, ClientError) as error:
            return await self._explain(error)
        return self._status

    async def _explain(self, error: Exception) -> int:
        """Tells the caller if it can still be told; returns the status to count."""
        self._interruption.over()
        if isinstance(error, CallerLeft):
            return CLIENT_CLOSED_REQUEST
        if isinstance(error, Problem):
            problem = error
        else:
            log.warning("request %s: the replica failed: %s", self._request_id, type(error).__name__)
            problem = BadGateway(
                "The replica closed the connection before its answer was complete.",
                code="replica_failed",
                advice="The request may have been carried out. See the deployment's logs.",
            )
        if self._status:
            # The head is out: all that can be told is that the answer is not whole. A server closes the
            # connection of an app that returns before the end of its body.
            log.warning("request %s: answer cut short: %s", self._request_id, problem.code)
        else:
            self._sent = await send_problem(self._send, problem, self._request_id)
        return problem.status

    # -- the request ------------------------------------------------------------------------------------

    async def _forward(self) -> None:
        out = self._out
        limits, route = out.limits, self._lane.route
        declared = hygiene.declared_length(self._scope["headers"])
        if declared is not None and declared > limits.body_bytes:
            raise too_large(limits.body_bytes)
        if not route.targets and out.waker is not None and asleep(route):
            route = await self._woken(out.waker, route, declared)
        else:
            self._interruption.deadline(limits.upload, out.late.upload)
        if not route.targets:
            raise NotServing.no_targets(route)
        if route.access.face is Face.JOBS and self._below is not None:
            raise JobsOnly(route)
        auth = NO_AUTH if not route.access.needs_credentials else await out.auth(route)
        await self._upload.start()
        if route.access.face is Face.JOBS:
            await self._forward_as_job(auth)
            return
        base, response = await self._ask(declared, auth)
        try:
            await self._answer(response, base, auth)
        finally:
            end(response)

    async def _woken(self, waker: Waker, route: Route, declared: int | None) -> Route:
        """The route once it has targets. Meanwhile the body is read, as far as there is room for it: a caller
        who has sent all of it is seen to leave."""
        limits, late = self._out.limits, self._out.late
        id_ = route.deployment_id
        began = asyncio.get_running_loop().time()
        waking = waker.awake(id_)
        room = waker.reserve(WHOLE_AT_MOST if declared is None else min(declared, WHOLE_AT_MOST))
        try:
            self._interruption.deadline(limits.upload, late.upload)
            await self._upload.start()
            await self._upload.hold(room)
            if self._upload.over:
                self._interruption.watch_caller()
            left = max(0.0, began + limits.wake - asyncio.get_running_loop().time())
            self._interruption.deadline(
                left, lambda: NotServing.still_asleep(route, limits.wake, waker.seconds_left(id_))
            )
            awake = await waking
        finally:
            waker.release(room)
            waking.cancel()
        self._interruption.deadline(limits.upload, late.upload)
        if awake is None:
            raise NotFound("The deployment was deleted.", code="deployment_not_found")
        self._lane = self._out.lanes.of(awake)
        return awake

    async def _forward_as_job(self, auth: UpstreamAuth) -> None:
        body = self._upload.whole
        if body is None:
            parts = [chunk async for chunk in self._upload.chunks(lambda: None, self._interruption.fire)]
            body = b"".join(parts)
        job = input_of(body)
        self._uploaded()
        base = self._lane.next_target()
        output = await JobCall(self._out.connections.session(guarded=auth.guarded), base, auth).run(job)
        headers = hygiene.of_result(self._request_id, self._lane.route.deployment_id, len(output))
        self._status = 200
        self._sent = len(output)
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": output})

    async def _ask(self, declared: int | None, auth: UpstreamAuth) -> tuple[str, ClientResponse]:
        """The head of a replica's answer, and the replica's base URL; the first replica that accepts a
        connection gets the request."""
        headers = hygiene.for_worker(self._scope["headers"], self._request_id)
        if auth.token is not None:
            headers["authorization"] = f"Bearer {auth.token}"
        whole = self._upload.whole
        if whole is not None:
            self._uploaded()
        elif declared is not None:
            headers["content-length"] = str(declared)
        session = self._out.connections.session(guarded=auth.guarded)
        for base, url in self._lane.replicas(self._below):
            body = (
                whole or None
                if whole is not None
                else self._upload.chunks(self._uploaded, self._interruption.fire)
            )
            target = with_query(url, self._scope["query_string"])
            try:
                return base, await send(session, self._scope["method"], target, headers, body, auth)
            except ClientSSLError as error:
                raise BadGateway(
                    "The replica's host did not show a certificate that can be believed.",
                    code="upstream_untrusted",
                    advice="It may have expired, be for another host, or not be by the authority given.",
                ) from error
            except NothingSent as error:
                log.info("request %s: %s: %s", self._request_id, url.raw_authority, type(error).__name__)
        raise NotServing.unreachable(self._lane.route)

    def _uploaded(self) -> None:
        self._interruption.deadline(self._out.limits.answer, self._out.late.answer)
        self._interruption.watch_caller()

    # -- the answer -------------------------------------------------------------------------------------

    async def _answer(self, response: ClientResponse, base: str, auth: UpstreamAuth) -> None:
        self._interruption.deadline(self._out.limits.stream, self._out.late.stream)
        read = b"" if auth.tls is None else await api_server.judged(response, self._lane.route)
        id_ = self._lane.route.deployment_id
        headers = hygiene.for_caller(
            response.raw_headers, self._request_id, id_, partial(moved, base=base, prefix=prefix_of(id_))
        )
        self._status = response.status
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        content = response.content
        chunk = read or content.read_nowait()
        while not content.at_eof():
            if chunk:
                self._sent += len(chunk)
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            chunk = await content.readany()
        self._sent += len(chunk)
        await self._send({"type": "http.response.body", "body": chunk})
