"""A bound on what a request may send. A declared length is checked, and not trusted: bytes are counted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage.api.problems import Dialect, dialect_of
from moorage.errors import TooLarge


class BodyLimit:
    """`max_bytes`, or what `larger` says of a path. A refusal is told in the path's dialect."""

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        larger: Callable[[str], int | None],
        dialects: Mapping[str, Dialect],
    ) -> None:
        self._app = app
        self._max = max_bytes
        self._larger = larger
        self._dialects = dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "DELETE"):
            await self._app(scope, receive, send)
            return
        most = self._larger(scope["path"]) or self._max
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > most:
                await self._refuse(most, scope, receive, send)
                return
        read = 0
        exceeded = started = False

        async def bounded() -> Message:
            nonlocal read, exceeded
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                exceeded = True
                raise _Exceeded
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if not exceeded:
                started = True
                await send(message)

        # The framework takes an error while reading for a broken body: its answer is dropped.
        with contextlib.suppress(_Exceeded):
            await self._app(scope, bounded, watched)
        if exceeded and not started:
            await self._refuse(most, scope, receive, send)

    async def _refuse(self, most: int, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = TooLarge.at("body", "max_bytes", f"The body is at most {most} bytes.")
        answer = dialect_of(scope["path"], self._dialects)(refusal)
        await answer(scope, receive, send)


class _Exceeded(Exception):  # control flow, never seen outside
    pass
