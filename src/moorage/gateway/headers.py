"""Which headers cross the gateway, and which stay on their side.

A worker is a tenant's code. It must not learn the caller's credentials or who the caller says the host is,
and its answer is given on the service's own origin, so that it must not set cookies there.

On the way to it there may be the API server of a cluster, which knows us by our credentials. The caller must
not speak to that in our name, and what it adds to an answer is not the caller's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from multidict import CIMultiDict

from moorage.gateway.asgi import RawHeaders

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_KEPT_FROM_WORKER = _HOP_BY_HOP | {
    b"authorization",
    b"cookie",
    b"x-api-key",
    b"host",  # the worker's own is set
    b"content-length",  # set again when the length is known
    b"expect",  # answered by our own server
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-real-ip",
    b"x-request-id",  # set again, checked
}
_KEPT_FROM_CALLER = _HOP_BY_HOP | {
    b"set-cookie",
    b"clear-site-data",
    b"strict-transport-security",
    b"alt-svc",
    b"server",  # our own server sets both
    b"date",
    b"x-request-id",
    b"x-moorage-deployment",
    b"service-worker-allowed",
    b"audit-id",  # these three by an API server
    b"x-kubernetes-pf-flowschema-uid",
    b"x-kubernetes-pf-prioritylevel-uid",
}
# Names that an API server takes for who is asking; it lets those act for others that have the right to.
_SPOKEN_FOR = (b"impersonate-", b"x-remote-")
_PLACES = (b"location", b"content-location")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


def request_id(headers: RawHeaders) -> str:
    """The caller's `x-request-id` when it is well formed, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return os.urandom(16).hex()


def declared_length(headers: RawHeaders) -> int | None:
    """The `content-length`, None when there is none. Our server has checked that it is a number."""
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return None


def for_worker(headers: RawHeaders, id_: str) -> CIMultiDict[str]:
    """The request's headers as the worker gets them."""
    kept = _KEPT_FROM_WORKER
    forwarded: CIMultiDict[str] = CIMultiDict()
    for name, value in headers:
        if name == b"connection":
            kept = kept | _named(value)
    for name, value in headers:
        if name not in kept and not name.startswith(_SPOKEN_FOR):
            forwarded.add(name.decode("latin-1"), _text(value))
    forwarded["x-request-id"] = id_
    return forwarded


def for_caller(
    headers: RawHeaders, id_: str, deployment_id: str, moved: Callable[[str], str]
) -> list[tuple[bytes, bytes]]:
    """The answer's headers as the caller gets them; it is told which deployment answered. `moved` says where
    the caller finds what is at a location of the replica's."""
    kept = _KEPT_FROM_CALLER
    lowered = [(name.lower(), value) for name, value in headers]
    placed = False
    for name, value in lowered:
        if name == b"connection":
            kept = kept | _named(value)
        elif name in _PLACES:
            placed = True
    passed = [header for header in lowered if header[0] not in kept]
    if placed:
        passed = [
            (name, moved(value.decode("latin-1")).encode("latin-1")) if name in _PLACES else (name, value)
            for name, value in passed
        ]
    passed.append((b"x-request-id", id_.encode("ascii")))
    passed.append((b"x-moorage-deployment", deployment_id.encode("ascii")))
    return passed


def of_result(id_: str, deployment_id: str, length: int) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that the gateway makes of a job's result."""
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % length),
        (b"x-request-id", id_.encode("ascii")),
        (b"x-moorage-deployment", deployment_id.encode("ascii")),
    ]


def _named(connection: bytes) -> frozenset[bytes]:
    """The headers that a `connection` header declares to be for this hop only."""
    return frozenset(token.strip().lower() for token in connection.split(b","))


def _text(value: bytes) -> str:
    """As the client library will encode it again: UTF-8; bytes that are none are read as Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
