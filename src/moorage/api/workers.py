"""What workers call: they tell their state, and ask for the files of the shared cache.

No user comes here. A worker signs with the secret of its endpoint (Standard Webhooks), and can say nothing of
any other.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from moorage.api.context import services
from moorage.api.json import as_json
from moorage.api.problems import responses
from moorage.services.worker_reports import Signed

router = APIRouter(prefix="/v1/workers", tags=["workers"])

ENDPOINT = "mrg-27k4m6q2x5y3zj7abcdefghijk-r1-a1"
Endpoint = Annotated[str, Path(description="External name of the endpoint.", examples=[ENDPOINT])]
Id = Annotated[str, Header(alias="webhook-id", max_length=128)]
Timestamp = Annotated[str, Header(alias="webhook-timestamp", max_length=32)]
Signature = Annotated[str, Header(alias="webhook-signature", max_length=1024)]


class State(StrEnum):
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class StateReport(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "endpoint": ENDPOINT,
                    "worker": "8g3n5t6r",
                    "state": "ready",
                    "stage": None,
                    "percent": None,
                    "load_seconds": 4.2,
                    "from_cache": True,
                    "cause": None,
                }
            ]
        }
    )
    endpoint: str = Field(max_length=128)
    worker: str = Field(max_length=256)
    state: State
    stage: str | None = Field(None, max_length=64)
    percent: float | None = Field(None, ge=0, le=100)
    load_seconds: float | None = Field(None, ge=0)
    from_cache: bool | None = None
    cause: str | None = None


class CachedFileDocument(BaseModel):
    path: str
    size: int
    url: str = Field(description="Opens the file for a while, for reading.")


class Manifest(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "files": [
                        {
                            "path": "unet/model.safetensors",
                            "size": 1_000_000,
                            "url": "https://bucket.example.com/models/…",
                        }
                    ]
                }
            ]
        }
    )
    files: list[CachedFileDocument]


@router.post(
    "/{endpoint}/state",
    status_code=204,
    response_class=Response,
    summary="Tell a worker's state",
    responses=responses(400, 404, 413, 415, 422),
)
async def state(
    request: Request,
    endpoint: Endpoint,
    body: StateReport,
    webhook_id: Id,
    webhook_timestamp: Timestamp,
    webhook_signature: Signature,
) -> Response:
    """Signed by the worker; wakes the engine, which looks at once."""
    signed = Signed(webhook_id, webhook_timestamp, webhook_signature)
    said = body.model_dump(mode="json")
    await services(request).worker_reports.take(endpoint, signed, await request.body(), said)
    return Response(status_code=204)


@router.get(
    "/{endpoint}/cache",
    response_model=Manifest,
    summary="List the cached files of a worker's model",
    responses=responses(404, 503),
)
async def cache(
    request: Request,
    endpoint: Endpoint,
    webhook_id: Id,
    webhook_timestamp: Timestamp,
    webhook_signature: Signature,
) -> Response:
    """Signed over an empty body. 404 when the model is not in the shared cache."""
    signed = Signed(webhook_id, webhook_timestamp, webhook_signature)
    files = await services(request).worker_reports.cached_files(endpoint, signed)
    return as_json({"files": [{"path": f.path, "size": f.size, "url": f.url} for f in files]})
