"""When a session is over, and what is known of it beside its values.

Pure functions of the time; this file knows neither stores nor cookies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from .._made import made
from ..options import LONGEST, Options

Wish: TypeAlias = int | datetime | timedelta | None
"""What ``set_expiry`` takes."""


class Expiry(NamedTuple):
    """What one session asked for by ``set_expiry``; all None: as the options say."""

    idle: float | None = None
    """Seconds of inactivity."""
    until: float | None = None
    """A moment, in epoch seconds."""
    at_browser_close: bool | None = None

    @classmethod
    def of(cls, value: Wish, *, now: float) -> Expiry:
        """Django's meanings: seconds of inactivity, a moment, 0 for the browser's close,
        None for the default.

        A ``timedelta`` counts from now and does not slide.  A naive ``datetime`` is
        local time, as everywhere in Python.
        """
        if value is None:
            return cls()
        if isinstance(value, datetime):
            return cls(until=value.timestamp(), at_browser_close=False)
        if isinstance(value, timedelta):
            return cls(until=now + value.total_seconds(), at_browser_close=False)
        if isinstance(value, int) and not isinstance(value, bool):
            if value == 0:
                return cls(at_browser_close=True)
            return cls(idle=float(value), at_browser_close=False)
        raise TypeError(
            "set_expiry() takes seconds as an int, a datetime, a timedelta or None, "
            f"not {type(value).__name__}"
        )


DEFAULT = Expiry()
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Meta(NamedTuple):
    """What a session knows of itself beside its values."""

    created: float
    """When it began, in epoch seconds; a login begins anew."""
    accessed: float
    """The idle clock: when it was last used, in epoch seconds."""
    user: str | None = None
    expiry: Expiry = DEFAULT
    login: Mapping[str, Any] = NOTHING
    """What ``login()`` was told beside the user: device, address, ..."""
    test_cookie: bool = False
    sent: float | None = None
    """When the cookie was last sent, where the session has no absolute end."""

    def used(self, now: float) -> Meta:
        """The same after a use; the idle clock moves only forward."""
        return made(Meta, (self.created, max(now, self.accessed), *self[2:]))

    def deadline(self, options: Options, accessed: float) -> float:
        """The moment from which the session is over, by the clock that strikes first."""
        idle, until, _ = self.expiry
        if until is None:
            until = accessed + (options.idle_timeout if idle is None else idle)
        if options.profile is not None and options.idle_limit is not None:
            until = min(until, accessed + options.idle_limit)
        if options.absolute_timeout is None:
            return until
        return min(until, self.created + options.absolute_timeout)

    def is_cut(self, options: Options, now: float) -> bool:
        """Whether the session asked for a later end than it can ever have."""
        idle, until, _ = self.expiry
        if until is not None:
            return until > self.deadline(options, now)
        if idle is None:
            return False
        return now + idle > self._replace(created=now).deadline(options, now)

    def has_passed(self, options: Options, now: float) -> bool:
        """Whether the session is over although it is in use now: an expiry in the past,
        or the absolute end.
        """
        return self.deadline(options, max(now, self.accessed)) <= now

    def touch_is_due(self, options: Options, now: float) -> bool:
        """Whether the idle clock is late by so much that it has to be moved.

        A tenth of a short idle timeout, lest a session expire while it is in use.
        """
        idle, until, _ = self.expiry
        limit = None if options.profile is None else options.idle_limit
        if options.touch_interval is None or (until is not None and limit is None):
            return False
        late = now - self.accessed
        if until is not None or idle is None:
            idle = options.idle_timeout
        return late >= options.touch_interval or late >= min(idle, limit or idle) / 10

    def ends_with_browser(self, options: Options) -> bool:
        """Whether the cookie is to have no Max-Age."""
        if self.expiry.at_browser_close is None:
            return options.expire_at_browser_close
        return self.expiry.at_browser_close

    def max_age(self, options: Options, now: float) -> int | None:
        """Seconds for which the browser keeps the cookie; None until it closes.

        The longest life that the session can have, for the idle clock is the server's
        alone; at most 400 days (RFC 6265bis 5.5).
        """
        if self.ends_with_browser(options):
            return None
        until = math.inf if self.expiry.until is None else self.expiry.until
        end = min(until, self._absolute_end(options))
        return max(1, round(min(end - now, LONGEST)))

    def cookie_is_late(self, options: Options, now: float) -> bool:
        """Whether half of the 400 days is over, where there is no absolute end."""
        return (
            options.absolute_timeout is None
            and self.sent is not None
            and now - self.sent >= LONGEST / 2
        )

    def rebased(self, theirs: Meta, base: Meta) -> Meta:
        """Theirs, with what was changed here since ``base`` put over it."""
        names = zip(self._fields, self, base, strict=True)
        changed: dict[str, Any] = {name: own for name, own, old in names if own != old}
        changed["accessed"] = max(self.accessed, theirs.accessed)
        return theirs._replace(**changed)

    def _absolute_end(self, options: Options) -> float:
        if options.absolute_timeout is None:
            return math.inf
        return self.created + options.absolute_timeout


def utc(seconds: float) -> datetime:
    """Epoch seconds as an aware UTC datetime."""
    return datetime.fromtimestamp(seconds, timezone.utc)
