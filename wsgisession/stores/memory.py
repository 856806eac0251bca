"""Sessions in the memory of one process: for tests, demonstrations, small programs.

The reference for every other store.  It knows records and nothing of where they come
from.  Each process has its own: behind a server with several processes, a visitor would
meet a different store on every other request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import Conflict, LockTimeout
from ..record import Key, Record

PAGE = 500


@dataclass(frozen=True, slots=True, eq=False)
class _Lease:
    """Who holds a session: compared by identity, so nobody can guess another's."""

    until: float


class _Queue:
    """The threads that wait for one session, woken one at a time."""

    __slots__ = ("freed", "waiting")

    def __init__(self, mutex: threading.Lock) -> None:
        self.freed = threading.Condition(mutex)
        self.waiting = 0


class MemoryStore:
    """A dict of records, with a condition variable for each contended session.

    :param lock_waiters: how many may wait for one session before ``LockTimeout``.
    """

    def __init__(self, *, lock_waiters: int = 50) -> None:
        self._lock_waiters = lock_waiters
        self._mutex = threading.Lock()
        self._records: dict[str, Record] = {}
        self._leases: dict[str, _Lease] = {}
        self._queues: dict[str, _Queue] = {}

    def load(self, key: Key) -> Record | None:
        return self._live(key.id)

    def save(self, record: Record, *, expect: int) -> str | None:
        with self._mutex:
            ours = self._release(record)
            current = self._live(record.id)
            version = current.version if current is not None else 0
            if version != expect or not (ours or self._free(record.id)):
                raise Conflict(record.id, current)
            self._records[record.id] = record.bare()
        return record.token

    def touch(self, record: Record) -> str | None:
        with self._mutex:
            self._release(record)
            current = self._live(record.id)
            if current is not None and current.version == record.version:
                self._records[record.id] = replace(
                    current, accessed=record.accessed, expires=record.expires
                )
        return record.token

    def delete(self, record: Record) -> None:
        with self._mutex:
            self._records.pop(record.id, None)
            self._leases.pop(record.id, None)
            self._wake(record.id)

    def lock(self, key: Key, *, wait: float, lease: float) -> Record | None:
        with self._mutex:
            if not self._free(key.id):
                self._wait(key.id, wait)
            current = self._live(key.id)
            if current is None or current.state != "live":
                self._wake(key.id)
                return current
            held = self._leases[key.id] = _Lease(time.time() + lease)
            return current.bare(lease=held)

    def unlock(self, record: Record) -> None:
        with self._mutex:
            self._release(record)

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        with self._mutex:
            ids = list(self._records)
        for id in ids:
            record = self._live(id)
            if (
                record is not None
                and record.state == "live"
                and (user is None or record.user == user)
            ):
                yield record

    def delete_expired(self, *, batch: int) -> int:
        with self._mutex:
            now = time.time()
            expired = [
                id for id, record in self._records.items() if record.expires <= now
            ][:batch]
            for id in expired:
                del self._records[id]
                self._leases.pop(id, None)
                self._wake(id)
        return len(expired)

    # -- under the mutex, but for _live, which is a single look ------------------------

    def _live(self, id: str) -> Record | None:
        record = self._records.get(id)
        return record if record is not None and record.expires > time.time() else None

    def _free(self, id: str) -> bool:
        held = self._leases.get(id)
        return held is None or held.until <= time.time()

    def _release(self, record: Record) -> bool:
        """End the record's own lease, and tell whether it was still the one on it."""
        ours = record.lease is not None and self._leases.get(record.id) is record.lease
        if ours:
            del self._leases[record.id]
            self._wake(record.id)
        return ours

    def _wake(self, id: str) -> None:
        if (queue := self._queues.get(id)) is not None:
            queue.freed.notify()

    def _wait(self, id: str, wait: float) -> None:
        queue = self._queues.setdefault(id, _Queue(self._mutex))
        if queue.waiting >= self._lock_waiters:
            raise LockTimeout(id, 0.0, queue.waiting)
        queue.waiting += 1
        began = time.monotonic()
        try:
            while not self._free(id):
                remaining = began + wait - time.monotonic()
                if remaining <= 0:
                    raise LockTimeout(id, time.monotonic() - began)
                until = self._leases[id].until - time.time()
                queue.freed.wait(min(remaining, max(until, 0.001)))
        finally:
            queue.waiting -= 1
            if not queue.waiting:
                del self._queues[id]
