"""The demo: over HTTP, and in a real browser."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from wsgiref.validate import validator

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from webtest import TestApp

import wsgisession
from wsgisession import ConfigurationError
from wsgisession._demo import AT_ONCE, BlindStore, demo
from wsgisession._demo.trials import SLOW
from wsgisession.stores.memory import MemoryStore

from .browser import chromium, resize, text_of

PACKAGE = Path(wsgisession.__file__).parent.parent
ROUNDS = 10
"""How often requests may fail to meet, as they do on a machine that is busy or quick."""


@contextmanager
def started(*argv: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The demo as a process; its output can be read."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wsgisession", "demo", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PACKAGE,
        env={**os.environ, **environment},
        # A job in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def address(process: subprocess.Popen[str]) -> str:
    """What the demo says first: where it is."""
    assert process.stdout is not None
    said = re.search(r"http://\S+", process.stdout.readline())
    assert said is not None
    return said[0]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A demo that runs as a user runs it."""
    with started("--port", "0") as process:
        yield address(process)


# -- the process -------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_quietly_and_leaves_nothing(
    tmp_path: Path, how: signal.Signals
) -> None:
    """Its folder is private while it runs, and gone after Ctrl-C; no traceback."""
    with started("--port", "0", TMPDIR=str(tmp_path)) as process:
        urlopen(address(process)).read()
        assert process.stdout is not None
        assert "Ctrl-C" in process.stdout.readline()
        (folder,) = tmp_path.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == "\nStopped.\n"
    assert err == ""
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_avoided_unless_it_was_asked_for() -> None:
    """8000 is only a suggestion of ours; a port that was asked for is not."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        except OSError:
            pass  # it is taken already, which is as good
        with started() as process:
            assert not address(process).endswith(":8000/")
        with started("--port", "8000") as process:
            _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "cannot listen on 127.0.0.1:8000" in err
    assert "Traceback" not in err


def test_what_is_not_installed_is_named() -> None:
    """Without filelock it says what to install."""
    code = (
        "import sys; sys.modules['filelock'] = None; "
        "from wsgisession._cli import main; sys.exit(main(['demo', '--port', '0']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE
    )
    assert ended.returncode == 2
    assert 'pip install "wsgisession-middleware[file]"' in ended.stderr


def test_a_store_that_cannot_show_it_is_refused() -> None:
    """The demo locks and lists sessions."""
    with pytest.raises(ConfigurationError, match="BlindStore cannot show it all"):
        demo({"store": BlindStore(MemoryStore())})


# -- the promise -------------------------------------------------------------------------

Ask = Callable[..., Any]


@pytest.fixture
def ask(url: str) -> Ask:
    """Send a request with the cookies so far, and give the JSON of the answer."""
    jar: dict[str, str] = {}

    def ask(method: str, path: str) -> Any:
        cookies = "; ".join(f"{name}={value}" for name, value in jar.items())
        request = Request(url + path, method=method, headers={"Cookie": cookies})
        with urlopen(request, timeout=120) as answer:
            for line in answer.headers.get_all("Set-Cookie", []):
                name, _, rest = line.partition("=")
                jar[name] = rest.partition(";")[0]
            return json.load(answer)

    return ask


def fire(ask: Ask, method: str, counter: str) -> list[dict[str, bool]]:
    """Increment a counter fifty times at once, from nought, and give the answers."""
    ask("POST", f"{counter}/reset")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(
            pool.map(lambda _: ask(method, f"{counter}/increment"), range(AT_ONCE))
        )


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_of_fifty_at_once_all_are_kept(ask: Ask, method: str) -> None:
    """Fifty POSTs wait for each other; of fifty GETs those in conflict are run again."""
    for _ in range(ROUNDS):
        answers = fire(ask, method, "counter")
        assert ask("GET", "counter")["counter"] == AT_ONCE
        if method == "POST" or any(each["replayed"] for each in answers):
            break
    if method == "POST":
        assert all(each["locked"] and not each["replayed"] for each in answers)
    else:
        assert any(each["replayed"] for each in answers)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_blind_store_loses_some(ask: Ask, method: str) -> None:
    """The same requests of the same application: the comparison is a real one."""
    for _ in range(ROUNDS):
        answers = fire(ask, method, "blind/counter")
        assert not any(each["locked"] or each["replayed"] for each in answers)
        if (kept := ask("GET", "blind/counter")["counter"]) < AT_ONCE:
            break
    assert kept < AT_ONCE


# -- the page ----------------------------------------------------------------------------


@pytest.fixture
def application() -> Any:
    return validator(demo({"url": "memory:"}))


@pytest.fixture
def visitor(application: Any) -> TestApp:
    return TestApp(application, lint=False)


def log_in(visitor: TestApp, user: str) -> Any:
    form = visitor.get("/").forms["login"]
    form["user"] = user
    return form.submit(status=303).follow()


def listed_ids(page: Any) -> list[str]:
    """The short ids of the sessions in the list."""
    return re.findall(r"<code>([0-9a-f]{8})</code>", page.text)


def test_visits_are_counted(visitor: TestApp) -> None:
    """Each look at the page is a visit."""
    visitor.get("/").mustcontain('data-value="visits">1<')
    visitor.get("/").mustcontain('data-value="visits">2<')
    assert visitor.head("/").body == b""
    visitor.get("/").mustcontain('data-value="visits">4<')


def test_what_is_shown_is_text(visitor: TestApp) -> None:
    """A name with markup in it is shown as it was written."""
    page = log_in(visitor, "<script>alert('x')</script>")
    page.mustcontain("&lt;script&gt;alert(&#x27;x&#x27;)", no=["<script>alert"])


def test_the_page_needs_no_other_host(visitor: TestApp) -> None:
    """No address of another host, and a policy under which none could be reached."""
    page = visitor.get("/")
    assert re.findall(r"(?:src|href|action)=\"(?!/|data:)[^\"]*\"", page.text) == []
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none';")
    nonce = re.search(r"script-src 'nonce-([^']+)'", str(page.headers))
    assert nonce is not None
    assert page.text.count(f'nonce="{nonce[1]}"') == 2
    assert nonce[1] not in visitor.get("/").text


def test_sessions_of_a_user_are_listed_and_ended(
    visitor: TestApp, application: Any
) -> None:
    """Those of one user and no other; each can be ended, or all but this one."""
    others = [TestApp(application, lint=False) for _ in range(3)]
    for other in others:
        log_in(other, "Ann")
    stranger = TestApp(application, lint=False)
    theirs = listed_ids(log_in(stranger, "Bob"))
    page = log_in(visitor, "Ann")
    ids = listed_ids(page)
    assert len(set(ids)) == 4
    assert not set(ids) & set(theirs)
    assert page.text.count("<li aria-current=true>") == 1

    buttons = re.findall(r'name="id" value="([0-9a-f]{32})"', page.text)
    stranger.post("/end", {"id": buttons[0]}, status=303)
    assert listed_ids(visitor.get("/")) == ids
    visitor.post("/end", {"id": buttons[0]}, status=303)
    assert listed_ids(visitor.get("/")) == ids[1:]
    others[0].get("/").mustcontain("<dd>nobody</dd>")

    visitor.get("/").forms["end-others"].submit(status=303)
    assert listed_ids(visitor.get("/")) == ids[3:]
    assert listed_ids(stranger.get("/")) == theirs

    visitor.post("/end", {"id": buttons[3]}, status=303)
    visitor.get("/").mustcontain("<dd>nobody</dd>", 'data-value="visits">1<')


def test_a_logout_ends_it(visitor: TestApp) -> None:
    """The next page is that of a new visitor."""
    page = log_in(visitor, "Ann")
    page.forms["logout"].submit(status=303).follow().mustcontain("<dd>nobody</dd>")


def test_a_form_leads_back_without_naming_a_host(visitor: TestApp) -> None:
    """A proxy before it may have another one, or TLS; then the policy would forbid it."""
    for form in ("login", "logout", "end", "end-others"):
        answer = visitor.post(f"/{form}", {"user": "Ann"}, status=303)
        assert answer.headers["Location"] == "/"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", b"", 404),
        ("GET", "/blind/", b"", 404),
        ("GET", "/login", b"", 405),
        ("GET", "/counter/reset", b"", 405),
        ("POST", "/login", b"user=", 303),
        ("POST", "/end", b"id=../../etc/passwd", 303),
        ("POST", "/end", b"", 303),
        ("POST", "/end-others", b"", 303),
    ],
)
def test_bad_requests_are_answered(
    visitor: TestApp, method: str, path: str, body: bytes, status: int
) -> None:
    """Whatever a client sends is no error of ours, and makes no session."""
    if method == "GET":
        answer = visitor.get(path, status=status)
    else:
        answer = visitor.post(path, body, status=status)
    assert "Set-Cookie" not in answer.headers
    if status == 405:
        assert "POST" in answer.headers["Allow"]


def test_a_file_in_the_place_of_a_name_is_no_name(visitor: TestApp) -> None:
    """A form that is not ours may hold what ours does not."""
    visitor.post("/login", upload_files=[("user", "x.txt", b"Ann")], status=303)
    visitor.get("/").mustcontain("<dd>nobody</dd>")


# -- in a real browser -------------------------------------------------------------------


def until(browser: Chrome, true: Callable[[Chrome], Any]) -> None:
    # A page that is just being replaced may leave any question without an answer.
    WebDriverWait(browser, 120, 0.05, [WebDriverException]).until(true)


def shows(selector: str, expected: str) -> Callable[[Chrome], bool]:
    return lambda browser: expected in text_of(browser, selector)


def listed(count: int) -> Callable[[Chrome], bool]:
    return lambda browser: (
        len(browser.find_elements(By.CSS_SELECTOR, "#sessions li")) == count
    )


def has_counted(browser: Chrome) -> bool:
    """Whether the second side, too, says how it went."""
    return re.search(" s; |failed", text_of(browser, ".blind .note")) is not None


def has_nothing_to_do(browser: Chrome) -> bool:
    """Whether the button that was pressed is done."""
    return not browser.find_elements(By.CSS_SELECTOR, "[aria-disabled]")


def sign_in(browser: Chrome, user: str) -> None:
    browser.find_element(By.ID, "user").send_keys(user, Keys.ENTER)
    until(browser, shows("#logout", user))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_the_button_shows_it(browser: Chrome, url: str, method: str) -> None:
    """One click: 50 of 50 here, fewer there, and the counter among the values."""
    for _ in range(ROUNDS):
        browser.get(url)
        browser.find_element(By.CSS_SELECTOR, f"[data-method={method}]").click()
        until(browser, has_counted)
        until(browser, has_nothing_to_do)
        if "no two" not in text_of(browser, ".blind .note"):
            break
    assert "lost without an error" in text_of(browser, ".blind .note")
    assert text_of(browser, "#kept") == "50 of 50"
    kept = re.fullmatch(r"(\d+) of 50", text_of(browser, "#blind"))
    assert kept is not None
    assert 0 < int(kept[1]) < 50
    assert text_of(browser, "[data-value=counter]") == "50"
    how = "took the lock" if method == "POST" else "were run again"
    assert how in text_of(browser, ".kept .note")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".kept .on")) == 50
    assert browser.find_elements(By.CSS_SELECTOR, "[aria-disabled]") == []
    assert browser.get_log("browser") == []  # no error, no policy violated


def test_the_keyboard_is_enough(browser: Chrome, url: str) -> None:
    """Tab leads to the button first, and Enter presses it."""
    browser.get(url)
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.get_attribute("data-method") == "POST"
    focused.send_keys(Keys.ENTER)
    until(browser, has_counted)
    assert text_of(browser, "#kept") == "50 of 50"
    assert browser.switch_to.active_element == focused


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("kind", ["files", "cookie"])
def test_the_page_fits(
    browser: Chrome, url: str, cookie_url: str, width: int, kind: str
) -> None:
    """Nobody scrolls sideways, on the narrowest phone neither."""
    resize(browser, width=width, height=800)
    browser.get(url if kind == "files" else cookie_url)
    across = browser.execute_script("return document.documentElement.scrollWidth")
    resize(browser, width=1280, height=800)
    assert across <= width


# -- the other two promises --------------------------------------------------------------


def pressed(browser: Chrome, trial: str) -> list[str]:
    """Press the button of a trial, and give what each side says at last."""
    browser.find_element(By.CSS_SELECTOR, f"[data-trial={trial}]").click()
    outputs = f"section:has([data-trial={trial}]) output"

    def said(browser: Chrome) -> list[str]:
        return [each.text for each in browser.find_elements(By.CSS_SELECTOR, outputs)]

    until(
        browser,
        lambda browser: (
            has_nothing_to_do(browser) and all(len(each) > 1 for each in said(browser))
        ),
    )
    return said(browser)


def test_a_slow_request_does_not_undo_a_logout(browser: Chrome, url: str) -> None:
    """The same handlers, with the store as it is, and with one that saves blindly."""
    browser.get(url)
    assert pressed(browser, "leaving") == ["stays logged out", "logged in again"]
    assert browser.get_log("browser") == []


def test_a_reader_does_not_wait(browser: Chrome, url: str) -> None:
    """With the milliseconds, which are many where every request takes the lock."""
    browser.get(url)
    ours, locked = (int(each.split()[0]) for each in pressed(browser, "reading"))
    assert ours < locked
    assert locked > 0.5 * SLOW * 1000


def test_a_trial_leaves_the_visitor_s_own_session_alone(
    browser: Chrome, url: str
) -> None:
    """It has a session of its own."""
    browser.get(url)
    sign_in(browser, "Ann")
    pressed(browser, "leaving")
    browser.refresh()
    assert "Ann" in text_of(browser, "#logout")
    browser.find_element(By.CSS_SELECTOR, "#logout button").click()
    until(browser, lambda browser: browser.find_element(By.ID, "login").is_displayed())


def test_what_the_page_says_comes_from_the_last_answer(
    browser: Chrome, url: str, tmp_path: Path
) -> None:
    """One browser ends all others; the other one says so at its next answer, unasked."""
    browser.get(url)
    sign_in(browser, "Eve")
    with chromium(tmp_path / "other") as other:
        other.get(url)
        sign_in(other, "Eve")
        other.find_element(By.CSS_SELECTOR, "#end-others button").click()
        until(other, listed(1))
    assert not browser.find_element(By.ID, "ended").is_displayed()
    browser.find_element(By.CSS_SELECTOR, "[data-method=GET]").click()
    until(browser, lambda browser: browser.find_element(By.ID, "ended").is_displayed())
    until(browser, has_nothing_to_do)
    assert browser.find_element(By.ID, "login").is_displayed()
    assert "nobody" in text_of(browser, "[data-told=session]")
    assert text_of(browser, "[data-value=counter]") == "50"


def test_a_trial_shows_too_that_the_visitor_was_logged_out(
    browser: Chrome, url: str, tmp_path: Path
) -> None:
    """Whatever is pressed, what the page says of the session is looked up again."""
    browser.get(url)
    sign_in(browser, "Kim")
    with chromium(tmp_path / "other") as other:
        other.get(url)
        sign_in(other, "Kim")
        pressed(browser, "reading")
        until(browser, listed(2))
        assert not browser.find_element(By.ID, "ended").is_displayed()
        other.find_element(By.CSS_SELECTOR, "#end-others button").click()
        until(other, listed(1))
    pressed(browser, "reading")
    assert browser.find_element(By.ID, "ended").is_displayed()
    browser.find_element(By.ID, "user").send_keys("Ro")
    pressed(browser, "reading")
    field = browser.find_element(By.ID, "user")
    assert field.get_attribute("value") == "Ro"  # what is being written stays


# -- other stores ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cookie_url() -> Iterator[str]:
    with started("--port", "0", "--store", "cookie:") as process:
        yield address(process)


def test_a_database(browser: Chrome, tmp_path: Path) -> None:
    """``--store sqlite:///x.db`` shows the same."""
    store = f"sqlite:///{tmp_path}/x.db"
    with started("--port", "0", "--store", store) as process:
        browser.get(address(process))
        sign_in(browser, "Ann")
        assert pressed(browser, "leaving") == ["stays logged out", "logged in again"]


def test_a_cookie_says_what_it_cannot_promise(browser: Chrome, cookie_url: str) -> None:
    """No trial that it would lose is pretended; it counts what is left."""
    browser.get(cookie_url)
    body = text_of(browser, "body")
    assert "A session in a cookie cannot promise this" in body
    assert "a copied cookie outlives the logout" in body
    for untrue in ("never loses", "A POST locks the session", "shows both sessions"):
        assert untrue not in body
    assert not browser.find_element(
        By.CSS_SELECTOR, "[data-trial=leaving]"
    ).is_displayed()
    sign_in(browser, "Ann")
    browser.find_element(By.CSS_SELECTOR, "[data-method=POST]").click()
    until(browser, lambda browser: " s; " in text_of(browser, ".kept .note"))
    assert "the last answer won" in text_of(browser, ".kept .note")
    assert "short" in str(
        browser.find_element(By.CLASS_NAME, "kept").get_attribute("class")
    )
    assert browser.get_log("browser") == []
    browser.find_element(By.CSS_SELECTOR, "#logout button").click()
    until(browser, lambda browser: browser.find_element(By.ID, "login").is_displayed())


def test_two_browsers_of_one_user(browser: Chrome, url: str, tmp_path: Path) -> None:
    """Each lists both sessions; one ends the other's, which is a new visitor then."""
    browser.get(url)
    sign_in(browser, "Ann <Lee>")
    until(browser, listed(1))
    with chromium(tmp_path / "other") as other:
        other.get(url)
        sign_in(other, "Ann <Lee>")
        until(other, listed(2))
        browser.refresh()
        until(browser, listed(2))
        end = "#sessions li:not([aria-current]) button"
        browser.find_element(By.CSS_SELECTOR, end).click()
        until(browser, listed(1))
        other.refresh()
        assert other.find_element(By.ID, "login").is_displayed()
    browser.find_element(By.CSS_SELECTOR, "#logout button").click()
    until(browser, lambda browser: browser.find_element(By.ID, "login").is_displayed())


def test_a_session_outlives_the_demo(browser: Chrome, tmp_path: Path) -> None:
    """The same folder and the same browser: after a restart Ann is still there."""
    store = ("--store", (tmp_path / "sessions").as_uri())
    with started("--port", "0", *store) as process:
        url = address(process)
        browser.get(url)
        sign_in(browser, "Ann")
        before = int(text_of(browser, "[data-value=visits]"))
    port = url.rstrip("/").rpartition(":")[2]
    with started("--port", port, *store) as process:
        assert address(process) == url
        browser.refresh()
        assert "Ann" in text_of(browser, "#logout")
        assert int(text_of(browser, "[data-value=visits]")) == before + 1
