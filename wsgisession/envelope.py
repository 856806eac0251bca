"""The bytes of a record: a line about the session, then the values of the application.

Keeping the two apart is why no key of ours ever stands among the user's.  This file knows
neither stores nor sessions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from .errors import SerializationError, SessionError, SessionTooLarge
from .expiry import Expiry
from .serializers import Serializer


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a session knows of itself beside its values."""

    expiry: Expiry = field(default_factory=Expiry)
    login: Mapping[str, Any] = field(default_factory=dict)
    """What ``login()`` was told of the client: device, address, ..."""
    rotated: float | None = None
    """When the token was last changed, in epoch seconds."""
    test_cookie: bool = False

    def onto(self, theirs: About, base: About) -> About:
        """Theirs, with what was changed here since ``base`` put over it."""
        ours = {f.name: getattr(self, f.name) for f in fields(self)}
        changed = {k: v for k, v in ours.items() if v != getattr(base, k)}
        return replace(theirs, **changed)


_NOTHING = About()


class Envelope:
    """Puts values and what is known about them into bytes, and takes them out again.

    :param serializer: turns the values into bytes or text.
    :param max_size: octets that the whole may take.
    """

    def __init__(self, serializer: Serializer, max_size: int) -> None:
        self._serializer = serializer
        self._max_size = max_size

    def seal(self, about: About, values: dict[str, Any]) -> bytes:
        """The bytes; raises ``SerializationError`` or ``SessionTooLarge``."""
        data = _line(about) + b"\n" + self.encode(values)
        if len(data) > self._max_size:
            raise SessionTooLarge(len(data), self._max_size, self.biggest(values))
        return data

    def biggest(self, values: dict[str, Any]) -> list[str]:
        """The keys whose values take most, at most three, the biggest first."""
        sizes = {key: len(self.encode({key: values[key]})) for key in values}
        return sorted(sizes, key=lambda key: -sizes[key])[:3]

    def open(self, data: bytes) -> tuple[About, dict[str, Any]]:
        """What was sealed; any exception means that the bytes are corrupt."""
        line, _, payload = data.partition(b"\n")
        return _about(line), self._serializer.loads(payload)

    def encode(self, values: dict[str, Any]) -> bytes:
        """The values alone, as bytes that can be compared."""
        try:
            payload = self._serializer.dumps(values)
        except SessionError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise SerializationError(self._culprit(values), reason) from error
        return payload.encode() if isinstance(payload, str) else payload

    def _culprit(self, values: dict[str, Any]) -> str:
        """The key that a serializer of the caller's stumbled over, if one alone does."""
        for key in values:
            try:
                self._serializer.dumps({key: values[key]})
            except Exception:
                return key
        return ""


def _line(about: About) -> bytes:
    if about == _NOTHING:
        return b"{}"
    line: dict[str, Any] = {}
    if about.expiry != _NOTHING.expiry:
        line["expiry"] = asdict(about.expiry)
    if about.login:
        line["login"] = about.login
    if about.rotated is not None:
        line["rotated"] = about.rotated
    if about.test_cookie:
        line["test_cookie"] = True
    return json.dumps(line, separators=(",", ":")).encode()


def _about(line: bytes) -> About:
    if line == b"{}":
        return _NOTHING
    found = json.loads(line)
    return About(
        expiry=Expiry(**found.get("expiry", {})),
        login=found.get("login", {}),
        rotated=found.get("rotated"),
        test_cookie=found.get("test_cookie", False),
    )
