"""Records to try a store with, and threads to try it from.

It knows the protocol and no store.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any, TypeVar

import pytest

from ..errors import LockTimeout, VersionConflict
from ..record import Key, Record
from ..store import LockingStore, Store, TokenStore

T = TypeVar("T")

PATIENCE = 15.0
"""Seconds for what happens at once, but on a busy machine."""

LEASE = 60.0
"""Seconds of a lease that must not run out by itself while a test looks."""
WAITERS = 50
USERS = ("ann", "Ann", "ann ", " ann", "\u00e1nn", "a", "an", "ann%", "*", "ANN")
"""Names that a collation, a pattern or a prefix takes for each other."""


def proof(name: str) -> str:
    """A proof of its own for every name: 64 hexadecimal digits."""
    return sha256(f"secret of {name}".encode()).hexdigest()


def new_version() -> int:
    """What a save gives a record: 63 random bits, never 0."""
    return secrets.randbits(63) or 1


def record(name: str = "one", **changes: Any) -> Record:
    """A record that is live for an hour, with an id of its own for every name."""
    now = time.time()
    plain = Record(
        id=sha256(name.encode()).hexdigest()[:32],
        version=new_version(),
        data=b'{}\n{"a":1}',
        created=now,
        accessed=now,
        expires=now + 3600,
        proof=proof(name),
        turned=now,
        token=f"token of {name}",
    )
    return plain._replace(**changes)


def newer(record: Record, **changes: Any) -> Record:
    """A record as the next save writes it: with a new version, and other changes."""
    return record._replace(version=new_version())._replace(**changes)


def key(record: Record) -> Key:
    """The key with which a client asks for a record."""
    return Key(record.id, record.proof)


def stored(record: Record) -> Record:
    """A record as a store gives it back."""
    return record.bare()


def in_threads(count: int, work: Callable[[int], T]) -> list[T]:
    """Run ``work(0)`` to ``work(count - 1)`` at once, and give what they returned."""
    start = threading.Barrier(count)

    def one(number: int) -> T:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def refused(
    store: Store | TokenStore, record: Record, *, expect: int
) -> VersionConflict:
    """Save where a conflict is due, and give it."""
    with pytest.raises(VersionConflict) as caught:
        store.save(record, expect=expect)
    return caught.value


def expired_in(store: Store, **changes: Any) -> Record:
    """A record that was saved alive and whose time is over now."""
    given = record("expired", expires=time.time() + 0.2, **changes)
    store.save(given, expect=0)
    outlive(store, given)
    return given


def outlive(store: Store, given: Record) -> None:
    """Wait until the time of a record is over, and for the store to see it that way.

    A store on a server may give it longer, by as much as the save was on its way.
    """
    time.sleep(max(given.expires + 0.1 - time.time(), 0))
    end = time.monotonic() + 2
    while store.load(key(given)) is not None and time.monotonic() < end:
        time.sleep(0.02)


def take(
    store: LockingStore, key: Key, *, wait: float = PATIENCE, lease: float = LEASE
) -> Record:
    """Lock where a lease is due, and give the record that carries it."""
    locked = store.lock(key, wait=wait, lease=lease, waiters=WAITERS)
    assert locked is not None
    assert locked.lease is not None
    return locked


def inserted(store: LockingStore, name: str = "one", **changes: Any) -> Record:
    """A record that was saved just now."""
    given = record(name, **changes)
    store.save(given, expect=0)
    return given


def is_taken(store: LockingStore, key: Key) -> bool:
    """Whether the lock of a session cannot be had."""
    try:
        locked = store.lock(key, wait=0.05, lease=LEASE, waiters=WAITERS)
    except LockTimeout:
        return True
    assert locked is not None
    store.unlock(locked)
    return False
