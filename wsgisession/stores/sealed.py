"""Encryption around a store: its storage tells nothing, and nothing in it is forged.

It knows records, seals and the store within.  The data of a record is bound to all that
the record says beside it, so that it opens nowhere else and as nothing else.  It cannot
prevent that a record is removed, or put back whole in an older state, by who can write to
the storage.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from .._crypto.sealing import Encrypted
from .._health import ExaminedStore, Finding
from ..errors import ConfigurationError, VersionConflict
from ..record import Key, Record
from ..store import Capabilities, ClosingStore, IterableStore, LockingStore, Store

__all__ = ["SealedStore"]

_log = logging.getLogger("wsgisession")


class SealedStore:
    """A store whose records are encrypted, and which can do what ``store`` can.

    A record that does not open is logged and counts as absent; its bytes are left.

    :param store: keeps the sealed records; what it cannot do it is not asked for, since
        its ``capabilities`` are passed on.
    :param secret: the keys, the newest first: it seals, all of them open.

    Raises ``ConfigurationError`` without a good secret, and for a store whose token is
    the record.
    """

    def __init__(self, store: Store, secret: Sequence[bytes]) -> None:
        if store.capabilities.token_octets is not None:
            raise ConfigurationError(
                f"{type(store).__name__} has no storage to encrypt: what it issues is "
                "the record, and it has to encrypt that itself"
            )
        if not secret:
            raise ConfigurationError(
                "encrypt needs a secret; make one with: python -m wsgisession secret"
            )
        self.within = store
        self.capabilities: Capabilities = replace(store.capabilities, encrypts=True)
        self._seal = Encrypted(secret, "record")

    def close(self) -> None:
        """Close what the store within keeps open."""
        if isinstance(self.within, ClosingStore):
            self.within.close()

    def examine(self) -> Iterator[Finding]:
        """What the store within finds."""
        if isinstance(self.within, ExaminedStore):
            yield from self.within.examine()

    def load(self, key: Key) -> Record | None:
        return self._opened(self.within.load(key))

    def save(self, record: Record, *, expect: int) -> None:
        try:
            self.within.save(self._sealed(record), expect=expect)
        except VersionConflict as conflict:
            raise VersionConflict(conflict.id, self._opened(conflict.record)) from None

    def touch(self, record: Record) -> bool:
        return self.within.touch(record)

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        return self.within.delete(key, user=user)

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        within = cast(LockingStore, self.within)
        record = within.lock(key, wait=wait, lease=lease, waiters=waiters, by=by)
        opened = self._opened(record)
        if opened is None and record is not None and record.lease is not None:
            within.unlock(record)
        return opened

    def unlock(self, record: Record) -> None:
        cast(LockingStore, self.within).unlock(record)

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        for record in cast(IterableStore, self.within).records(user=user):
            if (opened := self._opened(record)) is not None:
                yield opened

    def delete_expired(self, *, batch: int) -> int:
        return cast(IterableStore, self.within).delete_expired(batch=batch)

    def _sealed(self, record: Record) -> Record:
        data = self._seal.seal(record.data, associated=_associated(record))
        return record._replace(data=data)

    def _opened(self, record: Record | None) -> Record | None:
        if record is None:
            return None
        data = self._seal.open(record.data, associated=_associated(record))
        if data is None:
            _log.error("session %s does not open and was left alone", record.id)
            return None
        return record._replace(data=data)


def _associated(record: Record) -> bytes:
    """All that a record says beside its data, but the clocks, which a touch may move.

    Moments are floats here even where they were saved as whole numbers, because that is
    how a store gives them back.
    """
    replaced = [(each.proof, _moment(each.until)) for each in record.replaced]
    bound = (
        record.id,
        record.version,
        float(record.created),
        record.user,
        record.proof,
        float(record.turned),
        _moment(record.seen),
        replaced,
    )
    return json.dumps(bound).encode("ascii")


def _moment(seconds: float | None) -> float | None:
    return None if seconds is None else float(seconds)
