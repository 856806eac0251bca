"""The file store: the storage protocol, kept by files in a private folder.

It knows records and the order of the steps that keep each promise, and nothing of where
records come from.  A reader just opens, reads and closes.  Below ``data_dir``::

    records/ab/abc...     a record, see ``format``
    users/12/34.../abc... empty: this user, by hash, has that session, see ``users``
    locks/ab, holders/... see ``leases``
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from secrets import token_hex
from typing import Literal

from ..._health import Finding
from ...errors import ConfigurationError, LockTimeout, StoreError, VersionConflict
from ...record import Key, Record
from ...store import Capabilities
from . import _folder as folders
from ._disk import DRAFT, Disk, is_stale, read_file, read_start
from ._format import ID, decode, encode, expiry
from ._health import examine
from ._leases import HASTE, Lease, Leases, Stripe
from ._users import Users

SHARDS = 256
"""Folders for records: 4,000 files in each for a million."""

_START = 4096
"""Octets that hold the header, unless a user has a very long name."""
_HOUR = 3600
_FOLDERS = ("records", "users", "locks", "holders")

_log = logging.getLogger("wsgisession")


class FileStore:
    """A folder of records, which any number of processes of one host may share.

    A record whose file is torn or damaged is logged and counts as absent; its bytes are
    kept, so that a person can look at them.

    :param data_dir: the folder, made if it is missing.  It must be ours alone.
    :param durability: ``"replace"``: a crash of the process leaves the old record or
        the new one, whole; ``"fsync"``: so does a crash of the machine, at the price of
        waiting for the disk.

    Raises ``ConfigurationError`` for a folder that is not fit.
    """

    capabilities: Capabilities = Capabilities(locks=True, lists=True)

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        durability: Literal["replace", "fsync"] = "replace",
    ) -> None:
        if durability not in ("replace", "fsync"):
            raise ConfigurationError(
                f'durability={durability!r} is unknown; it may be "replace" or "fsync"'
            )
        if not isinstance(data_dir, (str, os.PathLike)) or not os.fspath(data_dir):
            raise ConfigurationError(
                f"data_dir={data_dir!r} is not the path of a folder"
            )
        folder = os.path.abspath(data_dir)  # a slash at the end would hide a link
        folders.claim(folder, _FOLDERS)
        folders.warn_if_remote(folder)
        self.folder = folder
        """The absolute path; for people, not for programs that look into it."""
        self._records = f"{folder}/records"
        self._disk = Disk(folder, self._records, durable=durability == "fsync")
        self._users = Users(f"{folder}/users", self._disk)
        self._leases = Leases(folder, self._disk)
        self._swept = ""  # the name at which the last sweep stopped
        try:
            self._make_folders()
        except OSError as error:
            raise ConfigurationError(
                f"data_dir={folder!r} cannot be written to ({error.strerror})"
            ) from error

    def examine(self) -> Iterator[Finding]:
        """What there is to know of the folder."""
        return examine(self.folder)

    def load(self, key: Key) -> Record | None:
        if not ID.fullmatch(key.id):
            return None
        try:
            return _live(self._stored(key.id))
        except OSError as error:
            raise self._disk.broken(error) from error

    def save(self, record: Record, *, expect: int) -> None:
        if not ID.fullmatch(record.id):
            raise StoreError("the id of a record must be 32 hexadecimal digits")
        # A new session has a random id: nothing is there, so it needs no lock and no
        # look, but where a lease is to be ended or a marker to be written.
        is_plain = not expect and record.lease is None and record.user is None
        if is_plain and self._insert(record):
            return
        with self._leases.stripe(record.id) as stripe:
            is_ours = stripe.end(record.lease)
            stored = self._stored(record.id)
            current = _live(stored)
            if current is None:
                if expect:
                    raise VersionConflict(record.id, None)
            elif current.version != expect or not (
                is_ours or self._leases.is_free(stripe.lease)
            ):
                raise VersionConflict(record.id, current)
            self._put(record, stored)
            stripe.end_any()  # one that ran out, or whose holder died or record expired

    def touch(self, record: Record) -> bool:
        if not ID.fullmatch(record.id):
            return False
        # A reader does not wait for what another request can do as well.
        with self._leases.stripe(record.id, HASTE) as stripe:
            stripe.end(record.lease)
            current = _live(self._stored(record.id))
            if current is None or current.version != record.version:
                return False
            later = current._replace(
                accessed=max(current.accessed, record.accessed),
                expires=max(current.expires, record.expires),
            )
            if later != current:
                self._put(later, current)
            return True

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        if not ID.fullmatch(key.id):
            return False
        with self._leases.stripe(key.id) as stripe:
            stored = self._stored(key.id)
            if stored is None or user not in (None, stored.user):
                return False
            self._remove(stored, stripe)
            return _live(stored) is not None

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        if not ID.fullmatch(key.id):
            return None
        began = time.monotonic()
        try:
            return self._lease(key, wait, lease, waiters, by, began)
        except StoreError as error:
            if isinstance(error.__cause__, TimeoutError):
                raise LockTimeout(key.id, time.monotonic() - began) from error
            raise

    def _lease(
        self, key: Key, wait: float, lease: float, waiters: int, by: str, began: float
    ) -> Record | None:
        id, ticket, queued = key.id, token_hex(8), False
        gives_up, end = time.time() + wait, began + wait
        while True:
            patience = max(end - time.monotonic(), HASTE)
            with self._leases.stripe(id, patience) as stripe:
                held = stripe.lease
                held.waiters.pop(ticket, None)
                current = _live(self._stored(id))
                if current is None or not current.admits(key.proof, time.time()):
                    return current
                waited = time.monotonic() - began
                # Those who wait sleep between two looks: who comes later is not first.
                in_turn = queued or not held.waiters or waited >= wait
                if in_turn and self._leases.is_free(held):
                    now, holder = time.time(), self._leases.holder()
                    stripe.lease = Lease(
                        ticket, now, now + lease, holder, by, held.waiters
                    )
                    return current._replace(lease=ticket)
                if waited >= wait:
                    raise held.timeout(id, waited)
                if not queued and len(held.waiters) >= waiters:
                    raise held.timeout(id, waited, len(held.waiters))
                held.waiters[ticket] = gives_up
                queued = True
            try:
                self._leases.watch(id, held, end)
            except OSError as error:
                raise self._disk.broken(error) from error

    def unlock(self, record: Record) -> None:
        if record.lease is not None and ID.fullmatch(record.id):
            with self._leases.stripe(record.id) as stripe:
                stripe.end(record.lease)

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        for id in self._ids() if user is None else self._ids_of(user):
            record = self.load(Key(id))
            if record is not None and user in (None, record.user):
                yield record

    def delete_expired(self, *, batch: int) -> int:
        """Forget up to ``batch`` expired records, and say how many they were.

        It goes on where the last call stopped, and removes what crashes left: drafts,
        markers without a record, the files of dead holders.
        """
        swept, start = 0, self._swept
        first = int(start[:2] or "0", 16)
        for step in range(SHARDS + 1):
            shard = f"{(first + step) % SHARDS:02x}"
            for name in sorted(self._list(shard)):
                if step == 0 and name <= start:
                    continue
                if swept >= batch:
                    return swept
                swept += self._sweep_file(shard, name)
                self._swept = name
            self._sweep_users(shard)
        try:
            self._leases.sweep()
        except OSError as error:
            raise self._disk.broken(error) from error
        return swept

    # -- one record --------------------------------------------------------------------

    def _path(self, id: str) -> str:
        return f"{self._records}/{id[:2]}/{id}"

    def _stored(self, id: str) -> Record | None:
        """What is stored, expired or not; None where nothing whole is."""
        try:
            content = read_file(self._path(id))
        except FileNotFoundError:
            self._disk.check()
            return None
        try:
            return decode(id, content)
        except (ValueError, KeyError, TypeError):
            _log.error("the file of session %s is damaged: counted as absent", id)
            return None

    def _insert(self, record: Record) -> bool:
        """Write a record where no file is, in one step; False if there is one."""
        try:
            return self._disk.insert(self._path(record.id), encode(record))
        except OSError as error:
            raise self._disk.broken(error) from error

    # -- one record, by who has its stripe ---------------------------------------------

    def _put(self, record: Record, stored: Record | None) -> None:
        """Write ``record`` in the place of ``stored``."""
        path, content = self._path(record.id), encode(record)
        former = stored.user if stored is not None else None
        # In this order, because a marker too many is found out when it is followed.
        if record.user is not None and _needs_marker(record, stored):
            self._users.add(record.user, record.id)
        while stored is None and not self._disk.insert(path, content):
            stored = self._stored(record.id)
            if _live(stored) is not None:  # an insert that takes no stripe came between
                raise VersionConflict(record.id, stored)
            if stored is None:
                self._set_aside(path)
        if stored is not None:
            self._disk.replace(path, content)
        if former is not None and former != record.user:
            self._users.remove(former, record.id)

    def _set_aside(self, path: str) -> None:
        """Keep the bytes of a damaged file under another name."""
        with suppress(FileNotFoundError):
            os.rename(path, f"{path}.{token_hex(8)}.corrupt")

    def _remove(self, record: Record, stripe: Stripe) -> None:
        self._disk.remove(self._path(record.id))
        stripe.end_any()
        if record.user is not None:
            self._users.remove(record.user, record.id)

    # -- all records -------------------------------------------------------------------

    def _make_folders(self) -> None:
        """Make what is missing now, so that no request has to."""
        self._disk.make_folders(os.path.dirname(self._records), _FOLDERS)
        self._disk.make_folders(self._records, (f"{n:02x}" for n in range(SHARDS)))
        self._leases.make_stripes()

    def _list(self, shard: str) -> list[str]:
        try:
            return os.listdir(f"{self._records}/{shard}")
        except FileNotFoundError:
            pass  # a job that sweeps empty folders took it, or the disk is gone
        except OSError as error:
            raise self._disk.broken(error) from error
        try:
            self._disk.check()
        except OSError as error:
            raise self._disk.broken(error) from error
        return []

    def _ids(self) -> Iterator[str]:
        for number in range(SHARDS):
            yield from filter(ID.fullmatch, self._list(f"{number:02x}"))

    def _ids_of(self, user: str) -> list[str]:
        try:
            return self._users.ids(user)
        except OSError as error:
            raise self._disk.broken(error) from error

    # -- sweeping ----------------------------------------------------------------------

    def _sweep_file(self, shard: str, name: str) -> bool:
        """Sweep what lies under a name; whether it was an expired record."""
        path = f"{self._records}/{shard}/{name}"
        try:
            if name.endswith(DRAFT):
                if is_stale(path):
                    os.unlink(path)
                return False
            if not ID.fullmatch(name) or expiry(read_start(path, _START)) > time.time():
                return False
            return self._sweep_record(name)
        except FileNotFoundError:  # gone by itself
            return False
        except (OSError, StoreError) as error:  # this one; the folder can be read
            _log.error("the file %s was not swept: %s", name, error)
            return False

    def _sweep_record(self, id: str) -> bool:
        with self._leases.stripe(id) as stripe:  # it may be renewed since we looked
            stored = self._stored(id)
            if stored is None or _live(stored) is not None:
                return False
            self._remove(stored, stripe)
            return True

    def _sweep_users(self, shard: str) -> None:
        """Remove the markers that a crash has left.

        Only old ones whose record is gone or another user's.  A young marker may be of
        a login that is under way.
        """
        try:
            for folder, id in self._users.stale(shard):
                if self._users.is_of(folder, self._user(id)):
                    continue
                with self._leases.stripe(id):
                    if not self._users.is_of(folder, self._user(id)):
                        self._users.remove_stale(folder, id)
        except (OSError, StoreError) as error:
            _log.error("the markers of users were not swept: %s", error)

    def _user(self, id: str) -> str | None:
        stored = self._stored(id)
        return stored.user if stored is not None else None


def _live(record: Record | None) -> Record | None:
    return record if record is not None and record.expires > time.time() else None


def _needs_marker(record: Record, stored: Record | None) -> bool:
    """Whether a user's marker is missing, or due to be made young again.

    Once an hour, lest a job that sweeps old files take the marker of a live session.
    """
    return (
        stored is None
        or stored.user != record.user
        or stored.accessed // _HOUR != record.accessed // _HOUR
    )
