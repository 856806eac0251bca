"""The stores by name and by url; each is imported when it is asked for, never before.

The keyword parameters of a store's class are its options.  Where one has the name of an
option of ours it is given what ``Options`` holds, so that each option has one home.  A
package elsewhere adds a store by an entry point of the group ``wsgisession.stores``,
whose name is both the ``type`` and the scheme of its urls.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any
from urllib.parse import unquote

from .. import _settings as read
from ..errors import ConfigurationError
from ..options import Options
from ..store import Store

__all__: tuple[str, ...] = ()
"""Nothing for applications: a store is imported from its own module."""

GROUP = "wsgisession.stores"

SELECTORS = ("store", "url", "type")
"""The settings of which one says which store it is."""

CACHED = "cached"
"""The type that a ``url`` may stand beside: that of the store behind the cache."""

OF_A_CACHE = ("cache_url", "cache_ttl")

Arguments = dict[str, Any]


# -- urls --------------------------------------------------------------------------------
# A url may hold a password, whatever it was meant to be: only its scheme is repeated.


def _whole_url(url: str) -> Arguments:
    return {"url": url}


def _no_more(url: str) -> Arguments:
    scheme, _, rest = url.partition(":")
    if rest.strip("/"):
        raise ConfigurationError(f"nothing may follow the scheme in url '{scheme}:'")
    return {}


def _folder(url: str) -> Arguments:
    """The folder of a file url (RFC 8089): an absolute path and nothing else."""
    match = re.fullmatch(r"(?i:file)://(/[^?#]*)", url)
    path = unquote(match[1]) if match else ""
    if path.startswith("/~"):
        raise ConfigurationError(
            "~ has no meaning in a file url: write the whole path, as in "
            "file:///home/ann/sessions"
        )
    if path.strip("/"):
        return {"data_dir": path}
    raise ConfigurationError(
        "a file url is an absolute path after three slashes, as in "
        "file:///var/lib/app/sessions (? and # are written %3F and %23); for a folder "
        "below the working directory give type 'file' and data_dir"
    )


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
        arguments=_no_more,
    ),
    "file": _Known(
        module=".file",
        name="FileStore",
        extra="file",
        schemes=("file",),
        arguments=_folder,
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
        arguments=_no_more,
    ),
}

_EXAMPLES = {"data_dir": "/var/lib/app/sessions"}

_IMPLIED = {"data_dir": "file", "client": "redis", "engine": "sqlalchemy"}
"""Options that only one type of store has, so that the type need not be given."""

_MEANT = {
    "postgres": "postgresql",
    "sqlite3": "sqlite",
    "valkey": "redis",
    "valkeys": "rediss",
}
"""What other programs call a scheme."""


# -- the choice --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A store that has been chosen and not yet made."""

    make: Callable[..., Any]
    parameters: Mapping[str, inspect.Parameter]
    """What it is made of, by name."""
    from_url: Arguments
    """What follows from the url."""

    @property
    def options(self) -> frozenset[str]:
        """The names of the options it understands."""
        return frozenset(self.parameters)

    def made(self, settings: Mapping[str, Any], options: Options) -> Any:
        """The store, made of those settings that are its own, and of what it shares.

        Raises ``ConfigurationError`` for what is missing or given twice, and whatever
        its class raises.
        """
        shared = self.options & set(Options.names())
        own = {
            name: self._read(name, value)
            for name, value in settings.items()
            if name in self.options - shared and self.from_url.get(name) is not value
        }
        for name in own.keys() & self.from_url.keys():
            raise ConfigurationError(f"{name} is given twice, once by the url")
        arguments = {name: getattr(options, name) for name in shared}
        arguments |= self.from_url | own
        for name, parameter in self.parameters.items():
            if parameter.default is parameter.empty and name not in arguments:
                raise ConfigurationError(
                    f"this store needs the option {name}"
                    + (f", such as {_EXAMPLES[name]}" if name in _EXAMPLES else "")
                )
        return self.make(**arguments)

    def _read(self, name: str, value: Any) -> Any:
        """A value as the annotation of its parameter wants it, where it is text."""
        if not isinstance(value, str):
            return value
        if name == "revocation":
            return store_at(value, name)
        annotation = self.parameters[name].annotation
        kind, _, none = str(getattr(annotation, "__name__", annotation)).partition(
            " | "
        )
        reader = _READERS.get(kind)
        if reader is None:
            return value
        return (
            read.maybe(reader)(name, value) if none == "None" else reader(name, value)
        )


_READERS = {"bool": read.flag, "int": read.whole(0), "float": read.seconds(0)}
"""How text is read for a parameter of a store; a float is a number of seconds."""


def choose(settings: Mapping[str, Any]) -> Choice:
    """The store that the settings name by ``store``, ``url`` or ``type``.

    Raises ``ConfigurationError`` for a store that is unknown, or not installed.
    """
    if settings.get("type") == CACHED or settings.get("cache_url") is not None:
        return _cached(settings)
    given = [name for name in SELECTORS if settings.get(name) is not None]
    if len(given) > 1:
        raise ConfigurationError(
            f"give {' or '.join(given)}, not both: each says which store it is"
        )
    if given == ["store"]:
        return Choice(make=lambda: settings["store"], parameters={}, from_url={})
    if given == ["url"]:
        return _by_url(settings["url"])
    if given == ["type"]:
        return _choice(_load(settings["type"]), {})
    implied = {_IMPLIED[name] for name in settings if name in _IMPLIED}
    if len(implied) == 1:
        return _choice(_load(implied.pop()), {})
    raise ConfigurationError(
        "no store: give session.url, such as redis://localhost/0 or "
        "file:///var/lib/app/sessions, or session.type; 'memory' is for one process.  "
        f"Types: {', '.join(_types())}"
    )


def store_at(url: str, option: str) -> Store:
    """The store of a url that is given as an option, beside the store of the sessions.

    On the same server it has a namespace of its own, so that nothing in it is taken for
    a session.  Raises ``ConfigurationError`` where a url is not enough to make it.
    """
    chosen, purpose = choose({"url": url}), option.removesuffix("_url")
    if "secret" in chosen.options:
        raise ConfigurationError(
            f"{option} must be a store on the server, such as redis://localhost/0"
        )
    places = {
        "key_prefix": f"session-{purpose}:",
        "table_name": f"wsgisession_{purpose}",
    }
    own = {name: place for name, place in places.items() if name in chosen.options}
    store: Store = chosen.made({"url": url, **own}, Options())
    return store


def _cached(settings: Mapping[str, Any]) -> Choice:
    """A cache in front of the store that the other settings choose."""
    if "cache_url" not in settings:
        raise ConfigurationError(
            "the cached store needs the option cache_url, such as redis://localhost/1 "
            "(memory: for a cache in each process), beside the url of the store behind"
        )
    rest = {name: value for name, value in settings.items() if name not in OF_A_CACHE}
    if rest.get("type") == CACHED:
        del rest["type"]
    behind = choose(rest)
    folder = behind.from_url.get("data_dir", rest.get("data_dir"))
    if folder and choose({"url": settings["cache_url"]}).from_url == {
        "data_dir": folder
    }:
        raise ConfigurationError(
            "cache_url names the folder of the sessions themselves"
        )

    def make(cache_url: str, cache_ttl: float = 10.0, **arguments: Any) -> Any:
        from .cached import CachedStore

        cache = store_at(cache_url, "cache_url")
        return CachedStore(behind.make(**arguments), cache, cache_ttl=cache_ttl)

    parameters = inspect.signature(make).parameters
    mine = {name: parameters[name] for name in OF_A_CACHE}
    return Choice(
        make=make,
        parameters={**behind.parameters, **mine},
        from_url=behind.from_url,
    )


def encrypted(store: Store, secret: Sequence[bytes]) -> Store:
    """The store with encryption around it; it can what ``store`` can."""
    from .sealed import SealedStore

    return SealedStore(store, secret)


def owners(option: str) -> list[str]:
    """The types of our own stores that have an option of that name, if installed."""
    found = [CACHED] if option in OF_A_CACHE else []
    for kind in _KNOWN:
        with suppress(ConfigurationError):  # its package is not installed
            if option in _choice(_load(kind), {}).options:
                found.append(kind)
    return found


def _by_url(url: Any) -> Choice:
    if not isinstance(url, str):
        raise ConfigurationError(
            f"url must be text, not {type(url).__name__}; a folder is given as data_dir, "
            "an engine of SQLAlchemy as engine, a client of redis-py as client"
        )
    match = re.match(r"([a-z][a-z0-9+.-]+):", url, re.IGNORECASE)
    if match is None:  # also where a drive of Windows looks like a scheme
        raise ConfigurationError(
            "url has no scheme; write file:///var/lib/app/sessions for a folder, "
            "redis://host/0 for a server; known are " + _schemes()
        )
    scheme = match[1].lower()
    for kind, known in _KNOWN.items():
        is_driver = kind == "sqlalchemy" and scheme.partition("+")[0] in known.schemes
        if scheme in known.schemes or is_driver:
            return _choice(_load(kind), known.arguments(url))
    if scheme in _entry_points():
        return _choice(_load(scheme), {"url": url})
    dialect, plus, driver = scheme.partition("+")
    if dialect in _MEANT:
        raise ConfigurationError(
            f"url begins with '{scheme}:'; write '{_MEANT[dialect]}{plus}{driver}:'"
        )
    raise ConfigurationError(f"url begins with '{scheme}:'; known are {_schemes()}")


def _schemes() -> str:
    schemes = sorted(scheme for known in _KNOWN.values() for scheme in known.schemes)
    return ", ".join(f"{scheme}:" for scheme in [*schemes, *_entry_points()])


def _choice(make: Callable[..., Any], from_url: Arguments) -> Choice:
    """What a store is made of; the options that it gathers in ``**`` have no names."""
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return Choice(make=make, parameters=parameters, from_url=from_url)


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


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
