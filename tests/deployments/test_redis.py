"""Redis as it is found: full, read-only, demoted, evicting, behind TLS.

What is special to one answer of the server is in ``stores/test_redis.py``.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

redis = pytest.importorskip("redis")

from wsgisession import Options, SessionManager, StoreError  # noqa: E402
from wsgisession.stores.redis import RedisStore  # noqa: E402
from wsgisession.testing import key, record, stored  # noqa: E402

from ..conftest import Clock, Visitor, missing  # noqa: E402
from ..redis_servers import (  # noqa: E402
    HOST,
    Proxy,
    RedisServer,
    eventually,
    free_port,
    program,
)
from .situations import (  # noqa: E402
    CLOSED,
    HANDLERS,
    is_not_ended,
    reads_and_does_not_write,
    under_load,
    writes_again,
)

Change = Callable[[RedisServer], object]
ONCE = redis.retry.Retry(redis.backoff.NoBackoff(), 0)


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("redis")
    with RedisServer(folder, "--dbfilename", "saved.rdb") as server:
        yield server


@pytest.fixture
def server(one_server: RedisServer) -> RedisServer:
    """An empty server."""
    one_server.client().flushall()
    return one_server


def place_of(server: RedisServer) -> str:
    return f"{HOST}:{server.port}"


# -- servers that read and do not write --------------------------------------------------


def fill(server: RedisServer) -> None:
    server.client().config_set("maxmemory", "1")


def make_room(server: RedisServer) -> None:
    server.client().config_set("maxmemory", "0")


@pytest.mark.promise("P8")
@pytest.mark.promise("P2")
def test_at_maxmemory(server: RedisServer, clock: Clock) -> None:
    """Who only reads is served, and a logout works: there is always room for less."""
    store = RedisStore(server.url)
    leaver = Visitor(SessionManager(store, clock=clock), HANDLERS)
    leaver.post("/write")
    (left,) = store.records()
    try:
        visitor = reads_and_does_not_write(
            store, clock, lambda: fill(server), place=place_of(server)
        )
        leaver.post("/logout", status=200)
        assert store.load(key(left)) is None
    finally:
        make_room(server)
    writes_again(visitor, store, clock)


@pytest.mark.promise("P8")
def test_ten_thousand_readers_of_a_full_server(
    server: RedisServer, clock: Clock
) -> None:
    """Over ten times ``touch_interval`` all are served; then ``accessed`` moves again."""
    store = RedisStore(server.url)
    visitor = Visitor(SessionManager(store, clock=clock), HANDLERS)
    visitor.post("/write")
    (before,) = store.records()
    interval = Options().touch_interval
    assert interval is not None
    fill(server)
    try:
        for _ in range(10_000):
            clock.pass_by(interval / 1000)
            assert visitor.get("/read", status=200).text == "1"
        (still,) = store.records()
        assert still.accessed == before.accessed
    finally:
        make_room(server)
    writes_again(visitor, store, clock)


def fail_to_save(server: RedisServer) -> None:
    """Have a snapshot fail, as on a full disk: its file cannot take its name."""
    with server.client() as client:
        client.config_set("save", "900 1")
        (folder,) = client.config_get("dir").values()
        Path(folder, "saved.rdb").unlink(missing_ok=True)
        Path(folder, "saved.rdb").mkdir()
        client.bgsave()
        eventually(
            lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err"
        )


def save(server: RedisServer) -> None:
    with server.client() as client:
        (folder,) = client.config_get("dir").values()
        Path(folder, "saved.rdb").rmdir()
        client.bgsave()
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok")
        client.config_set("save", "")


def follow_nobody(server: RedisServer) -> None:
    server.client().replicaof(HOST, 1)


def lead(server: RedisServer) -> None:
    server.client().replicaof("NO", "ONE")


def want_replicas(server: RedisServer) -> None:
    server.client().config_set("min-replicas-to-write", "3")


def want_none(server: RedisServer) -> None:
    server.client().config_set("min-replicas-to-write", "0")


@pytest.mark.promise("P8")
@pytest.mark.parametrize("yours", [False, True], ids=["ours", "yours"])
@pytest.mark.parametrize(
    ("close", "reopen"),
    [(fail_to_save, save), (follow_nobody, lead), (want_replicas, want_none)],
    ids=["MISCONF", "READONLY", "NOREPLICAS"],
)
def test_a_server_that_takes_no_writes(
    server: RedisServer, clock: Clock, close: Change, reopen: Change, yours: bool
) -> None:
    """A snapshot that failed, a replica, a primary that lacks its replicas."""
    client = server.client() if yours else None
    store = RedisStore(client=client) if yours else RedisStore(server.url)
    try:
        visitor = reads_and_does_not_write(
            store, clock, lambda: close(server), place=place_of(server)
        )
        is_not_ended(visitor)
    finally:
        reopen(server)
    writes_again(visitor, store, clock)


# -- a primary that is demoted -----------------------------------------------------------


def demote(primary: RedisServer, follower: RedisServer) -> None:
    """Hand over without a loss: no write is taken until the follower has them all."""
    with primary.client() as old, follower.client() as new:
        old.config_set("min-replicas-to-write", "9")
        time.sleep(CLOSED)

        def has_all() -> bool:
            offset = old.info("replication")["master_repl_offset"]
            return bool(new.info("replication")["slave_repl_offset"] >= offset)

        eventually(has_all)
        new.replicaof("NO", "ONE")
        old.replicaof(HOST, follower.port)


def test_a_primary_demoted_under_load(tmp_path: Path) -> None:
    """The address moves to the new one: it serves at once, and no increment is lost.

    By a url and by a client of the caller's, in one process without a restart.
    """
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    with (
        RedisServer(folders[0]) as primary,
        RedisServer(folders[1], "--replicaof", HOST, str(primary.port)) as follower,
        Proxy(primary.port) as proxy,
        redis.Redis(port=proxy.port) as client,
    ):
        link = "master_link_status"
        eventually(lambda: follower.client().info("replication")[link] == "up")

        def move() -> None:
            demote(primary, follower)
            proxy.target = follower.port

        # A lease that could not be given back then lasts for its time.
        options = Options(lock_lease=1)
        managers = [
            SessionManager(store, options)
            for store in (RedisStore(proxy.url), RedisStore(client=client))
        ]
        refused, moved = under_load(managers, move)
        assert refused  # it took no writes for a while
        assert max(refused) < moved + 3.0
        assert follower.client().dbsize() == 4


# -- servers that evict ------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "noeviction"])
def test_an_evicting_server_is_warned_of_at_the_first_request(
    server: RedisServer, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, and by the name of the policy; under noeviction nothing is said."""
    server.client().config_set("maxmemory-policy", policy)
    try:
        visitor = Visitor(SessionManager(RedisStore(server.url)), HANDLERS)
        for _ in range(3):
            visitor.post("/write")
    finally:
        server.client().config_set("maxmemory-policy", "noeviction")
    said = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert [policy in each for each in said] == [True] * (policy != "noeviction")


@pytest.mark.promise("P10")
@pytest.mark.parametrize("policy", ["allkeys-lru", "noeviction"])
def test_the_end_of_a_user_streams(server: RedisServer, policy: str) -> None:
    """A thousand sessions of 200 kB are ended within 20 MiB."""
    store = RedisStore(server.url)
    for number in range(1000):
        given = record(f"r{number}", user="ann", data=bytes(200_000))
        store.save(given, expect=0)
    server.client().config_set("maxmemory-policy", policy)
    tracemalloc.start()
    try:
        assert SessionManager(store).end_user("ann") == 1000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        server.client().config_set("maxmemory-policy", "noeviction")
    assert peak < 20 * 2**20
    assert list(store.records()) == []


@pytest.mark.promise("P10")
def test_a_prefix_within_another(server: RedisServer) -> None:
    """``prod:`` neither lists nor ends what is under ``prod:eu:``."""
    outer = RedisStore(server.url, key_prefix="prod:")
    inner = RedisStore(server.url, key_prefix="prod:eu:")
    mine, theirs = record("mine", user="ann"), record("theirs", user="ann")
    outer.save(mine, expect=0)
    inner.save(theirs, expect=0)
    server.client().config_set("maxmemory-policy", "allkeys-lru")  # it has to look
    try:
        assert list(outer.records()) == [stored(mine)]
        assert SessionManager(outer).end_user("ann") == 1
        assert list(inner.records(user="ann")) == [stored(theirs)]
    finally:
        server.client().config_set("maxmemory-policy", "noeviction")


# -- addresses ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port of a server that speaks TLS and asks for a certificate, and its folder."""
    folder = tmp_path_factory.mktemp("tls")
    if shutil.which("openssl") is None:
        missing("openssl")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        + ["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    port = free_port()
    command = [program(), "--port", "0", "--tls-port", str(port), "--bind", HOST]
    command += ["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"]
    command += ["--tls-ca-cert-file", "cert.pem", "--save", ""]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    probe = RedisStore(certified(port, folder))
    try:
        for _ in range(500):
            if process.poll() is not None:
                missing("a redis-server with TLS")
            with suppress(StoreError):
                probe.load(key(record()))
                break
            time.sleep(0.02)
        yield port, folder
    finally:
        process.kill()
        process.wait(60)


def certified(port: int, folder: Path) -> str:
    return (
        f"rediss://localhost:{port}/0?ssl_ca_certs={folder}/cert.pem"
        f"&ssl_certfile={folder}/cert.pem&ssl_keyfile={folder}/key.pem"
    )


def test_certificates_by_url(tls: tuple[int, Path]) -> None:
    """The server's is proven, and ours shown; without either nothing is said to it."""
    port, folder = tls
    store, given = RedisStore(certified(port, folder)), record()
    store.save(given, expect=0)
    assert store.load(key(given)) == stored(given)
    ours = f"ssl_certfile={folder}/cert.pem&ssl_keyfile={folder}/key.pem"
    for options in (ours, f"ssl_ca_certs={folder}/cert.pem", ""):
        with pytest.raises(StoreError, match=f"localhost:{port} failed"):
            RedisStore(f"rediss://localhost:{port}/0?{options}").load(key(given))


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://ann:hidden@127.0.0.1:1/0", "127.0.0.1:1"),
        ("unix://:hidden@/nowhere/redis.sock", "/nowhere/redis.sock"),
        (
            "redis+sentinel://:hidden@127.0.0.1:1/mymaster?sentinel_password=hidden",
            "sentinels 127.0.0.1:1 (service mymaster)",
        ),
        ("redis+cluster://:hidden@127.0.0.1:1", "cluster 127.0.0.1:1"),
    ],
)
def test_a_failure_names_the_place_and_no_password(url: str, place: str) -> None:
    """And the cause, in the server's or the driver's words."""
    with pytest.raises(StoreError) as caught:
        RedisStore(url).load(key(record()))
    assert f"Redis at {place} failed: " in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_failure_of_your_client_names_the_place() -> None:
    """Its pool knows."""
    for client, place in (
        (redis.Redis(host=HOST, port=1, retry=ONCE), f"{HOST}:1"),
        (redis.Redis(unix_socket_path="/nowhere", retry=ONCE), "/nowhere"),
    ):
        with pytest.raises(StoreError, match=f"Redis at {place} failed: "):
            RedisStore(client=client).load(key(record()))


def test_a_wrong_password_is_told(tmp_path: Path) -> None:
    """With what the server says of it, and without the password."""
    with RedisServer(tmp_path, password="right") as server:
        store = RedisStore(f"redis://:wr0ng@{HOST}:{server.port}/0")
        with pytest.raises(StoreError, match="password") as caught:
            store.load(key(record()))
        assert "wr0ng" not in str(caught.value)
