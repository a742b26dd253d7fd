"""API keys: made, listed, revoked. A key is shown once; what is kept is its hash.

A key is 256 random bits, so a fast hash is enough: nobody guesses it, and every request pays for the lookup.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from moorage.domain.event import Event
from moorage.domain.identity import ApiKey, Permission, Principal, Role, may_grant
from moorage.domain.notice import NewId
from moorage.errors import Forbidden, Invalid, NotFound, StaleWrite
from moorage.ports.outside import Clock
from moorage.ports.store import Append, Insert, Store, Update, Write
from moorage.services.authorization import require

PREFIX = "mrg_"
HINT_LENGTH = len(PREFIX) + 4
LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and its text, which nobody can show again."""

    key: ApiKey
    secret: str = field(repr=False)


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKeys:
    """`on_revoked` hears the id of every key that this process revokes: the authenticator forgets it."""

    def __init__(self, store: Store, clock: Clock, new_id: NewId, on_revoked: Callable[[str], None]) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._on_revoked = on_revoked

    def draft_key(self, principal: Principal, name: str, role: Role) -> tuple[NewKey, Sequence[Write]]:
        """The key and the unit that stores it, for `once`. Raises Forbidden or Invalid."""
        require(principal, Permission.MANAGE_KEYS)
        _require_grant(principal, role)
        name = name.strip()
        if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
            raise Invalid.at(
                "body.name", "name", f"A key's name is 1 to {LONGEST_NAME} printable characters."
            )
        now = self._clock.now()
        secret = PREFIX + secrets.token_urlsafe(32)
        key = ApiKey(
            id=self._new_id("key"),
            organization_id=principal.organization_id,
            name=name,
            role=role,
            hash=hash_of(secret),
            hint=secret[:HINT_LENGTH],
            created_at=now,
            created_by=principal.id,
        )
        event = self._event(principal, key, "key.created", f"Key {name} was made, with the role {role}.")
        return NewKey(key, secret), [Insert(key), Append(event)]

    async def create_key(self, principal: Principal, name: str, role: Role) -> NewKey:
        new, writes = self.draft_key(principal, name, role)
        await self._store.commit(writes)
        return new

    async def list_keys(self, principal: Principal) -> Sequence[ApiKey]:
        """Of the organization, the revoked ones too."""
        require(principal, Permission.MANAGE_KEYS)
        return await self._store.api_keys(principal.organization_id)

    async def revoke_key(self, principal: Principal, key_id: str) -> ApiKey:
        """Ends the key, here at once and in other processes within the authenticator's time. May be
        repeated."""
        require(principal, Permission.MANAGE_KEYS)
        while True:
            key = await self._store.api_key(key_id, principal.organization_id)
            if key is None:
                raise NotFound(f"There is no key {key_id!r}.", code="key_not_found")
            if key.revoked_at is not None:
                return key
            _require_grant(principal, key.role)
            revoked = replace(key, revoked_at=self._clock.now())
            event = self._event(principal, key, "key.revoked", f"Key {key.name} was revoked.")
            try:
                await self._store.commit([Update(revoked), Append(event)])
            except StaleWrite:
                continue  # somebody else changed it: look again
            self._on_revoked(key_id)
            return revoked

    def _event(self, principal: Principal, key: ApiKey, type_: str, message: str) -> Event:
        return Event(
            self._new_id("evt"),
            key.organization_id,
            key.id,
            type_,
            self._clock.now(),
            principal.id,
            message,
            {"key_id": key.id, "name": key.name, "role": key.role.value, "hint": key.hint},
        )


def _require_grant(principal: Principal, role: Role) -> None:
    """Who may not give a role may not take it away either."""
    if not may_grant(principal.role, role):
        raise Forbidden(
            f"The role {principal.role} may not give or take the role {role}.", code="role_not_grantable"
        )
