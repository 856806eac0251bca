"""Deliberate breaks of the rules about reads, writes, locks and second runs."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from .breaks import breaks

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
    from wsgisession._core.transaction import Transaction

    lock = Transaction.lock

    def forgetful(self: Any, wait: float | None = None) -> None:
        self.work.copy.reads.clear()
        lock(self, wait)

    patch.setattr(Transaction, "lock", forgetful)


@breaks("1", "6", kind="values")
def lent_values_are_let_go_at_a_save(patch: pytest.MonkeyPatch) -> None:
    """A list that was put in, saved, and appended to again is watched by nobody."""
    from wsgisession._core.merge import WorkingCopy

    settle = WorkingCopy.settle

    def forgetful(self: Any, data: bytes) -> None:
        settle(self, data)
        self._lent.clear()

    patch.setattr(WorkingCopy, "settle", forgetful)


@breaks("1", "2", kind="values")
def a_nested_lock_saves(patch: pytest.MonkeyPatch) -> None:
    """The inner block saves and unlocks what the outer one holds."""
    from wsgisession._core.access import Access

    leave = Access.leave_lock

    def inner(self: Any, **more: Any) -> None:
        depth, self._depth = self._depth, 1
        leave(self, **more)
        self._depth = depth - 1

    patch.setattr(Access, "leave_lock", inner)


@breaks("6", kind="values")
def save_hides_a_second_run(patch: pytest.MonkeyPatch) -> None:
    """save() returns though it met a conflict and wrote nothing."""
    from wsgisession._core.transaction import ReplayNeeded, Transaction

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


# -- merging ---------------------------------------------------------------------------


@breaks("1", kind="values")
def a_merge_takes_the_whole_session(patch: pytest.MonkeyPatch) -> None:
    """Keys that this request did not write come back as it had loaded them."""
    from wsgisession._core.merge import WorkingCopy

    rebase = WorkingCopy.rebase

    def whole(self: Any, data: bytes) -> None:
        self.writes |= self.values.keys()
        rebase(self, data)

    patch.setattr(WorkingCopy, "rebase", whole)


@breaks("1", kind="values")
def a_merge_forgets_what_was_deleted(patch: pytest.MonkeyPatch) -> None:
    """A key that was taken away here is there again after a conflict."""
    from wsgisession._core.merge import WorkingCopy

    rebase = WorkingCopy.rebase

    def forgetful(self: Any, data: bytes) -> None:
        self.writes &= self.values.keys()
        rebase(self, data)

    patch.setattr(WorkingCopy, "rebase", forgetful)


@breaks("1", kind="values")
def which_keys_there_are_is_not_read(patch: pytest.MonkeyPatch) -> None:
    """A list of the keys is written, though another request has added one."""
    from wsgisession._core.merge import WorkingCopy

    def keys(self: Any) -> Any:
        return iter(self.values)

    patch.setattr(WorkingCopy, "keys", keys)


@breaks("1", kind="values")
def any_look_agrees_anew(patch: pytest.MonkeyPatch) -> None:
    """A second look clears a key, though something made of the first is unsaved."""
    from wsgisession._core.merge import WorkingCopy

    def agree(self: Any, key: str) -> None:
        self.overtaken.pop(key, None)

    patch.setattr(WorkingCopy, "_agree_anew", agree)


@breaks("1", kind="values")
def a_reload_lets_go_of_what_was_lent(patch: pytest.MonkeyPatch) -> None:
    """A list that a reload has replaced is changed in the hands, and nobody sees it."""
    from wsgisession._core.merge import WorkingCopy

    patch.setattr(WorkingCopy, "_collect_detached", lambda self: None)


@breaks("1", kind="values")
def a_loss_is_not_reported(patch: pytest.MonkeyPatch) -> None:
    """What another request wrote is overwritten in silence."""
    from wsgisession._core.merge import WorkingCopy

    conflicts = WorkingCopy.conflicts

    def silent(self: Any) -> frozenset[str]:
        keys = conflicts(self)
        if self.has_changed() and self._settled:
            return frozenset()
        return keys

    patch.setattr(WorkingCopy, "conflicts", silent)


@breaks("1", kind="values")
def a_dropped_change_is_written(patch: pytest.MonkeyPatch) -> None:
    """``modified = False`` forgets that keys were written, and keeps their values."""
    from wsgisession._core.merge import WorkingCopy

    def kept(self: Any) -> None:
        self._lent.clear()
        self._detached.clear()

    patch.setattr(WorkingCopy, "revert", kept)


# -- who waits, who is run again -------------------------------------------------------


@breaks("5", kind="readers")
def readers_lock(patch: pytest.MonkeyPatch) -> None:
    """A reader takes the lock, and waits for it."""
    from wsgisession._http.exchange import Exchange

    patch.setattr(Exchange, "_locks", lambda self, is_safe: True)


@breaks("2", kind="values")
def nothing_is_run_again(patch: pytest.MonkeyPatch) -> None:
    """A conflict of a GET is reported, though the GET could be run again."""
    from wsgisession._http.exchange import Exchange

    patch.setattr(Exchange, "_can_replay", lambda self: False)


@breaks("9", kind="values")
def whatever_comes_is_run_again(patch: pytest.MonkeyPatch) -> None:
    """A payment return, a link in a mail: they come from outside, and run twice."""
    from wsgisession._http.exchange import Exchange

    patch.setattr(Exchange, "_can_replay", lambda self: True)
