"""Files that are whole or not there at all, and names that a power cut leaves in place.

It knows the disk and its dangers: links planted in the way, disks that fill up, jobs
that sweep old files, a disk that is gone.  It knows neither records nor locks.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from secrets import token_hex

from ...errors import StoreError

DRAFT = ".tmp"
"""How the name of a file ends that is still being written."""
STALE = 3600.0
"""Seconds after which what a crash left behind may go."""

_CHUNK = 65536
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_FLAGS = getattr(os, "O_NOFOLLOW", 0)


def open_file(path: str, flags: int) -> int:
    """A descriptor of our own file, never of what a link leads to."""
    return os.open(path, flags | _FLAGS, 0o600)


def read(fd: int) -> bytes:
    """The rest of a file: on a local disk a short read is the last one."""
    content = os.read(fd, _CHUNK)
    if len(content) < _CHUNK:
        return content
    chunks = [content]
    while chunk := os.read(fd, _CHUNK * 16):
        chunks.append(chunk)
    return b"".join(chunks)


def read_file(path: str) -> bytes:
    """All of a file."""
    fd = open_file(path, os.O_RDONLY)
    try:
        return read(fd)
    finally:
        os.close(fd)


def read_start(path: str, octets: int) -> bytes:
    """The first octets of a file."""
    fd = open_file(path, os.O_RDONLY)
    try:
        return os.read(fd, octets)
    finally:
        os.close(fd)


def overwrite(fd: int, content: bytes) -> None:
    """Write from the start of a file: a disk that fills up makes writes go short."""
    done = os.pwrite(fd, content, 0)
    while done < len(content):
        done += os.pwrite(fd, content[done:], done)


def is_stale(path: str) -> bool:
    """Whether a file was last written long ago."""
    return os.lstat(path).st_mtime < time.time() - STALE


class Disk:
    """Writes below one folder, and waits for the disk or does not.

    :param folder: all that is written is below it.
    :param root: a folder that is always there; without it the disk is gone.
    :param durable: whether what was written or removed must survive a power cut.
    """

    __slots__ = ("_durable", "_folder", "_root")

    def __init__(self, folder: str, root: str, *, durable: bool) -> None:
        self._folder = folder
        self._root = root
        self._durable = durable

    def broken(self, error: OSError) -> StoreError:
        """What an error of the system is to the callers of a store."""
        reason = error.strerror or type(error).__name__
        return StoreError(f"the file store in {self._folder} failed: {reason}")

    def check(self) -> None:
        """FileNotFoundError if the disk is gone: that is an outage and no logout."""
        os.lstat(self._root)

    def create(self, path: str, flags: int) -> int:
        """Open a file that may be new, and make the folders above that are missing.

        A job that sweeps old files may have taken them.
        """
        while True:
            try:
                return open_file(path, flags | os.O_CREAT)
            except FileNotFoundError:
                self.check()
                self.make_folder(os.path.dirname(path))

    def make_folders(self, parent: str, names: Iterable[str]) -> None:
        """Make the folders of these names that are missing below another one."""
        missing = set(names).difference(os.listdir(parent))
        for name in missing:
            with suppress(FileExistsError):
                os.mkdir(f"{parent}/{name}", 0o700)
        if missing:
            self._sync_folder(parent)

    def make_folder(self, path: str) -> None:
        """Make a folder, and those above it, where they are missing."""
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            return
        except FileNotFoundError:
            self.make_folder(os.path.dirname(path))
            self.make_folder(path)
            return
        self._sync_folder(os.path.dirname(path))

    def insert(self, path: str, content: bytes) -> bool:
        """Put a new file in a place that is free, in one step; False if it is not."""
        draft = self._write_draft(path, content)
        try:
            inserted = _link(draft, path)
        finally:
            with suppress(OSError):  # what is left of it a sweep removes
                os.unlink(draft)
        if inserted:
            self._sync_folder(os.path.dirname(path))
        return inserted

    def replace(self, path: str, content: bytes) -> None:
        """Put a new file in the place of an old one, in one step for every reader."""
        draft = self._write_draft(path, content)
        try:
            os.replace(draft, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(draft)
            raise
        self._sync_folder(os.path.dirname(path))

    def mark(self, path: str) -> None:
        """An empty file, whose time is now."""
        os.close(self.create(path, os.O_WRONLY | os.O_TRUNC))
        self._sync_folder(os.path.dirname(path))

    def remove(self, path: str) -> None:
        """Take a file away, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(path)
        self._sync_folder(os.path.dirname(path))

    def _write_draft(self, path: str, content: bytes) -> str:
        draft = f"{path}.{token_hex(8)}{DRAFT}"
        fd = self.create(draft, os.O_WRONLY | os.O_EXCL)
        try:
            try:
                overwrite(fd, content)
                if self._durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
        except BaseException:
            with suppress(OSError):
                os.unlink(draft)
            raise
        return draft

    def _sync_folder(self, path: str) -> None:
        """Make the names in a folder durable."""
        if not self._durable:
            return
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _link(draft: str, path: str) -> bool:
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _reserve(draft, path)
    return True


def _reserve(draft: str, path: str) -> bool:
    """The same where the file system has no hard links.

    The name is taken by an empty file first, which a reader takes for no record.
    """
    try:
        os.close(open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    try:
        os.replace(draft, path)
    except BaseException:
        os.unlink(path)
        raise
    return True
