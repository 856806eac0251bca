"""Importing the package is cheap, and asks for nothing that is not used."""

from __future__ import annotations

import http.cookies
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

import wsgisession
from wsgisession import SessionManager, SessionMiddleware, get_session
from wsgisession.stores.memory import MemoryStore

from .conftest import SECRET

ROOT = Path(wsgisession.__file__).parents[1]
DRIVERS = ["redis", "hiredis", "sqlalchemy", "filelock", "cryptography", "psycopg"]
FRAMEWORKS = ["flask", "pyramid", "bottle", "django", "werkzeug", "beaker"]
TOOLS = ["pytest", "hypothesis", "webtest", "pickle_", "msgpack"]


def imported(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


class TestImport:
    def test_brings_no_driver_and_no_framework(self) -> None:
        """``import wsgisession`` works where none of them is installed."""
        before = imported("")
        after = imported("import wsgisession")
        assert "wsgisession" in after
        assert not (after - before) & {*DRIVERS, *FRAMEWORKS, *TOOLS}

    def test_a_session_in_memory_brings_none_either(self) -> None:
        """A store is imported when it is asked for, and no other with it."""
        after = imported(
            "from wsgisession import SessionMiddleware as M; M(print, {'type': 'memory'})"
        )
        assert not after & {*DRIVERS, *FRAMEWORKS, "pytest"}

    def test_the_control(self) -> None:
        """What a store does import is seen here."""
        assert "filelock" in imported("import wsgisession.stores.file")

    def test_everything_promised_is_there(self) -> None:
        """The names of the documentation can be imported from the top."""
        names = (
            "SessionMiddleware SessionManager Session get_session Options Record Key"
        )
        names += " ConfigurationError StoreError Conflict LockTimeout SessionError"
        names += " SessionConflict SessionEnded SessionClosed SessionTooLarge"
        names += " SerializationError JSONSerializer Clash ABSENT"
        assert all(hasattr(wsgisession, name) for name in names.split())


def test_the_version_is_the_distribution_s() -> None:
    """``__version__`` says what the installed distribution, or its source, says."""
    try:
        said = version("wsgisession-middleware")
    except PackageNotFoundError:
        project = ROOT / "pyproject.toml"
        if not project.exists():
            pytest.skip("neither the distribution nor its source is here")
        match = re.search(
            r'^version = "(.+)"$', project.read_text("utf-8"), re.MULTILINE
        )
        assert match is not None
        said = match[1]
    assert wsgisession.__version__ == said


def test_cookies_are_not_read_by_http_cookies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is served though ``http.cookies`` would fail on any header."""

    def fail(*args: Any) -> None:
        raise AssertionError("http.cookies was asked to read")

    monkeypatch.setattr(http.cookies.BaseCookie, "load", fail)
    monkeypatch.setattr("webob.cookies._parse_cookie", fail)
    manager = SessionManager.from_config(store=MemoryStore(), secret=SECRET)
    session = manager.create()
    session["a"] = 1
    session.save()
    seen = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(get_session(environ)["a"])
        start_response("200 OK", [])
        return [b""]

    environ = {
        "REQUEST_METHOD": "GET",
        "wsgi.url_scheme": "http",
        "HTTP_COOKIE": f"null; session={session.token}",
    }
    SessionMiddleware(application, manager=manager)(environ, lambda *args: print)
    assert seen == [1]
