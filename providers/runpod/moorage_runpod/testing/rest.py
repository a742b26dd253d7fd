"""REST v2 of RunPod: what needs an account's key and is held to the OpenAPI document."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any

from aiohttp import web

from moorage_runpod.testing.accounts import Account
from moorage_runpod.testing.catalog import Narrowed
from moorage_runpod.testing.cloud import Cloud, Endpoint
from moorage_runpod.testing.endpoint import Json
from moorage_runpod.testing.logs import Log
from moorage_runpod.testing.problems import Problem, bad_request, not_found
from moorage_runpod.testing.rules import created, patched
from moorage_runpod.testing.worker import new_id

ACCOUNT = web.RequestKey("account", Account)
BODY = web.RequestKey("body", object)
_LOG_HEARTBEAT_SECONDS = 15.0
_ONLY_WITH_AVAILABILITY = ("count", "cloud", "countryCodes", "cudaVersions", "minCudaVersion")
_TEMPLATE = {
    "args": "",
    "disk": 20,
    "ports": [],
    "env": {},
    "registry": None,
    "mounts": {},
    "serverless": False,
    "public": False,
    "category": "NVIDIA",
    "startSsh": True,
    "startJupyter": True,
    "allowedCudaVersions": [],
}


class RestApi:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def routes(self) -> list[web.RouteDef]:
        one = "/v2/serverless/{id}"
        return [
            web.get("/v2/serverless", self._list, allow_head=False),
            web.post("/v2/serverless", self._create),
            web.get(one, self._get, allow_head=False),
            web.patch(one, self._patch),
            web.delete(one, self._delete),
            web.get(f"{one}/workers", self._workers, allow_head=False),
            web.get(f"{one}/workers/{{workerId}}/logs", self._logs, allow_head=False),
            web.get(f"{one}/releases", self._releases, allow_head=False),
            web.get("/v2/catalog/gpus", self._gpus, allow_head=False),
            web.get("/v2/catalog/gpus/{id}", self._gpu, allow_head=False),
            web.get("/v2/templates", self._list_templates, allow_head=False),
            web.post("/v2/templates", self._create_template),
            web.get("/v2/templates/{id}", self._get_template, allow_head=False),
            web.patch("/v2/templates/{id}", self._patch_template),
            web.delete("/v2/templates/{id}", self._delete_template),
            web.get("/v2/network-volumes", self._list_volumes, allow_head=False),
            web.post("/v2/network-volumes", self._create_volume),
            web.get("/v2/network-volumes/{id}", self._get_volume, allow_head=False),
            web.get("/v2/billing/serverless", self._billing, allow_head=False),
        ]

    # -- endpoints ----------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.StreamResponse:
        cloud = self._cloud
        return web.json_response(
            {"endpoints": [e.as_json(cloud.base) for e in cloud.listed(request[ACCOUNT])]}
        )

    async def _create(self, request: web.Request) -> web.StreamResponse:
        account = request[ACCOUNT]
        spec = created(_body(request), self._cloud.surroundings(account))
        return web.json_response(self._cloud.create(account, spec).as_json(self._cloud.base), status=201)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._endpoint(request).as_json(self._cloud.base))

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        endpoint = self._endpoint(request)
        spec = patched(endpoint.spec, _body(request), self._cloud.surroundings(endpoint.account))
        self._cloud.change(endpoint, spec)
        return web.json_response(endpoint.as_json(self._cloud.base))

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        self._cloud.delete(self._endpoint(request))
        return web.Response(status=204)

    async def _workers(self, request: web.Request) -> web.StreamResponse:
        endpoint, now = self._endpoint(request), self._cloud.clock()
        crash_status = self._cloud.faults.crash_status
        summary = endpoint.summary(crash_status)
        workers = [w.as_json(endpoint.version, crash_status, now) for w in endpoint.workers.values()]
        return web.json_response(
            {
                "endpointVersion": endpoint.version,
                "summary": {**summary, "total": len(workers)},
                "workers": workers,
            }
        )

    async def _releases(self, request: web.Request) -> web.StreamResponse:
        endpoint = self._endpoint(request)
        total = len(endpoint.workers)
        latest = sum(w.version == endpoint.version for w in endpoint.workers.values())
        rollout = {
            "inProgress": latest < total,
            "workersOnLatest": latest,
            "workersTotal": total,
            "percentOnLatest": round(100 * latest / total) if total else 0,
        }
        return web.json_response(
            {"endpointVersion": endpoint.version, "rollout": rollout, "releases": endpoint.releases}
        )

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        worker = self._endpoint(request).workers.get(request.match_info["workerId"])
        if worker is None:
            raise not_found()
        if self._cloud.clock() < worker.created_at + self._cloud.faults.unresolved_log_seconds:
            raise Problem(403, "access denied")
        return await _stream_log(request, worker.log)

    # -- catalog and billing ------------------------------------------------------------------------

    async def _gpus(self, request: web.Request) -> web.StreamResponse:
        catalog, narrowed = self._cloud.catalog, _narrowed(request.query)
        told = [catalog.told(gpu, narrowed) for gpu in catalog.gpus]
        if narrowed is not None and narrowed.countries:
            told = [gpu for gpu in told if "dataCenters" in gpu]
        return web.json_response({"gpus": told})

    async def _gpu(self, request: web.Request) -> web.StreamResponse:
        gpu = self._cloud.catalog.gpu(request.match_info["id"])
        if gpu is None:
            raise not_found()
        return web.json_response(self._cloud.catalog.told(gpu, _narrowed(request.query)))

    async def _billing(self, request: web.Request) -> web.StreamResponse:
        cloud = self._cloud
        return web.json_response(cloud.meter.bill(request[ACCOUNT].name, request.query, cloud.clock()))

    # -- templates and volumes ----------------------------------------------------------------------

    async def _list_templates(self, request: web.Request) -> web.StreamResponse:
        own = [t for account, t in self._cloud.templates.values() if account is request[ACCOUNT]]
        return web.json_response({"templates": own})

    async def _create_template(self, request: web.Request) -> web.StreamResponse:
        template: Json = {**_TEMPLATE, **_body(request), "id": new_id(10)}
        self._cloud.templates[template["id"]] = (request[ACCOUNT], template)
        return web.json_response(template, status=201)

    async def _get_template(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(_own(self._cloud.templates, request))

    async def _patch_template(self, request: web.Request) -> web.StreamResponse:
        template = _own(self._cloud.templates, request)
        template.update(_body(request))
        return web.json_response(template)

    async def _delete_template(self, request: web.Request) -> web.StreamResponse:
        del self._cloud.templates[_own(self._cloud.templates, request)["id"]]
        return web.Response(status=204)

    async def _list_volumes(self, request: web.Request) -> web.StreamResponse:
        own = [v for account, v in self._cloud.volumes.values() if account is request[ACCOUNT]]
        return web.json_response({"networkVolumes": own})

    async def _create_volume(self, request: web.Request) -> web.StreamResponse:
        body, centers = _body(request), self._cloud.catalog.data_centers
        center = centers.get(body["dataCenter"])
        if center is None or not center.volumes:
            known = ", ".join(c.id for c in centers.values() if c.volumes)
            raise bad_request(
                f"data center {body['dataCenter']} does not support network volumes. Supported: {known}"
            )
        volume: Json = {"type": "STANDARD", **body, "id": new_id(10)}
        self._cloud.volumes[volume["id"]] = (request[ACCOUNT], volume)
        return web.json_response(volume, status=201)

    async def _get_volume(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(_own(self._cloud.volumes, request))

    def _endpoint(self, request: web.Request) -> Endpoint:
        return self._cloud.endpoint(request[ACCOUNT], request.match_info["id"])


def _body(request: web.Request) -> Json:
    body = request[BODY]
    assert isinstance(body, dict)  # the document says so, and was asked before
    return body


def _own(held: dict[str, tuple[Account, Json]], request: web.Request) -> Json:
    account, found = held.get(request.match_info["id"], (None, None))
    if found is None or account is not request[ACCOUNT]:
        raise not_found()
    return found


def _narrowed(query: Any) -> Narrowed | None:  # Any: the query's own mapping type
    """None where availability is not asked for. Raises 400 where it is asked for wrongly."""
    if ("include" in query) != ("product" in query):
        raise bad_request("include=AVAILABILITY and product are required together")
    if "include" not in query:
        given = [name for name in _ONLY_WITH_AVAILABILITY if name in query]
        if given:
            raise bad_request(f"{given[0]} is valid only with include=AVAILABILITY")
        return None
    if "cudaVersions" in query and "minCudaVersion" in query:
        raise bad_request("cudaVersions and minCudaVersion are mutually exclusive")
    return Narrowed(
        count=int(query.get("count", 1)),
        countries=frozenset(filter(None, query.get("countryCodes", "").split(","))),
        cuda_versions=frozenset(filter(None, query.get("cudaVersions", "").split(","))),
        min_cuda=query.get("minCudaVersion"),
    )


async def _stream_log(request: web.Request, log: Log) -> web.StreamResponse:
    """The backfill that is asked for, then each line as it comes, until the worker or the client goes."""
    source = request.query.get("source")
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "Connection": "keep-alive",
            "X-Accel-Buffering": "no",
        }
    )
    resumed, since = request.headers.get("Last-Event-ID"), request.query.get("since")
    if resumed is not None:
        lines = log.after(_seconds(resumed), source)
    elif since is not None:
        lines = log.after(_seconds(since), source, inclusive=True)
    else:
        lines = log.tail(int(request.query.get("tail", 100)), source)
    read_to = log.last
    with contextlib.suppress(ConnectionError):  # the client hung up: how such a stream ends
        await response.prepare(request)
        while True:
            for line in lines:
                await response.write(line.as_event())
            if log.closed and log.last == read_to:
                break
            if not await _news(log, read_to):
                await response.write(b": heartbeat\n\n")
            lines, read_to = log.after(read_to, source), log.last
    return response


async def _news(log: Log, read_to: float) -> bool:
    """Whether there is something new before a heartbeat is due."""
    found = await log.changes.until(
        lambda: True if log.closed or log.last > read_to else None, _LOG_HEARTBEAT_SECONDS
    )
    return found is not None


def _seconds(text: str) -> float:
    try:
        return datetime.fromisoformat(text.partition("/")[0]).timestamp()
    except ValueError as error:
        raise Problem(422, f"{text} is not an RFC 3339 time") from error
