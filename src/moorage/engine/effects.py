"""Doing what the rules chose: the only place where the engine touches a provider or the Hub.

An effect turns every error of the outside into an outcome that says what to do next. Each runs outside any
database session, and may be repeated after a crash at any point.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from moorage.credentials import Vault
from moorage.domain.deployment import Attempt, Deployment, DeploymentSpec, Failure, Handle
from moorage.domain.model import CacheScope, HubModel, Source
from moorage.domain.observation import Trouble
from moorage.domain.placement import smallest_change
from moorage.domain.steps import (
    Applied,
    Apply,
    Broken,
    Create,
    Created,
    Halt,
    Halted,
    Later,
    Look,
    NotApplied,
    Outcome,
    Place,
    Placed,
    Profiled,
    Refused,
    Remove,
    Removed,
    Restore,
    Restored,
    Seen,
    Validate,
    Vanished,
    WakeUp,
    Woken,
)
from moorage.errors import (
    Conflict,
    Gone,
    HubUnavailable,
    ModelError,
    NoCapacity,
    PermissionMissing,
    Problem,
    ProviderError,
    QuotaExceeded,
    Rejected,
    Retry,
    Unauthorized,
)
from moorage.planning import Planner
from moorage.ports.outside import RegistryAccess, SecretBox
from moorage.ports.provider import (
    Absent,
    Callback,
    Credentials,
    Provider,
    RevisionPlan,
    Stop,
    Wake,
    WorkerCache,
)

Effect = Validate | Place | Create | Look | Remove | Restore | Apply | Halt | WakeUp


@dataclass(frozen=True, slots=True)
class Secrets:
    """A deployment's opened secrets. Never printed."""

    env: Mapping[str, str]
    hf_token: str | None
    cache_keys: Mapping[str, str] = field(default_factory=dict)
    registry: RegistryAccess | None = None

    def __repr__(self) -> str:
        return "Secrets(…)"


def open_secrets(box: SecretBox, deployment_id: str, spec: DeploymentSpec) -> Secrets:
    if spec.secrets is None:
        return Secrets({}, None)
    opened = json.loads(box.open(spec.secrets, f"deployment {deployment_id}"))
    registry = opened.get("registry")
    return Secrets(
        opened.get("env", {}),
        opened.get("hf_token"),
        opened.get("cache") or {},
        None if registry is None else RegistryAccess(**registry),
    )


class WorkerLinks(Protocol):
    """How a worker reaches this service."""

    def callback(self, endpoint: str) -> Callback | None:
        """None: it cannot."""

    def shared_cache(self, endpoint: str) -> str | None:
        """URL of the list of files in the operator's cache; None: there is none."""


class NoLinks:
    """For a service that no worker can reach."""

    def callback(self, endpoint: str) -> Callback | None:
        return None

    def shared_cache(self, endpoint: str) -> str | None:
        return None


class Effects:
    def __init__(
        self,
        providers: Mapping[str, Provider],
        planner: Planner,
        box: SecretBox,
        vault: Vault,
        links: WorkerLinks,
    ) -> None:
        self._providers = providers
        self._planner = planner
        self._box = box
        self._vault = vault
        self._links = links

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
                    looked = self._look(deployment, attempt)
                    return await self._about(f"cannot look at {attempt.name}", Vanished(), looked)
                case Remove(attempt):
                    removed = self._remove(deployment, attempt)
                    return await self._about(f"cannot delete {attempt.name}", Removed(), removed)
                case Restore(attempt, drift):
                    restored = self._restore(deployment, attempt, drift)
                    words = f"{drift}, and it cannot be put back"
                    return await self._about(words, Vanished(), restored)
                case Apply(attempt):
                    applied = self._apply(deployment, attempt)
                    return await self._about(f"cannot change {attempt.name}", Vanished(), applied)
                case Halt(attempt):
                    halted = self._halt(deployment, attempt)
                    return await self._about(f"cannot stop {attempt.name}", Removed(), halted)
                case WakeUp(attempt):
                    woken = self._wake(deployment, attempt)
                    return await self._about(f"cannot wake {attempt.name}", Vanished(), woken)
        except Problem as problem:
            return _outcome_of_problem(problem)
        except ProviderError as error:
            return _outcome_of_error(error)

    async def _validate(self, deployment: Deployment) -> Outcome:
        spec = deployment.spec
        token = open_secrets(self._box, deployment.id, spec).hf_token
        return Profiled(await self._planner.profile(spec.source, token))

    async def _place(self, deployment: Deployment) -> Outcome:
        spec = deployment.spec
        opened = await self._vault.accounts(deployment.organization_id, spec.credentials, spec.policy.cluster)
        plan = await self._planner.place(spec, deployment.status.profile, opened)
        if plan.placement.ladder:
            return Placed(plan.placement)
        refused = plan.placement.refused
        story = "; ".join(f"{r.where}: {r.reason}" for r in refused)
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
            credentials = await self._credentials(deployment)
        except Unauthorized as error:  # removed since it was placed: nothing was sent
            return Refused(error.detail, error.advice)
        try:
            return Created(await provider.create(self._plan(deployment, attempt), attempt.name, credentials))
        except NoCapacity as error:
            self._planner.refused(attempt.rung.offer)
            return Refused(error.detail, error.advice)
        except QuotaExceeded as error:  # the account's trouble: it says nothing of the offer to others
            return Refused(error.detail, error.advice, whole_provider=True)

    async def _about(self, words: str, gone: Outcome, asked: Awaitable[Outcome]) -> Outcome:
        """What came of asking about an endpoint that may exist. What stands in the way passes: what serves
        is not torn down because its account is refused for a while, and what may bill is not forgotten."""
        try:
            return await asked
        except Gone:
            return gone
        except Retry:
            raise
        except ProviderError as error:
            return Later(f"{words}: {error.detail}")

    async def _look(self, deployment: Deployment, attempt: Attempt) -> Outcome:
        credentials = await self._credentials(deployment)
        seen = await self._provider(attempt).observe(_handle(attempt), credentials)
        if seen.trouble is Trouble.NO_CAPACITY:
            self._planner.refused(attempt.rung.offer)
        return Seen(seen)

    async def _restore(self, deployment: Deployment, attempt: Attempt, drift: str) -> Outcome:
        await self._give_plan(deployment, attempt)
        return Restored(drift)

    async def _apply(self, deployment: Deployment, attempt: Attempt) -> Outcome:
        try:
            handle = await self._give_plan(deployment, attempt)
        except (Rejected, QuotaExceeded) as error:
            return NotApplied(deployment.generation, error.detail, error.advice)
        return Applied(handle, deployment.generation)

    async def _give_plan(self, deployment: Deployment, attempt: Attempt) -> Handle:
        credentials = await self._credentials(deployment)
        plan = self._plan(deployment, attempt)
        return await self._provider(attempt).apply(_handle(attempt), plan, credentials)

    async def _halt(self, deployment: Deployment, attempt: Attempt) -> Outcome:
        provider = self._provider(attempt)
        if not isinstance(provider, Stop):
            return await self._remove(deployment, attempt)
        answer = await provider.stop(_handle(attempt), await self._credentials(deployment))
        if isinstance(answer, Absent):
            return Halted()
        return Later(f"{attempt.name} is being stopped", answer.after)

    async def _wake(self, deployment: Deployment, attempt: Attempt) -> Outcome:
        provider = self._provider(attempt)
        if isinstance(provider, Wake):
            await provider.wake(_handle(attempt), await self._credentials(deployment))
        return Woken()

    async def _remove(self, deployment: Deployment, attempt: Attempt) -> Outcome:
        provider = self._provider(attempt)
        try:
            credentials = await self._credentials(deployment)
        except Unauthorized:
            if attempt.handle is None:  # an account that is gone was never asked to create anything
                return Removed()
            raise
        # Without a handle the create may or may not have happened: the name tells.
        handle = attempt.handle or await provider.find(attempt.name, credentials)
        if handle is None:
            return Removed()
        answer = await provider.delete(handle, credentials)
        if isinstance(answer, Absent):
            return Removed()
        return Later(f"{attempt.name} is being deleted", answer.after)

    def _provider(self, attempt: Attempt) -> Provider:
        name = attempt.rung.offer.provider
        provider = self._providers.get(name)
        if provider is None:
            raise Retry(f"provider {name} is not installed in this service", after=30.0)
        return provider

    async def _credentials(self, deployment: Deployment) -> Credentials | None:
        credential_id = deployment.account
        return None if credential_id is None else await self._vault.open(credential_id)

    def _plan(self, deployment: Deployment, attempt: Attempt) -> RevisionPlan:
        spec, rung, profile = deployment.spec, attempt.rung, deployment.status.profile
        secrets = open_secrets(self._box, deployment.id, spec)
        known = self._planner.model_spec(spec.source)
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
            serverless=spec.serverless,
            cache=self._cache(spec, attempt.name, secrets),
            callback=self._links.callback(attempt.name),
            dtype=None if known is None else known.dtype,
            max_replicas=max(1, spec.min_replicas, spec.max_replicas),
            workload=spec.workload,
            registry=secrets.registry,
        )

    def _cache(self, spec: DeploymentSpec, endpoint: str, secrets: Secrets) -> WorkerCache | None:
        cache = spec.cache
        if cache.scope is CacheScope.SHARED:
            url = self._links.shared_cache(endpoint)
            return None if url is None else WorkerCache(cache.scope, url)
        if cache.scope is CacheScope.PRIVATE and cache.url is not None:
            keys = secrets.cache_keys
            return WorkerCache(
                cache.scope,
                cache.url,
                cache.endpoint_url,
                keys.get("access_key_id"),
                keys.get("secret_access_key"),
            )
        return None


def _handle(attempt: Attempt) -> Handle:
    return attempt.handle or Handle(attempt.rung.offer.provider, attempt.name)


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
    codes: dict[type[ProviderError], str] = {
        Unauthorized: "provider_unauthorized",
        PermissionMissing: "provider_permission_missing",
        Rejected: "provider_rejected",
    }
    return codes.get(type(error), "provider_error")
