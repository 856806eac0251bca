"""What a session costs, counted: calls of the store, calls of functions, leftovers."""

from __future__ import annotations

import cProfile
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from wsgisession import (
    Options,
    Session,
    SessionManager,
    SessionMiddleware,
    get_session,
)
from wsgisession._crypto.tokens import new_token
from wsgisession.stores.file import FileStore
from wsgisession.stores.memory import MemoryStore

from .conftest import SECRET, Clock, CountingStore
from .pages import shop
from .tabs import Site

VISITORS = 100_000

# -- visitors ----------------------------------------------------------------------------


def page(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Looks at the session where the query says so."""
    if environ["QUERY_STRING"]:
        get_session(environ).get("n")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("visitors", ["no cookie", "random cookies", "untouched"])
@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_hundred_thousand_visitors_leave_nothing(
    tmp_path: Path, visitors: str, secret: str | None
) -> None:
    """P3, P4, P7: no file, no Set-Cookie; an untouched session makes no store call."""
    store = CountingStore(FileStore(tmp_path / "sessions"))
    manager = SessionManager(store, Options(secret=secret) if secret else Options())
    middleware = SessionMiddleware(page, manager=manager)
    session = manager.create()
    session["n"] = 1
    session.save()
    own = f"sid={manager.token_of(session)}"
    before = files_below(tmp_path)
    store.calls.clear()
    cookies = 0

    def start_response(status: str, headers: list[tuple[str, str]]) -> Any:
        nonlocal cookies
        cookies += sum(name == "Set-Cookie" for name, _ in headers)

    pick = random.Random(7)
    for number in range(VISITORS):
        environ = {
            "REQUEST_METHOD": "POST" if number % 2 else "GET",
            "QUERY_STRING": "" if visitors == "untouched" else "look",
            "wsgi.url_scheme": "http",
        }
        if visitors == "untouched":
            environ["HTTP_COOKIE"] = own
        elif visitors == "random cookies":
            guess = new_token().text if number % 4 else "x" * pick.randrange(2000)
            environ["HTTP_COOKIE"] = f"sid={guess}"
        middleware(environ, start_response)
    assert cookies == 0
    assert files_below(tmp_path) == before
    if visitors != "random cookies" or secret:
        assert store.calls == []
    else:
        assert set(store.calls) == {"load", "lock"}
        assert len(store.calls) <= VISITORS, "one call each"


# -- calls of the store ------------------------------------------------------------------


def increment(session: Session) -> None:
    session["n"] = session.get("n", 0) + 1


USES: dict[str, Callable[[Session], object]] = {
    "nothing": lambda s: s.accessed,
    "read": lambda s: s.get("n"),
    "increment": increment,
    "nested": lambda s: s["cart"].append(1),
    "login": lambda s: s.login("ann"),
    "rotate": lambda s: s.rotate(),
    "regenerate": lambda s: s.regenerate(),
    "expiry": lambda s: s.set_expiry(60),
    "save": lambda s: (increment(s), s.save()),
    "saves and goes on": lambda s: (increment(s), s.save(), increment(s)),
    "login and save": lambda s: (s.login("ann"), s.save()),
    "logout": lambda s: s.logout(),
    "clear and login": lambda s: (s.clear(), s.login("ann")),
    "unlock": lambda s: (s.get("n"), s.unlock()),
    "lock": lambda s: s.lock(),
    "same value": lambda s: s.update(n=s["n"]),
}


def counted(
    store: Any = None, clock: Clock | None = None, **options: Any
) -> tuple[CountingStore, Site, str]:
    """A site with a session, whose calls of the store are counted from here on."""
    store = CountingStore(store or MemoryStore())
    manager = SessionManager(store, Options(**options), clock=clock)
    site = Site(manager, begin=lambda s: s.update(n=1, cart=[]), **USES)
    cookie = site.begun("begin")
    store.calls.clear()
    return store, site, cookie


@pytest.mark.parametrize(
    ("use", "safe", "unsafe"),
    [
        ("nothing", [], []),
        ("read", ["load"], ["lock", "unlock"]),
        ("same value", ["load", "save"], ["lock", "save"]),
        ("increment", ["load", "save"], ["lock", "save"]),
        ("nested", ["load", "save"], ["lock", "save"]),
        ("login", ["load", "save"], ["lock", "save"]),
        ("rotate", ["load", "save"], ["lock", "save"]),
        ("regenerate", ["load", "save"], ["lock", "save"]),
        ("expiry", ["load", "save"], ["lock", "save"]),
        ("save", ["load", "save"], ["lock", "save"]),
        ("saves and goes on", ["load", "save", "save"], ["lock", "save"] * 2),
        ("login and save", ["load", "save"], ["lock", "save"]),
        ("logout", ["load", "delete"], ["load", "delete"]),
        ("clear and login", ["load", "save"], ["load", "save"]),
        ("unlock", ["load"], ["lock", "unlock"]),
        ("lock", ["lock", "unlock"], ["lock", "unlock"]),
    ],
)
def test_store_calls_of_a_request(use: str, safe: list[str], unsafe: list[str]) -> None:
    """P4: untouched 0, read 1, read-modify-write 2, locked or not."""
    for method, calls in (("GET", safe), ("POST", unsafe)):
        store, site, cookie = counted()
        site.ask(method, use, cookie)
        assert store.calls == calls, method


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("use", "calls"),
    [
        ("nothing", []),
        ("read", []),
        ("increment", ["save"]),
        ("login", ["save"]),
        ("login and save", ["save"]),
        ("clear and login", ["save"]),
        ("expiry", []),
        ("logout", []),
        ("lock", []),
    ],
)
def test_store_calls_of_a_first_visit(method: str, use: str, calls: list[str]) -> None:
    """P4: a new session is one save, and nothing is asked before."""
    store, site, _ = counted()
    site.ask(method, use, None)
    assert store.calls == calls


@pytest.mark.parametrize(
    ("options", "age", "before", "calls"),
    [
        ({}, 59, None, ["load"]),
        ({}, 60, None, ["load", "touch"]),
        ({"touch_interval": None}, 86400, None, ["load"]),
        ({}, 1, "rotate", ["load", "save"]),
        ({"rotate_every": 600}, 599, None, ["load", "touch"]),
        ({"rotate_every": 600}, 601, None, ["load", "save"]),
    ],
    ids=["early", "touch", "no touch", "confirmation", "no rotation", "rotation"],
)
def test_what_is_due_adds_one_call_to_a_read(
    clock: Clock, options: Any, age: int, before: str | None, calls: list[str]
) -> None:
    """P4: a touch, a confirmation or a rotation; afterwards it is done."""
    store, site, cookie = counted(clock=clock, **options)
    if before is not None:
        cookie = site.begun(before, cookie)
        store.calls.clear()
    clock.pass_by(age)
    answer = site.get("read", cookie)
    assert store.calls == calls
    store.calls.clear()
    site.get("read", cookie)
    assert store.calls == ["load"], "it is done once"
    assert bool(answer.cookie) is (calls[1:] == ["save"] and before is None)


@pytest.mark.parametrize("again", [False, True])
def test_a_get_that_met_another_write_costs_two_more(again: bool) -> None:
    """P4: merged under the lock, or run again with it."""
    store, site, cookie = counted()
    ran: list[int] = []

    def meet(session: Session) -> None:
        ran.append(1)
        found = session.get("n" if again else "m", 0)
        if len(ran) == 1:
            site.post("increment", cookie)
            store.calls.clear()
        session["m"] = found + 1

    site.handlers["meet"] = meet
    site.get("meet", cookie)
    assert store.calls == ["save", "lock", "save"]
    assert len(ran) == 1 + again


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_several_cookies_cost_one_call_each_and_four_at_most(
    number: int, method: str
) -> None:
    """P4: and none of them is locked."""
    store = CountingStore(MemoryStore())
    site = shop(store)
    header = "; sid=".join(new_token().text for _ in range(number))
    site.ask(method, "read", header)
    look = "load" if method == "GET" or number > 1 else "lock"
    assert store.calls == [look] * min(number, 4)


def test_store_calls_of_a_cookie_session() -> None:
    """P4: none but those of the marks: one a look, two where it has a user."""
    marks = CountingStore(MemoryStore())
    manager = SessionManager.from_config(url="cookie:", secret=SECRET, revocation=marks)
    site = Site(manager, begin=lambda s: s.update(n=1), **USES)

    def calls(method: str, use: str, cookie: str | None) -> list[str]:
        marks.calls.clear()
        site.ask(method, use, cookie)
        return marks.calls

    assert calls("POST", "begin", None) == []
    cookie = site.begun("begin")
    for method in ("GET", "POST"):
        assert calls(method, "nothing", cookie) == []
        assert calls(method, "read", cookie) == ["load"]
        assert calls(method, "increment", cookie) == ["load", "load"]
    cookie = site.begun("login", cookie)
    assert calls("GET", "read", cookie) == ["load", "load"]


# -- calls of functions ------------------------------------------------------------------

BUDGET = {"untouched": 21, "read": 108, "change": 178, "new": 172}
"""Calls of functions a request on the memory store, by cProfile, and a few more, for
versions of Python differ.  A ratchet: lower it with every call that is saved."""


def calls_of(application: Any, environ: dict[str, Any]) -> int:
    """Calls of one request: the fewest of some, for a date's text is kept a second."""

    def start_response(*_: Any) -> None:
        pass

    fewest = []
    for _ in range(20):
        given = dict(environ)
        profile = cProfile.Profile()
        profile.enable()
        application(given, start_response)
        profile.disable()
        fewest.append(sum(entry.callcount for entry in profile.getstats()))
    return min(fewest)


def work(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Does with the session what the path says."""
    match environ["PATH_INFO"]:
        case "read":
            environ["wsgisession.session"]["n"]
        case "change":
            session = environ["wsgisession.session"]
            session["n"] = session["n"] + 1
        case "new":
            environ["wsgisession.session"]["n"] = 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


@pytest.mark.parametrize("kind", BUDGET)
def test_calls_of_functions_stay_within_the_budget(kind: str) -> None:
    """The same on every machine; seconds are not."""
    manager = SessionManager(MemoryStore())
    session = manager.create()
    session["n"] = 1
    session.save()
    environ = {
        "REQUEST_METHOD": "POST" if kind in ("change", "new") else "GET",
        "PATH_INFO": kind,
        "QUERY_STRING": "",
        "HTTP_HOST": "localhost",
        "wsgi.url_scheme": "http",
    }
    if kind != "new":
        environ["HTTP_COOKIE"] = f"sid={manager.token_of(session)}"
    bare = calls_of(work, {**environ, "PATH_INFO": "untouched"})
    ours = calls_of(SessionMiddleware(work, manager=manager), environ) - bare
    assert ours <= BUDGET[kind]
