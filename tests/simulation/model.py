"""What a session is, run by one request after another: the pure model of oracle 1.

A request is cut into segments at each ``save()`` that was acknowledged.  The rule of
reading (section 4 of the design) says which orders of segments are serial: a segment that
writes must find every key of the request's read set as it was last agreed on.  An order
that breaks the rule is a loss that must be reported, so it explains nothing.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from . import edition
from .machine import as_list
from .programs import Verb

ABSENT = "<absent>"


class State(NamedTuple):
    """One session, as all requests see it."""

    alive: bool
    values: dict[str, Any]
    """Never changed in place."""
    user: str | None


class Segment(NamedTuple):
    """What one request did between two boundaries."""

    request: str
    number: int
    verbs: tuple[Verb, ...]
    begin: int
    end: int
    optional: bool = False
    """Whether it may as well not have happened: a fault hid what became of it."""
    keeps: bool = True
    """False: what it wrote was dropped, only an end stands."""


class Reader:
    """What one request knows, from segment to segment."""

    def __init__(self) -> None:
        self.locals: dict[str, Any] = {}
        self.agreed: dict[str, Any] = {}
        self.held: dict[str, Any] = {}
        """Lists in the hands of the request."""
        self.settled: dict[str, Any] = {}
        """What was in them at the last boundary."""
        self.keys: frozenset[str] | None = None


class Lost(Exception):
    """The order is not serial: an update would be lost."""


class Serial:
    """Runs one segment on a state."""

    def __init__(self, state: State, reader: Reader, segment: Segment) -> None:
        self.base, self.reader, self.segment = state.values, reader, segment
        self.alive, self.user = state.alive, state.user
        self.values: dict[str, Any] = copy.deepcopy(state.values)
        self.wrote: set[str] = set()
        self.replaced = False
        self.ended = False
        for key, held in reader.held.items():
            if state.values.get(key, ABSENT) == reader.settled.get(key):
                self.values[key] = held

    def run(self) -> State:
        for name, *rest in self.segment.verbs:
            getattr(self, f"do_{name}", self.nothing)(*rest)
        return self.boundary()

    def boundary(self) -> State:
        reader, before = self.reader, self.base
        if not self.segment.keeps:
            return State(False, {}, None) if self.ended else self.unchanged()
        for key, held in reader.held.items():
            if held == reader.settled.get(key, ABSENT) or key in self.wrote:
                continue
            if self.values.get(key) is not held:
                raise Lost  # changed in the hands, after its place was given away
            self.wrote.add(key)
        if self.ended:
            alive = bool(self.wrote) or self.user is not None
            after = State(alive and edition.CLEAR_ENDS, self._copied(), self.user)
            if not edition.CLEAR_ENDS:
                after = State(False, {}, None)
        elif self.wrote or self.replaced:
            if not self.alive:
                raise Lost
            self._check(before)
            after = State(True, self._copied(), self.user)
        elif self.user_changed:
            if not self.alive:
                raise Lost
            after = State(True, before, self.user)
        elif self.saves:
            after = self.unchanged()
        else:
            return self.unchanged()
        for key in reader.agreed:
            reader.agreed[key] = after.values.get(key, ABSENT)
        if reader.keys is not None:
            reader.keys = frozenset(after.values)
        reader.settled = {k: copy.deepcopy(v) for k, v in reader.held.items()}
        return after

    user_changed = False
    saves = False
    """Whether the record is saved though no value has changed."""

    def unchanged(self) -> State:
        return State(self.alive, self.base, self.user)

    def _copied(self) -> dict[str, Any]:
        return copy.deepcopy(self.values)

    def _check(self, before: dict[str, Any]) -> None:
        if self.replaced:
            return
        for key, value in self.reader.agreed.items():
            if before.get(key, ABSENT) != value:
                raise Lost
        if self.reader.keys is not None and self.reader.keys != frozenset(before):
            raise Lost

    # -- reading -----------------------------------------------------------------------

    def _read(self, key: str) -> Any:
        agreed, reader = self.reader.agreed, self.reader
        is_settled = not (self.wrote or self.replaced or self._held_changed())
        if key not in agreed or is_settled:
            agreed[key] = ABSENT if self.replaced else self.base.get(key, ABSENT)
        if is_settled and reader.keys is not None:  # and on whether there is such a key
            reader.keys = (reader.keys - {key}) | (self.base.keys() & {key})
        return self.values.get(key)

    def _held_changed(self) -> bool:
        reader = self.reader
        return any(h != reader.settled.get(k, ABSENT) for k, h in reader.held.items())

    def _lend(self, key: str, value: Any) -> None:
        if isinstance(value, list):
            known = self.reader.held.get(key) is value
            self.reader.held[key] = value
            if key not in self.wrote and not known:
                self.reader.settled[key] = copy.deepcopy(value)

    def nothing(self, *rest: Any) -> None:
        """A verb without a meaning for the values."""

    def do_get(self, key: str) -> None:
        value = self._read(key)
        self.reader.locals[key] = copy.deepcopy(value)

    def do_who(self) -> None:
        self._read("birth")

    def do_len(self) -> None:
        self._keys()

    def _keys(self) -> list[str]:
        if self.reader.keys is None or not self.wrote:
            self.reader.keys = frozenset(self.base)
        return sorted(self.values)

    def do_hold(self, key: str) -> None:
        self._lend(key, self._read(key))

    # -- writing -----------------------------------------------------------------------

    def _put(self, key: str, value: Any) -> None:
        self.values[key] = value
        self.wrote.add(key)
        self.reader.held.pop(key, None)

    def do_put(self, key: str, marker: str) -> None:
        self._put(key, [marker])

    def do_add(self, key: str, marker: str) -> None:
        self._put(key, [*as_list(self._read(key)), marker])

    def do_derive(self, key: str, source: str, marker: str) -> None:
        self._put(key, [*as_list(self._read(source)), marker])

    def do_useold(self, key: str, source: str, marker: str) -> None:
        self._put(key, [*as_list(self.reader.locals.get(source)), marker])

    def do_keys(self, key: str, marker: str) -> None:
        self._put(key, [*self._keys(), marker])

    def do_push(self, key: str, marker: str) -> None:
        value = self._read(key)
        if value is None:
            self.values[key] = value = []
        value.append(marker)
        self.wrote.add(key)

    def do_putheld(self, key: str, marker: str) -> None:
        value = [marker]
        self._put(key, value)
        self.reader.held[key] = value

    def do_heldpush(self, key: str, marker: str) -> None:
        if key in self.reader.held:
            self.reader.held[key].append(marker)

    def do_update(self, key: str, other: str, marker: str) -> None:
        self._put(key, [marker])
        self._put(other, [marker])

    def do_inc(self) -> None:
        self._put("n", (self._read("n") or 0) + 1)

    def do_del(self, key: str) -> None:
        self._read(key)
        if key in self.values:
            del self.values[key]
            self.wrote.add(key)
        self.reader.held.pop(key, None)

    def do_drain(self) -> None:
        for key in self._keys():
            self.do_del(key)

    def do_pop(self, key: str, marker: str) -> None:
        value = self._read(key)
        self.do_del(key)
        self._put("c" if key != "c" else "a", [*as_list(value), marker])

    def do_revert(self) -> None:
        self.values = {} if self.replaced else copy.deepcopy(self.base)
        self.wrote.clear()
        self.reader.held.clear()

    do_discard = do_revert

    # -- identity ----------------------------------------------------------------------

    def do_rotate(self) -> None:
        self.saves = True

    def do_regenerate(self) -> None:
        self.saves = True

    def do_force(self) -> None:
        self.saves = True

    def do_expiry(self, seconds: int | None) -> None:
        self.saves = True

    def do_login(self, user: str, marker: str) -> None:
        if self.user not in (None, user):
            self._forget()
            self.replaced = True
        self.user, self.user_changed = user, True

    def do_flush(self) -> None:
        self._forget()
        self.ended = self.replaced = True
        self.user, self.user_changed = None, False

    def do_clear(self) -> None:
        if edition.CLEAR_ENDS:
            self.do_flush()
            return
        self.wrote.update(self.values)
        self.values = {}
        self.reader.held.clear()

    def _forget(self) -> None:
        self.values = {}
        self.wrote.clear()
        self.reader.held.clear()
        self.reader.agreed.clear()
        self.reader.keys = None

    def do_kill(self) -> None:
        """The session is ended from outside."""
        self.do_flush()

    def do_kill_user(self, user: str) -> None:
        if self.user == user:
            self.do_flush()


ENDS = ("flush", "clear", "kill")
LIMIT = 4000
"""Steps of the search; a program that takes more is left undecided."""


class Search:
    """All serial orders of segments, and the states in which they end."""

    def __init__(self, start: State, segments: list[Segment]) -> None:
        self.start = start
        self.segments = segments
        self.steps = 0
        self.ends: list[State] = []

    @property
    def is_undecided(self) -> bool:
        return self.steps > LIMIT

    def run(self) -> list[State]:
        self._go(self.start, {}, list(self.segments))
        return self.ends

    def _go(
        self, state: State, readers: dict[str, Reader], left: list[Segment]
    ) -> None:
        self.steps += 1
        if self.is_undecided:
            return
        if not left:
            if state not in self.ends:
                self.ends.append(state)
            return
        soonest = min(segment.end for segment in left)
        for segment in left:
            if segment.begin > soonest:
                continue  # another had ended before this began
            if any(
                o.request == segment.request and o.number < segment.number for o in left
            ):
                continue
            rest = [other for other in left if other is not segment]
            mine = copy.deepcopy(readers.get(segment.request) or Reader())
            try:
                after = Serial(state, mine, segment).run()
            except Lost:
                pass
            else:
                self._go(after, {**readers, segment.request: mine}, rest)
            if segment.optional:
                self._go(state, readers, rest)
                if state.alive and any(verb[0] in ENDS for verb in segment.verbs):
                    self._go(State(False, {}, None), readers, rest)
