"""Driving one deployment: decide, act, apply, until there is nothing to do now.

Every write is fenced by the lease under which the deployment was claimed. A holder that lost its lease finds
out at its next write at the latest; what it had created by then and nobody names any more, it removes.

A change and the pure step that follows it are one write: what was placed with the intent to create, what was
seen with the time to look again. And only so many writes are under way at once: they come in hundreds when
many deployments do, and share the process with the requests of users, who wait.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from moorage.domain.decide import Observed, Patience, decide, desired_of
from moorage.domain.deployment import Deployment
from moorage.domain.notice import NewId, deliveries, events
from moorage.domain.observation import Observation
from moorage.domain.steps import Create, Created, Later, Outcome, Remove, Report, Seen, Step, Vanished
from moorage.domain.transition import Change, advance
from moorage.engine.effects import Effect, Effects
from moorage.engine.recording import Recorder
from moorage.engine.store_trouble import StoreTrouble
from moorage.errors import StaleWrite
from moorage.ports.outside import Clock
from moorage.ports.store import Append, Insert, Store, Update, Write

log = structlog.get_logger(__name__)

WRITES_AT_ONCE = 8


@dataclass(slots=True)
class Hold:
    """One deployment in hand, under the token of its lease; `lost` once somebody else may have taken it,
    `letting_go` while the write is under way that gives the lease back."""

    deployment_id: str
    token: str
    lost: bool = False
    letting_go: bool = False


class Driver:
    """`on_applied` hears of every stored change, with the deployment as it is now."""

    def __init__(
        self,
        store: Store,
        effects: Effects,
        clock: Clock,
        new_id: NewId,
        *,
        public_url: str,
        patience: Patience,
        effect_timeout: float,
        lease_seconds: float,
        machine: str | None = None,
        on_applied: Callable[[Deployment], None],
        recorder: Recorder | None = None,
    ) -> None:
        self._store = store
        self._effects = effects
        self._clock = clock
        self._new_id = new_id
        self._public_url = public_url
        self._patience = patience
        self._effect_timeout = effect_timeout
        self._lease_seconds = lease_seconds
        self._machine = machine
        self._on_applied = on_applied
        self._recorder = recorder or Recorder()
        self._writing = asyncio.Semaphore(WRITES_AT_ONCE)
        self._trouble = StoreTrouble("engine.drive")

    async def drive(self, deployment: Deployment, hold: Hold) -> None:
        """Until it rests, or the lease is lost."""
        seen: Observation | Vanished | None = None
        while not hold.lost:
            step = self._decide(deployment, seen)
            did: Step | Outcome = step
            if isinstance(step, Effect):
                did = await self._perform(deployment, step)
            if isinstance(did, Seen | Vanished):
                seen = did.observation if isinstance(did, Seen) else did
                continue
            changes, seen = self._changes(deployment, did, seen)
            if await self._apply(deployment, changes, hold):
                if changes[-1].rests:
                    return
                deployment = changes[-1].deployment.stored()
                continue
            # The owner changed the row meanwhile, or somebody else has the lease, or the write that is stale
            # now had been done before, without an answer.
            current = await self._trouble.insist(lambda: self._store.deployment(hold.deployment_id))
            if current is not None:
                self._on_applied(current)
            if isinstance(step, Create) and isinstance(did, Created):
                await self._undo(step, current)
            if current is None or not await self._still_held(hold):
                log.info("engine.lease_lost", deployment=deployment.id)
                return
            deployment, seen = current, None

    def _decide(self, deployment: Deployment, seen: Observation | Vanished | None) -> Step:
        wanted = desired_of(deployment, self._patience)
        observed = Observed(deployment.status, seen, deployment.report, self._machine)
        return decide(wanted, observed, self._clock.now())

    def _changes(
        self, deployment: Deployment, did: Step | Outcome, seen: Observation | Vanished | None
    ) -> tuple[Sequence[Change], Observation | Vanished | None]:
        """What `did` makes of the deployment, then what the next step does if it is a pure one; and what is
        still known of the endpoint after."""
        now = self._clock.now()
        change = advance(deployment, did, now, random.random())
        seen = _still_seen(did, seen)
        if change.rests:
            return (change,), seen
        step = self._decide(change.deployment, seen)
        if isinstance(step, Effect):
            return (change,), seen
        return (change, advance(change.deployment, step, now)), _still_seen(step, seen)

    async def _perform(self, deployment: Deployment, effect: Effect) -> Outcome:
        name = type(effect).__name__.lower()
        record = self._recorder.effect(deployment, effect)
        try:
            async with asyncio.timeout(self._effect_timeout):
                outcome = await self._trouble.insist(lambda: self._effects.perform(deployment, effect))
        except TimeoutError:
            outcome = Later(f"{name} did not finish within {self._effect_timeout:.0f} s")
        record.over(outcome)
        log.debug("engine.effect", deployment=deployment.id, effect=name, outcome=type(outcome).__name__)
        return outcome

    async def _apply(self, before: Deployment, changes: Sequence[Change], hold: Hold) -> bool:
        """Stores where the changes lead, with the events and messages of each, under the lease; False when
        the write was stale."""
        record = self._recorder.write(before)
        async with self._writing:
            last = changes[-1]
            hold.letting_go = last.rests
            try:
                writes = self._writes(changes, hold.token)
                await self._trouble.insist(lambda: self._store.commit(writes))
            except StaleWrite:
                hold.letting_go = False
                return False
        record.stored(changes)
        self._on_applied(last.deployment.stored())
        return True

    def _writes(self, changes: Sequence[Change], token: str) -> Sequence[Write]:
        now, last = self._clock.now(), changes[-1]
        writes: list[Write] = [Update(last.deployment, lease=token, release=last.rests)]
        for change in changes:
            told = events(change.deployment, change.facts, "engine", now, self._new_id)
            messages = deliveries(change.deployment, change.facts, now, self._new_id, self._public_url)
            writes += [Append(event) for event in told]
            writes += [Insert(message) for message in messages]
        return writes

    async def _undo(self, create: Create, current: Deployment | None) -> None:
        """Removes what was created after the attempt had been given up elsewhere. Its number never comes
        again, so nobody will adopt it; should this process die first, the sweeper removes it."""
        attempt = create.attempt
        if current is None or (current.status.attempt and current.status.attempt.name == attempt.name):
            return
        log.warning("engine.undoing_stale_create", deployment=current.id, name=attempt.name)
        for _ in range(10):
            outcome = await self._perform(current, Remove(attempt))
            if not isinstance(outcome, Later):
                return
            await asyncio.sleep(outcome.after or 1.0)

    async def _still_held(self, hold: Hold) -> bool:
        until = self._clock.now() + timedelta(seconds=self._lease_seconds)
        held = {hold.deployment_id: hold.token}
        return bool(await self._trouble.insist(lambda: self._store.renew("deployments", held, until)))


def _still_seen(did: Step | Outcome, seen: Observation | Vanished | None) -> Observation | Vanished | None:
    """Only a report changes nothing at the endpoint that was looked at."""
    return seen if isinstance(did, Report) else None
