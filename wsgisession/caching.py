"""Keeps what depends on a session out of the caches of others.

Pure functions on a list of headers; this file knows neither sessions nor WSGI.
"""

from __future__ import annotations

Headers = list[tuple[str, str]]

_SHARED = {"public", "s-maxage"}
_REPLACED = {"private", "proxy-revalidate", *_SHARED}
"""``private="field"`` protects that field only, so it goes with the others."""


def vary_on_cookie(headers: Headers) -> Headers:
    """The headers with ``Cookie`` among what the response varies on (RFC 9110 12.5.5)."""
    for index, (name, value) in enumerate(headers):
        if name.lower() == "vary":
            members = [member.strip().lower() for member in value.split(",")]
            if "*" in members or "cookie" in members:
                return headers
            merged = f"{value}, Cookie" if value.strip() else "Cookie"
            return [*headers[:index], (name, merged), *headers[index + 1 :]]
    return [*headers, ("Vary", "Cookie")]


def keep_private(headers: Headers) -> Headers:
    """The headers such that no shared cache keeps the response.

    ``no-store`` where the application said nothing (OWASP ASVS 14.3.2); where it said
    something, its directives stay, but for those that invite shared caches.
    """
    said = [value for name, value in headers if name.lower() == "cache-control"]
    rest = [(n, v) for n, v in headers if n.lower() not in ("cache-control", "expires")]
    if not said:
        return [*rest, ("Cache-Control", "no-store")]
    directives = [d.strip() for value in said for d in value.split(",") if d.strip()]
    names = {directive.partition("=")[0].lower() for directive in directives}
    private = any(directive.lower() == "private" for directive in directives)
    if "no-store" in names or (private and not names & _SHARED):
        return headers
    kept = [d for d in directives if d.partition("=")[0].lower() not in _REPLACED]
    return [*rest, ("Cache-Control", ", ".join(["private", *kept]))]
