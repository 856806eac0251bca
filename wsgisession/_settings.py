"""What may be given for an option: its type, and how a value of that type is read.

This file knows neither defaults nor sessions and does no I/O.  A reader is given the
name of an option and a value, returns the value in its one form, and raises
``ConfigurationError`` for what it does not take.  Readers take text too, so that an
option may come from an ``.ini`` file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from typing import Any, Literal, TypeAlias, TypedDict

from ._crypto.secret import weakness
from .errors import ConfigurationError
from .events import Event
from .serializers import JSONSerializer, Serializer

DAY = 86400

LONGEST = 400 * DAY
"""Seconds a browser keeps a cookie at most (RFC 6265bis 5.5)."""

Environ: TypeAlias = dict[str, Any]
Flag: TypeAlias = bool | str
Duration: TypeAlias = float | str | timedelta
"""Seconds, a ``timedelta``, or text such as ``"30m"``, ``"12h"`` or ``"14d"``."""
Count: TypeAlias = int | str
"""A whole number; text may have a unit: ``"64 KiB"``."""
Secret: TypeAlias = str | bytes

Read: TypeAlias = Callable[[str, Any], Any]


class Settings(TypedDict, total=False):
    """The options and what is accepted for each; ``Options`` says what they mean."""

    cookie_name: str
    cookie_path: str | Callable[[Environ], str]
    cookie_domain: str | Callable[[Environ], str | None] | None
    cookie_secure: Literal["auto"] | Flag
    cookie_httponly: Flag
    cookie_samesite: Literal["Lax", "Strict", "None", False]
    cookie_partitioned: Flag
    cookie_chunks: Count
    expire_at_browser_close: Flag

    profile: Literal["nist-aal1", "nist-aal2", "nist-aal3"] | None
    idle_timeout: Duration
    absolute_timeout: Duration | None
    touch_interval: Duration | None
    rotate_every: Duration | None
    rotate_grace: Duration
    cleanup_every: Duration | Literal[False]

    max_sessions_per_user: Count | None
    at_session_limit: Literal["evict", "refuse"]

    secret: Secret | Iterable[Secret]

    locking: Literal["auto", "always", "never"] | Callable[[Environ], bool]
    replay: Flag
    on_conflict: Literal["ours", "raise"] | Callable[[Any], Mapping[str, Any]]
    lock_wait: Duration
    lock_lease: Duration
    lock_waiters: Count
    cross_site_posts: Flag

    auto: Flag
    save_every_request: Flag
    save_on_error: Flag

    serializer: str | Serializer | type[Serializer]
    max_size: Count
    encrypt: Flag

    on_store_error: Literal["raise", "anonymous"]
    on_event: Callable[[Event], object] | None


def _refused(name: str, allowed: str, value: Any) -> ConfigurationError:
    return ConfigurationError(f"{name} must be {allowed}, not {value!r}")


def _word(value: Any) -> str | None:
    return value.strip().lower() if isinstance(value, str) else None


# -- flags and words ---------------------------------------------------------------------


def flag(name: str, value: Any) -> bool:
    """True or False, or a word that says so."""
    if isinstance(value, bool):
        return value
    word = _word(value)
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise _refused(name, "true or false", value)


def auto_or_flag(name: str, value: Any) -> bool | str:
    """``"auto"``, or what a flag may be."""
    if _word(value) == "auto":
        return "auto"
    try:
        return flag(name, value)
    except ConfigurationError:
        raise _refused(name, "'auto', true or false", value) from None


def one_of(*allowed: str) -> Read:
    """One of some words, in whatever case."""

    def read(name: str, value: Any) -> str:
        for word in allowed:
            if _word(value) == word.lower():
                return word
        raise _refused(name, " or ".join(map(repr, allowed)), value)

    return read


def one_of_or_false(*allowed: str) -> Read:
    """One of some words, or False."""
    read_word = one_of(*allowed)

    def read(name: str, value: Any) -> str | bool:
        if value is False or _word(value) == "false":
            return False
        try:
            word: str = read_word(name, value)
        except ConfigurationError:
            words = ", ".join(map(repr, allowed))
            raise _refused(name, f"{words} or False", value) from None
        return word

    return read


def called(name: str, value: Any) -> Any:
    """A callable."""
    if callable(value):
        return value
    raise _refused(name, "a callable", value)


def one_of_or_called(*allowed: str) -> Read:
    """One of some words, or a callable."""

    def read(name: str, value: Any) -> Any:
        if callable(value) or _word(value) in allowed:
            return _word(value) or value
        raise _refused(name, f"{', '.join(map(repr, allowed))} or a callable", value)

    return read


# -- what may be absent, or be a callable ------------------------------------------------


def maybe(read_value: Read) -> Read:
    """None, also as the text ``"none"`` or ``""``; else what ``read_value`` takes."""

    def read(name: str, value: Any) -> Any:
        absent = value is None or _word(value) in ("", "none")
        return None if absent else read_value(name, value)

    return read


def off_or(read_value: Read) -> Read:
    """False; else what ``read_value`` takes."""

    def read(name: str, value: Any) -> Any:
        is_off = value is False or _word(value) == "false"
        return False if is_off else read_value(name, value)

    return read


def or_called(read_value: Read) -> Read:
    """A callable; else what ``read_value`` takes."""

    def read(name: str, value: Any) -> Any:
        return value if callable(value) else read_value(name, value)

    return read


# -- numbers -----------------------------------------------------------------------------


def seconds(at_least: float, at_most: float = LONGEST) -> Read:
    """Seconds: a number, a ``timedelta``, or text such as ``"30m"``."""

    def read(name: str, value: Any) -> float:
        number = _seconds(value)
        if number is None or math.isnan(number):
            raise _refused(name, "seconds, or a duration such as '30m' or '14d'", value)
        if not at_least <= number <= at_most:
            limits = f"from {at_least:g} to {at_most:g} seconds"
            if at_most == LONGEST:
                limits += " (400 days, the longest that browsers keep a cookie)"
            raise _refused(name, limits, value)
        return number

    return read


def _seconds(value: Any) -> float | None:
    units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*", value, re.ASCII)
        return float(match[1]) * units[match[2]] if match else None
    return None


def whole(at_least: int, at_most: float = math.inf) -> Read:
    """A whole number; text may have the unit KiB or MiB."""
    units = {"": 1, "kib": 1024, "mib": 1024**2}

    def read(name: str, value: Any) -> int:
        number: int | None = None
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        elif match := re.fullmatch(r"(\d{1,15})\s*([a-z]*)", _word(value) or "", re.A):
            number = int(match[1]) * units[match[2]] if match[2] in units else None
        if number is None or not at_least <= number <= at_most:
            limit = "" if at_most == math.inf else f" to {at_most}"
            raise _refused(name, f"a whole number from {at_least}{limit}", value)
        return number

    return read


# -- parts of a cookie -------------------------------------------------------------------


def _text(pattern: str, allowed: str) -> Read:
    def read(name: str, value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise _refused(name, allowed, value)

    return read


cookie_name = _text(
    # The names of attributes would be read as such, and $ began one in RFC 2965.
    r"(?!(?i:comment|domain|expires|httponly|max-age|path|samesite|secure|version)\Z)"
    r"(?!\$)[!#$%&'*+\-.^_`|~0-9A-Za-z]+",
    "a cookie name (RFC 6265bis: letters, digits and !#%&'*+-.^_`|~) that is not one "
    "of an attribute",
)
cookie_path = _text(
    r"/[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*",
    'a path that begins with / and has neither blanks nor any of "\\,;',
)
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
cookie_domain = _text(rf"\.?{_LABEL}(\.{_LABEL})*", "a host name")


# -- objects -----------------------------------------------------------------------------


def serializer(name: str, value: Any) -> Serializer:
    """``"json"``, an object, its class, or the dotted path of either."""
    if _word(value) == "json":
        return JSONSerializer()
    made = _imported(name, value) if isinstance(value, str) else value
    if isinstance(made, type):
        try:
            made = made()
        except Exception as error:
            raise ConfigurationError(
                f"{name} {value!r} cannot be made without arguments; give the object"
            ) from error
    if all(callable(getattr(made, m, None)) for m in ("dumps", "loads")):
        found: Serializer = made
        return found
    raise _refused(
        name, "'json', an object with dumps and loads, its class or dotted path", value
    )


def _imported(name: str, path: str) -> Any:
    """What a dotted path leads to; a path without a dot is no path."""
    module, dot, attribute = path.strip().replace(":", ".").rpartition(".")
    if not (dot and module and attribute):
        raise _refused(name, "'json' or a dotted path such as shop.data.Packer", path)
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{name} {path!r} cannot be imported") from error


def secrets(name: str, value: Any) -> tuple[bytes, ...]:
    """One secret or several; in text they stand on lines of their own."""
    if isinstance(value, str):
        value = value.strip().split("\n")
    elif isinstance(value, bytes):
        value = [value]
    if not isinstance(value, Iterable):
        raise ConfigurationError(
            f"{name} must be text, bytes or a list of them, not {value!r}; make one "
            "with: python -m wsgisession secret (for none the option is left out)"
        )
    found = tuple(_octets(name, each) for each in value)
    for each in found or (b"",):
        problem = weakness(each)
        if problem is not None:
            raise ConfigurationError(
                f"{name} {problem}; make one with: python -m wsgisession secret, or "
                'python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
    return found


def _octets(name: str, secret: Any) -> bytes:
    if isinstance(secret, bytes):
        return secret
    if isinstance(secret, str):
        with suppress(UnicodeEncodeError):
            return secret.strip().encode()
    raise ConfigurationError(f"{name} must be text or bytes")


def user_id(user: object) -> str:
    """The id of a user as text; TypeError for what can be none."""
    if isinstance(user, int) and not isinstance(user, bool):
        return str(int(user))
    if isinstance(user, str) and user:
        return str(user)
    wrong = "an empty one" if user == "" else type(user).__name__
    raise TypeError(f"the id of a user is a string or a whole number, not {wrong}")
