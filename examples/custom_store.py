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

from wsgisession import Capabilities, Key, Record, VersionConflict


class DictStore:
    """Sessions in the memory of one process."""

    capabilities = Capabilities(lists=True)

    def __init__(self) -> None:
        self._kept: dict[str, Record] = {}
        self._mutex = threading.Lock()

    def load(self, key: Key) -> Record | None:
        record = self._kept.get(key.id)
        return record if record and record.expires > time.time() else None

    def save(self, record: Record, *, expect: int) -> None:
        with self._mutex:  # so that comparing and writing are one step
            current = self.load(Key(record.id))
            if (current.version if current else 0) != expect:
                raise VersionConflict(record.id, current)
            self._kept[record.id] = record.bare()

    def touch(self, record: Record) -> bool:
        with self._mutex:
            old = self.load(Key(record.id))
            if old is None or old.version != record.version:
                return False
            new = old._replace(accessed=max(old.accessed, record.accessed))
            self._kept[new.id] = new._replace(expires=max(old.expires, record.expires))
            return True

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        with self._mutex:
            old = self.load(key)
            is_meant = old is not None and user in (None, old.user)
            return is_meant and self._kept.pop(key.id) is old

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        seen = list(self._kept.values())  # the caller may delete while it iterates
        return (r for r in seen if r.expires > time.time() and user in (None, r.user))

    def delete_expired(self, *, batch: int) -> int:
        with self._mutex:
            late = [id for id in self._kept if not self.load(Key(id))][:batch]
            for id in late:
                del self._kept[id]
            return len(late)
