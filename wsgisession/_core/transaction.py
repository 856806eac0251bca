"""One request's way through the store: the first look, the lock, the one write.

It carries out what ``outcome`` decides, and knows who waits, who merges and who is run
again.  It knows neither HTTP nor any concrete store.
"""

from __future__ import annotations

import time

from ..errors import (
    ConfigurationError,
    LockTimeout,
    SessionClosed,
    SessionEnded,
    StoreError,
    VersionConflict,
)
from ..events import Created, Dropped, Ended, Merged
from ..record import Key, Record
from .conflicts import decide
from .expiry import DEFAULT
from .first_look import NOTHING_FOUND, Found, Plan, look
from .outcome import DECISIONS, Action, State
from .repository import Repository, Stored, is_good, log
from .standing import Standing, Turn, judge
from .work import Work

OPTIONAL = frozenset((Action.ROTATE, Action.CONFIRM, Action.TOUCH))
"""What the next request can do as well."""


class ReplayNeeded(BaseException):
    """What was read has changed, and the request can be run once more.

    A message to the code that runs the application, never an error; it passes through the
    application's ``except Exception``.
    """

    def __init__(self, id: str, keys: frozenset[str]) -> None:
        super().__init__(sorted(keys))
        self.id = id
        self.keys = keys


class Transaction:
    """A session that has been looked at."""

    __slots__ = ("_dropped", "outage", "replay_due", "repository", "work")

    def __init__(
        self, repository: Repository, plan: Plan, found: Found | None = None
    ) -> None:
        self.repository = repository
        self.outage: StoreError | None = None
        self.replay_due: ReplayNeeded | None = None
        """That nothing of this run counts any more, whatever the application does."""
        self._dropped: SessionEnded | None = None
        if found is None:
            found = self._found(plan) if plan.keys else NOTHING_FOUND
        try:
            self.work = Work(repository, plan, found)
        except Exception:
            if (stored := found.stored) is None:
                raise
            repository.is_corrupt(stored.record)
            repository.unlock(stored.record)
            self.work = Work(repository, plan, found._replace(stored=None))

    def _found(self, plan: Plan) -> Found:
        """Load what was presented, or lock and load it: one call of the store."""
        try:
            return look(self.repository, plan)
        except StoreError as error:
            if self.repository.options.on_store_error == "raise":
                raise
            self.repository.failed(error, "an empty session is served")
            self.outage = error
            return NOTHING_FOUND

    # -- the lock ----------------------------------------------------------------------

    def lock(self, wait: float | None = None) -> None:
        """Take the lock, and put what was written here on what is stored now."""
        self.raise_replay_again()
        if self.work.state is not State.STORED or self.work.locked:
            return
        if self.repository.locks is None:
            raise ConfigurationError(
                f"{type(self.repository.store).__name__} cannot lock; "
                "locks need a store that can, on the server"
            )
        self._meet(self.repository.take(self.work.own_key, wait, self.work.plan.by))

    def unlock(self) -> None:
        """Write what was changed, and let other requests in."""
        self.raise_replay_again()
        if self.work.has_changed():
            self.save()
        self.release()

    def release(self) -> None:
        """End our lease, once: one that cannot be ended now ends by itself."""
        work = self.work
        if work.stored is not None and work.locked:
            record = work.stored.record
            work.stored = work.stored._replace(record=record.bare())
            self.repository.unlock(record)

    def _meet(self, stored: Stored | None) -> None:
        """Go on from a newer record, or find that the session has ended."""
        work = self.work
        assert work.stored is not None
        if stored is None or not is_good(stored):
            work.state, work.stored = State.ENDED, stored
            return
        is_newer = stored.record.version != work.stored.record.version
        if is_newer:
            try:
                work.copy.rebase(stored.record.data)
            except Exception:
                self.repository.is_corrupt(stored.record)
                self.repository.unlock(stored.record)
                work.state, work.stored = State.ENDED, None
                return
            work.meta = work.meta.rebased(stored.meta, work.stored.meta)
        work.stored = stored
        keys = work.copy.conflicts()
        if keys:
            self.replay_if_possible(keys)
        if is_newer and not keys and work.has_changed():
            self.repository.tell(Merged(id=work.id))

    # -- running again -----------------------------------------------------------------

    def replay_if_possible(self, keys: frozenset[str]) -> None:
        """Raise ``ReplayNeeded``, unless the request can be run only once."""
        if self.work.can_replay:
            self.release()
            self.replay_due = ReplayNeeded(self.work.id, keys)
            raise self.replay_due

    def raise_replay_again(self) -> None:
        """Nothing of this run counts any more, even where the application goes on."""
        if self.replay_due is not None:
            raise self.replay_due

    # -- the end -----------------------------------------------------------------------

    def commit(self) -> None:
        """Settle the session by the table of ``outcome``; the lease ends in any case.

        Raises ``ReplayNeeded`` where the request is to be run again.
        """
        if self.replay_due is not None:
            raise self.replay_due
        work, now = self.work, self.repository.now()
        expires = work.meta.expiry is not DEFAULT and work.state is not State.ENDED
        if expires and work.meta.has_passed(self.repository.options, now):
            work.flush()
        try:
            is_ending = work.state is State.FLUSHED or work.rivals
            if is_ending and work.has_to_end and not work.is_worth_storing():
                self._end()
            self._settle(now)
        finally:
            if work.locked:
                self.release()

    def save(self) -> None:
        """Commit in the middle of the request, an empty new session too.

        Raises ``SessionEnded`` where the session was ended by another request.
        """
        work = self.work
        if work.state is State.ABSENT:
            work.force()
        self.commit()
        self.raise_dropped()
        work.copy.agree()

    def roll_back(self) -> None:
        """Drop what a failed request did, but for an end, which stands."""
        try:
            if self.work.has_to_end:
                self._end()
        finally:
            self.release()

    def commit_late(self) -> None:
        """Write what was changed where no cookie can be set any more."""
        work = self.work
        work.forbid_replay()
        try:
            if work.has_to_end:
                self._end()
            elif self.replay_due is not None or work.needs_cookie():
                return
            elif work.has_changed():
                is_token = self.repository.token_room is not None
                if is_token and work.state is not State.ENDED:
                    raise SessionClosed(
                        "the headers have left, and this session is held in a cookie; "
                        "write to it before the response begins"
                    )
                self._settle(self.repository.now(), is_first=False)
        finally:
            self.release()

    def _end(self) -> None:
        """Delete what was ended here."""
        work = self.work
        if work.state is State.FLUSHED:
            self.repository.delete(Key(work.id))
            work.take_another_id()
        self._end_rivals()

    def _end_rivals(self) -> None:
        """Of several sessions that a client presented at once, none is to stay."""
        for key in self.work.rivals:
            self.repository.delete(key)
        self.work.rivals = ()

    # -- the table ---------------------------------------------------------------------

    def _settle(self, now: float, *, is_first: bool = True) -> None:
        """Carry out what the table says, again after each conflict.

        A rotation that is due is taken along at the first try, where there is one.
        """
        began = None
        while True:
            action = DECISIONS[self.work.facts(now, is_first=is_first)]
            if action is Action.NONE or action is Action.UNLOCK:
                return  # every end of a commit unlocks
            try:
                self._carry_out(action, now, is_first=is_first)
                return
            except VersionConflict as conflict:
                if action in OPTIONAL:  # another request saved, and moved the clock
                    return
                began = time.monotonic() if began is None else began
                self._overtaken(action, conflict.record)
            is_first, waited = False, time.monotonic() - began
            can_lock = self.repository.locks is not None
            if not can_lock and waited > self.repository.options.lock_wait:
                raise LockTimeout(self.work.id, waited)
            now = self.repository.now()

    def _carry_out(self, action: Action, now: float, *, is_first: bool) -> None:
        work = self.work
        match action:
            case Action.INSERT:
                self._write(Turn.NONE, now)
                self._end_rivals()
            case Action.SAVE:
                if work.copy.overtaken:
                    self._decide_conflicts()
                self._write(work.turn_at(now, is_first=is_first), now)
            case Action.BEGIN_ANEW:
                self._write(Turn.REGENERATE, now)
                self.repository.tell(Ended(id=work.id))
                self.repository.tell(Created(id=work.id, user=work.meta.user))
                self._end_rivals()
            case Action.LOG_IN_ANEW:
                self._log_in_anew(now)
            case Action.REPORT:
                self.drop(SessionEnded(work.id))
            case Action.ROTATE:
                self._try(Turn.ROTATE, now)
            case Action.CONFIRM:
                self._try(Turn.NONE, now)
            case Action.TOUCH:
                self._touch(now)

    def _overtaken(self, action: Action, record: Record | None) -> None:
        """Another request was quicker: see what is there now, and go on from it."""
        work = self.work
        if work.stored is None:
            work.take_another_id()
            return
        ours, key = work.stored.record, work.own_key
        if self.repository.locks is not None:
            work.stored = work.stored._replace(record=ours.bare())
        opened = None
        if record is not None:
            standing = judge(record, key.proof, self.repository.now())
            standing = max(standing, Standing.ENDED)
            opened = self.repository.opened(record, standing, self.repository.now())
        if action is Action.BEGIN_ANEW:
            self._begin_elsewhere(ours, opened)
        elif action is Action.LOG_IN_ANEW:
            work.stored = opened
        else:
            self._meet(opened)
            if work.state is State.STORED and self.repository.locks is not None:
                # Bare retries do not end among many; with the lock the second does.
                self.lock()

    def _begin_elsewhere(self, ours: Record, now: Stored | None) -> None:
        """A flushed session was saved or locked by another request: it ends all the
        same, and what was written after the flush is not lost.
        """
        work = self.work
        if now is not None and now.record.version == ours.version:
            self._end()  # a foreign lease is in the way; an end waits for nobody
            return
        if self.repository.token_room is not None:
            self._end()  # the store cannot show what there is now
            return
        if now is not None and now.record.knows(work.presented):
            work.stored = now
            return
        work.take_another_id()

    # -- writing -----------------------------------------------------------------------

    def _write(self, turn: Turn, now: float) -> None:
        """Save, expecting what was loaded; nothing, where nothing is stored."""
        work, stored = self.work, self.work.stored
        data = work.data(now)
        record, token = work.record(turn, now)
        saved = self.repository.save(
            record,
            data,
            work.meta,
            standing=Standing.CURRENT if stored is None or token else stored.standing,
            expect=0 if stored is None else stored.record.version,
        )
        work.note(saved, token)
        if stored is None and self.repository.options.on_event is not None:
            self.repository.tell(Created(id=work.id, user=work.meta.user))

    def _try(self, turn: Turn, now: float) -> None:
        """Write what fails rather than waits."""
        before = self.work.meta
        try:
            self._write(turn, now)
        except VersionConflict:
            self.work.meta = before  # else the clock would count as a change
            raise
        except StoreError as error:
            self.work.meta = before
            self.repository.failed(error, "a session was read, not written")

    def _touch(self, now: float) -> None:
        work = self.work
        assert work.stored is not None
        try:
            work.note(self.repository.touch(work.stored, now), None)
        except StoreError as error:
            self.repository.failed(error, "a session was read, not touched")

    def _log_in_anew(self, now: float) -> None:
        """A proven login is never dropped because the session had ended."""
        work, stored = self.work, self.work.stored
        known = stored is not None and stored.record.knows(work.presented)
        if known and stored is not None and stored.record.user == work.meta.user:
            # The user clicked twice: both clicks lead to the session of the first.
            if work.copy.replaces_all:  # the values of the user before are gone already
                work.copy = work.copy.moved(stored.record.data)
            else:
                work.copy.rebase(stored.record.data)
            self._decide_conflicts()
            self._write(Turn.AGAIN, now)
            return
        log.warning(
            "session %s had ended when %r logged in; the login begins a new session",
            work.id,
            work.meta.user,
        )
        work.copy = work.copy.moved(None)
        work.take_another_id()
        self._write(Turn.NONE, now)
        self._end_rivals()

    # -- conflicts ---------------------------------------------------------------------

    def _decide_conflicts(self) -> None:
        """What to do about keys that were read here and changed by another request."""
        keys = self.work.copy.conflicts()
        if keys:
            self.replay_if_possible(keys)
            decide(self.repository, self.work.copy, keys, id=self.work.id)

    def drop(self, error: SessionEnded) -> None:
        """What was written is dropped, because a save must not undo an end; told once."""
        if self._dropped is None:
            self._dropped = error
            log.info("%s; its changes were dropped", error)
            self.repository.tell(Dropped(id=error.id))

    def raise_dropped(self) -> None:
        """Raise ``SessionEnded`` where what was written could not be kept."""
        if self._dropped is not None:
            raise self._dropped

    def has_ended(self) -> bool:
        """Whether another request has ended the session; asks the store.

        Where the session is to be written, it is locked by that, so that nothing can come
        in between what is written before it and itself.
        """
        work = self.work
        if work.state is not State.STORED:
            return work.state is State.ENDED and not work.has_logged_in
        if work.locked or self.repository.locks is None or not work.has_changed():
            found = self.repository.find(work.own_key)
            if found is None or not is_good(found):
                work.state, work.stored = State.ENDED, found
        else:
            self.lock()
        return work.state is State.ENDED and not work.has_logged_in
