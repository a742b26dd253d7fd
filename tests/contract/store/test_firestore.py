"""The store in Firestore keeps the contract, on Google's emulator; `second` has a connection of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from moorage.adapters.firestore.store import FirestoreStore
from moorage.ports.store import Store
from moorage.testing.firestore import MISSING, available, shared_emulator
from moorage.testing.store_contract import StoreContract

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)


class TestFirestoreStore(StoreContract):
    @pytest.fixture
    def url(self) -> str:
        return shared_emulator().new_database()

    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[Store]:
        store = await FirestoreStore.open(url)
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, url: str, store: Store) -> AsyncIterator[Store]:
        second = await FirestoreStore.open(url)
        yield second
        await second.aclose()
