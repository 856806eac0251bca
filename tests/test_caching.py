"""A response that depends on a session, or carries its cookie, is not shared."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsgisession.caching import Headers, keep_private, vary_on_cookie

fuzz = settings(deadline=None, database=None)

TYPE = ("Content-Type", "text/plain")


def said(headers: Headers, name: str) -> list[str]:
    """The members of all the headers of a name, in lower case."""
    values = [value for found, value in headers if found.lower() == name]
    return [
        m.strip().lower() for value in values for m in value.split(",") if m.strip()
    ]


class TestVary:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ([], [("Vary", "Cookie")]),
            ([TYPE], [TYPE, ("Vary", "Cookie")]),
            ([("Vary", "Accept")], [("Vary", "Accept, Cookie")]),
            ([("vary", "Accept")], [("vary", "Accept, Cookie")]),
            ([("Vary", "Cookie")], [("Vary", "Cookie")]),
            ([("Vary", "cookie")], [("Vary", "cookie")]),
            ([("Vary", "Accept,COOKIE")], [("Vary", "Accept,COOKIE")]),
            ([("Vary", "*")], [("Vary", "*")]),
            ([("Vary", "Accept, *")], [("Vary", "Accept, *")]),
            ([("Vary", "")], [("Vary", "Cookie")]),
            ([("Vary", " ")], [("Vary", "Cookie")]),
            ([("Vary", "X-Cookie")], [("Vary", "X-Cookie, Cookie")]),
            ([("Vary", "Cookies")], [("Vary", "Cookies, Cookie")]),
            ([("X-Vary", "Cookie")], [("X-Vary", "Cookie"), ("Vary", "Cookie")]),
            (
                [("Vary", "Accept"), TYPE, ("Vary", "Origin")],
                [("Vary", "Accept, Cookie"), TYPE, ("Vary", "Origin")],
            ),
        ],
        ids=repr,
    )
    def test_a_table(self, before: Headers, after: Headers) -> None:
        """What a response varies on already is kept, and the cookie is added once."""
        assert vary_on_cookie(before) == after

    def test_the_headers_given_are_left_alone(self) -> None:
        """The application's own list is not changed under its hands."""
        headers = [("Vary", "Accept")]
        vary_on_cookie(headers)
        keep_private(headers)
        assert headers == [("Vary", "Accept")]


class TestPrivate:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ([], ["no-store"]),
            ([""], ["private"]),
            (["no-store"], ["no-store"]),
            (["private"], ["private"]),
            (["PRIVATE, Max-Age=5"], ["PRIVATE, Max-Age=5"]),
            (["no-cache"], ["private, no-cache"]),
            (["max-age=60"], ["private, max-age=60"]),
            (["public, max-age=60"], ["private, max-age=60"]),
            (["Public,S-MaxAge=60"], ["private"]),
            (["s-maxage=60, proxy-revalidate"], ["private"]),
            (["must-revalidate, max-age=0"], ["private, must-revalidate, max-age=0"]),
            (["public", "max-age=60"], ["private, max-age=60"]),
            (["max-age=60", "no-store"], ["max-age=60", "no-store"]),
        ],
        ids=repr,
    )
    def test_a_table(self, before: list[str], after: list[str]) -> None:
        """What the application said stays, but for what invites shared caches."""
        headers = [TYPE, *(("Cache-Control", value) for value in before)]
        kept = keep_private(headers)
        assert [v for n, v in kept if n == "Cache-Control"] == after
        assert TYPE in kept

    @pytest.mark.parametrize("said_", [[], ["public, max-age=60"]], ids=repr)
    def test_expires_does_not_speak_against_it(self, said_: list[str]) -> None:
        """An ``Expires`` of the application, for old caches, does not stay behind."""
        headers = [("Expires", "Thu, 01 Jan 2099 00:00:00 GMT")]
        headers += [("Cache-Control", value) for value in said_]
        assert said(keep_private(headers), "expires") == []

    def test_header_names_are_of_any_case(self) -> None:
        """A lower-case header is the application's word as well."""
        assert keep_private([("cache-control", "no-store")]) == [
            ("cache-control", "no-store")
        ]
        assert said(keep_private([("CACHE-CONTROL", "public")]), "cache-control") == [
            "private"
        ]

    @pytest.mark.parametrize(
        "value",
        [
            "private, public",
            "public, private, s-maxage=60",
            'private="x-user", max-age=60',
            'max-age=60, private="set-cookie, x-user"',
        ],
    )
    def test_a_private_that_is_contradicted_or_partial(self, value: str) -> None:
        """``private="field"`` guards that field alone (RFC 9111 5.2.2.7)."""
        members = said(keep_private([("Cache-Control", value)]), "cache-control")
        assert "private" in members
        assert not {"public", "s-maxage=60"} & set(members)


NAMES = ["Vary", "vary", "Cache-Control", "CACHE-CONTROL", "Expires", "X-Other"]
MEMBERS = (
    ["Cookie", "cookie", "Accept", "*", "X-Cookie", "", " "]
    + ["public", "private", "no-store", "no-cache", "max-age=60", "s-maxage=60"]
    + ["proxy-revalidate", "must-revalidate", 'private="a"', "immutable"]
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.lists(st.sampled_from(MEMBERS), max_size=4).map(", ".join)
        | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    ),
    max_size=6,
)


class TestAnyHeaders:
    @fuzz
    @given(HEADERS)
    def test_once_is_enough(self, headers: Headers) -> None:
        """Doing it again changes nothing, in either order."""
        for work in (vary_on_cookie, keep_private):
            once = work(headers)
            assert work(once) == once
        both = keep_private(vary_on_cookie(headers))
        assert vary_on_cookie(both) == both
        assert keep_private(both) == both

    @fuzz
    @given(HEADERS)
    def test_the_promise_is_kept(self, headers: Headers) -> None:
        """Afterwards the response varies on the cookie and no shared cache keeps it."""
        after = keep_private(vary_on_cookie(headers))
        assert {"cookie", "*"} & set(said(after, "vary"))
        names = {m.partition("=")[0] for m in said(after, "cache-control")}
        assert {"private", "no-store"} & names

    @fuzz
    @given(HEADERS)
    def test_nothing_else_is_touched(self, headers: Headers) -> None:
        """Other headers stay as they are, in their order."""

        def others(some: Headers) -> Headers:
            touched = ("vary", "cache-control", "expires")
            return [(n, v) for n, v in some if n.lower() not in touched]

        assert others(keep_private(vary_on_cookie(headers))) == others(headers)
