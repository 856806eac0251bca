"""What stores and servers of every kind are put through: they fill, close, move.

It knows no store; those who use it bring one, and the way to close it to writers.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wsgisession import Options, Record, Session, SessionManager

from ..conftest import Clock, Visitor

IS_LONG = os.environ.get("LONG_TESTS") == "1"
MINUTE = 61

CLOSED = 0.5
"""Seconds for which a server takes no writes before it is demoted: requests meet that."""

HANDLERS: dict[str, Callable[[Session], object]] = {
    "/read": lambda session: session.get("n"),
    "/write": lambda session: session.update(n=session.get("n", 0) + 1),
    "/rotate": lambda session: session.rotate(),
    "/logout": lambda session: session.logout(),
}


@contextmanager
def one_line_a_minute(place: str, minutes: int) -> Iterator[None]:
    """What is logged as an error is that, and names the place; one has a traceback."""
    said: list[logging.LogRecord] = []
    logger, handler = logging.getLogger("wsgisession"), logging.Handler(logging.ERROR)
    handler.emit = said.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert len(said) == minutes, [each.getMessage() for each in said]
    assert all(place in each.getMessage() for each in said)
    assert [each.exc_info is not None for each in said] == [True] + [False] * (
        minutes - 1
    )


def reads_and_does_not_write(
    store: Any, clock: Clock, close: Callable[[], object], *, place: str
) -> Visitor:
    """A visitor with a session; then the store is closed to writers, and all is tried.

    :param place: what the log has to name.
    """
    options = Options(rotate_every="1h")
    visitor = Visitor(SessionManager(store, options, clock=clock), HANDLERS)
    visitor.post("/write")
    clock.pass_by(4000)  # a rotation is due, and the idle clock is late
    close()
    with one_line_a_minute(place, 20):
        for _ in range(20):
            clock.pass_by(59)
            for answer in (visitor.get("/read"), visitor.post("/read")):
                assert (answer.status_int, answer.text) == (200, "1")
                assert "Set-Cookie" not in answer.headers
            clock.pass_by(1)
            for answer in (
                visitor.post("/write", status=503),
                visitor.get("/write", status=503),
                visitor.post("/rotate", status=503),
            ):
                is_refused(answer)
    return visitor


def is_refused(answer: Any) -> None:
    """The client is asked to come again, and keeps its cookie."""
    assert answer.status_int == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "Set-Cookie" not in answer.headers


def is_not_ended(visitor: Visitor) -> None:
    """Nothing can be deleted, and nobody is told that it was."""
    is_refused(visitor.post("/logout", status=503))
    assert visitor.get("/read").text == "1"


def writes_again(visitor: Visitor, store: Any, clock: Clock) -> None:
    """After room is made the idle clock moves, and everything works."""
    clock.pass_by(MINUTE)
    visitor.get("/read")
    (found,) = sessions_in(store)
    assert found.accessed == clock.now
    visitor.post("/write")
    assert visitor.get("/read").text == "2"
    visitor.post("/logout")
    assert sessions_in(store) == []


def sessions_in(store: Any) -> list[Record]:
    """What is stored, without the records of the library's own."""
    return [record for record in store.records() if record.proof]


def fill(disk: Path) -> None:
    """Write until there is no room."""
    with (
        (disk / "filling").open("wb", buffering=0) as file,
        suppress(OSError),
    ):
        while True:
            file.write(bytes(4096))


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def under_load(
    managers: Sequence[SessionManager], disturb: Callable[[], None]
) -> tuple[list[float], float]:
    """When requests were refused, and when ``disturb`` was done; each write counts.

    It begins when all have written once: what is to go wrong is not the first write.
    """
    done, all_at_work = threading.Event(), threading.Barrier(5)

    def work(number: int) -> list[float]:
        visitor = Visitor(managers[number % len(managers)], HANDLERS)
        visitor.post("/write", status=200)
        counted, refused = 1, []
        all_at_work.wait(60)
        while not done.is_set():
            method = visitor.post if counted % 2 else visitor.get
            began = time.monotonic()
            if method("/write", status="*").status_int == 200:
                counted += 1
            else:
                refused.append(began)
        assert visitor.get("/read").text == str(counted)
        return refused

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work, number) for number in range(4)]
        try:
            all_at_work.wait(60)
            disturb()
            disturbed = time.monotonic()
            time.sleep(20.0 if IS_LONG else 4.0)
        finally:
            done.set()
        return [each for worker in workers for each in worker.result()], disturbed
