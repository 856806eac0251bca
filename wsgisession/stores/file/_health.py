"""What to know of a folder that keeps sessions: its file system, and the room on it.

It knows paths and the system, and nothing of what is in the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..._health import Finding, Level
from ._folder import is_remote, kind_of

IN_MEMORY = ("tmpfs", "ramfs")
ROOM = 0.05
"""The share of a file system that should be free."""


def examine(folder: str) -> Iterator[Finding]:
    """All findings."""
    yield _file_system(folder)
    found = os.statvfs(folder)
    yield _room("space", found.f_bavail, found.f_blocks, found.f_frsize)
    if found.f_files:  # some have no limit
        yield _room("inodes", found.f_favail, found.f_files, 0)


def _file_system(folder: str) -> Finding:
    kind = kind_of(folder)
    if kind is None:
        return Finding(Level.OK, "file system", f"{folder}; the system tells no more")
    if is_remote(kind):
        said = (
            f"{folder} is on a network file system ({kind}), whose locks are not sure"
        )
        advice = "use a local disk for one host; Redis or a database for several"
        return Finding(Level.ERROR, "file system", said, advice)
    if kind in IN_MEMORY:
        said = f"{folder} is in memory ({kind}): a reboot logs everybody out"
        return Finding(Level.WARNING, "file system", said, "use a folder on a disk")
    return Finding(Level.OK, "file system", f"{folder} is on {kind}")


def _room(subject: str, free: int, total: int, octets: int) -> Finding:
    share = free / total if total else 1.0
    said = f"{share:.0%} free"
    if octets:
        said += f" ({free * octets // 2**20} MiB)"
    if share >= ROOM:
        return Finding(Level.OK, subject, said)
    advice = "make room, and run `wsgisession cleanup` once a night"
    return Finding(Level.WARNING if free else Level.ERROR, subject, said, advice)
