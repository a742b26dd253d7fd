"""Driving one deployment: decide, act, apply, until there is nothing to do now.

Every write is fenced by the lease under which the deployment was claimed. A holder that lost its lease finds
out at its next write at the latest; what it had created by then and nobody names any more, it removes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
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
from moorage.errors import StaleWrite
from moorage.ports import Append, Clock, Insert, Store, Update, Write

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Hold:
    """One deployment in hand, under the token of its lease; `lost` once somebody else may have taken it."""

    deployment_id: str
    token: str
    lost: bool = False


class Driver:
    """`on_applied` hears of every stored change."""

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
        on_applied: Callable[[Deployment, Change], None],
    ) -> None:
        self._store = store
        self._effects = effects
        self._clock = clock
        self._new_id = new_id
        self._public_url = public_url
        self._patience = patience
        self._effect_timeout = effect_timeout
        self._lease_seconds = lease_seconds
        self._on_applied = on_applied

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
            change = advance(deployment, did, self._clock.now(), random.random())
            if await self._apply(change, hold.token):
                if change.rests:
                    return
                deployment = change.deployment.stored()
                if not isinstance(did, Report):
                    seen = None  # it was seen of an endpoint that has changed since
                continue
            # The owner changed the row meanwhile, or somebody else has the lease.
            current = await self._store.deployment(deployment.id)
            if isinstance(step, Create) and isinstance(did, Created):
                await self._undo(step, current)
            if current is None or not await self._still_held(hold):
                log.info("engine.lease_lost", deployment=deployment.id)
                return
            deployment, seen = current, None

    def _decide(self, deployment: Deployment, seen: Observation | Vanished | None) -> Step:
        wanted = desired_of(deployment, self._patience)
        return decide(wanted, Observed(deployment.status, seen), self._clock.now())

    async def _perform(self, deployment: Deployment, effect: Effect) -> Outcome:
        name = type(effect).__name__.lower()
        try:
            async with asyncio.timeout(self._effect_timeout):
                outcome = await self._effects.perform(deployment, effect)
        except TimeoutError:
            outcome = Later(f"{name} did not finish within {self._effect_timeout:.0f} s")
        log.debug("engine.effect", deployment=deployment.id, effect=name, outcome=type(outcome).__name__)
        return outcome

    async def _apply(self, change: Change, token: str) -> bool:
        """Stores the change with its events and messages under the lease; False when the write was stale."""
        after, now = change.deployment, self._clock.now()
        writes: list[Write] = [Update(after, lease=token, release=change.rests)]
        writes += [Append(e) for e in events(after, change.facts, "engine", now, self._new_id)]
        messages = deliveries(after, change.facts, now, self._new_id, self._public_url)
        writes += [Insert(message) for message in messages]
        try:
            await self._store.commit(writes)
        except StaleWrite:
            return False
        self._on_applied(after.stored(), change)
        return True

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
        return bool(await self._store.renew("deployments", held, until))
