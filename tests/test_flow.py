"""What a browser and the caches between see: cookies, headers, logins, outages."""

from __future__ import annotations

import collections.abc
import itertools
import logging
from http.cookies import SimpleCookie
from typing import Any

import pytest

from wsgisession import (
    Capabilities,
    Key,
    Options,
    Session,
    SessionManager,
    StoreError,
)
from wsgisession.stores.memory import MemoryStore

from .conftest import SECRET, Clock, CountingStore, Visitor
from .pages import ids, set_cookies, shop, warned


def set_n(session: Session) -> None:
    session["n"] = session.get("n", 0) + 1


PAGES: dict[str, Any] = {
    "/": lambda s: "welcome",
    "/read": lambda s: s.get("n"),
    "/write": set_n,
    "/login": lambda s: s.login("ann"),
    "/logout": lambda s: s.logout(),
    "/user": lambda s: s.user,
    "/browser": lambda s: s.set_expiry(0),
}


def visit(store: Any = None, clock: Clock | None = None, **options: Any) -> Visitor:
    manager = SessionManager(
        store or MemoryStore(), Options(**options), clock=clock or Clock()
    )
    return Visitor(manager, PAGES)


def attributes(header: str) -> dict[str, Any]:
    (morsel,) = SimpleCookie(header).values()
    return {name: value for name, value in morsel.items() if value}


# -- the cookie --------------------------------------------------------------------------


def test_a_session_lasts_from_request_to_request() -> None:
    """The first visitor gets a cookie with the first write, and no other."""
    browser = visit()
    assert "Set-Cookie" not in browser.get("/").headers
    assert "Set-Cookie" not in browser.get("/read").headers
    assert "Set-Cookie" in browser.get("/write").headers
    assert "Set-Cookie" not in browser.get("/write").headers
    assert browser.get("/read").text == "2"


def test_the_default_cookie() -> None:
    """HttpOnly, Lax, the whole host, until the absolute end; no domain."""
    found = attributes(visit().get("/write").headers["Set-Cookie"])
    assert found.pop("expires").endswith("GMT")
    assert found == {
        "path": "/",
        "max-age": "2592000",
        "httponly": True,
        "samesite": "Lax",
    }


def test_secure_follows_the_scheme() -> None:
    """By https it is Secure, by http it is not, unless it is said."""
    https = {"wsgi.url_scheme": "https"}
    assert "secure" not in visit().get("/write").headers["Set-Cookie"]
    assert "secure" in visit().get("/write", extra_environ=https).headers["Set-Cookie"]
    always = visit(cookie_secure=True)
    assert "secure" in always.get("/write").headers["Set-Cookie"]
    never = visit(cookie_secure=False).get("/write", extra_environ=https)
    assert "secure" not in never.headers["Set-Cookie"]


def test_deleting_repeats_every_attribute() -> None:
    """Browsers ignore a deletion whose attributes differ; Django forgets some."""
    browser = visit(
        cookie_name="__Secure-s",
        cookie_path="/app",
        cookie_domain="example.test",
        cookie_secure=True,
        cookie_samesite="None",
        cookie_partitioned=True,
    )
    set_line = browser.get("/write").headers["Set-Cookie"]
    value = set_line.split(";")[0]
    gone = browser.get("/logout", headers={"Cookie": value}).headers["Set-Cookie"]
    assert gone.startswith("__Secure-s=;")
    for line in (set_line, gone):
        for part in ("Path=/app", "Domain=example.test", "secure", "HttpOnly"):
            assert part in line
        assert "SameSite=None" in line
        assert line.endswith("; Partitioned")
    assert "Max-Age=0" in gone


def test_at_browser_close_there_is_no_max_age() -> None:
    """For all sessions by an option, or for one by set_expiry(0)."""
    line = visit(expire_at_browser_close=True).get("/write").headers["Set-Cookie"]
    assert set(attributes(line)) == {"path", "httponly", "samesite"}
    browser = visit()
    browser.get("/write")
    line = browser.get("/browser").headers["Set-Cookie"]
    assert set(attributes(line)) == {"path", "httponly", "samesite"}


@pytest.mark.parametrize("closes", [False, True])
def test_the_cookie_does_not_slide(clock: Clock, closes: bool) -> None:
    """The idle clock is the server's alone: a reader moves it, and sends nothing."""
    store = CountingStore(MemoryStore())
    browser = visit(store, clock, expire_at_browser_close=closes)
    browser.get("/write")
    for seconds, calls in ((59, ["load"]), (2, ["load", "touch"]), (2, ["load"])):
        clock.pass_by(seconds)
        store.calls.clear()
        assert "Set-Cookie" not in browser.get("/read").headers
        assert store.calls == calls


def test_the_browsers_expiry_counts_for_nothing(clock: Clock) -> None:
    """P9: a cookie that is sent again after its time is over is nobody's."""
    browser = visit(clock=clock)
    cookie = browser.get("/write").headers["Set-Cookie"].split(";")[0]
    clock.pass_by(15 * 86400)
    assert browser.get("/read", headers={"Cookie": cookie}).text == "None"


def test_a_stale_cookie_is_left_alone() -> None:
    """An expiring cookie would race with a login in another tab (express #923)."""
    browser = visit()
    answer = browser.get("/read", headers={"Cookie": "sid=" + "A" * 64})
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("secret", [None, SECRET])
@pytest.mark.parametrize("page", ["/", "/read", "/logout"])
@pytest.mark.parametrize(
    "header",
    [
        "sid=" + "A" * 64,
        "sid=" + "A" * 64 + "." + "B" * 43,
        "sid=",
        "sid",
        "=sid",
        "sid=\x80\xff",
        "sid=../../../etc/passwd",
        "sid=a; sid=b; sid=c; sid=d; sid=e; sid=f",
        ";" * 1000,
        "sid=" + "\\" * 262_144,
        'sid="' + '\\"' * 100_000,
        "x=y;" * 65_536 + "sid=" + "A" * 64,
    ],
)
def test_bad_input_is_an_anonymous_visitor(
    header: str, page: str, secret: str | None
) -> None:
    """P7: no cookie header gives an error, a cookie, or a record."""
    store = CountingStore(MemoryStore())
    browser = visit(store, **({"secret": secret} if secret else {}))
    answer = browser.get(page, headers={"Cookie": header}, expect_errors=True)
    assert answer.status_int == 200
    said = answer.headers.get("Set-Cookie", "Max-Age=0")
    assert "Max-Age=0" in said, "a logout may take it away"
    assert "Set-Cookie" not in answer.headers or page == "/logout"
    assert set(store.calls) <= {"load"}
    assert secret is None or store.calls == []
    assert list(store.records()) == []


def test_junk_never_reaches_the_store_with_a_secret() -> None:
    """A signature is asked before the store is; the real cookie still works."""
    store = CountingStore(MemoryStore())
    browser = visit(store, secret=SECRET)
    browser.get("/write")
    store.calls.clear()
    browser.get("/read", headers={"Cookie": "sid=" + "A" * 64})
    assert store.calls == []
    browser.get("/read")
    assert store.calls == ["load"]


# -- several cookies ---------------------------------------------------------------------


def both(*cookies: str) -> str:
    """The cookies in one header."""
    return "; sid=".join(cookies)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_cookies_of_one_id_are_one_session(clock: Clock, method: str) -> None:
    """The best standing wins, at whatever place it stands, to read and to write."""
    site = shop(clock=clock)
    before = site.begun("fill")
    previous = site.begun("ann", before)
    current = site.begun("rotate", previous)
    for count, header in enumerate(
        itertools.permutations([before, previous, current]), 1
    ):
        answer = site.ask(method, "increment", both(*header))
        assert (answer.body, answer.cookie) == (str(count), None)
    assert site.post("expiry", both(previous, current)).cookie == current


@pytest.mark.parametrize("page", ["increment", "ann", "logout", "clear", "tutorial"])
def test_of_two_live_sessions_none_is_used_and_neither_stays(
    page: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At a store, a login or an end both go, and so do all spellings of the cookie."""
    site = shop()
    one, two = site.begun("fill"), site.begun("fill")
    spy = site.get("cart", both(one, two))
    assert (spy.body, spy.cookie) == ("None", None)
    assert warned(caplog) == ["2 session cookies are valid at once; none is used"]
    assert len(ids(site)) == 2
    host = {"HTTP_HOST": "www.example.com"}
    answer = site.post(page, both(one, two), **host)
    *healed, last = set_cookies(answer)
    assert {line.split("; ")[1] for line in healed} == {
        "Domain=www.example.com",
        "Domain=example.com",
        "Max-Age=0",  # without a domain, of the page's own path
    }
    assert all("Max-Age=0" in line for line in healed)
    assert "Domain" not in last
    assert ("Max-Age=0" in last) is (page in ("logout", "clear"))
    for gone in (one, two):
        assert site.get("cart", gone).body == "None"
    assert len(ids(site)) == (0 if page in ("logout", "clear") else 1)


def test_an_end_of_two_live_sessions_stands_where_the_page_fails() -> None:
    """As an end of one does."""
    site = shop()

    def fail(session: Session) -> None:
        session.flush()
        raise ZeroDivisionError

    site.handlers["fail"] = fail
    header = both(site.begun("fill"), site.begun("fill"))
    with pytest.raises(ZeroDivisionError):
        site.post("fail", header)
    assert ids(site) == []


def test_of_many_cookies_the_last_four_are_looked_at() -> None:
    """Those of longer paths, which a subdomain can plant, come first."""
    store = CountingStore(MemoryStore())
    site = shop(store)
    ours = site.begun("fill")
    planted = [site.begun("increment") for _ in range(5)]
    for cookie in planted:
        site.manager.end(site.manager.open(cookie).id)
    for place in range(6):
        header = [*planted[:place], ours, *planted[place:]]
        store.calls.clear()
        answer = site.get("cart", both(*header))
        assert store.calls == ["load"] * 4
        assert answer.body == ("['book']" if place >= 2 else "None")


# -- caches ------------------------------------------------------------------------------

LOOKS: dict[str, Any] = {
    "in": lambda s: "n" in s,
    "len": len,
    "iter": list,
    "bool": bool,
    "get": lambda s: s.get("n"),
    "keys": lambda s: list(s.keys()),
    "values": lambda s: list(s.values()),
    "items": lambda s: list(s.items()),
    "eq": lambda s: s == {},
    "copy": lambda s: s.copy(),
    "or": lambda s: s | {},
    "set": lambda s: s.update(a=1),
    "setdefault": lambda s: s.setdefault("a", 1),
    "pop": lambda s: s.pop("n", None),
    "update": lambda s: s.update({}, a=1),
    "popitem": lambda s: s.popitem() if s else None,
    "del": lambda s: s.pop("n") if "n" in s else None,
    "clear": lambda s: s.clear(),
    "save": lambda s: s.save(),
    "revert": lambda s: s.revert(),
    "flush": lambda s: s.flush(),
    "logout": lambda s: s.logout(),
    "lock": lambda s: s.lock(),
    "unlock": lambda s: s.unlock(),
    "rotate": lambda s: s.rotate(),
    "regenerate": lambda s: s.regenerate(),
    "login": lambda s: s.login("ann"),
    "id": lambda s: s.id,
    "ended": lambda s: s.ended,
    "new": lambda s: s.new,
    "user": lambda s: s.user,
    "user_data": lambda s: s.user and s.user_data,
    "created": lambda s: s.created,
    "last_accessed": lambda s: s.last_accessed,
    "expires": lambda s: s.expires,
    "login_details": lambda s: s.login_details,
    "set_expiry": lambda s: s.set_expiry(60),
    "get_expiry_age": lambda s: s.get_expiry_age(),
    "get_expiry_date": lambda s: s.get_expiry_date(),
    "get_expire_at_browser_close": lambda s: s.get_expire_at_browser_close(),
    "set_test_cookie": lambda s: s.set_test_cookie(),
    "test_cookie_worked": lambda s: s.test_cookie_worked(),
    "delete_test_cookie": lambda s: s.delete_test_cookie(),
    "modified": lambda s: setattr(s, "modified", True),
}
NO_LOOKS = {"accessed", "locked", "no_replay", "view"}


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("how", LOOKS)
def test_every_kind_of_access_varies_on_the_cookie(how: str, stored: bool) -> None:
    """P12: Flask CVE-2026-27205, Django CVE-2026-35192 and others forgot one."""
    manager = SessionManager(MemoryStore())
    browser = Visitor(manager, {"/look": LOOKS[how], "/write": set_n})
    if stored:
        browser.get("/write")
    answer = browser.get("/look")
    assert answer.headers["Vary"] == "Cookie"
    if "Set-Cookie" in answer.headers:
        assert answer.headers["Cache-Control"] == "no-store"


def test_no_kind_of_access_is_forgotten() -> None:
    """By introspection: whatever a session has by name is in the table above."""
    public = {name for name in dir(Session) if not name.startswith("_")}
    mapping = {name for name in dir(collections.abc.MutableMapping) if name[0] != "_"}
    assert public - mapping - NO_LOOKS <= set(LOOKS)
    assert mapping <= set(LOOKS)


@pytest.mark.parametrize("how", sorted(NO_LOOKS))
def test_what_is_no_look_tells_nothing(how: str) -> None:
    """The control of the table above: these leave the headers alone."""
    uses: dict[str, Any] = {
        "accessed": lambda s: s.accessed,
        "locked": lambda s: s.locked,
        "no_replay": lambda s: s.no_replay(),
        "view": lambda s: s.view(Session),
    }
    browser = Visitor(SessionManager(MemoryStore()), {"/look": uses[how]})
    assert "Vary" not in browser.get("/look").headers


def test_an_untouched_session_leaves_the_headers_alone() -> None:
    """A page that does not look at the session is cacheable for everybody."""
    browser = visit()
    browser.get("/write")
    answer = browser.get("/")
    assert not {"Vary", "Cache-Control", "Set-Cookie"} & set(answer.headers)


# -- logging in and out ------------------------------------------------------------------


def test_login_changes_the_cookie_and_logout_takes_it() -> None:
    """OWASP ASVS 7.2.4: who knew the old token knows nothing; the record goes."""
    browser = visit(store := MemoryStore())
    old = browser.get("/write").headers["Set-Cookie"].split(";")[0]
    new = browser.get("/login").headers["Set-Cookie"].split(";")[0]
    assert old != new
    assert browser.get("/user").text == "ann"
    for page in ("/user", "/write"):
        spy = browser.get(page, headers={"Cookie": old})
        assert spy.text == "None"
        assert "Set-Cookie" not in spy.headers
    assert "Max-Age=0" in browser.get("/logout").headers["Set-Cookie"]
    assert "sid" not in browser.cookies
    assert browser.get("/user", headers={"Cookie": new}).text == "None"
    assert list(store.records()) == []


def test_a_logout_without_a_session_takes_only_what_was_sent() -> None:
    """Without a cookie there is nothing to take away; one that is stale goes."""
    assert "Set-Cookie" not in visit().get("/logout").headers
    stale = {"Cookie": "sid=" + "A" * 64}
    assert "Max-Age=0" in visit().get("/logout", headers=stale).headers["Set-Cookie"]


# -- options of saving -------------------------------------------------------------------


def test_auto_off_saves_only_what_is_saved() -> None:
    """As in Beaker: without save() nothing persists, and reads go on all the same."""
    manager = SessionManager(MemoryStore(), Options(auto=False))
    pages: dict[str, Any] = {
        "/forget": set_n,
        "/save": lambda s: (set_n(s), s.save()),
        "/both": lambda s: (set_n(s), s.save(), s.update(lost=1)),
        "/read": lambda s: sorted(s.items()),
    }
    browser = Visitor(manager, pages)
    assert "Set-Cookie" not in browser.get("/forget").headers
    assert "Set-Cookie" in browser.get("/save").headers
    browser.post("/both")
    browser.post("/forget")
    assert browser.get("/read").text == "[('n', 2)]"


def test_save_every_request(clock: Clock) -> None:
    """A stored session is written by every request; a bogus cookie makes no record."""
    store = CountingStore(MemoryStore())
    browser = visit(store, clock, save_every_request=True, touch_interval=0)
    browser.get("/")
    assert store.calls == []
    browser.get("/", headers={"Cookie": "sid=" + "A" * 64})
    assert list(store.records()) == []
    browser.get("/write")
    store.calls.clear()
    clock.pass_by(1)
    answer = browser.get("/")
    assert store.calls == ["load", "save"]
    assert answer.headers["Vary"] == "Cookie"
    assert "Set-Cookie" not in answer.headers


def test_auto_off_keeps_a_change_of_identity() -> None:
    """Values are dropped without ``save()``, a proven login never."""
    manager = SessionManager(MemoryStore(), Options(auto=False))
    pages: dict[str, Any] = {
        "/save": lambda s: (set_n(s), s.save()),
        "/login": lambda s: (s.update(lost=1), s.login("ann")),
        "/read": lambda s: (s.user, s.copy()),
    }
    browser = Visitor(manager, pages)
    browser.get("/save")
    cookie = browser.cookies["sid"]
    browser.get("/login")
    assert browser.cookies["sid"] != cookie
    assert browser.get("/read").text == "('ann', {'n': 1})"


# -- outages and damage ------------------------------------------------------------------


class Broken:
    """A store whose named methods fail, as when its server is away."""

    def __init__(self, store: Any, *methods: str) -> None:
        self.capabilities = Capabilities(locks=True)
        for name in ("load", "save", "touch", "delete", "lock", "unlock"):
            setattr(self, name, self.fail if name in methods else getattr(store, name))

    def fail(self, *_: Any, **__: Any) -> Any:
        raise StoreError("the store is away") from ConnectionRefusedError()


@pytest.mark.parametrize(
    ("method", "broken"),
    [
        ("GET", ["load"]),
        ("GET", ["save"]),
        ("POST", ["lock", "load"]),
        ("POST", ["lock", "save"]),
        ("POST", ["save"]),
        ("POST", ["save", "unlock", "delete", "touch"]),
    ],
)
def test_an_outage_is_a_503_and_no_logout(
    method: str, broken: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """P8: the client is asked to come again, and its cookie is not touched."""
    store = MemoryStore()
    browser = visit(store)
    browser.get("/write")
    away = visit(Broken(store, *broken))
    away.cookiejar = browser.cookiejar
    answer = away.request("/write", method=method, expect_errors=True)
    assert answer.status_int == 503
    assert answer.headers["Retry-After"] == "1"
    assert "Set-Cookie" not in answer.headers
    assert "the store is away; " in caplog.text
    assert browser.get("/read").text == "1"


def test_a_store_that_does_not_lock_serves_who_only_reads() -> None:
    """A replica, a full disk: a POST that reads is answered, one that writes is 503."""
    store = MemoryStore()
    browser = visit(store)
    browser.get("/write")
    away = visit(Broken(store, "save", "lock", "touch"))
    away.cookiejar = browser.cookiejar
    assert away.post("/read").text == "1"
    away.post("/write", status=503)
    away.post("/login", status=503)
    away.post("/logout", status=200)
    assert list(store.records()) == [], "an end needs no lock"


def test_an_outage_can_be_survived_read_only(caplog: pytest.LogCaptureFixture) -> None:
    """on_store_error="anonymous": pages are served, nothing is written, no cookie."""
    store = MemoryStore()
    browser = visit(store)
    browser.get("/write")
    away = visit(Broken(store, "load", "lock"), on_store_error="anonymous")
    away.cookiejar = browser.cookiejar
    answer = away.get("/read")
    assert answer.text == "None"
    assert "Set-Cookie" not in answer.headers
    assert "the store is away; an empty session is served" in caplog.text
    for page in ("/write", "/login", "/logout", "/browser"):
        refused = away.post(page, expect_errors=True)
        assert refused.status_int == 503
        assert "Set-Cookie" not in refused.headers
    assert browser.get("/read").text == "1"


@pytest.mark.parametrize(
    "verb",
    [
        lambda s: s.__setitem__("n", 1),
        lambda s: s.__delitem__("n"),
        lambda s: s.clear(),
        lambda s: s.save(),
        lambda s: setattr(s, "modified", True),
        lambda s: s.set_expiry(60),
        lambda s: s.set_test_cookie(),
        lambda s: s.delete_test_cookie(),
        lambda s: s.flush(),
        lambda s: s.login("ann"),
        lambda s: s.rotate(),
        lambda s: s.regenerate(),
    ],
)
def test_no_change_is_lost_in_an_outage(verb: Any) -> None:
    """P8: whatever would have to be written says that it cannot."""
    manager = SessionManager(
        Broken(MemoryStore(), "load"), Options(on_store_error="anonymous")
    )
    session = manager.open("A" * 64)
    assert session == {}
    with pytest.raises(StoreError, match="the store is away"):
        verb(session)
    assert session == {}
    assert not session.modified


class Flickering(CountingStore):
    """A store of which one call fails, as on a connection that is reset."""

    def __init__(self, store: Any, method: str, number: int = 1) -> None:
        super().__init__(store)
        self.left = number
        self.works = getattr(self, method)
        setattr(self, method, self.flicker)

    def flicker(self, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise StoreError("the connection was reset")
        return self.works(*args, **kwargs)


class Away(CountingStore):
    """A store whose deletes fail for a number of times."""

    def __init__(self, behind: MemoryStore, times: int) -> None:
        super().__init__(behind)
        self._left, self._delete = times, behind.delete
        self.delete = self._fail

    def _fail(self, key: Key, *, user: str | None = None) -> bool:
        self._left -= 1
        if self._left >= 0:
            raise StoreError("the store is away")
        return self._delete(key, user=user)


@pytest.mark.parametrize("times", [1, 9])
@pytest.mark.parametrize("number", [1, 2])
def test_an_end_that_cannot_be_carried_out_takes_no_cookie(
    times: int, number: int
) -> None:
    """P8: it is tried again; in vain, the answer is 503 and everything as it was."""
    site = shop(Away(MemoryStore(), times))
    cookies = [site.begun("fill") for _ in range(number)]
    answer = site.post("logout", both(*cookies))
    assert answer.status.startswith("503")
    assert answer.cookie == ("" if times == 1 else None)
    assert len(ids(site)) == (0 if times == 1 else number)
    if times > 1:
        assert site.post("increment", cookies[0]).body == "1", "the lock is free"


def test_a_login_that_meets_an_outage_leaves_the_old_session() -> None:
    """Its one save failed, and the browser's cookie is still good."""
    store = MemoryStore()
    browser = visit(store)
    browser.get("/write")
    flickering = visit(Flickering(store, "save"))
    flickering.cookiejar = browser.cookiejar
    assert "Set-Cookie" not in flickering.post("/login", status=503).headers
    assert browser.get("/read").text == "1"
    assert browser.get("/user").text == "None"
    browser.post("/login")
    assert browser.get("/user").text == "ann"


def test_an_untouched_session_does_not_notice_an_outage() -> None:
    """A page without a session needs no store."""
    store = MemoryStore()
    assert visit(Broken(store, "load", "save", "lock")).get("/").status_int == 200


@pytest.mark.parametrize(
    "data", [b"", b"1\nnot json", b"\x80\x04pickle", b"1\n[1]", b"1{\n{}"]
)
def test_a_corrupt_record_is_logged_and_left_alone(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """P8: the visitor is anonymous, and whoever looks finds the bytes as they were."""
    browser = visit(store := MemoryStore())
    browser.get("/write")
    (record,) = store.records()
    store.save(record._replace(data=data, version=2), expect=record.version)
    with caplog.at_level(logging.ERROR, "wsgisession"):
        assert browser.get("/read").text == "None"
        browser.post("/write")
    assert f"session {record.id} is corrupt and was left alone" in caplog.text
    left = store.load(Key(record.id))
    assert left is not None
    assert left.data == data
    assert len(list(store.records())) == 2
    assert browser.get("/read").text == "1"
