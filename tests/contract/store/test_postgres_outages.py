"""PostgreSQL goes away and comes back, falls silent, cuts connections: told in time, and over by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from moorage.adapters.sql import postgres_lane, postgres_news
from moorage.adapters.sql.store import SqlStore
from moorage.errors import StoreUnavailable
from moorage.ports.store import Insert, Update
from moorage.testing.postgres import PostgresServer
from moorage.testing.relay import Relay
from moorage.testing.store_rows import NOW, after, deployment, lease, read_deployment

PROMPTLY = 15.0  # seconds


@pytest.fixture(scope="module")
def own_server(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """Of this module, which may stop it. The other one is asked for so that both are skipped alike."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
async def store(own_server: PostgresServer) -> AsyncIterator[SqlStore]:
    store = await SqlStore.open(await asyncio.to_thread(own_server.new_database))
    await store.commit([Insert(deployment(1))])
    yield store
    await store.aclose()


OPERATIONS: list[Callable[[SqlStore], Awaitable[object]]] = [
    lambda store: store.deployment("dep_0001"),
    lambda store: store.serving(),
    lambda store: store.commit([Insert(deployment(2))]),
    lambda store: store.claim_deployments(lease("t"), after(9), 9),
    lambda store: store.claim_duty("sweep", lease("t"), NOW),
    lambda store: store.wake(["dep_0001"], NOW),
    lambda store: store.next_due("deployments", NOW),
    lambda store: store.stored("deployment", None, 9),
]


async def unavailable(operation: Awaitable[object]) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await asyncio.wait_for(operation, PROMPTLY)
    return str(caught.value)


async def test_a_server_that_goes_and_comes_back(own_server: PostgresServer, store: SqlStore) -> None:
    async with aclosing(store.changes()) as changes:  # type: ignore[type-var]  # a generator, as all are
        news = asyncio.ensure_future(anext(changes))
        await asyncio.to_thread(own_server.stop)
        for operation in OPERATIONS:
            message = await unavailable(operation(store))
            assert own_server.password not in message
        for operation in OPERATIONS:  # at once, and now without connections
            assert "cannot be used now" in await unavailable(operation(store))
        assert not news.done()
        await asyncio.to_thread(own_server.start)
        await asyncio.wait_for(news, PROMPTLY)
        for operation in OPERATIONS:
            await operation(store)
        assert await store.deployment("dep_0002") is not None


async def test_connections_that_were_cut_meanwhile_are_not_told(
    own_server: PostgresServer, store: SqlStore
) -> None:
    await asyncio.gather(*(store.deployment("dep_0001") for _ in range(30)))
    async with aclosing(store.changes()) as changes:  # type: ignore[type-var]  # as above
        news = asyncio.ensure_future(anext(changes))
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'moorage'"
        await asyncio.to_thread(own_server.execute, query)
        await asyncio.gather(
            store.commit([Insert(deployment(2))]), *(read_deployment(store) for _ in range(30))
        )
        assert (await read_deployment(store, "dep_0002")).version == 1
        await asyncio.wait_for(news, PROMPTLY)


async def test_listening_goes_on_after_an_error_that_nobody_expected(
    own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await asyncio.to_thread(own_server.new_database)
    hear, connect = postgres_news.News._hear, postgres_news.News._connect
    broken, refused = asyncio.Event(), asyncio.Event()

    async def breaking(news: postgres_news.News, connection: postgres_news.Listening) -> None:
        if not broken.is_set():
            broken.set()
            raise RuntimeError("what nobody expected")
        await hear(news, connection)

    async def refusing(news: postgres_news.News) -> postgres_news.Listening:
        if broken.is_set() and not refused.is_set():
            refused.set()
            raise RuntimeError("again")
        return await connect(news)

    monkeypatch.setattr(postgres_news.News, "_hear", breaking)
    monkeypatch.setattr(postgres_news.News, "_connect", refusing)
    with capture_logs() as logs:
        store = await SqlStore.open(url)
        async with aclosing(store.changes()) as changes:  # type: ignore[type-var]  # as above
            await asyncio.wait_for(anext(changes), PROMPTLY)
            second = await SqlStore.open(url)
            await second.commit([Insert(deployment(1))])
            await asyncio.wait_for(anext(changes), PROMPTLY)
        await asyncio.gather(store.aclose(), second.aclose())
    assert [line["event"] for line in logs] == ["postgres_news_lost", "postgres_listening_again"]
    assert "what nobody expected" in logs[0]["error"]


async def test_a_connection_cut_in_a_commit_leaves_open_what_came_of_it(
    own_server: PostgresServer, store: SqlStore
) -> None:
    database = (await asyncio.to_thread(own_server.new_database)).rsplit("/", 1)[1]
    other = await SqlStore.open(own_server.url_of(database))
    cut = """
        CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON deployments DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION cut()"""
    await asyncio.to_thread(own_server.execute, cut, database)
    assert "may have been written" in await unavailable(other.commit([Insert(deployment(1))]))
    await asyncio.to_thread(own_server.execute, "DROP TRIGGER cut ON deployments", database)
    await other.commit([Insert(deployment(1))])
    await other.aclose()


@pytest.fixture
async def relay(own_server: PostgresServer) -> AsyncIterator[Relay]:
    async with Relay(own_server.port) as relay:
        yield relay


async def test_a_silent_network_is_an_outage(
    own_server: PostgresServer, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_lane, "DEADLINE", 0.5)
    monkeypatch.setattr(postgres_news, "HEARTBEAT", 0.1)
    monkeypatch.setattr(postgres_news, "PATIENCE", 0.2)
    url = await asyncio.to_thread(own_server.new_database)
    near = await SqlStore.open(url)
    far = await SqlStore.open(url.replace(f":{own_server.port}/", f":{relay.port}/") + "?connect_timeout=2")
    await far.commit([Insert(deployment(1))])
    row = await read_deployment(far)
    async with aclosing(far.changes()) as changes:  # type: ignore[type-var]  # as above
        news = asyncio.ensure_future(anext(changes))
        relay.fall_silent()
        told = await asyncio.gather(*(unavailable(far.deployment("dep_0001")) for _ in range(20)))
        assert all("did not answer" in message for message in told)
        await unavailable(far.commit([Insert(deployment(2))]))
        await near.commit([Update(replace(row, revision=2))])
        relay.speak()
        await asyncio.wait_for(news, PROMPTLY)
    monkeypatch.setattr(postgres_lane, "DEADLINE", PROMPTLY)
    assert (await read_deployment(far)).revision == 2
    await far.commit([Insert(deployment(3))])
    assert (await read_deployment(near, "dep_0003")).version == 1
    await asyncio.gather(near.aclose(), far.aclose())


async def test_connections_that_die_without_a_word_are_replaced(
    own_server: PostgresServer, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_lane, "DEADLINE", 0.5)
    monkeypatch.setattr(postgres_news, "HEARTBEAT", 0.1)
    monkeypatch.setattr(postgres_news, "PATIENCE", 0.2)
    url = await asyncio.to_thread(own_server.new_database)
    near = await SqlStore.open(url)
    far = await SqlStore.open(url.replace(f":{own_server.port}/", f":{relay.port}/"), pool=3)
    await far.commit([Insert(deployment(1))])
    await far.deployment("dep_0001")
    async with aclosing(far.changes()) as changes:  # type: ignore[type-var]  # as above
        news = asyncio.ensure_future(anext(changes))
        relay.strand()
        await unavailable(far.deployment("dep_0001"))
        await unavailable(far.commit([Insert(deployment(2))]))
        monkeypatch.setattr(postgres_lane, "DEADLINE", PROMPTLY)
        await far.commit([Insert(deployment(3))])
        assert (await read_deployment(far, "dep_0003")).version == 1
        await asyncio.wait_for(news, PROMPTLY)
        await near.commit([Insert(deployment(4))])
        await asyncio.wait_for(anext(changes), PROMPTLY)
    await asyncio.gather(near.aclose(), far.aclose())
