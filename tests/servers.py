"""gunicorn around the counter application, and clients that press it."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

PROJECT = Path(__file__).parent.parent
CLIENTS = 16
TIMES = 50


class Client:
    """One client with one cookie, on a connection of its own.

    Where it waited for the lock in vain it is ``refused``, and asks again as it is told.
    """

    def __init__(self, port: int, cookie: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.cookie = cookie
        self.refused = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def __call__(self, method: str, path: str, **query: object) -> str:
        url = f"{path}?{urlencode(query)}"
        while True:
            headers = {"Cookie": self.cookie} if self.cookie else {}
            self._connection.request(method, url, headers=headers)
            answer = self._connection.getresponse()
            body = answer.read().decode()
            if answer.status != 503:
                break
            self.refused += 1
            time.sleep(int(answer.headers["Retry-After"]))
        if (line := answer.getheader("Set-Cookie")) is not None:
            self.cookie = line.split(";")[0]
        if answer.status != 200:
            raise AssertionError(f"{method} {url}: {answer.status} {body}")
        return body


@contextmanager
def gunicorn(
    url: str, log: Path, app: str = "tests.counter_app:application", **environment: str
) -> Iterator[int]:
    """The counter application behind 4 workers with 4 threads each; gives the port."""
    command = [sys.executable, "-m", "gunicorn", app]
    command += ["--workers", "4", "--threads", "4", "--bind", "127.0.0.1:0"]
    command += ["--graceful-timeout", "1", "--timeout", "120", "--keep-alive", "120"]
    listening = r"Listening at: http://127\.0\.0\.1:(\d+)"
    with serving(command, listening, url, log, **environment) as port:
        yield port


@contextmanager
def uvicorn(url: str, log: Path, app: str, **environment: str) -> Iterator[int]:
    """An ASGI application behind 4 workers; gives the port."""
    command = [sys.executable, "-m", "uvicorn", app, "--workers", "4", "--port", "0"]
    listening = r"Uvicorn running on http://127\.0\.0\.1:(\d+)"
    with serving(command, listening, url, log, **environment) as port:
        yield port


@contextmanager
def serving(
    command: list[str], listening: str, url: str, log: Path, **environment: str
) -> Iterator[int]:
    """A server in a process of its own, which says in its log where it listens."""
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=PROJECT,
            env={**os.environ, "SESSION_URL": url, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        port = int(said(log, listening))
        answered(port, log)
        yield port
    finally:
        server.terminate()
        server.wait(60)


def answered(port: int, log: Path) -> None:
    """Ask until a worker answers: it listens before its workers are there."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with Client(port) as client:
                client("GET", "/pid")
                return
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise AssertionError(f"no worker answers: {log.read_text()}") from None
            time.sleep(0.1)


def said(log: Path, pattern: str) -> str:
    """What the server logs sooner or later: the group of a pattern."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := re.search(pattern, log.read_text()):
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"not a word of {pattern!r}: {log.read_text()}")


def press(
    port: int, method: str, path: str, query_of: Callable[[int, int], dict[str, str]]
) -> str:
    """16 clients of one session, 50 requests each; gives the session's cookie.

    ``query_of`` is given the number of the client and that of its request.
    """
    with Client(port) as first:
        first("POST", "/increment", key="made")
    press_by(port, [first.cookie] * CLIENTS, method, path, query_of)
    return first.cookie


def press_by(
    port: int,
    cookies: Sequence[str],
    method: str,
    path: str,
    query_of: Callable[[int, int], dict[str, str]],
) -> None:
    """The same by a client for each of the cookies."""

    def one(client_number: int) -> None:
        cookie = cookies[client_number]
        with Client(port, cookie) as client:
            for number in range(TIMES):
                client(method, path, **query_of(client_number, number))
            assert client.cookie == cookie

    with ThreadPoolExecutor(len(cookies)) as pool:
        list(pool.map(one, range(len(cookies))))


def count(port: int, cookie: str, key: str) -> int:
    """Where a counter of a session stands."""
    with Client(port, cookie) as client:
        return int(client("GET", "/read", key=key))
