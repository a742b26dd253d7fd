"""Providers and the store, with a clock held beside every call: the one place where their calls are measured.

What stands for a provider has the same methods, those of the optional protocols too, and passes on the rest.
A stream without an end (logs, a watch, changes) is not a call that takes time: it is passed on as it is.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast  # what passes through is whatever the target takes and gives

from moorage.errors import MoorageError
from moorage.ports.provider import Provider
from moorage.ports.store import Store
from moorage.ports.telemetry import Meters

Tell = Callable[[str, str, float], None]  # operation, outcome, seconds
_STREAMS_WITH_AN_END = {"owned"}
_NOT_CALLS = {"aclose"}
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def measured_provider(provider: Provider, meters: Meters) -> Provider:
    """The same provider; `meters` hears of each of its calls."""
    return cast(Provider, _Measured(provider, functools.partial(meters.called, provider.name)))


def measured_store(store: Store, meters: Meters) -> Store:
    """The same store; `meters` hears of each of its reads and writes."""
    return cast(Store, _Measured(store, meters.stored))


class _Measured:
    """Stands for `target`. Its methods lie in the instance itself, because there `isinstance` looks for those
    of an optional protocol."""

    def __init__(self, target: object, tell: Tell) -> None:
        self._target = target
        for name, function in inspect.getmembers_static(type(target), inspect.isfunction):
            if not name.startswith("_"):
                method = getattr(target, name)
                self.__dict__[name] = method if name in _NOT_CALLS else _timed(name, function, method, tell)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def __repr__(self) -> str:
        return f"measured {self._target!r}"


def _timed(name: str, function: object, method: Callable[..., Any], tell: Tell) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):
        return _timed_call(name, method, tell)
    if name in _STREAMS_WITH_AN_END:
        return _timed_stream(name, method, tell)
    return method


def _timed_call(name: str, method: Callable[..., Any], tell: Tell) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        began, outcome = time.perf_counter(), "ok"
        try:
            return await method(*args, **kwargs)
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            tell(name, outcome, time.perf_counter() - began)

    return call


def _timed_stream(name: str, method: Callable[..., Any], tell: Tell) -> Callable[..., Any]:
    @functools.wraps(method)
    async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        began, outcome = time.perf_counter(), "ok"
        try:
            async for item in method(*args, **kwargs):
                yield item
        except GeneratorExit:  # whoever read it has enough
            raise
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            tell(name, outcome, time.perf_counter() - began)

    return stream


def outcome_of(error: BaseException) -> str:
    """The class of an error of ours, in small letters; `cancelled`; or `bug` for what should not be."""
    if isinstance(error, MoorageError):
        return _CAPITAL.sub("_", type(error).__name__).lower()
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "bug"
