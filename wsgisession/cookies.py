"""Cookies as they stand in headers: reading tolerantly, writing strictly.

Pure functions; this file knows neither sessions nor stores.  It does not read with
``http.cookies`` (a 40 kB header takes it seconds, a malformed neighbour costs the whole
jar) nor with WebOb (a comma or a blank makes it see a cookie within another's value).
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from datetime import datetime, timedelta, timezone

from webob.cookies import Morsel

from .options import COOKIE_OCTETS, Options

_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)

MAX_OCTETS = 16384
MAX_PAIRS = 180
MAX_VALUES = 4
"""Values of one name that are looked at: a browser has no reason to send more."""

# A chunk: of how many, a digest of the whole, and its part.  No token begins with ~.
_CHUNK = re.compile(r"~([2-9a])([A-Za-z0-9_-]{8})(.+)")
_MARKS = 10
"""Octets of a chunk before its part."""


def read(header: str, name: str, *, octets: int = MAX_OCTETS) -> list[str]:
    """The different values of the cookie ``name``, in no meaningful order.

    The rules of RFC 6265bis 5.8.3 as a browser writes them: pairs are split at ``;``
    only, a name ends at the first ``=`` and is compared byte by byte, and a pair without
    a name is nobody's (CVE-2023-23934).  Linear in at most 16 KiB and 180 pairs.
    """
    if name not in header:
        return []
    if len(header) > octets:
        header = header[:octets].rpartition(";")[0]
    values: list[str] = []
    for pair in header.split(";", MAX_PAIRS)[:MAX_PAIRS]:
        found, equals, value = pair.partition("=")
        if equals and found.strip(" \t") == name:
            value = value.strip(" \t")
            if value and value not in values:
                values.append(value)
    return values[: MAX_VALUES + 1]


def write(options: Options, value: str, *, max_age: int | None, secure: bool) -> str:
    """A ``Set-Cookie`` value; ``max_age`` in seconds, None until the browser closes."""
    return _write(options, options.cookie_name, value, max_age=max_age, secure=secure)


def expire(options: Options, *, secure: bool) -> str:
    """A ``Set-Cookie`` value that takes the cookie away.

    With all the attributes it was set with: browsers refuse it otherwise.
    """
    return _write(options, options.cookie_name, None, max_age=None, secure=secure)


def _write(
    options: Options, name: str, value: str | None, *, max_age: int | None, secure: bool
) -> str:
    morsel = Morsel(name, value or "")
    morsel.path = options.cookie_path.encode()
    if options.cookie_domain is not None:
        morsel.domain = options.cookie_domain.encode()
    morsel.secure, morsel.httponly = secure, options.cookie_httponly
    morsel.samesite = options.cookie_samesite
    if value is None:
        morsel.max_age, morsel.expires = 0, _LONG_AGO
    elif max_age is not None:
        # A datetime, for WebOb would reckon from seconds in a way that Python deprecates.
        ends = datetime.now(timezone.utc) + timedelta(seconds=max_age)
        morsel.max_age, morsel.expires = max_age, ends
    line: str = morsel.serialize()
    return f"{line}; Partitioned" if options.cookie_partitioned else line


# -- a value over several cookies --------------------------------------------------------


def find(options: Options, header: str) -> list[str]:
    """The different values of the session's cookie, each put together from its chunks.

    A value of which a chunk is missing, or there twice, is none.  A mixture of two would
    not be recognised by the seal either; here it is not even made.
    """
    octets = MAX_OCTETS + COOKIE_OCTETS * (options.cookie_chunks - 1)
    values = read(header, options.cookie_name, octets=octets)
    if options.cookie_chunks == 1:
        return values
    tails = [read(header, name, octets=octets) for name in _names(options)[1:]]
    whole = [value for value in values if not value.startswith("~")]
    for value in values:
        chunk = _CHUNK.fullmatch(value)
        joined = _joined(chunk, tails) if chunk is not None else None
        if joined is not None:
            whole.append(joined)
    return whole


def _joined(first: re.Match[str], tails: list[list[str]]) -> str | None:
    count, marks, value = int(first[1], 16), first[0][:_MARKS], first[3]
    if count > len(tails) + 1:
        return None
    for tail in tails[: count - 1]:
        parts = [each[_MARKS:] for each in tail if each.startswith(marks)]
        if len(parts) != 1:
            return None
        value += parts[0]
    return value if _digest(value) == first[2] else None


def write_all(
    options: Options, value: str, *, max_age: int | None, secure: bool, held: str
) -> list[str]:
    """The ``Set-Cookie`` values for a value of whatever length there is ``room`` for.

    ``held`` is the ``Cookie`` header of the request: chunks in it of a longer value that
    was there before are taken away.
    """
    names = _names(options)
    parts = _parts(options, value)
    lines = [
        _write(options, name, part, max_age=max_age, secure=secure)
        for name, part in zip(names, parts, strict=False)
    ]
    return lines + _expired(options, names[len(parts) :], secure=secure, held=held)


def expire_all(options: Options, *, secure: bool, held: str) -> list[str]:
    """The ``Set-Cookie`` values that take the cookie and all its chunks away."""
    lines = _expired(options, _names(options)[1:], secure=secure, held=held)
    return [expire(options, secure=secure), *lines]


def room(options: Options) -> int:
    """Octets that a value may have so that each of its cookies has at most 4096.

    With all the attributes that these options could ever give it: what fits once fits
    with https too, and whatever the session asks for itself.
    """
    names = _names(options)
    if len(names) == 1:
        return _room(options, names[0])
    return sum(_room(options, name) - _MARKS for name in names)


def _room(options: Options, name: str) -> int:
    secure = options.cookie_secure is not False
    longest = int(options.absolute_timeout)
    line = _write(options, name, "x", max_age=longest, secure=secure)
    return COOKIE_OCTETS - len(line) + 1


def _parts(options: Options, value: str) -> list[str]:
    names = _names(options)
    if len(names) == 1 or len(value) <= _room(options, names[0]):
        return [value]
    parts, begin = [], 0
    for name in names:
        end = begin + _room(options, name) - _MARKS
        parts.append(value[begin:end])
        begin = end
        if begin >= len(value):
            break
    marks = f"~{len(parts):x}{_digest(value)}"
    return [marks + part for part in parts]


def _expired(
    options: Options, names: list[str], *, secure: bool, held: str
) -> list[str]:
    return [
        _write(options, name, None, max_age=None, secure=secure)
        for name in names
        if read(held, name, octets=len(held))
    ]


def _names(options: Options) -> list[str]:
    name = options.cookie_name
    return [name, *(f"{name}.{n}" for n in range(1, options.cookie_chunks))]


def _digest(value: str) -> str:
    """48 bits that tell one value's chunks from another's; the seal proves them."""
    octets = hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()[:6]
    return urlsafe_b64encode(octets).decode()
