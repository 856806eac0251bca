"""The clean-up that a site does by itself: of all processes one, once in a while.

Who is to do it is settled by a reserved record, which says when it was done last, and by
its lock.  This file knows when to look and what to do; when the answer has left, and
this may be done, is known elsewhere.
"""

from __future__ import annotations

import time
from math import inf

from ..errors import LockTimeout, StoreError, VersionConflict
from ..record import Record
from ..store import IterableStore
from .repository import Repository, new_version
from .reserved import Purpose, key_of, made_and_locked

BATCH = 1000
"""Records that are forgotten in one step."""

LONGEST = 1.0
"""Seconds for which a request's thread is used at most; then another one goes on."""

SOON = 60.0
"""Seconds until this process goes on with what it did not finish, or could not do."""


class Cleanup:
    """Removes what has expired from a store that does not forget by itself.

    :param store: None where there is nothing to do.
    """

    __slots__ = ("_every", "_repository", "_store", "at")

    def __init__(self, repository: Repository, store: IterableStore | None) -> None:
        every = repository.options.cleanup_every
        self._repository = repository
        self._store = store
        self._every = every or inf
        self.at: float = inf if store is None or not every else repository.now() + every
        """From when on this process is to look whether it is due."""

    def run(self) -> int:
        """Do it if no other process has; returns how many records went.

        It never raises: the request that it is done after has its answer.
        """
        now = self._repository.now()
        self.at = now + SOON
        try:
            return self._run(now)
        except (LockTimeout, VersionConflict):
            return 0  # another process is at it
        except StoreError as error:
            self._repository.failed(error, "what has expired was not forgotten")
            return 0

    def _run(self, now: float) -> int:
        repository, store = self._repository, self._store
        key = key_of(Purpose.CLEANUP, "all")
        found = repository.store.load(key)
        if store is None or (found is not None and not self._is_due(found, now)):
            return 0
        mine = made_and_locked(repository, key, 0, "a clean-up")
        if mine is None:
            return 0
        try:
            if found is None or not self._is_due(mine, now):
                self.at = (
                    now + self._every
                )  # nobody has ever cleaned up: begin to count
                return 0
            removed, is_done = self._remove(store)
            if is_done:
                done = mine._replace(version=new_version(), accessed=now)
                repository.store.save(done, expect=mine.version)
                mine = done.bare()  # a save ends the lease
                self.at = now + self._every
            return removed
        finally:
            repository.unlock(mine)

    def _is_due(self, record: Record, now: float) -> bool:
        """Whether the last one is long enough ago; else this process looks then."""
        due = record.accessed + self._every
        if now < due:
            self.at = due
        return now >= due

    def _remove(self, store: IterableStore) -> tuple[int, bool]:
        """How many records went, and whether none is left."""
        began, removed = time.monotonic(), 0
        while time.monotonic() - began < LONGEST:
            swept = store.delete_expired(batch=BATCH)
            if not swept:
                return removed, True
            removed += swept
        return removed, False
