"""The BYOC surface: deployments on the organization's own clusters, as `/deployments/model-deployments/`.

The trailing slash is the documented form; without it works too. Ids are UUIDs here, the same 128 bits as in
the ids of `/v1/deployments`.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from moorage.api import byoc_translation as translation
from moorage.api.byoc_errors import responses
from moorage.api.byoc_schemas import (
    ByocChangeRequest,
    ByocCreated,
    ByocDeployment,
    ByocDeploymentPage,
    ByocDeploymentRequest,
    ByocScaleRequest,
)
from moorage.api.context import Caller, IdempotencyKey, same_request, services
from moorage.api.json import as_answer, as_json
from moorage.domain.deployment import Deployment
from moorage.domain.identity import Principal
from moorage.domain.naming import id_of
from moorage.errors import Invalid, NotFound
from moorage.services.changes import Change

PREFIX = "/deployments/model-deployments"
router = APIRouter(prefix=PREFIX, tags=["BYOC deployments"])

Uuid = Annotated[
    str,
    Path(
        description="`uuid` of the create's answer.",
        examples=["1e99a854-26de-4c19-b6b6-68c7e03c39c3"],
        json_schema_extra={"format": "uuid"},
    ),
]


@router.post(
    "/",
    status_code=201,
    response_model=ByocCreated,
    summary="Create a BYOC deployment",
    responses=responses(400, 409, 413, 415, 503),
)
async def create(
    request: Request, caller: Caller, body: ByocDeploymentRequest, idempotency_key: IdempotencyKey = None
) -> Response:
    """Deploys a container or model on node groups of a cluster of yours. What follows is told by `GET`."""
    answer = await services(request).new_deployments.create(
        caller,
        translation.new_deployment(body),
        idempotency_key,
        await same_request(request, caller),
        lambda deployment: (201, orjson.dumps(translation.created(deployment))),
    )
    return as_answer(answer, location=f"{PREFIX}/{orjson.loads(answer.body)['uuid']}/")


@router.get("/", response_model=ByocDeploymentPage, summary="List BYOC deployments", responses=responses(400))
async def page(
    request: Request,
    caller: Caller,
    cursor: Annotated[str | None, Query(max_length=512, description="`next_cursor` of a page.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """Those on your clusters, newest first. A page may be shorter than `limit`."""
    deployments = services(request).deployments
    found = await deployments.page_on_clusters(caller, cursor, limit)
    results = [translation.detail(d, deployments.public_url) for d in found.items]
    return as_json({"results": results, "next_cursor": found.next_cursor})


@router.get(
    "/{uuid}/", response_model=ByocDeployment, summary="Read a BYOC deployment", responses=responses(404)
)
async def get(request: Request, caller: Caller, uuid: Uuid) -> Response:
    """Its status, what was asked for, and why it failed."""
    return _shown(request, await _on_a_cluster(request, caller, uuid))


@router.patch(
    "/{uuid}/",
    response_model=ByocDeployment,
    summary="Change a BYOC deployment",
    responses=responses(400, 404, 409, 413, 415),
)
async def patch(request: Request, caller: Caller, uuid: Uuid, body: ByocChangeRequest) -> Response:
    """What runs is changed in place; `status` is `UPDATING` until that is done."""
    if not body.model_fields_set:
        raise Invalid("Give at least one field to change.")
    current = await _on_a_cluster(request, caller, uuid)
    changes = services(request).changes
    return _shown(
        request, await changes.change(caller, current.id, lambda now: translation.change(now, body))
    )


@router.delete(
    "/{uuid}/",
    status_code=204,
    summary="Delete a BYOC deployment",
    responses=responses(404),
    response_class=Response,
)
async def delete(request: Request, caller: Caller, uuid: Uuid) -> Response:
    """It is `DELETING` until nothing of it is left on the cluster, then `DELETED`. Repeating is safe."""
    current = await _on_a_cluster(request, caller, uuid)
    await services(request).deployments.delete(caller, current.id)
    return Response(status_code=204)


@router.post(
    "/{uuid}/start/",
    response_model=ByocDeployment,
    summary="Start a stopped BYOC deployment",
    responses=responses(404, 409),
)
async def start(request: Request, caller: Caller, uuid: Uuid) -> Response:
    """Has its pods again. Repeating is safe."""
    current = await _on_a_cluster(request, caller, uuid)
    return _shown(request, await services(request).changes.start(caller, current.id))


@router.post(
    "/{uuid}/stop/",
    response_model=ByocDeployment,
    summary="Stop a BYOC deployment",
    responses=responses(404, 409),
)
async def stop(request: Request, caller: Caller, uuid: Uuid) -> Response:
    """No pod is left; volumes and settings stay. Repeating is safe."""
    current = await _on_a_cluster(request, caller, uuid)
    return _shown(request, await services(request).changes.stop(caller, current.id))


@router.post(
    "/{uuid}/scale/",
    response_model=ByocDeployment,
    summary="Scale a BYOC deployment",
    responses=responses(400, 404, 409, 413, 415),
)
async def scale(request: Request, caller: Caller, uuid: Uuid, body: ByocScaleRequest) -> Response:
    """Between so many pods; a bound that is not given stays, and a maximum gives way to the minimum."""
    if body.min_pod_replicas is None and body.max_pod_replicas is None:
        raise Invalid("Give min_pod_replicas, max_pod_replicas, or both.")
    current = await _on_a_cluster(request, caller, uuid)
    change = Change(min_replicas=body.min_pod_replicas, max_replicas=body.max_pod_replicas)
    return _shown(request, await services(request).changes.change(caller, current.id, lambda _: change))


async def _on_a_cluster(request: Request, caller: Principal, uuid: str) -> Deployment:
    """A deployment that names no cluster is not of this surface."""
    try:
        id_ = id_of("dep", UUID(uuid))
    except ValueError as error:
        raise NotFound(f"{uuid[:64]!r} is no UUID.") from error
    found = await services(request).deployments.deployment(caller, id_)
    if found.spec.policy.cluster is None:
        raise NotFound(f"{uuid!r} is on no cluster.")
    return found


def _shown(request: Request, deployment: Deployment) -> Response:
    return as_json(translation.detail(deployment, services(request).deployments.public_url))
