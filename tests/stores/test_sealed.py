"""Encryption around a store: its promises are kept, and what is altered is absent."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wsgisession import ConfigurationError, Key, Options, Record, SessionManager
from wsgisession.record import Replaced
from wsgisession.store import Capabilities, IterableStore, LockingStore, Store
from wsgisession.stores.cookie import CookieStore
from wsgisession.stores.memory import MemoryStore
from wsgisession.stores.sealed import SealedStore
from wsgisession.testing import (
    IterableStoreSuite,
    LockingStoreSuite,
    in_threads,
    key,
    newer,
    proof,
    record,
    refused,
    stored,
)

NEW, OLD, OLDEST = (hashlib.sha256(name).digest() for name in (b"n", b"o", b"t"))
SECRET = "u7Zk1vXq0bH3nW9sRfT5yLpC8dJ2gMaE6iOxQwKz4A"
TEXT = b"the quick brown fox jumps over the lazy dog"


class TestSealedMemory(LockingStoreSuite, IterableStoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return SealedStore(MemoryStore(), [NEW])


class TestSealedSQLite(LockingStoreSuite, IterableStoreSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        pytest.importorskip("sqlalchemy")
        return f"sqlite:///{tmp_path / 'sessions.db'}"

    @pytest.fixture
    def store(self, url: str) -> Iterator[Store]:
        yield from sealed_database(url)

    @pytest.fixture
    def twin(self, store: Store, url: str) -> Iterator[Store]:
        yield from sealed_database(url)


def sealed_database(url: str) -> Iterator[Store]:
    from wsgisession.stores.sqlalchemy import SQLAlchemyStore

    within = SQLAlchemyStore(url)
    yield SealedStore(within, [NEW])
    within.close()


# -- it can do what the store within can, and no more ------------------------------------


@pytest.mark.parametrize("locks", [False, True])
@pytest.mark.parametrize("lists", [False, True])
def test_capabilities_are_those_of_the_store_within(locks: bool, lists: bool) -> None:
    """Encryption adds itself and nothing else."""
    within = MemoryStore()
    within.capabilities = Capabilities(locks=locks, lists=lists)
    outside = SealedStore(within, [NEW])
    assert outside.capabilities == Capabilities(locks=locks, lists=lists, encrypts=True)
    assert outside.capabilities == outside.capabilities
    assert isinstance(outside, Store)
    assert isinstance(outside, LockingStore)
    assert isinstance(outside, IterableStore)


# -- what can be done to the storage -----------------------------------------------------


class Storage(MemoryStore):
    """A store whose records can be changed behind its back."""

    def tamper(self, id: str, **changes: Any) -> Record:
        """Change a record, whatever its version says."""
        changed = self.at(id)._replace(**changes)
        self.delete(Key(id))
        self.save(changed, expect=0)
        return changed

    def at(self, id: str) -> Record:
        found = self.load(Key(id))
        assert found is not None
        return found


@pytest.fixture
def within() -> Storage:
    return Storage()


@pytest.fixture
def store(within: Storage) -> SealedStore:
    return SealedStore(within, [NEW])


def inserted(store: Store, name: str = "one", **changes: Any) -> Record:
    """A record that is stored."""
    given = record(name, data=TEXT)._replace(**changes)
    store.save(given, expect=0)
    return given


class TestTampering:
    def test_nobody_reads_what_is_stored(
        self, store: SealedStore, within: Storage
    ) -> None:
        """No piece of the data is in the storage, and equal data look different."""
        ids = [inserted(store, name, data=TEXT * 20).id for name in ("one", "two")]
        one, two = (within.at(id).data for id in ids)
        assert not any(TEXT[n : n + 4] in one for n in range(len(TEXT) - 4))
        assert len({one[n : n + 16] for n in range(0, len(one), 16)}) > len(one) // 17
        assert one[33:] != two[33:]

    def test_an_altered_record_is_absent(
        self, store: SealedStore, within: Storage, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Every octet counts; the log names the record, and its bytes are left."""
        given = inserted(store, user="ann")
        sound = within.at(given.id).data
        for place in range(len(sound)):
            for flip in (1, 128):
                octet = bytes([sound[place] ^ flip])
                data = sound[:place] + octet + sound[place + 1 :]
                bad = within.tamper(given.id, data=data)
                assert store.load(key(given)) is None
                assert list(store.records()) == []
                assert within.at(given.id) == bad
        for cut in range(len(sound)):
            within.tamper(given.id, data=sound[:cut])
            assert store.load(key(given)) is None
        assert given.id in caplog.text
        assert "fox" not in caplog.text
        within.tamper(given.id, data=sound)
        assert store.load(key(given)) == stored(given)

    @pytest.mark.parametrize(
        "change",
        [
            {"version": 2},
            {"user": "bob"},
            {"user": None},
            {"created": 1.0},
            {"proof": proof("thief")},
            {"turned": 1.0},
            {"seen": None},
            {"seen": 2.0},
            {"replaced": ()},
            {"replaced": (Replaced(proof("thief"), 0),)},
            {"replaced": (Replaced(proof("old"), None),)},
        ],
        ids=repr,
    )
    def test_what_a_record_says_of_itself_is_bound(
        self, store: SealedStore, within: Storage, change: dict[str, Any]
    ) -> None:
        """P5: who writes to the storage can make neither a user nor a token good."""
        given = inserted(
            store, user="ann", seen=1.5, replaced=(Replaced(proof("old"), 0),)
        )
        assert store.load(key(given)) == stored(given)
        within.tamper(given.id, **change)
        assert store.load(key(given)) is None
        assert list(store.records()) == []

    @pytest.mark.parametrize("whole", [1_700_000_000, 0])
    def test_whole_numbers_are_moments_too(
        self, store: SealedStore, within: Storage, whole: int
    ) -> None:
        """Many stores give them back as floats, and the record opens all the same."""
        given = inserted(
            store,
            created=whole,
            turned=whole,
            seen=whole,
            replaced=(Replaced(proof("old"), whole),),
        )
        moment = float(whole)
        within.tamper(
            given.id,
            created=moment,
            turned=moment,
            seen=moment,
            replaced=(Replaced(proof("old"), moment),),
        )
        assert store.load(key(given)) == stored(given)

    def test_the_clocks_may_move(self, store: SealedStore) -> None:
        """A touch writes nothing else, so they cannot be bound."""
        given = inserted(store)
        later = given._replace(accessed=given.accessed + 9, expires=given.expires + 9)
        assert store.touch(later) is True
        assert store.load(key(given)) == stored(later)

    def test_a_swapped_record_is_refused(
        self, store: SealedStore, within: Storage
    ) -> None:
        """The data of one session do not open in another."""
        one, two = inserted(store, "one"), inserted(store, "two", data=b"rich")
        within.tamper(one.id, data=within.at(two.id).data)
        assert store.load(key(one)) is None
        assert store.load(key(two)) == stored(two)
        assert list(store.records()) == [stored(two)]

    def test_a_copy_under_another_id_is_refused(
        self, store: SealedStore, within: Storage
    ) -> None:
        """A record with all that it says does not open as another session."""
        copy = within.at(inserted(store).id)._replace(id=record("two").id)
        within.save(copy, expect=0)
        assert store.load(Key(copy.id)) is None

    def test_rolled_back_data_are_refused(
        self, store: SealedStore, within: Storage
    ) -> None:
        """The data of an earlier version do not open in a later one."""
        given = inserted(store, data=b"ten coins")
        before = within.at(given.id).data
        store.save(newer(given, data=b"none"), expect=given.version)
        within.tamper(given.id, data=before)
        assert store.load(key(given)) is None

    def test_a_whole_old_record_cannot_be_told(
        self, store: SealedStore, within: Storage
    ) -> None:
        """The documented limit: nothing outside of the storage knows the version."""
        given = inserted(store, data=b"ten coins")
        before = within.at(given.id)
        store.save(newer(given, data=b"none"), expect=given.version)
        within.delete(Key(given.id))
        within.save(before, expect=0)
        assert store.load(key(given)) == stored(given)

    def test_plain_data_are_refused(self, store: SealedStore, within: Storage) -> None:
        """CVE-2026-39324: what was stored before the encryption is no fallback."""
        given = inserted(within)
        assert store.load(key(given)) is None


# -- conflicts and locks -----------------------------------------------------------------


class TestUnderContention:
    def test_a_conflict_carries_an_open_record(self, store: SealedStore) -> None:
        """So that a merge needs no further call."""
        given = inserted(store, data=b"first")
        second = newer(given, data=b"second")
        store.save(second, expect=given.version)
        late = newer(given, data=b"late")
        assert refused(store, late, expect=given.version).record == stored(second)

    def test_a_conflict_with_what_does_not_open(
        self, store: SealedStore, within: Storage
    ) -> None:
        """The record counts as gone, and is not overwritten, by an insert neither."""
        given = inserted(store)
        bad = within.tamper(given.id, version=5)
        for expect in (given.version, 0):
            assert refused(store, newer(given), expect=expect).record is None
            assert within.at(given.id) == bad

    def test_what_does_not_open_is_not_locked(
        self, store: SealedStore, within: Storage
    ) -> None:
        """No lease is left on a record that counts as absent."""
        given = inserted(store)
        within.tamper(given.id, version=5)
        began = time.monotonic()
        for _ in range(3):
            assert store.lock(key(given), wait=20, lease=30, waiters=5) is None
        assert time.monotonic() - began < 15
        free = within.lock(key(given), wait=0, lease=30, waiters=0)
        assert free is not None
        assert free.lease is not None

    def test_no_update_is_lost(self, store: SealedStore) -> None:
        """P1: eight threads of fifty increments under the lock make four hundred."""
        given = inserted(store, data=b"0")

        def increment(number: int) -> None:
            for _ in range(50):
                held = store.lock(key(given), wait=60, lease=60, waiters=50)
                assert held is not None
                more = newer(held, data=b"%d" % (int(held.data) + 1))
                store.save(more, expect=held.version)

        in_threads(8, increment)
        final = store.load(key(given))
        assert final is not None
        assert final.data == b"400"


# -- keys --------------------------------------------------------------------------------


class TestKeys:
    def test_rotate_while_sessions_live(self, within: Storage) -> None:
        """Through three secrets under eight writers no session is lost."""
        rings = [[OLDEST], [OLD, OLDEST], [NEW, OLD], [NEW]]
        servers = [SealedStore(within, ring) for ring in rings]
        newest_alone = [SealedStore(within, [ring[0]]) for ring in rings]

        def write(number: int) -> int:
            given = inserted(servers[0], f"s{number}", data=b"0")
            for turn in range(100):
                stage = turn * len(servers) // 100
                held = servers[stage].load(key(given))
                assert held is not None
                more = newer(held, data=b"%d" % (int(held.data) + 1))
                servers[stage].save(more, expect=held.version)
                assert newest_alone[stage].load(key(given)) is not None
            last = servers[-1].load(key(given))
            return int(last.data) if last is not None else -1

        assert in_threads(8, write) == [100] * 8

    def test_a_lost_key_makes_no_session(self, within: Storage) -> None:
        """With another secret every record is absent, and none is overwritten."""
        given = inserted(SealedStore(within, [OLD]))
        other = SealedStore(within, [NEW])
        assert other.load(key(given)) is None
        refused(other, given, expect=0)
        assert SealedStore(within, [OLD]).load(key(given)) == stored(given)


# -- misuse ------------------------------------------------------------------------------


def test_a_cookie_cannot_be_sealed_from_outside() -> None:
    """Its token would stay readable, so it has to encrypt by itself."""
    cookie: Any = CookieStore(secret=[NEW])
    with pytest.raises(ConfigurationError, match="no storage to encrypt"):
        SealedStore(cookie, [NEW])


@pytest.mark.parametrize(
    ("secret", "said"), [([], "needs a secret"), ([NEW, b"short"], "too short")]
)
def test_a_good_secret_is_needed(secret: list[bytes], said: str) -> None:
    """And the sentence says how to make one."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        SealedStore(MemoryStore(), secret)
    assert "python -m wsgisession secret" in str(caught.value)


def test_a_malformed_id_meets_the_store_within(
    store: SealedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is sent, it is unknown, and no error."""
    with caplog.at_level(logging.WARNING):
        assert store.load(Key("\ud800", proof("one"))) is None
    assert not caplog.records


def test_on_disk_nothing_can_be_read(tmp_path: Path) -> None:
    """No file holds a piece of the data; the control, without encryption, does."""
    pytest.importorskip("filelock")
    from wsgisession.stores.file import FileStore

    for name in ("plain", "sealed"):
        folder = tmp_path / name
        files = FileStore(folder)
        store: Store = files if name == "plain" else SealedStore(files, [NEW])
        given = inserted(store)
        assert store.load(key(given)) == stored(given)
        written = [path for path in folder.rglob("*") if path.is_file()]
        assert any(TEXT in path.read_bytes() for path in written) is (name == "plain")


# -- by options --------------------------------------------------------------------------


def test_a_manager_made_by_hand_encrypts_too() -> None:
    """An Options object with encrypt=True is never taken lightly."""
    within = MemoryStore()
    manager = SessionManager(within, Options(secret=[SECRET], encrypt=True))
    session = manager.create()
    session["diary"] = "rosebud"
    session.save()
    (only,) = within.records()
    assert b"rosebud" not in only.data
    assert manager.open(manager.token_of(session) or "")["diary"] == "rosebud"


@pytest.mark.parametrize(
    ("store", "options", "said"),
    [
        (MemoryStore(), {}, "secret"),
        (CookieStore(secret=[NEW]), {"secret": SECRET}, "CookieStore"),
    ],
)
def test_misuse_is_refused_at_construction(
    store: Any, options: dict[str, Any], said: str
) -> None:
    """Encryption that is asked for and cannot be had is an error, not a silence."""
    with pytest.raises(ConfigurationError, match=said):
        SessionManager.from_config(store=store, encrypt=True, **options)
