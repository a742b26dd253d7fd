"""The loop: claim what is due, drive it until there is nothing to do now, let go.

Any number of processes may run it on one store. A claim's token fences every write; a process that dies holds
its rows until the lease runs out, and loses nothing, because whoever claims next looks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

import structlog

from moorage.domain.deployment import Deployment
from moorage.engine.drive import Driver, Hold
from moorage.engine.pulse import Pulse
from moorage.engine.store_trouble import StoreTrouble
from moorage.errors import StoreError
from moorage.ports.outside import Clock
from moorage.ports.store import Lease, Store
from moorage.signals import wait_for

log = structlog.get_logger(__name__)

SIGNALS_AT_ONCE = 500  # in one statement
RENEWED_WITHIN = 2 / 3  # of a lease, else it is renewed before a claim; normally it is at one third
LET_GO_SECONDS = 2.0  # for the store to take back the leases; then they run out


@dataclass(frozen=True, slots=True)
class EngineSettings:
    lease_seconds: float = 10.0
    concurrency: int = 64  # deployments driven at once by this process
    idle_seconds: float = 30.0  # the longest sleep without a signal
    machine: str | None = None  # whose deployments are left to this process


@dataclass(slots=True)
class _Shift:
    """What one run or round has in hand: by deployment id."""

    tasks: asyncio.TaskGroup
    renewed: datetime  # no lease in it began before
    held: dict[str, Hold] = field(default_factory=dict)
    driving: set[asyncio.Task[None]] = field(default_factory=set)

    def tokens(self) -> dict[str, str]:
        return {id_: hold.token for id_, hold in self.held.items()}


class Engine:
    """Claims what is due and has it driven."""

    def __init__(
        self,
        store: Store,
        driver: Driver,
        clock: Clock,
        settings: EngineSettings,
    ) -> None:
        self._store = store
        self._driver = driver
        self._clock = clock
        self._settings = settings
        self.pulse = Pulse()
        self._wake = asyncio.Event()
        self._in_hand = 0
        self._shifts: list[_Shift] = []
        self._signalled: set[str] = set()  # deployment ids
        self._signal = asyncio.Event()

    @property
    def in_hand(self) -> int:
        """Deployments that are being driven."""
        return self._in_hand

    @property
    def places(self) -> int:
        """How many can be driven at once."""
        return self._settings.concurrency

    def wake(self) -> None:
        """Something is due: called after a service wrote."""
        self._wake.set()

    def signal(self, deployment_id: str) -> None:
        """The outside says that this deployment may have changed. Whoever holds it now will be claimed again
        after: the store remembers a wake over the holder's write."""
        self._signalled.add(deployment_id)
        self._signal.set()

    async def run(self) -> None:
        """Until cancelled; what is in hand is then let go of, and another process goes on at once."""
        self.pulse.began()
        try:
            async with self._shift() as shift:
                await self._claim(shift)
        except Exception:
            self.pulse.died()
            raise

    async def round(self, seconds: float) -> int:
        """Drives what is due, and what that makes due, to rest; what is not done in time is let go of. Gives
        how many it claimed."""
        count, trouble = 0, StoreTrouble("engine.round")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._shift() as shift:
                await trouble.insist(
                    self._store_signalled
                )  # by itself it might not be done when this is over
                while (claimed := await trouble.insist(lambda: self._claim_due(shift))) or shift.driving:
                    count += claimed
                    if shift.driving and (claimed == 0 or self._free() == 0):
                        await asyncio.wait(shift.driving, return_when=asyncio.FIRST_COMPLETED)
        return count

    @contextlib.asynccontextmanager
    async def _shift(self) -> AsyncIterator[_Shift]:
        """Leases are renewed and signals stored meanwhile; what is in hand at the end is let go of."""
        held: dict[str, str] = {}
        try:
            async with asyncio.TaskGroup() as tasks:
                shift = _Shift(tasks, self._clock.now())
                self._shifts.append(shift)
                beside = [
                    tasks.create_task(self._renew_leases(shift), name="engine:renew"),
                    tasks.create_task(self._store_signals(), name="engine:signals"),
                ]
                try:
                    yield shift
                finally:
                    held = shift.tokens()
                    self._shifts.remove(shift)
                    for task in beside:
                        task.cancel()
        except ExceptionGroup as failures:
            raise _one_store_error(failures) or failures from None
        finally:
            await self._let_go(held)

    # -- claiming ---------------------------------------------------------------------------------------

    async def _claim(self, shift: _Shift) -> None:
        trouble = StoreTrouble("engine")
        while True:
            self._wake.clear()
            try:
                free = self._free()
                claimed = await self._claim_due(shift)
                pause = await self._pause(claimed, free)
                trouble.worked()
            except StoreError as error:
                await asyncio.sleep(trouble.failed(error))
                continue
            self.pulse.sleeps(pause)
            await wait_for(self._wake, pause)
            self.pulse.round()

    def _free(self) -> int:
        return self._settings.concurrency - self._in_hand

    async def _claim_due(self, shift: _Shift) -> int:
        free = self._free()
        if free <= 0:
            return 0
        now = self._clock.now()
        await self._renew_old(now)
        lease = Lease(secrets.token_hex(16), self._lease_end(self._clock.now()))
        claimed = await self._store.claim_deployments(lease, now, free, self._settings.machine)
        self.pulse.behind(claimed[-1].due_at if len(claimed) == free else None)
        for deployment in claimed:
            self._start(shift, deployment, lease.token)
        return len(claimed)

    def _start(self, shift: _Shift, deployment: Deployment, token: str) -> None:
        hold = shift.held[deployment.id] = Hold(deployment.id, token)
        self._in_hand += 1
        task = shift.tasks.create_task(self._drive(deployment, hold), name=f"engine:{deployment.id}")
        shift.driving.add(task)

        def done(task: asyncio.Task[None]) -> None:
            shift.driving.discard(task)
            self._in_hand -= 1
            if shift.held.get(deployment.id) is hold:
                del shift.held[deployment.id]
            self._wake.set()

        task.add_done_callback(done)

    async def _drive(self, deployment: Deployment, hold: Hold) -> None:
        """A bug in one deployment's path must not stop the others: it is logged, and tried again when the
        lease runs out."""
        try:
            await self._driver.drive(deployment, hold)
        except Exception:
            log.exception("engine.drive_failed", deployment=deployment.id)

    async def _pause(self, claimed: int, free: int) -> float:
        """Seconds until something is due, unless woken; when all hands are full, until one is free."""
        if claimed == free:
            return self._settings.idle_seconds
        if claimed:
            return 0.0
        due = await self._store.next_due("deployments", self._clock.now(), self._settings.machine)
        self.pulse.behind(due)
        if due is None:
            return self._settings.idle_seconds
        return min(self._settings.idle_seconds, max(0.0, (due - self._clock.now()).total_seconds()))

    # -- leases -----------------------------------------------------------------------------------------

    def _lease_end(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._settings.lease_seconds)

    async def _renew_old(self, now: datetime) -> None:
        """Before a claim at `now`, which takes what leases ran out: ours too, when the store was away or
        the process stood still, and what is in hand would be driven twice here."""
        for shift in list(self._shifts):
            if now - shift.renewed > timedelta(seconds=self._settings.lease_seconds * RENEWED_WITHIN):
                await self._renew(shift)

    async def _renew(self, shift: _Shift) -> None:
        now, held = self._clock.now(), shift.tokens()
        if held:
            kept = await self._store.renew("deployments", held, self._lease_end(now))
            for deployment_id in held.keys() - kept:
                hold = shift.held.get(deployment_id)
                if hold is not None and hold.token == held[deployment_id] and not hold.letting_go:
                    log.warning("engine.lease_lost", deployment=deployment_id)
                    hold.lost = True
        shift.renewed = now

    async def _renew_leases(self, shift: _Shift) -> None:
        """Keeps the leases of what is driven; what is lost is not acted on again. An effect under way goes
        on, because cut off in the middle it could leave something behind that nobody knows of."""
        trouble = StoreTrouble("engine.renew")
        pause = self._settings.lease_seconds / 3
        while True:
            await asyncio.sleep(pause)
            pause = self._settings.lease_seconds / 3
            try:
                await self._renew(shift)
                trouble.worked()
            except StoreError as error:
                pause = min(pause, trouble.failed(error))

    async def _let_go(self, held: dict[str, str]) -> None:
        if held:
            with contextlib.suppress(StoreError, TimeoutError):  # they run out
                async with asyncio.timeout(LET_GO_SECONDS):
                    await self._store.renew("deployments", held, self._clock.now())

    # -- signals ----------------------------------------------------------------------------------------

    async def _store_signals(self) -> None:
        """Those that come while some are being stored are stored together: providers tell much at once."""
        trouble = StoreTrouble("engine.signals")
        while True:
            await self._signal.wait()
            try:
                await self._store_signalled()
                trouble.worked()
            except StoreError as error:
                await asyncio.sleep(trouble.failed(error))

    async def _store_signalled(self) -> None:
        """What was not stored, because the store failed or a round was over, is kept for the next time."""
        self._signal.clear()
        while self._signalled:
            batch = set(islice(self._signalled, SIGNALS_AT_ONCE))
            self._signalled -= batch
            try:
                await self._store.wake(list(batch), self._clock.now())
                batch.clear()
            finally:
                self._signalled |= batch
                if self._signalled:
                    self._signal.set()
        self._wake.set()


def _one_store_error(failures: ExceptionGroup[Exception]) -> StoreError | None:
    """What a caller knows how to take, unless anything else went wrong, which must not be hidden by it."""
    first = failures.exceptions[0]
    if failures.split(StoreError)[1] is not None:
        return None
    return first if isinstance(first, StoreError) else None
