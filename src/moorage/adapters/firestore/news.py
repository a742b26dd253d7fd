"""That another process has written, told by Firestore's own listening.

Each process has a document of its own in one small collection, sets it after it has written, and listens to
those of the others. Firestore bears about one write a second to one document: the first write of a process is
told at once, those within the second after it together at its end. So news are at most about a second old. A
process that dies within that second tells nothing; what it left is found when it is due.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import datetime

import structlog
from google.cloud.firestore_v1.types import (
    ListenRequest,
    ListenResponse,
    StructuredQuery,
    Target,
    TargetChange,
)

from moorage.adapters.firestore.database import Database
from moorage.adapters.firestore.documents import SIGNALS, Place, Put, Remove
from moorage.adapters.firestore.failures import Conflict
from moorage.adapters.firestore.queries import OLD_SIGNALS
from moorage.errors import StoreError

log = structlog.get_logger(__name__)

GAP = 1.0  # seconds between two signals of a process
OPENING = 3.0  # seconds until a stream's first answer
AGAIN = 0.5  # seconds until a broken stream is opened again
_OLD = 86_400.0  # seconds after which a process's document is somebody's who died


class News:
    """`opened_at` is Firestore's time when the store was opened: what was signalled later is news."""

    def __init__(
        self, database: Database, opened_at: datetime, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._opened_at = opened_at
        self._clock = clock
        self._mine = Place(SIGNALS, secrets.token_hex(8))
        self._sending: asyncio.Task[None] | None = None
        self._unsent = False
        self._listeners: set[asyncio.Event] = set()
        self._listening: asyncio.Task[None] | None = None
        self._seen: dict[str, datetime] = {}
        self._missed = False
        self._closed = asyncio.Event()

    def tell(self) -> None:
        """This process has written. Returns at once."""
        self._unsent = True
        if not self._closed.is_set() and (self._sending is None or self._sending.done()):
            self._sending = asyncio.create_task(self._send(), name="firestore-signal")

    async def changes(self) -> AsyncIterator[None]:
        if self._closed.is_set():
            return
        changed = asyncio.Event()
        self._listeners.add(changed)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="firestore-listen")
        try:
            while not self._closed.is_set():
                await changed.wait()
                changed.clear()
                if not self._closed.is_set():
                    yield None
        finally:
            self._listeners.discard(changed)

    async def aclose(self) -> None:
        """Iterators of `changes` end. What was not told yet is told; the document stays for those who only
        begin to listen (`forget_the_dead`)."""
        self._closed.set()
        self._tell_listeners()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        if self._sending is not None:
            await self._sending

    async def forget_the_dead(self) -> None:
        before = round((self._clock() - _OLD) * 1_000_000)
        old = await self._database.find(OLD_SIGNALS.search(at=before, limit=100))
        await self._database.write_surely([Remove(row.place) for row in old])

    async def _send(self) -> None:
        while self._unsent:
            try:
                await self._signal()
            except (StoreError, Conflict):
                if self._closed.is_set():
                    return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), GAP)

    async def _signal(self) -> None:
        self._unsent = False
        try:
            await self._database.write([Put(self._mine, {"at": round(self._clock() * 1_000_000)})])
        except BaseException:
            self._unsent = True
            raise

    async def _listen(self) -> None:
        """For as long as the store is open."""
        while True:
            try:
                await self._follow()
            except Exception as error:  # whatever broke the stream, it is opened again
                log.info("firestore_listening_again", error=f"{type(error).__name__}: {error}")
            self._missed = True
            await asyncio.sleep(AGAIN)

    async def _follow(self) -> None:
        api, end = self._database.connection.api, asyncio.Event()
        metadata = [("google-cloud-resource-prefix", self._name())]
        try:
            async with asyncio.timeout(OPENING) as opening:
                # The library would open a broken stream by itself, after up to a minute, and tell nobody.
                requests = _requests(self._target(), end)
                stream = await api.listen(requests=requests, retry=None, metadata=metadata)
                async for answer in stream:
                    opening.reschedule(None)
                    self._hear(answer)
        finally:
            end.set()  # which ends the call

    def _hear(self, answer: ListenResponse) -> None:
        if answer.target_change.target_change_type == TargetChange.TargetChangeType.REMOVE:
            raise ConnectionError(answer.target_change.cause.message)
        if self._missed:  # whatever was written while nobody listened
            self._missed = False
            self._tell_listeners()
        name, updated = answer.document_change.document.name, answer.document_change.document.update_time
        if not name or name.endswith(f"/{self._mine.key}"):
            return
        if updated > self._seen.get(name, self._opened_at):
            self._tell_listeners()
        self._seen[name] = updated

    def _tell_listeners(self) -> None:
        for changed in self._listeners:
            changed.set()

    def _target(self) -> ListenRequest:
        database = self._name()
        query = StructuredQuery(from_=[StructuredQuery.CollectionSelector(collection_id=SIGNALS)])
        target = Target.QueryTarget(parent=f"{database}/documents", structured_query=query)
        return ListenRequest(database=database, add_target=Target(target_id=1, query=target))

    def _name(self) -> str:
        address = self._database.address
        return f"projects/{address.project}/databases/{address.database}"


async def _requests(first: ListenRequest, end: asyncio.Event) -> AsyncIterator[ListenRequest]:
    """The stream lives for as long as its requests do not end."""
    yield first
    await end.wait()
