"""The job API that callers use: https://api.runpod.ai/v2/{endpoint} with its queue of jobs."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from moorage_runpod.testing.cloud import Cloud, Endpoint
from moorage_runpod.testing.jobs import Job, checked_body
from moorage_runpod.testing.problems import Problem, bad_request
from moorage_runpod.testing.rest import ACCOUNT

RUN_BYTES, RUN_SYNC_BYTES = 10_000_000, 20_000_000
SYNC_SECONDS = (1.0, 300.0)
SYNC_DEFAULT_SECONDS = 90.0
STREAM_SECONDS = 5.0


class JobApi:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def routes(self) -> list[web.RouteDef]:
        one = "/v2/{endpoint}"
        return [
            web.post(f"{one}/run", self._run),
            web.post(f"{one}/runsync", self._run_sync),
            web.get(f"{one}/status/{{job}}", self._status, allow_head=False),
            web.post(f"{one}/status/{{job}}", self._status),
            web.get(f"{one}/stream/{{job}}", self._stream, allow_head=False),
            web.post(f"{one}/stream/{{job}}", self._stream),
            web.post(f"{one}/cancel/{{job}}", self._cancel),
            web.post(f"{one}/retry/{{job}}", self._retry),
            web.post(f"{one}/purge-queue", self._purge),
            web.get(f"{one}/health", self._health, allow_head=False),
        ]

    async def _run(self, request: web.Request) -> web.StreamResponse:
        endpoint = self._endpoint(request)
        job = endpoint.queue.submit(await _submitted(request, RUN_BYTES), self._cloud.clock())
        return web.json_response({"id": job.id, "status": job.status})

    async def _run_sync(self, request: web.Request) -> web.StreamResponse:
        endpoint = self._endpoint(request)
        seconds = _wait(request, SYNC_DEFAULT_SECONDS, SYNC_SECONDS)
        body = await _submitted(request, RUN_SYNC_BYTES)
        job = endpoint.queue.submit(body, self._cloud.clock(), sync=True)
        job.kept = max(job.kept, seconds) if "wait" in request.query else job.kept
        await endpoint.changes.until(lambda: job.ended or None, seconds)
        return web.json_response(job.as_json())

    async def _status(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._job(request)[1].as_json())

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        endpoint, job = self._job(request)
        seconds = _wait(request, STREAM_SECONDS, (0.0, 300.0))
        await endpoint.changes.until(lambda: True if job.chunks or job.ended else None, seconds)
        chunks = [{"output": chunk} for chunk in endpoint.queue.drain(job)]
        return web.json_response({"status": job.status, "stream": chunks})

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        endpoint, job = self._job(request)
        endpoint.queue.cancel(job, self._cloud.clock())
        return web.json_response({"id": job.id, "status": job.status})

    async def _retry(self, request: web.Request) -> web.StreamResponse:
        endpoint, job = self._job(request)
        if not endpoint.queue.retry(job, self._cloud.clock()):
            raise bad_request(f"only failed or timed out jobs can be retried; this one is {job.status}")
        return web.json_response({"id": job.id, "status": job.status})

    async def _purge(self, request: web.Request) -> web.StreamResponse:
        removed = self._endpoint(request).queue.purge(self._cloud.clock())
        return web.json_response({"removed": removed, "status": "completed"})

    async def _health(self, request: web.Request) -> web.StreamResponse:
        endpoint = self._endpoint(request)
        workers = endpoint.summary(self._cloud.faults.crash_status)
        workers["ready"] = sum(w.up for w in endpoint.workers.values())
        return web.json_response({"jobs": endpoint.queue.counts(), "workers": workers})

    def _endpoint(self, request: web.Request) -> Endpoint:
        endpoint = self._cloud.endpoint(request[ACCOUNT], request.match_info["endpoint"])
        if endpoint.spec.balanced:
            raise bad_request("load balancing endpoints have no job queue")
        return endpoint

    def _job(self, request: web.Request) -> tuple[Endpoint, Job]:
        endpoint = self._endpoint(request)
        job = endpoint.queue.find(request.match_info["job"], self._cloud.clock())
        if job is None:
            raise Problem(404, "job not found")
        return endpoint, job


async def _submitted(request: web.Request, most: int) -> dict[str, Any]:  # Any: JSON of a caller
    raw = await request.read()
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise bad_request("the body must be JSON") from error
    refused = checked_body(body, len(raw), most=most)
    if refused is not None:
        raise bad_request(refused)
    assert isinstance(body, dict)
    return body


def _wait(request: web.Request, default: float, bounds: tuple[float, float]) -> float:
    """Seconds, from `wait` in milliseconds."""
    text = request.query.get("wait")
    if text is None:
        return default
    low, high = bounds
    if not text.isdigit() or not low <= int(text) / 1000 <= high:
        raise bad_request(f"wait must be from {low * 1000:.0f} to {high * 1000:.0f} milliseconds")
    return int(text) / 1000
