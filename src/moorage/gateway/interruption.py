"""Ends a request from outside its task: a deadline passed, the caller left, its body broke a rule.

All three cancel the task that forwards, and leave the reason here for it to find. A task that is cancelled
by somebody else (the server shutting down) finds no reason and goes on being cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from moorage.gateway.asgi import Receive

# Timers and the watch for a caller who leaves (a task of its own) are set up only for a request that lasts
# longer than this many seconds: most are over before, and would pay for what they never use.
_ATTEND_AFTER = 0.02

Reason = Callable[[], Exception]


class CallerLeft(Exception):
    """The client closed its connection before the answer was complete."""


class Interruption:
    __slots__ = (
        "_attended",
        "_body_read",
        "_due",
        "_late",
        "_loop",
        "_over",
        "_receive",
        "_task",
        "_timer",
        "_watch",
        "reason",
    )

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._loop = task.get_loop()
        self._receive = receive
        self._due = 0.0  # 0: no deadline
        self._late: Reason | None = None
        self._body_read = False
        self._attended = False
        self._over = False
        self._watch: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle = self._loop.call_later(_ATTEND_AFTER, self._attend)
        self.reason: Exception | None = None

    def fire(self, reason: Exception) -> None:
        """Cancels the request; the first reason counts."""
        if self.reason is None and not self._over:
            self.reason = reason
            self._task.cancel()

    def deadline(self, seconds: float, late: Reason) -> None:
        """From now on this deadline, in the place of the last; when it passes, fires what `late` makes."""
        self._due = self._loop.time() + seconds
        self._late = late
        if self._attended:
            self._arm()

    def watch_caller(self) -> None:
        """Fires CallerLeft on a disconnect. Only once the body is read whole: it takes over `receive`."""
        self._body_read = True
        if self._attended and not self._over:
            self._start_watch()

    def over(self) -> None:
        """The request has ended; nothing fires any more."""
        self._over = True
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()

    def cleared(self) -> Exception | None:
        """To be asked where CancelledError was caught: the reason if the cancellation was ours (the task is
        then no longer cancelled), None if it was somebody else's and must be raised on."""
        if self.reason is not None:
            self._task.uncancel()
        return self.reason

    def _attend(self) -> None:
        self._attended = True
        self._arm()
        if self._body_read:
            self._start_watch()

    def _arm(self) -> None:
        self._timer.cancel()
        if self._late is not None:
            self._timer = self._loop.call_at(self._due, self._pass_deadline, self._late)

    def _pass_deadline(self, late: Reason) -> None:
        self.fire(late())

    def _start_watch(self) -> None:
        if self._watch is None:
            self._watch = self._loop.create_task(self._wait_for_disconnect())

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.fire(CallerLeft())
