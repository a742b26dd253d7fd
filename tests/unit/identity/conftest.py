"""A store, a clock that tests move, and cheap passwords."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from argon2 import PasswordHasher

from moorage.adapters.passwords import Argon2Passwords
from moorage.adapters.secrets import KeyRing
from moorage.adapters.tokens import JwtTokens
from moorage.testing.store import Memory, MemoryStore


class MovedClock:
    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def advance(self, **parts: float) -> None:
        self.moment += timedelta(**parts)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def advance(clock: MovedClock) -> Callable[..., None]:
    return clock.advance


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def store(memory: Memory) -> MemoryStore:
    return MemoryStore(memory)


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing([("k1", bytes(range(32)))])


@pytest.fixture
def tokens(ring: KeyRing) -> JwtTokens:
    return JwtTokens(ring.derive("jwt"))


@pytest.fixture
def passwords() -> Argon2Passwords:
    return Argon2Passwords(PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture
def new_id() -> Callable[[str], str]:
    numbers = count(1)
    return lambda prefix: f"{prefix}_{next(numbers):026d}"
