"""PostgreSQL and MariaDB for tests, each a real server in a temporary folder.

Nobody connects over a network: PostgreSQL listens on a port of its own on the loopback,
MariaDB on a socket.  Both refuse to run as root; then they run as a user without rights.
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
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .conftest import missing

SECONDS_TO_START = 180.0


@contextmanager
def postgresql(settings: Sequence[str] = ()) -> Iterator[PostgreSQL]:
    """A PostgreSQL of our own, with ``settings`` as in ``log_statement=all``."""
    binaries = _postgresql_binaries()
    if binaries is None:
        missing("PostgreSQL (Debian: postgresql, or pip: pgserver)")
    with _folder("postgres") as (folder, user):
        data = folder / "data"
        _run_as(
            user,
            [
                binaries / "initdb",
                "--no-sync",
                "--auth=trust",
                "--username=test",
                "--encoding=UTF8",
                "--locale=C",
                f"--pgdata={data}",
            ],
        )
        port = _free_port()
        server = PostgreSQL(port, folder / "log")
        options = [
            "listen_addresses=127.0.0.1",
            f"port={port}",
            f"unix_socket_directories={folder}",
        ]
        command = [str(binaries / "postgres"), "-D", str(data)]
        for option in (*options, *settings):
            command += ["-c", option]
        with _running(user, command, server.log):
            _until(server.answers, server.log)
            yield server


class PostgreSQL:
    """A server that runs, and what it logs."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        return f"postgresql+psycopg://test@127.0.0.1:{port}/postgres"

    def answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(
                host="127.0.0.1", port=self.port, user="test", dbname="postgres"
            ).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def mariadb(settings: Sequence[str] = ()) -> Iterator[MariaDB]:
    """A MariaDB of our own, with ``settings`` as in ``--general-log=1``."""
    binary = _find("mariadbd", "mysqld")
    install = _find("mariadb-install-db", "mysql_install_db")
    if binary is None or install is None:
        missing("MariaDB (Debian: mariadb-server)")
    with _folder("mysql") as (folder, user):
        data = folder / "data"
        _run_as(
            user,
            [
                install,
                "--no-defaults",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
        )
        port = _free_port()
        server = MariaDB(port, folder / "log")
        command = [
            binary,
            "--no-defaults",
            f"--datadir={data}",
            "--bind-address=127.0.0.1",
            f"--port={port}",
            f"--socket={folder / 'socket'}",
            f"--pid-file={folder / 'pid'}",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=32M",
            *settings,
        ]
        with _running(user, command, server.log):
            _until(server.answers, server.log)
            server.create_database()
            yield server


class MariaDB:
    """A server that runs, and what it logs."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{port}/test?ssl_disabled=1"

    def answers(self) -> bool:
        import pymysql

        try:
            pymysql.connect(host="127.0.0.1", port=self.port, user="root").close()
        except pymysql.err.OperationalError:
            return False
        return True

    def create_database(self) -> None:
        import pymysql

        with pymysql.connect(host="127.0.0.1", port=self.port, user="root") as client:
            # The least suitable collation: it tells neither case nor accents.
            client.cursor().execute(
                "CREATE DATABASE test CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
            )


class Proxy:
    """Stands before a server, and cuts a connection where it is told to.

    ``cut`` says when, once: ``"request"``: instead of passing on what the client says
    next; ``"half"``: in the middle of it; ``"reply"``: instead of passing on what the
    server answers next, so that it has done what nobody hears of.  While ``refusing``,
    it takes no new connection either.
    """

    def __init__(self, port: int) -> None:
        self.cut: str | None = None
        self.cuts = 0
        self.refusing = False
        self._to = port
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
            server = socket.create_connection(("127.0.0.1", self._to))
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
                    break
                target.sendall(data)
        _shut(source)
        _shut(target)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


# -- finding and running ---------------------------------------------------------------


def _postgresql_binaries() -> Path | None:
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


def _find(*names: str) -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = (shutil.which(name, path=path) for name in names)
    return next((each for each in found if each is not None), None)


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


def _run_as(user: str, command: Sequence[str | Path]) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        user=user if os.geteuid() == 0 else None,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{command[0]} failed:\n{done.stdout}")


@contextmanager
def _running(user: str, command: Sequence[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            user=user if os.geteuid() == 0 else None,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        # At once: the data goes anyway.  PostgreSQL calls this an immediate shutdown.
        process.send_signal(
            signal.SIGQUIT if "postgres" in command[0] else signal.SIGKILL
        )
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
