"""Logins and logouts: no token from before is good, and no click is lost.

Each test is a browser, or several, in front of whole requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wsgisession import Options, Session, SessionEnded, SessionManager, events
from wsgisession.stores.memory import MemoryStore

from .between import between, values
from .conftest import Clock, CountingStore, Watch
from .orders import SteppedStore, in_every_order
from .pages import DAY, GRACE, ids, set_cookies, shop, warned

WINDOW_UNSEEN = 10.0
WINDOW_SEEN = 60.0
CROSS_SITE = {"HTTP_SEC_FETCH_SITE": "cross-site"}


# -- login -------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["ann", "regenerate"])
def test_no_older_token_is_good_after_a_change_of_privilege(
    clock: Clock, page: str
) -> None:
    """OWASP ASVS 7.2.4: now or later, whatever is rotated after it."""
    site = shop(clock=clock)
    first = site.begun("fill")
    second = site.begun("rotate", first)
    third = site.begun(page, second)
    fourth = site.begun("rotate", third)
    for seconds in (0, 5, 30, GRACE, DAY):
        clock.pass_by(seconds)
        assert site.get("cart", first).body == site.get("cart", second).body == "None"
        assert site.get("cart", third).body == "['book']"
    assert site.get("cart", fourth).body == "['book']"


def test_login_begins_both_clocks_anew(clock: Clock) -> None:
    """NIST SP 800-63B-4 5.2: the session lives a full time from here."""
    site = shop(clock=clock)
    cookie = site.begun("fill")
    clock.pass_by(10 * DAY)
    answer = site.post("ann", cookie)
    assert f"Max-Age={30 * 86400}" in set_cookies(answer)[0]
    session = site.manager.open(str(answer.cookie))
    assert session.created == session.last_accessed
    assert session.created.timestamp() == pytest.approx(clock())


def test_a_login_of_another_user_keeps_the_id_and_no_value() -> None:
    """What was one user's is never handed to another, and it is one save."""
    store = CountingStore(MemoryStore())
    site = shop(store)
    ann = site.begun("ann", site.begun("fill"))
    (id,) = ids(site)
    store.calls.clear()
    bob = site.begun("bob", ann)
    assert store.calls == ["lock", "save"]
    assert (site.get("user", bob).body, site.get("cart", bob).body) == ("bob", "None")
    assert site.get("user", ann).body == "None"
    assert ids(site) == [id]
    assert list(site.manager.sessions_of("ann")) == []


@pytest.mark.parametrize("dropped", ["first", "second"])
def test_two_clicks_on_log_in(clock: Clock, dropped: str) -> None:
    """The browser drops an answer and its cookie; the second click has the old token.

    The user is logged in with whichever answer came through, and keeps the cart.
    """
    site = shop(clock=clock)
    cookie = site.begun("fill")
    first = site.begun("ann", cookie)
    clock.pass_by(0.3)
    second = site.begun("ann", cookie)
    assert len({cookie, first, second}) == 3
    held = second if dropped == "first" else first
    assert (site.get("user", held).body, site.get("cart", held).body) == (
        "ann",
        "['book']",
    )
    assert site.get("user", cookie).body == "None", "the one before the login is over"
    assert len(ids(site)) == 1


def test_the_first_answer_of_two_clicks_is_good_until_the_second_was_seen(
    clock: Clock,
) -> None:
    """And for the grace of a rotation after that, for requests under way."""
    site = shop(clock=clock)
    cookie = site.begun("fill")
    first, second = site.begun("ann", cookie), site.begun("ann", cookie)
    clock.pass_by(GRACE * 2)
    assert site.get("user", first).body == "ann", "nobody has seen the second"
    assert site.get("user", second).body == "ann"
    clock.pass_by(GRACE - 1)
    assert site.get("user", first).body == "ann"
    clock.pass_by(2)
    assert site.get("user", first).body == "None"
    assert site.get("user", second).body == "ann"


def test_pitfall_log_in_is_never_refused_for_long(clock: Clock) -> None:
    """A 60 s rule refused eleven tries in Chromium: from any moment a click helps.

    Also a form by GET, whose page is asked for with the old token before.
    """
    for seconds in (0, 1, 9, 11, 59, 61, 1000):
        site = shop(clock=clock)
        cookie = site.begun("fill")
        site.begun("ann", cookie)  # dropped by the browser
        clock.pass_by(seconds)
        held = site.get("cart", cookie).cookie or cookie
        held = site.begun("ann", held)
        assert site.get("user", held).body == "ann"


def test_two_clicks_in_every_order_of_their_store_calls() -> None:
    """Both answers are good for the user, whichever the browser keeps."""
    store = SteppedStore(MemoryStore())
    site = shop(store)

    def prepare() -> Any:
        cookie = site.begun("fill")
        sent: list[str] = []

        def click() -> None:
            sent.append(site.begun("ann", cookie))

        def check() -> None:
            assert len(set(sent)) == 2
            for each in sent:
                session = site.manager.open(each)
                assert (session.user, session["cart"]) == ("ann", ["book"])
            assert site.manager.open(cookie).user is None

        return [click, click], check

    assert in_every_order(store, prepare) > 1


def test_two_users_at_once_from_one_anonymous_session_both_live(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In every order: the second gets a session of its own, and a WARNING tells it."""
    store = SteppedStore(MemoryStore())
    site = shop(store)

    def prepare() -> Any:
        cookie = site.begun("fill")
        sent: dict[str, str] = {}

        def log_in(user: str) -> Any:
            def work() -> None:
                sent[user] = site.begun(user, cookie)

            return work

        def check() -> None:
            opened = {user: site.manager.open(each) for user, each in sent.items()}
            assert {user: each.user for user, each in opened.items()} == {
                "ann": "ann",
                "bob": "bob",
            }
            assert opened["ann"].id != opened["bob"].id
            carts = [each.get("cart") for each in opened.values()]
            assert sorted(carts, key=str) == [None, ["book"]], "it is one user's"
            (warning,) = warned(caplog)
            assert "the login begins a new session" in warning
            caplog.clear()

        return [log_in("ann"), log_in("bob")], check

    assert in_every_order(store, prepare) > 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_login_in_a_session_that_was_ended_begins_a_new_one(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A proven login is never dropped; what this request wrote is in it, no more."""
    site = shop()

    def slow(session: Session) -> None:
        session.get("cart")
        site.manager.end(session.id)
        session["back"] = "/checkout"
        session.login("ann")

    site.handlers["slow"] = slow
    cookie = site.begun("fill")
    (id,) = ids(site)
    answer = site.ask(method, "slow", cookie)
    (warning,) = warned(caplog)
    assert f"session {id} had ended when 'ann' logged in" in warning
    session = site.manager.open(str(answer.cookie))
    assert (session.user, session.copy()) == ("ann", {"back": "/checkout"})
    assert session.id != id
    assert site.manager.get(id) is None


# -- fixation ----------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["ann", "tutorial"])
def test_a_planted_cookie_is_not_logged_in(clock: Clock, page: str) -> None:
    """Neither by ``login()`` nor by Flask's tutorial, at any time afterwards.

    The id stays, so that the planted token is known to be over, and it costs one save.
    """
    store = CountingStore(MemoryStore())
    site = shop(store, clock)
    planted = site.begun("fill")
    (id,) = ids(site)
    store.calls.clear()
    victim = site.begun(page, planted)
    assert store.calls.count("save") == 1
    assert "delete" not in store.calls
    assert ids(site) == [id]
    for seconds in (0, 5, 30, 1000):
        clock.pass_by(seconds)
        spy = site.get("user_id" if page == "tutorial" else "user", planted)
        assert (spy.body, spy.cookie) == ("None", None)
    assert site.get("user_id" if page == "tutorial" else "user", victim).body != "None"
    assert (site.get("cart", victim).body == "None") is (page == "tutorial")


def test_pitfall_a_planted_cookie_has_no_power_over_the_session(clock: Clock) -> None:
    """It takes no lease, and after the window it cannot end the session either."""
    site = shop(clock=clock)
    planted = site.begun("fill")
    victim = site.begun("ann", planted)
    spy = site.manager.open(planted, locking=True)
    assert spy == {}
    assert not spy.locked
    assert site.post("increment", victim).body == "1", "nobody holds the lock"
    clock.pass_by(WINDOW_SEEN + 1)
    site.post("logout", planted)
    site.post("tutorial", planted)
    assert site.get("user", victim).body == "ann"


@pytest.mark.parametrize("page", ["logout", "clear"])
@pytest.mark.parametrize("token", ["current", "previous", "ended"])
def test_a_logout_is_meant(clock: Clock, token: str, page: str) -> None:
    """With the token that is good, one of a rotation, one of a login just now.

    Nothing is left, the cookie goes, and no token of the session leads anywhere.
    """
    site = shop(clock=clock)
    held = [site.begun("ann", site.begun("fill"))]
    if token != "current":
        held.append(site.begun("rotate" if token == "previous" else "ann", held[0]))
    answer = site.post(page, held[0])
    assert answer.cookie == ""
    assert "Max-Age=0" in set_cookies(answer)[0]
    assert ids(site) == []
    for each in held:
        assert site.get("user", each).body == "None"


def test_an_end_waits_for_nobody() -> None:
    """By whatever name, also as the first access of a POST beside a slow one."""
    for verb in ("flush", "logout", "clear"):
        site = shop(lock_wait=0)

        def end(session: Session, verb: str = verb) -> None:
            getattr(session, verb)()

        site.handlers["end"] = end
        cookie = site.begun("fill")
        holder = site.manager.open(cookie)
        holder.lock()
        assert site.post("end", cookie).status == "200 OK"
        assert ids(site) == []
        holder["n"] = 1
        with pytest.raises(SessionEnded):
            holder.save()
        assert ids(site) == []


def test_a_flush_and_a_write_under_a_foreign_lease_begin_under_a_new_id() -> None:
    """The old session ends at once, and what was written after the end is kept."""
    site = shop(lock_wait=0)
    cookie = site.begun("fill")
    (id,) = ids(site)
    holder = site.manager.open(cookie)
    holder.lock()
    begun = site.begun("tutorial", cookie)
    session = site.manager.open(begun)
    assert session.copy() == {"user_id": 1}
    assert session.id != id
    holder["n"] = 1
    with pytest.raises(SessionEnded):
        holder.save()
    assert ids(site) == [session.id]
    assert site.get("cart", cookie).body == "None"


@pytest.mark.parametrize("page", ["increment", "ann", "rotate", "tutorial"])
def test_a_flush_and_a_write_lose_nothing_beside_another_tab(page: str) -> None:
    """In every order of the store calls, whatever the other tab does."""
    store = SteppedStore(MemoryStore())
    site = shop(store)

    def prepare() -> Any:
        cookie = site.begun("fill")
        sent: list[str] = []

        def flush() -> None:
            sent.append(site.begun("tutorial", cookie))

        def other_tab() -> None:
            answer = site.post(page, cookie)
            if page == "tutorial":
                sent.append(str(answer.cookie))

        def check() -> None:
            found = [site.manager.open(each).copy() for each in sent]
            assert {"user_id": 1} in found
            left = [each.copy() for each in site.manager.sessions()]
            assert not any("cart" in each for each in left)
            for id in ids(site):
                site.manager.end(id)

        return [flush, other_tab], check

    assert in_every_order(store, prepare) > 1


# -- requests under way ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("page", ["cart", "increment"])
def test_pitfall_a_request_under_way_does_not_undo_a_login(
    clock: Clock, method: str, page: str
) -> None:
    """Express #923, warden #14: within the window it reads nothing and gets no cookie.

    The window is 10 s while the new token was not seen, and 60 s from then on; after it
    the visitor may begin anew.
    """
    for is_seen, window in ((False, WINDOW_UNSEEN), (True, WINDOW_SEEN)):
        site = shop(clock=clock)
        old = site.begun("fill")
        new = site.begun("ann", old)
        if is_seen:
            assert site.get("user", new).body == "ann"
        clock.pass_by(window - 0.1)
        answer = site.ask(method, page, old)
        assert answer.body in ("None", "1")
        assert answer.cookie is None
        clock.pass_by(0.2)
        answer = site.ask(method, page, old)
        assert (answer.cookie is not None) is (page == "increment")
        assert site.get("user", new).body == "ann"
        assert site.get("read", new).body == "None"


@pytest.mark.parametrize("seconds", [0, 30, DAY])
def test_what_was_loaded_before_a_login_is_judged_at_its_save(
    clock: Clock, seconds: float
) -> None:
    """However late that is: nothing is written, and ``save()`` says so."""
    told = Watch(events.Dropped)
    site = shop(clock=clock, on_event=told)
    cookie = site.begun("fill")
    slow = site.manager.open(cookie)
    assert slow["cart"] == ["book"]
    new = site.begun("ann", cookie)
    clock.pass_by(seconds)
    slow["stolen"] = True
    assert not slow.ended
    with pytest.raises(SessionEnded):
        slow.save()
    assert slow.ended
    assert told.ids == ids(site)
    assert site.manager.open(new).copy() == {"cart": ["book"]}


def test_what_was_loaded_before_a_rotation_goes_on() -> None:
    """Its change is stored, and it is sent no token: the new one is not its own."""
    site = shop()

    def slow(session: Session) -> None:
        session["slow"] = True
        rotated.append(site.begun("rotate", cookie))

    rotated: list[str] = []
    site.handlers["slow"] = slow
    cookie = site.begun("fill")
    answer = site.get("slow", cookie)
    assert (answer.status, answer.cookie) == ("200 OK", None)
    assert site.manager.open(rotated[0]).copy() == {"cart": ["book"], "slow": True}


def test_pitfall_a_confirmation_is_not_unset_by_a_slower_save(clock: Clock) -> None:
    """That the new token was seen is never forgotten by another request's save."""
    site = shop(clock=clock)
    old = site.begun("fill")
    slow = site.manager.open(old)
    assert slow["cart"] == ["book"]
    new = site.begun("rotate", old)
    assert site.get("cart", new).body == "['book']"
    slow["slow"] = True
    slow.save()
    clock.pass_by(GRACE + 1)
    assert site.get("cart", old).body == "None"
    assert site.manager.open(new)["slow"] is True


# -- posts from another site -------------------------------------------------------------


@pytest.mark.parametrize("samesite", ["Lax", "Strict"])
def test_a_post_from_another_site_starts_no_session(
    samesite: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It comes without our cookie, and a new one would overwrite the browser's."""
    site = shop(cookie_samesite=samesite)
    for _ in range(2):
        answer = site.post("increment", **CROSS_SITE)
        assert (answer.body, answer.cookie) == ("1", None)
    assert ids(site) == []
    (warning,) = warned(caplog)
    assert "a post from another site to '/increment'" in warning
    site.post("fill", **CROSS_SITE)
    assert "'/fill'" in warned(caplog)[1], "once a path"
    site.post("read", **CROSS_SITE)
    assert len(warned(caplog)) == 2, "a look loses nothing"


@pytest.mark.parametrize(
    "begin",
    [
        lambda s: s.login("ann"),
        lambda s: (s.regenerate(), s.update(n=1)),
        lambda s: (s.clear(), s.update(n=1)),
        lambda s: (s.update(n=1), s.login("ann"), s.save()),
        lambda s: (s.update(n=1), s.regenerate(), s.save()),
    ],
    ids=["login", "regenerate", "clear", "login and save", "regenerate and save"],
)
def test_a_login_by_a_post_from_another_site_is_kept(
    begin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """SAML answers are such posts; it must reach the browser."""
    site = shop()
    site.handlers["begin"] = begin
    answer = site.post("begin", **CROSS_SITE)
    assert answer.cookie
    assert not site.manager.open(answer.cookie).new
    assert warned(caplog) == []


@pytest.mark.parametrize(
    ("options", "method", "headers"),
    [
        ({"cross_site_posts": True}, "POST", CROSS_SITE),
        ({"cookie_samesite": False}, "POST", CROSS_SITE),
        ({"cookie_samesite": "None", "cookie_secure": True}, "POST", CROSS_SITE),
        ({}, "GET", CROSS_SITE),
        ({}, "POST", {"HTTP_SEC_FETCH_SITE": "same-site"}),
        ({}, "POST", {"HTTP_SEC_FETCH_SITE": "none"}),
        ({}, "POST", {}),
    ],
    ids=str,
)
def test_any_other_request_may_start_a_session(
    options: Any, method: str, headers: dict[str, str]
) -> None:
    """And so may that post, where the option says so or the cookie would have come."""
    site = shop(**options)
    assert site.ask(method, "increment", None, **headers).cookie


def test_a_post_from_another_site_with_our_cookie_is_like_any(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A browser that sends the cookie all the same loses nothing."""
    site = shop()
    cookie = site.begun("fill")
    assert site.post("increment", cookie, **CROSS_SITE).body == "1"
    assert site.get("read", cookie).body == "1"
    assert site.post("increment", "A" * 64, **CROSS_SITE).cookie
    assert warned(caplog) == []


def test_two_logins_of_one_user_in_a_session_of_another_lose_nothing_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The values of the user before are gone for both, and each adds to the same list."""

    def take_over(session: Session) -> None:
        session.login("ann")

    def add(name: str) -> Callable[[Session], None]:
        return lambda session: session.update(cart=[*session.get("cart", []), name])

    manager = SessionManager(MemoryStore(), Options(locking="never"))
    browser, slow = between(
        manager,
        "/theirs",
        take_over,
        add("ours"),
        method="POST",
        bob=lambda session: session.login("bob"),
        theirs=lambda session: (take_over(session), add("theirs")(session)),
    )
    browser.post("/bob")
    browser.post("/slow")
    assert slow.runs == 1
    assert values(manager) == {"cart": ["ours"]}
    (warning,) = warned(caplog)
    assert "another request changed cart" in warning
    assert "overwritten: cart" in warning
