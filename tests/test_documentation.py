"""What the documentation says runs: every block of Python, and every command by name."""

from __future__ import annotations

import configparser
import importlib
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sybil import Document, Sybil
from sybil.parsers.rest import CodeBlockParser, PythonCodeBlockParser
from webtest import TestApp

from .conftest import missing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

for name in ("flask", "pyramid", "bottle", "sqlalchemy"):
    pytest.importorskip(name)

ROOT = Path(__file__).parents[1]
PAGES = ["README.rst", *sorted(f"docs/{each.name}" for each in ROOT.glob("docs/*.rst"))]

RUN = ("python", "console", "ini", "toml", "nginx", "text")
"""The languages of blocks; each is looked at by a test here."""


def page(name: str, *parsers: Any) -> Document:
    path = ROOT / name
    if not path.exists():
        missing(name)
    return Sybil(parsers=list(parsers)).parse(path)


def blocks(language: str) -> Iterator[str]:
    """The blocks of one language on all pages."""
    for name in PAGES:
        for example in page(name, CodeBlockParser(language, lambda _: None)).examples():
            yield str(example.parsed)


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_python_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the lines of one module, in a folder with what the pages say to save."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSION_SECRET", secrets.token_urlsafe(32))
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copy(ROOT / "examples" / "custom_store.py", tmp_path / "dict_store.py")
    module = ModuleType("documented")
    module.__file__ = str(tmp_path / "documented.py")
    monkeypatch.setitem(sys.modules, "documented", module)
    document = page(name, PythonCodeBlockParser())
    document.namespace["__name__"] = "documented"
    for example in document.examples():
        example.evaluate()


def test_a_block_that_fails_is_found(tmp_path: Path) -> None:
    """The control."""
    wrong = tmp_path / "wrong.rst"
    wrong.write_text(".. code-block:: python\n\n    assert 1 == 2\n")
    (example,) = Sybil(parsers=[PythonCodeBlockParser()]).parse(wrong).examples()
    with pytest.raises(AssertionError):
        example.evaluate()


def test_the_counters_of_the_first_page_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tab is an application by itself, as a reader saves it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    counted = 0
    for example in page("docs/start.rst", PythonCodeBlockParser()).examples():
        source = str(example.parsed)
        if "visits" not in source:
            continue
        (tmp_path / f"counter_{counted}.py").write_text(source)
        counter = importlib.import_module(f"counter_{counted}")
        client = TestApp(counter.app, lint=False)
        assert [client.get("/").text for _ in range(2)] == [
            "This is visit 1.",
            "This is visit 2.",
        ]
        counted += 1
    assert counted == 4


def test_every_language_is_looked_at() -> None:
    for name in PAGES:
        text = (ROOT / name).read_text()
        assert {*re.findall(r"code-block:: (\w+)", text)} <= {*RUN}, name


def test_every_command_is_one() -> None:
    """Extras that there are, commands that there are, options that they have."""
    pytest.importorskip("click")
    from wsgisession._cli.commands import application

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    commands = application.commands
    for line in "\n".join(blocks("console")).splitlines():
        words = shlex.split(line)
        for extras in re.findall(rf"{project['name']}\[([\w,]+)\]", line):
            assert {*extras.split(",")} <= project["optional-dependencies"].keys(), line
        if words[:3] == ["python", "-m", "wsgisession"]:
            known = {text for each in commands[words[3]].params for text in each.opts}
            assert {word for word in words[4:] if word.startswith("--")} <= known, line


def test_every_file_of_settings_can_be_read() -> None:
    for text in blocks("ini"):
        parser = configparser.ConfigParser(strict=False, delimiters=("=",))
        parser.read_string(text)
    for text in blocks("toml"):
        tomllib.loads(text)


def test_the_user_for_redis_has_the_rights_it_needs(tmp_path: Path) -> None:
    redis = pytest.importorskip("redis")
    from wsgisession import SessionManager

    from .redis_servers import RedisServer

    (rule,) = [text.strip() for text in blocks("text") if "ACL SETUSER" in text]
    with RedisServer(tmp_path) as server:
        admin = redis.Redis.from_url(server.url)
        admin.execute_command(*rule.split())
        url = server.url.replace("redis://", "redis://sessions:password@")
        manager = SessionManager.from_config(url=url, max_sessions_per_user=2)
        session = manager.create()
        session.login("ann")
        session.save()
        with manager.edit(session.id) as held:
            held["n"] = 1
        assert [each["n"] for each in manager.sessions_of("ann")] == [1]
        assert [each.id for each in manager.sessions()] == [session.id]
        manager.ping()
        manager.end_user("ann")
        assert list(manager.sessions()) == []
        refused = {entry[b"object"] for entry in admin.execute_command("ACL", "LOG")}
        assert refused <= {b"client|setinfo"}  # redis-py tells its name where it may
        admin.close()
