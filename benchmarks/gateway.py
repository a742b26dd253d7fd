"""What the gateway costs: requests a second on one core, and the latency that it adds to a worker.

Three processes: a worker stand-in (raw asyncio, a fixed JSON answer), the gateway under uvicorn as the
service runs it, and this one, which makes the load. The gateway is pinned to one core and the other two share
the rest, where the system allows. On a machine with two cores the load and the worker compete for one: the
full-load figures are then a lower bound, so the added latency is also taken at half of the gateway's rate.
Even there the tail holds the scheduler's slices (some 3 ms) in which one of the two waits for the other.
A gateway that is not full wakes up more often for fewer requests at once, and so spends more CPU on each.
CPU time per request is the gateway process's own and does not suffer from neighbours.

    python -m benchmarks.gateway
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import uvicorn
import uvloop

from benchmarks.load import MakeRequest, Result, load, request
from benchmarks.table import Row
from moorage.domain.identity import Principal, Role
from moorage.errors import Unauthenticated
from moorage.gateway import heap
from moorage.gateway.asgi import RawHeaders, Receive, Scope, Send
from moorage.gateway.proxy import Gateway
from moorage.gateway.routes import Route, RoutePublisher, RouteTable

ORGANIZATION = "org_bench"
TOKEN = b"Bearer benchmark"
BODY = b'{"inputs":"a small request, as most are","parameters":{"top_k":3}}'
ANSWER = b'{"outputs":[{"label":"7","score":0.93},{"label":"1","score":0.04},{"label":"9","score":0.02}]}'
WARM_UP_SECONDS = 0.7
FULL_SECONDS = 1.3
OFFERED_SECONDS = 1.5


# -- the worker stand-in ----------------------------------------------------------------------------------


class _Worker(asyncio.Protocol):
    _answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (len(ANSWER), ANSWER)
    )  # fmt: skip

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head >= 0 and len(self._buffer) >= head + 4 + len(BODY):
            self._buffer = self._buffer[head + 4 + len(BODY) :]
            self._transport.write(self._answer)  # type: ignore[attr-defined]  # a stream's transport


def _run_worker(pipe: Connection, cores: frozenset[int]) -> None:
    _pin(cores)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Worker, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().run_in_executor(None, pipe.poll, None)

    uvloop.run(serve())


# -- the gateway ------------------------------------------------------------------------------------------


def _authenticate(headers: RawHeaders) -> Principal:
    for name, value in headers:
        if name == b"authorization" and value == TOKEN:
            return Principal("key_bench", ORGANIZATION, Role.INVOKER)
    raise Unauthenticated("No token.")


async def _not_here(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError(f"nothing is served at {scope['path']}")


def _run_gateway(pipe: Connection, cores: frozenset[int], worker_port: int, routes: int) -> None:
    """Reports its port, then its CPU seconds each time it is asked, until it is told to end."""
    _pin(cores)
    target = f"http://127.0.0.1:{worker_port}"
    table = RouteTable(
        Route(f"dep_{i:05}", ORGANIZATION, f"digits-{i}", ("org/digits",), (target,)) for i in range(routes)
    )
    gateway = Gateway(RoutePublisher(table), _authenticate, _not_here)
    config = uvicorn.Config(
        gateway, port=0, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="error"
    )

    async def serve() -> None:
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no signal for it
            await asyncio.sleep(0.01)
        heap.settle()
        pipe.send(server.servers[0].sockets[0].getsockname()[1])
        loop = asyncio.get_running_loop()
        loop.add_reader(pipe.fileno(), lambda: _answer_question(pipe, server))
        await serving
        await gateway.aclose()

    uvloop.run(serve())


def _answer_question(pipe: Connection, server: uvicorn.Server) -> None:
    question = "end"
    with suppress(EOFError):
        question = pipe.recv()
    if question == "cpu":
        pipe.send(time.process_time())
    else:
        server.should_exit = True


# -- processes --------------------------------------------------------------------------------------------


def _pin(cores: frozenset[int]) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _shares() -> tuple[frozenset[int], frozenset[int]]:
    """One core for the gateway, the rest for load and worker; empty sets where cores cannot be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset(), frozenset()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return frozenset(), frozenset()
    return frozenset(cores[:1]), frozenset(cores[1:])


@dataclass(frozen=True, slots=True)
class _Bench:
    worker_port: int
    gateway_port: int
    pipe: Connection

    def gateway_cpu(self) -> float:
        self.pipe.send("cpu")
        seconds: float = self.pipe.recv()
        return seconds


@contextmanager
def _processes(routes: int) -> Iterator[_Bench]:
    spawn = multiprocessing.get_context("spawn")
    gateway_cores, other_cores = _shares()
    all_cores = gateway_cores | other_cores
    pipe, end = spawn.Pipe()
    with worker(other_cores) as worker_port:
        gateway = spawn.Process(
            target=_run_gateway, args=(end, gateway_cores, worker_port, routes), daemon=True
        )
        gateway.start()
        _pin(other_cores)
        try:
            yield _Bench(worker_port, pipe.recv(), pipe)
        finally:
            _pin(all_cores)
            _end(gateway, pipe)


@contextmanager
def worker(cores: frozenset[int] = frozenset()) -> Iterator[int]:
    """The port of a worker stand-in, which runs on these cores only; on any where none is named."""
    spawn = multiprocessing.get_context("spawn")
    pipe, end = spawn.Pipe()
    process = spawn.Process(target=_run_worker, args=(end, cores), daemon=True)
    process.start()
    try:
        yield pipe.recv()
    finally:
        _end(process, pipe)


def _end(process: BaseProcess, pipe: Connection) -> None:
    pipe.send("end")
    process.join(5)
    if process.is_alive():
        process.kill()


# -- measuring ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figures:
    """One row of the table. Rates in requests a second, times in seconds; "added" is gateway minus direct."""

    connections: int
    offered: float | None  # None: as fast as answers come
    direct: Result
    gateway: Result
    cpu_per_request: float

    def added(self, q: float) -> float:
        return self.gateway.quantile(q) - self.direct.quantile(q)

    def line(self) -> str:
        p50, p99 = self.added(0.5) * 1e3, self.added(0.99) * 1e3
        offered = "full" if self.offered is None else f"{self.offered:,.0f}/s"
        return (
            f"{self.connections:>5} {offered:>8} {self.direct.rate:>10,.0f} {self.gateway.rate:>10,.0f} "
            f"{self.gateway.rate / self.direct.rate:>6.2f} {p50:>10.2f} {p99:>10.2f} "
            f"{self.cpu_per_request * 1e6:>9.0f} {1 / self.cpu_per_request:>12,.0f}"
        )


HEADER = (
    " conn  offered  direct r/s  gatew. r/s  ratio  +p50 (ms)  +p99 (ms)  CPU us/r  r/s per core\n" + "-" * 92
)


def _to(path: str) -> MakeRequest:
    data = request(
        "POST",
        path,
        {
            "authorization": TOKEN.decode(),
            "content-type": "application/json",
            "accept": "*/*",
            "user-agent": "bench",
        },
        BODY,
    )
    return lambda _: data


async def _measure(bench: _Bench, connections: int, seconds: float, offered: float | None) -> Figures:
    worker, gateway = _to("/infer"), _to("/v1/models/org/digits/infer")
    direct = await load(
        "127.0.0.1", bench.worker_port, worker, connections=connections, seconds=seconds, rate=offered
    )
    before = bench.gateway_cpu()
    through = await load(
        "127.0.0.1", bench.gateway_port, gateway, connections=connections, seconds=seconds, rate=offered
    )
    cpu = bench.gateway_cpu() - before
    for name, result in (("direct", direct), ("gateway", through)):
        if set(result.statuses) != {200}:
            raise RuntimeError(f"{name}: not every answer was 200: {dict(result.statuses)}")
    return Figures(connections, offered, direct, through, cpu / len(through.latencies))


async def run(routes: int = 10_000) -> list[Figures]:
    """About 10 seconds: full load and half load at 16 and 64 connections, with `routes` in the table."""
    figures = []
    with _processes(routes) as bench:
        await load(
            "127.0.0.1", bench.gateway_port, _to("/v1/models/org/digits/infer"),
            connections=16, seconds=WARM_UP_SECONDS,
        )  # fmt: skip
        for connections in (16, 64):
            full = await _measure(bench, connections, FULL_SECONDS, None)
            half = await _measure(bench, connections, OFFERED_SECONDS, full.gateway.rate / 2)
            figures += [full, half]
    return figures


def rows(figures: list[Figures]) -> list[Row]:
    """What `run` found, for 16 connections: the rate when full, and what is added at half of it."""
    full, half = figures[:2]
    return [
        Row("gateway, requests on one core", full.gateway.rate, "/s", 5_000),
        Row("  the worker asked directly", full.direct.rate, "/s"),
        Row("  by CPU time of one request", 1 / full.cpu_per_request, "/s"),
        Row("  added p50, full", full.added(0.5) * 1e3, "ms"),
        Row("  added p99, full", full.added(0.99) * 1e3, "ms"),
        Row("  added p50, half full", half.added(0.5) * 1e3, "ms"),
        Row("  added p99, half full", half.added(0.99) * 1e3, "ms", 3, at_most=True),
    ]


def main() -> None:
    before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    figures = uvloop.run(run())
    python = sys.version.split()[0]
    print(f"gateway: {os.cpu_count()} cores, Python {python}, {len(BODY)} B in, {len(ANSWER)} B out")
    if before is not None:
        print(f"load average before: {before:.1f} (what others run here shows in the tails)")
    print(HEADER)
    for row in figures:
        print(row.line())


if __name__ == "__main__":
    main()
