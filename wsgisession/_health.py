"""What a store finds when it looks at its own deployment, for ``wsgisession doctor``.

This file holds the words for it and no check.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple, Protocol, runtime_checkable


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and will be a surprise one day."""
    ERROR = "error"
    """It does not work, or breaks a promise."""


class Finding(NamedTuple):
    """What one check has found."""

    level: Level
    subject: str
    said: str
    advice: str = ""
    """What to do, where something is to be done."""


@runtime_checkable
class ExaminedStore(Protocol):
    """A store that can look at its deployment."""

    def examine(self) -> Iterator[Finding]:
        """One finding for each check; raises ``StoreError`` where it is out of reach."""


def clock_finding(ahead: float) -> Finding:
    """What it means that a server's clock is ahead of ours by so many seconds."""
    said = f"the store's clock and ours differ by {abs(ahead):.1f} s"
    if abs(ahead) < 2:
        return Finding(Level.OK, "clock", said)
    advice = "let both hosts follow one time server (chrony, systemd-timesyncd)"
    level = Level.WARNING if abs(ahead) < 30 else Level.ERROR
    return Finding(level, "clock", said, advice)
