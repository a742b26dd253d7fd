"""The gateway: requests to models and containers, forwarded to a replica and streamed back.

`POST /v1/models/{model}/infer` asks for an inference; `{model}` is a deployment id, a deployment name, or a
model's id with its slash (see `routes`). `/v1/deployments/{id or name}/proxy/{path}` is any path of a replica
and any method, for containers that have routes of their own.

Raw ASGI in front of the service's other routes, because a request to a model must cost little beside the
model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from moorage.connections import Connections
from moorage.domain.identity import Permission, Principal
from moorage.errors import Forbidden, NotFound, Problem, StoreUnavailable
from moorage.gateway import headers as hygiene
from moorage.gateway import metrics
from moorage.gateway.asgi import App, RawHeaders, Receive, Scope, Send
from moorage.gateway.exchange import Exchange, Surroundings
from moorage.gateway.limits import Lateness, Limits
from moorage.gateway.metering import Meter
from moorage.gateway.paths import METHODS, Proxied, model_of, proxied
from moorage.gateway.problems import MethodNotAllowed, send_problem
from moorage.gateway.routes import Route, RoutePublisher
from moorage.gateway.upstream import Lanes, OpenAuth, no_auth
from moorage.gateway.waking import Waker
from moorage.ports.outside import Resolve

METRICS = "/metrics"
LIMITS = Limits()


MoreMetrics = Callable[[], Awaitable[bytes]]


class Authenticator(Protocol):
    """Who calls. May answer at once (a cached credential costs no suspension) or with something to await.
    Raises Unauthenticated, or another Problem."""

    def __call__(self, headers: RawHeaders, /) -> Principal | Awaitable[Principal]: ...


class Gateway:
    """An ASGI app. What is not the gateway's goes to `fallback` untouched. `resolve` is the guard for hosts
    that users named; `metrics` says whether `/metrics` is answered, to whoever asks, with `more_metrics`
    after the gateway's own. `aclose` ends the connections to workers; requests under way fail."""

    def __init__(
        self,
        routes: RoutePublisher,
        authenticate: Authenticator,
        fallback: App,
        *,
        limits: Limits = LIMITS,
        auth: OpenAuth = no_auth,
        resolve: Resolve | None = None,
        waker: Waker | None = None,
        metrics: bool = True,
        more_metrics: MoreMetrics | None = None,
    ) -> None:
        self.meter = Meter()
        self.out = Surroundings(
            limits, Lateness(limits), self.meter, Connections(limits.connect, resolve), auth, Lanes(), waker
        )
        self._routes = routes
        self._authenticate = authenticate
        self._fallback = fallback
        self._metrics = metrics
        self._more_metrics = more_metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._fallback(scope, receive, send)
            return
        path = scope["path"]
        model = model_of(path) if scope["method"] == "POST" else None
        if model is not None:
            await self._carry(model, scope, receive, send)
        elif "/proxy" in path:
            await self._proxy(scope, receive, send)
        elif path == METRICS and self._metrics and scope["method"] == "GET":
            await self._tell(scope, send)
        else:
            await self._fallback(scope, receive, send)

    async def aclose(self) -> None:
        await self.out.connections.aclose()

    async def _proxy(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            call = proxied(scope)
            if call is not None and scope["method"] not in METHODS:
                raise MethodNotAllowed(scope["method"], METHODS)
        except Problem as problem:
            await send_problem(send, problem, hygiene.request_id(scope["headers"]))
            return
        if call is None:
            await self._fallback(scope, receive, send)
        else:
            await self._carry(call, scope, receive, send)

    async def _carry(self, call: str | Proxied, scope: Scope, receive: Receive, send: Send) -> None:
        """`call` is the model of an inference, or a path of a deployment's replicas."""
        request_id = hygiene.request_id(scope["headers"])
        try:
            principal = self._authenticate(scope["headers"])
            if not isinstance(principal, Principal):
                principal = await principal
            route = self._route(principal, call)
        except (Problem, StoreUnavailable) as error:
            problem = error if isinstance(error, Problem) else error.problem
            await send_problem(send, problem, request_id)
            return
        below = None if isinstance(call, str) else call.below
        if (
            len(self.out.lanes) > 2 * len(self._routes.current) + 16
        ):  # most belong to deployments that are gone
            self._forget_the_gone()
        await Exchange(self.out, route, below, request_id, scope, receive, send).run()

    def _route(self, principal: Principal, call: str | Proxied) -> Route:
        if not principal.may(Permission.INFER):
            raise Forbidden(
                f"The role {principal.role} may not send requests to models.",
                advice="Use a key with the role invoker, deployer, admin or owner.",
            )
        key = call if isinstance(call, str) else call.deployment
        route = self._routes.current.find(principal.organization_id, key)
        if route is not None and (isinstance(call, str) or key in (route.deployment_id, route.name)):
            return route
        raise NotFound(
            "No deployment of this organization has that id or name, or serves that model.",
            code="deployment_not_found",
            advice="List the deployments with GET /v1/deployments.",
        )

    def _forget_the_gone(self) -> None:
        table = self._routes.current
        self.out.lanes.keep(table)
        self.meter.keep(table)
        if self.out.waker is not None:
            self.out.waker.keep(table)

    async def _tell(self, scope: Scope, send: Send) -> None:
        """The metrics; between two pieces others have their turn."""
        self._forget_the_gone()
        more = b"" if self._more_metrics is None else await self._more_metrics()
        request_id = hygiene.request_id(scope["headers"]).encode("ascii")
        headers = [(b"content-type", metrics.CONTENT_TYPE), (b"x-request-id", request_id)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in metrics.exposition(self.meter.tallies()):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": more})
