"""A store of your own in 40 lines, to begin with: records in a dict.

It compares versions, lists and sweeps.  It leaves locking out, which takes some forty
lines more: see ``wsgisession/stores/memory.py``.  Without locks a request that met
another is merged or run again where that is possible, and else settled by
``on_conflict``, which the log tells.  Give it to the middleware::

    SessionMiddleware(app, store=DictStore())

or make it known by name and URL, with an entry point of the group ``wsgisession.stores``.
Its tests are a class that inherits ``StoreSuite`` and ``IterableStoreSuite``, both from
``wsgisession.testing``, and gives a fixture ``store``.
"""

import threading
import time
from collections.abc import Iterator

from wsgisession.errors import VersionConflict
from wsgisession.record import Key, Record
from wsgisession.store import Capabilities


class DictStore:
    """Sessions in the memory of one process."""

    capabilities = Capabilities(lists=True)

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._mutex = threading.Lock()

    def load(self, key: Key) -> Record | None:
        record = self._records.get(key.id)
        return record if record and record.expires > time.time() else None

    def save(self, record: Record, *, expect: int) -> None:
        with self._mutex:  # so that comparing and writing are one step
            current = self.load(Key(record.id))
            if (current.version if current else 0) != expect:
                raise VersionConflict(record.id, current)
            self._records[record.id] = record.bare()

    def touch(self, record: Record) -> bool:
        with self._mutex:
            current = self.load(Key(record.id))
            if current is None or current.version != record.version:
                return False
            self._records[record.id] = current._replace(
                accessed=max(current.accessed, record.accessed),
                expires=max(current.expires, record.expires),
            )
            return True

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        with self._mutex:
            current = self.load(key)
            if current is None or user not in (None, current.user):
                return False
            del self._records[key.id]
            return True

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        for id in list(self._records):  # the caller may delete while it iterates
            record = self.load(Key(id))
            if record and user in (None, record.user):
                yield record

    def delete_expired(self, *, batch: int) -> int:
        with self._mutex:
            late = [id for id in self._records if not self.load(Key(id))][:batch]
            for id in late:
                del self._records[id]
        return len(late)
