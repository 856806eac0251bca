"""For ``INSTALLED_APPS``: a check that warns where Django's own middleware is in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Warning, register

DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"
OURS = "wsgisession.integrations.django.SessionMiddleware"


class SessionsConfig(AppConfig):
    """``"wsgisession.integrations.django"``, which is optional."""

    name = "wsgisession.integrations.django"
    label = "wsgisession"

    def ready(self) -> None:
        """Called by Django at the start."""
        register(check_middleware)


def check_middleware(
    app_configs: Sequence[AppConfig] | None, **_: Any
) -> list[CheckMessage]:
    """Updates are lost with Django's own middleware, whatever engine is behind it."""
    if DJANGOS not in settings.MIDDLEWARE:
        return []
    return [
        Warning(
            f"{DJANGOS} neither locks nor runs a view again, so that updates are lost.",
            hint=f"Put {OURS} in its place in MIDDLEWARE.",
            id="wsgisession.W001",
        )
    ]
