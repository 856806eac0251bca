"""What a browser and the caches between see: cookies, headers, logins, outages."""

from __future__ import annotations

import collections.abc
import logging
from http.cookies import SimpleCookie
from typing import Any

import pytest

from wsgisession import Key, Options, Session, SessionManager, StoreError
from wsgisession.stores.memory import MemoryStore

from .conftest import SECRET, Clock, CountingStore, Visitor


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
    """HttpOnly, Lax, the whole host, as long as the idle timeout; no domain."""
    found = attributes(visit().get("/write").headers["Set-Cookie"])
    assert found.pop("expires").endswith("GMT")
    assert found == {
        "path": "/",
        "max-age": "1209600",
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


def test_the_cookie_slides_with_the_session(clock: Clock) -> None:
    """When the idle clock is moved the browser's is too, also by a reader."""
    browser = visit(clock=clock)
    browser.get("/write")
    clock.pass_by(59)
    assert "Set-Cookie" not in browser.get("/read").headers
    clock.pass_by(2)
    assert "Max-Age=1209600" in browser.get("/read").headers["Set-Cookie"]
    assert "Set-Cookie" not in browser.get("/read").headers


def test_a_cookie_without_max_age_does_not_slide(clock: Clock) -> None:
    """The browser's copy is good until it is closed, while the server's clock moves."""
    store = CountingStore(MemoryStore())
    browser = visit(store, clock, expire_at_browser_close=True)
    browser.get("/write")
    clock.pass_by(61)
    store.calls.clear()
    assert "Set-Cookie" not in browser.get("/read").headers
    assert store.calls == ["load", "touch"]


def test_the_browsers_expiry_counts_for_nothing(clock: Clock) -> None:
    """P9: a cookie that is sent again after its time is over is nobody's."""
    browser = visit(clock=clock)
    cookie = browser.get("/write").headers["Set-Cookie"].split(";")[0]
    clock.pass_by(15 * 86400)
    assert browser.get("/read", headers={"Cookie": cookie}).text == "None"


def test_a_stale_cookie_is_left_alone() -> None:
    """An expiring cookie would race with a login in another tab (express #923)."""
    browser = visit()
    answer = browser.get("/read", headers={"Cookie": "session=" + "A" * 43})
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("secret", [None, SECRET])
@pytest.mark.parametrize("page", ["/", "/read", "/logout"])
@pytest.mark.parametrize(
    "header",
    [
        "session=" + "A" * 43,
        "session=" + "A" * 43 + "." + "B" * 43,
        "session=",
        "session",
        "=session",
        "session=\x80\xff",
        "session=../../../etc/passwd",
        "session=a; session=b; session=c; session=d; session=e; session=f",
        ";" * 1000,
        "session=" + "\\" * 262_144,
        'session="' + '\\"' * 100_000,
        "x=y;" * 65_536 + "session=" + "A" * 43,
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
    assert "Set-Cookie" not in answer.headers
    assert set(store.calls) <= {"load"}
    assert secret is None or store.calls == []
    assert list(store.records()) == []


def test_junk_never_reaches_the_store_with_a_secret() -> None:
    """A signature is asked before the store is; the real cookie still works."""
    store = CountingStore(MemoryStore())
    browser = visit(store, secret=SECRET)
    browser.get("/write")
    store.calls.clear()
    browser.get("/read", headers={"Cookie": "session=" + "A" * 43})
    assert store.calls == []
    browser.get("/read")
    assert store.calls == ["load"]


# -- several cookies of our name ---------------------------------------------------------


def test_of_several_cookies_the_valid_one_is_used() -> None:
    """Order means nothing: one that leads nowhere does not hide the one that does."""
    browser = visit()
    good = browser.get("/write").headers["Set-Cookie"].split(";")[0]
    bad = "session=" + "A" * 43
    for header in (f"{good}; {bad}", f"{bad}; {good}", f"{good}; {good}"):
        assert browser.get("/read", headers={"Cookie": header}).text == "1"


def test_an_ended_cookie_does_not_hide_the_live_one() -> None:
    """The old one of a login counts for nothing beside the new one."""
    browser = visit()
    old = browser.get("/write").headers["Set-Cookie"].split(";")[0]
    new = browser.get("/login").headers["Set-Cookie"].split(";")[0]
    for header in (f"{old}; {new}", f"{new}; {old}"):
        assert browser.get("/user", headers={"Cookie": header}).text == "ann"


def test_two_valid_cookies_are_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    """A sibling domain that plants its own cookie cannot choose the session."""
    one, two = visit(store := MemoryStore()), visit(store)
    headers = [b.get("/write").headers["Set-Cookie"].split(";")[0] for b in (one, two)]
    answer = one.get("/read", headers={"Cookie": "; ".join(headers)})
    assert answer.text == "None"
    assert "2 session cookies are valid at once" in caplog.text


# -- caches ------------------------------------------------------------------------------

LOOKS: dict[str, Any] = {
    "in": lambda s: "n" in s,
    "has_key": lambda s: s.has_key("n"),
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
    "clear": lambda s: s.clear(),
    "save": lambda s: s.save(),
    "revert": lambda s: s.revert(),
    "flush": lambda s: s.flush(),
    "delete": lambda s: s.delete(),
    "logout": lambda s: s.logout(),
    "invalidate": lambda s: s.invalidate(),
    "lock": lambda s: s.lock(),
    "unlock": lambda s: s.unlock(),
    "rotate": lambda s: s.rotate(),
    "regenerate": lambda s: s.regenerate(),
    "cycle_key": lambda s: s.cycle_key(),
    "regenerate_id": lambda s: s.regenerate_id(),
    "login": lambda s: s.login("ann"),
    "id": lambda s: s.id,
    "token": lambda s: s.token,
    "new": lambda s: s.new,
    "user": lambda s: s.user,
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
NO_LOOKS = {"accessed", "locked", "replay", "of_record", "commit", "rollback"}
NO_LOOKS |= {"commit_late", "close"}


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
    assert mapping - {"popitem", "update"} <= set(LOOKS)


def test_an_untouched_session_leaves_the_headers_alone() -> None:
    """A page that does not look at the session is cacheable for everybody."""
    browser = visit()
    browser.get("/write")
    answer = browser.get("/")
    assert not {"Vary", "Cache-Control", "Set-Cookie"} & set(answer.headers)


# -- logging in and out ------------------------------------------------------------------


def test_login_changes_the_cookie_and_ends_the_old_one() -> None:
    """OWASP ASVS 7.2.4: whoever knew the old token knows nothing."""
    browser = visit()
    old = browser.get("/write").headers["Set-Cookie"].split(";")[0]
    new = browser.get("/login").headers["Set-Cookie"].split(";")[0]
    assert old != new
    assert browser.get("/user").text == "ann"
    spy = browser.get("/user", headers={"Cookie": old})
    assert spy.text == "None"
    assert "Set-Cookie" not in spy.headers


def test_an_in_flight_request_does_not_undo_a_login() -> None:
    """Express #923, warden #14: a write with the old cookie sets no new one."""
    browser = visit()
    old = browser.get("/write").headers["Set-Cookie"].split(";")[0]
    browser.get("/login")
    answer = browser.get("/write", headers={"Cookie": old})
    assert "Set-Cookie" not in answer.headers
    assert browser.get("/user").text == "ann"


def test_logout_takes_the_cookie_and_the_record() -> None:
    """The browser forgets it, and so does the server."""
    browser = visit(store := MemoryStore())
    browser.get("/login")
    cookie = browser.cookies["session"]
    assert "Max-Age=0" in browser.get("/logout").headers["Set-Cookie"]
    assert "session" not in browser.cookies
    again = browser.get("/user", headers={"Cookie": f"session={cookie}"})
    assert again.text == "None"
    assert list(store.records()) == []


def test_a_logout_without_a_session_sets_no_cookie() -> None:
    """There is nothing to take away."""
    assert "Set-Cookie" not in visit().get("/logout").headers


# -- options of saving -------------------------------------------------------------------


def test_auto_off_saves_only_what_is_saved() -> None:
    """As in Beaker: without save() nothing persists, and reads slide all the same."""
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
    assert "Vary" not in browser.get("/").headers
    browser.get("/", headers={"Cookie": "session=" + "A" * 43})
    assert list(store.records()) == []
    browser.get("/write")
    store.calls.clear()
    clock.pass_by(1)
    answer = browser.get("/")
    assert store.calls == ["load", "save"]
    assert answer.headers["Vary"] == "Cookie"
    assert "Set-Cookie" in answer.headers


def test_auto_off_drops_a_change_of_identity() -> None:
    """Without save() the old cookie stays good, and it is nobody's session."""
    manager = SessionManager(MemoryStore(), Options(auto=False))
    browser = Visitor(manager, {**PAGES, "/save": lambda s: s.save()})
    browser.get("/save")
    cookie = browser.cookies["session"]
    assert "Set-Cookie" not in browser.get("/login").headers
    assert browser.get("/user").text == "None"
    assert browser.cookies["session"] == cookie


# -- outages and damage ------------------------------------------------------------------


class Broken:
    """A store whose named methods fail, as when its server is away."""

    def __init__(self, store: Any, *methods: str) -> None:
        for name in ("load", "save", "touch", "delete", "lock", "unlock"):
            setattr(self, name, self.fail if name in methods else getattr(store, name))

    def fail(self, *_: Any, **__: Any) -> Any:
        raise StoreError("the store is away") from ConnectionRefusedError()


@pytest.mark.parametrize(
    ("method", "broken"),
    [("GET", "load"), ("GET", "save"), ("POST", "lock"), ("POST", "save")],
)
def test_an_outage_is_a_503_and_no_logout(
    method: str, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P8: the client is asked to come again, and its cookie is not touched."""
    store = MemoryStore()
    browser = visit(store)
    browser.get("/write")
    away = visit(Broken(store, broken))
    away.cookiejar = browser.cookiejar
    answer = away.request("/write", method=method, expect_errors=True)
    assert answer.status_int == 503
    assert answer.headers["Retry-After"] == "1"
    assert "Set-Cookie" not in answer.headers
    assert "the store is away; answering 503" in caplog.text
    assert browser.get("/read").text == "1"


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
    assert "session store out of reach" in caplog.text
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
        lambda s: s.invalidate(),
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
    session = manager.open("A" * 43)
    assert session == {}
    with pytest.raises(StoreError, match="the store is away"):
        verb(session)
    assert session.commit() is None


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


def test_a_logout_that_meets_an_outage_is_tried_again() -> None:
    """An end is final even if the request fails."""
    store = MemoryStore()
    browser = visit(Flickering(store, "delete"))
    browser.get("/write")
    assert browser.get("/logout", status=503).headers["Retry-After"] == "1"
    assert list(store.records()) == []


@pytest.mark.parametrize("number", [1, 2])
def test_a_login_that_meets_an_outage_leaves_the_old_session(number: int) -> None:
    """Cut off before or between its two saves: the browser's cookie is still good."""
    store = MemoryStore()
    browser = visit(store)
    browser.get("/write")
    flickering = visit(Flickering(store, "save", number))
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


@pytest.mark.parametrize("data", [b"", b"{}\nnot json", b"\x80\x04pickle", b"{}\n[1]"])
def test_a_corrupt_record_is_logged_and_left_alone(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """P8: the visitor is anonymous, and whoever looks finds the bytes as they were."""
    from dataclasses import replace

    browser = visit(store := MemoryStore())
    browser.get("/write")
    (record,) = store.records()
    store.save(replace(record, data=data, version=2), expect=1)
    with caplog.at_level(logging.ERROR, "wsgisession"):
        assert browser.get("/read").text == "None"
        browser.post("/write")
    assert f"session {record.id[:8]} is corrupt and was left alone" in caplog.text
    left = store.load(Key(record.id))
    assert left is not None
    assert left.data == data
    assert len(list(store.records())) == 2
    assert browser.get("/read").text == "1"


def test_an_outage_in_the_middle_is_a_503() -> None:
    """P8: also where the lock cannot be freed any more."""
    store = MemoryStore()
    browser = visit(store)
    browser.get("/write")
    away = visit(Broken(store, "save", "unlock", "delete", "touch"))
    away.cookiejar = browser.cookiejar
    answer = away.post("/write", status=503)
    assert "Set-Cookie" not in answer.headers
