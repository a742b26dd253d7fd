"""From a request to a ranked ladder: what a dry plan, a check before accepting, and the engine all need.

It stands on a floor of its own between the ports and the engine and services, because both of these place and
neither may import the other. It reads (Hub, offers) and decides nothing that is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from moorage.domain.catalog import Catalog
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
from moorage.domain.model import ContainerImage, HubModel, ModelProfile, Source
from moorage.domain.placement import place
from moorage.errors import Invalid, ProviderError, Retry
from moorage.ports import Clock, ModelHub, Provider

REFUSAL_SECONDS = 60.0  # how long a refused offer is tried last
REFUSALS_KEPT = 1000

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

    async def plan(self, spec: DeploymentSpec, hf_token: str | None) -> Plan:
        return await self.place(spec, await self.profile(spec.source, hf_token))

    async def place(self, spec: DeploymentSpec, profile: ModelProfile | None) -> Plan:
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
        )
        asked = self._asked(policy)
        answers = await asyncio.gather(*(self._offers(p, need) for p in asked))
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
        self, provider: Provider, need: Requirements
    ) -> tuple[Sequence[Offer], tuple[RefusedOffer, ...]]:
        for feature in needed_features(need):
            reason = provider.unsupported.get(feature)
            if reason is not None:
                change = _WITHOUT[feature]
                return (), (RefusedOffer(provider.name, None, 0, reason, change),)
        try:
            return await provider.offers(need, None), ()
        except Retry as error:
            return (), (_Silent(provider.name, None, 0, error.detail, error.advice),)
        except ProviderError as error:
            return (), (RefusedOffer(provider.name, None, 0, error.detail, error.advice),)


class _Silent(RefusedOffer):
    """A provider that did not answer now; it may tomorrow."""


_WITHOUT = {
    Feature.CONTAINER_IMAGE: "name a model with hf_model_id, or choose a provider that runs images",
    Feature.HUB_MODEL: "choose another provider",
    Feature.GPU: "choose another provider",
    Feature.SPOT: "leave out spot, or choose another provider",
    Feature.REGION: "leave out region, or choose another provider",
    Feature.SEVERAL_REPLICAS: "ask for one replica, or choose another provider",
}


def needed_features(need: Requirements) -> tuple[Feature, ...]:
    wanted = {
        Feature.CONTAINER_IMAGE: need.source_kind == "image",
        Feature.HUB_MODEL: need.source_kind == "hub",
        Feature.SPOT: need.spot is True,
        Feature.REGION: need.region is not None,
        Feature.SEVERAL_REPLICAS: need.replicas > 1,
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
