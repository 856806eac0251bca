"""Flask-Login on sessions of the server: a new token at each login, an end everywhere.

Install: ``python -m pip install "wsgisession-middleware[flask,sqlalchemy]" flask-login``
Run:     ``python examples/flask_login_app.py``
"""

import os

import flask_login
from flask import Flask, abort, redirect, render_template_string, request, session

from wsgisession.integrations.flask import Sessions

PORT = int(os.environ.get("PORT", "8000"))

PAGE = """<!doctype html><meta charset="utf-8"><title>Members</title>
{% if user.is_authenticated %}
<p>You are {{ user.id }}, in {{ count }} browsers.</p>
<form id="logout" method="post" action="/logout"><button>Log out</button></form>
<form id="everywhere" method="post" action="/logout-everywhere">
  <button>Log out everywhere</button></form>
{% else %}
<p>You are nobody.</p>
<form id="login" method="post" action="/login">
  <label>Name <input name="user" required></label>
  <label><input type="checkbox" name="remember"> Remember me</label>
  <button>Log in</button></form>
{% endif %}
"""

application = Flask(__name__)
application.config.update(
    SECRET_KEY=os.environ.get("SECRET_KEY", "dev"),  # signs the remember-me cookie
    SESSION_URL=os.environ.get("SESSION_URL", "sqlite:///members.db"),
)
sessions = Sessions(application)
logins = flask_login.LoginManager(application)


@logins.user_loader
class User(flask_login.UserMixin):
    """A user, by the name that was given; a site asks for a password."""

    def __init__(self, id):
        self.id = id


@application.get("/")
def show():
    """Who is logged in, and in how many browsers."""
    user = flask_login.current_user
    count = 0
    if user.is_authenticated:
        count = len(list(sessions.manager.sessions_of(user.id)))
    return render_template_string(PAGE, user=user, count=count)


@application.post("/login")
def login():
    """Flask-Login's own login is one of ours: nothing else is to be called."""
    user = User(request.form["user"] or abort(400))
    flask_login.login_user(user, remember="remember" in request.form)
    return redirect("/", 303)


@application.post("/logout")
def logout():
    """Leave here; what else is in the session stays."""
    flask_login.logout_user()
    return redirect("/", 303)


@application.post("/logout-everywhere")
@flask_login.login_required
def logout_everywhere():
    """Leave in every browser: their next request finds no session."""
    sessions.manager.end_user(flask_login.current_user.id, keep=session.id)
    flask_login.logout_user()
    return redirect("/", 303)


if __name__ == "__main__":
    application.run(port=PORT)
