"""Units of work, decided: from the writes and the documents that were read to the changes of one batch.

Pure, because it runs again whenever somebody was quicker: each run sees the documents anew and decides anew.
Whatever it read it guards by update time, and whatever it creates must not be there; so what it decided holds
when the batch is written. Writes of one unit see each other, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from moorage.adapters.firestore.documents import (
    NAMES,
    Alter,
    Change,
    Create,
    Found,
    Place,
    Put,
    Remove,
    claim_times,
    event_place,
    name_place,
    parts_of,
    place_of,
    present,
)
from moorage.adapters.firestore.kinds import Fields, Kind, Unique, Value, event_fields, kind_of
from moorage.domain.job import Job
from moorage.errors import AlreadyExists, StaleWrite
from moorage.ports.store import Append, Insert, Row, Update, Write

# What a decision reads of a document; its body stays where it is.
READ = ("version", "lease_token", "lease_until", "woken_at", "unique", "parts", "body_key", "unit")
_KEPT = ("lease_token", "lease_until", "woken_at")  # by an update


@dataclass(frozen=True, slots=True)
class Prepared:
    """A write as a document: where, and all its fields with the body, or with where the body's `parts` are,
    which were written before."""

    write: Write
    place: Place
    fields: Fields
    kind: Kind[Any] | None  # Any: of whichever kind the row is; None for an event
    parts: tuple[Place, ...] = ()


def prepare(write: Write) -> Prepared:
    """Raises ValueError for an update with a lease of a row that cannot be leased."""
    match write:
        case Append(event):
            return Prepared(write, event_place(event.subject_id, event.id), event_fields(event), None)
        case Insert(row):
            return _prepared(write, row, 1)
        case Update(row, lease):
            kind = kind_of(row)
            if lease is not None and not kind.leased:
                raise ValueError(f"a row of kind {kind.name} cannot be leased; update it without a lease")
            return _prepared(write, row, row.version + 1)


def _prepared(write: Write, row: Row, version: int) -> Prepared:
    kind = kind_of(row)
    return Prepared(write, place_of(kind, row.id), row_fields(kind, row, version), kind)


def row_fields(kind: Kind[Any], row: Any, version: int) -> Fields:  # Any: a row of that kind
    """Of the row as it is once stored under `version`; without what is only decided when it is written."""
    stored = replace(row, version=version)
    return {"id": row.id, "version": version, **kind.fields(stored), "body": kind.codec.dump(stored)}


def places_to_read(prepared: Iterable[Prepared]) -> set[Place]:
    """What has to be known beforehand: documents that are changed. Of new ones Firestore itself says whether
    they are there."""
    return {each.place for each in prepared if isinstance(each.write, Update)}


def places_met(changes: Iterable[Change]) -> set[Place]:
    """What can have stood in the way of these changes."""
    return {change.place for change in changes if isinstance(change, Create | Alter)}


def plan(prepared: Sequence[Prepared], found: Mapping[Place, Found], unit: str) -> list[Change]:
    """The changes of one batch. `unit` marks the documents, so that a batch whose answer was lost can be
    recognised. Raises AlreadyExists or StaleWrite."""
    planning = _Planning(found, unit)
    for each in prepared:
        planning.write(each)
    return list(planning.changes())


@dataclass(slots=True)
class _Planning:
    found: Mapping[Place, Found]
    unit: str
    now: dict[Place, dict[str, Value]] = field(default_factory=dict)  # documents as the unit leaves them
    kinds: dict[Place, Kind[Any] | None] = field(default_factory=dict)
    taken: dict[Place, str] = field(default_factory=dict)  # names: the row that has it
    freed: dict[Place, str] = field(default_factory=dict)  # names: the row of this unit that had it before
    parts: set[Place] = field(default_factory=set)
    superseded: set[Place] = field(default_factory=set)

    def write(self, prepared: Prepared) -> None:
        match prepared.write:
            case Append(event):
                if self._fields(prepared.place) is not None:
                    raise AlreadyExists("event", event.id)
                self._put(prepared, dict(prepared.fields))
            case Insert(row):
                self._insert(prepared, row)
            case Update() as update:
                self._update(prepared, update)
        self.parts.update(prepared.parts)

    def changes(self) -> Iterator[Change]:
        for place, fields in self.now.items():
            before, kind = self.found.get(place), self.kinds[place]
            if before is None:
                yield Create(place, present(fields))
                continue
            names = kind.names if kind is not None else frozenset(fields)
            yield Alter(place, {name: fields.get(name) for name in names}, before.updated)
        for place in self.freed.keys() - self.taken.keys():
            yield Remove(place)
        for place, id_ in self.taken.items():
            if place not in self.freed:
                yield Create(place, {"id": id_})
            elif self.freed[place] != id_:
                yield Put(place, {"id": id_})
        for place in self.parts:
            yield Alter(place, {"pending_since": None})
        for place in self.superseded:
            yield Remove(place)

    def _insert(self, prepared: Prepared, row: Row) -> None:
        kind = _kind(prepared)
        if self._fields(prepared.place) is not None:
            raise AlreadyExists(kind.name, row.id)
        fields = dict(prepared.fields)
        self._take(kind, row, fields)
        self._put(prepared, fields | claim_times(fields) if kind.leased else fields)

    def _update(self, prepared: Prepared, update: Update) -> None:
        kind, row = _kind(prepared), update.row
        old = self._fields(prepared.place)
        if old is None or old["version"] != row.version or update.lease not in (None, old.get("lease_token")):
            raise StaleWrite(
                f"{kind.name} {row.id} is not at version {row.version}, or its lease is another's;"
                " read it again and decide again"
            )
        fields = {**prepared.fields, **{name: old.get(name) for name in _KEPT}}
        if kind.leased:
            woken_at = old.get("woken_at")
            over = isinstance(row, Job) and row.state.final
            if update.lease is not None and woken_at is not None and not over:
                fields["due_at"] = woken_at  # the holder has not seen what the wake was about
            if update.release:
                fields["lease_token"] = fields["lease_until"] = None
            fields |= claim_times(fields)
        self._move(kind, row, old, fields)
        self.superseded.update(parts_of(old))
        self._put(prepared, fields)

    def _put(self, prepared: Prepared, fields: dict[str, Value]) -> None:
        self.now[prepared.place] = fields | {"unit": self.unit}
        self.kinds[prepared.place] = prepared.kind

    def _fields(self, place: Place) -> Mapping[str, Any] | None:
        """As the writes before have left it."""
        if place in self.now:
            return self.now[place]
        found = self.found.get(place)
        return None if found is None else found.fields

    def _move(self, kind: Kind[Any], row: Row, old: Mapping[str, Any], fields: dict[str, Value]) -> None:
        """A unique key, from what the row had to what it has."""
        before = old.get("unique")
        if before is not None:
            place = Place(NAMES, before)
            if self.taken.pop(place, None) is None:
                self.freed[place] = row.id
        if before is not None or not kind.once:
            self._take(kind, row, fields)

    def _take(self, kind: Kind[Any], row: Row, fields: dict[str, Value]) -> None:
        unique: Unique | None = kind.unique(row) if kind.unique is not None else None
        if unique is None:
            return
        place = name_place(unique)
        if place in self.taken or (place in self.found and place not in self.freed):
            raise AlreadyExists(kind.name, unique.told)
        self.taken[place] = row.id
        fields["unique"] = place.key


def _kind(prepared: Prepared) -> Kind[Any]:
    assert prepared.kind is not None, "only events have none"
    return prepared.kind
