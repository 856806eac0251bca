"""A folder that is ours alone, and files in it that are whole or not there at all.

It knows the disk and its dangers: links planted in the way, disks that fill up, folders
that others can read.  It knows neither records nor locks.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex

from ..errors import ConfigurationError, StoreError

DRAFT = ".tmp"  # how the name of a file ends that is still being written
REMOTE = re.compile(
    r"(fuse\.)?(nfs\d?|cifs|smb\d?|smbfs|sshfs|9p|afs|ceph|ceph-fuse|glusterfs|lustre"
    r"|beegfs|s3fs|rclone|gcsfuse|davfs2?)"
)

_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def failing() -> Iterator[None]:
    """What fails in here is the storage."""
    try:
        yield
    except OSError as error:
        raise broken(error) from error


def broken(error: OSError) -> StoreError:
    reason = error.strerror or type(error).__name__
    return StoreError(f"the file store failed: {reason}")


def open_file(path: str, flags: int) -> int:
    """A descriptor of our own file, never of what a link leads to."""
    return os.open(path, flags | _FLAGS, 0o600)


def create(path: str, *, fsync: bool) -> int:
    """A new file, with the two folders above it where they are missing."""
    while True:
        try:
            return open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileNotFoundError:  # or somebody has just removed the empty folder
            folder = os.path.dirname(path)
            for each in (os.path.dirname(folder), folder):
                make_folder(each)
                if fsync:
                    fsync_folder(os.path.dirname(each))


def make_folder(path: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)


def read(fd: int) -> bytes:
    """The rest of a file."""
    chunks = []
    while chunk := os.read(fd, 65536):
        chunks.append(chunk)
    return b"".join(chunks)


def read_file(path: str) -> bytes:
    fd = open_file(path, os.O_RDONLY)
    try:
        return read(fd)
    finally:
        os.close(fd)


def write(fd: int, content: bytes) -> None:
    """All of ``content``: a disk that fills up makes ``os.write`` go short first."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def replace_file(path: str, content: bytes, *, fsync: bool) -> None:
    """Put a new file in the place of the old one, in one step for every reader."""
    draft = f"{path}.{token_hex(8)}{DRAFT}"
    fd = create(draft, fsync=fsync)
    try:
        try:
            write(fd, content)
            if fsync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise
    if fsync:
        fsync_folder(os.path.dirname(path))


def fsync_folder(path: str) -> None:
    """Make the names in a folder durable, where the system lets one open a folder."""
    if os.name == "posix":
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def claim(folder: str) -> None:
    """Make the folder if it is missing, and refuse it unless it is ours alone."""
    try:
        with suppress(FileExistsError):
            os.makedirs(folder, 0o700)
        found = os.lstat(folder)
    except OSError as error:
        raise ConfigurationError(
            f"data_dir={folder!r} cannot be made ({error.strerror}); "
            "give a folder that this process may write to."
        ) from error
    mode = stat.S_IMODE(found.st_mode)
    posix = hasattr(os, "geteuid")
    if stat.S_ISLNK(found.st_mode):
        fault = "is a symbolic link; give the folder that it leads to."
    elif not stat.S_ISDIR(found.st_mode):
        fault = "is not a folder; give one, or a name that is still free."
    elif posix and found.st_uid != os.geteuid():
        fault = (
            f"belongs to the user with number {found.st_uid}, but this process runs as "
            f"{os.geteuid()}; give a folder of its own."
        )
    elif posix and mode & 0o077:
        fault = f"is open to others (mode {mode:04o}); close it with chmod 700."
    else:
        return
    raise ConfigurationError(f"data_dir={folder!r} {fault}")


def warn_if_remote(folder: str) -> None:
    try:
        with open("/proc/self/mountinfo", errors="surrogateescape") as mounts:
            kind = file_system(os.path.realpath(folder), mounts.read())
    except OSError:  # this system does not tell
        return
    if REMOTE.fullmatch(kind):
        warnings.warn(
            f"data_dir={folder!r} is on a network file system ({kind}): locks do not "
            "exclude across its clients, so let one host alone use it.",
            stacklevel=3,
        )


def file_system(path: str, mountinfo: str) -> str:
    """The type of the file system that a path is on, by a text as Linux gives it."""
    longest, kind = "", ""
    for line in mountinfo.splitlines():
        fields, _, source = line.partition(" - ")
        point = re.sub(
            r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields.split(" ")[4]
        )
        inside = f"{path}/".startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(longest):  # a later mount hides an earlier one
            longest, kind = point, source.split(" ")[0]
    return kind
