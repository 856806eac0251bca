"""Helpers for people's own tests, with the test clients that they use."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from webtest import TestApp

from wsgisession import SessionManager, SessionMiddleware, get_session
from wsgisession.testing import apps
from wsgisession.testing.apps import client_cookie, session_of

from .conftest import SECRET


def shop(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """An application of somebody: a cart, and a page about its visitor."""
    session = get_session(environ)
    if environ["PATH_INFO"] == "/add":
        session.setdefault("cart", []).append("book")
    if environ["PATH_INFO"] == "/logout":
        session.logout()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"bye"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{session.user} has {session.get('cart')}".encode()]


@pytest.fixture
def manager(clock: apps.Clock) -> SessionManager:
    return SessionManager.from_config(url="memory:", clock=clock)


@pytest.fixture
def application(manager: SessionManager) -> SessionMiddleware:
    return SessionMiddleware(shop, manager=manager)


def test_a_visitor_who_is_logged_in_already(
    manager: SessionManager, application: SessionMiddleware
) -> None:
    """Without the login form; the values are those that the test needs."""
    visitor = TestApp(application)
    visitor.set_cookie(*client_cookie(manager, user="ann", cart=["pen"]))
    assert visitor.get("/").text == "ann has ['pen']"
    assert visitor.get("/add").text == "ann has ['pen', 'book']"
    stranger = TestApp(application, extra_environ={})
    header = client_cookie(manager, user=42).header
    assert stranger.get("/", headers={"Cookie": header}).text == "42 has None"


def test_a_look_into_the_session_with_webtest(
    manager: SessionManager, application: SessionMiddleware
) -> None:
    """By the answer that began it, or by the client; a change is saved."""
    visitor = TestApp(application)
    answer = visitor.get("/add")
    with session_of(manager, answer) as session:
        assert session["cart"] == ["book"]
        session["cart"].append("pen")
    assert visitor.get("/").text == "None has ['book', 'pen']"
    unchanged = visitor.get("/")
    with (
        pytest.raises(LookupError, match="give the client"),
        session_of(manager, unchanged),
    ):
        pass


def test_a_look_with_werkzeug_and_flask(manager: SessionManager) -> None:
    """Flask's test client is Werkzeug's."""
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)

    @app.get("/add")
    def add() -> str:
        get_session(flask.request.environ).setdefault("cart", []).append("book")
        return "added"

    app.wsgi_app = SessionMiddleware(app.wsgi_app, manager=manager)
    client = app.test_client()
    client.set_cookie(*client_cookie(manager, user="ann"))
    client.get("/add")
    with session_of(manager, client) as session:
        assert (session.user, session["cart"]) == ("ann", ["book"])
    answer = app.test_client().get("/add")
    with session_of(manager, answer) as session:
        assert (session.user, session["cart"]) == (None, ["book"])


def test_a_look_with_pyramid(manager: SessionManager) -> None:
    """By WebTest, as Pyramid's documentation has it."""
    config = pytest.importorskip("pyramid.config")
    response = pytest.importorskip("pyramid.response")

    def add(request: Any) -> Any:
        get_session(request.environ).setdefault("cart", []).append("book")
        return response.Response("added")

    with config.Configurator() as configurator:
        configurator.add_route("add", "/add")
        configurator.add_view(add, route_name="add")
        app = SessionMiddleware(configurator.make_wsgi_app(), manager=manager)
    client = TestApp(app)
    client.set_cookie(*client_cookie(manager, user="ann"))
    client.get("/add")
    with session_of(manager, client) as session:
        assert (session.user, session["cart"]) == ("ann", ["book"])


def test_other_sources(manager: SessionManager, application: Any) -> None:
    """A cookie that was made, or the text of a header in either direction."""
    cookie = client_cookie(manager, n=1)
    for source in (
        cookie,
        cookie.header,
        f"a=b; {cookie.header}",
        f"{cookie.header}; Path=/; HttpOnly; SameSite=Lax",
    ):
        with session_of(manager, source) as session:
            assert session["n"] == 1


def test_a_session_in_several_cookies(clock: apps.Clock) -> None:
    """It is put together from all of the answer's lines."""
    manager = SessionManager.from_config(url="cookie:", secret=SECRET, cookie_chunks=3)
    pages = {"/": lambda s: s.update(text=base64.b64encode(bytes(5000)).decode())}

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        pages[environ["PATH_INFO"]](get_session(environ))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    visitor = TestApp(SessionMiddleware(app, manager=manager))
    answer = visitor.get("/")
    for source in (answer, visitor):
        with session_of(manager, source) as session:
            assert len(session["text"]) > 6000


def test_what_leads_nowhere_is_said(
    manager: SessionManager, application: SessionMiddleware
) -> None:
    """None at all, one of another site, one that has ended."""
    visitor = TestApp(application)
    for source in ("", "a=b", object(), visitor, visitor.get("/")):
        with (
            pytest.raises(LookupError, match="there is no cookie 'sid' in this"),
            session_of(manager, source),
        ):
            pass
    cookie = client_cookie(manager, n=1)
    visitor.set_cookie(*cookie)
    visitor.post("/logout")
    with (
        pytest.raises(LookupError, match="leads to no session"),
        session_of(manager, cookie),
    ):
        pass


def test_an_exception_in_the_block_saves_nothing(manager: SessionManager) -> None:
    """And the session is free for the next request."""
    cookie = client_cookie(manager, n=1)
    with pytest.raises(ZeroDivisionError), session_of(manager, cookie) as session:
        session["n"] = 1 // 0
    with session_of(manager, cookie) as session:
        assert session["n"] == 1


def test_time_passes_when_the_test_says_so(
    manager: SessionManager, application: SessionMiddleware, clock: apps.Clock
) -> None:
    """The clock of the fixture is the one that ``from_config`` was given."""
    visitor = TestApp(application)
    visitor.set_cookie(*client_cookie(manager, user="ann"))
    assert visitor.get("/").text == "ann has None"
    clock.pass_by(15 * 86400)
    assert visitor.get("/").text == "None has None"
