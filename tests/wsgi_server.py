"""What a WSGI server does, step by step, and the applications that it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

from webtest import TestApp

from wsgisession import SessionManager, SessionMiddleware

App = Callable[[dict[str, Any], Any], Iterable[bytes]]
PLAIN = [("Content-Type", "text/plain")]


def around(manager: SessionManager, app: App) -> TestApp:
    """A visitor to an application that is watched on both sides."""
    middleware = SessionMiddleware(validator(app), manager=manager)
    return TestApp(validator(middleware), lint=False)


class Server:
    """One request, answered so far as the test goes on, so that it can stop between."""

    def __init__(
        self, app: App, cookie: str = "", method: str = "GET", **environ: Any
    ) -> None:
        self.environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "QUERY_STRING": "",
            "HTTP_HOST": "localhost",
            "HTTP_COOKIE": cookie,
            **environ,
        }
        setup_testing_defaults(self.environ)
        self.environ["wsgi.file_wrapper"] = FileWrapper
        self.heads: list[tuple[str, list[tuple[str, str]]]] = []
        self.written = b""
        self.body = app(self.environ, self.start_response)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info and self.heads:
            raise exc_info[1]
        self.heads.append((status, headers))
        return self.write

    def write(self, data: bytes) -> None:
        self.written += data

    def finish(self) -> bytes:
        """Send all that is left, and close it; gives the whole body."""
        try:
            self.written += b"".join(self.body)
        finally:
            self.close()
        return self.written

    def close(self) -> None:
        """What a server calls at the end, also when the client has gone away."""
        close = getattr(self.body, "close", None)
        if close is not None:
            close()

    def cookies(self) -> list[str]:
        return [v for _, headers in self.heads for k, v in headers if k == "Set-Cookie"]


def with_session(manager: SessionManager, **values: Any) -> str:
    """The Cookie header of a visitor whose session holds some values."""
    session = manager.create()
    session.update(values)
    session.save()
    return f"{manager.options.cookie_name}={manager.token_of(session)}"


def read(manager: SessionManager, cookie: str) -> dict[str, Any]:
    return manager.open_cookie(cookie).copy()
