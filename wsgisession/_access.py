"""The way from a session to what is behind it, for the code that answers requests."""

from __future__ import annotations

from ._core.access import Access
from .session import Session


def access_of(session: Session) -> Access:
    """What is behind a session; an application has no use for it."""
    return session._access
