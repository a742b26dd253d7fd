"""A runner of jobs on a store in memory, with the gateway's routes, and a real worker on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any  # a job's input and output

import pytest
from aiohttp import web

from moorage.adapters.system import SystemIds
from moorage.domain.job import Job, JobPayload, JobPolicy, input_id, output_id
from moorage.engine.job_attempt import JobAttempt
from moorage.engine.job_runner import JobLimits, JobRunner
from moorage.gateway.job_replicas import JobReplicas
from moorage.gateway.routes import Route, RoutePublisher
from moorage.ports.store import Insert
from moorage.testing.store import Memory, MemoryStore
from moorage.upstream_auth import UpstreamAuth

Script = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]
LIMITS = JobLimits(lease=5.0, grace=0.05)


class MovableClock:
    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset


async def echo(request: web.Request, body: Any) -> web.StreamResponse:
    return web.json_response({"outputs": body})


@dataclass
class Worker:
    """Answers `/{deployment}/infer` by `script`; remembers what came, and who left before the answer."""

    url: str = ""
    script: Script = echo
    bodies: list[Any] = field(default_factory=list)
    left: int = 0
    busy: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.busy += 1
        await self._tell()
        try:
            return await self.script(request, body)
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.busy -= 1
            await self._tell()

    async def until(self, wanted: Callable[[Worker], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(lambda: wanted(self))

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()


class Process:
    """One process of the service, as far as jobs go. Several may share a `Memory`."""

    def __init__(self, yard: Yard, limits: JobLimits) -> None:
        self.store = MemoryStore(yard.memory)
        self.routes = RoutePublisher()
        self.replicas = JobReplicas(self.routes, yard.auth)
        attempt = JobAttempt(
            self.store,
            self.replicas,
            yard.clock,
            yard.new_id,
            public_url="http://here",
            on_over=self._over,
            luck=lambda: 0.5,
        )
        self.runner = JobRunner(self.store, self.replicas, attempt, yard.clock, limits)
        self.ended: list[Job] = []
        self.over = asyncio.Event()

    def _over(self, job: Job) -> None:
        self.ended.append(job)
        self.over.set()

    def serve(self, deployment: str, *targets: str) -> None:
        route = Route(deployment, "org", deployment, targets=targets)
        self.routes.publish(self.routes.current.with_route(route))
        self.runner.opened(deployment)

    async def run(self, *, deaf: bool = False) -> None:
        """`deaf`: it does not hear that others wrote."""
        if deaf:
            await self.runner.run()

        async def follow() -> None:
            async for _ in self.store.changes():
                self.runner.others_wrote()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow())
            await self.runner.run()


class Yard:
    """What the processes share: a database, a clock, a worker."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.memory = Memory()
        self.clock = MovableClock()
        self.new_id = SystemIds()
        self.store = MemoryStore(self.memory)  # of nobody's process
        self.token: str | None = None
        self._numbers = itertools.count(1)
        self._running: dict[Process, asyncio.Task[None]] = {}

    async def auth(self, route: Route) -> UpstreamAuth:
        return UpstreamAuth(self.token)

    def target(self, deployment: str) -> str:
        return f"{self.worker.url}/{deployment}"

    async def start(self, *serving: str, limits: JobLimits = LIMITS, deaf: bool = False) -> Process:
        process = Process(self, limits)
        for deployment in serving:
            process.serve(deployment, self.target(deployment))
        self._running[process] = asyncio.create_task(process.run(deaf=deaf))
        return process

    async def stop(self, process: Process) -> None:
        """As SIGTERM does."""
        task = self._running.pop(process)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await process.replicas.aclose()
        await process.store.aclose()

    async def aclose(self) -> None:
        for process in list(self._running):
            await self.stop(process)

    async def queue(self, process: Process | None, deployment: str, body: Any = 1, **more: Any) -> str:
        """A new job; the process it came through is told of it, the others see it in the store."""
        text, number, now = json.dumps(body), next(self._numbers), self.clock.now()
        policy = JobPolicy(
            **{k: more.pop(k) for k in ("execution_timeout", "ttl", "low_priority") if k in more}
        )
        id_ = f"job-{number:04d}"
        job = Job(id_, "org", deployment, now, policy=policy, size=len(text), due_at=now)
        job = replace(job, **more)
        store = self.store if process is None else process.store
        await store.commit([Insert(job), Insert(JobPayload(input_id(id_), text))])
        if process is not None:
            process.runner.queued(job)
        return id_

    async def job(self, id_: str) -> Job:
        found = await self.store.job(id_, "org")
        assert found is not None
        return found

    async def output(self, id_: str) -> Any:
        found = await self.store.job_payload(output_id(id_))
        return None if found is None else json.loads(found.text)

    async def until(self, id_: str, wanted: Callable[[Job], bool], seconds: float = 10) -> Job:
        async with asyncio.timeout(seconds):
            while True:
                job = await self.job(id_)
                if wanted(job):
                    return job
                await asyncio.sleep(0.005)

    async def ended(self, id_: str, seconds: float = 10) -> Job:
        return await self.until(id_, lambda job: job.state.final, seconds)


@contextlib.asynccontextmanager
async def listening(worker: Worker, port: int = 0) -> AsyncIterator[None]:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/{deployment}/infer", worker.handle)
    # A handler is cancelled when its caller leaves: what a worker of ours does too.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    worker.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    found = Worker()
    async with listening(found):
        yield found


@pytest.fixture
async def yard(worker: Worker) -> AsyncIterator[Yard]:
    found = Yard(worker)
    yield found
    await found.aclose()
