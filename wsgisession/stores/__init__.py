"""The stores by name and by URL; each is imported when it is asked for, never before.

The keyword arguments of a store's class are its options.  A package elsewhere adds a
store by an entry point of the group ``wsgisession.stores``, whose name is both the
``type`` and the scheme of its URLs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import ConfigurationError
from ..store import Store

GROUP = "wsgisession.stores"

Arguments = dict[str, Any]


def _whole_url(url: str) -> Arguments:
    return {"url": url}


def _no_url(url: str) -> Arguments:
    scheme, *rest = urlsplit(url)
    if any(rest):
        raise ConfigurationError(f"nothing may follow the scheme in url '{scheme}:'")
    return {}


def _path(url: str) -> Arguments:
    parts = urlsplit(url)
    if parts.netloc or not parts.path or parts.query or parts.fragment:
        raise ConfigurationError(
            "a file url is a folder, written with three slashes and no more, as in "
            "file:///var/lib/app/sessions"
        )
    return {"data_dir": unquote(parts.path)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    module: str
    name: str
    extra: str | None
    schemes: tuple[str, ...]
    arguments: Callable[[str], Arguments] = _whole_url


_KNOWN = {
    "memory": _Known(
        module=".memory",
        name="MemoryStore",
        extra=None,
        schemes=("memory",),
        arguments=_no_url,
    ),
    "file": _Known(
        module=".file",
        name="FileStore",
        extra="file",
        schemes=("file",),
        arguments=_path,
    ),
    "redis": _Known(
        module=".redis",
        name="RedisStore",
        extra="redis",
        schemes=("redis", "rediss", "unix", "redis+sentinel", "redis+cluster"),
    ),
    "sqlalchemy": _Known(
        module=".sqlalchemy",
        name="SQLAlchemyStore",
        extra="sqlalchemy",
        schemes=("sqlite", "postgresql", "mysql", "mariadb"),
    ),
    "cookie": _Known(
        module=".cookie",
        name="CookieStore",
        extra=None,
        schemes=("cookie",),
        arguments=_no_url,
    ),
}

_IMPLIED = {"data_dir": "file", "client": "redis", "engine": "sqlalchemy"}
"""Options that only one type of store has, so that the type need not be given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A store that has been chosen and not yet made."""

    make: Callable[..., Any]
    arguments: Arguments
    """What follows from the URL."""
    options: frozenset[str]
    """The names of the options it understands."""
    needed: frozenset[str]
    """Those of them that it cannot do without."""


def choose(settings: Mapping[str, Any]) -> Choice:
    """The store that the settings name by ``url`` or ``type``.

    Raises ``ConfigurationError`` for a store that is unknown, or not installed.
    """
    url, kind = settings.get("url"), settings.get("type")
    if url is not None and kind is not None:
        raise ConfigurationError("give url or type, not both: a url says the type")
    if url is not None:
        return _by_url(url)
    if kind is None:
        implied = {_IMPLIED[name] for name in settings if name in _IMPLIED}
        if len(implied) != 1:
            raise ConfigurationError(
                "no store: give session.url, such as redis://localhost/0 or "
                "file:///var/lib/app/sessions, or session.type; 'memory' is for one "
                f"process.  Types: {', '.join(_types())}"
            )
        (kind,) = implied
    return _choice(_load(kind), {})


def encrypted(store: Store, secret: Sequence[bytes]) -> Store:
    """The store with encryption around it; it can what ``store`` can."""
    from .sealed import sealed

    return sealed(store, secret)


def _by_url(url: Any) -> Choice:
    # Whatever it says, it may hold a password: only the scheme is ever repeated.
    scheme = urlsplit(url).scheme if isinstance(url, str) else ""
    for kind, known in _KNOWN.items():
        driver = kind == "sqlalchemy" and scheme.partition("+")[0] in known.schemes
        if scheme in known.schemes or driver:
            return _choice(_load(kind), known.arguments(url))
    if scheme in _entry_points():
        return _choice(_load(scheme), {"url": url})
    schemes = sorted(scheme for known in _KNOWN.values() for scheme in known.schemes)
    raise ConfigurationError(
        f"url begins with {scheme + ':' if scheme else 'no scheme'!r}; "
        f"known are {', '.join(s + ':' for s in [*schemes, *_entry_points()])}"
    )


def _choice(make: Callable[..., Any], arguments: Arguments) -> Choice:
    parameters = inspect.signature(make).parameters
    return Choice(
        make=make,
        arguments=arguments,
        options=frozenset(parameters),
        needed=frozenset(n for n, p in parameters.items() if p.default is p.empty),
    )


def _load(kind: Any) -> Callable[..., Any]:
    known = _KNOWN.get(kind) if isinstance(kind, str) else None
    if known is None:
        points = _entry_points()
        if not isinstance(kind, str) or kind not in points:
            raise ConfigurationError(
                f"there is no store type {kind!r}; known are {', '.join(_types())}"
            )
        loaded: Callable[..., Any] = points[kind].load()
        return loaded
    try:
        module = import_module(known.module, __name__)
    except ImportError as error:
        if known.extra is None or (error.name or "").startswith("wsgisession"):
            raise
        raise ConfigurationError(
            f"the {kind} store needs {error.name}; install it with: "
            f'python -m pip install "wsgisession-middleware[{known.extra}]"'
        ) from error
    made: Callable[..., Any] = getattr(module, known.name)
    return made


def _types() -> list[str]:
    return sorted([*_KNOWN, *_entry_points()])


def _entry_points() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=GROUP)}
