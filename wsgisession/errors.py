"""Everything that can go wrong, by name.

This file knows no other file.  An error carries its facts as attributes, so that a
handler need not parse a message; none ever carries a token, a secret or session data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

__all__ = [
    "ConfigurationError",
    "LockTimeout",
    "SerializationError",
    "SessionClosed",
    "SessionConflict",
    "SessionEnded",
    "SessionError",
    "SessionReadOnly",
    "SessionTooLarge",
    "StoreError",
    "TooManySessions",
    "VersionConflict",
]

if TYPE_CHECKING:
    from .record import Record


class SessionError(Exception):
    """Whatever this library raises on purpose."""


class ConfigurationError(SessionError, ValueError):
    """An option, or a combination of options, that cannot work.

    Raised while the middleware, manager or store is constructed, never at a request.
    """


class StoreError(SessionError):
    """The storage is broken or out of reach; the cause is chained.

    It says nothing about the session: an outage is not a logout.
    """


class VersionConflict(SessionError):
    """The stored version is not the expected one, or a live lease is not ours.

    Raised by stores.  ``record`` is what is stored now, None if there is nothing.
    """

    def __init__(self, id: str, record: Record | None) -> None:
        super().__init__(
            f"session {id[:8]} was changed, ended or locked by another request"
        )
        self.id = id
        self.record = record


class LockTimeout(SessionError):
    """The lock of a session could not be had.

    ``waited`` is in seconds; ``waiters`` is how many requests were waiting already where
    that was the reason, else None.  ``held_by`` is the method and path of the request
    that holds it and ``held_for`` its seconds, where the store knows them, else None.
    """

    def __init__(
        self,
        id: str,
        waited: float,
        waiters: int | None = None,
        *,
        held_by: str | None = None,
        held_for: float | None = None,
    ) -> None:
        reason = (
            f"after {waited:.1f} s"
            if waiters is None
            else f"because {waiters} requests wait for it already"
        )
        if held_for is not None:
            reason += (
                f"; {held_by or 'another request'} has held it for {held_for:.1f} s"
            )
        super().__init__(
            f"gave up on the lock of session {id[:8]} {reason}; a request that is slow, "
            "or calls its own application with the same cookie, should call "
            "session.unlock() first; requests that only read can be exempted by the "
            "option locking, given as a callable"
        )
        self.id = id
        self.waited = waited
        self.waiters = waiters
        self.held_by = held_by
        self.held_for = held_for


class SessionConflict(SessionError):
    """Another request changed what this request had read, and no loss is accepted.

    Raised where ``on_conflict="raise"``; ``keys`` are the keys in question.
    """

    def __init__(self, id: str, keys: Iterable[str]) -> None:
        self.id = id
        self.keys: tuple[str, ...] = tuple(sorted(keys))
        super().__init__(
            f"session {id[:8]}: {', '.join(self.keys)} changed while in use here"
        )


class SessionEnded(SessionError):
    """The session was ended, regenerated or expired while this request used it.

    It goes to the hooks and the log, never to the client: what the request wrote is
    dropped, because a save must not undo a logout.
    """

    def __init__(self, id: str) -> None:
        super().__init__(f"session {id[:8]} ended while a request was using it")
        self.id = id


class TooManySessions(SessionError):
    """The user has as many sessions as ``max_sessions_per_user`` allows.

    Raised by ``login()`` where ``at_session_limit="refuse"``.
    """

    def __init__(self, user: str, limit: int) -> None:
        super().__init__(f"user {user!r} has {limit} sessions already; end one of them")
        self.user = user
        self.limit = limit


class SessionClosed(SessionError):
    """The request is over, or its headers have left and a cookie would be needed."""


class SessionReadOnly(SessionError):
    """A request that was declared to only read its session wanted to change it.

    ``verb`` is what it called, such as ``"login()"``.
    """

    def __init__(self, verb: str) -> None:
        super().__init__(
            f"this request was declared to only read its session, so {verb} is refused; "
            "take @read_only from its view (or wsgisession.read_only from the environ)"
        )
        self.verb = verb


class SessionTooLarge(SessionError):
    """The encoded session exceeds what may be stored.

    ``size`` and ``limit`` are octets; ``keys`` are the biggest keys, biggest first.
    """

    def __init__(self, size: int, limit: int, keys: Iterable[str]) -> None:
        self.size = size
        self.limit = limit
        self.keys: tuple[str, ...] = tuple(keys)
        super().__init__(
            f"the session takes {size} octets, at most {limit} are allowed; "
            f"its biggest keys: {', '.join(self.keys)}"
        )


class SerializationError(SessionError, TypeError):
    """A value cannot be stored so that it is read back as it was.

    ``path`` leads to it, as in ``cart[0]['price']``.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path or 'the session'} cannot be stored: {reason}")
        self.path = path
        self.reason = reason
