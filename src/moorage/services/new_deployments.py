"""Wanting a deployment: the dry plan, and the create that stores it.

What is known to be impossible is refused before anything is stored: rules, places, models, fit.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from moorage.domain.deployment import Deployment, DeploymentSpec, Phase, Status
from moorage.domain.identity import Permission, Principal
from moorage.domain.image_reference import ImageReference
from moorage.domain.model import (
    CacheScope,
    ContainerImage,
    HubModel,
    ModelCache,
    SharedCachePolicy,
    Source,
)
from moorage.domain.model_version import ModelVersion
from moorage.domain.notice import NewId, deliveries, events
from moorage.domain.placement import smallest_change
from moorage.domain.request import NewDeployment, broken_rules
from moorage.domain.transition import Fact
from moorage.domain.view import PlanView, plan_view
from moorage.domain.workload import Workload
from moorage.domain.workload_rules import broken_rules as broken_workload_rules
from moorage.errors import (
    AlreadyExists,
    Clash,
    FieldError,
    HubUnavailable,
    Invalid,
    OutgoingRefused,
    Retry,
    Unauthorized,
    Unavailable,
)
from moorage.planning import Plan, Planner
from moorage.ports.outside import Clock, Outgoing, SecretBox
from moorage.ports.store import Append, Insert, Store, Write
from moorage.ports.telemetry import NO_TRACES, Traces
from moorage.services.authorization import require
from moorage.services.credentials import Accounts, ProviderCredentials
from moorage.services.idempotency import Answer, once

CHECK_SECONDS = 8.0  # how long a create waits for the Hub; after that it is accepted, and the engine asks
ACCEPTED_SECONDS = 5.0  # how long "this fits" is believed for the same request
ACCEPTED_KEPT = 1024


class RegisteredModels(Protocol):
    async def resolve(
        self, organization_id: str, model_id: str
    ) -> tuple[Source, ModelVersion, Mapping[str, str]]:
        """What is served, the row, and the opened secrets that go with it: `hf_token`, or `server`,
        `username` and `password` of an image's registry. Raises Invalid at `body.model_id`."""


class NoModels:
    """For a service where nothing can be registered."""

    async def resolve(
        self, organization_id: str, model_id: str
    ) -> tuple[Source, ModelVersion, Mapping[str, str]]:
        raise Invalid.at("body.model_id", "known_model", f"There is no model {model_id!r}.")


@dataclass(frozen=True, slots=True)
class PlacingSurroundings:
    """What it takes to create deployments, needed from outside."""

    store: Store
    planner: Planner
    box: SecretBox
    outgoing: Outgoing
    clock: Clock
    new_id: NewId
    public_url: str
    on_written: Callable[[str], None]  # a deployment's id: wakes the engine and the outbox
    credentials: ProviderCredentials
    shared_cache: SharedCachePolicy = SharedCachePolicy()
    models: RegisteredModels = NoModels()
    traces: Traces = NO_TRACES


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request with what it leads to: the registered model, where it names one, and its secrets."""

    request: NewDeployment
    spec: DeploymentSpec
    hf_token: str | None = field(default=None, repr=False)
    registry: Mapping[str, str] | None = field(default=None, repr=False)


Render = Callable[[Deployment], tuple[int, bytes]]  # status and body of an answer


def _accepted(deployment: Deployment) -> tuple[int, bytes]:
    body = {"deployment_id": deployment.id, "name": deployment.name, "status": deployment.phase.value}
    return 202, json.dumps(body).encode()


class NewDeployments:
    def __init__(self, surroundings: PlacingSurroundings) -> None:
        self._out = surroundings
        self._fits_until: dict[tuple[object, ...], datetime] = {}

    async def plan(self, principal: Principal, request: NewDeployment) -> PlanView:
        """The estimate's arithmetic, the ladder, and every refused offer with its reason. Creates nothing."""
        require(principal, Permission.READ)
        asked = await self._asked(principal, request)
        accounts = await self._accounts(principal, request)
        try:
            plan = await self._out.planner.plan(asked.spec, asked.hf_token, accounts.all)
        except Retry as error:
            raise Unavailable(error.detail, advice=error.advice, retry_after=error.after) from error
        return plan_view(plan.placement, plan.estimate)

    async def create(
        self,
        principal: Principal,
        request: NewDeployment,
        key: str | None,
        fingerprint: str,
        render: Render = _accepted,
    ) -> Answer:
        """Stores the deployment, its first event and message, and wakes the engine. Refuses what is known
        to be impossible before anything is stored. `render` makes the answer, which a repetition gets too."""
        require(principal, Permission.DEPLOY)

        made: list[str] = []
        began = self._out.clock.now()

        async def make() -> tuple[Sequence[Write], int, bytes]:
            asked = await self._asked(principal, request)
            await self._check_webhook(request.user_webhook_url)
            accounts = await self._accounts(principal, request)
            await self._check_fit(asked.spec, asked.hf_token, accounts)
            deployment, writes = self._first_writes(principal, asked, accounts)
            made.append(deployment.id)
            return writes, *render(deployment)

        out = self._out
        try:
            answer = await once(
                out.store, out.box, out.clock, principal.organization_id, key, fingerprint, make
            )
        except AlreadyExists as error:
            if error.kind != "deployment":  # a twin stored the same account first: it is there now
                return await self.create(principal, request, key, fingerprint, render)
            raise Clash(
                f"A deployment named {request.name!r} exists.",
                code="name_taken",
                advice="Choose another name, or delete that deployment first.",
                errors=(FieldError("body.name", "unique_in_organization", "The name is taken."),),
            ) from error
        if not answer.replayed:
            seconds = (out.clock.now() - began).total_seconds()
            out.traces.accepted(made[-1], "create deployment", seconds)
            out.on_written(made[-1])
        return answer

    async def _check_webhook(self, url: str | None) -> None:
        if url is None:
            return
        try:
            await self._out.outgoing.check(url)
        except OutgoingRefused as refused:
            raise Invalid.at("body.user_webhook_url", refused.rule, refused.detail) from refused

    async def _accounts(self, principal: Principal, request: NewDeployment) -> Accounts:
        try:
            accounts = await self._out.credentials.of(
                principal, request.credential, request.provider, request.cluster
            )
        except Unauthorized as error:  # one that is stored cannot be opened any more
            raise Invalid.at(
                "body.credential",
                "can_be_opened",
                error.detail,
                code="credential_refused",
                advice=error.advice,
            ) from error
        _refuse_unknown_places(request, accounts)
        return accounts

    async def _asked(self, principal: Principal, request: NewDeployment) -> _Asked:
        """Raises Invalid for every rule that can be checked without asking a provider."""
        refuse_broken(request)
        spec, token, registry = _spec(request), request.hf_token, None
        if request.model_id is not None:
            source, model, secrets = await self._out.models.resolve(
                principal.organization_id, request.model_id
            )
            spec = replace(spec, source=source, model_version_id=model.id)
            token = token or secrets.get("hf_token")
            registry = secrets if "password" in secrets else None
        _refuse_broken_workload(request, spec)
        if principal.account is not None:
            spec = replace(spec, policy=replace(spec.policy, own_accounts_only=True))
        return _Asked(request, self._cache_checked(spec), token, registry)

    def _cache_checked(self, spec: DeploymentSpec) -> DeploymentSpec:
        """The shared cache is for models of the operator's list; another is refused, or not cached."""
        if spec.cache.scope is not CacheScope.SHARED or not isinstance(spec.source, HubModel):
            return spec
        if not self._out.shared_cache.there:
            raise Invalid.at(
                "body.cache_scope",
                "shared_cache_exists",
                "This service has no shared cache.",
                advice="Use cache_scope private with a bucket of yours, or off.",
            )
        if self._out.shared_cache.allows(spec.source.repo_id):
            return spec
        if self._out.shared_cache.reject_unlisted:
            raise Invalid.at(
                "body.hf_model_id",
                "on_shared_cache_list",
                f"{spec.source.repo_id} is not on the list of models of the shared cache.",
                code="model_not_allowed_in_shared_cache",
                advice="Use cache_scope private with a bucket of yours, or off.",
            )
        return replace(spec, cache=ModelCache())

    async def _check_fit(self, spec: DeploymentSpec, hf_token: str | None, accounts: Accounts) -> None:
        """Refuses a model that cannot be used or fits nowhere. Silence of the Hub or of a provider refuses
        nothing: the deployment is accepted, and the engine asks again until its deadline."""
        now = self._out.clock.now()
        key = _fit_key(spec, hf_token, accounts)
        believed = self._fits_until.get(key)
        if believed is not None and now < believed:
            return
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                plan = await self._out.planner.plan(spec, hf_token, accounts.all)
        except (HubUnavailable, Retry, TimeoutError):
            return
        if not plan.placement.ladder:
            raise does_not_fit(plan, on_cluster=spec.policy.cluster is not None)
        if len(self._fits_until) >= ACCEPTED_KEPT:
            self._fits_until.clear()
        self._fits_until[key] = datetime.fromtimestamp(now.timestamp() + ACCEPTED_SECONDS, now.tzinfo)

    def _first_writes(
        self, principal: Principal, asked: _Asked, accounts: Accounts
    ) -> tuple[Deployment, list[Write]]:
        out, request, spec = self._out, asked.request, asked.spec
        now = out.clock.now()
        deployment_id = out.new_id("dep")
        sealed = None
        if request.env or asked.hf_token or request.cache_keys or asked.registry:
            secrets = {
                "env": dict(request.env),
                "hf_token": asked.hf_token,
                "cache": request.cache_keys,
                "registry": asked.registry and dict(asked.registry),
            }
            sealed = out.box.seal(json.dumps(secrets).encode(), f"deployment {deployment_id}")
        deployment = Deployment(
            id=deployment_id,
            organization_id=principal.organization_id,
            name=request.name or _default_name(spec.source, deployment_id),
            spec=replace(spec, secrets=sealed, credentials=accounts.ids),
            status=Status(Phase.VALIDATING, now, now),
            created_at=now,
            created_by=principal.id,
            due_at=now,
        )
        facts = (Fact("deployment.validating", "Accepted; the model is being validated."),)
        writes: list[Write] = [*accounts.writes, Insert(deployment)]
        writes += [Append(e) for e in events(deployment, facts, principal.id, now, out.new_id)]
        writes += [Insert(d) for d in deliveries(deployment, facts, now, out.new_id, out.public_url)]
        return deployment, writes


def refuse_broken(request: NewDeployment) -> None:
    errors = broken_rules(request)
    if errors:
        raise Invalid("; ".join(e.message for e in errors), errors=errors)


def _refuse_unknown_places(request: NewDeployment, accounts: Accounts) -> None:
    """A cluster of somebody else, or a node group of another cluster, is not there."""
    if request.cluster is None:
        return
    if not accounts.clusters:
        raise Invalid.at(
            "body.cluster",
            "known_cluster",
            f"There is no cluster {request.cluster!r}.",
            advice="See GET /clusters/ for those that are there, or import it with POST /clusters/.",
        )
    known = {group.id for account in accounts.clusters for group in account.node_groups}
    strange = [id_ for id_ in request.node_groups if id_ not in known]
    if strange:
        raise Invalid.at(
            "body.node_groups",
            "of_the_cluster",
            f"The cluster has no node group {', '.join(strange)}.",
            advice="See GET /clusters/{id}/nodegroups/ for those that it has.",
        )


def _refuse_broken_workload(request: NewDeployment, spec: DeploymentSpec) -> None:
    if spec.workload is None and spec.policy.cluster is None:
        return
    imported = isinstance(spec.source, ContainerImage)
    env = request.env.keys() if spec.policy.cluster is not None else None
    errors = broken_workload_rules(
        spec.workload or Workload(), imported=imported, custom=not imported, env=env
    )
    if errors:
        raise Invalid("; ".join(e.message for e in errors), errors=errors)


def does_not_fit(plan: Plan, *, on_cluster: bool = False) -> Invalid:
    """`on_cluster`: its owner named the cluster. What that says of the request is then the whole answer."""
    refused = plan.placement.refused
    named = next((each for each in refused if each.fields), None) if on_cluster else None
    if named is not None:
        errors = tuple(replace(error, field=f"body.{error.field}") for error in named.fields)
        detail = f"The cluster cannot do it: {named.reason}."
        return Invalid(detail, code="does_not_fit", advice=named.smallest_change, errors=errors)
    story = " ".join(f"{r.where}: {r.reason}." for r in refused[:10])
    detail = f"No offer fits. {story or 'No provider sells anything.'}"
    field = "body.hf_model_id" if plan.profile is not None else "body.container_image"
    return Invalid(
        detail,
        code="does_not_fit",
        advice=smallest_change(plan.placement),
        errors=(FieldError(field, "fits_somewhere", detail),),
    )


def _spec(request: NewDeployment) -> DeploymentSpec:
    return DeploymentSpec(
        source=request.source,
        policy=request.policy,
        min_replicas=request.min_replicas,
        max_replicas=request.max_replicas or request.min_replicas,
        task=request.task,
        context_length=request.context_length,
        concurrency=request.concurrency,
        env_names=tuple(sorted(request.env)),
        webhook_url=request.user_webhook_url,
        capacity_deadline_seconds=request.capacity_deadline_seconds,
        serverless=request.serverless,
        cache=request.cache,
        workload=request.workload,
    )


def _fit_key(spec: DeploymentSpec, hf_token: str | None, accounts: Accounts) -> tuple[object, ...]:
    """What the answer depends on. The token by its hash: the key lives longer than the request."""
    return (
        spec.source,
        spec.policy,
        spec.min_replicas,
        spec.max_replicas,
        spec.task,
        spec.context_length,
        spec.concurrency,
        spec.serverless,
        spec.cache.scope,
        None if hf_token is None else hashlib.sha256(hf_token.encode()).digest(),
        tuple(sorted(accounts.ids.items())),
        tuple(account.id for account in accounts.clusters),
        spec.workload,
    )


def _default_name(source: Source, deployment_id: str) -> str:
    """The model's own name with the end of the id, 48 random bits, which makes it unique."""
    full = source.repo_id if isinstance(source, HubModel) else ""
    if isinstance(source, ContainerImage):
        full = ImageReference.parse(source.image).repository
    slug = re.sub(r"[^a-z0-9]+", "-", full.rpartition("/")[2].lower()).strip("-")[:48] or "model"
    return f"{slug if slug[0].isalpha() else 'm-' + slug}-{deployment_id[-10:]}"
