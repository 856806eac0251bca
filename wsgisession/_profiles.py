"""Presets of options by a published rule, which explicit options may only tighten.

NIST SP 800-63B-4 (July 2025): 2.1.3, 2.2.3 and 2.3.3 limit the time between two
authentications, 5.1.1 says what a cookie must be.  This file knows no other option.
"""

from __future__ import annotations

from typing import Any, NamedTuple

HOUR = 3600.0
DAY = 24 * HOUR


class Profile(NamedTuple):
    """What a rule allows at most, in seconds."""

    absolute_timeout: float
    idle_timeout: float | None
    """None: the rule asks for no limit of inactivity."""


PROFILES = {
    "nist-aal1": Profile(30 * DAY, None),
    "nist-aal2": Profile(1 * DAY, 1 * HOUR),
    "nist-aal3": Profile(12 * HOUR, HOUR / 4),
}

COOKIE: dict[str, tuple[Any, ...]] = {
    "cookie_secure": (True,),
    "cookie_httponly": (True,),
    "cookie_samesite": ("Lax", "Strict"),
}
"""What every profile allows of a cookie; the first is the default."""
