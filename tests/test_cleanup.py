"""What has expired goes by itself: once in a while, in one process, after an answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from webtest import TestApp

from wsgisession import (
    Options,
    SessionManager,
    SessionMiddleware,
    StoreError,
    get_session,
)
from wsgisession._core import cleanup
from wsgisession.stores.memory import MemoryStore

from .conftest import CountingStore

HOUR = 3600


class Time:
    """The clock of this host, which a test moves: stores go by it when they sweep."""

    def __init__(self, traveller: Any) -> None:
        self._traveller = traveller

    def pass_by(self, seconds: float) -> None:
        """Let seconds pass."""
        self._traveller.shift(seconds)


@pytest.fixture
def clock() -> Iterator[Time]:
    with time_machine.travel(time.time()) as traveller:
        yield Time(traveller)


class Watched:
    """A store in front of another one, which says when it is swept."""

    def __init__(self, store: Any, said: list[str]) -> None:
        self.within = store
        self.said = said
        self.capabilities = store.capabilities
        for name in ("load", "save", "touch", "delete", "lock", "unlock", "records"):
            setattr(self, name, getattr(store, name))

    def delete_expired(self, *, batch: int) -> int:
        swept: int = self.within.delete_expired(batch=batch)
        self.said.append(f"swept {swept}")
        return swept


def site(store: Any, said: list[str] | None = None, **options: Any) -> Any:
    """An application that writes one value, and streams where it is asked to."""
    manager = SessionManager(store, Options(**options))
    said = [] if said is None else said

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/read":
            get_session(environ).get("n")
        else:
            get_session(environ)["n"] = 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        if environ["PATH_INFO"] != "/stream":
            return [b"one"]

        def body() -> Iterator[bytes]:
            said.append("first chunk")
            yield b"one"
            said.append("last chunk")
            yield b"two"

        return body()

    return SessionMiddleware(app, manager=manager)


def visit(app: Any, path: str = "/") -> None:
    """Of a browser that never comes back."""
    TestApp(app, lint=False).post(path)


@pytest.fixture
def said() -> list[str]:
    return []


def expired(store: Any, clock: Time, count: int, **options: Any) -> Any:
    """A site with sessions that are over, and whose clean-up is due."""
    options = {"idle_timeout": 600, **options}
    app = site(store, **options)
    clock.pass_by(HOUR)
    visit(app)  # from here on it is counted
    for _ in range(count - 1):
        visit(app)
    clock.pass_by(HOUR)
    return app


@pytest.mark.parametrize("path", ["/", "/stream"])
def test_it_is_done_once_an_hour(
    store: Any, clock: Time, said: list[str], path: str
) -> None:
    """On every store that does not forget by itself; Redis does."""
    watched = Watched(store, said)
    app = expired(watched, clock, 3)
    assert said == []
    visit(app, path)
    if store.capabilities.forgets:
        assert said == []
        return
    assert [each for each in said if each.startswith("swept")] == ["swept 3", "swept 0"]
    assert len(list(app.manager.sessions())) == 1
    said.clear()
    clock.pass_by(HOUR - 1)
    visit(app)
    assert said == []
    clock.pass_by(2)
    visit(app)
    assert said == ["swept 1", "swept 0"]  # the one of two seconds ago lives


def test_the_answer_has_left_by_then(clock: Time, said: list[str]) -> None:
    store = Watched(MemoryStore(), said)
    app = expired(store, clock, 1)
    environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "PATH_INFO": "/"}
    for path in ("/", "/stream"):
        body = app({**environ, "PATH_INFO": path}, lambda *_: said.append("headers"))
        for chunk in body:
            said.append(f"chunk {chunk.decode()}")
        assert not [each for each in said if "swept" in each]
        body.close()
        assert said[-2:] == ["swept 1", "swept 0"]
        said.clear()
        clock.pass_by(HOUR + 1)


def test_of_two_processes_one_does_it(store: Any, clock: Time, said: list[str]) -> None:
    """They share a store, and nothing else."""
    watched = Watched(store, said)
    one = expired(watched, clock, 3)
    two = site(watched, idle_timeout=600)
    two.manager.cleanup.at = time.time()
    visit(one)
    visit(two)
    assert said == ([] if store.capabilities.forgets else ["swept 3", "swept 0"])


def test_one_that_is_at_it_is_not_waited_for(clock: Time, said: list[str]) -> None:
    """Another process holds the lock: this one goes on without it."""
    store = Watched(MemoryStore(), said)
    app = expired(store, clock, 3)
    other = site(store, idle_timeout=600)
    other.manager.cleanup.at = time.time()

    def sweep(*, batch: int) -> int:
        if not said:
            said.append("at it")
            visit(other)
        return 0

    store.delete_expired = sweep  # type: ignore[method-assign]
    visit(app)
    assert said == ["at it"]


def test_it_does_not_hold_a_thread_for_long(
    clock: Time, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is for the next request, a minute later."""
    monkeypatch.setattr(cleanup, "LONGEST", 0.0)
    store = Watched(MemoryStore(), said)
    app = expired(store, clock, 3)
    visit(app)
    assert said == []
    monkeypatch.setattr(cleanup, "LONGEST", 1.0)
    visit(app)
    assert said == []
    clock.pass_by(cleanup.SOON)
    visit(app)
    assert said == ["swept 3", "swept 0"]


def test_it_can_be_switched_off(clock: Time, said: list[str]) -> None:
    app = expired(Watched(MemoryStore(), said), clock, 3, cleanup_every=False)
    visit(app)
    assert said == []


def test_a_store_that_fails_is_told_and_nobody_else(
    clock: Time, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer has left already."""
    store = Watched(MemoryStore(), [])
    app = expired(store, clock, 3)

    def fail(*, batch: int) -> int:
        raise StoreError("out of reach")

    store.delete_expired = fail  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        visit(app)
    assert "what has expired was not forgotten" in caplog.text
    visit(app)


def test_readers_have_nothing_to_do_with_it(clock: Time) -> None:
    """P4: a store grows by new sessions, and only they look whether it is due."""
    store = CountingStore(MemoryStore())
    app = site(store)
    browser = TestApp(app, lint=False)
    browser.post("/")
    clock.pass_by(2 * HOUR)
    browser.get("/read")
    store.calls.clear()
    browser.get("/read")
    assert store.calls == ["load"]


def test_no_list_shows_its_record(store: Any, clock: Time) -> None:
    app = expired(store, clock, 1)
    visit(app)
    assert all(session["n"] == 1 for session in app.manager.sessions())
