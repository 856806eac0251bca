"""The conformance suites find broken stores: each of these is a mistake of its own.

The positive control of every other test of a store.
"""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from wsgisession.errors import LockTimeout, VersionConflict
from wsgisession.record import Key, Record
from wsgisession.store import Capabilities
from wsgisession.stores.memory import MemoryStore
from wsgisession.testing import (
    BlindStore,
    IterableStoreSuite,
    LockingStoreSuite,
    StoreSuite,
    in_threads,
    key,
    newer,
    record,
)


class Everything(LockingStoreSuite, IterableStoreSuite):
    """All that the memory store is held to."""


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

    def touch(self, record: Record) -> bool:
        is_there = super().touch(record)
        time.sleep(0.002)
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
        if user is not None and current is not None and current.user is not None:
            if current.user.lower().rstrip() == user.lower().rstrip():
                user = current.user
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


class Boasts(MemoryStore):
    """Has other capabilities than it says."""

    capabilities = Capabilities(ends_users=True)


class NeverLocks(MemoryStore):
    """Gives everybody a lease."""

    def _is_free(self, id: str) -> bool:
        return True


class LeasesForEver(MemoryStore):
    """A holder that died holds everybody up."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int
    ) -> Record | None:
        return super().lock(key, wait=min(wait, 1), lease=999, waiters=waiters)


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


class LeasesOutliveRecords(MemoryStore):
    """Forgets the record and not the lease on it."""

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        held = self._leases.get(key.id)
        is_gone = super().delete(key, user=user)
        if held is not None:
            self._leases[key.id] = held
        return is_gone

    def _is_free(self, id: str) -> bool:
        held = self._leases.get(id)
        return held is None or held.until <= time.time()


class LeasesOutliveExpiry(MemoryStore):
    """A lease on a record that is absent shuts out the next one of that id."""

    def _is_free(self, id: str) -> bool:
        held = self._leases.get(id)
        return held is None or held.until <= time.time()


class WritersPass(MemoryStore):
    """A lease is for those that ask for one."""

    def save(self, record: Record, *, expect: int) -> None:
        lease = record.lease or self._leases.get(record.id)
        super().save(record._replace(lease=lease), expect=expect)


class EndsAnyLease(MemoryStore):
    """A late request ends the lease that the next one was given."""

    def unlock(self, record: Record) -> None:
        super().unlock(record._replace(lease=self._leases.get(record.id)))


class TouchEndsAnyLease(MemoryStore):
    """A reader takes the lock from its holder."""

    def touch(self, record: Record) -> bool:
        return super().touch(record._replace(lease=self._leases.get(record.id)))


class TouchEndsNoLease(MemoryStore):
    """A reader that had locked keeps the lock."""

    def touch(self, record: Record) -> bool:
        return super().touch(record._replace(lease=None))


class RefusedKeepsLease(MemoryStore):
    """A conflict keeps everybody out until the lease runs out."""

    def save(self, record: Record, *, expect: int) -> None:
        current = self._live(record.id)
        if current is not None and current.version != expect:
            raise VersionConflict(record.id, current)
        super().save(record, expect=expect)


class LocksForAnyone(MemoryStore):
    """Asks for no proof."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int
    ) -> Record | None:
        return super().lock(
            Key(key.id), wait=min(wait, 1), lease=lease, waiters=waiters
        )


class LocksForTheNewestOnly(MemoryStore):
    """Knows the current proof only."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int
    ) -> Record | None:
        current = self._live(key.id)
        if current is not None and key.proof not in (None, current.proof):
            return current
        return super().lock(key, wait=wait, lease=lease, waiters=waiters)


class NeedsAProof(MemoryStore):
    """Refuses administration."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int
    ) -> Record | None:
        key = key._replace(proof=key.proof or "none")
        return super().lock(key, wait=wait, lease=lease, waiters=waiters)


class QueuesBeforeItJudges(MemoryStore):
    """Lets a request wait that may not have the lock."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int
    ) -> Record | None:
        if not self._is_free(key.id) and waiters == 0:
            raise LockTimeout(key.id, 0.0, 0)
        return super().lock(key, wait=wait, lease=lease, waiters=waiters)


class JudgesBeforeTheQueue(MemoryStore):
    """Gives the lock for a proof that ended while the request waited."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int
    ) -> Record | None:
        current = self._live(key.id)
        if current is not None and current.admits(key.proof, time.time()):
            key = Key(key.id)
        return super().lock(key, wait=wait, lease=lease, waiters=waiters)


class CrowdsAreWelcome(MemoryStore):
    """Lets any number wait."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int
    ) -> Record | None:
        return super().lock(key, wait=min(wait, 1), lease=lease, waiters=99)


class LooksAwayAtZero(MemoryStore):
    """Gives up before it has tried."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int
    ) -> Record | None:
        if wait == 0 and self._live(key.id) is not None:
            raise LockTimeout(key.id, 0.0)
        return super().lock(key, wait=wait, lease=lease, waiters=waiters)


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

    def touch(self, record: Record) -> bool:
        current = self._live(record.id)
        is_there = super().touch(record)
        if current is not None:
            self._kept_until = {**getattr(self, "_kept_until", {})}
            self._kept_until.setdefault(record.id, current.expires)
        return is_there

    def delete_expired(self, *, batch: int) -> int:
        for id, expires in getattr(self, "_kept_until", {}).items():
            if expires <= time.time():
                self.delete(Key(id))
        return super().delete_expired(batch=batch)


class SweepsAllAtOnce(MemoryStore):
    """Has no batches."""

    def delete_expired(self, *, batch: int) -> int:
        return super().delete_expired(batch=10**6)


BROKEN = [
    (ForgetsWhetherSeen, "whether_a_token_was_seen_comes_back"),
    (ForgetsUntil, "replaced_proofs_come_back"),
    (GivesPlainTuples, "fields_come_back_in_their_types"),
    (RoundsClocks, "touch_moves_the_clocks_only"),
    (RoundsVersions, "versions_are_not_rounded"),
    (CountsVersions, "a_version_has_63_bits"),
    (CutsData, "a_megabyte_comes_back"),
    (KeepsTokens, "what_was_saved_comes_back"),
    (KeepsExpired, "expired_is_none"),
    (FindsIdsLoosely, "an_id_is_compared_exactly"),
    (ComparesFirst, "only_one_of_many_writers_wins"),
    (ComparesFirst, "increments_beside_readers_are_all_kept"),
    (BringsBack, "a_save_never_brings_back_what_was_deleted"),
    (BringsBack, "a_save_never_brings_back_what_expired"),
    (BringsBack, "a_save_never_makes_a_record"),
    (NeverMindsWhatIs, "a_save_needs_the_version_it_expects"),
    (SavesOnTouch, "touch_moves_the_clocks_only"),
    (SavesOnTouch, "increments_beside_readers_are_all_kept"),
    (TouchesAnyVersion, "touch_leaves_another_version_alone"),
    (TouchesBack, "touch_moves_no_clock_back"),
    (SavesForwardOnly, "a_save_writes_the_clocks_it_is_told"),
    (SavesForwardOnly, "a_save_can_end_the_time_of_a_record"),
    (SaysNothingOfTouch, "touch_brings_nothing_back"),
    (SaysNothingOfDelete, "delete_says_whether_it_was_there"),
    (SaysNothingOfDelete, "only_one_of_many_deletes_ended_it"),
    (DeletesAnybodys, "delete_of_a_user_asks_whose_it_is"),
    (DeletesByProof, "delete_asks_for_no_proof"),
    (LoadsByProof, "a_proof_is_not_judged_by_load"),
    (Boasts, "is_what_it_says"),
    (Boasts, "can_lock"),
    (Boasts, "can_list"),
    (NeverLocks, "a_live_lease_shuts_other_writers_out"),
    (NeverLocks, "locked_increments_are_all_kept"),
    (LeasesForEver, "a_lease_ends_by_itself"),
    (LeasesForEver, "a_lease_that_ran_out_shuts_nobody_out"),
    (ShowsLeases, "a_lease_is_shown_to_its_holder_only"),
    (ShowsLeasesInConflicts, "a_lease_is_shown_to_its_holder_only"),
    (LeasesOutliveRecords, "a_lease_ends_with_its_record"),
    (LeasesOutliveExpiry, "a_lease_ends_with_its_record"),
    (WritersPass, "a_live_lease_shuts_other_writers_out"),
    (EndsAnyLease, "who_overran_cannot_end_the_next_lease"),
    (TouchEndsAnyLease, "other_requests_may_touch"),
    (TouchEndsNoLease, "the_lock_is_handed_over"),
    (RefusedKeepsLease, "the_lock_is_handed_over"),
    (LocksForAnyone, "an_unknown_proof_is_given_no_lock"),
    (LocksForAnyone, "a_proof_that_is_over_joins_no_queue"),
    (LocksForAnyone, "a_proof_runs_out_of_time"),
    (LocksForTheNewestOnly, "a_proof_that_is_good_is_given_the_lock"),
    (NeedsAProof, "a_proof_that_is_good_is_given_the_lock"),
    (QueuesBeforeItJudges, "an_unknown_proof_is_given_no_lock"),
    (QueuesBeforeItJudges, "a_proof_that_is_over_joins_no_queue"),
    (JudgesBeforeTheQueue, "a_proof_is_judged_after_the_wait"),
    (CrowdsAreWelcome, "where_nobody_may_wait"),
    (LooksAwayAtZero, "a_free_lock_is_given_without_waiting"),
    (ListsLoosely, "users_are_compared_exactly"),
    (ListsExpired, "all_records_are_seen"),
    (ListsLive, "deleting_while_walking"),
    (SweepsTheRenewed, "a_renewed_record_is_not_swept"),
    (SweepsAllAtOnce, "expired_records_are_swept"),
]


def arguments(test: Any) -> Iterator[dict[str, Any]]:
    """What pytest gives to a test of a suite, once for every parameter."""
    rows = [
        [
            dict(
                zip(names_in(mark.args[0]), values_in(mark.args[0], each), strict=True)
            )
            for each in mark.args[1]
        ]
        for mark in getattr(test, "pytestmark", [])
        if mark.name == "parametrize"
    ]
    for row in itertools.product(*rows):
        yield {name: value for part in row for name, value in part.items()}


def names_in(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def values_in(names: Any, values: Any) -> tuple[Any, ...]:
    return (values,) if isinstance(names, str) else tuple(values)


def run(kind: type[MemoryStore], name: str) -> list[BaseException]:
    """Run a test of the suites on a kind of store, and give what it found."""
    test = getattr(Everything, f"test_{name}")
    found: list[BaseException] = []
    for given in arguments(test):
        store = kind()
        fixtures = {"store": store, "twin": store, **given}
        wanted = list(inspect.signature(test).parameters)[1:]
        try:
            test(Everything(), **{each: fixtures[each] for each in wanted})
        except (Exception, pytest.fail.Exception) as error:
            found.append(error)
    return found


@pytest.mark.parametrize(
    ("broken", "test"),
    BROKEN,
    ids=[f"{broken.__name__}-{test}" for broken, test in BROKEN],
)
def test_a_broken_store_is_found(broken: type[MemoryStore], test: str) -> None:
    """Each by the test that is meant for it."""
    assert run(broken, test), f"{test} does not find that it {broken.__doc__}"


@pytest.mark.parametrize("test", sorted({test for _, test in BROKEN}))
def test_a_sound_store_passes(test: str) -> None:
    """The control of the control: what finds the broken ones finds nothing here."""
    assert run(MemoryStore, test) == []


def test_increments_on_a_blind_store_are_lost() -> None:
    """The store with its promises taken out is what it says."""
    store, given = MemoryStore(), record(data=b"0")
    store.save(given, expect=0)
    blind, both_read = BlindStore(store), threading.Barrier(2)

    def increment(_: int) -> None:
        loaded = blind.load(key(given))
        assert loaded is not None
        both_read.wait()
        count = b"%d" % (int(loaded.data) + 1)
        blind.save(newer(loaded, data=count), expect=loaded.version)

    in_threads(2, increment)
    loaded = store.load(key(given))
    assert loaded is not None
    assert loaded.data == b"1"


def test_a_blind_store_brings_back_what_ended() -> None:
    """As the stores of most session libraries do."""
    store, given = MemoryStore(), record()
    store.save(given, expect=0)
    blind = BlindStore(store)
    assert blind.delete(key(given))
    blind.save(newer(given), expect=given.version)
    assert blind.load(key(given)) is not None
    assert not blind.capabilities.locks


def test_the_blind_store_needs_no_pytest() -> None:
    """A demonstration runs where pytest is not installed."""
    program = (
        "import sys; sys.modules['pytest'] = None;"
        "from wsgisession.testing.blind import BlindStore;"
        "from wsgisession.testing import BlindStore as same;"
        "assert same is BlindStore"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_a_wrong_name_is_an_attribute_error() -> None:
    """As of every other module, though the names here are found when they are used."""
    import wsgisession.testing

    with pytest.raises(AttributeError, match="has no attribute 'StoreSuit'"):
        wsgisession.testing.StoreSuit  # noqa: B018
    assert all(hasattr(wsgisession.testing, name) for name in dir(wsgisession.testing))


@pytest.mark.parametrize("suite", [StoreSuite, LockingStoreSuite, IterableStoreSuite])
def test_every_test_says_what_it_shows(suite: type) -> None:
    """Whoever writes a store reads these sentences when one fails."""
    for name in dir(suite):
        if name.startswith("test_"):
            assert getattr(suite, name).__doc__, name
