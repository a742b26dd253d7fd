"""The runner of jobs: claims what deployments can take, has it carried out, lets go of what was taken away.

Every deployment has a queue of its own, and places come in turn to the queues, so that a flood in one holds
up no other. A job whose deployment does not serve sleeps in the store; the route that opens wakes it.

There is no polling: the runner sleeps until it is told of a job, until the next moment at which the store
says that something happens, or until there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

import structlog

from moorage.domain.job import Job, let_go, share_places
from moorage.engine.job_attempt import Hold, JobAttempt, Replicas
from moorage.engine.store_trouble import StoreTrouble
from moorage.errors import StoreError
from moorage.ports.outside import Clock
from moorage.ports.store import Lease, Store, Update
from moorage.signals import wait_for

log = structlog.get_logger(__name__)

RENEWED_WITHIN = 2 / 3  # of a lease, else it is renewed before a claim; normally it is at one third


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Times in seconds."""

    running: int = 256
    per_replica: int = 4
    put_to_sleep: int = 64  # at once, of a deployment that does not serve
    lease: float = 10.0
    grace: float = 2.0  # for what runs at shutdown; then another process begins it again
    idle: float = 30.0  # the longest sleep: a machine that was suspended, a signal that was lost
    forget_every: float = 30.0
    batch: int = 500  # rows in one statement
    let_go: float = 2.0  # for the store to take back the leases at shutdown; then they run out


class JobRunner:
    """Any number of processes may run one on the same store."""

    def __init__(
        self,
        store: Store,
        replicas: Replicas,
        attempt: JobAttempt,
        clock: Clock,
        limits: JobLimits | None = None,
    ) -> None:
        self._store = store
        self._replicas = replicas
        self._attempt = attempt
        self._clock = clock
        self._limits = limits or JobLimits()
        self._woken = asyncio.Event()
        self._queues: dict[
            str, None
        ] = {}  # deployments that may have jobs to claim, in the order of their turn
        self._held: dict[str, tuple[Hold, asyncio.Task[None]]] = {}  # by job id
        self._renewed = clock.now()  # no lease that is held began before
        self._opened: set[str] = set()
        self._opening = asyncio.Event()
        self._storing_opened = asyncio.Lock()
        self._look = True  # the store may hold queues that nobody told of
        self._next: datetime | None = None  # when it will
        self._check = False  # what is held may have been taken away
        self._running = False

    @property
    def in_hand(self) -> int:
        """Jobs that are being carried out."""
        return len(self._held)

    # -- what happens outside ---------------------------------------------------------------------------

    def queued(self, job: Job) -> None:
        """A new job was stored."""
        self._queues.setdefault(job.deployment_id)
        self._expect(job.expires_at)
        self._woken.set()

    def opened(self, deployment_id: str) -> None:
        """It serves now, or never will: what sleeps in its queue is to be looked at."""
        self._opened.add(deployment_id)
        self._opening.set()

    def interrupt(self, job_id: str) -> None:
        """It was ended, or taken over: whatever runs for it here is for nothing."""
        held = self._held.get(job_id)
        if held is not None and not held[0].letting_go:
            held[1].cancel()

    def others_wrote(self) -> None:
        """Another process may have queued, cancelled or taken jobs."""
        self._look = self._check = True
        self._woken.set()

    # -- the loop ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. Then nothing new is begun, and what runs gets grace, and is let go."""
        self._look = self._running = True
        trouble = StoreTrouble("jobs")
        try:
            async with self._looking_after(), asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forget(), name="jobs:forget")
                while True:
                    self._woken.clear()
                    try:
                        await self._turn()
                        trouble.worked()
                    except StoreError as error:
                        self._look = True
                        await asyncio.sleep(trouble.failed(error))
                        continue
                    await wait_for(self._woken, self._pause())
                    self._look |= not self._woken.is_set()
        finally:
            self._running = False

    async def round(self, seconds: float) -> int:
        """Has each job that is due carried out as far as it can be. What is not done in time gets grace, and
        is let go of, unless `run` looks after it. Gives how many it claimed."""
        count, trouble = 0, StoreTrouble("jobs.round")
        async with contextlib.nullcontext() if self._running else self._looking_after():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while (claimed := await trouble.insist(self._look_and_claim)) or self._held:
                        count += claimed
                        if running := [task for _, task in self._held.values()]:
                            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    await trouble.insist(self._forget_some)
        return count

    @contextlib.asynccontextmanager
    async def _looking_after(self) -> AsyncIterator[None]:
        """Leases are renewed and openings stored meanwhile; what runs at the end gets grace."""
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(part(), name=f"jobs:{part.__name__}")
                for part in (self._renew_leases, self._store_openings)
            ]
            try:
                yield
            finally:
                await self._let_go()
                for task in beside:
                    task.cancel()

    async def _look_and_claim(self) -> int:
        await self._store_opened()  # by itself it might not be done when the round is over
        self._look = True
        return await self._turn()

    async def _turn(self) -> int:
        """How many were claimed."""
        now = self._clock.now()
        if self._look or (self._next is not None and self._next <= now):
            self._look = False
            await self._expire(now)
            for deployment_id in await self._store.job_queues(now):
                self._queues.setdefault(deployment_id)
            self._next = await self._store.next_job(now)
        if self._check:
            self._check = False
            held = self._tokens()
            self._interrupt_all(held.keys() - await self._store.jobs_held(held))
        count = 0
        while wanted := self._wanted():
            count += await self._claim(wanted)
        return count

    def _expect(self, moment: datetime | None) -> None:
        """Then something is to be done: sooner, perhaps, than what is slept for."""
        if moment is not None and (self._next is None or moment < self._next):
            self._next = moment

    def _pause(self) -> float:
        if self._next is None:
            return self._limits.idle
        return min(self._limits.idle, max(0.0, (self._next - self._clock.now()).total_seconds()))

    # -- claiming ---------------------------------------------------------------------------------------

    def _wanted(self) -> Mapping[str, int]:
        running = Counter(hold.job.deployment_id for hold, _ in self._held.values())
        room = self._limits.running - len(self._held)
        return share_places(room, {id_: self._places(id_) - running[id_] for id_ in self._queues})

    def _places(self, deployment_id: str) -> int:
        replicas = self._replicas.places(deployment_id)
        return replicas * self._limits.per_replica or self._limits.put_to_sleep

    async def _claim(self, wanted: Mapping[str, int]) -> int:
        """A queue that gave all that was asked for has more, and goes to the end of the line."""
        now = self._clock.now()
        await self._renew_old(now)
        for deployment_id in wanted:
            self._queues.pop(deployment_id, None)  # before: who is told of a job meanwhile puts it back
        lease = Lease(secrets.token_hex(16), self._lease_end(self._clock.now()))
        claimed = await self._store.claim_jobs(wanted, lease, now)
        got = Counter(job.deployment_id for job in claimed)
        for deployment_id, places in wanted.items():
            if got[deployment_id] >= places:
                self._queues.setdefault(deployment_id)
        for job in claimed:
            self._start(Hold(job, lease.token))
        return len(claimed)

    def _start(self, hold: Hold) -> None:
        id_ = hold.job.id
        task = asyncio.create_task(self._make(hold), name=f"job:{id_}")
        self._held[id_] = entry = (hold, task)

        def done(_: asyncio.Task[None]) -> None:
            if self._held.get(id_) is entry:
                del self._held[id_]
            self._expect(hold.job.due_at)  # when it was put off
            self._woken.set()

        task.add_done_callback(done)

    async def _make(self, hold: Hold) -> None:
        """A failure here is ours: the lease runs out, and the job is begun again."""
        try:
            await self._attempt.make(hold)
        except Exception:
            log.exception("job.attempt_failed", job=hold.job.id)
            self._look = True

    async def _expire(self, now: datetime) -> None:
        while jobs := await self._store.expired_jobs(now, self._limits.batch):
            for job in jobs:
                await self._attempt.expire(job)
                self.interrupt(job.id)
            if len(jobs) < self._limits.batch:
                return

    # -- leases -----------------------------------------------------------------------------------------

    def _lease_end(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._limits.lease)

    def _tokens(self) -> dict[str, str]:
        return {id_: hold.token for id_, (hold, _) in self._held.items()}

    def _interrupt_all(self, lost: set[str]) -> None:
        for job_id in lost:
            self.interrupt(job_id)

    async def _renew_old(self, now: datetime) -> None:
        """Before a claim at `now`, which takes what leases ran out: ours too, when the store was away or
        the process stood still, and a job that runs here would be begun again beside itself."""
        if now - self._renewed > timedelta(seconds=self._limits.lease * RENEWED_WITHIN):
            await self._renew()

    async def _renew(self) -> None:
        now, held = self._clock.now(), self._tokens()
        if held:
            self._interrupt_all(held.keys() - await self._store.renew("jobs", held, self._lease_end(now)))
        self._renewed = now

    async def _renew_leases(self) -> None:
        trouble, pause = StoreTrouble("jobs.renew"), self._limits.lease / 3
        while True:
            await asyncio.sleep(pause)
            pause = self._limits.lease / 3
            try:
                await self._renew()
                trouble.worked()
            except StoreError as error:
                pause = min(pause, trouble.failed(error))

    async def _let_go(self) -> None:
        tasks = [task for _, task in self._held.values()]
        if not tasks:
            return
        holds = {task: hold for hold, task in self._held.values()}
        _, late = await asyncio.wait(tasks, timeout=self._limits.grace)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        now = self._clock.now()
        commits = (
            self._store.commit([Update(let_go(hold.job, now), lease=hold.token, release=True)])
            for hold in (holds[task] for task in late)
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.let_go):
                await asyncio.gather(*commits, return_exceptions=True)  # at worst the lease runs out

    # -- beside the loop --------------------------------------------------------------------------------

    async def _store_openings(self) -> None:
        trouble = StoreTrouble("jobs.openings")
        while True:
            await self._opening.wait()
            try:
                await self._store_opened()
                trouble.worked()
            except StoreError as error:
                await asyncio.sleep(trouble.failed(error))

    async def _store_opened(self) -> None:
        """What was not stored, because the store failed or a round was over, is kept for the next time."""
        async with self._storing_opened:
            self._opening.clear()
            while self._opened:
                batch = set(islice(self._opened, self._limits.batch))
                self._opened -= batch
                try:
                    await self._store.wake_jobs(list(batch), self._clock.now())
                    batch.clear()
                finally:
                    self._opened |= batch
                    if self._opened:
                        self._opening.set()
                self._look = True
                self._woken.set()

    async def _forget(self) -> None:
        while True:
            with contextlib.suppress(StoreError):  # the next time
                await self._forget_some()
            await asyncio.sleep(self._limits.forget_every)

    async def _forget_some(self) -> None:
        while await self._store.forget_jobs(self._clock.now(), self._limits.batch):
            pass
