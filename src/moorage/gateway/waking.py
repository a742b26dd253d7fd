"""Wakes deployments that were let down to no replica, and has requests wait until one answers.

Any number of requests wait for a deployment at the cost of one future each: it is woken once for all of
them, and the route that is published when a replica answers is what they wait for. Nothing is polled.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
from collections import deque
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field

from moorage.domain.deployment import Phase
from moorage.errors import Problem, Unavailable
from moorage.gateway.routes import Route, RoutePublisher

log = logging.getLogger(__name__)

Wake = Callable[[str], Awaitable[None]]  # gets a deployment id; may be called for one that is awake

USUAL_SECONDS = 30.0  # that a wake takes, where none was seen yet
_SEEN_WAKES = 9  # of one deployment, that the usual time is taken from
_AGAIN_SECONDS = 10.0  # before a deployment that still sleeps is woken again
_AT_ONCE, _PAUSE_SECONDS = 50, 0.01  # of those who waited, that are let go together
_HELD_BYTES = 64 * 1024 * 1024  # of bodies, by all requests that wait
_SLEEPING = frozenset({Phase.HIBERNATED, Phase.WAKING})
# those in which a replica may yet appear by itself
_HOPEFUL = (
    _SLEEPING
    | {Phase.LOADING_MODEL, Phase.UPDATING, Phase.READY, Phase.SELECTING_GPU}
    | {Phase.CREATING_ENDPOINT}
)


def asleep(route: Route) -> bool:
    """Whether a request would wake it."""
    return not route.targets and route.phase in _SLEEPING


@dataclass(slots=True)
class _Waking:
    """One deployment that was asked to wake. Times are the loop's."""

    since: float
    unwatch: Callable[[], None]
    called: float = float("-inf")
    waiting: set[asyncio.Future[Route | None]] = field(default_factory=set)


class Waker:
    """For one event loop. `wake` is called once for all who wait, and not again for some seconds."""

    def __init__(self, routes: RoutePublisher, wake: Wake) -> None:
        self._routes = routes
        self._wake = wake
        self._waking: dict[str, _Waking] = {}
        self._took: dict[str, deque[float]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._room = _HELD_BYTES

    def rouse(self, deployment_id: str) -> None:
        """Wants it awake; waits for nothing."""
        waking = self._waking.get(deployment_id)
        now = asyncio.get_running_loop().time()
        if waking is None:
            unwatch = self._routes.watch(deployment_id, lambda route: self._changed(deployment_id, route))
            waking = self._waking[deployment_id] = _Waking(now, unwatch)
        if now - waking.called < _AGAIN_SECONDS:
            return
        waking.called = now
        call = asyncio.get_running_loop().create_task(self._call(deployment_id))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    def awake(self, deployment_id: str) -> asyncio.Future[Route | None]:
        """Wakes it. The future has its route once that has targets, or once it is clear that it will have
        none: a route without targets, None for a deployment that is gone, or a Problem when it could not be
        woken. Cancelled, it is forgotten."""
        self.rouse(deployment_id)
        waiting = self._waking[deployment_id].waiting
        future: asyncio.Future[Route | None] = asyncio.get_running_loop().create_future()
        waiting.add(future)
        future.add_done_callback(waiting.discard)
        return future

    def seconds_left(self, deployment_id: str) -> float:
        """Until it will be awake, by how long its last wakes took; at least one."""
        took = self._took.get(deployment_id)
        usual = statistics.median(took) if took else USUAL_SECONDS
        waking = self._waking.get(deployment_id)
        gone = 0.0 if waking is None else asyncio.get_running_loop().time() - waking.since
        return usual - gone if gone < usual - 1.0 else max(1.0, usual)

    def reserve(self, size: int) -> int:
        """Bytes, up to `size`, that a request may hold of its body while it waits. To be given back."""
        granted = min(size, self._room)
        self._room -= granted
        return granted

    def release(self, size: int) -> None:
        self._room += size

    def keep(self, deployment_ids: Container[str]) -> None:
        """Forgets how long the others took."""
        self._took = {id_: took for id_, took in self._took.items() if id_ in deployment_ids}

    async def aclose(self) -> None:
        """Who still waits is given up."""
        for waking in self._waking.values():
            waking.unwatch()
            for future in tuple(waking.waiting):
                future.cancel()
        self._waking.clear()
        for call in tuple(self._calls):
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _call(self, deployment_id: str) -> None:
        try:
            await self._wake(deployment_id)
        except Exception as error:
            log.warning("the deployment %s could not be woken: %r", deployment_id, error)
            problem = error if isinstance(error, Problem) else _not_woken()
            waking = self._waking.get(deployment_id)
            if waking is not None:
                waking.called = float("-inf")
                _give_up(waking, problem)

    def _changed(self, deployment_id: str, route: Route | None) -> None:
        waking = self._waking[deployment_id]
        if route is not None and not route.targets and route.phase in _HOPEFUL:
            return
        del self._waking[deployment_id]
        waking.unwatch()
        if route is None:
            self._took.pop(deployment_id, None)
        elif route.targets:
            seconds = asyncio.get_running_loop().time() - waking.since
            self._took.setdefault(deployment_id, deque(maxlen=_SEEN_WAKES)).append(seconds)
        self._let_go(deque(waking.waiting), deployment_id)

    def _let_go(self, waiting: deque[asyncio.Future[Route | None]], deployment_id: str) -> None:
        """Some now, the others a moment later: a replica that has just begun could not accept the connections
        of all at once."""
        route = self._routes.current.route(deployment_id)
        for _ in range(min(_AT_ONCE, len(waiting))):
            future = waiting.popleft()
            if not future.done():
                future.set_result(route)
        if waiting:
            asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._let_go, waiting, deployment_id)


def _give_up(waking: _Waking, problem: Problem) -> None:
    for future in tuple(waking.waiting):
        if not future.done():
            future.set_exception(problem)


def _not_woken() -> Unavailable:
    return Unavailable("The deployment sleeps and could not be woken.", code="wake_failed", retry_after=5.0)
