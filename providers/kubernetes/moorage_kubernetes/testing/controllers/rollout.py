"""How many replicas the old and the new replica sets of a deployment may have now. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Set:
    """`asked` as its spec says, `there` as pods exist, `ready` and `available` of them."""

    name: str
    asked: int
    there: int
    available: int


def bound(value: int | str, desired: int, *, up: bool) -> int:
    """`25%` or `1` as a number of pods; surges are rounded up, unavailability down."""
    if isinstance(value, int):
        return value
    share = desired * int(value.rstrip("%")) / 100
    return math.ceil(share) if up else math.floor(share)


def bounds(surge: int | str, unavailable: int | str, desired: int) -> tuple[int, int]:
    """maxSurge and maxUnavailable in pods; never both 0."""
    more, less = bound(surge, desired, up=True), bound(unavailable, desired, up=False)
    return (more, less) if more or less else (0, 1)


def rolling(desired: int, new: Set, old: Sequence[Set], surge: int, unavailable: int) -> dict[str, int]:
    """Replicas by the name of the set, after the next step."""
    asked = {one.name: one.asked for one in old}
    total = new.asked + sum(asked.values())
    wanted = desired if new.asked >= desired else min(desired, new.asked + max(0, desired + surge - total))
    asked[new.name] = wanted
    total = sum(asked.values())
    least = desired - unavailable
    room = total - least - max(0, wanted - new.available)
    for one in old:  # what does not serve goes first
        idle = min(max(0, one.asked - one.available), max(0, room))
        asked[one.name] -= idle
        room -= idle
    spare = new.available + sum(one.available for one in old) - least
    for one in old:
        gone = min(asked[one.name], max(0, spare), max(0, room))
        asked[one.name] -= gone
        spare -= gone
        room -= gone
    return asked


def recreating(desired: int, new: Set, old: Sequence[Set]) -> dict[str, int]:
    """Nothing new before all that is old is gone."""
    asked = {one.name: 0 for one in old}
    asked[new.name] = desired if not any(one.there for one in old) else new.asked
    return asked
