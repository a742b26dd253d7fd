"""What a unit of work makes of the documents that it found: decided without a database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from moorage.adapters.firestore.documents import (
    NAMES,
    Alter,
    Change,
    Create,
    Found,
    Place,
    Put,
    Remove,
    document_id,
    name_place,
    place_of,
)
from moorage.adapters.firestore.kinds import DEPLOYMENT, deployment_name
from moorage.adapters.firestore.plan import plan, prepare
from moorage.adapters.firestore.seen import Seen
from moorage.adapters.row_codec import to_micros
from moorage.domain.deployment import Phase
from moorage.errors import AlreadyExists, StaleWrite
from moorage.ports.store import Append, Insert, Update, Write
from moorage.testing.store_rows import after, deployment, event, in_phase

ROW = place_of(DEPLOYMENT, "dep_0001")
NAME = name_place(deployment_name("org_a", "name-1"))
AT, LATER = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)


def planned(writes: Iterable[Write], found: Mapping[Place, Found] | None = None) -> list[Change]:
    return plan([prepare(write) for write in writes], found or {}, "unit-1")


def there(**fields: object) -> dict[Place, Found]:
    """The first deployment as a document."""
    return {ROW: Found(ROW, {"version": 1, "unique": NAME.key, **fields}, AT)}


def of(changes: Iterable[Change], place: Place) -> Change:
    [found] = [change for change in changes if change.place == place]
    return found


def test_a_new_row_takes_its_name_in_the_same_batch() -> None:
    changes = planned([Insert(deployment()), Append(event())])
    assert len(changes) == 3
    assert of(changes, NAME) == Create(NAME, {"id": "dep_0001"})
    row = of(changes, ROW)
    assert isinstance(row, Create)
    assert row.fields["claim_at"] == to_micros(after(1))
    assert row.fields["unique"] == NAME.key


def test_a_change_is_guarded_and_leaves_the_name_alone() -> None:
    changes = planned([Update(replace(deployment(), version=1))], there())
    [row] = changes
    assert isinstance(row, Alter)
    assert row.since == AT
    assert row.fields["version"] == 2
    assert row.fields["lease_token"] is None, "what the document does not have is taken away"


def test_a_row_that_is_over_lets_its_name_go() -> None:
    over = in_phase(replace(deployment(), version=1), Phase.FAILED)
    changes = planned([Update(over)], there())
    assert of(changes, NAME) == Remove(NAME)
    row = of(changes, ROW)
    assert isinstance(row, Alter)
    assert row.fields["unique"] is None


def test_a_name_goes_from_row_to_row_in_one_unit() -> None:
    over = in_phase(replace(deployment(), version=1), Phase.DELETED)
    heir = replace(deployment(2), name="name-1")
    changes = planned([Update(over), Insert(heir)], there())
    assert of(changes, NAME) == Put(NAME, {"id": "dep_0002"})
    with pytest.raises(AlreadyExists):
        planned([Insert(heir), Update(over)], there() | {NAME: Found(NAME, {"id": "dep_0001"}, AT)})


def test_writes_of_a_unit_see_each_other() -> None:
    failed = in_phase(replace(deployment(), version=1), Phase.FAILED)
    changes = planned([Insert(deployment()), Update(failed)])
    [row] = changes
    assert isinstance(row, Create)
    assert (row.fields["version"], row.fields["phase"]) == (2, "failed")
    with pytest.raises(AlreadyExists):
        planned([Append(event()), Append(event())])
    with pytest.raises(StaleWrite):
        planned([Insert(deployment()), Update(replace(deployment(), version=2))])


def test_a_wake_stands_against_its_holder() -> None:
    held = there(lease_token="t", lease_until=to_micros(after(30)), woken_at=to_micros(after(5)))
    asleep = replace(deployment(), version=1, due_at=after(900))
    [kept] = planned([Update(asleep, lease="t")], held)
    assert isinstance(kept, Alter)
    assert (kept.fields["due_at"], kept.fields["claim_at"]) == (to_micros(after(5)), to_micros(after(30)))
    [free] = planned([Update(asleep, lease="t", release=True)], held)
    assert isinstance(free, Alter)
    assert (free.fields["claim_at"], free.fields["lease_token"]) == (to_micros(after(5)), None)


@pytest.mark.parametrize(
    ("id_", "document"),
    [
        ("dep_0001", "dep_0001"),
        ("job-1/input", "job-1%2Finput"),
        ("org_a https://a", "org_a%20https%3A%2F%2Fa"),
        ("~a", "%7Ea"),
    ],
)
def test_an_id_is_read_in_its_documents(id_: str, document: str) -> None:
    assert document_id(id_) == document


@pytest.mark.parametrize("id_", [".", "..", "__x__", "", "x" * 2000, "é" * 500])
def test_an_id_that_no_document_can_have_is_hashed(id_: str) -> None:
    assert document_id(id_).startswith("~")
    assert len(document_id(id_)) == 65


# -- what is remembered


def test_what_was_seen_is_remembered_until_somebody_else_is_met() -> None:
    seen = Seen(("version", "lease_token"), [ROW.collection])
    assert seen.of([ROW]) is None
    seen.read(Found(ROW, {"version": 1, "body": "long"}, AT))
    assert seen.of([ROW]) == {ROW: Found(ROW, {"version": 1}, AT)}
    seen.written([Alter(ROW, {"lease_token": "t"}, AT)], [LATER])
    assert seen.of([ROW]) == {ROW: Found(ROW, {"version": 1, "lease_token": "t"}, LATER)}
    # Written over what this process has not seen: the rest is not known.
    seen.written([Alter(ROW, {"lease_token": "u"}, AT)], [LATER])
    assert seen.of([ROW]) is None
    seen.written([Create(ROW, {"version": 1})], [AT])
    seen.forget([ROW])
    assert seen.of([ROW]) is None


def test_names_and_parts_are_not_remembered() -> None:
    seen = Seen(("id",), [ROW.collection])
    name = Place(NAMES, "n")
    seen.written([Create(name, {"id": "dep_0001"})], [AT])
    assert seen.of([name]) is None
    assert seen.of([]) == {}
