"""How the process ends: told to by a signal, or because its model cannot be loaded."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal

EXIT_OK, EXIT_FAILED = 0, 1


class End:
    """The end of the service, awaited once. Made in the event loop, whose signals it takes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[BaseException | None] = self._loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._settle, None)

    def fail_with(self, error: BaseException | None) -> None:
        """Called from the loading thread; None is no failure."""
        if error is not None:
            self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, failure: BaseException | None) -> None:
        if not self._future.done():
            self._future.set_result(failure)

    async def reached(self) -> BaseException | None:
        """None after a signal, or why the load failed."""
        return await self._future


def end_process(code: int) -> None:
    """Exit now, logs flushed. A normal exit would wait for threads that cannot be stopped."""
    logging.shutdown()
    for child in multiprocessing.active_children():  # as a normal exit would
        child.terminate()
    os._exit(code)
