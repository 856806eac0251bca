"""The conformance suite: what every store must do, for pytest.

A store's own tests inherit the classes that fit it and give a fixture::

    from wsgisession.testing import IterableStoreSuite, LockingStoreSuite

    class TestMine(LockingStoreSuite, IterableStoreSuite):
        @pytest.fixture
        def store(self):
            return MyStore()

``LockingStoreSuite`` contains ``StoreSuite``.  A second fixture, ``twin``, is another
client of the same storage, as another process would be; override it where the store has
one.  This file knows the protocol and no store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from .errors import Conflict, LockTimeout
from .record import Key, Record, id_for
from .store import IterableStore, LockingStore, Store, TokenStore

LEASE = 60.0
"""Seconds of a lease that must not run out by itself while a test looks."""
PATIENCE = 15.0
"""Seconds for what happens at once, but on a busy machine; far below ``LEASE``."""


def record(name: str = "one", **changes: Any) -> Record:
    """A record that is live for an hour, of its own for every name."""
    now = time.time()
    token = f"token-of-{name}"
    plain = Record(
        id=id_for(token),
        data=b'{}\n{"a":1}',
        version=1,
        created=now,
        accessed=now,
        expires=now + 3600,
        token=token,
    )
    return replace(plain, **changes)


def key(record: Record) -> Key:
    """The key that leads to a record."""
    return Key(record.id, record.token)


def stored(record: Record) -> Record:
    """A record as a store gives it back."""
    return record.bare()


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run ``work(0)`` to ``work(count - 1)`` at once, and give what they returned."""
    start = threading.Barrier(count)

    def one(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def refused(store: Store, record: Record, *, expect: int) -> Conflict:
    """Save where a conflict is due, and give it."""
    with pytest.raises(Conflict) as caught:
        store.save(record, expect=expect)
    return caught.value


class BlindStore:
    """A store with its promises taken out: it saves whatever comes.

    The positive control: a test of lost updates that passes with this store around it
    tests nothing.  It is what the stores of most session libraries are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def load(self, key: Key) -> Record | None:
        return self._store.load(key)

    def save(self, record: Record, *, expect: int) -> str | None:
        while True:
            current = self._store.load(Key(record.id, record.token))
            version = current.version if current is not None else 0
            try:
                return self._store.save(
                    replace(record, version=version + 1), expect=version
                )
            except Conflict:
                continue

    def touch(self, record: Record) -> str | None:
        return self._store.touch(record)

    def delete(self, record: Record) -> None:
        self._store.delete(record)


class StoreSuite:
    """What every store on a server must do."""

    @pytest.fixture
    def store(self) -> Any:
        raise NotImplementedError("give a fixture named store")

    @pytest.fixture
    def twin(self, store: Store) -> Store:
        """Another client of the same storage."""
        return store

    # -- coming back -------------------------------------------------------------------

    def test_is_a_store(self, store: Store) -> None:
        """It has the four methods."""
        assert isinstance(store, Store)

    def test_what_was_saved_comes_back(self, store: Store, twin: Store) -> None:
        """Every stored field of a record is read as it was written."""
        given = record(
            data=bytes(range(256)) * 300,
            user="ann\u00e9 \u4e2d 'x' :*?[",
            created=1_700_000_000.25,
        )
        assert store.save(given, expect=0) == given.token
        assert twin.load(key(given)) == stored(given)

    def test_empty_data_comes_back(self, store: Store) -> None:
        """No data is data too."""
        given = record(data=b"")
        store.save(given, expect=0)
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == b""

    def test_a_megabyte_comes_back(self, store: Store) -> None:
        """Nothing is cut off at 64 KiB."""
        given = record(data=b"\x00\xff" * 524_288)
        store.save(given, expect=0)
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == given.data

    def test_a_pointer_and_a_tombstone_come_back(self, store: Store) -> None:
        """A record that is not live is loaded as what it is."""
        moved = record("old", state="moved", successor=record("new").id)
        ended = record("dead", state="ended")
        store.save(moved, expect=0)
        store.save(ended, expect=0)
        assert store.load(key(moved)) == stored(moved)
        assert store.load(key(ended)) == stored(ended)

    def test_unknown_is_none(self, store: Store) -> None:
        """A key that leads nowhere is no error."""
        assert store.load(key(record("nobody"))) is None

    @pytest.mark.parametrize(
        "id",
        ["", ".", "..", "../../x", "a/b", "\x00", "x" * 5000, "%s", "{x}", "é", "*"],
    )
    def test_a_malformed_id_is_none(self, store: Store, id: str) -> None:
        """Whatever somebody sends, it is unknown, and no error."""
        assert store.load(Key(id, id)) is None

    def test_expired_is_none(self, store: Store) -> None:
        """A record whose time is over is absent."""
        given = record(expires=time.time() + 0.2)
        store.save(given, expect=0)
        time.sleep(0.3)
        assert store.load(key(given)) is None

    def test_token_is_not_stored(self, store: Store) -> None:
        """What comes back does not know the token."""
        given = record()
        store.save(given, expect=0)
        loaded = store.load(Key(given.id))
        assert loaded is not None
        assert loaded.token is None
        assert loaded.lease is None

    # -- comparing ---------------------------------------------------------------------

    def test_a_save_needs_the_version_it_expects(self, store: Store) -> None:
        """The second of two savers from one version is refused, and told what is."""
        first = record()
        store.save(first, expect=0)
        second = replace(first, version=2, data=b"second")
        store.save(second, expect=1)
        conflict = refused(store, replace(first, version=2, data=b"late"), expect=1)
        assert conflict.record == stored(second)
        assert store.load(key(first)) == stored(second)

    def test_a_new_record_never_replaces_one(self, store: Store) -> None:
        """A save with expect=0 is refused where a record is."""
        given = record()
        store.save(given, expect=0)
        conflict = refused(store, replace(given, data=b"other"), expect=0)
        assert conflict.record == stored(given)

    def test_a_save_never_brings_back_what_was_deleted(self, store: Store) -> None:
        """Whoever saves after the end is refused, and nothing is there."""
        given = record()
        store.save(given, expect=0)
        store.delete(given)
        assert refused(store, replace(given, version=2), expect=1).record is None
        assert store.load(key(given)) is None

    def test_a_save_never_brings_back_what_expired(self, store: Store) -> None:
        """Whoever saves after the expiry is refused."""
        given = record(expires=time.time() + 0.2)
        store.save(given, expect=0)
        time.sleep(0.3)
        late = replace(given, version=2, expires=time.time() + 60)
        assert refused(store, late, expect=1).record is None
        assert store.load(key(given)) is None

    def test_an_expired_record_makes_room(self, store: Store) -> None:
        """What is absent does not stand in the way of a new record."""
        given = record(expires=time.time() + 0.2)
        store.save(given, expect=0)
        time.sleep(0.3)
        again = replace(given, expires=time.time() + 60)
        store.save(again, expect=0)
        assert store.load(key(given)) == stored(again)

    def test_only_one_of_many_writers_wins(self, store: Store, twin: Store) -> None:
        """Of eight saves from one version, seven are refused."""
        given = record()
        store.save(given, expect=0)

        def save(number: int) -> bool:
            mine = replace(given, version=2, data=b"%d" % number)
            try:
                (store, twin)[number % 2].save(mine, expect=1)
            except Conflict:
                return False
            return True

        assert in_threads(8, save).count(True) == 1

    def test_sessions_do_not_disturb_each_other(self, store: Store) -> None:
        """What happens to one record happens to no other."""
        one, two = record("one"), record("two")
        store.save(one, expect=0)
        store.save(two, expect=0)
        store.save(replace(one, version=2, data=b"x"), expect=1)
        store.delete(one)
        assert store.load(key(two)) == stored(two)

    # -- touching ----------------------------------------------------------------------

    def test_touch_moves_the_clock_only(self, store: Store, twin: Store) -> None:
        """The clocks move, the version and the data stay."""
        given = record()
        store.save(given, expect=0)
        later = replace(
            given,
            data=b"not written",
            accessed=given.accessed + 60,
            expires=given.expires + 60,
        )
        assert store.touch(later) == given.token
        assert twin.load(key(given)) == stored(replace(later, data=given.data))

    def test_touch_brings_nothing_back(self, store: Store) -> None:
        """A record that is gone stays gone."""
        given = record()
        store.touch(given)
        assert store.load(key(given)) is None
        store.save(given, expect=0)
        store.delete(given)
        store.touch(given)
        assert store.load(key(given)) is None

    def test_touch_leaves_a_newer_version_alone(self, store: Store) -> None:
        """Whoever saved meanwhile has the last word on the expiry."""
        given = record()
        store.save(given, expect=0)
        newer = replace(given, version=2, expires=given.expires - 1800)
        store.save(newer, expect=1)
        store.touch(replace(given, expires=given.expires + 60))
        assert store.load(key(given)) == stored(newer)

    # -- deleting ----------------------------------------------------------------------

    def test_delete_is_idempotent(self, store: Store) -> None:
        """Deleting what is not there is no error."""
        given = record()
        store.delete(given)
        store.save(given, expect=0)
        store.delete(given)
        store.delete(given)
        assert store.load(key(given)) is None


class LockingStoreSuite(StoreSuite):
    """What a store must do that can lock."""

    @pytest.fixture
    def crowded(self) -> Any:
        """A store that lets 2 wait (``lock_waiters=2``); override it."""
        pytest.skip("give a fixture named crowded: a store with lock_waiters=2")

    def test_can_lock(self, store: LockingStore) -> None:
        """It has the two methods."""
        assert isinstance(store, LockingStore)

    def test_lock_loads(self, store: LockingStore) -> None:
        """Locking gives the record as it is, and a lease on it."""
        given = record()
        store.save(given, expect=0)
        locked = store.lock(key(given), wait=1, lease=5)
        assert locked is not None
        assert stored(locked) == stored(given)
        assert locked.lease is not None

    def test_nothing_to_lock(self, store: LockingStore) -> None:
        """Where there is no record there is no lock, and nobody waits."""
        given = record()
        assert store.lock(key(given), wait=1, lease=5) is None
        store.save(given, expect=0)
        assert store.lock(key(given), wait=0.1, lease=5) is not None

    def test_a_record_that_is_not_live_is_not_locked(self, store: LockingStore) -> None:
        """A pointer is given as it is, without a lease."""
        moved = record("old", state="moved", successor=record("new").id)
        store.save(moved, expect=0)
        for _ in range(2):
            locked = store.lock(key(moved), wait=0.1, lease=5)
            assert locked is not None
            assert locked.lease is None
            assert locked.state == "moved"

    def test_readers_pass_a_lock(self, store: LockingStore, twin: LockingStore) -> None:
        """A reader gets the record at once while another holds it."""
        given = record()
        store.save(given, expect=0)
        store.lock(key(given), wait=1, lease=LEASE)
        began = time.monotonic()
        assert twin.load(key(given)) == stored(given)
        assert time.monotonic() - began < PATIENCE

    def test_a_second_locker_waits_in_vain(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """While the lease is live, LockTimeout comes after the wait."""
        given = record()
        store.save(given, expect=0)
        store.lock(key(given), wait=1, lease=LEASE)
        began = time.monotonic()
        with pytest.raises(LockTimeout) as caught:
            twin.lock(key(given), wait=0.2, lease=30)
        assert 0.15 < time.monotonic() - began < PATIENCE
        assert caught.value.id == given.id

    @pytest.mark.parametrize("how", ["save", "touch", "unlock", "delete"])
    def test_the_lock_is_handed_over(
        self, store: LockingStore, twin: LockingStore, how: str
    ) -> None:
        """Save, touch, unlock and delete each let the next one in, in time."""
        given = record()
        store.save(given, expect=0)
        mine = store.lock(key(given), wait=1, lease=LEASE)
        assert mine is not None
        with ThreadPoolExecutor(1) as pool:
            next_one = pool.submit(twin.lock, key(given), wait=30, lease=30)
            time.sleep(0.1)
            assert not next_one.done()
            match how:
                case "save":
                    store.save(replace(mine, version=2), expect=1)
                case "touch":
                    store.touch(mine)
                case "unlock":
                    store.unlock(mine)
                case _:
                    store.delete(mine)
            theirs = next_one.result(timeout=PATIENCE)
        if how == "delete":
            assert theirs is None
        else:
            assert theirs is not None
            assert theirs.version == (2 if how == "save" else 1)

    def test_a_live_lease_shuts_other_writers_out(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """Also a writer that never asked for a lock is refused, and told what is."""
        given = record()
        store.save(given, expect=0)
        mine = store.lock(key(given), wait=1, lease=LEASE)
        assert mine is not None
        late = replace(given, version=2, data=b"slipped in")
        assert refused(twin, late, expect=1).record == stored(given)
        store.save(replace(mine, version=2, data=b"mine"), expect=1)
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == b"mine"

    def test_another_may_touch(self, store: LockingStore, twin: LockingStore) -> None:
        """A reader's touch moves the clock, and neither needs nor ends the lease."""
        given = record()
        store.save(given, expect=0)
        mine = store.lock(key(given), wait=1, lease=LEASE)
        assert mine is not None
        later = replace(given, expires=given.expires + 60)
        twin.touch(later)
        assert twin.load(key(given)) == stored(later)
        with pytest.raises(LockTimeout):
            twin.lock(key(given), wait=0.05, lease=30)
        store.save(replace(mine, version=2), expect=1)

    def test_an_end_wins_at_once(self, store: LockingStore, twin: LockingStore) -> None:
        """A delete does not ask whose lease it is, and the holder's save is refused."""
        given = record()
        store.save(given, expect=0)
        mine = store.lock(key(given), wait=1, lease=LEASE)
        assert mine is not None
        twin.delete(given)
        assert refused(store, replace(mine, version=2), expect=1).record is None
        assert store.load(key(given)) is None

    def test_a_lease_ends_by_itself(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """A holder that never comes back holds nobody up beyond the lease."""
        given = record()
        store.save(given, expect=0)
        store.lock(key(given), wait=1, lease=0.3)
        assert twin.lock(key(given), wait=PATIENCE, lease=30) is not None

    def test_who_overran_the_lease_cannot_overwrite(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """The late save is refused, before the successor saved and after."""
        given = record()
        store.save(given, expect=0)
        late = store.lock(key(given), wait=1, lease=0.2)
        assert late is not None
        theirs = twin.lock(key(given), wait=PATIENCE, lease=30)
        assert theirs is not None
        refused(store, replace(late, version=2, data=b"late"), expect=1)
        twin.save(replace(theirs, version=2, data=b"theirs"), expect=1)
        refused(store, replace(late, version=2, data=b"late"), expect=1)
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == b"theirs"

    def test_who_overran_unseen_may_still_save(self, store: LockingStore) -> None:
        """If nobody came meanwhile, the version is right and nothing was lost."""
        given = record()
        store.save(given, expect=0)
        mine = store.lock(key(given), wait=1, lease=0.1)
        assert mine is not None
        time.sleep(0.2)
        store.save(replace(mine, version=2), expect=1)

    @pytest.mark.parametrize("how", ["touch", "unlock"])
    def test_who_overran_cannot_end_the_successors_lease(
        self, store: LockingStore, twin: LockingStore, how: str
    ) -> None:
        """A late touch or unlock leaves a lease alone that is another's."""
        given = record()
        store.save(given, expect=0)
        late = store.lock(key(given), wait=1, lease=0.1)
        assert late is not None
        twin.lock(key(given), wait=PATIENCE, lease=LEASE)
        getattr(store, how)(late)
        with pytest.raises(LockTimeout):
            store.lock(key(given), wait=0.1, lease=30)

    def test_a_refused_save_ends_the_lease(self, store: LockingStore) -> None:
        """Whoever is refused with a lease of its own does not stay in the way."""
        given = record()
        store.save(given, expect=0)
        mine = store.lock(key(given), wait=1, lease=LEASE)
        assert mine is not None
        refused(store, replace(mine, version=8), expect=7)
        assert store.lock(key(given), wait=PATIENCE, lease=30) is not None

    def test_a_lease_is_ended_from_another_thread(self, store: LockingStore) -> None:
        """WSGI may close a response on another thread than the one that began it."""
        given = record()
        store.save(given, expect=0)
        mine = store.lock(key(given), wait=1, lease=LEASE)
        assert mine is not None
        with ThreadPoolExecutor(1) as pool:
            pool.submit(store.unlock, mine).result()
        assert store.lock(key(given), wait=PATIENCE, lease=30) is not None

    def test_a_crowd_is_sent_away(self, crowded: LockingStore) -> None:
        """Where two wait already, a third is refused without waiting."""
        given = record()
        crowded.save(given, expect=0)
        mine = crowded.lock(key(given), wait=1, lease=LEASE)
        assert mine is not None

        def get_in_line() -> Record | None:
            while True:
                try:
                    return crowded.lock(key(given), wait=30, lease=30)
                except LockTimeout as error:
                    if error.waiters is None:
                        raise

        def ask(wait: float) -> LockTimeout:
            with pytest.raises(LockTimeout) as caught:
                crowded.lock(key(given), wait=wait, lease=30)
            return caught.value

        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(get_in_line) for _ in range(2)]
            try:
                began = time.monotonic()
                while ask(0.01).waiters is None:
                    assert time.monotonic() - began < PATIENCE
                    time.sleep(0.05)
                began = time.monotonic()
                third = ask(30)
                assert time.monotonic() - began < PATIENCE
                assert third.waiters == 2
            finally:
                crowded.delete(mine)
            assert [each.result(timeout=PATIENCE) for each in waiting] == [None, None]

    def test_locked_increments_are_all_kept(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """Eight threads, 25 locked increments each: 200."""
        given = record(data=b"0")
        store.save(given, expect=0)

        def increment(number: int) -> None:
            mine = (store, twin)[number % 2]
            for _ in range(25):
                held = mine.lock(key(given), wait=LEASE, lease=LEASE)
                assert held is not None
                count = b"%d" % (int(held.data) + 1)
                mine.save(
                    replace(held, data=count, version=held.version + 1),
                    expect=held.version,
                )

        in_threads(8, increment)
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == b"200"

    def test_compared_and_locked_increments_are_all_kept(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """Four that lock beside four that only compare: 100."""
        given = record(data=b"0")
        store.save(given, expect=0)

        def take(mine: LockingStore, number: int) -> Record | None:
            if number < 4:
                return mine.lock(key(given), wait=LEASE, lease=LEASE)
            return mine.load(key(given))

        def increment(number: int) -> None:
            mine = (store, twin)[number % 2]
            done = 0
            while done < (20 if number < 4 else 5):
                held = take(mine, number)
                assert held is not None
                count = b"%d" % (int(held.data) + 1)
                try:
                    mine.save(
                        replace(held, data=count, version=held.version + 1),
                        expect=held.version,
                    )
                    done += 1
                except Conflict:
                    time.sleep(0.002)

        in_threads(8, increment)
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == b"100"

    def test_a_blind_store_is_found_out(self, store: LockingStore) -> None:
        """The positive control: with the comparison taken out, increments are lost."""
        given = record(data=b"0")
        store.save(given, expect=0)
        blind = BlindStore(store)
        both_read = threading.Barrier(2)

        def increment(_: int) -> None:
            held = blind.load(key(given))
            assert held is not None
            both_read.wait()
            count = b"%d" % (int(held.data) + 1)
            blind.save(replace(held, data=count), expect=held.version)

        in_threads(2, increment)
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == b"1"


class IterableStoreSuite:
    """What a store must do that can be walked through and swept."""

    @pytest.fixture
    def store(self) -> Any:
        raise NotImplementedError("give a fixture named store")

    def test_can_be_walked(self, store: IterableStore) -> None:
        """It has the two methods."""
        assert isinstance(store, IterableStore)

    def test_all_live_records_are_seen(self, store: IterableStore) -> None:
        """Each once; neither expired ones nor pointers and tombstones."""
        alive = [record(f"r{number}", user="ann") for number in range(30)]
        others = [
            record("late", user="ann", expires=time.time() + 0.2),
            record("moved", user="ann", state="moved", successor=alive[0].id),
            record("dead", user="ann", state="ended"),
        ]
        for each in alive + others:
            store.save(each, expect=0)
        time.sleep(0.3)
        expected = {each.id: stored(each) for each in alive}
        for seen in (list(store.records()), list(store.records(user="ann"))):
            assert len(seen) == len(expected)
            assert {each.id: each for each in seen} == expected

    def test_records_of_one_user(self, store: IterableStore) -> None:
        """Only those, also after a record changed hands."""
        mine, other = record("mine", user="ann"), record("other", user="bob")
        nobody = record("nobody")
        for each in (mine, other, nobody):
            store.save(each, expect=0)
        assert [each.id for each in store.records(user="ann")] == [mine.id]
        store.save(replace(nobody, version=2, user="ann"), expect=1)
        store.save(replace(mine, version=2, user="bob"), expect=1)
        assert [each.id for each in store.records(user="ann")] == [nobody.id]
        ids = sorted(each.id for each in store.records(user="bob"))
        assert ids == sorted([mine.id, other.id])
        store.delete(other)
        assert [each.id for each in store.records(user="bob")] == [mine.id]
        assert list(store.records(user="an")) == []
        assert list(store.records(user="*")) == []

    def test_deleting_while_walking(self, store: IterableStore) -> None:
        """The caller may delete what it is given."""
        for number in range(40):
            store.save(record(f"r{number}", user="ann"), expect=0)

        def walk(records: Iterator[Record]) -> int:
            count = 0
            for each in records:
                store.delete(each)
                count += 1
            return count

        assert walk(store.records(user="ann")) == 40
        assert list(store.records()) == []

    def test_expired_records_are_swept(self, store: IterableStore) -> None:
        """Only they, in batches, until 0 says that it is done."""
        alive = record("alive")
        store.save(alive, expect=0)
        for number in range(25):
            store.save(record(f"r{number}", expires=time.time() + 0.3), expect=0)
        time.sleep(0.4)
        while (swept := store.delete_expired(batch=10)) != 0:
            assert swept <= 10
        assert [each.id for each in store.records()] == [alive.id]
        assert store.delete_expired(batch=10) == 0

    def test_a_renewed_record_is_not_swept(self, store: IterableStore) -> None:
        """What was touched in time stays."""
        life, in_time = 0.3, False
        while not in_time:
            given = record(f"of {life} s", expires=time.time() + life)
            store.save(given, expect=0)
            store.touch(replace(given, expires=time.time() + 3600))
            in_time, life = time.time() < given.expires, life * 3
        time.sleep(max(given.expires + 0.1 - time.time(), 0))
        store.delete_expired(batch=10)
        assert store.load(key(given)) is not None


class TokenStoreSuite:
    """What a store must do whose token is the record."""

    @pytest.fixture
    def store(self) -> Any:
        raise NotImplementedError("give a fixture named store")

    @pytest.fixture
    def twin(self, store: Store) -> Store:
        """The same store in another process."""
        return store

    def test_promises_no_more_than_it_can(self, store: Store) -> None:
        """It has the four methods and ``max_token``, and neither lock nor records."""
        assert isinstance(store, TokenStore)
        assert not isinstance(store, (LockingStore, IterableStore))

    def test_what_was_issued_comes_back(self, store: TokenStore, twin: Store) -> None:
        """The token alone leads to every field of the record as it was written."""
        given = record(
            data=bytes(range(256)), user="ann\u00e9 \u4e2d 'x' :*?[", version=7
        )
        token = store.save(given, expect=6)
        assert token is not None
        assert len(token) <= store.max_token
        assert twin.load(Key(id_for(token), token)) == stored(given)

    def test_without_its_token_nothing_is_found(self, store: Store) -> None:
        """An id leads nowhere, and neither does a token of another kind."""
        given = record()
        store.save(given, expect=0)
        assert store.load(Key(given.id)) is None
        assert store.load(key(given)) is None

    @pytest.mark.parametrize(
        "token", ["", ".", "\x00", "x" * 9999, "%s", "é", "\ud800"]
    )
    def test_a_malformed_token_is_none(self, store: Store, token: str) -> None:
        """Whatever somebody sends, it is unknown, and no error."""
        assert store.load(Key(id_for(token), token)) is None

    def test_expired_is_none(self, store: Store) -> None:
        """A record whose time is over is absent, and nothing brings it back."""
        token = store.save(record(expires=time.time() + 0.2), expect=0)
        time.sleep(0.3)
        assert store.load(Key("", token)) is None

    def test_touch_moves_the_clock(self, store: Store, twin: Store) -> None:
        """It gives a new token, which leads to the same record with other clocks."""
        given = record()
        store.save(given, expect=0)
        later = replace(given, accessed=given.accessed + 60, expires=given.expires + 60)
        assert twin.load(Key("", store.touch(later))) == stored(later)

    def test_savers_cannot_see_each_other(self, store: Store) -> None:
        """The limit of what a client holds: of two saves both are good."""
        first = record()
        store.save(first, expect=0)
        for number in (2, 3):
            mine = replace(first, version=2, data=b"%d" % number)
            assert store.load(Key("", store.save(mine, expect=1))) == stored(mine)

    def test_delete_is_idempotent(self, store: Store) -> None:
        """Deleting what is not there is no error."""
        given = record()
        store.delete(given)
        store.save(given, expect=0)
        store.delete(given)
        store.delete(given)
