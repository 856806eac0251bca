"""The memory store keeps the contract; there is nothing special about it."""

import pytest

from wsgisession.stores.memory import MemoryStore
from wsgisession.testing import IterableStoreSuite, LockingStoreSuite


class TestMemoryStore(LockingStoreSuite, IterableStoreSuite):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def crowded(self) -> MemoryStore:
        return MemoryStore(lock_waiters=2)
