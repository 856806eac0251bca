"""Encryption around a store: its storage tells nothing, and nothing in it is forged.

It knows records, seals and the store within.  The data of a record is bound to what names
it, so that it opens nowhere else and as nothing else.  What it cannot prevent is that
somebody who writes to the storage removes a record, or puts back a whole old one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..errors import ConfigurationError, Conflict
from ..record import Key, Record
from ..sealing import Encrypted
from ..store import IterableStore, LockingStore, Store, TokenStore

_log = logging.getLogger("wsgisession")


def sealed(store: Store, secret: Sequence[bytes]) -> SealedStore:
    """A store whose records are encrypted, and which can what ``store`` can.

    :param store: keeps the sealed records.
    :param secret: the keys, the newest first: it seals, all of them open.
    """
    if isinstance(store, TokenStore):
        raise ConfigurationError(
            f"{type(store).__name__} has no storage to encrypt: what it issues is the "
            "record, and it has to encrypt that itself"
        )
    if not secret:
        raise ConfigurationError(
            "encrypt needs a secret; make one with: python -m wsgisession secret"
        )
    seal = Encrypted(secret, "record")
    if isinstance(store, LockingStore):
        if isinstance(store, IterableStore):
            return SealedLockingIterableStore(store, store, seal)
        return SealedLockingStore(store, seal)
    if isinstance(store, IterableStore):
        return SealedIterableStore(store, seal)
    return SealedStore(store, seal)


class SealedStore:
    """A record that does not open is logged and counts as absent; its bytes are left."""

    def __init__(self, store: Store, seal: Encrypted) -> None:
        self.within = store
        self._seal = seal

    def load(self, key: Key) -> Record | None:
        return self._opened(self.within.load(key))

    def save(self, record: Record, *, expect: int) -> str | None:
        try:
            return self.within.save(self._sealed(record), expect=expect)
        except Conflict as conflict:
            raise Conflict(conflict.id, self._opened(conflict.record)) from None

    def touch(self, record: Record) -> str | None:
        return self.within.touch(record)

    def delete(self, record: Record) -> None:
        self.within.delete(record)

    def _sealed(self, record: Record) -> Record:
        return replace(record, data=self._seal.seal(record.data, about=_about(record)))

    def _opened(self, record: Record | None) -> Record | None:
        if record is None:
            return None
        data = self._seal.open(record.data, about=_about(record))
        if data is None:
            _log.error("session %s does not open and was left alone", record.id[:8])
            return None
        return replace(record, data=data)


class SealedLockingStore(SealedStore):
    """The same around a store that can lock."""

    def __init__(self, store: LockingStore, seal: Encrypted) -> None:
        super().__init__(store, seal)
        self._locking = store

    def lock(self, key: Key, *, wait: float, lease: float) -> Record | None:
        record = self._locking.lock(key, wait=wait, lease=lease)
        opened = self._opened(record)
        if opened is None and record is not None and record.lease is not None:
            self._locking.unlock(record)
        return opened

    def unlock(self, record: Record) -> None:
        self._locking.unlock(record)


class SealedIterableStore(SealedStore):
    """The same around a store that can be walked through."""

    def __init__(self, store: IterableStore, seal: Encrypted) -> None:
        super().__init__(store, seal)
        self._iterable = store

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        for record in self._iterable.records(user=user):
            if (opened := self._opened(record)) is not None:
                yield opened

    def delete_expired(self, *, batch: int) -> int:
        return self._iterable.delete_expired(batch=batch)


class SealedLockingIterableStore(SealedLockingStore):
    """The same around a store that can both."""

    def __init__(
        self, store: LockingStore, iterable: IterableStore, seal: Encrypted
    ) -> None:
        super().__init__(store, seal)
        self._walk = SealedIterableStore(iterable, seal)

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        return self._walk.records(user=user)

    def delete_expired(self, *, batch: int) -> int:
        return self._walk.delete_expired(batch=batch)


def _about(record: Record) -> bytes:
    """All that a record says of itself, but for the clocks, which a touch may move."""
    said = record.id, record.version, record.created
    told = record.user, record.state, record.successor
    return json.dumps([*said, *told]).encode()
