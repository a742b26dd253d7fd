"""The indexes that the searches need, told from their shapes: Firestore refuses a search without its index.

`python -m moorage.adapters.firestore.indexes` prints them as the file that Google's tools deploy,
`deploy/firestore.indexes.json`; a test holds the two together. A search by equalities alone is served by the
indexes that Firestore makes of every field. Where any of several equalities may be missing, one index for
each with the same order suffices: Firestore joins them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping

from moorage.adapters.firestore.documents import PARTS, SIGNALS
from moorage.adapters.firestore.kinds import BY_NAME, EVENT_NAMES, EVENTS
from moorage.adapters.firestore.queries import SHAPES, UP, Direction, Shape

# An index of one collection: its fields, in order, each with its direction.
Index = tuple[str, tuple[tuple[str, Direction], ...]]

_ID = "__name__"  # ends every index by itself, in the direction of the field before


def composite(shapes: Iterable[Shape]) -> frozenset[Index]:
    """The indexes of more than one field."""
    return frozenset(index for shape in shapes for index in _needed(shape))


def own(shapes: Iterable[Shape]) -> frozenset[tuple[str, str]]:
    """Fields whose own index is used, by collection."""
    return frozenset(
        (shape.collection, name)
        for shape in shapes
        if not _needed(shape)
        for name in (*shape.equalities, *(name for name, _ in _order(shape)))
    )


def unsearched(shapes: Iterable[Shape]) -> frozenset[tuple[str, str]]:
    """Fields that need no index of their own, by collection: one would cost at every write."""
    names: Mapping[str, Iterable[str]] = {
        **{kind.collection: kind.names for kind in BY_NAME.values()},
        EVENTS: EVENT_NAMES,
        PARTS: ("data", "pending_since"),
        SIGNALS: ("at",),
    }
    every = {(collection, name) for collection, fields in names.items() for name in fields}
    return frozenset(every - own(shapes))


def index_file() -> dict[str, object]:
    """As `firebase deploy --only firestore:indexes` reads it."""
    indexes = [
        {
            "collectionGroup": collection,
            "queryScope": "COLLECTION",
            "fields": [{"fieldPath": name, "order": direction} for name, direction in fields],
        }
        for collection, fields in sorted(composite(SHAPES))
    ]
    overrides = [
        {"collectionGroup": collection, "fieldPath": name, "indexes": []}
        for collection, name in sorted(unsearched(SHAPES))
    ]
    return {"indexes": indexes, "fieldOverrides": overrides}


def _needed(shape: Shape) -> frozenset[Index]:
    order = _order(shape)
    sums = tuple((name, UP) for name in shape.sums)
    if not order and not sums:
        return frozenset()
    if not shape.equalities and len(order) == 1:
        return frozenset()
    equal = [(name, UP) for name in shape.equalities]
    if shape.joined:
        return frozenset((shape.collection, (each, *order)) for each in equal)
    return frozenset({(shape.collection, (*equal, *order, *sums))})


def _order(shape: Shape) -> tuple[tuple[str, Direction], ...]:
    """As Firestore orders: what is compared by a range comes last where it is not named."""
    named = tuple((name, direction) for name, direction in shape.order if name != _ID)
    last = named[-1][1] if named else UP
    return named + tuple((name, last) for name in shape.ranges if name not in dict(named))


def main() -> None:
    json.dump(index_file(), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
