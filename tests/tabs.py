"""A browser's tabs in front of the middleware, without a server between them.

A tab sends the cookie that it is given, so that answers may be lost, late or dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from wsgisession import Session, SessionManager, SessionMiddleware, get_session

Handler = Callable[[Session], object]


class Answer(NamedTuple):
    """What comes back."""

    status: str
    body: str
    cookie: str | None
    """The value of the session cookie that was set; "" where it was taken away."""
    headers: list[tuple[str, str]]


class Site:
    """An application of handlers by path; each is given the session."""

    def __init__(self, manager: SessionManager, **handlers: Handler) -> None:
        self.manager = manager
        self.handlers = handlers
        self.application = SessionMiddleware(self._answer, manager=manager)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        handler = self.handlers[environ["PATH_INFO"].strip("/")]
        body = str(handler(get_session(environ))).encode()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    def ask(self, method: str, path: str, cookie: str | None, **extra: str) -> Answer:
        """One request, with the session cookie that the tab holds."""
        name = self.manager.options.cookie_name
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": f"/{path}",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "HTTP_HOST": "localhost",
            "wsgi.url_scheme": "http",
            **extra,
        }
        if cookie is not None:
            environ["HTTP_COOKIE"] = f"{name}={cookie}"
        answer: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], exc: Any = None) -> Any:
            answer.update(status=status, headers=headers)
            return lambda data: None

        body = self.application(environ, start)
        text = b"".join(body).decode()
        if (close := getattr(body, "close", None)) is not None:
            close()
        set_cookie = None
        for field, value in answer["headers"]:
            if field == "Set-Cookie" and value.startswith(f"{name}="):
                set_cookie = value.split(";")[0].partition("=")[2]
        return Answer(answer["status"], text, set_cookie, answer["headers"])

    def get(self, path: str, cookie: str | None = None, **extra: str) -> Answer:
        return self.ask("GET", path, cookie, **extra)

    def post(self, path: str, cookie: str | None = None, **extra: str) -> Answer:
        return self.ask("POST", path, cookie, **extra)

    def begun(self, handler: str, cookie: str | None = None) -> str:
        """The cookie that a post leads to."""
        answer = self.post(handler, cookie)
        assert answer.cookie, answer
        return answer.cookie
