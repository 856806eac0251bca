"""Deliberate breaks of the rules about tokens and ends."""

from __future__ import annotations

from typing import Any

import pytest

from . import edition
from .breaks import breaks

# -- tokens ----------------------------------------------------------------------------


@breaks("8", kind="identity")
def the_window_is_long_before_the_token_was_seen(patch: pytest.MonkeyPatch) -> None:
    """A login whose answer was dropped shuts its user out for a minute."""
    from wsgisession._core import standing

    patch.setattr(standing, "WINDOW_UNSEEN", 60.0)


@breaks("8", kind="clocks")
def the_turn_of_a_fast_host_counts(patch: pytest.MonkeyPatch) -> None:
    """A login on a host whose clock is fast leaves the window open for an hour."""
    from wsgisession._core import standing

    def is_open(record: Any, now: float) -> bool:
        since = record.turned if record.seen is None else record.seen
        return bool(now - since < standing.WINDOW_UNSEEN)

    patch.setattr(standing, "window_is_open", is_open)


@breaks("4", kind="identity")
def a_login_only_rotates(patch: pytest.MonkeyPatch) -> None:
    """The token from before a login is good after it."""
    from wsgisession._core import work
    from wsgisession._core.standing import Turn

    turned = work.turned

    def rotated(record: Any, turn: Any, *rest: Any, **more: Any) -> Any:
        turn = Turn.ROTATE if turn is Turn.REGENERATE else turn
        return turned(record, turn, *rest, **more)

    patch.setattr(work, "turned", rotated)


@breaks("4", kind="identity")
def clear_keeps_the_proof(patch: pytest.MonkeyPatch) -> None:
    """What is written after clear() is stored under the token from before."""
    from wsgisession._core.outcome import State
    from wsgisession._core.standing import Turn
    from wsgisession._core.work import Work

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
    from wsgisession._core import work
    from wsgisession._core.standing import Turn

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
    from wsgisession._core.transaction import Transaction

    save = Transaction.save

    def silent(self: Any) -> None:
        save(self)
        self.work._is_unsent = False

    patch.setattr(Transaction, "save", silent)


@breaks("3", kind="values")
def a_due_rotation_is_not_taken_with_a_change(patch: pytest.MonkeyPatch) -> None:
    """A session that is always written keeps its token for ever."""
    from wsgisession._core.work import Work

    patch.setattr(Work, "turn_at", lambda self, now, *, is_first: self.wanted_turn(now))


@breaks("5", kind="readers")
def a_reader_sends_a_cookie(patch: pytest.MonkeyPatch) -> None:
    """The current token is sent again by whoever reads."""
    from wsgisession._core.outcome import Cookie
    from wsgisession._core.work import Work

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
    from wsgisession._core import work

    patch.setattr(work, "may_end", lambda record, proof, now: record.admits(proof, now))


@breaks("3", "1", kind="identity")
def a_flush_and_write_with_an_ended_token_is_dropped(patch: pytest.MonkeyPatch) -> None:
    """Flask's tutorial beside a login: clear() and a new value do nothing at all."""
    from wsgisession._core.outcome import State
    from wsgisession._core.repository import is_good
    from wsgisession._core.transaction import Transaction

    commit = Transaction.commit

    def dropping(self: Any) -> None:
        work = self.work
        is_ended = work.stored is not None and not is_good(work.stored)
        if work.state is State.FLUSHED and is_ended and work.is_worth_storing():
            work.take_another_id()
            work.copy.clear()
            work.copy.settle(self.repository.codec.encode(work.meta, {}))
            work.meta = work.meta._replace(user=None)
        commit(self)

    patch.setattr(Transaction, "commit", dropping)


@breaks("2", "3", "1", kind="values")
def an_emptied_session_is_deleted(patch: pytest.MonkeyPatch) -> None:
    """A key that another request writes at that time is lost."""
    from wsgisession._core.repository import Repository

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


# -- locks -----------------------------------------------------------------------------


@breaks("2", kind="identity")
def a_proof_that_is_not_good_keeps_a_lease(patch: pytest.MonkeyPatch) -> None:
    """A request with an old token holds up all others until the lease ends."""
    from wsgisession._core.repository import Repository

    def leased(self: Any, key: Any, wait: float | None, by: str) -> Any:
        record = self.locks.lock(
            key._replace(proof=None),
            wait=self.options.lock_wait if wait is None else wait,
            lease=self.options.lock_lease,
            waiters=self.options.lock_waiters,
            by=by,
        )
        return None if record is None else self._judged(record, key)

    patch.setattr(Repository, "take", leased)
