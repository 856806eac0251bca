"""What a store must do whose records can be listed and swept.

It knows the protocol and no store.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from ..errors import VersionConflict
from ..record import Record
from ..store import IterableStore, Store
from ._records import USERS, expired_in, in_threads, key, newer, record, stored


class IterableStoreSuite:
    """What a store must do whose records can be listed and swept."""

    @pytest.fixture
    def store(self) -> Any:
        """The store to be tested; the class that inherits this one gives it."""
        raise NotImplementedError("give a fixture named store")

    def test_can_list(self, store: IterableStore) -> None:
        """It has the two methods, and says so."""
        assert isinstance(store, IterableStore)
        assert store.capabilities.lists

    def test_all_records_are_seen(self, store: IterableStore) -> None:
        """Each once and as it was written, but for those that have expired."""
        alive = [record(f"r{number}", user="ann") for number in range(30)]
        for each in alive:
            store.save(each, expect=0)
        expired_in(store, user="ann")
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
        assert ids(store, "ann") == [mine.id]
        store.save(newer(nobody, user="ann"), expect=nobody.version)
        store.save(newer(mine, user="bob"), expect=mine.version)
        assert ids(store, "ann") == [nobody.id]
        assert ids(store, "bob") == sorted([mine.id, other.id])
        store.delete(key(other))
        assert ids(store, "bob") == [mine.id]
        assert ids(store, "") == []

    def test_users_are_compared_exactly(self, store: IterableStore) -> None:
        """Neither case nor accents nor blanks nor patterns are overlooked."""
        for user in USERS:
            store.save(record(f"of {user}", user=user), expect=0)
        for user in USERS:
            assert [each.user for each in store.records(user=user)] == [user]

    def test_deleting_while_walking(self, store: IterableStore) -> None:
        """The caller may delete what it is given."""
        for number in range(40):
            store.save(record(f"r{number}", user="ann"), expect=0)
        deleted = [store.delete(key(each)) for each in store.records(user="ann")]
        assert deleted == [True] * 40
        assert list(store.records()) == []

    def test_saving_while_walking(self, store: IterableStore) -> None:
        """The caller may save what it is given; each is seen, and there is an end."""
        for number in range(40):
            store.save(record(f"r{number}", user="ann"), expect=0)
        seen = set()
        for each in itertools.islice(store.records(user="ann"), 400):
            current = store.load(key(each))
            assert current is not None
            store.save(newer(current, data=b"seen"), expect=current.version)
            seen.add(each.id)
        assert len(seen) == 40
        assert [each.data for each in store.records()] == [b"seen"] * 40

    def test_expired_records_are_swept(self, store: IterableStore) -> None:
        """Only they, in batches, until 0 says that it is done."""
        alive = record("alive")
        store.save(alive, expect=0)
        for number in range(25):
            store.save(record(f"r{number}", expires=time.time() + 0.3), expect=0)
        time.sleep(0.4)
        while (swept := store.delete_expired(batch=10)) != 0:
            assert swept <= 10
        assert list(store.records()) == [stored(alive)]
        assert store.delete_expired(batch=10) == 0

    @pytest.mark.parametrize("how", ["touch", "save", "insert"])
    def test_a_renewed_record_is_not_swept(
        self, store: IterableStore, how: str
    ) -> None:
        """What was touched or saved in time stays, and what began anew."""

        def renew(given: Record) -> None:
            later = given._replace(expires=time.time() + 3600)
            match how:
                case "touch":
                    store.touch(later)
                case "save":
                    store.save(newer(later), expect=given.version)
                case _:
                    store.delete(key(given))
                    store.save(newer(later), expect=0)

        given = renewed_in_time(store, renew)
        time.sleep(max(given.expires + 0.1 - time.time(), 0))
        store.delete_expired(batch=10)
        assert store.load(key(given)) is not None

    def test_sweeps_beside_each_other(self, store: IterableStore) -> None:
        """Two at once are no error, and leave nothing over."""
        for number in range(20):
            store.save(record(f"r{number}", expires=time.time() + 0.2), expect=0)
        time.sleep(0.3)

        def sweep(_: int) -> None:
            while store.delete_expired(batch=3):
                pass

        in_threads(2, sweep)
        assert list(store.records()) == []
        assert store.delete_expired(batch=3) == 0


def renewed_in_time(store: Store, renew: Callable[[Record], None]) -> Record:
    """A short-lived record that was renewed before it expired, as it was before."""
    life = 0.3
    while True:
        given = record(f"of {life} s", expires=time.time() + life)
        store.save(given, expect=0)
        try:
            renew(given)
        except VersionConflict:
            assert time.time() >= given.expires
        if time.time() < given.expires:
            return given
        life *= 3


def ids(store: IterableStore, user: str) -> list[str]:
    """The ids of the records of a user, sorted."""
    return sorted(each.id for each in store.records(user=user))
