"""What organizations stored to use their accounts at providers: sealed here, opened here, nowhere else.

On the floor of `planning`, because the engine and the services both open them and neither may import the
other. An opened credential is remembered for a minute, since the gateway needs one for every request.
"""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from moorage.errors import Unauthorized
from moorage.ports.outside import Clock, SecretBox
from moorage.ports.provider import OPERATOR, Credentials, OpenAccount, OperatorAccounts, Provider
from moorage.ports.store import Store

REMEMBERED = 1000
REMEMBERED_FOR = timedelta(seconds=60)
_ADVICE = "Store it again with POST /v1/credentials."


def seal_values(box: SecretBox, credential_id: str, values: Mapping[str, str]) -> str:
    return box.seal(json.dumps(dict(values)).encode(), _context(credential_id))


def _context(credential_id: str) -> str:
    return f"credential {credential_id}"


@dataclass(frozen=True, slots=True)
class _Opened:
    credentials: Credentials
    until: datetime


class Vault:
    """Opens credentials by id. Ids are only ever those that a service put into a deployment of the same
    organization."""

    def __init__(
        self, store: Store, box: SecretBox, clock: Clock, providers: Mapping[str, Provider] | None = None
    ) -> None:
        """`providers` may bring accounts of the operator's own."""
        self._operator = {account.id: account for account in _operator_accounts(providers or {})}
        self._store = store
        self._box = box
        self._clock = clock
        self._opened: OrderedDict[str, _Opened] = OrderedDict()

    async def open(self, credential_id: str) -> Credentials:
        """Raises Unauthorized when it was removed, or cannot be opened with the keys of today."""
        if credential_id in self._operator:
            return self._operator[credential_id].credentials
        known = self._opened.get(credential_id)
        if known is not None and self._clock.now() < known.until:
            return known.credentials
        row = await self._store.provider_credential(credential_id)
        if row is None or row.removed_at is not None:
            raise Unauthorized(f"The credential {credential_id} was removed.", advice=_ADVICE)
        try:
            values = json.loads(self._box.open(row.sealed, _context(credential_id)))
        except ValueError as error:
            raise Unauthorized(
                f"The credential {row.name} cannot be opened: {error}.", advice=_ADVICE
            ) from error
        credentials = Credentials(values)
        self._opened[credential_id] = _Opened(credentials, self._clock.now() + REMEMBERED_FOR)
        if len(self._opened) > REMEMBERED:
            self._opened.popitem(last=False)
        return credentials

    async def open_all(self, ids: Mapping[str, str]) -> Mapping[str, Credentials]:
        """Of a deployment: the opened credential of each provider that has one. One that was removed since is
        left out, as if it had never been there."""
        opened = {}
        for provider, credential_id in ids.items():
            with contextlib.suppress(Unauthorized):
                opened[provider] = await self.open(credential_id)
        return opened

    async def accounts(
        self, organization_id: str, ids: Mapping[str, str], cluster: str | None = None
    ) -> tuple[OpenAccount, ...]:
        """The opened accounts in `ids` (credential ids by provider), those of the operator, then one for each
        cluster of the organization; or only the one of the cluster with the id `cluster`. One that was
        removed since, or cannot be opened, is left out."""
        clusters = [row for row in await self._store.clusters(organization_id) if cluster in (None, row.id)]
        groups = await self._store.node_groups(organization_id, cluster) if clusters else ()
        of_clusters = {row.credential_id for row in clusters}
        stored = {provider: id_ for provider, id_ in ids.items() if id_ not in of_clusters}
        found = [
            OpenAccount(provider, stored[provider], opened)
            for provider, opened in (await self.open_all(stored)).items()
        ]
        for row in clusters:
            with contextlib.suppress(Unauthorized):
                own = tuple(group for group in groups if group.cluster_id == row.id)
                credentials = await self.open(row.credential_id)
                found.append(OpenAccount(row.provider, row.credential_id, credentials, row.name, own))
        return (*(self._operator.values() if cluster is None else ()), *found)

    async def ids_at(self, provider: Provider) -> Sequence[str | None]:
        """Ids of all accounts under which `provider` may hold something of ours; None: it needs none."""
        own = [id_ for id_, account in self._operator.items() if account.provider == provider.name]
        if not provider.credential_fields:
            return own or (None,)
        stored = await self._store.provider_credentials(provider=provider.name)
        return [*own, *(row.id for row in stored if row.removed_at is None)]

    def forget_all(self) -> None:
        """Another process wrote, and any of them may be removed or replaced."""
        self._opened.clear()

    def forget(self, credential_id: str) -> None:
        """It was removed or replaced."""
        self._opened.pop(credential_id, None)


def _operator_accounts(providers: Mapping[str, Provider]) -> Iterator[OpenAccount]:
    for name, provider in providers.items():
        if isinstance(provider, OperatorAccounts):
            for account, credentials in provider.operator_accounts().items():
                yield OpenAccount(name, f"{OPERATOR}{name}/{account}", credentials, account)
