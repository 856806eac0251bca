"""PgBouncer in transaction mode: a server's connection serves another client each time.

A name that one client has given to a prepared statement is there for all, so that a
reader's statement may turn out to be a DELETE of another client.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

sql = pytest.importorskip("sqlalchemy")

from wsgisession.errors import StoreError  # noqa: E402
from wsgisession.stores.sqlalchemy import SQLAlchemyStore  # noqa: E402
from wsgisession.testing import key, record, stored  # noqa: E402

from .. import sql_servers  # noqa: E402
from ..conftest import missing  # noqa: E402
from ..servers import Client, gunicorn  # noqa: E402

SETTINGS = """\
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {servers}
max_client_conn = 300
"""
SERVERS = 3
SECONDS = 30.0 if os.environ.get("LONG_TESTS") == "1" else 1.5


@pytest.fixture(scope="module")
def server() -> Iterator[sql_servers.Server]:
    with sql_servers.postgresql(["fsync=off"]) as server:
        yield server


@pytest.fixture(scope="module")
def pooler(server: sql_servers.Server) -> Iterator[str]:
    """The url of PgBouncer in front of it, with three connections to the server."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    program = shutil.which("pgbouncer", path=path)
    if program is None:
        missing("PgBouncer (Debian: pgbouncer)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer"))
    (folder / "users").write_text('"test" ""\n')
    settings = SETTINGS.format(
        server=server.port, port=port, folder=folder, servers=SERVERS
    )
    version = subprocess.run([program, "--version"], capture_output=True, text=True)
    if re.search(r"1\.([01]\d|20)\.", version.stdout) is None:
        settings += "max_prepared_statements = 0\n"  # as all before 1.21 are
    (folder / "settings").write_text(settings)
    user = None
    if os.geteuid() == 0:  # as root it does not run
        user = "nobody"
        for each in (folder, *folder.iterdir()):
            shutil.chown(each, user)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(folder / "settings")], user=user, stdout=log, stderr=log
        )
    try:
        url = server.url_at(port)
        engine = sql.create_engine(url, poolclass=sql.NullPool)
        deadline = time.monotonic() + 30
        while True:
            try:
                with engine.connect() as connection:
                    connection.exec_driver_sql("SELECT 1")
                break
            except sql.exc.OperationalError:
                if time.monotonic() > deadline:
                    pytest.fail((folder / "log").read_text())
                time.sleep(0.05)
        yield url
    finally:
        process.kill()  # newer ones wait for their clients when they are asked to end
        process.wait(30)
        shutil.rmtree(folder)


@pytest.fixture
def direct(server: sql_servers.Server) -> Iterator[SQLAlchemyStore]:
    """The same table without the pooler; dropped afterwards."""
    store = SQLAlchemyStore(server.url)
    store.create_table()
    yield store
    store.close()
    engine = sql.create_engine(server.url, poolclass=sql.NullPool)
    store.table.drop(engine)


# -- increments --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_800_of_800(
    pooler: str, direct: SQLAlchemyStore, tmp_path: Path, method: str
) -> None:
    """16 clients of one session behind gunicorn: each is counted, and nobody gets 503."""
    with gunicorn(pooler, tmp_path / "log") as port:
        with Client(port) as first:
            first(method, "/increment", key="made")

        def press(_: int) -> int:
            with Client(port, first.cookie) as client:
                for _ in range(50):
                    client(method, "/increment", key="n")
                return client.refused

        with ThreadPoolExecutor(16) as pool:
            refused = sum(pool.map(press, range(16)))
        with Client(port, first.cookie) as client:
            assert client("GET", "/read", key="n") == "800"
    assert refused == 0


# -- others' sessions --------------------------------------------------------------------


def _delete_own(url: str, done: Any) -> None:
    """A process that makes sessions and ends them, until it is told to stop."""
    store = SQLAlchemyStore(url)
    number = 0
    while not done.is_set():
        number += 1
        # The first statement that it gives a name is the DELETE.
        with suppress(StoreError):
            store.delete(key(record(f"own{number}")))
        with suppress(StoreError):
            store.save(record(f"own{number + 1}"), expect=0)
    store.close()


def read_beside_a_deleter(
    store: SQLAlchemyStore, url: str, direct: SQLAlchemyStore, seconds: float
) -> tuple[int, int, int]:
    """Read 100 sessions of others: how many are left, wrong answers, and errors."""
    given = [record(f"foreign{number}", data=b"%d" % number) for number in range(100)]
    for each in given:
        direct.save(each, expect=0)
    context = multiprocessing.get_context("spawn")
    done = context.Event()
    deleter = context.Process(target=_delete_own, args=(url, done))
    deleter.start()
    end = time.monotonic() + seconds

    def read(number: int) -> tuple[int, int]:
        wrong = errors = 0
        while time.monotonic() < end:
            for each in given[number::8]:
                try:
                    wrong += store.load(key(each)) != stored(each)
                except StoreError:
                    errors += 1
        return wrong, errors

    try:
        with ThreadPoolExecutor(8) as pool:
            counted = list(pool.map(read, range(8)))
    finally:
        done.set()
        deleter.join(30)
    assert deleter.exitcode == 0
    left = sum(direct.load(key(each)) == stored(each) for each in given)
    return left, sum(each for each, _ in counted), sum(each for _, each in counted)


@pytest.mark.parametrize("whose", ["ours", "yours"])
def test_nobody_elses_session_is_touched(
    pooler: str, direct: SQLAlchemyStore, whose: str
) -> None:
    """With an engine by url and with one of the caller's, without an option."""
    engine = sql.create_engine(pooler)
    if whose == "ours":
        store = SQLAlchemyStore(pooler)
    else:
        store = SQLAlchemyStore(engine=engine)
    assert read_beside_a_deleter(store, pooler, direct, SECONDS) == (100, 0, 0)
    store.close()
    engine.dispose()


@contextmanager
def servers_one_at_a_time(pooler: str) -> Iterator[Callable[[int], None]]:
    """Hold all connections of PgBouncer to the server, but for the one with a number."""
    engine = sql.create_engine(pooler, poolclass=sql.NullPool)
    held = [engine.connect() for _ in range(SERVERS)]
    for each in held:
        each.exec_driver_sql("SELECT 1")

    def free(number: int) -> None:
        for each in held:
            if not each.in_transaction():
                each.exec_driver_sql("SELECT 1")
        held[number].rollback()

    yield free
    for each in held:
        each.close()


@pytest.mark.parametrize(
    ("option", "is_left"), [("", True), ("?prepare_threshold=0", False)]
)
def test_a_read_is_nobody_elses_delete(
    pooler: str, direct: SQLAlchemyStore, option: str, is_left: bool
) -> None:
    """Where both are made to prepare statements, it is: the positive control."""
    own, foreign = record("own"), record("foreign")
    direct.save(own, expect=0)
    direct.save(foreign, expect=0)
    reader, deleter = SQLAlchemyStore(pooler + option), SQLAlchemyStore(pooler + option)
    with servers_one_at_a_time(pooler) as free:
        free(0)
        assert reader.load(key(own)) == stored(own)
        free(1)
        assert deleter.delete(key(own))
        with suppress(StoreError):
            assert reader.load(key(foreign)) == stored(foreign)
    assert (direct.load(key(foreign)) == stored(foreign)) is is_left
    reader.close()
    deleter.close()


# -- where they are quicker, they are used -----------------------------------------------


@pytest.mark.parametrize("whose", ["ours", "yours"])
@pytest.mark.parametrize(("through", "threshold"), [("server", 5), ("pooler", None)])
def test_without_a_pooler_statements_are_prepared(
    server: sql_servers.Server,
    pooler: str,
    direct: SQLAlchemyStore,
    monkeypatch: pytest.MonkeyPatch,
    whose: str,
    through: str,
    threshold: int | None,
) -> None:
    """Where the server is proven to be the same; the application's pool is let be."""
    psycopg = pytest.importorskip("psycopg")
    opened: list[Any] = []
    real = psycopg.connect

    def connect(*args: Any, **options: Any) -> Any:
        opened.append(real(*args, **options))
        return opened[-1]

    url = server.url if through == "server" else pooler
    engine = sql.create_engine(url)
    store = SQLAlchemyStore(url) if whose == "ours" else SQLAlchemyStore(engine=engine)
    monkeypatch.setattr(psycopg, "connect", connect)
    assert store.load(key(record())) is None
    with engine.connect():
        pass
    assert [each.prepare_threshold for each in opened] == [threshold, 5]
    store.close()
    engine.dispose()
