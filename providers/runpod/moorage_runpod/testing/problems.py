"""RunPod's refusals, in its own words: problem documents of RFC 9457."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from aiohttp import web

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """Ends a request with this status. `errors` are the schema's complaints, there for 422 only."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, tuple(errors)
        self.headers = dict(headers or {})

    def answer(self) -> web.Response:
        told: dict[str, object] = {
            "title": HTTPStatus(self.status).phrase if self.status != 422 else "Unprocessable Entity",
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            told["errors"] = list(self.errors)
        return web.Response(
            status=self.status,
            body=json.dumps(told).encode(),
            content_type=CONTENT_TYPE,
            headers=self.headers,
        )


def bad_request(detail: str) -> Problem:
    return Problem(400, detail)


def not_found() -> Problem:
    return Problem(404, "resource not found")


def invalid(errors: Sequence[str]) -> Problem:
    return Problem(422, "Request validation failed.", errors)


def rate_limited(retry_after: int, window: str = "minute") -> Problem:
    return Problem(
        429, f"rate limit exceeded for the {window} window", headers={"Retry-After": str(retry_after)}
    )
