"""What it costs that many deployments live on one replica, and how that grows with their number.

One service, its provider in its own memory, and so many deployments made over HTTP and brought to ready.
While all of them live: how long the news of a further one takes from the provider to the receiver, what the
process does when nobody asks for anything (it looks at every deployment once a minute, and the sweeper goes
through all endpoints), how much memory each takes (its endpoint in the provider's memory is part of it), and
whether lists, inference and the next start are slower than with few. Each size has a fresh service and store.

    python -m benchmarks.scale [--store sqlite] [1000 3000 10000]
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import uvloop

from benchmarks import machine
from benchmarks.databases import STORES, databases
from benchmarks.gateway import BODY, worker
from benchmarks.load import MakeRequest, Result, load, request
from benchmarks.receiver import ReceiverProcess, receiver
from benchmarks.service import HOST, MODEL, InMemory, ServiceProcess, service
from benchmarks.table import Line, Row, side_by_side

SIZES = (1_000, 3_000, 10_000)
WARM_UP = 50  # deployments before memory is counted
CONNECTIONS = 16
READY_AFTER = 1.0  # seconds from an endpoint's creation until it answers
CHANGES = 200  # further deployments that get ready while all others live
CHANGES_A_SECOND = 5.0  # of five messages each, all to one receiver
REQUESTS = 300  # lists, and inferences, one after the other
IDLE_SECONDS = 60.0  # every deployment is looked at once in it
LONGEST = 900.0  # seconds until all are ready, or all messages came
TICK = 0.25  # seconds between questions to a process


@dataclass(frozen=True, slots=True)
class Figures:
    """Times in seconds, memory in bytes. `latencies` are from ready to webhook received, ascending."""

    deployments: int
    to_ready: float  # all of them, from the first create on
    latencies: Sequence[float]
    change_cpu: float  # of one, from its create to its last message, with what else goes on meanwhile
    idle_cpu: float  # seconds a minute
    resident: float  # of each deployment beyond the first few
    list_p50: float
    infer_p50: float
    startup: float  # of the next service on the same store

    def latency(self, q: float) -> float:
        return self.latencies[max(0, math.ceil(q * len(self.latencies)) - 1)]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured at one size. Each call of `new_store` gives the URL of an empty one."""

    deployments: int
    new_store: Callable[[], str | None] = field(default=lambda: None)
    changes: int = CHANGES
    idle: float = IDLE_SECONDS


async def measure(plan: Plan) -> Figures:
    with tempfile.TemporaryDirectory() as folder, worker() as port:
        memory, url = InMemory(READY_AFTER, f"http://{HOST}:{port}"), plan.new_store()
        with service(Path(folder), memory=memory, database_url=url) as served:
            await _create(served, WARM_UP, WARM_UP)
            before = served.usage().resident
            began = time.perf_counter()
            await _create(served, plan.deployments - WARM_UP, plan.deployments)
            to_ready = time.perf_counter() - began
            await _settled(served)
            resident = (served.usage().resident - before) / (plan.deployments - WARM_UP)
            list_p50, infer_p50 = await _requests(served)
            with receiver("deployment.ready") as received:
                cpu = served.usage().cpu
                latencies = await _changes(served, received, plan.changes)
                change_cpu = (served.usage().cpu - cpu) / plan.changes
            await _settled(served)
            idle_cpu = await _idle_cpu(served, plan.idle)
        with service(Path(folder), memory=memory, database_url=url) as again:
            startup = again.startup
    return Figures(
        plan.deployments, to_ready, latencies, change_cpu, idle_cpu, resident, list_p50, infer_p50, startup
    )


async def _load(
    served: ServiceProcess,
    make: MakeRequest,
    status: int,
    count: int,
    *,
    connections: int = CONNECTIONS,
    rate: float | None = None,
) -> Result:
    """Raises RuntimeError for any answer but `status`."""
    result = await load(HOST, served.port, make, connections=connections, count=count, rate=rate)
    if set(result.statuses) != {status}:
        raise RuntimeError(f"not every answer was {status}: {dict(result.statuses)}")
    return result


def _create_request(served: ServiceProcess, webhook: str | None = None) -> bytes:
    asked = {"hf_model_id": MODEL} | ({} if webhook is None else {"user_webhook_url": webhook})
    return request("POST", "/v1/deployments", served.headers, orjson.dumps(asked))


async def _create(served: ServiceProcess, count: int, altogether: int) -> None:
    data = _create_request(served)
    await _load(served, lambda _: data, 202, count)
    async with asyncio.timeout(LONGEST):
        while served.serving() < altogether:  # noqa: ASYNC110 - the other end is a process
            await asyncio.sleep(TICK)


async def _settled(served: ServiceProcess) -> None:
    """Until what its last work led to has ended: looks at intervals go on for ever."""
    last, before = math.inf, served.usage().cpu
    while True:
        await asyncio.sleep(2.0)
        now = served.usage().cpu
        if now - before >= last * 0.8 or now - before < 0.05:
            return
        last, before = now - before, now


async def _requests(served: ServiceProcess) -> tuple[float, float]:
    """Medians of a page of fifty, and of an inference, on one connection."""
    page = request("GET", "/v1/deployments?limit=50", served.headers)
    listed = await _load(served, lambda _: page, 200, REQUESTS, connections=1)
    ids = sorted(served.ready())
    infers = [request("POST", f"/v1/models/{id_}/infer", served.headers, BODY) for id_ in ids[:REQUESTS]]
    inferred = await _load(served, lambda i: infers[i % len(infers)], 200, REQUESTS, connections=1)
    return listed.quantile(0.5), inferred.quantile(0.5)


async def _changes(served: ServiceProcess, received: ReceiverProcess, count: int) -> Sequence[float]:
    """Seconds from when an endpoint answers until the webhook that says so is received, ascending."""
    data = _create_request(served, received.url)
    await _load(served, lambda _: data, 202, count, rate=CHANGES_A_SECOND)
    async with asyncio.timeout(LONGEST):
        while len(came := received.came()) < count:  # noqa: ASYNC110 - the other end is a process
            await asyncio.sleep(TICK)
    ready = served.ready()
    return sorted(at - ready[id_] for id_, at in came.items())


async def _idle_cpu(served: ServiceProcess, seconds: float) -> float:
    began, before = time.perf_counter(), served.usage().cpu
    await asyncio.sleep(seconds)
    return (served.usage().cpu - before) * 60 / (time.perf_counter() - began)


# -- figures ----------------------------------------------------------------------------------------------


def report(found: Sequence[Figures]) -> str:
    def line(what: str, unit: str, of: Callable[[Figures], float]) -> Line:
        return Line(what, unit, [of(figures) for figures in found])

    lines = [
        line("created and driven to ready", "/s", lambda f: (f.deployments - WARM_UP) / f.to_ready),
        line(f"ready to webhook, n {len(found[0].latencies)}: p50", "ms", lambda f: f.latency(0.5) * 1e3),
        line("  p99", "ms", lambda f: f.latency(0.99) * 1e3),
        line("  longest", "ms", lambda f: f.latency(1.0) * 1e3),
        line("  CPU of one, from create to webhook", "ms", lambda f: f.change_cpu * 1e3),
        line("CPU when idle", "s/min", lambda f: f.idle_cpu),
        line("  of each deployment", "ms/min", lambda f: f.idle_cpu / f.deployments * 1e3),
        line("memory of each deployment", "kB", lambda f: f.resident / 1e3),
        line("a page of 50, p50", "ms", lambda f: f.list_p50 * 1e3),
        line("an inference, p50", "ms", lambda f: f.infer_p50 * 1e3),
        line("start with all in the store", "s", lambda f: f.startup),
    ]
    return side_by_side([f"{figures.deployments:,}" for figures in found], lines)


async def run(deployments: int = 1_000, changes: int = 200) -> list[Row]:
    """One size, for the table of all benchmarks."""
    found = await measure(Plan(deployments, changes=changes))
    return [
        Row(f"{deployments:,} live: ready to webhook, n {changes}: p50", found.latency(0.5) * 1e3, "ms"),
        Row("  p99", found.latency(0.99) * 1e3, "ms", 1_000, at_most=True),
        Row("  CPU when idle", found.idle_cpu, "s/min"),
        Row("  memory of each", found.resident / 1e3, "kB"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES)
    parser.add_argument("--store", choices=STORES, default=STORES[0])
    parser.add_argument("--changes", type=int, default=CHANGES)
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS, help="seconds")
    options = parser.parse_args()
    print(machine.facts(), flush=True)
    others, found = machine.Others(), []
    with tempfile.TemporaryDirectory() as folder, databases(options.store, Path(folder)) as new_store:
        for size in options.sizes:
            print(f"{size:,} on {options.store} …", file=sys.stderr, flush=True)
            found.append(uvloop.run(measure(Plan(size, new_store, options.changes, options.idle))))
            print(report(found[-1:]), file=sys.stderr, flush=True)
    print(report(found))
    print(others.report())


if __name__ == "__main__":
    main()
