"""How commands say things: tables and bars for people, JSON and plain lines for programs.

It knows terminals and text, and nothing of sessions.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


class Progressed(Protocol):
    """Told how far a command is."""

    def __call__(self, count: int, /) -> object: ...


def say(text: str) -> None:
    """A line for the caller."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """A line about what went wrong."""
    sys.stderr.write(f"wsgisession: {text}\n")


def say_json(value: Any) -> None:
    """A value on a line of its own, for programs."""
    say(json.dumps(value, default=str, ensure_ascii=False))


def table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows below names on a terminal; in a pipe, lines with a tab between the values."""
    if not sys.stdout.isatty():
        for row in rows:
            say("\t".join(_text(value).replace("\t", " ") for value in row))
        return
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        drawn.add_column(name, overflow="fold")
    for row in rows:
        drawn.add_row(*map(_text, row))
    Console(markup=False, highlight=False).print(drawn)


def facts(pairs: Mapping[str, Any]) -> None:
    """A name and a value on each line."""
    width = max(map(len, pairs))
    for name, value in pairs.items():
        say(f"{name:<{width}}  {_text(value)}")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if hasattr(value, "isoformat"):
        return str(value.isoformat(sep=" ", timespec="seconds"))
    text = str(value)
    return text if text.isprintable() else ascii(text)[1:-1]


@contextmanager
def progress(what: str) -> Iterator[Progressed]:
    """A bar on the error terminal, and nothing elsewhere; how far it goes is unknown."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task(f"0 {what}", total=None)

        def moved(count: int) -> None:
            bar.update(task, description=f"{count} {what}", refresh=True)

        yield moved
        bar.update(task, total=1, completed=1)
