"""``max_sessions_per_user``: a limit that holds, however many log in at once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wsgisession import (
    ConfigurationError,
    Options,
    SessionManager,
    TooManySessions,
    events,
)
from wsgisession._core import places
from wsgisession.testing import in_threads

from .conftest import Clock, Visitor, Watch

PROJECT = Path(__file__).parent.parent

HANDLERS: dict[str, Any] = {
    "/login": lambda s: s.login("ann"),
    "/bob": lambda s: s.login("bob"),
    "/user": lambda s: s.user,
    "/fill": lambda s: s.update(n=1),
    "/logout": lambda s: s.logout(),
}


def refusing(session: Any) -> str:
    try:
        session.login("ann")
    except TooManySessions as error:
        return f"{error.user} has {error.limit}"
    return "in"


HANDLERS["/try"] = refusing


def managed(store: Any, policy: str, limit: int = 5, **given: Any) -> SessionManager:
    clock = given.pop("clock", None)
    options = Options(
        max_sessions_per_user=limit,
        at_session_limit=policy,  # type: ignore[arg-type]
        lock_wait=30,
        **given,
    )
    return SessionManager(store, options, clock=clock)


def log_in(manager: SessionManager, page: str = "/login") -> Visitor:
    visitor = Visitor(manager, HANDLERS)
    visitor.post(page)
    return visitor


def count(manager: SessionManager, user: str = "ann") -> int:
    return len(list(manager.sessions_of(user)))


# -- one after another -------------------------------------------------------------------


def test_the_session_that_was_used_longest_ago_makes_room(
    store: Any, clock: Clock
) -> None:
    """Under "evict", the default; it is told of as an end."""
    watch = Watch(events.Ended)
    manager = managed(store, "evict", 2, clock=clock, on_event=watch)
    one = log_in(manager)
    clock.pass_by(100)
    two = log_in(manager)
    clock.pass_by(100)
    one.get("/user")  # touched: now the other one is older
    three = log_in(manager)
    assert [each.get("/user").text for each in (one, two, three)] == [
        "ann",
        "None",
        "ann",
    ]
    assert len(watch.seen) == 1


def test_a_login_too_many_is_refused(store: Any) -> None:
    """Under "refuse": the handler can say so, and the anonymous session goes on."""
    manager = managed(store, "refuse", 2)
    first = log_in(manager)
    log_in(manager)
    third = Visitor(manager, HANDLERS)
    third.post("/fill")
    assert third.post("/try").text == "ann has 2"
    assert third.get("/user").text == "None"
    assert count(manager) == 2
    log_in(manager, "/bob")  # the limit is each user's own
    first.post("/logout")
    assert third.post("/try").text == "in"
    assert count(manager) == 2


def test_who_logs_in_again_needs_no_second_place(store: Any) -> None:
    """In the same session, once more by a double click."""
    manager = managed(store, "refuse", 1)
    visitor = log_in(manager)
    for _ in range(3):
        assert visitor.post("/try").text == "in"
    tab = visitor.another()
    assert tab.post("/try").text == "in"
    assert count(manager) == 1


def test_a_second_login_in_one_request_waits_for_nobody(store: Any) -> None:
    """It holds the place already; that of another user is given back."""
    manager = managed(store, "refuse", 1)
    session = manager.create()
    session.login("ann")
    session.login("ann")
    session.login("bob")
    other = manager.create()
    other.login("ann")
    for each in (session, other):
        each.save()
    assert (count(manager, "ann"), count(manager, "bob")) == (1, 1)


def test_a_login_by_an_administrator_makes_room_too(store: Any) -> None:
    """In ``manager.edit()``."""
    manager = managed(store, "evict", 1)
    first = log_in(manager)
    second = log_in(manager, "/bob")
    (id,) = [session.id for session in manager.sessions_of("bob")]
    with manager.edit(id) as held:
        held.login("ann")
    assert first.get("/user").text == "None"
    assert count(manager) == 1
    assert second.get("/user").text == "None"  # its token is from before the login


def test_idle_sessions_take_no_place(store: Any, clock: Clock) -> None:
    """Five that went idle, then a sixth login."""
    manager = managed(store, "refuse", 5, clock=clock, idle_timeout=60)
    for _ in range(5):
        log_in(manager)
    assert Visitor(manager, HANDLERS).post("/try").text == "ann has 5"
    clock.pass_by(61)
    assert Visitor(manager, HANDLERS).post("/try").text == "in"
    assert count(manager) == 1


def test_a_refused_login_holds_nobody_up(store: Any) -> None:
    """Its lock is free at once, and so is that of a request that fails."""
    manager = managed(store, "refuse", 1, lock_lease=20)
    first = log_in(manager)
    for _ in range(3):
        assert Visitor(manager, HANDLERS).post("/try").text == "ann has 1"

    def fail(session: Any) -> None:
        session.login("ann")
        raise RuntimeError("no")

    failing = Visitor(manager, {"/fail": fail})
    first.post("/logout")
    with pytest.raises(RuntimeError):
        failing.post("/fail")
    assert count(manager) == 0
    assert Visitor(manager, HANDLERS).post("/try").text == "in"


def test_outside_of_a_request(store: Any) -> None:
    """The place is free for others as soon as the session is saved."""
    manager = managed(store, "refuse", 2)
    for _ in range(2):
        session = manager.create()
        session.login("ann")
        session.save()
    with pytest.raises(TooManySessions, match="has 2 sessions already"):
        manager.create().login("ann")


def test_the_limit_s_record_is_no_session(store: Any) -> None:
    """It is listed nowhere, and forgotten with the user."""
    manager = managed(store, "evict", 2)
    log_in(manager)
    assert len(list(manager.sessions())) == 1
    assert manager.forget_user("ann") == 1
    assert [record for record in store.records() if not record.proof] == []


def test_a_store_that_cannot_is_refused() -> None:
    """At construction, in a sentence."""
    secret = "u7Zk1vXq0bH3nW9sRfT5yLpC8dJ2gMaE6iOxQwKz4A"
    with pytest.raises(ConfigurationError, match="locks and lists; CookieStore cannot"):
        SessionManager.from_config(
            url="cookie:", secret=secret, max_sessions_per_user=5
        )


# -- at once -----------------------------------------------------------------------------


class Watcher:
    """Lists a user's sessions all the time, and remembers the most that lived at once.

    A list is read while sessions end and begin.  Those that are in two lists, one after
    the other, lived at the moment between.
    """

    def __init__(self, manager: SessionManager) -> None:
        self.most = 0
        self._manager = manager
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        before: set[str] = set()
        while not self._done.is_set():
            now = {session.id for session in self._manager.sessions_of("ann")}
            self.most = max(self.most, len(before & now))
            before = now

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(60)


def twenty(manager: SessionManager) -> list[str]:
    """Twenty browsers log in at once."""
    return in_threads(20, lambda _: Visitor(manager, HANDLERS).post("/try").text)


@pytest.mark.parametrize("policy", ["refuse", "evict"])
def test_twenty_logins_at_once(store: Any, policy: str) -> None:
    """Five live, fifteen were refused or evicted, and there were never more than five."""
    manager = managed(store, policy)
    with Watcher(manager) as watcher:
        said = twenty(manager)
    assert count(manager) == 5
    assert said.count("in") == (5 if policy == "refuse" else 20)
    assert watcher.most <= 5


def test_the_control(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the lock, all that count at one moment log in."""
    counting = places.Places._living

    def slow(self: Any) -> list[Any]:
        found = counting(self)
        time.sleep(0.2)
        return found

    monkeypatch.setattr(places, "made_and_locked", lambda *_: None)
    monkeypatch.setattr(places.Places, "_living", slow)
    manager = managed(store, "refuse")
    twenty(manager)
    assert count(manager) > 5


PROGRAM = """
import sys, threading
from tests.test_session_limit import managed, twenty
from wsgisession.stores import store_at
manager = managed(store_at(sys.argv[1], "cache"), sys.argv[2])
print(twenty(manager).count("in"))
"""


@pytest.fixture(params=["postgresql", "mariadb", "file", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/sessions"
    elif request.param == "redis":
        yield request.getfixturevalue("redis_url")
    else:
        from . import sql_servers

        with getattr(sql_servers, request.param)() as server:
            yield server.url


@pytest.mark.parametrize("policy", ["refuse", "evict"])
def test_from_two_processes(url: str, policy: str) -> None:
    """Twenty logins in each of two processes, with one store."""
    from wsgisession.stores import store_at

    store: Any = store_at(url, "cache")
    manager = managed(store, policy)
    manager.end_user("ann")
    command = [sys.executable, "-c", PROGRAM, url, policy]
    programs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT) for _ in range(2)
    ]
    with Watcher(manager) as watcher:
        said = [int(each.communicate(timeout=120)[0]) for each in programs]
    assert count(manager) == 5
    getattr(store, "close", lambda: None)()
    assert sum(said) == (5 if policy == "refuse" else 40)
    assert watcher.most <= 5
