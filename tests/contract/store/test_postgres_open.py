"""Opening a store in PostgreSQL: what cannot be is told, never with the password; tables are brought up to
date."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import psycopg
import pytest

from moorage.adapters.sql.store import SqlStore
from moorage.errors import StoreUnavailable, StoreUnusable
from moorage.ports.store import DeploymentFilter, Insert
from moorage.testing.postgres import PostgresServer, free_port
from moorage.testing.store_rows import deployment

SECRET = "s3cret/pass"
ESCAPED = quote(SECRET, safe="")


@pytest.mark.parametrize(
    ("url", "word"),
    [
        (f"postgresql://ada:{SECRET}:@db:fifty/moorage", "percent-encoded"),
        ("postgresql://ada:pa@s3cret@db/x", "percent-encoded"),
        (f"postgresql://ada:{ESCAPED}@db", "names no database"),
        (f"postgresql://ada:{ESCAPED}@db/moorage?colour=red", "colour"),
        (f"postgresql://ada:{ESCAPED}@db/moorage?sslmode=disable&sslmode=require", "twice"),
        (f"postgresql+asyncpg://ada:{ESCAPED}@db/moorage", "not PostgreSQL's"),
    ],
)
async def test_a_url_that_cannot_be_says_why(url: str, word: str) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        await SqlStore.open(url)
    assert "s3cret" not in str(caught.value)


async def test_a_pool_too_small_says_so(postgres: PostgresServer) -> None:
    with pytest.raises(ValueError, match="at least 3"):
        await SqlStore.open(postgres.url, pool=2)


async def refused(url: str) -> str:
    with pytest.raises(StoreUnusable) as caught:
        await SqlStore.open(url)
    return str(caught.value)


async def test_a_wrong_password_is_told_without_it(postgres: PostgresServer) -> None:
    message = await refused(postgres.url_of("postgres", password=SECRET))
    assert "password authentication failed" in message
    assert "s3cret" not in message
    assert postgres.password not in message


async def test_a_database_that_is_not_there_is_told(postgres: PostgresServer) -> None:
    message = await refused(postgres.url_of("nowhere"))
    assert '"nowhere" does not exist' in message
    assert postgres.password not in message


async def test_a_user_without_rights_is_told(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    database = url.rsplit("/", 1)[1]
    postgres.execute(f"CREATE ROLE guest LOGIN PASSWORD '{SECRET}'")
    message = await refused(postgres.url_of(database, user="guest", password=SECRET))
    assert "permission denied" in message
    assert "s3cret" not in message


async def test_a_database_in_another_encoding_is_told(postgres: PostgresServer) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    assert "LATIN1" in await refused(postgres.url_of("latin"))


async def test_nobody_there_is_an_outage() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await SqlStore.open(f"postgresql://ada:{ESCAPED}@127.0.0.1:{free_port()}/moorage")
    assert "s3cret" not in str(caught.value)


async def test_tables_of_a_newer_release_are_left_alone(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    await (await SqlStore.open(url)).aclose()
    postgres.execute("UPDATE alembic_version SET version_num = '9999'", url.rsplit("/", 1)[1])
    message = await refused(url)
    assert "revision 9999" in message
    assert "up to 0" in message
    assert "upgrade Moorage" in message


async def test_two_that_open_at_once_migrate_once(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    stores = await asyncio.gather(*(SqlStore.open(url, pool=3) for _ in range(4)))
    await stores[0].commit([Insert(deployment())])
    assert await stores[3].deployment("dep_0001") is not None
    for store in stores:
        await store.aclose()


async def test_connections_are_as_many_as_the_pool_has(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    store = await SqlStore.open(url, pool=5)
    await asyncio.gather(
        *(store.commit([Insert(deployment(number))]) for number in range(50)),
        *(store.deployments("org_a", DeploymentFilter(), None, 100) for _ in range(50)),
    )
    with psycopg.connect(postgres.url) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        row = connection.execute(query, (url.rsplit("/", 1)[1],)).fetchone()
    assert row is not None
    assert 3 <= row[0] <= 5
    await store.aclose()
