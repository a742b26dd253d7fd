"""From a request to a ranked ladder: what a dry plan, a check before accepting, and the engine all need.

It stands on a floor of its own between the ports and the engine and services, because both of these place and
neither may import the other. It reads (Hub, offers) and decides nothing that is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from moorage.domain.catalog import Catalog, ModelSpec
from moorage.domain.cluster import NodeGroup
from moorage.domain.compute import (
    Availability,
    Estimate,
    Feature,
    Offer,
    Placement,
    PlacementPolicy,
    RefusedOffer,
    Requirements,
    RuntimeOption,
)
from moorage.domain.deployment import DeploymentSpec
from moorage.domain.estimate import runtime_options
from moorage.domain.model import CacheScope, ContainerImage, HubModel, ModelProfile, Source
from moorage.domain.placement import place
from moorage.errors import Invalid, ProviderError, Rejected, Retry
from moorage.ports.outside import Clock, ModelHub
from moorage.ports.provider import Clusters, OpenAccount, Provider

REFUSAL_SECONDS = 60.0  # how long a refused offer is tried last
REFUSALS_KEPT = 1000
OFFERS_SECONDS = 10.0  # for one provider to tell its offers

Opened = Sequence[OpenAccount]

# Of an image nothing can be read: it fits wherever its provider runs images.
_IMAGE_OPTIONS = tuple(
    RuntimeOption("image", accelerator, Estimate(0, 0.0, ())) for accelerator in (False, True)
)


@dataclass(frozen=True, slots=True)
class Plan:
    """`options` are the ways to run the model, best first; of an image the estimate is empty."""

    profile: ModelProfile | None
    options: tuple[RuntimeOption, ...]
    placement: Placement

    @property
    def estimate(self) -> Estimate | None:
        if self.placement.ladder:
            return self.placement.ladder[0].estimate
        return self.options[0].estimate if self.options and self.profile else None


@dataclass(frozen=True, slots=True)
class Market:
    """`refused` are the providers that sell nothing to this caller now, and why."""

    offers: tuple[Offer, ...]
    refused: tuple[RefusedOffer, ...]


class Planner:
    def __init__(
        self, hub: ModelHub, providers: Mapping[str, Provider], catalog: Catalog, clock: Clock
    ) -> None:
        self._hub = hub
        self._providers = providers
        self._catalog = catalog
        self._clock = clock
        self._refusals: dict[tuple[str, str], float] = {}

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(self._providers)

    async def profile(self, source: Source, hf_token: str | None) -> ModelProfile | None:
        """What is known of the model; None for an image. Raises a ModelError, or HubUnavailable."""
        if isinstance(source, HubModel):
            return await self._hub.profile(source, hf_token)
        return None

    def model_spec(self, source: Source) -> ModelSpec | None:
        """What the registry knows of the model."""
        return self._catalog.spec(source.repo_id) if isinstance(source, HubModel) else None

    async def plan(self, spec: DeploymentSpec, hf_token: str | None, opened: Opened) -> Plan:
        return await self.place(spec, await self.profile(spec.source, hf_token), opened)

    async def market(self, opened: Opened, *, own_accounts_only: bool) -> Market:
        """All that can be had now, whatever it is for."""
        need = Requirements((), 1, "hub")
        policy = PlacementPolicy(own_accounts_only=own_accounts_only)
        asked = [(p, a) for p in self._asked(policy) for a in _accounts_at(p, opened, policy)]
        answers = await asyncio.gather(*(self._offers(p, a, need, policy) for p, a in asked))
        offers = tuple(offer for found, _ in answers for offer in found)
        return Market(offers, tuple(r for _, refusals in answers for r in refusals))

    async def place(self, spec: DeploymentSpec, profile: ModelProfile | None, opened: Opened) -> Plan:
        """Raises ModelUnreadable when no runtime serves the model, Retry when none of those that answered has
        an offer that fits, and one did not answer."""
        options = self._options(spec, profile)
        policy = spec.policy
        need = Requirements(
            options,
            max(1, spec.min_replicas),
            "image" if isinstance(spec.source, ContainerImage) else "hub",
            policy.region,
            policy.spot,
            spec.serverless,
            spec.cache.scope is not CacheScope.OFF,
            max(1, spec.min_replicas, spec.max_replicas),
            spec.workload,
            cluster=policy.cluster is not None,
        )
        asked = [(p, a) for p in self._asked(policy) for a in _accounts_at(p, opened, policy)]
        answers = await asyncio.gather(*(self._offers(p, a, need, policy) for p, a in asked))
        offers = [offer for found, _ in answers for offer in found]
        refused = tuple(r for _, refusals in answers for r in refusals)
        placement = place(options, offers, policy, self._refused_lately())
        silent = [r.reason for r in refused if isinstance(r, _Silent)]
        if silent and not placement.ladder:  # who did not answer may have what the others lack
            raise Retry("; ".join(silent))
        return Plan(profile, options, replace(placement, refused=(*placement.refused, *refused)))

    def refused(self, offer: Offer) -> None:
        """Remember that the offer could not be had, so that others try it last for a while."""
        now = self._clock.now().timestamp()
        if len(self._refusals) >= REFUSALS_KEPT:
            self._refusals = {k: t for k, t in self._refusals.items() if t > now}
        if len(self._refusals) < REFUSALS_KEPT:
            self._refusals[offer.provider, offer.id] = now + REFUSAL_SECONDS

    def _refused_lately(self) -> frozenset[tuple[str, str]]:
        now = self._clock.now().timestamp()
        return frozenset(key for key, until in self._refusals.items() if until > now)

    def _options(self, spec: DeploymentSpec, profile: ModelProfile | None) -> tuple[RuntimeOption, ...]:
        if profile is None:
            return _IMAGE_OPTIONS
        return runtime_options(
            profile,
            self._catalog,
            context_length=spec.context_length,
            concurrency=spec.concurrency,
            task=spec.task,
        )

    def _asked(self, policy: PlacementPolicy) -> Sequence[Provider]:
        if policy.provider == "auto":
            return tuple(self._providers.values())
        provider = self._providers.get(policy.provider)
        if provider is None:
            raise unknown_provider(policy.provider, self.providers)
        return (provider,)

    async def _offers(
        self, provider: Provider, account: OpenAccount | None, need: Requirements, policy: PlacementPolicy
    ) -> tuple[Sequence[Offer], tuple[RefusedOffer, ...]]:
        barred = _barred(provider, need, policy, known=account is not None)
        if barred is not None:
            return (), (barred,)
        try:
            async with asyncio.timeout(OFFERS_SECONDS):
                if account is None:
                    return await provider.offers(need, None), ()
                wanted = replace(need, node_groups=_wanted_groups(account, policy))
                offers = await provider.offers(wanted, account.credentials)
                nothing = () if offers else (_nothing_sold(account),)
                return tuple(replace(offer, account=account.id) for offer in offers), nothing
        except TimeoutError:
            where = provider.name if account is None or account.name is None else account.name
            reason = f"{where} did not tell its offers within {OFFERS_SECONDS:.0f} s"
            return (), (_Silent(provider.name, None, 0, reason),)
        except Retry as error:
            return (), (_Silent(provider.name, None, 0, error.detail, error.advice),)
        except ProviderError as error:
            fields = error.fields if isinstance(error, Rejected) else ()
            return (), (RefusedOffer(provider.name, None, 0, error.detail, error.advice, fields=fields),)


def _accounts_at(provider: Provider, opened: Opened, policy: PlacementPolicy) -> Sequence[OpenAccount | None]:
    """With what to ask `provider`: each of its accounts in turn; None where there is none."""
    own = [
        account
        for account in opened
        if account.provider == provider.name and not (account.of_operator and policy.own_accounts_only)
    ]
    return own or [None]


def _wanted_groups(account: OpenAccount, policy: PlacementPolicy) -> tuple[NodeGroup, ...]:
    groups = account.node_groups
    return tuple(g for g in groups if g.id in policy.node_groups) if policy.node_groups else groups


def _barred(
    provider: Provider, need: Requirements, policy: PlacementPolicy, *, known: bool
) -> RefusedOffer | None:
    """Why the provider need not be asked; `known` says whether the owner has an account there."""
    name = provider.name
    if policy.own_accounts_only and not known:
        reason = "this service's own compute is for its own organizations, not for accounts elsewhere"
        return RefusedOffer(name, None, 0, reason, "use an API key of this service")
    if provider.credential_fields and not known:
        reason = f"no {name} account is known: {' and '.join(provider.credential_fields)} is missing"
        how = "POST /clusters/" if isinstance(provider, Clusters) else "POST /v1/credentials"
        change = f"store a {name} account with {how}, or choose another provider"
        return RefusedOffer(name, None, 0, reason, change)
    for feature in needed_features(need):
        unable = provider.unsupported.get(feature)
        if unable is not None:
            return RefusedOffer(name, None, 0, unable, _WITHOUT[feature])
    return None


def _nothing_sold(account: OpenAccount) -> RefusedOffer:
    if account.name is None or account.node_groups:
        return RefusedOffer(account.provider, None, 0, "nothing is for sale there now")
    reason = f"no node group of the cluster {account.name} is known"
    change = "look it over with POST /clusters/{id}/check, or declare a node group"
    return RefusedOffer(account.provider, None, 0, reason, change)


class _Silent(RefusedOffer):
    """A provider that did not answer now; it may tomorrow."""


_WITHOUT = {
    Feature.CONTAINER_IMAGE: "name a model with hf_model_id, or choose a provider that runs images",
    Feature.HUB_MODEL: "choose another provider",
    Feature.GPU: "choose another provider",
    Feature.SPOT: "leave out spot, or choose another provider",
    Feature.REGION: "leave out region, or choose another provider",
    Feature.SEVERAL_REPLICAS: "ask for one replica, or choose another provider",
    Feature.SERVERLESS: "leave out workers_min and the like, or choose another provider",
    Feature.MODEL_CACHE: "leave out cache_scope, or choose another provider",
    Feature.WORKLOAD: "leave out workload, or choose a provider that runs containers",
    Feature.CLUSTER: "leave out cluster and node_groups, or choose the provider of clusters",
}


def needed_features(need: Requirements) -> tuple[Feature, ...]:
    wanted = {
        Feature.CONTAINER_IMAGE: need.source_kind == "image",
        Feature.HUB_MODEL: need.source_kind == "hub",
        Feature.SPOT: need.spot is True,
        Feature.REGION: need.region is not None,
        Feature.SEVERAL_REPLICAS: need.replicas > 1,
        Feature.SERVERLESS: need.serverless.asked,
        Feature.MODEL_CACHE: need.model_cache,
        Feature.WORKLOAD: need.workload is not None,
        Feature.CLUSTER: need.cluster,
    }
    return tuple(feature for feature, is_wanted in wanted.items() if is_wanted)


def unknown_provider(name: str, known: Sequence[str]) -> Invalid:
    choices = ", ".join(("auto", *known))
    return Invalid.at(
        "body.provider", "known_provider", f"There is no provider {name!r}; choose one of {choices}."
    )


def has_room(placement: Placement) -> bool:
    """Whether any rung may be had now, as far as the providers tell."""
    return any(rung.offer.availability is not Availability.NONE for rung in placement.ladder)
