"""The values of one request: what was read, what was changed, and how that meets theirs.

Pure bookkeeping without I/O.  This file knows neither records nor requests; it holds the
rule that an update is lost only where a key was read, and changed by another since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from .serializers import IMMUTABLE


class Absent(Enum):
    """The type of ``ABSENT``, which stands for a key where None could be a value."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.ABSENT

Encode = Callable[[dict[str, Any]], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clash:
    """What ``on_conflict`` is asked to decide: three versions of one session.

    ``keys`` were read by this request and have been changed by another.  ``base`` is what
    this request began with, ``ours`` what it made of it, ``theirs`` what is stored now.
    """

    id: str
    keys: frozenset[str]
    base: dict[str, Any]
    ours: dict[str, Any]
    theirs: dict[str, Any]


class Draft:
    """Values on which every read and every change leaves a trace."""

    __slots__ = (
        "changed",
        "cleared",
        "handed",
        "known",
        "orphans",
        "outdated",
        "read",
        "stale",
        "surveyed",
        "values",
    )

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.read: set[str] = set()
        self.changed: set[str] = set()
        self.handed: set[str] = set()
        """Keys whose value was handed out and could be changed in the caller's hands."""
        self.surveyed = False
        """Whether it mattered which keys there are."""
        self.cleared = False
        self.stale: set[str] = set()
        """Keys that were read, changed by another since, and not read again."""
        self.known: set[str] = set()
        """Keys that were read before the last save."""
        self.outdated: set[str] = set()
        """Of these, what another has changed since: it matters if it is written."""
        self.orphans: dict[str, tuple[Any, bytes]] = {}
        """Values in somebody's hands whose place another's have taken, with the bytes
        that they had then."""

    # -- the traces --------------------------------------------------------------------

    def get(self, key: str) -> Any:
        """The value, or ``ABSENT``."""
        self.read.add(key)
        if (self.stale or self.outdated) and key not in self.changed:
            self.stale.discard(key)
            self.outdated.discard(key)
        value = self.values.get(key, ABSENT)
        if type(value) not in IMMUTABLE and value is not ABSENT:
            self.handed.add(key)
        return value

    def has(self, key: str) -> bool:
        self.read.add(key)
        return key in self.values

    def set(self, key: str, value: Any) -> None:
        self.changed.add(key)
        self.values[key] = value

    def remove(self, key: str) -> None:
        """Take a key away; raises ``KeyError`` if it is not there."""
        self.read.add(key)
        del self.values[key]
        self.changed.add(key)

    def clear(self) -> None:
        self.changed.update(self.values)
        self.values.clear()
        self.cleared = True

    def survey(self) -> Iterator[str]:
        """The keys, because it matters which there are."""
        self.surveyed = True
        return iter(self.values)

    # -- what became of them -----------------------------------------------------------

    @property
    def doubtful(self) -> frozenset[str]:
        """Keys of which another's change would be lost by what was made of them."""
        return frozenset(self.stale | (self.outdated & self.changed))

    def accept(self) -> None:
        """It was decided what becomes of the doubtful keys."""
        self.stale.clear()
        self.outdated -= self.changed

    @property
    def suspect(self) -> bool:
        """Whether anything may have changed; the bytes will tell."""
        return bool(self.changed or self.handed or self.cleared)

    def changes(self, base: dict[str, Any], encode: Encode) -> dict[str, Any]:
        """Each key that was changed, with its value or ``ABSENT``."""
        nested = {
            key
            for key in self.handed - self.changed
            if key in self.values and _differ(key, base, self.values, encode)
        }
        return {key: self.values.get(key, ABSENT) for key in self.changed | nested}

    def clashes(
        self, base: dict[str, Any], theirs: dict[str, Any], encode: Encode
    ) -> frozenset[str]:
        """The keys that were read here and have been changed by another since."""
        read = set(self.read)
        if self.surveyed:
            read |= base.keys() ^ theirs.keys()
        changed = {key for key in read if _differ(key, base, theirs, encode)}
        return frozenset(self.stale | changed)

    def rebase(
        self, base: dict[str, Any], theirs: dict[str, Any], encode: Encode
    ) -> None:
        """Put our changes on top of theirs, key by key, never inside a value."""
        self.stale |= self.clashes(base, theirs, encode)
        self.outdated |= {k for k in self.known if _differ(k, base, theirs, encode)}
        changes = self.changes(base, encode)
        held = {key: self.values[key] for key in self.handed if key in self.values}
        self.values = {} if self.cleared else dict(theirs)
        for key, value in held.items():
            if _differ(key, base, theirs, encode):
                self.orphans[key] = value, encode({key: value})
            elif key in self.values:
                self.values[key] = value  # equal, and in somebody's hands
        for key, value in changes.items():
            if value is ABSENT:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        self.changed |= changes.keys()

    def reclaim(self, encode: Encode) -> None:
        """Take back what was changed in somebody's hands after another replaced it."""
        for key, (value, before) in list(self.orphans.items()):
            if encode({key: value}) != before:
                del self.orphans[key]
                self.values[key] = value
                self.changed.add(key)
                self.stale.add(key)

    def forget(self) -> None:
        """Nothing of what was changed is to be written; what was read stays read."""
        self.changed.clear()
        self.handed.clear()
        self.orphans.clear()
        self.cleared = False

    def revert(self, values: dict[str, Any]) -> None:
        """Go back to these values."""
        self.forget()
        self.values = values

    def settle(self) -> None:
        """Begin anew from here: what was read and changed so far has been stored."""
        self.accept()
        self.handed |= self.changed  # whoever put a list in may still hold it
        self.known |= self.read
        self.read.clear()
        self.changed.clear()
        self.surveyed = self.cleared = False


def _differ(key: str, one: dict[str, Any], two: dict[str, Any], encode: Encode) -> bool:
    """Whether a key has another value, told by the bytes: 1, 1.0 and True are three."""
    if (key in one) != (key in two):
        return True
    return key in one and encode({key: one[key]}) != encode({key: two[key]})
