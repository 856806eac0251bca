"""Every option of a session, its default and its danger, checked once.

This file does no I/O and knows no store; the options of a store are the keyword
parameters of its class.  What an ``Options`` object holds has been checked and converted,
so nobody checks it again.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from . import _settings as read
from ._profiles import COOKIE, PROFILES, Profile
from ._settings import DAY, LONGEST, Environ, Settings
from .errors import ConfigurationError
from .events import Event
from .serializers import JSONSerializer, Serializer

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "COOKIE_OCTETS",
    "LONGEST",
    "Options",
    "Settings",
    "flatten",
    "refuse_unknown",
]

PREFIX = "session."

COOKIE_OCTETS = 4096
"""What a browser keeps of one cookie, its name and attributes included (RFC 6265 6.1)."""


def _option(default: Any, reader: read.Read) -> Any:
    return field(default=default, metadata={"read": reader})


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Options:
    """All that may be chosen, whatever the store.

    Durations are seconds, ``timedelta`` or text such as ``"30m"``; text is accepted for
    every option but the hook, so that it may come from an ``.ini`` file.  ``Settings``
    says what may be given for each; the attributes hold it in one form.

    Raises ``ConfigurationError`` for what is unknown, wrong or contradictory.
    """

    # -- cookie ------------------------------------------------------------------------

    cookie_name: str = _option("sid", read.cookie_name)
    """The default is not "session": Flask and Pyramid use that for a cookie of their own.
    ``__Host-`` and ``__Secure-`` names need ``cookie_secure=True``."""

    cookie_path: str | Callable[[Environ], str] = _option(
        "/", read.or_called(read.cookie_path)
    )
    """Where below the host the cookie is sent; it is no protection between paths.  A
    callable is given the environ.  A change leaves browsers with two cookies."""

    cookie_domain: str | Callable[[Environ], str | None] | None = _option(
        None, read.maybe(read.or_called(read.cookie_domain))
    )
    """None: this host only.  A domain hands the cookie to all of its subdomains.  A
    callable is given the environ.  A change leaves browsers with two cookies."""

    cookie_secure: bool | Literal["auto"] = _option("auto", read.auto_or_flag)
    """"auto": Secure whenever the request came by https.  False sends it in the clear."""

    cookie_httponly: bool = _option(True, read.flag)
    """False lets scripts read the token."""

    cookie_samesite: Literal["Lax", "Strict", "None", False] = _option(
        "Lax", read.one_of_or_false("Lax", "Strict", "None")
    )
    """"None" sends the cookie with every cross-site request, and needs Secure.  False:
    no such attribute, so that each browser does what it likes."""

    cookie_partitioned: bool = _option(False, read.flag)
    """A jar of its own below every top-level site (CHIPS); needs Secure."""

    cookie_chunks: int = _option(1, read.whole(1, 10))
    """Cookies of 4096 octets over which a session held in cookies may be spread.  Servers
    limit headers, gunicorn to 8190 octets: a visitor with more is shut out."""

    expire_at_browser_close: bool = _option(False, read.flag)
    """True: no Max-Age.  Many browsers keep such cookies over a restart all the same."""

    # -- life --------------------------------------------------------------------------

    profile: Literal["nist-aal1", "nist-aal2", "nist-aal3"] | None = _option(
        None, read.maybe(read.one_of(*PROFILES))
    )
    """The limits of an authentication assurance level (NIST SP 800-63B-4 2.1.3 to 2.3.3,
    5.1.1) for both timeouts and for the cookie.  What is given beside it, or asked for by
    ``set_expiry()``, can only be stricter.  It covers sessions, not authenticators."""

    idle_timeout: float = _option(14.0 * DAY, read.seconds(1))
    """Seconds without a request after which a session is over (OWASP ASVS 7.3.1).  Where
    it is not given, it is at most ``absolute_timeout``; a given one above is refused."""

    absolute_timeout: float | None = _option(30.0 * DAY, read.maybe(read.seconds(1)))
    """Seconds after which a session is over in any case (OWASP ASVS 7.3.2).  None: no
    end, so that a stolen cookie that is in use is good for ever."""

    touch_interval: float | None = _option(60.0, read.maybe(read.seconds(0)))
    """Seconds by which the idle clock may be late, so that reads do not write.  None:
    reading is no activity, and only a save moves the clock."""

    rotate_every: float | None = _option(None, read.maybe(read.seconds(60)))
    """Seconds after which a session gets a new token by itself; None: never."""

    rotate_grace: float = _option(300.0, read.seconds(1, DAY))
    """Seconds for which a token that was rotated stays good once the new one has been
    seen: longer than your longest upload, or its session is over when it ends.  A
    ``rotate_every`` below it is refused."""

    cleanup_every: float | Literal[False] = _option(
        3600.0, read.off_or(read.seconds(60))
    )
    """Seconds between two removals of what has expired, where the store does not forget
    by itself.  One of all processes does it, after an answer has left, for a second at
    most.  A process that lives shorter than that never does it.  False: a job of yours
    calls ``manager.delete_expired()``."""

    # -- users -------------------------------------------------------------------------

    max_sessions_per_user: int | None = _option(None, read.maybe(read.whole(1)))
    """How many sessions a user may have at once; None: any number.  Counted at a login,
    under a lock.  Needs a store that locks and lists; a Redis that evicts may have
    evicted the lock as well."""

    at_session_limit: Literal["evict", "refuse"] = _option(
        "evict", read.one_of("evict", "refuse")
    )
    """"evict": a login ends the session that was used longest ago; "refuse": it raises
    ``TooManySessions``."""

    # -- secrets -----------------------------------------------------------------------

    secret: tuple[bytes, ...] = field(
        default=(), repr=False, metadata={"read": read.secrets}
    )
    """Signs the cookie: one, or several, the newest first.  The first signs, all verify.

    At least 32 random bytes.  With a store on the server it keeps junk away from it;
    without, the 256 random bits of the token protect it alone.
    """

    # -- concurrency -------------------------------------------------------------------

    locking: Literal["auto", "always", "never"] | Callable[[Environ], bool] = _option(
        "auto", read.one_of_or_called("auto", "always", "never")
    )
    """Which requests lock the session at their first access: "auto" those whose method
    is not safe (RFC 9110 9.2.1); or a callable that is given the environ.  "never" makes
    conflicts of what would have waited."""

    replay: bool = _option(True, read.flag)
    """Run a safe request again when what it had read was changed by another request."""

    on_conflict: Literal["ours", "raise"] | Callable[[Any], Mapping[str, Any]] = (
        _option("ours", read.one_of_or_called("ours", "raise"))
    )
    """What to do when neither lock nor merge nor replay could help: "ours" writes our
    keys over theirs and warns, "raise" raises ``SessionConflict``; or a callable that is
    given a ``MergeConflict`` and returns the values to store."""

    lock_wait: float = _option(5.0, read.seconds(0, 3600))
    """Seconds to wait for a lock before ``LockTimeout``."""

    lock_lease: float = _option(30.0, read.seconds(0.1, DAY))
    """Seconds after which a lock may pass on: longer than your longest request.  Where it
    is not given, it is at most ``idle_timeout``; a given one above it is refused."""

    lock_waiters: int = _option(50, read.whole(0))
    """How many requests may wait for one session; each holds a thread of the server."""

    cross_site_posts: bool = _option(False, read.flag)
    """True: a post from another site that comes without our cookie may begin a session,
    whose cookie replaces the one that the browser holds and did not send."""

    # -- saving ------------------------------------------------------------------------

    auto: bool = _option(True, read.flag)
    """False: only ``save()`` persists values, as in Beaker."""

    save_every_request: bool = _option(False, read.flag)
    """True: every request of a stored session writes it, used or not."""

    save_on_error: bool = _option(False, read.flag)
    """True: also what a request did that failed (status >= 500 or an exception)."""

    # -- data --------------------------------------------------------------------------

    serializer: Serializer = field(
        default_factory=JSONSerializer, metadata={"read": read.serializer}
    )
    """"json" (the default), or an object with ``dumps(dict) -> bytes or str`` and
    ``loads``, its class, or the dotted path of either.  With pickle, who can write to the
    store can run code in the application."""

    max_size: int = _option(1024 * 1024, read.whole(1024))
    """Octets that an encoded session may take."""

    encrypt: bool = _option(False, read.flag)
    """True: the data is encrypted in whatever store, and bound to its record.  Needs
    ``secret`` and the extra ``encrypt``."""

    # -- outage and events -------------------------------------------------------------

    on_store_error: Literal["raise", "anonymous"] = _option(
        "raise", read.one_of("raise", "anonymous")
    )
    """"anonymous": while the store is out of reach a session reads as empty, cannot be
    written, and no cookie is touched."""

    on_event: Callable[[Event], object] | None = _option(None, read.maybe(read.called))
    """Called with what happens, as an object of ``wsgisession.events``, in the thread of
    the request.  A hook that raises changes nothing; the log tells of it."""

    def __init__(self, **given: Unpack[Settings]) -> None:
        refuse_unknown(given, self.names())
        for each in fields(self):
            object.__setattr__(self, each.name, _value(each, given))
        self._fit(given)
        for problem in self._contradictions():
            raise ConfigurationError(problem)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all options."""
        return tuple(each.name for each in fields(cls))

    @property
    def idle_limit(self) -> float | None:
        """Seconds of inactivity that no session may ask to exceed; None: no limit."""
        return None if self.profile is None else PROFILES[self.profile].idle_timeout

    def _fit(self, given: Mapping[str, object]) -> None:
        """Cut a default to what was given: who shortens one need not touch the others."""
        if self.profile is not None:
            self._take(PROFILES[self.profile], given)
        end = self.absolute_timeout
        if "idle_timeout" not in given and end is not None:
            object.__setattr__(self, "idle_timeout", min(self.idle_timeout, end))
        if "lock_lease" not in given:
            lease = min(self.lock_lease, self.idle_timeout)
            object.__setattr__(self, "lock_lease", lease)

    def _take(self, profile: Profile, given: Mapping[str, object]) -> None:
        """Take the defaults of a profile."""
        if "absolute_timeout" not in given:
            object.__setattr__(self, "absolute_timeout", profile.absolute_timeout)
        if "idle_timeout" not in given and profile.idle_timeout is not None:
            object.__setattr__(self, "idle_timeout", profile.idle_timeout)
        for name, allowed in COOKIE.items():
            if name not in given:
                object.__setattr__(self, name, allowed[0])

    def _refused_by_the_profile(self) -> Iterable[str]:
        if self.profile is None:
            return
        for name, limit in PROFILES[self.profile]._asdict().items():
            value = getattr(self, name)
            if limit is not None and (value is None or value > limit):
                yield (
                    f"{name} is above the {limit:.10g} seconds that the profile "
                    f"{self.profile!r} allows; lower it, or leave it out"
                )
        for name, allowed in COOKIE.items():
            value = getattr(self, name)
            if value not in allowed:
                yield (
                    f"{name}={value!r} is looser than the profile {self.profile!r} "
                    f"allows; it must be {' or '.join(map(repr, allowed))}, or left out"
                )

    def _contradictions(self) -> Iterable[str]:
        yield from self._refused_by_the_profile()
        yield from self._refused_by_browsers()
        end = self.absolute_timeout
        if end is not None and self.idle_timeout > end:
            yield (
                f"idle_timeout ({self.idle_timeout:.10g} seconds) is above "
                f"absolute_timeout ({end:.10g} seconds), and would never be reached; "
                "lower the one or raise the other"
            )
        if self.lock_lease > self.idle_timeout:
            yield (
                f"lock_lease ({self.lock_lease:.10g} seconds) is above idle_timeout "
                f"({self.idle_timeout:.10g} seconds): a session would expire while a "
                "request holds its lock"
            )
        if self.rotate_every is not None and self.rotate_every < self.rotate_grace:
            yield (
                f"rotate_every ({self.rotate_every:.10g} seconds) is below rotate_grace "
                f"({self.rotate_grace:.10g} seconds): a token would be rotated again "
                "while the one before it is still good; raise the one or lower the other"
            )

    def _refused_by_browsers(self) -> Iterable[str]:
        name = self.cookie_name.lower()
        if name.startswith(("__host-", "__secure-")) and self.cookie_secure is not True:
            yield (
                f"cookie_name {self.cookie_name!r} needs cookie_secure=True: browsers "
                "refuse a cookie with this prefix that is not Secure"
            )
        if name.startswith("__host-") and (
            self.cookie_domain is not None or self.cookie_path != "/"
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


def _value(option: Field[Any], given: Mapping[str, Any]) -> Any:
    value = given.get(option.name, option.default)
    if value is not option.default:
        return option.metadata["read"](option.name, value)
    if option.default_factory is not MISSING:
        return option.default_factory()
    return option.default


# -- from a mapping ----------------------------------------------------------------------


def flatten(
    config: Mapping[str, Any] | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings by their bare names; those ``given`` in code win.

    Keys are bare or prefixed ``session.``.  Where any key bears the prefix the others
    belong to something else, as in one ``.ini`` file for the whole application; but one
    that is exactly an option of ours was more likely forgotten: ``ConfigurationError``.
    """
    config = {} if config is None else config
    if not isinstance(config, Mapping):
        raise ConfigurationError(
            "settings are a mapping, such as {'url': 'redis://localhost/0'}, not "
            f"{type(config).__name__}; a url is given as url=..., a manager as "
            "manager=..."
        )
    for key in config:
        if not isinstance(key, str):
            raise ConfigurationError(f"the names of options are strings, not {key!r}")
    prefixed = {
        key.removeprefix(PREFIX): value
        for key, value in config.items()
        if key.startswith(PREFIX)
    }
    if not prefixed:
        return {**config, **given}
    for name in Options.names():
        if name in config:
            raise ConfigurationError(
                f"{name} stands beside settings that begin with {PREFIX}; write "
                f"{PREFIX}{name}, or give it another name if it belongs to something else"
            )
    return {**prefixed, **given}


def refuse_unknown(
    settings: Iterable[str],
    known: Iterable[str],
    owners: Callable[[str], Iterable[str]] = lambda name: (),
) -> None:
    """Raise ``ConfigurationError`` for a name that is not known, with the nearest.

    :param owners: the types of the stores that have an option of that name.
    """
    known = sorted(known)
    for name in settings:
        if name not in known:
            hint = _hint(name, known, sorted(owners(name)))
            raise ConfigurationError(f"there is no option {name!r}; {hint}")


def _hint(name: str, known: list[str], owners: list[str]) -> str:
    if owners:
        return f"it belongs to the type of store {' or '.join(map(repr, owners))}"
    near = [each for each in known if each.endswith(f"_{name}")]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"known: {', '.join(known)}"
