"""Creates and reads over HTTP, and what a deployment costs when there are many.

A create is counted when its 202 is there, which is after its commit is on disk. The engine drives every
accepted deployment to ready in the same process meanwhile; how many get there is told beside the rate, and
the rate with the engine at rest tells what the requests alone cost. The model check is warm, as it is for
whoever deploys one model many times; its cold cost is the Hub's. Rates "by CPU time" do not suffer from who
else uses the machine. On a slow machine the last creates fall into the minute in which the first deployments
are looked at again, which their CPU time then holds.

    python -m benchmarks.control_plane
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import uvloop

from benchmarks.load import MakeRequest, Result, load, request
from benchmarks.service import HOST, MODEL, ServiceProcess, service
from benchmarks.table import Row, table

CONNECTIONS = 16
WARM_UP = 200  # creates before anything is measured
SECONDS = 2.0
ROUNDS = 3  # short runs, of which the median is told: others may use this machine
SIZES = (100, 1_000, 10_000)
PART, PARTS = 100, 3  # creates that are timed at each size
QUIET = 0.5  # seconds in which the process must do next to nothing
SAME = 1.1  # what "as cheap as the first" may come to on a machine that others use
LONGEST_DRAIN = 90.0  # seconds in which the engine must have driven what was accepted


def _creates(served: ServiceProcess) -> MakeRequest:
    data = request("POST", "/v1/deployments", served.headers, orjson.dumps({"hf_model_id": MODEL}))
    return lambda _: data


async def _load(
    served: ServiceProcess,
    make: MakeRequest,
    status: int,
    *,
    seconds: float | None = None,
    count: int | None = None,
) -> Result:
    """Raises RuntimeError for any answer but `status`: a refusal is no figure."""
    result = await load(HOST, served.port, make, connections=CONNECTIONS, seconds=seconds, count=count)
    if set(result.statuses) != {status}:
        raise RuntimeError(f"not every answer was {status}: {dict(result.statuses)}")
    return result


async def _until_serving(served: ServiceProcess, count: int) -> None:
    async with asyncio.timeout(LONGEST_DRAIN):
        while served.serving() < count:  # noqa: ASYNC110 - the other end is a process
            await asyncio.sleep(0.05)


def _median(results: Sequence[Result]) -> Result:
    return sorted(results, key=lambda result: result.rate)[len(results) // 2]


# -- rates ------------------------------------------------------------------------------------------------


async def rates(folder: Path) -> list[Row]:
    with service(folder) as served:
        make = _creates(served)
        await _load(served, make, 202, count=WARM_UP)
        await _until_serving(served, WARM_UP)
        reads = await _reads(served)
        served.pause_engine()
        before = served.usage().cpu
        resting = [await _load(served, make, 202, seconds=SECONDS) for _ in range(ROUNDS)]
        rested = sum(len(result.latencies) for result in resting)
        create_cpu = (served.usage().cpu - before) / rested
        accepted = WARM_UP + rested
        driven = await _drain(served, accepted)
        working, meanwhile = [], []
        for _ in range(ROUNDS):
            await _until_quiet(served)
            working.append(await _load(served, make, 202, seconds=SECONDS))
            meanwhile.append((served.serving() - accepted) / working[-1].seconds)
            accepted += len(working[-1].latencies)
            await _until_serving(served, accepted)
        return [
            *_create_rows("creates, engine at work", _median(working)),
            Row("  driven to ready meanwhile", statistics.median(meanwhile), "/s"),
            *_create_rows("creates, engine at rest", _median(resting)),
            Row("  by CPU time of one create", 1 / create_cpu, "/s"),
            Row("driven from accepted to ready, no requests", driven, "/s"),
            *reads,
        ]


async def _drain(served: ServiceProcess, accepted: int) -> float:
    """Deployments a second that the engine drives when it has nothing else to share the process with."""
    begin, before = time.perf_counter(), served.serving()
    served.resume_engine()
    await _until_serving(served, accepted)
    return (accepted - before) / (time.perf_counter() - begin)


def _create_rows(what: str, result: Result) -> list[Row]:
    return [
        Row(what, result.rate, "/s", 1_000),
        Row("  p50", result.quantile(0.5) * 1e3, "ms"),
        Row("  p99", result.quantile(0.99) * 1e3, "ms", 25, at_most=True),
    ]


async def _reads(served: ServiceProcess) -> list[Row]:
    """Of deployments that are ready, whose documents are the longest."""
    async with httpx.AsyncClient(base_url=served.url, headers=served.headers) as http:
        page = (await http.get("/v1/deployments", params={"limit": 200})).raise_for_status().json()
    ready = [
        request("GET", f"/v1/deployments/{item['deployment_id']}", served.headers) for item in page["items"]
    ]
    before = served.usage().cpu
    results = [
        await _load(served, lambda i: ready[i % len(ready)], 200, seconds=SECONDS / 2) for _ in range(ROUNDS)
    ]
    cpu = (served.usage().cpu - before) / sum(len(result.latencies) for result in results)
    result = _median(results)
    return [
        Row("reads by id", result.rate, "/s", 4_000),
        Row("  p50", result.quantile(0.5) * 1e3, "ms"),
        Row("  p99", result.quantile(0.99) * 1e3, "ms"),
        Row("  by CPU time of one read", 1 / cpu, "/s"),
    ]


# -- growth -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cost:
    """Medians at one size, in seconds: of a create's latency, with the engine at rest, and of the CPU time
    that one deployment takes from its request to ready. `resident` is the process's memory, in bytes."""

    latency: float
    cpu: float
    resident: int


async def growth(folder: Path) -> list[Row]:
    with service(folder) as served:
        make = _creates(served)
        there = 0
        costs: dict[int, _Cost] = {}
        for size in SIZES:
            await _load(served, make, 202, count=size - there)
            costs[size] = await _cost_at(served, make, size)
            there = size + PARTS * PART
        return _growth_rows(costs)


async def _cost_at(served: ServiceProcess, make: MakeRequest, size: int) -> _Cost:
    await _until_serving(served, size)
    await _until_quiet(served)
    resident = served.usage().resident
    latencies, cpu = [], []
    for part in range(1, PARTS + 1):
        before = served.usage().cpu
        served.pause_engine()
        result = await _load(served, make, 202, count=PART)
        served.resume_engine()
        await _until_serving(served, size + part * PART)
        await _until_quiet(served)  # what follows a start belongs to it
        cpu.append((served.usage().cpu - before) / PART)
        latencies.append(result.quantile(0.5))
    return _Cost(statistics.median(latencies), statistics.median(cpu), resident)


async def _until_quiet(served: ServiceProcess) -> None:
    """Until the process does no more than it always does: its CPU time has stopped falling."""
    last, before = float("inf"), served.usage().cpu
    while True:
        await asyncio.sleep(QUIET)
        now = served.usage().cpu
        if now - before >= last * 0.8 or now - before < QUIET * 0.02:
            return
        last, before = now - before, now


def _growth_rows(costs: dict[int, _Cost]) -> list[Row]:
    least, rows = SIZES[0], []
    first, last = costs[least], costs[SIZES[-1]]
    for size, cost in costs.items():
        rows.append(Row(f"at {size:,} deployments: create, p50", cost.latency * 1e3, "ms"))
        rows.append(Row("  CPU of one, from create to ready", cost.cpu * 1e3, "ms"))
        rows.append(Row("  memory of the process", cost.resident / 1e6, "MB"))
        if size > least:
            each = (cost.resident - first.resident) / (size - least)
            rows.append(Row(f"  memory of each beyond {least:,}", each / 1e3, "kB"))
    ratio = f"at {SIZES[-1]:,} : at {least:,}"
    rows.append(Row(f"create p50, {ratio}", last.latency / first.latency, "x", SAME, at_most=True))
    rows.append(Row(f"CPU of one, {ratio}", last.cpu / first.cpu, "x", SAME, at_most=True))
    return rows


async def run() -> list[Row]:
    rows = []
    for part in (rates, growth):
        with tempfile.TemporaryDirectory() as folder:
            rows += await part(Path(folder))
    return rows


def main() -> None:
    print(table(uvloop.run(run())))


if __name__ == "__main__":
    main()
