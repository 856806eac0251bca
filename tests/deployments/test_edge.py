"""The edge as it is found: odd environs, changed cookies, other sessions, WebSockets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from webtest import TestApp

from wsgisession import SessionManager, SessionMiddleware, get_session

from ..conftest import SECRET
from ..pages import PAGES, warned
from ..servers import said
from ..tabs import Site

# -- environs ----------------------------------------------------------------------------


def counting(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    session = get_session(environ)
    session["n"] = session.get("n", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(session["n"]).encode()]


GOOD = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}
MISSING = object()


@pytest.mark.promise("P7")
@pytest.mark.parametrize("method", ["GET", "POST", "get", "post", "", MISSING])
@pytest.mark.parametrize(
    "cookie", [None, b"sid=x", b"\xff\xfe", 7, "sid=\ud800", MISSING]
)
def test_an_odd_environ_is_a_visitor(method: Any, cookie: Any) -> None:
    """No 500, whatever a server, a test client or another middleware has put there."""
    for changes in ({}, {"PATH_INFO": MISSING}, {"QUERY_STRING": None}):
        environ = {**GOOD, "REQUEST_METHOD": method, "HTTP_COOKIE": cookie, **changes}
        given = {name: value for name, value in environ.items() if value is not MISSING}
        heads: list[str] = []
        middleware = SessionMiddleware(counting, {"type": "memory"})
        body = middleware(given, lambda status, *_, heads=heads: heads.append(status))
        assert (heads, b"".join(body)) == (["200 OK"], b"1")


@pytest.mark.parametrize("quote", ["{}", '"{}"'])
def test_a_quoted_cookie_is_understood(quote: str) -> None:
    """WebTest writes values in quotes where it thinks they need them."""
    site = TestApp(SessionMiddleware(counting, {"type": "memory"}), lint=False)
    site.get("/")
    (cookie,) = site.cookiejar
    site.reset()
    header = f"sid={quote.format(cookie.value)}"
    assert site.get("/", headers={"Cookie": header}).text == "2"


# -- settings of the cookie that change while sessions live ------------------------------


class Browser:
    """A jar by RFC 6265: what a browser holds of one site, and sends for a path."""

    def __init__(self) -> None:
        self.jar: dict[tuple[str | None, str], str] = {}

    def take(self, headers: list[tuple[str, str]], name: str) -> None:
        for field, line in headers:
            pair, *rest = line.split("; ")
            if field != "Set-Cookie" or not pair.startswith(f"{name}="):
                continue
            told = dict(each.lower().partition("=")[::2] for each in rest)
            place = told.get("domain"), told["path"]
            self.jar.pop(place, None) if told.get("max-age") == "0" else None
            if told.get("max-age") != "0":
                self.jar.setdefault(place, "")
                self.jar[place] = pair.partition("=")[2]

    def header(self, path: str, name: str) -> str:
        """Longer paths come first, then older cookies (RFC 6265 5.4)."""
        fits = [each for each in self.jar if path.startswith(each[1])]
        ordered = sorted(fits, key=lambda place: -len(place[1]))
        return "; ".join(f"{name}={self.jar[place]}" for place in ordered)

    def ask(self, site: Site, method: str, page: str, path: str = "/shop") -> str:
        name = site.manager.options.cookie_name
        extra = {"HTTP_HOST": "www.example.com", "SCRIPT_NAME": path}
        if header := self.header(path, name):
            extra["HTTP_COOKIE"] = header
        answer = site.ask(method, page, None, **extra)
        assert answer.status == "200 OK"
        self.take(answer.headers, name)
        return answer.body


BEFORE_AND_AFTER = [
    ({}, {"cookie_domain": "example.com"}),
    ({"cookie_domain": "example.com"}, {}),
    ({"cookie_path": "/shop"}, {}),
    ({}, {"cookie_path": "/shop"}),
    ({"cookie_name": "old"}, {"cookie_name": "new"}),
    ({"cookie_path": "/shop", "cookie_domain": "example.com"}, {}),
]


@contextmanager
def redeployed(
    kind: str, folder: Path, before: dict[str, str], after: dict[str, str]
) -> Iterator[tuple[Site, Site]]:
    """A site before and after its settings were changed; its sessions live on."""
    config: dict[str, Any] = {"type": kind, "secret": SECRET}
    if kind == "file":
        config["data_dir"] = str(folder / "sessions")
    yield tuple(  # type: ignore[misc]
        Site(SessionManager.from_config({**config, **more}), **PAGES)
        for more in (before, after)
    )


@pytest.mark.parametrize("kind", ["file", "cookie"])
@pytest.mark.parametrize(("before", "after"), BEFORE_AND_AFTER, ids=str)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same path", "another path"])
def test_a_changed_cookie_locks_nobody_out(
    kind: str,
    before: dict[str, str],
    after: dict[str, str],
    elsewhere: bool,
    tmp_path: Path,
) -> None:
    """A login works at once, on the page where it is made and on every other one."""
    with redeployed(kind, tmp_path, before, after) as (old, new):
        browser = Browser()
        browser.ask(old, "POST", "bob")
        assert browser.ask(old, "GET", "user") == "bob"
        is_renamed = "cookie_name" in after
        assert browser.ask(new, "GET", "user") == ("None" if is_renamed else "bob")
        if elsewhere and not after.get("cookie_path"):
            browser.ask(new, "POST", "ann", path="/login")
        browser.ask(new, "POST", "ann")
        for _ in range(3):
            assert browser.ask(new, "GET", "user") == "ann"
            browser.ask(new, "POST", "increment")
        assert browser.ask(new, "GET", "read") == "3"
        browser.ask(new, "POST", "logout")
        if kind == "file" or "cookie_name" not in after:
            assert browser.ask(new, "GET", "user") in ("None", "bob")
        browser.ask(new, "POST", "bob")
        assert browser.ask(new, "GET", "user") == "bob"


# -- other sessions beside ours ----------------------------------------------------------


def test_flasks_own_session_beside_ours(caplog: pytest.LogCaptureFixture) -> None:
    """With Flask-WTF's token in it: both are kept, and nothing is said."""
    flask = pytest.importorskip("flask")
    wtf = pytest.importorskip("flask_wtf.csrf")
    app = flask.Flask("beside")
    app.secret_key = SECRET
    wtf.CSRFProtect(app)

    @app.route("/", methods=["GET", "POST"])
    def page() -> str:
        session = get_session(flask.request.environ)
        session["n"] = session.get("n", 0) + 1
        flask.flash("seen")
        return f"{session['n']} {wtf.generate_csrf()}"

    app.wsgi_app = SessionMiddleware(app.wsgi_app, {"type": "memory"})
    browser = app.test_client()
    for number in range(1, 4):
        count, token = browser.get("/").text.split()
        assert count == str(2 * number - 1)
        answer = browser.post("/", headers={"X-CSRFToken": token})
        assert answer.text.split()[0] == str(2 * number)
    with app.test_request_context(headers={"Cookie": "; ".join(held(browser))}):
        assert len(flask.get_flashed_messages()) == 6
    assert warned(caplog) == []


def held(browser: Any) -> list[str]:
    return [f"{name}={browser.get_cookie(name).value}" for name in ("sid", "session")]


def test_pyramids_own_session_beside_ours(caplog: pytest.LogCaptureFixture) -> None:
    """Its cookie is named ``session``: both are kept, and nothing is said."""
    config = pytest.importorskip("pyramid.config")
    session = pytest.importorskip("pyramid.session")

    def page(request: Any) -> Any:
        ours = get_session(request.environ)
        ours["n"] = ours.get("n", 0) + 1
        request.session["m"] = request.session.get("m", 0) + 10
        request.response.text = f"{ours['n']} {request.session['m']}"
        return request.response

    with config.Configurator() as made:
        made.set_session_factory(session.SignedCookieSessionFactory(SECRET))
        made.add_route("page", "/")
        made.add_view(page, route_name="page")
        app = SessionMiddleware(made.make_wsgi_app(), {"type": "memory"})
    browser = TestApp(app, lint=False)
    assert [browser.get("/").text for _ in range(3)] == ["1 10", "2 20", "3 30"]
    assert warned(caplog) == []


def test_flasks_own_session_under_our_name_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The control: one takes the other's place, and the log says so."""
    flask = pytest.importorskip("flask")
    app = flask.Flask("beside")
    app.secret_key = SECRET
    app.config["SESSION_COOKIE_NAME"] = "sid"

    @app.get("/")
    def page() -> str:
        session = get_session(flask.request.environ)
        session["n"] = session.get("n", 0) + 1
        flask.flash("seen")
        return str(session["n"])

    app.wsgi_app = SessionMiddleware(app.wsgi_app, {"type": "memory"})
    browser = app.test_client()
    assert browser.get("/").text == "1"
    (told,) = warned(caplog)
    assert "cookie_name" in told


# -- WebSockets --------------------------------------------------------------------------

SOCKETS = """
from gevent import monkey; monkey.patch_all()
import logging, sys
from gevent.pywsgi import WSGIServer
from simple_websocket import ConnectionClosed, Server
from wsgisession import SessionMiddleware, get_session

def application(environ, start_response):
    session = get_session(environ)
    if environ["PATH_INFO"] == "/socket":
        socket = Server(environ)
        try:
            while True:
                if socket.receive() == "add":
                    with session.lock():
                        session["n"] += 1
                socket.send(str(session["n"]))
        except ConnectionClosed:
            return []
    session["n"] = session.get("n", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(session["n"]).encode()]

server = WSGIServer(("127.0.0.1", 0), SessionMiddleware(application, {"type": "memory"}))
server.start()
print(f"port {server.server_port}.", flush=True)
server.serve_forever()
"""


@contextmanager
def gevent_server(log: Path) -> Iterator[int]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SOCKETS],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=output,
            stderr=output,
        )
    try:
        yield int(said(log, r"port (\d+)\."))
    finally:
        process.kill()
        process.wait(60)


def test_a_websocket_under_gevent(tmp_path: Path) -> None:
    """It reads and saves its session while it is open, beside whole requests."""
    pytest.importorskip("gevent")
    sockets = pytest.importorskip("simple_websocket")
    from ..servers import Client

    with gevent_server(tmp_path / "log") as port, Client(port) as client:
        assert client("POST", "/") == "1"
        socket = sockets.Client(
            f"ws://127.0.0.1:{port}/socket", headers={"Cookie": client.cookie}
        )

        def ask(text: str) -> str:
            socket.send(text)
            return str(socket.receive(10))

        assert ask("read") == "1"
        assert ask("add") == "2"
        assert client("POST", "/") == "3"
        assert ask("add") == "4"  # what another request has added is not lost
        socket.close()
        assert client("POST", "/") == "5"
        assert "Traceback" not in (tmp_path / "log").read_text()
