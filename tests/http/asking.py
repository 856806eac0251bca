"""Requests as an exchange is given them, and what the tests of it share."""

from __future__ import annotations

from typing import Any
from wsgiref.util import setup_testing_defaults

from wsgisession import Options, Session, SessionManager
from wsgisession._http.exchange import Exchange
from wsgisession.stores.memory import MemoryStore

from ..conftest import stored

PLAIN = [("Content-Type", "text/plain")]
OAUTH = "code=4%2F0AX&state=xyz"
"""The query of an answer by a provider."""


def managed(store: Any = None, **options: Any) -> SessionManager:
    return SessionManager(store or MemoryStore(), Options(**options))


def cookie_with(manager: SessionManager, **values: Any) -> str:
    """The Cookie header of a visitor whose session holds some values."""
    token = manager.token_of(stored(manager, **values))
    return f"{manager.options.cookie_name}={token}"


def asked(
    manager: SessionManager,
    method: str = "GET",
    cookie: str | None = None,
    **environ: Any,
) -> Exchange:
    """What a request of that kind begins."""
    request: dict[str, Any] = {"REQUEST_METHOD": method, "HTTP_HOST": "localhost"}
    request |= environ
    if cookie is not None:
        request["HTTP_COOKIE"] = cookie
    setup_testing_defaults(request)
    return Exchange(manager, request)


def read(manager: SessionManager, cookie: str) -> dict[str, Any]:
    return manager.open_cookie(cookie).copy()


def cookies(headers: list[tuple[str, str]]) -> list[str]:
    """The cookies that are set; one that is taken away has an empty value."""
    lines = [value for name, value in headers if name == "Set-Cookie"]
    return [line.split(";")[0] for line in lines]


def elsewhere(manager: SessionManager, session: Session, **values: Any) -> None:
    """Another request of the same session saves."""
    with manager.edit(session.id) as other:
        other.update(values)


def is_free(manager: SessionManager, cookie: str) -> bool:
    """Whether nobody holds the lock of a session."""
    manager.open_cookie(cookie).lock(wait=0).__exit__(None, None, None)
    return True
