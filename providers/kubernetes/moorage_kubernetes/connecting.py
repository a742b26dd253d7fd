"""How a connection to a cluster is opened: through the guard, and trusting the cluster's authority only.

A user named the host. So each connection asks the guard first, which addresses it may go to, and goes to one
of these: a name that leads elsewhere the next time gains nothing. A proxy of the environment is never used.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import tempfile
from collections.abc import Mapping, Sequence

from aiohttp import ClientConnectorError, ClientRequest, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client import ClientSession
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from moorage.errors import OutgoingRefused
from moorage.ports.outside import Resolve

READ_BUFFER = 2**21  # one event of a watch is one line, and an object may be 1.5 MiB
CONNECTIONS = 64


class NotPermitted(OSError):
    """The guard's refusal, in the form in which aiohttp passes on what a resolver raises."""

    def __init__(self, refused: OutgoingRefused) -> None:
        super().__init__(refused.detail)
        self.detail = refused.detail


def open_session(resolve: Resolve | None, tls: ssl.SSLContext, connect_seconds: float) -> ClientSession:
    """Without `resolve` nothing stands between a user's host and this network. Needs the running loop."""
    if resolve is None:
        connector = TCPConnector(ssl=tls, limit=CONNECTIONS)
    else:
        connector = _GuardedConnector(resolve, tls)
    return ClientSession(
        connector=connector,
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None, sock_connect=connect_seconds),
        read_bufsize=READ_BUFFER,
        trust_env=False,
    )


def tls_context(values: Mapping[str, str]) -> ssl.SSLContext:
    """Of a credential's values. Raises ValueError or OSError (ssl's errors are some) for what is no PEM, or a
    key of another certificate. Blocks for milliseconds."""
    context = ssl.create_default_context(cadata=values.get("certificate_authority") or None)
    # Authorities that clusters make for themselves lack extensions which strict verification, the default
    # since Python 3.13, asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    certificate = values.get("client_certificate")
    if certificate:
        # `ssl` reads certificates from files only: this one is its owner's alone, and gone after the call.
        with tempfile.NamedTemporaryFile("w", prefix="moorage-", suffix=".pem") as file:
            file.write(f"{certificate}\n{values.get('client_key', '')}")
            file.flush()
            context.load_cert_chain(file.name, password=_no_password)
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # without this, OpenSSL would ask on the terminal


class _GuardedResolver(AbstractResolver):
    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await _permitted(self._resolve, host, port)
        ]

    async def close(self) -> None:
        pass


class _GuardedConnector(TCPConnector):
    """aiohttp resolves no host that is an address already, so those are judged before."""

    def __init__(self, resolve: Resolve, tls: ssl.SSLContext) -> None:
        super().__init__(ssl=tls, limit=CONNECTIONS, use_dns_cache=False, resolver=_GuardedResolver(resolve))
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
        raise NotPermitted(refused) from refused


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
