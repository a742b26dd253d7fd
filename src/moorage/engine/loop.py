"""The loop: claim what is due, drive it until there is nothing to do now, let go.

Any number of processes may run it on one store. A claim's token fences every write; a process that dies holds
its rows until the lease runs out, and loses nothing, because whoever claims next looks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from moorage.domain.decide import Observed, Patience, decide, desired_of
from moorage.domain.deployment import Deployment
from moorage.domain.naming import parse_external_name
from moorage.domain.notice import NewId, deliveries, events
from moorage.domain.observation import Observation
from moorage.domain.steps import Later, Outcome, Seen, Step, Vanished
from moorage.domain.transition import Change, advance
from moorage.engine.effects import Effect, Effects
from moorage.errors import MoorageError, ProviderError, StaleWrite
from moorage.ports import Append, Clock, Insert, Lease, Provider, Store, Update, Watch, Write

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    public_url: str
    lease_seconds: float = 10.0
    concurrency: int = 64  # deployments driven at once by this process
    effect_timeout: float = 120.0
    idle_seconds: float = 30.0  # the longest sleep without a signal
    patience: Patience = field(default_factory=Patience)


@dataclass(slots=True)
class _Drive:
    """One deployment in hand: its task, and the token of its lease."""

    deployment_id: str
    token: str
    task: asyncio.Task[None]


class Engine:
    """`on_applied` hears of every stored change: it publishes routes, wakes the outbox and event readers."""

    def __init__(
        self,
        store: Store,
        providers: Mapping[str, Provider],
        effects: Effects,
        clock: Clock,
        new_id: NewId,
        settings: EngineSettings,
        on_applied: Callable[[Deployment, Change], None],
    ) -> None:
        self._store = store
        self._providers = providers
        self._effects = effects
        self._clock = clock
        self._new_id = new_id
        self._settings = settings
        self._on_applied = on_applied
        self._wake = asyncio.Event()
        self._drives: dict[str, _Drive] = {}  # by deployment id

    def wake(self) -> None:
        """Something is due: called after a service wrote."""
        self._wake.set()

    async def signal(self, deployment_id: str) -> None:
        """The outside says that this deployment may have changed. Whoever holds it now will be claimed again
        after: the store remembers a wake over the holder's write."""
        await self._store.wake([deployment_id], self._clock.now())
        self._wake.set()

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
            for provider in self._providers.values():
                if isinstance(provider, Watch):
                    tasks.create_task(self._watch(provider), name=f"engine:watch:{provider.name}")
            try:
                await self._claim(tasks)
            finally:
                held_at_end |= {drive.deployment_id: drive.token for drive in self._drives.values()}

    # -- claiming ---------------------------------------------------------------------------------------

    async def _claim(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._wake.clear()
            free = self._settings.concurrency - len(self._drives)
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
        task = tasks.create_task(self._drive_safely(deployment, token), name=f"engine:{deployment.id}")
        drive = self._drives[deployment.id] = _Drive(deployment.id, token, task)

        def done(_: asyncio.Task[None]) -> None:
            if self._drives.get(deployment.id) is drive:
                del self._drives[deployment.id]
            self._wake.set()

        task.add_done_callback(done)

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
        """Keeps the leases of what is driven; a drive whose lease is lost is stopped before it acts again."""
        while True:
            await asyncio.sleep(self._settings.lease_seconds / 3)
            held = {drive.deployment_id: drive.token for drive in self._drives.values()}
            if not held:
                continue
            try:
                kept = await self._store.renew("deployments", held, self._lease_end())
            except MoorageError as error:
                log.warning("engine.renew_failed", error=str(error))
                continue
            for deployment_id in held.keys() - kept:
                drive = self._drives.get(deployment_id)
                if drive is not None and drive.token == held[deployment_id]:
                    log.warning("engine.lease_lost", deployment=deployment_id)
                    drive.task.cancel()

    async def _watch(self, provider: Provider) -> None:
        assert isinstance(provider, Watch)
        while True:
            try:
                names: AsyncIterator[str] = provider.watch(None)
                async for name in names:
                    parsed = parse_external_name(name)
                    if parsed is not None:
                        await self.signal(parsed.deployment_id)
            except ProviderError as error:
                log.warning("engine.watch_failed", provider=provider.name, error=error.detail)
            await asyncio.sleep(1.0)  # a watch that ended begins anew; looks at intervals cover the gap

    # -- driving ------------------------------------------------------------------------------------------

    async def _drive_safely(self, deployment: Deployment, token: str) -> None:
        """A bug in one deployment's path must not stop the others: it is logged, and tried again when the
        lease runs out."""
        try:
            await self._drive(deployment, token)
        except Exception:
            log.exception("engine.drive_failed", deployment=deployment.id)

    async def _drive(self, deployment: Deployment, token: str) -> None:
        seen: Observation | Vanished | None = None
        while True:
            step = self._decide(deployment, seen)
            did: Step | Outcome = step
            if isinstance(step, Effect):
                did = await self._perform(deployment, step)
            if isinstance(did, Seen | Vanished):
                seen = did.observation if isinstance(did, Seen) else did
                continue
            change = advance(deployment, did, self._clock.now(), random.random())
            if await self._apply(change, token):
                if change.rests:
                    return
                deployment = change.deployment.stored()
                continue
            # The owner changed the row meanwhile, or somebody else has the lease.
            current = await self._store.deployment(deployment.id)
            if current is None or not await self._still_held(deployment.id, token):
                log.info("engine.lease_lost", deployment=deployment.id)
                return
            deployment, seen = current, None

    def _decide(self, deployment: Deployment, seen: Observation | Vanished | None) -> Step:
        wanted = desired_of(deployment, self._settings.patience)
        return decide(wanted, Observed(deployment.status, seen), self._clock.now())

    async def _perform(self, deployment: Deployment, effect: Effect) -> Outcome:
        name = type(effect).__name__.lower()
        try:
            async with asyncio.timeout(self._settings.effect_timeout):
                outcome = await self._effects.perform(deployment, effect)
        except TimeoutError:
            outcome = Later(f"{name} did not finish within {self._settings.effect_timeout:.0f} s")
        log.debug("engine.effect", deployment=deployment.id, effect=name, outcome=type(outcome).__name__)
        return outcome

    async def _apply(self, change: Change, token: str) -> bool:
        """Stores the change with its events and messages under the lease; False when the write was stale."""
        after, now = change.deployment, self._clock.now()
        writes: list[Write] = [Update(after, lease=token, release=change.rests)]
        writes += [Append(e) for e in events(after, change.facts, "engine", now, self._new_id)]
        url = self._settings.public_url
        writes += [Insert(d) for d in deliveries(after, change.facts, now, self._new_id, url)]
        try:
            await self._store.commit(writes)
        except StaleWrite:
            return False
        self._on_applied(after.stored(), change)
        return True

    async def _still_held(self, deployment_id: str, token: str) -> bool:
        return bool(await self._store.renew("deployments", {deployment_id: token}, self._lease_end()))
