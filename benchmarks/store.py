"""What the SQLite store carries: durable creates and reads by id, with 16 tasks in one process.

A create is what the API writes in one unit of work: deployment, event, delivery and idempotency record.
`python benchmarks/store.py [--creates N] [--reads N] [--tasks N]` prints a table.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from moorage.adapters.sql.store import SqlStore
from moorage.domain.delivery import Delivery
from moorage.domain.deployment import Deployment, DeploymentSpec, Phase, Status
from moorage.domain.event import Event
from moorage.domain.identity import IdempotencyRecord
from moorage.domain.model import HubModel
from moorage.ports.store import Append, Insert, Write

ORGANIZATION = "org_bench"
AIMS = {"create": (2500, 10.0), "read by id": (8000, math.inf)}  # per second; p99 in milliseconds


def create(number: int) -> Sequence[Write]:
    now = datetime.now(UTC)
    id_ = f"dep_{number:026d}"
    spec = DeploymentSpec(HubModel("sentence-transformers/all-MiniLM-L6-v2"), webhook_url="https://a.example")
    status = Status(Phase.VALIDATING, now, seeking_since=now)
    deployment = Deployment(id_, ORGANIZATION, f"bench-{number}", spec, status, now, "usr_1", due_at=now)
    event = Event(f"evt_{number:026d}", ORGANIZATION, id_, "deployment.validating", now, "usr_1", "accepted")
    delivery = Delivery(
        f"msg_{number:026d}", ORGANIZATION, id_, event.type, "https://a.example", "x" * 600, now, due_at=now
    )
    record = IdempotencyRecord(f"{ORGANIZATION} key-{number}", ORGANIZATION, "f" * 64, 202, "s" * 800, now)
    return [Insert(deployment), Append(event), Insert(delivery), Insert(record)]


async def measure(
    tasks: int, count: int, one: Callable[[int], Awaitable[object]]
) -> list[tuple[float, float]]:
    """(end, seconds) of each of `count` calls, made by `tasks` tasks in a closed loop."""
    numbers = iter(range(count))
    taken: list[tuple[float, float]] = []

    async def work() -> None:
        for number in numbers:
            begin = time.perf_counter()
            await one(number)
            end = time.perf_counter()
            taken.append((end, end - begin))

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
    return taken


def report(name: str, begin: float, taken: Sequence[tuple[float, float]]) -> None:
    rate = len(taken) / (taken[-1][0] - begin)
    times = sorted(seconds * 1000 for _, seconds in taken)
    p50, p99 = (times[math.ceil(len(times) * q) - 1] for q in (0.5, 0.99))
    aim, aim_p99 = AIMS[name]
    met = "reached" if rate >= aim and p99 <= aim_p99 else "missed"
    print(f"{name:<12}{rate:>10,.0f}/s   p50 {p50:6.2f} ms   p99 {p99:6.2f} ms   aim {aim:,}/s {met}")


def report_growth(begin: float, taken: Sequence[tuple[float, float]], size: int = 1000) -> None:
    """The first thousand creates against the last."""
    ends = [begin, *(end for end, _ in taken)]
    spans = [ends[i + size] - ends[i] for i in range(0, len(taken) - size + 1, size)]
    if len(spans) > 1:
        per = ", ".join(f"{span / size * 1e6:.0f}" for span in spans)
        print(f"µs a create, by thousands: {per}; the last costs {spans[-1] / spans[0]:.2f} × the first")


async def run(creates: int, reads: int, tasks: int, folder: Path) -> None:
    store = await SqlStore.open(f"sqlite:///{folder / 'bench.db'}")
    await measure(tasks, 200, lambda number: store.commit(create(10**9 + number)))  # statements get compiled
    begin = time.perf_counter()
    taken = await measure(tasks, creates, lambda number: store.commit(create(number)))
    report("create", begin, taken)
    report_growth(begin, taken)
    ids = itertools.cycle([f"dep_{number:026d}" for number in range(creates)])
    begin = time.perf_counter()
    report(
        "read by id", begin, await measure(tasks, reads, lambda _: store.deployment(next(ids), ORGANIZATION))
    )
    await store.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--creates", type=int, default=10_000)
    parser.add_argument("--reads", type=int, default=20_000)
    parser.add_argument("--tasks", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(run(options.creates, options.reads, options.tasks, Path(folder)))


if __name__ == "__main__":
    main()
