"""What the settings of a Flask application mean here: Flask's own, Flask-Session's, and
ours by upper-case names behind ``SESSION_``.

It only translates; what is wrong is refused where the options are read.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flask import Flask
from markupsafe import Markup

from ..._crypto.secret import weakness
from ..._settings import DAY
from ...errors import ConfigurationError
from ...manager import SessionManager
from ...serializers import JSONSerializer
from .._text import lazy_text, safe_text

log = logging.getLogger("wsgisession")

SERIALIZER = JSONSerializer(
    kinds=(
        safe_text("markup", Markup),
        lazy_text(lambda value: type(value).__name__ == "LazyString"),
    )
)
"""Flashed markup stays markup; a lazy translation becomes the text that it is now."""

COOKIE = frozenset(
    ("cookie_name", "cookie_domain", "cookie_path", "cookie_secure")
    + ("cookie_httponly", "cookie_samesite", "cookie_partitioned")
)
"""What Flask has a setting for, with a default."""

RENAMED = {
    "redis": "client",
    "sqlalchemy_table": "table_name",
    "sqlalchemy_schema": "schema",
    "file_dir": "data_dir",
}
"""Flask-Session's names and ours, without ``SESSION_``."""

TYPES = {"filesystem": "file", "null": None}
"""Flask-Session's types that are called otherwise here."""

NOT_HERE = ("cachelib", "memcached", "mongodb", "dynamodb")
"""Flask-Session's types that there is no store for."""

READ_ELSEWHERE = frozenset(
    ("permanent", "refresh_each_request", "sqlalchemy", "sqlalchemy_bind_key")
)
NOT_NEEDED = frozenset(
    ("use_signer", "id_length", "serialization_format", "cleanup_n_requests")
    + ("file_threshold", "file_mode", "sqlalchemy_sequence")
)
"""What has lost its purpose: ids are long, cookies signed, files private, always."""


def settings_of(app: Flask, options: Mapping[str, Any]) -> dict[str, Any]:
    """Our options, by the application's settings and those given in code, which win.

    A setting that is no option is left alone: other extensions have some of that prefix.
    """
    space = app.config.get_namespace("SESSION_")
    given = {name: value for name, value in space.items() if value is not None}
    asked = {**_of_flask_session(app, given), **options}
    try:
        known = SessionManager.option_names(asked)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}  (In a Flask config the names are SESSION_URL, SESSION_TYPE, ...)"
        ) from error
    own = {name: asked[name] for name in asked if name in known or name in options}
    _warn_of_typing_errors(asked.keys() - known, known)
    settings = {**_of_flask(app), **_lifetimes(app, own), **own}
    if "secret" not in settings and (keys := _secrets(app, settings)):
        settings["secret"] = keys
    return settings


def _of_flask_session(app: Flask, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is set by Flask-Session's names, in ours; ours stay as they are."""
    skipped = COOKIE | READ_ELSEWHERE | NOT_NEEDED
    found = {RENAMED.get(n, n): value for n, value in given.items() if n not in skipped}
    kind = found.pop("type", None)
    if kind in NOT_HERE:
        raise ConfigurationError(
            f"Flask-Session's type {kind!r} has no store here; set SESSION_URL to "
            "redis://..., to a SQL database or to file:///folder"
        )
    if (kind := TYPES.get(kind, kind)) is not None:
        found["type"] = kind
    if kind == "file":
        found.setdefault("data_dir", str(Path("flask_session").absolute()))
    if kind == "redis" and not {"client", "url"} & found.keys():
        del found["type"]
        found["url"] = "redis://localhost:6379"
    if kind == "sqlalchemy" and (database := given.get("sqlalchemy")) is not None:
        with app.app_context():
            found["engine"] = database.engines[given.get("sqlalchemy_bind_key")]
        found.setdefault("create_table", True)
    return found


def _of_flask(app: Flask) -> dict[str, Any]:
    """What Flask's own settings say of the cookie, and the values that it is known for.

    Flask's defaults leave SameSite out, and Secure; ours are stricter, and hold unless
    something else was said.
    """
    config = app.config
    is_permanent = config.get("SESSION_PERMANENT", "SESSION_TYPE" in config)
    return {
        "cookie_name": config["SESSION_COOKIE_NAME"],
        "cookie_domain": config["SESSION_COOKIE_DOMAIN"] or None,
        "cookie_path": config["SESSION_COOKIE_PATH"] or config["APPLICATION_ROOT"],
        "cookie_secure": config["SESSION_COOKIE_SECURE"] or "auto",
        "cookie_httponly": config["SESSION_COOKIE_HTTPONLY"],
        "cookie_samesite": config["SESSION_COOKIE_SAMESITE"] or "Lax",
        "cookie_partitioned": config.get("SESSION_COOKIE_PARTITIONED", False),
        "expire_at_browser_close": not is_permanent,
        "serializer": SERIALIZER,
    }


def _lifetimes(app: Flask, own: Mapping[str, Any]) -> dict[str, Any]:
    """How long sessions live, where our own options do not say it."""
    found: dict[str, Any] = {}
    if not app.config["SESSION_REFRESH_EACH_REQUEST"]:
        found["touch_interval"] = None
    if not {"profile", "idle_timeout", "absolute_timeout"} & own.keys():
        lifetime = app.permanent_session_lifetime.total_seconds()
        found["idle_timeout"] = lifetime
        found["absolute_timeout"] = max(lifetime, 30 * DAY)
    return found


def _secrets(app: Flask, settings: Mapping[str, Any]) -> list[bytes]:
    """The application's keys, the newest first.

    A key that could be guessed is left out where tokens are safe without a signature, so
    that a tutorial's "dev" does no harm; it is refused where all depends on it.
    """
    newest = app.config["SECRET_KEY"]
    keys = [newest, *(app.config.get("SECRET_KEY_FALLBACKS") or ())] if newest else []
    octets = [key.encode() if isinstance(key, str) else bytes(key) for key in keys]
    kind = settings.get("type") or str(settings.get("url")).partition(":")[0]
    if kind == "cookie" or settings.get("encrypt"):
        return octets
    sound = [key for key in octets if not weakness(key)]
    return sound if sound[:1] == octets[:1] else []


def _warn_of_typing_errors(unknown: Iterable[str], known: Iterable[str]) -> None:
    for name in sorted(unknown):
        if near := difflib.get_close_matches(name, known, n=1, cutoff=0.8):
            log.warning(
                "SESSION_%s is no option of wsgisession; did you mean SESSION_%s?",
                name.upper(),
                near[0].upper(),
            )
