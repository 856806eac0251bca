"""Two tabs of a real browser: one logs in while a request of the other is under way.

Gates at the server force every order of what the two do; nothing here depends on luck.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qsl

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait

pytest.importorskip("werkzeug")

from werkzeug.serving import make_server
from werkzeug.test import run_wsgi_app

from wsgisession import SessionManager, SessionMiddleware, get_session
from wsgisession.stores.memory import MemoryStore

from .browser import chromium

PATIENCE = 60

SLOW = ("slow loads", "slow saves", "slow answers")
LOGIN = ("login saves", "login answers")


def orders() -> Iterator[tuple[str, ...]]:
    """All ways to put the two in one order, each of them in its own."""
    for places in itertools.combinations(range(5), 2):
        slow, login = iter(SLOW), iter(LOGIN)
        yield tuple(next(login if at in places else slow) for at in range(5))


def is_possible(order: tuple[str, ...], kind: str) -> bool:
    """A POST holds the lock from its load to its save."""
    first, last = order.index("slow loads"), order.index("slow saves")
    return kind != "POST" or not first < order.index("login saves") < last


class Shop:
    """A site whose requests go from gate to gate, as the test opens them."""

    def __init__(self) -> None:
        self.manager = SessionManager(MemoryStore())
        self._app = SessionMiddleware(self._site, manager=self.manager)
        self.begin()

    def begin(self) -> None:
        """All gates are closed again."""
        self.gates: dict[str, Event] = defaultdict(Event)
        self.passed: dict[str, Event] = defaultdict(Event)
        for name in (*SLOW, *LOGIN, "slow came", "login came"):
            self.gates[name], self.passed[name] = Event(), Event()

    def _wait(self, name: str) -> None:
        assert self.gates[name].wait(PATIENCE), name

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer at last; a session is saved before."""
        who = environ["PATH_INFO"].strip("/")
        if who not in ("slow", "login"):
            return self._app(environ, start_response)
        self.passed[f"{who} came"].set()
        self._wait("slow loads" if who == "slow" else "login saves")
        body, status, headers = run_wsgi_app(self._app, environ, buffered=True)
        self.passed[f"{who} saves"].set()
        self._wait(f"{who} answers")
        start_response(status, list(headers))
        return body

    def _site(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        session, path = get_session(environ), environ["PATH_INFO"]
        query = dict(parse_qsl(environ["QUERY_STRING"]))
        if path == "/fill":
            session["cart"] = ["milk"]
        elif path == "/login":
            session.login("ann")
        elif path == "/slow":
            seen = session.get("n", 0)
            self.passed["slow loads"].set()
            self._wait("slow saves")
            if query["kind"] != "reads":
                session["n"] = seen + 1
        text = f"{path} {session.user} {session.get('cart')}"
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [f"<title>{text}</title>".encode()]


@pytest.fixture
def shop() -> Iterator[tuple[Shop, str]]:
    made = Shop()
    server = make_server("127.0.0.1", 0, made, threaded=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made, f"http://127.0.0.1:{server.port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile"), load="none") as browser:
        browser.switch_to.new_window("tab")
        yield browser


def shows(browser: Chrome, text: str) -> None:
    """Wait until the title of the tab begins like this."""
    wait = WebDriverWait(browser, PATIENCE, 0.02, [WebDriverException])
    wait.until(lambda browser: browser.title.startswith(text))


FETCH = """
fetch('/slow?kind=' + arguments[0], {method: arguments[1]})
  .then(answer => answer.text()).then(text => { document.title = 'answered'; });
"""


def played(
    browser: Chrome, shop: Shop, url: str, kind: str, order: tuple[str, ...]
) -> None:
    """Let both begin with the old cookie, and go through the gates in an order."""
    shop.begin()
    browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
    here, other = browser.window_handles
    for tab in (here, other):
        browser.switch_to.window(tab)
        browser.get(f"{url}/fill?{'-'.join(order)}")
        shows(browser, "/fill")
    method = "POST" if kind == "POST" else "GET"
    browser.execute_script(FETCH, kind, method)
    assert shop.passed["slow came"].wait(PATIENCE)
    browser.switch_to.window(here)
    browser.get(f"{url}/login")
    assert shop.passed["login came"].wait(PATIENCE)
    for name in order:
        shop.gates[name].set()
        if name.endswith("answers"):
            browser.switch_to.window(other if name == "slow answers" else here)
            shows(browser, "answered" if name == "slow answers" else "/login ann")
        else:
            assert shop.passed[name].wait(PATIENCE), name


@pytest.mark.parametrize("kind", ["reads", "writes", "POST"])
def test_the_browser_ends_up_logged_in(
    browser: Chrome, shop: tuple[Shop, str], kind: str
) -> None:
    """In every order of load, save and answer of the slow one, and of the login's save
    and answer; with the cart that was filled before.
    """
    site, url = shop
    for order in orders():
        if is_possible(order, kind):
            played(browser, site, url, kind, order)
            browser.get(f"{url}/home")
            shows(browser, "/home")
            assert browser.title == "/home ann ['milk']", order


def test_all_orders_are_played() -> None:
    """Ten, of which a lock leaves seven."""
    assert len(set(orders())) == 10
    assert sum(is_possible(order, "POST") for order in orders()) == 7
