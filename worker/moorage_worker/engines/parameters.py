"""Reads the `parameters` of a request: known names only, each with its type and range."""

from __future__ import annotations

from collections.abc import Sequence

from moorage_worker.errors import BadInput
from moorage_worker.json_types import JsonObject, kind


class Parameters:
    """The parameters of one request to one task. Unknown names are refused, null means "not given"."""

    def __init__(self, given: JsonObject, allowed: Sequence[str]) -> None:
        for name in given:
            if name not in allowed:
                known = ", ".join(allowed) if allowed else "none"
                raise BadInput(
                    f"parameters.{name}", "unknown", f"is not a parameter of this task (known: {known})"
                )
        self._given = given

    def whole(self, name: str, low: int, high: int) -> int | None:
        value = self._given.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadInput(f"parameters.{name}", "range", f"must be a whole number from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self._given.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise BadInput(f"parameters.{name}", "range", f"must be a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str) -> bool | None:
        value = self._given.get(name)
        if value is not None and not isinstance(value, bool):
            raise BadInput(f"parameters.{name}", "type", f"must be true or false, got {kind(value)}")
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        value = self._given.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or value not in choices:
            raise BadInput(f"parameters.{name}", "choice", f"must be one of {', '.join(choices)}")
        return value

    def text(self, name: str, longest: int) -> str | None:
        value = self._given.get(name)
        if value is not None and not isinstance(value, str):
            raise BadInput(f"parameters.{name}", "type", f"must be a string, got {kind(value)}")
        if value is not None and len(value) > longest:
            raise BadInput(f"parameters.{name}", "size", f"must have at most {longest} characters")
        return value
