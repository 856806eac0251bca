"""Which folder is fit to hold sessions: one that is ours alone, on a local disk.

It knows owners, modes and mounts, and nothing of what is kept in the folder.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import warnings
from collections.abc import Collection
from contextlib import suppress

from ...errors import ConfigurationError

log = logging.getLogger("wsgisession")

_SYSTEM = frozenset(
    "/bin /boot /dev /dev/shm /etc /home /lib /lib64 /media /mnt /opt /proc /root /run"
    " /sbin /srv /sys /tmp /usr /usr/bin /usr/lib /usr/local /usr/sbin /usr/share /var"
    " /var/cache /var/lib /var/log /var/run /var/spool /var/tmp /var/www".split()
)
_REMOTE = re.compile(
    r"(fuse\.)?(nfs\d?|cifs|smb\d?|smbfs|sshfs|9p|afs|ceph|ceph-fuse|glusterfs|lustre"
    r"|beegfs|s3fs|rclone|gcsfuse|davfs2?)"
)


def claim(folder: str, ours: Collection[str]) -> None:
    """Make the folder if it is missing; ``ConfigurationError`` unless it is ours alone.

    ``ours`` are the names that a store may have left in it before.
    """
    if os.name != "posix":
        raise ConfigurationError("the file store needs a POSIX system")
    if folder in _SYSTEM or os.path.dirname(folder) == folder:
        raise ConfigurationError(
            f"data_dir={folder!r} is a folder of the system; give one for the sessions "
            "alone, such as /var/lib/app/sessions"
        )
    try:
        if not os.path.lexists(folder):
            with suppress(FileExistsError):  # made by another process just now
                os.makedirs(folder, 0o700)
        found = os.lstat(folder)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"data_dir={folder!r} cannot be made ({reason}); "
            "give a folder that this process may write to"
        ) from error
    if fault := _fault(found, folder, ours):
        raise ConfigurationError(f"data_dir={folder!r} {fault}")
    if mode := stat.S_IMODE(found.st_mode) & 0o077:
        _close(folder, found, mode)


def _close(folder: str, found: os.stat_result, mode: int) -> None:
    """Take from others what a mount, or a umask, has given them: a session is a login."""
    try:
        os.chmod(folder, 0o700)
    except OSError as error:
        raise ConfigurationError(
            f"data_dir={folder!r} is open to other users (mode "
            f"{stat.S_IMODE(found.st_mode):04o}) and cannot be closed "
            f"({error.strerror}); give a folder that is ours alone"
        ) from error
    log.warning(
        "data_dir=%r was open to other users (mode %04o); it was closed (0700)",
        folder,
        stat.S_IMODE(found.st_mode),
    )


def _fault(found: os.stat_result, folder: str, ours: Collection[str]) -> str | None:
    """What speaks against a folder; that it is open does not, if it is ours to close."""
    if stat.S_ISLNK(found.st_mode):
        return "is a symbolic link; give the folder that it leads to"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a folder; give one, or a name that is still free"
    if found.st_uid != os.geteuid():
        return (
            f"belongs to the user with number {found.st_uid}, but this process runs as "
            f"{os.geteuid()}; give the name of a new folder inside it, such as "
            f"{folder}/sessions"
        )
    mode = stat.S_IMODE(found.st_mode)
    # A folder that holds anything else is in use, and closing it would break that use.
    if mode & 0o077 and (
        mode & stat.S_ISVTX or not set(os.listdir(folder)).issubset(ours)
    ):
        return (
            f"is open to other users (mode {mode:04o}) and not for the sessions alone; "
            f"give the name of a new folder inside it, such as {folder}/sessions"
        )
    return None


def warn_if_remote(folder: str) -> None:
    """Warn the caller's caller of a file system whose locks hold on one host only."""
    kind = kind_of(folder)
    if kind is not None and is_remote(kind):
        warnings.warn(
            f"data_dir={folder!r} is on a network file system ({kind}): locks do not "
            "exclude across its clients, so let one host alone use it",
            stacklevel=3,
        )


def is_remote(kind: str) -> bool:
    """Whether locks of a type of file system hold on one host only."""
    return _REMOTE.fullmatch(kind) is not None


def kind_of(folder: str) -> str | None:
    """The type of the file system of a folder; None where the system does not tell."""
    try:
        with open("/proc/self/mountinfo", errors="surrogateescape") as mounts:
            return file_system(os.path.realpath(folder), mounts.read())
    except OSError:
        return None


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
