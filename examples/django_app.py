"""Sessions in a Django project of one file.

Install: ``python -m pip install "wsgisession-middleware[django,file]"``
Run:     ``python examples/django_app.py``
"""

import os
import sys
from pathlib import Path

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseBadRequest
from django.shortcuts import redirect
from django.template import Context, Engine
from django.urls import path

FOLDER = Path.home() / ".cache" / "wsgisession-examples"
PORT = int(os.environ.get("PORT", "8000"))

PAGE = """<!doctype html><meta charset="utf-8"><title>Shopping list</title>
<p>Visit {{ visits }} of {{ user|default:"a stranger" }}</p>
<ul>{% for item in list %}<li>{{ item }}</li>{% endfor %}</ul>
<form id="add" method="post" action="/add">
  <label>Item <input name="item" required></label> <button>Add</button></form>
<form id="login" method="post" action="/login">
  <label>Name <input name="user" required></label> <button>Log in</button></form>
<form id="logout" method="post" action="/logout"><button>Log out</button></form>
"""

settings.configure(
    SECRET_KEY=os.environ.get("SECRET_KEY", "for this example on one machine alone"),
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["wsgisession.integrations.django.SessionMiddleware"],
    SESSION_ENGINE="wsgisession.integrations.django",
    WSGISESSION={"url": os.environ.get("SESSION_URL", FOLDER.as_uri())},
)


def show(request):
    """Count the visit, and show the list."""
    session = request.session
    session["visits"] = session.get("visits", 0) + 1
    values = Context({"list": [], "user": None, **dict(session.items())})
    return HttpResponse(Engine().from_string(PAGE).render(values))


def add(request):
    """Append to the list in the session; that is seen, and saved."""
    if not request.POST.get("item"):
        return HttpResponseBadRequest("item is missing")
    request.session.setdefault("list", []).append(request.POST["item"])
    return redirect("/")


def login(request):
    """A new token for the same values: a planted one is worth nothing."""
    if not request.POST.get("user"):
        return HttpResponseBadRequest("user is missing")
    request.session.cycle_key()
    request.session["user"] = request.POST["user"]
    return redirect("/")


def logout(request):
    """End the session."""
    request.session.flush()
    return redirect("/")


urlpatterns = [
    path("", show),
    path("add", add),
    path("login", login),
    path("logout", logout),
]

application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line([sys.argv[0], "runserver", "--noreload", str(PORT)])
