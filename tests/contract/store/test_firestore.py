"""The store in Firestore keeps the contract, on Google's emulator; `second` has a connection of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from google.cloud.firestore_v1.async_query import AsyncQuery

from moorage.adapters.firestore.database import Database
from moorage.adapters.firestore.queries import SHAPES, Search
from moorage.adapters.firestore.store import FirestoreStore
from moorage.ports.store import Store
from moorage.testing.firestore import MISSING, available, shared_emulator
from moorage.testing.store_contract import StoreContract

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)


@pytest.fixture(autouse=True)
def known_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are told from a list of shapes of searches: no search is sent that is not in it."""
    query = Database._query

    def checked(self: Database, search: Search) -> AsyncQuery:
        assert any(search.shape is shape for shape in SHAPES)
        return query(self, search)

    monkeypatch.setattr(Database, "_query", checked)


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
