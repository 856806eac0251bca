"""The SQL store keeps the contract on three databases.

And what is special to it: what it asks of the server, whose connections it uses, and what
becomes of a save when the connection breaks.
"""

from __future__ import annotations

import multiprocessing
import random
import re
import shutil
import sqlite3
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

sql = pytest.importorskip("sqlalchemy")

from wsgisession import Options, Session, SessionManager  # noqa: E402
from wsgisession.errors import (  # noqa: E402
    ConfigurationError,
    LockTimeout,
    StoreError,
    VersionConflict,
)
from wsgisession.record import Key, Record, Replaced  # noqa: E402
from wsgisession.stores.sqlalchemy import SQLAlchemyStore  # noqa: E402
from wsgisession.stores.sqlalchemy import _store as store_module  # noqa: E402
from wsgisession.stores.sqlalchemy._statements import statements  # noqa: E402
from wsgisession.testing import (  # noqa: E402
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
from wsgisession.testing._blind import BlindStore  # noqa: E402

from .. import sql_servers  # noqa: E402
from ..conftest import SECRET, Visitor  # noqa: E402

Make = Callable[..., SQLAlchemyStore]
Server = sql_servers.Server
PATIENCE = 15.0
WAITERS = 50


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    with sql_servers.postgresql(["fsync=off"]) as server:
        yield server


@pytest.fixture(scope="module")
def mariadb() -> Iterator[Server]:
    with sql_servers.mariadb(
        ["innodb-flush-log-at-trx-commit=0", "innodb-lock-wait-timeout=1"]
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
def connect() -> Iterator[Callable[..., Any]]:
    """Makes engines for the test itself, and closes their connections afterwards."""
    made: list[Any] = []

    def one(url: str, **options: Any) -> Any:
        made.append(sql.create_engine(url, **options))
        return made[-1]

    yield one
    for engine in made:
        engine.dispose()


@pytest.fixture
def make(connect: Callable[..., Any]) -> Iterator[Make]:
    """Makes stores with their tables, and drops these afterwards."""
    made: list[tuple[SQLAlchemyStore, Any]] = []

    def one(url: str | None = None, **options: Any) -> SQLAlchemyStore:
        store = SQLAlchemyStore(url, **options)
        made.append((store, options.get("engine") or connect(url)))
        store.create_table()
        return store

    yield one
    for store, engine in made:
        store.close()
        store.table.drop(engine, checkfirst=True)


@pytest.fixture
def store(make: Make, url: str) -> SQLAlchemyStore:
    return make(url)


@pytest.fixture
def engine(connect: Callable[..., Any], url: str) -> Any:
    """Another way to the same database, for looking."""
    return connect(url, isolation_level="AUTOCOMMIT")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What SQLite is asked, on connections that are opened from now on."""
    said: list[str] = []
    real = sqlite3.dbapi2.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = real(*args, **options)
        connection.set_trace_callback(said.append)
        return connection

    monkeypatch.setattr(sqlite3.dbapi2, "connect", traced)
    return said


def take(store: SQLAlchemyStore, given: Record, *, wait: float = PATIENCE) -> Record:
    held = store.lock(key(given), wait=wait, lease=60, waiters=WAITERS)
    assert held is not None
    assert held.lease is not None
    return held


# -- the contract ----------------------------------------------------------------------


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def clients(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[SQLAlchemyStore, SQLAlchemyStore, Any]]:
    """Two clients of one table, and an engine, made once for all the tests."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('sql') / 'sessions.db'}"
    else:
        url = request.getfixturevalue(request.param).url
    one, two = (SQLAlchemyStore(url, table_name="conformance") for _ in range(2))
    one.create_table()
    engine = sql.create_engine(url, poolclass=sql.NullPool)
    yield one, two, engine
    one.close()
    two.close()
    one.table.drop(engine)
    engine.dispose()


class TestConformance(LockingStoreSuite, IterableStoreSuite):
    @pytest.fixture
    def store(self, clients: Any) -> SQLAlchemyStore:
        store, _, engine = clients
        with engine.begin() as connection:
            connection.execute(store.table.delete())
        made: SQLAlchemyStore = store
        return made

    @pytest.fixture
    def twin(self, clients: Any) -> SQLAlchemyStore:
        twin: SQLAlchemyStore = clients[1]
        return twin


class TestConformanceInMemory(LockingStoreSuite, IterableStoreSuite):
    """A SQLite database in memory: all threads share it."""

    @pytest.fixture
    def store(self) -> Iterator[SQLAlchemyStore]:
        store = SQLAlchemyStore("sqlite://")
        yield store
        store.close()


class TestConformanceOnYourEngine(LockingStoreSuite, IterableStoreSuite):
    """An engine of the caller's, with connections that its pool lends."""

    @pytest.fixture
    def store(
        self, postgresql: Server, make: Make, connect: Callable[..., Any]
    ) -> SQLAlchemyStore:
        return make(engine=connect(postgresql.url))


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
            ({"url": 7}, "must name a database"),
            (
                {"url": "nonsense://secret-password@host/db"},
                "knows no driver .nonsense",
            ),
            (
                {"url": "postgresql://me:p@ss:secret-password/db"},
                "must name a database",
            ),
            ({"url": "mysql+mysqldb://host/db"}, "MySQLdb"),
            (
                {"url": "oracle://me:secret-password@host/db"},
                "kept in .*, not in oracle",
            ),
            ({"url": "postgresql+psycopg://h/d?prepare_threshold=x"}, "cannot be used"),
            ({"engine": "sqlite://"}, "must be SQLAlchemy's Engine, not str"),
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
            (
                {
                    "url": "sqlite://",
                    "columns": [sql.Column("a", sql.Integer, nullable=False)],
                    "fill": dict,
                },
                "column a must be nullable or have a plain default",
            ),
        ],
    )
    def test_what_cannot_work_is_refused(
        self, options: Mapping[str, Any], says: str
    ) -> None:
        """Each mistake has its sentence, and no password is in it or in its cause."""
        with pytest.raises(ConfigurationError, match=says) as caught:
            SQLAlchemyStore(**options)
        error: BaseException | None = caught.value
        while error is not None:
            assert "secret-password" not in str(error)
            error = error.__cause__

    @pytest.mark.parametrize(
        "url",
        ["postgresql+asyncpg://h/d", "sqlite+aiosqlite://", "mysql+aiomysql://h/d"]
        + ["postgresql+psycopg_async://h/d"],
    )
    def test_an_asynchronous_driver_is_refused(self, url: str) -> None:
        """It cannot be called from WSGI, and that is said before the first request."""
        with pytest.raises(ConfigurationError, match="is asynchronous"):
            SQLAlchemyStore(url)

    def test_an_asynchronous_engine_is_refused(self) -> None:
        """The same for an engine of the caller's."""
        engine = sql.create_engine("postgresql+psycopg_async://host/db")
        with pytest.raises(ConfigurationError, match="is asynchronous"):
            SQLAlchemyStore(engine=engine)

    def test_a_database_of_another_kind_is_refused(self) -> None:
        """A dialect whose statements were never tried is not guessed at."""
        engine = sql.create_mock_engine("oracle://", lambda *_: None)
        with pytest.raises(ConfigurationError, match="must be SQLAlchemy's Engine"):
            SQLAlchemyStore(engine=engine)

    def test_nothing_is_asked_before_the_first_call(self) -> None:
        """A store can be made, as in a migration, where no database can be reached."""
        made = SQLAlchemyStore("postgresql+psycopg://user@127.0.0.1:1/none")
        assert list(made.metadata.tables.values()) == [made.table]
        with pytest.raises(StoreError, match="OperationalError"):
            made.load(key(record()))

    def test_table_and_schema_are_named_by_the_caller(
        self, postgresql: Server, make: Make, connect: Callable[..., Any]
    ) -> None:
        """Also with a name that must be quoted, beside another store's table."""
        engine = connect(postgresql.url)
        with engine.begin() as connection:
            connection.execute(sql.schema.CreateSchema("Mine", if_not_exists=True))
        store = make(engine=engine, table_name="My sessions", schema="Mine")
        other = make(engine=engine)
        given = record(user="ann")
        store.save(given, expect=0)
        after = newer(take(store, given))
        store.save(after, expect=given.version)
        assert store.load(key(given)) == stored(after)
        assert list(store.records(user="ann")) == [stored(after)]
        assert other.load(key(given)) is None
        assert sql.inspect(engine).has_table("My sessions", schema="Mine")


class TestTheTable:
    @pytest.fixture
    def no_table(self, make: Make, url: str, engine: Any) -> Any:
        """An engine to a database without the table; it is dropped again afterwards."""
        make(url).table.drop(engine)
        return engine

    def test_it_is_made_at_first_use(self, url: str, no_table: Any) -> None:
        """By an engine of ours, with its indexes, whatever the first call is."""
        for first in (
            lambda store: store.load(key(record())),
            lambda store: store.save(record(), expect=0),
            lambda store: store.lock(key(record()), wait=0, lease=1, waiters=0),
            lambda store: list(store.records()),
            lambda store: store.delete_expired(batch=1),
        ):
            store = SQLAlchemyStore(url)
            first(store)
            no_table.dispose()  # SQLite tells what a connection remembers
            indexes = sql.inspect(no_table).get_indexes("wsgisession")
            assert sorted(index["column_names"] for index in indexes) == [
                ["expires_hour"],
                ["user_hash", "id"],
            ]
            store.close()
            store.table.drop(no_table)

    def test_many_first_users_at_once(self, url: str, no_table: Any) -> None:
        """Six stores find it missing at the same time: all of them save."""
        stores = [SQLAlchemyStore(url) for _ in range(6)]
        in_threads(6, lambda n: stores[n].save(record(f"r{n}"), expect=0))
        assert len(list(stores[0].records())) == 6
        for store in stores:
            store.close()

    def test_that_of_your_engine_is_yours(self, no_table: Any) -> None:
        """The error says what to do, and nothing is made behind the caller's back."""
        store = SQLAlchemyStore(engine=no_table)
        with pytest.raises(StoreError, match="wsgisession init"):
            store.load(key(record()))
        assert not sql.inspect(no_table).has_table("wsgisession")
        store.metadata.create_all(no_table)
        assert store.load(key(record())) is None
        store.close()

    @pytest.mark.parametrize("mine", [True, False])
    def test_who_makes_it_can_be_chosen(
        self, url: str, no_table: Any, mine: bool
    ) -> None:
        """By ``create_table``, for an engine of either kind."""
        if mine:
            store = SQLAlchemyStore(engine=no_table, create_table=True)
            store.save(record(), expect=0)
            store.close()
            return
        store = SQLAlchemyStore(url, create_table=False)
        with pytest.raises(StoreError, match="is missing"):
            store.save(record(), expect=0)
        store.close()

    def test_creating_again_changes_nothing(self, url: str, make: Make) -> None:
        """At the same time neither."""
        store = make(url)
        store.save(record(), expect=0)
        in_threads(4, lambda _: make(url))
        assert store.load(key(record())) is not None

    def test_a_user_without_the_right_is_told(
        self, postgresql: Server, connect: Callable[..., Any]
    ) -> None:
        """Where the table may not be made, the error names the cause."""
        watch = connect(postgresql.url, isolation_level="AUTOCOMMIT")
        with watch.connect() as connection:
            connection.exec_driver_sql("CREATE ROLE guest LOGIN")
        store = SQLAlchemyStore(postgresql.url.replace("test@", "guest@"))
        with pytest.raises(StoreError, match="InsufficientPrivilege"):
            store.save(record(), expect=0)
        store.close()
        with watch.connect() as connection:
            connection.exec_driver_sql("DROP ROLE guest")


class TestExtraColumns:
    @staticmethod
    def fill(user: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "key": values.get("account_id"),
            "name": user,
            "since": datetime.fromtimestamp(
                values.get("since", 0), timezone.utc
            ).replace(tzinfo=None),
            "tags": values.get("tags", []),
            "rank": values.get("rank", 1),
        }

    @pytest.fixture
    def store(self, make: Make, url: str) -> SQLAlchemyStore:
        columns = [
            sql.Column("key", sql.Integer, index=True),
            sql.Column("name", sql.String(80)),
            sql.Column("since", sql.DateTime),
            sql.Column("tags", sql.JSON),
            sql.Column("rank", sql.Integer, nullable=False, default=5),
        ]
        return make(url, columns=columns, fill=self.fill)

    @staticmethod
    def row(store: SQLAlchemyStore, engine: Any, id: str) -> list[Any]:
        names = ("key", "name", "since", "tags", "rank")
        query = sql.select(*(store.table.c[name] for name in names))
        with engine.connect() as connection:
            found = connection.execute(query.where(store.table.c.id == id)).one()
        return list(found)

    @pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
    def test_they_are_filled_at_each_save(
        self, store: SQLAlchemyStore, engine: Any, encrypt: bool
    ) -> None:
        """By user and values, also where these are encrypted below; of any type."""
        then = datetime(2001, 9, 9, 1, 46, 40)
        absent = [None, None, None, None, 5]
        manager = SessionManager(store, Options(secret=SECRET, encrypt=encrypt))
        session = manager.create()
        session.update(account_id=7, tags=["a"], since=1_000_000_000)
        session.save()
        assert self.row(store, engine, session.id) == [7, None, then, ["a"], 1]
        session.login("ann")
        session["rank"] = 2
        session.save()
        assert self.row(store, engine, session.id) == [7, "ann", then, ["a"], 2]
        session.rotate()
        session.save()
        assert self.row(store, engine, session.id) == [7, "ann", then, ["a"], 2]
        with manager.edit(session.id) as edited:
            edited["account_id"] = 8
        assert self.row(store, engine, session.id)[:2] == [8, "ann"]
        found = manager.get(session.id)
        assert found is not None
        assert dict(found) == {
            "account_id": 8,
            "tags": ["a"],
            "since": 1_000_000_000,
            "rank": 2,
        }
        other = manager.create()
        other["account_id"] = 9
        other.save()
        del other["account_id"]
        other.save()
        assert self.row(store, engine, other.id) == absent

    def test_fill_sees_sessions_only(self, store: SQLAlchemyStore, engine: Any) -> None:
        """What belongs to no client has the columns' defaults, at each save."""
        given = record("mark", data=b"no session", proof="", user="ann")
        store.save(given, expect=0)
        assert self.row(store, engine, given.id) == [None, None, None, None, 5]
        after = newer(given, data=b"still none")
        store.save(after, expect=given.version)
        assert self.row(store, engine, given.id) == [None, None, None, None, 5]
        assert store.load(Key(given.id)) == stored(after)

    @pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
    def test_the_documented_example_works(self, tmp_path: Path, encrypt: bool) -> None:
        """As it is printed: with a login, a rotation, encryption, and with none."""
        assert store_module.__doc__ is not None
        example = textwrap.dedent(store_module.__doc__.partition("::\n")[2])
        assert "fill=account" in example
        names: dict[str, Any] = {
            "Column": sql.Column,
            "Integer": sql.Integer,
            "String": sql.String,
            "SQLAlchemyStore": SQLAlchemyStore,
            "url": f"sqlite:///{tmp_path / 'sessions.db'}",
        }
        exec(example, names)
        store: SQLAlchemyStore = names["store"]

        def log_in(session: Session) -> None:
            session["account_id"] = 7
            session.login("ann")

        options = Options(secret=SECRET, encrypt=encrypt, rotate_every="1h")
        visitor = Visitor(
            SessionManager(store, options),
            {
                "/look": lambda session: session.setdefault("seen", True),
                "/login": log_in,
                "/rotate": lambda session: session.rotate(),
                "/logout": lambda session: session.logout(),
            },
        )
        query = "SELECT account_id, login_name FROM wsgisession"
        with closing(sqlite3.connect(tmp_path / "sessions.db")) as database:
            for path, rows in (
                ("/look", [(None, None)]),
                ("/login", [(7, "ann")]),
                ("/rotate", [(7, "ann")]),
                ("/look", [(7, "ann")]),
                ("/logout", []),
            ):
                visitor.post(path)
                assert database.execute(query).fetchall() == rows, path
        store.close()

    def test_a_constraint_of_theirs_is_no_conflict(self, make: Make, url: str) -> None:
        """A row that the database refuses is an error, not a lost race."""
        store = make(
            url,
            columns=[sql.Column("mail", sql.String(50), unique=True)],
            fill=lambda user, values: {"mail": user},
        )
        refusal = r"IntegrityError|UniqueViolation"
        one, two = record("one", user="a"), record("two", user="b")
        store.save(one, expect=0)
        store.save(two, expect=0)
        with pytest.raises(StoreError, match=refusal):
            store.save(record("three", user="a"), expect=0)
        with pytest.raises(StoreError, match=refusal):
            store.save(newer(two, user="a"), expect=two.version)
        assert store.load(key(two)) == stored(two)

    def test_fill_must_name_the_columns(self) -> None:
        """A value for no column, or none for one, is an error that names them."""
        store = SQLAlchemyStore(
            "sqlite://",
            columns=[sql.Column("account_id", sql.Integer)],
            fill=lambda user, values: {"acount_id": 1},
        )
        with pytest.raises(StoreError, match=r"\['acount_id'\].*\['account_id'\]"):
            store.save(record(user="ann"), expect=0)


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
                turned=chance.uniform(0, 2e9),
                seen=chance.uniform(0, 2e9),
                replaced=(Replaced(proof("old"), chance.uniform(0, 2e9)),),
            )
            store.save(given, expect=0)
            assert store.load(key(given)) == stored(given)
            later = given._replace(
                accessed=given.accessed + chance.uniform(0, 100),
                expires=given.expires + chance.uniform(0, 100),
            )
            assert store.touch(later)
            assert store.load(key(given)) == stored(later)

    def test_every_string_is_a_user(self, store: SQLAlchemyStore) -> None:
        """None is taken for another, whatever case, spaces, accents and length say."""
        users = ["ann", "ANN", "ann ", "\u00e4nn", "a\u0308nn", "", " ", "a\x00b"]
        users += ["\ud800", "'; --", "n" * 100_000]
        for number, user in enumerate(users):
            store.save(record(f"r{number}", user=user), expect=0)
        for user in users:
            (found,) = store.records(user=user)
            assert found.user == user
            assert not store.delete(key(found), user=user + "x")
            assert store.delete(key(found), user=user)

    @pytest.mark.parametrize("url", ["postgresql", "mariadb"], indirect=True)
    def test_the_clock_is_the_databases(
        self, store: SQLAlchemyStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A host whose clock is a day off agrees about what is live and whose it is."""
        given, over = record(), record("over", expires=time.time() + 0.2)
        store.save(given, expect=0)
        store.save(over, expect=0)
        take(store, given)
        time.sleep(0.3)
        right = time.time
        for wrong in (-86400, 86400):
            monkeypatch.setattr(time, "time", lambda wrong=wrong: right() + wrong)
            assert store.load(key(given)) is not None
            assert store.load(key(over)) is None
            refused(store, newer(given), expect=given.version)

    def test_the_hour_of_the_sweep_moves_with_the_clock(
        self, store: SQLAlchemyStore, engine: Any
    ) -> None:
        """Else a sweep would look at live rows again and again; and never back."""
        given = record()
        later = given._replace(expires=given.expires + 7200)
        store.save(given, expect=0)
        row = store.table.c
        for touched, expected in ((later, later), (given, later)):
            assert store.touch(touched)
            with engine.connect() as connection:
                found = connection.execute(sql.select(row.expires, row.expires_hour))
                assert found.one() == (expected.expires, expected.expires // 3600)

    def test_a_stranger_never_holds_the_lease(
        self, store: SQLAlchemyStore, engine: Any
    ) -> None:
        """Not for a moment: nothing is written for a proof that the row does not know."""
        given = record(replaced=(Replaced(proof("before"), None),))
        store.save(given, expect=0)
        for shown in (proof("wrong"), "", "%", "_" * 64):
            answer = store.lock(Key(given.id, shown), wait=0, lease=60, waiters=WAITERS)
            assert answer == stored(given)
        with engine.connect() as connection:
            lease = connection.execute(sql.select(store.table.c.lease)).scalar_one()
        assert lease is None

    def test_deleting_while_walking_over_pages(self, store: SQLAlchemyStore) -> None:
        """Of more records than fit a page, each is seen once, deleted or not."""
        for number in range(450):
            store.save(record(f"r{number}", user="ann"), expect=0)
        seen = set()
        for number, each in enumerate(store.records(user="ann")):
            seen.add(each.id)
            if number % 2:
                store.delete(key(each))
        assert len(seen) == 450
        assert len(list(store.records())) == 225

    def test_a_row_that_cannot_be_read_is_absent(
        self, store: SQLAlchemyStore, engine: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is logged by its id, is no error, and its bytes are kept."""
        given, other = record(), record("other")
        store.save(given, expect=0)
        store.save(other, expect=0)
        row = store.table
        torn = sql.update(row).where(row.c.id == given.id).values(replaced='[["')
        with engine.begin() as connection:
            connection.execute(torn)
        assert store.load(key(given)) is None
        assert store.lock(key(given), wait=0, lease=60, waiters=0) is None
        assert list(store.records()) == [stored(other)]
        assert refused(store, newer(given), expect=3).record is None
        assert given.id[:8] in caplog.text
        with engine.connect() as connection:
            kept = connection.execute(sql.select(row.c.data, row.c.lease_until)).all()
        assert sorted(kept) == [(given.data, 0.0), (other.data, 0.0)]


# -- what is asked of the server -------------------------------------------------------


def read(store: SQLAlchemyStore, given: Record) -> None:
    assert store.load(key(given)) is not None


def locked_change(store: SQLAlchemyStore, given: Record) -> None:
    held = take(store, given)
    store.save(newer(held), expect=held.version)


def unlocked_change(store: SQLAlchemyStore, given: Record) -> None:
    loaded = store.load(key(given))
    assert loaded is not None
    store.save(newer(loaded), expect=loaded.version)


def touch(store: SQLAlchemyStore, given: Record) -> None:
    loaded = store.load(key(given))
    assert loaded is not None
    assert store.touch(loaded)


def locked_read(store: SQLAlchemyStore, given: Record) -> None:
    store.unlock(take(store, given))


def end(store: SQLAlchemyStore, given: Record) -> None:
    assert not store.delete(key(given), user="bob")


COUNTS = [
    (read, 1),
    (unlocked_change, 2),
    (locked_change, 2),
    (touch, 2),
    (locked_read, 2),
    (end, 1),
]


class TestRoundTrips:
    """Counted where they arrive: at the server."""

    @pytest.mark.parametrize(("work", "count"), COUNTS)
    def test_on_sqlite(
        self, make: Make, tmp_path: Path, asked: list[str], work: Any, count: int
    ) -> None:
        """A read is one statement, a change is two; none begins or ends anything."""
        store = make(f"sqlite:///{tmp_path / 'sessions.db'}")
        store.save(record(), expect=0)
        del asked[:]
        work(store, record())
        statements = [each for each in asked if "synchronous" not in each]
        assert len(statements) == count, asked

    @pytest.mark.parametrize("ours", [True, False], ids=["our engine", "yours"])
    @pytest.mark.parametrize(("work", "count"), COUNTS)
    def test_on_postgresql(
        self,
        postgresql: Server,
        make: Make,
        connect: Callable[..., Any],
        work: Any,
        count: int,
        ours: bool,
    ) -> None:
        """The same, by PostgreSQL's own log, and with an engine of the caller's."""
        url = f"{postgresql.url}?options=-c%20log_statement%3Dall"
        store = make(url) if ours else make(engine=connect(url))
        store.save(record(), expect=0)
        before = len(postgresql.log.read_text())
        work(store, record())
        with postgresql.log.open() as log:
            log.seek(before)
            said = re.findall(r"LOG:  (?:statement|execute [^:]*): (.*)", log.read())
        assert len(said) == count, said

    @pytest.mark.parametrize(("work", "count"), COUNTS)
    def test_on_mariadb(
        self,
        mariadb: Server,
        make: Make,
        connect: Callable[..., Any],
        work: Any,
        count: int,
    ) -> None:
        """The same, but that a lock is two: MariaDB cannot change a row and read it."""
        store = make(mariadb.url)
        store.save(record(), expect=0)
        with connect(mariadb.url).connect() as watch:
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
            said = watch.execute(sql.text(query)).all()
        locks = work in (locked_change, locked_read)
        assert len(said) == count + locks, said

    @pytest.mark.parametrize(
        ("name", "index"),
        [("load", "Index Scan|USING INDEX|PRIMARY"), ("page_of_user", "user_hash")],
    )
    def test_the_indexes_are_used(
        self, store: SQLAlchemyStore, engine: Any, name: str, index: str
    ) -> None:
        """A read does not walk through the table; a page of a user is not sorted."""
        for number in range(20):
            store.save(record(f"r{number}", user="ann"), expect=0)
        values = {"id_is": record("r3").id, "user_is": "0" * 64, "after": "", "page": 9}
        statement = statements(store.table, engine.dialect)[name]
        parameters = statement.parameters(values)
        if not isinstance(parameters, dict):
            parameters = tuple(parameters)
        explain = "EXPLAIN QUERY PLAN" if engine.name == "sqlite" else "EXPLAIN"
        with engine.connect() as connection:
            if engine.name == "postgresql":
                for way in ("seqscan", "bitmapscan"):
                    connection.exec_driver_sql(f"SET enable_{way} = off")
            plan = connection.exec_driver_sql(
                f"{explain} {statement.text}", parameters
            ).all()
            connection.invalidate()
        assert re.search(index, str(plan)), plan
        assert not re.search("Sort|filesort|TEMP B-TREE", str(plan)), plan

    @pytest.mark.parametrize("name", ["current", "leased"])
    def test_a_proxy_that_splits_reads_is_told_which_matter(
        self, server: Server, make: Make, connect: Callable[..., Any], name: str
    ) -> None:
        """What a lock or a refused save depends on is a locking read: no replica's."""
        store, engine = make(server.url), connect(server.url)
        made = statements(store.table, engine.dialect)
        assert made[name].text.endswith("FOR UPDATE")
        assert "FOR UPDATE" not in made["load"].text

    def test_a_touch_updates_in_place_on_postgresql(
        self, postgresql: Server, make: Make, connect: Callable[..., Any]
    ) -> None:
        """No index is written for it (HOT), as one on the expiry itself would be."""
        store = make(f"{postgresql.url}?application_name=touching")
        engine = connect(postgresql.url)
        control = sql.Index("control", store.table.c.expires)
        noon = time.time() // 3600 * 3600 + 7200
        moments = iter(range(1, 1000))

        def updates() -> int:
            # A connection counts for the others when it is closed.
            store.close()
            end = time.monotonic() + PATIENCE
            query = (
                "SELECT (SELECT count(*) FROM pg_stat_activity "
                "WHERE application_name = 'touching'), n_tup_hot_upd "
                "FROM pg_stat_user_tables WHERE relname = 'wsgisession'"
            )
            while time.monotonic() < end:
                with engine.connect() as connection:
                    open_ones, count = connection.exec_driver_sql(query).one()
                if open_ones == 0:
                    return int(count)
                time.sleep(0.01)
            raise AssertionError("a connection stays open")

        def hot(touches: int) -> int:
            before = updates()
            for _ in range(touches):
                later = noon + next(moments)
                assert store.touch(given._replace(accessed=later, expires=later))
            return updates() - before

        given = record(accessed=noon, expires=noon)
        store.save(given, expect=0)
        assert hot(100) >= 90
        with engine.begin() as connection:
            control.create(connection)
        assert hot(100) == 0

    @pytest.mark.parametrize("database", ["sqlite", "postgresql"])
    def test_what_a_crash_may_take_back_waits_for_no_disk(
        self,
        request: pytest.FixtureRequest,
        make: Make,
        tmp_path: Path,
        asked: list[str],
        database: str,
    ) -> None:
        """A lock and a touch are relaxed, a save and an end wait for the disk."""
        given = record()
        if database == "sqlite":
            store = make(f"sqlite:///{tmp_path / 'sessions.db'}")
        else:
            server: Server = request.getfixturevalue("postgresql")
            store = make(f"{server.url}?options=-c%20log_statement%3Dall")
        store.save(given, expect=0)

        def relaxed(work: Callable[[], object]) -> bool:
            if database == "sqlite":
                work()
                (mode,) = [each for each in asked if "synchronous" in each][-1:]
                return mode.endswith("NORMAL")
            before = len(server.log.read_text())
            work()
            return "synchronous_commit" in server.log.read_text()[before:]

        held: list[Record] = []
        assert relaxed(lambda: held.append(take(store, given)))
        assert not relaxed(lambda: store.save(newer(held[0]), expect=given.version))
        assert relaxed(lambda: store.touch(given))
        assert not relaxed(lambda: store.delete(key(given)))


# -- connections -----------------------------------------------------------------------


class TestConnections:
    def test_locks_hold_no_connection(
        self, postgresql: Server, make: Make, connect: Callable[..., Any]
    ) -> None:
        """While 8 sessions are locked, nothing is open; a pool of 2 serves 16 threads."""
        engine = connect(postgresql.url, pool_size=2, max_overflow=0)
        opened: list[Any] = []
        sql.event.listen(engine, "connect", lambda driver, _: opened.append(driver))
        store = make(engine=engine)
        for number in range(24):
            store.save(record(f"r{number}", data=b"0"), expect=0)
        locked = [take(store, record(f"r{number}")) for number in range(16, 24)]
        watch = connect(postgresql.url, isolation_level="AUTOCOMMIT")
        with watch.connect() as connection:
            transactions = connection.exec_driver_sql(
                "SELECT state, query FROM pg_stat_activity WHERE xact_start IS NOT "
                "NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).all()
        assert transactions == []
        in_threads(16, lambda number: _increments(store, f"r{number}", 10))
        for each in locked:
            store.save(newer(each, data=b"8"), expect=each.version)
        assert (
            sorted(each.data for each in store.records()) == [b"10"] * 16 + [b"8"] * 8
        )
        assert len(opened) <= 2

    def test_more_threads_than_connections(
        self, postgresql: Server, make: Make
    ) -> None:
        """With an engine of ours they take turns."""
        store = make(postgresql.url)
        store.save(record(), expect=0)
        in_threads(40, lambda _: [read(store, record()) for _ in range(5)])

    def test_your_engine_stays_as_it_is(
        self, url: str, make: Make, connect: Callable[..., Any]
    ) -> None:
        """What the caller does with it is still a transaction of the caller's."""
        engine = connect(url)
        store = make(engine=engine)
        store.save(record(), expect=0)
        with suppress(ZeroDivisionError), engine.begin() as connection:
            connection.execute(store.table.delete())
            raise ZeroDivisionError
        assert store.load(key(record())) is not None
        with engine.connect() as connection:
            connection.execute(store.table.delete())
        assert store.load(key(record())) is not None

    def test_closing_leaves_nothing_open(
        self, postgresql: Server, make: Make, connect: Callable[..., Any]
    ) -> None:
        """The server sees the connections go, and the store may be used on."""
        store = make(f"{postgresql.url}?application_name=closing")
        store.save(record(), expect=0)
        watch = connect(postgresql.url, isolation_level="AUTOCOMMIT")

        def connections() -> int:
            with watch.connect() as connection:
                count: int = connection.exec_driver_sql(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE application_name = 'closing'"
                ).scalar_one()
            return count

        assert connections() == 1
        store.close()
        end = time.monotonic() + PATIENCE
        while connections() and time.monotonic() < end:
            time.sleep(0.02)
        assert connections() == 0
        read(store, record())

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

    def test_a_forked_process_waits_in_lines_of_its_own(
        self, make: Make, tmp_path: Path
    ) -> None:
        """A thread that waited while the process was forked is not counted there."""
        store = make(f"sqlite:///{tmp_path / 'sessions.db'}")
        store.save(record(), expect=0)
        held = take(store, record())
        context = multiprocessing.get_context("fork")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(take, store, record(), wait=60)
            time.sleep(0.1)
            child = context.Process(target=_waits_alone, args=(store,))
            child.start()
            child.join(60)
            store.unlock(held)
            waiting.result()
        assert child.exitcode == 0


def _increments(store: Any, name: str, count: int) -> None:
    for _ in range(count):
        held = store.lock(key(record(name)), wait=60, lease=60, waiters=WAITERS)
        assert held is not None
        assert held.id == record(name).id
        data = b"%d" % (int(held.data) + 1)
        store.save(newer(held, data=data), expect=held.version)


def _waits_alone(store: SQLAlchemyStore) -> None:
    with pytest.raises(LockTimeout) as caught:
        store.lock(key(record()), wait=0.1, lease=60, waiters=1)
    assert caught.value.waiters is None


# -- what a fresh connection heals -----------------------------------------------------


@pytest.fixture(params=["ours", "yours"])
def on_either_engine(
    request: pytest.FixtureRequest, make: Make, connect: Callable[..., Any]
) -> Make:
    """Makes stores on an engine of ours or of the caller's."""

    def one(url: str) -> SQLAlchemyStore:
        return make(url) if request.param == "ours" else make(engine=connect(url))

    return one


@pytest.fixture
def demoted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Lets every connection of PyMySQL that is open now answer with an error."""
    import pymysql

    errors: list[tuple[int, Exception]] = []
    born: dict[int, int] = {}
    real_connect, real_query = pymysql.Connection.connect, pymysql.Connection.query

    def connecting(self: Any, *args: Any) -> None:
        born[id(self)] = len(errors)
        real_connect(self, *args)

    def query(self: Any, *args: Any, **options: Any) -> Any:
        if born.get(id(self), 0) < len(errors):
            raise errors[-1][1]
        return real_query(self, *args, **options)

    monkeypatch.setattr(pymysql.Connection, "connect", connecting)
    monkeypatch.setattr(pymysql.Connection, "query", query)
    return lambda error: errors.append((len(errors), error))


class TestAFreshConnectionHeals:
    def test_a_closed_connection(
        self, server: Server, on_either_engine: Make, connect: Callable[..., Any]
    ) -> None:
        """After a restart of the server nobody sees an error for the pool's sake."""
        store = on_either_engine(server.url)
        store.save(record(data=b"0"), expect=0)
        watch = connect(server.url, isolation_level="AUTOCOMMIT")
        kill = {
            "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
            "mysql": "SELECT id FROM information_schema.processlist "
            "WHERE id <> connection_id() AND user = 'root'",
        }
        in_threads(4, lambda _: [read(store, record()) for _ in range(5)])
        for work in (read, locked_change, unlocked_change, touch):
            with watch.connect() as connection:
                for (pid,) in connection.exec_driver_sql(kill[watch.name]).all():
                    if watch.name == "mysql":
                        # One that was being closed may have gone since the list.
                        with suppress(sql.exc.OperationalError):
                            connection.exec_driver_sql(f"KILL {pid}")
            time.sleep(0.05)
            work(store, record())

    @pytest.mark.parametrize("ours", [True, False], ids=["our engine", "yours"])
    def test_a_connection_to_a_server_that_was_read_only(
        self, postgresql: Server, make: Make, connect: Callable[..., Any], ours: bool
    ) -> None:
        """As after a failover: connections from before stay read-only for ever."""
        url = postgresql.url
        store = make(url) if ours else make(engine=connect(url))
        given = record()
        store.save(given, expect=0)
        store.close()
        watch = connect(postgresql.url, isolation_level="AUTOCOMMIT")
        with watch.connect() as connection:
            connection.exec_driver_sql(
                "ALTER ROLE test SET default_transaction_read_only = on"
            )
            try:
                in_threads(3, lambda _: read(store, given))
                with pytest.raises(StoreError, match="ReadOnlySqlTransaction"):
                    store.save(newer(given), expect=given.version)
                assert store.load(key(given)) == stored(given)
            finally:
                connection.exec_driver_sql(
                    "ALTER ROLE test RESET default_transaction_read_only"
                )
        for work in (locked_change, unlocked_change, touch, locked_change):
            work(store, given)

    @pytest.mark.parametrize("code", [1290, 1836, 1047])
    def test_a_connection_to_a_node_that_was_demoted(
        self,
        mariadb: Server,
        on_either_engine: Make,
        demoted: Callable[[Exception], None],
        code: int,
    ) -> None:
        """MariaDB is read-only, or Galera's node is not ready; another one is."""
        import pymysql

        store = on_either_engine(mariadb.url)
        store.save(record(), expect=0)
        for work in (read, locked_change, unlocked_change, touch):
            demoted(pymysql.err.OperationalError(code, "not here"))
            work(store, record())

    @pytest.mark.parametrize("what", ["cached plan", "unknown", "duplicate"])
    def test_a_connection_with_prepared_statements(
        self, postgresql: Server, make: Make, connect: Callable[..., Any], what: str
    ) -> None:
        """An engine of the caller's, behind a pooler or beside a migration."""
        engine = connect(postgresql.url, connect_args={"prepare_threshold": 0})
        opened: list[Any] = []
        sql.event.listen(engine, "connect", lambda driver, _: opened.append(driver))
        store = make(engine=engine)
        store.save(record(), expect=0)
        taken = [f"PREPARE _pg3_{number} AS SELECT 1" for number in range(2, 12)]
        for size, work in enumerate((read, locked_change, unlocked_change, touch)):
            store.close()
            if what == "duplicate":
                store.delete(Key("0" * 32))  # prepared as _pg3_0 or _pg3_1
            else:
                work(store, record())
            meddle = {
                "cached plan": "ALTER TABLE wsgisession ALTER COLUMN proof "
                f"TYPE varchar({65 + size})",
                "unknown": "DEALLOCATE ALL",
                "duplicate": "; ".join(taken),
            }
            in_use = opened[-1]
            # Past psycopg, which would forget its own statements if it saw this.
            assert not in_use.pgconn.exec_(meddle[what].encode()).error_message
            work(store, record())
            assert in_use.closed

    def test_what_it_does_not_heal_is_tried_once(
        self, mariadb: Server, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that stays read-only is asked twice and no more."""
        import pymysql

        store = make(mariadb.url)
        store.save(record(), expect=0)
        asked: list[str] = []
        real = pymysql.Connection.query

        def query(self: Any, text: Any, *args: Any) -> Any:
            if "DELETE" in str(text):
                asked.append(text)
                raise pymysql.err.OperationalError(1290, "read-only")
            return real(self, text, *args)

        monkeypatch.setattr(pymysql.Connection, "query", query)
        with pytest.raises(StoreError, match=r"at .* failed: OperationalError"):
            store.delete(key(record()))
        assert len(asked) == 2


class TestOtherErrors:
    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("'cryptography' package is required"),
            ConnectionResetError("gone"),
            AttributeError("'NoneType' object has no attribute 'settimeout'"),
            TypeError("not all arguments converted"),
        ],
    )
    def test_drivers_raise_what_they_like(
        self,
        mariadb: Server,
        on_either_engine: Make,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
    ) -> None:
        """While asking or while connecting: it is a StoreError, and names the class."""
        import pymysql

        def fail(*args: Any, **options: Any) -> None:
            raise error

        store = on_either_engine(mariadb.url)
        store.save(record(), expect=0)
        for method in ("query", "connect"):
            with monkeypatch.context() as patch:
                patch.setattr(pymysql.Connection, method, fail)
                if method == "connect":
                    store.close()
                    store = SQLAlchemyStore(mariadb.url)
                with pytest.raises(StoreError, match=type(error).__name__):
                    store.load(key(record()))
            read(store, record())
        store.close()

    @pytest.mark.parametrize(
        ("code", "says"),
        [("XX000", "failed: ProgrammingError"), ("42P01", "is missing")],
    )
    def test_an_error_may_hold_a_dict(
        self,
        mariadb: Server,
        make: Make,
        connect: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
        code: str,
        says: str,
    ) -> None:
        """As those of pg8000 do, whose SQLSTATE is in there."""
        import pymysql

        store = make(engine=connect(mariadb.url, isolation_level="AUTOCOMMIT"))
        store.save(record(), expect=0)
        real = pymysql.Connection.query

        def fail(self: Any, text: Any, *args: Any) -> Any:
            if "wsgisession" in str(text):
                raise pymysql.err.ProgrammingError({"S": "ERROR", "C": code})
            return real(self, text, *args)

        with monkeypatch.context() as patch:
            patch.setattr(pymysql.Connection, "query", fail)
            with pytest.raises(StoreError, match=says):
                store.load(key(record()))
        read(store, record())

    @pytest.mark.parametrize("ours", [True, False], ids=["our engine", "yours"])
    def test_a_greenlet_killed_in_the_middle_leaves_no_answer_behind(
        self,
        mariadb: Server,
        make: Make,
        connect: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
        ours: bool,
    ) -> None:
        """What was asked before is not taken for the answer to the next question."""
        import pymysql

        class Killed(BaseException):
            pass

        # A pool that asks nothing when a connection comes back, so notices nothing.
        silent = {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None}
        url = mariadb.url
        store = make(url) if ours else make(engine=connect(url, **silent))
        one, two = record("one"), record("two")
        store.save(one, expect=0)
        store.save(two, expect=0)
        real = pymysql.Connection._read_query_result
        deaths: list[Killed] = []

        def die_once(self: Any, *args: Any, **options: Any) -> Any:
            if not deaths:
                deaths.append(Killed())
                raise deaths[0]
            return real(self, *args, **options)

        monkeypatch.setattr(pymysql.Connection, "_read_query_result", die_once)
        with pytest.raises(Killed):
            store.load(key(one))
        assert store.load(key(two)) == stored(two)


# -- lost answers ----------------------------------------------------------------------


@pytest.fixture
def proxy(server: Server) -> Iterator[sql_servers.Proxy]:
    proxy = sql_servers.Proxy(server.port)
    yield proxy
    proxy.close()


class TestLostAnswers:
    @pytest.fixture
    def direct(self, server: Server, make: Make) -> SQLAlchemyStore:
        return make(server.url)

    @pytest.fixture
    def store(
        self, server: Server, direct: SQLAlchemyStore, proxy: sql_servers.Proxy
    ) -> Iterator[SQLAlchemyStore]:
        store = SQLAlchemyStore(server.url_at(proxy.port))
        yield store
        store.close()

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
        other = record("other")
        store.save(other, expect=0)
        proxy.cut = how
        store.save(given, expect=0)
        assert direct.load(key(given)) == stored(given)
        changed = newer(given, data=b"y" * 300_000)
        proxy.cut = how
        store.save(changed, expect=given.version)
        assert direct.load(key(given)) == stored(changed)
        proxy.cut = how
        held = take(store, given)
        proxy.cut = how
        store.save(newer(held), expect=held.version)
        proxy.cut = how
        assert store.load(key(other)) == stored(other)
        proxy.cut = how
        assert store.touch(other)
        proxy.cut = how
        store.delete(key(given))
        assert direct.load(key(given)) is None
        assert proxy.cuts == 7

    def test_a_save_is_known_behind_the_next_locks_back(
        self, store: SQLAlchemyStore, direct: SQLAlchemyStore, proxy: sql_servers.Proxy
    ) -> None:
        """Also if another request took the lock before the answer was found lost."""
        given = record()
        store.save(given, expect=0)
        held = take(store, given)
        after = newer(held)
        proxy.cut = "reply"
        proxy.on_cut = lambda: direct.lock(
            key(given), wait=0, lease=30, waiters=WAITERS
        )
        store.save(after, expect=given.version)
        assert direct.load(key(given)) == stored(after)
        with pytest.raises(LockTimeout):
            direct.lock(key(given), wait=0, lease=30, waiters=WAITERS)

    @pytest.mark.parametrize("how", ["request", "reply"])
    @pytest.mark.parametrize("what", ["saved", "deleted"])
    def test_what_cannot_be_known_is_no_conflict(
        self,
        store: SQLAlchemyStore,
        direct: SQLAlchemyStore,
        proxy: sql_servers.Proxy,
        how: str,
        what: str,
    ) -> None:
        """Another request came before the second try: perhaps on top of ours."""
        given = record()
        store.save(given, expect=0)

        def interfere() -> None:
            current = direct.load(key(given))
            assert current is not None
            if what == "saved":
                direct.save(newer(current, data=b"theirs"), expect=current.version)
            else:
                direct.delete(key(given))

        proxy.cut, proxy.on_cut = how, interfere
        with pytest.raises(StoreError, match=r"while session .* was saved"):
            store.save(newer(given, data=b"ours"), expect=given.version)
        assert proxy.cuts == 1
        found = direct.load(key(given))
        assert (found.data if found else None) == (
            b"theirs" if what == "saved" else None
        )

    def test_what_was_certainly_not_saved_is_a_conflict(
        self, store: SQLAlchemyStore, direct: SQLAlchemyStore, proxy: sql_servers.Proxy
    ) -> None:
        """The expected version is there still, but another request has its lease."""
        given = record()
        store.save(given, expect=0)
        proxy.cut = "request"
        proxy.on_cut = lambda: direct.lock(
            key(given), wait=0, lease=30, waiters=WAITERS
        )
        conflict = refused(store, newer(given), expect=given.version)
        assert conflict.record == stored(given)
        assert proxy.cuts == 1

    @pytest.mark.parametrize("how", ["request", "reply"])
    def test_an_insert_is_simply_tried_again(
        self,
        store: SQLAlchemyStore,
        direct: SQLAlchemyStore,
        proxy: sql_servers.Proxy,
        how: str,
    ) -> None:
        """Also where it finds nothing: no client has its token yet."""
        given = record()
        assert store.load(key(given)) is None
        proxy.cut, proxy.on_cut = how, lambda: direct.delete(key(given))
        store.save(given, expect=0)
        assert proxy.cuts == 1
        assert direct.load(key(given)) == stored(given)

    def test_an_insert_over_a_stranger_cannot_be_known(
        self, store: SQLAlchemyStore, direct: SQLAlchemyStore, proxy: sql_servers.Proxy
    ) -> None:
        """A record under the same id that is not ours may stand on top of ours."""
        given, theirs = record(), record(data=b"theirs")
        assert store.load(key(given)) is None
        proxy.cut, proxy.on_cut = "request", lambda: direct.save(theirs, expect=0)
        with pytest.raises(StoreError, match=r"while session .* was saved"):
            store.save(given, expect=0)
        assert direct.load(key(given)) == stored(theirs)

    def test_a_server_that_is_gone_is_an_error(
        self, store: SQLAlchemyStore, direct: SQLAlchemyStore, proxy: sql_servers.Proxy
    ) -> None:
        """An outage is no empty session; the record stays as it was, its data unsaid."""
        given = record(data=b"1\nsecret-data")
        store.save(given, expect=0)
        proxy.cut, proxy.refusing = "request", True
        changed = newer(given, data=b"1\nother-secret-data")
        for call in (
            lambda: store.save(changed, expect=given.version),
            lambda: store.touch(given),
            lambda: store.delete(key(given)),
            lambda: store.load(key(given)),
            lambda: store.lock(key(given), wait=1, lease=30, waiters=WAITERS),
            lambda: list(store.records()),
        ):
            with pytest.raises(StoreError) as caught:
                call()
            error: BaseException | None = caught.value
            assert type(error.__cause__).__name__ in str(error)
            while error is not None:
                assert "secret-data" not in str(error)
                error = error.__cause__
        assert direct.load(key(given)) == stored(given)
        proxy.refusing = False
        store.save(changed, expect=given.version)
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
            tries = 0
            while not is_enough() and time.monotonic() < end:
                try:
                    loaded = store.load(key(record(f"r{number}")))
                except StoreError:
                    continue
                assert loaded is not None
                assert loaded.data.startswith(b"%d:" % number)
                tries += 1
                changed = newer(loaded, data=b"%d:%d" % (number, tries))
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


# -- others in the way -----------------------------------------------------------------


class TestOthersInTheWay:
    def test_a_busy_sqlite_is_waited_for(
        self, tmp_path: Path, make: Make, connect: Callable[..., Any]
    ) -> None:
        """A writer that takes longer than the busy timeout is no error either."""
        url = f"sqlite:///{tmp_path / 'sessions.db'}?timeout=0.05"
        store = make(url)
        given = record()
        store.save(given, expect=0)
        other = connect(url, isolation_level="AUTOCOMMIT")
        with other.connect() as connection, ThreadPoolExecutor(1) as pool:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            saved = pool.submit(store.save, newer(given), expect=given.version)
            read(store, given)
            time.sleep(0.1)
            assert not saved.done()
            connection.exec_driver_sql("COMMIT")
            saved.result()

    def test_a_lock_wait_of_mariadb_is_repeated(
        self, mariadb: Server, make: Make, connect: Callable[..., Any]
    ) -> None:
        """A row that another transaction holds beyond the lock wait is waited for."""
        store = make(mariadb.url)
        given = record()
        store.save(given, expect=0)
        with (
            connect(mariadb.url).connect() as connection,
            ThreadPoolExecutor(1) as pool,
        ):
            connection.execute(sql.select(store.table).with_for_update())
            saved = pool.submit(store.save, newer(given), expect=given.version)
            time.sleep(1.2)
            assert not saved.done()
            connection.rollback()
            saved.result()

    def test_serialization_failures_are_repeated(
        self, postgresql: Server, make: Make
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
            return sum(store.delete_expired(batch=10) for _ in range(30))

        assert sum(in_threads(8, work)) == 200
        assert [each.data for each in store.records()] == [b"20"] * 4

    def test_a_sweep_of_sqlite_leaves_its_log_to_nobody(
        self, make: Make, tmp_path: Path
    ) -> None:
        """What it took out is gone from the database itself: no save pays for that."""
        path = tmp_path / "sessions.db"
        store = make(f"sqlite:///{path}")
        for number in range(10):
            store.save(record(f"r{number}", expires=time.time() - 1), expect=0)
        assert store.delete_expired(batch=10) == 10
        without_log = tmp_path / "copy.db"
        shutil.copy(path, without_log)
        with closing(sqlite3.connect(without_log)) as copy:
            assert copy.execute("SELECT count(*) FROM wsgisession").fetchone() == (0,)


# -- several processes -----------------------------------------------------------------


def _worker(url: str, blind: bool, start: Any) -> None:
    """Four threads of one process, 25 increments each, half of them without a lock."""
    store = SQLAlchemyStore(url)
    start.wait(60)

    def work(number: int) -> None:
        if blind:
            for _ in range(25):
                _increment_unlocked(BlindStore(store))
        elif number % 2:
            _increments(store, "one", 25)
        else:
            for _ in range(25):
                _increment_unlocked(store)

    in_threads(4, work)
    store.close()


def _increment_unlocked(store: Any) -> None:
    while True:
        held = store.load(key(record()))
        assert held is not None
        try:
            store.save(
                newer(held, data=b"%d" % (int(held.data) + 1)), expect=held.version
            )
        except VersionConflict:
            time.sleep(random.uniform(0, 0.02))
        else:
            return


class TestSeveralProcesses:
    @staticmethod
    def increments(store: SQLAlchemyStore, url: str, *, blind: bool) -> int:
        """What 12 threads in 3 processes make of 300 increments of one session."""
        store.save(record(data=b"0"), expect=0)
        context = multiprocessing.get_context("spawn")
        start = context.Barrier(3)
        workers = [
            context.Process(target=_worker, args=(url, blind, start)) for _ in range(3)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
        (kept,) = store.records()
        return int(kept.data)

    def test_no_increment_is_lost(self, store: SQLAlchemyStore, url: str) -> None:
        """Locked and compared ones beside each other: 300."""
        assert self.increments(store, url, blind=False) == 300

    def test_a_blind_store_loses_them(self, make: Make, tmp_path: Path) -> None:
        """The positive control: without the comparison the same workers lose some."""
        url = f"sqlite:///{tmp_path / 'sessions.db'}"
        assert self.increments(make(url), url, blind=True) < 300
