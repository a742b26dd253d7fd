"""Webhooks from their owner's side: the signing secret, and what became of each message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any  # examples are untyped JSON

import orjson
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from moorage.api.context import Caller, IdempotencyKey, same_request, services
from moorage.api.json import as_answer, as_json
from moorage.api.problems import responses
from moorage.domain.delivery import Delivery, DeliveryState
from moorage.domain.view import instant
from moorage.ports.store import DeliveryFilter, Write
from moorage.services.webhooks import ShownSecret

router = APIRouter(prefix="/v1", tags=["webhooks"])

MESSAGE_ID = "msg_27k4m6q2x5y3zj7abcdefghijk"


class SecretDocument(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "secret": "whsec_…",
                    "created_at": "2026-11-21T09:00:00.000000Z",
                    "previous": None,
                    "previous_expires_at": None,
                }
            ]
        }
    )
    secret: str
    created_at: str
    previous: str | None = Field(description="Signs too, until it expires.")
    previous_expires_at: str | None


class AttemptDocument(BaseModel):
    at: str
    status: int | None = Field(description="null when no answer came.")
    error: str | None
    seconds: float


DELIVERY: dict[str, Any] = {
    "id": MESSAGE_ID,
    "deployment_id": "dep_27k4m6q2x5y3zj7abcdefghijk",
    "event_type": "deployment.ready",
    "url": "https://app.example.com/webhook",
    "state": "delivered",
    "failures": 0,
    "attempts": [{"at": "2026-11-21T09:00:04.200000Z", "status": 204, "error": None, "seconds": 0.08}],
    "next_attempt_at": None,
    "created_at": "2026-11-21T09:00:04.120000Z",
}


class DeliveryDocument(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [DELIVERY]})
    id: str = Field(description="The message's `webhook-id`.")
    deployment_id: str
    event_type: str
    url: str
    state: DeliveryState
    failures: int
    attempts: list[AttemptDocument]
    next_attempt_at: str | None
    created_at: str


class DeliveryList(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [DELIVERY], "next_cursor": None}]})
    items: list[DeliveryDocument]
    next_cursor: str | None


@router.get(
    "/webhook-secret",
    response_model=SecretDocument,
    summary="Read the webhook secret",
    responses=responses(403, 503),
)
async def secret(request: Request, caller: Caller) -> Response:
    """What messages are signed with (Standard Webhooks, `v1` signatures)."""
    return as_json(_secret(await services(request).webhooks.secret(caller)))


@router.post(
    "/webhook-secret/rotate",
    response_model=SecretDocument,
    summary="Rotate the webhook secret",
    responses=responses(403, 409, 413, 422, 503),
)
async def rotate(request: Request, caller: Caller, idempotency_key: IdempotencyKey = None) -> Response:
    """Messages are signed with both secrets for a day."""
    found = services(request)

    async def make() -> tuple[Sequence[Write], int, bytes]:
        shown, writes = await found.webhooks.draft_rotation(caller)
        return writes, 200, orjson.dumps(_secret(shown))

    fingerprint = await same_request(request, caller)
    return as_answer(await found.idempotency.once(caller, idempotency_key, fingerprint, make))


@router.get(
    "/deliveries", response_model=DeliveryList, summary="List deliveries", responses=responses(403, 422)
)
async def deliveries(
    request: Request,
    caller: Caller,
    state: Annotated[DeliveryState | None, Query()] = None,
    deployment_id: Annotated[str | None, Query(max_length=64)] = None,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> Response:
    """Newest first, with every attempt and what came back."""
    where = DeliveryFilter(state.value if state else None, deployment_id)
    page = await services(request).webhooks.deliveries(caller, where, cursor, limit)
    return as_json({"items": [_delivery(d) for d in page.items], "next_cursor": page.next_cursor})


@router.post(
    "/deliveries/{delivery_id}/resend",
    status_code=202,
    response_model=DeliveryDocument,
    summary="Send a delivery again",
    responses=responses(403, 404, 409, 413, 422),
)
async def resend(
    request: Request,
    caller: Caller,
    delivery_id: Annotated[str, Path(description="The message's id.", examples=[MESSAGE_ID])],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The same message under the same id, at once, with a fresh schedule. A receiver that had said 410 is
    told again."""
    found = services(request)

    async def make() -> tuple[Sequence[Write], int, bytes]:
        delivery, writes = await found.webhooks.draft_resend(caller, delivery_id)
        return writes, 202, orjson.dumps(_delivery(delivery))

    fingerprint = await same_request(request, caller)
    answer = await found.idempotency.once(caller, idempotency_key, fingerprint, make)
    found.webhooks.on_due()
    return as_answer(answer)


def _secret(shown: ShownSecret) -> dict[str, object]:
    expires = shown.previous_expires_at
    return {
        "secret": shown.current,
        "created_at": instant(shown.created_at),
        "previous": shown.previous,
        "previous_expires_at": instant(expires) if expires else None,
    }


def _delivery(delivery: Delivery) -> dict[str, object]:
    return {
        "id": delivery.id,
        "deployment_id": delivery.subject_id,
        "event_type": delivery.event_type,
        "url": delivery.url,
        "state": delivery.state.value,
        "failures": delivery.failures,
        "attempts": [
            {"at": instant(a.at), "status": a.status, "error": a.error, "seconds": round(a.seconds, 4)}
            for a in delivery.attempts
        ],
        "next_attempt_at": instant(delivery.due_at) if delivery.due_at else None,
        "created_at": instant(delivery.created_at),
    }
