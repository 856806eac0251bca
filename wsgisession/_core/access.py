"""One request's access to its session: nothing happens until the session is used.

It knows when the headers have left and when the request is over, and what may be done
then.  An application holds a ``Session`` in front of it; who answers the request holds
the access itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import LockTimeout, SessionClosed, SessionReadOnly, StoreError
from .first_look import NO_PLAN, Plan, never
from .merge import WorkingCopy
from .outcome import State
from .repository import Repository
from .transaction import Transaction
from .user_side import UserSide


class Access:
    """The way to a session, used by as many views as there are.

    :param plan: decides how the request is to be treated; called at the first look.
    """

    __slots__ = (
        "_depth",
        "_is_closed",
        "_is_dropped",
        "_is_sent",
        "_keeps",
        "_locks",
        "_locks_again",
        "_may_replay",
        "_plan",
        "_user_side",
        "failure",
        "repository",
        "transaction",
    )

    def __init__(self, repository: Repository, plan: Callable[[], Plan]) -> None:
        self.repository = repository
        self.transaction: Transaction | None = None
        self.failure: StoreError | LockTimeout | None = None
        """What the application was told by the store, and may have swallowed."""
        self._plan = plan
        self._user_side: UserSide | None = None
        """What is done for the user beside the session, if anything is."""
        self._keeps = repository.options.auto
        """Whether the end of the request writes values that no ``save()`` has written."""
        self._may_replay = True
        self._locks = False
        self._locks_again = False
        """Whether the next look at the values takes the lock that a save has ended."""
        self._depth = 0
        """How many ``with`` blocks around a lock are open."""
        self._is_sent = False
        self._is_closed = False
        self._is_dropped = False

    # -- for the application -----------------------------------------------------------

    def begun(self) -> Transaction:
        """The transaction, begun at the first call."""
        if self.transaction is None:
            if isinstance(self.failure, LockTimeout):
                raise self.failure  # who has waited in vain does not wait again
            self._begin()
        assert self.transaction is not None
        return self.transaction

    def _begin(self, **changes: Any) -> None:
        """Take the first look, as planned but for the changes."""
        if self._is_sent or self._is_closed:
            raise SessionClosed(
                "the first look at a session must come before the response begins, "
                "because the headers tell caches about it; what outlives a request "
                "must open the session by the manager"
            )
        plan = self._plan()
        self._locks = plan.locks and self.repository.locks is not None
        if plan.reads_only and changes.get("locks"):
            raise SessionReadOnly("lock()")
        if not self._may_replay:
            plan = plan._replace(can_replay=never)
        if changes:
            plan = plan._replace(**changes)
        try:
            self.transaction = Transaction(self.repository, plan)
        except (StoreError, LockTimeout) as error:
            self.failure = error
            raise

    def reading(self) -> WorkingCopy:
        """The values, for a look."""
        transaction = self.transaction
        if transaction is None:
            transaction = self.begun()
        if self._locks_again:
            self._lock_again(transaction)
        return transaction.work.copy

    def writing(self, verb: str = "this change") -> Transaction:
        """The transaction, for a change; raises where it could not be kept."""
        transaction = self.in_store()
        if transaction.outage is not None:
            raise transaction.outage
        if transaction.work.plan.reads_only:
            raise SessionReadOnly(verb)
        if self._locks_again:
            self._lock_again(transaction)
        if self._is_sent:
            state = transaction.work.state
            is_token = self.repository.token_room is not None
            if is_token or verb != "this change" or state is State.ABSENT:
                raise SessionClosed(
                    f"the headers have left, and {verb} would need a cookie; "
                    "use the session before the response begins"
                )
        return transaction

    def changing(self) -> WorkingCopy:
        """The values, for a change."""
        return self.writing().work.copy

    def log_in(self, user: str, details: Mapping[str, Any]) -> None:
        """Bind the session to a user."""
        transaction = self.writing("login()")
        with self.noting_failure():
            self._beside(transaction).log_in(user, details)

    def values_of(self, user: str) -> WorkingCopy:
        """The values of the session's user, locked where the request locks."""
        transaction = self.in_store()
        if self._locks_again:
            self._lock_again(transaction)
        with self.noting_failure():
            return self._beside(transaction).look(user, locks=self._locks)

    def changing_values_of(self, user: str) -> WorkingCopy:
        """The values of the session's user, for a change."""
        if self.in_store().work.plan.reads_only:
            raise SessionReadOnly("this change of user_data")
        return self.values_of(user)

    def save_values_of_user(self) -> None:
        """Write the values of the user now, and nothing of the session."""
        transaction = self.in_store()
        with self.noting_failure():
            transaction.raise_replay_again()
            self._beside(transaction).save_values()
            transaction.raise_dropped()

    def lock_values_of(self, user: str, wait: float | None) -> None:
        """Take the lock of the session, and then that of its user."""
        self.lock(wait)
        with self.noting_failure():
            self._beside(self.in_store()).lock(user, wait)

    def _beside(self, transaction: Transaction) -> UserSide:
        if self._user_side is None:
            self._user_side = UserSide(transaction)
        return self._user_side

    def in_store(self) -> Transaction:
        """The transaction, for what needs the store and is no change."""
        transaction = self.transaction
        if transaction is None:
            transaction = self.begun()
        if self._is_closed:
            raise SessionClosed(
                "this session's request is over; what outlives a request must open the "
                "session by the manager"
            )
        return transaction

    def save(self) -> None:
        """Write now; the next look takes the lock again, in a request that locks."""
        transaction = self.writing()
        with self.noting_failure():
            self._carry_out(transaction.save)
        self._locks_again = self._locks

    def keep(self) -> None:
        """Have the values written at the end, where ``auto`` would drop them."""
        self._keeps = True

    def resend_token(self) -> None:
        """Have the token sent again, because the cookie's attributes have changed."""
        self.writing("a change of the cookie").work.renew_cookie()

    def lock(self, wait: float | None) -> None:
        """Take the lock, for the rest of the request."""
        if self.transaction is None:
            self._begin(locks=True, wait=wait)
        transaction = self.in_store()
        if transaction.work.plan.reads_only:
            raise SessionReadOnly("lock()")
        with self.noting_failure():
            transaction.lock(wait)
        self._locks, self._locks_again = self.repository.locks is not None, False

    def unlock(self) -> None:
        """Write what was changed, and take no lock any more."""
        transaction = self.in_store()
        self._locks = self._locks_again = False
        with self.noting_failure():
            self._carry_out(transaction.unlock)

    def enter_lock(self) -> None:
        """A ``with`` block around a lock begins."""
        self._depth += 1

    def leave_lock(self, *, is_failed: bool, locked_before: bool) -> None:
        """It ends: the outermost one saves what was changed, and unlocks."""
        self._depth -= 1
        transaction = self.transaction
        if self._depth or transaction is None:
            return
        self._locks, self._locks_again = locked_before, False
        with self.noting_failure():
            if is_failed:
                self._release(transaction)
            else:
                self._carry_out(transaction.unlock)
        transaction.work.forbid_replay()
        self._locks_again = self._locks

    @property
    def locks(self) -> bool:
        """Whether a look after a save takes the lock again."""
        return self._locks

    def flush(self) -> None:
        """End the session; an end waits for nobody."""
        if self.transaction is None:
            self._begin(locks=False)
        transaction = self.in_store()
        if transaction.outage is not None:
            raise transaction.outage
        if transaction.work.plan.reads_only:
            raise SessionReadOnly("an end of the session")
        transaction.work.flush()
        self._locks_again = False

    def forbid_replay(self) -> None:
        """The request must not be run again."""
        self._may_replay = False
        if self.transaction is not None:
            self.transaction.work.forbid_replay()

    @property
    def is_closed(self) -> bool:
        """Whether the request is over."""
        return self._is_closed

    def _carry_out(self, end: Callable[[], None]) -> None:
        """Save what is the user's, and then the session; the leases of the user end."""
        if self._user_side is None:
            end()
            return
        try:
            self._user_side.save()
            end()
        finally:
            self._user_side.release()

    def _release(self, transaction: Transaction) -> None:
        if self._user_side is not None:
            self._user_side.release()
        transaction.release()

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Remember what the application may swallow."""
        try:
            yield
        except (StoreError, LockTimeout) as error:
            self.failure = error
            raise

    def _lock_again(self, transaction: Transaction) -> None:
        with self.noting_failure():
            transaction.lock()
        self._locks_again = False

    # -- for who answers the request ---------------------------------------------------

    def commit(self) -> None:
        """Settle the session before the first header leaves.

        Raises ``ReplayNeeded`` where the request is to be run again, and whatever keeps
        the session from being saved.
        """
        options, transaction = self.repository.options, self.transaction
        if transaction is None and options.save_every_request:
            transaction = self.begun()
        if transaction is not None:
            work = transaction.work
            if not self._keeps:
                work.revert()
                if self._user_side is not None:
                    self._user_side.revert()
            if work.plan.reads_only:
                self._refuse_changes(transaction)
            if options.save_every_request and work.state is State.STORED:
                work.force()
            if self._user_side is None:
                transaction.commit()
            else:
                self._carry_out(transaction.commit)

    def commit_whatever_auto_says(self) -> None:
        """Settle the session where nobody has asked for ``auto`` (``manager.edit()``)."""
        self._carry_out(self.begun().commit)

    def _refuse_changes(self, transaction: Transaction) -> None:
        """A list that was handed out may have been changed without a call of ours."""
        beside = self._user_side is not None and self._user_side.has_changed()
        if beside or transaction.work.has_changed():
            raise SessionReadOnly("a change inside a value")

    def roll_back(self) -> None:
        """Drop what a failed request did, but for an end, which stands."""
        self._is_dropped = True
        if self._user_side is not None:
            self._user_side.release()
        if self.transaction is not None:
            self.transaction.roll_back()

    def start_over(self) -> None:
        """Drop all that was done, but for an end: the request is tried again from here.

        For frameworks that try again by themselves, as after a deadlock in a database.
        """
        self.roll_back()
        self.transaction = self.failure = self._user_side = None
        self._is_dropped = self._locks = self._locks_again = False
        self._keeps, self._depth = self.repository.options.auto, 0

    def leave(self) -> None:
        """The headers leave: from here on no cookie can be set, and nothing locks."""
        self._is_sent = True
        self._locks = self._locks_again = False
        if self.transaction is not None:
            self.transaction.work.sent()

    def commit_late(self) -> None:
        """Write what was changed after the headers have left."""
        if self.transaction is None or self._is_closed or self._is_dropped:
            return
        if self.transaction.work.plan.reads_only:
            self._refuse_changes(self.transaction)
        if self._keeps:
            self._carry_out(self.transaction.commit_late)

    def close(self) -> None:
        """The request is over; a lock that is still held goes without a save.

        What planned the request knows the environ, and the environ the session: that is
        let go, so that no request leaves work for the garbage collector.
        """
        was_closed, self._is_closed = self._is_closed, True
        self._is_sent, self._locks_again = True, False
        self._plan = Plan
        transaction = self.transaction
        if transaction is None or was_closed:
            return
        transaction.work.plan = NO_PLAN
        if transaction.work.locked or self._user_side is not None:
            self._release(transaction)


class OfUser:
    """The way to the values of one user, by a session of that user."""

    __slots__ = ("access", "user")

    def __init__(self, access: Access, user: str) -> None:
        self.access = access
        self.user = user

    def reading(self) -> WorkingCopy:
        return self.access.values_of(self.user)

    def changing(self) -> WorkingCopy:
        return self.access.changing_values_of(self.user)
