"""SQL databases as they are found: full, read-only, demoted, behind a replica.

What is special to one driver's errors is in ``stores/test_sqlalchemy.py``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

sql = pytest.importorskip("sqlalchemy")

from wsgisession import Options, SessionManager  # noqa: E402
from wsgisession.errors import StoreError  # noqa: E402
from wsgisession.record import Key  # noqa: E402
from wsgisession.stores.sqlalchemy import SQLAlchemyStore  # noqa: E402
from wsgisession.testing import (  # noqa: E402
    in_threads,
    key,
    newer,
    proof,
    record,
    refused,
    stored,
)

from .. import sql_servers  # noqa: E402
from ..conftest import Clock  # noqa: E402
from .situations import (  # noqa: E402
    CLOSED,
    fill,
    is_not_ended,
    reads_and_does_not_write,
    remount,
    under_load,
    writes_again,
)

Server = sql_servers.Server
asking = sql_servers.asking


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    with sql_servers.postgresql(["fsync=off"]) as server:
        yield server


@pytest.fixture(scope="module")
def mariadb() -> Iterator[Server]:
    """One that keeps its binary log in statements, and can be followed."""
    settings = ["log-bin=log", "binlog-format=STATEMENT", "server-id=1"]
    settings += ["innodb-flush-log-at-trx-commit=0"]
    with sql_servers.mariadb(settings) as server:
        sql_servers.add_application(server)
        yield server


def of_application(server: Server, port: int | None = None) -> str:
    """The url of a user without the rights of an administrator."""
    return server.url_at(port or server.port).replace("root@", "app@")


def place_of(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


@pytest.fixture
def made() -> Iterator[Callable[..., SQLAlchemyStore]]:
    """Makes stores, and closes them and the engines that they were given afterwards."""
    stores: list[SQLAlchemyStore] = []
    engines: list[Any] = []

    def make(url: str, *, yours: bool = False, **options: Any) -> SQLAlchemyStore:
        if yours:
            engines.append(sql.create_engine(url, **options))
            store = SQLAlchemyStore(engine=engines[-1], create_table=True)
        else:
            store = SQLAlchemyStore(url, **options)
        stores.append(store)
        return store

    yield make
    for each in (*stores, *engines):
        each.dispose() if hasattr(each, "dispose") else each.close()


@pytest.fixture(autouse=True)
def no_table(request: pytest.FixtureRequest) -> Iterator[None]:
    """The table goes after each test that used a server."""
    yield
    for name in {"postgresql", "mariadb"} & set(request.fixturenames):
        with asking(request.getfixturevalue(name)) as ask:
            ask("DROP TABLE IF EXISTS wsgisession")


def locked_change(store: SQLAlchemyStore) -> None:
    held = store.lock(key(record()), wait=5, lease=60, waiters=50)
    assert held is not None
    store.save(newer(held), expect=held.version)


# -- stores that read and do not write ---------------------------------------------------


def open_files(folder: Path) -> int:
    """How many files of a folder this process holds open."""
    names = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            names.append(os.readlink(each))
    return sum(name.startswith(str(folder)) for name in names)


@pytest.mark.promise("P8")
def test_sqlite_on_a_full_disk(
    small_disk: Path, made: Callable[..., SQLAlchemyStore], clock: Clock
) -> None:
    """Who only reads is served; no file stays open for a write that failed."""
    store = made(f"sqlite:///{small_disk}/sessions.db")
    visitor = reads_and_does_not_write(
        store, clock, lambda: fill(small_disk), place=str(small_disk)
    )
    is_not_ended(visitor)
    assert open_files(small_disk) <= 4
    (small_disk / "filling").unlink()
    writes_again(visitor, store, clock)


@pytest.mark.promise("P8")
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_sqlite_that_is_opened_where_nothing_can_be_written(
    small_disk: Path, made: Callable[..., SQLAlchemyStore], clock: Clock, how: str
) -> None:
    """After a restart on a full disk, or on a read-only mount: it is read as well."""
    store = made(f"sqlite:///{small_disk}/sessions.db")

    def close() -> None:
        store.close()
        if how == "full":
            fill(small_disk)
        else:
            remount(small_disk, "ro")

    visitor = reads_and_does_not_write(store, clock, close, place=str(small_disk))
    is_not_ended(visitor)
    if how == "full":
        (small_disk / "filling").unlink()
    else:
        store.close()
        remount(small_disk, "rw")
    writes_again(visitor, store, clock)


def test_what_another_process_wrote_is_not_passed_over(
    small_disk: Path, tmp_path: Path
) -> None:
    """A database that cannot be opened is read only if there is no log beside it."""
    path = tmp_path / "sessions.db"
    store = SQLAlchemyStore(f"sqlite:///{path}")
    store.save(record(data=b"old"), expect=0)
    store.close()
    store.save(record("new"), expect=0)  # it is in the log alone
    log = small_disk / "sessions.db-wal"
    for each in (path, path.with_name(log.name)):
        (small_disk / each.name).write_bytes(each.read_bytes())
    store.close()
    fill(small_disk)
    other = SQLAlchemyStore(f"sqlite:///{small_disk}/sessions.db")
    with pytest.raises(StoreError, match=r"at /.* failed: OperationalError"):
        other.load(key(record("new")))
    log.unlink()  # the control: without it
    fill(small_disk)
    found = other.load(key(record()))
    assert found is not None
    assert found.data == b"old"
    assert other.load(key(record("new"))) is None
    other.close()


@pytest.mark.promise("P8")
@pytest.mark.parametrize("yours", [False, True], ids=["ours", "yours"])
def test_postgresql_set_read_only(
    postgresql: Server,
    made: Callable[..., SQLAlchemyStore],
    clock: Clock,
    yours: bool,
) -> None:
    """As a provider does whose disk is full, or before a change of servers."""
    store = made(postgresql.url, yours=yours)
    with asking(postgresql) as ask:

        def set_read_only(value: str) -> None:
            ask(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            ask("SELECT pg_reload_conf()")
            while ask("SHOW default_transaction_read_only") != [(value,)]:
                time.sleep(0.01)
            time.sleep(0.1)  # every connection has heard of it

        try:
            visitor = reads_and_does_not_write(
                store, clock, lambda: set_read_only("on"), place=place_of(postgresql)
            )
            is_not_ended(visitor)
        finally:
            ask("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
            set_read_only("off")
    writes_again(visitor, store, clock)


@pytest.mark.promise("P8")
@pytest.mark.parametrize("yours", [False, True], ids=["ours", "yours"])
def test_mariadb_set_read_only(
    mariadb: Server,
    made: Callable[..., SQLAlchemyStore],
    clock: Clock,
    yours: bool,
) -> None:
    """By ``read_only=1``, which holds for all but administrators."""
    store = made(of_application(mariadb), yours=yours)
    with asking(mariadb) as ask:
        try:
            visitor = reads_and_does_not_write(
                store,
                clock,
                lambda: ask("SET GLOBAL read_only = 1"),
                place=place_of(mariadb),
            )
            is_not_ended(visitor)
        finally:
            ask("SET GLOBAL read_only = 0")
    writes_again(visitor, store, clock)


# -- connections that only need to be made anew ------------------------------------------


@pytest.mark.parametrize("yours", [False, True], ids=["ours", "yours"])
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_idle_connections_cut_by_the_server(
    request: pytest.FixtureRequest,
    made: Callable[..., SQLAlchemyStore],
    kind: str,
    yours: bool,
) -> None:
    """As overnight: the first request of the morning is answered, whatever it does."""
    server: Server = request.getfixturevalue(kind)
    stores = [made(server.url, yours=yours) for _ in range(4)]
    stores[0].save(record(), expect=0)
    with asking(server) as ask:
        if kind == "postgresql":
            cut, keep = "= '1s'", "TO DEFAULT"
            change = "ALTER ROLE test SET idle_session_timeout {}"
            count = "SELECT count(*) FROM pg_stat_activity"
            count += " WHERE backend_type = 'client backend'"
        else:
            cut, keep = "= 1", "= DEFAULT"
            change = "SET GLOBAL wait_timeout {}"
            count = "SELECT count(*) FROM information_schema.processlist"
            count += " WHERE user = 'root'"
        for store in stores:
            store.close()
        ask(change.format(cut))
        try:
            # Each has several, and at night all of them go.
            for store in stores:
                in_threads(4, lambda _, store=store: store.load(key(record())))
            ask(change.format(keep))
            assert ask(count) >= [(5,)]
            deadline = time.monotonic() + 20
            while ask(count) != [(1,)]:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            ask(change.format(keep))
    assert stores[0].load(key(record())) is not None
    locked_change(stores[1])
    found = stores[2].load(key(record()))
    assert found is not None
    assert stores[2].touch(found)
    assert stores[3].delete(key(record()))


def demote_postgresql(primary: Server, follower: Server) -> None:
    with asking(primary) as old, asking(follower) as new:
        old("ALTER SYSTEM SET default_transaction_read_only = on")
        old("SELECT pg_reload_conf()")
        time.sleep(CLOSED)
        ((position,),) = old("SELECT pg_current_wal_lsn()::text")
        behind = f"SELECT pg_last_wal_replay_lsn() < '{position}'::pg_lsn"
        while new(behind) != [(False,)]:
            time.sleep(0.01)
        new("SELECT pg_promote()")


def demote_mariadb(primary: Server, follower: Server) -> None:
    with asking(primary) as old, asking(follower) as new:
        old("SET GLOBAL read_only = 1")
        time.sleep(CLOSED)
        ((position,),) = old("SELECT @@gtid_binlog_pos")
        assert new(f"SELECT MASTER_GTID_WAIT('{position}', 10)") == [(0,)]
        new("STOP SLAVE")


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_primary_demoted_under_load(
    made: Callable[..., SQLAlchemyStore], kind: str
) -> None:
    """The address moves to the new one: it serves at once, and no increment is lost.

    By an engine of ours and by one of the caller's, in one process without a restart.
    """
    demote = {"postgresql": demote_postgresql, "mariadb": demote_mariadb}[kind]
    with sql_servers.followed(kind) as (primary, follower):
        proxy = sql_servers.Proxy(primary.port)
        url = of_application(primary, proxy.port)
        stores = [made(url, yours=yours) for yours in (False, True)]

        def move() -> None:
            demote(primary, follower)
            proxy.to = follower.port

        try:
            # A lease that could not be given back then lasts for its time.
            options = Options(lock_lease=1)
            managers = [SessionManager(store, options) for store in stores]
            refused, moved = under_load(managers, move)
            assert refused  # it was read-only for a while
            assert max(refused) < moved + 3.0
            with asking(follower) as ask:
                assert ask("SELECT count(*) FROM wsgisession") == [(4,)]
        finally:
            for store in stores:
                store.close()
            proxy.close()


# -- what is in between ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_pool_shared_with_the_application_does_not_deadlock(
    request: pytest.FixtureRequest, kind: str
) -> None:
    """Requests that hold its only connections while their sessions are saved."""
    server: Server = request.getfixturevalue(kind)
    engine = sql.create_engine(
        server.url, pool_size=2, max_overflow=0, pool_timeout=10, pool_pre_ping=True
    )
    store = SQLAlchemyStore(engine=engine, create_table=True)
    store.create_table()
    everybody = threading.Barrier(2)

    def request_of(number: int) -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
            everybody.wait(10)
            store.save(record(f"r{number}"), expect=0)
            assert store.load(key(record(f"r{number}"))) is not None

    with ThreadPoolExecutor(2) as pool:
        # Those who wait for each other would be let go by the pool's timeout.
        _, waiting = wait(map(pool.submit, [request_of] * 2, range(2)), timeout=8)
        is_stuck = bool(waiting)
    assert not is_stuck
    assert len(list(store.records())) == 2
    store.close()
    engine.dispose()


class TestAReplicaThatLagsBehind:
    @pytest.fixture
    def splitter(self, mariadb: Server) -> Iterator[sql_servers.Splitter]:
        splitter = sql_servers.Splitter(mariadb)
        yield splitter
        splitter.close()

    @pytest.fixture
    def direct(
        self, mariadb: Server, made: Callable[..., SQLAlchemyStore]
    ) -> SQLAlchemyStore:
        store = made(mariadb.url)
        store.create_table()
        return store

    @pytest.fixture
    def store(
        self,
        mariadb: Server,
        splitter: sql_servers.Splitter,
        made: Callable[..., SQLAlchemyStore],
    ) -> SQLAlchemyStore:
        return made(mariadb.url_at(splitter.port))

    @pytest.mark.parametrize("knows", ["it", "nothing of it", "it as locked"])
    def test_locked_increments(
        self,
        splitter: sql_servers.Splitter,
        direct: SQLAlchemyStore,
        store: SQLAlchemyStore,
        knows: str,
    ) -> None:
        """40 of 40, though the replica has never seen the session, or long ago."""
        given = record(data=b"0")
        splitter.follow()
        direct.save(given, expect=0)
        if knows == "it as locked":
            held = direct.lock(key(given), wait=0, lease=60, waiters=50)
            splitter.follow()
            assert held is not None
            direct.unlock(held)
        elif knows == "it":
            splitter.follow()

        def increment(_: int) -> None:
            for _ in range(5):
                held = store.lock(key(given), wait=20, lease=60, waiters=50)
                assert held is not None
                data = b"%d" % (int(held.data) + 1)
                store.save(newer(held, data=data), expect=held.version)

        in_threads(8, increment)
        found = direct.load(key(given))
        assert found is not None
        assert found.data == b"40"
        assert splitter.reads > 0
        seen = store.load(key(given))  # the control: it does lag
        assert (seen and seen.data) == (None if knows == "nothing of it" else b"0")

    def test_a_token_that_the_replica_does_not_know_yet(
        self,
        splitter: sql_servers.Splitter,
        direct: SQLAlchemyStore,
        store: SQLAlchemyStore,
    ) -> None:
        """A lock waits for the request before, though its token was turned just now."""
        given = record(proof=proof("old"))
        direct.save(given, expect=0)
        splitter.follow()
        after = newer(given, proof=proof("new"))
        direct.save(after, expect=given.version)
        held = direct.lock(Key(given.id), wait=0, lease=60, waiters=50)
        assert held is not None
        with ThreadPoolExecutor(1) as pool:
            shown = Key(given.id, proof("new"))
            taken = pool.submit(store.lock, shown, wait=20, lease=60, waiters=50)
            time.sleep(0.2)
            assert not taken.done()
            direct.unlock(held)
            locked = taken.result()
        assert locked is not None
        assert locked.lease is not None

    def test_a_save_is_judged_by_the_primary(
        self,
        splitter: sql_servers.Splitter,
        direct: SQLAlchemyStore,
        store: SQLAlchemyStore,
    ) -> None:
        """A conflict brings what is stored now."""
        given = record()
        direct.save(given, expect=0)
        splitter.follow()
        theirs = newer(given, data=b"theirs")
        direct.save(theirs, expect=given.version)
        conflict = refused(store, newer(given), expect=given.version)
        assert conflict.record == stored(theirs)


def test_a_binary_log_of_statements(
    mariadb: Server, made: Callable[..., SQLAlchemyStore]
) -> None:
    """MariaDB refuses READ COMMITTED there; so another level is taken."""
    control = sql.create_engine(mariadb.url, isolation_level="READ COMMITTED")
    with control.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE control (id INT) ENGINE=InnoDB")
        with pytest.raises(sql.exc.OperationalError, match="1665"):
            connection.exec_driver_sql("INSERT INTO control VALUES (1)")
        connection.exec_driver_sql("DROP TABLE control")
    control.dispose()
    for yours in (False, True):
        store = made(mariadb.url, yours=yours)
        store.save(record(), expect=0)
        store.save(record("over", expires=time.time() - 1), expect=0)
        locked_change(store)
        found = store.load(key(record()))
        assert found is not None
        assert store.touch(found)
        assert store.delete_expired(batch=10) == 1
        assert store.delete(key(record()))


# -- tables and files --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_alembic_finds_nothing_to_do(
    request: pytest.FixtureRequest,
    made: Callable[..., SQLAlchemyStore],
    tmp_path: Path,
    kind: str,
) -> None:
    """A table that the store made is what its metadata says: no migration is proposed."""
    autogenerate = pytest.importorskip("alembic.autogenerate")
    migration = pytest.importorskip("alembic.migration")
    url = f"sqlite:///{tmp_path}/x.db"
    if kind != "sqlite":
        url = request.getfixturevalue(kind).url
    store = made(url)
    store.save(record(), expect=0)
    engine = sql.create_engine(url, poolclass=sql.NullPool)

    def proposed(store: SQLAlchemyStore) -> list[Any]:
        with engine.connect() as connection:
            context = migration.MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True}
            )
            return list(autogenerate.compare_metadata(context, store.metadata))

    assert proposed(store) == []
    column = sql.Column("account_id", sql.Integer)
    more = made(url, columns=[column], fill=lambda user, values: {"account_id": 1})
    assert [each[0] for each in proposed(more)] == ["add_column"]


# -- addresses ---------------------------------------------------------------------------

PASSWORD = "a[b]c#d?e%f@g:h/i"


@pytest.mark.parametrize("password", ["a%5Bb%5Dc%23d%3Fe%25f%40g%3Ah%2Fi"])
def test_a_quoted_password_is_understood(
    mariadb: Server, made: Callable[..., SQLAlchemyStore], password: str
) -> None:
    """Every character that means something in a url may be in it."""
    with asking(mariadb) as ask:
        ask(
            f"CREATE USER ann@'127.0.0.1' IDENTIFIED BY '{PASSWORD.replace('%', '%%')}'"
        )
        ask("GRANT ALL ON test.* TO ann@'127.0.0.1'")
        url = mariadb.url.replace("root@", f"ann:{password}@")
        made(url).save(record(), expect=0)
        with pytest.raises(StoreError):
            made(url.replace("%2Fi", "%2Fj")).load(key(record()))
        ask("DROP USER ann@'127.0.0.1'")


@pytest.mark.parametrize("yours", [False, True], ids=["ours", "yours"])
def test_pg8000_says_what_failed_in_a_dict(
    postgresql: Server, made: Callable[..., SQLAlchemyStore], yours: bool
) -> None:
    """It is understood: the table is made, a cut connection is made anew."""
    pytest.importorskip("pg8000")
    store = made(postgresql.url.replace("psycopg", "pg8000"), yours=yours)
    store.save(record(), expect=0)
    locked_change(store)
    with asking(postgresql) as ask:
        ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        locked_change(store)
        ask("DROP TABLE wsgisession")
        ask("CREATE TABLE wsgisession (id int)")
    with pytest.raises(StoreError, match="failed: ProgrammingError"):
        store.load(key(record()))
