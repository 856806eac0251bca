"""Cookies are read tolerantly and in linear time, and written strictly."""

from __future__ import annotations

import email.message
import itertools
import json
import logging
import re
import string
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from http.cookiejar import CookieJar
from http.cookies import SimpleCookie
from typing import Any
from urllib.request import Request

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webob.cookies import parse_cookie

from wsgisession import ConfigurationError, Options, SessionManager, cookies
from wsgisession.cookies import MAX_OCTETS, MAX_PAIRS, MAX_VALUES, read
from wsgisession.stores.memory import MemoryStore

from .conftest import SECRET, CountingStore, Visitor

fuzz = settings(deadline=None, database=None)

QUARTER_MEGABYTE = 256 * 1024
TOKEN = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters
OCTET = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '",;\\')


def stored(manager: SessionManager, **values: Any) -> str:
    """The token of a session that was saved with some values."""
    session = manager.create()
    session.update(values)
    session.save()
    assert session.token is not None
    return session.token


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
            ("session=a=b==", ["a=b=="]),
            ("session==a", ["=a"]),
            ('session="a"', ['"a"']),
            ("session=a b", ["a b"]),
            ("xsession=a; sessionx=b; session.x=c", []),
            ("SESSION=a; Session=b", []),
            ("$Version=1; session=a; $Path=/", ["a"]),
            ("session=a; session=a", ["a"]),
        ],
        ids=ascii,
    )
    def test_a_table(self, header: str, values: list[str]) -> None:
        """What a header says about the cookie ``session``."""
        assert read(header, "session") == values

    def test_the_first_equals_sign_ends_the_name(self) -> None:
        """A later one belongs to the value, and no name contains one."""
        assert read("a=session=b", "session") == []
        assert read("session=a=b", "session") == ["a=b"]

    def test_different_values_of_one_name_are_all_given(self) -> None:
        """Order means nothing (RFC 6265bis 5.8.3), so nothing is chosen here."""
        assert sorted(read("session=b; x=y; session=a", "session")) == ["a", "b"]

    def test_a_name_is_compared_byte_by_byte(self) -> None:
        """``__host-`` is another cookie than ``__Host-``; only browsers fold the case."""
        header = "__host-id=evil; __HOST-ID=evil; __Host-id=good"
        assert read(header, "__Host-id") == ["good"]

    def test_only_a_blank_or_a_tab_is_stripped(self) -> None:
        """What else Python calls white space does not make another's name ours."""
        for blank in "\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\r\n\0":
            assert read(f"{blank}session=a", "session") == []
            assert read(f"session{blank}=a", "session") == []
            assert read(f"session=a{blank}", "session") == [f"a{blank}"]


class TestPitfallSmuggling:
    """WebOb's reader sees a cookie within another's value; Werkzeug CVE-2023-23934."""

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
            "__Host-session",
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
        for header in ("a=b,__Host-session=evil", "a=b __Host-session=evil"):
            assert (b"__Host-session", b"evil") in parse_cookie(header)


class TestLimits:
    """At most 16 KiB and 180 pairs are looked at, so that a header costs its server."""

    def test_the_last_pair_that_counts(self) -> None:
        """The 180th pair is read, the 181st is not."""
        before = "a=b; " * (MAX_PAIRS - 1)
        assert read(f"{before}session=mine; c=d", "session") == ["mine"]
        assert read(f"a=b; {before}session=mine", "session") == []

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

    def test_more_values_than_a_browser_sends_are_not_all_kept(self) -> None:
        """A flood of values is recognisable as one, and is cut."""
        header = "; ".join(f"session={n}" for n in range(170))
        assert len(read(header, "session")) == MAX_VALUES + 1


HUGE = {
    "quoted-backslashes": 'session="' + "\\" * QUARTER_MEGABYTE + '"',
    "octal-escapes": 'session="' + "\\101" * (QUARTER_MEGABYTE // 4),
    "quotes": "session=" + '"' * QUARTER_MEGABYTE,
    "pairs": "a=b;" * (QUARTER_MEGABYTE // 4) + "session=x",
    "ours": "session=a;" * (QUARTER_MEGABYTE // 10),
    "ours-all-different": ";".join(f"session={n}" for n in range(20_000)),
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

    @pytest.mark.parametrize("kind", HUGE)
    def test_the_work_is_bounded(self, kind: str) -> None:
        """A header of 256 KiB takes no more steps than the limits allow."""
        header = HUGE[kind]
        steps = lines_run(lambda: read(header, "session"))
        assert 0 < steps < 20 + 6 * MAX_PAIRS

    def test_nothing_hangs(self) -> None:
        """A hang guard: all of them, through a manager, within a generous limit."""
        manager = SessionManager(MemoryStore(), Options(secret=SECRET))
        began = time.monotonic()
        for header in HUGE.values():
            assert "a" not in manager.open_cookie(header)
        assert time.monotonic() - began < 30


class TestFuzz:
    @fuzz
    @given(st.text(st.characters(exclude_categories=())), st.text(TOKEN, min_size=1))
    def test_any_header_is_read_without_an_error(self, header: str, name: str) -> None:
        """Whatever stands in the header, reading gives different values of one name."""
        values = read(header, name)
        assert len(values) == len(set(values)) <= MAX_VALUES + 1
        assert all(value and value in header for value in values)

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
        expected = []
        for pair in header.split(";"):
            match = re.fullmatch(r"[ \t]*session[ \t]*=(.*)", pair, re.DOTALL)
            value = match[1].strip(" \t") if match else ""
            if value and value not in expected:
                expected.append(value)
        assert read(header, "session") == expected[: MAX_VALUES + 1]

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


class TestPitfallSeveralCookies:
    """Several cookies with our name, of a parent domain or another path."""

    @pytest.mark.parametrize("secret", [(), SECRET], ids=["plain", "signed"])
    def test_exactly_one_valid_is_used(self, secret: Any) -> None:
        """Values that lead nowhere disturb nobody, at whatever place they stand."""
        manager = SessionManager(MemoryStore(), Options(secret=secret))
        ours, gone = stored(manager, a=1), stored(manager, b=2)
        assert manager.end(manager.open(gone).id)
        for values in itertools.permutations([ours, gone, "forged", "x" * 43]):
            header = "; ".join(f"session={value}" for value in values)
            assert dict(manager.open_cookie(header)) == {"a": 1}

    def test_more_than_one_valid_is_anonymous_and_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whoever can toss a cookie must not choose between two identities."""
        manager = SessionManager(MemoryStore())
        tokens = [stored(manager, a=1), stored(manager, a=2)]
        with caplog.at_level(logging.WARNING, "wsgisession"):
            session = manager.open_cookie("; ".join(f"session={t}" for t in tokens))
            assert dict(session) == {}
        assert session.new
        assert "2 session cookies are valid at once" in caplog.text
        assert not any(token in caplog.text for token in tokens)

    def test_a_flood_is_anonymous_and_never_reaches_the_store(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """More values than a browser has reason to send are not looked up at all."""
        store = CountingStore(MemoryStore())
        manager = SessionManager(store)
        ours = stored(manager, a=1)
        store.calls.clear()
        flood = [ours, *(f"{n:043}" for n in range(MAX_VALUES))]
        with caplog.at_level(logging.WARNING, "wsgisession"):
            header = "; ".join(f"session={value}" for value in flood)
            assert dict(manager.open_cookie(header)) == {}
        assert store.calls == []
        assert ours not in caplog.text
        assert "session cookies at once" in caplog.text

    def test_the_same_value_twice_is_one(self) -> None:
        """A cookie that a proxy has doubled is still one cookie."""
        manager = SessionManager(MemoryStore())
        token = stored(manager, a=1)
        assert dict(manager.open_cookie(f"session={token}; session={token}"))


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


def written(
    options: Options,
    value: str = "abc",
    *,
    max_age: int | None = 60,
    secure: bool = True,
) -> dict[str, str | None]:
    """The attributes that a cookie is written with."""
    line = cookies.write(options, value, max_age=max_age, secure=secure)
    return parsed(line)[2]


class TestWriting:
    def test_the_default(self) -> None:
        """A cookie for the host alone, hidden from scripts, for same-site requests."""
        line = cookies.write(Options(), "abc", max_age=None, secure=True)
        assert parsed(line) == (
            "session",
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
        assert written(options)[attribute] == said

    def test_an_attribute_that_is_off_is_not_there(self) -> None:
        """Secure, HttpOnly, Partitioned, Domain and an expiry stand only where due."""
        options = Options(cookie_httponly=False, cookie_secure=False)
        attributes = written(options, max_age=None, secure=False)
        assert attributes == {"path": "/", "samesite": "Lax"}

    def test_the_prefixed_cookie_is_one_that_browsers_take(self) -> None:
        """``__Host-``: Secure, the whole host's path, and no domain."""
        options = Options(cookie_name="__Host-id", cookie_secure=True)
        name, _, attributes = parsed(
            cookies.write(options, "abc", max_age=60, secure=True)
        )
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
        assert written(options)["path"] == f"/a{character}b"

    @fuzz
    @given(
        st.text(TOKEN.replace("$", ""), min_size=1),
        st.text(OCTET, max_size=100),
        st.from_regex(r"/[A-Za-z0-9._~!$&'()*+=:@%/-]{0,50}", fullmatch=True),
        st.none()
        | st.from_regex(r"\.?[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True),
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
        if name.lower() in RESERVED or name.lower().startswith("__host-"):
            return
        options = Options(
            cookie_name=name,
            cookie_path=path,
            cookie_domain=domain,
            cookie_secure=True,
            cookie_partitioned=partitioned,
        )
        for line in (
            cookies.write(options, value, max_age=max_age, secure=True),
            cookies.expire(options, secure=True),
        ):
            assert re.fullmatch(r"[\x20-\x7e]+", line)
            found, _, attributes = parsed(line)
            assert (found, attributes["path"]) == (name, path)
            assert attributes.get("domain") == (domain or None)
            assert ("partitioned" in attributes) == partitioned
        line = cookies.write(options, value, max_age=max_age, secure=True)
        assert parsed(line)[1] == value


RESERVED = frozenset(
    "path domain max-age expires secure httponly samesite comment".split()
)


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
        attributes = written(Options(), max_age=max_age)
        after = time.time()
        assert attributes["max-age"] == str(max_age)
        assert attributes["expires"] is not None
        moment = datetime.strptime(attributes["expires"], "%a, %d-%b-%Y %H:%M:%S GMT")
        expires = moment.replace(tzinfo=timezone.utc).timestamp()
        assert before + max_age <= expires <= after + max_age


SHAPES = [
    dict(zip(("cookie_path", "cookie_domain", "cookie_secure"), shape, strict=True))
    | {"cookie_samesite": samesite, "cookie_partitioned": partitioned}
    | {"cookie_httponly": httponly}
    for shape in itertools.product(
        ["/", "/shop"], [None, "example.com"], [True, "auto"]
    )
    for samesite in ("Lax", "Strict", "None")
    for partitioned in (False, True)
    for httponly in (False, True)
    if shape[2] is True or (samesite != "None" and not partitioned)
]


class TestPitfallDeletion:
    """Deleting a cookie needs the attributes it was set with; Django forgets some."""

    @pytest.mark.parametrize(
        "shape", SHAPES, ids=lambda s: "-".join(map(str, s.values()))
    )
    def test_repeats_every_attribute(self, shape: dict[str, Any]) -> None:
        """Path, Domain, Secure, HttpOnly, SameSite, Partitioned: all but the expiry."""
        options = Options(**shape)
        secure = shape["cookie_secure"] is True
        kept = written(options, max_age=60, secure=secure)
        name, value, gone = parsed(cookies.expire(options, secure=secure))
        assert (name, value) == (options.cookie_name, "")
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
        options = Options(cookie_secure=True, **shape)
        jar = CookieJar()
        request = Request("https://app.example.com/shop/cart")
        self._answer(jar, request, cookies.write(options, "v1", max_age=9, secure=True))
        self._answer(jar, request, cookies.write(options, "v2", max_age=9, secure=True))
        jar.add_cookie_header(request)
        sent = request.get_header("Cookie") or ""
        assert read(sent, options.cookie_name) == ["v2"]
        self._answer(jar, request, cookies.expire(options, secure=True))
        assert len(jar) == 0

    @staticmethod
    def _answer(jar: CookieJar, request: Request, line: str) -> None:
        """Let a jar see a response with one ``Set-Cookie``."""
        headers = email.message.Message()
        headers["Set-Cookie"] = line

        class Response:
            def info(self) -> email.message.Message:
                return headers

        jar.extract_cookies(Response(), request)  # type: ignore[arg-type]


class TestRoundTrip:
    """What is written is what comes back, through WebTest's browser."""

    @pytest.mark.parametrize(
        "options",
        [
            Options(),
            Options(secret=SECRET),
            Options(cookie_name="a.b-c_d|e~f"),
            Options(cookie_path="/shop"),
            Options(expire_at_browser_close=True),
        ],
        ids=["plain", "signed", "odd-name", "path", "browser-close"],
    )
    def test_a_visitor_is_known_again_and_let_go(self, options: Options) -> None:
        """A counter counts on over the cookie alone, until the session is flushed."""
        manager = SessionManager(MemoryStore(), options)

        def count(session: Any) -> int:
            session["n"] = session.get("n", 0) + 1
            return int(session["n"])

        handlers = {"/shop/count": count, "/shop/end": lambda session: session.flush()}
        visitor = Visitor(manager, handlers)
        assert [visitor.get("/shop/count").text for _ in range(3)] == ["1", "2", "3"]
        assert [c.name for c in visitor.cookiejar] == [options.cookie_name]
        visitor.get("/shop/end")
        assert list(visitor.cookiejar) == []
        assert visitor.get("/shop/count").text == "1"
