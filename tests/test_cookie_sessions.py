"""Sessions that are held in cookies: sizes, chunks, ends, and the limits."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from wsgisession import (
    ConfigurationError,
    Options,
    Session,
    SessionClosed,
    SessionManager,
    SessionMiddleware,
    SessionTooLarge,
    StoreError,
    get_session,
)
from wsgisession._http.cookies import Cookies
from wsgisession.stores.cookie import CookieStore
from wsgisession.stores.memory import MemoryStore
from wsgisession.stores.sealed import SealedStore

from .browser import chromium
from .conftest import SECRET, Clock, Visitor
from .tabs import Site

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def manager_of(**options: Any) -> SessionManager:
    return SessionManager.from_config(url="cookie:", secret=SECRET, **options)


def fill(session: Session, octets: int) -> None:
    session["small"] = "s"
    session["filler"] = "x" * octets
    session["middle"] = "m" * 9


def token_of(manager: SessionManager, octets: int) -> str:
    session = manager.create()
    fill(session, octets)
    session.save()
    token = manager.token_of(session)
    assert token is not None
    return token


AGE: dict[str, Any] = {"absolute_timeout": "400d", "cookie_secure": False}
"""With these the attributes have as many octets as they may ever have."""


def filled_to(octets: int) -> tuple[str, int]:
    """A cookie's name and a filler that together make a Set-Cookie of that many octets.

    Base64 does not come in every length, so the name has to help.
    """
    for name in ("sid", "sid_", "sid__"):
        manager = manager_of(cookie_name=name, cookie_chunks=10, **AGE)
        lines = Cookies(Options(cookie_name=name, cookie_chunks=10, **AGE))
        room = Cookies(Options(cookie_name=name, **AGE)).room
        attributes = len(lines.set({}, "x" * room, max_age=400 * 86400)[0]) - room
        for filler in range(2750, 2950):
            if len(token_of(manager, filler)) + attributes == octets:
                return name, filler
    raise AssertionError(f"no session makes {octets} octets")


@pytest.fixture(scope="module")
def sizes() -> dict[int, tuple[str, int]]:
    return {octets: filled_to(octets) for octets in (4095, 4096, 4097)}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of everything here, which passes when it is told to."""
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


def visitor(manager: SessionManager, filler: int = 100) -> Visitor:
    return Visitor(
        manager,
        {
            "/fill": lambda session: fill(session, filler),
            "/short": lambda session: session.__setitem__("filler", "x"),
            "/read": lambda session: len(session.get("filler", "")),
            "/count": lambda s: s.__setitem__("n", s.get("n", 0) + 1) or s["n"],
            "/n": lambda session: session.get("n"),
            "/login": lambda session: session.login("ann"),
            "/user": lambda session: session.user,
            "/regenerate": lambda session: session.regenerate(),
            "/rotate": lambda session: session.rotate(),
            "/logout": lambda session: session.flush(),
            "/lock": lambda session: session.lock(),
        },
    )


def jar(visitor: Visitor) -> dict[str, str]:
    return {cookie.name: cookie.value or "" for cookie in visitor.cookiejar}


def copy_of(visitor: Visitor) -> str:
    """The cookies as a thief holds them."""
    return "; ".join(f"{name}={value}" for name, value in jar(visitor).items())


# -- a session like any other ------------------------------------------------------------


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("revocation", [None, "memory:"])
class TestOrdinaryLife:
    def test_write_read_login_logout(
        self, encrypt: bool, revocation: str | None
    ) -> None:
        """What a session does with any store it does with this one."""
        options = {} if revocation is None else {"revocation": revocation}
        browser = visitor(manager_of(encrypt=encrypt, **options))
        assert [browser.get("/count").text for _ in range(3)] == ["1", "2", "3"]
        browser.get("/login")
        assert browser.get("/user").text == "ann"
        assert browser.get("/n").text == "3"
        browser.get("/regenerate")
        assert browser.post("/count").text == "4"
        browser.get("/rotate")
        assert browser.get("/n").text == "4"
        browser.get("/logout")
        assert jar(browser) == {}
        assert browser.get("/n").text == "None"

    def test_a_read_sets_no_cookie(self, encrypt: bool, revocation: str | None) -> None:
        """Beaker #125 sends the whole session again with every read."""
        options = {} if revocation is None else {"revocation": revocation}
        browser = visitor(manager_of(encrypt=encrypt, **options))
        browser.get("/count")
        assert "Set-Cookie" not in browser.get("/n").headers
        assert "Set-Cookie" not in browser.post("/n").headers
        assert "Set-Cookie" in browser.post("/count").headers, "a change is the cookie"

    def test_the_idle_clock_moves_with_what_is_sent_again(
        self, encrypt: bool, revocation: str | None, clock: Clock
    ) -> None:
        """P9: once a ``touch_interval``, for the clocks are inside the seal."""
        options = {} if revocation is None else {"revocation": revocation}
        browser = visitor(manager_of(encrypt=encrypt, idle_timeout="1h", **options))
        browser.get("/count")
        first = copy_of(browser)
        for seconds, sent in ((59, False), (2, True), (59, False)):
            clock.pass_by(seconds)
            assert ("Set-Cookie" in browser.get("/n").headers) is sent
        clock.pass_by(3500)
        assert browser.get("/n").text == "1"
        assert browser.get("/n", headers={"Cookie": first}).text == "None"


def test_nothing_is_on_the_server() -> None:
    """Another process with the same secret has the session at once."""
    one = visitor(manager_of())
    one.get("/count")
    other = visitor(manager_of())
    assert other.get("/n", headers={"Cookie": copy_of(one)}).text == "1"


# -- one response for every way of being wrong -------------------------------------------


def answer(app: SessionMiddleware, cookie: str | None) -> tuple[Any, ...]:
    """Everything that a client sees of a response."""
    seen: list[Any] = []
    environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "PATH_INFO": "/"}
    if cookie is not None:
        environ["HTTP_COOKIE"] = cookie
    body = app(environ, lambda *head: seen.append(head))
    return (*seen, b"".join(body))


def page(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    body = repr(get_session(environ).copy()).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("chunks", [1, 3])
def test_one_response_for_every_way_of_being_wrong(
    encrypt: bool, chunks: int, clock: Clock
) -> None:
    """P7: forged, cut, expired, ended, of others, malformed: an anonymous visitor's."""
    manager = manager_of(
        encrypt=encrypt, cookie_chunks=chunks, revocation=MemoryStore()
    )
    app, pick = SessionMiddleware(page, manager=manager), random.Random(7)
    expired = token_of(manager, 20)
    clock.pass_by(15 * 86400)
    ended, token = token_of(manager, 20), token_of(manager, 20)
    manager.end(manager.open(ended).id)
    clock.pass_by(60)
    assert answer(app, f"sid={token}") != answer(app, None)
    wrong = [
        expired,
        ended,
        token_of(manager_of(encrypt=not encrypt), 20),
        token_of(manager_of(encrypt=encrypt, cookie_name="other"), 20),
        *(token[:n] for n in range(len(token))),
        *(f"{token[:n]}{pick.choice(ALPHABET)}!{token[n:]}" for n in range(len(token))),
        *("".join(pick.choices(ALPHABET, k=pick.randrange(300))) for _ in range(2000)),
        *(f"~{n:x}AAAAAAAA{token}" for n in range(16)),
        "é\x00\ud800",
        "x" * 50_000,
    ]
    shapes = {repr(answer(app, f"sid={value}")) for value in wrong}
    assert shapes == {repr(answer(app, "other=1"))}


# -- size --------------------------------------------------------------------------------


class TestSize:
    @pytest.mark.parametrize("octets", [4095, 4096])
    def test_what_a_browser_keeps_is_set(
        self, octets: int, sizes: dict[int, tuple[str, int]]
    ) -> None:
        """With and without chunks it is one cookie, of the size that was measured."""
        name, filler = sizes[octets]
        for chunks in (1, 2):
            browser = visitor(
                manager_of(cookie_name=name, cookie_chunks=chunks, **AGE), filler
            )
            (line,) = browser.get("/fill").headers.getall("Set-Cookie")
            assert len(line) == octets
            assert browser.get("/read").text == str(filler)

    def test_one_octet_more_is_refused(self, sizes: dict[int, tuple[str, int]]) -> None:
        """Before any header leaves, with the figures and the biggest keys."""
        name, filler = sizes[4097]
        manager = manager_of(cookie_name=name, **AGE)
        headers: list[Any] = []

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            fill(get_session(environ), filler)
            start_response("200 OK", [])
            return [b"done"]

        environ = {"REQUEST_METHOD": "POST", "wsgi.url_scheme": "http"}
        with pytest.raises(SessionTooLarge) as caught:
            SessionMiddleware(application, manager=manager)(
                environ, lambda *head: headers.append(head)
            )
        assert headers == []
        assert (caught.value.size, caught.value.limit) == (4097, 4096)
        assert caught.value.keys == ("filler", "middle", "small")
        assert "xxx" not in str(caught.value)

    def test_one_octet_more_takes_two_chunks(
        self, sizes: dict[int, tuple[str, int]]
    ) -> None:
        """Where chunks are allowed, each has at most 4096 octets."""
        name, filler = sizes[4097]
        browser = visitor(manager_of(cookie_name=name, cookie_chunks=2, **AGE), filler)
        lines = browser.get("/fill").headers.getall("Set-Cookie")
        assert [line.partition("=")[0] for line in lines] == [name, f"{name}.1"]
        assert all(len(line) <= 4096 for line in lines)
        assert browser.get("/read").text == str(filler)

    @pytest.mark.parametrize("chunks", range(1, 11))
    def test_all_the_room_there_is(self, chunks: int) -> None:
        """Any number of chunks can be filled to the last octet, and no further."""
        cookies = Cookies(Options(cookie_chunks=chunks, cookie_domain="example.test"))
        https = {"wsgi.url_scheme": "https"}
        value = "".join(random.Random(7).choices(ALPHABET, k=cookies.room))
        lines = cookies.set(https, value, max_age=400 * 86400)
        assert [len(line) for line in lines] == [4096] * chunks
        header = "; ".join(line.partition(";")[0] for line in lines)
        assert cookies.values(header) == [value]
        with pytest.raises(ValueError, match="and room for"):
            cookies.set(https, value + "x", max_age=400 * 86400)

    def test_a_login_that_does_not_fit_leaves_the_session(self) -> None:
        """With revocation too: the old session ends only when there is a new one."""
        manager = manager_of(revocation=MemoryStore(), cookie_secure=False)
        browser = Visitor(
            manager,
            {
                "/fill": lambda session: fill(session, 2600),
                "/login": lambda session: session.login("ann", agent="x" * 500),
                "/read": lambda session: len(session["filler"]),
            },
        )
        browser.get("/fill")
        with pytest.raises(SessionTooLarge):
            browser.get("/login")
        assert browser.get("/read").text == "2600"


# -- chunks ------------------------------------------------------------------------------


class TestChunks:
    def test_a_stale_tail_is_ignored_and_taken_away(self) -> None:
        """A shorter session after a longer one: correct at once, and nothing is left."""
        browser = visitor(manager_of(cookie_chunks=4), 8000)
        browser.get("/fill")
        assert set(jar(browser)) == {"sid", "sid.1", "sid.2"}
        long = jar(browser)
        browser.get("/short")
        assert set(jar(browser)) == {"sid"}
        mixed = copy_of(browser) + "".join(
            f"; {name}={long[name]}" for name in ("sid.1", "sid.2")
        )
        stranger = visitor(manager_of(cookie_chunks=4))
        assert stranger.get("/read", headers={"Cookie": mixed}).text == "1"

    def test_are_cleared_as_one(self) -> None:
        """A logout takes all of them, with the attributes they were set with."""
        options = {"cookie_chunks": 4, "cookie_path": "/", "cookie_secure": False}
        browser = visitor(manager_of(**options), 8000)
        browser.get("/fill")
        lines = browser.get("/logout").headers.getall("Set-Cookie")
        assert len(lines) == 3
        assert all("Max-Age=0" in line and "Path=/" in line for line in lines)
        assert jar(browser) == {}

    def test_cookies_of_others_are_let_be(self) -> None:
        """A cookie that happens to be called sid.1 is neither read nor cleared."""
        browser = visitor(manager_of())
        browser.set_cookie("sid.1", "theirs")
        theirs = jar(browser)
        browser.get("/count")
        assert browser.get("/n").text == "1"
        browser.get("/logout")
        assert jar(browser) == theirs

    def test_fewer_chunks_than_before(self) -> None:
        """After cookie_chunks was lowered such a session is over, without an error."""
        before = visitor(manager_of(cookie_chunks=4), 8000)
        before.get("/fill")
        for chunks in (1, 2):
            after = visitor(manager_of(cookie_chunks=chunks))
            headers = {"Cookie": copy_of(before)}
            assert after.get("/read", headers=headers).text == "0"


# -- ends --------------------------------------------------------------------------------


class TestEnds:
    @pytest.mark.parametrize("verb", ["/logout", "/regenerate", "/login"])
    def test_a_captured_cookie_is_refused_after_it(self, verb: str) -> None:
        """With revocation: what was copied before leads nowhere from then on."""
        browser = visitor(manager_of(revocation=MemoryStore()))
        browser.get("/count")
        stolen = {"Cookie": copy_of(browser)}
        thief = visitor(browser.middleware.manager)
        assert thief.get("/n", headers=stolen).text == "1"
        browser.get(verb)
        thief.reset()
        assert thief.get("/n", headers=stolen).text == "None"
        assert browser.get("/n").text == ("None" if verb == "/logout" else "1")

    @pytest.mark.parametrize(
        ("verb", "told"), [("/logout", 1), ("/regenerate", 0), ("/login", 0)]
    )
    def test_a_captured_cookie_outlives_it_otherwise(
        self, verb: str, told: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The documented limit without revocation; of an end the log tells once."""
        browser = visitor(manager_of())
        browser.get("/count")
        stolen = {"Cookie": copy_of(browser)}
        for _ in range(2):
            browser.get(verb)
            browser.get("/count")
        assert visitor(manager_of()).get("/n", headers=stolen).text == "1"
        warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert len(warnings) == told
        assert all("revocation" in each.getMessage() for each in warnings)

    def test_a_user_is_ended_everywhere(self) -> None:
        """P10: every browser, or all but this one; who logs in again is in."""
        manager = manager_of(revocation=MemoryStore())
        phone, laptop = visitor(manager), visitor(manager)
        for browser in (phone, laptop):
            browser.get("/login")
        laptop_id = manager.open_cookie(copy_of(laptop)).id
        assert manager.end_user("ann", keep=laptop_id) == 0
        assert [b.get("/user").text for b in (phone, laptop)] == ["None", "ann"]
        phone.get("/login")
        manager.end_user("ann")
        assert [b.get("/user").text for b in (phone, laptop)] == ["None", "None"]
        phone.get("/login")
        assert phone.get("/user").text == "ann"

    def test_without_revocation_that_is_refused(self) -> None:
        """Rather than done by halves."""
        with pytest.raises(ConfigurationError, match="revocation"):
            manager_of().end_user("ann")

    @pytest.mark.parametrize(
        "slow",
        [
            lambda s: s.update(n=s["n"] + 100),
            lambda s: (s.update(n=5), s.regenerate()),
            lambda s: s.rotate(),
            lambda s: s.get("n"),
        ],
        ids=["write", "regenerate", "rotate", "poll"],
    )
    def test_pitfall_a_request_in_flight_does_not_undo_a_login(
        self, slow: Any, clock: Clock
    ) -> None:
        """Express #923: what holds the old cookie sets none, whatever it does."""
        logins: list[str] = []

        def in_flight(session: Session) -> None:
            assert session["n"] == 1
            logins.append(site.begun("login", cookie))
            slow(session)

        site = Site(
            manager_of(revocation=MemoryStore()),
            begin=lambda s: s.update(n=1),
            login=lambda s: s.login("ann"),
            who=lambda s: (s.user, s.get("n")),
            slow=in_flight,
        )
        cookie = site.begun("begin")
        clock.pass_by(3600)
        assert site.post("slow", cookie).cookie is None
        assert site.get("who", logins[0]).body == "('ann', 1)"

    def test_after_a_rotation_late_readers_are_served(self) -> None:
        """A lost answer logs nobody out: the token before is good to read with."""
        manager = manager_of(revocation=MemoryStore())
        browser = visitor(manager)
        browser.get("/count")
        old = {"Cookie": copy_of(browser)}
        assert "Set-Cookie" in browser.get("/rotate").headers
        late = visitor(manager).get("/n", headers=old)
        assert late.text == "1"
        assert "Set-Cookie" not in late.headers

    def test_a_store_that_is_away_is_no_logout(self) -> None:
        """P8: 503, and the cookie stays."""

        class Away(MemoryStore):
            def load(self, key: Any) -> Any:
                raise StoreError("out of reach")

        browser = visitor(manager_of(revocation=Away()))
        browser.get("/count")
        answer = browser.get("/n", status=503)
        assert "Set-Cookie" not in answer.headers
        assert jar(browser)


# -- what cannot be promised here -------------------------------------------------------


class TestLimits:
    def test_of_two_tabs_the_last_one_wins(self) -> None:
        """The cookie store's limit on P1: two increments at once count as one."""
        manager = manager_of(revocation=MemoryStore())
        browser = visitor(manager)
        browser.get("/count")
        tab = browser.another()
        assert [browser.get("/count").text, tab.get("/count").text] == ["2", "2"]

    def test_locking_always_is_refused_at_construction(self) -> None:
        """Rather than promised; the sentence names the store."""
        with pytest.raises(ConfigurationError, match="CookieStore cannot"):
            manager_of(locking="always")

    def test_it_can_neither_lock_nor_list_and_says_so(self) -> None:
        """A lock that is asked for is an error, and so is a list."""
        browser = visitor(manager_of())
        browser.get("/count")
        with pytest.raises(ConfigurationError, match="CookieStore cannot lock"):
            browser.get("/lock")
        with pytest.raises(ConfigurationError, match="CookieStore cannot list"):
            list(manager_of().sessions())

    @pytest.mark.parametrize(
        ("late", "said"),
        [
            (lambda session, cart: session.update(n=1), "would need a cookie"),
            (lambda session, cart: session.save(), "would need a cookie"),
            (lambda session, cart: cart.append(1), "held in a cookie"),
        ],
        ids=["write", "save", "nested"],
    )
    def test_a_change_after_the_headers_is_an_error(self, late: Any, said: str) -> None:
        """It could not reach the client, and is not lost in silence."""
        manager = manager_of()
        session = manager.create()
        session["cart"] = []
        session.save()

        def application(
            environ: dict[str, Any], start_response: Any
        ) -> Iterator[bytes]:
            session = get_session(environ)
            cart = session["cart"]
            start_response("200 OK", [])
            yield b"x"
            late(session, cart)

        environ = {
            "REQUEST_METHOD": "POST",
            "wsgi.url_scheme": "http",
            "HTTP_COOKIE": f"sid={manager.token_of(session)}",
        }
        app = SessionMiddleware(application, manager=manager)
        body: Any = app(environ, lambda *head: lambda data: None)
        with pytest.raises(SessionClosed, match=said), closing(body):
            list(body)


# -- by options --------------------------------------------------------------------------


class TestConfiguration:
    def test_from_text(self) -> None:
        """Everything can stand in an .ini file."""
        manager = SessionManager.from_config(
            {
                "session.type": "cookie",
                "session.secret": SECRET,
                "session.encrypt": "yes",
                "session.cookie_chunks": "3",
                "session.compression": "zlib",
                "session.revocation": "memory:",
                "session.revocation_fail": "open",
            }
        )
        assert isinstance(manager.store, CookieStore)
        assert not isinstance(manager.store, SealedStore)
        assert len(token_of(manager, 5000)) < 500
        browser = visitor(manager)
        browser.get("/login")
        manager.end_user("ann")
        assert browser.get("/user").text == "None"

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({}, "needs a secret"),
            ({"secret": "short"}, "too short"),
            ({"secret": SECRET, "cookie_chunks": 11}, "1 to 10"),
            (
                {"secret": SECRET, "revocation": CookieStore(secret=[SECRET.encode()])},
                "on the server",
            ),
            ({"secret": SECRET, "revocation": "cookie:"}, "on the server"),
            ({"secret": SECRET, "revocation": "nosuch://x"}, "nosuch"),
            ({"secret": SECRET, "revokation": "memory:"}, "did you mean 'revocation'"),
        ],
    )
    def test_misuse_is_refused_at_construction(
        self, options: dict[str, Any], said: str
    ) -> None:
        """With a sentence."""
        with pytest.raises(ConfigurationError, match=said):
            SessionManager.from_config(url="cookie:", **options)


# -- in Chromium -------------------------------------------------------------------------


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(app: Callable[..., Any]) -> Iterator[str]:
    """An application on a port of its own; gives its address."""
    with make_server("127.0.0.1", 0, app, _Server, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def application_of(
    sizes: dict[int, tuple[str, int]],
) -> Callable[..., Iterable[bytes]]:
    """Sessions of 4095 to 4097 octets, each under a path that says which, and chunks."""
    apps: dict[str, Any] = {}
    for octets, (name, filler) in sizes.items():
        for chunks in (1, 2):
            manager = manager_of(cookie_name=name, cookie_chunks=chunks, **AGE)
            apps[f"{octets}-{chunks}"] = visitor(manager, filler).middleware

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/favicon.ico":
            return raw(environ, start_response, "")
        _, which, verb = environ["PATH_INFO"].split("/")
        if which == "raw":
            return raw(environ, start_response, verb)
        environ["PATH_INFO"] = f"/{verb}"
        try:
            with closing(apps[which](environ, start_response)) as body:
                return list(body)
        except SessionTooLarge as error:
            start_response("500 Too Large", [("Content-Type", "text/plain")])
            return [f"{error.size} octets are too many".encode()]

    return application


def raw(environ: dict[str, Any], start_response: Any, verb: str) -> Iterable[bytes]:
    """Set a cookie of so many octets of name and value, or show what was sent."""
    headers = [("Content-Type", "text/plain")]
    if verb.isdecimal():
        headers.append(("Set-Cookie", "r" * 10 + "=" + "x" * (int(verb) - 10)))
    start_response("200 OK", headers)
    return [str("rrrrrrrrrr=" in environ.get("HTTP_COOKIE", "")).encode()]


def test_in_chromium(tmp_path: Path, sizes: dict[int, tuple[str, int]]) -> None:
    """At 4,095 and 4,096 octets one cookie, at 4,097 an error, or two chunks."""
    with (
        serving(application_of(sizes)) as url,
        chromium(tmp_path / "profile") as chrome,
    ):

        def get(path: str) -> str:
            chrome.get(url + path)
            return chrome.find_element("tag name", "body").text

        def kept() -> dict[str, int]:
            return {each["name"]: len(each["value"]) for each in chrome.get_cookies()}

        for octets, keeps in ((4096, "True"), (4097, "False")):
            chrome.delete_all_cookies()
            get(f"/raw/{octets}")
            assert get("/raw/show") == keeps, "the control: what Chromium itself keeps"
        for octets, (name, filler) in sizes.items():
            for chunks in (1, 2):
                chrome.delete_all_cookies()
                said = get(f"/{octets}-{chunks}/fill")
                if octets > 4096 and chunks == 1:
                    assert said == "4097 octets are too many"
                    assert kept() == {}
                    continue
                names = {name, f"{name}.1"} if octets > 4096 else {name}
                assert kept().keys() == names
                assert get(f"/{octets}-{chunks}/read") == str(filler)
                if octets > 4096:
                    get(f"/{octets}-{chunks}/short")
                    assert kept().keys() == {name}
                    assert get(f"/{octets}-{chunks}/read") == "1"
                    get(f"/{octets}-{chunks}/fill")
                get(f"/{octets}-{chunks}/logout")
                assert kept() == {}
