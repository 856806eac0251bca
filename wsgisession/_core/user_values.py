"""The values of a user, which all sessions of that user share: one record of its own.

Read, locked, merged and saved like a session, by the same rules; but it has neither a
token nor an end of its own.  This file knows nothing of the session beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import LockTimeout, SessionEnded, StoreError, VersionConflict
from ..events import Merged
from ..record import Record
from .conflicts import decide
from .expiry import Meta
from .merge import WorkingCopy
from .repository import Repository, new_version
from .reserved import NEVER, Purpose, key_of, locked, made_and_locked


class UserValues:
    """What one request knows of its user's values and wants of them.

    :param by: who asks, for the ``LockTimeout`` of others.
    :param overtaken: called with the keys that were read here and have another value
        now; raises where the request is to be run again.
    :param lifetime: seconds from the last save; None: until they are deleted.
    """

    __slots__ = (
        "_by",
        "_copy",
        "_lifetime",
        "_overtaken",
        "_record",
        "_repository",
        "key",
        "user",
    )

    def __init__(
        self,
        repository: Repository,
        user: str,
        by: str,
        overtaken: Callable[[frozenset[str]], None],
        *,
        purpose: Purpose = Purpose.USER_DATA,
        lifetime: float | None = None,
    ) -> None:
        self.user = user
        self._repository = repository
        self.key = key_of(purpose, user)
        self._lifetime = lifetime
        self._by = by
        self._overtaken = overtaken
        self._record: Record | None = None
        """As it is stored now, with our lease if we have one."""
        self._copy: WorkingCopy | None = None

    # -- looking -----------------------------------------------------------------------

    def look(self, *, locks: bool) -> WorkingCopy:
        """The values, loaded at the first look, with the lock where one is wanted."""
        if locks and not self.is_locked:
            self.lock(None)
        if self._copy is None:
            self._meet(self._repository.store.load(self.key))
        assert self._copy is not None
        return self._copy

    def reading(self) -> WorkingCopy:
        """The values, for a look."""
        return self.look(locks=False)

    changing = reading

    @property
    def is_locked(self) -> bool:
        """Whether this request holds the lock."""
        return self._record is not None and self._record.lease is not None

    def lock(self, wait: float | None) -> None:
        """Take the lock, and put what was written here on what is stored now."""
        if self.is_locked:
            return
        place = self._repository, self.key, wait, self._by
        if self._record is None:
            self._meet(made_and_locked(*place))
        elif (record := locked(*place)) is None:
            self._forgotten()
        else:
            self._meet(record)

    def _meet(self, record: Record | None) -> None:
        """Go on from what is stored now."""
        before, self._record = self._record, record
        try:
            if self._copy is None:
                data = None if record is None else record.data
                self._copy = WorkingCopy(self._repository.codec, data)
                return
            if record is None or (before and before.version == record.version):
                return
            self._copy.rebase(record.data)
        except Exception as error:
            raise StoreError(
                f"the values of user {self.user!r} cannot be read; they were left alone"
            ) from error
        if keys := self._copy.conflicts():
            self._overtaken(keys)
        elif self._copy.has_changed():
            self._repository.tell(Merged(id=self.key.id))

    # -- the end -----------------------------------------------------------------------

    def has_changed(self) -> bool:
        """Whether there is anything to save."""
        return self._copy is not None and self._copy.has_changed()

    def revert(self) -> None:
        """Go back to the stored values."""
        if self._copy is not None:
            self._copy.revert()

    def release(self) -> None:
        """End our lease, once: one that cannot be ended now ends by itself."""
        record = self._record
        if record is not None and record.lease is not None:
            self._record = record.bare()
            self._repository.unlock(record)

    def save(self) -> None:
        """Write what was changed, again after each conflict; the lease ends in any case.

        Raises ``SessionEnded`` where the values were forgotten in this time.
        """
        copy, began = self._copy, time.monotonic()
        try:
            while copy is not None and copy.has_changed():
                if keys := copy.conflicts():
                    self._overtaken(keys)
                    decide(self._repository, copy, keys, id=self.key.id)
                try:
                    self._write(copy)
                    return
                except VersionConflict as conflict:
                    self._conflict(conflict, began)
        finally:
            self.release()

    def _write(self, copy: WorkingCopy) -> None:
        repository, now = self._repository, self._repository.now()
        before = self._record
        created = now if before is None else before.created
        data = repository.codec.encode(Meta(created, now), copy.values)
        expires = NEVER if self._lifetime is None else now + self._lifetime
        new = Record(self.key.id, new_version(), data, created, now, expires)
        if before is not None and before.lease is not None:
            new = new._replace(lease=before.lease)
        expect = 0 if before is None else before.version
        repository.store.save(new, expect=expect)
        self._record = new.bare()
        copy.settle(data)

    def _conflict(self, conflict: VersionConflict, began: float) -> None:
        """Another request was quicker: see what is there now."""
        if conflict.record is None:
            self._forgotten()
        if self._record is not None:
            self._record = self._record.bare()
        self._meet(conflict.record)
        repository = self._repository
        if repository.locks is not None:
            self.lock(None)  # bare retries do not end among many
        elif time.monotonic() - began > repository.options.lock_wait:
            raise LockTimeout(self.key.id, time.monotonic() - began)

    def _forgotten(self) -> None:
        """``forget_user`` was called: what is written now must not bring it back."""
        self._copy, self._record = None, None
        raise SessionEnded(self.key.id)
