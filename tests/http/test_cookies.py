"""Cookies are read tolerantly and in linear time, and written strictly."""

from __future__ import annotations

import email.message
import itertools
import json
import os
import random
import re
import string
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from http.cookiejar import CookieJar
from http.cookies import SimpleCookie
from typing import Any
from urllib.request import Request

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webob import cookies as webob_cookies
from webob.cookies import Morsel

from wsgisession._http import cookies
from wsgisession._http.cookies import MAX_OCTETS, MAX_PAIRS, Cookies
from wsgisession.errors import ConfigurationError
from wsgisession.options import Options

fuzz = settings(deadline=None, database=None)

LONG = os.environ.get("LONG_TESTS") == "1"
FUZZED = 1_000_000 if LONG else 20_000
"""How many headers are compared with what the specification says of them."""

QUARTER_MEGABYTE = 256 * 1024
TOKEN = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters
OCTET = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '",;\\')
HTTPS = {"wsgi.url_scheme": "https"}
HTTP = {"wsgi.url_scheme": "http"}


def read(header: object, name: str, **options: Any) -> list[str]:
    """The values of the cookie ``name`` in a header."""
    return Cookies(Options(cookie_name=name, cookie_secure=True, **options)).values(
        header
    )


def specified(header: str, name: str) -> list[str]:
    """The same by a slow and plain reader of its own, for comparison."""
    if len(header) > MAX_OCTETS:
        header = header[: header.rfind(";", 0, MAX_OCTETS)] if ";" in header else ""
    values = []
    for pair in header.split(";")[:MAX_PAIRS]:
        match = re.fullmatch(rf"[ \t]*{re.escape(name)}[ \t]*=(.*)", pair, re.DOTALL)
        value = match[1].strip(" \t") if match else ""
        inside = value[1:-1]
        if value == f'"{inside}"' and inside and not set(inside) - set(OCTET):
            value = inside
        if value and value not in values:
            values.append(value)
    return values


# -- reading -----------------------------------------------------------------------------


class TestReading:
    @pytest.mark.parametrize(
        ("header", "values"),
        [
            ("", []),
            (";", []),
            ("=", []),
            ("session", []),
            ("session=", []),
            ("session=; session", []),
            ("session=a", ["a"]),
            ("session=a;", ["a"]),
            (" session = a ", ["a"]),
            ("\tsession\t=\ta\t", ["a"]),
            ("other=b;session=a;third=c", ["a"]),
            ("other=b; session=a; third=c", ["a"]),
            ("other=b;\tsession=a; third=c", ["a"]),
            ("other=b;  session=a; third=c", ["a"]),
            ("session=a=b==", ["a=b=="]),
            ("session==a", ["=a"]),
            ("session=a b", ["a b"]),
            ("session=a ; b=c", ["a"]),
            ("xsession=a; sessionx=b; session.x=c", []),
            ("SESSION=a; Session=b", []),
            ("$Version=1; session=a; $Path=/", ["a"]),
            ("session=a; session=a", ["a"]),
            ("session=a; x=session", ["a"]),
            ("session=b; x=y; session =a", ["b", "a"]),
            ("session; session=a", ["a"]),
        ],
        ids=ascii,
    )
    def test_a_table(self, header: str, values: list[str]) -> None:
        """What a header says about the cookie ``session``."""
        assert read(header, "session") == values
        assert specified(header, "session") == values

    def test_the_first_equals_sign_ends_the_name(self) -> None:
        """A later one belongs to the value, and no name contains one."""
        assert read("a=session=b", "session") == []
        assert read("session=a=b", "session") == ["a=b"]

    def test_different_values_are_all_given_in_order_of_appearance(self) -> None:
        """What the order means is decided above; nothing is chosen here."""
        header = "; ".join(f"session={n}" for n in (3, 1, 2, 1, 3))
        assert read(header, "session") == ["3", "1", "2"]

    def test_a_name_is_compared_byte_by_byte(self) -> None:
        """``__host-`` is another cookie than ``__Host-``; only browsers fold the case."""
        header = "__host-id=evil; __HOST-ID=evil; __Host-id=good"
        assert read(header, "__Host-id") == ["good"]

    def test_only_a_blank_or_a_tab_is_stripped(self) -> None:
        """What else Python calls white space does not make another name ours."""
        for blank in "\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\r\n\0":
            assert read(f"{blank}session=a", "session") == []
            assert read(f"session{blank}=a", "session") == []
            assert read(f"session=a{blank}", "session") == [f"a{blank}"]

    @pytest.mark.parametrize(
        ("header", "values"),
        [
            (None, []),
            (b"session=a", ["a"]),
            (b"x=\xff; session=a", ["a"]),
            (7, []),
            ([], []),
        ],
        ids=ascii,
    )
    def test_pitfall_a_header_may_be_none_or_bytes(
        self, header: object, values: list[str]
    ) -> None:
        """Whatever a server or a test client has put into the environ is no error."""
        assert read(header, "session") == values


class TestPitfallQuotedValues:
    """WebTest, as an old browser, puts quotes around some values."""

    @pytest.mark.parametrize(
        ("said", "value"),
        [
            ('"a"', "a"),
            ('"a~b.c-d_e"', "a~b.c-d_e"),
            ('"="', "="),
            ('""', '""'),
            ('"', '"'),
            ('""a""', '""a""'),
            ('"a', '"a'),
            ('a"', 'a"'),
            ('"a b"', '"a b"'),
            ('"a,b"', '"a,b"'),
            ('"a\\"b"', '"a\\"b"'),
            ('"\xe9"', '"\xe9"'),
            ('"a" b', '"a" b'),
        ],
    )
    def test_one_pair_of_quotes_is_taken_off(self, said: str, value: str) -> None:
        """Around what could be a value without them; all else stays as it is."""
        assert read(f"session={said}", "session") == [value]
        assert read(f"session = {said} ; a=b", "session") == [value]

    def test_with_quotes_and_without_is_the_same_value(self) -> None:
        """A proxy that quotes one of two makes no two of them."""
        assert read('session=a; session="a"', "session") == ["a"]


class TestPitfallSmuggling:
    """WebOb's reader sees a cookie within another value; Werkzeug CVE-2023-23934."""

    @pytest.mark.parametrize(
        "header",
        [
            "a=b __Host-session=evil",
            "a=b,__Host-session=evil",
            "a=b, __Host-session=evil",
            "a=b\t__Host-session=evil",
            "a=b\n__Host-session=evil",
            'a="b __Host-session=evil"',
            'a="__Host-session=evil',
            "a=__Host-session=evil",
            "=__Host-session=evil",
            " =__Host-session=evil",
            "==__Host-session=evil",
            " __Host-session",
            "__host-session=evil",
            "..Host-session=evil",
            "__Host_session=evil",
            "%5f%5fHost-session=evil",
            "__Host-session%00=evil",
            '"__Host-session"=evil',
            "$__Host-session=evil",
        ],
        ids=ascii,
    )
    def test_nothing_gets_past_the_prefix(self, header: str) -> None:
        """No pair but one that bears the very name counts as the cookie."""
        assert read(header, "__Host-session") == []
        both = f"{header}; __Host-session=good"
        assert read(both, "__Host-session") == ["good"]

    def test_a_quoted_semicolon_ends_the_pair(self) -> None:
        """Browsers know no quotes, and neither does the reader: ``;`` always splits."""
        assert read('a="x; session=b"; c=d', "session") == ['b"']


MALFORMED = [
    "null",
    "undefined",
    "=",
    "==",
    "=x",
    ",",
    '"',
    "\\",
    '"\\"',
    'prefs={"a": 1, "b": [2, 3], "c": "d=e"}',
    f"filter={json.dumps({'name': 'ü', 'list': [1, 2]})}",
    "a[b]=c",
    "a:b=c",
    "größe=1",
    "a=\xe9\xff\x80",
    "a=\udcff",
    "a=\x00\x01\x1f",
    "expires=Thu, 01 Jan 1970 00:00:00 GMT",
    "Path=/; HttpOnly",
    'a="unfinished',
    "a=b=c=d",
    "a" * 3000,
    "\\" * 3000,
    "GA1.2.1=.2|3",
]


class TestPitfallMalformedNeighbour:
    """One malformed neighbour costs ``http.cookies`` the whole jar; Beaker #24, #231."""

    @pytest.mark.parametrize("neighbour", MALFORMED, ids=lambda n: ascii(n[:20]))
    def test_costs_nothing_but_itself(self, neighbour: str) -> None:
        """Our cookie is found before, after and between malformed ones."""
        for header in (
            f"{neighbour}; session=mine",
            f"session=mine; {neighbour}",
            f"{neighbour};session=mine;{neighbour}",
        ):
            assert read(header, "session") == ["mine"]

    def test_all_of_them_at_once(self) -> None:
        """Not even all of them together hide it."""
        header = "; ".join([*MALFORMED[:10], "session=mine", *MALFORMED[10:]])
        assert read(header, "session") == ["mine"]


class TestTheControls:
    """The readers that others use fail the tables above, so the tables can fail."""

    def test_http_cookies_loses_the_jar(self) -> None:
        """One word without a value is enough for ``http.cookies``."""
        jar: SimpleCookie = SimpleCookie()
        jar.load("null; session=mine")
        assert "session" not in jar

    def test_webob_sees_a_cookie_within_a_value(self) -> None:
        """A comma or a blank is enough for WebOb."""
        parse_cookie: Any = vars(webob_cookies)["parse_cookie"]
        for header in ("a=b,__Host-session=evil", "a=b __Host-session=evil"):
            assert (b"__Host-session", b"evil") in parse_cookie(header)


class TestLimits:
    """At most 16 KiB and 180 pairs are looked at, so that a header costs its server."""

    def test_the_last_pair_that_counts(self) -> None:
        """The 180th pair is read, the 181st is not."""
        before = "a=b; " * (MAX_PAIRS - 1)
        assert read(f"{before}session=mine; c=d", "session") == ["mine"]
        assert read(f"a=b; {before}session=mine", "session") == []
        assert read(";" * (MAX_PAIRS - 1) + "session=mine", "session") == ["mine"]
        assert read(";" * MAX_PAIRS + "session=mine", "session") == []

    def test_the_last_octet_that_counts(self) -> None:
        """16 KiB are read, and no octet more."""
        pair = "session=mine"
        filler = "a=" + "b" * (MAX_OCTETS - len(pair) - 3) + ";"
        assert len(filler + pair) == MAX_OCTETS
        assert read(filler + pair, "session") == ["mine"]
        assert read("a" + filler + pair, "session") == []

    def test_a_pair_that_is_cut_is_not_read_as_a_shorter_one(self) -> None:
        """What stands across the limit is dropped as a whole."""
        filler = "a=" + "b" * (MAX_OCTETS - 20) + ";"
        header = filler + "session=" + "c" * 100
        assert len(header) > MAX_OCTETS
        assert read(header, "session") == []

    def test_what_stands_before_the_limit_is_found(self) -> None:
        """However much follows, our cookie at the front is read."""
        header = "session=mine; " + "a=b; " * 100_000
        assert read(header, "session") == ["mine"]

    def test_chunks_have_room_in_the_header(self) -> None:
        """What may be set over ten cookies is looked at when it comes back."""
        chunked = Cookies(Options(cookie_name="session", cookie_chunks=10))
        value = "v" * chunked.room
        assert chunked.values(sent(chunked.set(HTTPS, value, max_age=60))) == [value]


HUGE = {
    "quoted-backslashes": 'session="' + "\\" * QUARTER_MEGABYTE + '"',
    "octal-escapes": 'session="' + "\\101" * (QUARTER_MEGABYTE // 4),
    "quotes": "session=" + '"' * QUARTER_MEGABYTE,
    "pairs": "a=b;" * (QUARTER_MEGABYTE // 4) + "session=x",
    "ours": "session=a;" * (QUARTER_MEGABYTE // 10),
    "ours-all-different": ";".join(f"session={n}" for n in range(20_000)),
    "ours-all-quoted": ";".join(f'session="{n}"' for n in range(20_000)),
    "chunks": ";".join(f"session=~aAAAAAAAA{n}" for n in range(20_000)),
    "chunks-of-one": ";".join(
        f"session.{n % 9 + 1}=~aAAAAAAAA{n}" for n in range(20_000)
    ),
    "separators": ";" * QUARTER_MEGABYTE + "session=x",
    "equals": "session" + "=" * QUARTER_MEGABYTE,
    "blanks": "session" + " " * QUARTER_MEGABYTE + "= x",
    "blank-value": "session=" + " " * QUARTER_MEGABYTE + "x",
    "one-name": "session" * (QUARTER_MEGABYTE // 7),
    "one-value": "session=" + "a" * QUARTER_MEGABYTE,
    "commas": "session=x" + ", session=y" * (QUARTER_MEGABYTE // 11),
    "nulls": "session=" + "\0" * QUARTER_MEGABYTE,
    "dates": "expires=Thu, 01 Jan 1970 00:00:00 GMT; " * (QUARTER_MEGABYTE // 39),
}


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of ``cookies.py`` some work takes."""
    count = 0
    before = sys.gettrace()

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename != cookies.__file__:
            return None
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


class TestPitfallQuotedBackslashes:
    """40 kB of quoted backslashes cost ``http.cookies`` seconds (CVE-2024-7592)."""

    @pytest.mark.parametrize("chunks", [1, 10])
    @pytest.mark.parametrize("kind", HUGE)
    def test_the_work_is_bounded(self, kind: str, chunks: int) -> None:
        """A header of 256 KiB takes no more steps than the limits allow."""
        reader = Cookies(Options(cookie_name="session", cookie_chunks=chunks))
        steps = lines_run(lambda: reader.values(HUGE[kind]))
        assert 0 < steps < 60 + 35 * MAX_PAIRS

    def test_nothing_hangs(self) -> None:
        """A hang guard: all of them within a generous limit."""
        began = time.monotonic()
        for header in HUGE.values():
            read(header, "session")
            read(header, "session", cookie_chunks=10)
        assert time.monotonic() - began < 30


PIECES = [
    *("sid", "sid=", "sid =", "xsid=", "sid.1=", "__sid=", "SID=", "si", "d", "sids"),
    *(
        "=",
        ";",
        "; ",
        " ;",
        ";\t",
        " ",
        "\t",
        ",",
        '"',
        "\\",
        "a",
        "token",
        "b=c",
        "x=",
    ),
    *('"a"', "\n", "\x85", "\xff", "\0", "; sid=tok", ";sid=ken; ", ' sid="quoted"; '),
]


def headers(count: int) -> Any:
    """Random headers in which the name often stands where it might count."""
    chance = random.Random(20_260_801)
    for _ in range(count):
        yield "".join(chance.choices(PIECES, k=chance.randint(1, 12)))


class TestFuzz:
    def test_the_readers_agree(self) -> None:
        """The quick way and the full one read what the specification says.

        The positive control is a reader that looks for the name alone.
        """
        name, reader = "sid", Cookies(Options(cookie_name="sid"))
        found = {0: 0, 1: 0, 2: 0}
        differs = 0
        for header in headers(FUZZED):
            values = reader.values(header)
            assert values == specified(header, name), ascii(header)
            found[min(len(values), 2)] += 1
            naive = header.partition(f"{name}=")[2].partition(";")[0].strip(" \t")
            differs += values != [naive] if naive else bool(values)
        assert min(found.values()) > FUZZED / 20
        assert differs > FUZZED / 20

    @fuzz
    @given(st.text(st.characters(exclude_categories=())), st.text(TOKEN, min_size=1))
    def test_any_header_is_read_without_an_error(self, header: str, name: str) -> None:
        """Whatever stands in the header, reading gives different values of one name."""
        try:
            options = Options(cookie_name=name, cookie_secure=True, cookie_chunks=3)
        except ConfigurationError:
            return
        values = Cookies(options).values(header)
        assert len(values) == len(set(values))
        assert all(values)

    @fuzz
    @given(
        st.text(
            st.one_of(
                st.sampled_from('session=;, \t"\\$%\0\xa0ÿ'),
                st.characters(max_codepoint=255),
            ),
            max_size=60,
        )
    )
    def test_values_come_from_pairs_that_bear_the_name(self, header: str) -> None:
        """A value is only ever what follows ``session=`` between two semicolons."""
        assert read(header, "session") == specified(header, "session")

    @fuzz
    @given(
        st.lists(st.tuples(st.text(TOKEN, min_size=1), st.text(OCTET)), max_size=170),
        st.text(OCTET, min_size=1, max_size=200),
        st.data(),
    )
    def test_ours_is_found_at_any_place_in_a_jar(
        self, jar: list[tuple[str, str]], value: str, data: st.DataObject
    ) -> None:
        """In a well-formed header of a browser our cookie is always found."""
        pairs = [f"{name}={other}" for name, other in jar if name != "session"]
        place = data.draw(st.integers(0, len(pairs)))
        header = "; ".join([*pairs[:place], f"session={value}", *pairs[place:]])
        if len(header) <= MAX_OCTETS:
            assert read(header, "session") == [value]

    @fuzz
    @given(
        st.lists(st.text(st.characters(max_codepoint=255, exclude_characters=";"))),
        st.data(),
    )
    def test_ours_is_found_among_anything(
        self, neighbours: list[str], data: st.DataObject
    ) -> None:
        """So it is among neighbours that are no cookies at all."""
        others = [n for n in neighbours if n.partition("=")[0].strip() != "session"]
        place = data.draw(st.integers(0, len(others)))
        header = ";".join([*others[:place], "session=mine", *others[place:]])
        assert read(header, "session") == ["mine"]


# -- writing -----------------------------------------------------------------------------


def parsed(line: str) -> tuple[str, str, dict[str, str | None]]:
    """Name, value and attributes of a ``Set-Cookie`` line, read as browsers do."""
    pair, *rest = line.split(";")
    name, _, value = pair.partition("=")
    attributes: dict[str, str | None] = {}
    for part in rest:
        key, equals, said = part.strip(" ").partition("=")
        assert key.lower() not in attributes
        attributes[key.lower()] = said if equals else None
    return name, value, attributes


def sent(lines: list[str]) -> str:
    """The ``Cookie`` header of a browser that was given these lines."""
    pairs = [parsed(line) for line in lines]
    return "; ".join(f"{n}={v}" for n, v, said in pairs if said.get("max-age") != "0")


def written(
    options: Options,
    value: str = "abc",
    *,
    max_age: int | None = 60,
    environ: dict[str, Any] = HTTPS,
) -> tuple[str, str, dict[str, str | None]]:
    """Name, value and attributes of the cookie as it is set."""
    (line,) = Cookies(options).set(environ, value, max_age=max_age)
    return parsed(line)


class TestWriting:
    def test_the_default(self) -> None:
        """A cookie for the host alone, hidden from scripts, for same-site requests."""
        assert written(Options(cookie_name="sid"), max_age=None) == (
            "sid",
            "abc",
            {"path": "/", "secure": None, "httponly": None, "samesite": "Lax"},
        )

    @pytest.mark.parametrize(
        ("option", "value", "attribute", "said"),
        [
            ("cookie_path", "/shop", "path", "/shop"),
            ("cookie_path", "/a%20b/=:@&+$~", "path", "/a%20b/=:@&+$~"),
            ("cookie_domain", "example.com", "domain", "example.com"),
            ("cookie_domain", ".example.com", "domain", ".example.com"),
            ("cookie_samesite", "Strict", "samesite", "Strict"),
            ("cookie_samesite", "None", "samesite", "None"),
            ("cookie_partitioned", True, "partitioned", None),
        ],
    )
    def test_each_option_has_its_attribute(
        self, option: str, value: Any, attribute: str, said: str | None
    ) -> None:
        """What was chosen is written as it was chosen."""
        options = Options(cookie_secure=True, **{option: value})
        assert written(options)[2][attribute] == said

    def test_an_attribute_that_is_off_is_not_there(self) -> None:
        """Secure, HttpOnly, SameSite, Domain and an expiry stand only where due."""
        options = Options(
            cookie_httponly=False, cookie_secure=False, cookie_samesite=False
        )
        assert written(options, max_age=None)[2] == {"path": "/"}

    @pytest.mark.parametrize(
        ("environ", "secure"),
        [(HTTPS, True), (HTTP, False), ({}, False)],
        ids=["https", "http", "unknown"],
    )
    def test_auto_is_secure_where_the_request_was(
        self, environ: dict[str, Any], secure: bool
    ) -> None:
        """``cookie_secure="auto"`` looks at the scheme of each request."""
        attributes = written(Options(cookie_secure="auto"), environ=environ)[2]
        assert ("secure" in attributes) == secure

    def test_the_prefixed_cookie_is_one_that_browsers_take(self) -> None:
        """``__Host-``: Secure, the whole host's path, and no domain."""
        options = Options(cookie_name="__Host-id", cookie_secure=True)
        name, _, attributes = written(options)
        assert name == "__Host-id"
        assert "secure" in attributes
        assert attributes["path"] == "/"
        assert "domain" not in attributes

    @pytest.mark.parametrize("character", [chr(c) for c in range(0x21, 0x7F)])
    def test_a_path_is_written_as_it_is_or_refused(self, character: str) -> None:
        """A path that is escaped on its way is one that no browser matches."""
        try:
            options = Options(cookie_path=f"/a{character}b")
        except ConfigurationError:
            return
        assert written(options)[2]["path"] == f"/a{character}b"

    @pytest.mark.parametrize(
        "value",
        ["a;b", "a\r\nSet-Cookie: b=c", "a\nb", "a\0b", "a\x7fb", "a b", "a,b", 'a"b']
        + ["a\\b", "\xe9", "\u20ac", "\udcff"],
        ids=ascii,
    )
    def test_a_value_that_could_break_out_is_refused(self, value: str) -> None:
        """What RFC 6265 allows in no value is written into no line, and not repeated."""
        with pytest.raises(ValueError, match="RFC 6265") as refused:
            written(Options(), value)
        assert value not in str(refused.value)

    def test_a_value_without_room_is_refused(self) -> None:
        """Browsers would drop it in silence."""
        for chunks in (1, 2, 10):
            writer = Cookies(Options(cookie_chunks=chunks))
            writer.set(HTTPS, "v" * writer.room, max_age=60)
            with pytest.raises(ValueError, match="room for"):
                writer.set(HTTPS, "v" * (writer.room + 1), max_age=60)

    @fuzz
    @given(
        st.text(TOKEN.replace("$", ""), min_size=1),
        st.text(OCTET, max_size=100),
        st.from_regex(r"/[A-Za-z0-9._~!$&'()*+=:@%/-]{0,50}", fullmatch=True),
        st.none()
        | st.from_regex(r"\.?[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
        st.booleans(),
        st.none() | st.integers(1, 400 * 86400),
    )
    def test_every_line_is_one_well_formed_line(
        self,
        name: str,
        value: str,
        path: str,
        domain: str | None,
        partitioned: bool,
        max_age: int | None,
    ) -> None:
        """Whatever the options allow is one line that reads as it was meant."""
        try:
            options = Options(
                cookie_name=name,
                cookie_path=path,
                cookie_domain=domain,
                cookie_secure=True,
                cookie_partitioned=partitioned,
            )
        except ConfigurationError:
            return
        writer = Cookies(options)
        (given,) = writer.set(HTTPS, value, max_age=max_age)
        for line in (given, *writer.expire(HTTPS)):
            assert re.fullmatch(r"[\x20-\x7e]+", line)
            found, _, attributes = parsed(line)
            assert (found, attributes["path"]) == (name, path)
            assert attributes.get("domain") == domain
            assert ("partitioned" in attributes) == partitioned
        assert parsed(given)[1] == value


# -- the line is WebOb's -----------------------------------------------------------------

MOMENT = 1_709_251_199.75
"""The last second of a 29th of February."""


def by_webob(options: Options, value: str | None, age: int | None, secure: bool) -> str:
    """The line as WebOb makes it by itself, for the moment above."""
    morsel = Morsel(options.cookie_name, value or "")
    morsel.path = str(options.cookie_path).encode()
    if isinstance(options.cookie_domain, str):
        morsel.domain = options.cookie_domain.encode()
    morsel.secure, morsel.httponly = secure, options.cookie_httponly
    if options.cookie_samesite:
        morsel.samesite = options.cookie_samesite
    if value is None:
        morsel.max_age = 0
        morsel.expires = datetime(1970, 1, 1, tzinfo=timezone.utc)
    elif age is not None:
        now = datetime.fromtimestamp(MOMENT, timezone.utc)
        morsel.max_age, morsel.expires = age, now + timedelta(seconds=age)
    line: str = morsel.serialize()
    return f"{line}; Partitioned" if options.cookie_partitioned else line


SHAPES: list[dict[str, Any]] = [
    {
        "cookie_name": name,
        "cookie_path": path,
        "cookie_domain": domain,
        "cookie_secure": secure,
        "cookie_samesite": samesite,
        "cookie_partitioned": partitioned,
        "cookie_httponly": httponly,
    }
    for name, path, domain, secure, samesite, partitioned, httponly in itertools.product(
        ["sid", "a.b-c_d|e~f!"],
        ["/", "/shop", "/expires=0/Max-Age=0"],
        [None, "example.com", ".max-age.example"],
        [True, "auto", False],
        ["Lax", "Strict", "None", False],
        [False, True],
        [True, False],
    )
    if secure is True or (samesite != "None" and not partitioned)
]
AGES = [None, 0, 1, 86399, 86400, 400 * 86400]


class TestTheLineIsWebObs:
    def test_octet_for_octet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In thousands of combinations it differs in no octet from WebOb's own."""
        monkeypatch.setattr(time, "time", lambda: MOMENT)
        compared = 0
        for shape in SHAPES:
            options = Options(**shape)
            writer = Cookies(options)
            for environ in (HTTPS, HTTP):
                secure = options.cookie_secure
                if secure == "auto":
                    secure = environ is HTTPS
                for age, value in itertools.product(AGES, ["", "v-_~A=9"]):
                    expected = by_webob(options, value, age, bool(secure))
                    assert writer.set(environ, value, max_age=age) == [expected]
                    compared += 1
                gone = by_webob(options, None, None, bool(secure))
                assert writer.expire(environ) == [gone]
        assert compared > 5000

    def test_the_date_goes_with_the_clock(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its text is kept, and never for another second or another age."""
        writer = Cookies(Options())

        def expires(now: float, age: int) -> str:
            monkeypatch.setattr(time, "time", lambda: now)
            said = parsed(writer.set(HTTPS, "v", max_age=age)[0])[2]["expires"]
            assert said is not None
            return said[17:25]

        assert expires(100.0, 10) == "00:01:50"
        assert expires(100.9, 10) == "00:01:50"
        assert expires(101.0, 10) == "00:01:51"
        assert expires(101.0, 11) == "00:01:52"
        assert expires(100.0, 10) == "00:01:50"


@pytest.fixture(params=["UTC", "Asia/Kolkata", "America/St_Johns", "XYZ-12:45"])
def local_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine whose local time is not Greenwich's."""
    if not hasattr(time, "tzset"):
        pytest.skip("this system has no tzset()")
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class TestPitfallExpiryInLocalTime:
    """Beaker's expiry was labelled GMT and printed in local time."""

    @pytest.mark.usefixtures("local_time")
    @pytest.mark.parametrize("max_age", [1, 60, 86400, 14 * 86400, 400 * 86400])
    def test_expires_says_what_max_age_says(self, max_age: int) -> None:
        """Both attributes name the same moment, in GMT wherever the server stands."""
        before = int(time.time())
        attributes = written(Options(), max_age=max_age)[2]
        after = time.time()
        assert attributes["max-age"] == str(max_age)
        assert attributes["expires"] is not None
        moment = datetime.strptime(attributes["expires"], "%a, %d-%b-%Y %H:%M:%S GMT")
        expires = moment.replace(tzinfo=timezone.utc).timestamp()
        assert before + max_age <= expires <= after + max_age


# -- a domain or a path that depends on the request --------------------------------------


class TestCalled:
    """``cookie_domain`` and ``cookie_path`` may be callables of the environ."""

    def test_each_request_has_its_own(self) -> None:
        """One application for many hosts; the cookie is taken away where it was set."""
        writer = Cookies(
            Options(
                cookie_domain=lambda environ: environ["HTTP_HOST"],
                cookie_path=lambda environ: environ["SCRIPT_NAME"],
            )
        )
        for host, path in [("a.example", "/x"), ("b.example", "/y")] * 2:
            environ = {**HTTPS, "HTTP_HOST": host, "SCRIPT_NAME": path}
            for line in (
                *writer.set(environ, "v", max_age=60),
                *writer.expire(environ),
            ):
                attributes = parsed(line)[2]
                assert (attributes["domain"], attributes["path"]) == (host, path)

    @pytest.mark.parametrize("domain", [None, ""])
    def test_no_domain_is_the_host_alone(self, domain: Any) -> None:
        """As where the option is not set."""
        options = Options(cookie_domain=lambda environ: domain)
        assert "domain" not in written(options)[2]

    @pytest.mark.parametrize(
        "given",
        [
            {"cookie_domain": "a.example; Path=/x"},
            {"cookie_domain": "a.example\r\nX-Evil: 1"},
            {"cookie_domain": "*.example"},
            {"cookie_domain": "a.example:80"},
            {"cookie_domain": 7},
            {"cookie_domain": ["a.example"]},
            {"cookie_path": "shop"},
            {"cookie_path": "/a;b"},
            {"cookie_path": "/a\nb"},
            {"cookie_path": ""},
            {"cookie_path": None},
            {"cookie_path": b"/"},
        ],
        ids=repr,
    )
    def test_what_it_gives_is_checked_as_at_construction(
        self, given: dict[str, Any]
    ) -> None:
        """It fails each time, by the name of the option, and writes nothing."""
        ((name, value),) = given.items()
        options: dict[str, Any] = {name: lambda environ: value}
        writer = Cookies(Options(**options))
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=name):
                writer.set(HTTPS, "v", max_age=60)
            with pytest.raises(ConfigurationError, match=name):
                writer.expire(HTTPS)

    def test_a_value_has_room_whatever_they_give(self) -> None:
        """The longest domain there is, and a path as long."""
        writer = Cookies(
            Options(
                cookie_domain=lambda environ: ".".join(["d" * 63] * 3 + ["e" * 61]),
                cookie_path=lambda environ: "/" + "p" * 254,
            )
        )
        (line,) = writer.set(HTTPS, "v" * writer.room, max_age=400 * 86400)
        assert len(line) <= 4096

    def test_a_flood_of_hosts_is_not_kept(self) -> None:
        """Clients choose ``Host``, so how many lines are kept is bounded."""
        writer = Cookies(Options(cookie_domain=lambda environ: environ["HTTP_HOST"]))

        def answer(count: int) -> int:
            """Answer so many hosts, and say how many objects that leaves behind."""
            before = len(gc_objects())
            for n in range(count):
                environ = {**HTTPS, "HTTP_HOST": f"h{n}.example"}
                writer.set(environ, "v", max_age=60)
            return len(gc_objects()) - before

        answer(300)
        assert answer(2000) < 200


def gc_objects() -> list[Any]:
    """All objects that the collector knows, after it has collected."""
    import gc

    gc.collect()
    return gc.get_objects()


# -- taking it away ----------------------------------------------------------------------


class TestPitfallDeletion:
    """Deleting a cookie needs the attributes it was set with; Django forgets some."""

    @pytest.mark.parametrize(
        "shape", SHAPES[::5], ids=lambda s: "-".join(map(str, s.values()))
    )
    def test_repeats_every_attribute(self, shape: dict[str, Any]) -> None:
        """Path, Domain, Secure, HttpOnly, SameSite, Partitioned: all but the expiry."""
        options = Options(**shape)
        name, _, kept = written(options, max_age=60)
        (line,) = Cookies(options).expire(HTTPS)
        found, value, gone = parsed(line)
        assert (found, value) == (name, "")
        assert gone.pop("max-age") == "0"
        moment = gone.pop("expires")
        assert moment is not None
        assert moment.endswith("-1970 00:00:00 GMT")
        kept.pop("max-age")
        kept.pop("expires")
        assert gone == kept

    @pytest.mark.parametrize(
        "shape",
        [
            {},
            {"cookie_path": "/shop"},
            {"cookie_domain": "example.com"},
            {"cookie_domain": ".example.com", "cookie_path": "/shop"},
            {"cookie_name": "__Host-session"},
        ],
        ids=repr,
    )
    def test_takes_the_cookie_out_of_a_jar(self, shape: dict[str, Any]) -> None:
        """A jar that took the cookie sends it, and lets go of it again."""
        writer = Cookies(Options(cookie_secure=True, **shape))
        jar = Jar()
        jar.take(writer.set(HTTPS, "v1", max_age=9))
        jar.take(writer.set(HTTPS, "v2", max_age=9))
        assert writer.values(jar.header()) == ["v2"]
        jar.take(writer.expire(HTTPS))
        assert jar.header() == ""


class Jar:
    """The cookies of a browser that looks at one page."""

    def __init__(self, url: str = "https://app.example.com/shop/cart") -> None:
        self._jar = CookieJar()
        self._url = url

    def take(self, lines: list[str]) -> None:
        """See a response with these ``Set-Cookie`` values."""
        headers = email.message.Message()
        for line in lines:
            headers["Set-Cookie"] = line

        class Response:
            def info(self) -> email.message.Message:
                return headers

        self._jar.extract_cookies(Response(), Request(self._url))  # type: ignore[arg-type]

    def header(self) -> str:
        """The ``Cookie`` header of the next request."""
        request = Request(self._url)
        self._jar.add_cookie_header(request)
        return request.get_header("Cookie") or ""


class TestPitfallSeveralSpellings:
    """Who changes ``cookie_domain`` leaves clients with two live cookies for weeks."""

    HOST = {**HTTPS, "HTTP_HOST": "app.example.com"}

    @pytest.mark.parametrize("chunks", [1, 3])
    @pytest.mark.parametrize("now", [None, "example.com", ".app.example.com"], ids=str)
    @pytest.mark.parametrize(
        "planted", [None, "example.com", "app.example.com"], ids=str
    )
    def test_only_the_one_set_afterwards_remains(
        self, planted: str | None, now: str | None, chunks: int
    ) -> None:
        """Healed and set, the client sends one cookie, and whole."""
        before = Cookies(Options(cookie_domain=planted, cookie_chunks=chunks))
        after = Cookies(Options(cookie_domain=now, cookie_chunks=chunks))
        jar = Jar()
        jar.take(after.set(HTTPS, "ours", max_age=9))
        jar.take(before.set(HTTPS, "p" * before.room, max_age=9))
        environ = {**self.HOST, "HTTP_COOKIE": jar.header()}
        jar.take([*after.heal(environ), *after.set(environ, "new", max_age=9)])
        assert jar.header() == f"{Options().cookie_name}=new"

    def test_without_it_both_remain(self) -> None:
        """The positive control: what is set does not replace another spelling."""
        name, jar = Options().cookie_name, Jar()
        jar.take(
            Cookies(Options(cookie_domain="example.com")).set(HTTPS, "a", max_age=9)
        )
        jar.take(Cookies(Options()).set(HTTPS, "b", max_age=9))
        assert sorted(jar.header().split("; ")) == [f"{name}=a", f"{name}=b"]

    def test_its_own_spelling_is_left_alone(self) -> None:
        """An answer that heals and sets must not depend on the order in the browser."""
        for domain in (None, "example.com", ".example.com", "EXAMPLE.com"):
            healer = Cookies(Options(cookie_domain=domain))
            _, *lines = healer.heal(self.HOST)  # the first is for the other jar
            said = [parsed(line)[2].get("domain") for line in lines]
            own = domain.lstrip(".").lower() if domain else None
            assert own not in said
            assert set(said) | {own} == {None, "app.example.com", "example.com"}

    @pytest.mark.parametrize(
        ("host", "domains"),
        [
            ("example.com", ["example.com"]),
            ("EXAMPLE.com:8080", ["example.com"]),
            ("localhost:80", ["localhost"]),
            ("127.0.0.1:80", ["127.0.0.1"]),
            ("[::1]:80", []),
            ("", []),
            ("a;b.example", []),
            ("a.example\r\nX-Evil: 1", []),
            ("x" * 300, []),
            ("\xe9.example", []),
        ],
        ids=ascii,
    )
    def test_hosts(self, host: str, domains: list[str]) -> None:
        """Only what is a host name is written into a line."""
        _, *lines = Cookies(Options()).heal({**HTTPS, "HTTP_HOST": host})
        assert [parsed(line)[2]["domain"] for line in lines] == domains

    def test_a_host_with_many_labels_has_few_lines(self) -> None:
        """An answer's headers stay small: the shortest parents are the likely ones."""
        host = ".".join("abcdefghij") + ".example.com"
        _, *lines = Cookies(Options()).heal({**HTTPS, "HTTP_HOST": host})
        said = [parsed(line)[2]["domain"] for line in lines]
        assert said == [host, "j.example.com", "example.com"]

    def test_a_host_cookie_has_no_other_spelling(self) -> None:
        """Browsers take ``__Host-`` without a domain only; there are two jars for it."""
        options = Options(cookie_name="__Host-sid", cookie_secure=True)
        environ = {**self.HOST, "PATH_INFO": "/shop/cart"}
        (line,) = Cookies(options).heal(environ)
        assert "Partitioned" in line
        options = Options(
            cookie_name="__Host-sid", cookie_secure=True, cookie_partitioned=True
        )
        (line,) = Cookies(options).heal(environ)
        assert "Partitioned" not in line

    @pytest.mark.parametrize(
        ("script", "path", "paths"),
        [
            ("", "/", ["/"]),
            ("", "", ["/"]),
            ("/shop", "/cart", ["/", "/shop", "/shop/cart"]),
            ("", "/a/b/c/d/e", ["/", "/a", "/a/b", "/a/b/c"]),
            ("", "/a;b/c", ["/"]),
            ("", "/a/../\r\nX: 1", ["/", "/a", "/a/.."]),
            (None, None, ["/"]),
        ],
        ids=ascii,
    )
    def test_paths(self, script: Any, path: Any, paths: list[str]) -> None:
        """Only what a path may consist of is written into a line, and a few of them."""
        environ = {"wsgi.url_scheme": "http", "SCRIPT_NAME": script, "PATH_INFO": path}
        lines = Cookies(Options(cookie_path="/other")).heal(environ)
        assert [parsed(line)[2]["path"] for line in lines] == paths

    @pytest.mark.parametrize("before", ["/shop", "/shop/cart", "/"])
    @pytest.mark.parametrize("after", ["/", "/shop"])
    def test_a_path_that_was_changed(self, before: str, after: str) -> None:
        """Healed and set, the client sends one cookie."""
        jar = Jar()
        jar.take(Cookies(Options(cookie_path=before)).set(HTTPS, "old", max_age=9))
        healer = Cookies(Options(cookie_path=after))
        environ = {**HTTPS, "PATH_INFO": "/shop/cart", "HTTP_COOKIE": jar.header()}
        jar.take([*healer.heal(environ), *healer.set(environ, "new", max_age=9)])
        assert jar.header() == f"{Options().cookie_name}=new"


# -- a value over several cookies --------------------------------------------------------


class TestChunks:
    @pytest.fixture
    def three(self) -> Cookies:
        return Cookies(Options(cookie_name="sid", cookie_chunks=3))

    def test_any_length_comes_back(self, three: Cookies) -> None:
        """In as many cookies as it needs, each of at most 4096 octets."""
        single = Cookies(Options(cookie_name="sid")).room
        counts = set()
        for length in (1, single, single + 1, 2 * single - 40, 2 * single, three.room):
            value = (string.ascii_letters * 300)[:length]
            lines = three.set(HTTPS, value, max_age=400 * 86400)
            assert max(map(len, lines)) <= 4096
            assert three.values(sent(lines)) == [value]
            counts.add(len(lines))
        assert counts == {1, 2, 3}

    def test_chunks_arrive_in_any_order_and_in_quotes(self, three: Cookies) -> None:
        """Order means nothing (RFC 6265bis 5.8.3)."""
        value = "v" * three.room
        pairs = sent(three.set(HTTPS, value, max_age=60)).split("; ")
        for order in itertools.permutations(pairs):
            assert three.values("; ".join(order)) == [value]
        quoted = [re.sub("=(.*)", r'="\1"', pair) for pair in pairs]
        assert three.values("; ".join(quoted)) == [value]

    def test_what_is_not_whole_is_none(self, three: Cookies) -> None:
        """A chunk is missing, cut, there twice, of another value, or counts too many."""
        one, two, last = sent(three.set(HTTPS, "v" * three.room, max_age=60)).split(
            "; "
        )
        other = sent(three.set(HTTPS, "w" * three.room, max_age=60)).split("; ")
        assert three.values(f"{one}; {two}") == []
        assert three.values(f"{two}; {last}") == []
        assert three.values(f"{one}; {two}; {last[:-1]}") == []
        assert three.values(f"{one}; {two}; {last}; {last}x") == []
        assert three.values(f"{one}x; {one}; {two}; {last}") == []
        assert three.values(f"{one}; {other[1]}; {last}") == []
        assert three.values(one.replace("~3", "~4") + f"; {two}; {last}") == []
        assert three.values("sid=~3AAAAAAAA") == []
        assert three.values("sid=~") == []

    def test_they_are_never_mixed(self) -> None:
        """Whatever chunks of three values are there: a whole value, or nothing."""
        four = Cookies(Options(cookie_name="sid", cookie_chunks=4))
        values = ["A" * 11_000, "B" * 11_500, "C" * 5_000]
        lists = [sent(four.set(HTTPS, v, max_age=60)).split("; ") for v in values]
        assert [len(each) for each in lists] == [3, 3, 2]
        places = [[each[n] for each in lists if n < len(each)] for n in range(3)]
        subsets = [
            [s for n in range(len(place) + 1) for s in itertools.permutations(place, n)]
            for place in places
        ]
        found = set()
        for picked in itertools.product(*subsets):
            header = "; ".join(itertools.chain(*picked))
            result = four.values(header)
            assert len(result) == len(set(result))
            for value, chunks in zip(values, lists, strict=True):
                assert (value in result) is all(chunk in header for chunk in chunks)
            found.update(result)
        assert found == set(values)

    def test_two_whole_values_are_both_given(self, three: Cookies) -> None:
        """Chunks of two values are told apart, beside one that needs none."""
        v, w = "v" * three.room, "w" * three.room
        mixed = [
            *sent(three.set(HTTPS, w, max_age=60)).split("; "),
            "sid=short",
            *sent(three.set(HTTPS, v, max_age=60)).split("; "),
        ]
        mixed[1], mixed[5] = mixed[5], mixed[1]
        assert three.values("; ".join(mixed)) == [w, "short", v]

    def test_chunks_of_a_longer_value_are_taken_away(self, three: Cookies) -> None:
        """A shorter value leaves none behind, and touches none that is not there."""
        jar = Jar()
        for length in (three.room, 6000, 10, three.room, 10, 6000):
            environ = {**HTTPS, "HTTP_COOKIE": jar.header()}
            jar.take(three.set(environ, "v" * length, max_age=9))
            assert three.values(jar.header()) == ["v" * length]
            assert len(jar.header()) < length + 60
        assert len(three.set(HTTPS, "v", max_age=9)) == 1

    def test_all_are_taken_away_at_the_end(self, three: Cookies) -> None:
        """The cookie itself in any case, its chunks where the client holds them."""
        jar = Jar()
        jar.take(three.set(HTTPS, "v" * three.room, max_age=9))
        for header in (jar.header(), jar.header().encode()):
            lines = three.expire({**HTTPS, "HTTP_COOKIE": header})
            assert [parsed(line)[0] for line in lines] == ["sid", "sid.1", "sid.2"]
        jar.take(lines)
        assert jar.header() == ""
        for empty in ({}, {"HTTP_COOKIE": None}, {"HTTP_COOKIE": "sid.1x=a"}):
            assert len(three.expire({**HTTPS, **empty})) == 1

    def test_a_single_cookie_knows_no_chunks(self) -> None:
        """Without the option no other cookie is looked at."""
        assert read("sid=~2AAAAAAAAx; sid.1=~2AAAAAAAAy", "sid") == ["~2AAAAAAAAx"]
