"""Who sends a request: from the `Authorization` header to a principal.

Every request passes here, the gateway's too. So there is a synchronous path that answers from memory, and an
asynchronous one that asks the store. A revocation in this process empties the memory of it at once. Another
process may revoke a key too: its writes have all keys forgotten, and should word of them be lost, the memory
is as short as the time within which every process has to refuse a revoked key.

A provider's own key is a bearer token too: its account is the tenant. It is shown to the provider once, and
then remembered by its hash for some minutes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from moorage.domain.identity import Principal, ProviderAccount, Role
from moorage.errors import ProviderError, Unauthenticated, Unauthorized
from moorage.ports.outside import Clock
from moorage.ports.provider import BearerKeys, Credentials, Provider
from moorage.ports.store import Store
from moorage.services.credentials import refusal_of, tenant
from moorage.services.identity import Tokens
from moorage.services.keys import PREFIX, hash_of

REMEMBERED = 10_000
REMEMBERED_FOR = timedelta(seconds=2)
ACCOUNT_REMEMBERED_FOR = timedelta(minutes=10)
ACCOUNT_REFUSED_FOR = timedelta(seconds=10)  # a refused key is not shown to its provider again so soon
LONGEST_HEADER = 8192
_ADVICE = "Send `Authorization: Bearer …` with an API key, or with a token from POST /auth/token."
_NO_PROVIDERS: Mapping[str, Provider] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Known:
    """Who it is, or why nobody."""

    principal: Principal | Unauthenticated
    until: datetime
    ours: bool = True  # an account at a provider is not: what other processes write says nothing of it


class Authenticator:
    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        clock: Clock,
        providers: Mapping[str, Provider] = _NO_PROVIDERS,
        *,
        remembered: int = REMEMBERED,
        remembered_for: timedelta = REMEMBERED_FOR,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._clock = clock
        self._keyed = {name: p for name, p in providers.items() if isinstance(p, BearerKeys)}
        self._providers = providers
        self._checking: dict[bytes, asyncio.Task[_Known]] = {}
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
        return known.principal if isinstance(known.principal, Principal) else None

    async def authenticate_header(self, header: str | None) -> Principal:
        """Raises Unauthenticated with one of the codes `missing_credentials`, `wrong_scheme`, `key_unknown`,
        `key_revoked`, `token_expired`, `token_invalid`, `provider_key_refused`; Forbidden when a provider's
        key may do too little, Unavailable when the provider cannot be asked."""
        text = _bearer(header)
        assert header is not None
        principal = self.cached(header)
        if principal is not None:
            return principal
        account = self._account(text)
        if account is not None:
            return await self._by_account(_slot(header), account)
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

    def with_account(self, principal: Principal, header: str) -> Principal:
        """The principal with the provider's account that is its token, for one request. No key is kept."""
        if not self._keyed:
            return principal
        account = self._account(_bearer(header))
        return principal if account is None else replace(principal, account=account)

    def forget(self, principal_id: str) -> None:
        """The principal's credentials have changed: ask the store again."""
        self._revocations += 1
        for slot in [slot for slot, known in self._known.items() if _is(known, principal_id)]:
            del self._known[slot]

    def forget_all(self) -> None:
        """Another process wrote, and any key may be revoked: ask the store again."""
        self._revocations += 1
        for slot in [slot for slot, known in self._known.items() if known.ours]:
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

    def _account(self, text: str) -> ProviderAccount | None:
        if text.startswith(PREFIX):
            return None
        for name, provider in self._keyed.items():
            credentials = provider.credentials_of(text)
            if credentials is not None:
                return ProviderAccount(name, credentials.values)
        return None

    async def _by_account(self, slot: bytes, account: ProviderAccount) -> Principal:
        """Of many requests with one new key, one asks the provider."""
        known = self._known.get(slot)
        if known is None or self._clock.now() >= known.until:
            task = self._checking.get(slot)
            if task is None:
                task = self._checking[slot] = asyncio.create_task(self._checked(account))
                task.add_done_callback(lambda _: self._checking.pop(slot, None))
            known = await asyncio.shield(task)
            self._remember(slot, known)
        if isinstance(known.principal, Unauthenticated):
            raise known.principal.with_traceback(None)
        return known.principal

    async def _checked(self, account: ProviderAccount) -> _Known:
        try:
            await self._providers[account.provider].check_credentials(Credentials(account.values))
        except Unauthorized as error:
            refused = Unauthenticated(error.detail, code="provider_key_refused", advice=error.advice)
            return _Known(refused, self._clock.now() + ACCOUNT_REFUSED_FOR, ours=False)
        except ProviderError as error:
            raise refusal_of(error) from error
        principal_id, organization_id = tenant(account)
        principal = Principal(principal_id, organization_id, Role.OWNER)
        return _Known(principal, self._clock.now() + ACCOUNT_REMEMBERED_FOR, ours=False)

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


def _is(known: _Known, principal_id: str) -> bool:
    return isinstance(known.principal, Principal) and known.principal.id == principal_id


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
