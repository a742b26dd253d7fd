"""Wanting something else of a deployment that is there: other replicas, another workload, a stop, a start.

Only the desired state is written here. The engine brings what runs to it, in place where the provider can,
and says so by `deployment.updated`, `deployment.stopped` or `deployment.update_refused`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from moorage.domain.deployment import Deployment, DeploymentSpec, Phase
from moorage.domain.identity import Permission, Principal
from moorage.domain.model import ContainerImage
from moorage.domain.notice import NewId, deliveries, events
from moorage.domain.request import MAX_REPLICAS, environment_errors
from moorage.domain.transition import Fact
from moorage.domain.workload import Workload
from moorage.domain.workload_rules import broken_rules
from moorage.errors import Clash, FieldError, Invalid, NotFound, OutgoingRefused, StaleWrite
from moorage.ports.outside import Clock, Outgoing, SecretBox
from moorage.ports.store import Append, Insert, Store, Update, Write
from moorage.services.authorization import require

_OVER = (Phase.DELETING, Phase.DELETED, Phase.FAILED)


@dataclass(frozen=True, slots=True)
class Change:
    """None: as it is."""

    min_replicas: int | None = None
    max_replicas: int | None = None
    workload: Workload | None = None
    env: Mapping[str, str] | None = field(default=None, repr=False)
    webhook_url: str | None = None


@dataclass(frozen=True, slots=True)
class ChangeSurroundings:
    store: Store
    box: SecretBox
    outgoing: Outgoing
    clock: Clock
    new_id: NewId
    public_url: str
    on_written: Callable[[str], None]  # a deployment's id: wakes the engine


class DeploymentChanges:
    def __init__(self, surroundings: ChangeSurroundings) -> None:
        self._out = surroundings

    async def change(
        self, principal: Principal, deployment_id: str, amend: Callable[[Deployment], Change]
    ) -> Deployment:
        """As it is stored now; a change that changes nothing stores nothing. `amend` says what to change of
        the deployment as it is, and is asked again when somebody else wrote first. Raises Invalid by field,
        and Clash for a deployment that is over."""
        require(principal, Permission.DEPLOY)
        asked = amend(await self._owned(principal, deployment_id))
        if asked.webhook_url is not None:
            try:
                await self._out.outgoing.check(asked.webhook_url)
            except OutgoingRefused as refused:
                raise Invalid.at("body.user_webhook_url", refused.rule, refused.detail) from refused

        def changed(deployment: Deployment) -> Deployment:
            spec = self._changed(deployment, amend(deployment))
            if spec == deployment.spec:
                return deployment
            return replace(deployment, spec=spec, generation=deployment.generation + 1)

        fact = Fact("deployment.change_requested", "Its owner wants it changed.")
        return await self._write(principal, deployment_id, changed, fact)

    async def scale(
        self, principal: Principal, deployment_id: str, min_replicas: int, max_replicas: int | None = None
    ) -> Deployment:
        """Between so many replicas; a `max_replicas` that is not given follows."""
        return await self.change(principal, deployment_id, lambda _: Change(min_replicas, max_replicas))

    async def stop(self, principal: Principal, deployment_id: str) -> Deployment:
        """Wants no replica. Repeating it does no harm."""
        require(principal, Permission.DEPLOY)

        def stopped(deployment: Deployment) -> Deployment:
            if deployment.spec.stopped:
                return deployment
            return replace(deployment, spec=replace(deployment.spec, stopped=True))

        fact = Fact("deployment.stop_requested", "Its owner wants it stopped.")
        return await self._write(principal, deployment_id, stopped, fact)

    async def start(self, principal: Principal, deployment_id: str) -> Deployment:
        """Wants a stopped deployment to serve again. Repeating it does no harm."""
        require(principal, Permission.DEPLOY)

        def started(deployment: Deployment) -> Deployment:
            if not deployment.spec.stopped:
                return deployment
            spec = replace(deployment.spec, stopped=False)
            return replace(deployment, spec=spec, generation=deployment.generation + 1)

        fact = Fact("deployment.start_requested", "Its owner wants it to serve again.")
        return await self._write(principal, deployment_id, started, fact)

    async def activate(self, principal: Principal, deployment_id: str) -> Deployment:
        """Wants a hibernated deployment awake, as a request to it does."""
        require(principal, Permission.DEPLOY)
        await self._owned(principal, deployment_id)
        await self.wake(deployment_id)
        return await self._owned(principal, deployment_id)

    async def wake(self, deployment_id: str) -> None:
        """Somebody sent a request to it while it slept. Of one that does not sleep, it changes nothing."""
        while True:
            deployment = await self._out.store.deployment(deployment_id)
            if deployment is None or deployment.phase is not Phase.HIBERNATED:
                return
            if deployment.wake_at is not None and deployment.wake_at >= deployment.status.phase_since:
                return  # it was asked for already
            now = self._out.clock.now()
            try:
                await self._out.store.commit([Update(replace(deployment, wake_at=now, due_at=now))])
            except StaleWrite:
                continue
            self._out.on_written(deployment_id)
            return

    # -- parts -------------------------------------------------------------------------------------------

    async def _write(
        self,
        principal: Principal,
        deployment_id: str,
        changed: Callable[[Deployment], Deployment],
        fact: Fact,
    ) -> Deployment:
        out = self._out
        while True:
            deployment = await self._owned(principal, deployment_id)
            if deployment.phase in _OVER:
                raise Clash(
                    f"The deployment {deployment.name!r} is {deployment.phase}.",
                    code="deployment_is_over",
                    advice="Deploy again.",
                )
            asked = changed(deployment)
            if asked is deployment:
                return deployment
            now = out.clock.now()
            asked = replace(asked, due_at=now)
            told = events(asked, (fact,), principal.id, now, out.new_id)
            messages = deliveries(asked, (fact,), now, out.new_id, out.public_url)
            writes: list[Write] = [Update(asked), *(Append(e) for e in told), *(Insert(d) for d in messages)]
            try:
                await out.store.commit(writes)
            except StaleWrite:
                continue  # the engine wrote meanwhile: read again, want again
            out.on_written(deployment_id)
            return asked.stored()

    async def _owned(self, principal: Principal, deployment_id: str) -> Deployment:
        deployment = await self._out.store.deployment(deployment_id, principal.organization_id)
        if deployment is None:
            raise NotFound(f"There is no deployment {deployment_id!r}.", code="deployment_not_found")
        return deployment

    def _changed(self, deployment: Deployment, change: Change) -> DeploymentSpec:
        spec = deployment.spec
        least = spec.min_replicas if change.min_replicas is None else change.min_replicas
        most = max(spec.max_replicas, least) if change.max_replicas is None else change.max_replicas
        workload = spec.workload if change.workload is None else change.workload
        env_names, secrets = spec.env_names, spec.secrets
        _refuse(_errors(spec, least, most, workload, change))
        if change.env is not None:
            env_names = tuple(sorted(change.env))
            secrets = self._resealed(deployment, change.env)
        return replace(
            spec,
            min_replicas=least,
            max_replicas=most,
            workload=workload,
            env_names=env_names,
            secrets=secrets,
            webhook_url=spec.webhook_url if change.webhook_url is None else change.webhook_url,
        )

    def _resealed(self, deployment: Deployment, env: Mapping[str, str]) -> str | None:
        """The deployment's secrets with these variables; as they were sealed where nothing differs."""
        context = f"deployment {deployment.id}"
        sealed = deployment.spec.secrets
        held = {} if sealed is None else json.loads(self._out.box.open(sealed, context))
        if held.get("env", {}) == dict(env):
            return sealed
        return self._out.box.seal(json.dumps({**held, "env": dict(env)}).encode(), context)


def _errors(
    spec: DeploymentSpec, least: int, most: int, workload: Workload | None, change: Change
) -> Sequence[FieldError]:
    errors = []
    for name, value in (("min_replicas", least), ("max_replicas", most)):
        if not 1 <= value <= MAX_REPLICAS:
            errors.append(FieldError(f"body.{name}", "range", f"{name} is from 1 to {MAX_REPLICAS}."))
    if least > most:
        message = f"min_replicas ({least}) is above max_replicas ({most})."
        errors.append(FieldError("body.min_replicas", "min_at_most_max", message))
    if workload is not None and (change.workload is not None or change.env is not None):
        imported = isinstance(spec.source, ContainerImage)
        env = spec.env_names if change.env is None else change.env.keys()
        errors += broken_rules(workload, imported=imported, custom=not imported, env=env)
    errors += environment_errors(change.env or {})
    return errors


def _refuse(errors: Sequence[FieldError]) -> None:
    if errors:
        raise Invalid("; ".join(e.message for e in errors), errors=tuple(errors))
