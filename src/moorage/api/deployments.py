"""The deployments surface, the canonical one: `/v1/deployments`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated

import orjson
from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response

from moorage.api import sse
from moorage.api.context import Caller, IdempotencyKey, same_request, services
from moorage.api.deployment_requests import ChangeRequest, DeploymentRequest, ScaleRequest
from moorage.api.json import as_answer, as_json
from moorage.api.problems import responses
from moorage.api.schemas import (
    DEPLOYMENT_ID,
    Accepted,
    CostDocument,
    DeploymentDocument,
    DeploymentList,
    EventList,
    LogList,
    PlanDocument,
)
from moorage.domain.deployment import Phase
from moorage.domain.event import Event
from moorage.domain.identity import Principal
from moorage.domain.view import instant
from moorage.errors import Gone, Invalid
from moorage.ports.provider import LogLine
from moorage.ports.store import DeploymentFilter

router = APIRouter(prefix="/v1/deployments", tags=["deployments"])

DeploymentId = Annotated[str, Path(description="The id that the create answered.", examples=[DEPLOYMENT_ID])]
_STREAM = {"text/event-stream": {"schema": {"type": "string", "description": "Server-sent events."}}}


@router.post(
    "",
    status_code=202,
    response_model=Accepted,
    summary="Deploy a model",
    responses=responses(400, 403, 409, 413, 415, 422, 503),
)
async def create(
    request: Request, caller: Caller, body: DeploymentRequest, idempotency_key: IdempotencyKey = None
) -> Response:
    """Accepts the deployment once the model is known to exist and to fit somewhere; what follows is told by
    `GET`, events and the webhook."""
    answer = await services(request).new_deployments.create(
        caller, body.to_domain(), idempotency_key, await same_request(request, caller)
    )
    location = f"/v1/deployments/{orjson.loads(answer.body)['deployment_id']}"
    return as_answer(answer, location=location)


@router.post(
    "/plan",
    response_model=PlanDocument,
    summary="Explain where a model would run, and why",
    responses=responses(400, 403, 413, 415, 422, 503),
)
async def plan(request: Request, caller: Caller, body: DeploymentRequest) -> Response:
    """The estimate's arithmetic, the ladder of offers with prices, and for each offer refused why, and the
    smallest change that would make it fit. Creates nothing."""
    return as_json(await services(request).new_deployments.plan(caller, body.to_domain()))


@router.get("", response_model=DeploymentList, summary="List deployments", responses=responses(403, 422))
async def page(
    request: Request,
    caller: Caller,
    status: Annotated[list[Phase] | None, Query(description="Any of these; repeat it.")] = None,
    provider: Annotated[str | None, Query(max_length=64)] = None,
    model: Annotated[str | None, Query(max_length=256, description="Model id or image.")] = None,
    name: Annotated[str | None, Query(max_length=64)] = None,
    cursor: Annotated[str | None, Query(max_length=512, description="`next_cursor` of a page.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """Newest first."""
    where = DeploymentFilter(frozenset(status or ()), provider, model, name)
    found = await services(request).deployments.page(caller, where, cursor, limit)
    return as_json({"items": found.items, "next_cursor": found.next_cursor})


@router.get(
    "/{deployment_id}",
    response_model=DeploymentDocument,
    summary="Read a deployment",
    responses=responses(403, 404),
)
async def get(request: Request, caller: Caller, deployment_id: DeploymentId) -> Response:
    """Everything that is known of it: phase, conditions, where it runs, what it costs, why it failed."""
    return as_json(await services(request).deployments.get(caller, deployment_id))


@router.delete(
    "/{deployment_id}",
    status_code=204,
    summary="Delete a deployment",
    responses=responses(403, 404),
    response_class=Response,
)
async def delete(request: Request, caller: Caller, deployment_id: DeploymentId) -> Response:
    """It is `deleting` until its absence at the provider is confirmed, then `deleted`. Repeating is safe."""
    await services(request).deployments.delete(caller, deployment_id)
    return Response(status_code=204)


@router.patch(
    "/{deployment_id}",
    status_code=202,
    response_model=DeploymentDocument,
    summary="Change a deployment",
    responses=responses(400, 403, 404, 409, 413, 415),
)
async def change(
    request: Request, caller: Caller, deployment_id: DeploymentId, body: ChangeRequest
) -> Response:
    """What runs is changed in place where its provider can; it is `updating` until that is done."""
    if not body.model_fields_set:
        raise Invalid.at("body", "something_to_change", "Give at least one field to change.")
    await services(request).changes.change(caller, deployment_id, lambda _: body.to_domain())
    return await _accepted(request, caller, deployment_id)


@router.post(
    "/{deployment_id}/scale",
    status_code=202,
    response_model=DeploymentDocument,
    summary="Have another number of replicas",
    responses=responses(400, 403, 404, 409, 413, 415),
)
async def scale(
    request: Request, caller: Caller, deployment_id: DeploymentId, body: ScaleRequest
) -> Response:
    """Between `min_replicas` and `max_replicas`, where the provider scales by load."""
    await services(request).changes.scale(caller, deployment_id, body.min_replicas, body.max_replicas)
    return await _accepted(request, caller, deployment_id)


@router.post(
    "/{deployment_id}/stop",
    status_code=202,
    response_model=DeploymentDocument,
    summary="Stop a deployment",
    responses=responses(403, 404, 409),
)
async def stop(request: Request, caller: Caller, deployment_id: DeploymentId) -> Response:
    """No replica runs or costs until it is started; the rest is kept. Repeating is safe."""
    await services(request).changes.stop(caller, deployment_id)
    return await _accepted(request, caller, deployment_id)


@router.post(
    "/{deployment_id}/start",
    status_code=202,
    response_model=DeploymentDocument,
    summary="Start a stopped deployment",
    responses=responses(403, 404, 409),
)
async def start(request: Request, caller: Caller, deployment_id: DeploymentId) -> Response:
    """It serves again as before. Repeating is safe."""
    await services(request).changes.start(caller, deployment_id)
    return await _accepted(request, caller, deployment_id)


@router.post(
    "/{deployment_id}/wake",
    status_code=202,
    response_model=DeploymentDocument,
    summary="Wake a hibernated deployment",
    responses=responses(403, 404),
)
async def wake(request: Request, caller: Caller, deployment_id: DeploymentId) -> Response:
    """As a request to it does. One that does not sleep stays as it is."""
    await services(request).changes.activate(caller, deployment_id)
    return await _accepted(request, caller, deployment_id)


@router.get(
    "/{deployment_id}/events",
    response_model=EventList,
    summary="Read or follow what happened",
    responses={200: {"content": _STREAM}, **responses(403, 404, 422)},
)
async def events(
    request: Request,
    caller: Caller,
    deployment_id: DeploymentId,
    after: Annotated[str | None, Query(max_length=64, description="Events after this id.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> Response:
    """Oldest first. With `Accept: text/event-stream` it goes on until the deployment is deleted."""
    deployments = services(request).deployments
    after = after or last_event_id
    if sse.wanted(request):
        await deployments.get(caller, deployment_id)
        return sse.stream(_event_frames(deployments.follow_events(caller, deployment_id, after)))
    found = await deployments.events(caller, deployment_id, after, limit)
    return as_json({"items": [_event(e) for e in found], "next_after": found[-1].id if found else after})


@router.get(
    "/{deployment_id}/logs",
    response_model=LogList,
    summary="Read or follow the replicas' logs",
    responses={200: {"content": _STREAM}, **responses(403, 404, 422)},
)
async def logs(
    request: Request,
    caller: Caller,
    deployment_id: DeploymentId,
    tail: Annotated[int, Query(ge=0, le=5000, description="How many of the last lines.")] = 100,
) -> Response:
    """Oldest first. With `Accept: text/event-stream` new lines follow as they are written."""
    deployments = services(request).deployments
    lines = await deployments.logs(caller, deployment_id, tail=tail, follow=False)
    if sse.wanted(request):
        follow = partial(deployments.logs, caller, deployment_id, tail=tail, follow=True)
        return sse.stream(sse.kept_alive(_log_frames(follow)))
    return as_json({"items": [_log_line(line) async for line in _while_there(lines)]})


@router.get(
    "/{deployment_id}/cost",
    response_model=CostDocument,
    summary="Read what a deployment costs",
    responses=responses(403, 404),
)
async def cost(request: Request, caller: Caller, deployment_id: DeploymentId) -> Response:
    """What was measured here, and, where the provider tells it, what it charged."""
    return as_json(await services(request).prices.cost(caller, deployment_id))


async def _accepted(request: Request, caller: Principal, deployment_id: str) -> Response:
    return as_json(await services(request).deployments.get(caller, deployment_id), 202)


async def _event_frames(found: AsyncIterator[Event | None]) -> AsyncIterator[bytes]:
    async for event in found:
        yield sse.KEEPALIVE if event is None else sse.frame(_event(event), event=event.type, id_=event.id)


async def _log_frames(follow: Callable[[], Awaitable[AsyncIterator[LogLine]]]) -> AsyncGenerator[bytes]:
    """Waits for the endpoint inside the stream: only there does the service notice a reader that leaves."""
    async for line in _while_there(await follow()):
        yield sse.frame(_log_line(line), event="log")


async def _while_there(lines: AsyncIterator[LogLine]) -> AsyncIterator[LogLine]:
    """An endpoint that went away, and that the engine has not missed yet, has no more lines."""
    try:
        async for line in lines:
            yield line
    except Gone:
        return


def _event(event: Event) -> dict[str, object]:
    return {
        "id": event.id,
        "type": event.type,
        "at": instant(event.at),
        "actor": event.actor,
        "message": event.message,
        "data": dict(event.data),
    }


def _log_line(line: LogLine) -> dict[str, object]:
    return {"at": instant(line.at), "replica": line.replica, "text": line.text}
