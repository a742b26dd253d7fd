"""JSON in and out of request and response bodies."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from aiohttp import web

from moorage_worker.errors import BadInput, MalformedBody
from moorage_worker.json_types import Json, kind

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def parse_object(raw: bytes) -> dict[str, Json]:
    """The body as a JSON object. Raises MalformedBody."""
    try:
        body: Json = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise MalformedBody(f"the body must be a JSON object, got {kind(body)}")
    return body


def object_field(body: Mapping[str, Json], name: str) -> dict[str, Json]:
    """An optional member that must be an object; empty when absent or null."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(name, "type", f"must be an object, got {kind(value)}")
    return value


def refuse_unknown(body: Mapping[str, Json], known: tuple[str, ...]) -> None:
    """Raise BadInput for the first member that is not known."""
    for name in body:
        if name not in known:
            raise BadInput(name, "unknown", f"is not a field of this request (known: {', '.join(known)})")


def encode(value: object) -> bytes:
    """JSON bytes; numpy arrays become nested lists, NaN and infinities null."""
    return orjson.dumps(value, option=_OPTIONS)


def json_response(
    value: object,
    status: int = 200,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    return web.Response(body=encode(value), status=status, content_type=content_type, headers=headers)
