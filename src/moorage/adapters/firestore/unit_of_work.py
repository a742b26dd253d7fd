"""Writes a unit of work: decides by what it knows of the documents that it changes, writes one batch, and
reads them and decides again when it met somebody. A batch whose answer was lost is recognised by the mark
that it left in its documents."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from moorage.adapters.firestore.bodies import Bodies
from moorage.adapters.firestore.database import Database
from moorage.adapters.firestore.documents import Found, Place
from moorage.adapters.firestore.failures import Conflict, Unsure
from moorage.adapters.firestore.plan import READ, Prepared, places_met, places_to_read, plan, prepare
from moorage.errors import AlreadyExists, StaleWrite, StoreUnavailable
from moorage.ports.store import Write

_OVERTAKEN = "Firestore did not say whether it wrote, and others have written since; read again"


class UnitsOfWork:
    def __init__(self, database: Database, bodies: Bodies) -> None:
        self._database = database
        self._bodies = bodies

    async def commit(self, writes: Sequence[Write]) -> None:
        if not writes:
            return
        staged = await self._bodies.stage([prepare(write) for write in writes])
        try:
            await self._write(staged)
        except (AlreadyExists, StaleWrite):
            await self._bodies.unstage(staged)
            raise

    async def _write(self, prepared: Sequence[Prepared]) -> None:
        unit, unsure = secrets.token_hex(8), False
        places = places_to_read(prepared)
        async for number in self._database.tries():
            remembered = self._database.remembered(places) if number == 0 else None
            found = await self._database.get(places, READ) if remembered is None else remembered
            if unsure and _was_written(found, unit):
                return
            try:
                changes = plan(prepared, found, unit)
            except (AlreadyExists, StaleWrite) as error:
                if remembered:  # which may be old
                    continue
                if unsure:
                    raise StoreUnavailable(_OVERTAKEN) from error
                raise
            try:
                await self._database.write(changes)
            except (Conflict, Unsure) as error:
                unsure = unsure or isinstance(error, Unsure)
                places |= places_met(changes)
            else:
                return


def _was_written(found: Mapping[Place, Found], unit: str) -> bool:
    return any(row.fields.get("unit") == unit for row in found.values())
