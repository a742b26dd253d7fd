"""How far a job is, told to RunPod while it is worked on.

`runpod.serverless.progress_update` sends each word in a thread of its own, so words overtake each other, and
the last may come after the result and stand in its place. Here they go one after the other, the newest that
waits instead of all, and none once the job is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from moorage_worker.errors import cause_line

log = logging.getLogger(__name__)

Send = Callable[[object], Awaitable[None]]
LAST_SECONDS = 2.0  # that a word under way may hold up the result


class JobProgress:
    """Made in the event loop that sends, for as long as one job takes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._waiting: object | None = None
        self._sender: asyncio.Task[None] | None = None
        self._over = False

    def tell(self, word: object) -> None:
        """From any thread; returns at once."""
        self._loop.call_soon_threadsafe(self._next, word)

    def _next(self, word: object) -> None:
        if self._over:
            return
        self._waiting = word
        if self._sender is None:
            self._sender = self._loop.create_task(self._send_waiting())

    async def _send_waiting(self) -> None:
        while self._waiting is not None:
            word, self._waiting = self._waiting, None
            try:
                await self._send(word)
            except Exception as error:  # how far a job is matters less than that it goes on
                log.warning("the progress of a job was not sent: %s", cause_line(error))
        self._sender = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._over, self._waiting = True, None
        if self._sender is None:
            return
        if kind is None or not issubclass(kind, asyncio.CancelledError):
            await asyncio.wait([self._sender], timeout=LAST_SECONDS)
        # With the connection of a word that takes too long, or is not wanted any more, it is gone.
        if self._sender is not None:
            self._sender.cancel()
