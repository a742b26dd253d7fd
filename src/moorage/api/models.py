"""Model versions, registered before they are deployed: `/models`."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from moorage.api.context import Caller, IdempotencyKey, same_request, services
from moorage.api.json import as_answer, as_json
from moorage.api.model_schemas import (
    MODEL_ID,
    ModelDocument,
    ModelList,
    ModelRequest,
    Removed,
    model_view,
)
from moorage.api.problems import responses
from moorage.domain.model_version import ModelVersion
from moorage.domain.naming import id_given

PREFIX = "/models"
router = APIRouter(prefix=PREFIX, tags=["models"])

ModelId = Annotated[str, Path(description="The UUID that the import answered.", examples=[MODEL_ID])]


@router.post(
    "",
    status_code=201,
    response_model=ModelDocument,
    summary="Import a container, or register a custom model",
    responses=responses(400, 403, 409, 413, 415, 422),
)
async def create(
    request: Request, caller: Caller, body: ModelRequest, idempotency_key: IdempotencyKey = None
) -> Response:
    """The registry (or the Hub) is asked whether it exists. Where it says no, the version is kept as
    `FAILED` with the cause. Where it does not answer, it is `SUCCESS`, and `detail` says so."""
    answer = await services(request).models.create(
        caller, body.to_domain(), idempotency_key, await same_request(request, caller), _body
    )
    return as_answer(answer, location=f"{PREFIX}/{orjson.loads(answer.body)['uuid']}")


@router.get("", response_model=ModelList, summary="List models", responses=responses(403))
async def page(
    request: Request,
    caller: Caller,
    cursor: Annotated[str | None, Query(max_length=512, description="Of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """Newest first. The `Link` header has the address of the next page (RFC 8288), unless it is the last."""
    found = await services(request).models.page(caller, cursor, limit)
    answer = as_json([model_view(row) for row in found.items])
    if found.next_cursor is not None:
        following = request.url.include_query_params(cursor=found.next_cursor, limit=limit)
        answer.headers["link"] = f'<{PREFIX}?{following.query}>; rel="next"'
    return answer


@router.get(
    "/{model_id}", response_model=ModelDocument, summary="Read a model", responses=responses(403, 404)
)
async def get(request: Request, caller: Caller, model_id: ModelId) -> Response:
    """What it is, and whether it may be deployed; never its credentials."""
    return as_json(model_view(await services(request).models.get(caller, id_given("mdl", model_id))))


@router.delete(
    "/{model_id}", response_model=Removed, summary="Delete a model", responses=responses(403, 404, 409)
)
async def remove(request: Request, caller: Caller, model_id: ModelId) -> Response:
    """Refused while a deployment uses it. Its credentials are forgotten. Repeating is safe."""
    await services(request).models.remove(caller, id_given("mdl", model_id))
    return as_json({"message": f"Model {model_id} deleted successfully"})


def _body(row: ModelVersion) -> bytes:
    return orjson.dumps(model_view(row))
