"""Sessions in a Bottle application.

Install: ``python -m pip install "wsgisession-middleware[bottle,file]"``
Run:     ``python examples/bottle_app.py``  (or ``gunicorn --chdir examples bottle_app``)
"""

import os
from pathlib import Path

from bottle import Bottle, abort, redirect, request, run, template

from wsgisession.integrations.bottle import SessionPlugin

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

application = Bottle()
application.install(SessionPlugin(url=os.environ.get("SESSION_URL", FOLDER.as_uri())))


@application.get("/")
def show(session):
    """Count the visit, and show the list."""
    session["visits"] = session.get("visits", 0) + 1
    return template(
        PAGE,
        visits=session["visits"],
        user=session.user or "a stranger",
        items=session.get("list", []),
    )


@application.post("/add")
def add(session):
    """Append to the list in the session; that is seen, and saved."""
    session.setdefault("list", []).append(request.forms.item or abort(400))
    redirect("/", 303)


@application.post("/login")
def login(session):
    """Bind the session to a user, under a new token: a planted one is worth nothing."""
    session.login(request.forms.user or abort(400))
    redirect("/", 303)


@application.post("/logout")
def logout(session):
    """End the session."""
    session.logout()
    redirect("/", 303)


if __name__ == "__main__":
    run(application, host="127.0.0.1", port=PORT)
