"""Imported clusters and their node groups: `/clusters/`."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from moorage.api.cluster_schemas import (
    CLUSTER_ID,
    GROUP_ID,
    ClusterDocument,
    ClusterList,
    ClusterRequest,
    NodeGroupDocument,
    NodeGroupList,
    NodeGroupRequest,
)
from moorage.api.context import Caller, IdempotencyKey, same_request, services
from moorage.api.json import as_answer, as_json
from moorage.api.problems import responses
from moorage.domain.cluster import Cluster, NodeGroup
from moorage.domain.cluster_view import cluster_view, node_group_view
from moorage.domain.naming import id_given
from moorage.services.clusters import Imported

PREFIX = "/clusters"
router = APIRouter(prefix=PREFIX, tags=["clusters"])

ClusterId = Annotated[str, Path(description="The UUID that the import answered.", examples=[CLUSTER_ID])]
GroupId = Annotated[str, Path(description="The UUID of a declared group.", examples=[GROUP_ID])]


@router.post(
    "/",
    status_code=201,
    response_model=ClusterDocument,
    summary="Import a cluster",
    responses=responses(400, 403, 409, 413, 415, 422, 503),
)
async def create(
    request: Request, caller: Caller, body: ClusterRequest, idempotency_key: IdempotencyKey = None
) -> Response:
    """Its access is tried, then sealed; and the cluster is looked over. One that refuses the access is not
    stored; one that cannot be reached now is, and its report says why."""
    answer = await services(request).clusters.create(
        caller, body.name, body.given(), idempotency_key, await same_request(request, caller), _body
    )
    return as_answer(answer)


@router.get("/", response_model=ClusterList, summary="List clusters", responses=responses(403))
async def page(request: Request, caller: Caller) -> Response:
    """Oldest first, each with the report of its last check and its node groups; never the access."""
    found = await services(request).clusters.page(caller)
    return as_json({"items": [cluster_view(each.cluster, each.groups) for each in found]})


@router.get(
    "/{cluster_id}/", response_model=ClusterDocument, summary="Read a cluster", responses=responses(403, 404)
)
async def get(request: Request, caller: Caller, cluster_id: ClusterId) -> Response:
    """With the report of its last check and its node groups."""
    found = await services(request).clusters.get(caller, id_given("cls", cluster_id))
    return as_json(cluster_view(found.cluster, found.groups))


@router.delete(
    "/{cluster_id}/",
    status_code=204,
    response_class=Response,
    summary="Remove a cluster",
    responses=responses(403, 404, 409),
)
async def remove(request: Request, caller: Caller, cluster_id: ClusterId) -> Response:
    """Refused while a deployment uses it. Its access is forgotten. Repeating is safe."""
    await services(request).clusters.remove(caller, id_given("cls", cluster_id))
    return Response(status_code=204)


@router.post(
    "/{cluster_id}/check/",
    response_model=ClusterDocument,
    summary="Look a cluster over again",
    responses=responses(403, 404, 503),
)
async def check(request: Request, caller: Caller, cluster_id: ClusterId) -> Response:
    """Version, what we may do, storage, tools, accelerators; and its node groups follow the nodes' labels.
    Repeating is safe."""
    found = await services(request).clusters.check(caller, id_given("cls", cluster_id))
    return as_json(cluster_view(found.cluster, found.groups))


@router.post(
    "/{cluster_id}/nodegroups/",
    status_code=201,
    response_model=NodeGroupDocument,
    summary="Declare a node group",
    responses=responses(400, 403, 404, 409, 413, 415, 422),
)
async def declare(
    request: Request,
    caller: Caller,
    cluster_id: ClusterId,
    body: NodeGroupRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The nodes that have all these labels. A group that was discovered by the same labels becomes it."""
    answer = await services(request).node_groups.create(
        caller,
        id_given("cls", cluster_id),
        body.to_domain(),
        idempotency_key,
        await same_request(request, caller),
        _group_body,
    )
    return as_answer(answer)


@router.get(
    "/{cluster_id}/nodegroups/",
    response_model=NodeGroupList,
    summary="List a cluster's node groups",
    responses=responses(403, 404),
)
async def groups(request: Request, caller: Caller, cluster_id: ClusterId) -> Response:
    """Discovered and declared ones, oldest first."""
    cluster, found = await services(request).node_groups.page(caller, id_given("cls", cluster_id))
    return as_json({"items": [node_group_view(group, cluster) for group in found]})


@router.delete(
    "/{cluster_id}/nodegroups/{group_id}/",
    status_code=204,
    response_class=Response,
    summary="Remove a declared node group",
    responses=responses(403, 404, 409),
)
async def remove_group(
    request: Request, caller: Caller, cluster_id: ClusterId, group_id: GroupId
) -> Response:
    """Refused for a discovered one, and while a deployment names it. Repeating is safe."""
    await services(request).node_groups.remove(caller, id_given("cls", cluster_id), id_given("ngp", group_id))
    return Response(status_code=204)


def _body(found: Imported) -> bytes:
    return orjson.dumps(cluster_view(found.cluster, found.groups))


def _group_body(group: NodeGroup, cluster: Cluster) -> bytes:
    return orjson.dumps(node_group_view(group, cluster))
