"""What a view says of itself: that it only reads, or that it acts outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import pytest

from wsgisession import (
    Options,
    Session,
    SessionManager,
    SessionReadOnly,
    external,
    read_only,
)
from wsgisession.views import EXTERNAL_KEY, READ_ONLY_KEY, tell

from .between import Between, read, values, visitor
from .conftest import CountingStore, Visitor
from .pages import increment

READS = {READ_ONLY_KEY: True}
ACTS = {EXTERNAL_KEY: True}

CHANGES: dict[str, Callable[[Session], object]] = {
    "setting a key": lambda s: s.update(n=5),
    "deleting a key": lambda s: s.pop("n"),
    "a value inside": lambda s: s["cart"].append("x"),
    "clear": lambda s: s.clear(),
    "flush": lambda s: s.flush(),
    "logout": lambda s: s.logout(),
    "login": lambda s: s.login("ann"),
    "rotate": lambda s: s.rotate(),
    "regenerate": lambda s: s.regenerate(),
    "save": lambda s: s.save(),
    "lock": lambda s: s.lock(),
    "lock after a look": lambda s: [read(s), s.lock()],
    "modified": lambda s: setattr(s, "modified", True),
    "set_expiry": lambda s: s.set_expiry(60),
    "set_test_cookie": lambda s: s.set_test_cookie(),
    "user_data": lambda s: s.user_data.update(n=1),
    "inside user_data": lambda s: s.user_data["list"].append(1),
}
"""Every verb that writes."""


@pytest.fixture
def counted(store: Any) -> CountingStore:
    return CountingStore(store)


def shop(store: Any, step: Callable[[Session], object]) -> Visitor:
    """A visitor with a session of a user, and a page that takes one step."""
    browser = visitor(SessionManager(store), step=step)
    browser.get("/login")
    browser.get("/n")  # the new token is seen
    manager = browser.middleware.manager
    with manager.edit_user_data("ann") as data:
        data["list"] = []
    return browser


def test_a_post_that_only_reads_takes_no_lock(counted: CountingStore) -> None:
    """P4: one call of the store, as in a GET; a POST that says nothing locks."""
    browser = shop(counted, lambda s: [s["n"], s.locked, s.get("cart")])
    counted.calls.clear()
    assert browser.post("/step", extra_environ=READS).text == "[1, False, []]"
    assert counted.calls == ["load"]
    counted.calls.clear()
    browser.post("/step")
    assert counted.calls == ["lock", "unlock"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("method", ["get", "post"])
def test_what_it_writes_is_refused(store: Any, change: str, method: str) -> None:
    """Never in silence, and nothing of it is stored; the next request finds all."""
    browser = shop(store, CHANGES[change])
    before = values(browser.middleware.manager)
    with pytest.raises(SessionReadOnly, match="declared to only read"):
        getattr(browser, method)("/step", extra_environ=READS)
    assert values(browser.middleware.manager) == before
    assert browser.post("/increment").text == "2"


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_is_kept_where_nothing_was_declared(store: Any, change: str) -> None:
    """The positive control: each of them is a step that a POST may take."""
    browser = shop(store, CHANGES[change])
    assert browser.post("/step").status_int == 200


def test_writing_after_the_headers_is_refused_as_well(store: Any) -> None:
    """While a body is streamed."""
    lent: list[list[str]] = []

    def stream(session: Session) -> Any:
        lent.append(session["cart"])
        return ""

    browser = shop(store, stream)
    app = browser.middleware

    def streaming(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        cart = environ["wsgisession.session"]["cart"]
        yield b"one"
        cart.append("late")
        yield b"two"

    app.app = streaming
    with pytest.raises(SessionReadOnly):
        browser.post("/step", extra_environ=READS)
    assert values(app.manager)["cart"] == []


def test_only_true_declares(store: Any) -> None:
    """A header of a client cannot be such a key, and no other value means it."""
    browser = shop(store, increment)
    for value in (1, "True", None, False):
        browser.post("/step", extra_environ={READ_ONLY_KEY: value})
    assert values(browser.middleware.manager)["n"] == 5


def test_a_view_that_acts_outside_is_never_run_again(store: Any) -> None:
    """It holds the session from its first look, so that nothing can overtake it."""
    manager = SessionManager(store, Options(lock_wait=0))
    slow = Between(read, increment)
    browser = visitor(manager, slow=slow)
    refused: list[int] = []
    slow.other = lambda: refused.append(
        browser.another().post("/increment", status="*").status_int
    )
    assert browser.get("/slow", extra_environ=ACTS).text == "2"
    assert (slow.runs, refused, values(manager)["n"]) == (1, [503], 2)


def test_without_a_word_it_is_run_again(store: Any) -> None:
    """The positive control."""
    manager = SessionManager(store)
    slow = Between(read, increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().post("/increment")
    assert browser.get("/slow").text == "3"
    assert slow.runs == 2


def test_the_marks_go_through_decorators() -> None:
    """An adapter is given what ``functools.wraps`` has made of a view."""

    def logged(view: Callable[[], None]) -> Callable[[], None]:
        @wraps(view)
        def wrapper() -> None:
            view()

        return wrapper

    @logged
    @read_only
    def reading() -> None: ...

    @logged
    @external
    def acting() -> None: ...

    @logged
    def plain() -> None: ...

    for view, expected in ((reading, READS), (acting, ACTS), (plain, {})):
        environ: dict[str, Any] = {}
        tell(view, environ)
        assert environ == expected
