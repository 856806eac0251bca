"""A cache in front of a store: as good as the store alone, and seldom asked twice."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from wsgisession import (
    ConfigurationError,
    Key,
    Options,
    Record,
    SessionManager,
    StoreError,
    VersionConflict,
)
from wsgisession.store import Store
from wsgisession.stores import cached
from wsgisession.stores.cached import CachedStore
from wsgisession.stores.cookie import CookieStore
from wsgisession.stores.memory import MemoryStore
from wsgisession.testing import (
    IterableStoreSuite,
    LockingStoreSuite,
    in_threads,
    key,
    newer,
    proof,
    record,
)

from ..conftest import SECRET, CountingStore
from ..servers import CLIENTS, TIMES, Client, gunicorn, press


class TestCachedMemory(LockingStoreSuite, IterableStoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return CachedStore(MemoryStore(), MemoryStore())


class TestCachedSQLite(LockingStoreSuite, IterableStoreSuite):
    """Two processes with one Redis in front of one database."""

    @pytest.fixture
    def made(self, tmp_path: Path, redis_url: str) -> Iterator[Callable[[], Store]]:
        from wsgisession.stores.redis import RedisStore
        from wsgisession.stores.sqlalchemy import SQLAlchemyStore

        behind = []

        def make() -> Store:
            behind.append(SQLAlchemyStore(f"sqlite:///{tmp_path / 'sessions.db'}"))
            cache = RedisStore(redis_url, key_prefix=f"cache {tmp_path.name}:")
            return CachedStore(behind[-1], cache)

        yield make
        for each in behind:
            each.close()

    @pytest.fixture
    def store(self, made: Callable[[], Store]) -> Store:
        return made()

    @pytest.fixture
    def twin(self, store: Store, made: Callable[[], Store]) -> Store:
        return made()


class Behind(MemoryStore):
    """A store that counts how often it was read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def load(self, key: Key) -> Record | None:
        self.reads += 1
        return super().load(key)


class Processes:
    """Several processes with one store behind, and one cache or a cache each."""

    def __init__(
        self, *, ttl: float = 60.0, share: bool = True, count: int = 2
    ) -> None:
        self.behind = Behind()
        self.caches = [MemoryStore() for _ in range(count)]
        if share:
            self.caches = self.caches[:1] * count
        self.stores = [
            CachedStore(self.behind, cache, cache_ttl=ttl) for cache in self.caches
        ]

    def __iter__(self) -> Iterator[CachedStore]:
        return iter(self.stores)


def saved(store: CachedStore, **changes: Any) -> Record:
    given = record(**changes)
    store.save(given, expect=0)
    return given


def data(found: Record | None) -> bytes | None:
    return None if found is None else found.data


# -- who is served by the cache ----------------------------------------------------------


def test_reads_are_served_by_the_cache() -> None:
    """Of a thousand reads none touches the store behind, after a save or a first read."""
    processes = Processes()
    one, two = processes
    given = saved(one, data=b"1", user="ann", seen=5.0)
    for _ in range(500):
        assert one.load(key(given)) == given.bare()
        assert two.load(key(given)) == given.bare()
    assert processes.behind.reads == 0
    processes.caches[0].delete(Key(given.id))
    for _ in range(100):
        assert two.load(key(given)) == given.bare()
    assert processes.behind.reads == 1


def test_whole_requests_seldom_touch_the_store_behind() -> None:
    """95 % of the reads of visitors that write once in a while."""
    behind = CountingStore(MemoryStore())
    manager = SessionManager(CachedStore(behind, MemoryStore()))
    tokens = []
    for number in range(10):
        session = manager.create()
        session["n"] = number
        session.save()
        tokens.append(str(manager.token_of(session)))
    behind.calls.clear()
    for turn in range(100):
        for number, token in enumerate(tokens):
            assert manager.open(token)["n"] == turn // 40 + number
            if turn in (39, 79):
                session = manager.open(token, locking=True)
                session["n"] += 1
                session.save()
    assert behind.calls.count("load") <= 50  # of 1,000


def test_an_administrator_is_served_by_the_store_behind() -> None:
    """A key without a proof is no reader's."""
    one, two = Processes(share=False)
    given = saved(one)
    assert two.load(key(given)) is not None
    one.delete(Key(given.id))
    assert two.load(Key(given.id)) is None


def test_any_other_token_is_judged_by_the_store_behind() -> None:
    """A login in one process is good in another at once, whatever its cache has."""
    one, two = Processes(share=False)
    given = saved(one, proof=proof("old"))
    for number in range(1000):
        assert data(two.load(Key(given.id, given.proof))) == given.data
        after = newer(given, proof=proof(f"new {number}"), data=b"%d" % number)
        one.save(after, expect=given.version)
        assert data(two.load(Key(given.id, after.proof))) == after.data
        given = after


def test_lists_and_locks_are_those_of_the_store_behind() -> None:
    """What another process has written is locked and listed."""
    one, two = Processes(share=False)
    given = saved(one, data=b"1")
    two.load(key(given))
    one.save(newer(given, data=b"2"), expect=given.version)
    assert [each.data for each in two.records()] == [b"2"]
    held = two.lock(key(given), wait=0, lease=60, waiters=50)
    assert data(held) == b"2"


# -- how far it may be behind ------------------------------------------------------------


def test_what_another_process_ended_is_gone_within_the_time_of_an_entry() -> None:
    """With a cache in each process, the other one may be behind, and not for longer."""
    one, two = Processes(share=False, ttl=0.5)
    given = saved(one)
    assert two.load(key(given)) is not None
    one.delete(Key(given.id))
    assert one.load(key(given)) is None
    assert two.load(key(given)) is not None  # the control: this is what a cache is
    time.sleep(0.6)
    assert two.load(key(given)) is None


def test_with_one_cache_an_end_is_seen_at_once() -> None:
    """It is dropped from the cache that all processes share."""
    one, two = Processes()
    given = saved(one)
    assert two.load(key(given)) is not None
    one.delete(Key(given.id))
    assert two.load(key(given)) is None


def test_a_slow_read_fills_the_cache_with_nothing_old() -> None:
    """A read that began before a save in this process is not kept."""
    processes = Processes()
    one, _ = processes
    given = saved(one, data=b"1")
    processes.caches[0].delete(Key(given.id))
    load = processes.behind.load

    def slow(key: Key) -> Record | None:
        found = load(key)
        if threading.current_thread() is not threading.main_thread():
            one.save(newer(given, data=b"2"), expect=given.version)
            processes.caches[0].delete(Key(given.id))  # it is evicted at once
        return found

    processes.behind.load = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        assert data(pool.submit(one.load, key(given)).result()) == b"1"
    assert data(one.load(key(given))) == b"2"


def test_what_another_process_puts_there_late_is_not_shown() -> None:
    """A copy that is older than what this process saved, though it comes later."""
    processes = Processes()
    one, two = processes
    given = saved(one, data=b"1")
    late = processes.caches[0].load(Key(given.id))
    assert late is not None
    after = newer(given, data=b"2")
    one.save(after, expect=given.version)
    processes.caches[0].delete(Key(given.id))
    processes.caches[0].save(late, expect=0)
    assert data(two.load(key(given))) == b"1"  # the control
    assert data(one.load(key(given))) == b"2"
    assert data(two.load(key(given))) == b"2"  # what disagreed was replaced


@pytest.mark.parametrize("is_blind", [False, True], ids=["as it is", "control"])
def test_a_process_reads_what_it_saved(
    monkeypatch: pytest.MonkeyPatch, is_blind: bool
) -> None:
    """Never anything older than an acknowledged save, among threads and processes.

    The control shows whatever the cache has.
    """
    if is_blind:
        monkeypatch.setattr(cached, "_may_show", lambda cached, known: True)
    processes, given = Processes(count=3), record(data=b"0")
    cache = processes.caches[0]
    slowed = cache.save

    def slow(entry: Record, *, expect: int) -> None:
        time.sleep(random.choice((0, 0, 0.003)))
        slowed(entry, expect=expect)
        if random.random() < 0.3:  # a cache may evict at any time
            cache.delete(Key(entry.id))

    monkeypatch.setattr(cache, "save", slow)
    processes.stores[0].save(given, expect=0)
    newest, stale = [0, 0, 0], []

    def work(number: int) -> None:
        store, end = processes.stores[number % 3], time.monotonic() + 1.5
        while time.monotonic() < end:
            at_least = newest[number % 3]
            found = store.load(key(given))
            assert found is not None
            if int(found.data) < at_least:
                stale.append((int(found.data), at_least))
            if random.random() < 0.5:
                continue
            count = int(found.data) + 1
            try:
                store.save(newer(found, data=b"%d" % count), expect=found.version)
            except VersionConflict:
                continue
            newest[number % 3] = max(newest[number % 3], count)

    in_threads(9, work)
    assert bool(stale) == is_blind


def test_a_touch_is_seen() -> None:
    """The idle clock of a copy is not left behind, or each request would touch again."""
    one, two = Processes()
    given = saved(one)
    assert two.load(key(given)) is not None
    later = given._replace(accessed=given.accessed + 60, expires=given.expires + 60)
    assert one.touch(later)
    for store in (one, two):
        found = store.load(key(given))
        assert found is not None
        assert found.accessed == later.accessed


def test_a_record_that_expires_is_not_shown() -> None:
    """The copy lives for a minute, the record does not."""
    one, _ = Processes()
    given = saved(one, expires=time.time() + 0.2)
    assert one.load(key(given)) is not None
    time.sleep(0.3)
    assert one.load(key(given)) is None


def test_what_is_remembered_is_forgotten() -> None:
    """A process keeps what it did for as long as an entry may live, and no longer."""
    behind, cache = MemoryStore(), MemoryStore()
    store = CachedStore(behind, cache, cache_ttl=0.2)
    for number in range(3000):
        given = record(f"r{number}")
        store.save(given, expect=0)
    time.sleep(0.3)
    store.save(record("last"), expect=0)
    assert len(store._known) == 1
    assert len(cache._records) <= 2


# -- a cache that fails ------------------------------------------------------------------


class Dead(MemoryStore):
    """A cache that fails at every call, while it is told to."""

    is_dead = True
    calls = 0

    def _may_fail(self) -> None:
        self.calls += 1
        if self.is_dead:
            raise StoreError("the cache at nowhere:1 is out of reach")

    def load(self, key: Key) -> Record | None:
        self._may_fail()
        return super().load(key)

    def save(self, record: Record, *, expect: int) -> None:
        self._may_fail()
        super().save(record, expect=expect)

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        self._may_fail()
        return super().delete(key, user=user)

    def delete_expired(self, *, batch: int) -> int:
        self._may_fail()
        return super().delete_expired(batch=batch)


class TestOnADeadCache(LockingStoreSuite, IterableStoreSuite):
    """All that a store must do, it does without its cache."""

    @pytest.fixture
    def store(self) -> Store:
        return CachedStore(MemoryStore(), Dead())


def test_a_dead_cache_costs_speed_and_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked again after a pause, not at every call."""
    monkeypatch.setattr(cached, "PAUSE", 0.3)
    cache = Dead()
    store = CachedStore(MemoryStore(), cache)
    given = saved(store)
    for _ in range(100):
        assert store.load(key(given)) is not None
    assert cache.calls <= 2
    said = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert [each.levelname for each in said] == ["ERROR"]
    assert "nowhere:1" in said[0].getMessage()
    assert "costs speed" in said[0].getMessage()
    cache.is_dead = False
    time.sleep(0.4)
    for _ in range(3):
        assert store.load(key(given)) is not None
    assert cache._records


def test_what_a_dead_cache_kept_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It came back with a copy from before the saves and ends that it missed."""
    monkeypatch.setattr(cached, "PAUSE", 0.0)
    cache = Dead()
    cache.is_dead = False
    store = CachedStore(MemoryStore(), cache, cache_ttl=60)
    changed, ended = record("changed", data=b"1"), record("ended")
    store.save(changed, expect=0)
    store.save(ended, expect=0)
    cache.is_dead = True
    store.save(newer(changed, data=b"2"), expect=changed.version)
    store.delete(Key(ended.id))
    cache.is_dead = False
    assert data(store.load(key(changed))) == b"2"
    assert store.load(key(ended)) is None


@pytest.mark.parametrize("junk", [b"", b"{}", b"[1]\n", b"\xff\n{}", b"[]\n{}"])
def test_junk_in_the_cache_is_dropped(junk: bytes) -> None:
    """An entry of another format, or of nobody."""
    cache = MemoryStore()
    store = CachedStore(MemoryStore(), cache)
    given = saved(store)
    cache.delete(Key(given.id))
    cache.save(given._replace(data=junk), expect=0)
    assert store.load(key(given)) == given.bare()


def test_nothing_is_known_after_a_save_whose_answer_was_lost() -> None:
    """It may have been saved or not: the store behind is asked."""
    behind, cache = MemoryStore(), MemoryStore()
    store = CachedStore(behind, cache)
    given = saved(store, data=b"1")
    kept = behind.save

    def lost(record: Record, *, expect: int) -> None:
        kept(record, expect=expect)
        raise StoreError("the connection broke")

    behind.save = lost  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        store.save(newer(given, data=b"2"), expect=given.version)
    assert data(store.load(key(given))) == b"2"


# -- where it stands ---------------------------------------------------------------------


def test_a_cookie_neither_has_nor_is_a_cache() -> None:
    """What is in a cookie is nowhere else."""
    cookie: Any = CookieStore(secret=(SECRET.encode(),))
    for pair in ((cookie, MemoryStore()), (MemoryStore(), cookie)):
        with pytest.raises(ConfigurationError, match="no cache"):
            CachedStore(*pair)


def test_in_the_cache_nothing_can_be_read_that_is_encrypted() -> None:
    """Encryption goes around both."""
    pytest.importorskip("cryptography")
    cache = MemoryStore()
    manager = SessionManager(
        CachedStore(MemoryStore(), cache), Options(encrypt=True, secret=SECRET)
    )
    session = manager.create()
    session["card"] = "4711 0815"
    session.save()
    assert manager.open(str(manager.token_of(session)))["card"] == "4711 0815"
    (entry,) = cache._records.values()
    assert b"4711" not in entry.data


def test_the_cache_keeps_no_index_of_users() -> None:
    """Its entries belong to nobody, so that none is listed or counted as a session."""
    cache = MemoryStore()
    saved(CachedStore(MemoryStore(), cache), user="ann")
    assert list(cache.records(user="ann")) == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_increment_is_lost_while_the_cache_is_restarted(
    tmp_path: Path, method: str
) -> None:
    """P1: 800 of 800 in four processes, with the cache killed again and again."""
    pytest.importorskip("gunicorn")
    from ..redis_servers import RedisServer

    done = threading.Event()

    def kill_and_restart(server: RedisServer) -> int:
        kills = 0
        while not done.wait(0.2):
            server.kill()
            kills += 1
            time.sleep(0.2)
            server.start()
        return kills

    (tmp_path / "redis").mkdir()
    url, log = f"sqlite:///{tmp_path}/sessions.db", tmp_path / "log"
    with (
        RedisServer(tmp_path / "redis", "--appendonly", "no") as server,
        gunicorn(url, log, SESSION_CACHE_URL=server.url) as port,
        ThreadPoolExecutor(1) as pool,
    ):
        killing = pool.submit(kill_and_restart, server)
        try:
            cookie = press(port, method, "/increment", lambda *_: {"key": "n"})
        finally:
            done.set()
        assert killing.result() >= 1
        with Client(port, cookie) as client:  # a reader may be cache_ttl behind
            assert client("POST", "/read", key="n") == str(CLIENTS * TIMES)
    assert "costs speed" in log.read_text()
