"""A response that depends on a session, or carries its cookie, is not shared."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsgisession._http.caching import Headers, keep_private, vary_on_cookie

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
            (
                [("Vary", "Accept"), TYPE, ("VARY", "Cookie")],
                [("Vary", "Accept"), TYPE, ("VARY", "Cookie")],
            ),
            (
                [("Vary", "Accept"), ("Vary", "*")],
                [("Vary", "Accept"), ("Vary", "*")],
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
            (["public, no-store"], ["public, no-store"]),
            (["No-Store ,, "], ["No-Store ,, "]),
            (["max-age = 60 ,Public"], ["private, max-age = 60"]),
        ],
        ids=repr,
    )
    def test_a_table(self, before: list[str], after: list[str]) -> None:
        """What the application said stays, but for what invites shared caches."""
        headers = [TYPE, *(("Cache-Control", value) for value in before)]
        kept = keep_private(headers)
        assert [v for n, v in kept if n == "Cache-Control"] == after
        assert TYPE in kept

    def test_a_cache_that_understands_overlooks_no_store(self) -> None:
        """With ``must-understand`` it may store all the same (RFC 9111 5.2.2.3)."""
        headers = [("Cache-Control", "must-understand, no-store, max-age=60")]
        members = said(keep_private(headers), "cache-control")
        assert members == ["private", "must-understand", "no-store", "max-age=60"]

    def test_it_varies_on_the_cookie_as_well(self) -> None:
        """What carries a cookie was made for a session."""
        for headers in ([], [TYPE], [TYPE, ("vary", "Accept")], [("Expires", "0")]):
            assert "cookie" in said(keep_private(headers), "vary")

    def test_pragma_says_nothing(self) -> None:
        """In a response it has no meaning (RFC 9111 5.4), and is left alone."""
        for pragma in (("Pragma", "no-cache"), ("pragma", "public")):
            after = keep_private([pragma])
            assert pragma in after
            assert said(after, "cache-control") == ["no-store"]

    @pytest.mark.parametrize("said_", [[], ["public, max-age=60"]], ids=repr)
    def test_expires_does_not_speak_against_it(self, said_: list[str]) -> None:
        """An ``Expires`` of the application, for old caches, does not stay behind."""
        headers = [("Expires", "Thu, 01 Jan 2099 00:00:00 GMT")]
        headers += [("Cache-Control", value) for value in said_]
        assert said(keep_private(headers), "expires") == []

    def test_header_names_are_of_any_case(self) -> None:
        """A lower-case header is the application's word as well."""
        assert ("cache-control", "no-store") in keep_private(
            [("cache-control", "no-store")]
        )
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
            'private, x="a, public',
            'private="a\\", private, public"',
        ],
    )
    def test_a_private_that_is_contradicted_or_partial(self, value: str) -> None:
        """``private="field"`` guards that field alone (RFC 9111 5.2.2.7)."""
        members = said(keep_private([("Cache-Control", value)]), "cache-control")
        assert members[0] == "private"
        assert not {"public", "s-maxage=60", 'x-user"'} & set(members)


class TestTargetedFields:
    """P12: what overrules Cache-Control in some caches must not invite them either."""

    @pytest.mark.parametrize(
        "name",
        ["CDN-Cache-Control", "cdn-cache-control", "Cloudflare-CDN-Cache-Control"]
        + ["Netlify-CDN-Cache-Control", "Vercel-CDN-Cache-Control"]
        + ["Akamai-Cache-Control", "X-LiteSpeed-Cache-Control", "Surrogate-Control"]
        + ["SURROGATE-CONTROL", "Edge-Control"],
    )
    @pytest.mark.parametrize(
        "control", [[], [("Cache-Control", "private")], [("Cache-Control", "no-store")]]
    )
    def test_pitfall_they_overrule_cache_control(
        self, name: str, control: Headers
    ) -> None:
        """Each says ``no-store`` afterwards, whatever it and Cache-Control said."""
        for value in (
            "max-age=600",
            "public, s-maxage=60",
            "!no-store",
            "",
            "no-store",
        ):
            for headers in ([(name, value), *control], [*control, (name, value)]):
                after = keep_private(headers)
                assert [v for n, v in after if n == name] == ["no-store"]
                assert {"private", "no-store"} & set(said(after, "cache-control"))

    def test_edge_side_includes_are_still_announced(self) -> None:
        """Without it the page would be sent with its ESI tags unprocessed."""
        headers = [("Surrogate-Control", 'max-age=600, content="ESI/1.0, X"')]
        after = keep_private(headers)
        assert ("Surrogate-Control", 'no-store, content="ESI/1.0, X"') in after

    def test_nginx_is_told_in_its_own_words(self) -> None:
        """``X-Accel-Expires`` wins over Cache-Control in nginx; 0 is not to cache."""
        for value in ("600", "@4102444800", "off", "0"):
            assert ("X-Accel-Expires", "0") in keep_private(
                [("X-Accel-Expires", value)]
            )

    def test_a_response_without_our_cookie_keeps_them(self) -> None:
        """Only to vary on the cookie is no reason to forbid a cache."""
        headers = [("CDN-Cache-Control", "max-age=60"), ("X-Accel-Expires", "9")]
        assert vary_on_cookie(headers) == [*headers, ("Vary", "Cookie")]


NAMES = ["Vary", "vary", "Cache-Control", "CACHE-CONTROL", "Expires", "X-Other"]
NAMES += ["CDN-Cache-Control", "surrogate-control", "X-Accel-Expires"]
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
        for field in ("cdn-cache-control", "surrogate-control"):
            values = [v for n, v in after if n.lower() == field]
            assert all(value.startswith("no-store") for value in values)

    @fuzz
    @given(HEADERS)
    def test_nothing_else_is_touched(self, headers: Headers) -> None:
        """Other headers stay as they are, in their order."""

        def others(some: Headers) -> Headers:
            touched = {"vary", "cache-control", "expires", "x-accel-expires"}
            touched |= {"cdn-cache-control", "surrogate-control"}
            return [(n, v) for n, v in some if n.lower() not in touched]

        assert others(keep_private(vary_on_cookie(headers))) == others(headers)
