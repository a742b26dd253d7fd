"""A lean HTTP/1.1 load generator, because a full client costs more than the servers it would measure.

Keep-alive connections on raw asyncio protocols, one request in flight on each. With `rate`, requests are due
at fixed times, and one that finds no idle connection waits with its latency already running, so that a stall
is not hidden by the requests that it kept from being sent (coordinated omission).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

MakeRequest = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Result:
    """Latencies in seconds, ascending; `statuses` counts answers, 0 for a connection lost without one."""

    latencies: Sequence[float]
    statuses: Mapping[int, int]
    seconds: float

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def quantile(self, q: float) -> float:
        if not self.latencies:
            return math.nan
        return self.latencies[max(0, math.ceil(q * len(self.latencies)) - 1)]


def request(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """The bytes of one request."""
    lines = [f"{method} {path} HTTP/1.1", "host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method in {"POST", "PUT", "PATCH"}:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def load(
    host: str,
    port: int,
    make_request: MakeRequest,
    *,
    connections: int,
    seconds: float | None = None,
    count: int | None = None,
    rate: float | None = None,
) -> Result:
    """Sends `make_request(0)`, `make_request(1)`, … until `seconds` or `count` is reached, as fast as
    answers come, or `rate` a second over all connections together."""
    if seconds is None and count is None:
        raise ValueError("Give seconds, count, or both: the load must end.")
    run = _Run(make_request, connections, seconds, count, rate)
    loop = asyncio.get_running_loop()
    opened = await asyncio.gather(
        *(loop.create_connection(lambda: _Connection(run), host, port) for _ in range(connections))
    )
    run.start([connection for _, connection in opened])
    await run.finished
    for transport, _ in opened:
        transport.close()
    return run.result()


class _Run:
    def __init__(
        self,
        make_request: MakeRequest,
        connections: int,
        seconds: float | None,
        count: int | None,
        rate: float | None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self.loop.create_future()
        self._make_request = make_request
        self._seconds = seconds
        self._count = count
        self._interval = 1 / rate if rate else 0.0
        self._open = connections
        self._next = 0
        self._began = self._ended = 0.0
        self._idle: deque[_Connection] = deque()
        self._overdue: deque[tuple[int, float]] = deque()
        self._latencies: list[float] = []
        self._statuses: Counter[int] = Counter()

    def start(self, connections: list[_Connection]) -> None:
        self._began = time.perf_counter()
        if self._interval:
            self._idle.extend(connections)
            self._offer()
        else:
            for connection in connections:
                self._send_or_close(connection)

    def _exhausted(self, at: float) -> bool:
        over = self._seconds is not None and at - self._began >= self._seconds
        return over or (self._count is not None and self._next >= self._count)

    def _send_or_close(self, connection: _Connection) -> None:
        now = time.perf_counter()
        if self._exhausted(now):
            connection.close()
            return
        self._next += 1
        connection.send(self._make_request(self._next - 1), now)

    def _offer(self) -> None:
        """Sends what is due by now, on idle connections while there are any."""
        now = time.perf_counter()
        while (due := self._began + self._next * self._interval) <= now and not self._exhausted(due):
            self._overdue.append((self._next, now))  # not `due`: timers are late by up to a millisecond
            self._next += 1
        while self._overdue and self._idle:
            index, due_at = self._overdue.popleft()
            self._idle.popleft().send(self._make_request(index), due_at)
        if not self._exhausted(due):
            self.loop.call_later(due - now, self._offer)
        elif not self._overdue:
            while self._idle:
                self._idle.popleft().close()

    def answered(self, connection: _Connection, status: int, since: float) -> None:
        self._ended = time.perf_counter()
        self._latencies.append(self._ended - since)
        self._statuses[status] += 1
        if not self._interval:
            self._send_or_close(connection)
        elif self._overdue:
            index, due_at = self._overdue.popleft()
            connection.send(self._make_request(index), due_at)
        elif self._exhausted(self._began + self._next * self._interval):
            connection.close()
        else:
            self._idle.append(connection)

    def closed(self, connection: _Connection, unanswered: bool) -> None:
        if unanswered:
            self._statuses[0] += 1
        if connection in self._idle:
            self._idle.remove(connection)
        self._open -= 1
        if not self._open and not self.finished.done():
            self.finished.set_result(None)

    def result(self) -> Result:
        return Result(sorted(self._latencies), dict(self._statuses), self._ended - self._began)


class _Connection(asyncio.Protocol):
    """One connection; reads answers with a Content-Length or in chunks."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._since = 0.0
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not subclasses

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.closed(self, self._waiting)

    def send(self, data: bytes, since: float) -> None:
        self._since = since
        self._waiting = True
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        answer = parse(self._buffer)
        if answer is None:
            return
        status, end = answer
        self._buffer = self._buffer[end:]
        self._waiting = False
        self._run.answered(self, status, self._since)


def parse(data: bytes) -> tuple[int, int] | None:
    """The status of the answer at the beginning of `data`, and where the answer ends; None while it is not
    whole."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    status = int(data[9:12])
    head = data[:head_end].lower()
    begin = head_end + 4
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        line_end = head.find(b"\r\n", at + 2)
        end = begin + int(head[at + 17 : line_end if line_end >= 0 else None])
        return (status, end) if len(data) >= end else None
    if b"\r\ntransfer-encoding: chunked" in head:
        chunks_end = _chunks_end(data, begin)
        return None if chunks_end is None else (status, chunks_end)
    return status, begin


def _chunks_end(data: bytes, at: int) -> int | None:
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line_end].split(b";")[0], 16)
        at = line_end + 2 + size + 2
        if size == 0:
            return at if len(data) >= at else None
    return None
