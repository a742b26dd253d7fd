"""What is particular to PostgreSQL while it serves: locks, conflicts, closing, cancelling, odd text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.adapters.sql import postgres, tables
from moorage.adapters.sql.store import SqlStore
from moorage.errors import StoreError, StoreUnavailable
from moorage.ports.store import DeploymentFilter, Insert, Update
from moorage.testing.postgres import PostgresServer
from moorage.testing.store_rows import after, deployment, lease, read_deployment, user


@pytest.fixture
async def store(emptied: str) -> AsyncIterator[SqlStore]:
    store = await SqlStore.open(emptied)
    yield store
    await store.aclose()


@pytest.fixture
def other(store: SqlStore, emptied: str) -> Iterator[psycopg.Connection]:
    """Another program's."""
    with psycopg.connect(emptied, autocommit=True) as connection:
        yield connection


# -- locks


async def test_reads_go_on_and_a_commit_waits_while_another_program_writes(
    store: SqlStore, other: psycopg.Connection
) -> None:
    await store.commit([Insert(deployment(1))])
    row = await read_deployment(store)
    with other.transaction():
        other.execute("SELECT 1 FROM deployments FOR UPDATE")
        commit = asyncio.ensure_future(store.commit([Update(replace(row, revision=2))]))
        assert (await read_deployment(store)).revision == 1
        await asyncio.sleep(0.1)
        assert not commit.done()
    await asyncio.wait_for(commit, 10)
    assert (await read_deployment(store)).revision == 2


@pytest.mark.parametrize("timeouts", [{"lock_timeout": "100ms"}, {"statement_timeout": "100ms"}])
async def test_a_lock_longer_than_the_timeout_is_told(
    emptied: str, other: psycopg.Connection, timeouts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_TIMEOUTS", timeouts)
    store = await SqlStore.open(emptied)
    with other.transaction():
        other.execute("LOCK TABLE deployments IN ACCESS EXCLUSIVE MODE")
        for operation in (store.commit([Insert(deployment(1))]), store.deployment("dep_0001")):
            with pytest.raises(StoreUnavailable, match="timeout"):
                await asyncio.wait_for(operation, 10)
    await store.commit([Insert(deployment(1))])
    await store.aclose()


@pytest.mark.parametrize("timeouts", [{"lock_timeout": "100ms"}, {"statement_timeout": "100ms"}])
async def test_a_lock_of_one_row_fails_nobody_else(
    emptied: str, other: psycopg.Connection, timeouts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_TIMEOUTS", timeouts)
    monkeypatch.setattr(postgres, "_TIMEOUTS_ALONE", timeouts)
    store = await SqlStore.open(emptied, pool=3)
    await store.commit([Insert(deployment(1))])
    locked = Update(replace(await read_deployment(store), revision=2))
    with other.transaction():
        other.execute("SELECT 1 FROM deployments FOR UPDATE")
        units = [[Insert(deployment(number))] for number in range(2, 22)]
        commits = [store.commit(unit) for unit in units]
        commits.insert(10, store.commit([locked]))
        results = await asyncio.gather(*commits, store.wake(["dep_0001"], after(1)), return_exceptions=True)
    failed = [result for result in results if result is not None]
    assert [type(error) for error in failed] == [StoreUnavailable] * 2
    assert all("timeout" in str(error) for error in failed)
    assert (await read_deployment(store)).revision == 1
    assert (await read_deployment(store, "dep_0021")).version == 1
    await store.commit([locked])
    await store.aclose()


async def test_claims_of_many_at_once_keep_their_limits_and_never_meet(emptied: str, store: SqlStore) -> None:
    await store.commit([Insert(deployment(number)) for number in range(60)])
    stores = [store, *[await SqlStore.open(emptied) for _ in range(3)]]
    claims = await asyncio.gather(
        *(
            claimer.claim_deployments(lease(f"{n}-{turn}", 900), after(100), 4)
            for turn in range(3)
            for n, claimer in enumerate(stores)
        )
    )
    assert all(len(claim) <= 4 for claim in claims)
    claimed = [row.id for claim in claims for row in claim]
    assert len(claimed) == len(set(claimed)) > 0
    await asyncio.gather(*(claimer.aclose() for claimer in stores[1:]))


# -- news


async def test_a_renewal_is_told_when_it_ends_a_lease_early_alone(emptied: str, store: SqlStore) -> None:
    second = await SqlStore.open(emptied)
    await store.commit([Insert(deployment(1))])
    await store.claim_deployments(lease("t"), after(9), 1)
    await asyncio.sleep(0.2)  # for what was told until here
    async with aclosing(second.changes()) as changes:  # type: ignore[type-var]  # a generator, as all are
        news = asyncio.ensure_future(anext(changes))
        assert await store.renew("deployments", {"dep_0001": "t"}, after(60)) == {"dep_0001"}
        assert await store.renew("deployments", {"dep_0001": "another's"}, after(10)) == frozenset()
        await asyncio.sleep(0.2)
        assert not news.done()
        assert await store.renew("deployments", {"dep_0001": "t"}, after(10)) == {"dep_0001"}
        await asyncio.wait_for(news, 5)
    await second.aclose()


# -- conflicts


def fail_inserts(server: PostgresServer, database: str, times: int, state: str) -> None:
    """As many inserts of deployments fail as the server itself would let them fail."""
    server.execute(
        f"""
        CREATE SEQUENCE tries;
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('tries') <= {times} THEN
                RAISE EXCEPTION 'not now' USING ERRCODE = '{state}', DETAIL = 'the row ' || NEW.name;
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER fail BEFORE INSERT ON deployments FOR EACH ROW EXECUTE FUNCTION fail()""",
        database,
    )


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_a_transaction_that_met_a_conflict_runs_again(postgres: PostgresServer, state: str) -> None:
    url = postgres.new_database()
    store = await SqlStore.open(url, pool=3)
    fail_inserts(postgres, url.rsplit("/", 1)[1], 2, state)
    await store.commit([Insert(deployment(1)), Insert(user())])
    assert await store.deployment("dep_0001") is not None
    await store.aclose()


@pytest.mark.parametrize(("state", "error"), [("40001", StoreUnavailable), ("P0001", StoreError)])
async def test_one_that_never_passes_is_told_without_the_rows(
    postgres: PostgresServer, state: str, error: type[StoreError]
) -> None:
    url = postgres.new_database()
    store = await SqlStore.open(url, pool=3)
    fail_inserts(postgres, url.rsplit("/", 1)[1], 10**6, state)
    with pytest.raises(error) as caught:
        await store.commit([Insert(deployment(1)), Insert(user())])
    assert type(caught.value) is error
    assert "not now" in str(caught.value)
    assert "name-1" not in str(caught.value)
    assert await store.user_named("ada") is None
    await store.aclose()


# -- closing and cancelling


async def test_what_waits_when_the_store_closes_is_written(emptied: str) -> None:
    store = await SqlStore.open(emptied)
    commits = [asyncio.ensure_future(store.commit([Insert(deployment(n))])) for n in range(20)]
    await asyncio.sleep(0)
    await store.aclose()
    await asyncio.gather(*commits)
    with pytest.raises(StoreError, match="closed"):
        await store.commit([Insert(deployment(99))])
    with pytest.raises(StoreError, match="closed"):
        await store.deployment("dep_0001")
    again = await SqlStore.open(emptied)
    assert len((await again.deployments("org_a", DeploymentFilter(), None, 100)).items) == 20
    await again.aclose()


async def test_news_end_when_the_store_closes(emptied: str) -> None:
    store = await SqlStore.open(emptied)

    async def listen() -> list[None]:
        return [news async for news in store.changes()]

    listening = asyncio.ensure_future(listen())
    await asyncio.sleep(0.01)
    await store.aclose()
    assert await asyncio.wait_for(listening, 5) == []


async def test_a_cancelled_caller_harms_nobody(store: SqlStore) -> None:
    commits = [asyncio.ensure_future(store.commit([Insert(deployment(n))])) for n in range(10)]
    await asyncio.sleep(0)
    commits[3].cancel()
    results = await asyncio.gather(*commits, return_exceptions=True)
    assert [result for n, result in enumerate(results) if n != 3] == [None] * 9
    assert isinstance(results[3], asyncio.CancelledError)


# -- odd text


async def test_nul_is_text_like_any_other(store: SqlStore) -> None:
    names = ["a\0b", "a\1\2b", "a\1b", "ab"]
    await store.commit([Insert(user(number, name)) for number, name in enumerate(names)])
    found = [await store.user_named(name) for name in names]
    assert [row.username for row in found if row is not None] == names
    assert await store.user_named("a\0") is None
    wanted = DeploymentFilter(name="a\0b", model="a\0")
    assert (await store.deployments("org\0", wanted, None, 9)).items == ()
    assert await store.renew("deployments", {"a\0": "b\1"}, after(1)) == frozenset()


TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("\0\1\2\3"))


@given(TEXT, TEXT)
def test_text_without_nul_is_sorted_alike_and_read_back(one: str, other: str) -> None:
    written = [tables._without_nul(text) for text in (one, other)]
    assert [tables._with_nul(text) for text in written] == [one, other]
    first, second = [str(text).encode() for text in written]
    assert b"\0" not in first
    assert (first < second) == (one.encode() < other.encode())
