"""Load-balancing endpoints: any path, straight to a worker that is up, streamed both ways."""

from __future__ import annotations

import aiohttp
from aiohttp import web

from moorage_runpod.testing.cloud import Cloud, Endpoint
from moorage_runpod.testing.rest import ACCOUNT
from moorage_runpod.testing.worker import Worker

WAIT_SECONDS = 120.0
PROCESS_SECONDS = 330.0
MOST_BYTES = 30_000_000
_CHUNK = 64 * 1024
_HOP = frozenset(
    {"connection", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "authorization"}
)


class Balancer:
    """`wait_seconds` is how long a request waits for a worker."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.wait_seconds = WAIT_SECONDS
        self._session: aiohttp.ClientSession | None = None

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", "/lb/{endpoint}/{path:.*}", self._forward)]

    async def start(self) -> None:
        timeout = aiohttp.ClientTimeout(total=PROCESS_SECONDS)
        self._session = aiohttp.ClientSession(auto_decompress=False, timeout=timeout)

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        endpoint = self._cloud.endpoint(request[ACCOUNT], request.match_info["endpoint"])
        worker = await self._worker(endpoint)
        if worker is None:
            return web.json_response({"error": "no workers available"}, status=503)
        worker.serving += 1
        self._cloud.wake()
        try:
            return await self._pass_on(request, worker)
        finally:
            worker.serving -= 1
            self._cloud.wake()

    async def _worker(self, endpoint: Endpoint) -> Worker | None:
        """The one with the fewest requests, of those that are up."""

        def look() -> Worker | None:
            up = [w for w in endpoint.workers.values() if w.up and w.port is not None]
            return min(up, key=lambda w: w.serving, default=None)

        endpoint.waiting += 1
        self._cloud.wake()
        try:
            return await endpoint.changes.until(look, self.wait_seconds)
        finally:
            endpoint.waiting -= 1

    async def _pass_on(self, request: web.Request, worker: Worker) -> web.StreamResponse:
        assert self._session is not None
        path = "/" + request.match_info["path"]
        health = worker.spec.env.get("HEALTH_CHECK_PATH", "/ping")
        port = worker.health_port if path == health else worker.port
        url = f"http://127.0.0.1:{port}{path}" + (f"?{request.query_string}" if request.query_string else "")
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        response: web.StreamResponse | None = None
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=request.content if request.can_read_body else None
            ) as answer:
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
                kept["X-Runpod-Worker-Id"] = worker.id
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for chunk in answer.content.iter_chunked(_CHUNK):
                    await response.write(chunk)
        except aiohttp.ClientConnectionResetError:
            return web.Response() if response is None else response  # the caller hung up
        except aiohttp.ClientError:
            if response is None:
                return web.Response(status=502, text="bad gateway")
            if request.transport is not None:
                request.transport.abort()  # half an answer must not look like a whole one
            return response
        await response.write_eof()
        return response
