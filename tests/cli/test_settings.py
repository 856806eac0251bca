"""Which sessions a command is about: arguments, variables, files of two kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wsgisession import ConfigurationError

pytest.importorskip("click")

from wsgisession._cli.settings import settings_of

SECRET = "hunter2-hunter2-and-some-more"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def found(
    config: Path | None = None,
    *,
    url: str | None = None,
    section: str | None = None,
    **environ: str,
) -> dict[str, Any]:
    return settings_of(url, config, section, environ)


def refused(*args: Any, **given: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        found(*args, **given)
    return str(caught.value)


def test_a_url_is_enough() -> None:
    """By argument or by variable."""
    assert found(url="memory:") == {"url": "memory:"}
    assert found(WSGISESSION_URL="memory:", HOME="/root") == {"url": "memory:"}


def test_every_option_has_a_variable() -> None:
    """An argument wins over the variable; an empty variable is none."""
    assert found(
        url="memory:",
        WSGISESSION_URL="redis://elsewhere",
        WSGISESSION_IDLE_TIMEOUT="30m",
        WSGISESSION_SECRET="",
    ) == {"url": "memory:", "idle_timeout": "30m"}


INI = """
[server:main]
port = 80
[app:main]
use = egg:shop
session.data_dir = %(here)s/sessions
session.idle_timeout = 30m
"""


def test_the_section_with_our_settings_is_found_by_itself(tmp_path: Path) -> None:
    """Among those of the server and of others; %(here)s is the folder of the file."""
    expected = {"data_dir": f"{tmp_path}/sessions", "idle_timeout": "30m"}
    path = written(tmp_path, "app.ini", INI)
    assert found(path) == expected
    assert found(path, section="app:main") == expected


def test_the_only_section_need_not_be_named(tmp_path: Path) -> None:
    """And bare names are understood as everywhere."""
    path = written(tmp_path, "s.ini", "[shop]\ntype = file\ndata_dir = /a\n")
    assert found(path) == {"type": "file", "data_dir": "/a"}


@pytest.mark.parametrize(
    "text",
    [
        '[session]\nurl = "memory:"\nlock_wait = 3\n',
        '[app]\ndebug = true\n[app.session]\nurl = "memory:"\nlock_wait = 3\n',
        '[app]\ndebug = true\nsession.url = "memory:"\nsession.lock_wait = 3\n',
        '[app]\n"session.url" = "memory:"\n"session.lock_wait" = 3\n[x]\na = 1\n',
        '[tool.wsgisession]\nurl = "memory:"\nlock_wait = 3\n[tool.x]\na = 1\n',
    ],
)
def test_a_toml_file(tmp_path: Path, text: str) -> None:
    """By a table of that name, or by names that begin with it."""
    assert found(written(tmp_path, "app.toml", text)) == {
        "url": "memory:",
        "lock_wait": 3,
    }


def test_a_url_wins_over_the_place_in_the_file(tmp_path: Path) -> None:
    """The same settings, another place; a variable wins as well."""
    path = written(tmp_path, "s.ini", "[session]\ndata_dir = /a\nlock_wait = 1\n")
    assert found(path, url="memory:") == {"url": "memory:", "lock_wait": "1"}
    assert found(path, WSGISESSION_LOCK_WAIT="2")["lock_wait"] == "2"


def test_each_way_not_to_say_it_is_answered_by_what_is_missing(tmp_path: Path) -> None:
    """The sections that there are are named."""
    two = written(tmp_path, "two.ini", "[one]\na = 1\n[two]\nb = 2\n")
    assert "Give --url, --config or the variable WSGISESSION_URL" in refused()
    assert "give --config too" in refused(url="memory:", section="x")
    assert "No such file" in refused(tmp_path / "gone.ini")
    assert "by --section; it has: one, two" in refused(two)
    assert "no section [three]; it has: one, two" in refused(two, section="three")
    both = written(tmp_path, "b.ini", "[a]\nsession.url = x\n[b]\nsession.url = y\n")
    assert "choose a section" in refused(both)
    assert "it has: none" in refused(written(tmp_path, "e.ini", ""))
    latin = tmp_path / "latin.ini"
    latin.write_bytes(b"[session]\nurl = \xe4\n")
    assert "not written in UTF-8" in refused(latin)


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("a.ini", f"[session]\nurl = x\nsecret = {SECRET}%\n", "must be written as %%"),
        ("a.ini", f"{SECRET}\n[session]\n", "not a well-formed .ini file"),
        ("a.ini", f"[session]\n{SECRET}\n", "not a well-formed .ini file"),
        ("a.toml", f"[session]\nsecret = {SECRET}\n", "not a well-formed .toml file"),
    ],
)
def test_an_error_in_a_file_shows_no_secret(
    tmp_path: Path, name: str, text: str, hint: str
) -> None:
    """What is wrong is said without the line that is wrong."""
    said = refused(written(tmp_path, name, text))
    assert hint in said
    assert "hunter2" not in said
