"""The store in memory keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from moorage.ports.store import Store
from moorage.testing.store import Memory, MemoryStore
from moorage.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def memory(self) -> Memory:
        return Memory()

    @pytest.fixture
    async def store(self, memory: Memory) -> AsyncIterator[Store]:
        store = MemoryStore(memory)
        yield store
        await store.aclose()

    @pytest.fixture
    async def second(self, memory: Memory) -> AsyncIterator[Store]:
        store = MemoryStore(memory)
        yield store
        await store.aclose()
