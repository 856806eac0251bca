"""The command line: what it says, what it does, and how it ends."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsgisession import SessionManager
from wsgisession.cli import COMMANDS, main
from wsgisession.stores.sqlalchemy import SQLAlchemyStore

SECRET = "hunter2-hunter2-and-some-more"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file store with two sessions that are over, and one that is not."""
    folder = tmp_path / "sessions"
    settings = {"type": "file", "data_dir": str(folder)}
    store = SessionManager.from_config(settings).store
    past = SessionManager(store, clock=lambda: time.time() - 60 * 86400)
    for manager in (past, past, SessionManager(store)):
        manager.create().save()
    return folder


def sessions(folder: Path) -> int:
    """How many files there are below a store."""
    return sum(path.is_file() for path in (folder / "records").rglob("*"))


def ini(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that cannot work, and give what it says."""
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("wsgisession: ")
    return said.err


# -- in general --------------------------------------------------------------------------


def test_help_names_every_command() -> None:
    """``python -m wsgisession --help`` tells all there is."""
    command = [sys.executable, "-m", "wsgisession", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for each in COMMANDS:
        assert each.name in said
        assert each.help in " ".join(said.split())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help(
    command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each explains its own arguments."""
    with pytest.raises(SystemExit) as ended:
        main([command.name, "--help"])  # type: ignore[attr-defined]
    assert ended.value.code == 0
    assert "usage: wsgisession" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "COMMAND"),
        (["clean"], "'clean'"),
        (["cleanup", "--urk", "memory:"], "--urk"),
        (["demo", "--port", "65536"], "'65536' is no port"),
        (["demo", "--port", "http"], "'http' is no port"),
    ],
)
def test_what_is_unknown_is_refused_by_name(
    argv: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No command, an unknown one, an unknown option, a wrong value: exit status 2."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


def test_an_interrupt_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends a command with the status of an interrupt, and quietly."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(SessionManager, "delete_expired", interrupted)
    assert main(["cleanup", "--url", "memory:"]) == 130
    assert capsys.readouterr().err == ""


# -- cleanup -----------------------------------------------------------------------------


def test_cleanup_deletes_what_is_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two that expired go, the one that lives stays; a second time there is none."""
    assert sessions(folder) == 3
    assert main(["cleanup", "--url", folder.as_uri()]) == 0
    assert capsys.readouterr().out.startswith("2 expired sessions deleted")
    assert sessions(folder) == 1
    assert main(["cleanup", "--url", folder.as_uri()]) == 0
    assert capsys.readouterr().out.startswith("0 expired sessions deleted")


def test_a_terminal_sees_how_far_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The progress line is for people; a nightly job's mail has the result alone."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    main(["cleanup", "--url", folder.as_uri()])
    assert "\r2 expired sessions deleted so far" in capsys.readouterr().err


def test_the_settings_come_from_the_applications_file(
    folder: Path, tmp_path: Path
) -> None:
    """Foreign settings in the section are ignored, and %(here)s is the file's folder."""
    config = ini(
        tmp_path / "app.ini",
        "[server:main]\nport = 80\n[app:main]\nuse = egg:shop\n"
        "session.data_dir = %(here)s/sessions\nsession.idle_timeout = 30m\n",
    )
    assert main(["cleanup", "--config", config, "--section", "app:main"]) == 0
    assert sessions(folder) == 1


def test_the_only_section_need_not_be_named(folder: Path, tmp_path: Path) -> None:
    """And bare names are understood as everywhere."""
    config = ini(tmp_path / "s.ini", f"[session]\ntype = file\ndata_dir = {folder}\n")
    assert main(["cleanup", "--config", config]) == 0
    assert sessions(folder) == 1


def test_a_url_wins_over_the_file(folder: Path, tmp_path: Path) -> None:
    """The same settings, another place."""
    config = ini(tmp_path / "s.ini", "[session]\nurl = memory:\n")
    assert main(["cleanup", "--config", config, "--url", folder.as_uri()]) == 0
    assert sessions(folder) == 1


def test_cleanup_needs_to_know_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each way not to say it is answered by what is missing."""
    two = ini(tmp_path / "two.ini", "[one]\na = 1\n[two]\nb = 2\n")
    gone = str(tmp_path / "gone.ini")
    cleanup = ("cleanup", "--config")
    assert "Give --url or --config" in refused(capsys, "cleanup")
    assert "give --config too" in refused(
        capsys, "cleanup", "--url", "memory:", "--section", "x"
    )
    assert "No such file" in refused(capsys, *cleanup, gone)
    assert "it has: one, two" in refused(capsys, *cleanup, two)
    assert "no section [three]" in refused(capsys, *cleanup, two, "--section", "three")
    assert "no option 'a'" in refused(
        capsys, *cleanup, two, "--section", "one", "--url", "memory:"
    )


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (f"[session]\nurl = memory:\nsecret = {SECRET}%\n", "must be written as %%"),
        (f"{SECRET}\n[session]\n", "not a well-formed .ini file"),
        (f"[session]\n{SECRET}\n", "not a well-formed .ini file"),
        (f"[session]\nurl = memory:\nsecret = {SECRET}\n", "is too short"),
    ],
)
def test_an_error_in_a_file_shows_no_secret(
    tmp_path: Path, text: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong is said without the line that is wrong."""
    said = refused(capsys, "cleanup", "--config", ini(tmp_path / "app.ini", text))
    assert hint in said
    assert "hunter2" not in said


def test_an_outage_is_one_line_and_another_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store that fails ends the command with 1, so that a job can tell."""
    (tmp_path / "broken.db").write_bytes(b"this is no database" * 100)
    assert main(["cleanup", "--url", f"sqlite:///{tmp_path / 'broken.db'}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("wsgisession: ")
    assert said.count("\n") == 1


def test_pitfall_a_mistyped_place_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a folder nor a database is made, in which nothing could be found."""
    gone = tmp_path / "gone"
    config = ini(tmp_path / "s.ini", f"[session]\nsession.data_dir = {gone}\n")
    for where in (
        ("--url", gone.as_uri()),
        ("--url", f"sqlite:///{gone}"),
        ("--url", f"sqlite+pysqlite:///{gone}?timeout=5"),
        ("--config", config),
    ):
        assert f"no sessions at {gone}:" in refused(capsys, "cleanup", *where)
        assert not gone.exists()


@pytest.mark.parametrize("command", ["cleanup", "init"])
def test_pitfall_a_store_out_of_reach_is_no_success(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Redis forgets by itself, so that nothing else would ask it anything."""
    with socket.socket() as taken:  # bound, but nothing listens
        taken.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{taken.getsockname()[1]}/0"
        assert main([command, "--url", url]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("wsgisession: ")


# -- init --------------------------------------------------------------------------------


def test_init_creates_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database is ready after it, and it may be run again."""
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    for _ in range(2):
        assert main(["init", "--url", url]) == 0
        assert capsys.readouterr().out == "the table is there\n"
    store = SQLAlchemyStore(url)
    session = SessionManager(store).create()
    session["n"] = 1
    session.save()
    store.close()


def test_init_of_a_store_that_needs_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, and that is no error."""
    assert main(["init", "--url", f"file://{folder}"]) == 0
    assert "nothing to create" in capsys.readouterr().out
