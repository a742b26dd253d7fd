"""Broken rules, worded as a server words them."""

from __future__ import annotations

from collections.abc import Iterator

from moorage_kubernetes.testing.statuses import Cause

Causes = Iterator[Cause]


def invalid(field: str, value: object, why: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {why}", field)


def required(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", f"Required value{': ' + why if why else ''}", field)


def one_of(field: str, value: object, *allowed: str) -> Causes:
    if value is not None and value not in allowed:
        listed = ", ".join(f'"{one}"' for one in allowed)
        message = f'Unsupported value: "{value}": supported values: {listed}'
        yield Cause("FieldValueNotSupported", message, field)
