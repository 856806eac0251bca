"""Sessions in files: one for each record, in a private folder on a local disk.

It knows records and their files, and nothing of where records come from.  How a file is
written safely is in ``_disk``, who may write it is in ``_leases``; a reader just opens,
reads and closes.  Below ``data_dir``::

    records/ab/c/abc...     a record: one line of header, then the data
    users/12/34.../abc...   empty: this user, by hash, has that session
    locks/abc, holders/...  see _leases
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex

from ..errors import ConfigurationError, Conflict, LockTimeout
from ..record import Key, Record
from . import _disk
from ._leases import ID, Lease, Leases

MAGIC = b"wsgisession-record-1 "
HEADER = len(MAGIC) + 9  # octets before the header: the magic, a checksum, a space
PAGE = 4096  # octets; enough for the header unless a user has a very long name
SHARDS = 4096  # folders: 17 MB if all are there, 250 files in each for a million
STALE = 3600  # seconds after which a draft is nobody's

_log = logging.getLogger("wsgisession")
_dumps = json.JSONEncoder(separators=(",", ":")).encode


class FileStore:
    """A folder of records, which any number of processes of one host may share.

    A record whose file is torn or corrupt is logged and counts as absent.  Its bytes
    are kept for whoever wants to look at them.

    :param data_dir: the folder, made if it is missing.  It must be ours alone.
    :param durability: ``"replace"``: a crash of the process leaves the old record or
        the new one, whole; ``"fsync"``: so does a crash of the machine, at the price of
        waiting for the disk.
    :param lock_waiters: how many may wait for one session before ``LockTimeout``.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        durability: str = "replace",
        lock_waiters: int = 50,
    ) -> None:
        if durability not in ("replace", "fsync"):
            raise ConfigurationError(
                f'durability={durability!r} is unknown; it may be "replace" or "fsync".'
            )
        if lock_waiters < 0:
            raise ConfigurationError(
                f"lock_waiters={lock_waiters} cannot be; it may be 0 or more."
            )
        folder = os.path.abspath(data_dir)  # a slash at the end would hide a link
        _disk.claim(folder)
        _disk.warn_if_remote(folder)
        self._fsync = durability == "fsync"
        self._lock_waiters = lock_waiters
        self._records = f"{folder}/records"
        self._users = f"{folder}/users"
        _disk.make_folder(self._records)
        _disk.make_folder(self._users)
        self._leases = Leases(folder)
        self._sweep_from = 0

    def load(self, key: Key) -> Record | None:
        if not ID.fullmatch(key.id):
            return None
        try:
            return _live(self._stored(key.id))
        except OSError as error:
            raise _disk.broken(error) from error

    def save(self, record: Record, *, expect: int) -> str | None:
        with self._leases.stripe(record.id) as stripe:
            ours = stripe.end(record.lease)
            stored = self._stored(record.id)
            current = _live(stored)
            version = current.version if current is not None else 0
            if version != expect or not (ours or self._leases.free(stripe.lease)):
                raise Conflict(record.id, current)
            self._put(record, stored)
        return record.token

    def touch(self, record: Record) -> str | None:
        with self._leases.stripe(record.id) as stripe:
            stripe.end(record.lease)
            current = _live(self._stored(record.id))
            if current is not None and current.version == record.version:
                later = replace(
                    current, accessed=record.accessed, expires=record.expires
                )
                self._put(later, current)
        return record.token

    def delete(self, record: Record) -> None:
        with self._leases.stripe(record.id) as stripe:
            stripe.end(stripe.lease.token)
            stored = self._stored(record.id)
            if stored is not None:
                self._remove(stored)

    def lock(self, key: Key, *, wait: float, lease: float) -> Record | None:
        id, ticket, queued, began = key.id, token_hex(8), False, time.monotonic()
        known = ID.fullmatch(id) and os.path.exists(self._path(id))
        if not known and self.load(key) is None:  # no lock file for what is not there
            return None
        while True:
            with self._leases.stripe(id) as stripe:
                held, waiters = stripe.lease, stripe.lease.waiters
                waiters.pop(ticket, None)
                current = _live(self._stored(id))
                if current is None or current.state != "live":
                    return current
                waited = time.monotonic() - began
                # Those who wait sleep between two looks: who comes later is not first.
                in_turn = queued or not waiters or waited >= wait
                if in_turn and self._leases.free(held):
                    until, holder = time.time() + lease, self._leases.holder()
                    stripe.lease = Lease(ticket, until, holder, waiters)
                    return current.bare(lease=ticket)
                if waited >= wait:
                    raise LockTimeout(id, waited)
                if not queued and len(waiters) >= self._lock_waiters:
                    raise LockTimeout(id, waited, len(waiters))
                waiters[ticket] = time.time() + wait - waited
                queued = True
            with _disk.failing():
                self._leases.watch(id, held, began + wait)

    def unlock(self, record: Record) -> None:
        if record.lease is not None:
            with self._leases.stripe(record.id) as stripe:
                stripe.end(record.lease)

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        for id in self._ids() if user is None else self._ids_of(user):
            record = self.load(Key(id))
            if user is not None and (record is None or record.user != user):
                self._drop_stale(user, id)
            elif record is not None and record.state == "live":
                yield record

    def delete_expired(self, *, batch: int) -> int:
        """Also removes what crashes left: drafts, and the files of dead holders."""
        swept = 0
        for shard in [(self._sweep_from + step) % SHARDS for step in range(SHARDS)]:
            self._sweep_from = shard
            with _disk.failing():
                swept += self._sweep(shard, batch - swept)
            if swept >= batch:
                return swept
        with _disk.failing():
            self._leases.sweep()
        return swept

    # -- one record, by whoever has its stripe -----------------------------------------

    def _path(self, id: str) -> str:
        return f"{self._records}/{id[:2]}/{id[2]}/{id}"

    def _stored(self, id: str) -> Record | None:
        """What is stored, expired or not; None where nothing whole is."""
        try:
            content = _disk.read_file(self._path(id))
        except FileNotFoundError:
            os.lstat(self._records)  # a disk that has gone is an outage, no logout
            return None
        try:
            return _decode(id, content)
        except ValueError:
            _log.error("the file of session %s is corrupt: counted as absent", id)
            return None

    def _put(self, record: Record, stored: Record | None) -> None:
        """Write ``record`` in the place of ``stored``."""
        path = self._path(record.id)
        former = stored.user if stored is not None else None
        if stored is None:  # a file that is there all the same is corrupt
            with suppress(FileNotFoundError):
                os.rename(path, f"{path}.{token_hex(8)}.corrupt")
        # In this order, for a marker too many is found out when somebody follows it.
        if record.user is not None and record.user != former:
            self._mark(record.user, record.id)
        _disk.replace_file(path, _encode(record), fsync=self._fsync)
        if former is not None and former != record.user:
            self._unmark(former, record.id)

    def _remove(self, record: Record) -> None:
        path = self._path(record.id)
        os.unlink(path)
        if self._fsync:
            _disk.fsync_folder(os.path.dirname(path))
        if record.user is not None:
            self._unmark(record.user, record.id)

    # -- all records -------------------------------------------------------------------

    def _list(self, folder: str) -> list[str]:
        with _disk.failing():
            try:
                return os.listdir(folder)
            except FileNotFoundError:
                os.lstat(self._records)
                return []

    def _ids(self) -> Iterator[str]:
        for shard in range(SHARDS):
            folder = os.path.dirname(self._path(f"{shard:03x}"))
            yield from filter(ID.fullmatch, self._list(folder))

    def _sweep(self, shard: int, limit: int) -> int:
        """Sweep up to ``limit`` expired records of a folder, and say how many."""
        swept, folder = 0, os.path.dirname(self._path(f"{shard:03x}"))
        for name in self._list(folder):
            try:
                swept += self._sweep_file(folder, name)
            except FileNotFoundError:
                continue
            except OSError as error:  # this one; the folder itself can be read
                _log.error("the file %s was not swept: %s", name, error.strerror)
            if swept >= limit:
                break
        return swept

    def _sweep_file(self, folder: str, name: str) -> bool:
        path = f"{folder}/{name}"
        if name.endswith(_disk.DRAFT):
            if os.lstat(path).st_mtime < time.time() - STALE:
                os.unlink(path)
            return False
        expired = ID.fullmatch(name) and _expiry(path) <= time.time()
        return bool(expired) and self._sweep_one(name)

    def _sweep_one(self, id: str) -> bool:
        with self._leases.stripe(id):  # somebody may have renewed it since we looked
            stored = self._stored(id)
            if stored is None or _live(stored) is not None:
                return False
            self._remove(stored)
            return True

    # -- the records of a user ---------------------------------------------------------

    def _folder_of(self, user: str) -> str:
        name = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._users}/{name[:2]}/{name[2:]}"

    def _ids_of(self, user: str) -> Iterator[str]:
        return filter(ID.fullmatch, self._list(self._folder_of(user)))

    def _mark(self, user: str, id: str) -> None:
        folder = self._folder_of(user)
        with suppress(FileExistsError):
            os.close(_disk.create(f"{folder}/{id}", fsync=self._fsync))
        if self._fsync:
            _disk.fsync_folder(folder)

    def _unmark(self, user: str, id: str) -> None:
        folder = self._folder_of(user)
        with suppress(FileNotFoundError):
            os.unlink(f"{folder}/{id}")
        with suppress(OSError):  # not the last one
            os.rmdir(folder)

    def _drop_stale(self, user: str, id: str) -> None:
        with self._leases.stripe(id):  # somebody may be about to write the record
            stored = self._stored(id)
            if stored is None or stored.user != user:
                self._unmark(user, id)


def _live(record: Record | None) -> Record | None:
    return record if record is not None and record.expires > time.time() else None


def _encode(record: Record) -> bytes:
    header = {
        "id": record.id,
        "version": record.version,
        "created": record.created,
        "accessed": record.accessed,
        "expires": record.expires,
        "user": record.user,
        "state": record.state,
        "successor": record.successor,
    }
    body = b"%s\n%s" % (_dumps(header).encode(), record.data)
    return b"%s%08x %s" % (MAGIC, zlib.crc32(body), body)


def _decode(id: str, content: bytes) -> Record:
    """The record in a file; ValueError if the file is not whole, or is another's."""
    checksum = zlib.crc32(memoryview(content)[HEADER:])
    if content[:HEADER] != b"%s%08x " % (MAGIC, checksum):
        raise ValueError("checksum")
    end = content.index(b"\n", HEADER)
    record = Record(data=content[end + 1 :], **json.loads(content[HEADER:end].decode()))
    if record.id != id:
        raise ValueError("id")
    return record


def _expiry(path: str) -> float:
    """When a record expires by its header; 0 where it takes a closer look to tell."""
    fd = _disk.open_file(path, os.O_RDONLY)
    try:
        start = os.read(fd, PAGE)
    finally:
        os.close(fd)
    try:
        return float(json.loads(start[HEADER:].partition(b"\n")[0])["expires"])
    except (ValueError, KeyError, TypeError):
        return 0.0
