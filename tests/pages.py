"""Pages of a small shop, and what the tests of them share."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from wsgisession import Options, Session, SessionManager
from wsgisession.stores.memory import MemoryStore

from .conftest import Clock
from .tabs import Answer, Site

DAY = 86400.0
GRACE = 300.0
"""The default of ``rotate_grace``."""


def increment(session: Session) -> int:
    session["n"] = session.get("n", 0) + 1
    return int(session["n"])


def tutorial(session: Session) -> None:
    """The login of Flask's tutorial, as printed."""
    session.clear()
    session["user_id"] = 1


PAGES: dict[str, Any] = {
    "fill": lambda s: s.update(cart=["book"]),
    "cart": lambda s: s.get("cart"),
    "increment": increment,
    "read": lambda s: s.get("n"),
    "user": lambda s: s.user,
    "ann": lambda s: s.login("ann"),
    "bob": lambda s: s.login("bob"),
    "rotate": lambda s: s.rotate(),
    "regenerate": lambda s: s.regenerate(),
    "logout": lambda s: s.logout(),
    "clear": lambda s: s.clear(),
    "tutorial": tutorial,
    "user_id": lambda s: s.get("user_id"),
    "expiry": lambda s: s.set_expiry(600),
}


def shop(store: Any = None, clock: Clock | None = None, **options: Any) -> Site:
    manager = SessionManager(store or MemoryStore(), Options(**options), clock=clock)
    return Site(manager, **PAGES)


def ids(site: Site) -> list[str]:
    return [session.id for session in site.manager.sessions()]


def set_cookies(answer: Answer) -> list[str]:
    return [value for name, value in answer.headers if name == "Set-Cookie"]


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]
