"""Bodies that no document can hold: a job may bring 20 MB, and a document has 1 MiB.

Such a body is cut into documents of its own. One batch cannot hold them all either, so they are written
before the unit of work, marked as pending, and the unit takes the marks away with the same batch that makes
the row point at them. Parts whose unit was never written are found by their marks (`remove_lost`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from moorage.adapters.firestore.database import Database, chunks
from moorage.adapters.firestore.documents import Change, Create, Found, Place, Remove, part_place, parts_of
from moorage.adapters.firestore.failures import Conflict, Unsure
from moorage.adapters.firestore.plan import Prepared
from moorage.adapters.firestore.queries import LOST_PARTS
from moorage.adapters.firestore.side_by_side import side_by_side
from moorage.errors import StoreError

PART = 900_000  # bytes
BATCH = 3_000_000  # bytes of bodies in one batch: Firestore takes 10 MiB of everything, its emulator 4 MiB
AT_ONCE = 4  # requests of one body
LOST_AFTER = 3600.0  # seconds; no unit of work waits so long


class Bodies:
    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def stage(self, prepared: Sequence[Prepared]) -> list[Prepared]:
        """Puts bodies aside that are too large for their document, or too many for one batch, the largest
        first."""
        sizes = {number: _size(each) for number, each in enumerate(prepared)}
        total = sum(sizes.values())
        staged = list(prepared)
        for number in sorted(sizes, key=lambda number: -sizes[number]):
            if sizes[number] <= PART and total <= BATCH:
                break
            staged[number] = await self._put_aside(prepared[number])
            total -= sizes[number]
        return staged

    async def unstage(self, staged: Iterable[Prepared]) -> None:
        """Removes what was put aside for a unit that was refused. Whatever remains is removed later."""
        places = [place for each in staged for place in each.parts]
        try:
            await self.remove(places)
        except StoreError:
            return

    async def of(self, found: Sequence[Found]) -> list[str]:
        """The bodies of these documents."""
        places = [place for row in found for place in parts_of(row.fields)]
        parts = await self._parts(places)
        return [self._body(row, parts) for row in found]

    async def remove(self, places: Sequence[Place]) -> None:
        for some in chunks(places):
            await self._database.write_surely([Remove(place) for place in some])

    async def remove_lost(self) -> None:
        before = _micros(self._clock() - LOST_AFTER)
        lost = await self._database.find(LOST_PARTS.search(pending_since=before, limit=100))
        await self.remove([row.place for row in lost])

    async def _put_aside(self, prepared: Prepared) -> Prepared:
        body = str(prepared.fields["body"]).encode()
        key, now = secrets.token_hex(12), _micros(self._clock())
        pieces = [body[start : start + PART] for start in range(0, len(body), PART)] or [b""]
        places = [part_place(key, number) for number in range(len(pieces))]
        changes = [
            Create(place, {"data": piece, "pending_since": now})
            for place, piece in zip(places, pieces, strict=True)
        ]
        batches = chunks(changes, BATCH // PART)
        await side_by_side((partial(self._write, batch) for batch in batches), AT_ONCE)
        fields = {**prepared.fields, "body": None, "parts": len(pieces), "body_key": key}
        return replace(prepared, fields=fields, parts=tuple(places))

    async def _write(self, changes: Sequence[Change]) -> None:
        """Nobody else knows the key, so that what is there already was written by a try before."""
        async for _ in self._database.tries():
            try:
                await self._database.write(changes)
            except Unsure:
                continue
            except Conflict:
                pass
            return

    async def _parts(self, places: Sequence[Place]) -> dict[Place, bytes]:
        found: dict[Place, bytes] = {}
        for some in chunks(places, 8):
            got = await self._database.get(some)
            found |= {place: row.fields["data"] for place, row in got.items()}
        return found

    def _body(self, row: Found, parts: dict[Place, bytes]) -> str:
        text = row.fields.get("body")
        if isinstance(text, str):
            return text
        places = parts_of(row.fields)
        if any(place not in parts for place in places):
            raise StoreError(
                f"a part of {row.place.key} is not there; it was changed meanwhile, read it again"
            )
        return b"".join(parts[place] for place in places).decode()


def _size(prepared: Prepared) -> int:
    body = str(prepared.fields["body"])
    return len(body) if body.isascii() else len(body.encode())


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)
