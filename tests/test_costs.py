"""What a session costs where it does nothing, and what visitors leave behind."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from wsgisession import SessionManager, SessionMiddleware, get_session
from wsgisession.stores.file import FileStore
from wsgisession.tokens import new_token

from .conftest import SECRET, CountingStore

REQUESTS = 100_000


def page(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Looks at the session where the query says so."""
    if environ["QUERY_STRING"]:
        get_session(environ).get("n")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("visitors", ["no cookie", "random cookies", "untouched"])
@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_hundred_thousand_visitors_leave_nothing(
    tmp_path: Path, visitors: str, secret: str | None
) -> None:
    """P3, P4, P7: no file, no Set-Cookie; an untouched session makes no store call."""
    store = CountingStore(FileStore(tmp_path / "sessions"))
    settings = {"store": store} | ({"secret": secret} if secret else {})
    manager = SessionManager.from_config(settings)
    middleware = SessionMiddleware(page, manager=manager)
    session = manager.create()
    session["n"] = 1
    session.save()
    own = f"session={session.token}"
    before = files_below(tmp_path)
    store.calls.clear()
    cookies = 0

    def start_response(status: str, headers: list[tuple[str, str]]) -> Any:
        nonlocal cookies
        cookies += sum(name == "Set-Cookie" for name, _ in headers)

    pick = random.Random(7)
    for number in range(REQUESTS):
        environ = {
            "REQUEST_METHOD": "POST" if number % 2 else "GET",
            "QUERY_STRING": "" if visitors == "untouched" else "look",
            "wsgi.url_scheme": "http",
        }
        if visitors == "untouched":
            environ["HTTP_COOKIE"] = own
        elif visitors == "random cookies":
            guess = new_token() if number % 4 else "x" * pick.randrange(2000)
            environ["HTTP_COOKIE"] = f"session={guess}"
        middleware(environ, start_response)
    assert cookies == 0
    assert files_below(tmp_path) == before
    if visitors != "random cookies" or secret:
        assert store.calls == []
    assert set(store.calls) <= {"load", "lock"}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_store_calls_by_request(tmp_path: Path, method: str) -> None:
    """P4: untouched 0, read 1, read-modify-write 2 (locked or not), new session 1."""
    store = CountingStore(FileStore(tmp_path / "sessions"))

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = get_session(environ)
        match environ["PATH_INFO"]:
            case "/read":
                session.get("n")
            case "/write":
                session["n"] = session.get("n", 0) + 1
        start_response("200 OK", [])
        return []

    middleware = SessionMiddleware(app, store=store)
    cookie = ""

    def calls(path: str) -> int:
        nonlocal cookie
        store.calls.clear()
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_COOKIE": cookie}
        environ["wsgi.url_scheme"] = "http"

        def start_response(status: str, headers: list[tuple[str, str]]) -> Any:
            nonlocal cookie
            cookie = dict(headers).get("Set-Cookie", cookie).split(";")[0]

        middleware(environ, start_response)
        return len(store.calls)

    assert calls("/write") == 1
    assert cookie
    assert calls("/") == 0
    # A read in a request that locks gives the lock back.
    assert calls("/read") == (1 if method == "GET" else 2)
    assert calls("/write") == 2
