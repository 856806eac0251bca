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
NEEDS = {"flask_app": "flask", "pyramid_app": "pyramid", "bottle_app": "bottle"}
APPLICATIONS = ["plain_wsgi", *NEEDS]


def load(name: str) -> ModuleType:
    """An example as a module of its own."""
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
    assert answer.status_int == 303
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


@pytest.mark.parametrize("name", APPLICATIONS)
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
