"""Which sessions a user has: an empty file, a *marker*, for each.

It knows users, ids and folders, and nothing of records: a marker is a hint, and the
code that follows it looks at the record.  Below ``users``, the SHA-256 of the user's
name in two parts, and in that folder the ids.  A name must not be a path, and need not be
readable.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress

from ._disk import Disk, is_stale
from ._format import ID


class Users:
    """The markers below a folder; who writes one has the stripe of its id."""

    __slots__ = ("_disk", "_folder")

    def __init__(self, folder: str, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk

    def ids(self, user: str) -> list[str]:
        """The ids that may be sessions of a user."""
        return self._list(self._path(user))

    def add(self, user: str, id: str) -> None:
        """Mark a session as the user's, or make its marker young again."""
        self._disk.mark(f"{self._path(user)}/{id}")

    def remove(self, user: str, id: str) -> None:
        """Take the marker of a session away, and the folder with the last one."""
        self._remove(self._path(user), id)

    def stale(self, shard: str) -> Iterator[tuple[str, str]]:
        """Markers made long ago, as the folder and the id; ``shard`` is two digits."""
        for name in self._list_folders(f"{self._folder}/{shard}"):
            folder = f"{self._folder}/{shard}/{name}"
            for id in self._list(folder):
                with suppress(FileNotFoundError):
                    if is_stale(f"{folder}/{id}"):
                        yield folder, id
            with suppress(OSError):  # a crash may have left it empty; else it stays
                os.rmdir(folder)

    def is_of(self, folder: str, user: str | None) -> bool:
        """Whether a folder that ``stale`` gave is the user's."""
        return user is not None and self._path(user) == folder

    def remove_stale(self, folder: str, id: str) -> None:
        """Take a marker away that ``stale`` gave, unless it is young again."""
        with suppress(FileNotFoundError):
            if is_stale(f"{folder}/{id}"):
                self._remove(folder, id)

    def _path(self, user: str) -> str:
        name = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._folder}/{name[:2]}/{name[2:]}"

    def _remove(self, folder: str, id: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(f"{folder}/{id}")
        with suppress(OSError):  # not the last one
            os.rmdir(folder)

    def _list(self, folder: str) -> list[str]:
        return [name for name in self._list_folders(folder) if ID.fullmatch(name)]

    def _list_folders(self, folder: str) -> list[str]:
        try:
            return os.listdir(folder)
        except FileNotFoundError:
            self._disk.check()
            return []
