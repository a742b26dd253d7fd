"""One round of all work, for platforms that give a process no time of its own between requests.

Somebody outside (a scheduler) asks for a round now and then; what is due is done then, to its end, within a
bound that leaves room in a request. Any number of processes may be asked at once: claims keep them apart. In
one process, who asks while a round is under way gets the answer of that one.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import datetime

from moorage.engine.job_runner import JobRunner
from moorage.engine.loop import Engine
from moorage.engine.outbox import Outbox
from moorage.engine.sweeper import Sweeper
from moorage.errors import StoreError
from moorage.ports.outside import Clock
from moorage.ports.store import Store

WORK_SECONDS = 15.0  # for deployments, jobs and the sweep
SEND_SECONDS = 5.0  # after that, for the messages of what was done; attempts under way get grace besides


@dataclass(frozen=True, slots=True)
class Ticked:
    """How many rows were claimed of each kind, and when the next one is due; None: none is."""

    deployments: int
    deliveries: int
    jobs: int
    next_due: datetime | None


class Ticks:
    def __init__(
        self,
        store: Store,
        clock: Clock,
        engine: Engine,
        outbox: Outbox,
        jobs: JobRunner,
        sweeper: Sweeper,
        *,
        machine: str | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._engine = engine
        self._outbox = outbox
        self._jobs = jobs
        self._sweeper = sweeper
        self._machine = machine
        self._under_way: asyncio.Task[Ticked] | None = None

    async def tick(self) -> Ticked:
        """Raises StoreError."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._round(), name="tick")
        return await asyncio.shield(self._under_way)

    async def aclose(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)

    async def _round(self) -> Ticked:
        try:
            return await self._work()
        except ExceptionGroup as failures:
            away, _ = failures.split(StoreError)
            raise failures if away is None else _first(away) from None

    async def _work(self) -> Ticked:
        await self._next_due()  # a store that is away says so at once
        async with asyncio.TaskGroup() as tasks:  # none goes on when another has failed
            deployments = tasks.create_task(self._engine.round(WORK_SECONDS))
            jobs = tasks.create_task(self._jobs.round(WORK_SECONDS))
            messages = tasks.create_task(self._outbox.round(WORK_SECONDS))
            tasks.create_task(self._sweep())
        sent = messages.result()
        sent += await self._outbox.round(SEND_SECONDS)
        return Ticked(deployments.result(), sent, jobs.result(), await self._next_due())

    async def _sweep(self) -> None:
        """What is cut off, or fails, the next one begins anew."""
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(WORK_SECONDS):
                await self._sweeper.sweep_when_due()

    async def _next_due(self) -> datetime | None:
        now = self._clock.now()
        moments = (
            await self._store.next_due("deployments", now, self._machine),
            await self._store.next_due("deliveries", now),
            await self._store.next_job(now),
        )
        return min((moment for moment in moments if moment is not None), default=None)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    found = failures.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
