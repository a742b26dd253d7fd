"""Signing in, and API keys: `/auth/token`, `/v1/keys`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any  # examples are untyped JSON

import orjson
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from moorage.api.context import Caller, IdempotencyKey, same_request, services
from moorage.api.json import as_answer, as_json
from moorage.api.problems import responses
from moorage.domain.identity import ApiKey, Role
from moorage.domain.view import instant
from moorage.ports.store import Write

sign_in = APIRouter(tags=["identity"])  # needs no token
router = APIRouter(tags=["identity"])

KEY_ID = "key_27k4m6q2x5y3zj7abcdefghijk"
KeyId = Annotated[str, Path(description="The id that the create answered.", examples=[KEY_ID])]


class Credentials(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"username": "owner", "password": "correct horse battery"}]},
    )
    username: str = Field(min_length=1, max_length=256)
    password: str = Field(min_length=1, max_length=1024)


class Token(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"token": "eyJ…", "expires_at": "2026-11-21T10:00:00.000000Z"}]}
    )
    token: str
    expires_at: str


class NewKeyRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "ci", "role": "deployer"}]}
    )
    name: str = Field(min_length=1, max_length=64)
    role: Role = Role.DEPLOYER


KEY: dict[str, Any] = {
    "id": KEY_ID,
    "name": "ci",
    "role": "deployer",
    "hint": "mrg_Zx3k",
    "created_at": "2026-11-21T09:00:00.000000Z",
    "created_by": "usr_27k4m6q2x5y3zj7abcdefghijk",
    "revoked_at": None,
}


class KeyDocument(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [KEY]})
    id: str
    name: str
    role: Role
    hint: str = Field(description="How the key begins.")
    created_at: str
    created_by: str
    revoked_at: str | None


class NewKeyDocument(KeyDocument):
    model_config = ConfigDict(json_schema_extra={"examples": [{**KEY, "key": "mrg_Zx3k…"}]})
    key: str = Field(description="Shown this once.")


class KeyList(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [KEY]}]})
    items: list[KeyDocument]


@sign_in.post(
    "/auth/token",
    response_model=Token,
    summary="Sign in with a password",
    responses=responses(400, 413, 415, 422, 429),
)
async def token(request: Request, body: Credentials) -> Response:
    """A token for the `Authorization` header. Failed tries are limited by user name and address."""
    address = request.client.host if request.client else "unknown"
    found = await services(request).identity.sign_in(body.username, body.password, address)
    return as_json({"token": found.token, "expires_at": instant(found.expires_at)})


@router.post(
    "/v1/keys",
    status_code=201,
    response_model=NewKeyDocument,
    summary="Make an API key",
    responses=responses(400, 403, 409, 413, 415, 422),
)
async def create_key(
    request: Request, caller: Caller, body: NewKeyRequest, idempotency_key: IdempotencyKey = None
) -> Response:
    """The key itself is in this answer and nowhere else."""
    found = services(request)

    async def make() -> tuple[Sequence[Write], int, bytes]:
        new, writes = found.keys.draft_key(caller, body.name, body.role)
        return writes, 201, orjson.dumps({**_key(new.key), "key": new.secret})

    fingerprint = await same_request(request, caller)
    return as_answer(await found.idempotency.once(caller, idempotency_key, fingerprint, make))


@router.get("/v1/keys", response_model=KeyList, summary="List API keys", responses=responses(403))
async def list_keys(request: Request, caller: Caller) -> Response:
    """Of the organization, the revoked ones too; never the keys themselves."""
    return as_json({"items": [_key(k) for k in await services(request).keys.list_keys(caller)]})


@router.delete(
    "/v1/keys/{key_id}",
    response_model=KeyDocument,
    summary="Revoke an API key",
    responses=responses(403, 404),
)
async def revoke_key(request: Request, caller: Caller, key_id: KeyId) -> Response:
    """At once in this process, within seconds in others. Repeating is safe."""
    return as_json(_key(await services(request).keys.revoke_key(caller, key_id)))


def _key(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role.value,
        "hint": key.hint,
        "created_at": instant(key.created_at),
        "created_by": key.created_by,
        "revoked_at": instant(key.revoked_at) if key.revoked_at else None,
    }
