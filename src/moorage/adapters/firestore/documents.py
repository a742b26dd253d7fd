"""Where a row's document is, what a change of one is, and how the value comes out of it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote

from moorage.adapters.firestore.kinds import EVENTS, PREFIX, Fields, Kind, Unique, Value
from moorage.adapters.row_codec import maybe_instant
from moorage.domain.delivery import Delivery
from moorage.domain.deployment import Deployment
from moorage.domain.job import Job
from moorage.ports.store import ABSENCE, Row

R = TypeVar("R", bound=Row)

NAMES = PREFIX + "unique_names"
PARTS = PREFIX + "body_parts"
DUTIES = PREFIX + "duties"
SIGNALS = PREFIX + "signals"
SCHEMA = PREFIX + "schema"

_LONGEST = 600  # characters of a document's id, of 1,500 bytes that there may be; an event has two ids in it
_ABSENCE = ABSENCE // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Place:
    """A document's collection and its id there."""

    collection: str
    key: str


@dataclass(frozen=True, slots=True)
class Found:
    """A document as it was read. `updated` is what a guarded change compares; Any: a client's value of a
    field, of which each reader knows the type."""

    place: Place
    fields: Mapping[str, Any]
    updated: datetime


@dataclass(frozen=True, slots=True)
class Create:
    """Of a document that must not be there."""

    place: Place
    fields: Fields


@dataclass(frozen=True, slots=True)
class Alter:
    """Of these fields; None takes a field away. The document must be there, and not have been changed since
    it was updated at `since`, where that is given."""

    place: Place
    fields: Fields
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Put:
    """The document is this from now on, whatever it was."""

    place: Place
    fields: Fields


@dataclass(frozen=True, slots=True)
class Remove:
    place: Place


Change = Create | Alter | Put | Remove


def document_id(id_: str) -> str:
    """Readable where it can be. Firestore takes no '/', and not every length or dot."""
    text = quote(id_, safe="").replace("~", "%7E")
    if len(text) <= _LONGEST and text.strip(".") and not text.startswith("__"):
        return text
    return "~" + hashlib.sha256(id_.encode()).hexdigest()


def place_of(kind: Kind[Any], id_: str) -> Place:
    return Place(kind.collection, document_id(id_))


def event_place(subject_id: str, id_: str) -> Place:
    return Place(EVENTS, f"{document_id(subject_id)}:{document_id(id_)}")


def name_place(unique: Unique) -> Place:
    """One document for each key that is taken: creating it takes the key. JSON keeps the parts apart."""
    return Place(NAMES, hashlib.sha256(json.dumps(unique.parts).encode()).hexdigest())


def part_place(body_key: str, number: int) -> Place:
    return Place(PARTS, f"{body_key}.{number:04d}")


def parts_of(fields: Mapping[str, Any]) -> list[Place]:
    """Where the rest of a document's body is; nowhere when it is in the document."""
    return [part_place(fields["body_key"], number) for number in range(fields.get("parts") or 0)]


def present(fields: Fields) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def claim_times(fields: Mapping[str, Any]) -> dict[str, Value]:
    """From when a claim finds the row if nothing else happens: `claim_at` by any process or that of its home,
    `away_at` by one of another machine. One field each, so that one index answers a claim."""
    due_at, until = fields.get("due_at"), fields.get("lease_until")
    if due_at is None:
        return {"claim_at": None, "away_at": None} if "home" in fields else {"claim_at": None}
    times: dict[str, Value] = {"claim_at": max(due_at, until or 0)}
    if "home" in fields:
        times["away_at"] = max(due_at + _ABSENCE, until or 0) if fields["home"] else None
    return times


def value_of(kind: Kind[R], found: Found, body: str) -> R:
    """The value in `body`; where it can be due, with `due_at` from its field: a wake writes there alone."""
    row = kind.codec.load(body)
    if not isinstance(row, Deployment | Delivery | Job):
        return row
    due_at = maybe_instant(found.fields.get("due_at"))
    return row if row.due_at == due_at else replace(row, due_at=due_at)
