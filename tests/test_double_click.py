"""A double click on "Log in", in a real browser, which drops the answer to the first.

Gates at the server force the order of the two: nothing here depends on how quick a
machine is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

import pytest

pytest.importorskip("flask_wtf")

from flask import Flask, redirect, render_template_string, request
from flask.sessions import SessionInterface
from flask_wtf import FlaskForm
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from werkzeug.serving import make_server
from werkzeug.test import run_wsgi_app
from wtforms import StringField

from wsgisession import (
    Session,
    SessionManager,
    SessionMiddleware,
    get_session,
)
from wsgisession.stores.memory import MemoryStore

from .browser import chromium
from .conftest import Clock

PATIENCE = 60
WINDOW = 10
"""Seconds for which the token from before a login is ended, and not yet a stranger's."""

both_orders = pytest.mark.parametrize(
    "queued", [False, True], ids=["one by one", "both at once"]
)

HOME = "<p id=home>{{ user }}: {{ cart }}</p>"
LOGIN = """
<p id=refusals>{{ refusals }}</p>
<form method=post>{{ form.hidden_tag() }}{{ form.user() }} <button>Log in</button></form>
"""


class FlaskSession(Session):
    accessed = False  # Flask sets it


class FromEnviron(SessionInterface):
    """Gives Flask the session of the middleware, which saves it."""

    def open_session(self, app: Flask, request: Any) -> Any:
        return get_session(request.environ).view(FlaskSession)

    def save_session(self, app: Flask, session: Any, response: Any) -> None:
        pass


class QueuedStore(MemoryStore):
    """Says when a request has come for a lock that another one holds."""

    def __init__(self) -> None:
        super().__init__()
        self.locks = 0
        self.queued = Event()

    def lock(self, *args: Any, **kwargs: Any) -> Any:
        self.locks += 1
        if self.locks > 1:
            self.queued.set()
        return super().lock(*args, **kwargs)


class Shop:
    """A cart, a login form, and what happens to the first answer to it.

    :param has_csrf: whether the form has a value that lives in the session.
    """

    def __init__(self, *, has_csrf: bool) -> None:
        self.store, self.clock = QueuedStore(), Clock()
        self.manager = SessionManager(self.store, clock=self.clock)
        self.inside, self.may_leave = Event(), Event()
        self.saved, self.dropped = Event(), Event()
        self.presented: list[str] = []
        self.first_cookie = ""
        self.posts = self.refusals = 0
        flask = self._flask(has_csrf)
        self._app = SessionMiddleware(flask, manager=self.manager)

    def _flask(self, has_csrf: bool) -> Flask:
        app = Flask("shop")
        app.secret_key = "what Flask-WTF signs with"
        app.config["WTF_CSRF_ENABLED"] = has_csrf
        app.session_interface = FromEnviron()

        class LoginForm(FlaskForm):  # type: ignore[misc]
            user = StringField(default="ann")

        @app.get("/fill")
        def fill() -> str:
            get_session(request.environ)["cart"] = ["milk"]
            return "<p id=full>full</p>"

        @app.get("/")
        def home() -> str:
            session = get_session(request.environ)
            cart = session.get("cart")
            return render_template_string(HOME, user=session.user, cart=cart)

        @app.route("/login", methods=["GET", "POST"])
        def login() -> Any:
            form = LoginForm()
            if form.validate_on_submit():
                get_session(request.environ).login(form.user.data)
                self.inside.set()
                assert self.may_leave.wait(PATIENCE)
                return redirect("/", 303)
            self.refusals += form.is_submitted()
            return render_template_string(LOGIN, form=form, refusals=self.refusals)

        return app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Hold the first answer to a login until the browser has hung up."""
        self.presented.append(environ.get("HTTP_COOKIE", ""))
        self.posts += environ["REQUEST_METHOD"] == "POST"
        if environ["REQUEST_METHOD"] != "POST" or self.posts > 1:
            return self._app(environ, start_response)
        body, status, headers = run_wsgi_app(self._app, environ, buffered=True)
        self.first_cookie = headers["Set-Cookie"].split(";")[0]
        self.saved.set()
        environ["werkzeug.socket"].settimeout(PATIENCE)
        assert environ["wsgi.input"].read(1) == b""
        self.dropped.set()
        start_response(status, list(headers))
        return body


Serve = Callable[..., tuple[Shop, str]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Makes shops, and gives the address of each."""
    servers = []

    def one(**options: Any) -> tuple[Shop, str]:
        shop = Shop(**options)
        server = make_server("127.0.0.1", 0, shop, threaded=True)
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        servers.append((server, thread))
        return shop, f"http://127.0.0.1:{server.port}"

    yield one
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile"), load="none") as browser:
        yield browser


@pytest.fixture
def browser(one_browser: Chrome) -> Chrome:
    """A browser without cookies: they know hosts, and no ports."""
    one_browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
    return one_browser


def shown(browser: Chrome, selector: str, expected: str) -> None:
    """Wait until a page that is complete has an element with such a text."""
    text = (
        "return document.readyState === 'complete' "
        "? document.querySelector(arguments[0])?.innerText : null"
    )

    def is_shown(browser: Chrome) -> bool:
        return expected in (browser.execute_script(text, selector) or "")

    # A page that is just being replaced answers nothing.
    WebDriverWait(browser, PATIENCE, 0.02, [WebDriverException]).until(is_shown)


def double_click(browser: Chrome, shop: Shop, url: str, *, queued: bool) -> None:
    """Fill the cart, and click twice: each click is a request of its own.

    The second one comes when the first has been saved, or while it holds the lock.
    """
    browser.get(f"{url}/fill")
    shown(browser, "#full", "full")
    browser.get(f"{url}/login")
    where = button(browser)
    shop.store.locks = 0
    if not queued:
        shop.may_leave.set()
    press(browser, where, 1)
    assert (shop.inside if queued else shop.saved).wait(PATIENCE)
    press(browser, where, 2)
    if queued:
        assert shop.store.queued.wait(PATIENCE)
        shop.may_leave.set()
    assert shop.dropped.wait(PATIENCE)


def button(browser: Chrome) -> dict[str, float]:
    """Where the button is, once it is painted: before that it takes no click."""
    shown(browser, "button", "Log in")
    browser.execute_async_script(
        "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
    )
    box = browser.find_element(By.TAG_NAME, "button").rect
    return {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}


def press(browser: Chrome, where: dict[str, float], count: int) -> None:
    """One click, which is the first or the second of a double click."""
    for kind in ("mousePressed", "mouseReleased"):
        event = {"type": kind, "button": "left", "clickCount": count, **where}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)


@both_orders
def test_a_form_that_needs_no_session(
    browser: Chrome, serve: Serve, queued: bool
) -> None:
    """Logged in by the second click, without a word; the cart is there."""
    shop, url = serve(has_csrf=False)
    double_click(browser, shop, url, queued=queued)
    shown(browser, "#home", "ann: ['milk']")
    assert shop.refusals == 0
    assert shop.first_cookie not in shop.presented
    (session,) = shop.manager.sessions()
    assert (session.user, session["cart"]) == ("ann", ["milk"])


@both_orders
def test_a_form_whose_csrf_value_lives_in_the_session(
    browser: Chrome, serve: Serve, queued: bool
) -> None:
    """The second click is refused, once; after the window the form logs in.

    The old token reads nothing, so not the CSRF value either, and begins nothing whose
    cookie could take the place of the login's.
    """
    shop, url = serve(has_csrf=True)
    double_click(browser, shop, url, queued=queued)
    shown(browser, "#refusals", "1")
    (session,) = shop.manager.sessions()
    assert (session.user, session["cart"]) == ("ann", ["milk"])
    shop.clock.pass_by(WINDOW + 1)
    browser.get(f"{url}/login")
    press(browser, button(browser), 1)
    shown(browser, "#home", "ann")
    assert shop.refusals == 1
    assert shop.first_cookie not in shop.presented


def test_a_form_that_was_shown_within_the_window(browser: Chrome, serve: Serve) -> None:
    """Its CSRF value was kept nowhere: it is refused once, and the next one logs in."""
    shop, url = serve(has_csrf=True)
    double_click(browser, shop, url, queued=False)
    shown(browser, "#refusals", "1")
    shop.clock.pass_by(WINDOW + 1)
    press(browser, button(browser), 1)
    shown(browser, "#refusals", "2")
    press(browser, button(browser), 1)
    shown(browser, "#home", "ann")
    assert shop.refusals == 2
