"""Sessions in a WSGI application without any framework.

Run ``python examples/plain_wsgi.py``, or ``gunicorn --chdir examples plain_wsgi``.
"""

import os
from html import escape
from pathlib import Path
from urllib.parse import parse_qs
from wsgiref.simple_server import make_server

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


def show(session, form):
    """Count the visit, and show the list."""
    session["visits"] = session.get("visits", 0) + 1
    return PAGE.format(
        visits=session["visits"],
        user=escape(session.user or "a stranger"),
        items="".join(f"<li>{escape(item)}</li>" for item in session.get("list", [])),
    )


def add(session, form):
    """Append to the list in the session; that is seen, and saved."""
    session.setdefault("list", []).append(form["item"])


def login(session, form):
    """Bind the session to a user, under a new token: a planted one is worth nothing."""
    session.login(form["user"])


def logout(session, form):
    """End the session."""
    session.logout()


ROUTES = {
    ("GET", "/"): show,
    ("POST", "/add"): add,
    ("POST", "/login"): login,
    ("POST", "/logout"): logout,
}


def shop(environ, start_response):
    """The application; it finds the session in the environ."""
    headers = [("Content-Type", "text/html; charset=utf-8")]
    route = ROUTES.get((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
    if route is None:
        start_response("404 Not Found", headers)
        return [b"There is nothing here."]
    length = int(environ.get("CONTENT_LENGTH") or 0)
    fields = parse_qs(environ["wsgi.input"].read(length).decode("latin-1"))
    try:
        page = route(get_session(environ), {name: fields[name][0] for name in fields})
    except KeyError:
        start_response("400 Bad Request", headers)
        return [b"Something is missing in the form."]
    if page is None:
        start_response("303 See Other", [*headers, ("Location", "/")])
        return []
    start_response("200 OK", headers)
    return [page.encode()]


application = SessionMiddleware(
    shop, {"session.url": os.environ.get("SESSION_URL", FOLDER.as_uri())}
)

if __name__ == "__main__":
    with make_server("127.0.0.1", PORT, application) as server:
        print(f"http://127.0.0.1:{PORT}/", flush=True)
        server.serve_forever()
