"""The examples do what they show, and are as short as they say."""

from __future__ import annotations

import ast
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.request import urlopen
from wsgiref.validate import validator

import pytest
from webtest import TestApp

import wsgisession
from wsgisession import ConfigurationError, Options, SessionManager
from wsgisession.store import LockingStore
from wsgisession.testing import IterableStoreSuite, StoreSuite

from .conftest import missing

EXAMPLES = Path(__file__).parent.parent / "examples"
NEEDS = {
    "flask_app": "flask",
    "pyramid_app": "pyramid",
    "bottle_app": "bottle",
    "falcon_app": "falcon",
    "django_app": "django",
}
SHOPS = ["plain_wsgi", *NEEDS]
"""Applications that do the same."""

ALONE = "django_app"
"""Needs a process of its own, for it configures Django, which can be done once."""

APPLICATIONS = [os.environ.get("EXAMPLE", name) for name in SHOPS if name != ALONE]
APPLICATIONS = list(dict.fromkeys(APPLICATIONS))


def load(name: str) -> ModuleType:
    """An example as a module of its own."""
    if name == ALONE and name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def needs(name: str) -> None:
    framework = NEEDS.get(name)
    if framework is not None and importlib.util.find_spec(framework) is None:
        missing(framework)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def eventually(ask: Callable[[], bytes]) -> bytes:
    """What a server answers that is still starting."""
    until = time.monotonic() + 60
    while True:
        try:
            return ask()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def code_lines(path: Path) -> set[int]:
    """The numbers of the lines that hold code, and not only words or nothing."""
    source = path.read_text()
    words = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(source.splitlines(), start=1)
    code = {number for number, line in lines if line.strip(" ").partition("#")[0]}
    return code - words


@pytest.fixture(params=APPLICATIONS)
def application(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Each application in turn, on files of its own, watched by wsgiref.validate."""
    needs(request.param)
    monkeypatch.setenv("SESSION_URL", (tmp_path / "sessions").as_uri())
    return validator(load(request.param).application)


@pytest.fixture
def visitor(application: Any) -> TestApp:
    return TestApp(application, lint=False)


def submit(visitor: TestApp, form: str, **fields: str) -> Any:
    """Fill in a form of the page, send it, and give the page that comes after."""
    filled = visitor.get("/").forms[form]
    for name, value in fields.items():
        filled[name] = value
    answer = filled.submit()
    assert answer.status_int in (302, 303)
    return answer.follow()


def test_visits_are_counted(visitor: TestApp, application: Any) -> None:
    """Each visitor has a count of their own."""
    visitor.get("/").mustcontain("Visit 1 of a stranger")
    visitor.get("/").mustcontain("Visit 2 of a stranger")
    TestApp(application, lint=False).get("/").mustcontain("Visit 1 of a stranger")


def test_a_change_inside_a_list_is_kept(visitor: TestApp) -> None:
    """What is appended to the list in the session is on the next page, as text."""
    submit(visitor, "add", item="milk")
    page = submit(visitor, "add", item="<b>br\u00f6d</b>")
    page.mustcontain("<li>milk</li>", "<li>&lt;b&gt;br\u00f6d&lt;/b&gt;</li>")


def test_a_login_keeps_the_values_and_changes_the_cookie(visitor: TestApp) -> None:
    """The shopping list stays, the token does not."""
    submit(visitor, "add", item="milk")
    ((name, before),) = visitor.cookies.items()
    submit(visitor, "login", user="<Ann>").mustcontain("of &lt;Ann&gt;", "milk")
    assert visitor.cookies[name] != before


def test_a_logout_leaves_nothing(visitor: TestApp, application: Any) -> None:
    """The page begins anew, and the old cookie leads nowhere."""
    submit(visitor, "login", user="Ann")
    submit(visitor, "add", item="milk")
    thief = TestApp(application, lint=False)
    ((name, stolen),) = visitor.cookies.items()
    thief.set_cookie(name, stolen)
    thief.get("/").mustcontain("of Ann", "milk")
    page = submit(visitor, "logout")
    page.mustcontain("Visit 1 of a stranger", no=["milk"])
    thief.get("/").mustcontain("Visit 1 of a stranger", no=["milk"])


@pytest.mark.parametrize(("path", "field"), [("/add", "item"), ("/login", "user")])
def test_an_empty_form_is_the_clients_error(
    visitor: TestApp, path: str, field: str
) -> None:
    """A form without its field, or with nothing in it, is no error of ours."""
    visitor.post(path, {}, status=400)
    visitor.post(path, {field: ""}, status=400)
    visitor.get("/").mustcontain("of a stranger", no=["<li>"])


def test_an_unknown_address_is_not_found(visitor: TestApp) -> None:
    """Elsewhere there is nothing, and no session."""
    answer = visitor.get("/nowhere", status=404)
    assert "Set-Cookie" not in answer.headers


@pytest.mark.skipif("EXAMPLE" in os.environ, reason="this is that process")
def test_djangos_does_the_same() -> None:
    """All tests that are given an application, in a process of its own."""
    needs(ALONE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    package = str(Path(wsgisession.__file__).parent.parent)
    environment = {**os.environ, "EXAMPLE": ALONE, "PYTHONPATH": package}
    environment.pop("PYTEST_XDIST_WORKER", None)
    run = subprocess.run(
        [*command, "-k", f"[{ALONE}] and not script"],
        cwd=EXAMPLES.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert int(run.stdout.split(" passed")[0].split()[-1]) >= 6, run.stdout


@pytest.mark.parametrize("name", SHOPS)
def test_each_is_short_and_says_how_to_run_it(name: str) -> None:
    """One file, under 100 lines, with what to install and the one command."""
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 100
    assert f"python examples/{name}.py" in (EXAMPLES / f"{name}.py").read_text()


@pytest.mark.parametrize("name", SHOPS)
def test_each_runs_as_a_script(name: str, tmp_path: Path) -> None:
    """By itself it keeps its files in a private folder below the user's cache."""
    needs(name)
    port = free_port()
    package = Path(wsgisession.__file__).parent.parent  # installed or not
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PORT": str(port),
        "PYTHONPATH": str(package),
    }
    environment.pop("SESSION_URL", None)
    process = subprocess.Popen(
        [sys.executable, EXAMPLES / f"{name}.py"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        page = eventually(lambda: urlopen(f"http://127.0.0.1:{port}/").read())
    finally:
        process.terminate()
        process.wait()
    assert b"Visit 1 of a stranger" in page
    folder = tmp_path / ".cache" / "wsgisession-examples"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_members_log_out_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flask-Login on sessions of the server."""
    pytest.importorskip("flask_login")
    monkeypatch.setenv("SESSION_URL", f"sqlite:///{tmp_path}/members.db")
    application = load("flask_login_app").application
    one, two = (TestApp(application, lint=False) for _ in range(2))
    for browser in (one, two):
        form = browser.get("/").forms["login"]
        form["user"], form["remember"] = "ann", True
        page = form.submit().follow()
    page.mustcontain("You are ann, in 2 browsers.")
    before = one.cookies["session"]
    one.get("/").forms["everywhere"].submit()
    one.get("/").mustcontain("You are nobody.")
    thief = TestApp(application, lint=False)
    thief.set_cookie("session", before)
    thief.get("/").mustcontain("You are nobody.")
    assert two.cookies["remember_token"]
    two.get("/")  # remembered, by Flask-Login's own cookie
    two.get("/").mustcontain("You are ann, in 1 browsers.")


def test_beakers_sessions_move_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real Beaker: once, with their values, and the old one is empty then."""
    beaker = pytest.importorskip("beaker.middleware")
    monkeypatch.setenv("BEAKER_DIR", str(tmp_path / "beaker"))
    monkeypatch.setenv("SESSION_URL", (tmp_path / "sessions").as_uri())
    example = load("beaker_migration")

    def before(environ: Any, start_response: Any) -> list[bytes]:
        session = environ["beaker.session"]
        session.update(user="ann", visits=41)
        session.save()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"in"]

    browser = TestApp(beaker.SessionMiddleware(before, example.OLD), lint=False)
    browser.get("/")
    old = browser.cookies["beaker.session.id"]
    browser.app = example.application
    browser.get("/").mustcontain("Visit 42 of ann")
    browser.get("/").mustcontain("Visit 43 of ann")
    assert list(browser.cookies) == ["sid"]
    stranger = TestApp(example.application, lint=False)
    stranger.set_cookie("beaker.session.id", old)
    stranger.get("/").mustcontain("Visit 1 of None")


def test_a_user_sees_their_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the login that the example links to, to the end of the other browser."""
    monkeypatch.chdir(tmp_path)  # the database is made where it runs
    application = load("your_sessions").application
    one, two = (TestApp(application, lint=False) for _ in range(2))
    for browser in (one, two):
        page = browser.get("/account/sessions", status=403).click("Log in")
        page.mustcontain("You are ann.")
    page = one.get("/account/sessions/")
    page.forms[len(page.forms) - 1].submit("others", status=303).follow(status=200)
    two.get("/").mustcontain("You are nobody.")
    one.get("/").mustcontain("You are ann.")


class TestDictStore(StoreSuite, IterableStoreSuite):
    """A third party's store of 40 lines; it does not lock, and does not claim to."""

    @pytest.fixture
    def store(self) -> Any:
        return load("custom_store").DictStore()

    def test_it_has_forty_lines(self) -> None:
        """Without docstrings, comments and blank lines."""
        assert len(code_lines(EXAMPLES / "custom_store.py")) <= 40

    def test_it_does_not_claim_to_lock(self, store: Any) -> None:
        """So nobody asks it to, and what it would need to is refused by name."""
        assert not isinstance(store, LockingStore)
        with pytest.raises(ConfigurationError, match="DictStore cannot"):
            SessionManager(store, Options(locking="always"))
