"""A counter in a session, once in each framework; ``application`` is for gunicorn.

Environment: ``FRAMEWORK``, and ``SESSION_URL``.  Each is what a user of the framework
would write:

/increment?key=n   read and write one more; any method
/read?key=n        the number, 0 if there is none
/pid               of the worker
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

URL = os.environ.get("SESSION_URL", "memory:")


def flask() -> Any:
    from flask import Flask, request, session

    from wsgisession.integrations.flask import Sessions

    app = Flask(__name__)
    app.config["SESSION_URL"] = URL
    Sessions(app)

    @app.route("/increment", methods=["GET", "POST"])
    def increment() -> str:
        key = request.args["key"]
        session[key] = session.get(key, 0) + 1
        return str(session[key])

    @app.route("/read")
    def read() -> str:
        return str(session.get(request.args["key"], 0))

    app.add_url_rule("/pid", view_func=lambda: str(os.getpid()))
    return app


def pyramid() -> Any:
    from pyramid.config import Configurator
    from pyramid.response import Response

    def increment(request: Any) -> Any:
        key, session = request.GET["key"], request.session
        session[key] = session.get(key, 0) + 1
        return Response(str(session[key]))

    def read(request: Any) -> Any:
        return Response(str(request.session.get(request.GET["key"], 0)))

    def pid(request: Any) -> Any:
        return Response(str(os.getpid()))

    config = Configurator(settings={"session.url": URL})
    config.include("wsgisession.integrations.pyramid")
    for view in (increment, read, pid):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__)
    return config.make_wsgi_app()


def bottle() -> Any:
    from bottle import Bottle, request

    from wsgisession.integrations.bottle import SessionPlugin

    app = Bottle()
    app.install(SessionPlugin(url=URL))

    @app.route("/increment", method=["GET", "POST"])
    def increment(session: Any) -> str:
        key = request.query["key"]
        session[key] = session.get(key, 0) + 1
        return str(session[key])

    @app.get("/read")
    def read(session: Any) -> str:
        return str(session.get(request.query["key"], 0))

    app.get("/pid", callback=lambda: str(os.getpid()))
    return app


def django() -> Any:
    from .django_site import application

    return application


def beaker() -> Any:
    from wsgisession.integrations.beaker import SessionMiddleware

    def app(environ: Any, start_response: Any) -> list[bytes]:
        session, path = environ["beaker.session"], environ["PATH_INFO"]
        start_response("200 OK", [("Content-Type", "text/plain")])
        if path == "/pid":
            return [str(os.getpid()).encode()]
        (key,) = parse_qs(environ["QUERY_STRING"])["key"]
        if path == "/increment":
            session[key] = session.get(key, 0) + 1
            session.save()
        return [str(session.get(key, 0)).encode()]

    return SessionMiddleware(app, {"session.url": URL})


FRAMEWORKS: dict[str, Callable[[], Any]] = {
    each.__name__: each for each in (flask, pyramid, bottle, django, beaker)
}

if "FRAMEWORK" in os.environ:
    application = FRAMEWORKS[os.environ["FRAMEWORK"]]()
