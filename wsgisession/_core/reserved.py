"""Records of our own beside the sessions, which no client can reach.

Such a record has an id that follows from its purpose and its user, no user, and no proof:
no token leads to it, and no list shows it.  This file knows nothing of what is in them.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from hashlib import sha256

from ..errors import ConfigurationError, VersionConflict
from ..record import Key, Record
from .expiry import Meta
from .repository import Repository, new_version

NEVER = 253_402_300_799.0
"""The last second of the year 9999: such a record does not expire."""


class Purpose(Enum):
    """What a reserved record is for."""

    USER_DATA = "data"
    """The values that all sessions of a user share."""
    LOGINS = "logins"
    """Its lock makes the logins of a user wait for each other."""
    CLEANUP = "cleanup"
    """When what has expired was forgotten last."""
    NAMED = "named"
    """Values by a name that the application chose, which no session belongs to."""


OF_A_USER = (Purpose.USER_DATA, Purpose.LOGINS)
"""What goes with a user who is forgotten."""


def key_of(purpose: Purpose, user: str) -> Key:
    """Leads to the record of a user."""
    name = f"{purpose.value} of {user}".encode("utf-8", "surrogatepass")
    return Key(sha256(name).hexdigest()[:32])


def locked(
    repository: Repository, key: Key, wait: float | None, by: str
) -> Record | None:
    """The record with a lease on it; None if there is none.  Raises ``LockTimeout``."""
    if repository.locks is None:
        raise ConfigurationError(
            f"{type(repository.store).__name__} cannot lock; that needs a store that "
            "can, on the server"
        )
    options = repository.options
    return repository.locks.lock(
        key,
        wait=options.lock_wait if wait is None else wait,
        lease=options.lock_lease,
        waiters=options.lock_waiters,
        by=by,
    )


def made_and_locked(
    repository: Repository, key: Key, wait: float | None, by: str
) -> Record | None:
    """The same, and the record is made if there is none: only what is stored can be
    locked.  None where it is gone again already.
    """
    if (record := locked(repository, key, wait, by)) is not None:
        return record
    now = repository.now()
    data = repository.codec.encode(Meta(now, now), {})
    blank = Record(key.id, new_version(), data, now, now, NEVER)
    with suppress(VersionConflict):  # another request has made it
        repository.store.save(blank, expect=0)
    return locked(repository, key, wait, by)
