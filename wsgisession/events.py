"""What happens to sessions, for the option ``on_event``: small facts, told at once.

This file knows nothing else.  No event carries a token or a value of a session; ``id`` is
safe to log.  Times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = [
    "Conflicted",
    "Created",
    "Dropped",
    "Ended",
    "Event",
    "Expired",
    "Loaded",
    "Merged",
    "Reason",
    "Refused",
    "Replayed",
    "Saved",
    "StoreFailed",
    "TokenReused",
    "Waited",
]

Reason: TypeAlias = Literal[
    "malformed", "bad signature", "unknown", "ended", "wrong secret"
]
"""Why a cookie leads nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A session was stored for the first time, or begun anew after its end."""

    id: str
    user: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A session was loaded, without a lock; ``seconds`` is what the store took."""

    id: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """A session was locked and loaded, after ``seconds`` in the store and its queue."""

    id: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A session was saved; ``octets`` is the length of its data.

    ``seconds`` is what the store took.
    """

    id: str
    octets: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """Another request had saved before: the changes of this one were put on top."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A request is run again, because another one changed ``keys`` that it had read."""

    id: str
    keys: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflicted:
    """Another request changed ``keys`` that this one had read, and it could be neither
    locked nor run again: ``on_conflict`` decides.
    """

    id: str
    keys: tuple[str, ...]
    overwritten: tuple[str, ...]
    """Those that the other request changed and this one writes, if it is not stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A session was ended: by ``flush()``, ``logout()``, ``end()`` or ``end_user()``."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A request came too late: its session had ended, and its changes were dropped."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """A session was over when it was looked at, by one of its two clocks."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReused:
    """A token was presented that a rotation had replaced long ago: perhaps a stolen copy
    (RFC 9700 4.14.2).  Who ends the session then (``manager.end(event.id)``) also ends it
    for users whose uploads outlast ``rotate_grace``.
    """

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A cookie leads nowhere; ``id`` is None where it names no session."""

    id: str | None
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFailed:
    """The store failed; ``consequence`` says what that meant for the request."""

    error: Exception
    consequence: str


Event: TypeAlias = (
    Created
    | Loaded
    | Waited
    | Saved
    | Merged
    | Replayed
    | Conflicted
    | Ended
    | Dropped
    | Expired
    | TokenReused
    | Refused
    | StoreFailed
)
"""Whatever ``on_event`` may be called with; later versions add to it."""
