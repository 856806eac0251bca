"""The commands: what each is called with, and what it does by the manager.

Each is a function whose arguments are those of the command line.  What a command finds is
said by ``output``; which sessions it is about is told by ``settings``.
"""

from __future__ import annotations

import os
import re
import secrets
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from functools import update_wrapper
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from .._health import Level
from ..errors import ConfigurationError, SessionError
from ..manager import SessionManager
from ..session import Session
from ..store import IterableStore
from ..stores import choose
from . import doctor as examination
from .output import complain, facts, progress, say, say_json, table
from .settings import settings_of

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
PIPE_CLOSED = 141
"""What a shell says of a program whose reader has gone away."""

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Sessions:
    """The sessions that a command is about, by the arguments that all commands share."""

    def __init__(self, settings: Mapping[str, Any], *, as_json: bool) -> None:
        self.settings = settings
        self.as_json = as_json
        self._opened = ExitStack()

    def __enter__(self) -> Sessions:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def manager(self) -> SessionManager:
        """The manager of a store that is there already.

        A store would make a folder or a database file that is not there, find nothing in
        it, and success would be reported.
        """
        place = self.place()
        if place is not None and not place.exists():
            raise ConfigurationError(
                f"there are no sessions at {place}: nothing is there"
            )
        manager = self.made()
        manager.ping()  # a store that forgets by itself would be asked nothing else
        return manager

    def place(self) -> Path | None:
        """The folder or file of the sessions, if they have one.

        One that is there must be ours: what is made in it by another user the application
        cannot read any more.
        """
        place = _place(self.settings)
        if place is not None and place.exists():
            _refuse_to_be_another(place)
        return place

    def made(self) -> SessionManager:
        """The manager, whether its store answers or not."""
        manager = SessionManager.from_config(self.settings)
        self._opened.callback(manager.close)
        return manager


def _place(settings: Mapping[str, Any]) -> Path | None:
    """The folder or the file that settings name, if they do."""
    url = str(settings.get("url"))
    file = re.fullmatch(r"sqlite(?:\+\w+)?:///((?!file:|:memory:)[^?]+).*", url)
    chosen = {**settings, **choose(settings).from_url}
    place = file[1] if file else chosen.get("data_dir")
    return None if place is None else Path(place).expanduser()


def _refuse_to_be_another(place: Path) -> None:
    if os.name != "posix":
        return
    owner, us = place.stat().st_uid, os.geteuid()
    if owner != us:
        raise ConfigurationError(
            f"{place} belongs to {_name(owner)}, and this command runs as {_name(us)}: "
            f"what it writes there the application could not read; run it as "
            f"{_name(owner)}"
        )


def _name(uid: int) -> str:
    import pwd  # there is none on Windows

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user with number {uid}"


# -- what all commands share -------------------------------------------------------------


def about_sessions(command: Decorated) -> Decorated:
    """Give a command its ``Sessions``, and the arguments that lead to them."""

    def found(
        url: str | None,
        config: Path | None,
        section: str | None,
        as_json: bool,
        verbose: bool,
        **rest: Any,
    ) -> Any:
        told = click.get_current_context().obj
        told["verbose"] = verbose
        settings = settings_of(url, config, section, os.environ)
        told["hidden"] = _hidden(settings)
        with Sessions(settings, as_json=as_json) as sessions:
            return command(sessions, **rest)

    update_wrapper(found, command)
    for decorate in (
        click.option("--verbose", is_flag=True, help="Say the cause of a failure."),
        click.option("--json", "as_json", is_flag=True, help="For programs."),
        click.option("--section", metavar="NAME", help="A section of the file."),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The application's settings, .ini or .toml.",
        ),
        click.option(
            "--url",
            help="Where the sessions are.  A password in it can be seen in the list of "
            "processes: use --config or the variable WSGISESSION_URL then.",
        ),
    ):
        found = decorate(found)
    return cast(Decorated, found)


def _hidden(settings: Mapping[str, Any]) -> list[str]:
    """What must not be shown in any message: passwords and secrets."""
    hidden = [str(settings.get("secret") or "")]
    for name in ("url", "cache_url", "revocation"):
        match = re.search(r"://[^/@:]*:(.+)@", str(settings.get(name) or ""))
        hidden += [match[1]] if match else []
    return [line for each in hidden for line in each.splitlines() if line.strip()]


def run(argv: Sequence[str] | None) -> int:
    """Run a command, and give the exit status of the process."""
    given = list(sys.argv[1:] if argv is None else argv)
    told: dict[str, Any] = {}
    try:
        with application.make_context("wsgisession", given, obj=told) as context:
            application.invoke(context)
        return OK
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Nothing is left to be flushed into it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except SessionError as error:
        return _failed(error, told)


def _failed(error: SessionError, told: Mapping[str, Any]) -> int:
    lines = [str(error)]
    if told.get("verbose"):
        lines = "".join(traceback.format_exception(error)).splitlines()
    for line in lines:
        for each in told.get("hidden", ()):
            line = line.replace(each, "***")
        complain(line)
    return MISUSED if isinstance(error, ConfigurationError) else FAILED


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wsgisession-middleware", prog_name="wsgisession")
def application() -> None:
    """Sessions for WSGI: look at them, end them, keep them in order.

    Which sessions is said by --url, by --config, or by variables: WSGISESSION_URL, and
    one for every other option, such as WSGISESSION_SECRET.
    """


# -- the commands ------------------------------------------------------------------------


@application.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Default: 8000, or any that is free if it is taken.",
)
@click.option(
    "--store",
    metavar="URL",
    help="Default: files in a private folder, removed at last.",
)
def demo(host: str, port: int | None, store: str | None) -> None:
    """Show on a page in your browser what these sessions promise."""
    from .. import _demo as page

    page.run(say, host=host, port=port, url=store)


@application.command()
@about_sessions
def init(sessions: Sessions) -> None:
    """Create what the store needs: the table of a SQL database."""
    sessions.place()
    manager = sessions.made()
    store: Any = manager.store
    while not hasattr(store, "create_table") and hasattr(store, "within"):
        store = store.within
    if hasattr(store, "create_table"):
        store.create_table()
        say("the table is there")
    else:
        manager.ping()
        say("nothing to create: this store makes what it needs by itself")


COLUMNS = ("id", "user", "created", "last accessed", "expires", "details")


def _row(session: Session) -> dict[str, Any]:
    details = ", ".join(f"{k}={v}" for k, v in session.login_details.items())
    values = (
        session.id,
        session.user,
        session.created,
        session.last_accessed,
        session.expires,
        details,
    )
    return dict(zip(COLUMNS, values, strict=True))


@application.command("list")
@about_sessions
@click.option("--user", help="Only the sessions of this user.")
def list_sessions(sessions: Sessions, user: str | None) -> None:
    """List the living sessions.

    In a pipe one a line, with tabs between id, user, beginning, last use, end, details.
    """
    manager = sessions.manager()
    found = manager.sessions() if user is None else manager.sessions_of(user)
    rows = (_row(session) for session in found)
    if sessions.as_json:
        for row in rows:
            say_json(row)
    else:
        table(COLUMNS, (tuple(row.values()) for row in rows))


@application.command()
@about_sessions
@click.argument("id")
@click.option("--values", is_flag=True, help="Show what is in it, not only the keys.")
def show(sessions: Sessions, id: str, values: bool) -> None:
    """Show one session: what is known about it, and the names of its values."""
    session = sessions.manager().get(id)
    if session is None:
        raise SessionError(f"there is no session {id}: never, ended or expired")
    known = _row(session)
    known["keys"] = sorted(session)
    if values:
        known["values"] = session.copy()
    if sessions.as_json:
        say_json(known)
        return
    known["keys"] = ", ".join(known["keys"]) or None
    for key, value in known.pop("values", {}).items():
        known[f"  {key}"] = repr(value)
    facts(known)


@application.command()
@about_sessions
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--user", help="All sessions of this user.")
@click.option("--keep", metavar="ID", help="But this one of the user's.")
@click.option("--all", "every", is_flag=True, help="All sessions there are.")
@click.option("--yes", is_flag=True, help="Do not ask, where all are to end.")
def end(
    sessions: Sessions,
    ids: tuple[str, ...],
    user: str | None,
    keep: str | None,
    every: bool,
    yes: bool,
) -> None:
    """End sessions: log a user out, or all users."""
    if bool(ids) + (user is not None) + every != 1:
        raise click.UsageError("say which: ids, or --user, or --all")
    if keep is not None and user is None:
        raise click.UsageError("--keep belongs to --user")
    manager = sessions.manager()
    if every and not yes:
        click.confirm("End all sessions, so that all users are logged out?", abort=True)
    if user is not None:
        count = manager.end_user(user, keep=keep)
    elif every:
        count = sum(manager.end(session.id) for session in manager.sessions())
    else:
        count = sum(manager.end(id) for id in ids)
    if sessions.as_json:
        say_json({"ended": count})
    else:
        say(f"{count} session{'s' * (count != 1)} ended")
    if ids and count < len(set(ids)):
        raise SessionError(f"{len(set(ids)) - count} of them were not there")


@application.command()
@about_sessions
def cleanup(sessions: Sessions) -> None:
    """Delete what has expired; for a nightly job."""
    manager, began = sessions.manager(), time.monotonic()
    with progress("expired sessions deleted") as moved:
        count = manager.delete_expired(moved)
    seconds = time.monotonic() - began
    if sessions.as_json:
        say_json({"deleted": count, "seconds": round(seconds, 3)})
    else:
        say(f"{count} expired sessions deleted in {seconds:.1f} s")


@application.command()
@about_sessions
def stats(sessions: Sessions) -> None:
    """Count the living sessions: users, ages, sizes."""
    manager = sessions.manager()
    if not manager.store.capabilities.lists:
        raise ConfigurationError(
            f"{type(manager.store).__name__} cannot list its sessions: what is in "
            "cookies is with the clients"
        )
    store = cast(IterableStore, manager.store)
    records = [each for each in store.records() if each.proof]
    sizes = sorted(len(each.data) for each in records)
    users = Counter(each.user for each in records if each.user is not None)
    created = [each.created for each in records]
    known = {
        "sessions": len(records),
        "logged in": users.total(),
        "users": len(users),
        "most of one user": max(users.values(), default=0),
        "oldest": _moment(min(created, default=None)),
        "newest": _moment(max(created, default=None)),
        "octets": sum(sizes),
        "median octets": int(statistics.median(sizes)) if sizes else 0,
        "most octets": max(sizes, default=0),
    }
    if sessions.as_json:
        say_json(known)
    else:
        facts(known)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)


@application.command()
@about_sessions
@click.option(
    "--address", metavar="URL", help="Where browsers find the site: https://example.com"
)
def doctor(sessions: Sessions, address: str | None) -> None:
    """Check a configuration against its deployment, and say what to do."""
    place = sessions.place()
    findings = list(examination.examine(sessions.settings, place, address))
    if sessions.as_json:
        for each in findings:
            say_json({**each._asdict(), "level": each.level.value})
    else:
        for each in findings:
            say(f"{each.level.value:<7}  {each.subject}: {each.said}")
            if each.advice and each.level is not Level.OK:
                say(f"{'':<7}  -> {each.advice}")
    errors = sum(each.level is Level.ERROR for each in findings)
    if errors:
        raise SessionError(f"{errors} of {len(findings)} checks failed")


@application.command()
def secret() -> None:
    """Print a new secret for the option of this name: 256 random bits."""
    say(secrets.token_urlsafe(32))
