"""Every error of the HTTP surface as an RFC 9457 problem document.

Refusals of the framework (a body that is no JSON, a wrong type, an unknown field) are told in the same shape
and with the same care as our own: which field, which rule, what to do.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any  # pydantic's error dictionaries are untyped

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from moorage.errors import (
    Clash,
    FieldError,
    Invalid,
    Malformed,
    NotFound,
    Problem,
    StaleWrite,
    Unauthenticated,
)
from moorage.services.authentication import challenge

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """One broken rule."""

    field: str = Field(examples=["body.min_replicas"])
    rule: str = Field(examples=["min_at_most_max"])
    message: str


class ProblemDocument(BaseModel):
    """RFC 9457, with a stable `code` and the fields at fault."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:moorage:problem:model_not_found",
                    "title": "The model cannot be used",
                    "status": 422,
                    "detail": "There is no model acme/nothing on the Hub.",
                    "code": "model_not_found",
                    "advice": "Check the spelling; a private model needs hf_token.",
                    "errors": [
                        {
                            "field": "body.hf_model_id",
                            "rule": "model_not_found",
                            "message": "There is no model acme/nothing on the Hub.",
                        }
                    ],
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    code: str
    advice: str | None = None
    errors: list[FieldProblem] = []


def document(problem: Problem) -> dict[str, Any]:
    return {
        "type": f"urn:moorage:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "advice": problem.advice,
        "errors": [{"field": in_body(e.field), "rule": e.rule, "message": e.message} for e in problem.errors],
    }


def in_body(field: str) -> str:
    """`hf_model_id` is `body.hf_model_id` here: what is below the surface cannot know."""
    return field if field.partition(".")[0] in ("body", "query", "path", "header") else f"body.{field}"


def response(problem: Problem) -> Response:
    headers: dict[str, str] = {}
    if problem.retry_after is not None:
        headers["retry-after"] = str(math.ceil(problem.retry_after))
    if isinstance(problem, Unauthenticated):
        headers["www-authenticate"] = challenge(problem)
    return JSONResponse(document(problem), problem.status, headers, MEDIA_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides success, for the OpenAPI document. Every route has 401, 413 and 422."""
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in sorted({401, *statuses})
    }


_DESCRIPTIONS = {
    400: "The body is not JSON, or not what its content type says.",
    401: "No valid bearer token.",
    403: "The token's role may not do this.",
    404: "Nothing of that name in your organization.",
    409: "It contradicts what is stored.",
    413: "The body is larger than the service takes.",
    422: "A field breaks a rule; `errors` names both.",
    429: "Too many; wait for Retry-After.",
    502: "The model's endpoint failed.",
    503: "Not now; see Retry-After.",
    504: "The model's endpoint did not answer in time.",
}


def install(app: FastAPI) -> None:
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(StaleWrite, _on_stale)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)


def _on_problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return response(problem)


def _on_stale(_: Request, error: Exception) -> Response:
    """A unit that was drafted once lost a race; nothing was written."""
    return response(Clash("Somebody else changed it at the same time.", advice="Try again.", retry_after=1.0))


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    for e in errors:
        if e["type"] == "json_invalid":
            reason = e.get("ctx", {}).get("error", "unreadable")
            return response(
                Malformed.at("body", "json", f"The body is not JSON: {reason}.", code="invalid_json")
            )
    known = _known_fields(request)
    told = tuple(_field_error(e, known) for e in errors)
    return response(Invalid("; ".join(f"{e.field}: {e.message}" for e in told), errors=told))


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return response(NotFound(f"There is no route {request.url.path}.", code="no_such_route"))
    problem = Problem(str(error.detail), code=f"http_{error.status_code}")
    problem.status, problem.title = error.status_code, str(error.detail)
    answer = response(problem)
    answer.headers.update(error.headers or {})
    return answer


def _on_bug(request: Request, error: Exception) -> Response:
    log.error("api.bug", path=request.url.path, exc_info=error)
    return response(Problem("The service has a bug; its log has the cause."))


# Fields of the seeds that arrive with later issues: refused by name, so that nobody believes they work.
LATER = {
    "cache_scope": "model caches",
    "user_s3_url": "model caches",
    "user_aws_access_key_id": "model caches",
    "user_aws_secret_access_key": "model caches",
    "user_aws_endpoint_url": "model caches",
    "workers_min": "RunPod",
    "workers_max": "RunPod",
    "idle_timeout": "RunPod",
    "flashboot": "RunPod",
    "network_volumes": "RunPod",
    "data_centers": "RunPod",
    "execution_timeout": "RunPod",
    "cluster": "your own clusters",
    "nodegroups": "your own clusters",
    "autoscale_config": "autoscaling",
    "scale_to_zero_enabled": "sleep and wake",
    "hibernation": "sleep and wake",
}


def _field_error(error: Mapping[str, Any], known: Sequence[str]) -> FieldError:
    location = error["loc"]
    field = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        name = str(location[-1])
        if name in LATER:
            return FieldError(
                field, "not_available_yet", f"{name} comes with {LATER[name]}, which is not there yet."
            )
        near = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return FieldError(field, "unknown_field", f"There is no field {name}.{hint}")
    return FieldError(field, str(error["type"]), str(error["msg"]))


def _known_fields(request: Request) -> Sequence[str]:
    """The field names of the body model of the route that refused."""
    route = request.scope.get("route")
    body = getattr(route, "body_field", None)
    info = getattr(body, "field_info", None)
    model = getattr(info, "annotation", None)
    return tuple(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else ()
