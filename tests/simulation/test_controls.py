"""The positive controls: of each deliberate break of the library the simulator finds one.

A break is a change of one rule, put in from outside for one test.  What finds it must be
an oracle that is about that rule, within a minute of seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from . import edition
from .hunt import Hunt
from .simulator import Stage
from .stages import stage_of

pytestmark = pytest.mark.skipif(
    edition.IS_FIRST, reason="the breaks are of the second edition"
)

SECONDS = 60.0
SEEDS = 60_000

Patch = Callable[[pytest.MonkeyPatch], None]


class Break(NamedTuple):
    """A rule that is broken, the oracles that may find it, and where to look first."""

    patch: Patch
    oracles: tuple[str, ...]
    kind: str | None = None


BREAKS: dict[str, Break] = {}


def breaks(*oracles: str, kind: str | None = None) -> Callable[[Patch], Patch]:
    def note(patch: Patch) -> Patch:
        BREAKS[patch.__name__] = Break(patch, oracles, kind)
        return patch

    return note


# -- tokens ----------------------------------------------------------------------------


@breaks("8", kind="identity")
def the_window_is_long_before_the_token_was_seen(patch: pytest.MonkeyPatch) -> None:
    """A login whose answer was dropped shuts its user out for a minute."""
    from wsgisession.core import standing

    patch.setattr(standing, "WINDOW_UNSEEN", 60.0)


@breaks("8", kind="faults")
def the_turn_of_a_fast_host_counts(patch: pytest.MonkeyPatch) -> None:
    """A login on a host whose clock is fast leaves the window open for an hour."""
    from wsgisession.core import standing

    def is_open(record: Any, now: float) -> bool:
        since = record.turned if record.seen is None else record.seen
        return bool(now - since < standing.WINDOW_UNSEEN)

    patch.setattr(standing, "window_is_open", is_open)


@breaks("4", kind="identity")
def a_login_only_rotates(patch: pytest.MonkeyPatch) -> None:
    """The token from before a login is good after it."""
    from wsgisession.core import work
    from wsgisession.core.standing import Turn

    turned = work.turned

    def rotated(record: Any, turn: Any, *rest: Any, **more: Any) -> Any:
        turn = Turn.ROTATE if turn is Turn.REGENERATE else turn
        return turned(record, turn, *rest, **more)

    patch.setattr(work, "turned", rotated)


@breaks("4", kind="identity")
def clear_keeps_the_proof(patch: pytest.MonkeyPatch) -> None:
    """What is written after clear() is stored under the token from before."""
    from wsgisession.core.outcome import State
    from wsgisession.core.standing import Turn
    from wsgisession.core.work import Work

    record = Work.record

    def kept(self: Any, turn: Any, now: float) -> Any:
        turn = Turn.NONE if self.state is State.FLUSHED else turn
        return record(self, turn, now)

    patch.setattr(Work, "record", kept)


@breaks("7", kind="identity")
def an_unseen_current_token_is_dropped(patch: pytest.MonkeyPatch) -> None:
    """A second rotation by the token before forgets the first one's token."""
    _forgetting(patch, lambda record, presented: {record.proof} - {presented})


@breaks("7", kind="identity")
def the_presented_proof_is_dropped(patch: pytest.MonkeyPatch) -> None:
    """A lost answer to a rotation logs the user out."""
    _forgetting(patch, lambda record, presented: {presented})


def _forgetting(patch: pytest.MonkeyPatch, which: Any) -> None:
    from wsgisession.core import work
    from wsgisession.core.standing import Turn

    turned = work.turned

    def forgetful(record: Any, turn: Any, *rest: Any, **more: Any) -> Any:
        new = turned(record, turn, *rest, **more)
        if turn is not Turn.ROTATE:
            return new
        gone = which(record, more["presented"])
        kept = tuple(each for each in new.replaced if each.proof not in gone)
        return new._replace(replaced=kept)

    patch.setattr(work, "turned", forgetful)


@breaks("7", "8", "3", kind="identity")
def a_saved_token_is_not_sent(patch: pytest.MonkeyPatch) -> None:
    """login() and save(): the new token is stored, and the browser never gets it."""
    from wsgisession.core.transaction import Transaction

    save = Transaction.save

    def silent(self: Any) -> None:
        save(self)
        self.work._is_unsent = False

    patch.setattr(Transaction, "save", silent)


@breaks("3", kind="values")
def a_due_rotation_is_not_taken_with_a_change(patch: pytest.MonkeyPatch) -> None:
    """A session that is always written keeps its token for ever."""
    from wsgisession.core.work import Work

    patch.setattr(Work, "turn_at", lambda self, now, *, is_first: self.wanted_turn(now))


@breaks("5", kind="readers")
def a_reader_sends_a_cookie(patch: pytest.MonkeyPatch) -> None:
    """The current token is sent again by whoever reads."""
    from wsgisession.core.outcome import Cookie
    from wsgisession.core.work import Work

    cookie = Work.cookie

    def sent(self: Any) -> Any:
        told = cookie(self)
        is_held = told is Cookie.KEEP and self.token is not None
        return Cookie.SET if is_held else told

    patch.setattr(Work, "cookie", sent)


# -- ends ------------------------------------------------------------------------------


@breaks("3", "1", kind="identity")
def a_save_brings_back_what_was_ended(patch: pytest.MonkeyPatch) -> None:
    """An update that finds no record inserts one."""
    from wsgisession.stores.memory import MemoryStore

    save = MemoryStore.save

    def upsert(self: Any, record: Any, *, expect: int) -> None:
        there = self._records.get(record.id)
        save(self, record, expect=expect if there is not None else 0)

    patch.setattr(MemoryStore, "save", upsert)


@breaks("3", "1", kind="identity")
def a_flush_with_an_ended_token_is_dropped(patch: pytest.MonkeyPatch) -> None:
    """A logout beside a login does not end the session."""
    from wsgisession.core import work

    patch.setattr(work, "may_end", lambda record, proof, now: record.admits(proof, now))


@breaks("2", "3", "1", kind="values")
def an_emptied_session_is_deleted(patch: pytest.MonkeyPatch) -> None:
    """A key that another request writes at that time is lost."""
    from wsgisession.core.repository import Repository

    save = Repository.save

    def emptied(self: Any, record: Any, data: bytes, *rest: Any, **more: Any) -> Any:
        done = save(self, record, data, *rest, **more)
        if not self.codec.values(data) and done.meta.user is None:
            self.store.delete(edition.wsgisession.Key(record.id))
        return done

    patch.setattr(Repository, "save", emptied)


@breaks("3", "2", kind="identity")
def keep_ends_the_caller(patch: pytest.MonkeyPatch) -> None:
    """end_user(keep=) ends all sessions of the user."""
    from wsgisession import SessionManager

    end_user = SessionManager.end_user
    patch.setattr(
        SessionManager,
        "end_user",
        lambda self, user, *, keep=None: end_user(self, user),
    )


# -- values ----------------------------------------------------------------------------


@breaks("1", kind="values")
def a_store_saves_blindly(patch: pytest.MonkeyPatch) -> None:
    """The version is not compared."""
    from wsgisession.stores.memory import MemoryStore

    save = MemoryStore.save

    def blind(self: Any, record: Any, *, expect: int) -> None:
        there = self._records.get(record.id)
        self._leases.pop(record.id, None)
        save(self, record, expect=there.version if there is not None else expect)

    patch.setattr(MemoryStore, "save", blind)


@breaks("1", kind="faults")
def a_lost_answer_is_a_conflict(patch: pytest.MonkeyPatch) -> None:
    """A save whose answer was lost is tried again, and counts twice."""
    from .world import SimulatedStore

    patch.setattr(SimulatedStore, "lost_is_conflict", True)


@breaks("1", kind="values")
def a_lock_forgets_what_was_read(patch: pytest.MonkeyPatch) -> None:
    """A second look under the lock clears what was computed before."""
    from wsgisession.core.transaction import Transaction

    lock = Transaction.lock

    def forgetful(self: Any, wait: float | None = None) -> None:
        self.work.copy.reads.clear()
        lock(self, wait)

    patch.setattr(Transaction, "lock", forgetful)


@breaks("1", "6", kind="values")
def lent_values_are_let_go_at_a_save(patch: pytest.MonkeyPatch) -> None:
    """A list that was put in, saved, and appended to again is watched by nobody."""
    from wsgisession.core.merge import WorkingCopy

    settle = WorkingCopy.settle

    def forgetful(self: Any, data: bytes) -> None:
        settle(self, data)
        self._lent.clear()

    patch.setattr(WorkingCopy, "settle", forgetful)


@breaks("1", "2", kind="values")
def a_nested_lock_saves(patch: pytest.MonkeyPatch) -> None:
    """The inner block saves and unlocks what the outer one holds."""
    from wsgisession.core.access import Access

    leave = Access.leave_lock

    def inner(self: Any, **more: Any) -> None:
        depth, self._depth = self._depth, 1
        leave(self, **more)
        self._depth = depth - 1

    patch.setattr(Access, "leave_lock", inner)


@breaks("6", kind="values")
def save_hides_a_second_run(patch: pytest.MonkeyPatch) -> None:
    """save() returns though it met a conflict and wrote nothing."""
    from wsgisession.core.transaction import ReplayNeeded, Transaction

    save = Transaction.save

    def lying(self: Any) -> None:
        with suppress(ReplayNeeded):
            save(self)

    patch.setattr(Transaction, "save", lying)


@breaks("P9", kind="readers")
def a_touch_ignores_the_version(patch: pytest.MonkeyPatch) -> None:
    """A reader's touch undoes the expiry that another request has set."""
    from wsgisession.stores.memory import MemoryStore

    touch = MemoryStore.touch

    def blind(self: Any, record: Any) -> bool:
        there = self._records.get(record.id)
        if there is None:
            return touch(self, record)
        return touch(self, record._replace(version=there.version))

    patch.setattr(MemoryStore, "touch", blind)


# -- who waits, who is run again -------------------------------------------------------


@breaks("2", kind="identity")
def a_proof_that_is_not_good_keeps_a_lease(patch: pytest.MonkeyPatch) -> None:
    """A request with an old token holds up all others until the lease ends."""
    from wsgisession.core.repository import Repository

    def leased(self: Any, key: Any, wait: float | None = None) -> Any:
        record = self.locks.lock(
            key._replace(proof=None),
            wait=self.options.lock_wait if wait is None else wait,
            lease=self.options.lock_lease,
            waiters=self.options.lock_waiters,
        )
        return None if record is None else self._judged(record, key)

    patch.setattr(Repository, "take", leased)


@breaks("5", kind="readers")
def readers_lock(patch: pytest.MonkeyPatch) -> None:
    """A reader takes the lock, and waits for it."""
    from wsgisession.http.exchange import Exchange

    patch.setattr(Exchange, "_locks", lambda self, is_safe: True)


@breaks("2", kind="values")
def nothing_is_run_again(patch: pytest.MonkeyPatch) -> None:
    """A conflict of a GET is reported, though the GET could be run again."""
    from wsgisession.http.exchange import Exchange

    patch.setattr(Exchange, "_can_replay", lambda self: False)


@breaks("9", kind="values")
def whatever_comes_is_run_again(patch: pytest.MonkeyPatch) -> None:
    """A payment return, a link in a mail: they come from outside, and run twice."""
    from wsgisession.http.exchange import Exchange

    patch.setattr(Exchange, "_can_replay", lambda self: True)


# -- the tests -------------------------------------------------------------------------


@pytest.fixture
def stage() -> Iterator[Stage]:
    with stage_of("memory") as made:
        yield made


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_a_deliberate_break_is_found(
    name: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An oracle that is about the broken rule accuses it within a minute of seeds."""
    broken = BREAKS[name]
    broken.patch(monkeypatch)
    hunt = Hunt(stage, kind=broken.kind, shrink=0)
    began = time.perf_counter()
    for seed in range(SEEDS):
        found = hunt.seed(seed)
        if any(each.oracle.startswith(broken.oracles) for each in found):
            return
        if time.perf_counter() - began > SECONDS:
            break
    pytest.fail(f"not found in {hunt.count} programs; seen: {dict(hunt.counts)}")
