"""The session's cookie as it stands in headers: read tolerantly, written strictly.

It knows options and headers, and neither sessions nor stores.  It does not read with
``http.cookies`` (a 40 kB header takes it seconds, one malformed neighbour costs the whole
jar) nor with WebOb (a comma or a blank makes it see a cookie within the value of another
one).  It writes with WebOb, once for each kind of line.
"""

from __future__ import annotations

import hashlib
import re
import time
import warnings
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache, partial
from itertools import product
from typing import Any, NamedTuple, TypeAlias

from .._crypto.text import to_text
from .._settings import cookie_domain, cookie_path, maybe
from ..options import COOKIE_OCTETS, LONGEST, Options

with warnings.catch_warnings():
    # WebOb imports ``cgi``, of which Python 3.11 and 3.12 say that it will go.
    warnings.simplefilter("ignore", DeprecationWarning)
    from webob.cookies import Morsel

Environ: TypeAlias = Mapping[str, Any]

MAX_OCTETS = 16384
"""Octets of a ``Cookie`` header that are looked at; 4096 more for each further chunk."""

MAX_PAIRS = 180
"""Pairs of a header that are looked at: a browser keeps no more for one site."""

MAX_KINDS = 256
"""Kinds of lines that are kept.  A domain may come from a ``Host`` header, and then
clients would decide how many there are."""

_LONGEST_PLACE = ("d" * 254, "/" + "p" * 254)
"""The domain and path for which room is left where a callable gives them."""

# RFC 6265 4.1.1: what a value may consist of.
_OCTETS = bytes(each for each in range(0x21, 0x7F) if each not in b'",;\\')
_QUOTED = re.compile(r'"([\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+)"')

# What a chunk begins with: of how many it is one, and a digest of the whole value.  No
# token begins with ~.
_MARKS = re.compile(r"~([2-9a])([A-Za-z0-9_-]{8})")
_MARKS_OCTETS = 10

_maybe_domain = maybe(cookie_domain)
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_MAX_DOMAINS = 3
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")
_MAX_PATHS = 3

_EPOCH = "Thu, 01-Jan-1970 00:00:00 GMT"


class Cookies:
    """The cookie of one manager: its values in a request, its lines in a response.

    Safe to share between threads.  The methods that write raise ``ConfigurationError``
    where a callable ``cookie_domain`` or ``cookie_path`` gives no domain or path.
    """

    room: int
    """Octets that a value may have, over all its chunks, so that every cookie has at most
    4096 with all the attributes that these options could ever give it."""

    def __init__(self, options: Options) -> None:
        self._name = name = options.cookie_name
        self._names = [name, *(f"{name}.{n}" for n in range(1, options.cookie_chunks))]
        self._max_octets = MAX_OCTETS + COOKIE_OCTETS * (len(self._names) - 1)
        secure = options.cookie_secure
        self._secure = None if secure == "auto" else bool(secure)
        self._domain: Any = options.cookie_domain
        self._path: Any = options.cookie_path
        self._fixed = not (callable(self._domain) or callable(self._path))
        self._line = lru_cache(MAX_KINDS)(partial(_line, options))
        self._expiry = (0, _EPOCH)
        self._rooms = [_room(options, each) for each in self._names]
        self.room = self._rooms[0]
        if len(self._names) > 1:
            self.room = sum(self._rooms) - _MARKS_OCTETS * len(self._names)

    # -- reading -----------------------------------------------------------------------

    def values(self, header: object) -> list[str]:
        """The different values of the cookie in a header, in order of appearance.

        ``header`` is what the environ has as ``HTTP_COOKIE``, whatever that is.  A value
        of which a chunk is missing, or there twice, is none.  Never raises.
        """
        text = header if isinstance(header, str) else _text(header)
        if self._name not in text:
            return []
        if len(self._names) > 1:
            return self._joined(_unique(self._pairs(text)))
        value = _only_value(text, self._name)
        return [value] if value else _unique(v for _, v in self._pairs(text))

    def _pairs(self, header: str) -> list[tuple[str, str]]:
        """The pairs of the cookie and its chunks, by RFC 6265bis 5.8.3.

        As a browser writes them: pairs are split at ``;`` only, a name ends at the first
        ``=`` and is compared byte by byte, and a pair without a name is nobody's
        (CVE-2023-23934).  Linear in at most 16 KiB and 180 pairs.
        """
        if len(header) > self._max_octets:
            header = header[: self._max_octets].rpartition(";")[0]
        pairs = []
        for pair in header.split(";", MAX_PAIRS)[:MAX_PAIRS]:
            name, equals, value = pair.partition("=")
            name, value = name.strip(" \t"), value.strip(" \t")
            if equals and value and name in self._names:
                quoted = _QUOTED.fullmatch(value) if value[0] == '"' else None
                pairs.append((name, quoted[1] if quoted else value))
        return pairs

    def _joined(self, pairs: list[tuple[str, str]]) -> list[str]:
        """The values in ``pairs``, each put together from its chunks.

        A mixture of two values would not be recognised by their seal either; here it is
        not even made.
        """
        parts: dict[tuple[str, str], str] = {}
        for name, value in pairs:
            place = name, value[:_MARKS_OCTETS]
            parts[place] = "" if place in parts else value[_MARKS_OCTETS:]
        values = []
        for name, value in pairs:
            if name == self._name:
                if value[0] == "~":
                    value = self._whole(value[:_MARKS_OCTETS], parts)
                values.append(value)
        return _unique(value for value in values if value)

    def _whole(self, marks: str, parts: dict[tuple[str, str], str]) -> str:
        match = _MARKS.fullmatch(marks)
        count = int(match[1], 16) if match else 0
        if match is None or count > len(self._names):
            return ""
        found = [parts.get((name, marks), "") for name in self._names[:count]]
        value = "".join(found)
        return value if all(found) and _digest(value) == match[2] else ""

    # -- writing -----------------------------------------------------------------------

    def set(self, environ: Environ, value: str, *, max_age: int | None) -> list[str]:
        """The ``Set-Cookie`` values that give a client the cookie.

        ``max_age`` is in seconds; None: until the browser closes.  Chunks in the request
        of a longer value that was there before are taken away.  Raises ``ValueError`` for
        a value that has characters that no cookie may have, or finds no room.
        """
        if not value.isascii() or value.encode().translate(None, _OCTETS):
            raise ValueError("a cookie's value has characters that RFC 6265 forbids")
        if len(value) > self.room:
            raise ValueError(
                f"a cookie's value has {len(value)} octets, and room for {self.room}"
            )
        place = self._place(environ)
        dates = None if max_age is None else (max_age, self._expires(max_age))
        if len(self._names) == 1:
            return [self._line(self._name, *place).filled(value, dates)]
        parts = self._parts(value)
        lines = [
            self._line(name, *place).filled(part, dates)
            for name, part in zip(self._names, parts, strict=False)
        ]
        return lines + self._gone(environ, self._names[len(parts) :], place)

    def expire(self, environ: Environ) -> list[str]:
        """The ``Set-Cookie`` values that take the cookie and its chunks away.

        With all the attributes that it was set with: browsers refuse it otherwise.
        """
        place = self._place(environ)
        chunks = self._gone(environ, self._names[1:], place)
        return [self._line(self._name, *place).expired, *chunks]

    def heal(self, environ: Environ) -> list[str]:
        """The ``Set-Cookie`` values that take away other cookies of the same name.

        Those with another domain or path that the request can have brought, and with the
        other kind of jar: a site's settings may have been changed since they were set.
        The cookie as these options spell it is not among them.
        """
        secure, domain, path = self._place(environ)
        own = domain.lstrip(".").lower() if domain else None
        others: Iterable[tuple[str | None, str | None]] = ()
        if not self._name.lower().startswith("__host-"):  # it has one place only
            domains, paths = (None, *_domains(environ)), (path, *_paths(environ))
            others = dict.fromkeys(product(domains, paths))
        lines = [_in_other_jar(self._line(self._name, secure, domain, path).expired)]
        for other in others:
            if other == (own, path):
                continue
            lines.append(self._line(self._name, secure, *other).expired)
            lines += self._gone(environ, self._names[1:], (secure, *other))
        return lines if secure else lines[1:]

    def _place(self, environ: Environ) -> tuple[bool, str | None, str | None]:
        """Secure, Domain and Path of the cookie in this request."""
        secure = self._secure
        if secure is None:
            secure = environ.get("wsgi.url_scheme") == "https"
        domain, path = self._domain, self._path
        if not self._fixed:
            domain = domain(environ) if callable(domain) else domain
            domain = _maybe_domain("cookie_domain", domain)
            path = path(environ) if callable(path) else path
            path = cookie_path("cookie_path", path)
        return secure, domain, path

    def _parts(self, value: str) -> list[str]:
        if len(value) <= self._rooms[0]:
            return [value]
        parts, begin = [], 0
        for room in self._rooms:
            end = begin + room - _MARKS_OCTETS
            parts.append(value[begin:end])
            begin = end
            if begin >= len(value):
                break
        marks = f"~{len(parts):x}{_digest(value)}"
        return [marks + part for part in parts]

    def _gone(
        self,
        environ: Environ,
        names: list[str],
        place: tuple[bool, str | None, str | None],
    ) -> list[str]:
        """The lines that take away those chunks that are in the request."""
        if not names:
            return []
        held = {name for name, _ in self._pairs(_text(environ.get("HTTP_COOKIE")))}
        return [self._line(name, *place).expired for name in names if name in held]

    def _expires(self, max_age: int) -> str:
        """The moment in ``max_age`` seconds as text; that of the last call is kept."""
        moment = int(time.time()) + max_age
        last = self._expiry
        if last[0] != moment:
            text = formatdate(moment, usegmt=True)
            # WebOb writes hyphens into the date, as Netscape did.
            last = self._expiry = (moment, f"{text[:7]}-{text[8:11]}-{text[12:]}")
        return last[1]


# -- reading -----------------------------------------------------------------------------


def _text(header: object) -> str:
    """A header as PEP 3333 wants it, whatever a server or a test put into the environ."""
    if isinstance(header, bytes):
        return header.decode("latin-1")
    return str(header) if isinstance(header, str) else ""


def _only_value(header: str, name: str) -> str | None:
    """The value of the only cookie of a name, where nothing about it is unusual.

    None leaves it to the full reader, which takes twice as long in a header of eight
    cookies, and never disagrees.
    """
    before, _, after = header.partition(f"{name}=")
    if (
        name in before
        or name in after
        or (before and before[-1] != ";" and before[-2:] != "; ")
        or len(header) > MAX_OCTETS
        or (len(before) >= MAX_PAIRS and before.count(";") >= MAX_PAIRS)
    ):
        return None
    value = after.partition(";")[0]
    if not value or value[0] in ' \t"' or value[-1] in " \t":
        return None
    return value


def _unique(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))


def _digest(value: str) -> str:
    """48 bits that tell the chunks of two values apart; the seal proves them."""
    octets = hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()[:6]
    return to_text(octets)


# -- writing -----------------------------------------------------------------------------


class _Line(NamedTuple):
    """A ``Set-Cookie`` value as WebOb writes it, cut where value and dates belong."""

    name: str
    domain: str
    path: str
    flags: str
    expired: str
    """The whole line that takes the cookie away."""

    def filled(self, value: str, dates: tuple[int, str] | None) -> str:
        """The line with a value, and with Max-Age and Expires unless they are None."""
        name, domain, path, flags, _ = self
        if dates is None:
            return f"{name}{value}{domain}{path}{flags}"
        age, moment = dates
        return f"{name}{value}{domain}; Max-Age={age}{path}; expires={moment}{flags}"


def _line(
    options: Options, name: str, secure: bool, domain: str | None, path: str
) -> _Line:
    morsel = Morsel(name, "")
    morsel.path = path.encode("ascii")
    if domain is not None:
        morsel.domain = domain.encode("ascii")
    morsel.secure, morsel.httponly = secure, options.cookie_httponly
    if options.cookie_samesite:
        morsel.samesite = options.cookie_samesite
    morsel.max_age, morsel.expires = 0, _EPOCH
    line = morsel.serialize()
    if options.cookie_partitioned:
        line += "; Partitioned"
    # No attribute has a ; in its value, so each mark is there once.
    before, after = line.split("; Max-Age=0")
    place, flags = after.split(f"; expires={_EPOCH}")
    named = len(name) + 1
    return _Line(before[:named], before[named:], place, flags, line)


def _room(options: Options, name: str) -> int:
    domain, path = options.cookie_domain, options.cookie_path
    if callable(domain):
        domain = _LONGEST_PLACE[0]
    if callable(path):
        path = _LONGEST_PLACE[1]
    line = _line(options, name, options.cookie_secure is not False, domain, path)
    return COOKIE_OCTETS - len(line.filled("", (LONGEST, _EPOCH)))


def _domains(environ: Environ) -> list[str]:
    """Domains for which the host of a request can set cookies, the longest first.

    Those that are public suffixes, such as ``co.uk``, are refused by browsers.
    """
    host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME") or ""
    host = str(host).partition(":")[0].lower()
    if len(host) > 253 or not _HOST.fullmatch(host):
        return []
    labels = host.split(".")
    if labels[-1].isdecimal():  # an address has no parents
        return [host]
    parents = [".".join(labels[n:]) for n in range(1, len(labels) - 1)]
    return [host, *parents[1 - _MAX_DOMAINS :]]


def _paths(environ: Environ) -> list[str]:
    """Paths of cookies that come with a request, the shortest first; a few are enough."""
    whole = f"{environ.get('SCRIPT_NAME') or ''}{environ.get('PATH_INFO') or ''}"
    paths = ["/"]
    for segment in whole.split("/")[1 : 1 + _MAX_PATHS]:
        if not _SEGMENT.fullmatch(segment):
            break
        paths.append(f"{paths[-1].rstrip('/')}/{segment}")
    return paths


def _in_other_jar(line: str) -> str:
    """The line for cookies that are partitioned, or the other way round (CHIPS)."""
    flag = "; Partitioned"
    return line.removesuffix(flag) if line.endswith(flag) else line + flag
