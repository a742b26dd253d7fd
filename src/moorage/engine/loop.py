"""The loop: claim what is due, drive it until there is nothing to do now, let go.

Any number of processes may run it on one store. A claim's token fences every write; a process that dies holds
its rows until the lease runs out, and loses nothing, because whoever claims next looks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

import structlog

from moorage.domain.deployment import Deployment
from moorage.engine.drive import Driver, Hold
from moorage.errors import MoorageError
from moorage.ports.outside import Clock
from moorage.ports.store import Lease, Store

log = structlog.get_logger(__name__)

SIGNALS_AT_ONCE = 500  # in one statement


@dataclass(frozen=True, slots=True)
class EngineSettings:
    lease_seconds: float = 10.0
    concurrency: int = 64  # deployments driven at once by this process
    idle_seconds: float = 30.0  # the longest sleep without a signal


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
        self._wake = asyncio.Event()
        self._held: dict[str, Hold] = {}  # by deployment id
        self._signalled: set[str] = set()  # deployment ids
        self._signal = asyncio.Event()

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
        held: dict[str, str] = {}
        try:
            await self._run(held)
        finally:
            if held:
                await self._store.renew("deployments", held, self._clock.now())

    async def _run(self, held_at_end: dict[str, str]) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew_leases(), name="engine:renew")
            tasks.create_task(self._store_signals(), name="engine:signals")
            try:
                await self._claim(tasks)
            finally:
                held_at_end |= {hold.deployment_id: hold.token for hold in self._held.values()}

    # -- claiming ---------------------------------------------------------------------------------------

    async def _claim(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._wake.clear()
            free = self._settings.concurrency - len(self._held)
            now = self._clock.now()
            claimed = 0
            if free > 0:
                lease = Lease(secrets.token_hex(16), self._lease_end())
                for deployment in await self._store.claim_deployments(lease, now, free):
                    claimed += 1
                    self._start(tasks, deployment, lease.token)
            if claimed == 0 or claimed == free:
                await self._sleep(full=claimed == free)

    def _start(self, tasks: asyncio.TaskGroup, deployment: Deployment, token: str) -> None:
        hold = self._held[deployment.id] = Hold(deployment.id, token)
        task = tasks.create_task(self._drive(deployment, hold), name=f"engine:{deployment.id}")

        def done(_: asyncio.Task[None]) -> None:
            if self._held.get(deployment.id) is hold:
                del self._held[deployment.id]
            self._wake.set()

        task.add_done_callback(done)

    async def _drive(self, deployment: Deployment, hold: Hold) -> None:
        """A bug in one deployment's path must not stop the others: it is logged, and tried again when the
        lease runs out."""
        try:
            await self._driver.drive(deployment, hold)
        except Exception:
            log.exception("engine.drive_failed", deployment=deployment.id)

    async def _sleep(self, *, full: bool) -> None:
        """Until a wake, or until something is due; when all hands are full, until one is free."""
        seconds = self._settings.idle_seconds
        if not full:
            due = await self._store.next_due("deployments", self._clock.now())
            if due is not None:
                seconds = min(seconds, max(0.0, (due - self._clock.now()).total_seconds()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _lease_end(self) -> datetime:
        return self._clock.now() + timedelta(seconds=self._settings.lease_seconds)

    async def _renew_leases(self) -> None:
        """Keeps the leases of what is driven; what is lost is not acted on again. An effect under way goes
        on, because cut off in the middle it could leave something behind that nobody knows of."""
        while True:
            await asyncio.sleep(self._settings.lease_seconds / 3)
            held = {hold.deployment_id: hold.token for hold in self._held.values()}
            if not held:
                continue
            try:
                kept = await self._store.renew("deployments", held, self._lease_end())
            except MoorageError as error:
                log.warning("engine.renew_failed", error=str(error))
                continue
            for deployment_id in held.keys() - kept:
                hold = self._held.get(deployment_id)
                if hold is not None and hold.token == held[deployment_id] and not hold.letting_go:
                    log.warning("engine.lease_lost", deployment=deployment_id)
                    hold.lost = True

    async def _store_signals(self) -> None:
        """Those that come while some are being stored are stored together: providers tell much at once."""
        while True:
            await self._signal.wait()
            self._signal.clear()
            while self._signalled:
                batch = list(islice(self._signalled, SIGNALS_AT_ONCE))
                self._signalled.difference_update(batch)
                await self._store.wake(batch, self._clock.now())
            self._wake.set()
