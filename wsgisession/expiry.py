"""When a session is over: two clocks, and what one session may ask for itself.

Pure functions of the time; this file knows neither sessions nor cookies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from .options import Options

TOMBSTONE = 60.0
"""Seconds for which an ended token is remembered, so that a request in flight that
holds it does not answer with a new cookie over the one of the login."""

GRACE = 30.0
"""Seconds for which a rotated token still leads to its session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """What one session asked for itself by ``set_expiry``; all None: the defaults."""

    idle: float | None = None
    """Seconds of inactivity."""
    until: float | None = None
    """A moment, in epoch seconds."""
    at_browser_close: bool | None = None

    @classmethod
    def of(cls, value: int | datetime | timedelta | None, *, now: float) -> Expiry:
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

    def deadline(self, options: Options, *, created: float, accessed: float) -> float:
        """The moment after which a session is over, by whichever clock strikes first."""
        if self.until is not None:
            wanted = self.until
        else:
            idle = options.idle_timeout if self.idle is None else self.idle
            wanted = accessed + idle
        return min(wanted, created + options.absolute_timeout)

    def touch_after(self, options: Options) -> float:
        """Seconds by which the idle clock may be late before it has to be moved.

        A tenth of a short idle timeout, lest a session expire while it is in use.
        """
        if self.until is not None:
            return math.inf
        idle = options.idle_timeout if self.idle is None else self.idle
        return min(options.touch_interval, idle / 10)

    def closes_with_browser(self, options: Options) -> bool:
        """Whether the cookie is to have no Max-Age."""
        if self.at_browser_close is None:
            return options.expire_at_browser_close
        return self.at_browser_close


def utc(seconds: float) -> datetime:
    """Epoch seconds as an aware UTC datetime."""
    return datetime.fromtimestamp(seconds, timezone.utc)
