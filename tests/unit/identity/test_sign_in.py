"""The first owner, and signing in: what it tells, what it does not, and how often one may guess."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.adapters.passwords import Argon2Passwords
from moorage.adapters.secrets import KeyRing
from moorage.adapters.tokens import JwtTokens
from moorage.domain.failure_window import FailureWindow
from moorage.domain.identity import Role
from moorage.errors import TooManyRequests, Unauthenticated
from moorage.ports.outside import Clock
from moorage.services.identity import PER_ADDRESS, PER_USERNAME, Failures, Identity
from moorage.testing.store import Memory, MemoryStore


class SlowlyCounted(Argon2Passwords):
    """Counts the checks that were paid for."""

    checks = 0

    async def verify(self, password: str, hash_: str | None) -> bool:
        self.checks += 1
        return await super().verify(password, hash_)


@pytest.fixture
def identity(
    store: MemoryStore,
    ring: KeyRing,
    passwords: Argon2Passwords,
    tokens: JwtTokens,
    clock: Clock,
    new_id: Callable[[str], str],
) -> Identity:
    return Identity(store, ring, passwords, tokens, clock, new_id)


async def test_owner_signs_in_with_a_token_that_reads_back(
    identity: Identity, tokens: JwtTokens, clock: Clock, store: MemoryStore
) -> None:
    await identity.bootstrap_owner("  Ada ", "correct horse")
    signed_in = await identity.sign_in("ADA", "correct horse", "10.0.0.1")
    assert tokens.read(signed_in.token, clock.now()) == (signed_in.principal, signed_in.expires_at)
    assert signed_in.principal.role is Role.OWNER
    organization = await store.organization(signed_in.principal.organization_id)
    assert organization is not None
    assert await store.webhook_secret(organization.id) is not None


async def test_bootstrap_again_changes_nothing(identity: Identity, store: MemoryStore) -> None:
    await identity.bootstrap_owner("ada", "first")
    before = await store.user_named("ada")
    await identity.bootstrap_owner("ada", "second")
    assert await store.user_named("ada") == before
    await identity.sign_in("ada", "first", "a")


async def test_processes_that_race_make_one_owner(
    memory: Memory, ring: KeyRing, passwords: Argon2Passwords, tokens: JwtTokens, clock: Clock
) -> None:
    stores = [MemoryStore(memory) for _ in range(4)]
    rivals = [
        Identity(store, ring, passwords, tokens, clock, lambda prefix, n=n: f"{prefix}_{n}")  # type: ignore[misc] # mypy cannot infer a lambda with a default
        for n, store in enumerate(stores)
    ]
    await asyncio.gather(*(rival.bootstrap_owner("ada", "pw") for rival in rivals))
    users = [await store.user_named("ada") for store in stores]
    organizations = [await stores[0].organization(f"org_{n}") for n in range(4)]
    assert len({user.id for user in users if user}) == 1
    assert sum(organization is not None for organization in organizations) == 1


async def test_unknown_user_and_wrong_password_are_the_same_answer_at_the_same_cost(
    store: MemoryStore, ring: KeyRing, tokens: JwtTokens, clock: Clock, new_id: Callable[[str], str]
) -> None:
    passwords = SlowlyCounted()
    identity = Identity(store, ring, passwords, tokens, clock, new_id)
    await identity.bootstrap_owner("ada", "right")
    told = []
    for username, password in (("ada", "wrong"), ("nobody", "wrong"), ("ada", "x" * 5000)):
        with pytest.raises(Unauthenticated) as refused:
            await identity.sign_in(username, password, "a")
        told.append((refused.value.code, refused.value.detail))
    assert told == [("wrong_credentials", "The user name or the password is wrong.")] * 3
    assert passwords.checks == 3


async def test_guessing_one_user_is_slowed_down_from_anywhere(
    identity: Identity, clock: Clock, advance: Callable[..., None]
) -> None:
    await identity.bootstrap_owner("ada", "right")
    for n in range(PER_USERNAME.allowed):
        with pytest.raises(Unauthenticated):
            await identity.sign_in("ada", "wrong", f"address {n}")
    with pytest.raises(TooManyRequests) as refused:
        await identity.sign_in("ada", "right", "another")
    assert refused.value.retry_after == PER_USERNAME.length.total_seconds()
    advance(seconds=PER_USERNAME.length.total_seconds())
    await identity.sign_in("ada", "right", "another")


async def test_guessing_many_users_from_one_address_is_slowed_down(identity: Identity) -> None:
    for n in range(PER_ADDRESS.allowed):
        with pytest.raises(Unauthenticated):
            await identity.sign_in(f"user {n}", "wrong", "one address")
    with pytest.raises(TooManyRequests):
        await identity.sign_in("somebody else", "wrong", "one address")
    with pytest.raises(Unauthenticated):
        await identity.sign_in("somebody else", "wrong", "other address")


async def test_burst_of_guesses_at_once_is_not_let_through(identity: Identity) -> None:
    results = await asyncio.gather(
        *(identity.sign_in("ada", f"guess {n}", f"address {n}") for n in range(40)), return_exceptions=True
    )
    assert sum(isinstance(result, Unauthenticated) for result in results) == PER_USERNAME.allowed


async def test_success_does_not_count_as_a_failure(identity: Identity) -> None:
    await identity.bootstrap_owner("ada", "right")
    for _ in range(PER_ADDRESS.allowed + 5):
        await identity.sign_in("ada", "right", "office")


def test_names_remembered_are_bounded() -> None:
    failures = Failures(FailureWindow(2, timedelta(minutes=1)), remembered=10)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for n in range(100):
        for _ in range(5):
            failures.add(f"user {n}", now)
    assert len(failures) == 10
    assert failures.wait("user 99", now) == 60
    assert failures.wait("user 1", now) is None


@given(st.lists(st.floats(0, 100), max_size=30), st.integers(1, 5))
def test_window_agrees_with_counting(seconds: list[float], allowed: int) -> None:
    """Against the plain definition: refused when `allowed` admitted tries lie within the last minute."""
    window = FailureWindow(allowed, timedelta(seconds=60))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    kept: tuple[datetime, ...] = ()
    admitted: list[datetime] = []
    for second in sorted(seconds):
        now = start + timedelta(seconds=second)
        within = [moment for moment in admitted if now - moment < timedelta(seconds=60)]
        wait = window.wait(kept, now)
        assert (wait is not None) == (len(within) >= allowed)
        if wait is None:
            kept = window.with_failure(kept, now)
            admitted.append(now)
        else:
            assert window.wait(kept, now + timedelta(seconds=wait)) is None
        assert len(kept) <= allowed
