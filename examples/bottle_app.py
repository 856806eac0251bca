"""Sessions in a Bottle application, by the environ.

Run ``python examples/bottle_app.py``, or ``gunicorn --chdir examples bottle_app``.
"""

import os
from pathlib import Path

from bottle import Bottle, abort, redirect, request, run, template

from wsgisession import SessionMiddleware, get_session

FOLDER = Path.home() / ".cache" / "wsgisession-examples"
PORT = int(os.environ.get("PORT", "8000"))

PAGE = """<!doctype html><meta charset="utf-8"><title>Shopping list</title>
<p>Visit {{visits}} of {{user}}</p>
<ul>
% for item in items:
<li>{{item}}</li>
% end
</ul>
<form id="add" method="post" action="/add">
  <label>Item <input name="item" required></label> <button>Add</button></form>
<form id="login" method="post" action="/login">
  <label>Name <input name="user" required></label> <button>Log in</button></form>
<form id="logout" method="post" action="/logout"><button>Log out</button></form>
"""

shop = Bottle()


@shop.get("/")
def show():
    """Count the visit, and show the list."""
    session = get_session(request.environ)
    session["visits"] = session.get("visits", 0) + 1
    return template(
        PAGE,
        visits=session["visits"],
        user=session.user or "a stranger",
        items=session.get("list", []),
    )


@shop.post("/add")
def add():
    """Append to the list in the session; that is seen, and saved."""
    session = get_session(request.environ)
    session.setdefault("list", []).append(request.forms.item or abort(400))
    redirect("/", 303)


@shop.post("/login")
def login():
    """Bind the session to a user, under a new token: a planted one is worth nothing."""
    get_session(request.environ).login(request.forms.user or abort(400))
    redirect("/", 303)


@shop.post("/logout")
def logout():
    """End the session."""
    get_session(request.environ).logout()
    redirect("/", 303)


application = SessionMiddleware(
    shop, {"session.url": os.environ.get("SESSION_URL", FOLDER.as_uri())}
)

if __name__ == "__main__":
    run(application, host="127.0.0.1", port=PORT)
