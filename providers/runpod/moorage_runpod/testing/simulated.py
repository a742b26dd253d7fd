"""Workers without a process: they load for a while, then answer. For tests of everything but the worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from moorage_runpod.testing.cloud import Cloud, Endpoint
from moorage_runpod.testing.endpoint import EndpointSpec
from moorage_runpod.testing.jobs import Job
from moorage_runpod.testing.worker import Worker

Json = Any  # JSON of a job
Answer = Callable[[EndpointSpec, Json], Json]


def echo(spec: EndpointSpec, given: Json) -> Json:
    """What a worker of Moorage answers, with what it was given as its output."""
    inputs = given.get("inputs", given) if isinstance(given, dict) else given
    model = spec.env.get("MOORAGE_WORKER_MODEL_ID", spec.name)
    return {"model_id": model, "outputs": inputs, "metadata": {"simulated": True}}


@dataclass(slots=True)
class SimulatedRunner:
    """`load_seconds` before it is up, `answer_seconds` a job; where `answer` raises, the job fails."""

    cloud: Cloud
    load_seconds: float = 0.02
    answer_seconds: float = 0.0
    answer: Answer = echo

    async def run(self, worker: Worker, endpoint: Endpoint) -> int:
        worker.log.write(f"loading {worker.spec.env.get('MOORAGE_WORKER_MODEL', 'the model')}")
        async with self._listening(worker) if worker.spec.balanced else nullcontext():
            await asyncio.sleep(self.load_seconds)
            worker.went_up()
            worker.log.write("worker is ready")
            endpoint.changes.tell()
            self.cloud.wake()
            if worker.spec.balanced:
                await asyncio.Event().wait()  # until it is cancelled
            while True:
                job = await endpoint.changes.until(lambda: endpoint.queue.take(worker.id, self.cloud.clock()))
                assert job is not None
                await self._work(worker, endpoint, job)

    async def _work(self, worker: Worker, endpoint: Endpoint, job: Job) -> None:
        worker.log.write(f"job {job.id} started")
        if self.answer_seconds:
            await endpoint.changes.until(lambda: job.ended or None, self.answer_seconds)
        told = self._answer(worker, job)
        endpoint.queue.report(worker.id, job.id, told, self.cloud.clock())
        endpoint.queue.stops(worker.id)
        worker.log.write(f"job {job.id} {job.status.lower()}")

    def _answer(self, worker: Worker, job: Job) -> Mapping[str, Json]:
        given = job.body.get("input")
        if not given:
            return {"error": "Job has missing field(s): id or input."}
        if isinstance(given, dict) and given.get("moorage") == "warm_up":
            ready = {
                "ready": True,
                "load_seconds": self.load_seconds,
                "from_cache": False,
                "version": "0.0.0",
            }
            return {"output": ready}
        try:
            return {"output": self.answer(worker.spec, given)}
        except Exception as error:  # a test's function, like a handler's, may raise anything
            return {"error": f"{type(error).__name__}: {error}"}

    @asynccontextmanager
    async def _listening(self, worker: Worker) -> AsyncIterator[None]:
        """Serves HTTP on a free port: 204 on the health path until the worker is up."""
        runner = web.ServerRunner(web.Server(self._face(worker)), shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            worker.port = worker.health_port = runner.addresses[0][1]
            yield
        finally:
            await runner.cleanup()

    def _face(self, worker: Worker) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        health = worker.spec.env.get("HEALTH_CHECK_PATH", "/ping")

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            if request.path == health:
                return web.Response(status=200 if worker.up else 204)
            await asyncio.sleep(self.answer_seconds)
            try:
                given = await request.json()
            except ValueError:
                given = {"inputs": (await request.read()).decode("utf-8", "replace")}
            try:
                return web.json_response(self.answer(worker.spec, given))
            except Exception as error:  # as above
                return web.json_response({"error": str(error)}, status=500)

        return answer
