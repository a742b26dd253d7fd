"""Which workers an endpoint should have, and where one can run. Pure; the fleet carries it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from moorage_runpod.testing.catalog import Catalog
from moorage_runpod.testing.endpoint import IDLE_TIMEOUT, REQUEST_COUNT, EndpointSpec


class Lack(Enum):
    THROTTLED = auto()  # a worker is there, and waits for a machine
    ABSENT = auto()  # not even that


@dataclass(frozen=True, slots=True)
class Placement:
    """`gpu_type` None: a CPU worker. `price` in USD per hour."""

    pool: str
    gpu_type: str | None
    data_center: str
    price: float


@dataclass(frozen=True, slots=True)
class WorkerView:
    """`idle_since` is None while it works, or is not up."""

    id: str
    stale: bool
    placed: bool
    up: bool
    idle_since: float | None


@dataclass(frozen=True, slots=True)
class Load:
    """`oldest_wait` in seconds, of the job that waits longest."""

    queued: int = 0
    running: int = 0
    oldest_wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`look_again` in seconds from now, None when nothing will change by itself."""

    start: int = 0
    stop: tuple[str, ...] = ()
    look_again: float | None = None


def plan(spec: EndpointSpec, workers: Sequence[WorkerView], load: Load, now: float) -> Plan:
    fresh = [w for w in workers if not w.stale]
    target = _target(spec, fresh, load)
    stop = [w.id for w in workers if w.stale and (w.idle_since is not None or not w.up)]
    excess = len(fresh) - target
    waits: list[float] = []
    for worker in sorted(fresh, key=_worth):
        if excess <= 0:
            break
        left = 0.0 if len(fresh) - spec.workers_max > 0 else _seconds_left(spec, worker, now)
        if left is None:
            continue
        if left > 0:
            waits.append(left)
        else:
            stop.append(worker.id)
            fresh.remove(worker)
        excess -= 1
    start = max(0, target - len(fresh))
    if load.queued and spec.scaling.type != REQUEST_COUNT and load.oldest_wait < spec.scaling.value:
        waits.append(spec.scaling.value - load.oldest_wait)
    return Plan(start, tuple(stop), min(waits, default=None))


def place(
    spec: EndpointSpec,
    catalog: Catalog,
    volume_centers: frozenset[str],
    throttled: frozenset[str],
    absent: frozenset[str],
) -> Placement | Lack:
    """The first listed pool with a machine. `volume_centers` are those of its network volumes."""
    lacks: set[Lack] = set()
    for pool in spec.pools:
        if pool in absent or "*" in absent:
            lacks.add(Lack.ABSENT)
        elif pool in throttled or "*" in throttled:
            lacks.add(Lack.THROTTLED)
        else:
            found = _in_pool(spec, pool, catalog, volume_centers)
            if found is not None:
                return found
            lacks.add(Lack.THROTTLED)
    return Lack.ABSENT if lacks == {Lack.ABSENT} else Lack.THROTTLED


def _in_pool(
    spec: EndpointSpec, pool: str, catalog: Catalog, volume_centers: frozenset[str]
) -> Placement | None:
    allowed = [
        name
        for name in catalog.data_centers
        if (not spec.data_center_ids or name in spec.data_center_ids)
        and (not volume_centers or name in volume_centers)
    ]
    if spec.gpu is None:
        return Placement(pool, None, allowed[0], 0.0) if allowed else None
    for gpu in catalog.pool(pool):
        if gpu.id in spec.gpu.excluded_types:
            continue
        for center in gpu.data_centers:
            if center in allowed:
                return Placement(pool, gpu.id, center, catalog.prices[pool] * spec.gpu.count)
    return None


def _target(spec: EndpointSpec, fresh: Sequence[WorkerView], load: Load) -> int:
    demand = load.queued + load.running
    if spec.scaling.type == REQUEST_COUNT:
        wanted = math.ceil(demand / spec.scaling.value)
    elif load.queued == 0:
        wanted = load.running
    else:
        # The first worker comes at once; another when a job waits too long and none is on its way.
        coming = any(not w.up for w in fresh)
        late = load.oldest_wait >= spec.scaling.value and not coming
        wanted = max(1, len(fresh) + (1 if late else 0))
    return min(max(wanted, spec.workers_min), spec.workers_max)


def _worth(worker: WorkerView) -> tuple[bool, bool, float]:
    """Least first: without a machine, longest idle; a working one last."""
    return worker.placed, worker.up and worker.idle_since is None, worker.idle_since or 0.0


def _seconds_left(spec: EndpointSpec, worker: WorkerView, now: float) -> float | None:
    """How long an unneeded worker stays; None: until its state changes."""
    if not worker.placed:
        return 0.0
    if worker.idle_since is None:
        return None
    timeout = IDLE_TIMEOUT if spec.idle_timeout is None else spec.idle_timeout
    return max(0.0, worker.idle_since + timeout - now)
