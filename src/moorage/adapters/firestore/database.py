"""The calls to Firestore, all of them: each has a deadline, is asked again where that is safe, and fails in
the port's words.

A read is asked again until its deadline. A batch is not, because nobody knows whether it was carried out when
its answer is lost: `write` raises Unsure, and who wrote looks (`unit_of_work`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Self, TypeVar

from google.api_core.exceptions import Aborted
from google.cloud.firestore import DELETE_FIELD
from google.cloud.firestore_v1.async_document import AsyncDocumentReference
from google.cloud.firestore_v1.async_query import AsyncQuery
from google.cloud.firestore_v1.base_document import DocumentSnapshot
from google.cloud.firestore_v1.base_query import FieldFilter

from moorage.adapters.firestore.address import Address
from moorage.adapters.firestore.connection import Connection
from moorage.adapters.firestore.documents import Alter, Change, Create, Found, Place, Put, Remove, present
from moorage.adapters.firestore.failures import MET, PASSING, Conflict, Unsure, told
from moorage.adapters.firestore.queries import Search
from moorage.adapters.firestore.seen import Seen
from moorage.errors import StoreUnavailable

T = TypeVar("T")

DEADLINE = 8.0  # seconds that an operation has, its repetitions included
CALL = 5.0  # seconds that one call has
MOST_CHANGES = 500  # in a batch of changes that need not go together
_PAUSE = (0.005, 0.25)  # seconds between tries: the first, at most


class Database:
    def __init__(self, connection: Connection, address: Address, seen: Seen) -> None:
        self._client = connection.client
        self.connection = connection
        self.address = address
        self._seen = seen

    async def get(self, places: Collection[Place], fields: Sequence[str] | None = None) -> dict[Place, Found]:
        """Those that are there, with all fields or these."""
        if not places:
            return {}
        return await self._asked(lambda: self._get(places, fields))

    def remembered(self, places: Collection[Place]) -> dict[Place, Found] | None:
        """What was last seen of these, in the fields that decide about a change. None when that is not known
        of all of them."""
        return self._seen.of(places)

    async def look(self, place: Place) -> tuple[Found | None, datetime]:
        """The document, and Firestore's time."""
        return await self._asked(lambda: self._look(place))

    async def find(self, search: Search) -> list[Found]:
        return await self._asked(lambda: self._find(search))

    async def total(self, search: Search) -> dict[str, int]:
        """How many documents there are, as `count`, and the sums that the search's shape asks for."""
        return await self._asked(lambda: self._total(search))

    async def write(self, changes: Sequence[Change]) -> None:
        """All or none, durable when it returns. Raises Conflict, Unsure, and StoreError."""
        if not changes:
            return
        batch = self._client.batch()
        for change in changes:
            self._add(batch, change)
        try:
            results = await batch.commit(retry=None, timeout=CALL)
        except MET as error:
            self._seen.forget(change.place for change in changes)
            raise Conflict(str(error)) from error
        except PASSING as error:
            self._seen.forget(change.place for change in changes)
            raise Unsure(str(told(error, self.address))) from error
        except Exception as error:
            raise told(error, self.address) from error
        self._seen.written(changes, (result.update_time for result in results))

    async def write_surely(self, changes: Sequence[Change]) -> None:
        """Of changes that nothing can stand against: again until they are written."""
        async for _ in self.tries():
            try:
                await self.write(changes)
            except (Conflict, Unsure):
                continue
            return

    def tries(self) -> Tries:
        return Tries(
            f"Firestore could not do it in time in {self.address}: it is away, or too many write the same"
        )

    async def _asked(self, call: Callable[[], Awaitable[T]]) -> T:
        end = time.monotonic() + DEADLINE
        pause = _PAUSE[0]
        while True:
            try:
                return await call()
            except (*PASSING, Aborted) as error:
                if time.monotonic() + pause >= end:
                    raise told(error, self.address) from error
            except Exception as error:
                raise told(error, self.address) from error
            await asyncio.sleep(random.uniform(0.5, 1) * pause)
            pause = min(pause * 2, _PAUSE[1])

    async def _get(self, places: Collection[Place], fields: Sequence[str] | None) -> dict[Place, Found]:
        found: dict[Place, Found] = {}
        for some in chunks(places):
            references = [self._reference(place) for place in some]
            stream = self._client.get_all(references, field_paths=fields, retry=None, timeout=CALL)
            async for snapshot in stream:
                if snapshot.exists:
                    row = self._found(snapshot, whole=fields is None)
                    found[row.place] = row
        return found

    async def _look(self, place: Place) -> tuple[Found | None, datetime]:
        snapshot = await self._reference(place).get(retry=None, timeout=CALL)
        return (self._found(snapshot) if snapshot.exists else None), snapshot.read_time

    async def _find(self, search: Search) -> list[Found]:
        stream = self._query(search).stream(retry=None, timeout=CALL)
        whole = not search.shape.fields
        return [self._found(snapshot, whole=whole) async for snapshot in stream]

    async def _total(self, search: Search) -> dict[str, int]:
        # Any: the library's decorator takes the types of these methods away.
        query: Any = self._query(search).count(alias="count")
        for name in search.shape.sums:
            query = query.sum(name, alias=name)
        [results] = await query.get(retry=None, timeout=CALL)
        return {result.alias: int(result.value or 0) for result in results}

    def _query(self, search: Search) -> AsyncQuery:
        query = AsyncQuery(self._client.collection(search.shape.collection))
        for name, operator, value in search.conditions:
            query = query.where(filter=FieldFilter(name, operator, value))
        for name, direction in search.shape.order:
            query = query.order_by(name, direction=direction)
        if search.after is not None:
            after = dict(search.after)
            if isinstance(key := after.get("__name__"), str):
                after["__name__"] = self._reference(Place(search.shape.collection, key))
            query = query.start_after(after)
        if search.limit is not None:
            query = query.limit(search.limit)
        return query.select(search.shape.fields) if search.shape.fields else query

    def _add(self, batch: Any, change: Change) -> None:  # Any: the library's batch has no types
        reference = self._reference(change.place)
        match change:
            case Create(_, fields):
                batch.create(reference, present(fields))
            case Put(_, fields):
                batch.set(reference, present(fields))
            case Remove():
                batch.delete(reference)
            case Alter(_, fields, since):
                values = {name: DELETE_FIELD if value is None else value for name, value in fields.items()}
                option = None if since is None else self._client.write_option(last_update_time=since)
                batch.update(reference, values, option=option)

    def _found(self, snapshot: DocumentSnapshot[Any], *, whole: bool = False) -> Found:
        """Any: of a reference that is sync or async, the same here."""
        collection, key = snapshot.reference.path.split("/", 1)
        found = Found(Place(collection, key), snapshot.to_dict() or {}, snapshot.update_time)
        if whole:
            self._seen.read(found)
        return found

    def _reference(self, place: Place) -> AsyncDocumentReference:
        return self._client.collection(place.collection).document(place.key)


class Tries:
    """Numbers of tries, with a pause before each but the first. Raises StoreUnavailable at the deadline."""

    def __init__(self, told: str) -> None:
        self._told = told
        self._end = time.monotonic() + DEADLINE
        self._number = -1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        self._number += 1
        if self._number:
            least, most = _PAUSE
            pause = least + random.uniform(0, min(least * 2**self._number, most))
            if time.monotonic() + pause >= self._end:
                raise StoreUnavailable(self._told)
            await asyncio.sleep(pause)
        return self._number


def chunks(changes: Iterable[T], size: int = MOST_CHANGES) -> list[list[T]]:
    """At most so many at once."""
    every = list(changes)
    return [every[start : start + size] for start in range(0, len(every), size)]
