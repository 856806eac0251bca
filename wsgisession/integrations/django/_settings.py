"""What the settings of a Django project mean here, and the manager that is made of them.

It only translates; what is wrong is refused where the options are read.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.functional import Promise
from django.utils.safestring import SafeString

from ..._settings import DAY
from ...errors import ConfigurationError
from ...manager import SessionManager
from ...serializers import JSONSerializer
from .._text import lazy_text, safe_text

DJANGOS_JSON = "django.contrib.sessions.serializers.JSONSerializer"

SERIALIZER = JSONSerializer(
    kinds=(
        safe_text("safe", SafeString),
        lazy_text(lambda value: isinstance(value, Promise)),
    )
)
"""Takes the place of Django's JSON: it reads back what was stored.  Safe text stays safe;
a lazy translation becomes the text that it is now."""


class _Made:
    """The manager of the project, made at the first use."""

    manager: SessionManager | None = None


def get_manager() -> SessionManager:
    """The manager of the project's sessions: lists and ends those of a user.

    Raises ``ConfigurationError`` for settings that are missing or wrong.
    """
    if _Made.manager is None:
        _Made.manager = SessionManager.from_config(options())
    return _Made.manager


def _forget(*, setting: str, **_: Any) -> None:
    """A test has changed a setting."""
    if setting.startswith(("SESSION_", "SECRET_KEY", "WSGISESSION")):
        _Made.manager = None


setting_changed.connect(_forget)


def options() -> dict[str, Any]:
    """Our options: Django's settings, and those of ``WSGISESSION``, which win.

    As in Django a session lives for ``SESSION_COOKIE_AGE`` after its last change; with
    ``touch_interval`` in ``WSGISESSION`` reading counts as well.
    """
    own = getattr(settings, "WSGISESSION", None)
    if not isinstance(own, dict):
        raise ConfigurationError(
            "the settings need WSGISESSION, such as "
            'WSGISESSION = {"url": "redis://localhost/0"}'
        )
    serializer = settings.SESSION_SERIALIZER
    age = float(settings.SESSION_COOKIE_AGE)
    return {
        "cookie_name": settings.SESSION_COOKIE_NAME,
        "cookie_domain": settings.SESSION_COOKIE_DOMAIN,
        "cookie_path": settings.SESSION_COOKIE_PATH,
        "cookie_secure": settings.SESSION_COOKIE_SECURE or "auto",
        "cookie_httponly": settings.SESSION_COOKIE_HTTPONLY,
        "cookie_samesite": settings.SESSION_COOKIE_SAMESITE or False,
        "expire_at_browser_close": settings.SESSION_EXPIRE_AT_BROWSER_CLOSE,
        "save_every_request": settings.SESSION_SAVE_EVERY_REQUEST,
        "serializer": SERIALIZER if serializer == DJANGOS_JSON else serializer,
        "touch_interval": None,
        "secret": [
            hmac.digest(str(key).encode(), b"wsgisession.integrations.django", sha256)
            for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
        ],
        **({} if "profile" in own else _lifetimes(age, own)),
        **own,
    }


def _lifetimes(age: float, own: dict[str, Any]) -> dict[str, Any]:
    if {"idle_timeout", "absolute_timeout"} & own.keys():
        return {}
    return {"idle_timeout": age, "absolute_timeout": max(age, 30.0 * DAY)}
