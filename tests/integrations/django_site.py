"""A small Django site for the tests, in one file; also for gunicorn and uvicorn.

Environment: ``SESSION_URL`` (default: in memory), ``SESSION_ENGINE_ALONE=1`` for Django's
own middleware over our engine.  ``application`` is WSGI, ``asgi_application`` ASGI.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import django
from django.conf import settings

OURS = "wsgisession.integrations.django.SessionMiddleware"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"

if not settings.configured:
    settings.configure(
        SECRET_KEY="a secret key for tests alone, which nobody has to guess",
        DEBUG=False,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        USE_TZ=True,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": f"{tempfile.mkdtemp()}/users.db",
            }
        },
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.admin",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "wsgisession.integrations.django",
        ],
        MIDDLEWARE=[
            DJANGOS if os.environ.get("SESSION_ENGINE_ALONE") else OURS,
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        SESSION_ENGINE="wsgisession.integrations.django",
        WSGISESSION={"url": os.environ.get("SESSION_URL", "memory:")},
        LOGGING_CONFIG=None,
    )
    django.setup()

from django.contrib import admin, messages
from django.contrib.auth import login, logout
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

HOOKS: dict[str, Any] = {}
"""What a test lets happen in the middle of a view."""


def show(request: Any) -> HttpResponse:
    return HttpResponse(str(dict(request.session.items())))


def increment(request: Any) -> HttpResponse:
    key = request.GET.get("key", "n")
    count = request.session.get(key, 0)
    HOOKS.get("between", lambda: None)()
    request.session[key] = count + 1
    return HttpResponse(str(count + 1))


def read(request: Any) -> HttpResponse:
    return HttpResponse(str(request.session.get(request.GET.get("key", "n"), 0)))


async def aincrement(request: Any) -> HttpResponse:
    key = request.GET.get("key", "n")
    count = await request.session.aget(key, 0)
    await request.session.aset(key, count + 1)
    return HttpResponse(str(count + 1))


def pid(request: Any) -> HttpResponse:
    return HttpResponse(str(os.getpid()))


def step(request: Any) -> HttpResponse:
    """What a test asks for; ``HOOKS["step"]`` is given the request."""
    answer = HOOKS["step"](request)
    return answer if hasattr(answer, "status_code") else HttpResponse(str(answer))


def who(request: Any) -> HttpResponse:
    return HttpResponse(str(request.user.get_username() or None))


def log_in(request: Any, name: str) -> HttpResponse:
    from django.contrib.auth.models import User

    login(request, User.objects.get(username=name))
    return HttpResponse("in")


def log_out(request: Any) -> HttpResponse:
    logout(request)
    return HttpResponse("out")


def say(request: Any) -> HttpResponse:
    messages.success(request, "saved <b>")
    return HttpResponse("said")


def hear(request: Any) -> HttpResponse:
    heard = messages.get_messages(request)
    return HttpResponse("|".join(f"{each.level_tag}:{each}" for each in heard))


def stream(request: Any) -> StreamingHttpResponse:
    session = request.session
    session["started"] = True

    def body() -> Any:
        yield "one"
        session["sent"] = 1
        yield "two"

    return StreamingHttpResponse(body())


urlpatterns = [
    path("show", show),
    path("increment", increment),
    path("aincrement", aincrement),
    path("read", read),
    path("pid", pid),
    path("step", step),
    path("who", who),
    path("login/<name>", log_in),
    path("logout", log_out),
    path("say", say),
    path("hear", hear),
    path("stream", stream),
    path("untouched", lambda request: HttpResponse("nothing")),
    path("admin/", admin.site.urls),
]

application = get_wsgi_application()
asgi_application = get_asgi_application()
