"""The storage protocol: what a store promises, in signatures and prose.

This file holds no logic.  Who writes a store needs it, ``record`` and ``errors``, and
nothing else of ours; ``wsgisession.testing`` holds every store to what is said here.

Common to all methods:

* *Absent is a value, broken is an exception.*  A record that is unknown, expired, forged
  or malformed is ``None``.  An exception means that the storage itself failed: raise
  ``StoreError`` from the cause.
* A record is found by ``id``.  ``token``, ``lease`` and ``values`` are never stored, and
  ``load`` gives a record without them.  All other fields come back as they were written.
* Times are epoch seconds.  A record whose ``expires`` is not in the future is absent.
* Every method may be called from any thread, on a lease taken in another thread.
* *A lost answer.*  Where a connection broke after a save was sent, ask again.  Our own
  version is stored: it was saved.  The expected version is stored: save.  Anything else
  cannot be known: ``StoreError``, never ``VersionConflict``, because another request may
  have saved on top of ours.  Only an insert is simply tried again, also where it finds
  nothing: no client has its token yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .record import Key, Record

__all__ = [
    "Capabilities",
    "ClosingStore",
    "IterableStore",
    "LockingStore",
    "MarkingStore",
    "Store",
    "TokenStore",
    "UserEndingStore",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store can do beyond keeping records; a wrapper passes it on."""

    locks: bool = False
    """It is a ``LockingStore``."""
    lists: bool = False
    """It is an ``IterableStore``."""
    ends_users: bool = False
    """It is a ``UserEndingStore``."""
    token_octets: int | None = None
    """It is a ``TokenStore``, whose tokens have at most so many octets."""
    encrypts: bool = False
    """What it writes can be read by nobody else."""
    one_process: bool = False
    """Its records are in this process alone, and gone with it."""
    forgets: bool = False
    """What has expired goes by itself, so that nobody has to clean up."""
    fills: bool = False
    """Its ``save`` is to be given ``Record.values`` of a session, encrypted or not."""


@runtime_checkable
class Store(Protocol):
    """Keeps records.  These four methods are all that a store on a server must have."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; always the same."""

    def load(self, key: Key) -> Record | None:
        """The record with the id of ``key``, without waiting and without a lease."""

    def save(self, record: Record, *, expect: int) -> object:
        """Write ``record`` if the stored version is ``expect``; 0: if none is stored.

        Written if and only if that is so and no live lease but ``record.lease`` is on the
        record.  Otherwise nothing is written and ``VersionConflict`` is raised with the
        current record, or with None if there is none.  The comparison and the write are
        one step.

        In the same step the lease ``record.lease`` ends, also where ``VersionConflict``
        is raised.  A lease that has run out or was never given does not prevent the save:
        the version decides.
        """

    def touch(self, record: Record) -> bool:
        """Move ``accessed`` and ``expires`` of a record; True if it was there.

        Only of a record whose stored version is ``record.version``, and only forward: a
        clock that is ahead stays.  Nothing else is written, the version stays, and a
        record that is gone is not brought back.  A foreign lease does not matter; the
        lease ``record.lease`` ends in any case.
        """

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        """Forget a record at once, whatever lease is on it; True if it was there.

        With ``user`` only if that is its user, in the same step.  ``key.proof`` does not
        matter.
        """


@runtime_checkable
class LockingStore(Store, Protocol):
    """A store in which a request can take a session for itself."""

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        """Take the lock and load the record in one step.

        The record returned carries the ``lease``, which shuts every other writer out
        until it ends: by ``save``, ``touch``, ``unlock`` or ``delete``, or by itself
        after ``lease`` seconds, or at once when the store can tell that the holder died.
        Readers pass all the time.

        If there is no record, None is returned and nothing is locked.  Where the record
        does not admit ``key.proof``, it is returned at once and without a lease: such a
        request joins no queue.  (A store that cannot judge times may give a lease to a
        proof that the record knows; the caller gives it back.)

        Raises ``LockTimeout`` after ``wait`` seconds, or at once where ``waiters``
        requests wait already.  Waiters are woken or poll in milliseconds.  ``by`` says
        who asks, for the ``LockTimeout`` of others; a store may pass over it.
        """

    def unlock(self, record: Record) -> None:
        """End the lease of ``record`` without writing; no error if it is over."""


@runtime_checkable
class IterableStore(Store, Protocol):
    """A store whose records can be listed and swept."""

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        """All records, or those of one user, in no particular order.

        Users are compared exactly, case included.  Streamed in pages, never all in
        memory.  The caller may save or delete any record while it iterates; one that is
        made or ends in that time may or may not be seen.
        """

    def delete_expired(self, *, batch: int) -> int:
        """Forget up to ``batch`` expired records, and say how many they were.

        0 means that there is nothing left to do, as for a backend that forgets by
        itself.  It never takes a record that a writer has just renewed.
        """


@runtime_checkable
class MarkingStore(Protocol):
    """A store of tokens, which remembers elsewhere what has ended."""

    marks: Store | None
    """Where that is, on the server; what has expired there is to be forgotten."""


@runtime_checkable
class TokenStore(Protocol):
    """A store whose token *is* the record, such as a signed cookie.

    It can neither compare versions nor lock, because it cannot see what other clients
    hold.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; ``token_octets`` is set."""

    def load(self, key: Key) -> Record | None:
        """The record in ``key.token``, with ``key.proof`` as its proof, or None.

        Where it knows when this token was ended, the record may come back with the proof
        among those that were replaced (``until`` 0) and that moment as ``turned``.
        """

    def save(self, record: Record, *, expect: int, room: int | None = None) -> str:
        """The token that holds ``record``.

        Raises ``SessionTooLarge``, and does nothing, where it has more octets than
        ``room``.  ``expect`` is 0 for a new session.  Raises ``VersionConflict`` with
        None where it knows that the session, or this token of it, has ended.  A record
        that was turned after the token was read (``record.seen`` is None and
        ``record.turned`` is new) ends all tokens of the session from before, where the
        store can.
        """

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        """End the session with the id of ``key``, where the store can."""


@runtime_checkable
class ClosingStore(Protocol):
    """A store that keeps connections open while it is idle."""

    def close(self) -> None:
        """Close them; the store may be used on, and makes them anew."""


@runtime_checkable
class UserEndingStore(Protocol):
    """A store that cannot list the sessions of a user, but can end them."""

    def end_user(self, user: str, *, keep: str | None) -> None:
        """End the sessions that ``user`` has begun, but the one with the id ``keep``."""
