"""The ladder against a brute-force oracle that was written without looking at the code."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.domain.compute import Availability, Estimate, Offer, PlacementPolicy, RuntimeOption
from moorage.domain.placement import place

# Few and small values on purpose: ties, near misses and exact fits must happen often, and most of what is
# drawn must get past each rule, or the others are never tried.
OPTIONS = st.lists(
    st.builds(
        RuntimeOption,
        runtime=st.sampled_from(["onnx", "vllm", "diffusers"]),
        accelerator=st.booleans(),
        estimate=st.integers(1, 30).map(lambda total: Estimate(total, 6, ())),
        min_compute_capability=st.sampled_from([None, None, 7.0, 8.0, 8.9]),
        min_cuda=st.sampled_from([None, None, 12.1]),
        shards=st.booleans(),
        heads=st.sampled_from([None, 6, 8]),
        per_shard_bytes=st.integers(0, 3),
    ),
    min_size=0,
    max_size=4,
)
OFFER = st.builds(
    Offer,
    id=st.just(""),
    provider=st.sampled_from(["runpod", "managed"]),
    gpu=st.sampled_from(["NVIDIA L4", "NVIDIA L40S", "NVIDIA A100 80GB PCIe"]),
    count=st.sampled_from([0, 0, 1, 1, 2, 4]),
    memory_bytes=st.just(24),
    usable_bytes=st.integers(0, 60),
    price_per_hour=st.sampled_from([0.0, 0.25, 0.684, 1.908]),
    price_source=st.just(""),
    price_as_of=st.just("2026-01-01"),
    region=st.sampled_from([None, "EU-RO-1", "US-KS-2"]),
    spot=st.booleans(),
    availability=st.sampled_from(Availability),
    compute_capability=st.sampled_from([None, 7.5, 8.6, 8.9]),
    cuda=st.sampled_from([None, 11.8, 12.4]),
    engines=st.sampled_from([None, None, None, ("onnx",), ("vllm", "diffusers")]),
    load_seconds=st.sampled_from([None, 5.0, 60.0]),
)
OFFERS = st.lists(OFFER, min_size=1, max_size=10).map(
    lambda found: [replace(o, id=f"offer{i}", gpu=o.gpu if o.count else None) for i, o in enumerate(found)]
)
WISHES: dict[str, st.SearchStrategy[object]] = {
    "provider": st.just("managed"),
    "gpu_tier": st.sampled_from(["L4", "a100"]),
    "region": st.sampled_from(["EU-RO-1", "us"]),
    "spot": st.booleans(),
    "max_price_per_hour": st.sampled_from([0.5, 1.0]),
}
POLICIES = (
    st.sets(st.sampled_from(sorted(WISHES)), max_size=2)
    .flatmap(lambda names: st.fixed_dictionaries({name: WISHES[name] for name in names}))
    .map(lambda wishes: PlacementPolicy(**wishes))  # type: ignore[arg-type]  # names of its fields
)
REFUSED = st.frozensets(
    st.tuples(st.sampled_from(["runpod", "managed"]), st.sampled_from(["offer0", "offer1"])), max_size=2
)


def can_run(option: RuntimeOption, offer: Offer) -> bool:
    if option.accelerator != (offer.count > 0):
        return False
    if offer.engines is not None and option.runtime not in offer.engines:
        return False
    for least, has in (
        (option.min_compute_capability, offer.compute_capability),
        (option.min_cuda, offer.cuda),
    ):
        if least is not None and has is not None and has < least:
            return False
    total = option.estimate.total_bytes
    if offer.count < 2:
        return total <= offer.usable_bytes
    if option.shards and option.heads is not None:
        shared = total + (offer.count - 1) * option.per_shard_bytes
        return option.heads % offer.count == 0 and shared <= offer.usable_bytes
    return total * offer.count <= offer.usable_bytes


def allowed(offer: Offer, policy: PlacementPolicy) -> bool:
    gpu_names = {"L4": "NVIDIA L4", "a100": "NVIDIA A100 80GB PCIe", None: offer.gpu}
    regions = {"EU-RO-1": "EU-RO-1", "us": "US-KS-2", None: offer.region}
    price = policy.max_price_per_hour
    return (
        (policy.provider == "auto" or policy.provider == offer.provider)
        and gpu_names[policy.gpu_tier] == offer.gpu
        and regions[policy.region] == offer.region
        and (policy.spot is None or policy.spot == offer.spot)
        and (price is None or offer.price_per_hour <= price)
    )


def comes_before(a: Offer, b: Offer, refused: frozenset[tuple[str, str]]) -> bool:
    def last(o: Offer) -> bool:
        return o.availability == "none" or (o.provider, o.id) in refused

    if last(a) != last(b):
        return last(b)
    if a.price_per_hour != b.price_per_hour:
        return a.price_per_hour < b.price_per_hour
    likelihood = ["high", "medium", "unknown", "low", "none"]
    if a.availability != b.availability:
        return likelihood.index(a.availability) < likelihood.index(b.availability)
    if a.load_seconds != b.load_seconds:
        return b.load_seconds is None or (a.load_seconds is not None and a.load_seconds < b.load_seconds)
    return (a.provider, a.id) < (b.provider, b.id)


def brute_force(
    options: list[RuntimeOption],
    offers: list[Offer],
    policy: PlacementPolicy,
    refused: frozenset[tuple[str, str]],
) -> list[tuple[str, str]]:
    left = [o for o in offers if allowed(o, policy) and any(can_run(option, o) for option in options)]
    order = []
    while left:
        (first,) = (o for o in left if all(o is p or comes_before(o, p, refused) for p in left))
        left.remove(first)
        order.append((first.id, next(option.runtime for option in options if can_run(option, first))))
    return order


@settings(max_examples=500, deadline=None)
@given(OPTIONS, OFFERS, POLICIES, REFUSED)
def test_the_ladder_agrees_with_brute_force(
    options: list[RuntimeOption],
    offers: list[Offer],
    policy: PlacementPolicy,
    refused: frozenset[tuple[str, str]],
) -> None:
    placement = place(options, offers, policy, refused)
    assert [(r.offer.id, r.runtime) for r in placement.ladder] == brute_force(
        options, offers, policy, refused
    )
    in_ladder = {rung.offer.id for rung in placement.ladder}
    left_out = Counter(
        (o.provider, o.gpu, o.count, o.region, o.price_per_hour) for o in offers if o.id not in in_ladder
    )
    told = Counter((r.provider, r.gpu, r.count, r.region, r.price_per_hour) for r in placement.refused)
    assert told == left_out, "every offer is in exactly one of the two"
    assert all(r.reason for r in placement.refused)


@settings(max_examples=300, deadline=None)
@given(OPTIONS, OFFER, POLICIES)
def test_doing_what_a_refusal_says_about_wishes_gets_the_offer(
    options: list[RuntimeOption], offer: Offer, policy: PlacementPolicy
) -> None:
    offer = replace(offer, id="it", gpu=offer.gpu if offer.count else None)
    for refused in place(options, [offer], policy).refused:
        changed = follow(policy, refused.smallest_change or "")
        if changed is not None:
            assert len(place(options, [offer], changed).ladder) == 1


def follow(policy: PlacementPolicy, change: str) -> PlacementPolicy | None:
    """The policy with all changes made; None when one of them is not about wishes."""
    for part in change.split(" and "):
        if price := re.fullmatch(r"raise max_price_per_hour to ([\d.]+)", part):
            policy = replace(policy, max_price_per_hour=float(price[1]))
        elif wish := re.fullmatch(r"drop (region|gpu_tier|spot)", part):
            policy = replace(policy, **{wish[1]: None})  # type: ignore[arg-type]  # a name of its fields
        elif provider := re.fullmatch(r"ask for provider (\w+) or auto", part):
            policy = replace(policy, provider=provider[1])
        else:
            return None
    return policy
