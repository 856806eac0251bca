"""What people call a device, from what its browser says of itself.

A few honest words, or none: what is not known for sure is not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNKNOWN = "Unknown device"
LONGEST = 60
"""Characters of a name that the application gave."""

# In this order: each says more than those below it, which it names as well.
BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
SYSTEMS = (
    ("Windows", "Windows"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "Mac"),
    ("Linux", "Linux"),
)

DETAILS = ("device", "user_agent", "browser")
"""What an application may have told ``login()`` of a device, the plainest first."""


def name_of(details: Mapping[str, Any]) -> str:
    """The device of a login, such as "Firefox on Windows"."""
    for detail in DETAILS:
        said = details.get(detail)
        if isinstance(said, str) and said.strip():
            return _named(said.strip())
    return UNKNOWN


def _named(said: str) -> str:
    """A name as it was given, unless it is what browsers send (``User-Agent``)."""
    if not said.startswith("Mozilla/") and "/" not in said.split(" ")[0]:
        return said[:LONGEST]
    browser, system = _first(BROWSERS, said), _first(SYSTEMS, said)
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or UNKNOWN


def _first(marks: tuple[tuple[str, str], ...], said: str) -> str | None:
    return next((name for mark, name in marks if mark in said), None)
