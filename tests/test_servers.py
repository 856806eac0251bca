"""The promises under a real server: two processes with four threads each."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .servers import CLIENTS, TIMES, Client, count, gunicorn, press, said

pytest.importorskip("gunicorn")


@pytest.fixture(scope="module", params=["file"])
def url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Where the sessions of the server are kept."""
    return f"file://{tmp_path_factory.mktemp('served') / 'sessions'}"


@pytest.fixture(scope="module")
def port(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    log = tmp_path_factory.mktemp("log") / "gunicorn.log"
    with gunicorn(url, log) as port:
        yield port


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_increment_is_lost(port: int, method: str) -> None:
    """P1: 16 clients x 50 increments of one counter in one session: 800 of 800."""
    cookie = press(port, method, lambda number: "n")
    assert count(port, cookie, "n") == CLIENTS * TIMES


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_different_keys_do_not_disturb_each_other(port: int, method: str) -> None:
    """P1: 16 clients with a key each: all of them end at 50."""
    cookie = press(port, method, lambda number: f"k{number}")
    assert {count(port, cookie, f"k{number}") for number in range(CLIENTS)} == {TIMES}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_blind_store_is_found_out(url: str, tmp_path: Path, method: str) -> None:
    """The positive control: the same press, with a store that saves blindly, loses."""
    options = {"SESSION_BLIND": "1", "SESSION_THINK": "0.005"}
    with gunicorn(url, tmp_path / "log", **options) as port:
        cookie = press(port, method, lambda number: "n")
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
