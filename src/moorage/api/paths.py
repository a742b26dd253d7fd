"""Paths that are documented with a slash at the end, and may be called without: one route, no redirect.

A redirect would lose the body with some clients, and the bearer token with others.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send


class TrailingSlash:
    """Adds the slash where it is missing. All routes below the `prefixes` are declared with it."""

    def __init__(self, app: ASGIApp, prefixes: Sequence[str]) -> None:
        self._app = app
        self._prefixes = tuple(f"{prefix}/" for prefix in prefixes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].endswith("/"):
            path = f"{scope['path']}/"
            if path.startswith(self._prefixes):
                scope = {**scope, "path": path}
        await self._app(scope, receive, send)
