"""Connections to replicas and to providers' job APIs: pools kept open, with nothing added to what is sent.

Hosts that users named (the API servers of clusters) have a pool of their own: every new connection in it goes
to an address that the guard has let pass for this connection, so that no name leads to a private network.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from aiohttp import (
    ClientConnectorError,
    ClientRequest,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from moorage.errors import OutgoingRefused
from moorage.ports.outside import Resolve

_READ_BUFFER = 64 * 1024  # bytes of an answer held for a slow caller; a worker is paused at twice this
_KEEP_ALIVE = 3.0  # seconds; less than the 5 that uvicorn keeps an idle connection, so that we close first


class Connections:
    """Sessions without limits of their own: deadlines and sizes are the caller's to keep. `resolve` is the
    guard; without one nothing stands between a user's host and this network. `aclose` ends what is under
    way; a session that is asked for after it is a new one."""

    def __init__(self, connect_seconds: float, resolve: Resolve | None = None) -> None:
        self._connect_seconds = connect_seconds
        self._resolve = resolve
        self._sessions: dict[bool, ClientSession] = {}  # by whether the guard stands before it

    def session(self, *, guarded: bool) -> ClientSession:
        """For requests to hosts that a user named, or that one did not. Needs the running loop."""
        guarded = guarded and self._resolve is not None
        found = self._sessions.get(guarded)
        if found is None:
            found = self._sessions[guarded] = self._open(guarded)
        return found

    async def aclose(self) -> None:
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()

    def _open(self, guarded: bool) -> ClientSession:
        if guarded and self._resolve is not None:
            connector: TCPConnector = _GuardedConnector(self._resolve)
        else:
            connector = TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE, ttl_dns_cache=10)
        return ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None, sock_connect=self._connect_seconds),
            skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
            auto_decompress=False,
            read_bufsize=_READ_BUFFER,
            trust_env=False,
        )


class _GuardedResolver(AbstractResolver):
    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError, as aiohttp's own resolvers do."""
        addresses = await _permitted(self._resolve, host, port)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


class _GuardedConnector(TCPConnector):
    """aiohttp resolves no host that is an address already, so those are judged before."""

    def __init__(self, resolve: Resolve) -> None:
        super().__init__(
            limit=0,
            keepalive_timeout=_KEEP_ALIVE,
            use_dns_cache=False,
            resolver=_GuardedResolver(resolve),
        )
        self._guard = resolve

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        host, port = req.url.host or "", req.url.port or 443
        if _is_address(host):
            try:
                await _permitted(self._guard, host, port)
            except OSError as error:
                raise ClientConnectorError(req.connection_key, error) from error
        return await super().connect(req, traces, timeout)


async def _permitted(resolve: Resolve, host: str, port: int) -> Sequence[str]:
    try:
        return await resolve(host, port)
    except OutgoingRefused as refused:
        raise OSError(f"{refused.rule}: {refused.detail}") from refused


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
