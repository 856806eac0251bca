"""What a store must do that can lock.

It knows the protocol and no store.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..errors import LockTimeout, VersionConflict
from ..record import Key, Record, Replaced
from ..store import LockingStore
from ._leases import LeaseSuite
from ._records import (
    LEASE,
    PATIENCE,
    WAITERS,
    expired_in,
    in_threads,
    inserted,
    is_taken,
    key,
    newer,
    proof,
    record,
    stored,
    take,
)
from ._stores import StoreSuite


class LockingStoreSuite(LeaseSuite, StoreSuite):
    """What a store must do that can lock."""

    def test_can_lock(self, store: LockingStore) -> None:
        """It has the two methods, and says so."""
        assert isinstance(store, LockingStore)
        assert store.capabilities.locks

    # -- taking a lock -----------------------------------------------------------------

    def test_lock_loads(self, store: LockingStore, twin: LockingStore) -> None:
        """Locking gives the record as it is, and a lease on it."""
        given = inserted(
            store, user="ann", seen=3.5, replaced=(Replaced(proof("old"), 0),)
        )
        assert stored(take(twin, key(given))) == stored(given)

    def test_a_free_lock_is_given_without_waiting(self, store: LockingStore) -> None:
        """Where no request may wait there is one try."""
        given = inserted(store)
        locked = store.lock(key(given), wait=0, lease=LEASE, waiters=0)
        assert locked is not None
        assert locked.lease is not None

    def test_nothing_to_lock(self, store: LockingStore) -> None:
        """Where there is no record there is no lock."""
        given = record()
        for _ in range(2):
            assert store.lock(key(given), wait=0, lease=LEASE, waiters=0) is None
        store.save(given, expect=0)
        take(store, key(given))

    def test_what_expired_is_not_locked(self, store: LockingStore) -> None:
        """It is absent."""
        given = expired_in(store)
        assert store.lock(key(given), wait=0, lease=LEASE, waiters=0) is None

    @pytest.mark.parametrize("id", ["", "..", "\x00", "x" * 5000, "\ud800", "z" * 32])
    def test_a_malformed_id_is_not_locked(self, store: LockingStore, id: str) -> None:
        """It leads nowhere, and is no error."""
        assert store.lock(Key(id), wait=0, lease=LEASE, waiters=0) is None

    def test_who_waits_in_vain_is_told_of_the_holder(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """Who it is and for how long, where the store tells; never anything wrong."""
        given = inserted(store)
        for by in ("POST /report", "x" * 1000, "", "a b '; -- %s {}"):
            held = store.lock(
                key(given), wait=PATIENCE, lease=LEASE, waiters=WAITERS, by=by
            )
            assert held is not None
            with pytest.raises(LockTimeout) as caught:
                twin.lock(key(given), wait=0.05, lease=LEASE, waiters=WAITERS)
            error = caught.value
            if error.held_for is not None:
                assert 0 <= error.held_for < PATIENCE
                assert by.startswith(error.held_by or "")
            store.unlock(held)

    # -- whose lock it is --------------------------------------------------------------

    @pytest.mark.parametrize("until", [None, 3600.0])
    def test_a_proof_that_is_good_is_given_the_lock(
        self, store: LockingStore, until: float | None
    ) -> None:
        """The current one, one from before that is still good, and administration."""
        before = Replaced(
            proof("before"), None if until is None else time.time() + until
        )
        given = inserted(store, replaced=(Replaced(proof("first"), 0), before))
        for shown in (given.proof, before.proof, None):
            store.unlock(take(store, Key(given.id, shown)))

    @pytest.mark.parametrize("shown", [proof("wrong"), ""])
    def test_an_unknown_proof_is_given_no_lock(
        self, store: LockingStore, twin: LockingStore, shown: str
    ) -> None:
        """It is answered without a lease and without waiting, the lock free or taken."""
        given = inserted(store, replaced=(Replaced(proof("before"), None),))
        stranger = Key(given.id, shown)
        for _ in range(2):
            answer = twin.lock(stranger, wait=0, lease=LEASE, waiters=0)
            assert answer == stored(given)
        mine = take(store, key(given))
        assert twin.lock(stranger, wait=30, lease=LEASE, waiters=0) == stored(given)
        assert is_taken(twin, key(given))
        store.save(newer(mine), expect=given.version)

    @pytest.mark.parametrize("ago", [None, 1.0])
    def test_a_proof_that_is_over_joins_no_queue(
        self, store: LockingStore, twin: LockingStore, ago: float | None
    ) -> None:
        """Ended or out of time: while the lock is taken the record comes at once.

        A lease is allowed where the lock is free, because the caller gives it back.
        """
        over = Replaced(proof("before"), 0 if ago is None else time.time() - ago)
        given = inserted(store, replaced=(over, Replaced(proof("other"), None)))
        answer = twin.lock(Key(given.id, over.proof), wait=0, lease=LEASE, waiters=0)
        assert answer is not None
        assert stored(answer) == stored(given)
        twin.unlock(answer)
        take(store, key(given))
        answer = twin.lock(Key(given.id, over.proof), wait=30, lease=LEASE, waiters=0)
        assert answer == stored(given)

    def test_a_proof_runs_out_of_time(self, store: LockingStore) -> None:
        """It is good until its moment, and then it joins no queue."""
        before = Replaced(proof("before"), time.time() + 1.5)
        given = inserted(store, replaced=(before,))
        shown = Key(given.id, before.proof)
        answer = store.lock(shown, wait=0, lease=LEASE, waiters=0)
        assert answer is not None
        assert answer.lease is not None or time.time() >= (before.until or 0)
        store.unlock(answer)
        time.sleep(max((before.until or 0) + 0.1 - time.time(), 0))
        take(store, key(given))
        assert store.lock(shown, wait=0, lease=LEASE, waiters=0) == stored(given)

    @pytest.mark.parametrize("until", ["unknown", "ended", "good"])
    def test_a_proof_is_judged_after_the_wait(
        self, store: LockingStore, twin: LockingStore, until: str
    ) -> None:
        """A token changed while a request waited; the next in the queue gets the lock."""
        given = inserted(store)
        mine = take(store, key(given))
        replaced = {
            "unknown": (),
            "ended": (Replaced(given.proof, 0),),
            "good": (Replaced(given.proof, None),),
        }[until]
        after = newer(mine, proof=proof("after"), replaced=replaced)

        def ask(shown: str | None) -> Record | None:
            answer = twin.lock(
                Key(given.id, shown), wait=30, lease=LEASE, waiters=WAITERS
            )
            if answer is not None:
                twin.unlock(answer)
            return answer

        with ThreadPoolExecutor(2) as pool:
            old = pool.submit(ask, given.proof)
            time.sleep(0.1)
            administration = pool.submit(ask, None)
            time.sleep(0.1)
            assert not old.done()
            store.save(after, expect=given.version)
            answer = old.result(timeout=PATIENCE)
            served = administration.result(timeout=PATIENCE)
        assert answer is not None
        assert served is not None
        assert stored(answer) == stored(served) == stored(after)
        assert served.lease is not None
        if until != "ended":  # there a lease is allowed, and was given back
            assert (answer.lease is not None) == (until == "good")
        assert not is_taken(store, key(after))

    # -- many at once ------------------------------------------------------------------

    def test_where_nobody_may_wait(self, store: LockingStore) -> None:
        """With waiters=0 a lock that is taken is refused at once."""
        given = inserted(store)
        take(store, key(given))
        began = time.monotonic()
        with pytest.raises(LockTimeout) as caught:
            store.lock(key(given), wait=30, lease=LEASE, waiters=0)
        assert time.monotonic() - began < PATIENCE
        assert caught.value.waiters == 0

    def test_a_crowd_is_sent_away(self, store: LockingStore) -> None:
        """Where two wait already, a third is refused without waiting."""
        given = inserted(store)
        mine = take(store, key(given))

        def get_in_line() -> Record | None:
            while True:
                try:
                    return store.lock(key(given), wait=30, lease=30, waiters=2)
                except LockTimeout as error:
                    if error.waiters is None:
                        raise

        def ask(wait: float) -> LockTimeout:
            with pytest.raises(LockTimeout) as caught:
                store.lock(key(given), wait=wait, lease=30, waiters=2)
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
                store.delete(key(mine))
            assert [each.result(timeout=PATIENCE) for each in waiting] == [None, None]

    def test_a_crowd_that_gave_up_is_not_counted(self, store: LockingStore) -> None:
        """Who waited in vain makes room for the next."""
        given = inserted(store)
        take(store, key(given))
        for _ in range(3):
            with pytest.raises(LockTimeout) as caught:
                store.lock(key(given), wait=0.05, lease=30, waiters=1)
            assert caught.value.waiters is None

    def test_locked_increments_are_all_kept(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """Eight threads, 25 locked increments each: 200."""
        given = inserted(store, data=b"0")

        def increment(number: int) -> None:
            mine = (store, twin)[number % 2]
            for _ in range(25):
                held = take(mine, key(given), wait=LEASE)
                count = b"%d" % (int(held.data) + 1)
                mine.save(newer(held, data=count), expect=held.version)

        in_threads(8, increment)
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == b"200"

    def test_compared_and_locked_increments_are_all_kept(
        self, store: LockingStore, twin: LockingStore
    ) -> None:
        """Four that lock beside four that only compare: 100."""
        given = inserted(store, data=b"0")

        def increment(number: int) -> None:
            mine, done = (store, twin)[number % 2], 0
            while done < (20 if number < 4 else 5):
                if number < 4:
                    held: Record | None = take(mine, key(given), wait=LEASE)
                else:
                    held = mine.load(key(given))
                assert held is not None
                count = b"%d" % (int(held.data) + 1)
                try:
                    mine.save(newer(held, data=count), expect=held.version)
                    done += 1
                except VersionConflict:
                    time.sleep(0.002)

        in_threads(8, increment)
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == b"100"
