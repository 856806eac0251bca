"""The places that a user has for sessions: counted at a login, under a lock of the user.

The lock is held until the login's session is saved, so that logins at once are counted
one after another.  This file knows nothing of the session that logs in but its id.
"""

from __future__ import annotations

from typing import cast

from ..errors import TooManySessions
from ..record import Key, Record
from ..store import IterableStore
from .repository import Repository
from .reserved import Purpose, key_of, made_and_locked
from .standing import Standing


class Places:
    """The places of one user, held by one request that logs in.

    :param by: who asks, for the ``LockTimeout`` of others.
    """

    __slots__ = ("_by", "_evicted", "_locked", "_repository", "user")

    def __init__(self, repository: Repository, user: str, by: str) -> None:
        self.user = user
        self._repository = repository
        self._by = by
        self._locked: Record | None = None
        self._evicted: list[Record] = []

    def take(self, limit: int, *, id: str) -> None:
        """Wait for our turn, and see that there is a place for the session ``id``.

        Raises ``TooManySessions`` where the options refuse, and ``LockTimeout``.
        """
        key = key_of(Purpose.LOGINS, self.user)
        if self._locked is None:
            self._locked = made_and_locked(self._repository, key, None, self._by)
        others = [record for record in self._living() if record.id != id]
        excess = len(others) - limit + 1
        if excess > 0 and self._repository.options.at_session_limit == "refuse":
            self.release()
            raise TooManySessions(self.user, limit)
        others.sort(key=lambda record: record.accessed)
        self._evicted = others[: max(excess, 0)]

    def _living(self) -> list[Record]:
        repository, now = self._repository, self._repository.now()
        found = cast(IterableStore, repository.store).records(user=self.user)
        return [r for r in found if repository.opened(r, Standing.CURRENT, now)]

    def clear(self) -> None:
        """End the sessions whose place is taken, before the new one is saved."""
        for record in self._evicted:
            self._repository.delete(Key(record.id), user=self.user)
        self._evicted = []

    def release(self) -> None:
        """Let the next login in."""
        record, self._locked = self._locked, None
        if record is not None:
            self._repository.unlock(record)
