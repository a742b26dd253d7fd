"""What the local driver sells: this machine's memory, and each of its GPUs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moorage.domain.compute import GB, Availability, Offer, Requirements
from moorage_managed.capacity import Room
from moorage_managed.gpus import Gpu
from moorage_managed.settings import PREFIX, LocalSettings

CPU_OFFER = "local-cpu"
GPU_ENGINES = frozenset({"sentence-transformers"})  # of the worker's engines, those that use a GPU

# No bill comes for the operator's own machine. This is about what large clouds ask for shared-core machines.
VCPU_HOUR = 0.022
GB_HOUR = 0.003
GPU_GB_HOUR = 0.025
PRICE_AS_OF = "2026-11-21"


@dataclass(frozen=True, slots=True)
class Market:
    """All that an offer is made from, read at one moment."""

    total_bytes: int
    cpu: Room
    gpus: Sequence[tuple[Gpu, Room]]
    engines: Mapping[str, str | None] | None  # None: the worker command is the operator's own


def make_offers(need: Requirements, market: Market, settings: LocalSettings) -> list[Offer]:
    return [
        _cpu_offer(need, market, settings),
        *(_gpu_offer(need, g, r, market, settings) for g, r in market.gpus),
    ]


def _cpu_offer(need: Requirements, market: Market, settings: LocalSettings) -> Offer:
    asked = asked_bytes(need, accelerator=False)
    usable = market.cpu.budget
    engines, missing = _engines(market, gpu=False)
    price, source = _price(min(asked or usable, usable), settings)
    return Offer(
        id=CPU_OFFER,
        provider="managed",
        gpu=None,
        count=0,
        memory_bytes=max(market.total_bytes, usable),
        usable_bytes=usable,
        price_per_hour=price,
        price_source=source,
        price_as_of=PRICE_AS_OF,
        availability=_availability(asked, need.replicas, market.cpu, usable),
        engines=engines,
        engines_missing=missing,
        note=_note(market.cpu),
        home=settings.machine,
    )


def _gpu_offer(need: Requirements, gpu: Gpu, room: Room, market: Market, settings: LocalSettings) -> Offer:
    engines, missing = _engines(market, gpu=True)
    return Offer(
        id=gpu.offer_id,
        provider="managed",
        gpu=gpu.name,
        count=1,
        memory_bytes=gpu.total,
        usable_bytes=gpu.usable,
        price_per_hour=round(gpu.total / GB * GPU_GB_HOUR, 4),
        price_source=f"estimate, not a bill: ${GPU_GB_HOUR} per GB of GPU memory and hour",
        price_as_of=PRICE_AS_OF,
        availability=_availability(asked_bytes(need, accelerator=True), need.replicas, room, gpu.usable),
        compute_capability=gpu.compute_capability,
        engines=engines,
        engines_missing=missing,
        note=_note(room),
        home=settings.machine,
    )


def asked_bytes(need: Requirements, *, accelerator: bool) -> int:
    """Bytes of one replica by the smallest option of that kind, 0 when there is none."""
    sizes = (o.estimate.total_bytes for o in need.options if o.accelerator is accelerator)
    return min(sizes, default=0)


def _availability(asked: int, replicas: int, room: Room, usable: int) -> Availability:
    """NONE says that the room is taken. What could never fit is not a matter of availability."""
    if asked <= usable and asked * max(1, replicas) > room.free:
        return Availability.NONE
    return Availability.HIGH if room.free >= room.budget // 2 else Availability.MEDIUM


def _price(asked: int, settings: LocalSettings) -> tuple[float, str]:
    if settings.price_per_hour is not None:
        return settings.price_per_hour, f"set by the operator ({PREFIX}PRICE_PER_HOUR)"
    price = settings.cpus * VCPU_HOUR + asked / GB * GB_HOUR
    return round(price, 4), (
        f"estimate, not a bill: ${VCPU_HOUR} per vCPU and ${GB_HOUR} per GB and hour; "
        f"set {PREFIX}PRICE_PER_HOUR to your own cost"
    )


def _engines(market: Market, *, gpu: bool) -> tuple[tuple[str, ...] | None, tuple[tuple[str, str], ...]]:
    if market.engines is None:
        return None, ()
    reasons = dict(market.engines)
    if gpu:
        for name in reasons.keys() - GPU_ENGINES:
            reasons[name] = "this engine runs on the CPU"
    usable = tuple(sorted(name for name, reason in reasons.items() if reason is None))
    return usable, tuple(sorted((name, reason) for name, reason in reasons.items() if reason is not None))


def _note(room: Room) -> str:
    return f"{room.free / GB:.1f} GB of {room.budget / GB:.1f} GB free"
