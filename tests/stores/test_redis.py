"""The Redis store keeps the contract on one server, under sentinels, in a cluster.

And keeps its promises when replies are lost, servers restart, and primaries die.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import MaxConnectionsError
from redis.retry import Retry
from webtest import TestApp

import wsgisession.stores.redis
from wsgisession import SessionManager, SessionMiddleware, get_session
from wsgisession.errors import ConfigurationError, LockTimeout, StoreError
from wsgisession.options import Options
from wsgisession.record import Record
from wsgisession.stores.redis import RedisStore
from wsgisession.testing import (
    IterableStoreSuite,
    LockingStoreSuite,
    in_threads,
    key,
    record,
    refused,
    stored,
)

from ..conftest import SECRET, Visitor
from ..redis_servers import (
    HASTY,
    HOST,
    PATIENT,
    ClusterServers,
    Proxy,
    RedisServer,
    SentinelServers,
    eventually,
)


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelServers]:
    with SentinelServers(tmp_path_factory.mktemp("sentinels")) as servers:
        yield servers


@pytest.fixture(scope="module")
def three_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServers]:
    with ClusterServers(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
def server(one_server: RedisServer) -> RedisServer:
    """An empty server."""
    one_server.client().flushall()
    one_server.client().script_flush()
    return one_server


@pytest.fixture
def cluster(three_servers: ClusterServers) -> ClusterServers:
    """An empty cluster."""
    for each in three_servers.servers:
        each.client().flushall()
    return three_servers


@pytest.fixture(params=["server", "cluster"])
def servers(request: pytest.FixtureRequest) -> RedisServer | ClusterServers:
    """Each of both."""
    found: RedisServer | ClusterServers = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(server: RedisServer) -> RedisStore:
    return RedisStore(server.url)


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


class Suite(LockingStoreSuite, IterableStoreSuite):
    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError("give a fixture named url")

    @pytest.fixture
    def store(self, url: str) -> RedisStore:
        return RedisStore(url)

    @pytest.fixture
    def twin(self, url: str, store: RedisStore) -> RedisStore:
        return RedisStore(url)

    @pytest.fixture
    def crowded(self, url: str) -> RedisStore:
        return RedisStore(url, lock_waiters=2)


class TestOneServer(Suite):
    @pytest.fixture
    def url(self, server: RedisServer) -> str:
        return server.url


class TestSentinels(Suite):
    @pytest.fixture
    def url(self, sentinels: SentinelServers) -> str:
        sentinels.primary().client().flushall()
        return sentinels.url


class TestCluster(Suite):
    @pytest.fixture
    def url(self, cluster: ClusterServers) -> str:
        return cluster.url


# -- what it costs ---------------------------------------------------------------------


@contextmanager
def asked(servers: RedisServer | ClusterServers) -> Iterator[list[str]]:
    """What the servers are asked meanwhile, without what scripts do inside them."""
    seen: list[str] = []
    with ExitStack() as stack:
        pairs = []
        for server in all_of(servers):
            client = stack.enter_context(server.client())
            client.ping()
            watcher = stack.enter_context(server.client())
            pairs.append((client, stack.enter_context(watcher.monitor())))
        yield seen
        for client, monitor in pairs:
            client.echo("the end")
            while (told := monitor.next_command())["command"] != "ECHO the end":
                if told["client_type"] != "lua":
                    seen.append(told["command"].split()[0])


def all_of(servers: RedisServer | ClusterServers) -> list[RedisServer]:
    return servers.servers if isinstance(servers, ClusterServers) else [servers]


def warm(store: RedisStore, servers: RedisServer | ClusterServers) -> None:
    """Have connections everywhere, and the scripts known."""
    for number in range(12):
        given = record(f"warm{number}", user=f"warm{number}")
        store.save(given, expect=0)
        held = store.lock(key(given), wait=1, lease=5)
        assert held is not None
        store.unlock(held)
        store.touch(given)
        store.delete(given)


class TestCost:
    @pytest.mark.parametrize("user", [None, "ann"])
    def test_calls(
        self, servers: RedisServer | ClusterServers, user: str | None
    ) -> None:
        """One to read, two to read and write, locked or not, whoever is logged in."""
        store = RedisStore(servers.url)
        warm(store, servers)
        given = record(user=user)
        with asked(servers) as creating:
            store.save(given, expect=0)
        assert len(creating) == (1 if user is None else 2)
        with asked(servers) as reading:
            store.load(key(given))
        assert reading == ["HMGET"]
        with asked(servers) as touching:
            store.touch(given)
        assert touching == ["EVALSHA"]
        with asked(servers) as comparing:
            loaded = store.load(key(given))
            assert loaded is not None
            store.save(replace(loaded, version=2), expect=1)
        assert comparing == ["HMGET", "EVALSHA"]
        with asked(servers) as locking:
            held = store.lock(key(given), wait=1, lease=5)
            assert held is not None
            store.save(replace(held, version=3), expect=2)
        assert locking == ["EVALSHA", "EVALSHA"]
        with asked(servers) as unlocking:
            store.unlock(stored(held))
        assert unlocking == []
        with asked(servers) as refusing:
            refused(store, replace(given, version=2), expect=1)
        assert refusing == ["EVALSHA"]
        with asked(servers) as ending:
            store.delete(given)
        assert sorted(ending) == (["DEL"] if user is None else ["DEL", "ZREM"])

    def test_requests(self, servers: RedisServer | ClusterServers) -> None:
        """P4: untouched none, read one, read and written two, a login at most three."""
        store = RedisStore(servers.url)
        warm(store, servers)
        manager = SessionManager(store, Options(secret=SECRET))
        visitor = Visitor(
            manager,
            {
                "/nothing": lambda session: None,
                "/read": lambda session: session.get("n"),
                "/count": lambda session: session.update(n=session.get("n", 0) + 1),
                "/login": lambda session: session.login("ann"),
            },
        )

        def cost(method: str, path: str) -> int:
            with asked(servers) as seen:
                visitor.request(path, method=method)
            return len(seen)

        assert cost("POST", "/login") <= 3
        for _ in range(2):
            assert cost("GET", "/nothing") == 0
            assert cost("GET", "/read") == 1
            assert cost("GET", "/count") == 2
            assert cost("POST", "/count") == 2

    def test_one_key(self, store: RedisStore, server: RedisServer) -> None:
        """A record is one key, which ends by itself when the record does."""
        given = record()
        store.save(given, expect=0)
        assert store.lock(key(given), wait=1, lease=5) is not None
        with server.client() as client:
            (only,) = client.keys()
            before = time.time()
            left = client.pttl(only) / 1000
            assert before - 0.1 < given.expires - left < time.time() + 0.1

    def test_a_walk_is_made_in_pages(
        self, servers: RedisServer | ClusterServers
    ) -> None:
        """By SCAN, never by KEYS, and past whatever else is there."""
        store = RedisStore(servers.url, key_prefix="a*[b]?\\:")
        other = RedisStore(servers.url, key_prefix="aXb?\\:")
        for number in range(1300):
            store.save(record(f"r{number}"), expect=0)
        other.save(record("other"), expect=0)
        with asked(servers) as walking:
            seen = [each.id for each in store.records()]
        assert len(seen) == len(set(seen)) == 1300
        assert set(walking) == {"SCAN", "HMGET"}
        assert walking.count("SCAN") >= 3


# -- what it is given ------------------------------------------------------------------


class TestClients:
    @pytest.mark.parametrize("decode_responses", [False, True])
    @pytest.mark.parametrize("protocol", [2, 3])
    def test_a_client_of_the_callers(
        self, server: RedisServer, decode_responses: bool, protocol: int
    ) -> None:
        """Bytes come back as they were, whatever the client makes of others."""
        client = redis.Redis(
            port=server.port, decode_responses=decode_responses, protocol=protocol
        )
        self.exercise(RedisStore(client=client))

    @pytest.mark.parametrize("decode_responses", [False, True])
    def test_a_cluster_client_of_the_callers(
        self, cluster: ClusterServers, decode_responses: bool
    ) -> None:
        """So in a cluster."""
        client = RedisCluster(
            host=HOST,
            port=cluster.servers[0].port,
            decode_responses=decode_responses,
        )
        self.exercise(RedisStore(client=client))

    def test_another_encoding(self, server: RedisServer) -> None:
        """A client's encoding is not the store's."""
        client = redis.Redis(port=server.port, encoding="utf-16")
        self.exercise(RedisStore(client=client))
        client = redis.Redis(port=server.port, encoding="ascii", decode_responses=True)
        self.exercise(RedisStore(client=client))

    def exercise(self, store: RedisStore) -> None:
        given = record(
            data=bytes(range(256)) * 9,
            user="ann\u00e9 \u4e2d",
            created=0.1 + 0.2,
            accessed=1.0000000000000002,
        )
        store.save(given, expect=0)
        assert store.load(key(given)) == stored(given)
        assert list(store.records(user=given.user)) == [stored(given)]
        assert list(store.records()) == [stored(given)]
        held = store.lock(key(given), wait=1, lease=5)
        assert held is not None
        assert stored(held) == stored(given)
        store.save(replace(held, version=2), expect=1)
        assert refused(store, given, expect=1).record == stored(
            replace(given, version=2)
        )
        store.touch(replace(given, version=2, expires=given.expires + 1))
        store.delete(given)
        assert list(store.records()) == []

    def test_a_socket(self, server: RedisServer) -> None:
        """A unix:// URL works."""
        self.exercise(RedisStore(f"unix://{server.socket}?db=3"))

    def test_a_small_pool(self, server: RedisServer) -> None:
        """Those who wait for a lock pin no connection: one is enough for all."""
        pool = redis.BlockingConnectionPool(
            port=server.port, max_connections=1, timeout=15
        )
        store = RedisStore(client=redis.Redis(connection_pool=pool))
        given = record(data=b"0")
        store.save(given, expect=0)

        def increment(_: int) -> None:
            held = store.lock(key(given), wait=30, lease=30)
            assert held is not None
            time.sleep(0.02)
            count = b"%d" % (int(held.data) + 1)
            store.save(
                replace(held, data=count, version=held.version + 1),
                expect=held.version,
            )

        in_threads(8, increment)
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == b"8"

    def test_an_exhausted_pool(self, server: RedisServer) -> None:
        """No connection to be had is a StoreError, with the cause."""
        client = redis.Redis(port=server.port, max_connections=1)
        taken = client.connection_pool.get_connection()
        with pytest.raises(StoreError) as caught:
            RedisStore(client=client).load(key(record()))
        assert isinstance(caught.value.__cause__, MaxConnectionsError)
        client.connection_pool.release(taken)


class TestConfiguration:
    def test_url_or_client(self) -> None:
        """One of both is needed, and one is enough."""
        with pytest.raises(ConfigurationError, match="exactly one"):
            RedisStore()
        with pytest.raises(ConfigurationError, match="exactly one"):
            RedisStore("redis://localhost", client=redis.Redis())

    def test_an_asynchronous_client(self) -> None:
        """It is refused by name."""
        with pytest.raises(ConfigurationError, match=r"redis\.asyncio\.client\.Redis"):
            RedisStore(client=redis.asyncio.Redis())  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "options", [{"key_prefix": ""}, {"lock_waiters": -1}, {"timeout": 0}]
    )
    def test_values(self, options: dict[str, Any]) -> None:
        """What cannot work is refused."""
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            RedisStore("redis://localhost", **options)

    @pytest.mark.parametrize(
        "url",
        [
            "redis://:hidden@localhost:6379/first",
            "redis://:hidden@localhost:port/0",
            "redis://:hid/den@localhost",
            "redis://:hidden@localhost?no_such_option=1",
            "redis://:hidden@localhost?socket_timeout=soon",
            "unix://:hidden@?db=1",
            "redis+sentinel://:hidden@localhost:26379",
            "redis+sentinel://:hidden@localhost:26379/service/first",
            "redis+sentinel://:hidden@localhost:1,,/service",
            "redis+sentinel://:hidden@localhost:1/service?no_such_option=1",
            "redis+cluster://:hidden@localhost:6379/1",
            "redis+cluster://:hidden@/",
            "memcached://:hidden@localhost",
            "localhost",
        ],
    )
    def test_a_wrong_url(self, url: str) -> None:
        """It is refused at construction, with what is allowed, and no password."""
        with pytest.raises(ConfigurationError, match="it must be like") as caught:
            RedisStore(url)
        assert "hid" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__

    @pytest.mark.parametrize(
        "url",
        [
            "redis://user:word@localhost",
            "redis://localhost:6379/1?max_connections=5",
            "rediss://localhost:6380/0",
            "unix:///run/redis.sock",
            "redis+sentinel://one,two:26380,[::1]:26379/service",
            "redis+sentinel://user:word@one/service/2?max_connections=5",
            "redis+cluster://user:word@one:7000,two",
        ],
    )
    def test_a_right_url(self, url: str) -> None:
        """It is taken, and nobody is asked before the first request."""
        RedisStore(url)

    @pytest.mark.parametrize(
        "url",
        [
            "redis://127.0.0.1:1",
            "unix:///nowhere",
            "redis+sentinel://127.0.0.1:1/service",
            "redis+cluster://127.0.0.1:1",
        ],
    )
    def test_nobody_there(self, url: str) -> None:
        """An outage is a StoreError with its cause, at once, whatever is asked."""
        store, given = RedisStore(url), record(user="ann")
        began = time.monotonic()
        for work in (
            lambda: store.load(key(given)),
            lambda: store.save(given, expect=0),
            lambda: store.save(given, expect=1),
            lambda: store.touch(given),
            lambda: store.delete(given),
            lambda: store.lock(key(given), wait=60, lease=5),
            lambda: list(store.records()),
            lambda: list(store.records(user="ann")),
        ):
            with pytest.raises(StoreError) as caught:
                work()
            assert caught.value.__cause__ is not None
        assert time.monotonic() - began < 20  # where a lock is waited for 60 seconds


# -- users -----------------------------------------------------------------------------


class TestUsers:
    def test_listed_before_written(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """A session that exists is in the index, even if its writer dies in between."""
        given = record(user="ann")
        with server.client() as client, client.monitor() as monitor:
            store.save(given, expect=0)
            client.echo("the end")
            told = []
            while (command := monitor.next_command()["command"]) != "ECHO the end":
                told.append(command.split()[0].upper())
        assert told.index("ZADD") < told.index("HSET")

    def test_a_touched_record_stays_listed(self, store: RedisStore) -> None:
        """However often its clock moves, and although the index is pruned."""
        for life in (0.5, 2.0, 8.0):
            given, end = record(f"of {life} s", user="ann"), time.time() + life
            store.save(replace(given, accessed=end, expires=end), expect=0)
            in_time = True
            for number in range(5):
                time.sleep(life * 0.4)
                later = time.time() + life
                store.touch(replace(given, accessed=later, expires=later))
                in_time, end = in_time and time.time() < end, later
                store.save(record(f"{life} {number}", user="ann"), expect=0)
            listed = [each.id for each in store.records(user="ann")]
            if in_time and time.time() < end:
                break
        assert given.id in listed

    def test_the_index_is_pruned(self, store: RedisStore, server: RedisServer) -> None:
        """What is over goes when something is written."""
        given = [record(f"r{number}", user="ann") for number in range(6)]
        for each in given:
            store.save(each, expect=0)
        with server.client() as client:
            (index,) = client.scan_iter("session:user:*")
            assert client.zcard(index) == 6
            client.zadd(index, {each.id: 1.0 for each in given[1:]})  # in 1970
            other = record("other", user="ann", expires=time.time() + 600)
            store.save(other, expect=0)
            listed = {given[0].id.encode(), other.id.encode()}
            assert set(client.zrange(index, 0, -1)) == listed
            assert client.pttl(index) > 3600_000  # no sooner than the last of them

    def test_an_index_ends_with_its_last_entry(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """Of a user whose sessions are all over, nothing is left."""
        for number, life in enumerate((0.4, 0.1)):
            now = time.time()
            given = record(f"r{number}", user="ann", accessed=now, expires=now + life)
            store.save(given, expect=0)
        with server.client() as client:
            eventually(lambda: client.dbsize() == 0)

    def test_the_index_is_not_trusted(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """What it lists and is gone, or another's, is not given."""
        mine, other = record("mine", user="ann"), record("other", user="bob")
        store.save(mine, expect=0)
        store.save(other, expect=0)
        with server.client() as client:
            index = next(
                each
                for each in client.scan_iter("session:user:*")
                if client.zscore(each, mine.id) is not None
            )
            client.zadd(index, {other.id: 1e13, "nothing": 1e13})
        assert list(store.records(user="ann")) == [stored(mine)]

    def test_a_user_without_name(self, store: RedisStore) -> None:
        """The empty name is a name."""
        given = record(user="")
        store.save(given, expect=0)
        assert list(store.records(user="")) == [stored(given)]
        store.save(replace(given, version=2, user=None), expect=1)
        assert list(store.records(user="")) == []


# -- locks -----------------------------------------------------------------------------


def waiting(server: RedisServer, given: Record) -> int:
    """How many the server knows to be waiting for the lock of a record."""
    with server.client() as client:
        queue = json.loads(client.hget(f"session:{given.id}", "q") or "{}")
    return sum(ends > time.time() * 1000 for ends in queue.values())


class TestLocks:
    def test_a_thousand_late_holders_are_refused(self, store: RedisStore) -> None:
        """Whoever slept past the lease; what the successors wrote stands."""
        given = [record(f"r{number}") for number in range(1000)]
        late = []
        for each in given:
            store.save(each, expect=0)
            late.append(store.lock(key(each), wait=0, lease=0.001))
        for each in given:
            theirs = store.lock(key(each), wait=1, lease=30)
            assert theirs is not None
            store.save(replace(theirs, version=2, data=b"theirs"), expect=1)
        for held in late:
            assert held is not None
            conflict = refused(store, replace(held, version=2, data=b"late"), expect=1)
            assert conflict.record is not None
            assert conflict.record.data == b"theirs"
        assert {each.data for each in store.records()} == {b"theirs"}

    def test_a_repeated_version_is_not_taken_for_ours(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """A failover can lose our lease and a version, which another counts again."""
        given = record()
        store.save(given, expect=0)
        held = store.lock(key(given), wait=1, lease=30)
        assert held is not None
        with server.client() as client:
            client.delete(f"session:{given.id}")
        store.save(replace(given, data=b"another's"), expect=0)
        refused(store, replace(held, version=2), expect=1)

    def test_one_lease_for_two_saves(self, store: RedisStore) -> None:
        """A lease that has ended with one save does not stand in the way of the next."""
        given = record()
        store.save(given, expect=0)
        held = store.lock(key(given), wait=1, lease=30)
        assert held is not None
        store.save(replace(held, version=2), expect=1)
        store.save(replace(held, version=3), expect=2)

    def test_a_killed_waiter_leaves_its_place(self, server: RedisServer) -> None:
        """The queue forgets it when its wait would have been over."""
        store, given = RedisStore(server.url, lock_waiters=1), record()
        store.save(given, expect=0)
        assert store.lock(key(given), wait=1, lease=120) is not None
        waiter = script(
            """
            store = RedisStore(sys.argv[1])
            store.lock(Key(sys.argv[2]), wait=6, lease=30)
            """,
            server.url,
            given.id,
        )
        eventually(lambda: waiting(server, given) == 1)
        waiter.kill()
        waiter.communicate()

        def ahead() -> int | None:
            with pytest.raises(LockTimeout) as refusal:
                store.lock(key(given), wait=0.05, lease=30)
            return refusal.value.waiters

        assert ahead() == 1
        eventually(lambda: ahead() is None)

    def test_a_killed_holder(self, server: RedisServer) -> None:
        """Holds nobody up beyond its lease."""
        store, given = RedisStore(server.url), record()
        store.save(given, expect=0)
        holder = script(
            """
            RedisStore(sys.argv[1]).lock(Key(sys.argv[2]), wait=1, lease=0.5)
            print("held", flush=True)
            time.sleep(60)
            """,
            server.url,
            given.id,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        holder.communicate()
        held = store.lock(key(given), wait=15, lease=30)
        assert held is not None
        store.save(replace(held, version=2), expect=1)

    def test_who_comes_back_at_once_gets_in_line(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """The lock goes to those who wait, so that nobody starves."""
        given = record()
        store.save(given, expect=0)
        for _ in range(10):
            mine = store.lock(key(given), wait=1, lease=30)
            assert mine is not None
            with ThreadPoolExecutor(1) as pool:
                next_one = pool.submit(store.lock, key(given), wait=30, lease=30)
                eventually(lambda: waiting(server, given) == 1)
                store.unlock(mine)
                with pytest.raises(LockTimeout):
                    store.lock(key(given), wait=0, lease=30)
                theirs = next_one.result(timeout=15)
            assert theirs is not None
            store.unlock(theirs)


# -- several processes -----------------------------------------------------------------

PRELUDE = """
import os, random, sys, threading, time
from dataclasses import replace
from wsgisession.errors import *
from wsgisession.record import Key
from wsgisession.stores.redis import RedisStore
"""

INCREMENT = """
def increment(store, key, locked, thinking):
    take = lambda: store.lock(key, wait=60, lease=60) if locked else store.load(key)
    record = take()
    while True:
        time.sleep(thinking)
        count = b"%d" % (int(record.data) + 1)
        changed = replace(record, data=count, version=record.version + 1)
        try:
            return store.save(changed, expect=record.version)
        except Conflict:
            record = store.lock(key, wait=60, lease=60)
"""


def script(text: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process."""
    text = PRELUDE + INCREMENT + textwrap.dedent(text)
    return subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(wsgisession.stores.redis.__file__).parents[2],
    )


def run(text: str, *arguments: str) -> str:
    """What another process prints, if all goes well."""
    with script(text, *arguments) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


class TestProcesses:
    @pytest.mark.parametrize(
        ("methods", "thinking"), [("GET", "0"), ("POST", "0"), ("GET POST", "0.002")]
    )
    def test_increments_of_forked_workers(
        self, servers: RedisServer | ClusterServers, methods: str, thinking: str
    ) -> None:
        """P1: four processes of four threads count to 800 with the default options.

        The store is made and used before the fork.
        """
        out = run(
            """
            from concurrent.futures import ThreadPoolExecutor
            from webob import Request
            from wsgisession import SessionManager, SessionMiddleware, get_session
            from wsgisession.options import Options

            url, methods, thinking = sys.argv[1], sys.argv[2].split(), float(sys.argv[3])

            def count(environ, start_response):
                session = get_session(environ)
                n = session.get("n", 0)
                time.sleep(thinking)
                session["n"] = n + 1
                start_response("200 OK", [])
                return [b"%d" % n]

            secret = "u7Zk1vXq0bH3nW9sRfT5yLpC8dJ2gMaE6iOxQwKz4A"
            manager = SessionManager(RedisStore(url), Options(secret=secret))
            application = SessionMiddleware(count, manager=manager)

            def ask(method, cookie=None):
                headers = {"Cookie": cookie} if cookie else {}
                request = Request.blank("/", method=method, headers=headers)
                response = request.get_response(application)
                if response.status_code == 503:  # a busy machine: it waited in vain
                    time.sleep(int(response.headers["Retry-After"]))
                    return ask(method, cookie)
                assert response.status_code == 200, response.status
                return response

            cookie = ask("POST").headers["Set-Cookie"].partition(";")[0]

            def work(number):
                for _ in range(50):
                    ask(methods[number % len(methods)], cookie)

            children = []
            for _ in range(4):
                if not (pid := os.fork()):
                    try:
                        with ThreadPoolExecutor(4) as pool:
                            list(pool.map(work, range(4)))
                    except BaseException as error:
                        print(repr(error), file=sys.stderr, flush=True)
                        os._exit(1)
                    os._exit(0)
                children.append(pid)
            assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
            print(int(ask("GET", cookie).body) - 1)
            """,
            servers.url,
            methods,
            thinking,
        )
        assert out == "800\n"

    def test_greenlets(self, server: RedisServer) -> None:
        """Under gevent nobody blocks the hub, and a timeout takes no answer along."""
        if importlib.util.find_spec("gevent") is None:
            pytest.skip("gevent is not installed")
        store, given = RedisStore(server.url), record(data=b"0")
        other = record("other", data=b"other")
        store.save(given, expect=0)
        store.save(other, expect=0)
        out = run(
            """
            from gevent import monkey; monkey.patch_all()
            import gevent
            store = RedisStore(sys.argv[1])
            key, other = Key(sys.argv[2]), Key(sys.argv[3])
            def work(number):
                for _ in range(10):
                    increment(store, key, number % 2, 0.001)
            jobs = [gevent.spawn(work, number) for number in range(10)]
            gevent.joinall(jobs, raise_error=True)

            def interrupted(number):
                for _ in range(200):
                    with gevent.Timeout(random.uniform(0, 0.002), False):
                        assert store.load(key).data == b"100"
                    assert store.load(other).data == b"other"
            jobs = [gevent.spawn(interrupted, number) for number in range(4)]
            gevent.joinall(jobs, raise_error=True)
            print(store.load(key).data.decode())
            """,
            server.url,
            given.id,
            other.id,
        )
        assert out == "100\n"


# -- faults ----------------------------------------------------------------------------


class TestLostReplies:
    def test_the_proxy_loses_what_was_done(self, proxy: Proxy) -> None:
        """The positive control: a client that asks again counts twice."""
        client = redis.Redis(port=proxy.port, retry=Retry(NoBackoff(), 1))
        proxy.lose(b"counter")
        assert client.incr("counter") == 2

    def test_a_save_is_done_once(self, store: RedisStore, proxy: Proxy) -> None:
        """And reported as done."""
        given = record(user="ann")
        mine = RedisStore(proxy.url)
        for marker in (b"EVALSHA", b"first"):
            proxy.lose(marker)
            mine.save(replace(given, data=b"first"), expect=0)
            assert proxy.lost
            store.delete(given)
        mine.save(given, expect=0)
        proxy.lose(b"second")
        mine.save(replace(given, data=b"second", version=2), expect=1)
        assert proxy.lost
        loaded = store.load(key(given))
        assert loaded is not None
        assert (loaded.data, loaded.version) == (b"second", 2)

    def test_a_save_in_doubt_is_no_conflict(
        self, store: RedisStore, proxy: Proxy
    ) -> None:
        """If another wrote meanwhile, ours may be in theirs: it must not be replayed."""
        given = record()
        store.save(given, expect=0)
        theirs = replace(given, data=b"theirs", version=3)
        proxy.lose(b"ours", meanwhile=lambda: store.save(theirs, expect=2))
        with pytest.raises(StoreError):
            RedisStore(proxy.url).save(
                replace(given, data=b"ours", version=2), expect=1
            )
        assert store.load(key(given)) == stored(theirs)

    def test_a_save_of_what_was_ended_meanwhile(
        self, store: RedisStore, proxy: Proxy
    ) -> None:
        """Is a conflict with nothing, and brings nothing back."""
        given = record()
        store.save(given, expect=0)
        proxy.lose(b"ours", meanwhile=lambda: store.delete(given))
        conflict = refused(
            RedisStore(proxy.url), replace(given, data=b"ours", version=2), expect=1
        )
        assert conflict.record is None
        assert store.load(key(given)) is None

    def test_a_client_that_repeats_by_itself(
        self, store: RedisStore, proxy: Proxy
    ) -> None:
        """Is kept from it, so that doubt is seen as doubt."""
        given = record()
        store.save(given, expect=0)
        theirs = replace(given, data=b"theirs", version=3)
        proxy.lose(b"ours", meanwhile=lambda: store.save(theirs, expect=2))
        client = redis.Redis(port=proxy.port)
        with pytest.raises(StoreError):
            RedisStore(client=client).save(
                replace(given, data=b"ours", version=2), expect=1
            )

    def test_a_lock_is_had_once(self, store: RedisStore, proxy: Proxy) -> None:
        """Who asks again is its holder already."""
        given = record()
        store.save(given, expect=0)
        proxy.lose(given.id.encode())
        held = RedisStore(proxy.url).lock(key(given), wait=0, lease=30)
        assert proxy.lost
        assert held is not None
        store.save(replace(held, version=2), expect=1)
        assert store.lock(key(given), wait=0, lease=30) is not None

    @pytest.mark.parametrize("how", ["touch", "unlock", "delete", "load"])
    def test_the_rest_may_be_repeated(
        self, store: RedisStore, proxy: Proxy, how: str
    ) -> None:
        """It ends as if the reply had come."""
        given = record()
        store.save(given, expect=0)
        held = store.lock(key(given), wait=0, lease=30)
        proxy.lose(given.id.encode())
        getattr(RedisStore(proxy.url), how)(held)
        assert proxy.lost
        if how != "load":
            again = store.lock(key(given), wait=0, lease=30)
            assert (again is None) == (how == "delete")

    def test_silence_ends(self, store: RedisStore, server: RedisServer) -> None:
        """No answer is a StoreError after the timeout, and the next question works."""
        given = record()
        store.save(given, expect=0)
        asks: list[Callable[[RedisStore], object]] = [
            lambda mine: mine.load(key(given)),
            lambda mine: mine.save(replace(given, version=2, data=b"2"), expect=1),
            lambda mine: mine.lock(key(given), wait=60, lease=0.1),
        ]

        def answers(mine: RedisStore) -> bool:
            # Again, for a busy machine may take longer than the timeout by itself.
            for _ in range(5):
                with suppress(StoreError):
                    return mine.load(key(given)) is not None
            return False

        for ask in asks:
            # Each by a proxy of its own, where nobody's late question meets the fault.
            with Proxy(server.port) as proxy:
                mine = RedisStore(proxy.url, timeout=1)
                proxy.lose(given.id.encode(), silently=True)
                began = time.monotonic()
                with pytest.raises(StoreError) as caught:
                    ask(mine)
                assert isinstance(caught.value.__cause__, redis.TimeoutError)
                assert time.monotonic() - began < 20
                assert answers(mine)


def told(error: StoreError, code: str, kind: type[Exception]) -> bool:
    """Whether this was the cause; Redis 6 tells a script's error in its text only."""
    return isinstance(error.__cause__, kind) or code in str(error.__cause__)


class TestServers:
    def test_forgotten_scripts(self, store: RedisStore, server: RedisServer) -> None:
        """A server that lost its scripts is told them again."""
        given = record()
        store.save(given, expect=0)
        server.client().script_flush()
        store.save(replace(given, version=2), expect=1)
        server.client().script_flush()
        assert store.lock(key(given), wait=0, lease=5) is not None

    def test_a_server_that_must_not_write(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """Is a StoreError, readers pass, and all is well afterwards."""
        given = record()
        store.save(given, expect=0)
        with server.client() as client:
            client.replicaof(HOST, 1)
            try:
                with pytest.raises(StoreError) as caught:
                    store.save(replace(given, version=2), expect=1)
                assert told(caught.value, "READONLY", redis.ReadOnlyError)
                assert store.load(key(given)) == stored(given)
            finally:
                client.execute_command("REPLICAOF", "NO", "ONE")
        store.save(replace(given, version=2), expect=1)

    def test_a_primary_that_was_replaced(
        self, server: RedisServer, proxy: Proxy, tmp_path: Path
    ) -> None:
        """Where the address leads to another one now, nobody notices."""
        store, given = RedisStore(proxy.url), record()
        store.save(given, expect=0)
        with RedisServer(tmp_path) as other, server.client() as client:
            other.client().replicaof(HOST, server.port)
            eventually(lambda: other.client().dbsize() == 1)
            other.client().execute_command("REPLICAOF", "NO", "ONE")
            proxy.target = other.port
            client.replicaof(HOST, other.port)
            try:
                store.save(replace(given, version=2), expect=1)
                assert RedisStore(other.url).load(key(given)) == stored(
                    replace(given, version=2)
                )
            finally:
                client.execute_command("REPLICAOF", "NO", "ONE")

    def test_a_full_server(self, store: RedisStore, server: RedisServer) -> None:
        """Is a StoreError, and what was there stays as it was."""
        given = record()
        store.save(given, expect=0)
        with server.client() as client:
            client.config_set("maxmemory", "1")
            try:
                with pytest.raises(StoreError) as caught:
                    store.save(replace(given, version=2), expect=1)
                assert told(caught.value, "OOM", redis.OutOfMemoryError)
                assert store.load(key(given)) == stored(given)
            finally:
                client.config_set("maxmemory", "0")

    @pytest.mark.parametrize("change", [{"v": "x"}, {"c": ""}, {"d": None}])
    def test_a_corrupt_record(
        self,
        store: RedisStore,
        server: RedisServer,
        caplog: pytest.LogCaptureFixture,
        change: dict[str, str | None],
    ) -> None:
        """Is absent and logged, and its bytes stay."""
        given = record()
        store.save(given, expect=0)
        at = f"session:{given.id}"
        with server.client() as client:
            for field, value in change.items():
                if value is None:
                    client.hdel(at, field)
                else:
                    client.hset(at, field, value)
            left = client.hgetall(at)
            assert store.load(key(given)) is None
            assert "corrupt" in caplog.text
            assert list(store.records()) == []
            assert client.hgetall(at) == left

    def test_a_slot_that_moves(self, cluster: ClusterServers) -> None:
        """Whoever knows the old place is led to the new one."""
        store, given = RedisStore(cluster.url), record()
        store.load(key(given))
        client = cluster.servers[0].client()
        slot = client.execute_command("CLUSTER KEYSLOT", f"session:{given.id}")
        names = {
            server.client().execute_command("CLUSTER MYID").decode(): server
            for server in cluster.servers
        }
        ranges = client.execute_command("CLUSTER SLOTS")
        port = next(node[1] for first, last, node in ranges if first <= slot <= last)
        old = next(name for name, server in names.items() if server.port == port)
        new = next(name for name in names if name != old)
        for name in (new, old):
            for _, server in sorted(names.items(), key=lambda pair: pair[0] != name):
                server.client().execute_command("CLUSTER SETSLOT", slot, "NODE", name)
            store.save(given, expect=0)
            assert store.load(key(given)) == stored(given)
            store.delete(given)

    def test_restarts_under_load(self, server: RedisServer) -> None:
        """Only StoreErrors, no lost or foreign data, and an end to them in time."""
        store = RedisStore(server.url, timeout=2)
        given = [record(f"r{number}", data=b"r%d 0" % number) for number in range(4)]
        for each in given:
            store.save(each, expect=0)
        stop = threading.Event()
        in_a_row = [0] * 4

        def work(number: int) -> tuple[int, int]:
            done, doubtful = 0, 0
            while not stop.is_set():
                try:
                    held = store.lock(key(given[number]), wait=30, lease=0.2)
                    assert held is not None
                    name, count = held.data.split()
                    assert name == b"r%d" % number
                    assert done <= int(count) <= done + doubtful
                    data = b"%b %d" % (name, int(count) + 1)
                    doubtful += 1
                    store.save(
                        replace(held, data=data, version=held.version + 1),
                        expect=held.version,
                    )
                    done, doubtful = int(count) + 1, 0
                    in_a_row[number] += 1
                except StoreError:
                    in_a_row[number] = 0
            return done, doubtful

        with ThreadPoolExecutor(4) as pool:
            working = [pool.submit(work, number) for number in range(4)]
            try:
                for _ in range(2):
                    eventually(lambda: min(in_a_row) > 20)
                    server.kill()
                    time.sleep(0.2)
                    server.start()
                    in_a_row[:] = [0] * 4
                eventually(lambda: min(in_a_row) > 20, seconds=20)
            finally:
                stop.set()
            for number, each in enumerate(working):
                done, doubtful = each.result(timeout=60)
                loaded = store.load(key(given[number]))
                assert loaded is not None
                assert done <= int(loaded.data.split()[1]) <= done + doubtful

    def test_restarts_under_requests(self, server: RedisServer) -> None:
        """P8: each visitor meets their own session or a 503, and no cookie is touched."""

        def count(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            session = get_session(environ)
            session["n"] = session.get("n", 0) + 1
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [f"{session.get('name')} {session['n']}".encode()]

        # The server may die under a lease, which then has to run out by itself.
        options = Options(lock_lease=1)
        manager = SessionManager(RedisStore(server.url, timeout=2), options)
        visitors = []
        for number in range(4):
            session = manager.create()
            session["name"] = f"v{number}"
            session.save()
            visitors.append({"Cookie": f"session={session.token}"})
        app = TestApp(SessionMiddleware(count, manager=manager))
        stop = threading.Event()
        in_a_row, refused = [0] * 4, [0] * 4

        def visit(number: int) -> None:
            done = doubtful = 0
            for method in itertools.cycle((app.get, app.post)):
                if stop.is_set():
                    return
                doubtful += 1
                answer = method("/", headers=visitors[number], status="*")
                assert "Set-Cookie" not in answer.headers
                if answer.status_int == 503:
                    in_a_row[number] = 0
                    refused[number] += 1
                    continue
                assert answer.status_int == 200
                name, n = answer.text.split()
                assert name == f"v{number}"
                assert done < int(n) <= done + doubtful
                done, doubtful = int(n), 0
                in_a_row[number] += 1

        with ThreadPoolExecutor(4) as pool:
            visits = [pool.submit(visit, number) for number in range(4)]
            try:
                for _ in range(2):
                    eventually(lambda: min(in_a_row) > 20)
                    server.kill()
                    refused[:] = [0] * 4
                    eventually(lambda: min(refused) > 0)
                    server.start()
                    in_a_row[:] = [0] * 4
                eventually(lambda: min(in_a_row) > 20)
            finally:
                stop.set()
            for each in visits:
                each.result(timeout=60)

    def test_a_server_that_is_still_loading(self, tmp_path: Path) -> None:
        """Is a StoreError, never an absent record, and answers when it is ready."""
        causes, given = set(), record()
        with RedisServer(tmp_path) as server:
            store = RedisStore(server.url)
            store.save(given, expect=0)
            with server.client() as client, client.pipeline(transaction=False) as bulk:
                for number in range(15_000):
                    bulk.set(f"bulk{number}", "")
                bulk.execute()
            server.kill()
            server.launch("--key-load-delay", "500")
            end = time.monotonic() + 60
            while time.monotonic() < end:
                try:
                    assert store.load(key(given)) == stored(given)
                    break
                except StoreError as error:
                    causes.add(type(error.__cause__))
                if redis.BusyLoadingError in causes:  # that was slow enough
                    with server.client() as client, suppress(redis.RedisError):
                        client.config_set("key-load-delay", "0")
            assert redis.BusyLoadingError in causes
            assert store.load(key(given)) == stored(given)

    def test_a_failover(self, sentinels: SentinelServers) -> None:
        """While a primary dies, what its replica had is there or a StoreError is."""
        store, given = RedisStore(sentinels.url, timeout=1), record()
        changed = replace(given, version=2)
        primary = sentinels.primary()
        primary.client().flushall()
        store.save(given, expect=0)
        assert primary.client().wait(1, 60_000) == 1
        primary.kill()
        try:
            with pytest.raises(StoreError):
                store.load(key(given))
            sentinels.hasten(HASTY)
            end = time.monotonic() + 120
            while True:
                try:
                    # A save whose answer came too late for us may have been done.
                    if store.load(key(given)) != stored(changed):
                        assert store.load(key(given)) == stored(given)
                        store.save(changed, expect=1)
                    break
                except StoreError:
                    assert time.monotonic() < end
                    time.sleep(0.02)
            eventually(lambda: sentinels.primary() is not primary)
            assert store.load(key(given)) == stored(changed)
        finally:
            sentinels.hasten(PATIENT)
            primary.start()
            eventually(sentinels.complete, seconds=120)
