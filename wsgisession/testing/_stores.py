"""What every store on a server must do.

It knows the protocol and no store.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from ..errors import VersionConflict
from ..record import Key, Record, Replaced
from ..store import (
    Capabilities,
    IterableStore,
    LockingStore,
    Store,
    UserEndingStore,
)
from ._records import (
    USERS,
    expired_in,
    in_threads,
    key,
    newer,
    proof,
    record,
    refused,
    stored,
)

LARGEST_VERSION = 2**63 - 1


def _touched(store: Store, given: Record) -> int:
    """Touch ten times what was loaded just before; nothing is counted."""
    for _ in range(10):
        loaded = store.load(key(given))
        assert loaded is not None
        store.touch(loaded._replace(accessed=loaded.accessed + 1))
    return 0


def _written(store: Store, given: Record, *, until: Callable[[], bool]) -> int:
    """Count up in the record, ten times and on, and say how often that was saved."""
    saved = 0
    while saved < 10 or not until():
        loaded = store.load(key(given))
        assert loaded is not None
        count = b"%d" % (int(loaded.data) + 1)
        try:
            store.save(newer(loaded, data=count), expect=loaded.version)
            saved += 1
        except VersionConflict:
            time.sleep(0.002)
    return saved


class StoreSuite:
    """What every store on a server must do."""

    @pytest.fixture
    def store(self) -> Any:
        """The store to be tested; the class that inherits this one gives it."""
        raise NotImplementedError("give a fixture named store")

    @pytest.fixture
    def twin(self, store: Store) -> Store:
        """Another client of the same storage."""
        return store

    def test_is_what_it_says(self, store: Store) -> None:
        """It has the four methods, and those that its capabilities tell of."""
        assert isinstance(store, Store)
        can = store.capabilities
        assert isinstance(can, Capabilities)
        assert can == store.capabilities
        assert can.token_octets is None
        assert isinstance(store, LockingStore) or not can.locks
        assert isinstance(store, IterableStore) or not can.lists
        assert isinstance(store, UserEndingStore) or not can.ends_users

    # -- coming back -------------------------------------------------------------------

    def test_what_was_saved_comes_back(self, store: Store, twin: Store) -> None:
        """Every stored field of a record is read as it was written."""
        given = record(
            data=bytes(range(256)) * 300,
            user="ann\u00e9 \u4e2d 'x' :*?[" * 20,
            created=1_700_000_000.25,
            accessed=1_700_000_000.123456,
        )
        store.save(given, expect=0)
        assert twin.load(key(given)) == stored(given)

    def test_fields_come_back_in_their_types(self, store: Store) -> None:
        """Not in types of a driver that are merely equal."""
        given = record(user="ann", seen=7.5, replaced=(Replaced(proof("old"), 8.5),))
        store.save(given, expect=0)
        loaded = store.load(key(given))
        assert loaded is not None
        assert type(loaded) is Record
        assert list(map(type, loaded)) == list(map(type, stored(given)))
        assert [type(each) for each in loaded.replaced] == [Replaced]

    @pytest.mark.parametrize("seen", [None, 0.0, 1_700_000_000.123456])
    def test_whether_a_token_was_seen_comes_back(
        self, store: Store, twin: Store, seen: float | None
    ) -> None:
        """None and 0 are two things, after every save."""
        given = record(seen=seen, turned=1_700_000_000.654321)
        store.save(given, expect=0)
        assert twin.load(key(given)) == stored(given)
        again = newer(given, seen=None if seen is not None else 1.5)
        store.save(again, expect=given.version)
        assert twin.load(key(given)) == stored(again)

    def test_replaced_proofs_come_back(self, store: Store, twin: Store) -> None:
        """In their order, with ``until`` None, a moment and 0, and again without."""
        before = (
            Replaced(proof("1"), None),
            Replaced(proof("2"), 1_700_000_000.123456),
            Replaced(proof("3"), 0),
        )
        given = record(proof=proof("now"), replaced=before)
        store.save(given, expect=0)
        assert twin.load(key(given)) == stored(given)
        reverse = newer(given, proof="", turned=0.0, replaced=before[::-1])
        store.save(reverse, expect=given.version)
        assert twin.load(key(given)) == stored(reverse)
        none = newer(given, replaced=())
        store.save(none, expect=reverse.version)
        assert twin.load(key(given)) == stored(none)

    def test_empty_data_comes_back(self, store: Store) -> None:
        """No data is data too."""
        given = record(data=b"")
        store.save(given, expect=0)
        assert store.load(key(given)) == stored(given)

    def test_a_megabyte_comes_back(self, store: Store) -> None:
        """Nothing is cut off at 64 KiB."""
        given = record(data=b"\x00\xff" * 524_288)
        store.save(given, expect=0)
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == given.data

    def test_unknown_is_none(self, store: Store) -> None:
        """A key that leads nowhere is no error."""
        assert store.load(key(record("nobody"))) is None

    @pytest.mark.parametrize(
        "id",
        ["", ".", "..", "../../x", "a/b", "\x00", "x" * 5000, "%s", "{x}", "\u00e9"]
        + ["*", "\ud800", "%", "0" * 31, "0" * 33, "z" * 32],
    )
    def test_a_malformed_id_is_unknown(self, store: Store, id: str) -> None:
        """Whatever a client sends, it leads nowhere, and is no error."""
        assert store.load(Key(id)) is None
        assert store.load(Key(id, proof("some"), id)) is None
        assert store.delete(Key(id)) is False

    def test_an_id_is_compared_exactly(self, store: Store) -> None:
        """Neither case nor blanks nor the end of a line are overlooked."""
        given = record(id="abcdef" * 5 + "ab")
        store.save(given, expect=0)
        id = given.id
        for near in (id.upper(), id + " ", " " + id, id + "\n", id[:-1], id + "0"):
            assert store.load(Key(near)) is None
            assert store.delete(Key(near)) is False
        assert store.load(key(given)) == stored(given)

    def test_a_proof_is_not_judged_by_load(self, store: Store) -> None:
        """Whether a client may use a record is decided by who asked for it."""
        given = record()
        store.save(given, expect=0)
        for shown in (None, given.proof, proof("wrong"), ""):
            assert store.load(Key(given.id, shown)) == stored(given)

    def test_expired_is_none(self, store: Store) -> None:
        """A record whose time is over is absent."""
        given = expired_in(store)
        assert store.load(key(given)) is None

    # -- comparing ---------------------------------------------------------------------

    def test_a_save_needs_the_version_it_expects(self, store: Store) -> None:
        """The second of two savers from one version is refused, and told what is."""
        first = record()
        store.save(first, expect=0)
        second = newer(first, data=b"second")
        store.save(second, expect=first.version)
        conflict = refused(store, newer(first, data=b"late"), expect=first.version)
        assert conflict.id == first.id
        assert conflict.record == stored(second)
        assert store.load(key(first)) == stored(second)

    @pytest.mark.parametrize("version", [1, 2**53 + 1, LARGEST_VERSION])
    def test_a_version_has_63_bits(self, store: Store, version: int) -> None:
        """From one end to the other, and the next may be smaller."""
        given = record(version=version)
        store.save(given, expect=0)
        assert store.load(key(given)) == stored(given)
        assert store.touch(given) is True
        for after in (LARGEST_VERSION - 7, 3):
            store.save(given._replace(version=after), expect=given.version)
            given = given._replace(version=after)
            assert store.load(key(given)) == stored(given)

    def test_versions_are_not_rounded(self, store: Store) -> None:
        """Two that are the same as floating point numbers are two."""
        given = record(version=LARGEST_VERSION - 1)
        store.save(given, expect=0)
        for near in (LARGEST_VERSION, LARGEST_VERSION - 2):
            assert refused(store, newer(given), expect=near).record == stored(given)
            later = given._replace(version=near, expires=given.expires + 60)
            assert store.touch(later) is False
        assert store.load(key(given)) == stored(given)

    def test_a_new_record_never_replaces_one(self, store: Store) -> None:
        """A save with expect=0 is refused where a record is."""
        given = record()
        store.save(given, expect=0)
        conflict = refused(store, newer(given, data=b"other"), expect=0)
        assert conflict.record == stored(given)
        assert store.load(key(given)) == stored(given)

    def test_a_save_never_makes_a_record(self, store: Store) -> None:
        """Only a save with expect=0 does."""
        given = record()
        assert refused(store, given, expect=given.version).record is None
        assert store.load(key(given)) is None

    def test_a_save_never_brings_back_what_was_deleted(self, store: Store) -> None:
        """A save after the end is refused, and nothing is there."""
        given = record()
        store.save(given, expect=0)
        store.delete(key(given))
        assert refused(store, newer(given), expect=given.version).record is None
        assert store.load(key(given)) is None

    def test_a_save_never_brings_back_what_expired(self, store: Store) -> None:
        """A save after the expiry is refused, and so is a touch."""
        given = expired_in(store)
        late = newer(given, expires=time.time() + 60)
        assert refused(store, late, expect=given.version).record is None
        assert store.touch(late._replace(version=given.version)) is False
        assert store.load(key(given)) is None

    def test_an_expired_record_makes_room(self, store: Store) -> None:
        """What is absent does not stand in the way of a new record."""
        given = expired_in(store)
        again = newer(given, expires=time.time() + 60)
        store.save(again, expect=0)
        assert store.load(key(given)) == stored(again)

    def test_a_save_writes_the_clocks_it_is_told(self, store: Store) -> None:
        """Back too, as when the application shortened the expiry."""
        given = record()
        store.save(given, expect=0)
        back = newer(
            given,
            created=given.created - 5,
            accessed=given.accessed - 60,
            expires=given.expires - 1800,
        )
        store.save(back, expect=given.version)
        assert store.load(key(given)) == stored(back)

    def test_a_save_can_end_the_time_of_a_record(self, store: Store) -> None:
        """Where it is over at the moment of the save, too."""
        given = record()
        store.save(given, expect=0)
        over = newer(given, expires=time.time() - 1)
        store.save(over, expect=given.version)
        assert store.load(key(given)) is None

    @pytest.mark.parametrize("is_new", [True, False])
    def test_only_one_of_many_writers_wins(
        self, store: Store, twin: Store, is_new: bool
    ) -> None:
        """Of eight saves from one version, or of nothing, seven are refused."""
        given = record()
        if not is_new:
            store.save(given, expect=0)

        def save(number: int) -> bytes | None:
            mine = newer(given, data=b"%d" % number)
            try:
                expect = 0 if is_new else given.version
                (store, twin)[number % 2].save(mine, expect=expect)
            except VersionConflict:
                return None
            return mine.data

        (won,) = [each for each in in_threads(8, save) if each is not None]
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == won

    def test_increments_beside_readers_are_all_kept(
        self, store: Store, twin: Store
    ) -> None:
        """Two that compare and save for as long as two others touch what they loaded."""
        given = record(data=b"0")
        finished: list[int] = []
        store.save(given, expect=0)

        def work(number: int) -> int:
            mine = (store, twin)[number % 2]
            if number < 2:
                return _written(mine, given, until=lambda: len(finished) == 2)
            try:
                return _touched(mine, given)
            finally:
                finished.append(number)

        saved = sum(in_threads(4, work))
        loaded = store.load(key(given))
        assert loaded is not None
        assert int(loaded.data) == saved

    def test_sessions_do_not_disturb_each_other(self, store: Store) -> None:
        """What happens to one record happens to no other."""
        one, two = record("one"), record("two", version=5)
        store.save(one._replace(version=5), expect=0)
        store.save(two, expect=0)
        store.save(one, expect=5)
        assert store.touch(one._replace(expires=one.expires + 60)) is True
        assert store.delete(key(one)) is True
        assert store.load(key(two)) == stored(two)

    # -- touching ----------------------------------------------------------------------

    def test_touch_moves_the_clocks_only(self, store: Store, twin: Store) -> None:
        """The clocks move, everything else stays, and the version is good."""
        given = record(user="ann", seen=3.5, replaced=(Replaced(proof("old"), None),))
        store.save(given, expect=0)
        # Six digits after the point, whatever the time is.
        later = given._replace(
            accessed=int(given.accessed) + 60.123456,
            expires=int(given.expires) + 60.123456,
        )
        nothing_else = later._replace(data=b"x", user="bob", seen=None, replaced=())
        assert store.touch(nothing_else) is True
        assert twin.load(key(given)) == stored(later)
        store.save(newer(given), expect=given.version)

    @pytest.mark.parametrize(
        ("accessed", "expires"), [(-60, -60), (60, -60), (-60, 60)]
    )
    def test_touch_moves_no_clock_back(
        self, store: Store, accessed: float, expires: float
    ) -> None:
        """A clock that is ahead stays, each by itself; the record was there."""
        given = record()
        store.save(given, expect=0)
        touched = given._replace(
            accessed=given.accessed + accessed, expires=given.expires + expires
        )
        assert store.touch(touched) is True
        ahead = given._replace(
            accessed=max(given.accessed, touched.accessed),
            expires=max(given.expires, touched.expires),
        )
        assert store.load(key(given)) == stored(ahead)

    def test_touch_brings_nothing_back(self, store: Store) -> None:
        """A record that is gone stays gone, and touch says so."""
        given = record()
        assert store.touch(given) is False
        assert store.load(key(given)) is None
        store.save(given, expect=0)
        store.delete(key(given))
        assert store.touch(given) is False
        assert store.load(key(given)) is None

    def test_touch_leaves_another_version_alone(self, store: Store) -> None:
        """The expiry of the newer version stays, and touch says that it was another."""
        given = record()
        store.save(given, expect=0)
        shorter = newer(given, expires=given.expires - 1800)
        store.save(shorter, expect=given.version)
        assert store.touch(given._replace(expires=given.expires + 60)) is False
        assert store.load(key(given)) == stored(shorter)

    # -- deleting ----------------------------------------------------------------------

    def test_delete_says_whether_it_was_there(self, store: Store, twin: Store) -> None:
        """Deleting what is not there is no error."""
        given = record()
        assert store.delete(key(given)) is False
        store.save(given, expect=0)
        assert twin.delete(key(given)) is True
        assert store.delete(key(given)) is False
        assert store.load(key(given)) is None

    def test_delete_asks_for_no_proof(self, store: Store) -> None:
        """The id is enough."""
        given = record()
        store.save(given, expect=0)
        assert store.delete(Key(given.id, proof("wrong"))) is True
        assert store.load(key(given)) is None

    @pytest.mark.parametrize("owner", ["ann", None])
    def test_delete_of_a_user_asks_whose_it_is(
        self, store: Store, owner: str | None
    ) -> None:
        """Exactly, case and blanks included; a record of nobody is nobody's."""
        given = record(user=owner)
        store.save(given, expect=0)
        for user in set(USERS) - {owner}:
            assert store.delete(key(given), user=user) is False
        assert store.load(key(given)) == stored(given)
        assert store.delete(key(given), user=owner) is True
        assert store.load(key(given)) is None
        assert store.delete(key(given), user=owner) is False

    def test_only_one_of_many_deletes_ended_it(self, store: Store, twin: Store) -> None:
        """Of eight, one is told that it was there."""
        given = record()
        store.save(given, expect=0)
        told = in_threads(
            8, lambda number: (store, twin)[number % 2].delete(key(given))
        )
        assert sorted(told) == [False] * 7 + [True]

    def test_an_id_that_was_deleted_begins_anew(self, store: Store) -> None:
        """Nothing of the record before is left in the new one."""
        before = record(
            user="ann", seen=3.5, replaced=(Replaced(proof("old"), None),), data=b"old"
        )
        store.save(before, expect=0)
        store.delete(key(before))
        after = record()
        store.save(after, expect=0)
        assert store.load(key(after)) == stored(after)
