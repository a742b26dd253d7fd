"""All rows as they lie here, to be moved to another store, and rows of another store put here as they are."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from moorage.adapters.firestore import queries
from moorage.adapters.firestore.bodies import Bodies
from moorage.adapters.firestore.database import Database
from moorage.adapters.firestore.documents import (
    NAMES,
    Alter,
    Change,
    Found,
    Place,
    Put,
    Remove,
    claim_times,
    name_place,
    parts_of,
    value_of,
)
from moorage.adapters.firestore.failures import Conflict, Unsure
from moorage.adapters.firestore.kinds import BY_NAME, EVENT_CODEC, Kind, Unique, kind_of
from moorage.adapters.firestore.plan import READ, Prepared, prepare, row_fields
from moorage.domain.deployment import Deployment
from moorage.domain.event import Event
from moorage.errors import AlreadyExists
from moorage.ports.store import Append, Collection, Insert, Stored

_MOST = 500  # rows


class RowArchive:
    def __init__(self, database: Database, bodies: Bodies) -> None:
        self._database = database
        self._bodies = bodies

    async def stored(self, collection: Collection, after: str | None, limit: int) -> Sequence[Stored]:
        shape = queries.ARCHIVES[collection]
        found = await self._database.find(shape.search({shape.ranges[0]: after or ""}, limit=limit))
        bodies = await self._bodies.of(found)
        return [_stored(collection, row, body) for row, body in zip(found, bodies, strict=True)]

    async def restore(self, collection: Collection, rows: Sequence[Stored]) -> None:
        if len(rows) > _MOST:
            raise ValueError(f"at most {_MOST} rows can be restored at once")
        if not rows:
            return
        prepared = await self._bodies.stage([_prepare(stored) for stored in rows])
        names = {stored.row.id: _name(stored) for stored in rows}
        unit = secrets.token_hex(8)
        async for _ in self._database.tries():
            there = await self._database.get([each.place for each in prepared], READ)
            wanted = {name_place(unique) for unique in names.values() if unique is not None}
            taken = await self._database.get(wanted)
            try:
                changes = _changes(prepared, names, there, taken, unit)
            except AlreadyExists:
                await self._bodies.unstage(prepared)
                raise
            try:
                await self._database.write(changes)
            except (Conflict, Unsure):
                continue
            return


def _stored(collection: Collection, found: Found, body: str) -> Stored:
    if collection == "event":
        return Stored(EVENT_CODEC.load(body))
    row = value_of(BY_NAME[collection], found, body)
    return Stored(row, isinstance(row, Deployment) and "unique" in found.fields)


def _prepare(stored: Stored) -> Prepared:
    row = stored.row
    if isinstance(row, Event):
        return prepare(Append(row))
    prepared = prepare(Insert(row))
    kind = prepared.kind
    assert kind is not None, "only events have none"
    fields = row_fields(kind, row, row.version)
    if kind.leased:
        fields = {**fields, **claim_times(fields)}
    return Prepared(prepared.write, prepared.place, fields, kind)


def _name(stored: Stored) -> Unique | None:
    """The unique key that the row holds."""
    row = stored.row
    if isinstance(row, Event) or (isinstance(row, Deployment) and not stored.holds_name):
        return None
    kind: Kind[Any] = kind_of(row)  # Any: of whichever kind the row is
    return None if kind.unique is None else kind.unique(row)


def _changes(
    prepared: Sequence[Prepared],
    names: Mapping[str, Unique | None],
    there: Mapping[Place, Found],
    taken: Mapping[Place, Found],
    unit: str,
) -> list[Change]:
    """The batch. Raises AlreadyExists for a key that a row has which is not replaced. What is there may be of
    this restore already, by a batch whose answer was lost: its parts stay."""
    freed = {Place(NAMES, key) for row in there.values() if (key := row.fields.get("unique")) is not None}
    holders: dict[Place, str] = {}
    changes: list[Change] = []
    for each in prepared:
        id_ = str(each.fields["id"])
        unique = None if each.kind is None else names[id_]
        fields = {**each.fields, "unit": unit}
        if unique is not None:
            place = name_place(unique)
            if place in holders or (place in taken and place not in freed):
                raise AlreadyExists(each.kind.name if each.kind else "event", unique.told)
            holders[place] = id_
            fields["unique"] = place.key
        changes.append(Put(each.place, fields))
        changes += [Alter(part, {"pending_since": None}) for part in each.parts]
    changes += [Remove(place) for place in freed - holders.keys()]
    changes += [Put(place, {"id": id_}) for place, id_ in holders.items()]
    mine = {part for each in prepared for part in each.parts}
    changes += [Remove(part) for row in there.values() for part in parts_of(row.fields) if part not in mine]
    return changes
