"""A store, and what it takes to make sessions of its records.

Every method is one call of the store, and returns what is stored, or None, or raises.
This file knows nothing of what becomes of a session, and no concrete store.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from .._made import made
from .._outages import Outages
from ..errors import SessionTooLarge, StoreError, VersionConflict
from ..events import Event, Expired, Reason, Refused, StoreFailed, TokenReused
from ..options import COOKIE_OCTETS, Options
from ..record import Key, Record
from ..store import LockingStore, Store, TokenStore
from .codec import Codec
from .expiry import Meta
from .standing import Standing, judge
from .watched import tell

log = logging.getLogger("wsgisession")


class Stored(NamedTuple):
    """A record as it is stored now, and what the client is to it."""

    record: Record
    """It carries our lease, if we have one."""
    meta: Meta
    standing: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """Finds, inserts, updates, touches and deletes the sessions of one store."""

    store: Store | TokenStore
    locks: LockingStore | None
    """The store again if it can lock, else None."""
    codec: Codec
    options: Options
    clock: Callable[[], float] | None
    """Seconds since the epoch; None: those of the system."""
    outages: Outages
    token_room: int | None = None
    """Octets that a token may have, where the token is the record."""
    fills: bool = False
    """Whether the store is to be given the values beside the data."""
    cut_is_told: threading.Event = field(default_factory=threading.Event)
    """Whether the log knows that a ``set_expiry()`` was cut."""

    def now(self) -> float:
        """Epoch seconds."""
        return time.time() if self.clock is None else self.clock()

    def failed(self, error: Exception, consequence: str) -> None:
        """Log a failure of the store that is not raised any further."""
        self.outages.note(error, consequence, now=self.now())
        self.tell(StoreFailed(error=error, consequence=consequence))

    def warn_if_cut(self, meta: Meta) -> None:
        """Log, once, that ``set_expiry()`` asked for more than the options allow."""
        options = self.options
        if not self.cut_is_told.is_set() and meta.is_cut(options, self.now()):
            self.cut_is_told.set()
            log.warning(
                "set_expiry() asked for a longer life than the options allow, and is "
                "cut: absolute_timeout is %s seconds, profile %s; this is said once",
                options.absolute_timeout,
                options.profile,
            )

    def tell(self, event: Event) -> None:
        """Call ``on_event``, whose failure changes nothing."""
        if self.options.on_event is not None:
            tell(self.options.on_event, event)

    # -- reading -----------------------------------------------------------------------

    def find(self, key: Key) -> Stored | None:
        """What a key leads to, without waiting.

        Standing ``ENDED`` is returned too, for a caller that tells it from a stranger;
        its values must not be read.
        """
        record = self.store.load(key)
        if record is None:
            self._is_unknown(key)
            return None
        return self._judged(record, key)

    def take(self, key: Key, wait: float | None, by: str) -> Stored | None:
        """The same with the lock, which only those are given who may use the session.

        :param wait: seconds; None: as the options say.
        :param by: who asks, for the ``LockTimeout`` of others.
        """
        if self.locks is None:
            return self.find(key)
        options = self.options
        record = self.locks.lock(
            key,
            wait=options.lock_wait if wait is None else wait,
            lease=options.lock_lease,
            waiters=options.lock_waiters,
            by=by,
        )
        if record is None:
            self._is_unknown(key)
            return None
        stored = self._judged(record, key)
        if record.lease is not None and (stored is None or not is_good(stored)):
            self.locks.unlock(record)
            return None if stored is None else bare(stored)
        return stored

    def unlock(self, record: Record) -> None:
        """End the lease of a record, if it has one."""
        if record.lease is not None and self.locks is not None:
            self.locks.unlock(record)

    def _judged(self, record: Record, key: Key) -> Stored | None:
        now = self.now()
        standing = judge(record, key.proof, now)
        if standing < Standing.ENDED:
            self._is_no_use(record, standing)
            return None
        if standing is Standing.ENDED:
            self.is_refused(record.id, "ended")
        return self.opened(record, standing, now)

    def opened(self, record: Record, standing: Standing, now: float) -> Stored | None:
        """What is known about the session of a record; None if it is over or corrupt."""
        try:
            meta = self.codec.meta(record)
        except StoreError:
            raise
        except Exception:
            self.is_corrupt(record)
            return None
        if meta.deadline(self.options, meta.accessed) <= now:
            log.debug("cookie of session %s refused: expired", record.id)
            self.tell(Expired(id=record.id))
            return None
        return made(Stored, (record, meta, standing))

    def is_corrupt(self, record: Record) -> None:
        """Log that a record cannot be read; its bytes stay where they are."""
        log.exception("session %s is corrupt and was left alone", record.id)

    def _is_unknown(self, key: Key) -> None:
        """A token leads nowhere."""
        if key.proof is not None:
            self.is_refused(key.id or None, "unknown")

    def is_refused(self, id: str | None, reason: Reason) -> None:
        """Say why a cookie is of no use; ``id`` is None where it names no session."""
        log.debug("cookie of session %s refused: %s", id or "unnamed", reason)
        self.tell(Refused(id=id, reason=reason))

    def _is_no_use(self, record: Record, standing: Standing) -> None:
        if standing is Standing.STRANGER:
            self.is_refused(record.id, "wrong secret")
            return
        log.warning(
            "session %s: a token was presented that a rotation replaced long ago; "
            "it may be a stolen copy",
            record.id,
        )
        self.tell(TokenReused(id=record.id))

    # -- writing -----------------------------------------------------------------------

    def save(
        self,
        record: Record,
        data: bytes,
        meta: Meta,
        *,
        standing: Standing,
        expect: int,
    ) -> Stored:
        """Store ``data`` under a new version, with what ``meta`` says.

        Raises ``VersionConflict`` where the stored version is not ``expect``; 0 where
        nothing must be stored.
        """
        fields = (
            record.id,
            new_version(),
            data,
            meta.created,
            meta.accessed,
            meta.deadline(self.options, meta.accessed),
            meta.user,
            record.proof,
            record.turned,
            record.seen,
            record.replaced,
            record.lease,
            record.token,
            None,
        )
        new = made(Record, fields)
        if self.token_room is not None:
            return Stored(self._issued(new, expect, self.token_room), meta, standing)
        if self.fills:
            new = new._replace(values=self.codec.values(data))
        self.store.save(new, expect=expect)
        if new.lease is not None or self.fills:
            new = new.bare()
        return made(Stored, (new, meta, standing))

    def touch(self, stored: Stored, now: float) -> Stored:
        """Move the idle clock; ``VersionConflict`` where the record is another now."""
        meta, record = stored.meta.used(now), stored.record
        if self.token_room is not None:
            return self.save(
                record,
                record.data,
                meta,
                standing=stored.standing,
                expect=record.version,
            )
        record = record._replace(
            accessed=meta.accessed, expires=meta.deadline(self.options, meta.accessed)
        )
        if not cast(Store, self.store).touch(record):
            raise VersionConflict(record.id, None)
        return Stored(record.bare(), meta, stored.standing)

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        """End a session, whatever lease is on it; True if it was there.

        With ``user`` only if it is that user's.
        """
        return self.store.delete(key, user=user)

    def _issued(self, record: Record, expect: int, room: int) -> Record:
        """The record with its token, unless no browser would keep that."""
        store = cast(TokenStore, self.store)
        try:
            token = store.save(record, expect=expect, room=room)
        except SessionTooLarge as error:
            limit = COOKIE_OCTETS * self.options.cookie_chunks
            biggest = self.codec.biggest(self.codec.values(record.data))
            size = limit + error.size - room
            raise SessionTooLarge(size, limit, biggest) from None
        return record._replace(token=token)


def is_good(stored: Stored) -> bool:
    """Whether the client may use the session."""
    return stored.standing >= Standing.PREVIOUS


def bare(stored: Stored) -> Stored:
    """The same without a lease."""
    return stored._replace(record=stored.record.bare())


def new_version() -> int:
    """63 random bits; 0 means that nothing is stored."""
    return (int.from_bytes(os.urandom(8), "big") >> 1) or 1
