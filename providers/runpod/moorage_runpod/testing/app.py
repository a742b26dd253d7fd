"""One request's way through the fake: recorded, made to fail, authorized, held to the document.

All of RunPod's hosts are one server here: REST v2, the job API, load balancers under `/lb`, and the side of
the workers under `/w`. `/_fake` is the test's own.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from moorage_runpod.testing.accounts import authenticate, authorize, scope_of
from moorage_runpod.testing.balancer import Balancer
from moorage_runpod.testing.cloud import Cloud
from moorage_runpod.testing.control import Control
from moorage_runpod.testing.document import Document, Operation, document
from moorage_runpod.testing.faults import Kind, RouteFault
from moorage_runpod.testing.job_api import RUN_SYNC_BYTES, JobApi
from moorage_runpod.testing.problems import Problem, bad_request, invalid, rate_limited
from moorage_runpod.testing.recorded import SeenRequest, without_secrets
from moorage_runpod.testing.rest import ACCOUNT, BODY, RestApi
from moorage_runpod.testing.worker import new_id
from moorage_runpod.testing.worker_api import WorkerApi

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_OWN = ("/w/", "/_fake/")
_NO_JSON = "$: the body is no JSON"
_PAGE = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"


def application(cloud: Cloud, balancer: Balancer) -> web.Application:
    app = web.Application(middlewares=[Pipeline(cloud).handle], client_max_size=RUN_SYNC_BYTES + 1024**2)
    for part in (RestApi(cloud), JobApi(cloud), balancer, WorkerApi(cloud), Control(cloud)):
        app.add_routes(part.routes())
    return app


class Pipeline:
    def __init__(self, cloud: Cloud, judge: Document | None = None) -> None:
        self._cloud = cloud
        self._document = judge or document()

    @web.middleware
    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        own = request.path.startswith(_OWN)
        return await (handler(request) if own else self._public(request, handler))

    async def _public(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        operation = self._document.operation(request.method, _template(request))
        seen = await self._seen(request, operation)
        self._cloud.records.add(seen)
        faults = self._cloud.faults.met(seen.name)
        for fault in faults:
            early = await _before(request, fault)
            if early is not None:
                seen.status = None if fault.kind is Kind.LOST_REQUEST else early.status
                return early
        response = await self._answered(request, handler, operation, seen)
        seen.status = response.status
        for fault in faults:
            response = _after(request, response, fault)
        return response

    async def _answered(
        self, request: web.Request, handler: Handler, operation: Operation | None, seen: SeenRequest
    ) -> web.StreamResponse:
        try:
            response = await self._authorized(request, handler, operation, seen)
        except Problem as problem:
            response = problem.answer()
        except web.HTTPException as error:  # no such path, or no such method of it
            allow = {k: v for k, v in error.headers.items() if k == "Allow"}
            detail = "resource not found" if error.status == 404 else error.reason
            response = Problem(error.status, detail, headers=allow).answer()
        except Exception:  # a fault of the fake's own, whatever it is, must fail the test that met it
            self._cloud.records.broken_answers.append(f"{seen.name}: {traceback.format_exc()}")
            raise
        response = self._checked(operation, seen, response)
        if not response.prepared:
            account = request.get(ACCOUNT)
            response.headers["x-request-id"] = new_id(20)
            if account is not None:
                response.headers.update(account.headers(self._cloud.clock()))
        return response

    async def _authorized(
        self, request: web.Request, handler: Handler, operation: Operation | None, seen: SeenRequest
    ) -> web.StreamResponse:
        if request.match_info.http_exception is not None:
            raise request.match_info.http_exception
        cloud = self._cloud
        header = request.headers.get("Authorization", "")
        account, key = authenticate(cloud.accounts, header, bare=operation is None)
        request[ACCOUNT] = account
        seen.account = account.name
        if operation is not None:
            account.count(cloud.clock())
        authorize(account, key, scope_of(request.method, request.path), cloud.faults.denied_scopes)
        if operation is not None:
            _refuse(seen)
        request[BODY] = seen.body
        return await handler(request)

    async def _seen(self, request: web.Request, operation: Operation | None) -> SeenRequest:
        seen = SeenRequest(
            method=request.method,
            path=request.path,
            route=_template(request) or request.path,
            query=dict(request.query),
            headers=without_secrets(request.headers),
            body=None,
            at=self._cloud.clock(),
        )
        if request.path.startswith("/lb/"):
            return seen  # whatever is sent is the worker's, and passed on as it comes
        raw = await request.read()
        try:
            seen.body = json.loads(raw) if raw else None
        except ValueError:
            seen.errors = (_NO_JSON,)
            return seen
        if operation is None:
            known = request.match_info.http_exception is None
            seen.errors = () if known else ("no such operation",)
        else:
            seen.errors = tuple(self._errors(request, operation, seen.body))
        return seen

    def _errors(self, request: web.Request, operation: Operation, body: Any) -> list[str]:  # Any: JSON
        errors = self._document.query_errors(operation, request.query)
        if operation.has_body:
            if request.content_type != "application/json":
                errors.append("the content type must be application/json")
            errors += self._document.body_errors(operation, body)
        return errors

    def _checked(
        self, operation: Operation | None, seen: SeenRequest, response: web.StreamResponse
    ) -> web.StreamResponse:
        """The answer; a loud 500 where the document does not allow it."""
        if operation is None or response.prepared or not isinstance(response, web.Response):
            return response
        body = response.body if isinstance(response.body, bytes) else b""
        errors = self._document.answer_errors(operation, response.status, response.content_type, body)
        if not errors:
            return response
        told = f"{seen.name} was answered against the document: {'; '.join(errors)}"
        self._cloud.records.broken_answers.append(told)
        return Problem(500, told).answer()


def _template(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical


def _refuse(seen: SeenRequest) -> None:
    """Raises 422 for what the document does not allow."""
    if seen.errors == (_NO_JSON,):
        raise bad_request("the body is no JSON")
    if seen.errors:
        raise invalid(seen.errors)


async def _before(request: web.Request, fault: RouteFault) -> web.StreamResponse | None:
    match fault.kind:
        case Kind.SLOW:
            await asyncio.sleep(fault.seconds)
        case Kind.RATE_LIMITED:
            response = rate_limited(round(fault.seconds)).answer()
            response.headers["ratelimit"] = f'"minute";r=0;t={round(fault.seconds)}, "hour";r=2999;t=1812'
            return response
        case Kind.LOST_REQUEST:
            return _cut(request)
        case Kind.HTML:
            return web.Response(text=_PAGE.format("Welcome"), content_type="text/html")
        case Kind.BAD_GATEWAY:
            page = _PAGE.format("502 Bad Gateway")
            return web.Response(
                status=502, text=page, content_type="text/html", headers={"Server": "cloudflare"}
            )
        case Kind.UNAVAILABLE:
            return Problem(503, "service temporarily unavailable").answer()
    return None


def _after(request: web.Request, response: web.StreamResponse, fault: RouteFault) -> web.StreamResponse:
    if fault.kind is Kind.LOST_ANSWER:
        return _cut(request)
    if (
        fault.kind is Kind.TRUNCATED
        and isinstance(response, web.Response)
        and isinstance(response.body, bytes)
    ):
        half = response.body[: len(response.body) // 2]
        return web.Response(status=response.status, body=half, content_type=response.content_type)
    return response


def _cut(request: web.Request) -> web.StreamResponse:
    """Ends the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
