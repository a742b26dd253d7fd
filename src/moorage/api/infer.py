"""The inference route as the document shows it. The gateway stands in front and answers it; this route is
reached only when the gateway runs as a process of its own."""

from __future__ import annotations

from typing import Annotated, Any  # a model's inputs and outputs are its own

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from moorage.api.context import Caller
from moorage.api.problems import responses
from moorage.errors import Unavailable

router = APIRouter(prefix="/v1/models", tags=["inference"])


class InferRequest(BaseModel):
    """What most models of the worker take. The gateway passes any body on as it is; the model judges it."""

    inputs: Any = Field(description="What the model takes.")
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferAnswer(BaseModel):
    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {
                    "model_id": "moorage/digits",
                    "outputs": [{"label": "3", "score": 0.99}],
                    "metadata": {"inference_time_ms": 0.4, "model_version": "0123abcd"},
                }
            ]
        },
    )
    model_id: str
    outputs: Any
    metadata: dict[str, Any]


_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/InferRequest"},
            "example": {"inputs": "A most agreeable harbour.", "parameters": {}},
        },
        "*/*": {"schema": {}},
    },
}


@router.post(
    "/{model:path}/infer",
    response_model=InferAnswer,
    summary="Send a request to a model",
    responses=responses(400, 403, 404, 408, 413, 500, 502, 503, 504),
    openapi_extra={"requestBody": _BODY},
)
async def infer(
    _: Request,
    caller: Caller,
    model: Annotated[str, Path(description="Deployment id, deployment name, or the model's own id.")],
) -> Response:
    """Forwarded to a replica as it is, and streamed back. The body's form is the model's own; so are 400, 422
    and 500."""
    raise Unavailable("The gateway of this service runs elsewhere.", code="gateway_elsewhere")
