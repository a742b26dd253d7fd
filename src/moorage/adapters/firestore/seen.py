"""What this process saw last of a document, so that a change of it need not read it first.

Nothing is believed: a change that was decided by what is remembered is guarded by the update time that is
remembered with it, so Firestore refuses it when the document has changed since, and then it is read. Bodies
are not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime

from moorage.adapters.firestore.documents import Alter, Change, Create, Found, Place, Put, Remove
from moorage.adapters.firestore.kinds import Fields

MOST = 10_000  # documents


class Seen:
    """`names` are the fields that are kept. Only documents of these collections are."""

    def __init__(self, names: Iterable[str], collections: Collection[str]) -> None:
        self._names = frozenset(names)
        self._collections = frozenset(collections)
        self._documents: OrderedDict[Place, Found] = OrderedDict()

    def of(self, places: Collection[Place]) -> dict[Place, Found] | None:
        """None when one of them is not remembered."""
        known = {place: found for place in places if (found := self._documents.get(place)) is not None}
        return known if len(known) == len(places) else None

    def read(self, found: Found) -> None:
        """The whole document was read."""
        if found.place.collection in self._collections:
            self._keep(found)

    def written(self, changes: Iterable[Change], times: Iterable[datetime]) -> None:
        """These changes were made, each at the time beside it."""
        for change, updated in zip(changes, times, strict=True):
            if change.place.collection not in self._collections:
                continue
            match change:
                case Create(place, fields) | Put(place, fields):
                    self._keep(Found(place, fields, updated))
                case Alter(place, fields, since):
                    self._altered(place, fields, since, updated)
                case Remove(place):
                    self.forget([place])

    def forget(self, places: Iterable[Place]) -> None:
        for place in places:
            self._documents.pop(place, None)

    def _altered(self, place: Place, fields: Fields, since: datetime | None, updated: datetime) -> None:
        before = self._documents.get(place)
        if before is not None and since is not None and before.updated == since:
            self._keep(Found(place, {**before.fields, **fields}, updated))
        else:
            self.forget([place])

    def _keep(self, found: Found) -> None:
        kept = {name: value for name, value in found.fields.items() if name in self._names}
        self._documents[found.place] = replace(found, fields=kept)
        self._documents.move_to_end(found.place)
        if len(self._documents) > MOST:
            self._documents.popitem(last=False)
