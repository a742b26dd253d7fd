"""What each store carries: units of work, reads and claims a second, all stores in one run.

A create is what the service writes in one unit for an accepted deployment: the deployment, its event, the
webhook message and the idempotency record. Writers and readers are tasks of one process, in a closed loop, as
requests are. A server of a store runs on the same machine, and shares its cores with them. A claim is one row
leased; claimers take some at a time, as the engine does.

    python -m benchmarks.stores [sqlite postgresql firestore]
"""

from __future__ import annotations

import asyncio
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import uvloop

from benchmarks import machine
from benchmarks.databases import STORES, Missing, databases
from benchmarks.table import Line, side_by_side
from moorage.domain.delivery import Delivery
from moorage.domain.deployment import Deployment, DeploymentSpec, Phase, Status
from moorage.domain.event import Event
from moorage.domain.identity import IdempotencyRecord
from moorage.domain.model import HubModel
from moorage.open_store import open_store
from moorage.ports.store import Append, Insert, Lease, Store, Write

ORGANIZATION = "org_bench"
WRITERS = (1, 16, 64)
READERS = 16
CLAIMERS = 4
CLAIMED_AT_ONCE = 16
SECONDS = 2.0  # of each measurement
WARM_UP = 50  # creates: statements get compiled, connections opened


@dataclass(frozen=True, slots=True)
class Rate:
    """Of calls in a closed loop: how many a second, and their latencies in seconds, ascending."""

    per_second: float
    latencies: Sequence[float]

    def quantile(self, q: float) -> float:
        if not self.latencies:
            return math.nan
        return self.latencies[max(0, math.ceil(len(self.latencies) * q) - 1)]


@dataclass(frozen=True, slots=True)
class Figures:
    creates: dict[int, Rate]  # by number of writers
    by_id: Rate
    by_name: Rate
    claims: Rate  # rows a second; latencies are of one claim of several


def unit(number: int) -> Sequence[Write]:
    """What `POST /v1/deployments` commits, with a webhook and an `Idempotency-Key`."""
    now = datetime.now(UTC)
    id_ = f"dep_{number:026d}"
    spec = DeploymentSpec(HubModel("sentence-transformers/all-MiniLM-L6-v2"), webhook_url="https://a.example")
    status = Status(Phase.VALIDATING, now, seeking_since=now)
    deployment = Deployment(id_, ORGANIZATION, _name(number), spec, status, now, "usr_1", due_at=now)
    event = Event(f"evt_{number:026d}", ORGANIZATION, id_, "deployment.validating", now, "usr_1", "accepted")
    delivery = Delivery(
        f"msg_{number:026d}", ORGANIZATION, id_, event.type, "https://a.example", "x" * 600, now, due_at=now
    )
    record = IdempotencyRecord(f"{ORGANIZATION} key-{number}", ORGANIZATION, "f" * 64, 202, "s" * 800, now)
    return [Insert(deployment), Append(event), Insert(delivery), Insert(record)]


def _name(number: int) -> str:
    return f"bench-{number}"


async def _loop(tasks: int, one: Callable[[], Awaitable[int]], seconds: float = SECONDS) -> Rate:
    """`one` tells how much it did; a task that did nothing ends."""
    latencies: list[float] = []
    done = 0
    began = time.perf_counter()

    async def work() -> None:
        nonlocal done
        while (begin := time.perf_counter()) - began < seconds and (did := await one()):
            latencies.append(time.perf_counter() - begin)
            done += did

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
    return Rate(done / (time.perf_counter() - began), sorted(latencies))


async def _measure(store: Store) -> Figures:
    numbers = itertools.count()
    made: list[int] = []

    async def create() -> int:
        number = next(numbers)
        await store.commit(unit(number))
        made.append(number)
        return 1

    for _ in range(WARM_UP):
        await create()
    creates = {writers: await _loop(writers, create) for writers in WRITERS}
    some = itertools.cycle(made)

    async def by_id() -> int:
        found = await store.deployment(f"dep_{next(some):026d}", ORGANIZATION)
        return _there(found)

    async def by_name() -> int:
        found = await store.deployment_named(ORGANIZATION, _name(next(some)))
        return _there(found)

    tokens = itertools.count()

    async def claim() -> int:
        now = datetime.now(UTC)
        lease = Lease(f"token-{next(tokens)}", now + timedelta(minutes=5))
        return len(await store.claim_deployments(lease, now, CLAIMED_AT_ONCE))

    return Figures(
        creates, await _loop(READERS, by_id), await _loop(READERS, by_name), await _loop(CLAIMERS, claim)
    )


def _there(found: Deployment | None) -> int:
    if found is None:
        raise RuntimeError("a deployment that was committed is not found")
    return 1


async def _open_and_measure(url: str) -> Figures:
    store = await open_store(url)
    try:
        return await _measure(store)
    finally:
        await store.aclose()


def _creates(writers: int, figures: Figures) -> Rate:
    return figures.creates[writers]


def report(found: dict[str, Figures]) -> str:
    def line(what: str, unit: str, of: Callable[[Figures], float]) -> Line:
        return Line(what, unit, [of(figures) for figures in found.values()])

    def rate(what: str, of: Callable[[Figures], Rate]) -> list[Line]:
        return [
            line(what, "/s", lambda figures: of(figures).per_second),
            line("  p50", "ms", lambda figures: of(figures).quantile(0.5) * 1e3),
            line("  p99", "ms", lambda figures: of(figures).quantile(0.99) * 1e3),
        ]

    lines: list[Line] = []
    for writers in WRITERS:
        lines += rate(f"creates, {writers} at once", partial(_creates, writers))
    lines += rate(f"reads by id, {READERS} at once", lambda figures: figures.by_id)
    lines += rate(f"reads by name, {READERS} at once", lambda figures: figures.by_name)
    lines += rate(f"claims, {CLAIMERS} × {CLAIMED_AT_ONCE} rows at once", lambda figures: figures.claims)
    return side_by_side(list(found), lines)


def run(stores: Sequence[str] = STORES) -> str:
    """The table, the first store being what the others are compared with; then which are missing and why."""
    found: dict[str, Figures] = {}
    skipped: list[str] = []
    for name in stores:
        print(f"{name} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            try:
                with databases(name, Path(folder)) as new_store:
                    found[name] = uvloop.run(_open_and_measure(new_store()))
            except Missing as why:
                skipped.append(f"{name} skipped: {why}")
    return "\n".join([report(found) if found else "no store could be measured", *skipped])


def main() -> None:
    print(machine.facts(), flush=True)
    others = machine.Others()
    print(run(sys.argv[1:] or STORES))
    print(others.report())


if __name__ == "__main__":
    main()
