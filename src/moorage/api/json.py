"""Answers whose content is plain JSON types already: validating them again would only cost time."""

from __future__ import annotations

import orjson
from starlette.responses import Response

from moorage.services.idempotency import Answer


def as_json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def as_answer(answer: Answer, **headers: str) -> Response:
    """The stored answer of an idempotent request, marked when it is a repetition."""
    if answer.replayed:
        headers["idempotent-replayed"] = "true"
    return Response(answer.body, answer.status, headers, "application/json")
