"""How much is free, counted so that no byte is sold twice. Pure.

An endpoint's reservation counts from the moment its spec is on disk, long before its workers hold the memory.
So two bounds apply: the operator's budget less all reservations, and what the machine has available less the
part of the reservations that is not in use yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one endpoint may take, over all its replicas, and what it holds of it already. In bytes."""

    name: str
    reserved: int
    used: int = 0

    @property
    def unused(self) -> int:
        return max(0, self.reserved - self.used)


@dataclass(frozen=True, slots=True)
class Room:
    """`free` of `budget` bytes can be reserved now."""

    budget: int
    free: int


def room(budget: int, available: int, reservations: Iterable[Reservation]) -> Room:
    """`available` is what the machine says is free now; `budget` what all replicas may take together."""
    held = list(reservations)
    reserved = sum(r.reserved for r in held)
    promised = sum(r.unused for r in held)
    return Room(budget, max(0, min(budget - reserved, available - promised)))
