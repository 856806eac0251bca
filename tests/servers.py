"""gunicorn around the counter application, and clients that press it."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

PROJECT = Path(__file__).parent.parent
CLIENTS = 16
TIMES = 50


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Client:
    """One browser with one cookie, on a connection of its own."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.cookie = cookie
        self.set_cookies = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def __call__(self, method: str, path: str, **query: object) -> str:
        url = f"{path}?{urlencode(query)}"
        headers = {"Cookie": self.cookie} if self.cookie else {}
        self._connection.request(method, url, headers=headers)
        answer = self._connection.getresponse()
        body = answer.read().decode()
        if (line := answer.getheader("Set-Cookie")) is not None:
            self.set_cookies += 1
            self.cookie = line.split(";")[0]
        if answer.status != 200:
            raise AssertionError(f"{method} {url}: {answer.status} {body}")
        return body


@contextmanager
def gunicorn(url: str, log: Path, **environment: str) -> Iterator[int]:
    """The counter application behind 2 workers with 4 threads each; gives the port."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "tests.counter_app:application"]
    command += ["--workers", "2", "--threads", "4", "--bind", f"127.0.0.1:{port}"]
    command += ["--graceful-timeout", "1", "--timeout", "120"]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=PROJECT,
            env={**os.environ, "SESSION_URL": url, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(port, server, log)
        yield port
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with Client(port) as client:
                client("GET", "/pid")
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"gunicorn did not come up: {log.read_text()}")


def press(port: int, method: str, key_of: Callable[[int], str]) -> str:
    """16 clients of one session, 50 increments each; gives the session's cookie."""
    with Client(port) as first:
        first("POST", "/increment", key="made")

    def one(number: int) -> None:
        with Client(port, first.cookie) as client:
            for _ in range(TIMES):
                client(method, "/increment", key=key_of(number))
            assert client.set_cookies == 0

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, range(CLIENTS)))
    return first.cookie


def count(port: int, cookie: str, key: str) -> int:
    """Where a counter of a session stands."""
    with Client(port, cookie) as client:
        return int(client("GET", "/read", key=key))
