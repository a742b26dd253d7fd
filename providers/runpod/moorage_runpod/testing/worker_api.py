"""The side of RunPod that its workers talk to with the `runpod` package: take, stop, done, stream, ping."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from moorage_runpod.testing.cloud import Cloud, Endpoint
from moorage_runpod.testing.jobs import Job
from moorage_runpod.testing.worker import Worker

POLL_SECONDS = 30.0  # the package waits up to 90


class WorkerApi:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def routes(self) -> list[web.RouteDef]:
        own = "/w/{endpoint}"
        return [
            web.get(f"{own}/job-take/{{worker}}", self._take),
            web.get(f"{own}/job-take-batch/{{worker}}", self._take_batch),
            web.get(f"{own}/job-stop/{{worker}}", self._stop),
            web.post(f"{own}/job-done/{{worker}}/{{job}}", self._done),
            web.post(f"{own}/job-stream/{{worker}}/{{job}}", self._stream),
            web.get(f"{own}/ping/{{worker}}", self._ping),
        ]

    async def _take(self, request: web.Request) -> web.StreamResponse:
        jobs = await self._taken(request, 1)
        return web.json_response(jobs[0].for_worker()) if jobs else web.Response(status=204)

    async def _take_batch(self, request: web.Request) -> web.StreamResponse:
        jobs = await self._taken(request, int(request.query.get("batch_size", 1)))
        return web.json_response([j.for_worker() for j in jobs]) if jobs else web.Response(status=204)

    async def _taken(self, request: web.Request, most: int) -> list[Job]:
        """Up to `most` jobs, after waiting for the first."""
        endpoint, worker = self._worker(request)
        if not worker.up:
            worker.went_up()
            endpoint.changes.tell()
            self._cloud.wake()

        def look() -> list[Job] | None:
            if worker.id not in endpoint.workers or worker.refresh or _gone(request):
                return []
            job = endpoint.queue.take(worker.id, self._cloud.clock())
            return None if job is None else [job]

        found = await endpoint.changes.until(look, POLL_SECONDS) or []
        while found and len(found) < most:
            job = endpoint.queue.take(worker.id, self._cloud.clock())
            if job is None:
                break
            found.append(job)
        return found

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        endpoint, worker = self._worker(request)

        def look() -> list[str] | None:
            if worker.id not in endpoint.workers or _gone(request):
                return []
            return endpoint.queue.stops(worker.id) or None

        ids = await endpoint.changes.until(look, POLL_SECONDS)
        return web.json_response({"jobsToStop": ids}) if ids else web.Response(status=204)

    async def _done(self, request: web.Request) -> web.StreamResponse:
        endpoint, worker = self._worker(request)
        told = await _told(request)
        if told.pop("stopPod", False):
            worker.refresh = True
        endpoint.queue.report(worker.id, request.match_info["job"], told, self._cloud.clock())
        return web.Response(text="ok")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        endpoint, worker = self._worker(request)
        told = await _told(request)
        endpoint.queue.stream(worker.id, request.match_info["job"], told.get("output"))
        return web.Response(text="ok")

    async def _ping(self, request: web.Request) -> web.StreamResponse:
        self._worker(request)
        return web.Response(text="ok")

    def _worker(self, request: web.Request) -> tuple[Endpoint, Worker]:
        """Raises 401 for a worker that is gone, or another's token."""
        endpoint = self._cloud.endpoints.get(request.match_info["endpoint"])
        worker = endpoint.workers.get(request.match_info["worker"]) if endpoint else None
        if endpoint is None or worker is None or request.headers.get("Authorization") != worker.token:
            raise web.HTTPUnauthorized
        return endpoint, worker


def _gone(request: web.Request) -> bool:
    """Whether the worker hung up: a job given to it now would be lost."""
    return request.transport is None or request.transport.is_closing()


async def _told(request: web.Request) -> dict[str, Any]:  # Any: JSON of a worker
    """The body: JSON, whatever its content type says."""
    try:
        told = json.loads(await request.read())
    except ValueError as error:
        raise web.HTTPBadRequest(text="the body must be JSON") from error
    if not isinstance(told, dict):
        raise web.HTTPBadRequest(text="the body must be a JSON object")
    return told
