"""Every option of a session, its default and its danger, checked once and for all.

This file does no I/O and knows no store; the options of a store are the keyword
arguments of its class.  What an ``Options`` object holds has been checked and converted,
so nobody checks it again.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal

from .errors import ConfigurationError
from .secret import weakness

PREFIX = "session."
DAY = 86400
LONGEST = 400 * DAY
"""Seconds a browser keeps a cookie at most (RFC 6265bis 5.5)."""

COOKIE_OCTETS = 4096
"""What a browser keeps of one cookie, its name and attributes included (RFC 6265 6.1)."""

ALIASES = {
    "key": "cookie_name",
    "timeout": "idle_timeout",
    "secure": "cookie_secure",
    "httponly": "cookie_httponly",
    "samesite": "cookie_samesite",
    "data_serializer": "serializer",
}
"""Beaker's names of what is the same here."""

Read = Callable[[str, Any], Any]


def _option(default: Any, read: Read) -> Any:
    return field(default=default, metadata={"read": read})


# -- how a value is read -----------------------------------------------------------------


def _refuse(name: str, allowed: str, value: Any) -> ConfigurationError:
    return ConfigurationError(f"{name} must be {allowed}, not {value!r}")


def _boolean(name: str, value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise _refuse(name, "true or false", value)


def _one_of(*allowed: str) -> Read:
    def read(name: str, value: Any) -> str:
        for word in allowed:
            if isinstance(value, str) and value.strip().lower() == word.lower():
                return word
        raise _refuse(name, " or ".join(map(repr, allowed)), value)

    return read


def _auto_or_boolean(name: str, value: Any) -> bool | str:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    try:
        return _boolean(name, value)
    except ConfigurationError:
        raise _refuse(name, "'auto', true or false", value) from None


def _called(name: str, value: Any) -> Any:
    if callable(value):
        return value
    raise _refuse(name, "a callable", value)


def _one_of_or_called(*allowed: str) -> Read:
    def read(name: str, value: Any) -> Any:
        word = value.strip().lower() if isinstance(value, str) else None
        if callable(value) or word in allowed:
            return word or value
        raise _refuse(name, f"{', '.join(map(repr, allowed))} or a callable", value)

    return read


def _maybe(read_value: Read) -> Read:
    def read(name: str, value: Any) -> Any:
        none = value is None or (
            isinstance(value, str) and value.strip().lower() in ("", "none")
        )
        return None if none else read_value(name, value)

    return read


def _seconds(at_least: float, at_most: float = LONGEST) -> Read:
    units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}

    def read(name: str, value: Any) -> float:
        number: float | None = None
        if isinstance(value, timedelta):
            number = value.total_seconds()
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            number = float(value)
        elif isinstance(value, str) and (
            match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*", value)
        ):
            number = float(match[1]) * units[match[2]]
        if number is None or number != number:
            raise _refuse(name, "seconds, or a duration such as '30m' or '14d'", value)
        if not at_least <= number <= at_most:
            limits = f"from {at_least:g} to {at_most:g} seconds"
            if at_most == LONGEST:
                limits += " (400 days, the longest that browsers keep a cookie)"
            raise _refuse(name, limits, value)
        return number

    return read


def _whole(at_least: int, at_most: float = math.inf) -> Read:
    units = {"": 1, "kib": 1024, "mib": 1024**2}

    def read(name: str, value: Any) -> int:
        number: int | None = None
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        elif isinstance(value, str) and (
            match := re.fullmatch(r"\s*(\d+)\s*([a-z]*)\s*", value.lower())
        ):
            number = int(match[1]) * units[match[2]] if match[2] in units else None
        if number is None or not at_least <= number <= at_most:
            limit = "" if at_most == math.inf else f" to {at_most}"
            raise _refuse(name, f"a whole number from {at_least}{limit}", value)
        return number

    return read


def _text(pattern: str, allowed: str) -> Read:
    def read(name: str, value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise _refuse(name, allowed, value)

    return read


def _serializer(name: str, value: Any) -> Any:
    if isinstance(value, str) and value.strip().lower() == "json":
        return "json"
    if all(callable(getattr(value, m, None)) for m in ("dumps", "loads")):
        return value
    raise _refuse(name, "'json' or an object with dumps and loads", value)


def _secrets(name: str, value: Any) -> tuple[bytes, ...]:
    """One secret or several; in text they stand on lines of their own."""
    if isinstance(value, str):
        value = value.strip().split("\n")
    elif isinstance(value, bytes):
        value = [value]
    if not isinstance(value, Iterable):
        raise ConfigurationError(f"{name} must be a secret or a list of secrets")
    secrets = tuple(_octets(name, secret) for secret in value)
    for secret in secrets or (b"",):
        problem = weakness(secret)
        if problem is not None:
            raise ConfigurationError(
                f"{name} {problem}; make one with: python -m wsgisession secret, or "
                'python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
    return secrets


def _octets(name: str, secret: Any) -> bytes:
    if isinstance(secret, bytes):
        return secret
    if isinstance(secret, str):
        with suppress(UnicodeEncodeError):
            return secret.strip().encode()
    raise ConfigurationError(f"{name} must be text or bytes")


# -- the options -------------------------------------------------------------------------

_NAME = _text(
    # The names of attributes would be read as such, and $ began one in RFC 2965.
    r"(?!(?i:comment|domain|expires|httponly|max-age|path|samesite|secure|version)\Z)"
    r"(?!\$)[!#$%&'*+\-.^_`|~0-9A-Za-z]+",
    "a cookie name (RFC 6265bis: letters, digits and !#%&'*+-.^_`|~) that is not one "
    "of an attribute",
)
_PATH = _text(
    r"/[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*",
    'a path that begins with / and has neither blanks nor any of "\\,;',
)
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = _text(rf"\.?{_LABEL}(\.{_LABEL})*", "a host name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All that may be chosen, whatever the store.

    Durations are seconds, ``timedelta`` or text such as ``"30m"``; text is accepted for
    every option, so that all of them may come from an ``.ini`` file.
    """

    # -- cookie ------------------------------------------------------------------------

    cookie_name: str = _option("session", _NAME)
    """``__Host-`` and ``__Secure-`` names need ``cookie_secure=True``."""

    cookie_path: str = _option("/", _PATH)
    """Where below the host the cookie is sent; it is no protection between paths."""

    cookie_domain: str | None = _option(None, _maybe(_DOMAIN))
    """None: this host only.  A domain hands the cookie to all of its subdomains."""

    cookie_secure: bool | str = _option("auto", _auto_or_boolean)
    """"auto": Secure whenever the request came by https.  False sends it in the clear."""

    cookie_httponly: bool = _option(True, _boolean)
    """False lets scripts read the token."""

    cookie_samesite: Literal["Lax", "Strict", "None"] = _option(
        "Lax", _one_of("Lax", "Strict", "None")
    )
    """"None" sends the cookie with every cross-site request, and needs Secure."""

    cookie_partitioned: bool = _option(False, _boolean)
    """A jar of its own below every top-level site (CHIPS); needs Secure."""

    cookie_chunks: int = _option(1, _whole(1, 10))
    """Cookies of 4096 octets over which a session held in cookies may be spread.  Servers
    limit headers, gunicorn to 8190 octets: a visitor with more is shut out."""

    expire_at_browser_close: bool = _option(False, _boolean)
    """True: no Max-Age.  Many browsers keep such cookies over a restart all the same."""

    # -- life --------------------------------------------------------------------------

    idle_timeout: float = _option(14 * DAY, _seconds(1))
    """Seconds without a request after which a session is over (OWASP ASVS 7.3.1)."""

    absolute_timeout: float = _option(30 * DAY, _seconds(1))
    """Seconds after which it is over in any case (OWASP ASVS 7.3.2)."""

    touch_interval: float = _option(60, _seconds(0))
    """Seconds by which the idle clock may be late, so that reads do not write."""

    rotate_every: float | None = _option(None, _maybe(_seconds(60)))
    """Seconds after which a session gets a new token by itself."""

    # -- secrets -----------------------------------------------------------------------

    secret: tuple[bytes, ...] = field(
        default=(), repr=False, metadata={"read": _secrets}
    )
    """Signs the cookie: one, or several, the newest first.  The first signs, all verify.

    At least 32 random bytes.  With a store on the server it keeps junk away from it;
    without, the 256 random bits of the token protect it alone.
    """

    # -- concurrency -------------------------------------------------------------------

    locking: str | Callable[[Mapping[str, Any]], bool] = _option(
        "auto", _one_of_or_called("auto", "always", "never")
    )
    """Which requests take the session at its first access: "auto" those whose method is
    not safe (RFC 9110 9.2.1); or a callable that is given the environ."""

    replay: bool = _option(True, _boolean)
    """Run a safe request once more when what it read has changed meanwhile."""

    on_conflict: str | Callable[..., Mapping[str, Any]] = _option(
        "ours", _one_of_or_called("ours", "raise")
    )
    """What to do when neither lock nor merge nor replay could help: "ours" writes our
    keys over theirs and warns, "raise" raises ``SessionConflict``; or a callable that is
    given a ``Clash`` and returns the values to store."""

    lock_wait: float = _option(5, _seconds(0, 3600))
    """Seconds to wait for a lock before ``LockTimeout``."""

    lock_lease: float = _option(30, _seconds(0.1, DAY))
    """Seconds after which a lock may pass on.  Longer than your longest request."""

    lock_waiters: int = _option(50, _whole(0))
    """How many requests may wait for one session; each holds a thread of the server."""

    # -- saving ------------------------------------------------------------------------

    auto: bool = _option(True, _boolean)
    """False: only ``save()`` persists, as in Beaker."""

    save_every_request: bool = _option(False, _boolean)
    """True: every request of a stored session writes it, used or not."""

    save_on_error: bool = _option(False, _boolean)
    """True: also what a request did that failed (status >= 500 or an exception)."""

    # -- data --------------------------------------------------------------------------

    serializer: Any = _option("json", _serializer)
    """"json", or any object with ``dumps(dict) -> bytes or str`` and ``loads``.  With
    pickle, whoever can write to the store can run code in the application."""

    max_size: int = _option(1024 * 1024, _whole(1024))
    """Octets that an encoded session may take."""

    encrypt: bool = _option(False, _boolean)
    """True: the data is encrypted in whatever store, and bound to its record.  Needs
    ``secret`` and the extra ``encrypt``."""

    # -- outage and hooks --------------------------------------------------------------

    on_store_error: str = _option("raise", _one_of("raise", "anonymous"))
    """"anonymous": while the store is out of reach a session reads as empty, cannot be
    written, and no cookie is touched."""

    on_replay: Callable[..., object] | None = _option(None, _maybe(_called))
    """Called with (environ, keys) before a request is run again."""

    on_ended: Callable[..., object] | None = _option(None, _maybe(_called))
    """Called with the ``SessionEnded`` error of a save that came too late."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not each.default:
                object.__setattr__(
                    self, each.name, each.metadata["read"](each.name, value)
                )
        for problem in self._contradictions():
            raise ConfigurationError(problem)

    def _contradictions(self) -> Iterable[str]:
        name = self.cookie_name.lower()
        if name.startswith(("__host-", "__secure-")) and self.cookie_secure is not True:
            yield (
                f"cookie_name {self.cookie_name!r} needs cookie_secure=True: browsers "
                "refuse a cookie with this prefix that is not Secure"
            )
        if name.startswith("__host-") and (
            self.cookie_domain or self.cookie_path != "/"
        ):
            yield (
                f"cookie_name {self.cookie_name!r} needs cookie_path='/' and no "
                "cookie_domain: browsers refuse it otherwise"
            )
        for option, on in (
            ("cookie_samesite='None'", self.cookie_samesite == "None"),
            ("cookie_partitioned", self.cookie_partitioned),
        ):
            if on and self.cookie_secure is not True:
                yield f"{option} needs cookie_secure=True: browsers refuse it otherwise"

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all options."""
        return tuple(each.name for each in fields(cls))


# -- from a mapping ----------------------------------------------------------------------


def flatten(
    config: Mapping[str, Any] | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings by their bare names; those ``given`` in code win.

    Keys are bare or prefixed ``session.``.  Where any key bears the prefix the others
    are somebody else's, as in one ``.ini`` file for the whole application.
    """
    config = config or {}
    for key in config:
        if not isinstance(key, str):
            raise ConfigurationError(f"the names of options are strings, not {key!r}")
    if any(key.startswith(PREFIX) for key in config):
        config = {
            k[len(PREFIX) :]: v for k, v in config.items() if k.startswith(PREFIX)
        }
    return _by_own_names(config) | _by_own_names(given)


def _by_own_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {}
    for key, value in settings.items():
        name = ALIASES.get(key, key)
        if name in own:
            raise ConfigurationError(f"{name} is given twice, once by its alias")
        own[name] = value
    return own


def refuse_unknown(settings: Iterable[str], known: Iterable[str]) -> None:
    """Raise ``ConfigurationError`` for a name that is not known, with the nearest."""
    known = sorted(known)
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *ALIASES], n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            )
            raise ConfigurationError(f"there is no option {name!r}; {hint}")
