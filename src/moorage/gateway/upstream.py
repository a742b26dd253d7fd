"""One route's replicas, whose turn it is, and a request to one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator

from aiohttp import (
    ClientConnectorError,
    ClientResponse,
    ClientSession,
    ConnectionTimeoutError,
)
from multidict import CIMultiDict
from yarl import URL

from moorage.errors import BadGateway
from moorage.gateway.paths import INFER
from moorage.gateway.routes import Route
from moorage.upstream_auth import NO_AUTH, UpstreamAuth

# What goes with requests to a route's replicas. Raises a Problem when it cannot be had.
OpenAuth = Callable[[Route], Awaitable[UpstreamAuth]]

# Raised before any byte of a request was sent: another replica may be tried without harm.
NothingSent = (ClientConnectorError, ConnectionTimeoutError)


class Lane:
    """A route's replicas in turn. `route` is compared by identity: a new one means a new lane."""

    __slots__ = ("_bases", "_infer", "_turn", "route")

    def __init__(self, route: Route, turn: int = 0) -> None:
        self.route = route
        self._bases = tuple(target.rstrip("/") for target in route.targets)
        self._infer = tuple(URL(base + INFER, encoded=True) for base in self._bases)  # made once: most ask it
        self._turn = turn

    def replicas(self, below: str | None) -> Iterator[tuple[str, URL]]:
        """Each replica once, beginning with the one whose turn it is: its base URL, and the URL of the path
        `below` it, which is encoded and begins with a slash; None is `/infer`."""
        bases = self._bases
        turn = self._turn
        self._turn = turn + 1
        for offset in range(len(bases)):
            at = (turn + offset) % len(bases)
            if below is None:
                yield bases[at], self._infer[at]
            else:
                yield bases[at], URL(bases[at] + below, encoded=below.isascii())

    def next_target(self) -> str:
        """The base URL of the replica whose turn it is. Only of a route that has targets."""
        targets = self.route.targets
        self._turn += 1
        return targets[(self._turn - 1) % len(targets)]

    def renewed(self, route: Route) -> Lane:
        """The lane for the deployment's changed route; the turn goes on."""
        return Lane(route, self._turn)


class Lanes:
    """The lanes of all routes that were asked for."""

    __slots__ = ("_lanes",)

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}

    def of(self, route: Route) -> Lane:
        lane = self._lanes.get(route.deployment_id)
        if lane is not None and lane.route is route:
            return lane
        lane = Lane(route) if lane is None else lane.renewed(route)
        self._lanes[route.deployment_id] = lane
        return lane

    def keep(self, deployment_ids: Container[str]) -> None:
        """Lets go of the others."""
        self._lanes = {id_: lane for id_, lane in self._lanes.items() if id_ in deployment_ids}

    def __len__(self) -> int:
        return len(self._lanes)


def with_query(url: URL, query: bytes) -> URL:
    """The URL with the caller's query string, as it was encoded."""
    return URL(f"{url}?{query.decode('latin-1')}", encoded=query.isascii()) if query else url


async def no_auth(route: Route) -> UpstreamAuth:
    """The OpenAuth of a gateway without credentials."""
    if route.access.needs_credentials:
        raise BadGateway("This gateway has no credentials for the provider.", code="provider_key_missing")
    return NO_AUTH


async def send(
    session: ClientSession,
    method: str,
    url: URL,
    headers: CIMultiDict[str],
    body: bytes | AsyncIterator[bytes] | None,
    auth: UpstreamAuth,
) -> ClientResponse:
    """Sends and waits for the head of the answer. Raises aiohttp's ClientError; see NothingSent."""
    return await session.request(
        method, url, data=body, headers=headers, allow_redirects=False, ssl=auth.tls or True
    )


def end(response: ClientResponse) -> None:
    """Lets go of an answer; one not read whole takes its connection, and the worker's work, along."""
    response.close()
