"""The storage protocol: what a store promises, in signatures and prose.

This file holds no code.  Someone who writes a store needs it, ``record`` and ``errors``,
and nothing else of ours; ``wsgisession.testing`` holds what is said here to the letter.

Common to all methods:

* *Absent is a value, broken is an exception.*  A record that is unknown, expired, forged
  or malformed is ``None``.  An exception means that the storage itself failed: raise
  ``StoreError`` from the cause.
* A record is found by ``id``.  ``token`` and ``lease`` are never stored, and a record
  comes back with ``token`` None.
* Times are epoch seconds.  A record whose ``expires`` is not in the future is absent.
* Every method may be called from any thread, on a lease taken in another thread.
* What a store can do is told by the methods that it has.  A proxy that answers by
  ``__getattr__`` has none of them (``isinstance`` does not ask it): give it the methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from .record import Key, Record


@runtime_checkable
class Store(Protocol):
    """Keeps records.  These four methods are all that a store must have."""

    def load(self, key: Key) -> Record | None:
        """The record of ``key``, whatever its state, without waiting for anybody."""

    def save(self, record: Record, *, expect: int) -> str | None:
        """Write ``record`` if nobody else did, and return what the client must hold.

        Written if and only if the stored version is ``expect`` (0: no record is stored)
        and no live lease but ``record.lease`` is on it.  Otherwise nothing is written
        and ``Conflict`` is raised with the current record, or with None if there is none.
        The comparison and the write are one step for everybody else.

        In the same step the lease ``record.lease`` ends, also where a ``Conflict`` is
        raised.  A lease that has run out or was never given does not prevent the save:
        the version decides.

        A store on the server returns ``record.token`` as it is.
        """

    def touch(self, record: Record) -> str | None:
        """Move ``accessed`` and ``expires`` of a record, and return as ``save`` does.

        Nothing else is written, and the version stays.  A record that is gone is not
        brought back; one whose stored version is another is left alone, for whoever
        changed it has moved its clock.  A foreign lease does not matter; ours ends.
        """

    def delete(self, record: Record) -> None:
        """Forget a record at once, whoever holds its lease, and end that lease.

        Idempotent: it is no error if the record is gone.
        """


@runtime_checkable
class LockingStore(Store, Protocol):
    """A store in which a session can be taken for oneself."""

    def lock(self, key: Key, *, wait: float, lease: float) -> Record | None:
        """Take the lock and load the record in one step.

        The record returned carries the ``lease``, which shuts every other writer out
        until it ends: by ``save``, ``touch``, ``unlock`` or ``delete``, or by itself
        after ``lease`` seconds, or at once when the store can tell that the holder died.
        Readers pass all the time.

        If there is no record, None is returned and nothing is locked.  A record that
        is not live is returned without a lease: there is nothing to lock in it.

        Raises ``LockTimeout`` after ``wait`` seconds, or at once where as many others
        wait already as the store allows.  Waiters are woken or poll in milliseconds.
        """

    def unlock(self, record: Record) -> None:
        """End the lease of ``record`` without writing; no error if it is over."""


@runtime_checkable
class IterableStore(Store, Protocol):
    """A store that can be walked through and swept."""

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        """All live records, or those of one user, in no particular order.

        Streamed in pages, never all in memory.  The caller may save or delete any
        record meanwhile; one that comes or goes meanwhile may or may not be seen.
        """

    def delete_expired(self, *, batch: int) -> int:
        """Forget up to ``batch`` expired records, and say how many they were.

        0 means that there is nothing left to do, as for a backend that forgets by
        itself.  It never takes a record that a writer has just renewed.
        """


@runtime_checkable
class TokenStore(Store, Protocol):
    """A store whose token *is* the record, such as a signed cookie.

    Its ``load`` opens ``key.token``; its ``save`` and ``touch`` return a new token.  It
    can neither compare versions nor lock, because it cannot see what other clients
    hold; it says so by this attribute.
    """

    max_token: int
    """The longest token it issues, in octets; anything longer is not its own."""


@runtime_checkable
class UserEndingStore(Store, Protocol):
    """A store that cannot list the sessions of a user, but can end them."""

    def end_user(self, user: str, *, keep: str | None) -> None:
        """End the sessions that ``user`` has begun, but the one with the id ``keep``."""
