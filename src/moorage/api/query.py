"""The query string held to what the route documents.

A filter with a misspelt name, silently ignored, answers with what was not asked for. So it is refused, like
an unknown field of a body; and so is a parameter that is given twice where one value is meant.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice

from fastapi import Request
from fastapi.routing import APIRoute

from moorage.api.context import Caller
from moorage.api.field_errors import ERRORS_TOLD, LONGEST_NAME
from moorage.errors import FieldError, Invalid


async def known_query(request: Request, _: Caller) -> None:
    """For `dependencies=` of a router. Who calls is asked first, so that a stranger learns nothing else."""
    if not request.query_params:
        return
    given = Counter(name for name, _ in request.query_params.multi_items())
    errors = tuple(islice(_broken(given, _parameters(request)), ERRORS_TOLD))
    if errors:
        raise Invalid("; ".join(f"{e.field}: {e.message}" for e in errors), errors=errors)


def _parameters(request: Request) -> Mapping[str, bool]:
    """Those that the route knows, and whether each may be repeated."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    return {p.alias: "list[" in str(p.field_info.annotation) for p in route.dependant.query_params}


def _broken(given: Mapping[str, int], known: Mapping[str, bool]) -> Iterator[FieldError]:
    for name, times in given.items():
        short = name[:LONGEST_NAME]
        field = f"query.{short}"
        if name not in known:
            near = difflib.get_close_matches(short, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            yield FieldError(field, "unknown_parameter", f"There is no query parameter {short}.{hint}")
        elif times > 1 and not known[name]:
            yield FieldError(field, "repeated", f"{name} is given {times} times; give it once.")
