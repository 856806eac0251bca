"""The threads of this process that wait for a session.

This file knows threads; it knows neither databases nor sessions.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import LockTimeout


class Line:
    """Those who wait for one session.

    Only the first one asks the database.  It is told when the holder is of this process.
    """

    __slots__ = ("first", "freed", "length")

    def __init__(self) -> None:
        self.first = threading.Lock()
        self.freed = threading.Event()
        self.length = 0


class Lines:
    """The lines of all sessions; a forked process begins with none."""

    __slots__ = ("_lines", "_mutex", "_process")

    def __init__(self) -> None:
        self._begin()

    def __contains__(self, id: str) -> bool:
        self._follow_fork()
        return id in self._lines

    def wake(self, id: str) -> None:
        """Tell the first in the line that the session may be free."""
        if (line := self._lines.get(id)) is not None:
            line.freed.set()

    @contextmanager
    def join(self, id: str, waiters: int) -> Iterator[Line]:
        """The line for a session, with us in it.

        Raises ``LockTimeout`` where ``waiters`` wait in it already.
        """
        self._follow_fork()
        with self._mutex:
            line = self._lines.get(id) or Line()
            if line.length >= waiters:
                raise LockTimeout(id, 0.0, line.length)
            self._lines[id] = line
            line.length += 1
        try:
            yield line
        finally:
            with self._mutex:
                line.length -= 1
                if line.length == 0:
                    self._lines.pop(id, None)

    def _begin(self) -> None:
        self._mutex = threading.Lock()
        self._lines: dict[str, Line] = {}
        self._process = os.getpid()

    def _follow_fork(self) -> None:
        if self._process != os.getpid():
            self._begin()
