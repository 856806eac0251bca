"""Sessions in a Flask application.

Install: ``python -m pip install "wsgisession-middleware[flask,file]"``
Run:     ``python examples/flask_app.py``  (or ``gunicorn --chdir examples flask_app``)
"""

import os
from pathlib import Path

from flask import Flask, abort, redirect, render_template_string, request, session

from wsgisession.integrations.flask import Sessions

FOLDER = Path.home() / ".cache" / "wsgisession-examples"
PORT = int(os.environ.get("PORT", "8000"))

PAGE = """<!doctype html><meta charset="utf-8"><title>Shopping list</title>
<p>Visit {{ session.visits }} of {{ session.user or "a stranger" }}</p>
<ul>{% for item in session.list %}<li>{{ item }}</li>{% endfor %}</ul>
<form id="add" method="post" action="/add">
  <label>Item <input name="item" required></label> <button>Add</button></form>
<form id="login" method="post" action="/login">
  <label>Name <input name="user" required></label> <button>Log in</button></form>
<form id="logout" method="post" action="/logout"><button>Log out</button></form>
"""

application = Flask(__name__)
application.config["SESSION_URL"] = os.environ.get("SESSION_URL", FOLDER.as_uri())
Sessions(application)


@application.get("/")
def show():
    """Count the visit, and show the list."""
    session["visits"] = session.get("visits", 0) + 1
    return render_template_string(PAGE)


@application.post("/add")
def add():
    """Append to the list in the session; that is seen, and saved."""
    session.setdefault("list", []).append(request.form["item"] or abort(400))
    return redirect("/", 303)


@application.post("/login")
def login():
    """Bind the session to a user, under a new token: a planted one is worth nothing."""
    session.login(request.form["user"] or abort(400))
    return redirect("/", 303)


@application.post("/logout")
def logout():
    """End the session."""
    session.logout()
    return redirect("/", 303)


if __name__ == "__main__":
    application.run(port=PORT)
