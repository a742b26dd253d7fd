"""The store in SQLite keeps the contract; `second` has threads and connections of its own on the file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moorage.adapters.sql.store import SqlStore
from moorage.ports.store import Store
from moorage.testing.store_contract import StoreContract


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'moorage.db'}"

    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[Store]:
        store = await SqlStore.open(url)
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, url: str, store: Store) -> AsyncIterator[Store]:
        second = await SqlStore.open(url)
        yield second
        await second.aclose()
