"""The promises under a real server: four processes with four threads each."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .servers import CLIENTS, TIMES, Client, count, gunicorn, press, press_by, said

pytest.importorskip("gunicorn")

LOSS = "could be neither locked nor run again"
"""What is logged where an update was lost, or may have been."""

METHODS = pytest.mark.parametrize("method", ["GET", "POST"])


KINDS = pytest.mark.parametrize(
    "kind",
    ["file", "redis", "sqlite", "postgresql", "mariadb"],
    indirect=True,
    scope="session",
)
"""The kinds of stores that several processes share."""


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory, kind: str) -> Path:
    return tmp_path_factory.mktemp(kind) / "gunicorn.log"


@pytest.fixture(scope="session")
def port(url_of_kind: str, log: Path) -> Iterator[int]:
    """A server that keeps its sessions in a store of this kind."""
    with gunicorn(url_of_kind, log) as port:
        yield port


@KINDS
@METHODS
def test_no_increment_is_lost(port: int, log: Path, method: str) -> None:
    """P1: 16 clients x 50 increments of one counter in one session: 800 of 800."""
    cookie = press(port, method, "/increment", lambda *_: {"key": "n"})
    assert count(port, cookie, "n") == CLIENTS * TIMES
    assert LOSS not in log.read_text()


@KINDS
@METHODS
def test_different_keys_do_not_disturb_each_other(
    port: int, log: Path, method: str
) -> None:
    """P1: 16 clients with a key each: all of them end at 50."""
    cookie = press(port, method, "/increment", lambda one, _: {"key": f"k{one}"})
    assert {count(port, cookie, f"k{one}") for one in range(CLIENTS)} == {TIMES}
    assert LOSS not in log.read_text()


@KINDS
@METHODS
def test_a_change_inside_a_value_is_no_less(port: int, log: Path, method: str) -> None:
    """P1: 800 values put into one list in a dict are all there, each of them once."""
    cookie = press(
        port, method, "/append", lambda one, number: {"value": f"{one}.{number}"}
    )
    with Client(port, cookie) as client:
        values = client("GET", "/values").split()
    assert sorted(values) == sorted(
        f"{one}.{number}" for one in range(CLIENTS) for number in range(TIMES)
    )
    assert LOSS not in log.read_text()


@KINDS
@METHODS
def test_sessions_of_one_user_lose_nothing_that_they_share(
    port: int, log: Path, method: str
) -> None:
    """P1: 16 sessions of a user x 50 increments and appends to ``user_data``."""
    cookies = []
    for _ in range(CLIENTS):
        with Client(port) as client:
            client("POST", "/login", user=f"ann by {method}")
            cookies.append(client.cookie)
    press_by(port, cookies, method, "/share", lambda one, n: {"value": f"{one}.{n}"})
    with Client(port, cookies[0]) as client:
        count, *values = client("GET", "/shared").split()
    assert int(count) == CLIENTS * TIMES
    assert sorted(values) == sorted(
        f"{one}.{number}" for one in range(CLIENTS) for number in range(TIMES)
    )
    assert LOSS not in log.read_text()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """For what does not depend on the kind of the store."""
    return (tmp_path / "sessions").as_uri()


@METHODS
def test_a_blind_store_is_found_out(url: str, tmp_path: Path, method: str) -> None:
    """The positive control: the same press, with a store that saves blindly, loses."""
    options = {"SESSION_BLIND": "1", "SESSION_THINK": "0.005"}
    with gunicorn(url, tmp_path / "log", **options) as port:
        cookie = press(port, method, "/increment", lambda *_: {"key": "n"})
        assert count(port, cookie, "n") < CLIENTS * TIMES


def test_a_reader_does_not_wait_beside_a_slow_post(url: str, tmp_path: Path) -> None:
    """P4: readers pass while a POST holds the session, for as long as it likes."""
    log, enough = tmp_path / "log", tmp_path / "enough"
    with (
        gunicorn(url, log) as port,
        Client(port) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        client("POST", "/increment", key="n")
        with Client(port, client.cookie) as poster:
            slow = pool.submit(poster, "POST", "/slow", until=enough)
            said(log, r"inside (\d+)")
            for _ in range(5):
                assert client("GET", "/read", key="n") == "1"
            assert client.refused == 0
            assert not slow.done()
            enough.touch()
            assert slow.result() == "stayed"


def test_a_killed_worker_holds_nobody_up(url: str, tmp_path: Path) -> None:
    """P11: after kill -9 of the lock's holder the session is free within a second."""
    took = [time_after_a_kill(url, tmp_path / "log")]
    while took[-1] > 1 and len(took) < 4:  # a machine may stand still once
        took.append(time_after_a_kill(url, tmp_path / "log"))
    assert min(took) < 1


def time_after_a_kill(url: str, log: Path) -> float:
    """Seconds until a session can be changed whose lock a killed worker had."""
    with gunicorn(url, log) as port:
        with Client(port) as client:
            client("POST", "/increment", key="n")
        with ThreadPoolExecutor(1) as pool, Client(port, client.cookie) as holding:
            held = pool.submit(holding, "GET", "/hold", until=log.parent / "never")
            os.kill(int(said(log, r"inside (\d+)")), signal.SIGKILL)
            assert held.exception(timeout=60) is not None
        began = time.monotonic()
        with Client(port, client.cookie) as next_one:
            assert next_one("POST", "/increment", key="n") == "2"
        return time.monotonic() - began
