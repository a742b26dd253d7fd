"""Accounts at providers, stored by their owner: `/v1/credentials`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any  # examples are untyped JSON

import orjson
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from moorage.api.context import Caller, IdempotencyKey, same_request, services
from moorage.api.json import as_answer, as_json
from moorage.api.problems import responses
from moorage.domain.identity import ProviderCredential
from moorage.domain.view import instant
from moorage.ports.store import Write

router = APIRouter(prefix="/v1/credentials", tags=["credentials"])

CREDENTIAL_ID = "crd_27k4m6q2x5y3zj7abcdefghijk"
CREDENTIAL: dict[str, Any] = {
    "id": CREDENTIAL_ID,
    "provider": "runpod",
    "name": "main",
    "hint": "rpa_7K…",
    "created_at": "2026-11-21T09:00:00.000000Z",
    "created_by": "usr_27k4m6q2x5y3zj7abcdefghijk",
}


class NewCredentialRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"provider": "runpod", "name": "main", "values": {"api_key": "rpa_…"}}]
        },
    )
    provider: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    values: dict[str, str] = Field(description="What the provider asks for; sealed, never shown again.")


class CredentialDocument(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [CREDENTIAL]})
    id: str
    provider: str
    name: str
    hint: str = Field(description="How it begins.")
    created_at: str
    created_by: str


class CredentialList(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [CREDENTIAL]}]})
    items: list[CredentialDocument]


@router.post(
    "",
    status_code=201,
    response_model=CredentialDocument,
    summary="Store an account at a provider",
    responses=responses(400, 403, 409, 413, 415, 422, 503),
)
async def create(
    request: Request, caller: Caller, body: NewCredentialRequest, idempotency_key: IdempotencyKey = None
) -> Response:
    """Checked with the provider first. Deployments of your organization use it from then on."""
    found = services(request)

    async def make() -> tuple[Sequence[Write], int, bytes]:
        row, writes = await found.credentials.draft(caller, body.provider, body.name.strip(), body.values)
        return writes, 201, orjson.dumps(_credential(row))

    fingerprint = await same_request(request, caller)
    return as_answer(await found.idempotency.once(caller, idempotency_key, fingerprint, make))


@router.get("", response_model=CredentialList, summary="List stored accounts", responses=responses(403))
async def page(request: Request, caller: Caller) -> Response:
    """Oldest first; never the secrets."""
    rows = await services(request).credentials.page(caller)
    return as_json({"items": [_credential(row) for row in rows]})


@router.delete(
    "/{credential_id}",
    status_code=204,
    response_class=Response,
    summary="Remove a stored account",
    responses=responses(403, 404, 409),
)
async def remove(
    request: Request,
    caller: Caller,
    credential_id: Annotated[
        str, Path(description="The id that the create answered.", examples=[CREDENTIAL_ID])
    ],
) -> Response:
    """Refused while a deployment uses it. Its secret is forgotten. Repeating is safe."""
    await services(request).credentials.remove(caller, credential_id)
    return Response(status_code=204)


def _credential(row: ProviderCredential) -> dict[str, object]:
    return {
        "id": row.id,
        "provider": row.provider,
        "name": row.name,
        "hint": row.hint,
        "created_at": instant(row.created_at),
        "created_by": row.created_by,
    }
