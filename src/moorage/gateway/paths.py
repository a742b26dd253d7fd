"""Which paths are the gateway's, and what lies below them at a replica.

What a caller writes below `/proxy` becomes part of a URL that is asked for with our own credentials. It must
stay below the replica's base, however the servers on the way decode it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from moorage.errors import Malformed
from moorage.gateway.asgi import Scope

INFER = "/infer"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MODELS = "/v1/models/"
_DEPLOYMENTS = "/v1/deployments/"
_SEPARATORS = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True)
class Proxied:
    """A request to a path of a deployment's replicas. `below` has a slash before it, and is encoded."""

    deployment: str  # id or name
    below: str


def model_of(path: str) -> str | None:
    """The `{model}` of an infer path (which ASGI has percent-decoded already), None for other paths."""
    if path.startswith(_MODELS) and path.endswith(INFER):
        return path[len(_MODELS) : -len(INFER)] or None
    return None


def proxied(scope: Scope) -> Proxied | None:
    """Of `/v1/deployments/{deployment}/proxy` and all below it; None for other paths. Raises Malformed for
    one that would leave the replica's base."""
    if not scope["path"].startswith(_DEPLOYMENTS):
        return None
    raw: bytes | None = scope.get("raw_path")  # a server need not give it
    path = quote(scope["path"]) if raw is None else raw.decode("latin-1")
    parts = path.split("/", 5)
    if len(parts) < 5 or parts[4] != "proxy" or not parts[3]:
        return None
    below = parts[5] if len(parts) == 6 else ""
    if _leaves(below):
        message = "The path has a segment `.` or `..`."
        raise Malformed.at("path", "dot_segment", message, code="path_not_allowed")
    return Proxied(unquote(parts[3]), f"/{below}")


def _leaves(below: str) -> bool:
    """Decoded twice: a load balancer before the replica may do so."""
    return any(part in (".", "..") for part in _SEPARATORS.split(unquote(unquote(below))))


def prefix_of(deployment_id: str) -> str:
    """The path here of what lies at the base of its replicas."""
    return f"{_DEPLOYMENTS}{deployment_id}/proxy"


def moved(location: str, base: str, prefix: str) -> str:
    """A `Location` as the caller should follow it. `base` is the replica's base URL and `prefix` the path by
    which it is reached here; what is neither the replica's nor relative is left alone.

    A proxy on the way may have written its own path before the replica's, or not: both are understood.
    """
    try:
        to, at = urlsplit(location), urlsplit(base)
    except ValueError:
        return location
    if to.netloc.lower() not in ("", at.netloc.lower()):
        return location
    if not to.netloc and not to.path.startswith("/"):
        return location
    own = at.path.rstrip("/")
    path = to.path
    if own and (path == own or path.startswith(f"{own}/")):
        path = path[len(own) :]
    return urlunsplit(("", "", f"{prefix}{path or '/'}", to.query, to.fragment))
