"""Stores with one mistake each, which the conformance suites must find.

Each is the memory store with one method changed, and says in one line what is wrong.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from wsgisession.errors import LockTimeout, VersionConflict
from wsgisession.record import Key, Record
from wsgisession.store import Capabilities
from wsgisession.stores.memory import MemoryStore

# -- what comes back is not what was written -------------------------------------------


class ForgetsWhetherSeen(MemoryStore):
    """Takes a moment of 0 for none."""

    def load(self, key: Key) -> Record | None:
        found = super().load(key)
        return found and found._replace(seen=found.seen or None)


class ForgetsUntil(MemoryStore):
    """Takes a proof that has ended for one that is good."""

    def load(self, key: Key) -> Record | None:
        found = super().load(key)
        return found and found._replace(
            replaced=tuple(
                each._replace(until=each.until or None) for each in found.replaced
            )
        )


class GivesPlainTuples(MemoryStore):
    """Equal to what was written, and has no attribute ``until``."""

    def load(self, key: Key) -> Record | None:
        found = super().load(key)
        return found and found._replace(replaced=tuple(map(tuple, found.replaced)))  # type: ignore[arg-type]


class RoundsClocks(MemoryStore):
    """Keeps 14 digits, as Lua does where nobody takes care."""

    def touch(self, record: Record) -> bool:
        accessed, expires = f"{record.accessed:.14g}", f"{record.expires:.14g}"
        return super().touch(
            record._replace(accessed=float(accessed), expires=float(expires))
        )


class RoundsVersions(MemoryStore):
    """Compares versions as floating point numbers."""

    def save(self, record: Record, *, expect: int) -> None:
        current = self._live(record.id)
        if current is not None and float(current.version) == float(expect):
            expect = current.version
        super().save(record, expect=expect)


class CountsVersions(MemoryStore):
    """Takes a smaller version for an older one."""

    def save(self, record: Record, *, expect: int) -> None:
        current = self._live(record.id)
        if current is not None and record.version < expect:
            raise VersionConflict(record.id, current)
        super().save(record, expect=expect)


class CutsData(MemoryStore):
    """A column of 64 KiB."""

    def save(self, record: Record, *, expect: int) -> None:
        super().save(record._replace(data=record.data[:65535]), expect=expect)


class KeepsTokens(MemoryStore):
    """Writes down what opens the session."""

    def save(self, record: Record, *, expect: int) -> None:
        super().save(record, expect=expect)
        self._records[record.id] = record._replace(lease=None)


class KeepsExpired(MemoryStore):
    """Leaves it to the sweep to end sessions."""

    def _live(self, id: str) -> Record | None:
        return self._records.get(id)


class FindsIdsLoosely(MemoryStore):
    """A collation that ignores case and blanks at the end."""

    def load(self, key: Key) -> Record | None:
        return super().load(key._replace(id=key.id.lower().rstrip()))


# -- comparing, touching, deleting -----------------------------------------------------


class ComparesFirst(MemoryStore):
    """Compares in one step and writes in another."""

    def save(self, record: Record, *, expect: int) -> None:
        current = self.load(Key(record.id))
        if (current.version if current else 0) != expect:
            raise VersionConflict(record.id, current)
        time.sleep(0.01)
        self._records[record.id] = record.bare()


class BringsBack(MemoryStore):
    """Makes the record that it was to change."""

    def save(self, record: Record, *, expect: int) -> None:
        super().save(record, expect=expect if self._live(record.id) else 0)


class NeverMindsWhatIs(MemoryStore):
    """Does not tell what is stored."""

    def save(self, record: Record, *, expect: int) -> None:
        try:
            super().save(record, expect=expect)
        except VersionConflict:
            raise VersionConflict(record.id, None) from None


class SavesOnTouch(MemoryStore):
    """A reader that writes back what it had loaded."""

    def __init__(self) -> None:
        super().__init__()
        self._saved = threading.Event()

    def save(self, record: Record, *, expect: int) -> None:
        super().save(record, expect=expect)
        self._saved.set()

    def touch(self, record: Record) -> bool:
        is_there = super().touch(record)
        self._saved.clear()
        self._saved.wait(0.1)  # long enough for a writer, where there is one
        if is_there and record.id in self._records:
            self._records[record.id] = record.bare()
        return is_there


class TouchesAnyVersion(MemoryStore):
    """Undoes an expiry that another request has shortened."""

    def touch(self, record: Record) -> bool:
        current = self._live(record.id)
        version = record.version if current is None else current.version
        return super().touch(record._replace(version=version))


class TouchesBack(MemoryStore):
    """Lets a host with a slow clock age a session."""

    def touch(self, record: Record) -> bool:
        is_there = super().touch(record)
        if is_there:
            self._records[record.id] = self._records[record.id]._replace(
                accessed=record.accessed, expires=record.expires
            )
        return is_there


class SavesForwardOnly(MemoryStore):
    """Knows better than the application when a session ends."""

    def save(self, record: Record, *, expect: int) -> None:
        current = self._live(record.id)
        expires = max(record.expires, current.expires if current else 0)
        super().save(record._replace(expires=expires), expect=expect)


class SaysNothingOfTouch(MemoryStore):
    """Always content."""

    def touch(self, record: Record) -> bool:
        super().touch(record)
        return True


class SaysNothingOfDelete(MemoryStore):
    """Always content."""

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        super().delete(key, user=user)
        return True


class DeletesAnybodys(MemoryStore):
    """Compares users as MySQL does: neither case nor blanks at the end count."""

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        current = self._live(key.id)
        owner = None if current is None else current.user
        if user and owner and owner.lower().rstrip() == user.lower().rstrip():
            user = owner
        return super().delete(key, user=user)


class DeletesByProof(MemoryStore):
    """Asks for a proof where an id is enough."""

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        current = self._live(key.id)
        if current is not None and not current.knows(key.proof):
            return False
        return super().delete(key, user=user)


class LoadsByProof(MemoryStore):
    """Judges what is for the core to judge."""

    def load(self, key: Key) -> Record | None:
        found = super().load(key)
        return found if found and found.admits(key.proof, time.time()) else None


# -- locking ---------------------------------------------------------------------------


class Impatient(MemoryStore):
    """Sound, but it waits a second at most, so that what is broken shows soon."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        return super().lock(key, wait=min(wait, 1), lease=lease, waiters=waiters, by=by)


class Boasts(MemoryStore):
    """Has other capabilities than it says."""

    capabilities = Capabilities(ends_users=True)


class NeverLocks(MemoryStore):
    """Gives everybody a lease."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        given = super().lock(key, wait=wait, lease=lease, waiters=waiters, by=by)
        time.sleep(0.002)  # for the others to come
        return given

    def _is_free(self, id: str) -> bool:
        return True


class LeasesForEver(Impatient):
    """A holder that died holds everybody up."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        return super().lock(key, wait=wait, lease=999, waiters=waiters, by=by)


class ShowsLeases(MemoryStore):
    """Hands the lease of one request to those that merely look."""

    def load(self, key: Key) -> Record | None:
        found = super().load(key)
        return found and found._replace(lease=self._leases.get(key.id))


class ShowsLeasesInConflicts(MemoryStore):
    """Hands the lease of one request to one that was refused."""

    def save(self, record: Record, *, expect: int) -> None:
        try:
            super().save(record, expect=expect)
        except VersionConflict as conflict:
            lease = self._leases.get(record.id)
            if conflict.record is not None:
                conflict.record = conflict.record._replace(lease=lease)
            raise


class LeasesOutliveExpiry(Impatient):
    """A lease on a record that is absent shuts out the next one of that id."""

    def _is_free(self, id: str) -> bool:
        held = self._leases.get(id)
        return held is None or held.until <= time.time()


class LeasesOutliveRecords(LeasesOutliveExpiry):
    """Forgets the record and not the lease on it."""

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        held = self._leases.get(key.id)
        is_gone = super().delete(key, user=user)
        if held is not None:
            self._leases[key.id] = held
        return is_gone


class WritersPass(MemoryStore):
    """A lease is for those that ask for one."""

    def save(self, record: Record, *, expect: int) -> None:
        lease = record.lease or self._leases.get(record.id)
        super().save(record._replace(lease=lease), expect=expect)


class EndsAnyLease(Impatient):
    """A late request ends the lease that the next one was given."""

    def unlock(self, record: Record) -> None:
        super().unlock(record._replace(lease=self._leases.get(record.id)))


class TouchEndsAnyLease(Impatient):
    """A reader takes the lock from its holder."""

    def touch(self, record: Record) -> bool:
        return super().touch(record._replace(lease=self._leases.get(record.id)))


class TouchEndsNoLease(Impatient):
    """A reader that had locked keeps the lock."""

    def touch(self, record: Record) -> bool:
        return super().touch(record._replace(lease=None))


class RefusedKeepsLease(Impatient):
    """A conflict keeps everybody out until the lease runs out."""

    def save(self, record: Record, *, expect: int) -> None:
        current = self._live(record.id)
        if current is not None and current.version != expect:
            raise VersionConflict(record.id, current)
        super().save(record, expect=expect)


class LocksForAnyone(Impatient):
    """Asks for no proof."""

    def lock(self, key: Key, **limits: Any) -> Record | None:
        return super().lock(Key(key.id), **limits)


class LocksForTheNewestOnly(MemoryStore):
    """Knows the current proof only."""

    def lock(self, key: Key, **limits: Any) -> Record | None:
        current = self._live(key.id)
        if current is not None and key.proof not in (None, current.proof):
            return current
        return super().lock(key, **limits)


class NeedsAProof(MemoryStore):
    """Refuses administration."""

    def lock(self, key: Key, **limits: Any) -> Record | None:
        key = key._replace(proof=key.proof or "none")
        return super().lock(key, **limits)


class QueuesBeforeItJudges(Impatient):
    """Lets a request wait that may not have the lock."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        if not self._is_free(key.id) and waiters == 0:
            raise LockTimeout(key.id, 0.0, 0)
        return super().lock(key, wait=wait, lease=lease, waiters=waiters, by=by)


class JudgesBeforeTheQueue(Impatient):
    """Gives the lock for a proof that ended while the request waited."""

    def lock(self, key: Key, **limits: Any) -> Record | None:
        current = self._live(key.id)
        if current is not None and current.admits(key.proof, time.time()):
            key = Key(key.id)
        return super().lock(key, **limits)


class CrowdsAreWelcome(Impatient):
    """Lets any number wait."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        return super().lock(key, wait=wait, lease=lease, waiters=99)


class LooksAwayAtZero(MemoryStore):
    """Gives up before it has tried."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        if wait == 0 and self._live(key.id) is not None:
            raise LockTimeout(key.id, 0.0)
        return super().lock(key, wait=wait, lease=lease, waiters=waiters, by=by)


# -- listing ---------------------------------------------------------------------------


class ListsLoosely(MemoryStore):
    """Compares users as MySQL does: neither case nor blanks at the end count."""

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        for each in super().records():
            if user is None or (each.user or "").lower().rstrip() == user.rstrip():
                yield each


class ListsExpired(MemoryStore):
    """Lists what nobody can load."""

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        every = list(self._records.values())
        yield from (each for each in every if user in (None, each.user))


class ListsLive(MemoryStore):
    """Walks through the dict itself."""

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        for each in self._records.values():
            if self._live(each.id) and user in (None, each.user):
                yield each


class SweepsTheRenewed(MemoryStore):
    """Goes by the expiry that a record was saved with."""

    def __init__(self) -> None:
        super().__init__()
        self._first: dict[str, float] = {}

    def touch(self, record: Record) -> bool:
        current = self._live(record.id)
        is_there = super().touch(record)
        if current is not None:
            self._first.setdefault(record.id, current.expires)
        return is_there

    def delete_expired(self, *, batch: int) -> int:
        for id, expires in self._first.items():
            if expires <= time.time():
                self.delete(Key(id))
        return super().delete_expired(batch=batch)


class SweepsAllAtOnce(MemoryStore):
    """Has no batches."""

    def delete_expired(self, *, batch: int) -> int:
        return super().delete_expired(batch=10**6)
