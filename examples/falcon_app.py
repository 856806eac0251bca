"""Sessions in a Falcon application: it is wrapped, and each request has the environ.

Install: ``python -m pip install "wsgisession-middleware[file]" falcon``
Run:     ``python examples/falcon_app.py``  (or ``gunicorn --chdir examples falcon_app``)
"""

import os
from html import escape
from pathlib import Path
from wsgiref.simple_server import make_server

import falcon

from wsgisession import SessionMiddleware, get_session

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
    value = request.get_media().get(name)
    if not value:
        raise falcon.HTTPBadRequest(title=f"{name} is missing")
    return value


class Visits:
    """The page."""

    def on_get(self, request, response):
        """Count the visit, and show the list."""
        session = get_session(request.env)
        session["visits"] = session.get("visits", 0) + 1
        response.content_type = falcon.MEDIA_HTML
        response.text = PAGE.format(
            visits=session["visits"],
            user=escape(session.user or "a stranger"),
            items="".join(f"<li>{escape(i)}</li>" for i in session.get("list", [])),
        )


class Forms:
    """What the forms of the page send."""

    def on_post_add(self, request, response):
        """Append to the list in the session; that is seen, and saved."""
        session = get_session(request.env)
        session.setdefault("list", []).append(field(request, "item"))
        raise falcon.HTTPSeeOther("/")

    def on_post_login(self, request, response):
        """Bind the session to a user, under a new token: a planted one is nothing."""
        get_session(request.env).login(field(request, "user"))
        raise falcon.HTTPSeeOther("/")

    def on_post_logout(self, request, response):
        """End the session."""
        get_session(request.env).logout()
        raise falcon.HTTPSeeOther("/")


shop = falcon.App()
shop.add_route("/", Visits())
for name in ("add", "login", "logout"):
    shop.add_route(f"/{name}", Forms(), suffix=name)

application = SessionMiddleware(
    shop, {"session.url": os.environ.get("SESSION_URL", FOLDER.as_uri())}
)

if __name__ == "__main__":
    with make_server("127.0.0.1", PORT, application) as server:
        print(f"http://127.0.0.1:{PORT}/", flush=True)
        server.serve_forever()
