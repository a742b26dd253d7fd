"""The refusals of an API server, as it words them: clients decide by code and reason, people read on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]  # Any: a Kubernetes object as JSON; its schema is held elsewhere


@dataclass(frozen=True, slots=True)
class Cause:
    """One broken rule: `reason` as FieldValueInvalid, `field` as spec.template.spec.containers[0].name."""

    reason: str
    message: str
    field: str

    def as_json(self) -> Json:
        return {"reason": self.reason, "message": self.message, "field": self.field}


class ApiError(Exception):
    """A refusal. `retry_after` in seconds becomes the header and details.retryAfterSeconds."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,  # Any: JSON
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.retry_after = retry_after
        if retry_after is not None:
            self.details["retryAfterSeconds"] = retry_after

    def as_json(self) -> Json:
        body: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details:
            body["details"] = self.details
        return body


def qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural


def _about(plural: str, group: str, name: str) -> Json:
    details = {"name": name, "kind": plural}
    return details | {"group": group} if group else details


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(plural: str, group: str, name: str, why: str) -> ApiError:
    message = f'{qualified(plural, group)} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, details=_about(plural, group, name))


def not_found(plural: str, group: str, name: str) -> ApiError:
    message = f'{qualified(plural, group)} "{name}" not found'
    return ApiError(404, "NotFound", message, details=_about(plural, group, name))


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def method_not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message)


def already_exists(plural: str, group: str, name: str) -> ApiError:
    message = f'{qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=_about(plural, group, name))


def stale(plural: str, group: str, name: str) -> ApiError:
    message = (
        f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": the object has been '
        "modified; please apply your changes to the latest version and try again"
    )
    return ApiError(409, "Conflict", message, details=_about(plural, group, name))


def precondition(plural: str, group: str, name: str, what: str, asked: str, found: str) -> ApiError:
    message = (
        f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": '
        f"Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}"
    )
    return ApiError(409, "Conflict", message, details=_about(plural, group, name))


def apply_conflict(conflicts: Sequence[tuple[str, str]]) -> ApiError:
    """`conflicts` are (who holds it, which field)."""
    many = "conflict" if len(conflicts) == 1 else "conflicts"
    listed = "; ".join(f"conflict with {who}: {where}" for who, where in conflicts)
    if len(conflicts) == 1:
        listed = f"conflict with {conflicts[0][0]}: {conflicts[0][1]}"
    causes = [
        Cause("FieldManagerConflict", f"conflict with {who}", where).as_json() for who, where in conflicts
    ]
    message = f"Apply failed with {len(conflicts)} {many}: {listed}"
    return ApiError(409, "Conflict", message, details={"causes": causes})


def expired(revision: int, oldest: int) -> ApiError:
    return ApiError(410, "Expired", f"too old resource version: {revision} ({oldest})")


def expired_continue() -> ApiError:
    message = (
        "The provided continue parameter is too old to display a consistent list result. You must start "
        "a new list without the continue parameter."
    )
    return ApiError(410, "Expired", message)


def unsupported_media_type(known: Sequence[str]) -> ApiError:
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(
        known
    )
    return ApiError(415, "UnsupportedMediaType", message)


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> ApiError:
    whole = f"{kind}.{group}" if group else kind
    told = ", ".join(f"{cause.field}: {cause.message}" for cause in causes)
    if len(causes) > 1:
        told = f"[{told}]"
    details = {"name": name, "kind": kind, "causes": [cause.as_json() for cause in causes]}
    if group:
        details["group"] = group
    return ApiError(422, "Invalid", f'{whole} "{name}" is invalid: {told}', details=details)


def too_many(seconds: int) -> ApiError:
    message = "the server has received too many requests and has asked us to try again later"
    return ApiError(429, "TooManyRequests", message, retry_after=seconds)


def unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message)
