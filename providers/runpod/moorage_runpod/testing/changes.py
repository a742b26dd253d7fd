"""One way to wait: until something that can be looked at has come true.

Long polls, held requests and log streams all wait for a change of plain state. Whoever changes it tells;
whoever waits looks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Changes:
    """Tells waiters of one event loop that it is time to look again."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def tell(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, look: Callable[[], T | None], seconds: float | None = None) -> T | None:
        """What `look` gives, once that is not None; None when `seconds` have passed first."""
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        while (found := look()) is None:
            left = None if end is None else end - loop.time()
            if left is not None and left <= 0:
                return None
            await self._next(left)
        return found

    async def _next(self, seconds: float | None) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait({future}, timeout=seconds)
        finally:
            self._waiting.discard(future)
