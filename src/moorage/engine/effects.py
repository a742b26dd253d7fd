"""Doing what the rules chose: the only place where the engine touches a provider or the Hub.

An effect turns every error of the outside into an outcome that says what to do next. Each runs outside any
database session, and may be repeated after a crash at any point.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from moorage.domain.deployment import Attempt, Deployment, DeploymentSpec, Failure, Handle
from moorage.domain.model import HubModel, Source
from moorage.domain.placement import smallest_change
from moorage.domain.steps import (
    Broken,
    Create,
    Created,
    Later,
    Look,
    Outcome,
    Place,
    Placed,
    Profiled,
    Refused,
    Remove,
    Removed,
    Seen,
    Validate,
    Vanished,
)
from moorage.errors import (
    Conflict,
    Gone,
    HubUnavailable,
    ModelError,
    NoCapacity,
    Problem,
    ProviderError,
    QuotaExceeded,
    Retry,
)
from moorage.planning import Planner
from moorage.ports import Absent, Provider, RevisionPlan, SecretBox

Effect = Validate | Place | Create | Look | Remove


@dataclass(frozen=True, slots=True)
class Secrets:
    """A deployment's opened secrets. Never printed."""

    env: Mapping[str, str]
    hf_token: str | None

    def __repr__(self) -> str:
        return "Secrets(…)"


def open_secrets(box: SecretBox, deployment_id: str, spec: DeploymentSpec) -> Secrets:
    if spec.secrets is None:
        return Secrets({}, None)
    opened = json.loads(box.open(spec.secrets, f"deployment {deployment_id}"))
    return Secrets(opened.get("env", {}), opened.get("hf_token"))


class Effects:
    def __init__(self, providers: Mapping[str, Provider], planner: Planner, box: SecretBox) -> None:
        self._providers = providers
        self._planner = planner
        self._box = box

    async def perform(self, deployment: Deployment, effect: Effect) -> Outcome:
        """The outcome of `effect`; a ProviderError or Problem becomes one, other exceptions are bugs."""
        try:
            match effect:
                case Validate():
                    return await self._validate(deployment)
                case Place():
                    return await self._place(deployment)
                case Create(attempt):
                    return await self._create(deployment, attempt)
                case Look(attempt):
                    return await self._look(attempt)
                case Remove(attempt):
                    return await self._remove(attempt)
        except Problem as problem:
            return _outcome_of_problem(problem)
        except ProviderError as error:
            return _outcome_of_error(error)

    async def _validate(self, deployment: Deployment) -> Outcome:
        spec = deployment.spec
        token = open_secrets(self._box, deployment.id, spec).hf_token
        return Profiled(await self._planner.profile(spec.source, token))

    async def _place(self, deployment: Deployment) -> Outcome:
        plan = await self._planner.place(deployment.spec, deployment.status.profile)
        if plan.placement.ladder:
            return Placed(plan.placement)
        refused = plan.placement.refused
        story = "; ".join(f"{r.provider} {r.gpu or 'CPU'} x{r.count}: {r.reason}" for r in refused)
        return Broken(
            Failure(
                "does_not_fit",
                f"No offer fits. {story or 'No provider sells anything.'}",
                smallest_change(plan.placement),
            )
        )

    async def _create(self, deployment: Deployment, attempt: Attempt) -> Outcome:
        provider = self._provider(attempt)
        try:
            return Created(await provider.create(self._plan(deployment, attempt), attempt.name, None))
        except (NoCapacity, QuotaExceeded) as error:
            self._planner.refused(attempt.rung.offer)
            return Refused(error.detail, error.advice)

    async def _look(self, attempt: Attempt) -> Outcome:
        handle = attempt.handle or Handle(attempt.rung.offer.provider, attempt.name)
        try:
            return Seen(await self._provider(attempt).observe(handle, None))
        except Gone:
            return Vanished()
        except Retry:
            raise
        except ProviderError as error:
            # A key that is refused for a while says nothing of what runs: it is not torn down for that.
            return Later(f"cannot look at {attempt.name}: {error.detail}")

    async def _remove(self, attempt: Attempt) -> Outcome:
        provider = self._provider(attempt)
        try:
            # Without a handle the create may or may not have happened: the name tells.
            handle = attempt.handle or await provider.find(attempt.name, None)
            if handle is None:
                return Removed()
            answer = await provider.delete(handle, None)
        except Gone:
            return Removed()
        except Retry:
            raise
        except ProviderError as error:
            # Whatever stands in the way, what may bill is not forgotten: it is tried again, visibly.
            return Later(f"cannot delete {attempt.name}: {error.detail}")
        if isinstance(answer, Absent):
            return Removed()
        return Later(f"{attempt.name} is being deleted", answer.after)

    def _provider(self, attempt: Attempt) -> Provider:
        name = attempt.rung.offer.provider
        provider = self._providers.get(name)
        if provider is None:
            raise Retry(f"provider {name} is not installed in this service", after=30.0)
        return provider

    def _plan(self, deployment: Deployment, attempt: Attempt) -> RevisionPlan:
        spec, rung, profile = deployment.spec, attempt.rung, deployment.status.profile
        secrets = open_secrets(self._box, deployment.id, spec)
        return RevisionPlan(
            deployment_id=deployment.id,
            organization_id=deployment.organization_id,
            revision=deployment.revision,
            source=_pinned(spec.source, None if profile is None else profile.revision),
            runtime=rung.runtime,
            offer=rung.offer,
            replicas=max(1, spec.min_replicas),
            memory_bytes=rung.estimate.total_bytes,
            task=spec.task or (None if profile is None else profile.task),
            context_length=spec.context_length,
            concurrency=spec.concurrency,
            env=secrets.env,
            hub_token=secrets.hf_token,
        )


def _pinned(source: Source, commit: str | None) -> Source:
    if isinstance(source, HubModel) and commit is not None:
        return replace(source, revision=commit)
    return source


def _outcome_of_problem(problem: Problem) -> Outcome:
    if isinstance(problem, HubUnavailable):
        return Later(problem.detail, problem.retry_after)
    code = problem.code if isinstance(problem, ModelError) else "invalid"
    return Broken(Failure(code, problem.detail, problem.advice))


def _outcome_of_error(error: ProviderError) -> Outcome:
    if isinstance(error, Retry):
        return Later(error.detail, error.after)
    if isinstance(error, Conflict | Gone):
        return Later(error.detail)
    return Broken(Failure(_code(error), error.detail, error.advice))


def _code(error: ProviderError) -> str:
    return {"Unauthorized": "provider_unauthorized", "Rejected": "provider_rejected"}.get(
        type(error).__name__, "provider_error"
    )
