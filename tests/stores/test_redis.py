"""The Redis store keeps the contract on one server, under sentinels, in a cluster.

And keeps its promises when replies are lost, clocks differ, servers restart or evict, and
primaries die.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import queue
import subprocess
import sys
import textwrap
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import MaxConnectionsError
from redis.retry import Retry

import wsgisession
from wsgisession.errors import (
    ConfigurationError,
    LockTimeout,
    StoreError,
    VersionConflict,
)
from wsgisession.record import Key, Record, Replaced
from wsgisession.stores.redis import RedisStore
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

from ..conftest import missing
from ..redis_servers import (
    HASTY,
    HOST,
    PATIENT,
    SERVICE,
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


def take(
    store: RedisStore, given: Record, *, wait: float = 15, lease: float = 60
) -> Record:
    """Lock where a lease is due, and give the record that carries it."""
    held = store.lock(key(given), wait=wait, lease=lease, waiters=50)
    assert held is not None
    assert held.lease is not None
    return held


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
    """What the servers are asked in the block, without what scripts do inside them."""
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
                command = told["command"].split()[0]
                # Newer servers are told by redis-py who asks.
                if told["client_type"] != "lua" and command != "CLIENT":
                    seen.append(command)


def all_of(servers: RedisServer | ClusterServers) -> list[RedisServer]:
    return servers.servers if isinstance(servers, ClusterServers) else [servers]


def inside(server: RedisServer, work: Callable[[], object]) -> list[str]:
    """The commands that scripts run inside a server while ``work`` is done."""
    with server.client() as client, server.client() as watcher:
        client.ping()
        with watcher.monitor() as monitor:
            work()
            client.echo("the end")
            seen = []
            while (told := monitor.next_command())["command"] != "ECHO the end":
                if told["client_type"] == "lua":
                    seen.append(told["command"].split()[0].upper())
    return seen


def warm(store: RedisStore) -> None:
    """Have connections everywhere, and the scripts known."""
    for number in range(12):
        given = record(f"warm{number}", user=f"warm{number}")
        store.save(given, expect=0)
        store.unlock(take(store, given))
        store.touch(given)
        store.delete(key(given))


class TestCost:
    @pytest.mark.parametrize("user", [None, "ann"])
    def test_calls(
        self, servers: RedisServer | ClusterServers, user: str | None
    ) -> None:
        """One to read, two to read and write, locked or not, logged in or not."""
        store = RedisStore(servers.url)
        warm(store)
        given, second, third = (record(user=user) for _ in range(3))
        with asked(servers) as creating:
            store.save(given, expect=0)
        assert creating == ["EVALSHA"] * (1 if user is None else 2)
        with asked(servers) as reading:
            store.load(key(given))
        assert reading == ["HMGET"]
        with asked(servers) as touching:
            store.touch(given)
        assert touching == ["EVALSHA"]
        with asked(servers) as comparing:
            store.load(key(given))
            store.save(second, expect=given.version)
        assert comparing == ["HMGET", "EVALSHA"]
        with asked(servers) as locking:
            held = take(store, given)
            store.save(third._replace(lease=held.lease), expect=held.version)
        assert locking == ["EVALSHA", "EVALSHA"]
        with asked(servers) as unlocking:
            store.unlock(stored(held))
        assert unlocking == []
        with asked(servers) as refusing:
            refused(store, newer(given), expect=given.version)
        assert refusing == ["EVALSHA"]
        with asked(servers) as ending:
            store.delete(key(given))
        assert sorted(ending) == ["EVALSHA"] + ["ZREM"] * (user is not None)

    def test_what_scripts_do(self, store: RedisStore, server: RedisServer) -> None:
        """No more inside the server than there is to do."""
        warm(store)
        given, second, third = record(), record(), record()
        save = ["HMGET", "TIME", "HSET", "PEXPIREAT"]
        assert inside(server, lambda: store.save(given, expect=0)) == save
        assert inside(server, lambda: store.save(second, expect=given.version)) == save
        held: list[Record] = []
        assert inside(server, lambda: held.append(take(store, given))) == [
            *("TIME", "HMGET", "HSET")
        ]
        locked = third._replace(lease=held[0].lease)
        assert inside(server, lambda: store.save(locked, expect=second.version)) == [
            *("HMGET", "TIME", "HSET", "HDEL", "PEXPIREAT")
        ]
        assert inside(server, lambda: store.touch(third)) == save

    def test_a_new_session_of_a_user_is_one_round_trip(
        self, store: RedisStore, proxy: Proxy
    ) -> None:
        """The index and the record leave in one packet."""
        mine = RedisStore(proxy.url)
        warm(mine)
        before = proxy.rounds
        mine.save(record(user="ann"), expect=0)
        assert proxy.rounds == before + 1

    def test_one_key(self, store: RedisStore, server: RedisServer) -> None:
        """A record is one key, which ends by itself when the record does."""
        given = record()
        store.save(given, expect=0)
        take(store, given)
        with server.client() as client:
            (only,) = client.keys()
            before = time.time()
            left = client.pttl(only) / 1000
            assert before - 0.1 < given.expires - left < time.time() + 0.1

    def test_fields_have_names(self, store: RedisStore, server: RedisServer) -> None:
        """What an administrator sees with HGETALL, and nothing that is not needed."""
        given = record(user="ann")
        store.save(given, expect=0)
        with server.client() as client:
            at = f"session:{given.id}"
            seen = client.hgetall(at)
            assert set(seen) == {
                *(b"version", b"data", b"meta", b"accessed", b"expires", b"listed")
            }
            assert json.loads(seen[b"meta"]) == {
                "created": given.created,
                "user": "ann",
                "proof": given.proof,
                "turned": given.turned,
            }
            held = take(store, given)
            assert set(client.hgetall(at)) == {*seen, b"lease"}
            nobody = newer(held, user=None)
            store.save(nobody, expect=given.version)
            assert set(client.hgetall(at)) == set(seen) - {b"listed"}

    def test_a_walk_is_made_in_pages(
        self, servers: RedisServer | ClusterServers
    ) -> None:
        """By SCAN, never by KEYS, and past other keys of the server."""
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

    def test_several_records_are_one_packet(
        self, store: RedisStore, proxy: Proxy
    ) -> None:
        """1,300 sessions of a user take no 1,300 round trips."""
        for number in range(1300):
            store.save(record(f"r{number}", user="ann"), expect=0)
        mine = RedisStore(proxy.url)
        warm(mine)
        before = proxy.rounds
        assert len(list(mine.records(user="ann"))) == 1300
        # 52 packets and two more questions; an answer may begin before a packet ends.
        assert proxy.rounds < before + 300


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
            user='ann\u00e9 \u4e2d \ud800 \x00 "',
            created=0.1 + 0.2,
            accessed=1.0000000000000002,
            replaced=(Replaced(proof("old"), None), Replaced(proof("older"), 0)),
        )
        store.save(given, expect=0)
        assert store.load(key(given)) == stored(given)
        assert list(store.records(user=given.user)) == [stored(given)]
        assert list(store.records()) == [stored(given)]
        held = take(store, given)
        assert stored(held) == stored(given)
        second = newer(held)
        store.save(second, expect=given.version)
        assert refused(store, newer(given), expect=given.version).record == stored(
            second
        )
        assert store.touch(second._replace(expires=given.expires + 1)) is True
        assert store.delete(key(given), user=given.user) is True
        assert list(store.records()) == []

    def test_a_socket(self, server: RedisServer) -> None:
        """A unix:// URL works."""
        self.exercise(RedisStore(f"unix://{server.socket}?db=3"))

    def test_a_small_pool(self, server: RedisServer) -> None:
        """Waiting for a lock pins no connection: one is enough for all."""
        pool = redis.BlockingConnectionPool(  # type: ignore[no-untyped-call]
            port=server.port, max_connections=1, timeout=15
        )
        store = RedisStore(client=redis.Redis(connection_pool=pool))
        given = record(data=b"0")
        store.save(given, expect=0)

        def increment(_: int) -> None:
            held = take(store, given, wait=30)
            time.sleep(0.02)
            count = b"%d" % (int(held.data) + 1)
            store.save(newer(held, data=count), expect=held.version)

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

    @pytest.mark.parametrize("options", [{"key_prefix": ""}, {"socket_timeout": 0}])
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
            "redis://:hid?den@localhost",
            "redis://:hid#den@localhost",
            "redis://:12#hidden@localhost",
            "redis://:12?hidden@localhost",
            "redis://:12/hidden@localhost",
            "redis://:hid[den@localhost",
            "redis://:hid]den@localhost",
            "redis://:[hid]den@localhost",
            "redis://:12/hid@den@localhost",
            "redis+cluster://:hid#den@localhost",
            "redis+sentinel://:hid/den@localhost:26379/service",
            "unix://:hid/den@/run/redis.sock",
            "redis://:hid den@localhost",
            "redis://:hid\nden@localhost",
            "redis://:hidden@localhost?no_such_option=1",
            "redis://:hidden@localhost?socket_timeout=soon",
            "unix://:hidden@?db=1",
            "redis+sentinel://:hidden@localhost:26379",
            "redis+sentinel://:hidden@localhost:26379/service/first",
            "redis+sentinel://:hidden@localhost:1,,/service",
            "redis+sentinel://:hidden@localhost:1/service?no_such_option=1",
            "redis+sentinel://:hidden@localhost:1/service?sentinel_no_such_option=1",
            "redis+sentinel://localhost:1/service?sentinel_password=hid@den",
            "redis+sentinel://localhost:1/service?ssl=perhaps",
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
            "redis+sentinel://one/service?sentinel_username=user&sentinel_password=word",
            "redis+sentinel://one/service?ssl=true&sentinel_ssl=true",
            "redis+cluster://one?ssl=true&ssl_cert_reqs=none",
            "redis+cluster://user:word@one:7000,two",
        ],
    )
    def test_a_right_url(self, url: str) -> None:
        """It is taken, and no server is asked before the first request."""
        RedisStore(url)

    @pytest.mark.parametrize("word", ["a[b]c#d?e%41@f:g/h", "100%", "p@ss:word", "%zz"])
    def test_a_password(self, server: RedisServer, tmp_path: Path, word: str) -> None:
        """Each is understood when it is percent-encoded."""
        quoted = urllib.parse.quote(word, safe="")
        with server.client() as client:
            client.acl_setuser(
                "guest",
                enabled=True,
                passwords=[f"+{word}"],
                keys="*",
                commands=["+@all"],
            )
            try:
                url = f"redis://guest:{quoted}@{HOST}:{server.port}/0"
                RedisStore(url).save(record(), expect=0)
                if not set(word) & set("[]#?/"):  # "@" and ":" divide only once
                    raw = word.replace("%41", "%2541")
                    RedisStore(url.replace(quoted, raw)).load(key(record()))
            finally:
                client.acl_deluser("guest")

    def test_sentinels_with_passwords_of_their_own(self, tmp_path: Path) -> None:
        """Those of the servers stand before the hosts, theirs after the question mark."""
        with SentinelServers(
            tmp_path, password="one", sentinel_password="two"
        ) as found:
            own = "sentinel_password=two"
            right = f"redis+sentinel://:one@{found.hosts}/{SERVICE}/0?{own}"
            store, given = RedisStore(right), record(user="ann")
            store.save(given, expect=0)
            assert list(store.records(user="ann")) == [stored(given)]
            with pytest.raises(StoreError):
                RedisStore(f"redis+sentinel://:one@{found.hosts}/{SERVICE}/0").load(
                    key(given)
                )

    @pytest.mark.parametrize(
        "url",
        [
            "redis://127.0.0.1:1",
            "unix:///nowhere",
            "redis+sentinel://127.0.0.1:1/service",
            "redis+cluster://127.0.0.1:1",
        ],
    )
    def test_no_server_there(self, url: str) -> None:
        """An outage is a StoreError with its cause, at once, whatever is asked."""
        store, given = RedisStore(url), record(user="ann")
        began = time.monotonic()
        for work in (
            lambda: store.load(key(given)),
            lambda: store.save(given, expect=0),
            lambda: store.save(given, expect=7),
            lambda: store.touch(given),
            lambda: store.delete(key(given)),
            lambda: store.lock(key(given), wait=60, lease=5, waiters=9),
            lambda: list(store.records()),
            lambda: list(store.records(user="ann")),
        ):
            with pytest.raises(StoreError) as caught:
                work()
            assert caught.value.__cause__ is not None
        assert time.monotonic() - began < 20  # where a lock is waited for 60 seconds


# -- users -----------------------------------------------------------------------------


def the_index(client: redis.Redis) -> str:
    """The key of the only user's index."""
    (index,) = client.scan_iter("session:user:*")
    return str(index.decode())


class TestUsers:
    def test_listed_before_written(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """A session that exists is in the index, even if its writer dies in between."""
        given = record(user="ann")
        told = inside(server, lambda: store.save(given, expect=0))
        assert told.index("ZADD") < told.index("HSET")
        later = newer(given, expires=given.expires + 36_000)
        told = inside(server, lambda: store.save(later, expect=given.version))
        assert told.index("ZADD") < told.index("HSET")

    @pytest.mark.parametrize("how", ["touch", "save"])
    def test_a_session_in_use_stays_listed(self, store: RedisStore, how: str) -> None:
        """However often its clock moves, and although the index is pruned."""
        for life in (0.5, 2.0, 8.0):
            given, end = record(f"of {life} s", user="ann"), time.time() + life
            given = given._replace(accessed=time.time(), expires=end)
            store.save(given, expect=0)
            in_time = True
            for number in range(5):
                time.sleep(life * 0.4)
                later = time.time() + life
                moved = given._replace(accessed=time.time(), expires=later)
                if how == "touch":
                    in_time = in_time and store.touch(moved)
                else:
                    with suppress(VersionConflict):
                        moved = newer(moved)
                        store.save(moved, expect=given.version)
                        given = moved
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
            index = the_index(client)
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

    def test_the_index_is_compared_with_the_records(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """What it lists and is gone, or of another user, is not given."""
        mine, other = record("mine", user="ann"), record("other", user="bob")
        store.save(mine, expect=0)
        with server.client() as client:
            index = the_index(client)
            store.save(other, expect=0)
            client.zadd(index, {other.id: 1e13, record("gone").id: 1e13})
        assert list(store.records(user="ann")) == [stored(mine)]

    def test_an_entry_waits_for_its_record(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """A login lists first and writes then: an entry that does not match stays."""
        first, other = record("first", user="ann"), record("other", user="bob")
        store.save(first, expect=0)
        with server.client() as client:
            index = the_index(client)
            store.save(other, expect=0)
            under_way = {record("under way").id: 1e13, other.id: 1e13}
            client.zadd(index, under_way)
            list(store.records(user="ann"))
            store.save(record("second", user="ann"), expect=0)
            assert store.delete(key(other), user="ann") is False
            store.delete(key(first))
            assert {each.decode() for each in client.zrange(index, 0, -1)} == {
                *under_way,
                record("second").id,
            }

    def test_an_entry_goes_with_its_record(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """Who ends a session need not say whose it is."""
        for number, user in enumerate((None, "", None)):
            store.save(record(f"r{number}", user=""), expect=0)
            assert store.delete(key(record(f"r{number}")), user=user) is True
            assert server.client().dbsize() == 0

    def test_an_entry_never_ends_earlier_than_it_did(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """A save that is refused may have listed the record for its shorter life."""
        given = record(user="ann")
        store.save(given, expect=0)
        with server.client() as client:
            before = client.zscore(the_index(client), given.id)
            refused(store, newer(given, expires=time.time() + 60), expect=0)
            assert client.zscore(the_index(client), given.id) == before

    def test_a_slow_way_between_list_and_record(
        self, store: RedisStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A record that is about to end is written, however long the way was."""
        list_it = store._list

        def slowly(given: Record) -> int:
            until = list_it(given)
            time.sleep(0.02)
            return until

        monkeypatch.setattr(store, "_list", slowly)
        given = record()
        store.save(given, expect=0)
        ended = newer(given, user="ann", expires=time.time())
        store.save(ended, expect=given.version)

    def test_a_user_without_name(self, store: RedisStore) -> None:
        """The empty name is a name."""
        given = record(user="")
        store.save(given, expect=0)
        assert list(store.records(user="")) == [stored(given)]
        store.save(newer(given, user=None), expect=given.version)
        assert list(store.records(user="")) == []

    def test_prefixes_that_begin_alike(
        self, servers: RedisServer | ClusterServers
    ) -> None:
        """Sessions of a longer prefix are neither listed nor ended, nor is an index."""
        names = ("prod:", "prod:eu:", "prod:user:", "prod")
        stores = {name: RedisStore(servers.url, key_prefix=name) for name in names}
        for name, store in stores.items():
            store.save(record(name, user="ann"), expect=0)
        for name, store in stores.items():
            assert [each.id for each in store.records()] == [record(name).id]
            assert [each.id for each in store.records(user="ann")] == [record(name).id]
        for each in stores["prod:"].records():
            stores["prod:"].delete(key(each))
        assert list(stores["prod:"].records()) == []
        for name in names[1:]:
            assert [each.id for each in stores[name].records()] == [record(name).id]

    def test_keys_of_others_under_the_prefix(
        self,
        store: RedisStore,
        server: RedisServer,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """What is no id of ours, or no hash, is not looked at."""
        given = record()
        store.save(given, expect=0)
        with server.client() as client:
            client.hset("session:" + "x" * 32, "version", "7")
            client.hset("session:" + given.id.upper(), "version", "7")
            client.set("session:" + "0" * 32, "7")
        assert list(store.records()) == [stored(given)]
        assert not caplog.records


class TestEviction:
    @contextmanager
    def policy(self, server: RedisServer, name: str) -> Iterator[redis.Redis]:
        with server.client() as client:
            client.config_set("maxmemory-policy", name)
            try:
                yield client
            finally:
                client.config_set("maxmemory-policy", "noeviction")

    @pytest.mark.parametrize("name", ["allkeys-lru", "volatile-ttl", "noeviction"])
    def test_where_the_index_may_go(
        self, server: RedisServer, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A server that evicts may drop the index first: all sessions are looked at.

        Under noeviction the index is trusted, which shows that it was what had gone.
        """
        with self.policy(server, name) as client:
            store = RedisStore(server.url)
            for number in range(4):
                user = "ann" if number < 3 else "bob"
                store.save(record(f"r{number}", user=user), expect=0)
            for index in client.scan_iter("session:user:*"):
                client.delete(index)
            with caplog.at_level(logging.WARNING, "wsgisession"):
                found = {each.id for each in store.records(user="ann")}
                list(store.records(user="ann"))
        evicts = name != "noeviction"
        assert found == ({record(f"r{n}").id for n in range(3)} if evicts else set())
        assert [name in each.message for each in caplog.records] == [True] * evicts

    def test_it_is_asked_once(self, server: RedisServer) -> None:
        """After the first answer, and not at every look."""
        store = RedisStore(server.url)
        with asked(server) as seen:
            store.load(key(record()))
            for _ in range(3):
                store.load(key(record()))
                list(store.records(user="ann"))
        assert seen[:3] == ["HMGET", "INFO", "HMGET"]
        assert seen.count("INFO") == 1

    def test_a_server_that_does_not_tell(self, server: RedisServer) -> None:
        """May evict, for all that is known."""
        with server.client() as client:
            client.acl_setuser(
                *("guest", True, True), keys="*", commands=["+@all", "-info"]
            )
            try:
                store = RedisStore(f"redis://guest:@{HOST}:{server.port}/0")
                store = RedisStore(
                    client=redis.Redis(port=server.port, username="guest", password="x")
                )
                given = record(user="ann")
                store.save(given, expect=0)
                client.delete(the_index(client))
                assert list(store.records(user="ann")) == [stored(given)]
            finally:
                client.acl_deluser("guest")


# -- clocks ----------------------------------------------------------------------------


@contextmanager
def clock_off_by(seconds: float) -> Iterator[None]:
    """The clock of this host is off; the server's is not."""
    right = time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: right() + seconds)
        yield


def left(server: RedisServer, given: Record) -> float:
    """Seconds that a record has left on the server's clock; below 0: none."""
    with server.client() as client:
        return float(client.pttl(f"session:{given.id}")) / 1000


HOUR = 3600.0


class TestClocks:
    def test_a_host_whose_clock_is_behind(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """What it saves or touches lives as long as it wanted, listed all the time."""
        for user in (None, "ann"):
            with clock_off_by(-HOUR):
                now = time.time()
                given = record(f"of {user}", user=user, expires=now + 600)
                store.save(given, expect=0)
                assert 590 < left(server, given) < 601
                second = newer(given, accessed=now + 1, expires=now + 900)
                store.save(second, expect=given.version)
                assert 890 < left(server, given) < 901
                assert store.touch(second._replace(expires=now + 1200)) is True
            assert 1190 < left(server, given) < 1201
        (seen,) = store.records(user="ann")
        with server.client() as client:
            ends = client.zscore(the_index(client), seen.id)
        assert ends is not None
        assert ends / 1000 > time.time() + left(server, seen) - 0.01

    def test_an_expiry_shortened_by_a_host_whose_clock_is_behind(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """The session lives a minute more, though its end lies in the past here."""
        given = record()
        store.save(given, expect=0)
        with clock_off_by(-HOUR):
            shorter = newer(given, expires=time.time() + 60)
            store.save(shorter, expect=given.version)
        assert 50 < left(server, given) < 61

    def test_a_host_whose_clock_is_ahead(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """What it saves lives at least as long as it wanted, and no more than that hour.

        No other host touches the session until its clock has come as far.
        """
        given = record(expires=time.time() + 600)
        store.save(given, expect=0)
        with clock_off_by(HOUR):
            now = time.time()
            second = newer(given, accessed=now, expires=now + 600)
            store.save(second, expect=given.version)
        assert HOUR + 590 < left(server, given) < HOUR + 601
        third = newer(second, data=b"third")
        store.save(third, expect=second.version)
        assert store.touch(third._replace(expires=time.time() + 600)) is True
        assert HOUR + 590 < left(server, given) < HOUR + 601

    @pytest.mark.parametrize("off", [-HOUR, 0, HOUR])
    def test_a_lease_goes_by_the_servers_clock(
        self, store: RedisStore, off: float
    ) -> None:
        """So does a proof that is good until a moment."""
        now = time.time()
        before, over = Replaced(proof("1"), now + 600), Replaced(proof("2"), now - 600)
        given = record(replaced=(before, over))
        store.save(given, expect=0)
        with clock_off_by(off):
            held = take(store, given._replace(proof=before.proof))
            with pytest.raises(LockTimeout):
                store.lock(key(given), wait=0.05, lease=1, waiters=9)
            store.unlock(held)
            late = store.lock(Key(given.id, over.proof), wait=1, lease=9, waiters=9)
        assert late == stored(given)

    @pytest.mark.parametrize("expires", [float("inf"), 1e300, 1e13])
    def test_no_end(
        self, store: RedisStore, server: RedisServer, expires: float
    ) -> None:
        """An end that a server would refuse is as good as none."""
        for user in (None, "ann"):
            given = record(f"of {user}", user=user, expires=expires)
            store.save(given, expect=0)
            assert store.touch(given) is True
            assert store.load(key(given)) == stored(given)
            assert left(server, given) > 1e9


# -- locks -----------------------------------------------------------------------------


def waiting(server: RedisServer, given: Record) -> int:
    """How many the server knows to be waiting for the lock of a record."""
    with server.client() as client:
        queue = json.loads(client.hget(f"session:{given.id}", "waiters") or "{}")
    return sum(ends > time.time() * 1000 for ends in queue.values())


class TestLocks:
    def test_a_thousand_late_holders_are_refused(self, store: RedisStore) -> None:
        """They slept past the lease; what the next holder wrote stands."""
        given = [record(f"r{number}") for number in range(1000)]
        late = []
        for each in given:
            store.save(each, expect=0)
            late.append(take(store, each, lease=0.001))
        for each in given:
            theirs = take(store, each)
            store.save(newer(theirs, data=b"theirs"), expect=each.version)
        for held in late:
            mine = newer(held, data=b"late")
            conflict = refused(store, mine, expect=held.version)
            assert conflict.record is not None
            assert conflict.record.data == b"theirs"
        assert {each.data for each in store.records()} == {b"theirs"}

    def test_one_lease_for_two_saves(self, store: RedisStore) -> None:
        """A lease that has ended with one save does not stand in the way of the next."""
        given = record()
        store.save(given, expect=0)
        second = newer(take(store, given))
        store.save(second, expect=given.version)
        store.save(newer(second), expect=second.version)

    def test_a_proof_that_a_holder_replaces(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """Who waited with it is answered at once, and leaves the queue."""
        given = record()
        store.save(given, expect=0)
        mine = take(store, given)
        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(store.lock, key(given), wait=30, lease=30, waiters=50)
            eventually(lambda: waiting(server, given) == 1)
            before = (Replaced(given.proof, 0),)
            turned = newer(mine, proof=proof("new"), replaced=before)
            store.save(turned, expect=given.version)
            assert waiter.result(timeout=15) == stored(turned)
        assert waiting(server, given) == 0
        assert not server.client().hexists(f"session:{given.id}", "waiters")

    def test_a_killed_waiter_leaves_its_place(self, server: RedisServer) -> None:
        """The queue forgets it when its wait would have been over."""
        store, given = RedisStore(server.url), record()
        store.save(given, expect=0)
        take(store, given, lease=120)
        waiter = script(
            """
            store = RedisStore(sys.argv[1])
            store.lock(Key(sys.argv[2]), wait=6, lease=30, waiters=1)
            """,
            server.url,
            given.id,
        )
        eventually(lambda: waiting(server, given) == 1)
        waiter.kill()
        waiter.communicate()

        def ahead() -> int | None:
            with pytest.raises(LockTimeout) as refusal:
                store.lock(key(given), wait=0.05, lease=30, waiters=1)
            return refusal.value.waiters

        assert ahead() == 1
        eventually(lambda: ahead() is None)

    def test_a_killed_holder(self, server: RedisServer) -> None:
        """It holds no request up beyond its lease."""
        store, given = RedisStore(server.url), record()
        store.save(given, expect=0)
        holder = script(
            """
            RedisStore(sys.argv[1]).lock(Key(sys.argv[2]), wait=1, lease=0.5, waiters=9)
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
        store.save(newer(take(store, given)), expect=given.version)

    def test_a_request_that_comes_back_at_once_gets_in_line(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """The lock goes to those who wait, so that none starves."""
        given = record()
        store.save(given, expect=0)
        for _ in range(10):
            mine = take(store, given)
            with ThreadPoolExecutor(1) as pool:
                next_one = pool.submit(take, store, given, wait=30)
                eventually(lambda: waiting(server, given) == 1)
                store.unlock(mine)
                with pytest.raises(LockTimeout):
                    store.lock(key(given), wait=0, lease=30, waiters=50)
                store.unlock(next_one.result(timeout=15))


# -- several processes -----------------------------------------------------------------

PRELUDE = """
import os, random, sys, threading, time
from wsgisession.errors import *
from wsgisession.record import Key
from wsgisession.stores.redis import RedisStore
"""

INCREMENT = """
def increment(store, key, locked, thinking):
    take = lambda: store.lock(key, wait=60, lease=60, waiters=99)
    record = take() if locked else store.load(key)
    while True:
        time.sleep(thinking)
        count = b"%d" % (int(record.data) + 1)
        version = random.SystemRandom().getrandbits(63) or 1
        changed = record._replace(data=count, version=version)
        try:
            return store.save(changed, expect=record.version)
        except VersionConflict:
            record = take()
"""


def script(text: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process."""
    text = PRELUDE + INCREMENT + textwrap.dedent(text)
    return subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(wsgisession.__path__[0]).parent,
    )


def run(text: str, *arguments: str) -> str:
    """What another process prints, if all goes well."""
    with script(text, *arguments) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


class TestProcesses:
    @pytest.mark.parametrize("thinking", ["0", "0.002"])
    def test_increments_of_forked_workers(
        self, servers: RedisServer | ClusterServers, thinking: str
    ) -> None:
        """P1: four processes of four threads, half of them locking, count to 400.

        The store is made and used before the fork.
        """
        store, given = RedisStore(servers.url), record(data=b"0")
        store.save(given, expect=0)
        run(
            """
            from concurrent.futures import ThreadPoolExecutor

            url, key, thinking = sys.argv[1], Key(sys.argv[2]), float(sys.argv[3])
            store = RedisStore(url)
            assert store.load(key).data == b"0"

            def work(number):
                for _ in range(25):
                    increment(store, key, number % 2, thinking)

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
            assert all([os.waitpid(pid, 0)[1] == 0 for pid in children])
            assert store.load(key).data == b"400"
            """,
            servers.url,
            given.id,
            thinking,
        )
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == b"400"

    def test_greenlets(self, server: RedisServer) -> None:
        """Under gevent the hub is never blocked, and a timeout takes no answer along."""
        if importlib.util.find_spec("gevent") is None:
            missing("gevent")
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


def loads(store: RedisStore, given: Record) -> Record:
    loaded = store.load(key(given))
    assert loaded is not None
    return loaded


class TestLostAnswers:
    def test_the_proxy_loses_what_was_done(self, proxy: Proxy) -> None:
        """The positive control: a client that asks again counts twice."""
        client = redis.Redis(port=proxy.port, retry=Retry(NoBackoff(), 1))
        proxy.lose_answer(b"counter")
        assert client.incr("counter") == 2

    @pytest.mark.parametrize("user", [None, "ann"])
    def test_a_save_is_done_once(
        self, store: RedisStore, proxy: Proxy, user: str | None
    ) -> None:
        """And reported as done, a first one and a later one."""
        given = record(user=user)
        mine = RedisStore(proxy.url)
        for marker in (b"EVALSHA", b"first"):
            proxy.lose_answer(marker)
            mine.save(given._replace(data=b"first"), expect=0)
            assert proxy.lost
            assert [each.data for each in store.records(user=user)] == [b"first"]
            store.delete(key(given))
        mine.save(given, expect=0)
        second = newer(given, data=b"second")
        proxy.lose_answer(b"second")
        mine.save(second, expect=given.version)
        assert proxy.lost
        assert loads(store, given) == stored(second)

    @pytest.mark.parametrize("user", [None, "ann"])
    def test_a_save_that_was_never_heard(
        self, store: RedisStore, proxy: Proxy, user: str | None
    ) -> None:
        """The expected version is stored: it is saved."""
        given = record(user=user)
        mine = RedisStore(proxy.url)
        proxy.lose_request(given.id.encode())
        mine.save(given, expect=0)
        second = newer(given, data=b"second")
        proxy.lose_request(b"second")
        mine.save(second, expect=given.version)
        assert proxy.lost
        assert loads(store, given) == stored(second)

    def test_a_save_that_was_never_heard_and_met_a_lock(
        self, store: RedisStore, proxy: Proxy
    ) -> None:
        """The expected version says that nothing was saved: an ordinary conflict."""
        given = record()
        store.save(given, expect=0)
        proxy.lose_request(b"ours", after=lambda: take(store, given))
        ours = newer(given, data=b"ours")
        conflict = refused(RedisStore(proxy.url), ours, expect=given.version)
        assert conflict.record == stored(given)

    def test_a_save_in_doubt_is_no_conflict(
        self, store: RedisStore, proxy: Proxy
    ) -> None:
        """If another wrote since, ours may be in theirs: it must not be done again."""
        given = record()
        store.save(given, expect=0)
        ours, theirs = newer(given, data=b"ours"), newer(given, data=b"theirs")
        proxy.lose_answer(
            b"ours", after=lambda: store.save(theirs, expect=ours.version)
        )
        with pytest.raises(StoreError):
            RedisStore(proxy.url).save(ours, expect=given.version)
        assert loads(store, given) == stored(theirs)

    def test_a_save_of_what_was_ended_since(
        self, store: RedisStore, proxy: Proxy
    ) -> None:
        """Cannot be known either, and brings nothing back."""
        given = record()
        store.save(given, expect=0)
        proxy.lose_answer(b"ours", after=lambda: store.delete(key(given)))
        with pytest.raises(StoreError):
            RedisStore(proxy.url).save(newer(given, data=b"ours"), expect=given.version)
        assert store.load(key(given)) is None

    @pytest.mark.parametrize("user", [None, "ann"])
    def test_an_insert_that_finds_nothing_is_tried_again(
        self, store: RedisStore, proxy: Proxy, user: str | None
    ) -> None:
        """No client has its token yet."""
        given = record(user=user, data=b"ours")
        proxy.lose_answer(b"ours", after=lambda: store.delete(key(given)))
        RedisStore(proxy.url).save(given, expect=0)
        assert proxy.lost
        assert list(store.records(user=user)) == [stored(given)]

    def test_a_client_that_repeats_by_itself(
        self, store: RedisStore, proxy: Proxy
    ) -> None:
        """It is kept from that, so that doubt is seen as doubt."""
        given = record()
        store.save(given, expect=0)
        ours, theirs = newer(given, data=b"ours"), newer(given, data=b"theirs")
        proxy.lose_answer(
            b"ours", after=lambda: store.save(theirs, expect=ours.version)
        )
        client = redis.Redis(port=proxy.port)
        with pytest.raises(StoreError):
            RedisStore(client=client).save(ours, expect=given.version)

    def test_a_lock_is_had_once(self, store: RedisStore, proxy: Proxy) -> None:
        """Who asks again is its holder already."""
        given = record()
        store.save(given, expect=0)
        proxy.lose_answer(given.id.encode())
        held = take(RedisStore(proxy.url), given, wait=0)
        assert proxy.lost
        store.save(newer(held), expect=given.version)
        take(store, given, wait=0)

    @pytest.mark.parametrize("how", ["touch", "unlock", "delete", "load"])
    def test_the_rest_may_be_repeated(
        self, store: RedisStore, proxy: Proxy, how: str
    ) -> None:
        """It ends as if the answer had come."""
        given = record()
        store.save(given, expect=0)
        held = take(store, given, wait=0)
        proxy.lose_answer(given.id.encode())
        mine = RedisStore(proxy.url)
        getattr(mine, how)(key(given) if how in ("delete", "load") else held)
        assert proxy.lost
        if how != "load":
            again = store.lock(key(given), wait=0, lease=30, waiters=9)
            assert (again is None) == (how == "delete")

    def test_an_end_whose_index_cannot_be_reached(
        self, store: RedisStore, server: RedisServer, proxy: Proxy
    ) -> None:
        """The session is gone, which is what was asked for; its entry ends later."""
        given = record(user="ann")
        store.save(given, expect=0)
        mine = RedisStore(proxy.url, socket_timeout=0.5)
        mine.load(key(given))
        proxy.fall_silent(b"ZREM")
        assert mine.delete(key(given)) is True
        assert list(store.records(user="ann")) == []

    def test_silence_ends(self, store: RedisStore, server: RedisServer) -> None:
        """No answer is a StoreError after the timeout, and the next question works."""
        given = record()
        store.save(given, expect=0)
        asks: list[Callable[[RedisStore], object]] = [
            lambda mine: mine.load(key(given)),
            lambda mine: mine.save(newer(given), expect=given.version),
            lambda mine: mine.lock(key(given), wait=60, lease=0.1, waiters=9),
        ]

        def answers(mine: RedisStore) -> bool:
            # Again, for a busy machine may take longer than the timeout by itself.
            for _ in range(5):
                with suppress(StoreError):
                    return mine.load(key(given)) is not None
            return False

        for ask in asks:
            # Each by a proxy of its own, where no late question of another meets it.
            with Proxy(server.port) as proxy:
                mine = RedisStore(proxy.url, socket_timeout=1)
                proxy.fall_silent(given.id.encode())
                began = time.monotonic()
                with pytest.raises(StoreError) as caught:
                    ask(mine)
                assert isinstance(caught.value.__cause__, redis.TimeoutError)
                assert time.monotonic() - began < 20
                assert answers(mine)


class TestConnections:
    @pytest.mark.parametrize("idle", [0.0, 1.3])
    def test_one_that_the_server_closed(
        self, store: RedisStore, server: RedisServer, idle: float
    ) -> None:
        """Another is made, without a word."""
        given = record()
        store.save(given, expect=0)
        server.client().client_kill_filter(_type="normal")
        time.sleep(idle)
        assert store.load(key(given)) == stored(given)
        server.client().client_kill_filter(_type="normal")
        time.sleep(idle)
        store.save(newer(given), expect=given.version)

    def test_they_are_kept(self, store: RedisStore, server: RedisServer) -> None:
        """As many as there were threads at once, and no more."""
        given = record()
        store.save(given, expect=0)
        with server.client() as client:
            before = client.info("stats")["total_connections_received"]
            for _ in range(50):
                store.load(key(given))
            in_threads(4, lambda _: [store.load(key(given)) for _ in range(50)])
            after = client.info("stats")["total_connections_received"]
        assert after - before <= 4


def told(error: StoreError, code: str, kind: type[Exception]) -> bool:
    """Whether this was the cause; Redis 6 tells a script's error in its text only."""
    return isinstance(error.__cause__, kind) or code in str(error.__cause__)


class TestServers:
    @pytest.mark.parametrize("user", [None, "ann"])
    def test_forgotten_scripts(
        self, store: RedisStore, server: RedisServer, user: str | None
    ) -> None:
        """A server that lost its scripts is told them again."""
        given, second = record(user=user), record(user=user)
        for each, expect in ((given, 0), (second, given.version)):
            server.client().script_flush()
            store.save(each, expect=expect)
        server.client().script_flush()
        take(store, given, wait=0)
        server.client().script_flush()
        store.delete(key(given))
        store.save(given, expect=0)  # the index is not known to it, the other may be
        assert list(store.records(user=user)) == [stored(given)]

    def test_a_server_that_must_not_write(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        """It is a StoreError, readers pass, and all is well afterwards."""
        given = record()
        store.save(given, expect=0)
        with server.client() as client:
            client.replicaof(HOST, 1)
            try:
                with pytest.raises(StoreError) as caught:
                    store.save(newer(given), expect=given.version)
                assert told(caught.value, "READONLY", redis.ReadOnlyError)
                assert store.load(key(given)) == stored(given)
            finally:
                client.replicaof("NO", "ONE")
        store.save(newer(given), expect=given.version)

    @pytest.mark.parametrize("kind", ["url", "client"])
    def test_a_primary_that_was_replaced(
        self, server: RedisServer, proxy: Proxy, tmp_path: Path, kind: str
    ) -> None:
        """Where the address leads to the new one now, no request notices.

        Also if every idle connection leads to the old one.
        """
        oldest_first = redis.BlockingConnectionPool(  # type: ignore[no-untyped-call]
            port=proxy.port, max_connections=4, queue_class=queue.Queue
        )
        client = redis.Redis(connection_pool=oldest_first)
        store = RedisStore(proxy.url) if kind == "url" else RedisStore(client=client)
        given = record()
        store.save(given, expect=0)
        for _ in range(4):
            store.load(key(given))
        with RedisServer(tmp_path) as other, server.client() as primary:
            other.client().replicaof(HOST, server.port)
            eventually(lambda: other.client().dbsize() == 1)
            other.client().replicaof("NO", "ONE")
            proxy.target = other.port
            primary.replicaof(HOST, other.port)
            second = newer(given)
            try:
                store.save(second, expect=given.version)
                assert RedisStore(other.url).load(key(given)) == stored(second)
            finally:
                primary.replicaof("NO", "ONE")

    def test_a_full_server(self, store: RedisStore, server: RedisServer) -> None:
        """It is a StoreError, and what was there stays as it was."""
        given = record()
        store.save(given, expect=0)
        with server.client() as client:
            client.config_set("maxmemory", "1")
            try:
                with pytest.raises(StoreError) as caught:
                    store.save(newer(given), expect=given.version)
                assert told(caught.value, "OOM", redis.OutOfMemoryError)
                assert store.load(key(given)) == stored(given)
            finally:
                client.config_set("maxmemory", "0")

    @pytest.mark.parametrize(
        "change",
        [{"version": "x"}, {"meta": "{}"}, {"meta": "{"}, {"meta": "7"}, {"meta": None}]
        + [{"accessed": ""}, {"expires": None}, {"data": None}],
    )
    def test_a_corrupt_record(
        self,
        store: RedisStore,
        server: RedisServer,
        caplog: pytest.LogCaptureFixture,
        change: dict[str, str | None],
    ) -> None:
        """It is absent and logged, and its bytes stay."""
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
            assert store.lock(key(given), wait=0, lease=0.001, waiters=9) is None
            client.hdel(at, "lease")
            assert client.hgetall(at) == left
            assert store.delete(key(given)) is True

    def test_a_slot_that_moves(self, cluster: ClusterServers) -> None:
        """A store that knows the old place is led to the new one."""
        store, given = RedisStore(cluster.url), record(user="ann")
        store.load(key(given))
        client: Any = cluster.servers[0].client()
        slot = client.execute_command("CLUSTER KEYSLOT", f"session:{given.id}")
        nodes: list[Any] = [server.client() for server in cluster.servers]
        names = {
            node.execute_command("CLUSTER MYID").decode(): (node, server.port)
            for node, server in zip(nodes, cluster.servers, strict=True)
        }
        ranges = client.execute_command("CLUSTER SLOTS")
        port = next(node[1] for first, last, node in ranges if first <= slot <= last)
        old = next(name for name in names if names[name][1] == port)
        new = next(name for name in names if name != old)
        for name in (new, old):
            stale = RedisStore(cluster.url)
            stale.load(key(given))
            for node, _ in sorted(names.values(), key=lambda each: each != names[name]):
                node.execute_command("CLUSTER SETSLOT", slot, "NODE", name)
            store.save(given, expect=0)
            assert store.load(key(given)) == stored(given)
            assert list(stale.records(user="ann")) == [stored(given)]
            store.delete(key(given))

    def test_restarts_under_load(self, server: RedisServer) -> None:
        """Only StoreErrors, no lost or foreign data, and an end to them in time."""
        store = RedisStore(server.url, socket_timeout=2)
        given = [record(f"r{number}", data=b"r%d 0" % number) for number in range(4)]
        for each in given:
            store.save(each, expect=0)
        stop = threading.Event()
        in_a_row = [0] * 4

        def work(number: int) -> tuple[int, int]:
            done, doubtful = 0, 0
            while not stop.is_set():
                try:
                    held = take(store, given[number], wait=30, lease=0.2)
                    name, count = held.data.split()
                    assert name == b"r%d" % number
                    assert done <= int(count) <= done + doubtful
                    data = b"%b %d" % (name, int(count) + 1)
                    doubtful += 1
                    store.save(newer(held, data=data), expect=held.version)
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
            for number, work_done in enumerate(working):
                done, doubtful = work_done.result(timeout=60)
                loaded = store.load(key(given[number]))
                assert loaded is not None
                assert done <= int(loaded.data.split()[1]) <= done + doubtful

    def test_a_server_that_is_still_loading(self, tmp_path: Path) -> None:
        """It is a StoreError, never an absent record, and answers when it is ready."""
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
        store, given = RedisStore(sentinels.url, socket_timeout=1), record()
        changed = newer(given)
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
                        store.save(changed, expect=given.version)
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
