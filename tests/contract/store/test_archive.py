"""Every store is an archive, and serves what was restored into it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moorage.open_store import open_store
from moorage.ports.store import Archive
from moorage.testing.archive import MemoryArchive
from moorage.testing.archive_contract import ArchiveContract, RestoredStoreContract
from moorage.testing.firestore import MISSING, available, shared_emulator

if TYPE_CHECKING:
    from moorage.open_store import OpenStore
    from moorage.testing.postgres import PostgresServer


class TestMemoryArchive(ArchiveContract):
    @pytest.fixture
    def archive(self) -> Archive:
        return MemoryArchive()


class _Opened(ArchiveContract, RestoredStoreContract):
    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[OpenStore]:
        store = await open_store(url)
        yield store
        await store.aclose()

    @pytest.fixture
    def archive(self, store: OpenStore) -> Archive:
        return store


class TestSqlite(_Opened):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'moorage.db'}"


class TestPostgres(_Opened):
    @pytest.fixture
    def url(self, postgres: PostgresServer) -> str:
        return postgres.new_database()


@pytest.mark.skipif(not available(), reason=MISSING)
class TestFirestore(_Opened):
    @pytest.fixture
    def url(self) -> str:
        return shared_emulator().new_database()
