"""Rows that no document can hold: written with their unit or not at all, and nothing of them stays behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from moorage.adapters.firestore.bodies import LOST_AFTER, Bodies
from moorage.adapters.firestore.database import Database
from moorage.adapters.firestore.documents import PARTS, Found
from moorage.adapters.firestore.plan import prepare
from moorage.adapters.firestore.queries import Search, Shape
from moorage.adapters.firestore.store import FirestoreStore
from moorage.domain.job import OUTPUT_BYTES, Output, begun, ended, output_id
from moorage.domain.job import JobPayload as Payload
from moorage.errors import AlreadyExists, StaleWrite
from moorage.ports.store import Insert, Update
from moorage.testing.firestore import MISSING, available, shared_emulator
from moorage.testing.store_rows import NOW, after, deployment, job, job_input, lease, read_deployment

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)

MEGABYTE = 1_000_000


@pytest.fixture
async def store() -> AsyncIterator[FirestoreStore]:
    store = await FirestoreStore.open(shared_emulator().new_database())
    yield store
    await store.aclose()


def database_of(store: FirestoreStore) -> Database:
    return store._opened.units._database


async def parts(store: FirestoreStore) -> Sequence[Found]:
    every = Search(Shape(PARTS, fields=("pending_since",)), (), None, None)
    return await database_of(store).find(every)


async def test_the_largest_payload_is_kept_and_forgotten_with_its_job(store: FirestoreStore) -> None:
    text = f'"{"ä" * (OUTPUT_BYTES // 2)}"'
    await store.commit([Insert(job()), Insert(job_input())])
    [mine] = await store.claim_jobs({"dep_0001": 1}, lease("t"), after(2))
    done = ended(begun(mine, after(2)), Output(text), after(3), 0.0)
    result = Payload(output_id(mine.id), text)
    await store.commit([Update(done, lease="t", release=True), Insert(result)])
    assert await store.job_payload(result.id) == replace(result, version=1)
    assert all("pending_since" not in part.fields for part in await parts(store))
    assert await store.forget_jobs(after(9999), 9) == 1
    assert await store.job_payload(result.id) is None
    assert await parts(store) == []


async def test_a_unit_that_is_refused_leaves_no_part(store: FirestoreStore) -> None:
    await store.commit([Insert(deployment())])
    big = Insert(replace(job_input(), text="x" * 2 * MEGABYTE))
    with pytest.raises(AlreadyExists):
        await store.commit([big, Insert(deployment())])
    with pytest.raises(StaleWrite):
        await store.commit([big, Update(replace(deployment(), version=7))])
    assert await store.job_payload(job_input().id) is None
    assert await parts(store) == []


async def test_a_row_grows_and_shrinks(store: FirestoreStore) -> None:
    await store.commit([Insert(replace(deployment(), created_by="x" * 2 * MEGABYTE))])
    assert len(await parts(store)) == 3
    row = await read_deployment(store)
    await store.commit([Update(replace(row, created_by="y" * MEGABYTE))])
    assert len(await parts(store)) == 2
    [claimed] = await store.claim_deployments(lease("t"), after(2), 1)
    assert claimed == replace(row, created_by="y" * MEGABYTE, version=2)
    await store.commit([Update(replace(claimed, created_by="usr_1"), lease="t")])
    assert await parts(store) == []
    assert (await read_deployment(store)).created_by == "usr_1"


async def test_many_middling_rows_go_in_one_unit(store: FirestoreStore) -> None:
    rows = [replace(job_input(number), text="x" * (MEGABYTE // 2)) for number in range(12)]
    await store.commit([Insert(row) for row in rows])
    for row in rows:
        assert await store.job_payload(row.id) == replace(row, version=1)


async def test_parts_of_a_unit_that_never_came_are_removed(store: FirestoreStore) -> None:
    later = NOW + timedelta(seconds=LOST_AFTER + 1)
    died = Bodies(database_of(store), NOW.timestamp)
    await died.stage([prepare(Insert(replace(job_input(), text="x" * 2 * MEGABYTE)))])
    assert len(await parts(store)) == 3
    await Bodies(database_of(store), NOW.timestamp).remove_lost()
    assert len(await parts(store)) == 3
    await Bodies(database_of(store), later.timestamp).remove_lost()
    assert await parts(store) == []
