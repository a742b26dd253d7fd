"""Values to text and back.

The domain's dataclasses know nothing of storage; pydantic reads their annotations from outside. What is read
back equals what was written, unions and mappings included (`tests/contract/store/test_codec.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from pydantic import TypeAdapter

V = TypeVar("V")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(at: datetime) -> int:
    """Microseconds since 1970 UTC. Raises TypeError for an instant without a zone."""
    return (at - _EPOCH) // _MICROSECOND


def maybe_micros(at: datetime | None) -> int | None:
    return None if at is None else to_micros(at)


def from_micros(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def maybe_instant(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def _plain(value: object) -> object:
    """Pydantic writes dicts; any other mapping is one to us as well."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be stored")


class Codec(Generic[V]):
    """JSON text of one dataclass, made on first use: building an adapter takes milliseconds."""

    def __init__(self, type_: type[V]) -> None:
        self._type = type_
        self._adapter: TypeAdapter[V] | None = None

    @property
    def adapter(self) -> TypeAdapter[V]:
        if self._adapter is None:
            self._adapter = TypeAdapter(self._type)
        return self._adapter

    def dump(self, value: V) -> str:
        return self.adapter.dump_json(value, fallback=_plain, warnings=False).decode()

    def load(self, text: str) -> V:
        return self.adapter.validate_json(text)
