"""The peers, each as a WSGI application around a handler that is given its session.

What a framework does besides is left out: an application here makes the framework's
request, gives the handler the session, and makes the framework's response.  Beside each
stands the same application without a session, whose cost is taken away.  A peer that is
not installed is an ``ImportError`` when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.visits import PAYLOAD

Handler: TypeAlias = Callable[[Any], object]
App: TypeAlias = Callable[[dict[str, Any], Any], Any]

SECRET = "a secret of the benchmark, of more than 32 octets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A library on one store."""

    name: str
    store: str
    site: Callable[[Handler], App]
    """The application around a handler."""
    bare: App
    """The same without a session; the handler is not called."""
    locks: bool = False
    """Whether a change is made under a lock, and no update is lost."""
    slides: bool = False
    """Whether a read counts as activity at the server."""


def nothing(session: Any) -> None:
    """Leaves the session alone."""


def read(session: Any) -> object:
    """Reads one value."""
    return session["n"]


def change(session: Any) -> None:
    """Reads a value and writes another in its place."""
    session["n"] = session["n"] + 1


def begin(session: Any) -> None:
    """Begins a session."""
    session.update(PAYLOAD)


def bare(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """A plain application without a session."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


# -- ours --------------------------------------------------------------------------------


def ours(name: str, config: Mapping[str, Any]) -> Contestant:
    """wsgisession, with its defaults."""
    from wsgisession import SessionManager, SessionMiddleware

    manager = SessionManager.from_config(config)
    if hasattr(manager.store, "create_table"):
        manager.store.create_table()

    def site(handler: Handler) -> App:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            if handler is not nothing:
                handler(environ["wsgisession.session"])
            return bare(environ, start_response)

        return SessionMiddleware(application, manager=manager)

    is_server_side = name != "cookie"
    return Contestant(
        name="wsgisession",
        store=name,
        site=site,
        bare=bare,
        locks=is_server_side,
        slides=True,
    )


# -- Beaker ------------------------------------------------------------------------------


def beaker(name: str, options: Mapping[str, Any]) -> Contestant:
    """Beaker with ``auto``, so that what is changed is saved."""
    from beaker.middleware import SessionMiddleware

    settings = {f"session.{key}": value for key, value in options.items()}

    def site(handler: Handler) -> App:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            if handler is not nothing:
                handler(environ["beaker.session"])
            return bare(environ, start_response)

        made: App = SessionMiddleware(application, {**settings, "session.auto": True})
        return made

    return Contestant(name="Beaker", store=name, site=site, bare=bare, slides=True)


def of_beaker(urls: Mapping[str, str], folder: Path) -> Iterator[Contestant]:
    """On every store that Beaker has here."""
    data = str(folder / "beaker")
    yield beaker("memory", {"type": "memory"})
    yield beaker("file", {"type": "file", "data_dir": data})
    yield beaker("cookie", {"type": "cookie", "validate_key": SECRET})
    database = f"sqlite:///{folder / 'beaker.db'}"
    yield beaker("sqlite", {"type": "ext:database", "url": database, "lock_dir": data})
    if "redis" in urls:
        url = urls["redis"]
        yield beaker("redis", {"type": "ext:redis", "url": url, "lock_dir": data})


# -- Flask -------------------------------------------------------------------------------


def flask_site(app: Any) -> Callable[[Handler], App]:
    """A site of a Flask application, without its dispatching."""
    import flask

    def site(handler: Handler) -> App:
        def application(environ: dict[str, Any], start_response: Any) -> Any:
            with app.request_context(environ):
                session: Any = flask.session
                if handler is not nothing:
                    handler(session)
                response = app.response_class("ok", mimetype="text/plain")
                if not app.session_interface.is_null_session(session):
                    app.session_interface.save_session(app, session, response)
                return response(environ, start_response)

        return application

    return site


def flask_without_sessions() -> App:
    """The same application, whose sessions are nothing."""
    import flask
    from flask.sessions import SessionInterface

    class NoSessions(SessionInterface):
        def open_session(self, app: Any, request: Any) -> Any:
            return self.null_session_class()

    app = flask.Flask("benchmark")
    app.session_interface = NoSessions()
    return flask_site(app)(nothing)


def of_flask() -> Iterator[Contestant]:
    """Flask's own session, in a signed cookie."""
    import flask

    app = flask.Flask("benchmark")
    app.secret_key = SECRET
    site, without = flask_site(app), flask_without_sessions()
    yield Contestant(name="Flask", store="cookie", site=site, bare=without)


def of_flask_session(urls: Mapping[str, str], folder: Path) -> Iterator[Contestant]:
    """Flask-Session on Redis, in files by cachelib, and in SQLite."""
    import flask
    from cachelib import FileSystemCache
    from flask_session import Session
    from flask_sqlalchemy import SQLAlchemy

    without = flask_without_sessions()

    def made(name: str, app: Any) -> Contestant:
        Session(app)
        site = flask_site(app)
        return Contestant(
            name="Flask-Session", store=name, site=site, bare=without, slides=True
        )

    app = flask.Flask("benchmark")
    cache = FileSystemCache(str(folder / "flask"), threshold=0)
    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=cache)
    yield made("file", app)
    app = flask.Flask("benchmark")
    database = f"sqlite:///{folder / 'flask.db'}"
    app.config.update(SESSION_TYPE="sqlalchemy", SQLALCHEMY_DATABASE_URI=database)
    app.config["SESSION_SQLALCHEMY"] = SQLAlchemy(app)
    yield made("sqlite", app)
    if "redis" in urls:
        import redis

        app = flask.Flask("benchmark")
        client = redis.Redis.from_url(urls["redis"])
        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=client)
        yield made("redis", app)


# -- Django ------------------------------------------------------------------------------


def of_django(urls: Mapping[str, str], folder: Path) -> Iterator[Contestant]:
    """Django's engines behind its middleware, without its dispatching."""
    import django
    from django.conf import settings

    (folder / "django").mkdir()
    databases = {"default": {"ENGINE": "django.db.backends.sqlite3"}}
    databases["default"]["NAME"] = str(folder / "django.db")
    caches = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    if "redis" in urls:
        caches["redis"] = {"BACKEND": "django.core.cache.backends.redis.RedisCache"}
        caches["redis"]["LOCATION"] = urls["redis"]
    settings.configure(
        SECRET_KEY=SECRET,
        INSTALLED_APPS=["django.contrib.sessions"],
        DATABASES=databases,
        CACHES=caches,
        SESSION_CACHE_ALIAS="redis" if "redis" in urls else "default",
        SESSION_FILE_PATH=str(folder / "django"),
    )
    django.setup()
    _make_table()
    backends = "django.contrib.sessions.backends"
    yield django_contestant("file", f"{backends}.file")
    yield django_contestant("cookie", f"{backends}.signed_cookies")
    yield django_contestant("sqlite", f"{backends}.db")
    if "redis" in urls:
        yield django_contestant("redis", f"{backends}.cache")


def _make_table() -> None:
    from django.contrib.sessions.models import Session
    from django.db import connection

    with connection.schema_editor() as editor:
        editor.create_model(Session)


def django_contestant(name: str, engine: str) -> Contestant:
    """Django on one engine."""
    from django.conf import settings
    from django.contrib.sessions.middleware import SessionMiddleware
    from django.core.handlers.wsgi import WSGIRequest
    from django.http import HttpResponse

    def answering(get_response: Callable[[Any], Any]) -> App:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            response = get_response(WSGIRequest(environ))
            headers = [*response.items()]
            headers += [
                ("Set-Cookie", each.OutputString())
                for each in response.cookies.values()
            ]
            start_response("200 OK", headers)
            return [response.content]

        return application

    def answer(request: Any) -> Any:
        return HttpResponse("ok", content_type="text/plain")

    def site(handler: Handler) -> App:
        settings.SESSION_ENGINE = engine  # the middleware reads it when it is made

        def handled(request: Any) -> Any:
            if handler is not nothing:
                handler(request.session)
            return answer(request)

        return answering(SessionMiddleware(handled))

    return Contestant(name="Django", store=name, site=site, bare=answering(answer))


# -- Pyramid -----------------------------------------------------------------------------


def of_pyramid() -> Iterator[Contestant]:
    """Pyramid's own session, in a signed cookie."""
    from pyramid.session import SignedCookieSessionFactory

    factory = SignedCookieSessionFactory(SECRET)
    yield pyramid_contestant("Pyramid", "cookie", factory)


def of_pyramid_session_redis(urls: Mapping[str, str]) -> Iterator[Contestant]:
    """Pyramid's sessions in Redis."""
    from pyramid_session_redis import RedisSessionFactory

    if "redis" in urls:
        factory = RedisSessionFactory(SECRET, redis_url=urls["redis"])
        yield pyramid_contestant("pyramid_session_redis", "redis", factory)


def pyramid_contestant(
    name: str, store: str, factory: Callable[[Any], Any]
) -> Contestant:
    """A factory of sessions on a request of Pyramid's, without its dispatching."""
    from pyramid.registry import Registry
    from pyramid.request import Request
    from pyramid.response import Response

    registry = Registry()

    def site(handler: Handler | None) -> App:
        def application(environ: dict[str, Any], start_response: Any) -> Any:
            request = Request(environ)
            request.registry = registry
            if handler is not None and handler is not nothing:
                handler(factory(request))
            response = Response("ok", content_type="text/plain")
            request._process_response_callbacks(response)
            request._process_finished_callbacks()
            return response(environ, start_response)

        return application

    return Contestant(name=name, store=store, site=site, bare=site(None), slides=True)
