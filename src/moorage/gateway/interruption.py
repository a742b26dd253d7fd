"""Ends a request from outside its task: a deadline passed, the caller left, its body broke a rule.

All three cancel the task that forwards, and leave the reason here for it to find. A task that is cancelled
by somebody else (the server shutting down) finds no reason and goes on being cancelled.
"""

from __future__ import annotations

import asyncio

from moorage.gateway.asgi import Receive

# A request that is over sooner than this is not watched for a caller who leaves: the watch is a task of its
# own, and most requests are over before it would matter.
_WATCH_AFTER = 0.02


class CallerLeft(Exception):
    """The client closed its connection before the answer was complete."""


class Interruption:
    __slots__ = ("_deadline", "_loop", "_over", "_receive", "_task", "_watch", "_watch_start", "reason")

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._loop = task.get_loop()
        self._receive = receive
        self._deadline: asyncio.TimerHandle | None = None
        self._watch_start: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None
        self._over = False
        self.reason: Exception | None = None

    def fire(self, reason: Exception) -> None:
        """Cancels the request; the first reason counts."""
        if self.reason is None and not self._over:
            self.reason = reason
            self._task.cancel()

    def deadline(self, seconds: float, reason: Exception) -> None:
        """From now on this deadline, in the place of the last."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(seconds, self.fire, reason)

    def watch_caller(self) -> None:
        """Fires CallerLeft on a disconnect. Only once the body is read whole: it takes over `receive`."""
        if not self._over and self._watch_start is None:
            self._watch_start = self._loop.call_later(_WATCH_AFTER, self._start_watch)

    def over(self) -> None:
        """The request has ended; nothing fires any more."""
        self._over = True
        for pending in (self._deadline, self._watch_start, self._watch):
            if pending is not None:
                pending.cancel()

    def cleared(self) -> Exception | None:
        """To be asked where CancelledError was caught: the reason if the cancellation was ours (the task is
        then no longer cancelled), None if it was somebody else's and must be raised on."""
        if self.reason is not None:
            self._task.uncancel()
        return self.reason

    def _start_watch(self) -> None:
        self._watch = self._loop.create_task(self._wait_for_disconnect())

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.fire(CallerLeft())
