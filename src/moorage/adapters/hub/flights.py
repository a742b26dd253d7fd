"""One request for all who ask the same, and its answer kept for a moment.

A create checks the model and the engine reads it again a second later: without this the Hub would be asked
twice for everything, and its rate limit would be spent twice as fast.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[V]):
    until: float
    value: V | None
    error: Exception | None


class Flights(Generic[V]):
    """Values by key for `ttl` seconds of `monotonic`, at most `size` of them, the least used dropped first.

    Of errors only those are kept that `error_ttl` gives seconds for. A caller that is cancelled leaves the
    request running for the others.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        ttl: float,
        size: int,
        error_ttl: Callable[[Exception], float] = lambda _: 0.0,
    ) -> None:
        self._monotonic = monotonic
        self._ttl = ttl
        self._size = size
        self._error_ttl = error_ttl
        self._kept: OrderedDict[Hashable, _Kept[V]] = OrderedDict()
        self._under_way: dict[Hashable, asyncio.Task[V]] = {}

    async def get(self, key: Hashable, fetch: Callable[[], Awaitable[V]]) -> V:
        kept = self._recall(key)
        if kept is not None:
            if kept.error is not None:
                raise kept.error.with_traceback(None)
            assert kept.value is not None
            return kept.value
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._fly(key, fetch))
            self._under_way[key] = task
            task.add_done_callback(_look_at)
        return await asyncio.shield(task)

    def keep(self, key: Hashable, value: V) -> None:
        """Puts a value under one more key."""
        self._store(key, _Kept(self._monotonic() + self._ttl, value, None))

    async def aclose(self) -> None:
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fly(self, key: Hashable, fetch: Callable[[], Awaitable[V]]) -> V:
        try:
            value = await fetch()
        except Exception as error:
            seconds = self._error_ttl(error)
            if seconds > 0:
                self._store(key, _Kept(self._monotonic() + seconds, None, error))
            raise
        else:
            self.keep(key, value)
            return value
        finally:
            del self._under_way[key]

    def _recall(self, key: Hashable) -> _Kept[V] | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until <= self._monotonic():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return kept

    def _store(self, key: Hashable, kept: _Kept[V]) -> None:
        self._kept[key] = kept
        self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)


def _look_at(task: asyncio.Task[V]) -> None:
    """Retrieves the exception, so that a request nobody waits for any more fails in silence."""
    if not task.cancelled():
        task.exception()
