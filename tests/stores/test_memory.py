"""The memory store keeps the contract, is fair, and sweeps what is due."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from wsgisession.errors import LockTimeout
from wsgisession.record import Key, Record
from wsgisession.stores.memory import MemoryStore
from wsgisession.testing import (
    IterableStoreSuite,
    LockingStoreSuite,
    key,
    newer,
    record,
)

PATIENCE = 15.0


class TestMemoryStore(LockingStoreSuite, IterableStoreSuite):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class Clock:
    """Time for the store, which passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_700_000_000.0
        monkeypatch.setattr(time, "time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def taken(store: MemoryStore, given: Record, *, lease: float = 60.0) -> Record:
    """The record with its lock."""
    locked = store.lock(key(given), wait=PATIENCE, lease=lease, waiters=50)
    assert locked is not None
    assert locked.lease is not None
    return locked


class Line:
    """Requests that wait for the lock of one session, and the order they got it in."""

    def __init__(self, store: MemoryStore, given: Record, *, ahead: int = 0) -> None:
        self.store, self.given, self.ahead = store, given, ahead
        self.served: list[int] = []
        self.threads: list[threading.Thread] = []

    def join(self) -> None:
        """One more, and return when it waits; the lock must be taken."""
        number = len(self.threads)

        def wait() -> None:
            mine = taken(self.store, self.given)
            self.served.append(number)
            self.store.unlock(mine)

        self.threads.append(threading.Thread(target=wait))
        self.threads[-1].start()
        until = time.monotonic() + PATIENCE
        while self.waiting() < self.ahead + number + 1:
            assert time.monotonic() < until

    def waiting(self) -> int:
        """How many wait if the line is complete, else 0."""
        limit = self.ahead + len(self.threads)
        with pytest.raises(LockTimeout) as caught:
            self.store.lock(key(self.given), wait=0, lease=1, waiters=limit)
        return caught.value.waiters or 0

    def served_all(self) -> list[int]:
        for thread in self.threads:
            thread.join(PATIENCE)
        return self.served


class TestFairness:
    """No request is overtaken by one that came later."""

    @pytest.mark.parametrize("how", ["unlock", "run out"])
    def test_the_lock_is_given_in_order(self, clock: Clock, how: str) -> None:
        """Twelve wait, and are served as they came, however the lease ended."""
        store, given = MemoryStore(), record(expires=clock.now + 3600)
        store.save(given, expect=0)
        mine = taken(store, given, lease=0.5)
        line = Line(store, given)
        for _ in range(12):
            line.join()
        if how == "unlock":
            store.unlock(mine)
        else:
            clock.now += 1
        assert line.served_all() == list(range(12))

    def test_one_that_comes_now_stands_behind(self, clock: Clock) -> None:
        """Also while the lock is free and the first of the queue has not woken up."""
        store, given = MemoryStore(), record(expires=clock.now + 3600)
        store.save(given, expect=0)
        mine = taken(store, given)
        line = Line(store, given)
        line.join()
        clock.now += 61  # the lease is over, and no waiter looks for a minute
        with pytest.raises(LockTimeout):
            store.lock(key(given), wait=0, lease=60, waiters=50)
        store.unlock(mine)
        assert line.served_all() == [0]

    def test_one_that_gives_up_lets_the_next_move_up(self, clock: Clock) -> None:
        """The new first of the queue notices when the lease runs out."""
        store, given = MemoryStore(), record(expires=clock.now + 3600)
        store.save(given, expect=0)
        taken(store, given, lease=0.5)
        with ThreadPoolExecutor(1) as pool:
            impatient = pool.submit(
                store.lock, key(given), wait=2, lease=60, waiters=50
            )
            line = Line(store, given, ahead=1)
            line.join()
            with pytest.raises(LockTimeout):
                impatient.result(PATIENCE)
        clock.now += 1
        assert line.served_all() == [0]

    def test_those_that_cannot_have_it_hold_nobody_up(self) -> None:
        """A deleted session answers all that wait for it."""
        store, given = MemoryStore(), record()
        store.save(given, expect=0)
        taken(store, given)

        def ask(_: int) -> Record | None:
            return store.lock(key(given), wait=60, lease=60, waiters=50)

        with ThreadPoolExecutor(5) as pool:
            asked = [pool.submit(ask, number) for number in range(5)]
            time.sleep(0.1)
            store.delete(key(given))
            assert [each.result(PATIENCE) for each in asked] == [None] * 5


class TestSweeping:
    """What is due is found without looking at the rest."""

    def test_a_sweep_looks_at_what_is_due_only(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Counted: 1,000 of 3,000 records in batches of 10 are 1,000 looks."""
        looked: list[str] = []

        class Watched(dict[str, Record]):
            def __getitem__(self, id: str) -> Record:
                looked.append(id)
                return super().__getitem__(id)

            def __iter__(self):  # type: ignore[no-untyped-def]
                looked.extend(super().__iter__())
                return super().__iter__()

            def items(self):  # type: ignore[no-untyped-def]
                looked.extend(super().__iter__())
                return super().items()

        store = MemoryStore()
        monkeypatch.setattr(store, "_records", Watched())
        for number in range(3000):
            life = 60 if number % 3 == 0 else 3600
            store.save(record(f"r{number}", expires=clock.now + life), expect=0)
        clock.now += 61
        looked.clear()
        swept = 0
        while (count := store.delete_expired(batch=10)) != 0:
            assert count == 10
            swept += count
        assert swept == 1000
        assert len(looked) <= 1000
        assert len(list(store.records())) == 2000

    def test_a_touch_puts_off_and_a_save_brings_forward(self, clock: Clock) -> None:
        """Each record is swept once, at the last expiry that it was given."""
        store = MemoryStore()
        touched, shortened = record("touched"), record("shortened")
        touched = touched._replace(expires=clock.now + 60)
        shortened = shortened._replace(expires=clock.now + 3600)
        for each in (touched, shortened):
            store.save(each, expect=0)
        store.touch(touched._replace(expires=clock.now + 600))
        sooner = newer(shortened, expires=clock.now + 60)
        store.save(sooner, expect=shortened.version)
        clock.now += 61
        assert store.delete_expired(batch=10) == 1
        assert [each.id for each in store.records()] == [touched.id]
        clock.now += 540
        assert store.delete_expired(batch=10) == 1
        clock.now += 3600
        assert store.delete_expired(batch=10) == 0

    def test_an_expiry_that_goes_up_and_down_takes_no_room(self, clock: Clock) -> None:
        """A thousand changes of one expiry leave no thousand entries."""
        store, given = MemoryStore(), record(expires=clock.now + 3600)
        store.save(given, expect=0)
        for number in range(1000):
            after = newer(given, expires=clock.now + 60 + number % 2 * 3600)
            store.save(after, expect=given.version)
            given = after
        assert len(store._agenda._heap) < 10

    def test_sessions_that_end_early_take_no_room(self, clock: Clock) -> None:
        """A thousand logouts leave no thousand entries until their time comes."""
        store = MemoryStore()
        for number in range(1000):
            given = record(f"r{number}", expires=clock.now + 3600)
            store.save(given, expect=0)
            store.delete(key(given))
        assert len(store._agenda._heap) < 200

    def test_nothing_is_left_of_a_session(self, clock: Clock) -> None:
        """Neither lock nor queue nor entry outlives it, however it ends."""
        store = MemoryStore()
        for how in ("delete", "sweep"):
            given = record(how, expires=clock.now + 60, user="ann")
            store.save(given, expect=0)
            taken(store, given)
            with pytest.raises(LockTimeout):
                store.lock(Key(given.id), wait=0, lease=60, waiters=1)
            with pytest.raises(LockTimeout):
                store.lock(Key(given.id), wait=0, lease=60, waiters=0)
            if how == "delete":
                store.delete(key(given))
        clock.now += 61
        assert store.delete_expired(batch=10) == 1
        assert not store._records
        assert not store._leases
        assert not store._queues
        assert not store._agenda._entries
        assert not store._of_users


class TestUsers:
    """What a user has is found without looking at the rest."""

    def test_only_the_records_of_the_user_are_looked_at(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looked: list[str] = []

        class Watched(dict[str, Record]):
            def get(self, id: str, default: Record | None = None) -> Record | None:  # type: ignore[override]
                looked.append(id)
                return super().get(id, default)

        store = MemoryStore()
        monkeypatch.setattr(store, "_records", Watched())
        for number in range(1000):
            user = "ann" if number < 3 else f"user {number}"
            store.save(record(f"r{number}", user=user), expect=0)
        looked.clear()
        assert len(list(store.records(user="ann"))) == 3
        assert len(looked) == 3

    def test_a_record_moves_with_its_user(self) -> None:
        store, given = MemoryStore(), record()
        store.save(given, expect=0)
        for user in ("ann", "ben", None, "ann"):
            after = newer(given, user=user)
            store.save(after, expect=given.version)
            given = after
            for name in ("ann", "ben"):
                found = [each.id for each in store.records(user=name)]
                assert found == ([given.id] if name == user else [])
