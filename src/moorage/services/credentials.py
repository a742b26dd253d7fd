"""Accounts at providers: stored by an organization, or brought along as the bearer token.

A stored credential is checked with its provider before it is kept, is shown to nobody again, and cannot be
removed while a deployment needs it: without it nothing could be deleted there any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from moorage.credentials import Vault, seal_values
from moorage.domain.deployment import Deployment
from moorage.domain.event import Event
from moorage.domain.identity import Organization, Permission, Principal, ProviderAccount, ProviderCredential
from moorage.domain.naming import encode
from moorage.domain.notice import NewId
from moorage.domain.placement import ANY_PROVIDER
from moorage.errors import (
    Clash,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    PermissionMissing,
    ProviderError,
    StaleWrite,
    Unauthorized,
    Unavailable,
)
from moorage.ports.outside import Clock, SecretBox
from moorage.ports.provider import Clusters, Credentials, OpenAccount, OperatorAccounts, Provider
from moorage.ports.store import Append, Insert, Store, Update, Write
from moorage.services.authorization import require
from moorage.services.live_deployments import first_live

LONGEST_NAME = 64
LONGEST_VALUE = 4096


@dataclass(frozen=True, slots=True)
class Accounts:
    """What a principal can use providers with: its account at each provider, opened, under the id where a
    deployment finds it again; and its clusters. `writes` store what is not stored yet, and go into the unit
    of whatever needs it."""

    opened: Mapping[str, Credentials]
    ids: Mapping[str, str]
    writes: tuple[Write, ...] = ()
    clusters: tuple[OpenAccount, ...] = ()

    @property
    def all(self) -> tuple[OpenAccount, ...]:
        own = (OpenAccount(provider, self.ids[provider], c) for provider, c in self.opened.items())
        return (*own, *self.clusters)


class ProviderCredentials:
    def __init__(
        self,
        store: Store,
        providers: Mapping[str, Provider],
        vault: Vault,
        box: SecretBox,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._store = store
        self._providers = providers
        self._vault = vault
        self._box = box
        self._clock = clock
        self._new_id = new_id

    async def draft(
        self, principal: Principal, provider_name: str, name: str, values: Mapping[str, str]
    ) -> tuple[ProviderCredential, Sequence[Write]]:
        """Checked with the provider; the row and the unit that stores it, for `once`."""
        require(principal, Permission.MANAGE_CREDENTIALS)
        provider = self._provider(provider_name)
        _refuse_fields(provider, name, values)
        await self._check(provider, values)
        if any(row.name == name for row in await self.page(principal)):
            raise Clash.at(
                "body.name",
                "unique_in_organization",
                f"A credential named {name!r} exists.",
                code="name_taken",
                advice="Choose another name, or remove that one first.",
            )
        row = self._row(self._new_id("crd"), principal, provider_name, name, values)
        told = f"An account at {provider_name} was stored as {name}."
        return row, [Insert(row), Append(self._event(principal, row, "credential.created", told))]

    async def page(self, principal: Principal) -> Sequence[ProviderCredential]:
        """Those that are there, oldest first."""
        require(principal, Permission.READ)
        rows = await self._store.provider_credentials(organization_id=principal.organization_id)
        return [row for row in rows if row.removed_at is None and not self._opens_cluster(row)]

    async def remove(self, principal: Principal, credential_id: str) -> None:
        """May be repeated. Raises Clash while a deployment needs it."""
        require(principal, Permission.MANAGE_CREDENTIALS)
        while True:
            row = await self._store.provider_credential(credential_id)
            foreign = row is None or row.organization_id != principal.organization_id
            if row is None or foreign or self._opens_cluster(row):
                raise NotFound(f"There is no credential {credential_id!r}.", code="credential_not_found")
            if row.removed_at is not None:
                return
            await self._refuse_while_needed(row)
            removed = replace(row, sealed="", removed_at=self._clock.now())
            event = self._event(principal, row, "credential.removed", f"{row.name} was removed.")
            try:
                await self._store.commit([Update(removed), Append(event)])
            except StaleWrite:
                continue
            self._vault.forget(credential_id)
            return

    async def of(
        self,
        principal: Principal,
        wanted: str | None = None,
        provider_name: str = ANY_PROVIDER,
        cluster: str | None = None,
    ) -> Accounts:
        """All accounts that `principal` may use: the one in its token, and of each provider the first stored
        one, or the one that `wanted` names by id or name; and its clusters, or the one that `cluster` names
        by id. Raises Invalid when there is none of that name, Unauthorized when that one cannot be opened.
        For one provider that needs none, nothing is read."""
        named = self._providers.get(provider_name)
        if named is not None and wanted is None and _needs_no_account(named):
            return Accounts({}, {})
        stored = await self._store.provider_credentials(organization_id=principal.organization_id)
        rows = [row for row in stored if row.removed_at is None and not self._opens_cluster(row)]
        if wanted is not None and not any(wanted in (row.id, row.name) for row in rows):
            names = ", ".join(row.name for row in rows) or "none is stored"
            raise Invalid.at(
                "body.credential",
                "known_credential",
                f"There is no credential {wanted!r}; there is: {names}.",
            )
        ids: dict[str, str] = {}
        for row in sorted(rows, key=lambda row: wanted not in (row.id, row.name)):
            ids.setdefault(row.provider, row.id)
        opened = await self._vault.open_all(ids)
        for row in rows:
            if wanted in (row.id, row.name) and row.provider not in opened:
                await self._vault.open(row.id)  # raises the reason: it was asked for by name
        clusters = await self._vault.accounts(principal.organization_id, {}, cluster)
        return await self._with_token(principal, Accounts(opened, ids, clusters=clusters), stored)

    async def _with_token(
        self, principal: Principal, accounts: Accounts, stored: Sequence[ProviderCredential]
    ) -> Accounts:
        account = principal.account
        if account is None:
            return accounts
        id_ = account_id("crd", account)
        there = next((row for row in stored if row.id == id_), None)
        row = self._row(id_, principal, account.provider, "bearer", account.values)
        writes: list[Write] = []
        if there is None:
            writes.append(Insert(row))
        elif there.removed_at is not None:
            writes.append(Update(replace(row, version=there.version)))
        if await self._store.organization(principal.organization_id) is None:
            name = f"{account.provider} account {row.hint}"
            writes.append(Insert(Organization(principal.organization_id, name, self._clock.now())))
        return Accounts(
            {**accounts.opened, account.provider: Credentials(account.values)},
            {**accounts.ids, account.provider: id_},
            tuple(writes),
            accounts.clusters,
        )

    def _opens_cluster(self, row: ProviderCredential) -> bool:
        """Whether it belongs to an imported cluster, which is looked after by its own service."""
        return isinstance(self._providers.get(row.provider), Clusters)

    def _row(
        self, id_: str, principal: Principal, provider: str, name: str, values: Mapping[str, str]
    ) -> ProviderCredential:
        return ProviderCredential(
            id=id_,
            organization_id=principal.organization_id,
            provider=provider,
            name=name,
            sealed=seal_values(self._box, id_, values),
            hint=_hint(values),
            created_at=self._clock.now(),
            created_by=principal.id,
        )

    async def _check(self, provider: Provider, values: Mapping[str, str]) -> None:
        try:
            await provider.check_credentials(Credentials(values))
        except (Unauthorized, PermissionMissing) as error:
            rule = "accepted_by_provider" if isinstance(error, Unauthorized) else "enough_permission"
            field = f"body.values.{next(iter(provider.credential_fields))}"
            raise Invalid.at(
                field, rule, error.detail, code="credential_refused", advice=error.advice
            ) from error
        except ProviderError as error:
            raise Unavailable(
                f"{provider.name} could not be asked whether it accepts them: {error.detail}", retry_after=5.0
            ) from error

    async def _refuse_while_needed(self, row: ProviderCredential) -> None:
        user = await first_live(self._store, row.organization_id, lambda deployment: _needs(deployment, row))
        if user is not None:
            raise Clash(
                f"The deployment {user.name!r} ({user.id}) needs this credential.",
                code="credential_in_use",
                advice="Delete the deployments that use it first.",
            )

    def _provider(self, name: str) -> Provider:
        provider = self._providers.get(name)
        if isinstance(provider, Clusters):
            raise Invalid.at(
                "body.provider",
                "imported",
                f"The accounts of {name} are clusters, which are imported.",
                advice="Use POST /clusters/.",
            )
        needy = sorted(
            n for n, p in self._providers.items() if p.credential_fields and not isinstance(p, Clusters)
        )
        if provider is None or name not in needy:
            raise Invalid.at(
                "body.provider",
                "known_provider",
                f"No provider {name!r} needs a credential; those that do: {', '.join(needy) or 'none'}.",
            )
        return provider

    def _event(self, principal: Principal, row: ProviderCredential, type_: str, message: str) -> Event:
        now = self._clock.now()
        data = {"provider": row.provider, "name": row.name}
        return Event(
            self._new_id("evt"), row.organization_id, row.id, type_, now, principal.id, message, data
        )


def _needs(deployment: Deployment, row: ProviderCredential) -> bool:
    """Whether something of it is at the row's provider, or may be at any moment."""
    if deployment.spec.credentials.get(row.provider) != row.id:
        return False
    attempt = deployment.status.attempt
    if attempt is None:
        return True
    rungs = (attempt.rung, *deployment.status.ladder)
    return any(rung.offer.provider == row.provider for rung in rungs)


def account_id(prefix: str, account: ProviderAccount) -> str:
    """An id that follows from the account alone: the same key is the same tenant, wherever it comes in."""
    text = "\0".join((account.provider, *(f"{k}={account.values[k]}" for k in sorted(account.values))))
    return f"{prefix}_{encode(hashlib.sha256(f'moorage tenant {text}'.encode()).digest()[:16])}"


def tenant(account: ProviderAccount) -> tuple[str, str]:
    """Ids of the principal and the organization that an account is."""
    return account_id("acc", account), account_id("org", account)


def refusal_of(error: ProviderError) -> Forbidden | Unavailable:
    """What is told when a provider's answer stands in the way of a request."""
    if isinstance(error, PermissionMissing):
        return Forbidden(error.detail, code="provider_permission_missing", advice=error.advice)
    return Unavailable(error.detail, advice=error.advice, retry_after=5.0)


def _hint(values: Mapping[str, str]) -> str:
    """The beginning of the first value, never more than a fifth of it."""
    first = next(iter(values.values()), "")
    return first[: min(6, len(first) // 5)] + "…"


def _refuse_fields(provider: Provider, name: str, values: Mapping[str, str]) -> None:
    errors: list[FieldError] = []
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        errors.append(FieldError("body.name", "name", f"A name is 1 to {LONGEST_NAME} printable characters."))
    for field, meaning in provider.credential_fields.items():
        value = values.get(field, "")
        if not value.strip() or len(value) > LONGEST_VALUE or not value.isprintable():
            errors.append(FieldError(f"body.values.{field}", "required", f"It is {meaning}."))
    for field in values:
        if field not in provider.credential_fields:
            known = ", ".join(provider.credential_fields)
            message = f"{provider.name} has no field {field[:64]}; it has {known}."
            errors.append(FieldError(f"body.values.{field[:64]}", "unknown_field", message))
    if errors:
        raise Invalid("; ".join(e.message for e in errors), errors=errors)


def _needs_no_account(provider: Provider) -> bool:
    """Neither one that is stored, nor one of the operator's."""
    return not provider.credential_fields and not isinstance(provider, OperatorAccounts)
