"""The last line against orphans: removes what a provider holds under our tag and no deployment owns.

The engine stores every intent before its effect, so an orphan can only come from a call that was still under
way when its process lost the lease. One process at a time sweeps, and on each machine one what only that
machine sees. A name must be found ownerless twice, a grace period apart, before it is removed, and an event
says that it was.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TypeAlias

import structlog

from moorage.credentials import Vault
from moorage.domain.deployment import Deployment, Handle
from moorage.domain.event import Event
from moorage.domain.naming import parse_external_name
from moorage.domain.notice import NewId
from moorage.engine.store_trouble import StoreTrouble
from moorage.errors import ProviderError, StoreError
from moorage.ports.outside import Clock
from moorage.ports.provider import Absent, Credentials, MachineLocal, Provider
from moorage.ports.store import Append, Lease, Store

log = structlog.get_logger(__name__)

ACCOUNT_SECONDS = 60.0  # for one account of a provider to be swept
DUTY = "sweeper"

_Account: TypeAlias = tuple[str, str | None]  # the provider's name, the id of the credentials


class Sweeper:
    def __init__(
        self,
        store: Store,
        providers: Mapping[str, Provider],
        vault: Vault,
        clock: Clock,
        new_id: NewId,
        *,
        every: float = 60.0,
        grace: float = 120.0,
    ) -> None:
        self._store = store
        self._providers = providers
        self._vault = vault
        self._clock = clock
        self._new_id = new_id
        self._every = every
        self._grace = grace
        self._ownerless_since: dict[_Account, dict[str, datetime]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        trouble = StoreTrouble("sweeper")
        while True:
            try:
                await self.sweep_when_due()
                trouble.worked()
                pause = self._every
            except StoreError as error:
                pause = min(self._every, trouble.failed(error))
            await asyncio.sleep(pause)

    async def sweep_when_due(self) -> int:
        """Sweeps what nobody else has swept lately. Returns how many orphans were removed."""
        due = [providers for duty, providers in self._duties().items() if await self._claims(duty)]
        return await self.sweep([provider for providers in due for provider in providers]) if due else 0

    def _duties(self) -> Mapping[str, list[Provider]]:
        """What one process does at a time, and on each machine one for its own."""
        duties: dict[str, list[Provider]] = {}
        for provider in self._providers.values():
            home = provider.home() if isinstance(provider, MachineLocal) else None
            duties.setdefault(DUTY if home is None else f"{DUTY} {home}", []).append(provider)
        return duties

    async def _claims(self, duty: str) -> bool:
        now = self._clock.now()
        lease = Lease(secrets.token_hex(16), now + timedelta(seconds=self._every * 0.9))
        return await self._store.claim_duty(duty, lease, now)

    async def sweep(self, providers: Iterable[Provider] | None = None) -> int:
        """One round over all providers, or those; returns how many orphans were removed."""
        removed = 0
        for provider in self._providers.values() if providers is None else providers:
            accounts = await self._vault.ids_at(provider)
            self._forget_all_but(provider, accounts)
            for account in accounts:
                try:
                    async with asyncio.timeout(ACCOUNT_SECONDS):
                        removed += await self._sweep_account(provider, account)
                except (ProviderError, TimeoutError) as error:
                    told = error.detail if isinstance(error, ProviderError) else "it did not answer in time"
                    log.warning("sweeper.provider_failed", provider=provider.name, error=told)
        return removed

    def _forget_all_but(self, provider: Provider, accounts: Iterable[str | None]) -> None:
        kept = {(provider.name, account) for account in accounts}
        self._ownerless_since = {
            at: names for at, names in self._ownerless_since.items() if at[0] != provider.name or at in kept
        }

    async def _sweep_account(self, provider: Provider, account: str | None) -> int:
        """Only a list that came to its end says of a name that it is gone: one that was cut off, or that
        another duty goes through, must not begin anybody's grace anew."""
        credentials = None if account is None else await self._vault.open(account)
        since = self._ownerless_since.setdefault((provider.name, account), {})
        removed, found = 0, set[str]()
        async for handle in provider.owned(credentials):
            found.add(handle.name)
            if await self._is_orphan(handle, since):
                gone = await self._remove(provider, handle, account, credentials)
                removed += gone
                if gone:
                    since.pop(handle.name, None)
        for name in since.keys() - found:
            del since[name]
        return removed

    async def _is_orphan(self, handle: Handle, ownerless_since: dict[str, datetime]) -> bool:
        """True when it has been ownerless for the grace period."""
        now = self._clock.now()
        if await self._owner(handle) is not None:
            ownerless_since.pop(handle.name, None)
            return False
        since = ownerless_since.setdefault(handle.name, now)
        return now - since >= timedelta(seconds=self._grace)

    async def _owner(self, handle: Handle) -> Deployment | None:
        """The deployment whose present attempt this is. A name that is not of our making has no owner we
        could ask: it is left alone, and counts as owned by nobody's orphan."""
        parsed = parse_external_name(handle.name)
        deployment = None if parsed is None else await self._store.deployment(parsed.deployment_id)
        if deployment is None or deployment.status.attempt is None:
            return None
        return deployment if deployment.status.attempt.name == handle.name else None

    async def _speaks_for(self, account: str | None, organization_id: str) -> bool:
        """Whether what is found in an account may be told to that organization: names can be made up."""
        row = None if account is None else await self._store.provider_credential(account)
        return row is None or row.organization_id == organization_id

    async def _remove(
        self, provider: Provider, handle: Handle, account: str | None, credentials: Credentials | None
    ) -> int:
        parsed = parse_external_name(handle.name)
        if parsed is None:
            return 0
        answer = await provider.delete(handle, credentials)
        if not isinstance(answer, Absent):
            return 0
        log.warning("sweeper.removed_orphan", provider=provider.name, name=handle.name)
        deployment = await self._store.deployment(parsed.deployment_id)
        if deployment is not None and await self._speaks_for(account, deployment.organization_id):
            event = Event(
                self._new_id("evt"),
                deployment.organization_id,
                deployment.id,
                "deployment.orphan_removed",
                self._clock.now(),
                "engine",
                f"{handle.name} was at {provider.name} without an owner, and was removed.",
                {"provider": provider.name, "name": handle.name},
            )
            await self._store.commit([Append(event)])
        return 1
