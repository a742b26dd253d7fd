"""The store in PostgreSQL keeps the contract; `second` has connections of its own, as another process has."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from moorage.adapters.sql.store import SqlStore
from moorage.ports.store import Store
from moorage.testing.store_contract import StoreContract


class TestPostgresStore(StoreContract):
    @pytest.fixture
    async def store(self, emptied: str) -> AsyncIterator[SqlStore]:
        store = await SqlStore.open(emptied)
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, emptied: str, store: Store) -> AsyncIterator[SqlStore]:
        second = await SqlStore.open(emptied)
        yield second
        await second.aclose()
