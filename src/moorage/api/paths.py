"""Paths that may be called with a slash at the end or without: one route, no redirect.

A redirect would lose the body with some clients, and the bearer token with others.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send


class TrailingSlash:
    """Adds or takes away the slash, as the routes are declared: all below `prefixes` with it, all below
    `bare` without."""

    def __init__(self, app: ASGIApp, prefixes: Sequence[str], bare: Sequence[str] = ()) -> None:
        self._app = app
        self._prefixes = tuple(f"{prefix}/" for prefix in prefixes)
        self._bare = tuple(f"{prefix}/" for prefix in bare)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": self._declared(scope["path"])}
        await self._app(scope, receive, send)

    def _declared(self, path: str) -> str:
        slashed = path if path.endswith("/") else f"{path}/"
        if slashed.startswith(self._prefixes):
            return slashed
        if path.startswith(self._bare):
            return path.removesuffix("/")
        return path
