"""Firestore as an archive: what is moved in serves, and what serves can be moved out."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from moorage.adapters.firestore.store import FirestoreStore
from moorage.testing.archive_contract import ArchiveContract, RestoredStoreContract
from moorage.testing.firestore import MISSING, available, shared_emulator

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)


class TestFirestoreArchive(ArchiveContract, RestoredStoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[FirestoreStore]:
        store = await FirestoreStore.open(shared_emulator().new_database())
        yield store
        await store.aclose()

    @pytest.fixture
    def archive(self, store: FirestoreStore) -> FirestoreStore:
        return store
