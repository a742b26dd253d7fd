"""PostgreSQL as an archive: what is moved in serves, and what serves can be moved out."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from moorage.adapters.sql.store import SqlStore
from moorage.testing.archive_contract import ArchiveContract, RestoredStoreContract


class TestPostgresArchive(ArchiveContract, RestoredStoreContract):
    @pytest.fixture
    async def store(self, emptied: str) -> AsyncIterator[SqlStore]:
        store = await SqlStore.open(emptied)
        yield store
        await store.aclose()

    @pytest.fixture
    def archive(self, store: SqlStore) -> SqlStore:
        return store
