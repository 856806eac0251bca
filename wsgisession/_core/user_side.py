"""What a request does beside its session for the user of it: shared values, and the place
that a login takes.

It knows the order of the two: of two locks the session's comes first, and of two saves
the session's comes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError, SessionEnded, SessionError
from .merge import WorkingCopy
from .places import Places
from .transaction import ReplayNeeded, Transaction
from .user_values import UserValues


class UserSide:
    """The values and the place of one user in a request."""

    __slots__ = ("_places", "_transaction", "_values")

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._values: UserValues | None = None
        self._places: Places | None = None

    # -- for the application -----------------------------------------------------------

    def log_in(self, user: str, details: Mapping[str, Any]) -> None:
        """Bind the session to a user; raises ``TooManySessions``."""
        transaction, values = self._transaction, self._values
        if values is not None and values.user != user:
            if values.has_changed():
                raise SessionError(
                    f"user_data of {values.user!r} has changes that are not saved; call "
                    "session.user_data.save() before another user logs in"
                )
            values.release()
            self._values = None
        repository, work = transaction.repository, transaction.work
        limit = repository.options.max_sessions_per_user
        if limit is not None:
            transaction.lock()
            self._places_of(user).take(limit, id=work.id)
        work.log_in(user, details)

    def _places_of(self, user: str) -> Places:
        """The places of the user who logs in; those of a user before are given back."""
        places = self._places
        if places is None or places.user != user:
            self._release_places()
            by = self._transaction.work.plan.by
            places = self._places = Places(self._transaction.repository, user, by)
        return places

    def look(self, user: str, *, locks: bool) -> WorkingCopy:
        """The values of the session's user."""
        return self._values_of(user).look(locks=locks)

    def lock(self, user: str, wait: float | None) -> None:
        """Take the lock of the values; that of the session is held already."""
        self._values_of(user).lock(wait)

    def _values_of(self, user: str) -> UserValues:
        transaction = self._transaction
        transaction.raise_replay_again()
        if transaction.repository.token_room is not None:
            raise ConfigurationError(
                "user_data needs a store on the server; what is in a cookie cannot be "
                "shared by several sessions"
            )
        if transaction.work.meta.user != user:
            raise LookupError(f"the session is no longer one of user {user!r}")
        if self._values is None:
            by = transaction.work.plan.by
            self._values = UserValues(transaction.repository, user, by, self._overtaken)
        return self._values

    def _overtaken(self, keys: frozenset[str]) -> None:
        try:
            self._transaction.replay_if_possible(keys)
        except ReplayNeeded:
            self.release()
            raise

    # -- the end -----------------------------------------------------------------------

    def save(self) -> None:
        """Save before the session is: while the request can still be run again.

        Nothing is saved if the session has ended: an end stops both.
        """
        if self._transaction.replay_due is not None:
            return  # nothing of this run counts any more
        self.save_values()
        if self._places is not None and self._transaction.work.has_logged_in:
            self._places.clear()

    def save_values(self) -> None:
        """Save the values of the user, where they were changed."""
        transaction, values = self._transaction, self._values
        if values is None or not values.has_changed():
            return
        if transaction.has_ended():
            values.revert()
            transaction.drop(SessionEnded(transaction.work.id))
            return
        try:
            values.save()
        except SessionEnded as error:
            transaction.drop(error)
        transaction.work.forbid_replay()

    def has_changed(self) -> bool:
        """Whether there are values to save."""
        return self._values is not None and self._values.has_changed()

    def revert(self) -> None:
        """Go back to the stored values."""
        if self._values is not None:
            self._values.revert()

    def release(self) -> None:
        """End the leases of both."""
        if self._values is not None:
            self._values.release()
        self._release_places()

    def _release_places(self) -> None:
        if self._places is not None:
            self._places.release()
