"""The gateway: `POST /v1/models/{model}/infer`, forwarded to a replica of the model and streamed back.

Raw ASGI in front of the service's other routes, because a request to a model must cost little beside the
model. `{model}` is a deployment id, a deployment name, or a model's id with its slash (see `routes`).

A request is sent at most once. Another replica is tried only when nothing of it had been sent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from aiohttp import ClientError, ClientResponse

from moorage.connections import Connections
from moorage.domain.identity import Permission, Principal
from moorage.domain.observation import Face
from moorage.errors import BadGateway, Forbidden, NotFound, Problem
from moorage.gateway import headers as hygiene
from moorage.gateway.asgi import App, RawHeaders, Receive, Scope, Send
from moorage.gateway.interruption import CallerLeft, Interruption
from moorage.gateway.job_face import JobCall, input_of
from moorage.gateway.metering import CLIENT_CLOSED_REQUEST, Meter
from moorage.gateway.problems import GatewayTimeout, NotServing, RequestTimeout, send_problem
from moorage.gateway.routes import Route, RoutePublisher
from moorage.gateway.upload import Upload, too_large
from moorage.gateway.upstream import Lane, NothingSent, OpenAuth, end, no_auth, send, with_query
from moorage.ports import Resolve
from moorage.upstream_auth import NO_AUTH, UpstreamAuth

log = logging.getLogger(__name__)

_PREFIX = "/v1/models/"
_SUFFIX = "/infer"


class Authenticator(Protocol):
    """Who calls. May answer at once (a cached credential costs no suspension) or with something to await.
    Raises Unauthenticated, or another Problem."""

    def __call__(self, headers: RawHeaders, /) -> Principal | Awaitable[Principal]: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    body_bytes: int = 64 * 1024 * 1024
    upload: float = 300.0  # until the caller's body has arrived
    connect: float = 2.0  # for one replica
    answer: float = 120.0  # from the body's end to the head of the answer
    stream: float = 900.0  # from the head of the answer to its end


class _Lateness:
    """What to say when a deadline passes; made once, because a deadline is set thrice a request."""

    __slots__ = ("answer", "stream", "upload")

    def __init__(self, limits: Limits) -> None:
        self.upload = partial(RequestTimeout, f"The body did not arrive within {limits.upload:g} seconds.")
        self.answer = partial(
            GatewayTimeout, f"The replica did not begin to answer within {limits.answer:g} seconds."
        )
        self.stream = partial(GatewayTimeout, f"The answer was not complete after {limits.stream:g} seconds.")


def model_of(path: str) -> str | None:
    """The `{model}` of an infer path (which ASGI has percent-decoded already), None for other paths."""
    if path.startswith(_PREFIX) and path.endswith(_SUFFIX):
        return path[len(_PREFIX) : -len(_SUFFIX)] or None
    return None


class Gateway:
    """An ASGI app. Paths that are not the gateway's go to `fallback` untouched, and so does everything that
    is not a POST. `aclose` ends the connections to workers; requests under way fail."""

    def __init__(
        self,
        routes: RoutePublisher,
        authenticate: Authenticator,
        fallback: App,
        *,
        meter: Meter | None = None,
        limits: Limits = Limits(),
        auth: OpenAuth = no_auth,
        resolve: Resolve | None = None,
    ) -> None:
        self.meter = meter if meter is not None else Meter()
        self.limits = limits
        self.late = _Lateness(limits)
        self._routes = routes
        self._authenticate = authenticate
        self._fallback = fallback
        self.auth = auth
        self.connections = Connections(limits.connect, resolve)
        self._lanes: dict[str, Lane] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        model = model_of(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if model is None:
            await self._fallback(scope, receive, send)
        else:
            await self._infer(model, scope, receive, send)

    async def aclose(self) -> None:
        await self.connections.aclose()

    async def _infer(self, model: str, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = hygiene.request_id(scope["headers"])
        try:
            principal = self._authenticate(scope["headers"])
            if not isinstance(principal, Principal):
                principal = await principal
            route = self._route(principal, model)
        except Problem as problem:
            await send_problem(send, problem, request_id)
            return
        await _Exchange(self, self._lane(route), request_id, scope, receive, send).run()

    def _route(self, principal: Principal, model: str) -> Route:
        if not principal.may(Permission.INFER):
            raise Forbidden(
                f"The role {principal.role} may not send requests to models.",
                advice="Use a key with the role invoker, deployer, admin or owner.",
            )
        route = self._routes.current.find(principal.organization_id, model)
        if route is None:
            raise NotFound(
                "No deployment of this organization has that id or name, or serves that model.",
                code="deployment_not_found",
                advice="List the deployments with GET /v1/deployments.",
            )
        return route

    def _lane(self, route: Route) -> Lane:
        lane = self._lanes.get(route.deployment_id)
        if lane is not None and lane.route is route:
            return lane
        lane = Lane(route) if lane is None else lane.renewed(route)
        self._lanes[route.deployment_id] = lane
        table = self._routes.current
        if len(self._lanes) > 2 * len(table) + 16:  # most belong to deployments that are gone
            self._lanes = {id_: kept for id_, kept in self._lanes.items() if id_ in table}
        return lane


class _Exchange:
    """One request, from the route it found to the last byte of its answer."""

    __slots__ = (
        "_gateway",
        "_interruption",
        "_lane",
        "_request_id",
        "_scope",
        "_send",
        "_sent",
        "_status",
        "_upload",
    )

    def __init__(
        self,
        gateway: Gateway,
        lane: Lane,
        request_id: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._gateway = gateway
        self._lane = lane
        self._request_id = request_id
        self._scope = scope
        self._send = send
        self._interruption = Interruption(receive)
        self._upload = Upload(receive, gateway.limits.body_bytes)
        self._status = 0  # of the answer, once its head is sent to the caller
        self._sent = 0  # bytes of the answer's body

    async def run(self) -> None:
        """Forwards, or answers with a problem; counts either way. Raises only what is a mistake of ours."""
        began = time.perf_counter()
        outcome = 500
        try:
            outcome = await self._forward_or_explain()
        finally:
            self._interruption.over()
            seconds = time.perf_counter() - began
            self._gateway.meter.record(
                self._lane.route.deployment_id, outcome, seconds, self._upload.received, self._sent
            )

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

    async def _forward(self) -> None:
        limits = self._gateway.limits
        route = self._lane.route
        declared = hygiene.declared_length(self._scope["headers"])
        if declared is not None and declared > limits.body_bytes:
            raise too_large(limits.body_bytes)
        if not route.targets:
            raise NotServing.no_targets(route)
        auth = NO_AUTH if not route.access.needs_credentials else await self._gateway.auth(route)
        self._interruption.deadline(limits.upload, self._gateway.late.upload)
        await self._upload.start()
        if route.access.face is Face.JOBS:
            await self._forward_as_job(auth)
            return
        response = await self._ask(declared, auth)
        try:
            await self._answer(response)
        finally:
            end(response)

    async def _forward_as_job(self, auth: UpstreamAuth) -> None:
        body = self._upload.whole
        if body is None:
            parts = [chunk async for chunk in self._upload.chunks(lambda: None, self._interruption.fire)]
            body = b"".join(parts)
        job = input_of(body)
        self._uploaded()
        base = self._lane.next_target()
        output = await JobCall(self._gateway.connections.session(auth.tls), base, auth).run(job)
        headers = hygiene.of_result(self._request_id, self._lane.route.deployment_id, len(output))
        self._status = 200
        self._sent = len(output)
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": output})

    async def _ask(self, declared: int | None, auth: UpstreamAuth) -> ClientResponse:
        """The head of a replica's answer; the first replica that accepts a connection gets the request."""
        headers = hygiene.for_worker(self._scope["headers"], self._request_id)
        if auth.token is not None:
            headers["authorization"] = f"Bearer {auth.token}"
        whole = self._upload.whole
        if whole is not None:
            self._uploaded()
        elif declared is not None:
            headers["content-length"] = str(declared)
        session = self._gateway.connections.session(auth.tls)
        for url in self._lane.replicas():
            target = with_query(url, self._scope["query_string"])
            body = (
                whole if whole is not None else self._upload.chunks(self._uploaded, self._interruption.fire)
            )
            try:
                return await send(session, "POST", target, headers, body, auth)
            except NothingSent as error:
                log.info("request %s: %s: %s", self._request_id, url.raw_authority, type(error).__name__)
        raise NotServing.unreachable(self._lane.route)

    def _uploaded(self) -> None:
        self._interruption.deadline(self._gateway.limits.answer, self._gateway.late.answer)
        self._interruption.watch_caller()

    async def _answer(self, response: ClientResponse) -> None:
        self._interruption.deadline(self._gateway.limits.stream, self._gateway.late.stream)
        headers = hygiene.for_caller(response.raw_headers, self._request_id, self._lane.route.deployment_id)
        self._status = response.status
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        content = response.content
        chunk = content.read_nowait()
        while not content.at_eof():
            if chunk:
                self._sent += len(chunk)
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            chunk = await content.readany()
        self._sent += len(chunk)
        await self._send({"type": "http.response.body", "body": chunk})
