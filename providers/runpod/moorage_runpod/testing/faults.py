"""How the fake can be told to misbehave, by route or by what an endpoint asks for. Plain state, no effects.

Every attribute may be set at any time, in the process or through `POST /_fake/faults`; sets are replaced, not
changed in place, so that a change is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

CRASH_LINES = (
    "Traceback (most recent call last):",
    '  File "/app/handler.py", line 3, in <module>',
    "    import weights",
    "ModuleNotFoundError: No module named 'weights'",
)


class Kind(StrEnum):
    SLOW = "slow"  # answers after `seconds`
    RATE_LIMITED = "rate_limited"  # 429, Retry-After: `seconds`; nothing is done
    LOST_REQUEST = "lost_request"  # the connection is cut before anything is done
    LOST_ANSWER = "lost_answer"  # the connection is cut after it was done
    TRUNCATED = "truncated"  # it is done, and half of the answer comes
    HTML = "html"  # 200 and a page; nothing is done
    BAD_GATEWAY = "bad_gateway"  # 502 and a page of the network in front; nothing is done
    UNAVAILABLE = "unavailable"  # 503 and a problem document; nothing is done


@dataclass(slots=True)
class RouteFault:
    """`route` is a pattern over a method and a path template: `POST /v2/serverless`, `* /v2/*/run`, `*`.

    It holds for the next `times` requests, for all of them where that is None."""

    route: str
    kind: Kind
    times: int | None = 1
    seconds: float = 1.0


@dataclass
class Faults:
    """Pools and scopes by name, endpoints by patterns over their name, id or image; `*` is all."""

    routes: tuple[RouteFault, ...] = ()
    throttled_pools: frozenset[str] = frozenset()  # workers wait for capacity for ever
    absent_pools: frozenset[str] = frozenset()  # no worker ever appears
    never_ready: frozenset[str] = frozenset()  # workers stay INITIALIZING
    crash_loops: frozenset[str] = frozenset()  # workers write `crash_lines`, exit, are started again
    crash_status: str = "RUNNING"  # what a worker that crashes reads as: RUNNING, THROTTLED or UNHEALTHY
    crash_lines: tuple[str, ...] = CRASH_LINES
    missing_images: frozenset[str] = frozenset()
    denied_scopes: frozenset[str] = frozenset()  # taken from every key: "serverless:write"
    workers_quota: int | None = None  # instead of each account's own
    list_lag_seconds: float = 0.0  # a new endpoint is missing from the list for so long
    unresolved_log_seconds: float = 0.0  # a new worker's logs are 403 for so long
    on_change: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        told = self.__dict__.get("on_change")
        if told is not None:
            told()

    def arm(self, route: str, kind: Kind | str, *, times: int | None = 1, seconds: float = 1.0) -> RouteFault:
        """The next `times` requests of `route` meet it."""
        fault = RouteFault(route, Kind(kind), times, seconds)
        self.routes = (*self.routes, fault)
        return fault

    def met(self, route: str) -> tuple[RouteFault, ...]:
        """What a request of `route` meets, used up by it: slowness, and one of the other kinds."""
        armed = [f for f in self.routes if f.times != 0 and fnmatchcase(route, f.route)]
        slow = next((f for f in armed if f.kind is Kind.SLOW), None)
        other = next((f for f in armed if f.kind is not Kind.SLOW), None)
        found = tuple(f for f in (slow, other) if f is not None)
        for fault in found:
            if fault.times is not None:
                fault.times -= 1
        return found

    def clear(self) -> None:
        for known in fields(self):
            if known.name != "on_change":
                setattr(self, known.name, known.default)

    def update(self, told: Mapping[str, Any]) -> None:  # Any: JSON of a test
        """Sets what `told` names; `routes` are added. Raises ValueError for what is not known."""
        known = {f.name: f.default for f in fields(self) if f.name not in ("on_change", "routes")}
        unknown = told.keys() - known.keys() - {"routes"}
        if unknown:
            raise ValueError(f"unknown fault {', '.join(sorted(unknown))}; known: routes, {', '.join(known)}")
        for name, value in told.items():
            if name == "routes":
                for one in value:
                    self.arm(**one)
            else:
                setattr(self, name, _like(known[name], value))


def named(patterns: Iterable[str], *names: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _like(default: object, value: Any) -> Any:  # Any: JSON in, the field's own type out
    if isinstance(default, frozenset):
        return frozenset(value)
    return tuple(value) if isinstance(default, tuple) else value
