"""One run: a virtual clock, a scheduler, and a store that may be left at every call.

An actor is a request or an administrator, in a greenlet of its own.  One runs at a time;
``World.point`` is where the scheduler may switch.  It chooses from a list of numbers that
is drawn from the seed and written down, so that the same list repeats the run.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from greenlet import getcurrent, greenlet

from . import edition

BASE = 1_700_000_000.0
TICK = 0.001
STEPS = 4000
"""More than any program takes; a run that is longer does not end."""


class Died(BaseException):
    """The process of this actor is dead: it calls no store any more."""


class Endless(Exception):
    """A run that makes no end."""


class Actor:
    """Who acts in a run: a greenlet, and what the oracles want to know of it."""

    def __init__(self, name: str, skew: float, work: Callable[[], None]) -> None:
        self.name = name
        self.skew = skew
        self.greenlet = greenlet(work)
        self.is_ready: Callable[[], bool] = lambda: True
        self.is_message = False
        self.begun: int | None = None
        self.ended: int | None = None
        self.deadline: float | None = None
        """Of a lock that is waited for."""
        self.progress = -1
        """How far the run had come when the lock was last tried."""
        self.dead = False
        self.stop = ""
        self.calls: list[str] = []
        """Of the store, in the last run of the view."""
        self.total = 0
        self.waits = 0
        self.saved: list[tuple[int, str, bytes]] = []
        self.loaded: list[tuple[str, bytes]] = []
        self.deleted: list[tuple[int, str]] = []
        self.reports: list[tuple[str, str]] = []
        """What was told about losses: kind and text."""
        self.faults = 0
        """Calls of the store that failed for this actor."""


class World:
    """The clock, the actors, and the log of what they did."""

    def __init__(
        self,
        seed: int,
        *,
        choices: list[int] | None = None,
        script: list[tuple[str, str]] | None = None,
        base: float = BASE,
    ) -> None:
        self.random = random.Random(seed)
        self.restless = self.random.choice((0.15, 0.4, 0.8))
        self.given = choices
        self.script = list(script or ())
        self.choices: list[int] = []
        self.now_ = base
        self.step = 0
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.main: Any = None
        self.waiting: dict[str, int] = {}
        self.log: list[str] | None = None
        self.overrun = False
        """Whether the clock was moved so far that a lease may have ended."""
        self.moved = 0.0

    # -- time --------------------------------------------------------------------------

    def now(self) -> float:
        """Epoch seconds, by the clock of the host of the actor that runs."""
        return self.now_ + (self.current.skew if self.current is not None else 0.0)

    def pass_by(self, seconds: float) -> None:
        self.now_ += seconds
        self.moved += seconds

    # -- switching ---------------------------------------------------------------------

    def tell(self, text: str) -> None:
        if self.log is not None:
            name = self.current.name if self.current is not None else "-"
            self.log.append(f"{self.step:4} {name}: {text}")

    def point(self, stop: str) -> None:
        """Where the scheduler may let another actor run."""
        actor = self.current
        if actor is None:
            return
        self.step += 1
        self.now_ += TICK
        actor.stop = stop
        self._leave(actor)

    def block(self, actor: Actor, deadline: float) -> None:
        """Wait until another actor has done something, or time has passed."""
        actor.deadline, actor.progress = deadline, self.step
        self._leave(actor)
        actor.deadline = None

    def _leave(self, actor: Actor) -> None:
        self.current = None
        self.main.switch()
        self.current = actor
        if actor.dead:
            raise Died

    def run(self) -> None:
        """Let all actors come to their end."""
        self.main = getcurrent()
        last: Actor | None = None
        while True:
            if self.step > STEPS:
                raise Endless(f"no end after {STEPS} steps")
            able = self._able(last)
            if not able:
                blocked = [a for a in self.actors if a.deadline is not None]
                if not blocked:
                    return
                self._let_time_pass(blocked)
                continue
            last = able[self._choose(able, last)]
            self._resume(last)

    def _able(self, last: Actor | None) -> list[Actor]:
        able = []
        for actor in self.actors:
            if actor.greenlet.dead or not (actor.begun is not None or actor.is_ready()):
                continue
            if actor.deadline is not None and actor.progress == self.step:
                continue
            if actor is last:
                able.insert(0, actor)
            else:
                able.append(actor)
        return able

    def _choose(self, able: list[Actor], last: Actor | None) -> int:
        if self.script:
            name, stop = self.script[0]
            for index, actor in enumerate(able):
                if actor.name == name and not (stop and actor.stop == stop):
                    return index
            self.script.pop(0)
            return self._choose(able, last)
        at = len(self.choices)
        if self.given is not None:
            chosen = self.given[at] if at < len(self.given) else 0
        elif last is able[0] and self.random.random() > self.restless:
            chosen = 0
        else:
            chosen = self.random.randrange(len(able))
        if chosen >= len(able):
            chosen = 0
        self.choices.append(chosen)
        return chosen

    def _resume(self, actor: Actor) -> None:
        if actor.begun is None:
            actor.begun = self.step
        self.current = actor
        actor.greenlet.switch()
        self.current = None
        if actor.greenlet.dead:
            self.step += 1
            actor.ended = self.step

    def _let_time_pass(self, blocked: list[Actor]) -> None:
        until = min(actor.deadline or 0.0 for actor in blocked)
        self.now_ = min(max(until, self.now_ + TICK), self.now_ + 1.0)
        for actor in blocked:
            actor.progress = -1


_current: World | None = None


def current() -> World | None:
    """The run that goes on at this moment."""
    return _current


@contextmanager
def running(world: World) -> Iterator[World]:
    """The clock of the process is that of the run."""
    global _current
    before, outer = time.time, _current
    _current = world
    time.time = world.now
    try:
        yield world
    finally:
        time.time = before
        _current = outer


def now() -> float:
    """The clock that a manager of the first edition is given."""
    return _current.now() if _current is not None else time.time()


class Listener(logging.Handler):
    """Hears what the library logs about losses."""

    def emit(self, record: logging.LogRecord) -> None:
        world = _current
        if world is None:
            return
        text = record.getMessage()
        if world.log is not None:
            world.tell(f"logged {record.levelname}: {text}")
        actor = world.current
        if actor is not None and "neither locked nor" in text:
            actor.reports.append(("overwritten", text))


log = logging.getLogger("wsgisession")


@contextmanager
def listening() -> Iterator[None]:
    """Only the listener hears the library's log."""
    handler, before = Listener(), (log.handlers, log.propagate, log.level)
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.handlers, log.propagate = before[0], before[1]
        log.setLevel(before[2])


class SimulatedStore:
    """A store in which every call may be left, fail, or be the last of a process.

    It has the methods of what it wraps.  Outside of an actor it passes calls on.
    """

    lost_is_conflict = False
    """A control: a lost answer to a save is told as a conflict."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.faults: Any = None

    @property
    def capabilities(self) -> Any:
        return self.inner.capabilities

    def load(self, key: Any) -> Any:
        return self._call("load", key.id, lambda: self.inner.load(key))

    def save(self, record: Any, *, expect: int) -> Any:
        def save() -> Any:
            done = self.inner.save(record, expect=expect)
            if (actor := self._actor()) is not None:
                actor.saved.append((_current.step, record.id, record.data))  # type: ignore[union-attr]
            return done

        return self._call("save", record.id, save)

    def touch(self, record: Any) -> Any:
        return self._call("touch", record.id, lambda: self.inner.touch(record))

    def delete(self, record: Any, **more: Any) -> Any:
        def delete() -> Any:
            done = self.inner.delete(record, **more)
            if (actor := self._actor()) is not None:
                actor.deleted.append((_current.step, record.id))  # type: ignore[union-attr]
            return done

        return self._call("delete", record.id, delete)

    def unlock(self, record: Any) -> None:
        return self._call("unlock", record.id, lambda: self.inner.unlock(record))

    def records(self, *, user: str | None = None) -> Iterator[Any]:
        records = lambda: list(self.inner.records(user=user))  # noqa: E731
        return iter(self._call("records", user or "", records))

    def delete_expired(self, *, batch: int) -> int:
        return self._call(
            "delete_expired", "", lambda: self.inner.delete_expired(batch=batch)
        )

    def lock(
        self, key: Any, *, wait: float, lease: float, waiters: int = 50, **more: Any
    ) -> Any:
        if not edition.IS_FIRST:
            more["waiters"] = waiters

        def take() -> Any:
            return self.inner.lock(key, wait=0, lease=lease, **more)

        world, actor = _current, self._actor()
        if world is None or actor is None:
            return take()

        def wait_and_take() -> Any:
            began, waiting = world.now_, False
            try:
                while True:
                    try:
                        return take()
                    except edition.LockTimeout:
                        if world.now_ - began >= wait:
                            raise edition.LockTimeout(key.id, wait) from None
                        if not waiting:
                            actor.waits += 1
                            waiting = True
                            count = world.waiting.get(key.id, 0)
                            if count >= waiters:
                                raise edition.LockTimeout(key.id, 0.0, count) from None
                            world.waiting[key.id] = count + 1
                    world.block(actor, began + wait)
            finally:
                if waiting:
                    world.waiting[key.id] -= 1

        return self._call("lock", key.id, wait_and_take)

    def _actor(self) -> Actor | None:
        return _current.current if _current is not None else None

    def _call(self, name: str, id: str, do: Callable[[], Any]) -> Any:
        world, actor = _current, self._actor()
        if world is None or actor is None:
            return do()
        if actor.dead:
            raise Died
        actor.calls.append(name)
        actor.total += 1
        world.point(f"before {name}")
        fault = self.faults(actor, name) if self.faults is not None else None
        self._fail_before(world, actor, name, fault)
        try:
            done = do()
        except edition.VersionConflict:
            world.tell(f"store.{name} {id[:6]} -> conflict")
            raise
        except edition.LockTimeout:
            world.tell(f"store.{name} {id[:6]} -> timeout")
            raise
        if name in ("load", "lock") and done is not None:
            actor.loaded.append((done.id, done.data))
        if world.log is not None:
            world.tell(f"store.{name} {id[:6]} -> {told(done)}")
        self._fail_after(world, actor, name, id, fault)
        return done

    def _fail_before(
        self, world: World, actor: Actor, name: str, fault: str | None
    ) -> None:
        if fault == "die":
            actor.dead = True
            world.tell(f"dies before {name}")
            raise Died
        if fault == "fail":
            actor.faults += 1
            world.tell(f"{name} fails")
            raise edition.StoreError("the store is out of reach")
        if fault == "rollback":
            self.roll_back()

    def _fail_after(
        self, world: World, actor: Actor, name: str, id: str, fault: str | None
    ) -> None:
        if fault == "lose":
            actor.faults += 1
            world.tell(f"the answer of {name} is lost")
            if self.lost_is_conflict and name == "save":
                raise edition.VersionConflict(id, self.inner.load(edition.Key(id)))
            raise edition.StoreError("the answer of the store was lost")
        if fault == "die after":
            actor.dead = True
            world.tell(f"dies after {name}")
            raise Died

    # -- a store that goes back to an earlier state ------------------------------------

    def remember(self) -> None:
        """Keep the state, of a memory store."""
        self._records = dict(self.inner._records)

    def roll_back(self) -> None:
        """Go back to what was kept; leases are lost as well."""
        self.inner._records = dict(self._records)
        self.inner._leases.clear()


def told(done: Any) -> str:
    """What a store answered, for the log of a run."""
    data = getattr(done, "data", None)
    if isinstance(data, bytes):
        lease = " (leased)" if done.lease is not None else ""
        return data.decode(errors="replace")[:300] + lease
    return "None" if done is None else type(done).__name__
