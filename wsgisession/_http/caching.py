"""Keeps what depends on a session out of caches that are shared.

Pure functions on a list of headers; they know neither sessions nor WSGI.  The list that
they are given is never changed.
"""

from __future__ import annotations

import re
from typing import TypeAlias

Headers: TypeAlias = list[tuple[str, str]]

_TARGETED = frozenset({"surrogate-control", "edge-control"})
"""Fields that tell one kind of cache what holds instead of Cache-Control, besides those
that end in ``-cache-control`` (RFC 9213), such as ``CDN-Cache-Control``."""

_DATES = frozenset({"expires", "x-accel-expires"})
"""Fields that say how long, for caches of HTTP/1.0 and for nginx."""

_SHARED = frozenset({"public", "s-maxage"})
_REPLACED = frozenset({"private", "proxy-revalidate"}) | _SHARED
"""``private="field"`` protects that field only, so it goes with the others."""

# A directive ends at a comma that is not quoted, or at a quote that is never closed.
_DIRECTIVE = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")+')


def vary_on_cookie(headers: Headers) -> Headers:
    """The headers, with ``Cookie`` among what the response varies on.

    RFC 9110 12.5.5: a cache then takes the response for the same cookies only.
    """
    first = -1
    for index, (name, value) in enumerate(headers):
        if name.lower() == "vary":
            members = {member.strip().lower() for member in value.split(",")}
            if "cookie" in members or "*" in members:
                return headers
            first = index if first < 0 else first
    if first < 0:
        return [*headers, ("Vary", "Cookie")]
    name, value = headers[first]
    merged = f"{value}, Cookie" if value.strip() else "Cookie"
    return [*headers[:first], (name, merged), *headers[first + 1 :]]


def keep_private(headers: Headers) -> Headers:
    """The headers of a response with our ``Set-Cookie``, which no shared cache may keep.

    It varies on the cookie as well.  ``no-store`` where the application said nothing
    (OWASP ASVS 14.3.2); where it said something, its directives stay, but for those that
    invite shared caches.
    """
    for name, _ in headers:
        name = name.lower()
        if name == "vary" or name in _DATES or _is_control(name):
            return _uninviting(vary_on_cookie(headers))
    return [*headers, ("Vary", "Cookie"), ("Cache-Control", "no-store")]


def _uninviting(headers: Headers) -> Headers:
    said = [value for name, value in headers if name.lower() == "cache-control"]
    control = _private(said)
    kept: Headers = []
    for name, value in headers:
        lower = name.lower()
        if lower == "cache-control" or lower == "expires":
            if control is None:
                kept.append((name, value))
        elif lower == "x-accel-expires":
            kept.append((name, "0"))
        elif _is_control(lower):
            kept.append((name, _not_stored(value)))
        else:
            kept.append((name, value))
    return kept if control is None else [*kept, ("Cache-Control", control)]


def _is_control(name: str) -> bool:
    return name.endswith("cache-control") or name in _TARGETED


def _private(said: list[str]) -> str | None:
    """What Cache-Control is to say instead; None if it is private enough already."""
    if not said:
        return "no-store"
    directives = [each for value in said for each in _directives(value)]
    whole = {directive.lower() for directive in directives}
    names = {_name(directive) for directive in directives}
    # With must-understand a cache may overlook the no-store (RFC 9111 5.2.2.3).
    if "no-store" in whole and "must-understand" not in names:
        return None
    if "private" in whole and not names & _SHARED:
        return None
    kept = [each for each in directives if _name(each) not in _REPLACED]
    return ", ".join(["private", *kept])


def _not_stored(value: str) -> str:
    """A targeted field that forbids storing, and still announces Edge Side Includes."""
    content = [each for each in _directives(value) if _name(each) == "content"]
    return ", ".join(["no-store", *content])


def _directives(value: str) -> list[str]:
    found = (directive.strip() for directive in _DIRECTIVE.findall(value))
    return [directive for directive in found if directive]


def _name(directive: str) -> str:
    return directive.partition("=")[0].strip().lower()
