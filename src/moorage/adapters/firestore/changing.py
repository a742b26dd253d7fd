"""Changes of many documents that need not go together: leases and wakes.

One batch for all of them, as long as nobody else writes the same. Where somebody does, each document is read
again and changed on its own until that passes or there is nothing to change in it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from moorage.adapters.firestore.database import Database, chunks
from moorage.adapters.firestore.documents import Alter, Found, Place
from moorage.adapters.firestore.failures import Conflict, Unsure
from moorage.adapters.firestore.kinds import Fields
from moorage.adapters.firestore.side_by_side import side_by_side

AT_ONCE = 20  # documents changed on their own at the same time

# From a document's fields to those that change: none where it is already so, None where it is to be left.
Decide: TypeAlias = Callable[[Mapping[str, Any]], Fields | None]  # Any: as of `Found`


async def change_each(
    database: Database, found: Sequence[Found], fields: Sequence[str], decide: Decide
) -> dict[Place, Fields]:
    """Changes each document as `decide` says of its present fields (those named). Returns the changes made,
    by document; those that were not to be changed are left out."""
    made: dict[Place, Fields] = {}
    for some in chunks(found):
        made |= await _together(database, some, fields, decide)
    return made


async def _together(
    database: Database, found: Sequence[Found], fields: Sequence[str], decide: Decide
) -> dict[Place, Fields]:
    decided = {row.place: change for row in found if (change := decide(row.fields)) is not None}
    changes = [Alter(row.place, decided[row.place], row.updated) for row in found if decided.get(row.place)]
    try:
        await database.write(changes)
    except (Conflict, Unsure):
        settled = {place: change for place, change in decided.items() if not change}
        return settled | await _one_by_one(database, [change.place for change in changes], fields, decide)
    return decided


async def _one_by_one(
    database: Database, places: Sequence[Place], fields: Sequence[str], decide: Decide
) -> dict[Place, Fields]:
    made: dict[Place, Fields] = {}

    async def alone(place: Place) -> None:
        change = await _alone(database, place, fields, decide)
        if change is not None:
            made[place] = change

    await side_by_side((partial(alone, place) for place in places), AT_ONCE)
    return made


async def _alone(database: Database, place: Place, fields: Sequence[str], decide: Decide) -> Fields | None:
    async for _ in database.tries():
        row = (await database.get([place], fields)).get(place)
        change = None if row is None else decide(row.fields)
        if row is None or not change:
            return change
        try:
            await database.write([Alter(place, change, row.updated)])
        except (Conflict, Unsure):
            continue
        return change
    return None
