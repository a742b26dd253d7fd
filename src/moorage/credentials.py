"""What organizations stored to use their accounts at providers: sealed here, opened here, nowhere else.

On the floor of `planning`, because the engine and the services both open them and neither may import the
other. An opened credential is remembered for a minute, since the gateway needs one for every request.
"""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from moorage.errors import Unauthorized
from moorage.ports import Clock, Credentials, SecretBox, Store

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

    def __init__(self, store: Store, box: SecretBox, clock: Clock) -> None:
        self._store = store
        self._box = box
        self._clock = clock
        self._opened: OrderedDict[str, _Opened] = OrderedDict()

    async def open(self, credential_id: str) -> Credentials:
        """Raises Unauthorized when it was removed, or cannot be opened with the keys of today."""
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

    def forget(self, credential_id: str) -> None:
        """It was removed or replaced."""
        self._opened.pop(credential_id, None)
