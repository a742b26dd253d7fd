"""One run of one job: begin, ask a replica, store what came of it.

Every write is fenced by the lease under which the job was claimed. A process that dies in between leaves the
job begun and without an end, and whoever claims it next begins it again: at least once, never lost.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from moorage.domain.deployment import Phase
from moorage.domain.job import (
    Ending,
    Job,
    JobPayload,
    NotServing,
    Output,
    RanTooLong,
    Refusal,
    begun,
    ended,
    expired,
    input_id,
    output_id,
    seconds_to_run,
    timed_out,
)
from moorage.domain.job_view import job_delivery
from moorage.domain.notice import NewId
from moorage.engine.store_trouble import StoreTrouble
from moorage.errors import Clash, Problem, StaleWrite
from moorage.ports.outside import Clock
from moorage.ports.store import Insert, Store, Update, Write
from moorage.ports.telemetry import NO_METERS, Meters

log = structlog.get_logger(__name__)


class Replicas(Protocol):
    """Those of all deployments, as they can be reached now."""

    def places(self, deployment_id: str) -> int:
        """How many replicas of it answer."""

    def missed(self, deployment_id: str) -> None:
        """A job found none: a deployment that sleeps is to be woken. Waits for nothing."""

    async def run(self, job: Job, text: str) -> Ending:
        """Has one replica carry the job out; `text` is the input, JSON. Raises nothing: whatever happens is
        an ending. Cancelled, it stops the replica's work as far as that can be done."""


@dataclass(slots=True)
class Hold:
    """A job in hand under the token of its lease; `job` is the row as this process wrote it last. It is
    `letting_go` while the write is under way that gives the lease back."""

    job: Job
    token: str
    letting_go: bool = False


class ByteBudget:
    """Bounds the bytes that are held at once. What alone is more than the budget passes when it is alone."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        async with self._freed:
            await self._freed.wait_for(lambda: self._used == 0 or self._used + size <= self._total)
            self._used += size
        try:
            yield
        finally:
            self._used -= size
            async with self._freed:
                self._freed.notify_all()


class JobAttempt:
    """`on_over` hears of every job that came to its end here, perhaps by somebody else's hand."""

    def __init__(
        self,
        store: Store,
        replicas: Replicas,
        clock: Clock,
        new_id: NewId,
        *,
        public_url: str,
        on_over: Callable[[Job], None],
        bytes_at_once: int = 256 * 1024 * 1024,
        luck: Callable[[], float] = random.random,
        meters: Meters = NO_METERS,
    ) -> None:
        self._store = store
        self._replicas = replicas
        self._clock = clock
        self._new_id = new_id
        self._public_url = public_url
        self._on_over = on_over
        self._budget = ByteBudget(bytes_at_once)
        self._luck = luck
        self._meters = meters
        self._trouble = StoreTrouble("jobs.attempts")

    async def make(self, hold: Hold) -> None:
        """From the claimed row to the released one. While the store is away what came of it is kept, so that
        a job which ran is not run again. Raises StoreError when the store fails otherwise."""
        if expired(hold.job, self._clock.now()):
            await self._store_end(hold, timed_out(hold.job, self._clock.now()), None)
        elif self._replicas.places(hold.job.deployment_id) == 0:
            await self._end(hold, await self._without_replicas(hold.job))
        else:
            async with self._budget.taken(hold.job.size):
                await self._run(hold)

    async def expire(self, job: Job) -> bool:
        """Ends a job whose time is over, whoever holds it; False when somebody else was first."""
        after = timed_out(job, self._clock.now())
        try:
            await self._store.commit([Update(after, release=True), *self._told(after, None)])
        except StaleWrite:
            return False
        self._on_over(after)
        return True

    async def _run(self, hold: Hold) -> None:
        running = begun(hold.job, self._clock.now())
        if not await self._commit([Update(running, lease=hold.token)]):
            return
        hold.job = running.stored()
        payload = await self._trouble.insist(lambda: self._store.job_payload(input_id(hold.job.id)))
        if payload is None:  # it ended meanwhile, and was forgotten
            return
        try:
            async with asyncio.timeout(seconds_to_run(hold.job, self._clock.now())):
                ending = await self._replicas.run(hold.job, payload.text)
        except TimeoutError:
            ending = RanTooLong()
        await self._end(hold, ending)

    async def _without_replicas(self, job: Job) -> Ending:
        deployment = await self._trouble.insist(lambda: self._store.deployment(job.deployment_id))
        phase = Phase.DELETED if deployment is None else deployment.phase
        if phase not in (Phase.FAILED, Phase.DELETING, Phase.DELETED):
            self._replicas.missed(job.deployment_id)
            return NotServing()
        return Refusal(problem_text(Clash(f"The deployment is {phase}.", code="deployment_over")))

    async def _end(self, hold: Hold, ending: Ending) -> None:
        after = ended(hold.job, ending, self._clock.now(), self._luck())
        await self._store_end(hold, after, ending.text if isinstance(ending, Output) else None)

    async def _store_end(self, hold: Hold, after: Job, output: str | None) -> None:
        writes: list[Write] = [Update(after, lease=hold.token, release=True)]
        if output is not None:
            writes.append(Insert(JobPayload(output_id(after.id), output)))
        writes += self._told(after, output)
        hold.letting_go = True
        if not await self._commit(writes):
            log.info("job.lease_lost", job=after.id)  # or it was cancelled, or an answer of the store's lost
            if after.state.final:
                self._on_over(after)
            return
        hold.job = after.stored()
        self._meters.ran(after.state.value)
        log.info("job.ran", job=after.id, deployment=after.deployment_id, state=after.state.value)
        if after.state.final:
            self._on_over(after)

    def _told(self, job: Job, output: str | None) -> Sequence[Write]:
        delivery = job_delivery(job, output, self._clock.now(), self._new_id, self._public_url)
        return () if delivery is None else (Insert(delivery),)

    async def _commit(self, writes: Sequence[Write]) -> bool:
        """False when the row is no longer ours to write, or was written before without an answer."""
        try:
            await self._trouble.insist(lambda: self._store.commit(writes))
        except StaleWrite:
            return False
        return True


def problem_text(problem: Problem) -> str:
    """A job's `error`: JSON text of the problem."""
    return json.dumps(problem.members(), separators=(",", ":"))
