"""Telling whoever waits in this process that something about a subject may have changed.

A signal carries no data: the waiter reads the store again. It stands beside the ports, because services wait
for it, the engine's changes give it, and neither imports the other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator


class Signals:
    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def notify(self, subject_id: str) -> None:
        for event in self._waiting.get(subject_id, ()):
            event.set()

    def notify_all(self) -> None:
        """Another process wrote, and did not say what."""
        for subject_id in list(self._waiting):
            self.notify(subject_id)

    @contextlib.contextmanager
    def listen(self, subject_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when `subject_id` is notified; clear it before reading, wait on it after."""
        event = asyncio.Event()
        self._waiting[subject_id].add(event)
        try:
            yield event
        finally:
            self._waiting[subject_id].discard(event)
            if not self._waiting[subject_id]:
                del self._waiting[subject_id]


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, or `seconds` have passed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
