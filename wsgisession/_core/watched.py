"""A store that tells of its calls, for ``on_event``: put around the real one if there is
a hook, so that without one nothing is measured.

It knows the protocol and no store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias, cast

from ..events import Ended, Event, Loaded, Saved, Waited
from ..record import Key, Record
from ..store import Capabilities, IterableStore, LockingStore, Store, TokenStore

log = logging.getLogger("wsgisession")

Hook: TypeAlias = Callable[[Event], object]


def tell(hook: Hook, event: Event) -> None:
    """Call ``on_event``, whose failure changes nothing."""
    try:
        hook(event)
    except Exception:
        log.exception("the hook on_event failed at %s", type(event).__name__)


class WatchedStore:
    """Does what ``store`` does, and tells what was done and how long it took."""

    def __init__(self, store: Store | TokenStore, hook: Hook) -> None:
        self._store = store
        self._hook = hook

    def _tell(self, event: Event) -> None:
        tell(self._hook, event)

    @property
    def capabilities(self) -> Capabilities:
        return self._store.capabilities

    def load(self, key: Key) -> Record | None:
        began = time.perf_counter()
        record = self._store.load(key)
        if record is not None:
            self._tell(Loaded(id=record.id, seconds=time.perf_counter() - began))
        return record

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        began = time.perf_counter()
        record = cast(LockingStore, self._store).lock(
            key, wait=wait, lease=lease, waiters=waiters, by=by
        )
        if record is not None and record.lease is not None:
            self._tell(Waited(id=record.id, seconds=time.perf_counter() - began))
        return record

    def save(
        self, record: Record, *, expect: int, room: int | None = None
    ) -> str | None:
        began, token = time.perf_counter(), None
        if self._store.capabilities.token_octets is not None:
            token = cast(TokenStore, self._store).save(record, expect=expect, room=room)
        else:
            self._store.save(record, expect=expect)
        seconds = time.perf_counter() - began
        self._tell(Saved(id=record.id, octets=len(record.data), seconds=seconds))
        return token

    def touch(self, record: Record) -> bool:
        return cast(Store, self._store).touch(record)

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        was_there = self._store.delete(key, user=user)
        if was_there:
            self._tell(Ended(id=key.id))
        return was_there

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        return cast(IterableStore, self._store).records(user=user)

    def unlock(self, record: Record) -> None:
        cast(LockingStore, self._store).unlock(record)
