"""Beaker's options: what each has become, was replaced by, or why it is no longer needed.

The table is data, so that the documentation is made of it.  This file knows options
alone, and nothing of sessions.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..._crypto.secret import SHORTEST
from ...errors import ConfigurationError
from ...manager import SessionManager
from ...options import refuse_unknown

log = logging.getLogger("wsgisession")

PREFIXES = ("beaker.session.", "session.")


class Fate(Enum):
    """What becomes of an option of Beaker's."""

    MAPPED = "mapped"
    REFUSED = "refused"
    NOT_NEEDED = "not needed"


@dataclass(frozen=True, slots=True)
class Row:
    """An option of Beaker's and its fate.

    ``said`` is ours where it is mapped by another name, else the reason.
    """

    name: str
    fate: Fate
    said: str


_MEMCACHED = "memcached forgets sessions; give url=redis://... or a database"
_OWN_STORE = "a store of your own is given as store=...; see wsgisession.store"

TABLE = (
    Row("type", Fate.MAPPED, "type"),
    Row("data_dir", Fate.MAPPED, "data_dir, in a folder wsgisession below it"),
    Row("file_dir", Fate.MAPPED, "data_dir"),
    Row("url", Fate.MAPPED, "url, or client for a client of redis-py"),
    Row("table_name", Fate.MAPPED, "table_name: a new one, not Beaker's table"),
    Row("schema_name", Fate.MAPPED, "schema"),
    Row("bind", Fate.MAPPED, "engine"),
    Row("key", Fate.MAPPED, "cookie_name"),
    Row("secret", Fate.MAPPED, "secret, made 256 bits long"),
    Row("validate_key", Fate.MAPPED, "secret, made 256 bits long"),
    Row("encrypt_key", Fate.MAPPED, "encrypt=True, with a secret made of it"),
    Row("timeout", Fate.MAPPED, "idle_timeout; without it 14 days"),
    Row("save_accessed_time", Fate.MAPPED, "touch_interval: None where it is False"),
    Row("auto", Fate.MAPPED, "auto; False where it is not given"),
    Row("cookie_expires", Fate.MAPPED, "expire_at_browser_close, absolute_timeout"),
    Row("cookie_domain", Fate.MAPPED, "cookie_domain"),
    Row("cookie_path", Fate.MAPPED, "cookie_path"),
    Row("secure", Fate.MAPPED, "cookie_secure: True, or 'auto'"),
    Row("httponly", Fate.MAPPED, "cookie_httponly; True where it is not given"),
    Row("samesite", Fate.MAPPED, "cookie_samesite"),
    Row("data_serializer", Fate.MAPPED, "serializer: json, or an object"),
    Row("webtest_varname", Fate.MAPPED, "the name in paste.testing_variables"),
    Row("lock_dir", Fate.NOT_NEEDED, "locks are kept beside the sessions"),
    Row("digest_filenames", Fate.NOT_NEEDED, "names of files are hashes, always"),
    Row("encrypt_nonce_bits", Fate.NOT_NEEDED, "each message has a key of its own"),
    Row("crypto_type", Fate.NOT_NEEDED, "there is one way to encrypt"),
    Row("invalidate_corrupt", Fate.NOT_NEEDED, "what cannot be read counts as absent"),
    Row("log_file", Fate.NOT_NEEDED, "the log is that of logging"),
    Row("use_cookies", Fate.REFUSED, "make Session(..., use_cookies=False) yourself"),
    Row("id", Fate.REFUSED, "all visitors would share one session"),
    Row("sa_opts", Fate.REFUSED, "make the engine yourself and give engine=..."),
    Row("table", Fate.REFUSED, "the columns are our own; give table_name=..."),
    Row("urls", Fate.REFUSED, "give url=redis+cluster://host:port"),
    Row("memcache_module", Fate.REFUSED, _MEMCACHED),
    Row("session_class", Fate.REFUSED, "use session.view(YourSession) in your code"),
    Row("namespace_class", Fate.REFUSED, _OWN_STORE),
    Row("dbm_dir", Fate.REFUSED, "give type=file and data_dir=..."),
    Row("dbmmodule", Fate.REFUSED, "give type=file and data_dir=..."),
)

TYPES = {
    "memory": "memory",
    "file": "file",
    "cookie": "cookie",
    "ext:database": "sqlalchemy",
    "ext:sqla": "sqlalchemy",
    "ext:redis": "redis",
}

TYPES_REFUSED = {
    "dbm": "give type=file and data_dir=...",
    "ext:memcached": _MEMCACHED,
    "ext:rediscluster": "give url=redis+cluster://host:port",
    "ext:mongodb": "give url=redis://... or a database of SQLAlchemy",
    "ext:google": "give url=redis://... or a database of SQLAlchemy",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What Beaker's options come to."""

    ours: dict[str, Any]
    """For ``SessionManager.from_config()``."""
    webtest_varname: str | None


def settings_of(config: Mapping[str, Any] | None, given: Mapping[str, Any]) -> Settings:
    """Our options by those of Beaker, bare or prefixed; ours are taken beside them.

    Raises ``ConfigurationError`` for what is unknown, refused or wrong.
    """
    asked = {**_bare(config or {}), **_without_prefixes(given)}
    varname = asked.pop("webtest_varname", None)
    found: dict[str, Any] = {"cookie_name": "beaker.session.id", "auto": False}
    found |= {"expire_at_browser_close": True}
    _choose_store(asked, found)
    rows = {row.name: row for row in TABLE}
    for name, value in asked.items():
        row = rows.get(name)
        if row is None:
            found[name] = value  # ours
        elif row.fate is Fate.REFUSED:
            raise ConfigurationError(f"Beaker's option {name} is refused: {row.said}")
        elif row.fate is Fate.MAPPED and value is not None:
            found |= _mapped(name, value)
        elif name == "samesite":
            found["cookie_samesite"] = False
    found |= _secrets(asked)
    refuse_unknown(found, {*SessionManager.option_names(found), *rows})
    return Settings(ours=found, webtest_varname=varname)


def _bare(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without their prefixes; where any has one the others belong to something else."""
    found = {key: v for key, v in config.items() if key.startswith(PREFIXES)}
    return _without_prefixes(found or config)


def _without_prefixes(config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        prefix = next((known for known in PREFIXES if key.startswith(known)), "")
        found[key.removeprefix(prefix)] = value
    return found


def _choose_store(asked: dict[str, Any], found: dict[str, Any]) -> None:
    """Take what says where the sessions are, with Beaker's rules for what is missing."""
    if {"store", "client", "engine", "cache_url"} & asked.keys():
        return
    kind, folder = asked.pop("type", None), asked.pop("data_dir", None)
    folder = asked.pop("file_dir", None) or folder
    url = asked.pop("url", None)
    if kind in TYPES_REFUSED:
        raise ConfigurationError(f"Beaker's type {kind}: {TYPES_REFUSED[kind]}")
    if kind is None and url is None:
        kind = "file" if folder else "memory"
    kind = TYPES.get(kind, kind)
    if kind == "file" and folder:
        found |= {"type": "file", "data_dir": str(Path(folder) / "wsgisession")}
    elif url is not None and not isinstance(url, str):
        found |= {"type": kind, "client": url}
    elif url is not None:
        # Beaker's urls of Redis may be no more than a host.
        is_host = kind == "redis" and "://" not in url
        found["url"] = f"redis://{url}" if is_host else url
    elif asked.get("bind") is None:
        found["type"] = kind


def _mapped(name: str, value: Any) -> dict[str, Any]:
    if name == "cookie_expires":
        return _cookie_expires(value)
    if name == "save_accessed_time":
        return {} if _flag(value) else {"touch_interval": None}
    if name == "secure":
        return {"cookie_secure": True if _flag(value) else "auto"}
    if name == "data_serializer":
        if value == "pickle":
            raise ConfigurationError(
                "data_serializer=pickle: who can write to the store can run code; "
                "leave it out: JSON here reads dates, tuples, sets and bytes back too"
            )
        return {"serializer": value}
    ours = {
        "schema_name": "schema",
        "bind": "engine",
        "key": "cookie_name",
        "timeout": "idle_timeout",
        "httponly": "cookie_httponly",
        "samesite": "cookie_samesite",
    }
    if name in ("secret", "validate_key", "encrypt_key"):
        return {}  # together, below
    return {ours.get(name, name): value}


def _cookie_expires(value: Any) -> dict[str, Any]:
    """True: with the browser; False: not by itself; else seconds from its beginning."""
    if isinstance(value, datetime):
        raise ConfigurationError(
            "cookie_expires is one date for all sessions; give a number of seconds or a "
            "timedelta"
        )
    if str(value).lower() in ("true", "false"):
        return {"expire_at_browser_close": _flag(value)}
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    return {"expire_at_browser_close": False, "absolute_timeout": seconds}


def _flag(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "yes", "on", "y", "t", "1")


def _secrets(asked: Mapping[str, Any]) -> dict[str, Any]:
    """One secret of Beaker's, which may be as short as one likes."""
    text = asked.get("encrypt_key") or asked.get("validate_key") or asked.get("secret")
    if not text:
        return {}
    octets = text if isinstance(text, bytes) else str(text).encode()
    if len(octets) < SHORTEST:
        log.warning(
            "Beaker's secret has %d octets; with fewer than %d it may be guessed",
            len(octets),
            SHORTEST,
        )
    found: dict[str, Any] = {
        "secret": hmac.digest(octets, b"wsgisession.integrations.beaker", sha256)
    }
    return {**found, "encrypt": True} if asked.get("encrypt_key") else found
