"""Writes every error in the shape of the face that it leaves by.

`/v2` speaks the Open Inference Protocol (`{"error": "..."}`, 400 for a wrong tensor); all else speaks
RFC 9457 problem details.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from moorage_worker.errors import BadInput, EngineFailed, RequestError, cause_line
from moorage_worker.faces.json_body import json_response
from moorage_worker.redaction import without_secrets

log = logging.getLogger(__name__)


@web.middleware
async def errors_as_answers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn raised errors into responses, so that no handler writes one itself."""
    protocol = request.path.startswith("/v2")
    try:
        return await handler(request)
    except RequestError as error:
        if isinstance(error, EngineFailed):
            log.error("%s %s: %s", request.method, request.path, error)  # noqa: TRY400
        return _protocol_error(error) if protocol else _problem(error)
    except web.HTTPException as error:
        return _http_error(error, protocol=protocol)
    except Exception as error:  # a bug: the log gets the traceback, the caller the kind
        log.exception("%s %s failed", request.method, request.path)
        wrapped = RequestError(cause_line(error))
        return _protocol_error(wrapped) if protocol else _problem(wrapped)


def _headers(error: RequestError) -> dict[str, str]:
    return {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}


def problem_members(error: RequestError) -> dict[str, object]:
    """As the members of a problem document (RFC 9457)."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": without_secrets(str(error)),
    }
    if isinstance(error, BadInput):
        body["errors"] = [{"field": error.field, "rule": error.rule, "message": error.message}]
    return body


def _problem(error: RequestError) -> web.Response:
    return json_response(problem_members(error), error.status, "application/problem+json", _headers(error))


def _protocol_error(error: RequestError) -> web.Response:
    status = 400 if isinstance(error, BadInput) else error.status
    return json_response({"error": without_secrets(str(error))}, status, headers=_headers(error))


def _http_error(error: web.HTTPException, *, protocol: bool) -> web.Response:
    phrase = HTTPStatus(error.status).phrase
    detail = phrase
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        detail = error.text or phrase
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    if protocol:
        return json_response({"error": detail}, error.status, headers=headers)
    code = phrase.lower().replace(" ", "_")
    body = {"type": "about:blank", "title": phrase, "status": error.status, "code": code, "detail": detail}
    return json_response(body, error.status, "application/problem+json", headers)
