"""``doctor``: every check is shown failing and passing, on the real thing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click")
pytest.importorskip("redis")
pytest.importorskip("sqlalchemy")

import redis as redis_py

from wsgisession import SessionManager
from wsgisession._cli import doctor, main
from wsgisession._health import Level
from wsgisession.stores.redis._health import examine as examine_redis

from .. import sql_servers
from ..conftest import SECRET
from ..redis_servers import HOST, RedisServer, eventually
from .situations import fill
from .test_pgbouncer import pooler, server
from .test_redis import fail_to_save, save

__all__ = ["pooler", "server"]

Change = Callable[[Any], object]


def found(url: str, *more: str, **settings: Any) -> dict[str, tuple[str, str]]:
    """What is found, by subject: the worst level, and what was said."""
    findings: dict[str, tuple[str, str]] = {}
    ranks = [level.value for level in Level]
    for each in doctor.examine({"url": url, **settings}, None, *(more or (None,))):
        if each.level is not Level.OK:
            assert each.advice or each.subject == "store"
        before = findings.get(each.subject, ("ok", ""))[0]
        if ranks.index(each.level.value) >= ranks.index(before):
            findings[each.subject] = each.level.value, each.said
    return findings


# -- in general --------------------------------------------------------------------------


def test_what_it_says_and_how_it_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each check, what to do below it; a failed one is a status of 1."""
    (tmp_path / "s").mkdir(mode=0o700)
    url = (tmp_path / "s").as_uri()
    assert main(["doctor", "--url", url]) == 0
    said = capsys.readouterr().out
    assert "ok       settings: a FileStore" in said
    assert "ok       writing: a session was saved in" in said
    assert main(["doctor", "--url", url, "--address", "http://example.com"]) == 1
    said, complained = capsys.readouterr()
    assert "error    cookie: it is sent in the clear" in said
    assert "         -> serve the site by https" in said
    assert "1 of 8 checks failed" in complained or "checks failed" in complained
    assert main(["doctor", "--url", url, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["level"] for row in rows} == {"ok"}
    assert list(SessionManager.from_config(url=url).sessions()) == []


def test_settings_that_cannot_be() -> None:
    """The sentence of the error; nothing else is looked at."""
    assert found("memory:", idle_timeut=5) == {
        "settings": (
            "error",
            "there is no option 'idle_timeut'; did you mean 'idle_timeout'?",
        )
    }


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1/0",
        "postgresql+psycopg://a@127.0.0.1:1/a",
        "mysql+pymysql://a@127.0.0.1:1/a",
    ],
)
def test_a_store_out_of_reach(url: str) -> None:
    """With the place and the cause."""
    level, said = found(url)["store"]
    assert level == "error"
    assert "127.0.0.1:1" in said


def test_a_store_in_memory() -> None:
    """It works, and will surprise."""
    assert found("memory:")["store"][0] == "warning"


def test_secrets() -> None:
    """Their fingerprints can be compared, and tell nothing; a weak one is refused."""
    assert found("memory:")["secret"][1].startswith("none")
    one = found("memory:", secret=SECRET)["secret"]
    assert one == found("memory:", secret=SECRET)["secret"]
    assert one != found("memory:", secret=SECRET[::-1])["secret"]
    assert one[0] == "ok"
    assert SECRET[:8] not in one[1]
    assert found("memory:", secret="abc" * 20)["settings"][0] == "error"


@pytest.mark.parametrize(
    ("settings", "address", "level", "said"),
    [
        ({}, None, "ok", "give --address"),
        ({"cookie_name": "__Host-sid", "cookie_secure": True}, "https://a.b", "ok", ""),
        ({}, "http://localhost:8000/", "ok", "fits http://localhost"),
        ({}, "http://a.b", "error", "in the clear"),
        ({"cookie_secure": True}, "http://a.b", "error", "to no address with http"),
        ({"cookie_secure": False}, "https://a.b", "error", "is not Secure"),
        ({"cookie_secure": True}, "https://a.b", "warning", "a subdomain may set"),
        ({"cookie_name": "__Secure-x", "cookie_secure": True}, "a.b", "ok", ""),
        ({"cookie_domain": "c.d"}, "https://a.b", "error", "refuse that from a.b"),
        ({"cookie_domain": "b"}, "https://a.b", "error", "has no dot"),
        ({"cookie_domain": ".b.c"}, "https://a.b.c", "warning", "every host below b.c"),
        ({"cookie_path": "/x"}, "https://a.b/", "error", "do not send it to /"),
        ({"cookie_path": "/x"}, "https://a.b/x/y", "warning", "a subdomain"),
    ],
    ids=repr,
)
def test_the_cookie_at_a_public_address(
    settings: dict[str, Any], address: str | None, level: str, said: str
) -> None:
    """Secure, domain, path and prefix, by the rules of browsers (RFC 6265bis)."""
    found_level, found_said = found("memory:", address, **settings)["cookie"]  # type: ignore[arg-type]
    assert (found_level, said in found_said) == (level, True), found_said


def test_old_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with the command that mends it."""
    assert found("memory:")["libraries"][0] == "ok"
    monkeypatch.setitem(doctor.NEEDED, "WebOb", (99,))
    level, said = found("memory:")["libraries"]
    assert level == "error"
    assert said.startswith("WebOb 1.")


def test_a_slow_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that takes long is told."""
    monkeypatch.setattr(doctor, "SLOW", 0.0)
    assert found("memory:")["writing"][0] == "warning"


# -- Redis -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("redis")
    with RedisServer(folder, "--dbfilename", "saved.rdb") as made:
        yield made


def configured(**settings: str) -> tuple[Change, Change]:
    """Change settings of a server, and put back what it had."""
    before = {"maxmemory": "0", "maxmemory-policy": "noeviction", "save": ""}
    before["appendonly"] = "yes"

    def change(given: RedisServer) -> None:
        for name, value in settings.items():
            given.client().config_set(name.replace("_", "-"), value)

    def back(given: RedisServer) -> None:
        for name, value in before.items():
            given.client().config_set(name, value)

    return change, back


def follow(given: RedisServer) -> None:
    given.client().replicaof(HOST, 1)


def lead(given: RedisServer) -> None:
    given.client().replicaof("NO", "ONE")


@pytest.mark.parametrize(
    ("subject", "level", "said", "change", "back"),
    [
        (
            "eviction",
            "warning",
            "maxmemory-policy is allkeys-lru",
            *configured(maxmemory_policy="allkeys-lru"),
        ),
        ("memory", "warning", "% of 1 MiB used", *configured(maxmemory="1mb")),
        (
            "persistence",
            "warning",
            "nothing is kept on disk",
            *configured(appendonly="no", save=""),
        ),
        (
            "persistence",
            "warning",
            "snapshots are taken (save 900 1)",
            *configured(appendonly="no", save="900 1"),
        ),
        ("role", "error", "this is a replica", follow, lead),
        ("disk", "error", "rdb_last_bgsave_status", fail_to_save, save),
    ],
    ids=["evicts", "full", "keeps nothing", "snapshots", "replica", "no disk"],
)
def test_redis(
    one_redis: RedisServer,
    subject: str,
    level: str,
    said: str,
    change: Change,
    back: Change,
) -> None:
    """As it should be, then not, then again."""
    healthy = found(one_redis.url)
    assert {each for each, _ in healthy.values()} == {"ok"}
    change(one_redis)
    try:
        found_level, found_said = found(one_redis.url)[subject]
    finally:
        back(one_redis)
    assert (found_level, said in found_said) == (level, True), found_said
    assert {each for each, _ in found(one_redis.url).values()} == {"ok"}


def test_a_server_that_takes_no_writes(one_redis: RedisServer) -> None:
    """The session that ``doctor`` saves is refused."""
    one_redis.client().config_set("min-replicas-to-write", "3")
    try:
        level, said = found(one_redis.url)["writing"]
    finally:
        one_redis.client().config_set("min-replicas-to-write", "0")
    assert (level, "NOREPLICAS" in said) == ("error", True)


def test_replicas_of_redis(one_redis: RedisServer, tmp_path: Path) -> None:
    """Each with the seconds that it is behind; one that has stopped is told."""
    folder = tmp_path / "follower"
    folder.mkdir()
    with RedisServer(folder, "--replicaof", HOST, str(one_redis.port)) as follower:
        link = "master_link_status"
        eventually(lambda: follower.client().info("replication")[link] == "up")
        eventually(lambda: "replica" in found(one_redis.url))
        assert found(one_redis.url)["replica"][0] == "ok"

    def answers(*parts: bytes) -> Any:
        answer = one_redis.client().execute_command(*parts, NEVER_DECODE=True)
        if parts == (b"INFO",):
            lagging = "slave0:ip=1.2.3.4,port=1,state=online,offset=1,lag=99"
            return "\r\n".join(
                [*(f"{k}:{v}" for k, v in one_redis.client().info().items()), lagging]
            ).encode()
        return answer

    (replica,) = [each for each in examine_redis(answers) if each.subject == "replica"]
    assert (replica.level, replica.said) == (
        Level.WARNING,
        "the replica slave0 is 99 s behind",
    )


def test_an_old_redis(one_redis: RedisServer) -> None:
    """A version that no package here has, in the words of the server."""

    def answers(*parts: bytes) -> Any:
        if parts == (b"INFO",):
            return b"redis_version:6.0.16\r\nrole:master\r\n"
        return one_redis.client().execute_command(*parts)

    findings = {each.subject: each for each in examine_redis(answers)}
    assert findings["version"].level is Level.ERROR
    assert findings["version"].said == "redis 6.0.16"


def test_a_server_that_tells_no_settings(tmp_path: Path) -> None:
    """Hosted servers refuse CONFIG; that is nothing bad."""
    with RedisServer(
        tmp_path, "--rename-command", "CONFIG", "", "--appendonly", "no"
    ) as s:
        assert found(s.url)["persistence"] == (
            "ok",
            "the server does not tell its settings",
        )
        with pytest.raises(redis_py.ResponseError):
            s.client().config_get("save")


@pytest.mark.parametrize(
    ("ahead", "level"), [(0, "ok"), (5, "warning"), (-3600, "error"), (3600, "error")]
)
@pytest.mark.parametrize("kind", ["redis", "postgresql"])
def test_a_clock_that_is_off(
    request: pytest.FixtureRequest,
    one_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    ahead: float,
    level: str,
) -> None:
    """Ours against the server's."""
    url = one_redis.url
    if kind == "postgresql":
        url = request.getfixturevalue("server").url
    module = "sqlalchemy" if kind == "postgresql" else kind
    clock = type("time", (), {"time": staticmethod(lambda: time.time() + ahead)})
    monkeypatch.setattr(f"wsgisession.stores.{module}._health.time", clock)
    found_level, said = found(url)["clock"]
    assert found_level == level
    assert f"differ by {abs(ahead):.0f}." in said or abs(ahead) < 6


# -- databases ---------------------------------------------------------------------------


@contextmanager
def read_only(given: sql_servers.Server, kind: str) -> Iterator[None]:
    """No writes are taken for the time of a block."""
    with sql_servers.asking(given) as ask:
        if kind == "postgresql":
            ask("ALTER SYSTEM SET default_transaction_read_only = on")
            ask("SELECT pg_reload_conf()")
        else:
            ask("SET GLOBAL read_only = 1")
        try:
            yield
        finally:
            if kind == "postgresql":
                ask("ALTER SYSTEM RESET default_transaction_read_only")
                ask("SELECT pg_reload_conf()")
            else:
                ask("SET GLOBAL read_only = 0")


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_database(kind: str) -> None:
    """Healthy; then without its index, a column, the table; then read-only."""
    with getattr(sql_servers, kind)() as given, sql_servers.asking(given) as ask:
        healthy = found(given.url)  # the session that was saved made the table
        assert {each for each, _ in healthy.values()} == {"ok"}
        assert "clock" in healthy
        with read_only(given, kind):
            eventually(lambda: found(given.url)["role"][0] == "error")
        eventually(lambda: found(given.url)["role"][0] == "ok")
        ask("ALTER TABLE wsgisession DROP COLUMN lease_by")
        level, said = found(given.url)["table"]
        assert (level, "has no column lease_by" in said) == ("error", True)
        ask("DROP TABLE wsgisession")
        findings = found(given.url, create_table=False)
        assert findings["store"][0] == "error"
        assert findings["table"] == ("error", "there is no table wsgisession")


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_a_table_that_was_made_by_hand(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """Without the index of users its lists are slow; without a table nothing works."""
    import sqlalchemy as sql

    from wsgisession.stores.sqlalchemy import SQLAlchemyStore

    url = f"sqlite:///{tmp_path}/s.db"
    if kind == "postgresql":
        url = request.getfixturevalue("server").url
    engine = sql.create_engine(url, poolclass=sql.NullPool)
    store = SQLAlchemyStore(engine=engine, table_name="byhand")
    levels = [each.level for each in store.examine() if each.subject == "table"]
    assert levels == [Level.ERROR]
    store.create_table()
    (index,) = [index.name for index in store.table.indexes][:1]
    assert [each.level for each in store.examine() if each.subject == "table"] == [
        Level.OK
    ]
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP INDEX {index}")
    (table,) = [each for each in store.examine() if each.subject == "table"]
    assert (table.level, str(index) in table.said) == (Level.WARNING, True)
    store.close()


def test_a_standby_and_its_primary() -> None:
    """The one takes no writes; the other tells how far behind it is."""
    with sql_servers.followed("postgresql") as (primary, follower):
        found(primary.url)  # makes the table
        eventually(lambda: "replica" in found(primary.url))
        assert found(primary.url)["replica"][0] == "ok"
        with sql_servers.asking(follower) as ask:
            eventually(lambda: ask("SELECT to_regclass('wsgisession')") != [(None,)])
        level, said = found(follower.url)["role"]
        assert (level, "standby" in said) == ("error", True)


def test_pgbouncer_is_seen(server: sql_servers.Server, pooler: str) -> None:
    """It is nothing bad, and worth knowing."""
    assert "straight to the server" in found(server.url)["pooler"][1]
    level, said = found(pooler)["pooler"]
    assert (level, "PgBouncer" in said) == ("ok", True)


def test_a_database_file_that_others_may_read(tmp_path: Path) -> None:
    """SQLite makes it by the umask."""
    path = tmp_path / "s.db"
    url = f"sqlite:///{path}"
    found(url)
    path.chmod(0o600)
    assert found(url)["permissions"][0] == "ok"
    path.chmod(0o644)
    assert found(url)["permissions"][0] == "warning"


# -- folders -----------------------------------------------------------------------------


@pytest.fixture
def disk_size() -> str:
    return "4m"


def test_a_folder_in_memory_that_is_full(small_disk: Path, tmp_path: Path) -> None:
    """A tmpfs is gone with a reboot; one without room takes no session."""
    healthy = found((tmp_path / "sessions").as_uri())
    assert {each for each, _ in healthy.values()} == {"ok"}
    url = (small_disk / "sessions").as_uri()
    assert found(url)["file system"][0] == "warning"
    assert found(url)["space"][0] == "ok"
    fill(small_disk)
    level, said = found(url)["space"]
    assert (level, said) == ("error", "0% free (0 MiB)")
    assert found(url)["writing"][0] == "error"


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_folder_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its locks do not exclude other hosts."""
    from wsgisession.stores.file import FileStore
    from wsgisession.stores.file import _health as health

    store = FileStore(tmp_path / "sessions")
    monkeypatch.setattr(health, "kind_of", lambda folder: kind)
    (finding,) = [each for each in store.examine() if each.subject == "file system"]
    assert (finding.level, kind in finding.said) == (Level.ERROR, True)


# -- a cache -----------------------------------------------------------------------------


def test_both_halves_of_a_cached_store(one_redis: RedisServer, tmp_path: Path) -> None:
    """Each under its own name; encryption hides none of it."""
    pytest.importorskip("cryptography")
    url = f"sqlite:///{tmp_path}/s.db"
    os.umask(0o022)
    subjects = found(url, cache_url=one_redis.url, encrypt=True, secret=SECRET)
    assert {"store: table", "cache: eviction", "cache: clock"} <= subjects.keys()
