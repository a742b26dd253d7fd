"""Which URLs may be connected to, as pure functions on the URL and the addresses its name has.

Each refusal has a stable rule name, which the API shows for the field at fault:

`url` · `scheme` · `userinfo` · `host` · `port` · `length` · `resolves` · `public_address`
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

import httpx

from moorage.errors import OutgoingRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LONGEST_URL = 2048
PORTS = frozenset({80, 443, 8443})

# Public by their number, and yet not to be reached from inside: beyond what `is_global` knows.
_CLOSED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "192.0.0.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's own endpoint on every virtual machine
    )
)
_UNICAST_V6 = IPv6Network("2000::/3")  # all that is assigned; NAT64 and unique local addresses lie outside
_CLOSED_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )  # Teredo and others, docs, 6to4, docs
)


def is_public(address: Address) -> bool:
    """Whether the address is one host of the public internet, seen through an IPv4-mapped form."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        return (
            address in _UNICAST_V6
            and address.is_global
            and not any(address in network for network in _CLOSED_V6)
        )
    return address.is_global and not any(address in network for network in _CLOSED_V4)


# -- the URL ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in parts. `host` is in ASCII, lower case, without a dot at the end; `literal` is set when it is
    an address."""

    scheme: str
    host: str
    port: int
    path: str  # with the query
    literal: Address | None

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if isinstance(self.literal, IPv6Address) else self.host
        return host if self.port == _default_port(self.scheme) else f"{host}:{self.port}"

    def url_at(self, address: Address) -> httpx.URL:
        """The same request, to `address`."""
        host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        return httpx.URL(f"{self.scheme}://{host}:{self.port}").copy_with(raw_path=self.path.encode("ascii"))


def parse_target(url: str) -> Target:
    """Raises OutgoingRefused for what is no http URL, or hides a part of itself."""
    if len(url) > LONGEST_URL:
        raise OutgoingRefused("length", f"the URL is longer than {LONGEST_URL} characters")
    try:
        parts = httpx.URL(url)
        host = parts.raw_host.decode("ascii").lower().rstrip(".")
        port = parts.port
    except (httpx.InvalidURL, ValueError):
        raise OutgoingRefused("url", "this is not a valid URL") from None
    if parts.scheme not in ("http", "https"):
        raise OutgoingRefused("scheme", "the URL must begin with https://")
    if parts.userinfo:
        raise OutgoingRefused("userinfo", "the URL must not hold a user name or password")
    if port is not None and not 1 <= port <= 65535:
        raise OutgoingRefused("port", "the URL's port must be 1 to 65535")
    literal = literal_address(host)
    if not host or (literal is None and not _NAME.fullmatch(host)):
        raise OutgoingRefused("host", "the URL has no valid host")
    return Target(
        parts.scheme, host, port or _default_port(parts.scheme), parts.raw_path.decode("ascii"), literal
    )


_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*")


def literal_address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


# -- what an operator opens ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Opening:
    name: str | None
    network: Network | None
    port: int | None  # None: any


@dataclass(frozen=True, slots=True)
class AllowList:
    """Hosts and networks that may be reached besides the public internet, and over plain http too."""

    openings: tuple[_Opening, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `MOORAGE_OUTBOUND_ALLOW`: entries by comma or space, each a name, an address or a network,
        with an optional port: `127.0.0.1`, `10.0.0.0/8`, `localhost:9000`, `[::1]:9000`.
        Raises ValueError."""
        return cls(tuple(_opening(entry) for entry in re.split(r"[,\s]+", text) if entry))

    @property
    def has_networks(self) -> bool:
        return any(opening.network is not None for opening in self.openings)

    def opens_name(self, host: str, port: int) -> bool:
        return any(opening.name == host and opening.port in (None, port) for opening in self.openings)

    def opens_address(self, address: Address, port: int) -> bool:
        return any(
            opening.network is not None and address in opening.network and opening.port in (None, port)
            for opening in self.openings
        )


def _opening(entry: str) -> _Opening:
    match = re.fullmatch(
        r"\[(?P<v6>[^\]]+)\](?::(?P<p6>\d{1,5}))?|(?P<host>[^:]+)(?::(?P<p4>\d{1,5}))?", entry
    )
    if match is None:  # an IPv6 address or network without brackets
        host, port = entry, None
    else:
        host, port = match["v6"] or match["host"], match["p6"] or match["p4"]
    if port is not None and not 1 <= int(port) <= 65535:
        raise ValueError(f"outbound allow entry {entry!r}: the port must be 1 to 65535")
    number = None if port is None else int(port)
    try:
        return _Opening(None, ip_network(host, strict=False), number)
    except ValueError:
        if "/" in host or not _NAME.fullmatch(host.lower()):
            raise ValueError(
                f"outbound allow entry {entry!r} is neither a host, an address nor a network"
            ) from None
    return _Opening(host.lower(), None, number)


# -- the judgement ---------------------------------------------------------------------------------------


def judge_before_lookup(target: Target, allow: AllowList) -> None:
    """Refuses what no address could make right, so that a wrong scheme is told before a missing name."""
    if not allow.has_networks and not allow.opens_name(target.host, target.port):
        _judge_scheme_and_port(target)


def judge(target: Target, addresses: Sequence[Address], allow: AllowList) -> None:
    """Raises OutgoingRefused unless every one of `addresses` may be connected to."""
    if not addresses:
        raise OutgoingRefused("resolves", f"the host {target.host} does not resolve")
    closed = _not_opened(target.host, target.port, addresses, allow)
    if closed:
        _judge_scheme_and_port(target)
        _judge_public(target.host, closed)


def judge_addresses(host: str, port: int, addresses: Sequence[Address], allow: AllowList) -> None:
    """As `judge`, for who speaks TLS of its own, on any port. Raises OutgoingRefused unless
    every one of `addresses` may be connected to."""
    _judge_public(host, _not_opened(host, port, addresses, allow))


def _not_opened(host: str, port: int, addresses: Sequence[Address], allow: AllowList) -> Sequence[Address]:
    """Those that only the public internet's rule may let pass."""
    if allow.opens_name(host, port):
        return ()
    return [address for address in addresses if not allow.opens_address(address, port)]


def _judge_public(host: str, addresses: Sequence[Address]) -> None:
    if not all(is_public(address) for address in addresses):
        # Which address it was is not told: the caller may be mapping the inside of the network.
        raise OutgoingRefused(
            "public_address", f"the host {host} has an address that is not on the public internet"
        )


def _judge_scheme_and_port(target: Target) -> None:
    if target.scheme != "https":
        raise OutgoingRefused("scheme", "the URL must begin with https://")
    if target.port not in PORTS:
        raise OutgoingRefused(
            "port", f"port {target.port} is not allowed; use 443, 8443 or 80 with the scheme https"
        )
