"""API keys from birth to revocation, and the authenticator that every request passes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta

import pytest

from moorage.adapters.tokens import JwtTokens
from moorage.domain.identity import ApiKey, Principal, Role
from moorage.errors import Forbidden, Invalid, NotFound, Unauthenticated
from moorage.ports.outside import Clock
from moorage.services.authentication import Authenticator, challenge
from moorage.services.keys import ApiKeys
from moorage.testing.store import Memory, MemoryStore

OWNER = Principal("usr_1", "org_1", Role.OWNER)
ADMIN = Principal("usr_2", "org_1", Role.ADMIN)
STRANGER = Principal("usr_9", "org_9", Role.OWNER)


@pytest.fixture
def authenticator(store: MemoryStore, tokens: JwtTokens, clock: Clock) -> Authenticator:
    return Authenticator(store, tokens, clock)


@pytest.fixture
def keys(
    store: MemoryStore, clock: Clock, new_id: Callable[[str], str], authenticator: Authenticator
) -> ApiKeys:
    return ApiKeys(store, clock, new_id, authenticator.forget)


async def refused(authenticator: Authenticator, header: str | None) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate_header(header)
    return caught.value


async def test_key_is_shown_once_and_only_its_hash_is_kept(
    keys: ApiKeys, store: MemoryStore, authenticator: Authenticator
) -> None:
    new = await keys.create_key(OWNER, " ci ", Role.DEPLOYER)
    assert re.fullmatch(r"mrg_[A-Za-z0-9_-]{43}", new.secret)
    assert new.secret not in repr(new)
    stored = await store.api_key(new.key.id, "org_1")
    assert stored is not None
    assert new.secret not in str(stored)
    assert (stored.name, stored.hint, stored.hash) == ("ci", new.secret[:8], new.key.hash)
    assert await authenticator.authenticate_header(f"Bearer {new.secret}") == Principal(
        new.key.id, "org_1", Role.DEPLOYER
    )
    [event] = await store.events(new.key.id, None, 10)
    assert (event.type, event.actor, event.data["role"]) == ("key.created", "usr_1", "deployer")


@pytest.mark.parametrize(
    ("principal", "role", "allowed"),
    [
        (OWNER, Role.OWNER, True),
        (ADMIN, Role.ADMIN, True),
        (ADMIN, Role.INVOKER, True),
        (ADMIN, Role.OWNER, False),
        (Principal("k", "org_1", Role.DEPLOYER), Role.VIEWER, False),
        (Principal("k", "org_1", Role.VIEWER), Role.VIEWER, False),
    ],
)
async def test_who_may_grant_what(keys: ApiKeys, principal: Principal, role: Role, allowed: bool) -> None:
    if allowed:
        await keys.create_key(principal, "k", role)
    else:
        with pytest.raises(Forbidden):
            await keys.create_key(principal, "k", role)
    assert len(await keys.list_keys(OWNER)) == int(allowed)


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "two\nlines"])
async def test_name_rule_names_the_field(keys: ApiKeys, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        await keys.create_key(OWNER, name, Role.VIEWER)
    assert [error.field for error in caught.value.errors] == ["body.name"]


async def test_revoked_key_stops_at_once_here_although_cached(
    keys: ApiKeys, store: MemoryStore, authenticator: Authenticator
) -> None:
    new = await keys.create_key(OWNER, "ci", Role.DEPLOYER)
    header = f"Bearer {new.secret}"
    await authenticator.authenticate_header(header)
    assert authenticator.cached(header) is not None
    await keys.revoke_key(OWNER, new.key.id)
    assert authenticator.cached(header) is None
    assert (await refused(authenticator, header)).code == "key_revoked"
    first = await store.api_key(new.key.id, "org_1")
    await keys.revoke_key(OWNER, new.key.id)
    assert await store.api_key(new.key.id, "org_1") == first
    assert [event.type for event in await store.events(new.key.id, None, 10)] == [
        "key.created",
        "key.revoked",
    ]


async def test_revocation_elsewhere_takes_effect_within_the_cache_time(
    keys: ApiKeys, store: MemoryStore, tokens: JwtTokens, clock: Clock, advance: Callable[..., None]
) -> None:
    elsewhere = Authenticator(store, tokens, clock)
    new = await keys.create_key(OWNER, "ci", Role.DEPLOYER)
    header = f"Bearer {new.secret}"
    await elsewhere.authenticate_header(header)
    await keys.revoke_key(OWNER, new.key.id)
    advance(seconds=1.9)
    assert elsewhere.cached(header) is not None
    advance(seconds=0.1)
    assert elsewhere.cached(header) is None
    assert (await refused(elsewhere, header)).code == "key_revoked"


async def test_word_of_another_process_has_every_key_asked_for_again(
    keys: ApiKeys, store: MemoryStore, tokens: JwtTokens, clock: Clock
) -> None:
    elsewhere = Authenticator(store, tokens, clock)
    new = await keys.create_key(OWNER, "ci", Role.DEPLOYER)
    header = f"Bearer {new.secret}"
    await elsewhere.authenticate_header(header)
    elsewhere.forget_all()
    assert elsewhere.cached(header) is None
    await elsewhere.authenticate_header(header)
    await keys.revoke_key(OWNER, new.key.id)
    elsewhere.forget_all()
    assert (await refused(elsewhere, header)).code == "key_revoked"


async def test_lookup_that_overlaps_a_revocation_is_not_remembered(
    store: MemoryStore, memory: Memory, tokens: JwtTokens, clock: Clock, new_id: Callable[[str], str]
) -> None:
    class Held(MemoryStore):
        """A store whose answer is on the way while the key is revoked."""

        def __init__(self, memory: Memory) -> None:
            super().__init__(memory)
            self.read, self.go_on = asyncio.Event(), asyncio.Event()

        async def api_key_by_hash(self, hash_: str) -> ApiKey | None:
            found = await super().api_key_by_hash(hash_)
            self.read.set()
            await self.go_on.wait()
            return found

    held = Held(memory)
    authenticator = Authenticator(held, tokens, clock)
    keys = ApiKeys(store, clock, new_id, authenticator.forget)
    new = await keys.create_key(OWNER, "ci", Role.DEPLOYER)
    header = f"Bearer {new.secret}"
    request = asyncio.create_task(authenticator.authenticate_header(header))
    await held.read.wait()
    await keys.revoke_key(OWNER, new.key.id)
    held.go_on.set()
    await request  # it began before the revocation
    assert authenticator.cached(header) is None


async def test_another_organization_sees_no_key(keys: ApiKeys) -> None:
    new = await keys.create_key(OWNER, "ci", Role.DEPLOYER)
    assert list(await keys.list_keys(STRANGER)) == []
    with pytest.raises(NotFound):
        await keys.revoke_key(STRANGER, new.key.id)
    with pytest.raises(NotFound):
        await keys.revoke_key(OWNER, "key_missing")


async def test_admin_cannot_revoke_an_owners_key(keys: ApiKeys) -> None:
    new = await keys.create_key(OWNER, "mine", Role.OWNER)
    with pytest.raises(Forbidden):
        await keys.revoke_key(ADMIN, new.key.id)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_credentials"),
        ("", "missing_credentials"),
        ("Basic dTpw", "wrong_scheme"),
        ("Bearer", "wrong_scheme"),
        ("mrg_abc", "wrong_scheme"),
        ("Bearer mrg_" + "x" * 43, "key_unknown"),
        ("Bearer something", "token_invalid"),
        ("Bearer " + "x" * 9000, "token_invalid"),
        ("Bearer mrg_\udce9", "token_invalid"),
    ],
)
async def test_each_refusal_has_its_code(authenticator: Authenticator, header: str | None, code: str) -> None:
    problem = await refused(authenticator, header)
    assert (problem.status, problem.code) == (401, code)
    assert challenge(problem).startswith('Bearer realm="moorage"')
    assert ("invalid_token" in challenge(problem)) == (code in ("key_unknown", "token_invalid"))


async def test_token_is_accepted_and_not_remembered_beyond_its_end(
    store: MemoryStore, clock: Clock, advance: Callable[..., None], ring: object
) -> None:
    tokens = JwtTokens([b"k" * 32], timedelta(seconds=3))
    authenticator = Authenticator(store, tokens, clock)
    token, _ = tokens.issue(OWNER, clock.now())
    header = f"bearer  {token}"
    assert await authenticator.authenticate_header(header) == OWNER
    assert authenticator.cached(header) == OWNER
    advance(seconds=3)
    assert authenticator.cached(header) is None
    assert (await refused(authenticator, header)).code == "token_expired"


async def test_memory_is_bounded_and_keeps_what_is_used(
    store: MemoryStore, tokens: JwtTokens, clock: Clock
) -> None:
    authenticator = Authenticator(store, tokens, clock, remembered=3)
    headers = [f"Bearer {tokens.issue(OWNER, clock.now())[0]}" for _ in range(5)]
    for header in headers[:3]:
        await authenticator.authenticate_header(header)
    assert authenticator.cached(headers[0]) == OWNER
    for header in headers[3:]:
        await authenticator.authenticate_header(header)
    assert len(authenticator) == 3
    assert authenticator.cached(headers[0]) == OWNER
    assert authenticator.cached(headers[1]) is None
