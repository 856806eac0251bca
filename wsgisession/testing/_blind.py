"""The positive control of every test for lost updates.

It knows the protocol, and neither pytest nor any store.
"""

from __future__ import annotations

from ..errors import VersionConflict
from ..record import Key, Record
from ..store import Capabilities, Store


class BlindStore:
    """A store with its promises taken out: it saves whatever comes.

    A test of lost updates that passes with this store around it tests nothing.  It is
    what the stores of most session libraries are.
    """

    capabilities: Capabilities = Capabilities()

    def __init__(self, store: Store) -> None:
        self._store = store

    def load(self, key: Key) -> Record | None:
        return self._store.load(key)

    def save(self, record: Record, *, expect: int) -> None:
        while True:
            current = self._store.load(Key(record.id))
            version = current.version if current is not None else 0
            try:
                self._store.save(record, expect=version)
            except VersionConflict:
                continue
            return

    def touch(self, record: Record) -> bool:
        return self._store.touch(record)

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        return self._store.delete(key, user=user)
