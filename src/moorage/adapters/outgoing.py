"""The one way to a URL that a user gave, built against server-side request forgery.

A name is looked up here, every address it has is judged, and the connection goes to one of the judged
addresses, with the name only in `Host` and in TLS. So a name that answers differently the next time (DNS
rebinding) gains nothing: what is connected to is what was judged, at every attempt anew.

The httpx transport is used without its client: no redirects, no cookies, no proxies or certificates from the
environment, and no connection kept, because a kept one to a pinned address would serve another name without
its certificate having been checked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from moorage.adapters.outgoing_rules import (
    Address,
    AllowList,
    Target,
    judge,
    judge_addresses,
    judge_before_lookup,
    literal_address,
    parse_target,
)
from moorage.errors import OutgoingFailed, OutgoingRefused
from moorage.ports.outside import OutgoingAnswer

BODY_LIMIT = 64 * 1024
LOOKUP_SECONDS = 5.0
LOOKUP_THREADS = 16  # own threads: a slow name server must not hold up other work of the process
ADDRESSES_TRIED = 4

LookUp = Callable[[str, int], Awaitable[Sequence[Address]]]


@dataclass(frozen=True, slots=True)
class _Message:
    method: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class GuardedOutgoing:
    """An `Outgoing`. `resolve` and `tls` are for tests and for private name servers or authorities."""

    def __init__(
        self,
        allow: AllowList | None = None,
        *,
        resolve: LookUp | None = None,
        tls: ssl.SSLContext | None = None,
        body_limit: int = BODY_LIMIT,
    ) -> None:
        self._allow = allow or AllowList()
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup")
        self._look_up = resolve or self._system_look_up
        self._body_limit = body_limit
        self._transport = httpx.AsyncHTTPTransport(
            verify=tls or httpx.create_ssl_context(trust_env=False),
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def check(self, url: str) -> None:
        await self._vetted(url, LOOKUP_SECONDS)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> OutgoingAnswer:
        return await self.request("POST", url, headers, body, timeout)

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float
    ) -> OutgoingAnswer:
        """`timeout` is in seconds and bounds everything: the lookup, the connection, the last byte read."""
        message = _Message(method, headers, body)
        try:
            async with asyncio.timeout(timeout):
                target, addresses = await self._vetted(url, min(timeout, LOOKUP_SECONDS))
                return await self._send(message, target, addresses, timeout)
        except TimeoutError:
            raise OutgoingFailed(f"no complete answer within {timeout:g} seconds") from None
        except httpx.HTTPError as error:
            raise OutgoingFailed(_words(error)) from error

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """A `ports.outside.Resolve`: for who connects by itself, to one of these addresses and no other."""
        host = host.lower().rstrip(".")
        literal = literal_address(host)
        if literal is not None:
            addresses: Sequence[Address] = (literal,)
        else:
            addresses = await self._known_addresses(host, port)
        judge_addresses(host, port, addresses, self._allow)
        return [str(address) for address in addresses]

    async def aclose(self) -> None:
        await self._transport.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _vetted(self, url: str, seconds: float) -> tuple[Target, Sequence[Address]]:
        target = parse_target(url)
        judge_before_lookup(target, self._allow)
        addresses = await self._addresses(target, seconds)
        judge(target, addresses, self._allow)
        return target, addresses

    async def _addresses(self, target: Target, seconds: float) -> Sequence[Address]:
        if target.literal is not None:
            return (target.literal,)
        try:
            async with asyncio.timeout(seconds):
                return await self._look_up(target.host, target.port)
        except (OSError, UnicodeError):
            # TimeoutError is an OSError. What the name server said is of no use to the user, and may be ours.
            raise OutgoingRefused("resolves", f"the host {target.host} does not resolve") from None

    async def _known_addresses(self, host: str, port: int) -> Sequence[Address]:
        """Raises OSError when there are none; a TimeoutError is one."""
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await self._look_up(host, port)
        except UnicodeError as error:  # a label that no name server could be asked for
            raise OSError(f"{host} is no name of a host") from error
        if not found:
            raise OSError(f"{host} has no address")
        return found

    async def _system_look_up(self, host: str, port: int) -> Sequence[Address]:
        def look_up() -> Sequence[Address]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return tuple(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))

        return await asyncio.get_running_loop().run_in_executor(self._threads, look_up)

    async def _send(
        self, message: _Message, target: Target, addresses: Sequence[Address], timeout: float
    ) -> OutgoingAnswer:
        tried = addresses[:ADDRESSES_TRIED]
        for address in tried:
            try:
                return await self._exchange(message, target, address, timeout, timeout / len(tried))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failed = error  # nothing was sent: the next address may be tried
        raise failed

    async def _exchange(
        self, message: _Message, target: Target, address: Address, timeout: float, connect_timeout: float
    ) -> OutgoingAnswer:
        request = httpx.Request(
            message.method,
            target.url_at(address),
            headers={
                "user-agent": "Moorage-Webhooks/1",
                **message.headers,
                "host": target.host_header,
                "accept-encoding": "identity",
                "connection": "close",
            },
            content=message.body,
            extensions={
                "sni_hostname": target.host,
                "timeout": {"connect": connect_timeout, "read": timeout, "write": timeout, "pool": timeout},
            },
        )
        response = await self._transport.handle_async_request(request)
        try:
            return OutgoingAnswer(
                response.status_code,
                {name.lower(): value for name, value in response.headers.items()},
                await self._read(response),
            )
        finally:
            await response.aclose()

    async def _read(self, response: httpx.Response) -> bytes:
        """The body as it came, at most up to the limit: a bomb of compressed zeros is never unpacked."""
        kept = bytearray()
        async for chunk in response.aiter_raw():
            kept += chunk
            if len(kept) >= self._body_limit:
                break
        return bytes(kept[: self._body_limit])


def _words(error: httpx.HTTPError) -> str:
    said = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError):
        return f"the receiver could not be connected to: {said}"
    return f"the exchange with the receiver failed: {said}"
