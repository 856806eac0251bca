"""Who may write a session: locks and leases in files, for the processes of one host.

It knows ids and lock files, and not what is kept under an id.  There are two kinds:

* A *stripe* is a lock file for all ids that begin alike.  It is locked for the
  microseconds of one comparison and write, and never unlinked by us: two processes that
  lock a file of that name lock the same file.
* A *lease* is held over a request.  It is an entry in the stripe: a token, the time at
  which it runs out, and its *holder*, a file that a process keeps locked for its life.
  However the process ends, the system ends that lock: nobody waits for the dead.

A stripe that was torn holds no leases: then the versions decide alone.

A job that sweeps old files must not let two requests in.  So both kinds of files are
kept young where they are used; a stripe that was swept is opened again under its name;
and a holder whose file is *gone* counts as alive until its lease runs out, because only
a file that is there and unlocked tells of a death.
"""

from __future__ import annotations

import errno
import json
import os
import time
from secrets import token_hex
from types import TracebackType
from typing import NamedTuple

from filelock import FileLock, lock_descriptor, unlock_descriptor

from ...errors import LockTimeout
from ._disk import Disk, is_stale, open_file, overwrite, read, read_file

STRIPES = 256

PATIENCE = 5.0
"""Seconds to wait for a stripe.  It is held for microseconds, unless its process was
stopped within."""
HASTE = 0.5
"""The same for what another request can do as well."""

_LOOK = 0.05
"""Seconds between two looks whether a holder still lives."""
_REFRESH = 60.0
"""Seconds after which a file that is in use is made young again."""
_ROOM = 4096
"""Octets that a stripe may keep when they are no longer needed."""


class Lease(NamedTuple):
    """Who holds a session, from when until when (epoch seconds), and the tickets of who
    waits.

    A ticket has a time after which it does not count: a waiter that was killed leaves
    by itself.
    """

    token: str
    since: float
    until: float
    holder: str
    by: str
    """The request, for messages."""
    waiters: dict[str, float]

    def timeout(
        self, id: str, waited: float, waiters: int | None = None
    ) -> LockTimeout:
        """The error of who waited in vain, with what is known of the holder."""
        if not self.token:
            return LockTimeout(id, waited, waiters)
        held_for = max(time.time() - self.since, 0.0)
        return LockTimeout(id, waited, waiters, held_by=self.by, held_for=held_for)


class Stripe:
    """A lock file while it is locked, and from it the lease of one session.

    A change of the lease is written at the end.  An ``OSError`` within is raised as
    ``StoreError``; so is a stripe that another process holds for too long.
    """

    __slots__ = (
        "_disk",
        "_fd",
        "_found",
        "_id",
        "_leases",
        "_path",
        "_patience",
        "_size",
        "lease",
    )

    lease: Lease

    def __init__(self, path: str, id: str, disk: Disk, patience: float) -> None:
        self._path = path
        self._id = id
        self._disk = disk
        self._patience = patience

    def __enter__(self) -> Stripe:
        try:
            self._fd, self._size = self._lock()
            try:
                self._leases = _parse(read(self._fd)) if self._size else {}
                self._found = self._leases.get(self._id, _nobodys({}))
                self.lease = self._found._replace(waiters=_waiting(self._found.waiters))
            except BaseException:
                self._unlock()
                raise
        except OSError as error:
            raise self._disk.broken(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            try:
                if self.lease != self._found:
                    self._write()
            finally:
                self._unlock()
        except OSError as failed:
            raise self._disk.broken(failed) from failed
        if isinstance(error, OSError):
            raise self._disk.broken(error) from error

    def end(self, token: object) -> bool:
        """End the lease if ``token`` is its own, and tell whether it was."""
        is_ours = token is not None and token == self.lease.token
        if is_ours:
            self.end_any()
        return is_ours

    def end_any(self) -> None:
        """End the lease of any holder."""
        if self.lease.token:
            self.lease = _nobodys(self.lease.waiters)

    def _lock(self) -> tuple[int, int]:
        """Open and lock the file; its descriptor and its size."""
        while True:
            fd = self._disk.create(self._path, os.O_RDWR)
            try:
                self._wait_for(fd)
                found = os.fstat(fd)
                if found.st_nlink:
                    if found.st_mtime < time.time() - _REFRESH:
                        os.utime(fd)
                    return fd, found.st_size
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # swept since it was opened: a file of that name is another

    def _wait_for(self, fd: int) -> None:
        """Lock a file; a flock that waits in C would stop all greenlets of a hub."""
        if lock_descriptor(fd, blocking=False):
            return
        end = time.monotonic() + self._patience
        while not lock_descriptor(fd, blocking=False):
            if time.monotonic() >= end:
                raise TimeoutError(
                    errno.ETIMEDOUT,
                    f"a process holds {self._path} and does not go on; was it stopped?",
                )
            time.sleep(0.001)

    def _unlock(self) -> None:
        try:  # closing would not do: a child forked within has a duplicate
            unlock_descriptor(self._fd)
        finally:
            os.close(self._fd)

    def _write(self) -> None:
        """Write all leases but those that have run out.

        What was longer is overwritten with blanks, which is cheaper than to cut it off,
        and one call of the system: nothing that kills the process can tear it.
        """
        self._leases[self._id] = self.lease
        now = time.time()
        live = {
            id: lease
            for id, lease in self._leases.items()
            if max(lease.until, *lease.waiters.values(), 0.0) > now
        }
        content = json.dumps(live).encode() if live else b""
        overwrite(self._fd, content.ljust(self._size))
        if self._size > _ROOM:
            os.ftruncate(self._fd, max(len(content), _ROOM))


class _Holder(NamedTuple):
    """The file that a process keeps locked."""

    name: str
    pid: int
    refresh: float
    """When it is to be made young again (monotonic)."""


class Leases:
    """The stripes and the holders of a folder."""

    __slots__ = ("_disk", "_holder", "_holders", "_kept", "_locks")

    def __init__(self, folder: str, disk: Disk) -> None:
        self._disk = disk
        self._locks = f"{folder}/locks"
        self._holders = f"{folder}/holders"
        self._holder: _Holder | None = None
        self._kept: list[FileLock] = []  # until the process ends, as leases name them

    def make_stripes(self) -> None:
        """Make all stripes, so that asking for an unknown session makes no file."""
        stripes = {f"{number:02x}" for number in range(STRIPES)}
        for name in stripes.difference(os.listdir(self._locks)):
            os.close(self._disk.create(f"{self._locks}/{name}", os.O_RDWR))

    def stripe(self, id: str, patience: float | None = None) -> Stripe:
        """The stripe of an id, to be used with ``with``.

        :param patience: seconds; None: ``PATIENCE``.
        """
        patience = PATIENCE if patience is None else patience
        return Stripe(self._path(id), id, self._disk, patience)

    def is_free(self, lease: Lease) -> bool:
        """Whether a lease shuts nobody out: none, run out, or of a dead holder."""
        return lease.until <= time.time() or not self._lives(lease.holder)

    def watch(self, id: str, lease: Lease, deadline: float) -> None:
        """Sleep until ``lease`` seems to be over, or ``deadline`` (monotonic) is."""
        look = time.monotonic() + _LOOK
        while (now := time.monotonic()) < deadline:
            # 1 to 4 ms, so that those who wait do not fall into step.
            time.sleep(min(0.001 + os.urandom(1)[0] / 85_000, deadline - now))
            if lease.until <= time.time() or self._token(id) != lease.token:
                return
            if now >= look:
                if not self._lives(lease.holder):
                    return
                look = now + _LOOK

    def holder(self) -> str:
        """The name of this process's holder, which is made when it is first needed.

        A forked child has one of its own.
        """
        ours, now = self._holder, time.monotonic()
        if ours is not None and ours.pid == os.getpid():
            if now < ours.refresh:
                return ours.name
            try:
                os.utime(f"{self._holders}/{ours.name}")
            except FileNotFoundError:
                pass  # swept: its leases live until they run out, and new ones need it
            else:
                self._holder = ours._replace(refresh=now + _REFRESH)
                return ours.name
        return self._new_holder()

    def sweep(self) -> None:
        """Remove the files of holders that died long ago."""
        for name in os.listdir(self._holders):
            try:
                if is_stale(f"{self._holders}/{name}") and not self._lives(name):
                    os.unlink(f"{self._holders}/{name}")
            except FileNotFoundError:  # another sweep was first
                continue

    def _new_holder(self) -> str:
        name = token_hex(16)
        self._disk.make_folder(self._holders)  # a job that sweeps may have taken it
        lock = FileLock(
            f"{self._holders}/{name}",
            mode=0o600,
            thread_local=False,
            is_singleton=False,
        )
        lock.acquire()
        # Two threads may make two at once: both are good, and both are kept.
        self._kept.append(lock)
        self._holder = _Holder(name, os.getpid(), time.monotonic() + _REFRESH)
        return name

    def _lives(self, holder: str) -> bool:
        """Whether a process lives, or nobody can tell that it died."""
        ours = self._holder
        if ours is not None and ours.name == holder and ours.pid == os.getpid():
            return True
        try:
            fd = open_file(f"{self._holders}/{holder}", os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            if not lock_descriptor(fd, blocking=False):
                return True
            unlock_descriptor(fd)
            return False
        finally:
            os.close(fd)

    def _token(self, id: str) -> str:
        """Who holds a session, read without the lock.

        A text that is being written looks like a change, and is looked at again.
        """
        try:
            content = read_file(self._path(id))
        except FileNotFoundError:  # swept
            return ""
        return _parse(content).get(id, _nobodys({})).token

    def _path(self, id: str) -> str:
        return f"{self._locks}/{id[:2]}"


def _nobodys(waiters: dict[str, float]) -> Lease:
    return Lease("", 0.0, 0.0, "", "", waiters)


def _waiting(waiters: dict[str, float]) -> dict[str, float]:
    now = time.time()
    return {ticket: until for ticket, until in waiters.items() if until > now}


def _parse(content: bytes) -> dict[str, Lease]:
    if not content or content.isspace():
        return {}
    try:
        return {
            id: Lease(token, float(since), float(until), holder, by, _moments(waiters))
            for id, (token, since, until, holder, by, waiters) in json.loads(
                content
            ).items()
        }
    except (ValueError, TypeError, AttributeError):  # torn
        return {}


def _moments(waiters: dict[str, float]) -> dict[str, float]:
    return {ticket: float(until) for ticket, until in waiters.items()}
