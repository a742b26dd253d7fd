"""Opens a database: finds out whether it is there, whether we may use it, and whether its documents are ours
to read. There are no tables to be made; the documents' form has a number, which is kept in one of them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from moorage.adapters.firestore.address import Address
from moorage.adapters.firestore.archive import RowArchive
from moorage.adapters.firestore.bodies import Bodies
from moorage.adapters.firestore.connection import Connection, connect
from moorage.adapters.firestore.database import Database
from moorage.adapters.firestore.documents import SCHEMA, Create, Place
from moorage.adapters.firestore.failures import Conflict
from moorage.adapters.firestore.job_queue import JobQueue
from moorage.adapters.firestore.kinds import BY_NAME
from moorage.adapters.firestore.leases import Leases
from moorage.adapters.firestore.news import News
from moorage.adapters.firestore.plan import READ
from moorage.adapters.firestore.reads import Reads
from moorage.adapters.firestore.seen import Seen
from moorage.adapters.firestore.unit_of_work import UnitsOfWork
from moorage.errors import StoreError, StoreUnusable

NUMBER = 1  # of the documents' form; a release that changes it writes here how the former is brought up to it
_PLACE = Place(SCHEMA, "schema")
_ROWS = frozenset(kind.collection for kind in BY_NAME.values())


@dataclass(frozen=True, slots=True)
class Opened:
    """What a store consists of."""

    connection: Connection
    units: UnitsOfWork
    reads: Reads
    leases: Leases
    jobs: JobQueue
    archive: RowArchive
    news: News

    async def close(self) -> None:
        await self.news.aclose()
        await self.connection.close()


async def open_database(address: Address) -> Opened:
    """Raises StoreUnusable and StoreUnavailable."""
    connection = await connect(address)
    try:
        return await _open(connection, address)
    except BaseException:
        await connection.close()
        raise


async def _open(connection: Connection, address: Address) -> Opened:
    database = Database(connection, address, Seen(READ, _ROWS))
    schema, opened_at = await database.look(_PLACE)
    if schema is None:
        with suppress(Conflict):  # somebody else opens it for the first time too
            await database.write([Create(_PLACE, {"number": NUMBER})])
    elif schema.fields.get("number") != NUMBER:
        raise StoreUnusable(
            f"The documents in {address} have the form {schema.fields.get('number')}, and this release knows"
            f" {NUMBER}. Run the release that wrote them, or a newer one"
        )
    bodies = Bodies(database)
    leases = Leases(database, bodies)
    news = News(database, opened_at)
    with suppress(StoreError):
        await news.forget_the_dead()
    return Opened(
        connection,
        UnitsOfWork(database, bodies),
        Reads(database, bodies),
        leases,
        JobQueue(database, bodies, leases),
        RowArchive(database, bodies),
        news,
    )
