"""Who takes the lock, and who is run again: decided from the request and its answer."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from wsgisession import SessionConflict, SessionManager
from wsgisession._core.transaction import ReplayNeeded
from wsgisession._http.exchange import (
    REPLAY_KEY,
    Exchange,
    can_be_repeated,
    comes_from_this_site,
    has_body,
    is_oauth_answer,
)
from wsgisession.stores.memory import MemoryStore

from .asking import OAUTH, PLAIN, asked, cookie_with, elsewhere, is_free, managed


@pytest.fixture
def manager() -> SessionManager:
    return SessionManager(MemoryStore())


# -- who takes the lock ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("locking", "method", "query", "locked"),
    [
        ("auto", "GET", "", False),
        ("auto", "HEAD", "", False),
        ("auto", "OPTIONS", "", False),
        ("auto", "TRACE", "", False),
        ("auto", "GET", "page=2", False),
        ("auto", "GET", OAUTH, True),
        ("auto", "POST", "", True),
        ("auto", "PUT", "", True),
        ("auto", "PATCH", "page=2", True),
        ("auto", "DELETE", "", True),
        ("auto", "PROPFIND", "", True),
        ("always", "GET", "", True),
        ("never", "POST", "", False),
        ("never", "GET", OAUTH, False),
        (lambda environ: environ["PATH_INFO"] == "/", "GET", "", True),
        (lambda environ: environ["PATH_INFO"] != "/", "POST", "", False),
    ],
)
def test_who_takes_the_lock(
    manager: SessionManager, locking: Any, method: str, query: str, locked: bool
) -> None:
    """What changes nothing by its meaning waits for nobody; the callable decides."""
    manager = managed(manager.store, locking=locking)
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, method, cookie, QUERY_STRING=query)
    assert exchange.session["n"] == 1
    assert exchange.session.locked is locked
    exchange.settle("200 OK", PLAIN)
    assert not exchange.session.locked
    assert is_free(manager, cookie)


# -- who is run again --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "is_ours"),
    [
        ({"HTTP_SEC_FETCH_SITE": "same-origin"}, True),
        ({"HTTP_SEC_FETCH_SITE": "same-site"}, False),
        ({"HTTP_SEC_FETCH_SITE": "cross-site"}, False),
        ({"HTTP_SEC_FETCH_SITE": "none"}, False),
        ({"HTTP_SEC_FETCH_SITE": ""}, False),
        ({"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_HOST": "localhost"}, False),
        (
            {"HTTP_SEC_FETCH_SITE": "none", "HTTP_REFERER": "http://example.test/"},
            False,
        ),
        ({}, False),
        ({"HTTP_REFERER": ""}, False),
        ({"HTTP_REFERER": "http://example.test/page?x=1"}, True),
        ({"HTTP_REFERER": "https://example.test"}, True),
        ({"HTTP_REFERER": "http://example.test:8080/"}, False),
        ({"HTTP_REFERER": "http://other.test/http://example.test/"}, False),
        ({"HTTP_REFERER": "http://example.test.other.test/"}, False),
        ({"HTTP_REFERER": "http://example.test@other.test/"}, False),
        ({"HTTP_REFERER": "http://[example.test/"}, False),
        ({"HTTP_REFERER": "/page"}, False),
        ({"HTTP_REFERER": "about:blank", "HTTP_HOST": ""}, False),
        ({"HTTP_HOST": "localhost"}, True),
        ({"HTTP_HOST": "LOCALHOST:8080"}, True),
        ({"HTTP_HOST": "app.localhost:5000"}, True),
        ({"HTTP_HOST": "127.0.0.1"}, True),
        ({"HTTP_HOST": "127.1.2.3:80"}, True),
        ({"HTTP_HOST": "[::1]"}, True),
        ({"HTTP_HOST": "[::1]:8080"}, True),
        ({"HTTP_HOST": "", "SERVER_NAME": "localhost"}, True),
        ({"HTTP_HOST": "localhost.example.test"}, False),
        ({"HTTP_HOST": "127.0.0.1.example.test"}, False),
        ({"HTTP_HOST": "mylocalhost"}, False),
        ({"HTTP_HOST": "128.0.0.1"}, False),
        ({"HTTP_HOST": "[::2]"}, False),
    ],
    ids=str,
)
def test_whether_a_page_of_this_site_asked(
    environ: dict[str, str], is_ours: bool
) -> None:
    """The browser says so; over plain http, the referer or a loopback host."""
    assert comes_from_this_site({"HTTP_HOST": "example.test", **environ}) is is_ours


@pytest.mark.parametrize(
    ("status", "headers", "again"),
    [
        ("200 OK", [], True),
        ("200 OK", PLAIN, True),
        ("200 OK", [("Content-Disposition", "attachment")], False),
        ("200 OK", [*PLAIN, ("content-DISPOSITION", "inline")], False),
        ("201 Created", [], False),
        ("204 No Content", [], False),
        ("206 Partial Content", [], False),
        ("302 Found", [("Location", "/")], False),
        ("304 Not Modified", [], False),
        ("404 Not Found", [], False),
        ("500 Oops", [], False),
    ],
)
def test_whether_an_answer_can_be_made_twice(
    status: str, headers: list[tuple[str, str]], again: bool
) -> None:
    """A GET that redirects is an action; a download may be good for one use."""
    assert can_be_repeated(status, headers) is again


@pytest.mark.parametrize(
    ("query", "is_answer"),
    [
        (OAUTH, True),
        ("state=xyz&code=abc", True),
        ("error=access_denied&state=xyz", True),
        ("iss=https%3A%2F%2Fa&code=&state=", True),
        ("oauth_token=abc&oauth_verifier=def", True),
        ("", False),
        ("code=abc", False),
        ("state=open", False),
        ("error=1", False),
        ("oauth_token=abc", False),
        ("zipcode=1&state=NY", False),
        ("code=1&estate=2", False),
        ("q=code%3D1%26state%3D2", False),
        ("codex=1&state=2", False),
    ],
)
def test_what_an_oauth_answer_is(query: str, is_answer: bool) -> None:
    """RFC 6749 4.1.2 and OAuth 1: a code, and what proves who asked for it."""
    assert is_oauth_answer({"QUERY_STRING": query}) is is_answer
    assert not is_oauth_answer({})


@pytest.mark.parametrize(
    ("environ", "has"),
    [
        ({}, False),
        ({"CONTENT_LENGTH": ""}, False),
        ({"CONTENT_LENGTH": "0"}, False),
        ({"CONTENT_LENGTH": "1"}, True),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, True),
    ],
)
def test_what_a_body_is(environ: dict[str, str], has: bool) -> None:
    """A length above 0, or a transfer encoding; some servers send an empty length."""
    assert has_body(environ) is has


def in_conflict(
    manager: SessionManager, method: str = "GET", **environ: str
) -> Exchange:
    """A request that wrote what it had made of a value which is another one now."""
    exchange = asked(manager, method, cookie_with(manager, n=1), **environ)
    exchange.session["n"] += 1
    elsewhere(manager, exchange.session, n=5)
    return exchange


SITE = {"HTTP_HOST": "example.test"}
AGAIN: list[Any] = [
    ({}, {}, "200 OK", []),
    ({}, {**SITE, "HTTP_SEC_FETCH_SITE": "same-origin"}, "200 OK", []),
    ({}, {**SITE, "HTTP_REFERER": "http://example.test/"}, "200 OK", PLAIN),
    ({}, {"CONTENT_LENGTH": "0"}, "200 OK", []),
]
ONCE: list[Any] = [
    ({"replay": False}, {}, "200 OK", []),
    ({}, SITE, "200 OK", []),
    ({}, {**SITE, "HTTP_SEC_FETCH_SITE": "cross-site"}, "200 OK", []),
    ({}, {"HTTP_SEC_FETCH_SITE": "none"}, "200 OK", []),
    ({}, {"CONTENT_LENGTH": "3"}, "200 OK", []),
    ({}, {"HTTP_TRANSFER_ENCODING": "chunked"}, "200 OK", []),
    ({"locking": "never"}, {"QUERY_STRING": OAUTH}, "200 OK", []),
    ({}, {}, "302 Found", [("Location", "/thanks")]),
    ({}, {}, "404 Not Found", []),
    ({}, {}, "200 OK", [("Content-Disposition", 'attachment; filename="one.pdf"')]),
]


@pytest.mark.parametrize(("options", "environ", "status", "headers"), AGAIN)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_who_is_run_again(
    options: Any, environ: Any, status: str, headers: Any, method: str
) -> None:
    """P1: told which keys; nothing is written, and the lock is free for the second."""
    manager = managed(**options)
    exchange = in_conflict(manager, method, **environ)
    with pytest.raises(ReplayNeeded) as told:
        exchange.settle(status, headers)
    assert told.value.keys == {"n"}
    assert [dict(s) for s in manager.sessions()] == [{"n": 5}]
    assert not isinstance(told.value, Exception), "an application must not catch it"


@pytest.mark.parametrize(("options", "environ", "status", "headers"), ONCE)
def test_who_is_not_run_again(
    options: Any,
    environ: Any,
    status: str,
    headers: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P1: then ours are written, and the loss is reported."""
    manager = managed(**options)
    in_conflict(manager, **environ).settle(status, headers)
    assert [dict(s) for s in manager.sessions()] == [{"n": 2}]
    assert "another request changed n" in caplog.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_only_a_safe_method_is_run_again(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 9110 9.2.1: what the others did must not be done twice."""
    in_conflict(managed(locking="never"), method).settle("200 OK", [])
    assert "another request changed n" in caplog.text


def test_an_error_page_is_neither_written_nor_run_again(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """It saves nothing, so nothing can be lost."""
    in_conflict(manager).settle("500 Oops", [])
    assert [dict(s) for s in manager.sessions()] == [{"n": 5}]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("wish", ["no_replay", "save", "login", "regenerate"])
def test_what_a_request_did_forbids_to_run_it_again(
    manager: SessionManager, wish: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It said so, or it has saved or changed its identity."""
    exchange = asked(manager, cookie=cookie_with(manager, n=1, m=1))
    session = exchange.session
    found = session["n"]
    if wish == "save":
        session["m"] = 2
    session.login("ann") if wish == "login" else getattr(session, wish)()
    elsewhere(manager, session, n=5)
    session["n"] = found + 1
    exchange.settle("200 OK", [])
    assert [s["n"] for s in manager.sessions()] == [2]
    assert "another request changed n" in caplog.text


def test_what_must_run_again_stays_so(manager: SessionManager) -> None:
    """An application that swallows the message cannot get its values written."""
    exchange = in_conflict(manager)
    for verb in (exchange.session.save, exchange.session.unlock, exchange.session.lock):
        with pytest.raises(ReplayNeeded):
            verb()
    with pytest.raises(ReplayNeeded):
        exchange.settle("302 Found", [("Location", "/")])
    assert [dict(s) for s in manager.sessions()] == [{"n": 5}]


def test_the_second_run_holds_the_lock_and_is_the_last(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """So that it ends: nobody can save in between."""
    exchange = asked(manager, cookie=cookie_with(manager, n=1), **{REPLAY_KEY: True})
    exchange.session["n"] += 1
    assert exchange.session.locked
    exchange.session.unlock()
    elsewhere(manager, exchange.session, n=5)
    exchange.session["n"] += 1
    exchange.settle("200 OK", [])
    assert "another request changed n" in caplog.text


def test_a_conflict_can_be_raised() -> None:
    """By the option; then nothing is written, and the lock is free."""
    manager = managed(on_conflict="raise", replay=False)
    exchange = in_conflict(manager)
    with pytest.raises(SessionConflict) as told:
        exchange.settle("200 OK", [])
    assert told.value.keys == ("n",)
    exchange.fail(told.value)
    assert [dict(s) for s in manager.sessions()] == [{"n": 5}]
