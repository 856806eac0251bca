"""What differs between the editions of the library, and nothing else.

The oracles come from the design and hold for both; how a thing is called is told here.
Importing this module imports whatever ``wsgisession`` comes first on ``sys.path``.
"""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import wsgisession
from wsgisession import Key, Options, SessionManager, SessionMiddleware, errors
from wsgisession.stores.memory import MemoryStore

IS_FIRST = not hasattr(errors, "VersionConflict")
"""Told by the name of an error; the first edition has ``Conflict``."""

COOKIE = "session" if IS_FIRST else "sid"
CLEAR_ENDS = not IS_FIRST
"""Whether ``clear()`` is ``flush()``."""

ConfigurationError = errors.ConfigurationError
StoreError = errors.StoreError
LockTimeout = errors.LockTimeout
SessionConflict = errors.SessionConflict
SessionClosed = errors.SessionClosed
VersionConflict = errors.Conflict if IS_FIRST else errors.VersionConflict

_KNOWN = {field.name for field in dataclasses.fields(Options)}

__all__ = ["Key", "MemoryStore", "SessionManager", "SessionMiddleware", "wsgisession"]


def options(settings: Mapping[str, Any]) -> Options:
    """Options of what this edition knows; a missing one has its only behaviour there."""
    return Options(**{k: v for k, v in settings.items() if k in _KNOWN})


def telling(ended: Callable[[Any], None]) -> dict[str, Any]:
    """The option by which a request is told that its session had ended."""
    if IS_FIRST:
        return {"on_ended": ended}
    from wsgisession.events import Dropped

    return {"on_event": lambda event: isinstance(event, Dropped) and ended(event)}


def no_replay(session: Any) -> None:
    if IS_FIRST:
        session.replay = False
    else:
        session.no_replay()


def has_ended(session: Any) -> bool:
    """Whether the session knows that another request has ended it."""
    return bool(getattr(session, "ended", False))


def forged(token: str) -> str:
    """A token for the same id with a secret that nobody issued."""
    if IS_FIRST:
        return base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
    octets = base64.urlsafe_b64decode(token)
    return base64.urlsafe_b64encode(octets[:16] + os.urandom(32)).decode()
