"""Creates and reads over HTTP, and what a deployment costs when there are many.

A create is counted when its 202 is there, which is after its commit is on disk. The engine drives every
accepted deployment to ready in the same process meanwhile; how many get there is told beside the rate, and
the rate with the engine at rest tells what the requests alone cost. The model check is warm, as it is for
whoever deploys one model many times; its cold cost is the Hub's.

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
LAST = 100  # creates that are timed at each size
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
        resting = [await _load(served, make, 202, seconds=SECONDS) for _ in range(ROUNDS)]
        accepted = WARM_UP + sum(len(result.latencies) for result in resting)
        driven = await _drain(served, accepted)
        working = []
        for _ in range(ROUNDS):
            working.append(await _load(served, make, 202, seconds=SECONDS))
            accepted += len(working[-1].latencies)
            await _until_serving(served, accepted)
        return [
            *_create_rows("creates, engine at work", _median(working)),
            *_create_rows("creates, engine at rest", _median(resting)),
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
    results = [
        await _load(served, lambda i: ready[i % len(ready)], 200, seconds=SECONDS / 2) for _ in range(ROUNDS)
    ]
    result = _median(results)
    return [
        Row("reads by id", result.rate, "/s", 4_000),
        Row("  p50", result.quantile(0.5) * 1e3, "ms"),
        Row("  p99", result.quantile(0.99) * 1e3, "ms"),
    ]


# -- growth -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of the last creates at one size. `latency` is the median request's, `cpu` what one deployment takes of
    the process from its request to ready, in seconds; `resident` is the process's memory, in bytes."""

    latency: float
    cpu: float
    resident: int


async def growth(folder: Path) -> list[Row]:
    """CPU time also holds what the engine does for the deployments that are there already."""
    with service(folder) as served:
        make = _creates(served)
        await _load(served, make, 202, count=WARM_UP)
        await _until_serving(served, WARM_UP)
        began = served.usage().resident
        costs: dict[int, _Cost] = {}
        made = 0
        for size in SIZES:
            if fill := size - LAST - made:
                await _load(served, make, 202, count=fill)
            made = size
            costs[size] = await _last(served, make, WARM_UP + size - LAST)
        return [*_growth_rows(costs, began)]


async def _last(served: ServiceProcess, make: MakeRequest, already: int) -> _Cost:
    """In four parts, of which the median counts."""
    await _until_serving(served, already)
    parts = 4
    latencies, cpu = [], []
    for part in range(1, parts + 1):
        before = served.usage()
        result = await _load(served, make, 202, count=LAST // parts)
        await _until_serving(served, already + part * LAST // parts)
        cpu.append((served.usage().cpu - before.cpu) / (LAST // parts))
        latencies.append(result.quantile(0.5))
    return _Cost(statistics.median(latencies), statistics.median(cpu), served.usage().resident)


def _growth_rows(costs: dict[int, _Cost], began: int) -> list[Row]:
    rows = []
    for size, cost in costs.items():
        rows.append(Row(f"the {LAST} creates up to {size:,}: p50", cost.latency * 1e3, "ms"))
        rows.append(Row("  CPU of one, from create to ready", cost.cpu * 1e3, "ms"))
        if cost.resident:
            rows.append(Row("  memory each", (cost.resident - began) / size / 1e3, "kB"))
    first, last = costs[SIZES[0]], costs[SIZES[-1]]
    rows.append(Row("last creates : first, p50", last.latency / first.latency, "x", 1, at_most=True))
    rows.append(Row("last creates : first, CPU", last.cpu / first.cpu, "x", 1, at_most=True))
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
