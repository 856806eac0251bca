"""What a lease is good for, and how it ends: a part of ``LockingStoreSuite``.

It knows the protocol and no store.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..errors import LockTimeout
from ..store import IterableStore, LockingStore
from ._records import (
    LEASE,
    PATIENCE,
    WAITERS,
    inserted,
    is_taken,
    key,
    newer,
    outlive,
    refused,
    stored,
    take,
)


class LeaseSuite:
    """What a lease is good for, and how it ends."""

    # -- what a lock means -------------------------------------------------------------

    def test_readers_pass_a_lock(self, store: LockingStore, twin: LockingStore) -> None:
        """A reader gets the record at once while another request holds it."""
        given = inserted(store)
        take(store, key(given))
        began = time.monotonic()
        assert twin.load(key(given)) == stored(given)
        assert time.monotonic() - began < PATIENCE

    def test_a_lease_is_shown_to_its_holder_only(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """No other way to a record leads to the lease on it, before a save and after."""
        given = inserted(store)
        mine = take(store, key(given))
        for _ in range(2):
            loaded = store.load(key(given))
            conflict = refused(twin, newer(given), expect=mine.version).record
            seen = [loaded, twin.load(key(given)), conflict]
            if store.capabilities.lists and isinstance(store, IterableStore):
                seen += store.records()
            assert seen == [stored(mine)] * len(seen)
            given, mine = mine, newer(mine, data=b"again")
            store.save(mine, expect=given.version)
            mine = take(store, key(given))

    def test_a_second_request_waits_in_vain(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """While the lease is live, LockTimeout comes after the wait."""
        given = inserted(store)
        take(store, key(given))
        for wait in (0, 0.2):
            began = time.monotonic()
            with pytest.raises(LockTimeout) as caught:
                twin.lock(key(given), wait=wait, lease=30, waiters=WAITERS)
            assert wait - 0.05 < time.monotonic() - began < PATIENCE
            assert caught.value.id == given.id
            assert caught.value.waiters is None

    @pytest.mark.parametrize(
        "how", ["save", "touch", "unlock", "delete", "conflict", "late touch"]
    )
    def test_the_lock_is_handed_over(
        self, store: LockingStore, twin: LockingStore, how: str
    ) -> None:
        """Whatever ends the lease lets the next one in, in time; so what is refused."""
        given = inserted(store)
        mine = take(store, key(given))
        saved = newer(mine)
        with ThreadPoolExecutor(1) as pool:
            next_one = pool.submit(
                twin.lock, key(given), wait=30, lease=30, waiters=WAITERS
            )
            time.sleep(0.1)
            assert not next_one.done()
            match how:
                case "save":
                    store.save(saved, expect=given.version)
                case "touch":
                    assert store.touch(mine) is True
                case "unlock":
                    store.unlock(mine)
                case "delete":
                    store.delete(key(mine))
                case "conflict":
                    refused(store, newer(mine), expect=saved.version)
                case _:
                    assert store.touch(saved) is False
            theirs = next_one.result(timeout=PATIENCE)
        if how == "delete":
            assert theirs is None
        else:
            assert theirs is not None
            assert theirs.lease is not None
            assert theirs.version == (saved if how == "save" else given).version

    def test_a_live_lease_shuts_other_writers_out(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """Also a writer that never asked for a lock is refused, and told what is."""
        given = inserted(store)
        mine = take(store, key(given))
        late = newer(given, data=b"slipped in")
        assert refused(twin, late, expect=given.version).record == stored(given)
        ours = newer(mine, data=b"ours")
        store.save(ours, expect=given.version)
        assert store.load(key(given)) == stored(ours)

    def test_other_requests_may_touch(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """A reader's touch moves the clock, and neither needs nor ends the lease."""
        given = inserted(store)
        mine = take(store, key(given))
        later = given._replace(expires=given.expires + 60)
        assert twin.touch(later) is True
        assert twin.load(key(given)) == stored(later)
        assert is_taken(twin, key(given))
        store.save(newer(mine), expect=given.version)

    def test_an_end_wins_at_once(self, store: LockingStore, twin: LockingStore) -> None:
        """A delete does not ask whose lease it is, and the holder's save is refused."""
        given = inserted(store)
        mine = take(store, key(given))
        assert twin.delete(key(given)) is True
        assert refused(store, newer(mine), expect=given.version).record is None
        assert store.load(key(given)) is None

    def test_a_delete_that_is_refused_ends_no_lease(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """As where the record belongs to another user."""
        given = inserted(store, user="ann")
        mine = take(store, key(given))
        assert twin.delete(key(given), user="bob") is False
        assert is_taken(twin, key(given))
        store.save(newer(mine), expect=given.version)

    @pytest.mark.parametrize("how", ["deleted", "expired"])
    def test_a_lease_ends_with_its_record(
        self, store: LockingStore, twin: LockingStore, how: str
    ) -> None:
        """A new record under the same id is free, and the old lease opens nothing."""
        given = inserted(store, expires=time.time() + (60 if how == "deleted" else 0.5))
        mine = store.lock(key(given), wait=0, lease=LEASE, waiters=0)
        if mine is None:
            assert time.time() >= given.expires
            mine = given
        if how == "deleted":
            store.delete(key(given))
        else:
            outlive(store, given)
        again = inserted(twin, expires=time.time() + 60)
        next_one = newer(again)
        twin.save(next_one, expect=again.version)
        take(twin, key(given))
        late = newer(mine, expires=time.time() + 60)
        assert refused(store, late, expect=next_one.version).record == stored(next_one)
        store.unlock(mine)
        assert is_taken(twin, key(given))

    def test_locks_do_not_disturb_each_other(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """The lock of one session is not that of another."""
        one, two = inserted(store, "one"), inserted(store, "two")
        mine = take(store, key(one))
        take(twin, key(two))
        store.unlock(mine)
        assert is_taken(store, key(two))
        assert not is_taken(twin, key(one))

    # -- leases that run out -----------------------------------------------------------

    def test_a_lease_ends_by_itself(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """A holder that never comes back holds nobody up beyond the lease."""
        given = inserted(store)
        take(store, key(given), lease=0.3)
        take(twin, key(given))

    def test_a_lease_that_ran_out_shuts_nobody_out(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """A save that never asked for a lock passes then."""
        given = inserted(store)
        take(store, key(given), lease=0.1)
        time.sleep(0.2)
        twin.save(newer(given), expect=given.version)

    def test_who_overran_the_lease_cannot_overwrite(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """The late save is refused, before the next holder saved and after."""
        given = inserted(store)
        late = take(store, key(given), lease=0.2)
        theirs = take(twin, key(given))
        refused(store, newer(late, data=b"late"), expect=given.version)
        saved = newer(theirs, data=b"theirs")
        twin.save(saved, expect=given.version)
        refused(store, newer(late, data=b"late"), expect=given.version)
        assert store.load(key(given)) == stored(saved)

    def test_who_overran_unseen_may_still_save(self, store: LockingStore) -> None:
        """Where no other request came, the version is right and nothing was lost."""
        given = inserted(store)
        mine = take(store, key(given), lease=0.1)
        time.sleep(0.2)
        store.save(newer(mine), expect=given.version)

    @pytest.mark.parametrize("how", ["touch", "unlock", "conflict"])
    def test_who_overran_cannot_end_the_next_lease(
        self, store: LockingStore, twin: LockingStore, how: str
    ) -> None:
        """A late touch, unlock or save leaves a lease alone that is not its own."""
        given = inserted(store)
        late = take(store, key(given), lease=0.1)
        take(twin, key(given))
        match how:
            case "touch":
                store.touch(late)
            case "unlock":
                store.unlock(late)
            case _:
                refused(store, newer(late), expect=given.version)
        assert is_taken(store, key(given))

    def test_an_unlock_is_idempotent(self, store: LockingStore) -> None:
        """Of what is not locked, is locked no more, or is gone."""
        given = inserted(store)
        store.unlock(given)
        mine = take(store, key(given))
        store.unlock(mine)
        store.unlock(mine)
        assert not is_taken(store, key(given))
        store.delete(key(given))
        store.unlock(mine)

    def test_a_lease_is_ended_from_another_thread(self, store: LockingStore) -> None:
        """WSGI may close a response on another thread than the one that began it."""
        given = inserted(store)
        mine = take(store, key(given))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(store.unlock, mine).result()
        take(store, key(given))
