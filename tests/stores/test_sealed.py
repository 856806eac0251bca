"""Encryption around a store: its promises are kept, and what is altered is absent."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wsgisession import (
    ConfigurationError,
    Conflict,
    Key,
    Options,
    Record,
    SessionManager,
)
from wsgisession.store import IterableStore, LockingStore, Store
from wsgisession.stores.cookie import CookieStore
from wsgisession.stores.file import FileStore
from wsgisession.stores.memory import MemoryStore
from wsgisession.stores.sealed import sealed
from wsgisession.testing import (
    IterableStoreSuite,
    LockingStoreSuite,
    in_threads,
    key,
    record,
    refused,
    stored,
)

from ..conftest import SECRET

NEW, OLD, OLDEST = (hashlib.sha256(name).digest() for name in (b"n", b"o", b"t"))
TEXT = b"the quick brown fox jumps over the lazy dog"


class TestSealedMemory(LockingStoreSuite, IterableStoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return sealed(MemoryStore(), [NEW])

    @pytest.fixture
    def crowded(self) -> Store:
        return sealed(MemoryStore(lock_waiters=2), [NEW])


class TestSealedFiles(LockingStoreSuite, IterableStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return sealed(FileStore(tmp_path / "sessions"), [NEW])

    @pytest.fixture
    def twin(self, store: Store, tmp_path: Path) -> Store:
        return sealed(FileStore(tmp_path / "sessions"), [NEW])

    @pytest.fixture
    def crowded(self, tmp_path: Path) -> Store:
        return sealed(FileStore(tmp_path / "crowded", lock_waiters=2), [NEW])


# -- it can what the store within can, and no more ---------------------------------------


class Some:
    """A store with some of another's methods."""

    def __init__(self, store: Any, more: str) -> None:
        for name in f"load save touch delete {more}".split():
            setattr(self, name, getattr(store, name))


@pytest.mark.parametrize("locks", ["", "lock unlock"])
@pytest.mark.parametrize("walks", ["", "records delete_expired"])
def test_capabilities_do_not_lie(locks: str, walks: str) -> None:
    """Around a store that cannot lock or list there is one that cannot either."""
    outside = sealed(Some(MemoryStore(), f"{locks} {walks}"), [NEW])
    assert isinstance(outside, Store)
    assert isinstance(outside, LockingStore) is bool(locks)
    assert isinstance(outside, IterableStore) is bool(walks)
    given = record()
    outside.save(given, expect=0)
    assert outside.load(key(given)) == stored(given)


def test_a_store_that_cannot_lock_is_refused_as_before() -> None:
    """Encryption does not make locking='always' possible."""
    options = Options(secret=SECRET, encrypt=True, locking="always")
    with pytest.raises(ConfigurationError, match="cannot"):
        SessionManager(Some(MemoryStore(), ""), options)


# -- what somebody can do who writes to the storage --------------------------------------


@pytest.fixture
def within() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(within: MemoryStore) -> Any:
    return sealed(within, [NEW])


def tamper(within: MemoryStore, id: str, **changes: Any) -> Record:
    """Change a record in the storage behind everybody's back."""
    within._records[id] = replace(within._records[id], **changes)
    return within._records[id]


class TestTampering:
    def test_nobody_reads_what_is_stored(self, store: Any, within: MemoryStore) -> None:
        """No piece of the data is in the storage, and equal data look different."""
        for name in ("one", "two"):
            store.save(record(name, data=TEXT * 20), expect=0)
        one, two = (each.data for each in within._records.values())
        assert not any(TEXT[n : n + 4] in one for n in range(len(TEXT) - 4))
        assert len({one[n : n + 16] for n in range(0, len(one), 16)}) > len(one) // 17
        assert one[33:] != two[33:]

    def test_an_altered_record_is_absent(
        self, store: Any, within: MemoryStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Every octet counts; the log names the record, and its bytes are left."""
        given = record(data=TEXT, user="ann")
        store.save(given, expect=0)
        sound = within._records[given.id].data
        for place in range(len(sound)):
            for flip in (1, 128):
                octet = bytes([sound[place] ^ flip])
                bad = tamper(
                    within, given.id, data=sound[:place] + octet + sound[place + 1 :]
                )
                assert store.load(key(given)) is None
                assert within._records[given.id] is bad
        for cut in range(len(sound)):
            tamper(within, given.id, data=sound[:cut])
            assert store.load(key(given)) is None
        assert given.id[:8] in caplog.text
        assert "fox" not in caplog.text
        tamper(within, given.id, data=sound)
        assert store.load(key(given)) == stored(given)

    @pytest.mark.parametrize(
        "change",
        [
            {"version": 2},
            {"user": "bob"},
            {"user": None},
            {"created": 1.0},
            {"state": "moved", "successor": record("another").id},
            {"state": "ended"},
        ],
        ids=repr,
    )
    def test_what_it_says_of_itself_is_bound(
        self, store: Any, within: MemoryStore, change: dict[str, Any]
    ) -> None:
        """Nobody is made another user, or led to another's session."""
        given = record(data=TEXT, user="ann")
        store.save(given, expect=0)
        tamper(within, given.id, **change)
        assert store.load(key(given)) is None
        assert list(store.records()) == []

    def test_a_swapped_record_is_refused(self, store: Any, within: MemoryStore) -> None:
        """The data of one session do not open in another."""
        one, two = record("one", data=b"poor"), record("two", data=b"rich")
        for each in (one, two):
            store.save(each, expect=0)
        tamper(within, one.id, data=within._records[two.id].data)
        assert store.load(key(one)) is None
        assert store.load(key(two)) == stored(two)

    def test_rolled_back_data_are_refused(
        self, store: Any, within: MemoryStore
    ) -> None:
        """The data of an earlier version do not open in a later one."""
        given = record(data=b"ten coins")
        store.save(given, expect=0)
        before = within._records[given.id].data
        store.save(replace(given, version=2, data=b"none"), expect=1)
        tamper(within, given.id, data=before)
        assert store.load(key(given)) is None

    def test_a_whole_old_record_cannot_be_told(
        self, store: Any, within: MemoryStore
    ) -> None:
        """The documented limit: nothing outside of the storage counts the versions."""
        given = record(data=b"ten coins")
        store.save(given, expect=0)
        before = within._records[given.id]
        store.save(replace(given, version=2, data=b"none"), expect=1)
        within._records[given.id] = before
        assert store.load(key(given)) == stored(given)

    def test_plain_data_are_refused(self, store: Any, within: MemoryStore) -> None:
        """CVE-2026-39324: what was stored before the encryption is no fallback."""
        given = record(data=TEXT)
        within.save(given, expect=0)
        assert store.load(key(given)) is None


# -- conflicts and locks -----------------------------------------------------------------


class TestUnderContention:
    def test_a_conflict_carries_an_open_record(self, store: Any) -> None:
        """So that a merge needs no further call."""
        given = record(data=b"first")
        store.save(given, expect=0)
        second = replace(given, version=2, data=b"second")
        store.save(second, expect=1)
        late = replace(given, version=2, data=b"late")
        assert refused(store, late, expect=1).record == stored(second)

    def test_a_conflict_with_what_does_not_open(
        self, store: Any, within: MemoryStore
    ) -> None:
        """The record counts as gone, and is not overwritten."""
        given = record(data=TEXT)
        store.save(given, expect=0)
        bad = tamper(within, given.id, version=5)
        conflict = refused(store, replace(given, version=2), expect=1)
        assert conflict.record is None
        assert within._records[given.id] is bad

    def test_what_does_not_open_is_not_locked(
        self, store: Any, within: MemoryStore
    ) -> None:
        """No lease is left on a record that counts as absent."""
        given = record(data=TEXT)
        store.save(given, expect=0)
        tamper(within, given.id, version=5)
        began = time.monotonic()
        for _ in range(3):
            assert store.lock(key(given), wait=20, lease=30) is None
        assert time.monotonic() - began < 15
        assert not within._leases

    def test_no_update_is_lost(self, store: Any) -> None:
        """P1: eight threads of fifty increments under the lock make four hundred."""
        given = record(data=b"0")
        store.save(given, expect=0)

        def increment(number: int) -> None:
            for _ in range(50):
                held = store.lock(key(given), wait=60, lease=60)
                more = b"%d" % (int(held.data) + 1)
                changed = replace(held, version=held.version + 1, data=more)
                store.save(changed, expect=held.version)

        in_threads(8, increment)
        assert store.load(key(given)).data == b"400"


# -- keys --------------------------------------------------------------------------------


class TestKeys:
    def test_rotate_while_sessions_live(self, within: MemoryStore) -> None:
        """Through three secrets under eight writers no session is lost."""
        rings = [[OLDEST], [OLD, OLDEST], [NEW, OLD], [NEW]]
        servers = [sealed(within, ring) for ring in rings]

        def write(number: int) -> int:
            given = record(f"s{number}", data=b"0")
            servers[0].save(given, expect=0)
            for turn in range(100):
                stage = turn * len(servers) // 100
                held = servers[stage].load(key(given))
                assert held is not None
                data = b"%d" % (int(held.data) + 1)
                later = replace(held, version=held.version + 1, data=data)
                servers[stage].save(later, expect=held.version)
                assert sealed(within, [rings[stage][0]]).load(key(given)) is not None
            last = servers[-1].load(key(given))
            return int(last.data) if last is not None else -1

        assert in_threads(8, write) == [100] * 8

    def test_a_lost_key_makes_nobody_s_session(self, within: MemoryStore) -> None:
        """With another secret every record is absent, and none is overwritten."""
        given = record(data=TEXT)
        sealed(within, [OLD]).save(given, expect=0)
        other = sealed(within, [NEW])
        assert other.load(key(given)) is None
        with pytest.raises(Conflict):
            other.save(given, expect=0)
        assert sealed(within, [OLD]).load(key(given)) == stored(given)


# -- by options --------------------------------------------------------------------------


def test_on_disk_nothing_can_be_read(tmp_path: Path) -> None:
    """encrypt=True from a configuration in text; the control can be read."""
    for encrypt in ("true", "false"):
        manager = SessionManager.from_config(
            {
                "session.url": f"file://{tmp_path}/{encrypt}",
                "session.secret": SECRET,
                "session.encrypt": encrypt,
            }
        )
        session = manager.create()
        session["diary"] = "rosebud"
        session.save()
        assert manager.open(session.token or "")["diary"] == "rosebud"
        assert [each["diary"] for each in manager.sessions()] == ["rosebud"]
        files = [path for path in (tmp_path / encrypt).rglob("*") if path.is_file()]
        readable = any(b"rosebud" in path.read_bytes() for path in files)
        assert readable is (encrypt == "false")


def test_a_manager_made_by_hand_encrypts_too() -> None:
    """An Options object with encrypt=True is never taken lightly."""
    within = MemoryStore()
    manager = SessionManager(within, Options(secret=SECRET, encrypt=True))
    session = manager.create()
    session["diary"] = "rosebud"
    session.save()
    (only,) = within.records()
    assert b"rosebud" not in only.data
    assert manager.open(session.token or "")["diary"] == "rosebud"


@pytest.mark.parametrize(
    ("store", "options", "said"),
    [
        (MemoryStore(), {"encrypt": True}, "encrypt needs a secret"),
        (
            CookieStore(secret=[NEW]),
            {"encrypt": True, "secret": SECRET},
            "CookieStore was made without it",
        ),
    ],
)
def test_misuse_is_refused_at_construction(
    store: Store, options: dict[str, Any], said: str
) -> None:
    """Nobody believes that he encrypts when he does not."""
    with pytest.raises(ConfigurationError, match=said):
        SessionManager.from_config(store=store, **options)


def test_a_cookie_cannot_be_sealed_from_outside() -> None:
    """Its token would stay readable, so it has to encrypt by itself."""
    with pytest.raises(ConfigurationError, match="no storage to encrypt"):
        sealed(CookieStore(secret=[NEW]), [NEW])


def test_a_malformed_id_meets_the_store_within(store: Any) -> None:
    """Whatever is sent, it is unknown, and no error."""
    assert store.load(Key("\ud800", "\ud800")) is None
