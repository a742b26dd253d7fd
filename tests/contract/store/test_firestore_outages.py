"""A Firestore that goes away and comes back, answers that are lost, and documents of another release."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from types import UnionType

import pytest

from moorage.adapters.firestore import bodies, database
from moorage.adapters.firestore.database import Database
from moorage.adapters.firestore.documents import PARTS, Alter, Change, Place, Put
from moorage.adapters.firestore.failures import Unsure
from moorage.adapters.firestore.queries import Search, Shape
from moorage.adapters.firestore.store import FirestoreStore
from moorage.errors import AlreadyExists, StaleWrite, StoreUnavailable, StoreUnusable
from moorage.ports.store import Append, Insert, Stored, Update
from moorage.testing.firestore import MISSING, FirestoreEmulator, available, shared_emulator
from moorage.testing.store_rows import NOW, after, deployment, event, lease, read_deployment

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)


@pytest.fixture(scope="module")
def emulator() -> Iterator[FirestoreEmulator]:
    """One that may be stopped."""
    with FirestoreEmulator() as emulator:
        yield emulator


@pytest.fixture
async def store() -> AsyncIterator[FirestoreStore]:
    store = await FirestoreStore.open(shared_emulator().new_database())
    yield store
    await store.aclose()


def database_of(store: FirestoreStore) -> Database:
    return store._opened.units._database


@contextmanager
def haste() -> Iterator[None]:
    """So that a test of an outage does not take as long as one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "DEADLINE", 0.8)
        patch.setattr(database, "CALL", 0.4)
        yield


async def refused(store: FirestoreStore) -> None:
    """Every kind of operation says that the store is away."""
    for operation in (
        store.deployment("dep_0001"),
        store.events("dep_0001", None, 1),
        store.job_counts("dep_0001"),
        store.commit([Append(event(9))]),
        store.claim_deployments(lease("t"), after(9), 1),
        store.claim_duty("sweep", lease("t"), NOW),
        store.renew("deployments", {"dep_0001": "t"}, after(99)),
        store.next_due("deployments", NOW),
        store.stored("event", None, 1),
    ):
        with haste(), pytest.raises(StoreUnavailable):
            await operation


async def test_work_resumes_when_firestore_is_back(emulator: FirestoreEmulator) -> None:
    store = await FirestoreStore.open(emulator.new_database())
    async with aclosing(store.changes()) as changes:  # type: ignore[type-var]  # a generator, as all are
        news = asyncio.ensure_future(anext(changes))
        await store.commit([Insert(deployment())])
        emulator.stop()
        await refused(store)
        assert not news.done()
        await asyncio.to_thread(emulator.start)
        # Whatever happened meanwhile was not told: it is told now that it may have.
        await asyncio.wait_for(news, 30)
        await store.commit([Insert(deployment(2))])
        assert (await read_deployment(store, "dep_0002")).version == 1
    await store.aclose()


async def test_a_firestore_that_does_not_answer_is_away(emulator: FirestoreEmulator) -> None:
    store = await FirestoreStore.open(emulator.new_database())
    await store.commit([Insert(deployment())])
    emulator.freeze()
    try:
        await refused(store)
    finally:
        emulator.thaw()
    async with asyncio.timeout(30):
        while True:
            try:
                assert (await read_deployment(store)).version == 1
                break
            except StoreUnavailable:
                continue
    await store.aclose()


async def test_opening_what_is_away_says_so() -> None:
    with haste(), pytest.raises(StoreUnavailable, match="acme-prod"):
        await FirestoreStore.open("firestore://acme-prod/(default)?emulator=127.0.0.1:1")


class Losing:
    """Loses the answer to the next batch with a change of that kind, or the batch itself."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, at: Database, *, written: bool, of: type | UnionType = Change
    ) -> None:
        self.lost = 0
        write = at.write

        async def lossy(changes: Sequence[Change]) -> None:
            if self.lost or not any(isinstance(change, of) for change in changes):
                return await write(changes)
            self.lost += 1
            if written:
                await write(changes)
            await self.meanwhile()
            raise Unsure("no answer")

        monkeypatch.setattr(at, "write", lossy)

    async def meanwhile(self) -> None:
        """What others do before it is asked again."""


@pytest.mark.parametrize("written", [True, False])
async def test_a_unit_whose_answer_was_lost_is_written_once(
    store: FirestoreStore, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    await store.commit([Insert(deployment(2))])
    losing = Losing(monkeypatch, database_of(store), written=written)
    other = replace(deployment(2), version=1)
    await store.commit([Insert(deployment()), Append(event()), Update(replace(other, revision=5))])
    assert losing.lost == 1
    assert (await read_deployment(store)).version == 1
    assert await store.events("dep_0001", None, 9) == [event()]
    assert (await read_deployment(store, "dep_0002")) == replace(other, revision=5, version=2)


async def test_whose_answer_was_lost_and_who_was_overtaken_does_not_know(
    store: FirestoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.commit([Insert(deployment())])
    row = await read_deployment(store)
    losing = Losing(monkeypatch, database_of(store), written=True)

    async def overtake() -> None:
        await store.commit([Update(replace(row, version=2, revision=9))])

    monkeypatch.setattr(losing, "meanwhile", overtake)
    with pytest.raises(StoreUnavailable):
        await store.commit([Update(replace(row, revision=5))])
    assert (await read_deployment(store)).revision == 9


@pytest.mark.parametrize("written", [True, False])
async def test_a_restore_whose_answer_was_lost_keeps_the_parts_of_its_rows(
    store: FirestoreStore, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    monkeypatch.setattr(bodies, "PART", 1000)
    row = replace(deployment(), created_by="x" * 3000)
    await store.restore("deployment", [Stored(replace(row, created_by="y" * 5000), holds_name=True)])
    losing = Losing(monkeypatch, database_of(store), written=written, of=Alter)
    await store.restore("deployment", [Stored(row, holds_name=True)])
    assert losing.lost == 1
    assert await read_deployment(store) == row
    every = Search(Shape(PARTS, fields=("pending_since",)), (), None, None)
    parts = await database_of(store).find(every)
    assert len({part.place.key.split(".")[0] for part in parts}) == 1  # of one body
    assert all("pending_since" not in part.fields for part in parts)


@pytest.mark.parametrize("written", [True, False])
async def test_a_claim_whose_answer_was_lost_has_its_rows(
    store: FirestoreStore, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    await store.commit([Insert(deployment(1)), Insert(deployment(2))])
    Losing(monkeypatch, database_of(store), written=written)
    claimed = await store.claim_deployments(lease("t"), after(9), 9)
    assert [row.id for row in claimed] == ["dep_0001", "dep_0002"]
    assert await store.claim_deployments(lease("t2"), after(9), 9) == []


async def test_documents_of_a_newer_release_are_left_alone() -> None:
    url = shared_emulator().new_database()
    store = await FirestoreStore.open(url)
    await database_of(store).write([Put(Place("moorage_schema", "schema"), {"number": 99})])
    with pytest.raises(StoreUnusable, match="form 99"):
        await FirestoreStore.open(url)
    await store.aclose()


async def test_closing_tells_what_was_not_told_and_ends_listening() -> None:
    url = shared_emulator().new_database()
    store, second = await FirestoreStore.open(url), await FirestoreStore.open(url)
    async with aclosing(store.changes()) as changes:  # type: ignore[type-var]  # a generator, as all are
        news = asyncio.ensure_future(anext(changes))
        await second.commit([Insert(deployment())])
        await second.aclose()
        await asyncio.wait_for(news, 10)
        rest = asyncio.ensure_future(anext(changes, None))
        await store.aclose()
        await asyncio.wait_for(rest, 10)


async def test_a_name_taken_meanwhile_is_told_as_taken(store: FirestoreStore) -> None:
    rows = [replace(deployment(number), name="same") for number in range(5)]
    results = await asyncio.gather(*(store.commit([Insert(row)]) for row in rows), return_exceptions=True)
    assert results.count(None) == 1
    assert [result.key for result in results if isinstance(result, AlreadyExists)] == ["same"] * 4


async def test_what_others_changed_since_it_was_seen_is_read_again(store: FirestoreStore) -> None:
    """Each process remembers what it saw, and none of them believes it."""
    url = f"firestore://{database_of(store).address.project}/(default)?emulator={shared_emulator().host}"
    second = await FirestoreStore.open(url)
    await store.commit([Insert(deployment())])
    for at, other in ((second, store), (store, second)) * 2:
        row = await read_deployment(other)
        await at.wake([row.id], after(5))
        [claimed] = await at.claim_deployments(lease(f"t{row.version}"), after(9), 1)
        await at.commit([Update(claimed, lease=f"t{row.version}", release=True)])
        with pytest.raises(StaleWrite):
            await other.commit([Update(row)])
        await other.commit([Update(replace(row, version=row.version + 1))])
    assert (await read_deployment(store)).version == 9
    await second.aclose()


async def test_the_emulator_is_found_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    url, emulator = shared_emulator().new_database().split("?emulator=")
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator)
    store = await FirestoreStore.open(url)
    assert await store.serving() == []
    await store.aclose()
