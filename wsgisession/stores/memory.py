"""Sessions in the memory of one process: for tests, demonstrations, small programs.

The reference for every other store.  It knows records and nothing of what they mean.
Each process has a store of its own: behind a server with several processes, a client
would meet a different one on every other request.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Iterator

from ..errors import LockTimeout, VersionConflict
from ..record import Key, Record
from ..store import Capabilities

__all__ = ["MemoryStore"]


class _Lease:
    """A lock that was given out, compared by identity, so that nobody can guess it."""

    __slots__ = ("by", "since", "until")

    def __init__(self, since: float, lease: float, by: str) -> None:
        self.by = by
        self.since = since
        self.until = since + lease


class _Agenda:
    """The ids of records in the order in which they may expire.

    An entry is never later than the expiry of its record.  It may be earlier, because a
    touch does not come here: an entry that is due is looked at, and if the record lives
    on it is entered again.  So a sweep looks at what is due and at nothing else.
    """

    __slots__ = ("_entries", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._entries: dict[str, float] = {}

    def enter(self, id: str, expires: float) -> None:
        """See to it that a record is looked at when it expires, or before."""
        if expires < self._entries.get(id, float("inf")):
            self._entries[id] = expires
            heapq.heappush(self._heap, (expires, id))

    def forget(self, id: str) -> None:
        """Drop a record that is gone."""
        if self._entries.pop(id, None) is None:
            return
        if len(self._heap) > 2 * len(self._entries) + 100:  # mostly of records gone
            self._heap = [(expires, id) for id, expires in self._entries.items()]
            heapq.heapify(self._heap)

    def next_due(self, now: float) -> str | None:
        """Take out the next record that may have expired by now."""
        while self._heap and self._heap[0][0] <= now:
            expires, id = heapq.heappop(self._heap)
            if self._entries.get(id) == expires:  # else a newer entry stands for it
                del self._entries[id]
                return id
        return None


class MemoryStore:
    """A dict of records, with a queue for each session that requests wait for.

    The lock of a session is given in the order in which the requests asked for it.
    """

    capabilities: Capabilities = Capabilities(locks=True, lists=True, one_process=True)

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._records: dict[str, Record] = {}
        self._leases: dict[str, _Lease] = {}
        self._queues: dict[str, deque[threading.Condition]] = {}
        self._of_users: dict[str, dict[str, None]] = {}
        """The ids of each user's records, in the order in which they were begun."""
        self._agenda = _Agenda()

    def load(self, key: Key) -> Record | None:
        return self._live(key.id)

    def save(self, record: Record, *, expect: int) -> None:
        with self._mutex:
            is_free = self._release(record) or self._is_free(record.id)
            before = self._records.get(record.id)
            is_live = before is not None and before.expires > time.time()
            current = before if is_live else None
            version = current.version if current is not None else 0
            if version != expect or not is_free:
                raise VersionConflict(record.id, current)
            if record.id in self._leases:
                self._end_lease(record.id)  # one that has run out
            self._records[record.id] = record.bare()
            if record.user != (None if before is None else before.user):
                self._list(before, record)
            self._agenda.enter(record.id, record.expires)

    def touch(self, record: Record) -> bool:
        with self._mutex:
            self._release(record)
            current = self._live(record.id)
            if current is None or current.version != record.version:
                return False
            self._records[record.id] = current._replace(
                accessed=max(current.accessed, record.accessed),
                expires=max(current.expires, record.expires),
            )
            return True

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        with self._mutex:
            record = self._records.get(key.id)
            if record is None or user not in (None, record.user):
                return False
            self._forget(key.id)
            return record.expires > time.time()

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        with self._mutex:
            is_sought = key.id in self._leases or key.id in self._queues
            if is_sought and self._must_wait(key, turn=None):
                self._wait(key, wait, waiters)
            current = self._live(key.id)
            if current is None or not current.admits(key.proof, time.time()):
                return current
            held = self._leases[key.id] = _Lease(time.time(), lease, by)
            return current.bare(lease=held)

    def unlock(self, record: Record) -> None:
        with self._mutex:
            self._release(record)

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        with self._mutex:
            known = self._records if user is None else self._of_users.get(user, ())
            ids = list(known)
        for id in ids:
            record = self._live(id)
            if record is not None and user in (None, record.user):
                yield record

    def delete_expired(self, *, batch: int) -> int:
        swept = 0
        with self._mutex:
            now = time.time()
            while swept < batch and (id := self._agenda.next_due(now)) is not None:
                expires = self._records[id].expires
                if expires > now:
                    self._agenda.enter(id, expires)
                else:
                    self._forget(id)
                    swept += 1
        return swept

    # -- under the mutex, but for _live, which is a single look ------------------------

    def _live(self, id: str) -> Record | None:
        record = self._records.get(id)
        return record if record is not None and record.expires > time.time() else None

    def _is_free(self, id: str) -> bool:
        """Whether no live lease is on a record; there is none on one that is absent."""
        held = self._leases.get(id)
        return held is None or held.until <= time.time() or self._live(id) is None

    def _release(self, record: Record) -> bool:
        """End the record's own lease; True if it was still the one on the session."""
        held = self._leases.get(record.id)
        if held is None or held is not record.lease:
            return False
        self._end_lease(record.id)
        return True

    def _end_lease(self, id: str) -> None:
        self._leases.pop(id, None)
        if queue := self._queues.get(id):
            queue[0].notify()

    def _list(self, before: Record | None, record: Record) -> None:
        """Put a record into the list of its user, and out of the one it was in."""
        if before is not None and before.user is not None:
            self._unlist(before.user, before.id)
        if record.user is not None:
            self._of_users.setdefault(record.user, {})[record.id] = None

    def _unlist(self, user: str, id: str) -> None:
        ids = self._of_users[user]
        del ids[id]
        if not ids:
            del self._of_users[user]

    def _forget(self, id: str) -> None:
        record = self._records.pop(id)
        if record.user is not None:
            self._unlist(record.user, id)
        self._agenda.forget(id)
        self._end_lease(id)

    # -- the queue for a lock ----------------------------------------------------------

    def _must_wait(self, key: Key, *, turn: threading.Condition | None) -> bool:
        """Whether a request may use the session and cannot have its lock yet.

        ``turn`` is its place in the queue; None: it has just come.
        """
        current = self._live(key.id)
        if current is None or not current.admits(key.proof, time.time()):
            return False
        queue = self._queues.get(key.id)
        is_next = not queue or queue[0] is turn
        return not (is_next and self._is_free(key.id))

    def _wait(self, key: Key, wait: float, waiters: int) -> None:
        """Return when it is the turn of this request, or raise ``LockTimeout``.

        Only the first of the queue watches the lease run out.  All others wait until
        they are the first.
        """
        already = len(self._queues.get(key.id, ()))
        if already >= waiters:
            raise self._timeout(key.id, 0.0, already)
        queue = self._queues.setdefault(key.id, deque())
        turn = threading.Condition(self._mutex)
        queue.append(turn)
        began = time.monotonic()
        try:
            while self._must_wait(key, turn=turn):
                remaining = began + wait - time.monotonic()
                if remaining <= 0:
                    raise self._timeout(key.id, time.monotonic() - began)
                if queue[0] is turn:
                    remaining = min(remaining, self._leases[key.id].until - time.time())
                turn.wait(max(remaining, 0.001))
        finally:
            queue.remove(turn)
            if queue:
                queue[0].notify()
            else:
                del self._queues[key.id]

    def _timeout(
        self, id: str, waited: float, waiters: int | None = None
    ) -> LockTimeout:
        """The error, with what is known of the holder."""
        held = self._leases.get(id)
        if held is None:
            return LockTimeout(id, waited, waiters)
        held_for = max(time.time() - held.since, 0.0)
        return LockTimeout(id, waited, waiters, held_by=held.by, held_for=held_for)
