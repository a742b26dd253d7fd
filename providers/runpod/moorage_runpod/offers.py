"""What RunPod sells: its serverless pools, from the live catalog or, when that is silent, from the registry.

Pure. A pool holds several GPU types and one does not choose among them, so an offer promises what the least
of them has. Pools are an open set: one that the registry does not know is sold as the catalog describes it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from moorage.domain.compute import GIB, Availability, Offer, Requirements
from moorage_registries import load
from moorage_registries.schema import Price
from moorage_runpod.pools import PoolChoice
from moorage_runpod.settings import RunPodSettings, image_variable
from moorage_runpod.wire import GpuType

PROVIDER = "runpod"
SHARED_COUNTS = (2, 4, 8)  # sizes that attention heads divide by

_ORDER = (Availability.NONE, Availability.UNKNOWN, Availability.LOW, Availability.MEDIUM, Availability.HIGH)


@dataclass(frozen=True, slots=True)
class Catalog:
    """The live catalog as read on `as_of` (ISO date), or why there is none."""

    gpus: tuple[GpuType, ...] | None
    as_of: str
    silent: str | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """What is certain of a pool: the least of its types. `most` is how many GPUs a worker may have."""

    id: str
    gpus: tuple[str, ...]
    memory_gb: float
    compute_capability: float | None
    price: float  # of one GPU, USD per hour
    price_source: str
    price_as_of: str
    availability: Availability
    most: int
    note: str | None


def make_offers(need: Requirements, catalog: Catalog, settings: RunPodSettings) -> list[Offer]:
    if catalog.gpus is None:
        pools = [
            _registered(price, price.price_per_hour, catalog) for price in _prices() if price.price_per_hour
        ]
    else:
        pools = list(_live_pools(catalog.gpus, catalog.as_of, need.serverless.data_centers))
    engines = _engines(need, settings)
    return [_offer(pool, count, engines) for pool in pools for count in _counts(need, pool)]


def _counts(need: Requirements, pool: Pool) -> tuple[int, ...]:
    """Several GPUs only where a runtime can share a model among them: the others would leave them idle."""
    if not any(option.shards for option in need.options):
        return (1,)
    return (1, *(count for count in SHARED_COUNTS if count <= pool.most))


def _offer(
    pool: Pool, count: int, engines: tuple[tuple[str, ...] | None, tuple[tuple[str, str], ...]]
) -> Offer:
    return Offer(
        id=str(PoolChoice(pool.id, count)),
        provider=PROVIDER,
        gpu=" / ".join(pool.gpus),
        count=count,
        memory_bytes=int(pool.memory_gb * GIB),
        usable_bytes=load().tiers.usable_bytes(pool.memory_gb) * count,
        price_per_hour=round(pool.price * count, 6),
        price_source=pool.price_source,
        price_as_of=pool.price_as_of,
        availability=pool.availability,
        compute_capability=pool.compute_capability,
        engines=engines[0],
        engines_missing=engines[1],
        note=pool.note,
        by_running=True,
    )


def _engines(
    need: Requirements, settings: RunPodSettings
) -> tuple[tuple[str, ...] | None, tuple[tuple[str, str], ...]]:
    """Of an owner's image nothing is known, and it needs none of ours."""
    if need.source_kind == "image":
        return None, ()
    missing = tuple(
        (r.name, f"no worker image is set: {image_variable(r.name)}")
        for r in load().runtimes
        if r.gpu and r.name not in settings.images
    )
    return tuple(sorted(settings.images)), missing


# -- the live catalog -------------------------------------------------------------------------------------


def _live_pools(gpus: Sequence[GpuType], as_of: str, data_centers: Sequence[str]) -> Iterable[Pool]:
    by_pool: defaultdict[str, list[GpuType]] = defaultdict(list)
    for gpu in gpus:
        if gpu.pool is not None and gpu.manufacturer == "NVIDIA":  # our images are built for CUDA
            by_pool[gpu.pool].append(gpu)
    known = {price.product: price for price in _prices()}
    for id_ in sorted(by_pool):
        pool = _live_pool(id_, by_pool[id_], as_of, data_centers, known.get(id_))
        if pool is not None:
            yield pool


def _live_pool(
    id_: str, types: Sequence[GpuType], as_of: str, data_centers: Sequence[str], known: Price | None
) -> Pool | None:
    """None for a pool that has no price anywhere."""
    prices = [t.price.serverless for t in types if t.price.serverless]
    if prices:
        price, source, date = max(prices), "RunPod's catalog, live", as_of
    elif known is not None and known.price_per_hour is not None:
        price, source, date = known.price_per_hour, known.source, known.as_of.isoformat()
    else:
        return None
    memory = min(t.memory for t in types)
    names = tuple(sorted({_name(t) for t in types}))
    return Pool(
        id=id_,
        gpus=names,
        memory_gb=memory,
        compute_capability=_least_capability(t.id for t in types),
        price=price,
        price_source=source,
        price_as_of=date,
        availability=_best(_stock(t, data_centers) for t in types),
        most=min(max(t.max_count.secure, t.max_count.community) for t in types),
        note=f"one of {len(names)} GPU types, as RunPod chooses" if len(names) > 1 else None,
    )


def _stock(gpu: GpuType, data_centers: Sequence[str]) -> Availability:
    """In the wished data centers only, where there is a wish: RunPod takes it as a hard rule."""
    if not data_centers:
        return _availability(gpu.availability)
    wished = {name.upper() for name in data_centers}
    return _best(_availability(c.availability) for c in gpu.data_centers if c.id.upper() in wished)


def _availability(level: str | None) -> Availability:
    if level is None or level not in Availability.__members__:
        return Availability.UNKNOWN
    return Availability[level]


def _best(levels: Iterable[Availability]) -> Availability:
    return max(levels, key=_ORDER.index, default=Availability.NONE)


def _name(gpu: GpuType) -> str:
    known = load().gpu(gpu.id) or load().gpu(gpu.name)
    return known.name if known is not None else gpu.name


def _least_capability(ids: Iterable[str]) -> float | None:
    """Of the types that the registry knows; what is not known is not held against a pool."""
    known = (load().gpu(id_) for id_ in ids)
    return min((g.compute_capability for g in known if g is not None and g.compute_capability), default=None)


# -- the registry -----------------------------------------------------------------------------------------


def _prices() -> list[Price]:
    return [p for p in load().prices if p.provider == PROVIDER and p.billing == "serverless"]


def _registered(known: Price, price: float, catalog: Catalog) -> Pool:
    return Pool(
        id=known.product,
        gpus=known.gpus,
        memory_gb=known.memory_gb,
        compute_capability=_least_capability(known.gpus),
        price=price,
        price_source=known.source,
        price_as_of=known.as_of.isoformat(),
        availability=Availability.UNKNOWN,
        most=1,
        note=f"RunPod's catalog could not be asked: {catalog.silent}",
    )
