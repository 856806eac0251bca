"""Importing the package is cheap, and asks for nothing that is not used."""

from __future__ import annotations

import http.cookies
import importlib.util
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
NEEDED = ["webob", "itsdangerous"]
CGI = "def parse_header(line): ...\nclass FieldStorage: ...\n"
"""What WebOb imports, and Python has no more from 3.13: the distribution ``legacy-cgi``
brings it."""

DRIVERS = ["redis", "hiredis", "sqlalchemy", "filelock", "cryptography", "psycopg"]
FRAMEWORKS = ["flask", "pyramid", "bottle", "django", "werkzeug", "beaker"]
TOOLS = ["pytest", "hypothesis", "webtest", "msgpack"]
UNWANTED = [*DRIVERS, *FRAMEWORKS, *TOOLS]

OLDEST = 10
"""Of the Pythons 3.x: the oldest that is supported."""


def interpreters() -> dict[str, str]:
    """The Pythons of this machine, by version: on the path, or kept by pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    on_path = [Path(each) for each in os.get_exec_path()]
    found = {"{}.{}".format(*sys.version_info): sys.executable}
    for folder in [*pyenv.glob("versions/*/bin"), *on_path]:
        if folder == pyenv / "shims":
            continue  # a shim runs only what its user has chosen
        for path in folder.glob("python3.*"):
            match = re.fullmatch(r"python(3\.(\d+))", path.name)
            if match is not None and int(match[2]) >= OLDEST:
                found.setdefault(match[1], str(path))
    return found


INTERPRETERS = interpreters()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what the library needs, and of decoys for what it must not import."""
    folder = tmp_path_factory.mktemp("packages")
    for name in NEEDED:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (folder / name).symlink_to(Path(spec.origin).parent)
    (folder / "wsgisession").symlink_to(ROOT / "wsgisession")
    for name in UNWANTED:
        (folder / f"{name}.py").touch()
    (folder / "cgi").mkdir()
    (folder / "cgi" / "cgi.py").write_text(CGI)
    return folder


def run(packages: Path, code: str, version: str = "") -> tuple[str, str]:
    """What a fresh interpreter says that takes warnings for errors, out and beside."""
    python = INTERPRETERS.get(version, sys.executable)
    path = [str(packages)]
    if int((version or "{}.{}".format(*sys.version_info)).split(".")[1]) >= 13:
        path.append(str(packages / "cgi"))
    done = subprocess.run(
        [python, "-S", "-B", "-W", "error", "-c", code],
        env={"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout, done.stderr


def imported(packages: Path, code: str, version: str = "") -> set[str]:
    """The top-level modules that it has after some code, which gives no warning."""
    said, errors = run(packages, f"{code}\nimport sys; print(*sys.modules)", version)
    assert errors == ""
    return {name.partition(".")[0] for name in said.split()}


class TestImport:
    @pytest.mark.parametrize("version", INTERPRETERS)
    def test_brings_no_driver_no_framework_and_no_warning(
        self, packages: Path, version: str
    ) -> None:
        """On every Python here: it works where none of them is installed."""
        after = imported(packages, "import wsgisession", version)
        assert "wsgisession" in after
        assert not after & set(UNWANTED)

    def test_a_session_in_memory_brings_none_either(self, packages: Path) -> None:
        """A store is imported when it is asked for, and no other with it."""
        code = "from wsgisession import SessionMiddleware as M; M(print, type='memory')"
        assert not imported(packages, code) & set(UNWANTED)

    def test_the_control(self, packages: Path) -> None:
        """What a store does import is seen here."""
        assert "filelock" not in imported(packages, "import wsgisession.stores")
        _, errors = run(packages, "import wsgisession.stores.file")
        assert "'filelock'" in errors, "the decoy has nothing to offer"
        _, errors = run(packages, "import warnings; warnings.warn('as an error')")
        assert "UserWarning" in errors

    def test_everything_promised_is_there(self) -> None:
        """What can be imported from the top is what ``__all__`` says, and no more."""
        public = {name for name in vars(wsgisession) if not name.startswith("_")}
        modules = {name for name in public if f"wsgisession.{name}" in sys.modules}
        assert public - modules == set(wsgisession.__all__) - {"events"}
        assert sorted(wsgisession.__all__) == list(wsgisession.__all__)


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
        "HTTP_COOKIE": f"null; sid={manager.token_of(session)}",
    }
    SessionMiddleware(application, manager=manager)(environ, lambda *args: print)
    assert seen == [1]
