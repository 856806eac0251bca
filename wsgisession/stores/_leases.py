"""Who may write a session: locks and leases in files, for the processes of one host.

It knows ids and lock files, and not what is kept under an id.  There are two kinds:

* A *stripe* is a lock file for all ids that begin alike.  It is locked for the
  microseconds of one comparison and write, and never unlinked: whoever locks a file of
  that name locks the same file.
* A *lease* is held over a request.  It is an entry in the stripe: a token, the time at
  which it runs out, and its *holder*, a file that a process keeps locked for its life.
  However the process ends, the system ends that lock: nobody waits for the dead.

A stripe that a crash has torn holds no leases: then the versions decide alone.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import NamedTuple

from filelock import FileLock, lock_descriptor, unlock_descriptor

from ..errors import StoreError
from ._disk import broken, make_folder, open_file, read, read_file, write

ID = re.compile(r"[0-9a-f]{64}")
LOOK = 0.05  # seconds between two looks whether a holder still lives


class Lease(NamedTuple):
    """Who holds a session, until when (epoch seconds), and the tickets of who waits.

    A ticket has a time after which it does not count: a waiter that was killed leaves
    by itself.
    """

    token: str
    until: float
    holder: str
    waiters: dict[str, float]


class Stripe:
    """A lock file while the lock is ours, and from it the lease of one session."""

    __slots__ = ("_fd", "_found", "_id", "_leases", "_size", "lease")

    def __init__(self, fd: int, id: str) -> None:
        content = read(fd)
        self._fd, self._id, self._size = fd, id, len(content)
        self._leases = _parse(content)
        self._found = self._leases.get(id, _nobodys({}))
        now = time.time()
        waiters = {each: end for each, end in self._found.waiters.items() if end > now}
        self.lease = Lease(*self._found[:3], waiters)

    def end(self, token: object) -> bool:
        """End the lease if ``token`` is its own, and tell whether it was."""
        ours = token is not None and token == self.lease.token
        if ours:
            self.lease = _nobodys(self.lease.waiters)
        return ours

    def write_back(self) -> None:
        """Write what changed, without what has run out meanwhile."""
        if self.lease == self._found:
            return
        self._leases[self._id] = self.lease
        now = time.time()
        live = {
            id: lease
            for id, lease in self._leases.items()
            if max(lease.until, *lease.waiters.values(), 0.0) > now
        }
        content = json.dumps(live).encode() if live else b""
        if content:
            os.lseek(self._fd, 0, os.SEEK_SET)
            write(self._fd, content)
        if len(content) < self._size:
            os.ftruncate(self._fd, len(content))


class Leases:
    """The lock files and the holders of a folder."""

    def __init__(self, folder: str) -> None:
        self._locks = f"{folder}/locks"
        self._holders = f"{folder}/holders"
        make_folder(self._locks)
        make_folder(self._holders)
        # By process, because a forked child must have a holder of its own.
        self._ours: dict[int, tuple[str, FileLock]] = {}

    @contextmanager
    def stripe(self, id: str) -> Iterator[Stripe]:
        """Hold the stripe of an id; a change of its lease is written at the end."""
        if not ID.fullmatch(id):
            raise StoreError("the id of a record must be 64 hexadecimal digits")
        try:
            fd = open_file(self._path(id), os.O_RDWR | os.O_CREAT)
            try:
                # It polls; a flock that waits in C would stop all greenlets of a hub.
                lock_descriptor(fd, poll_interval=0.001)
                stripe = Stripe(fd, id)
                try:
                    yield stripe
                finally:
                    stripe.write_back()
            finally:
                try:  # closing would not do: a child forked meanwhile has a duplicate
                    unlock_descriptor(fd)
                finally:
                    os.close(fd)
        except OSError as error:
            raise broken(error) from error

    def free(self, lease: Lease) -> bool:
        """Whether a lease holds nobody off: none, run out, or of a dead holder."""
        return lease.until <= time.time() or not self._lives(lease.holder)

    def watch(self, id: str, lease: Lease, deadline: float) -> None:
        """Sleep until ``lease`` seems to be over, or ``deadline`` (monotonic) is."""
        look = time.monotonic() + LOOK
        while (now := time.monotonic()) < deadline:
            # 1 to 4 ms, so that those who wait do not fall into step.
            time.sleep(min(0.001 + os.urandom(1)[0] / 85_000, deadline - now))
            if lease.until <= time.time():
                return
            # Read without the lock: a text that is being written looks like a change.
            if (
                _parse(read_file(self._path(id))).get(id, _nobodys({})).token
                != lease.token
            ):
                return
            if now >= look:
                if not self._lives(lease.holder):
                    return
                look = now + LOOK

    def holder(self) -> str:
        """The name of this process's holder, which is made when it is first needed."""
        pid = os.getpid()
        if pid not in self._ours:
            name = token_hex(16)
            lock = FileLock(
                f"{self._holders}/{name}",
                mode=0o600,
                thread_local=False,
                is_singleton=False,
            )
            lock.acquire()
            if self._ours.setdefault(pid, (name, lock))[1] is not lock:
                lock.release()  # another thread was first
        return self._ours[pid][0]

    def sweep(self) -> None:
        """Remove the files of dead holders."""
        for holder in os.listdir(self._holders):
            self._lives(holder)

    def _lives(self, holder: str) -> bool:
        """Whether a holder lives; a dead one's file goes, for no name comes twice."""
        if holder == self._ours.get(os.getpid(), ("",))[0]:
            return True
        path = f"{self._holders}/{holder}"
        try:
            fd = open_file(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            if not lock_descriptor(fd, blocking=False):
                return True
            with suppress(FileNotFoundError):
                os.unlink(path)
            unlock_descriptor(fd)
            return False
        finally:
            os.close(fd)

    def _path(self, id: str) -> str:
        return f"{self._locks}/{id[:3]}"


def _nobodys(waiters: dict[str, float]) -> Lease:
    return Lease("", 0.0, "", waiters)


def _parse(content: bytes) -> dict[str, Lease]:
    if not content:
        return {}
    try:
        return {id: Lease(*each) for id, each in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError):
        return {}
