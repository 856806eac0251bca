"""The commands: what they say, what they do, and how they end."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine

from wsgisession import SessionManager, StoreError
from wsgisession._cli import main

from ..conftest import SECRET

pytest.importorskip("click")

from wsgisession._cli import commands

PROJECT = Path(__file__).parent.parent.parent
LONG = os.environ.get("LONG_TESTS") == "1"
NAMES = sorted(commands.application.commands)
ABOUT_SESSIONS = sorted({*NAMES} - {"demo", "secret"})

ON_EVERY_KIND = pytest.mark.parametrize(
    "kind",
    ["file", "sqlite", "postgresql", "mariadb", "redis"],
    indirect=True,
    scope="session",
)


class Place:
    """Where the sessions of a test are, with some in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.manager = SessionManager.from_config(url=url)
        self.store: Any = self.manager.store

    def begun(self, user: str | None = None, **values: Any) -> str:
        session = self.manager.create()
        session.update(values)
        if user is not None:
            session.login(user, device="phone")
        session.save()
        return session.id

    def expired(self, count: int) -> None:
        past = SessionManager(self.store, clock=lambda: time.time() - 60 * 86400)
        for _ in range(count):
            past.create().save()

    def run(self, *argv: str) -> int:
        return main([argv[0], "--url", self.url, *argv[1:]])


@pytest.fixture
def place(url_of_kind: str) -> Iterator[Place]:
    made = Place(url_of_kind)
    for session in list(made.manager.sessions()):
        made.manager.end(session.id)
    yield made
    getattr(made.store, "close", lambda: None)()


@pytest.fixture
def folder(tmp_path: Path) -> Place:
    """A file store."""
    return Place((tmp_path / "sessions").as_uri())


# -- in general --------------------------------------------------------------------------


def test_help_names_every_command() -> None:
    """``python -m wsgisession --help`` tells all there is."""
    command = [sys.executable, "-m", "wsgisession", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in NAMES:
        assert f"  {name} " in said


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each explains its own arguments."""
    assert main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"Usage: wsgisession {name}" in said
    assert ("--config" in said) == (name in ABOUT_SESSIONS)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the library."""
    import wsgisession

    assert main(["--version"]) == 0
    assert wsgisession.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "Commands:"),
        (["clean"], "'clean'"),
        (["cleanup", "--urk", "memory:"], "--urk"),
        (["demo", "--port", "65536"], "65536 is not in the range"),
        (["demo", "--port", "http"], "'http' is not a valid integer"),
        (["end", "--url", "memory:"], "say which: ids, or --user, or --all"),
        (["end", "a", "--user", "b", "--url", "memory:"], "say which"),
        (["end", "a", "--keep", "b", "--url", "memory:"], "--keep belongs to --user"),
        (["cleanup"], "Give --url, --config or the variable WSGISESSION_URL"),
        (["list", "--url", "memory:", "--section", "x"], "give --config too"),
    ],
)
def test_what_is_unknown_is_refused_by_name(
    argv: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No command, an unknown one, an unknown option, a wrong value: exit status 2."""
    assert main(argv) == 2
    said = capsys.readouterr()
    assert named in said.err
    assert said.out == ""


def test_without_its_packages_it_says_what_to_install() -> None:
    """In one sentence, and the library works."""
    code = (
        "import sys; sys.modules['click'] = None\n"
        "import wsgisession; from wsgisession._cli import main; sys.exit(main(['list']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert 'pip install "wsgisession-middleware[cli]"' in done.stderr


def test_an_interrupt_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends a command with the status of an interrupt, and quietly."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(SessionManager, "delete_expired", interrupted)
    assert main(["cleanup", "--url", "memory:"]) == 130
    assert capsys.readouterr().err == ""


def test_a_closed_pipe_is_quiet(folder: Place) -> None:
    """As in ``wsgisession list | head -1``."""
    for number in range(2000):
        folder.begun(n=number)
    command = f"{sys.executable} -m wsgisession list --url {folder.url} | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        text=True,
        cwd=PROJECT,
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert done.returncode == 141


# -- stores that are not there -----------------------------------------------------------


def unreachable() -> str:
    with socket.socket() as taken:  # bound, and nothing listens
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("name", ABOUT_SESSIONS)
@pytest.mark.parametrize("kind", ["redis", "postgresql+psycopg", "mysql+pymysql"])
def test_a_store_out_of_reach_is_a_failure(
    name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every command: status 1, host and cause, and never "0 deleted"."""
    place = unreachable()
    more = {"show": ["a"], "end": ["a"]}.get(name, [])
    url = f"{kind}://ann:hunter2@{place}/0"
    assert main([name, "--url", url, *more]) == 1
    said = capsys.readouterr()
    assert place in said.err + said.out
    assert re.search("refused|111|failed", said.err + said.out)
    assert "hunter2" not in said.err + said.out
    assert not re.search(r"\b0 (expired|session)", said.out)


@pytest.mark.parametrize("name", sorted({*ABOUT_SESSIONS} - {"init"}))
def test_pitfall_a_mistyped_place_is_no_success(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a folder nor a database is made, in which nothing could be found."""
    gone = tmp_path / "gone"
    config = tmp_path / "s.ini"
    config.write_text(f"[session]\nsession.data_dir = {gone}\n")
    more = {"show": ["a"], "end": ["a"]}.get(name, [])
    for where in (
        ("--url", gone.as_uri()),
        ("--url", f"sqlite:///{gone}"),
        ("--url", f"sqlite+pysqlite:///{gone}?timeout=5"),
        ("--config", str(config)),
    ):
        assert main([name, *where, *more]) == (1 if name == "doctor" else 2)
        said = capsys.readouterr()
        assert str(gone) in said.err + said.out
        assert not gone.exists()


def test_a_database_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, so that a job's mail can be read; with --verbose the cause."""
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database" * 100)
    url = f"sqlite:///{broken}"
    assert main(["cleanup", "--url", url]) == 1
    said = capsys.readouterr().err
    assert said.startswith("wsgisession: ")
    assert said.count("\n") == 1
    assert main(["cleanup", "--url", url, "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_verbose_shows_no_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a driver puts into its errors."""

    def fails(self: object) -> None:
        raise StoreError(f"hunter2 at {SECRET} was refused")

    monkeypatch.setattr(SessionManager, "ping", fails)
    monkeypatch.setenv("WSGISESSION_SECRET", SECRET)
    url = "redis://ann:hunter2@localhost/0"
    for more in ([], ["--verbose"]):
        assert main(["list", "--url", url, *more]) == 1
        said = capsys.readouterr().err
        assert "*** at *** was refused" in said
        assert "hunter2" not in said
        assert SECRET not in said


def test_what_a_cookie_store_cannot_do_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its sessions are with the clients."""
    monkeypatch.setenv("WSGISESSION_SECRET", SECRET)
    for argv in (["list"], ["stats"], ["cleanup"], ["end", "--all", "--yes"]):
        assert main([argv[0], "--url", "cookie:", *argv[1:]]) == 2
        assert "cannot list its sessions" in capsys.readouterr().err


def test_of_cookies_the_ends_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ``revocation`` there is something on the server that expires."""
    monkeypatch.setenv("WSGISESSION_SECRET", SECRET)
    monkeypatch.setenv("WSGISESSION_REVOCATION", f"sqlite:///{tmp_path}/marks.db")
    monkeypatch.setenv("WSGISESSION_ABSOLUTE_TIMEOUT", "60")
    manager = SessionManager.from_config(
        url="cookie:",
        secret=SECRET,
        revocation=f"sqlite:///{tmp_path}/marks.db",
        absolute_timeout=60,
    )
    manager.end_user("ann")
    assert main(["cleanup", "--url", "cookie:", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deleted"] == 0
    with time_machine.travel(time.time() + 3 * 86400):
        assert main(["cleanup", "--url", "cookie:", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deleted"] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_the_folder_of_another_user_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name: what root writes there the application could not read."""
    url = f"file://{tmp_path}/s" if kind == "file" else f"sqlite:///{tmp_path}/s"
    place = Place(url)
    place.begun()
    getattr(place.store, "close", lambda: None)()
    os.chown(tmp_path / "s", 33, 33)
    for name in ("list", "cleanup", "init", "doctor"):
        assert place.run(name) == 2
        assert "belongs to www-data" in capsys.readouterr().err


# -- list, show, end, stats --------------------------------------------------------------


@ON_EVERY_KIND
def test_list_and_show(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """One a line, with tabs between; what is in a session only if it is asked for."""
    ann, bob = place.begun("ann", cart=["pen"]), place.begun("bob")
    anonymous = place.begun(n=1)
    assert place.run("list") == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert {line[0]: line[1] for line in lines} == {
        ann: "ann",
        bob: "bob",
        anonymous: "-",
    }
    assert {line[5] for line in lines} == {"device=phone", ""}
    assert place.run("list", "--user", "ann", "--json") == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (row["id"], row["user"]) == (ann, "ann")
    assert place.run("show", ann) == 0
    said = capsys.readouterr().out
    assert re.search(r"^keys +cart$", said, re.M)
    assert "pen" not in said
    assert place.run("show", ann, "--values") == 0
    assert re.search(r"^  cart +\['pen'\]$", capsys.readouterr().out, re.M)
    assert place.run("show", ann, "--values", "--json") == 0
    assert json.loads(capsys.readouterr().out)["values"] == {"cart": ["pen"]}
    assert place.run("show", "0" * 32) == 1
    assert "there is no session" in capsys.readouterr().err


@ON_EVERY_KIND
def test_end(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """One, those of a user, those but one, all."""
    ids = [place.begun("ann") for _ in range(4)]
    bob = place.begun("bob")
    assert place.run("end", ids[0], bob) == 0
    assert capsys.readouterr().out == "2 sessions ended\n"
    assert place.run("end", ids[0]) == 1
    said = capsys.readouterr()
    assert said.out == "0 sessions ended\n"
    assert "1 of them were not there" in said.err
    assert place.run("end", "--user", "ann", "--keep", ids[1]) == 0
    assert capsys.readouterr().out == "2 sessions ended\n"
    assert [session.id for session in place.manager.sessions()] == [ids[1]]
    place.begun()
    assert place.run("end", "--all", "--yes", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"ended": 2}
    assert list(place.manager.sessions()) == []


def test_the_end_of_all_is_asked_for(folder: Place) -> None:
    """Nobody is logged out by a command that was recalled from the history."""
    folder.begun()
    command = [sys.executable, "-m", "wsgisession", "end", "--all", "--url", folder.url]
    for answer, left in (("n\n", 1), ("", 1), ("y\n", 0)):
        subprocess.run(
            command, input=answer, text=True, capture_output=True, cwd=PROJECT
        )
        assert len(list(folder.manager.sessions())) == left


@ON_EVERY_KIND
def test_stats(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts of sessions and users, the oldest, the biggest."""
    for _ in range(3):
        place.begun("ann", text="x" * 100)
    place.begun("bob")
    place.begun(n=1)
    assert place.run("stats", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["sessions"], said["logged in"], said["users"]) == (5, 4, 2)
    assert (said["most of one user"], said["most octets"] > 100) == (3, True)
    assert place.run("stats") == 0
    assert re.search(r"^sessions +5$", capsys.readouterr().out, re.M)
    for session in list(place.manager.sessions()):
        place.manager.end(session.id)
    assert place.run("stats") == 0
    assert re.search(r"^oldest +-$", capsys.readouterr().out, re.M)


# -- cleanup and init --------------------------------------------------------------------


@ON_EVERY_KIND
def test_cleanup_deletes_what_is_over(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lives stays; a second time there is none.  Redis has done it by itself."""
    place.expired(2)
    place.begun()
    deleted = 0 if place.url.startswith("redis") else 2
    for count in (deleted, 0):
        assert place.run("cleanup") == 0
        out = capsys.readouterr().out
        assert out.startswith(f"{count} expired sessions deleted in ")
    assert place.run("cleanup", "--json") == 0
    assert json.loads(capsys.readouterr().out)["deleted"] == 0
    assert len(list(place.manager.sessions())) == 1


def in_a_terminal(*argv: str) -> tuple[str, int]:
    """What a person sees, and the exit status."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "wsgisession", *argv],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=PROJECT,
        env={**os.environ, "COLUMNS": "100", "TERM": "xterm-256color"},
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    return seen.decode(), process.wait(60)


@ON_EVERY_KIND
def test_cleanup_in_a_terminal_shows_how_far_it_is(place: Place) -> None:
    """Issue 10: 100,000 on each store in the long tests; here two batches and a bit."""
    if place.url.startswith("redis"):
        seen, status = in_a_terminal("cleanup", "--url", place.url)
        assert (status, "0 expired sessions deleted in" in seen) == (0, True)
        return
    count = 100_000 if LONG else 2500
    place.expired(count)
    seen, status = in_a_terminal("cleanup", "--url", place.url)
    assert status == 0
    assert "1000 expired sessions deleted" in seen
    assert "2000 expired sessions deleted" in seen
    assert f"{count} expired sessions deleted in" in seen
    assert "\u2501" in seen  # the bar


def test_a_list_in_a_terminal_is_a_table(folder: Place) -> None:
    """With names above the columns."""
    id = folder.begun("ann")
    seen, status = in_a_terminal("list", "--url", folder.url)
    assert status == 0
    assert "last accessed" in seen
    assert id[:8] in seen


@ON_EVERY_KIND
def test_init(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A database has its table after it, and it may be run again."""
    is_database = not place.url.startswith(("file", "redis"))
    for _ in range(2):
        assert place.run("init") == 0
        said = capsys.readouterr().out
        assert ("the table is there" if is_database else "nothing to create") in said


def test_init_of_what_is_around_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through encryption and a cache to the store that has the table."""
    pytest.importorskip("cryptography")
    monkeypatch.setenv("WSGISESSION_SECRET", SECRET)
    monkeypatch.setenv("WSGISESSION_ENCRYPT", "true")
    monkeypatch.setenv("WSGISESSION_CACHE_URL", "memory:")
    assert main(["init", "--url", f"sqlite:///{tmp_path}/s.db"]) == 0
    assert capsys.readouterr().out == "the table is there\n"


def test_a_secret_is_new_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    """And good enough for the option of this name."""
    found = set()
    for _ in range(3):
        assert main(["secret"]) == 0
        found.add(capsys.readouterr().out.strip())
    assert len(found) == 3
    SessionManager.from_config(url="cookie:", secret=found.pop())
