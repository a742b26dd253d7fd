"""One request's way through the server: recorded, made to fail, known, allowed, done, answered."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Callable
from typing import Any

import yaml
from aiohttp import web

from moorage_kubernetes.testing import discovery
from moorage_kubernetes.testing.access import Access
from moorage_kubernetes.testing.certificates import common_name
from moorage_kubernetes.testing.faults import Kind, RequestFault
from moorage_kubernetes.testing.listing import listed
from moorage_kubernetes.testing.logs import Logs
from moorage_kubernetes.testing.proxy import Proxy
from moorage_kubernetes.testing.recorded import Records, SeenRequest
from moorage_kubernetes.testing.resources import ACCESS_REVIEWS
from moorage_kubernetes.testing.statuses import (
    ApiError,
    Json,
    bad_request,
    method_not_allowed,
    too_many,
    unauthorized,
    unavailable,
    unsupported_media_type,
)
from moorage_kubernetes.testing.targets import Target, target, verb
from moorage_kubernetes.testing.verbs import Verbs
from moorage_kubernetes.testing.watching import Watches, is_watch
from moorage_kubernetes.testing.world import World

MOST_BYTES = 3 * 1024**2
OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version")
_PAGE = "<html><head><title>504 Gateway Time-out</title></head></html>"


class App:
    def __init__(self, world: World, access: Access, watches: Watches, proxy: Proxy, logs: Logs) -> None:
        self.records = Records()
        self._world = world
        self._access = access
        self._watches = watches
        self._proxy = proxy
        self._logs = logs
        self._verbs = Verbs(world)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MOST_BYTES)
        app.router.add_route("*", "/{path:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        seen = SeenRequest(request.method, request.path, dict(request.query), request.content_type)
        if not request.headers.get("Content-Type"):
            seen.content_type = ""
        self.records.requests.append(seen)
        faults = self._world.faults.met(seen.name)
        for fault in faults:
            early = await _before(request, fault)
            if early is not None:
                seen.status = None if fault.kind is Kind.LOSE_REQUEST else early.status
                return early
        response = await self._answered(request, seen)
        if any(fault.kind is Kind.LOSE_ANSWER for fault in faults):
            return _cut(request)
        seen.status = response.status
        return response

    async def _answered(self, request: web.Request, seen: SeenRequest) -> web.StreamResponse:
        try:
            return await self._served(request, seen)
        except ApiError as error:
            seen.refusal = error.message
            if error.code in (422, 500) or (error.code == 400 and "strict decoding" in error.message):
                self.records.refused.append(seen)
            return _refusal(error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:  # a fault of this server's own, whatever it is, must fail the test that met it
            self.records.broken.append(f"{seen.name}: {traceback.format_exc()}")
            return _refusal(ApiError(500, "InternalError", "the stand-in server is broken"))

    async def _served(self, request: web.Request, seen: SeenRequest) -> web.StreamResponse:
        path = request.path.rstrip("/") or "/"
        certificate = None
        if request.transport is not None:
            link = request.transport.get_extra_info("ssl_object")
            certificate = link.getpeercert(binary_form=True) if link is not None else None
        user = self._access.user(request.headers.get("Authorization", ""), common_name(certificate))
        seen.user = user
        if user is None and path not in OPEN_PATHS:
            raise unauthorized()
        told = self._told(path) if request.method in ("GET", "HEAD") else None
        if told is not None:
            return told
        wanted = target(request.path, self._world.catalog)
        watching = is_watch(request.query) and not wanted.subresource
        asked = verb(request.method, bool(wanted.name), watching)
        if wanted.resource != ACCESS_REVIEWS:
            self._access.check(
                str(user), asked, wanted.resource, wanted.subresource, wanted.namespace, wanted.name
            )
        if wanted.subresource == "proxy":
            return await self._proxy.serve(request, wanted)
        if asked not in wanted.resource.verbs:
            raise method_not_allowed()
        return await self._resource(request, wanted, watching)

    def _told(self, path: str) -> web.Response | None:
        """What is not a resource: versions, health, discovery. None where it is one."""
        world = self._world
        parts = path.strip("/").split("/")
        match parts:
            case ["version"]:
                return _json(discovery.version(world.version))
            case ["healthz" | "livez" | "readyz"]:
                return web.Response(text="ok")
            case ["api"]:
                return _json(discovery.core_versions(world.address))
            case ["apis"]:
                return _json(discovery.groups(world.catalog))
            case ["api", version]:
                return _json(discovery.resource_list(world.catalog, "", version))
            case ["apis", group]:
                return _json(discovery.group(world.catalog, group))
            case ["apis", group, version]:
                return _json(discovery.resource_list(world.catalog, group, version))
        return None

    async def _resource(self, request: web.Request, wanted: Target, watching: bool) -> web.StreamResponse:
        body = await _body(request)
        verbs, world = self._verbs, self._world
        if wanted.resource == ACCESS_REVIEWS:
            return _json(self._access.review(body or {}), 201)
        if wanted.subresource == "log":
            return await self._logs.serve(
                request, world.objects.get(wanted.resource, wanted.namespace, wanted.name)
            )
        match request.method:
            case "GET" | "HEAD":
                if watching:
                    return await self._watches.serve(request, wanted.resource, wanted.namespace)
                if wanted.name:
                    return _json(verbs.get(wanted))
                return _json(listed(world.store, wanted.resource, wanted.namespace, request.query))
            case "POST":
                made, warnings = verbs.post(wanted, body, request)
                return _json(made, 201, warnings)
            case "PUT":
                made, warnings = verbs.put(wanted, body, request)
                return _json(made, 200, warnings)
            case "PATCH":
                made, new, warnings = verbs.patch(wanted, body, request)
                return _json(made, 201 if new else 200, warnings)
            case "DELETE":
                return _json(verbs.delete(wanted, body, request))
        raise method_not_allowed()


async def _body(request: web.Request) -> Any:  # Any: JSON or YAML of a client
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        message = f"Request entity too large: limit is {MOST_BYTES}"
        raise ApiError(413, "RequestEntityTooLarge", message) from error
    if not raw:
        return None
    if "protobuf" in request.content_type:
        raise unsupported_media_type(["application/json", "application/yaml"])
    try:
        return json.loads(raw)
    except ValueError:
        if "yaml" not in request.content_type:
            raise bad_request("couldn't get version/kind; json parse error") from None
    try:
        return yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise bad_request("error decoding YAML") from error


def _json(value: Json, status: int = 200, warnings: list[str] | None = None) -> web.Response:
    response = web.json_response(value, status=status)
    for warning in warnings or ():
        response.headers.add("Warning", '299 - "' + warning.replace('"', '\\"') + '"')
    return response


def _refusal(error: ApiError) -> web.Response:
    response = web.json_response(error.as_json(), status=error.code)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


async def _before(request: web.Request, fault: RequestFault) -> web.StreamResponse | None:
    answers: dict[Kind, Callable[[], web.StreamResponse]] = {
        Kind.TOO_MANY: lambda: _refusal(too_many(round(fault.seconds))),
        Kind.INTERNAL: lambda: _refusal(
            ApiError(500, "InternalError", "Internal error occurred: etcd is away")
        ),
        Kind.UNAVAILABLE: lambda: _refusal(unavailable("apiserver not ready")),
        Kind.GATEWAY_TIMEOUT: lambda: web.Response(status=504, text=_PAGE, content_type="text/html"),
        Kind.LOSE_REQUEST: lambda: _cut(request),
    }
    if fault.kind is Kind.SLOW:
        await asyncio.sleep(fault.seconds)
    found = answers.get(fault.kind)
    return found() if found is not None else None


def _cut(request: web.Request) -> web.StreamResponse:
    """Ends the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
