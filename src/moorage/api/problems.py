"""Every error of the HTTP surface as an RFC 9457 problem document.

Refusals of the framework (a body that is no JSON, a wrong type, an unknown field) are told in the same shape
and with the same care as our own: which field, which rule, what to do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any  # pydantic's error dictionaries are untyped

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from moorage.api.field_errors import problem_of
from moorage.api.requests import current_id
from moorage.errors import (
    Clash,
    Malformed,
    MethodNotAllowed,
    NotFound,
    Problem,
    StaleWrite,
    StoreUnavailable,
    Unauthenticated,
)
from moorage.services.authentication import challenge

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
LOGGED_PATH = 256  # characters; a caller may send many more
Dialect = Callable[[Problem], Response]


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
                    "request_id": "5b1c8e0f6d2a4c7e9f3b1d5a7c9e1f30",
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
    request_id: str | None = Field(None, description="Of the request, as in the answer's X-Request-Id.")


def document(problem: Problem) -> dict[str, object]:
    errors = [{"field": in_body(e.field), "rule": e.rule, "message": e.message} for e in problem.errors]
    return {**problem.members(), "errors": errors, "request_id": current_id()}


def in_body(field: str) -> str:
    """`hf_model_id` is `body.hf_model_id` here: what is below the surface cannot know."""
    return field if field.partition(".")[0] in ("body", "query", "path", "header") else f"body.{field}"


def response(problem: Problem, **more: object) -> Response:
    """`more` are members of the document that only this kind of problem has."""
    headers: dict[str, str] = {}
    if problem.retry_after is not None:
        headers["retry-after"] = str(math.ceil(problem.retry_after))
    if isinstance(problem, Unauthenticated):
        headers["www-authenticate"] = challenge(problem)
    # What the caller sent is quoted, and may hold half of a surrogate pair, which has no UTF-8.
    told = {**document(problem), **more}
    body = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, problem.status, headers, MEDIA_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides success, for the OpenAPI document. Every route with a caller
    has 401 and 422."""
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in sorted({401, 422, *statuses})
    }


_DESCRIPTIONS = {
    400: "The body is not JSON.",
    401: "No valid bearer token.",
    403: "The token's role may not do this.",
    404: "Nothing of that name in your organization.",
    409: "It contradicts what is stored.",
    408: "The body did not arrive in time.",
    413: "The body is larger than the service takes.",
    415: "The body is JSON, and must say so in Content-Type.",
    422: "A field breaks a rule; `errors` names both.",
    429: "Too many; wait for Retry-After.",
    500: "The model failed while it worked on the request.",
    502: "The model's endpoint failed.",
    503: "Not now; see Retry-After.",
    504: "The model's endpoint did not answer in time.",
}


def install(app: FastAPI, dialects: Mapping[str, Dialect]) -> None:
    """`dialects` has how a surface tells its problems, by the beginning of its paths; all others: as here."""
    app.state.dialects = dict(dialects)
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(StaleWrite, _on_stale)
    app.add_exception_handler(StoreUnavailable, _on_store_away)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)


def dialect_of(path: str, dialects: Mapping[str, Dialect]) -> Dialect:
    return next((dialect for prefix, dialect in dialects.items() if path.startswith(prefix)), response)


def _told(request: Request, problem: Problem) -> Response:
    return dialect_of(request.url.path, request.app.state.dialects)(problem)


def _on_problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return _told(request, problem)


def _on_stale(request: Request, error: Exception) -> Response:
    """A unit that was drafted once lost a race; nothing was written."""
    clash = Clash("Somebody else changed it at the same time.", advice="Try again.", retry_after=1.0)
    return _told(request, clash)


def _on_store_away(request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreUnavailable)
    log.warning("api.store_unavailable", path=request.url.path[:LOGGED_PATH], error=str(error))
    return _told(request, error.problem)


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _told(request, problem_of(request, error.errors()))


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    match error.status_code:
        case 404:
            return _told(request, NotFound(f"There is no route {request.url.path}.", code="no_such_route"))
        case 405:
            allowed = _allowed_methods(request)
            refusal = MethodNotAllowed(f"{request.url.path} takes {allowed}, not {request.method}.")
            answer = _told(request, refusal)
            answer.headers["allow"] = allowed
            return answer
        case 400:  # the framework could not read the body: nested too deep, a number too long
            message = "The body is not JSON that can be read."
            return _told(request, Malformed.at("body", "json", message, code="invalid_json"))
    problem = Problem(str(error.detail), code=f"http_{error.status_code}")
    problem.status, problem.title = error.status_code, str(error.detail)
    answer = _told(request, problem)
    answer.headers.update(error.headers or {})
    return answer


def _allowed_methods(request: Request) -> str:
    """Of all routes with this path; the framework names only those of the first. A path that the document has
    word for word is no id of another route's."""
    exact = request.app.openapi()["paths"].get(request.url.path)
    if exact is not None:
        return ", ".join(sorted(method.upper() for method in exact))
    routes = request.app.router.routes
    return ", ".join(
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    )


def _on_bug(request: Request, error: Exception) -> Response:
    log.error("api.bug", path=request.url.path[:LOGGED_PATH], exc_info=error)
    return _told(request, Problem("The service has a bug; its log has the cause."))
