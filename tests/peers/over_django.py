"""Settings for Django's own suites: our engine, and our middleware in Django's place."""

import os

import django.contrib.sessions.middleware as djangos

DATABASES = {
    name: {"ENGINE": "django.db.backends.sqlite3"} for name in ("default", "other")
}
SECRET_KEY = "for the tests of Django alone"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
SESSION_ENGINE = "wsgisession.integrations.django"
WSGISESSION = {"url": os.environ["SESSION_URL"]}

from wsgisession.integrations.django import SessionMiddleware  # noqa: E402

djangos.SessionMiddleware = SessionMiddleware
