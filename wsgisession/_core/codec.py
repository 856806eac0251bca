"""The bytes of a record: a line about the session, then the values of the application.

Keeping the two apart is why no key of ours ever stands among the user's.  This file knows
neither stores nor requests.
"""

from __future__ import annotations

import json
from typing import Any

from .._made import made
from ..errors import SerializationError, SessionError, SessionTooLarge, StoreError
from ..record import Record
from ..serializers import Serializer
from .expiry import DEFAULT, NOTHING, Expiry, Meta

MAJOR = b"1"
"""The format.  A field that is unknown here belongs to a newer minor format and is passed
over; a newer major format must not be touched by this version."""

_NOTHING_SAID = MAJOR + b"\n"


class Codec:
    """Puts values and what is known about them into bytes, and takes them out again.

    :param serializer: turns the values into bytes or text.
    :param max_size: octets that the whole may take.
    """

    __slots__ = ("_max_size", "_serializer")

    def __init__(self, serializer: Serializer, max_size: int) -> None:
        self._serializer = serializer
        self._max_size = max_size

    def encode(self, meta: Meta, values: dict[str, Any]) -> bytes:
        """The bytes; raises ``SerializationError`` or ``SessionTooLarge``."""
        data = _line(meta) + b"\n" + self.encode_values(values)
        if len(data) > self._max_size:
            raise SessionTooLarge(len(data), self._max_size, self.biggest(values))
        return data

    def meta(self, record: Record) -> Meta:
        """What a record says of its session; ValueError and others if it is corrupt."""
        if record.data.startswith(_NOTHING_SAID):
            about = record.created, record.accessed, record.user
            return made(Meta, (*about, DEFAULT, NOTHING, False, None))
        line = record.data.partition(b"\n")[0]
        major, brace, rest = line.partition(b"{")
        if major != MAJOR and major.isdigit():
            raise StoreError(
                f"session {record.id[:8]} was written by a newer version of this "
                "library, in a format that this version does not know"
            )
        if major != MAJOR:
            raise ValueError("the record has no line about its session")
        said = json.loads(brace + rest)
        return Meta(
            record.created,
            record.accessed,
            record.user,
            Expiry(*said["expiry"]) if "expiry" in said else DEFAULT,
            said.get("login", NOTHING),
            said.get("test_cookie", False),
            said.get("sent"),
        )

    def values(self, data: bytes) -> dict[str, Any]:
        """The values in the data of a record; any exception means that it is corrupt."""
        return self._serializer.loads(data[data.index(b"\n") + 1 :])

    def encode_values(self, values: dict[str, Any]) -> bytes:
        """The values alone, as bytes that can be compared."""
        try:
            payload = self._serializer.dumps(values)
        except SessionError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise SerializationError(self._culprit(values), reason) from error
        return payload.encode() if isinstance(payload, str) else payload

    def encode_value(self, value: Any) -> bytes:
        """One value, as bytes that can be compared."""
        return self.encode_values({"value": value})

    def decode_value(self, octets: bytes) -> Any:
        """What ``encode_value`` was given, as a new object."""
        return self._serializer.loads(octets)["value"]

    def biggest(self, values: dict[str, Any]) -> list[str]:
        """The keys whose values take most, at most three, the biggest first."""
        sizes = {key: len(self.encode_value(values[key])) for key in values}
        return sorted(sizes, key=lambda key: -sizes[key])[:3]

    def _culprit(self, values: dict[str, Any]) -> str:
        """The key that a serializer of the caller's cannot write, if it is one alone."""
        for key in values:
            try:
                self._serializer.dumps({key: values[key]})
            except Exception:
                return key
        return ""


def _line(meta: Meta) -> bytes:
    if meta[3:] == _PLAIN:
        return MAJOR
    line: dict[str, Any] = {}
    if meta.expiry != DEFAULT:
        line["expiry"] = meta.expiry
    if meta.login:
        line["login"] = dict(meta.login)
    if meta.test_cookie:
        line["test_cookie"] = True
    if meta.sent is not None:
        line["sent"] = meta.sent
    return MAJOR + json.dumps(line, separators=(",", ":")).encode()


_PLAIN = Meta(0.0, 0.0)[3:]
