"""The values of one request: what was read, what was written, and how that meets theirs.

Bookkeeping without I/O; this file knows neither records nor requests.  It holds the one
rule of reading: what a request has read stays read, and an update is lost only where a
key was read here, has another value now, and something is written here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from ..errors import SerializationError
from ..serializers import IMMUTABLE
from .codec import Codec


class Absent(Enum):
    """The type of ``ABSENT``, which stands for a key where None could be a value."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.ABSENT


class MergeConflict(NamedTuple):
    """What ``on_conflict`` is asked to decide: three versions of one session."""

    id: str
    keys: frozenset[str]
    """Read by this request, and changed by another since."""
    base: dict[str, Any]
    """What this request and the store last agreed on."""
    ours: dict[str, Any]
    """What this request made of a key; else what it saw of it; else theirs."""
    theirs: dict[str, Any]
    """What is stored now."""


class Lent(NamedTuple):
    """A list, dict or the like that the application holds as well."""

    value: Any
    octets: bytes | None
    """Its encoding when it was last stored; None where it is to be written anyway."""


class WorkingCopy:
    """Values on which every read and every write leaves a trace.

    :param data: of the record as it was loaded.
    :param replaces_all: nothing of what is stored is kept, whatever that is by then.
    """

    __slots__ = (
        "_base",
        "_codec",
        "_data",
        "_detached",
        "_lent",
        "_settled",
        "cleared",
        "overtaken",
        "reads",
        "reads_keys",
        "replaces_all",
        "values",
        "writes",
    )

    def __init__(
        self, codec: Codec, data: bytes | None = None, *, replaces_all: bool = False
    ) -> None:
        self._codec = codec
        self.replaces_all: bool = replaces_all
        self._data = data
        self._base: dict[str, Any] | None = None
        self._lent: dict[str, Lent] = {}
        self._detached: list[tuple[str, Lent]] = []
        """Lent values whose place a reload has given to others."""
        self._settled = False
        """Whether a save has succeeded, so that a later look agrees anew."""
        self.values: dict[str, Any] = {} if data is None else codec.values(data)
        self.reads: set[str] = set()
        self.reads_keys: bool = False
        """Whether it mattered which keys there are."""
        self.writes: set[str] = set()
        self.cleared: bool = False
        self.overtaken: dict[str, Any] = {}
        """Keys that have another value now, with the value last agreed on."""

    # -- the traces --------------------------------------------------------------------

    def get(self, key: str) -> Any:
        """The value, or ``ABSENT``."""
        self.reads.add(key)
        if self.overtaken:
            self._agree_anew(key)
        value = self.values.get(key, ABSENT)
        if type(value) not in IMMUTABLE and value is not ABSENT:
            self._lend(key, value)
        return value

    def has(self, key: str) -> bool:
        self.reads.add(key)
        if self.overtaken:
            self._agree_anew(key)
        return key in self.values

    def set(self, key: str, value: Any) -> None:
        self._let_go(key)
        self.writes.add(key)
        self.values[key] = value
        if type(value) not in IMMUTABLE:
            self._lent[key] = Lent(value, None)

    def remove(self, key: str) -> None:
        """Take a key away; raises ``KeyError`` if it is not there."""
        self.reads.add(key)
        del self.values[key]
        self._let_go(key)
        self.writes.add(key)

    def keys(self) -> Iterator[str]:
        """The keys, because it matters which there are."""
        self.reads_keys = True
        for key in list(self.overtaken):
            if key not in self.reads:
                self._agree_anew(key)
        return iter(self.values)

    def clear(self) -> None:
        """Take all keys away; nothing was read for that."""
        for key in list(self.values):
            self._let_go(key)
            self.writes.add(key)
        self.values.clear()
        self._detached.clear()
        self.cleared = True

    def _lend(self, key: str, value: Any) -> None:
        if key not in self._lent:
            octets = None if key in self.writes else self._codec.encode_value(value)
            self._lent[key] = Lent(value, octets)

    def _let_go(self, key: str) -> None:
        self._lent.pop(key, None)
        if self._detached:
            self._detached = [each for each in self._detached if each[0] != key]

    def _agree_anew(self, key: str) -> None:
        """After a save, while nothing is unsaved, a look at a key is a first look."""
        if self._settled and key in self.overtaken and not self.has_changed():
            del self.overtaken[key]

    # -- what became of them -----------------------------------------------------------

    def has_changed(self) -> bool:
        """Whether there is anything to write; also sees what lent values became."""
        if self._lent:
            self._collect_lent()
        if self._detached:
            self._collect_detached()
        return bool(self.writes or self.cleared or self.replaces_all)

    def conflicts(self) -> frozenset[str]:
        """The keys that were read and have another value now, if anything is written."""
        if not self.overtaken or not self.has_changed():
            return frozenset()
        return frozenset(
            key
            for key, agreed in self.overtaken.items()
            if key in self.reads
            or (self.reads_keys and (agreed is ABSENT) != (key not in self.base))
        )

    def overwritten(self) -> frozenset[str]:
        """The keys that another request has changed, and that are written here too."""
        return frozenset(self.overtaken.keys() & self.writes)

    @property
    def base(self) -> dict[str, Any]:
        """The values as they are stored, in objects that nobody else holds."""
        if self._base is None:
            data = self._data
            self._base = {} if data is None else self._codec.values(data)
        return self._base

    def rebase(self, data: bytes) -> None:
        """Put what was written here on newer data, key by key, never inside a value."""
        self.has_changed()
        if self.replaces_all:
            return
        base, theirs = self.base, self._codec.values(data)
        for key in self.reads | self.writes:
            if key not in self.overtaken and self._differ(base, theirs, key):
                self.overtaken[key] = base.get(key, ABSENT)
        if self.reads_keys:
            for key in base.keys() ^ theirs.keys():
                self.overtaken.setdefault(key, base.get(key, ABSENT))
        for key, agreed in list(self.overtaken.items()):
            if self._same(agreed, theirs.get(key, ABSENT)):
                del self.overtaken[key]
        self._replace_values(base, theirs)
        self._data, self._base = data, theirs

    def _replace_values(self, base: dict[str, Any], theirs: dict[str, Any]) -> None:
        assert self._base is not None
        ours, self.values = self.values, {} if self.cleared else self._copy(theirs)
        for key in self.writes:
            if key in ours:
                self.values[key] = ours[key]
            else:
                self.values.pop(key, None)
        for key in self._lent.keys() - self.writes:
            if self._differ(base, theirs, key):
                self._detached.append((key, self._lent.pop(key)))
            elif key in self.values:
                self.values[key] = self._lent[key].value

    def _copy(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values in objects of their own, which the caller may change."""
        return {
            key: value
            if type(value) in IMMUTABLE
            else self._codec.decode_value(self._codec.encode_value(value))
            for key, value in values.items()
        }

    def settle(self, data: bytes) -> None:
        """Go on from here: what was written has been stored as ``data``."""
        if self._lent:
            for key in self.writes & self._lent.keys():
                value = self._lent[key].value
                self._lent[key] = Lent(value, self._codec.encode_value(value))
        self._data, self._base = data, None
        self.writes.clear()
        self.overtaken.clear()
        self.cleared, self.replaces_all, self._settled = False, False, True

    def agree(self) -> None:
        """A save has found nothing to write: a later look agrees anew all the same."""
        self._settled = True

    def revert(self) -> None:
        """Go back to the stored values; what was read stays read."""
        self._base = None
        self.values, self._base = self.base, None
        self.writes.clear()
        self._lent.clear()
        self._detached.clear()
        self.cleared = False

    # -- what is decided about a conflict ----------------------------------------------

    def conflict(self, id: str) -> MergeConflict:
        """The facts for ``on_conflict``."""
        theirs = self._copy(self.base)
        base = self._on(theirs, self.overtaken)
        written = {key: self.values.get(key, ABSENT) for key in self.writes}
        ours = self._on(base, written)
        return MergeConflict(id, self.conflicts(), base, ours, theirs)

    def keep_ours(self) -> None:
        """What this request wrote stands."""
        self.overtaken.clear()

    def accept(self, decided: Mapping[str, Any]) -> None:
        """What was decided takes the place of all values."""
        theirs, before = self.base, self.values
        self.values = dict(decided)
        for key in before.keys() | self.values.keys():
            if self._differ(before, self.values, key):
                self._let_go(key)
            else:
                self.values[key] = before[key]  # the object that the caller holds
        keys = theirs.keys() | self.values.keys()
        self.writes = {key for key in keys if self._differ(theirs, self.values, key)}
        self.overtaken.clear()

    def moved(self, data: bytes | None) -> WorkingCopy:
        """What this request wrote where it had found nothing, on other values.

        That a key was not there counts as read: it is there now, by another request.
        """
        self.has_changed()
        moved = WorkingCopy(self._codec, data)
        moved.reads, moved.reads_keys = self.reads, self.reads_keys
        moved.overtaken = dict.fromkeys(moved.base, ABSENT)
        for key in self.writes & self.values.keys():
            moved.set(key, self.values[key])
        return moved

    # -- lent values -------------------------------------------------------------------

    def _collect_lent(self) -> None:
        """Take what was changed in the caller's hands as written."""
        for key, lent in self._lent.items():
            if key in self.writes or lent.octets is None:
                continue
            if not self._is_still(lent.value, lent.octets):
                self.reads.add(key)  # it was made of what was stored
                self.writes.add(key)
                self.values[key] = lent.value

    def _collect_detached(self) -> None:
        """The same for values that a reload has replaced: in conflict, of course."""
        unchanged = []
        for key, lent in self._detached:
            octets = lent.octets
            if octets is None or self._is_still(lent.value, octets):
                unchanged.append((key, lent))
                continue
            self.overtaken.setdefault(key, self._codec.decode_value(octets))
            self.reads.add(key)
            self.writes.add(key)
            self.values[key] = lent.value
            self._lent[key] = Lent(lent.value, None)
        self._detached = unchanged

    def _is_still(self, value: Any, octets: bytes) -> bool:
        """Whether a lent value is what it was.  If it cannot be encoded any more it is
        not, and the save will say which key that is.
        """
        try:
            return self._codec.encode_value(value) == octets
        except SerializationError:
            return False

    # -- comparing ---------------------------------------------------------------------

    def _differ(self, one: dict[str, Any], two: dict[str, Any], key: str) -> bool:
        return not self._same(one.get(key, ABSENT), two.get(key, ABSENT))

    def _same(self, one: Any, two: Any) -> bool:
        """Whether two values are one, told by the bytes: 1, 1.0 and True are three."""
        if one is ABSENT or two is ABSENT:
            return one is two
        return self._codec.encode_value(one) == self._codec.encode_value(two)

    @staticmethod
    def _on(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        changed = {**values, **changes}
        return {key: value for key, value in changed.items() if value is not ABSENT}
