"""``YourSessions``: what a user sees and can end, and what no other site can do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.util import setup_testing_defaults, shift_path_info
from wsgiref.validate import validator

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from webtest import TestApp

from wsgisession import (
    ConfigurationError,
    SessionManager,
    SessionMiddleware,
    get_session,
)
from wsgisession.stores.memory import MemoryStore
from wsgisession.your_sessions import YourSessions, ago
from wsgisession.your_sessions._devices import UNKNOWN, name_of

from .browser import chromium, paint, resize
from .conftest import SECRET

MOUNTED = "/account/sessions"
FIREFOX = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
)


def site(yours: Callable[..., Any]) -> Callable[..., Any]:
    """A site with a login, and the page mounted deep in it."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path.startswith(MOUNTED):
            for _ in range(2):
                shift_path_info(environ)
            return yours(environ, start_response)
        session = get_session(environ)
        if path == "/login":
            query = environ["QUERY_STRING"] or "ann"
            session.login(query, user_agent=environ.get("HTTP_USER_AGENT", ""))
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{session.user}".encode()]

    return application


class Shop:
    """A site, and its users' browsers."""

    def __init__(self, store: Any = None, **options: Any) -> None:
        self.manager = SessionManager(store or MemoryStore())
        self.app = SessionMiddleware(
            validator(site(validator(YourSessions(**options)))), manager=self.manager
        )

    def browser(self, user: str | None = "ann", agent: str = FIREFOX) -> TestApp:
        client = TestApp(self.app, extra_environ={"HTTP_USER_AGENT": agent})
        if user is not None:
            client.post(f"/login?{user}")
        return client


def user_of(client: TestApp) -> str:
    return str(client.get("/").text)


def listed(client: TestApp) -> list[str]:
    """The headings of the page's items."""
    return re.findall(r"<h2>(.*?)</h2>", client.get(MOUNTED).text)


# -- what is shown -----------------------------------------------------------------------


def test_a_user_sees_where_they_are_logged_in(store: Any) -> None:
    """On every store that lists: this one first and marked, no one else's, no token."""
    shop = Shop(store)
    computer, phone = shop.browser(), shop.browser(agent=IPHONE)
    shop.browser("bob", agent="curl/8.5.0")
    page = computer.get(MOUNTED)
    assert listed(computer) == ["Firefox on Windows", "Safari on iPhone"]
    assert listed(phone) == ["Safari on iPhone", "Firefox on Windows"]
    assert page.text.count("This session") == 1
    assert page.text.count("Last seen <time") == 1
    assert "Where <b>ann</b> is logged in" in page.text
    for client in (computer, phone):
        assert client.cookies["sid"] not in page.text
        assert client.cookies["sid"][22:] not in page.text


def test_it_is_only_one_s_own_page() -> None:
    """No cache keeps an answer, no frame holds it, no script runs on it."""
    shop = Shop()
    client = shop.browser()
    answers = [
        client.get(MOUNTED),
        client.get(MOUNTED).forms[0].submit("end"),
        client.get(MOUNTED, status=403),
        client.get(f"{MOUNTED}/x", status=404),
        client.put(MOUNTED, status=405),
    ]
    nonces = set()
    for answer in answers:
        headers = answer.headers
        assert headers["Cache-Control"] == "no-store"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        nonces.add(policy.partition("'nonce-")[2].partition("'")[0])
    assert len(nonces) == len(answers)


def test_what_a_user_is_called_is_text() -> None:
    """And so is what a browser says of itself."""
    shop = Shop()
    session = shop.manager.create()
    session.login("<b>eve</b>", device="<script>alert(1)")
    session.save()
    client = shop.browser(None)
    client.set_cookie("sid", str(shop.manager.token_of(session)))
    text = client.get(MOUNTED).text
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<b>eve" not in text


@pytest.mark.parametrize(
    ("details", "name"),
    [
        ({"user_agent": FIREFOX}, "Firefox on Windows"),
        ({"user_agent": IPHONE}, "Safari on iPhone"),
        ({"device": "Ann's phone", "user_agent": FIREFOX}, "Ann's phone"),
        ({"browser": "Chrome"}, "Chrome"),
        (
            {
                "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 "
                "(KHTML, like Gecko) Chrome/137.0.0.0 Safari/537.36 Edg/137.0.0.0"
            },
            "Edge on Linux",
        ),
        (
            {
                "user_agent": "Mozilla/5.0 (Linux; Android 14; K) AppleWebKit/537.36 "
                "(KHTML, like Gecko) Chrome/137.0.0.0 Mobile Safari/537.36"
            },
            "Chrome on Android",
        ),
        (
            {
                "user_agent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) "
                "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15"
            },
            "Safari on Mac",
        ),
        ({"user_agent": "curl/8.5.0"}, UNKNOWN),
        ({"user_agent": ""}, UNKNOWN),
        ({"device": 7}, UNKNOWN),
        ({}, UNKNOWN),
        ({"device": "x" * 200}, "x" * 60),
    ],
    ids=repr,
)
def test_a_device_has_a_plain_name(details: dict[str, Any], name: str) -> None:
    """Of what the application told ``login()``; nothing is guessed."""
    assert name_of(details) == name


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (3599, "59 minutes ago"),
        (3600, "1 hour ago"),
        (2 * 86400, "2 days ago"),
        (7 * 86400, "on 8 March 2026"),
    ],
)
def test_times_are_in_words(seconds: float, words: str) -> None:
    """The exact moment is behind them."""
    now = datetime(2026, 3, 15, 12, tzinfo=timezone.utc)
    assert ago(now - timedelta(seconds=seconds), now) == words


# -- what can be ended -------------------------------------------------------------------


def test_one_session_is_ended(store: Any) -> None:
    """It is logged out, and the browser comes back to the page."""
    shop = Shop(store)
    computer, phone = shop.browser(), shop.browser(agent=IPHONE)
    page = computer.get(MOUNTED)
    answer = page.forms[1].submit("end")
    assert answer.status_int == 303
    assert answer.follow().request.path == MOUNTED
    assert user_of(phone) == "None"
    assert listed(computer) == ["Firefox on Windows"]
    assert "End all others" not in computer.get(MOUNTED).text


def test_all_others_are_ended(store: Any) -> None:
    """The own one stays, and so do those of other users."""
    shop = Shop(store)
    computer = shop.browser()
    others = [shop.browser(agent=IPHONE) for _ in range(3)]
    bob = shop.browser("bob")
    page = computer.get(MOUNTED)
    page.forms[len(page.forms) - 1].submit("others")
    assert [user_of(each) for each in (computer, *others, bob)] == [
        "ann",
        *["None"] * 3,
        "bob",
    ]


def test_the_own_session_is_ended_by_a_logout() -> None:
    """The page then says what to do."""
    client = Shop().browser()
    client.get(MOUNTED).forms[0].submit("end")
    assert user_of(client) == "None"
    answer = client.get(MOUNTED, status=403)
    assert "You are not logged in. Log in to see your sessions." in answer.text
    assert "<a" not in answer.text


def test_who_is_not_logged_in_finds_the_login() -> None:
    """If the site says where that is."""
    stranger = Shop(log_in='https://login.example/?next=1&x="').browser(None)
    for answer in (
        stranger.get(MOUNTED, status=403),
        stranger.post(MOUNTED, status=403),
    ):
        link = '<a href="https://login.example/?next=1&amp;x=&quot;">Log in</a>'
        assert link in answer.text


def test_nobody_ends_the_session_of_another_user() -> None:
    """Whatever id a form of theirs brings."""
    shop = Shop()
    ann, bob = shop.browser(), shop.browser("bob")
    page = bob.get(MOUNTED)
    guard = page.forms[0]["guard"].value
    (session,) = shop.manager.sessions_of("ann")
    for id in (session.id, "0" * 32, "", "../x", session.id.upper()):
        bob.post(MOUNTED, {"guard": guard, "end": id}, status=303)
    assert (user_of(ann), user_of(bob)) == ("ann", "bob")


@pytest.mark.parametrize("guard", [None, "", "x" * 22, "\u00e4"])
def test_another_site_cannot_post(guard: str | None) -> None:
    """Without the value that the page has from the session nothing happens."""
    shop = Shop()
    computer, phone = shop.browser(), shop.browser(agent=IPHONE)
    (id,) = [each.id for each in shop.manager.sessions_of("ann")][:1]
    fields = {} if guard is None else {"guard": guard}
    for more in ({"others": "1"}, {"end": id}):
        answer = computer.post(MOUNTED, {**fields, **more}, status=403)
        assert "Nothing was ended" in answer.text
        assert answer.click("Back to your sessions").request.path == MOUNTED
    computer.get(MOUNTED)
    for more in ({"others": "1"}, {"end": id}):
        computer.post(MOUNTED, {**fields, **more}, status=403)
    assert (user_of(computer), user_of(phone)) == ("ann", "ann")
    files = [("guard", "a.txt", b"x")]
    computer.post(MOUNTED, {"others": "1"}, upload_files=files, status=403)


def test_the_guard_is_each_session_s_own() -> None:
    """The page of one user gives no power over the sessions of another user."""
    shop = Shop()
    ann, bob = shop.browser(), shop.browser("bob")
    ann.get(MOUNTED)
    guard = bob.get(MOUNTED).forms[0]["guard"].value
    ann.post(MOUNTED, {"guard": guard, "others": "1"}, status=403)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("application/x-www-form-urlencoded; charset=utf-16", b"guard=x"),
        ("application/x-www-form-urlencoded", b"guard=%ff\xff&&=&end"),
        ("application/json", b"{}"),
        ("\xff", b"guard=x"),
        ("", b""),
    ],
)
def test_a_form_that_is_none_is_refused(kind: str, body: bytes) -> None:
    """However malformed."""
    client = Shop().browser()
    client.get(MOUNTED)
    client.post(MOUNTED, body, headers={"Content-Type": kind}, status=403)


def test_a_session_that_is_another_user_s_by_now_stays() -> None:
    """The browser that is to be ended logs in as somebody else at the same moment."""
    shop = Shop()
    computer, phone = shop.browser(), shop.browser(agent=IPHONE)
    page = computer.get(MOUNTED)
    phone.post("/login?bob")  # keeps the id
    page.forms[1].submit("end")
    assert user_of(phone) == "bob"


def test_other_paths_and_methods() -> None:
    """There is one page, to be read and posted to."""
    client = Shop().browser()
    assert client.get(f"{MOUNTED}/").status_int == 200
    client.get(f"{MOUNTED}/x", status=404)
    assert "POST" in client.put(MOUNTED, status=405).headers["Allow"]
    assert client.head(MOUNTED).body == b""


def test_a_path_that_is_no_text_is_not_found() -> None:
    """Not an error."""
    environ = {"PATH_INFO": "/\xff"}
    setup_testing_defaults(environ)
    said: list[str] = []
    YourSessions()(environ, lambda status, headers: said.append(status))
    assert said == ["404 Not Found"]


@pytest.mark.parametrize(
    ("script_name", "path", "location"),
    [
        ("", "", "./"),
        ("", "/", "./"),
        ("/account/sessions", "", "./sessions"),
        ("/account/sessions", "/", "./"),
        ("/caf\xc3\xa9/a:b", "", "./a%3Ab"),
    ],
)
def test_it_finds_back_to_itself_wherever_it_is(
    script_name: str, path: str, location: str
) -> None:
    """Under any prefix, also one that a proxy has taken away, and without a host."""
    manager = SessionManager(MemoryStore())
    client = TestApp(SessionMiddleware(YourSessions(), manager=manager))
    session = manager.create()
    session.login("ann")
    session["_your_sessions"] = "x"
    session.save()
    client.set_cookie("sid", str(manager.token_of(session)))
    answer = client.post(
        "/",
        {"guard": "x", "others": "1"},
        extra_environ={"SCRIPT_NAME": script_name, "PATH_INFO": path},
        status=303,
    )
    assert answer.headers["Location"] == location


# -- how it is put together --------------------------------------------------------------


def test_a_page_of_one_s_own() -> None:
    """Any text with the fields; the policy lets the site's style sheet in."""
    template = "<link rel=stylesheet href=/s.css><ul>${sessions}</ul>$end_others $$5"
    client = Shop(template=template).browser()
    answer = client.get(MOUNTED)
    assert answer.text.startswith("<link rel=stylesheet")
    assert answer.text.endswith(" $5")
    assert "style-src 'self'" in answer.headers["Content-Security-Policy"]
    answer.forms[0].submit("end")
    assert user_of(client) == "None"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("$sesions", r"\$sessions"),
        ("$$sessions $user", r"does not name \$sessions"),
        ("nothing", r"does not name \$sessions"),
        ("$sessions costs 5 $", "a dollar is"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(template: str, said: str) -> None:
    """At construction."""
    with pytest.raises(ConfigurationError, match=said):
        YourSessions(template=template)


def test_a_store_that_cannot_list_is_said() -> None:
    """What is in cookies is listed nowhere."""
    manager = SessionManager.from_config(url="cookie:", secret=SECRET)
    client = TestApp(SessionMiddleware(site(YourSessions()), manager=manager))
    client.post("/login?ann")
    with pytest.raises(ConfigurationError, match="CookieStore cannot"):
        client.get(MOUNTED)


# -- in a real browser -------------------------------------------------------------------


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def served(app: Any) -> Iterator[str]:
    with _Server(("127.0.0.1", 0), _Quiet) as server:
        server.set_app(app)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(30)


def is_gone(element: WebElement) -> bool:
    """Whether its page was replaced; while that happens Chromium has several errors."""
    try:
        element.is_enabled()
    except WebDriverException:
        return True
    return False


def press(browser: Chrome, words: str) -> None:
    """Press a button by what it says, and wait for the next page."""
    buttons = browser.find_elements(By.TAG_NAME, "button")
    (button,) = [each for each in buttons if each.text == words]
    page = browser.find_element(By.TAG_NAME, "html")
    button.click()
    WebDriverWait(browser, 30).until(lambda browser: is_gone(page))


def test_two_browsers_of_one_user(tmp_path: Path) -> None:
    """One ends the other, which is logged out at its next click.

    On a narrow phone nothing is cut off, in light and in dark.
    """
    app = SessionMiddleware(site(YourSessions()), manager=SessionManager(MemoryStore()))
    with (
        served(app) as url,
        chromium(tmp_path / "one") as one,
        chromium(tmp_path / "two", width=390, height=844) as two,
    ):
        for browser in (one, two):
            browser.get(f"{url}/login?ann")
            browser.get(f"{url}{MOUNTED}")
        one.refresh()
        headings = [each.text for each in one.find_elements(By.TAG_NAME, "h2")]
        assert headings == ["Chrome on Linux"] * 2
        for browser, width in ((one, 1280), (two, 390), (two, 320)):
            resize(browser, width=width, height=800)
            for scheme in ("light", "dark"):
                paint(browser, scheme)
                shown = browser.execute_script(
                    "return document.documentElement.scrollWidth"
                )
                assert shown <= width
        press(one, "End")
        assert len(one.find_elements(By.TAG_NAME, "li")) == 1
        press(two, "End")  # any click
        assert "You are not logged in" in two.page_source
        two.get(f"{url}/")
        assert "None" in two.page_source
        press(one, "Log out")
        assert "You are not logged in" in one.page_source


def test_behind_a_proxy_that_keeps_the_host_to_itself(tmp_path: Path) -> None:
    """The page's own policy lets its forms come back, and the login may be elsewhere."""
    manager = SessionManager(MemoryStore())
    app = SessionMiddleware(site(YourSessions(log_in="data:,in")), manager=manager)

    def proxied(environ: dict[str, Any], start_response: Any) -> Any:
        environ["HTTP_HOST"] = "backend.internal:8080"
        return app(environ, start_response)

    with served(proxied) as url, chromium(tmp_path / "one") as browser:
        browser.get(f"{url}/login?ann")
        other = manager.create()
        other.login("ann")
        other.save()
        browser.get(f"{url}{MOUNTED}")
        press(browser, "End all others")
        assert len(browser.find_elements(By.TAG_NAME, "li")) == 1
        press(browser, "Log out")
        assert browser.current_url == f"{url}{MOUNTED}"
        assert browser.find_element(By.LINK_TEXT, "Log in").is_displayed()
        refused = "the server responded with a status of 403"
        assert all(refused in each["message"] for each in browser.get_log("browser"))


def test_a_refusal_fits_a_phone_too(tmp_path: Path) -> None:
    """It is a page like the other."""
    app = SessionMiddleware(site(YourSessions()), manager=SessionManager(MemoryStore()))
    with served(app) as url, chromium(tmp_path / "one", width=320) as browser:
        browser.get(f"{url}{MOUNTED}")
        across = browser.execute_script("return document.documentElement.scrollWidth")
        assert across <= 320
