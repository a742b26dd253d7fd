"""What the framework finds wrong with a request, told field by field in our words.

A body may hold a hundred thousand wrong fields, with names of any length. So what is told is bounded: the
first few errors, and the beginning of a name.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any  # pydantic's error dictionaries are untyped

from fastapi import Request
from pydantic import BaseModel

from moorage.errors import FieldError, Invalid, Malformed, Problem, UnsupportedMediaType

ERRORS_TOLD = 20
LONGEST_NAME = 64

# Fields of the seeds that arrive with later issues: refused by name, so that nobody believes they work.
LATER = {
    "hibernation": "sleep and wake",
}

_WORDS = {
    "missing": "It is required.",
    "model_attributes_type": "It must be a JSON object.",
    "model_type": "It must be a JSON object.",
}


def problem_of(request: Request, errors: Sequence[Mapping[str, Any]]) -> Problem:
    """The one answer to all that is wrong: what cannot be read comes before what it says."""
    for error in errors:
        if error["type"] == "json_invalid":
            reason = error.get("ctx", {}).get("error", "unreadable")
            return Malformed.at("body", "json", f"The body is not JSON: {reason}.", code="invalid_json")
    if _unread(request, errors):
        given = request.headers.get("content-type", "none")[:LONGEST_NAME]
        return UnsupportedMediaType.at(
            "header.Content-Type",
            "media_type",
            f"The body must be JSON with Content-Type application/json; this one came as {given}.",
        )
    known = _known_fields(request)
    told = tuple(islice((_field_error(error, known) for error in errors), ERRORS_TOLD))
    return Invalid("; ".join(f"{e.field}: {e.message}" for e in told), errors=told)


def _unread(request: Request, errors: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the framework left the body as bytes, because it did not come as JSON."""
    return any(tuple(error["loc"]) == ("body",) and isinstance(error.get("input"), bytes) for error in errors)


def _field_error(error: Mapping[str, Any], known: Sequence[str]) -> FieldError:
    location = [str(part)[:LONGEST_NAME] for part in error["loc"]]
    field = ".".join(location)
    if error["type"] != "extra_forbidden":
        rule = str(error["type"])
        return FieldError(field, rule, _WORDS.get(rule, str(error["msg"])))
    name = location[-1]
    if name in LATER:
        return FieldError(
            field, "not_available_yet", f"{name} comes with {LATER[name]}, which is not there yet."
        )
    near = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return FieldError(field, "unknown_field", f"There is no field {name}.{hint}")


def _known_fields(request: Request) -> Sequence[str]:
    """The field names of the body model of the route that refused."""
    route = request.scope.get("route")
    body = getattr(route, "body_field", None)
    info = getattr(body, "field_info", None)
    model = getattr(info, "annotation", None)
    return tuple(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else ()
