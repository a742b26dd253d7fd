"""A real receiver on loopback, a real guard, and an outbox between the store and them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from aiohttp import web

from moorage.adapters.outgoing import GuardedOutgoing
from moorage.adapters.outgoing_rules import AllowList
from moorage.adapters.secrets import KeyRing
from moorage.domain.delivery import Delivery
from moorage.engine.outbox import Outbox, OutboxLimits
from moorage.engine.webhook_attempt import WebhookAttempt
from moorage.ports.outside import Outgoing
from moorage.ports.store import Insert, Store
from moorage.testing.store import Memory, MemoryStore


class OffsetClock:
    """The real time, moved: signatures are judged by the real time, leases by this one."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset


@dataclass
class Received:
    headers: dict[str, str]
    body: str
    path: str


Script = Callable[[Received], Awaitable[web.Response]]


@dataclass
class Receiver:
    """Answers by `script`, and tells of every message that came."""

    script: Script
    port: int = 0
    messages: list[Received] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [message.headers["webhook-id"] for message in self.messages]

    async def handle(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        message = Received(headers, await request.text(), request.path)
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        self.messages.append(message)
        async with self.came:
            self.came.notify_all()
        try:
            return await self.script(message)
        finally:
            self.busy -= 1

    async def until(self, number: int, seconds: float = 10) -> list[Received]:
        """The messages, when there are so many."""
        async with asyncio.timeout(seconds), self.came:
            await self.came.wait_for(lambda: len(self.messages) >= number)
        return self.messages


async def accept(_: Received) -> web.Response:
    return web.Response(status=204)


@dataclass
class World:
    """All the parts, and the few things that tests do with them."""

    memory: Memory
    store: Store
    ring: KeyRing
    clock: OffsetClock
    outgoing: Outgoing
    new_id: Callable[[str], str]
    woken: list[Outbox] = field(default_factory=list)

    def outbox(
        self, limits: OutboxLimits | None = None, *, store: Store | None = None, timeout: float = 5
    ) -> Outbox:
        """One process's outbox, with its own view of the store."""
        view: Store = store or MemoryStore(self.memory)
        attempt = WebhookAttempt(
            view, self.outgoing, self.ring, self.clock, self.new_id, timeout=timeout, luck=lambda: 0.0
        )
        outbox = Outbox(view, attempt, self.clock, limits)
        self.woken.append(outbox)
        return outbox

    async def enqueue(self, url: str, *, number: int = 1, organization: str = "org_1") -> list[Delivery]:
        now = self.clock.now()
        rows = [
            Delivery(
                self.new_id("msg"),
                organization,
                "dep_1",
                "deployment.ready",
                url,
                '{"type":"deployment.ready","data":{"name":"é"}}',
                now,
                due_at=now,
            )
            for _ in range(number)
        ]
        await self.store.commit([Insert(row) for row in rows])
        for outbox in self.woken:
            outbox.wake()
        return rows

    async def stored(self, delivery: Delivery) -> Delivery:
        found = await self.store.delivery(delivery.id, delivery.organization_id)
        assert found is not None
        return found

    async def settled(self, delivery: Delivery, attempts: int = 1, seconds: float = 10) -> Delivery:
        """The row, once it has so many attempts or is no longer pending."""
        async with asyncio.timeout(seconds):
            while True:
                found = await self.stored(delivery)
                if found.state != "pending" or len(found.attempts) >= attempts:
                    return found
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def running(self, outbox: Outbox) -> AsyncIterator[Outbox]:
        task = asyncio.create_task(outbox.run())
        try:
            yield outbox
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    memory = Memory()
    numbers = count(1)
    outgoing = GuardedOutgoing(AllowList.parse("127.0.0.1"))
    ring = KeyRing([("k1", bytes(range(32)))])
    store = MemoryStore(memory)
    yield World(memory, store, ring, OffsetClock(), outgoing, lambda prefix: f"{prefix}_{next(numbers):026d}")
    await outgoing.aclose()


@pytest.fixture
async def receive() -> AsyncIterator[Callable[..., Awaitable[Receiver]]]:
    """Starts receivers: `await receive()`, `await receive(script)`."""
    runners: list[web.AppRunner] = []

    async def start(script: Script = accept) -> Receiver:
        receiver = Receiver(script)
        app = web.Application()
        app.router.add_post("/{path:.*}", receiver.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.port = runner.addresses[0][1]
        runners.append(runner)
        return receiver

    yield start
    for runner in runners:
        await runner.cleanup()
