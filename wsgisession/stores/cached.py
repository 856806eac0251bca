"""A cache in front of a store: reads come from the one, all else from the other.

It knows records, two stores and the time, and nothing of what the records mean.  The
store behind decides everything: locks, versions, ends.  The cache is a copy that may be
lost at any time, and costs speed when it is.

What another process has saved or ended is seen after ``cache_ttl`` seconds at the latest;
what this process has saved or ended, at once.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from hmac import compare_digest
from typing import NamedTuple, TypeVar, cast

from .._health import ExaminedStore, Finding
from .._outages import Outages
from ..errors import ConfigurationError, StoreError, VersionConflict
from ..record import Key, Record, Replaced
from ..store import Capabilities, ClosingStore, IterableStore, LockingStore, Store

__all__ = ["CachedStore"]

T = TypeVar("T")

PAUSE = 2.0
"""Seconds for which a cache that failed is not asked: each try may cost a timeout."""

SWEPT = 1000
"""Entries that one step sweeps from a cache that does not forget by itself."""


class Known(NamedTuple):
    """What this process did to a record a moment ago."""

    until: float
    """When any entry from before is gone by itself, by the monotonic clock."""
    version: int | None
    """The only one that the cache may show; None: it may show nothing."""


class CachedStore:
    """A store that reads from a cache, and can do what ``store`` can.

    Writers, lock holders, logins and administrators are served by the store behind.  A
    reader is served by the cache if its token is the current one of what is found there.

    :param store: keeps the records.
    :param cache: any other store on a server or in memory; a namespace of its own.
    :param cache_ttl: seconds for which an entry of the cache may be used, and by which
        another process may be behind a save or an end.

    Raises ``ConfigurationError`` for a store whose token is the record.
    """

    def __init__(self, store: Store, cache: Store, *, cache_ttl: float = 10.0) -> None:
        for each in (store, cache):
            if each.capabilities.token_octets is not None:
                raise ConfigurationError(
                    f"{type(each).__name__} has no storage to read from: a session in a "
                    "cookie needs no cache, and can be none"
                )
        if not 0 < cache_ttl <= 3600:
            raise ConfigurationError(
                f"cache_ttl must be above 0 and at most 3600 seconds, not {cache_ttl!r}"
            )
        self.within = store
        self.capabilities: Capabilities = store.capabilities
        self._cache = _Cache(cache, cache_ttl)
        self._ttl = cache_ttl
        self._guard = threading.Lock()
        self._known: OrderedDict[str, Known] = OrderedDict()

    # -- reading -----------------------------------------------------------------------

    def load(self, key: Key) -> Record | None:
        if key.proof is None:
            return self.within.load(key)
        known = self._known.get(key.id)
        cached = self._cache.get(key)
        # Any token but the current one is judged by the store behind: a login or a
        # rotation in another process may have made it.
        if (
            cached is not None
            and compare_digest(cached.proof, key.proof)
            and _may_show(cached, known)
        ):
            return cached
        began = time.time()
        record = self.within.load(key)
        if record is not None and self._is_newest(record, known):
            self._cache.fill(record, cached, began)
        return record

    def _is_newest(self, record: Record, before: Known | None) -> bool:
        """Whether a record that was loaded is the newest that this process knows.

        It is not if a request has saved or ended it since ``before`` was looked up, or is
        about to.
        """
        with self._guard:
            if self._known.get(record.id) is not before:
                return False
            if before is None or before.until <= time.monotonic():
                return True
            if before.version is None:
                return False
            self._known[record.id] = before._replace(version=record.version)
            return True

    # -- writing -----------------------------------------------------------------------

    def save(self, record: Record, *, expect: int) -> None:
        doubt, began = self._begin(record.id), time.time()
        try:
            self.within.save(record, expect=expect)
        except VersionConflict:
            self._cache.drop(record.id)
            raise
        if self._settle(record.id, doubt, record.version):
            self._cache.put(record, expect, began)
        else:
            self._cache.drop(record.id)

    def touch(self, record: Record) -> bool:
        is_there = self.within.touch(record)
        self._cache.drop(record.id)
        return is_there

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        doubt = self._begin(key.id)
        was_there = self.within.delete(key, user=user)
        self._settle(key.id, doubt, None)
        self._cache.drop(key.id)
        return was_there

    def _begin(self, id: str) -> Known:
        """From here on the cache shows nothing of a record: who knows what is stored."""
        now = time.monotonic()
        doubt = Known(now + self._ttl, None)
        with self._guard:
            self._remember(id, doubt)
            while self._known:
                oldest = next(iter(self._known))
                if self._known[oldest].until > now:
                    break
                del self._known[oldest]
        return doubt

    def _settle(self, id: str, doubt: Known, version: int | None) -> bool:
        """Note what is stored now; False where another request of this process began to
        write in between, and knows better.
        """
        with self._guard:
            if self._known.get(id) is not doubt:
                return False
            self._remember(id, Known(time.monotonic() + self._ttl, version))
            return True

    def _remember(self, id: str, known: Known) -> None:
        """Note it as the youngest, so that the oldest are always first."""
        self._known[id] = known
        self._known.move_to_end(id)

    def close(self) -> None:
        """Close what both keep open."""
        for store in (self.within, self._cache.store):
            if isinstance(store, ClosingStore):
                store.close()

    def examine(self) -> Iterator[Finding]:
        """What both have found, each under its own name."""
        for name, store in (("store", self.within), ("cache", self._cache.store)):
            if isinstance(store, ExaminedStore):
                for each in store.examine():
                    yield each._replace(subject=f"{name}: {each.subject}")

    # -- what the store behind does alone ------------------------------------------------

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        within = cast(LockingStore, self.within)
        return within.lock(key, wait=wait, lease=lease, waiters=waiters, by=by)

    def unlock(self, record: Record) -> None:
        cast(LockingStore, self.within).unlock(record)

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        return cast(IterableStore, self.within).records(user=user)

    def delete_expired(self, *, batch: int) -> int:
        return cast(IterableStore, self.within).delete_expired(batch=batch)


def _may_show(cached: Record, known: Known | None) -> bool:
    """Whether what this process did a moment ago lets a copy be shown."""
    if known is None or known.until <= time.monotonic():
        return True
    return known.version == cached.version


class _Cache:
    """Copies of records, of which each is used for a short time only.

    Whatever goes wrong here is logged, and the request goes on without the cache.
    """

    def __init__(self, store: Store, ttl: float) -> None:
        self.store = store
        self._ttl = ttl
        self._outages = Outages()
        self._asked_from = 0.0
        """By the monotonic clock: until then the cache is left alone."""
        self._swept_at = 0.0

    def get(self, key: Key) -> Record | None:
        """The copy of a record that has not expired."""
        entry = self._tried(lambda: self.store.load(Key(key.id)))
        if entry is None:
            return None
        record = _opened(entry)
        if record is None:
            self.drop(key.id)
        return record if record is not None and record.expires > time.time() else None

    def fill(self, record: Record, instead: Record | None, began: float) -> None:
        """Keep what was loaded, unless another copy has come in between.

        :param instead: the copy that was found before, and was of no use.
        """
        before = 0 if instead is None else instead.version
        if before != record.version:
            self._put(record, before, began)

    def put(self, record: Record, expect: int, began: float) -> None:
        """Keep what was saved; if the cache has a copy that it does not replace, drop it.

        That one may be older or newer, and nobody here can tell.
        """
        is_kept = self._put(record, expect, began) or (
            expect != 0 and self._put(record, 0, began)
        )
        if not is_kept:
            self.drop(record.id)

    def drop(self, id: str) -> None:
        """Forget the copy of a record."""
        self._tried(lambda: self.store.delete(Key(id)))

    def _put(self, record: Record, expect: int, began: float) -> bool:
        entry = _entry(record, began + self._ttl)
        return self._tried(lambda: self._kept(entry, expect)) is True

    def _kept(self, entry: Record, expect: int) -> bool:
        self._sweep()
        try:
            self.store.save(entry, expect=expect)
        except VersionConflict:
            return False
        return True

    def _sweep(self) -> None:
        """Forget, once in a while, what a cache in memory would keep for ever."""
        now = time.monotonic()
        if self.store.capabilities.lists and now - self._swept_at >= self._ttl:
            self._swept_at = now
            while cast(IterableStore, self.store).delete_expired(batch=SWEPT) == SWEPT:
                pass

    def _tried(self, call: Callable[[], T]) -> T | None:
        """What a call of the cache returns; None where it fails, or failed just now."""
        if time.monotonic() < self._asked_from:
            return None
        try:
            return call()
        except StoreError as error:
            self._asked_from = time.monotonic() + PAUSE
            self._outages.note(
                error, "the cache is passed over, and costs speed", now=time.time()
            )
            return None


def _entry(record: Record, until: float) -> Record:
    """A record as the cache keeps it: all of it is data, and it lives shortly.

    It has no user, so that no cache keeps an index of users.
    """
    said = json.dumps(record[3:11])  # from ``created`` to ``replaced``
    data = said.encode("ascii") + b"\n" + record.data
    return Record(record.id, record.version, data, until, until, until)


def _opened(entry: Record) -> Record | None:
    """The record again; None for an entry that is none of ours."""
    said, _, data = entry.data.partition(b"\n")
    try:
        *plain, replaced = json.loads(said)
        proofs = tuple(Replaced(proof, until) for proof, until in replaced)
        fields = (entry.id, entry.version, data, *plain, proofs, None, None, None)
        return Record._make(fields)
    except (ValueError, TypeError):
        return None
