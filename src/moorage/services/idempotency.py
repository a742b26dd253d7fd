"""`Idempotency-Key`: a POST that is sent again does not happen again.

The answer is stored in the same unit as what the POST wrote, so there is no moment at which one exists
without the other. It is sealed, because it may hold what is shown only once. Refused requests are not
remembered: they wrote nothing, and may be sent again when their cause is gone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from moorage.domain.identity import IdempotencyRecord, Principal, idempotency_expired, idempotency_record_id
from moorage.errors import AlreadyExists, Clash, Invalid, Problem, StaleWrite
from moorage.ports.outside import Clock, SecretBox
from moorage.ports.store import Insert, Store, Update, Write

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
FIELD = "header.Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to send. `replayed` says that it is the one of an earlier request."""

    status: int
    body: bytes = field(repr=False)
    replayed: bool = False


Make = Callable[[], Awaitable[tuple[Sequence[Write], int, bytes]]]


def fingerprint(principal_id: str, method: str, path: str, body: bytes) -> str:
    """Tells requests apart. The principal is part of it: nobody is shown another one's answer."""
    digest = hashlib.sha256()
    for part in (principal_id.encode(), method.encode(), path.encode(), body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


async def once(
    store: Store,
    box: SecretBox,
    clock: Clock,
    organization_id: str,
    key: str | None,
    fingerprint: str,
    make: Make,
) -> Answer:
    """Commits what `make` returns, or replays the answer to the request that was first under `key`.

    Raises Invalid for a key outside the rule, Clash `idempotency_key_reused` when the key came with another
    request before, and what `make` and the commit raise. `make` must not write by itself; of racing twins
    several may run it, and only one is stored.
    """
    if key is None:
        writes, status, body = await make()
        await store.commit(writes)
        return Answer(status, body)
    if not _KEY.fullmatch(key):
        raise Invalid.at(FIELD, "format", "Idempotency-Key must be 1 to 255 visible ASCII characters")
    desk = _Desk(store, box, clock, idempotency_record_id(organization_id, key), fingerprint)
    found = await desk.find()
    if found is not None and not idempotency_expired(found, clock.now()):
        return desk.replay(found)
    try:
        writes, status, body = await make()
        await store.commit([*writes, desk.record(organization_id, status, body, found)])
    except (AlreadyExists, StaleWrite, Problem):
        # A twin may have been first, in which case its answer is ours too: also when its write is what made
        # ours impossible, as with a name that it took.
        twin = await desk.find()
        if twin is None or idempotency_expired(twin, clock.now()):
            raise
        return desk.replay(twin)
    return Answer(status, body)


class Idempotency:
    """`once` with what it needs at hand, for surfaces whose services draft units of work."""

    def __init__(self, store: Store, box: SecretBox, clock: Clock) -> None:
        self._store = store
        self._box = box
        self._clock = clock

    async def once(self, principal: Principal, key: str | None, fingerprint: str, make: Make) -> Answer:
        organization_id = principal.organization_id
        return await once(self._store, self._box, self._clock, organization_id, key, fingerprint, make)


@dataclass(frozen=True, slots=True)
class _Desk:
    """Where the answer under one key is kept."""

    store: Store
    box: SecretBox
    clock: Clock
    record_id: str
    fingerprint: str

    async def find(self) -> IdempotencyRecord | None:
        return await self.store.idempotency_record(self.record_id)

    def replay(self, record: IdempotencyRecord) -> Answer:
        if record.fingerprint != self.fingerprint:
            raise Clash.at(
                FIELD,
                "reused",
                "this Idempotency-Key came with another request before",
                code="idempotency_key_reused",
                advice="Use a new key for a new request; send the same request again to get its answer.",
            )
        return Answer(record.status, self.box.open(record.sealed, self._context), replayed=True)

    def record(
        self, organization_id: str, status: int, body: bytes, expired: IdempotencyRecord | None
    ) -> Insert | Update:
        sealed = self.box.seal(body, self._context)
        now = self.clock.now()
        if expired is None:
            return Insert(
                IdempotencyRecord(self.record_id, organization_id, self.fingerprint, status, sealed, now)
            )
        return Update(
            replace(expired, fingerprint=self.fingerprint, status=status, sealed=sealed, created_at=now)
        )

    @property
    def _context(self) -> str:
        return f"idempotency {self.record_id}"
