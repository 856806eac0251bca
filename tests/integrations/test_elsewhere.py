"""Where no adapter is needed: the middleware around whatever speaks WSGI."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest
from webtest import TestApp

from wsgisession import SessionMiddleware, get_session
from wsgisession.stores.memory import MemoryStore


def counted(environ: dict[str, Any]) -> str:
    session = get_session(environ)
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


def counts(app: Any) -> list[str]:
    """What three visits of one browser and one of another are told."""
    client = TestApp(SessionMiddleware(app, store=MemoryStore()), lint=False)
    other = TestApp(client.app, lint=False)
    return [each.post("/").text for each in (client, client, client, other)]


EXPECTED = ["1", "2", "3", "1"]


def test_falcon() -> None:
    falcon = pytest.importorskip("falcon")

    class Counter:
        def on_post(self, request: Any, response: Any) -> None:
            response.text = counted(request.env)

    app = falcon.App()
    app.add_route("/", Counter())
    assert counts(app) == EXPECTED


def test_cherrypy_mounted() -> None:
    """CherryPy's tree is a WSGI application; its own sessions stay off."""
    cherrypy = pytest.importorskip("cherrypy")

    class Counter:
        @cherrypy.expose  # type: ignore[untyped-decorator]
        def index(self) -> str:
            return counted(cherrypy.serving.request.wsgi_environ)

    tree = cherrypy._cptree.Tree()
    tree.mount(Counter(), "/")
    cherrypy.config.update({"log.screen": False})
    assert counts(tree) == EXPECTED


def test_webobs_wsgify() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # cgi
        from webob.dec import wsgify

    @wsgify
    def app(request: Any) -> str:
        return counted(request.environ)

    assert counts(app) == EXPECTED


def test_functions_in_the_style_of_web_py() -> None:
    """A table of paths and classes with a method for each verb, in a dozen lines."""

    class Counter:
        def POST(self, environ: dict[str, Any]) -> str:  # noqa: N802
            return counted(environ)

    urls = {"/": Counter}

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        handler = urls[environ["PATH_INFO"]]()
        start_response("200 OK", [("Content-Type", "text/plain")])
        body: str = getattr(handler, environ["REQUEST_METHOD"])(environ)
        return [body.encode()]

    assert counts(app) == EXPECTED


def test_wsgi_inside_asgi() -> None:
    """a2wsgi runs the application, and our middleware in it, on threads."""
    a2wsgi = pytest.importorskip("a2wsgi")

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = counted(environ).encode()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    served = a2wsgi.WSGIMiddleware(SessionMiddleware(app, store=MemoryStore()))

    async def post(cookie: bytes) -> tuple[bytes, bytes]:
        sent: list[Any] = []
        messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Any:
            return next(messages, None) or await asyncio.sleep(60)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"cookie", cookie)],
            "server": ("localhost", 80),
            "client": ("127.0.0.1", 1),
        }
        await served(scope, receive, send)
        headers = dict(sent[0]["headers"])
        body = b"".join(each.get("body", b"") for each in sent[1:])
        return body, headers.get(b"set-cookie", cookie).split(b";")[0]

    async def visits() -> list[bytes]:
        found, cookie = [], b"none=1"
        for _ in range(3):
            body, cookie = await post(cookie)
            found.append(body)
        return found

    assert asyncio.run(visits()) == [b"1", b"2", b"3"]
