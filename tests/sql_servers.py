"""PostgreSQL and MariaDB for tests, each a real server in a temporary folder.

Nobody connects over a network: both listen on a port of their own on the loopback.  Both
refuse to run as root; then they run as a user without rights.
"""

from __future__ import annotations

import getpass
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from .conftest import missing

SECONDS_TO_START = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How servers of one kind are made; words in braces are filled in."""

    packages: str
    """What to install where it is missing."""
    user: str
    """Whom it runs as where we are root, if there is such a user."""
    programs: Callable[[], tuple[str, str] | None]
    """The programs that make a data folder and that serve it, if they are there."""
    install: tuple[str, ...]
    """The arguments of the first: ``{data}``."""
    serve: tuple[str, ...]
    """The arguments of the second: ``{data}``, ``{folder}`` and ``{port}``."""
    end: signal.Signals
    """What ends it at once, for the data goes anyway."""
    url: str
    """Of a database in it: ``{port}``."""
    first: tuple[str, str]
    """A url that is there from the start, and what makes the other one there."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs, and what it logs."""

    kind: Kind
    port: int
    log: Path

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        return self.kind.url.format(port=port)

    def answers(self) -> bool:
        """Whether it has its database, which is made where it is missing."""
        import sqlalchemy

        url, statement = self.kind.first
        engine = sqlalchemy.create_engine(
            url.format(port=self.port), poolclass=sqlalchemy.NullPool
        )
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(statement)
        except sqlalchemy.exc.OperationalError:
            return False
        return True


def postgresql(settings: Sequence[str] = ()) -> AbstractContextManager[Server]:
    """A PostgreSQL, with ``settings`` as in ``log_statement=all``."""
    return _serving(POSTGRESQL, settings)


def standby(
    primary: Server, settings: Sequence[str] = ()
) -> AbstractContextManager[Server]:
    """A PostgreSQL that follows another one, and can be read."""
    folder = _folder_of_postgresql()
    copy = None if folder is None else folder / "pg_basebackup"
    if copy is None or not copy.exists():
        missing("pg_basebackup (Debian: postgresql)")
    kind = replace(
        POSTGRESQL,
        programs=lambda: (str(copy), str(copy.parent / "postgres")),
        install=(
            "--pgdata={data}",
            "--host=127.0.0.1",
            f"--port={primary.port}",
            "--username=test",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
        ),
    )
    return _serving(kind, settings)


def mariadb(settings: Sequence[str] = ()) -> AbstractContextManager[Server]:
    """A MariaDB, with ``settings`` as in ``general-log=1``."""
    return _serving(MARIADB, settings)


@contextmanager
def _serving(kind: Kind, settings: Sequence[str]) -> Iterator[Server]:
    programs = kind.programs()
    if programs is None:
        missing(kind.packages)
    install, serve = programs
    with _folder(kind.user) as (folder, user):
        words = {"data": folder / "data", "folder": folder, "port": _free_port()}
        setup = [install, *(word.format(**words) for word in kind.install)]
        _run_as(user, setup, folder)
        server = Server(kind, words["port"], folder / "log")
        command = [serve, *(word.format(**words) for word in kind.serve)]
        command += [f"--{setting}" for setting in settings]
        with _running(user, command, server):
            _until(server.answers, server.log)
            yield server


@contextmanager
def asking(server: Server) -> Iterator[Callable[[str], list[Any]]]:
    """The administrator's way to a server."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        server.url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    )

    def ask(statement: str) -> list[Any]:
        with engine.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return list(result.all()) if result.returns_rows else []

    yield ask


def add_application(server: Server) -> None:
    """Make the user ``app`` of MariaDB, who has no rights of an administrator."""
    with asking(server) as ask:
        ask("CREATE USER app@'127.0.0.1'")
        ask("GRANT ALL ON test.* TO app@'127.0.0.1'")


@contextmanager
def followed(kind: str) -> Iterator[tuple[Server, Server]]:
    """A primary and a server that follows it."""
    if kind == "postgresql":
        with (
            postgresql(["fsync=off"]) as primary,
            standby(primary, ["fsync=off"]) as follower,
        ):
            yield primary, follower
        return
    settings = ["log-bin=log", "innodb-flush-log-at-trx-commit=0", "server-id={}"]
    with (
        mariadb([each.format(1) for each in settings]) as primary,
        mariadb([each.format(2) for each in settings]) as follower,
    ):
        add_application(primary)
        with asking(follower) as ask:
            ask(
                "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_USER='root', "
                f"MASTER_PORT={primary.port}, MASTER_USE_GTID=slave_pos"
            )
            ask("START SLAVE")
        yield primary, follower


# -- the two kinds ---------------------------------------------------------------------


def _programs_of_postgresql() -> tuple[str, str] | None:
    folder = _folder_of_postgresql()
    return (
        None if folder is None else (str(folder / "initdb"), str(folder / "postgres"))
    )


def _folder_of_postgresql() -> Path | None:
    # Found, not imported: importing it looks for folders that need not be there.
    wheel = importlib.util.find_spec("pgserver")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parts[-3]),
    )
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).resolve().parent


def _programs_of_mariadb() -> tuple[str, str] | None:
    install = _find("mariadb-install-db", "mysql_install_db")
    serve = _find("mariadbd", "mysqld")
    return None if install is None or serve is None else (install, serve)


def _find(*names: str) -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = (shutil.which(name, path=path) for name in names)
    return next((each for each in found if each is not None), None)


POSTGRESQL = Kind(
    packages="PostgreSQL (Debian: postgresql, or pip: pgserver)",
    user="postgres",
    programs=_programs_of_postgresql,
    install=(
        "--no-sync",
        "--auth=trust",
        "--username=test",
        "--encoding=UTF8",
        "--locale=C",
        "--pgdata={data}",
    ),
    serve=(
        "-D{data}",
        "--listen_addresses=127.0.0.1",
        "--port={port}",
        "--unix_socket_directories={folder}",
    ),
    end=signal.SIGQUIT,
    url="postgresql+psycopg://test@127.0.0.1:{port}/postgres",
    first=("postgresql+psycopg://test@127.0.0.1:{port}/postgres", "SELECT 1"),
)
MARIADB = Kind(
    packages="MariaDB (Debian: mariadb-server)",
    user="mysql",
    programs=_programs_of_mariadb,
    install=(
        "--no-defaults",
        "--datadir={data}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    ),
    serve=(
        "--no-defaults",
        "--datadir={data}",
        "--bind-address=127.0.0.1",
        "--port={port}",
        "--socket={folder}/socket",
        "--pid-file={folder}/pid",
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=32M",
    ),
    end=signal.SIGKILL,
    url="mysql+pymysql://root@127.0.0.1:{port}/test?ssl_disabled=1",
    first=(
        "mysql+pymysql://root@127.0.0.1:{port}/?ssl_disabled=1",
        # The least suitable collation: it tells neither case nor accents.
        "CREATE DATABASE IF NOT EXISTS test "
        "CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
    ),
)


# -- between a store and its server ----------------------------------------------------


class Proxy:
    """Stands before a server, and cuts a connection where it is told to.

    ``cut`` says when, once: ``"request"``: instead of passing on what the client says
    next; ``"half"``: in the middle of it; ``"reply"``: instead of passing on what the
    server answers next, so that it has done what nobody hears of.  ``on_cut`` runs
    before the client can notice.  While ``refusing``, it takes no new connection either.
    New connections go to the port ``to``.
    """

    def __init__(self, port: int) -> None:
        self.cut: str | None = None
        self.cuts = 0
        self.on_cut: Callable[[], object] | None = None
        self.refusing = False
        self.to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._begin(self._accept)

    def close(self) -> None:
        for each in (self._listener, *self._open):
            _shut(each)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._open):
            each.close()

    def _begin(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            if self.refusing:
                _shut(client)
                continue
            server = socket.create_connection(("127.0.0.1", self.to))
            self._open.append(server)
            self._begin(self._pass, client, server, ("request", "half"))
            self._begin(self._pass, server, client, ("reply",))

    def _pass(
        self, source: socket.socket, target: socket.socket, ways: Sequence[str]
    ) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if self.cut in ways:
                    how, self.cut = self.cut, None
                    self.cuts += 1
                    if how == "half":
                        target.sendall(data[: len(data) // 2])
                    if self.on_cut is not None:
                        self.on_cut()
                    break
                target.sendall(data)
        _shut(source)
        _shut(target)


class Splitter:
    """A proxy before MariaDB that sends what only reads to a replica that lags behind.

    A locking read goes to the primary, as with MaxScale and ProxySQL.  The replica is
    another database of the same server, which follows when it is told to.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.reads = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[Any] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def follow(self) -> None:
        with asking(self._server) as ask:
            ask("CREATE DATABASE IF NOT EXISTS replica")
            ask("DROP TABLE IF EXISTS replica.wsgisession")
            ask("CREATE TABLE replica.wsgisession LIKE test.wsgisession")
            ask("INSERT INTO replica.wsgisession SELECT * FROM test.wsgisession")

    def close(self) -> None:
        for each in self._open:
            _shut(each)
            each.close()
        with asking(self._server) as ask:
            ask("DROP DATABASE IF EXISTS replica")

    def _accept(self) -> None:
        pymysql = pytest.importorskip("pymysql")
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                primary = socket.create_connection(("127.0.0.1", self._server.port))
                connection = pymysql.connect(
                    host="127.0.0.1",
                    port=self._server.port,
                    user="root",
                    database="replica",
                    autocommit=True,
                    ssl_disabled=True,
                )
                replica = connection._sock.dup()  # that one goes with the connection
                self._open += [client, primary, replica]
                for target, given in (
                    (self._ask, (client, primary, replica)),
                    (self._answer, (primary, client)),
                    (self._answer, (replica, client)),
                ):
                    threading.Thread(target=target, args=given, daemon=True).start()

    def _ask(self, client: Any, primary: Any, replica: Any) -> None:
        with suppress(OSError), client.makefile("rb") as packets:
            while head := packets.read(4):
                body = packets.read(int.from_bytes(head[:3], "little"))
                reads = head[3] == 0 and body[1:].startswith(b"SELECT")
                to_replica = reads and b"FOR UPDATE" not in body
                self.reads += to_replica
                (replica if to_replica else primary).sendall(head + body)
        for each in (primary, replica):
            _shut(each)

    def _answer(self, server: Any, client: Any) -> None:
        with suppress(OSError):
            while said := server.recv(1 << 16):
                client.sendall(said)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


# -- running ---------------------------------------------------------------------------


@contextmanager
def _folder(preferred: str) -> Iterator[tuple[Path, str]]:
    """A temporary folder with a short name, and the user that the server runs as."""
    user = getpass.getuser()
    # Sockets have room for about a hundred letters, so not below pytest's own folder.
    folder = Path(tempfile.mkdtemp(prefix="sql"))
    try:
        if os.geteuid() == 0:
            user = preferred if _exists(preferred) else "nobody"
            shutil.chown(folder, user)
        yield folder, user
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _environment(folder: Path) -> dict[str, str]:
    """With a folder for temporary files of its own: a MariaDB that starts removes those
    of others that it finds.
    """
    return {**os.environ, "TMPDIR": str(folder)}


def _run_as(user: str, command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(
        command,
        user=user if os.geteuid() == 0 else None,
        env=_environment(folder),
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{command[0]} failed:\n{done.stdout}")


@contextmanager
def _running(user: str, command: Sequence[str], server: Server) -> Iterator[None]:
    with server.log.open("wb") as output:
        process = subprocess.Popen(
            command,
            user=user if os.geteuid() == 0 else None,
            env=_environment(server.log.parent),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        process.send_signal(server.kind.end)
        process.wait(60)


def _until(answers: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while not answers():
        if time.monotonic() > deadline:
            pytest.fail(
                f"the server does not answer:\n{log.read_text(errors='replace')}"
            )
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
