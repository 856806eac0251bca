"""The command line: a table of commands, and how each finds its store.

A command is a row of ``COMMANDS``: its name, one line of help, its arguments, and the
function that runs it.  This file knows managers, and imports nothing that only one
command needs before that command runs.
"""

from __future__ import annotations

import re
import secrets
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from configparser import ConfigParser, Error, InterpolationError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, SessionError
from ..manager import SessionManager
from ..options import flatten
from ..record import Key
from ..stores import choose

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One word after ``python -m wsgisession``."""

    name: str
    help: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit status of the process."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SessionError as error:
        sys.stderr.write(f"wsgisession: {error}\n")
        return MISUSED if isinstance(error, ConfigurationError) else FAILED
    return OK


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="wsgisession", description="Sessions for WSGI.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        added = commands.add_parser(
            command.name, help=command.help, description=command.help
        )
        command.add_arguments(added)
        added.set_defaults(run=command.run)
    return parser


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


# -- which store -------------------------------------------------------------------------


def _add_store(parser: ArgumentParser) -> None:
    """The arguments by which every command finds the store of an application."""
    parser.add_argument(
        "--url",
        help="where the sessions are, such as file:///var/lib/app/sessions; a password "
        "in it can be seen in the list of processes: use --config then",
    )
    parser.add_argument(
        "--config",
        metavar="FILE.ini",
        type=Path,
        help="the settings of the application; --url wins over them",
    )
    parser.add_argument(
        "--section",
        metavar="NAME",
        help="the section of the file, if it has more than one",
    )


def _manager(arguments: Namespace) -> SessionManager:
    return SessionManager.from_config(_chosen(arguments))


def _chosen(arguments: Namespace) -> dict[str, Any]:
    """The settings that the arguments name, by their bare names."""
    if arguments.url is None and arguments.config is None:
        raise ConfigurationError("which sessions? Give --url or --config.")
    if arguments.section is not None and arguments.config is None:
        raise ConfigurationError("--section names a part of a file: give --config too.")
    settings = {}
    if arguments.config is not None:
        settings = _settings(arguments.config, arguments.section)
    return flatten(settings, {} if arguments.url is None else {"url": arguments.url})


def _settings(path: Path, section: str | None) -> dict[str, str]:
    """A section of an ``.ini`` file, in which ``%(here)s`` is the folder of the file.

    What ``configparser`` says about an error shows the line, and with it a password or
    a secret, so none of it is repeated here.
    """
    parser = ConfigParser()
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except (Error, UnicodeDecodeError):
        raise ConfigurationError(f"{path} is not a well-formed .ini file") from None
    section = section or _only_section(parser, path)
    if not parser.has_section(section):
        raise ConfigurationError(
            f"{path} has no section [{section}]; it has: {_sections(parser)}"
        )
    here = {"here": str(path.resolve().parent)}
    try:
        return {name: parser.get(section, name, vars=here) for name in parser[section]}
    except InterpolationError as error:
        raise ConfigurationError(
            f"{path}: a % in {error.option} of [{section}] must be written as %%"
        ) from None


def _only_section(parser: ConfigParser, path: Path) -> str:
    if len(parser.sections()) == 1:
        return parser.sections()[0]
    raise ConfigurationError(
        f"choose a section of {path} by --section; it has: {_sections(parser)}"
    )


def _sections(parser: ConfigParser) -> str:
    return ", ".join(parser.sections()) or "none"


# -- the commands ------------------------------------------------------------------------


def _port(text: str) -> int:
    if text.isdecimal() and int(text) < 65536:
        return int(text)
    raise ArgumentTypeError(f"{text!r} is no port; a port is a number from 0 to 65535")


def _demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument(
        "--port",
        type=_port,
        help="default: 8000, or any that is free if it is taken",
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        help="where the sessions go; default: files in a private folder, "
        "which is removed at the end",
    )


def _demo(arguments: Namespace) -> None:
    from .. import demo

    demo.run(_say, host=arguments.host, port=arguments.port, url=arguments.store)


def _init(arguments: Namespace) -> None:
    manager = _manager(arguments)
    store: Any = getattr(manager.store, "within", manager.store)
    if not hasattr(store, "create_table"):
        _reach(manager)
        _say("nothing to create: this store makes what it needs by itself")
        return
    store.create_table()
    store.close()
    _say("the table is there")


def _reach(manager: SessionManager) -> None:
    """Raise ``StoreError`` where the store is out of reach.

    A store that forgets by itself is not asked otherwise, and success would be reported.
    """
    manager.store.load(Key("0" * 32, token=""))


def _refuse_mistyped(settings: Mapping[str, Any]) -> None:
    """Raise ``ConfigurationError`` for a folder or a database file that is not there.

    The store would make it, find nothing in it, and success would be reported.
    """
    chosen = {**settings, **choose(settings).from_url}
    file = re.fullmatch(
        r"sqlite(?:\+\w+)?:///((?!file:|:memory:)[^?]+).*", str(chosen.get("url"))
    )
    place = file[1] if file else chosen.get("data_dir")
    if place is not None and not Path(place).expanduser().exists():
        raise ConfigurationError(f"there are no sessions at {place}: nothing is there")


def _cleanup(arguments: Namespace) -> None:
    _refuse_mistyped(_chosen(arguments))
    manager, began = _manager(arguments), time.monotonic()
    _reach(manager)

    def progress(count: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{count} expired sessions deleted so far")
            sys.stderr.flush()

    count = manager.delete_expired(progress)
    if count and sys.stderr.isatty():
        sys.stderr.write("\n")
    _say(f"{count} expired sessions deleted in {time.monotonic() - began:.1f} s")


def _no_arguments(parser: ArgumentParser) -> None:
    """For a command that needs none."""


def _secret(arguments: Namespace) -> None:
    _say(secrets.token_urlsafe(32))


COMMANDS = (
    Command(
        name="demo",
        help="Show on a page in your browser what these sessions promise.",
        add_arguments=_demo_arguments,
        run=_demo,
    ),
    Command(
        name="init",
        help="Create what the store needs: the table of a SQL database.",
        add_arguments=_add_store,
        run=_init,
    ),
    Command(
        name="cleanup",
        help="Delete what has expired; for a nightly job.",
        add_arguments=_add_store,
        run=_cleanup,
    ),
    Command(
        name="secret",
        help="Print a new secret for the option of this name: 256 random bits.",
        add_arguments=_no_arguments,
        run=_secret,
    ),
)
