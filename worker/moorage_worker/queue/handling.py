"""What becomes of one message: read, run unless that was done before, its result stored, and the verdict.

Knows Redis and the model, and nothing of RabbitMQ, so that it can go on while that is away.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TypeVar

from moorage_worker.errors import RequestError, WorkersLost, cause_line
from moorage_worker.queue.broker import pauses
from moorage_worker.queue.messages import JobMessage, Unreadable, read_message
from moorage_worker.queue.records import Outcome, Status
from moorage_worker.queue.store import JobStore, StoreAway
from moorage_worker.queue.turns import Turns
from moorage_worker.queue.work import Work, failed, timed_out

log = logging.getLogger(__name__)
T = TypeVar("T")

# Going back to the queue counts here, too, so it is many. RabbitMQ 4 itself throws a message away after 20.
MOST_DELIVERIES = 15
RETURN_SECONDS = 2.0  # to note in Redis that a job goes back


class Verdict(Enum):
    """What the broker is told about a message."""

    DONE = "ack"
    DEAD = "reject"
    BACK = "requeue"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it came. `deliveries` is how often it was given out before, where the broker counts."""

    body: bytes
    message_id: str | None
    queued_at: float | None
    deliveries: int = 0


@dataclass(slots=True)
class Held:
    """A job in hand."""

    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    working: asyncio.Task[Outcome] | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def cancel(self) -> None:
        if self.working is not None:
            self.working.cancel()


class Handler:
    """Handles messages side by side, as many as it is given."""

    def __init__(self, store: JobStore, work: Work, worker: str, attempts: int) -> None:
        self._store = store
        self._work = work
        self._worker = worker
        self._attempts = attempts
        self._turns = Turns()
        self._held: dict[str, Held] = {}

    @property
    def in_hand(self) -> int:
        return len(self._held)

    def cancel(self, job_id: str) -> None:
        """A caller does not want the job any more; its record says so already."""
        if held := self._held.get(job_id):
            log.info("job %s is cancelled", job_id)
            held.cancel()

    async def look_up_cancellations(self) -> None:
        """For what was cancelled while nobody could hear of it."""
        for job_id in list(self._held):
            with suppress(StoreAway):
                record = await self._store.find(job_id)
                if record is not None and record.status is Status.CANCELLED:
                    self.cancel(job_id)

    async def handle(self, delivery: Delivery) -> Verdict:
        """Returns when the message may be let go of. Cancelled, it gives the job back and answers BACK."""
        try:
            job = read_message(delivery.body, delivery.message_id, delivery.queued_at)
        except Unreadable as poison:
            return await self._refuse(poison)
        # The same message comes again when the connection that it came by is gone.
        while other := self._held.get(job.id):
            await other.over.wait()
        held = self._held[job.id] = Held()
        try:
            async with await self._turn(job, delivery):
                return await self._run(job, delivery, held)
        except asyncio.CancelledError:
            await self._give_back(job, held)
            return Verdict.BACK
        except Exception as error:  # a bug: the job must not come again and again for it
            log.exception("unexpected error over job %s", job.id)
            return await self._end(job, failed(RequestError(cause_line(error))), Verdict.DEAD)
        finally:
            del self._held[job.id]
            held.over.set()

    async def _refuse(self, poison: Unreadable) -> Verdict:
        name = poison.job_id or "without an id"
        log.warning("job %s cannot be read and goes to the dead letters: %s", name, poison)
        if poison.job_id is not None:
            outcome, now = failed(poison.problem), round(time.time() * 1000)
            await self._lasting(partial(self._store.finish, poison.job_id, outcome, now))
        return Verdict.DEAD

    async def _turn(self, job: JobMessage, delivery: Delivery) -> AbstractAsyncContextManager[None]:
        if not delivery.deliveries:
            return self._turns.among_others()
        starts = await self._lasting(partial(self._store.starts, job.id))
        last = starts + 1 == self._attempts > 1
        return self._turns.alone() if last else self._turns.among_others()

    async def _run(self, job: JobMessage, delivery: Delivery, held: Held) -> Verdict:
        if job.expires_at is not None and time.time() > job.expires_at:
            return await self._end(job, timed_out("the job waited for longer than its ttl"), Verdict.DONE)
        if delivery.deliveries >= MOST_DELIVERIES:
            return await self._give_up(
                job, f"the job was handed out {delivery.deliveries} times without an end"
            )
        begun = await self._lasting(partial(self._store.begin, job, held.run, self._worker))
        if begun.status.final:
            return Verdict.DONE
        if begun.exhausted:
            cause = f"the job was begun {begun.starts} times, and each time the worker died before it ended"
            return await self._give_up(job, cause)
        outcome = await self._worked(job, held)
        if outcome is None:
            return Verdict.DONE
        return await self._end(job, outcome, Verdict.DONE)

    async def _give_up(self, job: JobMessage, cause: str) -> Verdict:
        log.error("job %s is given up: %s", job.id, cause)
        return await self._end(job, failed(WorkersLost(cause)), Verdict.DEAD)

    async def _worked(self, job: JobMessage, held: Held) -> Outcome | None:
        """None for a job that was cancelled by its caller."""
        held.working = asyncio.create_task(self._work.outcome(job, partial(self._tell, job.id, held.run)))
        try:
            await asyncio.wait([held.working])
        finally:
            held.working.cancel()
        return None if held.working.cancelled() else held.working.result()

    async def _tell(self, job_id: str, run: str, word: bytes) -> None:
        with suppress(StoreAway):  # how far a job is matters less than that it goes on
            await self._store.progress(job_id, run, word)

    async def _end(self, job: JobMessage, outcome: Outcome, verdict: Verdict) -> Verdict:
        await self._lasting(partial(self._store.finish, job.id, outcome, round(job.queued_at * 1000)))
        if outcome.status is not Status.COMPLETED:
            log.info("job %s: %s", job.id, outcome.status.value)
        return verdict

    async def _lasting(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer of Redis, whenever it comes."""
        failures, pause = 0, pauses()
        while True:
            try:
                answer = await call()
            except StoreAway as error:
                failures += 1
                if failures == 1:
                    log.warning("%s; trying again until it can", error)
                await asyncio.sleep(pause.compute(failures))
            else:
                if failures:
                    log.info("Redis is there again")
                return answer

    async def _give_back(self, job: JobMessage, held: Held) -> None:
        log.info("job %s goes back to the queue", job.id)
        with suppress(StoreAway, TimeoutError):  # it then counts as one more run, and is not lost
            async with asyncio.timeout(RETURN_SECONDS):
                await self._store.give_back(job.id, held.run)
