"""The SQL store keeps the contract on three databases.

And what is special to it: what it asks of the server, whose connections it uses, and what
becomes of a save when the connection breaks.
"""

from __future__ import annotations

import json
import logging.handlers
import multiprocessing
import random
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

sql = pytest.importorskip("sqlalchemy")

from benchmarks import sql_cleanup  # noqa: E402
from wsgisession import (  # noqa: E402
    SessionManager,
    SessionMiddleware,
    get_session,
)
from wsgisession.errors import (  # noqa: E402
    ConfigurationError,
    Conflict,
    StoreError,
)
from wsgisession.record import Record  # noqa: E402
from wsgisession.stores.sqlalchemy import SQLAlchemyStore  # noqa: E402
from wsgisession.testing import (  # noqa: E402
    BlindStore,
    IterableStoreSuite,
    LockingStoreSuite,
    in_threads,
    key,
    record,
    stored,
)

from .. import sql_servers  # noqa: E402

Make = Callable[..., SQLAlchemyStore]
Server = sql_servers.PostgreSQL | sql_servers.MariaDB


@pytest.fixture(scope="module")
def postgresql() -> Iterator[sql_servers.PostgreSQL]:
    with sql_servers.postgresql(["fsync=off"]) as server:
        yield server


@pytest.fixture(scope="module")
def mariadb() -> Iterator[sql_servers.MariaDB]:
    with sql_servers.mariadb(
        ["--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=1"]
    ) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'sessions.db'}"
    server: Server = request.getfixturevalue(request.param)
    return server.url


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes stores, and drops their tables afterwards."""
    made: list[SQLAlchemyStore] = []

    def one(url: str | None = None, **options: Any) -> SQLAlchemyStore:
        store = SQLAlchemyStore(url, **options)
        store.create_table()
        made.append(store)
        return store

    yield one
    for store in made:
        store.table.drop(store._engine, checkfirst=True)
        store._engine.dispose()


@pytest.fixture
def store(make: Make, url: str) -> SQLAlchemyStore:
    return make(url)


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def stores(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[SQLAlchemyStore]]:
    """Three clients of one table, made once for all the tests."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('sql') / 'sessions.db'}"
    else:
        url = request.getfixturevalue(request.param).url
    stores = [
        SQLAlchemyStore(url, table_name="conformance", lock_waiters=most)
        for most in (50, 50, 2)
    ]
    stores[0].create_table()
    yield stores
    for store in stores:
        store._engine.dispose()
    stores[0].table.drop(stores[0]._engine)
    stores[0]._engine.dispose()


class TestConformance(LockingStoreSuite, IterableStoreSuite):
    @pytest.fixture
    def store(self, stores: list[SQLAlchemyStore]) -> SQLAlchemyStore:
        with stores[0]._engine.connect() as connection:
            connection.execute(stores[0].table.delete())
        return stores[0]

    @pytest.fixture
    def twin(self, stores: list[SQLAlchemyStore]) -> SQLAlchemyStore:
        return stores[1]

    @pytest.fixture
    def crowded(
        self, store: SQLAlchemyStore, stores: list[SQLAlchemyStore]
    ) -> SQLAlchemyStore:
        return stores[2]


class TestConformanceInMemory(LockingStoreSuite, IterableStoreSuite):
    """A SQLite database in memory: its table is there, and all threads share it."""

    @pytest.fixture
    def store(self) -> Iterator[SQLAlchemyStore]:
        store = SQLAlchemyStore("sqlite://")
        yield store
        store.close()

    @pytest.fixture
    def crowded(self) -> Iterator[SQLAlchemyStore]:
        store = SQLAlchemyStore("sqlite://", lock_waiters=2)
        yield store
        store.close()


# -- options ---------------------------------------------------------------------------


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({}, "either the url of a database or an engine"),
            (
                {"url": "sqlite://", "engine": sql.create_engine("sqlite://")},
                "either the url of a database or an engine",
            ),
            ({"url": "not a url"}, "must name a database"),
            ({"url": "nonsense://secret-password@host/db"}, "must name a database"),
            ({"url": "postgresql+pg8000://host/db"}, "pg8000"),
            ({"engine": "sqlite://"}, "must be SQLAlchemy's Engine, not str"),
            ({"url": "sqlite://", "lock_waiters": -1}, "lock_waiters must be"),
            ({"url": "sqlite://", "fill": dict}, "columns and fill belong together"),
            (
                {"url": "sqlite://", "columns": [sql.Column("a", sql.Integer)]},
                "columns and fill belong together",
            ),
            (
                {
                    "url": "sqlite://",
                    "columns": [sql.Column("data", sql.Integer)],
                    "fill": dict,
                },
                "columns cannot be added",
            ),
        ],
    )
    def test_what_cannot_work_is_refused(
        self, options: Mapping[str, Any], says: str
    ) -> None:
        """Each mistake has its sentence, and no password is in it."""
        with pytest.raises(ConfigurationError, match=says) as caught:
            SQLAlchemyStore(**options)
        assert "secret-password" not in str(caught.value)

    def test_a_database_of_another_kind_is_refused(self) -> None:
        """A dialect whose statements were never tried is not guessed at."""
        engine = sql.create_mock_engine("oracle://", lambda *_: None)
        with pytest.raises(ConfigurationError, match="must be SQLAlchemy's Engine"):
            SQLAlchemyStore(engine=engine)

    def test_nothing_is_asked_before_the_first_call(self) -> None:
        """A store can be made, as in a migration, where no database can be reached."""
        made = SQLAlchemyStore("postgresql+psycopg://user@127.0.0.1:1/none")
        assert list(made.metadata.tables.values()) == [made.table]

    def test_table_and_schema_are_named_by_the_caller(
        self, postgresql: sql_servers.PostgreSQL, make: Make
    ) -> None:
        """Also with a name that must be quoted, beside another store's table."""
        engine = sql.create_engine(postgresql.url)
        with engine.begin() as connection:
            connection.execute(sql.schema.CreateSchema("Mine", if_not_exists=True))
        store = make(engine=engine, table_name="My sessions", schema="Mine")
        other = make(engine=engine)
        given = record(user="ann")
        store.save(given, expect=0)
        held = store.lock(key(given), wait=1, lease=5)
        assert held is not None
        store.save(replace(held, version=2), expect=1)
        assert store.load(key(given)) == stored(replace(given, version=2))
        assert len(list(store.records(user="ann"))) == 1
        assert other.load(key(given)) is None
        assert sql.inspect(engine).has_table("My sessions", schema="Mine")

    def test_the_table_is_created_once(self, url: str, make: Make) -> None:
        """Creating again changes nothing, at the same time neither."""
        store = make(url)
        store.save(record(), expect=0)
        in_threads(4, lambda _: make(url))
        assert store.load(key(record())) is not None
        store.table.drop(store._engine)
        in_threads(4, lambda _: make(url))
        store.save(record(), expect=0)
        indexes = sql.inspect(store._engine).get_indexes("wsgisession")
        assert {index["column_names"][0] for index in indexes} == {
            "expires_hour",
            "user_hash",
        }

    def test_a_missing_table_is_named(self, url: str) -> None:
        """The error says what to do."""
        store = SQLAlchemyStore(url)
        with pytest.raises(StoreError, match="wsgisession init"):
            store.load(key(record()))
        store._engine.dispose()


class TestExtraColumns:
    @staticmethod
    def fill(record: Record) -> dict[str, Any]:
        session = json.loads(record.data.split(b"\n", 1)[1])
        return {
            "account_id": session.get("account_id"),
            "seen": datetime.fromtimestamp(record.accessed, timezone.utc).replace(
                tzinfo=None, microsecond=0
            ),
            "tags": session.get("tags", []),
        }

    @pytest.fixture
    def store(self, make: Make, url: str) -> SQLAlchemyStore:
        columns = [
            sql.Column("account_id", sql.Integer, index=True),
            sql.Column("seen", sql.DateTime, nullable=False),
            sql.Column("tags", sql.JSON),
        ]
        return make(url, columns=columns, fill=self.fill)

    def test_they_are_filled_at_each_save(self, store: SQLAlchemyStore) -> None:
        """Of whatever type they are, they can be queried with the caller's SQL."""
        given = record(data=b'{}\n{"account_id":7,"tags":["a"]}', accessed=1e9)
        other = record("other", data=b"{}\n{}")
        store.save(given, expect=0)
        store.save(other, expect=0)

        def accounts() -> list[Any]:
            row = store.table.c
            query = sql.select(row.account_id, row.seen, row.tags).where(
                row.id == given.id
            )
            with store._engine.connect() as connection:
                return [tuple(row) for row in connection.execute(query)]

        assert accounts() == [(7, datetime(2001, 9, 9, 1, 46, 40), ["a"])]
        changed = replace(given, version=2, data=b'{}\n{"account_id":8}')
        store.save(changed, expect=1)
        assert accounts() == [(8, datetime(2001, 9, 9, 1, 46, 40), [])]
        assert store.load(key(given)) == stored(changed)

    def test_a_constraint_of_theirs_is_no_conflict(self, make: Make, url: str) -> None:
        """A row that the database refuses is an error, not a lost race."""
        store = make(
            url,
            columns=[sql.Column("account_id", sql.Integer, nullable=False)],
            fill=lambda record: {"account_id": None},
        )
        with pytest.raises(StoreError):
            store.save(record(), expect=0)

    def test_fill_must_name_the_columns(self, make: Make) -> None:
        """A value for no column, or none for one, is an error that names them."""
        store = SQLAlchemyStore(
            "sqlite://",
            columns=[sql.Column("account_id", sql.Integer)],
            fill=lambda record: {"acount_id": 1},
        )
        with pytest.raises(StoreError, match=r"\['acount_id'\].*\['account_id'\]"):
            store.save(record(), expect=0)


# -- values ----------------------------------------------------------------------------


class TestValues:
    def test_times_come_back_to_the_bit(self, store: SQLAlchemyStore) -> None:
        """No float loses a digit on its way through SQL."""
        chance = random.Random(4)
        soon = time.time() + 1000
        for number in range(50):
            given = record(
                f"r{number}",
                created=chance.uniform(0, 2e9),
                accessed=chance.uniform(0, 2e9),
                expires=soon + chance.uniform(0, 1e9),
            )
            store.save(given, expect=0)
            assert store.load(key(given)) == stored(given)
            later = replace(given, accessed=chance.uniform(0, 2e9))
            store.touch(later)
            assert store.load(key(given)) == stored(later)

    def test_every_string_is_a_user(self, store: SQLAlchemyStore) -> None:
        """None is taken for another, whatever case, spaces, accents and length say."""
        users = [
            "ann",
            "ANN",
            "ann ",
            "änn",
            "a\u0308nn",
            "",
            " ",
            "a\x00b",
            "\ud800",
            "'; --",
            "n" * 100_000,
        ]
        for number, user in enumerate(users):
            store.save(record(f"r{number}", user=user), expect=0)
        for user in users:
            assert [each.user for each in store.records(user=user)] == [user]

    def test_the_clock_is_the_databases(
        self, store: SQLAlchemyStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A host whose clock is a day off agrees about what is live and whose it is."""
        given, over = record(), record("over", expires=time.time() + 0.2)
        store.save(given, expect=0)
        store.save(over, expect=0)
        store.lock(key(given), wait=1, lease=30)
        time.sleep(0.3)
        right = time.time
        for wrong in (-86400, 86400):
            monkeypatch.setattr(time, "time", lambda wrong=wrong: right() + wrong)
            assert store.load(key(given)) is not None
            assert store.load(key(over)) is None
            with pytest.raises(Conflict):
                store.save(replace(given, version=2), expect=1)

    def test_deleting_while_walking_over_pages(self, store: SQLAlchemyStore) -> None:
        """Of more records than fit a page, each is seen once, deleted or not."""
        for number in range(450):
            store.save(record(f"r{number}"), expect=0)
        seen = set()
        for number, each in enumerate(store.records()):
            seen.add(each.id)
            if number % 2:
                store.delete(each)
        assert len(seen) == 450
        assert len(list(store.records())) == 225


# -- what is asked of the server -------------------------------------------------------


def read(store: SQLAlchemyStore, given: Record) -> None:
    assert store.load(key(given)) is not None


def locked_change(store: SQLAlchemyStore, given: Record) -> None:
    held = store.lock(key(given), wait=1, lease=30)
    assert held is not None
    store.save(replace(held, version=held.version + 1), expect=held.version)


def unlocked_change(store: SQLAlchemyStore, given: Record) -> None:
    loaded = store.load(key(given))
    assert loaded is not None
    store.save(replace(loaded, version=loaded.version + 1), expect=loaded.version)


def touch(store: SQLAlchemyStore, given: Record) -> None:
    loaded = store.load(key(given))
    assert loaded is not None
    store.touch(loaded)


def locked_read(store: SQLAlchemyStore, given: Record) -> None:
    held = store.lock(key(given), wait=1, lease=30)
    assert held is not None
    store.unlock(held)


COUNTS = [
    (read, 1),
    (unlocked_change, 2),
    (locked_change, 2),
    (touch, 2),
    (locked_read, 2),
]


class TestRoundTrips:
    """Counted where they arrive: at the server."""

    @pytest.mark.parametrize(("work", "count"), COUNTS)
    def test_on_sqlite(
        self, tmp_path: Path, work: Callable[..., None], count: int
    ) -> None:
        """A read is one statement, a change is two; none begins or ends anything."""
        store = SQLAlchemyStore(f"sqlite:///{tmp_path / 'sessions.db'}")
        asked: list[str] = []
        sql.event.listen(
            store._engine, "connect", lambda c, _: c.set_trace_callback(asked.append)
        )
        store.create_table()
        store.save(record(), expect=0)
        del asked[:]
        work(store, record())
        assert len(asked) == count, asked

    @pytest.mark.parametrize("ours", [True, False], ids=["our engine", "yours"])
    @pytest.mark.parametrize(("work", "count"), COUNTS)
    def test_on_postgresql(
        self,
        postgresql: sql_servers.PostgreSQL,
        make: Make,
        work: Callable[..., None],
        count: int,
        ours: bool,
    ) -> None:
        """The same, by PostgreSQL's own log, and with an engine of the caller's."""
        url = f"{postgresql.url}?options=-c%20log_statement%3Dall"
        store = make(url) if ours else make(engine=sql.create_engine(url))
        store.save(record(), expect=0)
        before = len(postgresql.log.read_text())
        work(store, record())
        with postgresql.log.open() as log:
            log.seek(before)
            asked = re.findall(r"LOG:  (?:statement|execute [^:]*): (.*)", log.read())
        assert len(asked) == count, asked

    @pytest.mark.parametrize(("work", "count"), COUNTS)
    def test_on_mariadb(
        self,
        mariadb: sql_servers.MariaDB,
        make: Make,
        work: Callable[..., None],
        count: int,
    ) -> None:
        """The same, but that a lock is two: MariaDB cannot change a row and read it."""
        store = make(mariadb.url)
        store.save(record(), expect=0)
        engine = sql.create_engine(mariadb.url)
        with engine.connect() as watch:
            watch.execute(sql.text("SET GLOBAL log_output = 'TABLE'"))
            watch.execute(sql.text("TRUNCATE mysql.general_log"))
            watch.execute(sql.text("SET GLOBAL general_log = 1"))
            try:
                work(store, record())
            finally:
                watch.execute(sql.text("SET GLOBAL general_log = 0"))
            query = (
                "SELECT argument FROM mysql.general_log "
                "WHERE thread_id <> @@pseudo_thread_id "
                "AND command_type <> 'Quit'"  # of a connection of an earlier test
            )
            asked = watch.execute(sql.text(query)).all()
        engine.dispose()
        locks = work in (locked_change, locked_read)
        assert len(asked) == count + locks, asked

    def test_a_read_uses_the_index(self, store: SQLAlchemyStore) -> None:
        """The plan of a read does not walk through the table."""
        for number in range(20):
            store.save(record(f"r{number}"), expect=0)
        statement = store._sql["load"]
        explain = "EXPLAIN QUERY PLAN" if store._engine.name == "sqlite" else "EXPLAIN"
        off = "SET enable_seqscan = off"
        with store._engine.connect() as connection:
            if store._engine.name == "postgresql":
                connection.exec_driver_sql(off)
            plan = connection.exec_driver_sql(
                f"{explain} {statement.text}",
                (values := statement.parameters({"key": record("r3").id}))
                and (values if isinstance(values, dict) else tuple(values)),
            ).all()
            connection.invalidate()
        assert re.search("Index Scan|USING INDEX|PRIMARY", str(plan)), plan

    def test_a_touch_updates_in_place_on_postgresql(
        self, postgresql: sql_servers.PostgreSQL, make: Make
    ) -> None:
        """No index is written for it (HOT), as one on the expiry itself would be."""
        store = make(postgresql.url)
        control = sql.Index("control", store.table.c.expires)
        noon = time.time() // 3600 * 3600 + 7200

        def updates() -> int:
            # The pool holds one connection, so it is that of the touches.
            with store._engine.connect() as connection:
                connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
                count: int = connection.exec_driver_sql(
                    "SELECT n_tup_hot_upd FROM pg_stat_user_tables "
                    "WHERE relname = 'wsgisession'"
                ).scalar_one()
            return count

        def hot(touches: int) -> int:
            before = updates()
            for number in range(touches):
                store.touch(replace(given, accessed=noon, expires=noon + number))
            updates()
            return updates() - before

        given = record(expires=noon)
        store.save(given, expect=0)
        assert hot(100) >= 90
        control.create(store._engine)
        assert hot(100) == 0


# -- connections -----------------------------------------------------------------------


class TestConnections:
    def test_locks_hold_no_connection(
        self, postgresql: sql_servers.PostgreSQL, make: Make
    ) -> None:
        """While 8 sessions are locked, nothing is open; a pool of 2 serves 16 threads."""
        engine = sql.create_engine(postgresql.url, pool_size=2, max_overflow=0)
        store = make(engine=engine)
        for number in range(16):
            store.save(record(f"r{number}", data=b"0"), expect=0)
        manager = SessionManager(store)
        sessions = [manager.create() for _ in range(8)]
        for session in sessions:
            session.login("ann")
            session.save()
        locked = threading.Barrier(9, timeout=60)
        done = threading.Event()

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            session = get_session(environ)
            session["n"] = session.get("n", 0) + 1
            assert session.locked
            locked.wait()
            done.wait(60)
            start_response("200 OK", [])
            return []

        middleware = SessionMiddleware(application, manager=manager)

        def hold(number: int) -> None:
            environ = {"REQUEST_METHOD": "POST"}
            environ["HTTP_COOKIE"] = f"session={sessions[number].token}"
            setup_testing_defaults(environ)
            middleware(environ, lambda *_: bytes)

        def change(number: int) -> None:
            for _ in range(10):
                unlocked_change(store, record(f"r{number}"))

        with ThreadPoolExecutor(8) as pool:
            holders = [pool.submit(hold, number) for number in range(8)]
            locked.wait()
            assert engine.pool.checkedout() == 0
            watch = sql.create_engine(postgresql.url, isolation_level="AUTOCOMMIT")
            with watch.connect() as connection:
                transactions = connection.exec_driver_sql(
                    "SELECT state, query FROM pg_stat_activity WHERE xact_start IS NOT "
                    "NULL AND backend_type = 'client backend' "
                    "AND pid <> pg_backend_pid()"
                ).all()
            watch.dispose()
            assert transactions == []
            in_threads(16, change)
            done.set()
            for holder in holders:
                holder.result()
        assert [each.version for each in store.records()].count(11) == 16
        assert [each["n"] for each in manager.sessions_of("ann")] == [1] * 8

    def test_your_engine_stays_as_it_is(self, url: str, make: Make) -> None:
        """What the caller does with it is still a transaction of the caller's."""
        engine = sql.create_engine(url)
        store = make(engine=engine)
        store.save(record(), expect=0)
        with suppress(ZeroDivisionError), engine.begin() as connection:
            connection.execute(store.table.delete())
            raise ZeroDivisionError
        assert store.load(key(record())) is not None
        with engine.connect() as connection:
            connection.execute(store.table.delete())
        assert store.load(key(record())) is not None

    def test_a_closed_connection_is_replaced(self, server: Server, make: Make) -> None:
        """After a restart of the server nobody sees an error for the pool's sake."""
        store = make(server.url)
        store.save(record(data=b"0"), expect=0)
        watch = sql.create_engine(server.url, isolation_level="AUTOCOMMIT")
        kill = {
            "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
            "mysql": "SELECT id FROM information_schema.processlist "
            "WHERE id <> connection_id() AND user = 'root'",
        }
        in_threads(4, lambda _: [read(store, record()) for _ in range(5)])
        for work in (read, locked_change, unlocked_change):
            with watch.connect() as connection:
                for (pid,) in connection.exec_driver_sql(kill[watch.name]).all():
                    if watch.name == "mysql":
                        # One that was being closed may have gone since the list.
                        with suppress(sql.exc.OperationalError):
                            connection.exec_driver_sql(f"KILL {pid}")
            time.sleep(0.05)
            work(store, record())
        watch.dispose()

    def test_a_forked_process_has_its_own_connections(
        self, store: SQLAlchemyStore
    ) -> None:
        """Parents and children each go on, and neither reads the other's answers."""
        for number in range(4):
            store.save(record(f"r{number}", data=b"0"), expect=0)
        context = multiprocessing.get_context("fork")
        children = [
            context.Process(target=_increments, args=(store, f"r{number}", 40))
            for number in range(1, 4)
        ]
        for child in children:
            child.start()
        _increments(store, "r0", 40)
        for child in children:
            child.join(120)
        assert [child.exitcode for child in children] == [0, 0, 0]
        _increments(store, "r0", 10)
        found = {each.id: each.data for each in store.records()}
        assert found == {
            record(f"r{number}").id: b"40" if number else b"50" for number in range(4)
        }


def _increments(store: SQLAlchemyStore, name: str, count: int) -> None:
    for _ in range(count):
        held = store.lock(key(record(name)), wait=60, lease=60)
        assert held is not None
        assert held.id == record(name).id
        data = b"%d" % (int(held.data) + 1)
        store.save(
            replace(held, data=data, version=held.version + 1), expect=held.version
        )


# -- when it breaks --------------------------------------------------------------------


class TestBrokenConnections:
    @pytest.fixture
    def proxy(self, server: Server) -> Iterator[sql_servers.Proxy]:
        proxy = sql_servers.Proxy(server.port)
        yield proxy
        proxy.close()

    @pytest.fixture
    def direct(self, server: Server, make: Make) -> SQLAlchemyStore:
        return make(server.url)

    @pytest.fixture
    def store(
        self, server: Server, direct: SQLAlchemyStore, proxy: sql_servers.Proxy
    ) -> Iterator[SQLAlchemyStore]:
        store = SQLAlchemyStore(server.url_at(proxy.port))
        yield store
        store._engine.dispose()

    @pytest.mark.parametrize("how", ["request", "half", "reply"])
    def test_a_save_is_done_once(
        self,
        store: SQLAlchemyStore,
        direct: SQLAlchemyStore,
        proxy: sql_servers.Proxy,
        how: str,
    ) -> None:
        """Whether request or answer is lost, the save is done, and known to be."""
        given = record(data=b"x" * 300_000, user="ann")
        read_other = record("other")
        store.save(read_other, expect=0)
        proxy.cut = how
        store.save(given, expect=0)
        assert direct.load(key(given)) == stored(given)
        changed = replace(given, version=2, data=b"y" * 300_000)
        proxy.cut = how
        store.save(changed, expect=1)
        assert direct.load(key(given)) == stored(changed)
        proxy.cut = how
        held = store.lock(key(given), wait=15, lease=30)
        assert held is not None
        proxy.cut = how
        store.save(replace(held, version=3), expect=2)
        proxy.cut = how
        assert store.load(key(read_other)) == stored(read_other)
        proxy.cut = how
        store.delete(given)
        assert direct.load(key(given)) is None
        assert proxy.cuts == 6

    def test_a_save_is_known_behind_the_next_locks_back(
        self, store: SQLAlchemyStore, direct: SQLAlchemyStore, proxy: sql_servers.Proxy
    ) -> None:
        """Also if somebody took the lock before the answer was found to be lost."""
        given = record()
        store.save(given, expect=0)
        held = store.lock(key(given), wait=1, lease=30)
        assert held is not None
        with ThreadPoolExecutor(1) as pool:
            next_one = pool.submit(direct.lock, key(given), wait=25, lease=30)
            time.sleep(0.05)
            proxy.cut = "reply"
            store.save(replace(held, version=2), expect=1)
            theirs = next_one.result()
        assert theirs is not None
        assert theirs.version == 2

    def test_a_server_that_is_gone_is_an_error(
        self, store: SQLAlchemyStore, direct: SQLAlchemyStore, proxy: sql_servers.Proxy
    ) -> None:
        """An outage is no empty session; the record stays as it was, its data unsaid."""
        given = record(data=b"{}\nsecret-data")
        store.save(given, expect=0)
        proxy.cut, proxy.refusing = "request", True
        changed = replace(given, version=2, data=b"{}\nother-secret-data")
        for call in (
            lambda: store.save(changed, expect=1),
            lambda: store.load(key(given)),
            lambda: store.lock(key(given), wait=1, lease=30),
            lambda: list(store.records()),
        ):
            with pytest.raises(StoreError) as caught:
                call()
            error: BaseException | None = caught.value
            while error is not None:
                assert "secret-data" not in str(error)
                error = error.__cause__
        assert direct.load(key(given)) == stored(given)
        proxy.refusing = False
        store.save(changed, expect=1)
        assert direct.load(key(given)) == stored(changed)

    def test_saved_or_refused_and_never_another_row(
        self, store: SQLAlchemyStore, direct: SQLAlchemyStore, proxy: sql_servers.Proxy
    ) -> None:
        """Four threads, cut off at random: every row holds what its thread was told."""
        for number in range(4):
            direct.save(record(f"r{number}", data=b"%d:0" % number), expect=0)
        done = threading.Event()
        chance = random.Random(6)
        saves = [0] * 4
        end = time.monotonic() + 120

        def cut() -> None:
            while not done.wait(chance.uniform(0.02, 0.08)):
                proxy.cut = chance.choice(("request", "half", "reply"))

        def is_enough() -> bool:
            return proxy.cuts > 5 and sum(saves) > 100

        def change(number: int) -> None:
            while not is_enough() and time.monotonic() < end:
                try:
                    loaded = store.load(key(record(f"r{number}")))
                except StoreError:
                    continue
                assert loaded is not None
                assert loaded.data == b"%d:%d" % (number, loaded.version - 1)
                changed = replace(
                    loaded,
                    version=loaded.version + 1,
                    data=b"%d:%d" % (number, loaded.version),
                )
                try:
                    store.save(changed, expect=loaded.version)
                except StoreError:
                    assert direct.load(key(loaded)) in (loaded, changed)
                else:
                    assert direct.load(key(loaded)) == stored(changed)
                    saves[number] += 1

        with ThreadPoolExecutor(1) as pool:
            pool.submit(cut)
            try:
                in_threads(4, change)
            finally:
                done.set()
        assert proxy.cuts > 5
        assert sum(saves) > 100


class TestOthersInTheWay:
    def test_a_busy_sqlite_is_waited_for(self, tmp_path: Path) -> None:
        """A writer that takes longer than the busy timeout is no error either."""
        url = f"sqlite:///{tmp_path / 'sessions.db'}?timeout=0.05"
        store = SQLAlchemyStore(url)
        store.create_table()
        store.save(record(), expect=0)
        other = sql.create_engine(url, isolation_level="AUTOCOMMIT")
        with other.connect() as connection, ThreadPoolExecutor(1) as pool:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            saved = pool.submit(store.save, replace(record(), version=2), expect=1)
            read(store, record())
            time.sleep(0.1)
            assert not saved.done()
            connection.exec_driver_sql("COMMIT")
            saved.result()
        other.dispose()

    def test_a_lock_wait_of_mariadb_is_repeated(
        self, mariadb: sql_servers.MariaDB, make: Make
    ) -> None:
        """A row that another transaction holds beyond the lock wait is waited for."""
        store = make(mariadb.url)
        store.save(record(), expect=0)
        other = sql.create_engine(mariadb.url)
        with other.connect() as connection, ThreadPoolExecutor(1) as pool:
            connection.execute(sql.select(store.table).with_for_update())
            saved = pool.submit(store.save, replace(record(), version=2), expect=1)
            time.sleep(1.2)
            assert not saved.done()
            connection.rollback()
            saved.result()
        other.dispose()

    def test_serialization_failures_are_repeated(
        self, postgresql: sql_servers.PostgreSQL, make: Make
    ) -> None:
        """A server that serializes everything loses no increment and shows no error."""
        option = "options=-c%20default_transaction_isolation%3Dserializable"
        store = make(f"{postgresql.url}?{option}")
        store.save(record(data=b"0"), expect=0)
        in_threads(4, lambda _: _increments(store, "one", 20))
        loaded = store.load(key(record()))
        assert loaded is not None
        assert loaded.data == b"80"

    def test_sweepers_share_the_work(self, store: SQLAlchemyStore) -> None:
        """Four at once, beside writers: each expired row goes once, and no other."""
        soon = time.time() + 0.5
        for number in range(200):
            store.save(record(f"r{number}", expires=soon), expect=0)
        for number in range(4):
            store.save(record(f"live{number}", data=b"0"), expect=0)
        time.sleep(max(0.0, soon + 0.05 - time.time()))

        def work(number: int) -> int:
            if number < 4:
                _increments(store, f"live{number}", 20)
                return 0
            swept = 0
            for _ in range(30):
                swept += store.delete_expired(batch=10)
            return swept

        assert sum(in_threads(8, work)) == 200
        assert len(list(store.records())) == 4

    def test_a_sweep_of_sqlite_leaves_its_log_to_nobody(
        self, make: Make, tmp_path: Path
    ) -> None:
        """What it took out is gone from the database itself: no save pays for that."""
        path = tmp_path / "sessions.db"
        store = make(f"sqlite:///{path}")
        store.create_table()
        for number in range(10):
            store.save(record(f"r{number}", expires=time.time() - 1), expect=0)
        assert store.delete_expired(batch=10) == 10
        without_log = tmp_path / "copy.db"
        shutil.copy(path, without_log)
        with closing(sqlite3.connect(without_log)) as copy:
            assert copy.execute("SELECT count(*) FROM wsgisession").fetchone() == (0,)

    def test_nobody_stands_still_for_a_sweep(
        self, store: SQLAlchemyStore, url: str
    ) -> None:
        """Beside the sweep of another process the load goes on, change by change."""
        for _ in range(5):  # in case that the load slept through a sweep
            result = sql_cleanup.measure(url, rows=2000, seconds=0.3)
            assert result.swept == 2000
            if len(result.beside.times) > 20:
                break
        assert len(result.beside.times) > 20
        assert result.beside.times[-1] < 10  # where a lock is waited for 30 seconds


# -- whole requests --------------------------------------------------------------------


def _count(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    session = get_session(environ)
    session["n"] = session.get("n", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % session["n"]]


def _request(app: Any, method: str, cookie: str) -> list[str]:
    """Run one request, and give its status and its cookies."""
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "HTTP_COOKIE": cookie}
    setup_testing_defaults(environ)
    answer: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        answer[:] = [status]
        answer.extend(value for name, value in headers if name == "Set-Cookie")

    body = app(environ, start_response)
    list(body)
    if hasattr(body, "close"):
        body.close()
    return answer


def _worker(
    url: str, methods: Sequence[str], cookie: str, blind: bool, answers: Any
) -> None:
    """Four threads of one process, 50 increments each; what they answered and logged."""
    store: Any = SQLAlchemyStore(url)
    app = SessionMiddleware(
        _count, manager=SessionManager(BlindStore(store) if blind else store)
    )
    logged = logging.handlers.BufferingHandler(10_000)
    logging.getLogger("wsgisession").addHandler(logged)

    def work(number: int) -> list[str]:
        method = methods[number % len(methods)]
        return [answer_to(method) for _ in range(50)]

    def answer_to(method: str) -> str:
        while (answer := _request(app, method, cookie)[0]).startswith("503"):
            time.sleep(1)  # as it is told: on a busy machine the wait may be too long
        return answer

    statuses = [status for thread in in_threads(4, work) for status in thread]
    answers.put((statuses, [record.getMessage() for record in logged.buffer]))


class TestRequests:
    @staticmethod
    def increments(url: str, *methods: str, blind: bool = False) -> int:
        """What 16 workers in 4 processes make of 800 increments of one session."""
        store = SQLAlchemyStore(url)
        app = SessionMiddleware(_count, manager=SessionManager(store))
        cookie = _request(app, "POST", "")[1].split(";")[0]
        context = multiprocessing.get_context("spawn")
        answers: Any = context.Queue()
        workers = [
            context.Process(target=_worker, args=(url, methods, cookie, blind, answers))
            for _ in range(4)
        ]
        for worker in workers:
            worker.start()
        told = [answers.get(timeout=300) for _ in workers]
        for worker in workers:
            worker.join(60)
        assert [status for all, _ in told for status in all] == ["200 OK"] * 800
        failures = [line for _, lines in told for line in lines if "answering" in line]
        assert all(line.startswith("gave up on the lock") for line in failures)
        (kept,) = store.records()
        store._engine.dispose()
        count: int = json.loads(kept.data.split(b"\n", 1)[1])["n"]
        return count - 1

    def test_no_increment_is_lost(self, store: SQLAlchemyStore, url: str) -> None:
        """16 workers in 4 processes, 50 requests each, half GET, half POST: 800."""
        assert self.increments(url, "GET", "POST") == 800

    def test_a_blind_store_loses_them(self, make: Make, tmp_path: Path) -> None:
        """The positive control: without the comparison the same workers lose some."""
        url = f"sqlite:///{tmp_path / 'sessions.db'}"
        make(url)
        assert self.increments(url, "GET", blind=True) < 800
