"""The caller's body on its way to a worker: one chunk held at a time, so that a slow worker slows its caller.

Most bodies come in one chunk and are sent as plain bytes; only longer ones are streamed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from moorage.errors import TooLarge
from moorage.gateway.asgi import Receive
from moorage.gateway.interruption import CallerLeft

WHOLE_AT_MOST = 512 * 1024  # bytes in one chunk that are sent as one piece


def too_large(limit: int) -> TooLarge:
    return TooLarge.at("body", "max_bytes", f"The body is larger than {limit} bytes.")


class Upload:
    """Reads the first chunk, then is either `whole` or streamed by `chunks`."""

    __slots__ = ("_first", "_limit", "_more", "_receive", "_started", "received")

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._first = b""
        self._more = True
        self._started = False
        self.received = 0  # bytes from the caller

    async def start(self) -> None:
        """Reads the first chunk, if that was not done yet. Raises CallerLeft or TooLarge."""
        if not self._started:
            self._first = await self._next()
            self._started = True

    async def hold(self, size: int) -> None:
        """Reads on until the body is over, or at least `size` bytes of it are held. Raises as `start`."""
        parts, held = [self._first], len(self._first)
        while self._more and held < size:
            parts.append(await self._next())
            held += len(parts[-1])
        self._first = b"".join(parts)

    @property
    def held(self) -> int:
        return len(self._first)

    @property
    def over(self) -> bool:
        """Whether the caller has sent all of it."""
        return not self._more

    @property
    def whole(self) -> bytes | None:
        """The body, when it came in one piece of moderate size."""
        return self._first if not self._more and len(self._first) <= WHOLE_AT_MOST else None

    async def chunks(
        self, done: Callable[[], None], failed: Callable[[Exception], None]
    ) -> AsyncIterator[bytes]:
        """The body for one connection, once; calls `done` when it is read, `failed` when it cannot be. Until
        the connection takes the first chunk nothing is lost, and the next may be given the body instead."""
        if self._first:
            yield self._first
        self._first = b""
        while self._more:
            try:
                chunk = await self._next()
            except (CallerLeft, TooLarge) as error:
                failed(error)
                raise
            if chunk:
                yield chunk
        done()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        chunk: bytes = message.get("body", b"")
        self._more = message.get("more_body", False)
        self.received += len(chunk)
        if self.received > self._limit:
            raise too_large(self._limit)
        return chunk
