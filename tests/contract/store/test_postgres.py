"""The store in PostgreSQL keeps the contract; `second` has connections of its own, as another process has."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from moorage.adapters.sql.store import SqlStore
from moorage.adapters.sql.tables import metadata
from moorage.ports.store import Store
from moorage.testing.postgres import PostgresServer
from moorage.testing.store_contract import StoreContract

DATABASE = "contract"
EMPTY = ";".join(f"DELETE FROM {table}" for table in metadata.tables)


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    postgres.execute(f"CREATE DATABASE {DATABASE}")
    return postgres.url_of(DATABASE)


class TestPostgresStore(StoreContract):
    @pytest.fixture
    async def store(self, postgres: PostgresServer, database: str) -> AsyncIterator[SqlStore]:
        store = await SqlStore.open(database)
        yield store
        await store.aclose()
        postgres.execute(EMPTY, DATABASE)

    @pytest.fixture
    async def second(self, database: str, store: Store) -> AsyncIterator[SqlStore]:
        second = await SqlStore.open(database)
        yield second
        await second.aclose()
