"""Requests of one session end as if run one after another, and an end is final.

Every interleaving here is made by hand: one request stands still inside its handler while
another runs from beginning to end.  The races that nobody arranged are in
``test_servers.py``, locks taken by hand and stores without locks in ``test_locks.py``.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from wsgisession import (
    MergeConflict,
    Options,
    Session,
    SessionConflict,
    SessionManager,
    SessionMiddleware,
    events,
    get_session,
)
from wsgisession._http.exchange import REPLAY_KEY
from wsgisession.record import Key, Record
from wsgisession.stores.memory import MemoryStore
from wsgisession.testing import BlindStore

from .between import Between, Lockless, Step, between, read, values, visitor
from .conftest import CountingStore, Visitor, Watch, reopened, stored
from .pages import increment, warned


@pytest.fixture
def manager(store: Any) -> SessionManager:
    return SessionManager(store)


class Holding:
    """A handler that looks at the session, and waits until it is told to go on."""

    def __init__(self, after: Step) -> None:
        self.after = after
        self.inside, self.go = threading.Event(), threading.Event()

    def __call__(self, session: Session) -> object:
        read(session)
        self.inside.set()
        self.go.wait(60)
        return self.after(session)


# -- P1: no lost update ------------------------------------------------------------------


def test_two_increments_by_get_are_both_kept(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: the one whose reading was overtaken is run once more, and counts on."""
    browser, slow = between(manager, "/increment")
    assert browser.get("/slow").text == "3"
    assert slow.runs == 2
    assert values(manager)["n"] == 3
    (line,) = warned(caplog)
    assert line == "this view ran twice: '/slow', because n changed"


def test_the_harness_sees_a_lost_update(store: Any) -> None:
    """The positive control: the same with a store that saves blindly loses one."""
    browser, _ = between(SessionManager(BlindStore(store)), "/increment")
    assert browser.get("/slow").text == "2"
    assert values(SessionManager(store))["n"] == 2


def test_different_keys_are_merged_without_a_second_run(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: what nobody read is put together, key by key, and nothing is reported."""
    browser, slow = between(manager, "/other")
    assert browser.get("/slow").text == "2"
    assert slow.runs == 1
    assert values(manager) == {"n": 2, "cart": [], "other": 7}
    assert warned(caplog) == []


def test_a_nested_change_that_was_overtaken_is_run_again(
    manager: SessionManager,
) -> None:
    """P1: two appends to one list are both in it."""
    browser, _ = between(
        manager, "/append", lambda s: s["cart"], lambda s: s["cart"].append("ours")
    )
    browser.get("/slow")
    assert values(manager)["cart"] == ["theirs", "ours"]


def test_a_decision_on_another_key_is_run_again(manager: SessionManager) -> None:
    """P1: no write skew, where each reads what the other writes."""

    def pay(session: Session) -> None:
        if session["n"] == 1:
            session["other"] = "paid with 1"

    browser, _ = between(manager, "/increment", read, pay)
    browser.get("/slow")
    assert values(manager)["other"] == 0


@pytest.mark.parametrize("count", [len, lambda s: len(set(s))])
def test_which_keys_there_are_counts_as_read(
    manager: SessionManager, count: Step
) -> None:
    """P1: a new key changes what len() or a loop has seen."""
    browser, _ = between(
        manager,
        "/new",
        count,
        lambda s: s.update(count=count(s)),
        new=lambda s: s.update(new=1),
    )
    browser.get("/slow")
    assert values(manager)["count"] == 4


def test_deletions_are_merged(manager: SessionManager) -> None:
    """A key that one request removed is not brought back by the save of another."""
    browser, _ = between(manager, "/remove", remove=lambda s: s.__delitem__("other"))
    browser.get("/slow")
    assert values(manager) == {"n": 2, "cart": []}


def test_clear_takes_the_keys_of_other_requests_as_well(
    manager: SessionManager,
) -> None:
    """It ends the session, whatever was written to it in between; what follows begins
    anew.
    """
    browser, _ = between(
        manager, "/new", read, lambda s: s.clear(), new=lambda s: s.update(new=1)
    )
    browser.get("/slow")
    assert list(manager.sessions()) == []
    browser, _ = between(
        manager,
        "/new",
        read,
        lambda s: (s.clear(), s.update(x=1)),
        new=lambda s: s.update(new=1),
    )
    browser.get("/slow")
    assert values(manager) == {"x": 1}


def test_a_readers_snapshot_is_never_written_back(manager: SessionManager) -> None:
    """A request that only reads loses nobody's change, however late it ends."""
    browser, slow = between(manager, "/increment", lambda s: s["cart"], read)
    assert browser.get("/slow").text == "1"
    assert slow.runs == 1
    assert values(manager)["n"] == 2


def test_posts_wait_for_each_other(manager: SessionManager) -> None:
    """P1: an unsafe request holds the lock from its first access to its save."""
    hold = Holding(increment)
    browser = visitor(manager, slow=hold)
    tab = browser.another()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(browser.post, "/slow")
        assert hold.inside.wait(60)
        second = pool.submit(tab.post, "/increment")
        time.sleep(0.1)
        assert not second.done()
        hold.go.set()
        assert (first.result(60).text, second.result(60).text) == ("2", "3")


def test_a_get_that_writes_beside_a_post_that_holds_the_lock(
    manager: SessionManager,
) -> None:
    """A live lease shuts out a writer that never asked for it: it comes after."""
    hold = Holding(increment)
    browser = visitor(manager, slow=hold)
    tab = browser.another()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(browser.post, "/slow")
        assert hold.inside.wait(60)
        second = pool.submit(tab.get, "/increment")
        time.sleep(0.1)
        assert not second.done()
        hold.go.set()
        assert (first.result(60).text, second.result(60).text) == ("2", "3")
    assert values(manager)["n"] == 3


def test_readers_do_not_wait_for_a_lock(manager: SessionManager) -> None:
    """P4: a GET is answered while a POST holds the session."""
    hold = Holding(lambda s: None)
    browser = visitor(manager, slow=hold)
    tab = browser.another()
    with ThreadPoolExecutor(1) as pool:
        post = pool.submit(browser.post, "/slow")
        assert hold.inside.wait(60)
        assert tab.get("/n").text == "1"
        assert not post.done()
        hold.go.set()
        post.result(60)


def test_a_holder_that_overran_its_lease_overwrites_nobody(store: Any) -> None:
    """P11: its save is a conflict like any other."""
    options = Options(lock_lease=0.2, on_conflict="raise")
    manager = SessionManager(store, options)
    browser, slow = between(manager, "/increment", method="POST")
    other = slow.other
    slow.other = lambda: (time.sleep(0.3), other())
    with pytest.raises(SessionConflict):
        browser.post("/slow")
    assert values(manager)["n"] == 2


def test_a_conflict_needs_no_patience(store: Any) -> None:
    """With lock_wait=0 a merge goes through where nobody holds the lock."""
    manager = SessionManager(store, Options(lock_wait=0))
    browser, _ = between(manager, "/other")
    assert browser.get("/slow").text == "2"
    assert values(manager) == {"n": 2, "cart": [], "other": 7}


def test_a_new_session_that_is_saved_twice_takes_another_id(store: Any) -> None:
    """Where a driver repeats a save whose reply was lost, its own is in the way."""

    class Repeating(CountingStore):
        """Does the first save twice."""

        def __init__(self) -> None:
            super().__init__(store)
            self.save = self.save_twice

        def save_twice(self, record: Record, *, expect: int) -> object:
            self.calls.append("save")
            assert len(self.calls) <= 2, "the same id is tried for ever"
            if len(self.calls) == 1:
                store.save(record, expect=expect)
            return store.save(record, expect=expect)

    manager = SessionManager(Repeating())
    session = manager.create()
    session["n"] = 1
    session.save()
    assert reopened(manager, session) == {"n": 1}


# -- who is run again, and how -----------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "runs"),
    [
        ({"CONTENT_LENGTH": ""}, 2),
        ({"CONTENT_LENGTH": "0"}, 2),
        ({"HTTP_SEC_FETCH_SITE": "same-origin"}, 2),
        ({"HTTP_SEC_FETCH_SITE": "cross-site"}, 1),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 1),
    ],
    ids=str,
)
def test_which_get_is_run_again(environ: dict[str, str], runs: int) -> None:
    """One without a body, which a page of this site asked for."""
    browser, slow = between(SessionManager(MemoryStore()), "/increment")
    browser.get("/slow", extra_environ=environ)
    assert slow.runs == runs


def test_a_request_with_a_body_is_not_run_again(manager: SessionManager) -> None:
    """Its input has been read: it is decided, not repeated."""
    browser, slow = between(manager, "/increment")
    browser.request("/slow", method="GET", body=b"x")
    assert slow.runs == 1


@pytest.mark.parametrize(
    ("method", "runs"),
    [("GET", 2), ("HEAD", 2), ("OPTIONS", 2), ("TRACE", 2)]
    + [("POST", 1), ("PUT", 1), ("DELETE", 1), ("PATCH", 1)],
)
def test_only_a_safe_method_is_run_again(
    store: Any, caplog: pytest.LogCaptureFixture, method: str, runs: int
) -> None:
    """RFC 9110 9.2.1; what the others did may not be done twice."""
    manager = SessionManager(store, Options(locking="never"))
    browser, slow = between(manager, "/increment")
    browser.request("/slow", method=method)
    assert slow.runs == runs
    assert values(manager)["n"] == 1 + runs
    assert ("another request changed n" in caplog.text) is (runs == 1)


def test_a_handler_can_decline_to_be_run_again(manager: SessionManager) -> None:
    """``session.no_replay()``, for a GET that speaks to the outside world."""
    browser, slow = between(
        manager, "/increment", lambda s: (s.no_replay(), read(s)), increment
    )
    browser.get("/slow")
    assert slow.runs == 1


def test_a_second_run_is_announced(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The hook and one line of the log are told the path and the keys.

    It is a warning at the first time for a path; later it is for those who look closer.
    """
    told = Watch(events.Replayed)
    caplog.set_level(logging.DEBUG, "wsgisession")
    manager = SessionManager(store, Options(on_event=told))
    browser, slow = between(manager, "/increment")
    for _ in range(2):
        slow.runs = 0
        browser.get("/slow")
    assert [(each.path, each.keys) for each in told.seen] == [("/slow", ("n",))] * 2
    levels = [r.levelno for r in caplog.records if "this view ran twice" in r.msg]
    assert levels == [logging.WARNING, logging.DEBUG]


def test_a_hook_that_fails_keeps_no_request_from_its_second_run(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is run again all the same, and the log has the error."""

    def broken(*_: object) -> None:
        raise RuntimeError("hook")

    manager = SessionManager(store, Options(on_event=broken))
    browser, _ = between(manager, "/increment")
    assert browser.get("/slow").text == "3"
    assert "the hook on_event failed at Replayed" in caplog.text


def test_a_second_run_does_not_wait_for_the_first(store: Any) -> None:
    """A lock that the first run has taken is free for the second."""
    manager = SessionManager(store, Options(lock_wait=0))
    found: list[Any] = []

    def take(session: Session) -> object:
        session.lock()
        return session.update(n=found[-1] + 1)

    browser, slow = between(manager, "/increment", lambda s: found.append(s["n"]), take)
    browser.get("/slow")
    assert slow.runs == 2
    assert values(manager)["n"] == 3


def test_a_second_run_holds_the_lock(store: Any) -> None:
    """Nobody else can save in between, and so there is no third."""
    manager = SessionManager(store, Options(lock_wait=0))
    locked: list[bool] = []
    statuses: list[int] = []

    def enter(session: Session) -> None:
        read(session)
        locked.append(session.locked)
        if session.locked:
            answer = browser.another().post("/increment", status=503)
            statuses.append(answer.status_int)

    browser, slow = between(manager, "/increment", enter)
    assert browser.get("/slow").text == "3"
    assert (slow.runs, locked, statuses) == (2, [False, True], [503])


def test_pitfall_a_second_run_that_fails_is_not_run_again(store: Any) -> None:
    """Its error is the request's, also in the middle of its body."""
    manager = SessionManager(store)
    token = str(manager.token_of(stored(manager, n=1)))
    runs: list[bool] = []

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        runs.append(REPLAY_KEY in environ)
        assert len(runs) < 4, "it is run for ever"
        increment(get_session(environ))
        if len(runs) == 1:
            other = manager.open(token)
            other["n"] = 5
            other.save()
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"the first half"
        raise ZeroDivisionError

    environ: dict[str, Any] = {"HTTP_COOKIE": f"sid={token}", "HTTP_HOST": "localhost"}
    setup_testing_defaults(environ)
    sent: list[str] = []
    body = SessionMiddleware(application, manager=manager)(
        environ, lambda status, *_: sent.append(status)
    )
    with pytest.raises(ZeroDivisionError):
        sent += [chunk.decode() for chunk in body]
    body.close()  # type: ignore[attr-defined]
    assert runs == [False, True]
    assert sent == ["200 OK"]
    assert manager.open(token)["n"] == 6, "what was sent was saved before"


def test_a_save_by_hand_that_was_overtaken_is_run_again(store: Any) -> None:
    """P1: with auto=False too, where the end of the request drops all but that."""

    def save(session: Session) -> object:
        increment(session)
        session.save()
        return session["n"]

    manager = SessionManager(store, Options(auto=False))
    slow = Between(lambda s: s.get("n"), save)
    browser = Visitor(manager, {"/save": save, "/slow": slow})
    browser.get("/save")
    slow.other = lambda: browser.another().get("/save")
    assert browser.get("/slow").text == "3"
    assert values(manager)["n"] == 3


# -- what cannot be run again ------------------------------------------------------------


def test_a_loss_is_never_silent(store: Any, caplog: pytest.LogCaptureFixture) -> None:
    """P1: where ours win, a warning names the keys."""
    manager = SessionManager(store, Options(replay=False))
    browser, _ = between(manager, "/increment")
    assert browser.get("/slow").text == "2"
    assert values(manager)["n"] == 2
    (line,) = warned(caplog)
    assert "another request changed n, which this request had read" in line


def test_a_conflict_can_be_raised(store: Any) -> None:
    """on_conflict="raise": an error that names the keys, and nothing is written."""
    manager = SessionManager(store, Options(replay=False, on_conflict="raise"))
    browser, _ = between(manager, "/increment")
    with pytest.raises(SessionConflict) as caught:
        browser.get("/slow")
    assert caught.value.keys == ("n",)
    assert values(manager)["n"] == 2
    assert browser.post("/increment").text == "3"


def test_a_conflict_can_be_decided(store: Any) -> None:
    """on_conflict=callable: it is given three versions, and returns the fourth."""
    seen: list[MergeConflict] = []

    def add(conflict: MergeConflict) -> dict[str, Any]:
        seen.append(conflict)
        more = conflict.ours["n"] - conflict.base["n"]
        return {**conflict.theirs, "n": conflict.theirs["n"] + more}

    manager = SessionManager(store, Options(replay=False, on_conflict=add))
    browser, _ = between(manager, "/increment")
    browser.get("/slow")
    assert values(manager)["n"] == 3
    (conflict,) = seen
    assert conflict.keys == {"n"}
    found = (conflict.base["n"], conflict.ours["n"], conflict.theirs["n"])
    assert found == (1, 2, 2)


# -- P2: no resurrection -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "end"),
    [
        ("GET", "/logout"),
        ("GET", "/regenerate"),
        ("GET", "/login"),
        # Another change of identity would wait for the lock that a POST holds.
        ("POST", "/logout"),
    ],
)
def test_a_save_never_revives_what_has_ended(
    manager: SessionManager, end: str, method: str
) -> None:
    """P2: what a request in flight wrote is dropped, and it sets no cookie."""
    tabs: list[Visitor] = []
    browser, slow = between(manager, end)

    def finish() -> None:
        tabs.append(browser.another())
        tabs[0].get(end)

    slow.other = finish
    answer = browser.request("/slow", method=method)
    assert answer.text == "2"
    assert "Set-Cookie" not in answer.headers
    if end == "/logout":
        assert list(manager.sessions()) == []
    else:
        assert values(manager)["n"] == 1
        assert tabs[0].get("/n").text == "1"


def test_an_end_wins_over_a_lock(manager: SessionManager) -> None:
    """P2: a logout is not held up by a request that holds the session."""
    browser, _ = between(manager, "/logout", method="POST")
    began = time.monotonic()
    browser.post("/slow")
    assert time.monotonic() - began < 15  # of a lease of 30
    assert list(manager.sessions()) == []


def test_a_late_end_goes_to_hook_and_log_not_to_the_client(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """P2: that changes were dropped is told to those who watch."""
    told = Watch(events.Dropped)
    caplog.set_level(logging.INFO, "wsgisession")
    manager = SessionManager(store, Options(on_event=told))
    browser, _ = between(manager, "/logout")
    assert browser.get("/slow").status_int == 200
    assert len(told.seen) == 1
    assert "ended while a request was using it" in caplog.text


def test_a_hook_that_fails_disturbs_nobody(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer stands, the session stays ended, and the log has the error."""

    def broken(_: object) -> None:
        raise RuntimeError("hook")

    manager = SessionManager(store, Options(on_event=broken))
    browser, _ = between(manager, "/logout")
    assert browser.get("/slow").status_int == 200
    assert list(manager.sessions()) == []
    assert "the hook on_event failed at Dropped" in caplog.text


def test_a_touch_never_revives_a_logout(store: Any) -> None:
    """P2: neither does a reader whose clock was late."""
    manager = SessionManager(store, Options(touch_interval=0))
    browser, _ = between(manager, "/logout", read, read)
    browser.get("/slow")
    assert list(manager.sessions()) == []


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_save_through_a_rotation_reaches_the_session(
    store: Any, locks: bool, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that began before a rotation writes to the same session after it."""
    options = Options(locking="auto" if method == "GET" else "never")
    manager = SessionManager(store if locks else Lockless(store), options)
    browser, _ = between(manager, "/rotate")
    answer = browser.request("/slow", method=method)
    assert "Set-Cookie" not in answer.headers
    assert values(SessionManager(store))["n"] == 2
    assert caplog.records == []


@pytest.mark.parametrize("page", ["/regenerate", "/rotate"])
def test_a_new_token_for_what_has_ended_leaves_nothing(store: Any, page: str) -> None:
    """P2: ended just before its save, nothing is stored, and no cookie is set."""

    class EndsBefore(CountingStore):
        """Forgets the record just before it would be saved under a new token."""

        armed = False

        def __init__(self) -> None:
            super().__init__(store)
            self.save = self.end_and_save

        def end_and_save(self, record: Record, *, expect: int) -> object:
            if self.armed:
                store.delete(Key(record.id))
            return store.save(record, expect=expect)

    before = EndsBefore()
    browser = visitor(SessionManager(before))
    before.armed = True
    answer = browser.post(page)
    assert "Set-Cookie" not in answer.headers
    assert list(store.records()) == []


def test_two_logins_at_once_both_end_well(manager: SessionManager) -> None:
    """The second click turns the session of the first, and both cookies lead there."""
    tabs: list[Visitor] = []
    browser, slow = between(
        manager, "/login", lambda s: s.get("n"), lambda s: s.login("ann")
    )

    def log_in() -> None:
        tabs.append(browser.another())
        tabs[0].get("/login")

    slow.other = log_in
    answer = browser.get("/slow")
    assert "Set-Cookie" in answer.headers
    (session,) = manager.sessions_of("ann")
    assert session["n"] == 1
    assert tabs[0].get("/n").text == browser.get("/n").text == "1"
