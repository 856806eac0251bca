"""One request's session without WSGI: settled, told, failed, finished.

What WSGI asks for is in ``tests/test_wsgi.py``, what a browser sees in ``test_flow.py``.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from wsgisession import LockTimeout, SessionClosed, SessionManager, StoreError
from wsgisession._http.exchange import Exchange
from wsgisession.stores.memory import MemoryStore

from ..conftest import SECRET, CountingStore
from .asking import (
    PLAIN,
    asked,
    cookie_with,
    cookies,
    elsewhere,
    is_free,
    managed,
    read,
)

CROSS_SITE = {"HTTP_SEC_FETCH_SITE": "cross-site"}


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(MemoryStore())


@pytest.fixture
def manager(store: CountingStore) -> SessionManager:
    return SessionManager(store)


# -- settle ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_untouched_session_costs_and_tells_nothing(
    manager: SessionManager, store: CountingStore, method: str
) -> None:
    """P4: no store call, and the very headers that were given."""
    cookie = cookie_with(manager, n=1)
    store.calls.clear()
    exchange = asked(manager, method, cookie)
    headers = list(PLAIN)
    assert exchange.settle("200 OK", headers) is headers
    assert exchange.told(headers) is headers
    exchange.finish()
    assert (store.calls, headers) == ([], PLAIN)


def test_it_is_saved_when_the_headers_are_given_back(manager: SessionManager) -> None:
    """P6: they carry a cookie that leads to what is stored already."""
    exchange = asked(manager)
    exchange.session["a"] = 1
    headers = exchange.settle("302 Found", list(PLAIN))
    assert headers[0] == PLAIN[0]
    (cookie,) = cookies(headers)
    assert read(manager, cookie) == {"a": 1}
    assert dict(headers)["Vary"] == "Cookie"
    assert dict(headers)["Cache-Control"] == "no-store"


def test_the_headers_given_are_left_alone(manager: SessionManager) -> None:
    """An application may use one list for all its answers."""
    exchange = asked(manager)
    exchange.session["a"] = 1
    assert exchange.settle("200 OK", PLAIN) != PLAIN
    assert PLAIN == [("Content-Type", "text/plain")]


@pytest.mark.parametrize("status", ["500 Oops", "503 Busy", "599 What"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_error_page_saves_nothing(
    manager: SessionManager, store: CountingStore, method: str, status: str
) -> None:
    """A status of 5xx leaves the session as it was, unlocked, and sets no cookie."""
    cookie = cookie_with(manager, n=1)
    store.calls.clear()
    exchange = asked(manager, method, cookie)
    exchange.session["n"] = 2
    headers = exchange.settle(status, PLAIN)
    assert cookies(headers) == []
    assert dict(headers)["Vary"] == "Cookie"
    exchange.session["n"] = 3
    exchange.finish()
    assert store.calls == (["load"] if method == "GET" else ["lock", "unlock"])
    assert read(manager, cookie) == {"n": 1}
    assert is_free(manager, cookie)


@pytest.mark.parametrize("status", ["200 OK", "304 Not Modified", "404 No", "499 Gone"])
def test_any_other_page_saves(manager: SessionManager, status: str) -> None:
    """The positive control: what the client did wrong is no failure of ours."""
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, "POST", cookie)
    exchange.session["n"] = 2
    exchange.settle(status, PLAIN)
    assert read(manager, cookie) == {"n": 2}
    assert is_free(manager, cookie)


def test_save_on_error_saves_an_error_page_too() -> None:
    """For an application that counts failures in the session."""
    manager = managed(save_on_error=True)
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, cookie=cookie)
    exchange.session["n"] = 2
    exchange.session.rotate()
    (new,) = cookies(exchange.settle("500 Oops", PLAIN))
    assert read(manager, new) == {"n": 2}


@pytest.mark.parametrize("status", ["200 OK", "500 Oops"])
def test_a_logout_stands_whatever_the_page(
    manager: SessionManager, status: str
) -> None:
    """An end is final: the user asked for it."""
    exchange = asked(manager, cookie=cookie_with(manager, n=1))
    exchange.session.flush()
    assert cookies(exchange.settle(status, PLAIN)) == ["sid="]
    assert list(manager.sessions()) == []


def test_what_a_failed_request_wrote_after_its_logout_is_dropped(
    manager: SessionManager,
) -> None:
    """It may end, and nothing else."""
    exchange = asked(manager, "POST", cookie_with(manager, n=1))
    exchange.session.flush()
    exchange.session["next"] = "/"
    assert cookies(exchange.settle("500 Oops", PLAIN)) == ["sid="]
    assert list(manager.sessions()) == []


def test_save_every_request_looks_at_what_nobody_touched() -> None:
    """And so the headers say that the answer varies."""
    store = CountingStore(MemoryStore())
    manager = managed(store, save_every_request=True)
    cookie = cookie_with(manager, n=1)
    store.calls.clear()
    headers = asked(manager, cookie=cookie).settle("200 OK", PLAIN)
    assert store.calls == ["load", "save"]
    assert dict(headers)["Vary"] == "Cookie"


# -- what the request is told of the store -----------------------------------------------


@pytest.mark.parametrize("error", [StoreError("away"), LockTimeout("f" * 32, 1.0)])
def test_a_failure_that_was_swallowed_is_remembered(error: Exception) -> None:
    """Frameworks catch everything; who answers may ask what it was."""

    class Away(MemoryStore):
        def lock(self, *_: Any, **__: Any) -> Any:
            raise error

        def load(self, *_: Any, **__: Any) -> Any:
            raise error

    manager = managed(Away())
    exchange = asked(manager, "POST", f"sid={'A' * 64}")
    assert exchange.failure is None
    with pytest.raises(type(error)):
        len(exchange.session)
    assert exchange.failure is error


@pytest.mark.parametrize("verb", ["lock", "save", "unlock"])
def test_a_failure_in_the_middle_is_remembered(verb: str) -> None:
    """Of every verb that goes to the store."""

    class Away(MemoryStore):
        away = False

        def save(self, *args: Any, **keywords: Any) -> Any:
            if self.away:
                raise StoreError("away")
            return super().save(*args, **keywords)

        def lock(self, *_: Any, **__: Any) -> Any:
            raise StoreError("away")

    store = Away()
    manager = managed(store)
    exchange = asked(manager, "GET", cookie_with(manager, n=1))
    exchange.session["n"] = 2
    store.away = True
    with pytest.raises(StoreError):
        getattr(exchange.session, verb)()
    assert isinstance(exchange.failure, StoreError)


# -- fail --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError(), SystemExit(), StoreError()])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_fails_saves_nothing(
    manager: SessionManager, store: CountingStore, method: str, error: BaseException
) -> None:
    """The session is as it was, free and closed, and no cookie is due."""
    cookie = cookie_with(manager, n=1)
    store.calls.clear()
    exchange = asked(manager, method, cookie)
    exchange.session["n"] = 2
    exchange.fail(error)
    assert store.calls == (["load"] if method == "GET" else ["lock", "unlock"])
    assert cookies(exchange.told(PLAIN)) == []
    assert dict(exchange.told(PLAIN))["Vary"] == "Cookie"
    with pytest.raises(SessionClosed, match="request is over"):
        exchange.session["n"] = 3
    assert read(manager, cookie) == {"n": 1}
    assert is_free(manager, cookie)


def test_a_failure_before_any_look_is_cheap(
    manager: SessionManager, store: CountingStore
) -> None:
    """Nothing was asked of the session, and nothing is."""
    cookie = cookie_with(manager, n=1)
    store.calls.clear()
    exchange = asked(manager, "POST", cookie)
    exchange.fail(ZeroDivisionError())
    assert exchange.told(PLAIN) is PLAIN
    assert store.calls == []


def test_a_logout_stands_where_the_request_fails(manager: SessionManager) -> None:
    """And an answer that is made in the application's place takes the cookie away."""
    exchange = asked(manager, cookie=cookie_with(manager, n=1))
    exchange.session.flush()
    exchange.fail(ZeroDivisionError())
    assert list(manager.sessions()) == []
    assert cookies(exchange.told(PLAIN)) == ["sid="]


def test_a_token_that_was_saved_leaves_with_the_answer_to_a_failure(
    manager: SessionManager,
) -> None:
    """The one before is over: without it the user would be logged out."""
    exchange = asked(manager, "POST", cookie_with(manager, n=1))
    exchange.session.login("ann")
    exchange.session.save()
    exchange.session["n"] = 2
    exchange.fail(ZeroDivisionError())
    (cookie,) = cookies(exchange.told(PLAIN))
    assert read(manager, cookie) == {"n": 1}
    assert manager.open_cookie(cookie).user == "ann"


@pytest.mark.parametrize(
    ("error", "n"), [(ZeroDivisionError(), 2), (SystemExit(), 1), (GeneratorExit(), 1)]
)
def test_save_on_error_is_for_errors(error: BaseException, n: int) -> None:
    """A worker that is told to stop has not failed: it has not finished."""
    manager = managed(save_on_error=True)
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, "POST", cookie)
    exchange.session["n"] = 2
    exchange.fail(error)
    assert read(manager, cookie) == {"n": n}
    assert is_free(manager, cookie)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: s.login("ann")),
        pytest.param(lambda s: s.regenerate()),
        lambda s: s.rotate(),
    ],
    ids=["login", "regenerate", "rotate"],
)
def test_save_on_error_keeps_the_cookie_good(change: Any) -> None:
    """Where no cookie can leave, the identity is not changed either."""
    manager = managed(save_on_error=True)
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, "POST", cookie)
    exchange.session["n"] = 2
    change(exchange.session)
    exchange.fail(ZeroDivisionError())
    session = manager.open_cookie(cookie)
    assert session.get("n") in (1, 2)
    assert session.user is None


def test_save_on_error_leaves_no_session_that_nobody_can_find() -> None:
    """A new one needs a cookie, and none leaves with an exception."""
    manager = managed(save_on_error=True)
    exchange = asked(manager, "POST")
    exchange.session["failures"] = 1
    exchange.fail(ZeroDivisionError())
    assert list(manager.sessions()) == []


@pytest.mark.parametrize("method", ["delete", "unlock"])
def test_the_first_error_is_not_hidden_by_one_of_the_store(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is on its way already; the store's is in the log."""

    def away(*_: Any, **__: Any) -> Any:
        raise StoreError("away")

    store = CountingStore(MemoryStore())
    manager = managed(store)
    cookie = cookie_with(manager, n=1)
    setattr(store, method, away)
    exchange = asked(manager, "POST", cookie)
    assert exchange.session["n"] == 1
    if method == "delete":
        exchange.session.flush()
    exchange.fail(ZeroDivisionError())
    assert "a session could not be released" in caplog.text
    with pytest.raises(SessionClosed):
        exchange.session["n"] = 2


def raising(conflict: Any) -> Any:
    raise ValueError("cannot decide")


@pytest.mark.parametrize("decision", ["raise", raising])
def test_the_first_error_is_not_hidden_by_a_conflict(
    decision: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither where ``on_conflict`` refuses, nor where it fails by itself."""
    manager = managed(save_on_error=True, on_conflict=decision, replay=False)
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, cookie=cookie)
    exchange.session["n"] += 1
    elsewhere(manager, exchange.session, n=5)
    exchange.fail(ZeroDivisionError())
    assert "a session could not be released" in caplog.text
    with pytest.raises(SessionClosed):
        exchange.session["n"] = 2
    assert read(manager, cookie) == {"n": 5}


# -- after the headers -------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_change_after_the_headers_is_saved_at_the_end(
    manager: SessionManager, store: CountingStore, method: str
) -> None:
    """In depth too; the client holds the token, so nothing is lost, and none locks."""
    cookie = cookie_with(manager, cart=[])
    exchange = asked(manager, method, cookie)
    cart = exchange.session["cart"]
    exchange.settle("200 OK", PLAIN)
    cart.append(1)
    exchange.session["late"] = True
    assert not exchange.session.locked
    store.calls.clear()
    exchange.finish()
    assert store.calls == ["save"]
    assert read(manager, cookie) == {"cart": [1], "late": True}


def test_nothing_changed_is_nothing_saved(
    manager: SessionManager, store: CountingStore
) -> None:
    """The end of a body costs no call."""
    exchange = asked(manager, cookie=cookie_with(manager, cart=[]))
    exchange.session["cart"].append(1)
    exchange.settle("200 OK", PLAIN)
    store.calls.clear()
    exchange.finish()
    exchange.finish()
    assert store.calls == []


def test_a_first_look_after_the_headers_is_refused(
    manager: SessionManager, store: CountingStore
) -> None:
    """P12: they have told the caches nothing of it."""
    cookie = cookie_with(manager, n=1)
    store.calls.clear()
    exchange = asked(manager, cookie=cookie)
    exchange.settle("200 OK", PLAIN)
    with pytest.raises(SessionClosed, match="before the response begins"):
        exchange.session.get("n")
    assert store.calls == []


def test_what_needs_a_cookie_is_refused_after_the_headers(
    manager: SessionManager,
) -> None:
    """An error, not a silent loss; what was there is not harmed."""
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, cookie=cookie)
    assert exchange.session["n"] == 1
    exchange.settle("200 OK", PLAIN)
    for verb in (
        lambda s: s.login("ann"),
        lambda s: s.regenerate(),
        lambda s: s.rotate(),
    ):
        with pytest.raises(SessionClosed, match="the headers have left"):
            verb(exchange.session)
    exchange.finish()
    assert read(manager, cookie) == {"n": 1}


def test_a_new_session_cannot_begin_after_the_headers(manager: SessionManager) -> None:
    """Its cookie would be needed."""
    exchange = asked(manager)
    assert len(exchange.session) == 0
    exchange.settle("200 OK", PLAIN)
    for verb in (
        lambda s: s.update(a=1),
        lambda s: s.set_expiry(60),
        lambda s: s.save(),
    ):
        with pytest.raises(SessionClosed, match="the headers have left"):
            verb(exchange.session)
    exchange.finish()
    assert list(manager.sessions()) == []


def test_a_logout_after_the_headers_ends_the_session(manager: SessionManager) -> None:
    """An end needs no cookie to be an end."""
    exchange = asked(manager, cookie=cookie_with(manager, n=1))
    assert exchange.session["n"] == 1
    exchange.settle("200 OK", PLAIN)
    exchange.session.flush()
    exchange.finish()
    assert list(manager.sessions()) == []


def test_a_conflict_after_the_headers_is_never_run_again(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: a byte has left, so ours are written, with a warning."""
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, cookie=cookie)
    found = exchange.session["n"]
    exchange.settle("200 OK", PLAIN)
    elsewhere(manager, exchange.session, n=5)
    exchange.session["n"] = found + 1
    exchange.finish()
    assert read(manager, cookie) == {"n": 2}
    assert "another request changed n, which this request had read" in caplog.text


def test_after_a_failure_nothing_is_written_late(manager: SessionManager) -> None:
    """Neither by a body that goes on, nor at its end."""
    cookie = cookie_with(manager, cart=[])
    exchange = asked(manager, cookie=cookie)
    cart = exchange.session["cart"]
    exchange.settle("200 OK", PLAIN)
    exchange.fail(OSError())
    cart.append(1)
    exchange.finish()
    assert read(manager, cookie) == {"cart": []}


def test_auto_off_writes_nothing_late_by_itself() -> None:
    """Only what ``save()`` is told to."""
    manager = managed(auto=False)
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, cookie=cookie)
    assert exchange.session["n"] == 1
    exchange.settle("200 OK", PLAIN)
    exchange.session["n"] = 2
    exchange.session.save()
    exchange.session["n"] = 3
    exchange.finish()
    assert read(manager, cookie) == {"n": 2}


@pytest.mark.parametrize("end", ["finish", "close"])
def test_a_request_that_was_never_answered_frees_its_lock(
    manager: SessionManager, end: str
) -> None:
    """The client went away, or a handler took the connection over."""
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, "POST", cookie)
    assert exchange.session["n"] == 1
    assert exchange.session.locked
    getattr(exchange, end)()
    assert is_free(manager, cookie)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("use", ["nothing", "read", "write", "login", "flush", "fail"])
def test_a_request_leaves_no_reference_cycle(
    manager: SessionManager, method: str, use: str
) -> None:
    """Or every so many requests would pay for the garbage collector."""

    def request() -> None:
        exchange = asked(manager, method, cookie_with(manager, n=1))
        session = exchange.session
        uses: dict[str, Callable[[], object]] = {
            "read": lambda: session["n"],
            "write": lambda: session.update(n=2),
            "login": lambda: session.login("ann"),
            "flush": session.flush,
        }
        uses.get(use, lambda: None)()
        if use == "fail":
            exchange.fail(ZeroDivisionError())
        else:
            exchange.settle("200 OK", PLAIN)
            exchange.finish()

    request()
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            request()
        assert gc.collect() == 0
    finally:
        gc.enable()


# -- posts from another site -------------------------------------------------------------


def foreign(manager: SessionManager, cookie: str | None = None) -> Exchange:
    """A post from another site's page, as of a payment or an identity provider."""
    return asked(manager, "POST", cookie, PATH_INFO="/paid", **CROSS_SITE)


def test_a_post_from_another_site_begins_no_session(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Its cookie would take the place of the one that the browser did not send."""
    exchange = foreign(manager)
    exchange.session["n"] = 1
    headers = exchange.settle("200 OK", PLAIN)
    assert cookies(headers) == []
    assert dict(headers)["Vary"] == "Cookie"
    assert list(manager.sessions()) == []
    (record,) = caplog.records
    assert "a post from another site to '/paid'" in record.getMessage()
    assert "cross_site_posts" in record.getMessage()


@pytest.mark.parametrize("verb", ["rotate", "save", "set_test_cookie"])
def test_only_a_change_of_privilege_is_sent_to_another_sites_post(
    manager: SessionManager, verb: str
) -> None:
    """Whatever else was asked for sets no cookie."""
    exchange = foreign(manager)
    exchange.session["n"] = 1
    getattr(exchange.session, verb)()
    assert cookies(exchange.settle("200 OK", PLAIN)) == []


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_dead_cookie_of_ours_shows_that_the_browser_sends_them(
    secret: str | None,
) -> None:
    """Such a browser has no better one that could be overwritten."""
    manager = managed(secret=secret) if secret else managed()
    exchange = foreign(manager, f"sid={'A' * 64}")
    exchange.session["n"] = 1
    assert cookies(exchange.settle("200 OK", PLAIN))


def test_a_login_by_another_sites_post_is_kept_with_all_it_wrote(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """SAML answers are such posts."""
    exchange = foreign(manager)
    exchange.session["n"] = 1
    exchange.session.login("ann")
    (cookie,) = cookies(exchange.settle("302 Found", PLAIN))
    assert read(manager, cookie) == {"n": 1}
    assert caplog.records == []
