"""Who sends a request: from the `Authorization` header to a principal.

Every request passes here, the gateway's too. So there is a synchronous path that answers from memory, and an
asynchronous one that asks the store. The memory is short (seconds), because another process may revoke a key;
a revocation in this process empties it at once.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from moorage.domain.identity import Principal
from moorage.errors import Unauthenticated
from moorage.ports import Clock, Store
from moorage.services.identity import Tokens
from moorage.services.keys import PREFIX, hash_of

REMEMBERED = 10_000
REMEMBERED_FOR = timedelta(seconds=5)
LONGEST_HEADER = 8192
_ADVICE = "Send `Authorization: Bearer …` with an API key, or with a token from POST /auth/token."


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    until: datetime


class Authenticator:
    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        clock: Clock,
        *,
        remembered: int = REMEMBERED,
        remembered_for: timedelta = REMEMBERED_FOR,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._clock = clock
        self._remembered = remembered
        self._remembered_for = remembered_for
        self._known: OrderedDict[bytes, _Known] = OrderedDict()  # by hash of the header: no secret in memory
        self._revocations = 0

    def cached(self, header: str) -> Principal | None:
        """The principal when this header was accepted in the last seconds; None says nothing."""
        slot = _slot(header)
        known = self._known.get(slot)
        if known is None:
            return None
        if self._clock.now() >= known.until:
            del self._known[slot]
            return None
        self._known.move_to_end(slot)
        return known.principal

    async def authenticate_header(self, header: str | None) -> Principal:
        """Raises Unauthenticated with one of the codes `missing_credentials`, `wrong_scheme`, `key_unknown`,
        `key_revoked`, `token_expired`, `token_invalid`."""
        text = _bearer(header)
        assert header is not None
        principal = self.cached(header)
        if principal is not None:
            return principal
        revocations = self._revocations
        until = self._clock.now() + self._remembered_for
        if text.startswith(PREFIX):
            principal = await self._by_key(text)
        else:
            principal, expires = self._tokens.read(text, self._clock.now())
            until = min(until, expires)
        if revocations == self._revocations:  # else what was read may be from before the revocation
            self._remember(_slot(header), _Known(principal, until))
        return principal

    def forget(self, principal_id: str) -> None:
        """The principal's credentials have changed: ask the store again."""
        self._revocations += 1
        for slot in [slot for slot, known in self._known.items() if known.principal.id == principal_id]:
            del self._known[slot]

    async def _by_key(self, secret: str) -> Principal:
        key = await self._store.api_key_by_hash(hash_of(secret))
        if key is None:
            raise Unauthenticated("There is no such API key.", code="key_unknown", advice=_ADVICE)
        if key.revoked_at is not None:
            raise Unauthenticated(
                f"The API key {key.hint}… was revoked.", code="key_revoked", advice="Use another key."
            )
        return Principal(key.id, key.organization_id, key.role)

    def _remember(self, slot: bytes, known: _Known) -> None:
        self._known[slot] = known
        self._known.move_to_end(slot)
        if len(self._known) > self._remembered:
            self._known.popitem(last=False)

    def __len__(self) -> int:
        return len(self._known)


def challenge(problem: Unauthenticated) -> str:
    """The value of `WWW-Authenticate` that goes with it (RFC 6750)."""
    if problem.code in ("missing_credentials", "wrong_scheme", "wrong_credentials"):
        return 'Bearer realm="moorage"'
    return f'Bearer realm="moorage", error="invalid_token", error_description="{problem.code}"'


def _bearer(header: str | None) -> str:
    if header is None or not header.strip():
        raise Unauthenticated(
            "The request has no Authorization header.", code="missing_credentials", advice=_ADVICE
        )
    scheme, _, text = header.strip().partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not text:
        raise Unauthenticated(
            "The Authorization header is not of the form `Bearer …`.", code="wrong_scheme", advice=_ADVICE
        )
    if len(header) > LONGEST_HEADER or not text.isascii():
        raise Unauthenticated(
            "The token is not of a form that is ours.", code="token_invalid", advice=_ADVICE
        )
    return text


def _slot(header: str) -> bytes:
    return hashlib.sha256(header.encode("utf-8", "surrogatepass")).digest()
