"""Sessions in a Pyramid application.

Install: ``python -m pip install "wsgisession-middleware[pyramid,file]"``
Run:     ``python examples/pyramid_app.py``
"""

import os
from html import escape
from pathlib import Path
from wsgiref.simple_server import make_server

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest, HTTPSeeOther
from pyramid.response import Response

FOLDER = Path.home() / ".cache" / "wsgisession-examples"
PORT = int(os.environ.get("PORT", "8000"))

PAGE = """<!doctype html><meta charset="utf-8"><title>Shopping list</title>
<p>Visit {visits} of {user}</p>
<ul>{items}</ul>
<form id="add" method="post" action="/add">
  <label>Item <input name="item" required></label> <button>Add</button></form>
<form id="login" method="post" action="/login">
  <label>Name <input name="user" required></label> <button>Log in</button></form>
<form id="logout" method="post" action="/logout"><button>Log out</button></form>
"""


def field(request, name):
    """What was filled in, which must be something."""
    if not request.POST.get(name):
        raise HTTPBadRequest(f"{name} is missing.")
    return request.POST[name]


def show(request):
    """Count the visit, and show the list."""
    session = request.session
    session["visits"] = session.get("visits", 0) + 1
    return Response(
        PAGE.format(
            visits=session["visits"],
            user=escape(session.user or "a stranger"),
            items="".join(f"<li>{escape(i)}</li>" for i in session.get("list", [])),
        )
    )


def add(request):
    """Append to the list in the session; that is seen, and saved."""
    request.session.setdefault("list", []).append(field(request, "item"))
    return HTTPSeeOther("/")


def login(request):
    """Bind the session to a user, under a new token: a planted one is worth nothing."""
    request.session.login(field(request, "user"))
    return HTTPSeeOther("/")


def logout(request):
    """End the session."""
    request.session.logout()
    return HTTPSeeOther("/")


def make_shop():
    """The application; its settings may as well stand in an ``.ini`` file."""
    settings = {"session.url": os.environ.get("SESSION_URL", FOLDER.as_uri())}
    with Configurator(settings=settings) as config:
        config.include("wsgisession.integrations.pyramid")
        for view, path, method in (
            (show, "/", "GET"),
            (add, "/add", "POST"),
            (login, "/login", "POST"),
            (logout, "/logout", "POST"),
        ):
            config.add_route(view.__name__, path)
            config.add_view(view, route_name=view.__name__, request_method=method)
        return config.make_wsgi_app()


application = make_shop()

if __name__ == "__main__":
    with make_server("127.0.0.1", PORT, application) as server:
        print(f"http://127.0.0.1:{PORT}/", flush=True)
        server.serve_forever()
