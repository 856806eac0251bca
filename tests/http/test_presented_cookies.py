"""The session's cookie in whole requests: what a client presents, and what it is sent."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Any

import pytest
from webtest import TestApp

from wsgisession import Options, SessionManager, SessionMiddleware, get_session
from wsgisession.record import Key, Record
from wsgisession.stores.memory import MemoryStore

SECRET = "u7Zk1vXq0bH3nW9sRfT5yLpC8dJ2gMaE6iOxQwKz4A"
Headers = list[tuple[str, str]]


class CountingStore(MemoryStore):
    """Notes what is looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_up: list[str] = []

    def load(self, key: Key) -> Record | None:
        self.looked_up.append(key.id)
        return super().load(key)


class Site:
    """An application with a counter in its session, and who visits it."""

    def __init__(self, **options: Any) -> None:
        self.store = CountingStore()
        self.manager = SessionManager(self.store, Options(**options))
        self.headers: Headers = [("Content-Type", "text/plain")]
        self.app = SessionMiddleware(self._answer, manager=self.manager)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = get_session(environ)
        path = environ["PATH_INFO"].rpartition("/")[2]
        if path == "count":
            session["n"] = session.get("n", 0) + 1
        elif path == "end":
            session.flush()
        start_response("200 OK", list(self.headers))
        return [str(session.get("n", 0)).encode()]

    def visitor(self) -> TestApp:
        """A browser with an empty jar."""
        return TestApp(self.app, lint=False)

    def tokens(self, *counts: int) -> list[str]:
        """The cookies of new visitors that have counted so far."""
        found = []
        for count in counts:
            visitor = self.visitor()
            for _ in range(count):
                visitor.post("/count")
            (cookie,) = visitor.cookiejar
            found.append(str(cookie.value))
        return found

    def ask(self, path: str, *values: str, **environ: Any) -> tuple[str, Headers]:
        """Send a request with these cookies of our name, and give body and headers."""
        sent: Headers = []

        def start_response(status: str, headers: Headers, *_: object) -> Any:
            assert status == "200 OK"
            sent.extend(headers)

        name = self.manager.options.cookie_name
        request = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "wsgi.url_scheme": "http",
            "HTTP_HOST": "app.example.com",
            "HTTP_COOKIE": "; ".join(f"{name}={value}" for value in values),
        }
        body = self.app({**request, **environ}, start_response)
        text = b"".join(body).decode()
        getattr(body, "close", lambda: None)()
        return text, sent


class TestPitfallSeveralCookies:
    """Several cookies with our name, of a parent domain or another path."""

    @pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "signed"])
    def test_exactly_one_valid_is_used(self, secret: str | None) -> None:
        """Values that lead nowhere disturb nothing, at whatever place they stand."""
        site = Site(**({"secret": secret} if secret else {}))
        ours, ended = site.tokens(3, 2)
        site.ask("/end", ended, REQUEST_METHOD="POST")
        for values in itertools.permutations([ours, ended, "forged", "x" * 64]):
            assert site.ask("/", *values)[0] == "3"

    def test_more_than_one_valid_is_anonymous_and_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A subdomain that plants a cookie must not choose between two identities."""
        site = Site()
        tokens = site.tokens(1, 2)
        with caplog.at_level(logging.WARNING, "wsgisession"):
            assert site.ask("/", *tokens)[0] == "0"
        assert "2 session cookies are valid at once" in caplog.text
        assert not any(token in caplog.text for token in tokens)

    def test_it_heals_when_something_is_stored(self) -> None:
        """The sessions that were presented end, and the jar holds one cookie again."""
        site = Site()
        tokens = site.tokens(1, 2)
        body, headers = site.ask("/count", *tokens, REQUEST_METHOD="POST")
        assert body == "1"
        lines = [value for name, value in headers if name == "Set-Cookie"]
        gone = [line for line in lines if "Max-Age=0" in line]
        assert {line.partition(";")[2].split(";")[0] for line in gone} == {
            " Domain=app.example.com",
            " Domain=example.com",
            " Max-Age=0",  # without a domain, of the path /count
        }
        assert lines[-1] not in gone
        assert "Domain" not in lines[-1]
        for token in tokens:
            assert site.ask("/", token)[0] == "0"
        assert site.ask("/", lines[-1].partition(";")[0].partition("=")[2])[0] == "1"

    def test_the_same_value_twice_is_one(self) -> None:
        """A cookie that a proxy has doubled is still one cookie."""
        site = Site()
        (token,) = site.tokens(1)
        assert site.ask("/", token, token, f'"{token}"')[0] == "1"

    def test_of_a_flood_the_last_four_are_looked_at(self) -> None:
        """Those of longer paths come first, which a subdomain can plant."""
        site = Site()
        ours, *planted = site.tokens(3, *[1] * 8)
        for token in planted:
            site.ask("/end", token, REQUEST_METHOD="POST")
        site.store.looked_up.clear()
        assert site.ask("/", *planted, ours)[0] == "3"
        assert len(site.store.looked_up) == 4
        assert site.ask("/", *planted[:4], ours, *planted[4:])[0] == "0"
        assert site.ask("/", *planted[:5], ours, *planted[5:])[0] == "3"

    def test_what_is_no_token_takes_no_place(self) -> None:
        """Junk of the right name neither reaches the store nor hides the cookie."""
        site = Site()
        (ours,) = site.tokens(1)
        site.store.looked_up.clear()
        assert site.ask("/", ours, *(f"junk{n}" for n in range(100)))[0] == "1"
        assert len(site.store.looked_up) == 1


class TestPitfallHeaders:
    @pytest.mark.parametrize(
        "header",
        [None, b"", b"sid=x", "", "sid", "sid=\0", "sid=\xff\udcff", "sid=" * 9000, 7],
        ids=lambda header: ascii(header)[:20],
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_whatever_it_is_the_visitor_is_anonymous(
        self, header: object, method: str
    ) -> None:
        """P7: no header gives a 500, or a look into the store."""
        site = Site()
        request = {"HTTP_COOKIE": header, "REQUEST_METHOD": method}
        assert site.ask("/", **request)[0] == "0"
        assert site.store.looked_up == []
        assert site.ask("/count", **request)[0] == "1"

    def test_bytes_are_read(self) -> None:
        """A server that hands the header on undecoded keeps its visitors."""
        site = Site()
        (token,) = site.tokens(2)
        assert site.ask("/", HTTP_COOKIE=f"sid={token}".encode())[0] == "2"


class TestCaches:
    """P12: cachable only when safe."""

    PUBLIC = [
        ("Cache-Control", "public, max-age=60"),
        ("CDN-Cache-Control", "max-age=600"),
        ("Surrogate-Control", "max-age=600"),
    ]

    def test_a_reader_varies_on_the_cookie_and_no_more(self) -> None:
        """What the application says of caching stays."""
        site = Site()
        site.headers += self.PUBLIC
        (token,) = site.tokens(1)
        assert site.ask("/", token)[1] == [*site.headers, ("Vary", "Cookie")]

    def test_our_cookie_is_kept_by_no_shared_cache(self) -> None:
        """Neither by those that obey Cache-Control nor by those that have their own."""
        site = Site()
        site.headers += self.PUBLIC
        for headers in (site.ask("/count")[1], site.ask("/end", *site.tokens(1))[1]):
            said = dict(headers)
            assert said["Vary"] == "Cookie"
            assert said["Cache-Control"] == "private, max-age=60"
            assert said["CDN-Cache-Control"] == "no-store"
            assert said["Surrogate-Control"] == "no-store"
            assert "Set-Cookie" in said


class TestRoundTrip:
    """What is written is what comes back, through WebTest's browser."""

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"secret": SECRET},
            {"cookie_name": "a.b-c_d|e~f"},
            {"cookie_path": "/shop"},
            {"cookie_path": lambda environ: "/shop"},
            {"cookie_samesite": False},
            {"expire_at_browser_close": True},
        ],
        ids=["plain", "signed", "odd-name", "path", "called", "samesite", "close"],
    )
    def test_a_visitor_is_known_again_and_let_go(self, options: dict[str, Any]) -> None:
        """A counter counts on over the cookie alone, until the session is flushed."""
        site = Site(**options)
        visitor = site.visitor()
        for method in (visitor.post, visitor.get):
            assert [method("/shop/count").text for _ in range(3)] == ["1", "2", "3"]
            assert [c.name for c in visitor.cookiejar] == [
                site.manager.options.cookie_name
            ]
            method("/shop/end")
            assert list(visitor.cookiejar) == []
