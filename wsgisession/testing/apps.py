"""For the tests of an application: a visitor who is logged in already, a look into the
session behind an answer, and a clock that is moved by hand.

It knows managers, and the test clients of frameworks by what they look like.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from .._access import access_of
from ..manager import SessionManager
from ..session import Session

__all__ = ["ClientCookie", "Clock", "client_cookie", "clock", "session_of"]


class ClientCookie(NamedTuple):
    """What a test client is to send: ``client.set_cookie(*cookie)``."""

    name: str
    value: str

    @property
    def header(self) -> str:
        """The same as the value of a ``Cookie`` header."""
        return f"{self.name}={self.value}"


class Clock:
    """Time that passes when it is told to, for ``SessionManager(..., clock=clock)`` and
    ``from_config(..., clock=clock)``.

    It moves the clocks of sessions.  What a store itself forgets by time goes by the
    clock of the store.
    """

    def __init__(self) -> None:
        self.now: float = time.time()

    def __call__(self) -> float:
        """Epoch seconds."""
        return self.now

    def pass_by(self, seconds: float) -> None:
        """Let seconds pass."""
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    """A clock for one test; import it into a ``conftest.py``."""
    return Clock()


def client_cookie(
    manager: SessionManager, *, user: str | int | None = None, **values: Any
) -> ClientCookie:
    """The cookie of a visitor with a session of these values, logged in as ``user``."""
    session = manager.create()
    session.update(values)
    if user is not None:
        session.login(user)
    session.save()
    return ClientCookie(manager.options.cookie_name, str(manager.token_of(session)))


@contextmanager
def session_of(manager: SessionManager, source: object) -> Iterator[Session]:
    """The session of a client, to look at and to change; saved at the end of the block.

    :param source: an answer that set the cookie, the client itself (of WebTest, Werkzeug,
        Django), a ``ClientCookie``, or the text of a ``Cookie`` or ``Set-Cookie`` header.

    Raises ``LookupError`` where it has no cookie of ours, or one that leads nowhere.  A
    session that is held in a cookie cannot be changed from here.
    """
    name = manager.options.cookie_name
    header = _cookie_header(source, name)
    if not manager.cookies.values(header):
        raise LookupError(
            f"there is no cookie {name!r} in this {type(source).__name__}; an answer has "
            "one only if it sets it: give the client, or an earlier answer"
        )
    session = manager.open_cookie(header, locking=True)
    access = access_of(session)
    try:
        if session.new:
            raise LookupError(
                f"the cookie {name!r} leads to no session: ended, expired?"
            )
        yield session
        access.commit()
    finally:
        access.close()


def _cookie_header(source: object, name: str) -> str:
    """What a client that holds ``source`` would send."""
    if isinstance(source, ClientCookie):
        return source.header
    if isinstance(source, str):
        return source
    lines = list(_set_cookie_lines(source)) or list(_in_jar(source, name))
    return "; ".join(line.partition(";")[0] for line in lines)


def _set_cookie_lines(answer: object) -> Iterator[str]:
    headers: Any = getattr(answer, "headers", None)
    for method in (
        "getall",
        "getlist",
        "get_all",
    ):  # WebOb, Werkzeug, the email package
        if hasattr(headers, method):
            yield from getattr(headers, method)("Set-Cookie") or ()
            return


def _in_jar(source: object, name: str) -> Iterator[str]:
    """From what keeps cookies: a client, or an answer of Django's."""
    if callable(get := getattr(source, "get_cookie", None)):  # Werkzeug
        if (cookie := get(name)) is not None:
            yield f"{name}={cookie.value}"
        return
    jar = getattr(source, "cookies", None)
    if isinstance(jar, Mapping):
        for key, cookie in jar.items():
            yield f"{key}={getattr(cookie, 'value', cookie)}"
