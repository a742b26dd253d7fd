"""What the loops do when the store fails: wait, longer each time, try again, and say so a few times only.

One for each task. The failures of all its calls count as one trouble, which is told when it begins, when it
has doubled, and when it is over: a store that is away for an hour fills no log.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from moorage.domain.retry import Backoff
from moorage.errors import AlreadyExists, StaleWrite, StoreError, StoreUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

BACKOFF = Backoff(base=0.2, cap=5.0, spread=0.5)
TRIES = 5  # of what fails although the store answers


class StoreTrouble:
    def __init__(self, task: str, backoff: Backoff = BACKOFF) -> None:
        self._task = task
        self._backoff = backoff
        self._failures = 0  # since it worked last

    def failed(self, error: StoreError, in_a_row: int | None = None) -> float:
        """Seconds to wait before the next try; `in_a_row` are the failures of this call, else of the task."""
        self._failures += 1
        pause = self._backoff.delay(in_a_row or self._failures, random.random())
        if self._failures & (self._failures - 1) == 0:
            log.warning(
                "store.failed",
                task=self._task,
                failures=self._failures,
                error=str(error),
                retry_in=round(pause, 2),
            )
        return pause

    def worked(self) -> None:
        if self._failures:
            log.info("store.works_again", task=self._task, failures=self._failures)
            self._failures = 0

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer of `call`, which is made again while the store cannot be reached. A write that was
        repeated may have been done the first time, and is then stale. Another failure of the store is raised
        when it comes for the fifth time."""
        failures = 0
        while True:
            try:
                answer = await call()
            except (AlreadyExists, StaleWrite):
                self.worked()
                raise
            except StoreError as error:
                failures += 1
                if failures >= TRIES and not isinstance(error, StoreUnavailable):
                    raise
                await asyncio.sleep(self.failed(error, failures))
            else:
                self.worked()
                return answer
