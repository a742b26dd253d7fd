"""Which offers may run a model, in which order, and why the others may not.

One ladder over all providers: what fits and what the owner allows, cheapest first. A refusal says what to
change, because "does not fit" helps nobody.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from moorage.domain.compute import (
    GIB,
    Availability,
    Offer,
    Placement,
    PlacementPolicy,
    RefusedOffer,
    Rung,
    RuntimeOption,
)

ANY_PROVIDER = "auto"

_LIKELIHOOD = {
    Availability.HIGH: 0,
    Availability.MEDIUM: 1,
    Availability.UNKNOWN: 2,
    Availability.LOW: 3,
    Availability.NONE: 4,
}


class Effort(IntEnum):
    """How much a user must give to get an obstacle out of the way, the least first."""

    WISH = 1  # drop or loosen a wish about compute
    LOAD = 2  # ask less of the model
    INSTALL = 3  # make a runtime usable there
    HARDWARE = 4  # other hardware
    HOPELESS = 5  # nothing that a request can change


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One reason against an offer; `degree` orders obstacles of equal effort, less is easier."""

    reason: str
    change: str | None
    effort: Effort
    degree: float = 0.0


def place(
    options: Sequence[RuntimeOption],
    offers: Sequence[Offer],
    policy: PlacementPolicy,
    recently_refused: Collection[tuple[str, str]] = (),
) -> Placement:
    """Ranks `offers` for a model that can run as any of `options` (preferred first).

    Ladder: total price per hour, then likelihood of capacity, then load time, then provider and id. Offers
    with no room now, and those of `recently_refused` ((provider, offer id) that had no capacity lately), come
    after the others. Every offer is in the ladder or in `refused`, whose first needs the least change.
    """
    rungs: list[Rung] = []
    refusals: list[tuple[tuple[float, ...], RefusedOffer]] = []
    for offer in offers:
        option, in_the_way = _best_option(options, offer)
        obstacles = [*in_the_way, *_against_policy(offer, policy)]
        if option is not None and not obstacles:
            rungs.append(Rung(offer, option.runtime, option.estimate))
        else:
            refusals.append((_trouble(obstacles), _refusal(offer, obstacles)))
    refused_lately = frozenset(recently_refused)
    rungs.sort(key=lambda rung: _rank(rung.offer, refused_lately))
    refusals.sort(key=lambda pair: (pair[0], pair[1].provider, pair[1].gpu or ""))
    return Placement(tuple(rungs), tuple(refusal for _, refusal in refusals))


def smallest_change(placement: Placement) -> str | None:
    """The one change that asks least of the user to get an offer; None when no change helps."""
    return next((r.smallest_change for r in placement.refused if r.smallest_change is not None), None)


def matches_gpu(wanted: str, offer: Offer) -> bool:
    """Whether an offer is of the GPU tier that a user named, loosely.

    Names are compared by their words, without case, vendor words and the unit GB: `A10` and `a10` mean
    "NVIDIA A10", never "A100" or "A10G"; `rtx4090` means "GeForce RTX 4090"; `A100-80` means
    "A100 80GB PCIe"; an offer's id counts like its GPU's name, so that `AMPERE_24` works.
    """
    name = "".join(_words(wanted))
    return bool(name) and any(name in _runs(_words(text)) for text in (offer.gpu or "", offer.id))


# -- order ------------------------------------------------------------------------------------------------


def _rank(offer: Offer, refused_lately: Collection[tuple[str, str]]) -> tuple[object, ...]:
    postponed = offer.availability is Availability.NONE or (offer.provider, offer.id) in refused_lately
    load = math.inf if offer.load_seconds is None else offer.load_seconds
    return (
        postponed,
        offer.price_per_hour,
        _LIKELIHOOD[offer.availability],
        load,
        offer.provider,
        offer.id,
    )


def _trouble(obstacles: Sequence[Obstacle]) -> tuple[float, ...]:
    """Sorts refusals: hardest obstacle first of all, then how many, then how far off."""
    hardest = max((o.effort for o in obstacles), default=Effort.HOPELESS)
    return (hardest, len(obstacles), sum(o.degree for o in obstacles))


def _refusal(offer: Offer, obstacles: Sequence[Obstacle]) -> RefusedOffer:
    changes = [o.change for o in obstacles]
    told = [change for change in changes if change is not None]
    return RefusedOffer(
        provider=offer.provider,
        gpu=offer.gpu,
        count=offer.count,
        reason="; ".join(o.reason for o in obstacles),
        smallest_change=" and ".join(told) if len(told) == len(changes) else None,
        region=offer.region,
        price_per_hour=offer.price_per_hour,
    )


# -- fit --------------------------------------------------------------------------------------------------


def _best_option(
    options: Sequence[RuntimeOption], offer: Offer
) -> tuple[RuntimeOption | None, list[Obstacle]]:
    """The preferred option that fits, or the one that comes closest with what is in its way."""
    closest: tuple[RuntimeOption, list[Obstacle]] | None = None
    for option in options:
        obstacles = list(_against_fit(option, offer))
        if not obstacles:
            return option, []
        if closest is None or _trouble(obstacles) < _trouble(closest[1]):
            closest = option, obstacles
    if closest is None:
        return None, [Obstacle("no runtime can serve the model", None, Effort.HOPELESS)]
    return closest


def _against_fit(option: RuntimeOption, offer: Offer) -> Iterator[Obstacle]:
    on_gpu = offer.count > 0
    if option.accelerator and not on_gpu:
        tier = f"a GPU with ≥ {option.estimate.min_vram_gb:g} GB"
        yield Obstacle(f"{option.runtime} needs a GPU, this offer has none", tier, Effort.HARDWARE)
        return
    if on_gpu and not option.accelerator:
        yield Obstacle(
            f"{option.runtime} runs on the CPU, it would leave the GPU idle", None, Effort.HOPELESS
        )
        return
    yield from _against_engine(option, offer)
    yield from _against_memory(option, offer)
    yield from _against_version(
        "compute capability", "newer GPU", option.min_compute_capability, offer.compute_capability
    )
    yield from _against_version("CUDA", "newer driver", option.min_cuda, offer.cuda)


def _against_engine(option: RuntimeOption, offer: Offer) -> Iterator[Obstacle]:
    if offer.engines is None or option.runtime in offer.engines:
        return
    why = dict(offer.engines_missing).get(option.runtime)
    if why is None:
        yield Obstacle(f"{offer.provider} does not run {option.runtime} here", None, Effort.HOPELESS)
    else:
        yield Obstacle(
            f"{option.runtime} cannot be used there: {why}",
            f"make {option.runtime} usable at {offer.provider} ({why})",
            Effort.INSTALL,
        )


def _against_memory(option: RuntimeOption, offer: Offer) -> Iterator[Obstacle]:
    if option.shards and offer.count > 1 and option.heads is not None and option.heads % offer.count:
        yield Obstacle(
            f"{option.heads} attention heads cannot be shared evenly by {offer.count} GPUs",
            f"a number of GPUs that divides {option.heads}",
            Effort.HARDWARE,
        )
        return
    room = _room(option, offer)
    needed = option.estimate.total_bytes
    if needed <= room:
        return
    what = f"this model needs {_gib(needed)}, this offers {_gib(room)} usable"
    alone = (
        " on one of its GPUs, and the model cannot be shared by several"
        if _stays_whole(option, offer)
        else ""
    )
    missing = math.log(needed / max(room, 1))
    smaller = next((c for c in option.concessions if c.total_bytes <= room), None)
    if smaller is not None:
        yield Obstacle(what + alone, smaller.change, Effort.LOAD, missing)
    elif offer.count == 0:
        yield Obstacle(what, f"free {_gib(needed)} of memory there", Effort.HARDWARE, missing)
    else:
        tier = f"a GPU with ≥ {option.estimate.min_vram_gb:g} GB: {what}"
        yield Obstacle(what + alone, tier, Effort.HARDWARE, missing)


def _stays_whole(option: RuntimeOption, offer: Offer) -> bool:
    return offer.count > 1 and not (option.shards and option.heads is not None)


def _room(option: RuntimeOption, offer: Offer) -> int:
    """Bytes that the total may fill: of all accelerators if the model can be shared, else of one."""
    if offer.count <= 1:
        return offer.usable_bytes
    if _stays_whole(option, offer):
        return offer.usable_bytes // offer.count
    return max(0, offer.usable_bytes - option.per_shard_bytes * (offer.count - 1))


def _against_version(what: str, fix: str, least: float | None, has: float | None) -> Iterator[Obstacle]:
    """What an offer does not tell is not held against it."""
    if least is not None and has is not None and has < least:
        yield Obstacle(
            f"needs {what} ≥ {least:.1f}, this has {has:.1f}",
            f"a {fix} with {what} ≥ {least:.1f}",
            Effort.HARDWARE,
            least - has,
        )


# -- policy -----------------------------------------------------------------------------------------------


def _against_policy(offer: Offer, policy: PlacementPolicy) -> Iterator[Obstacle]:
    if policy.provider not in (ANY_PROVIDER, offer.provider):
        yield _wish(
            f"provider {policy.provider} was asked for",
            f"ask for provider {offer.provider} or {ANY_PROVIDER}",
        )
    if policy.region is not None and not _in_region(policy.region, offer.region):
        where = f"is in {offer.region}" if offer.region else "names no region"
        yield _wish(f"region {policy.region} was asked for, this {where}", "drop region")
    if policy.gpu_tier is not None and not matches_gpu(policy.gpu_tier, offer):
        has = offer.gpu or "no GPU"
        yield _wish(f"gpu_tier {policy.gpu_tier} was asked for, this has {has}", "drop gpu_tier")
    if policy.spot is not None and policy.spot is not offer.spot:
        kind = "spot" if offer.spot else "not spot"
        wish = "spot" if policy.spot else "no spot"
        yield _wish(f"{wish} was asked for, this is {kind}", "drop spot")
    ceiling = policy.max_price_per_hour
    if ceiling is not None and offer.price_per_hour > ceiling:
        raised = math.ceil(offer.price_per_hour * 100 - 1e-9) / 100
        yield Obstacle(
            f"costs {offer.price_per_hour:.4g} USD per hour, at most {ceiling:.4g} was asked for",
            f"raise max_price_per_hour to {raised:.2f}",
            Effort.WISH,
            math.log(offer.price_per_hour / max(ceiling, 1e-3)),
        )


def _wish(reason: str, change: str) -> Obstacle:
    return Obstacle(reason, change, Effort.WISH, 1.0)


def _in_region(wanted: str, region: str | None) -> bool:
    """The same region, or one inside it: `EU` holds `EU-RO-1`, not `EUR-IS-1`."""
    if region is None:
        return False
    have, want = region.lower(), wanted.lower()
    return have == want or have.startswith(f"{want}-")


_VENDOR_WORDS = frozenset({"nvidia", "geforce", "tesla", "amd", "instinct", "gpu"})


def _words(text: str) -> list[str]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    named = [word for word in words if word not in _VENDOR_WORDS]
    return [re.sub(r"^(\d+)gb$", r"\1", word) for word in named if word != "gb"]


def _runs(words: Sequence[str]) -> frozenset[str]:
    """Every run of neighbouring words, written together."""
    count = len(words)
    return frozenset("".join(words[i:j]) for i in range(count) for j in range(i + 1, count + 1))


def _gib(count: float) -> str:
    return f"{count / GIB:.1f} GiB"
