"""The id of a session never changes; its token does, and no user notices.

Each test is a browser, or several, in front of whole requests; the rules for a single
secret are tested in ``core/test_standing``.
"""

from __future__ import annotations

import base64
import itertools
import logging
from collections.abc import Iterable
from typing import Any

import pytest

from wsgisession import (
    Options,
    Session,
    SessionManager,
    SessionMiddleware,
    StoreError,
    events,
    get_session,
)
from wsgisession.stores.memory import MemoryStore

from .conftest import Clock, CountingStore, Watch, reopened, stored
from .orders import SteppedStore, in_every_order
from .pages import (
    DAY,
    GRACE,
    PAGES,
    ids,
    increment,
    set_cookies,
    shop,
    tutorial,
    warned,
)
from .tabs import Site

# -- one id ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(n=2),
        lambda s: s.rotate(),
        lambda s: s.regenerate(),
        lambda s: s.login("ann"),
        lambda s: s.login("bob"),
        lambda s: (s.clear(), s.update(n=2)),
        lambda s: (s.logout(), s.login("bob")),
        lambda s: (s.rotate(), s.login("ann"), s.regenerate()),
    ],
    ids=["save", "rotate", "regenerate", "login", "another", "clear", "again", "all"],
)
def test_the_id_of_a_session_never_changes(change: Any) -> None:
    """Whatever is asked for: before the save, after it, and in the next request."""
    manager = SessionManager(MemoryStore())
    session = stored(manager, n=1)
    session.login("ann")
    session.save()
    id = session.id
    session = reopened(manager, session)
    change(session)
    assert session.id == id
    session.save()
    assert session.id == id == reopened(manager, session).id
    assert [each.id for each in manager.sessions()] == [id]


def test_the_token_is_told_by_the_manager_alone() -> None:
    """None before the first save, and where only the client knows it."""
    manager = SessionManager(MemoryStore())
    session = manager.create()
    session["n"] = 1
    assert manager.token_of(session) is None
    session.save()
    first = manager.token_of(session)
    assert first is not None
    assert (len(first), len(session.id)) == (64, 32)
    assert not hasattr(session, "token")
    session = manager.open(first)
    session.rotate()
    session.save()
    second = manager.token_of(session)
    assert second not in (None, first)
    behind = manager.open(first)
    assert behind["n"] == 1
    assert manager.token_of(behind) is None, "its successor is not known to it"
    by_id = manager.get(session.id)
    assert by_id is not None
    assert manager.token_of(by_id) is None
    assert manager.token_of(manager.open("A" * 64)) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.rotate(),
        lambda s: s.regenerate(),
        lambda s: s.login("ann"),
        lambda s: (s.login("ann", device="phone"), s.update(n=2), s.set_expiry(300)),
        tutorial,
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_change_of_the_token_is_one_save(change: Any, method: str) -> None:
    """There is no second record, and so nothing that could stay behind."""
    store = CountingStore(MemoryStore())
    site = shop(store)
    site.handlers["change"] = change
    cookie = site.begun("fill")
    store.calls.clear()
    answer = site.ask(method, "change", cookie)
    assert answer.cookie not in (None, "", cookie)
    assert store.calls[1:] == ["save"]
    assert store.calls[0] in ("load", "lock")
    assert len(ids(site)) == 1


def test_two_changes_in_one_request_are_one() -> None:
    """The stronger wish wins, in either order: no older token is good."""
    for verbs in itertools.permutations(["rotate", "regenerate"]):
        site = shop()
        cookie = site.begun("fill")

        def turn(session: Session, verbs: tuple[str, ...] = verbs) -> None:
            for verb in verbs:
                getattr(session, verb)()

        site.handlers["both"] = turn
        answer = site.post("both", cookie)
        assert site.get("cart", cookie).body == "None"
        assert site.get("cart", answer.cookie).body == "['book']"


def test_a_token_that_has_not_left_is_replaced() -> None:
    """It was saved and is nobody's: only the last one of a request is good."""
    manager = SessionManager(MemoryStore())
    session = stored(manager, n=1)
    first = manager.token_of(session)
    session.login("ann")
    session.save()
    unsent = manager.token_of(session)
    session.regenerate()
    session.save()
    sent = manager.token_of(session)
    assert None not in (first, unsent, sent)
    assert len({first, unsent, sent}) == 3
    assert manager.open(str(sent)).user == "ann"
    for old in (first, unsent):
        assert manager.open(str(old)).user is None


def test_a_rotation_of_a_token_that_has_not_left_is_none() -> None:
    """Nobody holds it yet, so there is nothing to renew."""
    manager = SessionManager(MemoryStore())
    session = stored(manager, n=1)
    first = manager.token_of(session)
    session.login("ann")
    session.save()
    unsent = manager.token_of(session)
    session.rotate()
    assert not session.modified
    session["n"] = 2
    session.save()
    assert manager.token_of(session) == unsent != first
    assert manager.open(str(unsent))["n"] == 2
    assert manager.open(str(first)).user is None


# -- rotation ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["asked for", "due"])
def test_a_lost_answer_to_a_rotation_logs_nobody_out(clock: Clock, how: str) -> None:
    """The client goes on with the token it has, and is rotated anew; ten times."""
    site = shop(clock=clock, rotate_every=1000 if how == "due" else None)
    cookie = site.begun("ann", site.begun("fill"))
    page = "user" if how == "due" else "rotate"
    for _ in range(10):
        clock.pass_by(1001)
        lost = site.get(page, cookie)
        assert lost.cookie not in (None, "", cookie)
        assert site.get("user", cookie).body == "ann"
        assert site.post("increment", cookie).status == "200 OK"
    clock.pass_by(1001)
    kept = (
        site.begun(page, cookie)
        if how == "asked for"
        else site.get(page, cookie).cookie
    )
    assert site.get("user", kept).body == "ann"
    assert site.get("read", kept).body == "10"
    assert len(ids(site)) == 1


def test_a_rotation_has_been_done_for_whom_it_was_done_lately(clock: Clock) -> None:
    """Requests under way with the old token rotate nothing, and are sent no cookie."""
    site = shop(clock=clock)
    cookie = site.begun("fill")
    clock.pass_by(1)
    site.begun("rotate", cookie)
    for seconds, is_sent in ((0, False), (GRACE - 1, False), (1, True)):
        clock.pass_by(seconds)
        assert (site.get("rotate", cookie).cookie is not None) is is_sent


def test_the_token_before_stays_good_for_a_grace(clock: Clock) -> None:
    """From the moment in which the new one was seen: to read and to write."""
    site = shop(clock=clock)
    old = site.begun("fill")
    new = site.begun("rotate", old)
    clock.pass_by(DAY)
    assert site.get("cart", old).body == "['book']"
    assert site.get("cart", new).body == "['book']"
    clock.pass_by(GRACE - 1)
    behind = site.post("increment", old)
    assert (behind.body, behind.cookie) == ("1", None)
    clock.pass_by(2)
    assert site.get("cart", old).body == "None"
    assert site.get("read", new).body == "1"


def test_a_copy_in_its_grace_cannot_rotate(clock: Clock) -> None:
    """Once the new token was seen, who holds the old one gets no other."""
    site = shop(clock=clock, rotate_every=400)
    old = site.begun("fill")
    new = site.begun("rotate", old)
    clock.pass_by(350)
    assert site.get("cart", new).body == "['book']"
    clock.pass_by(250)
    assert site.post("rotate", old).cookie is None
    assert site.get("cart", old).cookie is None
    assert site.get("cart", new).cookie not in (None, new), "it is due for the other"


def test_the_new_token_is_noted_once_and_best_effort() -> None:
    """The first request with it saves that; a reader is served where that fails."""
    behind = MemoryStore()
    store = CountingStore(behind)
    site = shop(store)
    new = site.begun("rotate", site.begun("fill"))

    class Full(CountingStore):
        """Can be read, not written."""

        def __init__(self) -> None:
            super().__init__(behind)
            self.save = self.fail

        def fail(self, *_: Any, **__: Any) -> Any:
            raise StoreError("no room")

    assert shop(Full()).get("cart", new).body == "['book']"
    for calls in (["load", "save"], ["load"], ["load"]):
        store.calls.clear()
        answer = site.get("cart", new)
        assert (answer.body, answer.cookie) == ("['book']", None)
        assert store.calls == calls
    other = site.begun("fill")
    store.calls.clear()
    site.get("cart", other)
    assert store.calls == ["load"], "there is no older token that would have to end"


def test_a_rotation_is_due_to_the_second(clock: Clock) -> None:
    """Not before ``rotate_every``, and then at once, by a reader or with a change."""
    clock.now = float(int(clock.now))
    for page, method in (("cart", "GET"), ("increment", "POST")):
        site = shop(clock=clock, rotate_every=3600)
        cookie = site.begun("fill")
        clock.pass_by(3599)
        assert site.ask(method, page, cookie).cookie is None
        clock.pass_by(1)
        rotated = site.ask(method, page, cookie).cookie
        assert rotated not in (None, "", cookie)
        assert site.get("cart", rotated).body == "['book']"


def test_two_that_are_due_at_once_rotate_once(clock: Clock) -> None:
    """In every order: one cookie at most is sent, and either tab's token is good."""
    store = SteppedStore(MemoryStore())
    site = shop(store, clock, rotate_every=3600)

    def prepare() -> Any:
        cookie = site.begun("fill")
        clock.pass_by(3600)
        sent: list[str | None] = []

        def read() -> None:
            sent.append(site.get("cart", cookie).cookie)

        def check() -> None:
            new = [each for each in sent if each is not None]
            assert len(new) == 1
            for each in (cookie, *new):
                assert site.manager.open(each)["cart"] == ["book"]

        return [read, read], check

    assert in_every_order(store, prepare) > 1


def test_pitfall_a_rotation_that_is_due_makes_nobody_wait(clock: Clock) -> None:
    """With the default ``lock_wait``: the next reader rotates."""
    store = CountingStore(MemoryStore())
    site = shop(store, clock, rotate_every=3600)
    cookie = site.begun("fill")
    holder = site.manager.open(cookie)
    holder.lock()
    clock.pass_by(3600)
    store.calls.clear()
    answer = site.get("cart", cookie)
    assert (answer.body, answer.cookie) == ("['book']", None)
    assert store.calls == ["load", "save"]
    holder.unlock()
    assert site.get("cart", cookie).cookie not in (None, cookie)


def test_pitfall_a_rotation_that_is_due_writes_over_nothing(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What was only read may have changed: no loss to report, nothing to run again."""
    site = shop(clock=clock, rotate_every=3600)
    cookie = site.begun("increment")

    def slow(session: Session) -> object:
        seen = session["n"]
        other = site.manager.open(cookie)
        other["n"] = 7
        other.save()
        return seen

    site.handlers["slow"] = slow
    clock.pass_by(3600)
    answer = site.get("slow", cookie)
    assert (answer.body, answer.cookie) == ("1", None)
    assert site.manager.open(cookie)["n"] == 7
    assert warned(caplog) == []


def test_pitfall_a_dropped_change_is_not_written_by_a_rotation(clock: Clock) -> None:
    """The values are dropped, and the rotation is done."""
    site = shop(clock=clock, rotate_every=3600)
    cookie = site.begun("increment")

    def think(session: Session) -> None:
        increment(session)
        session.modified = False

    site.handlers["think"] = think
    clock.pass_by(3600)
    answer = site.post("think", cookie)
    assert answer.cookie not in (None, cookie)
    assert site.get("read", answer.cookie).body == "1"


# -- a copy that was kept ----------------------------------------------------------------


def reused(site: Site, clock: Clock) -> tuple[str, str]:
    """A token that was replaced long ago, and the one that its browser holds."""
    old = site.begun("fill")
    new = site.begun("rotate", old)
    assert site.get("cart", new).body == "['book']"
    clock.pass_by(GRACE + 1)
    return old, new


@pytest.mark.parametrize(
    ("method", "page"),
    [("GET", "cart"), ("POST", "cart"), ("POST", "increment"), ("POST", "logout")],
)
def test_a_replaced_token_after_its_time_is_told(
    clock: Clock, caplog: pytest.LogCaptureFixture, method: str, page: str
) -> None:
    """RFC 9700 4.14.2: one WARNING a presentation, with the id, and the hook."""
    told = Watch(events.TokenReused)
    site = shop(clock=clock, on_event=told)
    old, new = reused(site, clock)
    (id,) = ids(site)
    for count in (1, 2):
        caplog.clear()
        site.ask(method, page, old)
        (warning,) = warned(caplog)
        assert warning.startswith(
            f"session {id}: a token was presented that a rotation"
        )
        assert old not in warning
        assert told.ids == [id] * count
    assert site.get("cart", new).body == "['book']", "the session lives on"
    assert told.ids == [id] * 2


def test_a_replaced_token_is_a_visitors(clock: Clock) -> None:
    """It reads nothing of the session, and may begin another."""
    site = shop(clock=clock)
    old, new = reused(site, clock)
    assert site.get("cart", old).cookie is None
    begun = site.post("increment", old)
    assert begun.body == "1"
    assert begun.cookie not in (None, "", old, new)
    assert site.manager.open(str(begun.cookie)).id != site.manager.open(new).id
    assert site.get("read", new).body == "None"


def test_the_hook_may_end_the_session(clock: Clock) -> None:
    """Then neither token is good, and the visitor with the copy sees nothing."""
    site = shop(clock=clock)

    def end(event: events.Event) -> None:
        if isinstance(event, events.TokenReused):
            site.manager.end(event.id)

    options = Options(on_event=end)
    hooked = Site(SessionManager(site.manager.store, options, clock=clock), **PAGES)
    old, new = reused(site, clock)
    assert hooked.get("cart", old).body == "None"
    assert hooked.get("cart", new).body == "None"
    assert ids(site) == []


def test_a_hook_that_fails_disturbs_nobody(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the page is answered."""

    def fail(event: events.Event) -> None:
        raise RuntimeError("no mail today")

    site = shop(clock=clock, on_event=fail)
    old, _ = reused(site, clock)
    assert site.get("cart", old).status == "200 OK"
    assert "the hook on_event failed at TokenReused" in caplog.text


@pytest.mark.parametrize("seconds", [0, 30, 1000])
def test_who_knows_an_id_can_do_nothing(
    clock: Clock, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    """An invented secret neither reads, ends nor warns: the id is in every log."""
    told = Watch(events.TokenReused)
    site = shop(clock=clock, on_event=told)
    cookie = site.begun("ann", site.begun("fill"))
    octets = base64.urlsafe_b64decode(cookie)[:16] + b"\0" * 32
    forged = base64.urlsafe_b64encode(octets).decode()
    assert site.manager.recognised([forged])[0].id == ids(site)[0]
    clock.pass_by(seconds)
    with caplog.at_level(logging.DEBUG, "wsgisession"):
        assert site.get("user", forged).body == "None"
        site.post("logout", forged)
    assert told.seen == []
    assert warned(caplog) == []
    assert site.get("user", cookie).body == "ann"


# -- what is sent ------------------------------------------------------------------------


@pytest.mark.parametrize("absolute_timeout", [30 * DAY, None])
def test_a_reader_sends_no_cookie_ever(
    clock: Clock, absolute_timeout: float | None
) -> None:
    """Its answer may come after that of a login, and would put the old token back."""
    site = shop(clock=clock, absolute_timeout=absolute_timeout)
    old = site.begun("fill")
    new = site.begun("rotate", old)
    for day in range(29 if absolute_timeout else 400):
        clock.pass_by(DAY)
        for cookie in (old, new):
            answer = site.get("cart", cookie)
            assert answer.cookie is None, day
    assert answer.body == "['book']"


def test_without_an_absolute_end_the_cookie_lasts_400_days(clock: Clock) -> None:
    """The longest that browsers take; a save sends it again when half is over."""
    site = shop(clock=clock, absolute_timeout=None, idle_timeout=390 * DAY)
    answer = site.post("fill")
    assert f"Max-Age={400 * 86400}" in set_cookies(answer)[0]
    cookie = str(answer.cookie)
    clock.pass_by(199 * DAY)
    assert site.post("increment", cookie).cookie is None
    clock.pass_by(2 * DAY)
    assert site.get("cart", cookie).cookie is None
    answer = site.post("increment", cookie)
    assert answer.cookie == cookie
    assert f"Max-Age={400 * 86400}" in set_cookies(answer)[0]
    assert site.post("increment", cookie).cookie is None


def test_a_changed_expiry_sends_the_cookie_again(clock: Clock) -> None:
    """With the same token; not for who holds one that was replaced."""
    site = shop(clock=clock)
    old = site.begun("fill")
    assert site.post("expiry", old).cookie == old
    assert site.post("expiry", old).cookie is None, "it is not changed any more"
    site.begun("rotate", old)
    site.handlers["expiry"] = lambda s: s.set_expiry(700)
    assert site.post("expiry", old).cookie is None


class Failing:
    """An application that logs in, saves, and fails in its own way."""

    def __init__(self, manager: SessionManager) -> None:
        self.wrapped = SessionMiddleware(self, manager=manager)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = get_session(environ)
        session.login("ann")
        session.save()
        session["later"] = True
        if environ["PATH_INFO"] == "/503":
            raise StoreError("another store is away")
        start_response(f"{environ['PATH_INFO'][1:]} Sorry", [])
        return [b"sorry"]


@pytest.mark.parametrize("status", ["500", "503"])
def test_a_saved_token_leaves_with_whatever_answer_leaves(status: str) -> None:
    """The token before is over: without the new one the user would be logged out."""
    site = shop()
    cookie = site.begun("fill")
    site.application = Failing(site.manager).wrapped
    answer = site.post(status, cookie)
    assert answer.status.startswith(status)
    session = site.manager.open(str(answer.cookie))
    assert (session.user, session.copy()) == ("ann", {"cart": ["book"]})
