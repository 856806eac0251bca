"""A mapping that loads itself and is saved by itself: what sessions and the data of users
have in common.

It knows a working copy, and nothing of where that comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Protocol, TypeVar

from ._core.merge import ABSENT, WorkingCopy

Stored = TypeVar("Stored", bound="StoredMapping")


class Source(Protocol):
    """Where the values come from, at every look and at every change."""

    def reading(self) -> WorkingCopy:
        """The values, for a look."""

    def changing(self) -> WorkingCopy:
        """The values, for a change; raises where it could not be kept."""


class StoredMapping(MutableMapping[str, Any]):
    """Values by string keys.  Changes inside a value are seen as well."""

    __slots__ = ("__weakref__", "_access")

    _access: Source

    def __init__(self, access: Source) -> None:
        self._access = access

    def __getitem__(self, key: str) -> Any:
        value = self._access.reading().get(key)
        if value is ABSENT:
            raise KeyError(key)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        value = self._access.reading().get(key)
        return default if value is ABSENT else value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._access.reading().has(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"session keys are strings, not {type(key).__name__}")
        self._access.changing().set(key, value)

    def __delitem__(self, key: str) -> None:
        self._access.changing().remove(key)

    def __iter__(self) -> Iterator[str]:
        return self._access.reading().keys()

    def __len__(self) -> int:
        copy = self._access.reading()
        copy.keys()
        return len(copy.values)

    def __ior__(self: Stored, other: Any) -> Stored:  # type: ignore[misc]
        self.update(other)
        return self

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return self.copy() | dict(other)

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return dict(other) | self.copy()

    def clear(self) -> None:
        """Take all keys away."""
        self._access.changing().clear()

    def copy(self) -> dict[str, Any]:
        """The values as a plain dict."""
        return dict(self.items())
