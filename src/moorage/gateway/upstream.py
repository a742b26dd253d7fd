"""The connections to workers: one pool for all of them, kept open, with nothing added to what is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from aiohttp import (
    ClientConnectorError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    TCPConnector,
)
from multidict import CIMultiDict
from yarl import URL

from moorage.gateway.routes import Route

_READ_BUFFER = 64 * 1024  # bytes of an answer held for a slow caller; a worker is paused at twice this
_KEEP_ALIVE = 3.0  # seconds; less than the 5 that uvicorn keeps an idle connection, so that we close first

# Raised before any byte of a request was sent: another replica may be tried without harm.
NothingSent = (ClientConnectorError, ConnectionTimeoutError)


def open_session(connect_seconds: float) -> ClientSession:
    """A client without limits of its own: deadlines and sizes are the gateway's to keep."""
    return ClientSession(
        connector=TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE, ttl_dns_cache=10),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None, sock_connect=connect_seconds),
        skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
        auto_decompress=False,
        read_bufsize=_READ_BUFFER,
        trust_env=False,
    )


class Lane:
    """A route's replicas in turn. `route` is compared by identity: a new one means a new lane."""

    __slots__ = ("_turn", "_urls", "route")

    def __init__(self, route: Route, turn: int = 0) -> None:
        self.route = route
        self._urls = tuple(URL(target.rstrip("/") + "/infer", encoded=True) for target in route.targets)
        self._turn = turn

    def replicas(self) -> Iterator[URL]:
        """Each replica once, beginning with the one whose turn it is."""
        urls = self._urls
        turn = self._turn
        self._turn = turn + 1
        for offset in range(len(urls)):
            yield urls[(turn + offset) % len(urls)]

    def next_target(self) -> str:
        """The base URL of the replica whose turn it is. Only of a route that has targets."""
        targets = self.route.targets
        self._turn += 1
        return targets[(self._turn - 1) % len(targets)]

    def renewed(self, route: Route) -> Lane:
        """The lane for the deployment's changed route; the turn goes on."""
        return Lane(route, self._turn)


def with_query(url: URL, query: bytes) -> URL:
    """The URL with the caller's query string, as it was encoded."""
    return URL(f"{url}?{query.decode('latin-1')}", encoded=query.isascii()) if query else url


async def post(
    session: ClientSession, url: URL, headers: CIMultiDict[str], body: bytes | AsyncIterator[bytes]
) -> ClientResponse:
    """Sends and waits for the head of the answer. Raises aiohttp's ClientError; see NothingSent."""
    return await session.post(url, data=body, headers=headers, allow_redirects=False)


def end(response: ClientResponse) -> None:
    """Lets go of an answer; one not read whole takes its connection, and the worker's work, along."""
    response.close()
