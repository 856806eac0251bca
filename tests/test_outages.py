"""What the log says of a store that fails: a line a minute, with place and cause."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import pytest

from wsgisession import Options, SessionManager, StoreError
from wsgisession.record import Key, Record
from wsgisession.stores.memory import MemoryStore

from .conftest import Clock
from .tabs import Site

CAUSE = "Redis at db.example:6379 failed: READONLY"


class Failing(MemoryStore):
    """A store of which some methods fail, as long as they are named in ``away``."""

    def __init__(self, away: Iterable[str] = ()) -> None:
        super().__init__()
        self.away = set(away)

    def load(self, key: Key) -> Record | None:
        self._fail("load")
        return super().load(key)

    def lock(self, key: Key, **limits: Any) -> Record | None:
        self._fail("lock")
        return super().lock(key, **limits)

    def save(self, record: Record, *, expect: int) -> None:
        self._fail("save")
        super().save(record, expect=expect)

    def touch(self, record: Record) -> bool:
        self._fail("touch")
        return super().touch(record)

    def _fail(self, method: str) -> None:
        if method in self.away:
            raise StoreError(CAUSE)


@pytest.fixture
def store() -> Failing:
    return Failing()


def site_of(store: Failing, clock: Clock, **options: Any) -> tuple[Site, str]:
    """A site with a session that begins while its store is well."""
    manager = SessionManager(store, Options(**options), clock=clock)
    site = Site(
        manager,
        begin=lambda s: s.update(n=1),
        read=lambda s: s.get("n"),
        write=lambda s: s.update(n=2),
    )
    return site, site.begun("begin")


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("away", "method", "use", "status", "consequence"),
    [
        (["load"], "GET", "read", "503", "answering 503"),
        (["lock", "load"], "POST", "read", "503", "answering 503"),
        (["save"], "POST", "write", "503", "answering 503"),
        (["lock"], "POST", "read", "200", "a session was read without its lock"),
        (["touch"], "GET", "read", "200", "a session was read, not touched"),
    ],
)
def test_an_outage_is_one_line_a_minute(
    store: Failing,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    away: list[str],
    method: str,
    use: str,
    status: str,
    consequence: str,
) -> None:
    """Ten minutes with a request every five seconds: ten lines, one traceback."""
    site, cookie = site_of(store, clock, touch_interval=1)
    store.away |= set(away)
    caplog.set_level(logging.INFO, "wsgisession")
    for _ in range(120):
        clock.now += 5
        answer = site.ask(method, use, cookie)
        assert answer.status.startswith(status)
    said = lines(caplog)
    assert len(said) == 10
    for each in said:
        assert CAUSE in each.message
        assert consequence in each.message
    assert [each.exc_info is not None for each in said] == [True] + [False] * 9
    assert [("(11 more since" in each.message) for each in said] == [False] + [True] * 9


def test_nothing_is_said_of_a_store_that_is_well(
    store: Failing, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The control: the line comes from the failure."""
    site, cookie = site_of(store, clock)
    for _ in range(10):
        clock.now += 5
        assert site.ask("GET", "read", cookie).status.startswith("200")
    assert lines(caplog) == []


def test_the_next_outage_has_its_traceback(
    store: Failing, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A minute without a failure, and the next one is told like the first."""
    site, cookie = site_of(store, clock)
    for _ in range(2):
        store.away = {"load"}
        site.ask("GET", "read", cookie)
        store.away = set()
        clock.now += 61
        assert site.ask("GET", "read", cookie).status.startswith("200")
    assert [each.exc_info is not None for each in lines(caplog)] == [True, True]


def test_what_is_not_said_is_there_for_who_looks_closely(
    store: Failing, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG there is a line for every failure."""
    site, cookie = site_of(store, clock)
    store.away = {"load"}
    caplog.set_level(logging.DEBUG, "wsgisession")
    for _ in range(3):
        site.ask("GET", "read", cookie)
    told = [each.levelname for each in caplog.records if CAUSE in each.message]
    assert told == ["ERROR", "DEBUG", "DEBUG"]


def test_a_lock_that_cannot_be_had_is_no_outage(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is a warning of its own, without a traceback: it is one session's matter."""
    site, cookie = site_of(Failing(), clock, lock_wait=0)
    held = site.manager.open(cookie, locking=True)
    assert held["n"] == 1
    for _ in range(2):
        assert site.ask("POST", "read", cookie).status.startswith("503")
    said = lines(caplog)
    assert [each.levelname for each in said] == ["WARNING", "WARNING"]
    assert not any(each.exc_info for each in said)
