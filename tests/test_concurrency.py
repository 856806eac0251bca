"""Requests of one session end as if run one after another, and an end is final.

Every interleaving here is made by hand: one request stands still inside its handler while
another runs from beginning to end.  The races that nobody arranged are in
``test_servers.py``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from wsgisession import (
    ABSENT,
    Clash,
    ConfigurationError,
    LockTimeout,
    Options,
    Session,
    SessionConflict,
    SessionEnded,
    SessionManager,
)
from wsgisession.record import Key, Record
from wsgisession.testing import BlindStore

from .conftest import CountingStore, Visitor

Step = Callable[[Session], object]


@pytest.fixture
def manager(store: Any) -> SessionManager:
    return SessionManager(store)


class Meanwhile:
    """A handler that, at its first run, lets something else happen in the middle."""

    def __init__(self, before: Step, after: Step) -> None:
        self.before = before
        self.after = after
        self.other: Callable[[], object] = lambda: None
        self.runs = 0

    def __call__(self, session: Session) -> object:
        self.runs += 1
        self.before(session)
        if self.runs == 1:
            self.other()
        return self.after(session)


class Holding:
    """A handler that looks at the session, and waits until it is told to go on."""

    def __init__(self, after: Step) -> None:
        self.after = after
        self.inside, self.go = threading.Event(), threading.Event()

    def __call__(self, session: Session) -> object:
        session["n"]
        self.inside.set()
        self.go.wait(60)
        return self.after(session)


def increment(session: Session) -> object:
    session["n"] = session.get("n", 0) + 1
    return session["n"]


def visitor(manager: SessionManager, **handlers: Any) -> Visitor:
    """A visitor with a stored session of n=1 and an empty cart."""
    pages = {
        "/start": lambda s: s.update(n=1, cart=[], other=0),
        "/n": lambda s: s.get("n"),
        "/all": lambda s: s.copy(),
        "/increment": increment,
        "/other": lambda s: s.update(other=7),
        "/append": lambda s: s["cart"].append("theirs"),
        "/login": lambda s: s.login("ann"),
        "/regenerate": lambda s: s.regenerate(),
        "/rotate": lambda s: s.rotate(),
        "/logout": lambda s: s.flush(),
        **{f"/{name}": handler for name, handler in handlers.items()},
    }
    browser = Visitor(manager, pages)
    browser.get("/start")
    return browser


def values(manager: SessionManager) -> dict[str, Any]:
    """The values of the one session that is stored."""
    (session,) = manager.sessions()
    return session.copy()


# -- P1: no lost update ------------------------------------------------------------------


def test_two_increments_by_get_are_both_kept(manager: SessionManager) -> None:
    """P1: the one whose reading was overtaken is run once more, and counts on."""
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/increment")
    assert browser.get("/slow").text == "3"
    assert slow.runs == 2
    assert values(manager)["n"] == 3


def test_the_harness_sees_a_lost_update(store: Any) -> None:
    """The positive control: the same with a store that saves blindly loses one."""
    manager = SessionManager(BlindStore(store))
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/increment")
    assert browser.get("/slow").text == "2"
    assert [s["n"] for s in SessionManager(store).sessions()] == [2]


def test_different_keys_are_merged_without_a_second_run(
    manager: SessionManager,
) -> None:
    """P1: what nobody read is put together, key by key."""
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/other")
    assert browser.get("/slow").text == "2"
    assert slow.runs == 1
    assert values(manager) == {"n": 2, "cart": [], "other": 7}


def test_a_nested_change_that_was_overtaken_is_replayed(
    manager: SessionManager,
) -> None:
    """P1: two appends to one list are both in it."""
    slow = Meanwhile(lambda s: s["cart"], lambda s: s["cart"].append("ours"))
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/append")
    browser.get("/slow")
    assert values(manager)["cart"] == ["theirs", "ours"]


def test_a_decision_on_another_key_is_replayed(manager: SessionManager) -> None:
    """P1: no write skew, where each reads what the other writes."""

    def pay(session: Session) -> None:
        if session["n"] == 1:
            session["other"] = "paid with 1"

    slow = Meanwhile(lambda s: s["n"], pay)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/increment")
    browser.get("/slow")
    assert values(manager)["other"] == 0


@pytest.mark.parametrize("count", [len, lambda s: len(set(s))])
def test_which_keys_there_are_counts_as_read(
    manager: SessionManager, count: Step
) -> None:
    """P1: a new key changes what len() or a loop has seen."""
    slow = Meanwhile(count, lambda s: s.update(count=count(s)))
    browser = visitor(manager, slow=slow, new=lambda s: s.update(new=1))
    slow.other = lambda: browser.another().get("/new")
    browser.get("/slow")
    assert values(manager)["count"] == 4


def test_deletions_are_merged(manager: SessionManager) -> None:
    """A key that one request removed is not brought back by another's save."""
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow, remove=lambda s: s.__delitem__("other"))
    slow.other = lambda: browser.another().get("/remove")
    browser.get("/slow")
    assert values(manager) == {"n": 2, "cart": []}


def test_clear_takes_the_others_keys_as_well(manager: SessionManager) -> None:
    """Cleared after them, their keys are gone too."""
    slow = Meanwhile(lambda s: s.accessed or s.id, lambda s: s.clear())
    browser = visitor(manager, slow=slow, new=lambda s: s.update(new=1))
    slow.other = lambda: browser.another().get("/new")
    browser.get("/slow")
    assert values(manager) == {}


def test_a_readers_snapshot_is_never_written_back(manager: SessionManager) -> None:
    """A request that only reads loses nobody's change, however late it ends."""
    slow = Meanwhile(lambda s: s["cart"], lambda s: s["n"])
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/increment")
    assert browser.get("/slow").text == "1"
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


# -- what cannot be replayed -------------------------------------------------------------


def conflicted(store: Any, **options: Any) -> tuple[SessionManager, Visitor, Meanwhile]:
    """A GET that may not be replayed, whose counter another has moved on."""
    manager = SessionManager(store, Options(replay=False, **options))
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/increment")
    return manager, browser, slow


def test_a_loss_is_never_silent(store: Any, caplog: pytest.LogCaptureFixture) -> None:
    """P1: where ours win, a warning names the keys."""
    manager, browser, _ = conflicted(store)
    assert browser.get("/slow").text == "2"
    assert values(manager)["n"] == 2
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "n changed while in use" in warning.getMessage()


def test_a_conflict_can_be_raised(store: Any) -> None:
    """on_conflict="raise": an error that names the keys, and nothing is written."""
    manager, browser, _ = conflicted(store, on_conflict="raise")
    with pytest.raises(SessionConflict) as caught:
        browser.get("/slow")
    assert caught.value.keys == ("n",)
    assert values(manager)["n"] == 2
    assert browser.post("/increment").text == "3"


def test_a_conflict_can_be_decided(store: Any) -> None:
    """on_conflict=callable: it is given three versions, and returns the fourth."""
    seen: list[Clash] = []

    def add(clash: Clash) -> dict[str, Any]:
        seen.append(clash)
        more = clash.ours["n"] - clash.base["n"]
        return {**clash.theirs, "n": clash.theirs["n"] + more}

    manager, browser, _ = conflicted(store, on_conflict=add)
    browser.get("/slow")
    assert values(manager)["n"] == 3
    (clash,) = seen
    assert clash.keys == {"n"}
    assert (clash.base["n"], clash.ours["n"], clash.theirs["n"]) == (1, 2, 2)


def test_a_request_with_a_body_is_not_replayed(manager: SessionManager) -> None:
    """Its input has been read: it is decided, not repeated."""
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/increment")
    browser.request("/slow", method="GET", body=b"x")
    assert slow.runs == 1


@pytest.mark.parametrize(
    ("environ", "runs"),
    [
        ({"CONTENT_LENGTH": ""}, 2),
        ({"CONTENT_LENGTH": "0"}, 2),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 1),
    ],
)
def test_what_counts_as_a_body(
    manager: SessionManager, environ: dict[str, str], runs: int
) -> None:
    """A length above 0, or a transfer encoding; some servers send an empty length."""
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/increment")
    browser.get("/slow", extra_environ=environ)
    assert slow.runs == runs


@pytest.mark.parametrize(
    ("method", "runs"),
    [("GET", 2), ("HEAD", 2), ("OPTIONS", 2), ("TRACE", 2)]
    + [("POST", 1), ("PUT", 1), ("DELETE", 1), ("PATCH", 1)],
)
def test_only_a_safe_method_is_replayed(
    store: Any, caplog: pytest.LogCaptureFixture, method: str, runs: int
) -> None:
    """RFC 9110 9.2.1; what the others did may not be done twice."""
    manager = SessionManager(store, Options(locking="never"))
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/increment")
    browser.request("/slow", method=method)
    assert slow.runs == runs
    assert values(manager)["n"] == 1 + runs
    assert ("n changed while in use" in caplog.text) is (runs == 1)


def test_a_handler_can_decline_its_replay(manager: SessionManager) -> None:
    """session.replay = False, for a GET that speaks to the outside world."""

    def once(session: Session) -> object:
        session.replay = False
        return session["n"]

    slow = Meanwhile(once, increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/increment")
    browser.get("/slow")
    assert slow.runs == 1


def test_a_replay_is_announced(store: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The hook and one line of the log are told the path and the keys."""
    told: list[Any] = []
    caplog.set_level(logging.INFO, "wsgisession")
    manager = SessionManager(
        store, Options(on_replay=lambda e, keys: told.append((e["PATH_INFO"], keys)))
    )
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/increment")
    browser.get("/slow")
    assert told == [("/slow", ["n"])]
    assert "replaying '/slow': ['n'] changed meanwhile" in caplog.text


def test_an_on_replay_hook_that_fails_disturbs_nobody(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is run again all the same, and the log has the error."""

    def broken(*_: object) -> None:
        raise RuntimeError("hook")

    manager = SessionManager(store, Options(on_replay=broken))
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/increment")
    assert browser.get("/slow").text == "3"
    assert "the on_replay hook failed" in caplog.text


def test_a_replay_does_not_wait_for_its_own_first_run(store: Any) -> None:
    """A lock that the first run has taken meanwhile is free for the second."""
    manager = SessionManager(store, Options(lock_wait=0.1))

    def save_and_lock(session: Session) -> object:
        increment(session)
        session.save()
        session.lock()
        return session["n"]

    slow = Meanwhile(lambda s: s["n"], save_and_lock)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/increment")
    assert browser.get("/slow").text == "3"
    assert slow.runs == 2


def test_a_replay_is_never_nested(manager: SessionManager) -> None:
    """The second run holds the lock, so nobody else can save meanwhile."""
    other: list[Any] = []

    class Always(Meanwhile):
        def __call__(self, session: Session) -> object:
            self.runs += 1
            self.before(session)
            if self.runs == 1:
                self.other()
            elif self.runs == 2:
                assert session.locked
                assert not session.replay
            return self.after(session)

    slow = Always(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: other.append(browser.another().get("/increment").text)
    assert browser.get("/slow").text == "3"
    assert (slow.runs, other) == (2, ["2"])


def test_a_holder_that_overran_its_lease_overwrites_nobody(store: Any) -> None:
    """P11: its save is a conflict like any other."""
    options = Options(lock_lease=0.2, on_conflict="raise")
    manager = SessionManager(store, options)
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)

    def after_the_lease() -> None:
        time.sleep(0.3)
        browser.another().post("/increment")

    slow.other = after_the_lease
    with pytest.raises(SessionConflict):
        browser.post("/slow")
    assert values(manager)["n"] == 2


def test_a_conflict_needs_no_patience(store: Any) -> None:
    """With lock_wait=0 a merge goes through where nobody holds the lock."""
    manager = SessionManager(store, Options(lock_wait=0))
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/other")
    assert browser.get("/slow").text == "2"
    assert values(manager) == {"n": 2, "cart": [], "other": 7}


def test_a_new_session_that_is_saved_twice_takes_another_id(store: Any) -> None:
    """Where a driver repeats a save whose reply was lost, its own is in the way."""

    class Repeating(CountingStore):
        """Does the first save twice."""

        def __init__(self) -> None:
            super().__init__(store)
            self.save = self.save_twice

        def save_twice(self, record: Record, *, expect: int) -> str | None:
            self.calls.append("save")
            assert len(self.calls) <= 2, "the same id is tried for ever"
            if len(self.calls) == 1:
                store.save(record, expect=expect)
            saved: str | None = store.save(record, expect=expect)
            return saved

    session = SessionManager(Repeating()).create()
    session["n"] = 1
    session.save()
    assert SessionManager(store).open(str(session.token)) == {"n": 1}


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
    other_browser: list[Visitor] = []
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)

    def finish() -> None:
        tab = browser.another()
        tab.get(end)
        other_browser.append(tab)

    slow.other = finish
    answer = browser.request("/slow", method=method)
    assert answer.text == "2"
    assert "Set-Cookie" not in answer.headers
    if end == "/logout":
        assert list(manager.sessions()) == []
    else:
        assert values(manager)["n"] == 1
        assert other_browser[0].get("/n").text == "1"


def test_an_end_wins_over_a_lock(manager: SessionManager) -> None:
    """P2: a logout is not held up by a request that holds the session."""
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().post("/logout")
    began = time.monotonic()
    browser.post("/slow")
    assert time.monotonic() - began < 15  # of a lease of 30
    assert list(manager.sessions()) == []


def test_a_late_end_goes_to_hook_and_log_not_to_the_client(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """P2: SessionEnded is told to whoever watches."""
    told: list[SessionEnded] = []
    caplog.set_level(logging.INFO, "wsgisession")
    manager = SessionManager(store, Options(on_ended=told.append))
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/logout")
    assert browser.get("/slow").status_int == 200
    assert [type(each) for each in told] == [SessionEnded]
    assert "ended while a request was using it" in caplog.text


def test_a_hook_that_fails_disturbs_nobody(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer stands, the session stays ended, and the log has the error."""

    def broken(_: object) -> None:
        raise RuntimeError("hook")

    manager = SessionManager(store, Options(on_ended=broken))
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/logout")
    assert browser.get("/slow").status_int == 200
    assert list(manager.sessions()) == []
    assert "the on_ended hook failed" in caplog.text


def test_a_touch_never_revives_a_logout(store: Any) -> None:
    """P2: neither does a reader whose clock was late."""
    manager = SessionManager(store, Options(touch_interval=0))
    slow = Meanwhile(lambda s: s["n"], lambda s: s["n"])
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/logout")
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
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/rotate")
    answer = browser.request("/slow", method=method)
    assert "Set-Cookie" not in answer.headers
    assert values(SessionManager(store))["n"] == 2
    assert caplog.records == []


def test_a_regeneration_that_meets_an_end_leaves_nothing(store: Any) -> None:
    """P2: ended between its two saves, the new session is taken back."""

    class EndsBetween(CountingStore):
        """Deletes the old record just before it would become a tombstone."""

        armed = False

        def __init__(self) -> None:
            super().__init__(store)
            self.save = self.end_and_save

        def end_and_save(self, record: Record, *, expect: int) -> str | None:
            if self.armed and record.state == "ended":
                store.delete(record)
            saved: str | None = store.save(record, expect=expect)
            return saved

    between = EndsBetween()
    manager = SessionManager(between)
    browser = visitor(manager)
    between.armed = True
    answer = browser.post("/login")
    assert "Set-Cookie" not in answer.headers
    assert list(store.records()) == []


def test_two_logins_at_once_both_end_well(manager: SessionManager) -> None:
    """The second finds the old session gone, and begins a new one for its user."""
    slow = Meanwhile(lambda s: s.get("n"), lambda s: s.login("ann"))
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/login")
    answer = browser.get("/slow")
    assert "Set-Cookie" in answer.headers
    assert len(list(manager.sessions_of("ann"))) == 2
    assert browser.get("/all").text == "{}"


# -- locks by hand -----------------------------------------------------------------------


def test_lock_reloads_and_keeps_our_changes(manager: SessionManager) -> None:
    """What others wrote is seen under the lock; what was changed before is on top."""

    def locked(session: Session) -> object:
        with session.lock():
            assert session.locked
            session["n"] = session["n"] + 1
        assert not session.locked
        return session["n"]

    slow = Meanwhile(lambda s: s.update(other=8), locked)
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/increment")
    assert browser.get("/slow").text == "3"
    assert slow.runs == 1
    assert values(manager) == {"n": 3, "cart": [], "other": 8}


def test_what_was_read_before_the_lock_and_changed_is_replayed(
    manager: SessionManager,
) -> None:
    """P1: the lock does not excuse a decision made on an older value."""

    def locked(session: Session) -> object:
        found = session["n"]

        def write() -> object:
            with session.lock():
                session["other"] = found
            return found

        return write

    def handler(session: Session) -> object:
        handler.runs += 1  # type: ignore[attr-defined]
        write = locked(session)
        if handler.runs == 1:  # type: ignore[attr-defined]
            browser.another().get("/increment")
        return write()  # type: ignore[operator]

    handler.runs = 0  # type: ignore[attr-defined]
    browser = visitor(manager, slow=handler)
    browser.get("/slow")
    assert values(manager)["other"] == 2


def test_the_with_form_costs_two_calls(store: Any) -> None:
    """Lock and load in one, save and unlock in one."""
    counting = CountingStore(store)
    manager = SessionManager(counting)

    def locked(session: Session) -> None:
        with session.lock():
            session["n"] += 1

    browser = visitor(manager, slow=locked)
    counting.calls.clear()
    browser.get("/slow")
    assert counting.calls == ["load", "lock", "save"]
    counting.calls.clear()
    browser.post("/slow")
    assert counting.calls == ["lock", "save"]


def test_save_in_the_middle_is_followed_by_a_new_lock(manager: SessionManager) -> None:
    """P1: what a POST reads after save() is protected again."""

    def twice(session: Session) -> object:
        increment(session)
        session.save()
        browser.another().post("/increment")
        return increment(session)

    browser = visitor(manager, slow=twice)
    assert browser.post("/slow").text == "4"
    assert values(manager)["n"] == 4


def test_a_list_held_over_a_save_is_still_watched(manager: SessionManager) -> None:
    """Changes to it after the save are not lost."""

    def twice(session: Session) -> None:
        cart = session["cart"]
        cart.append(1)
        session.save()
        cart.append(2)

    browser = visitor(manager, slow=twice)
    browser.post("/slow")
    assert values(manager)["cart"] == [1, 2]


def test_unlock_lets_others_in_for_good(manager: SessionManager) -> None:
    """What was written is saved, and reading on takes no lock again."""

    def early(session: Session) -> object:
        increment(session)
        session.unlock()
        browser.another().post("/increment")
        found = session["n"]
        assert not session.locked
        return found

    browser = visitor(manager, slow=early)
    browser.post("/slow")
    assert values(manager)["n"] == 3


def test_an_exception_under_the_lock_frees_it(manager: SessionManager) -> None:
    """The next request does not wait for the lease."""

    def fail(session: Session) -> None:
        session["n"] = 9
        raise ZeroDivisionError

    browser = visitor(manager, slow=fail)
    with pytest.raises(ZeroDivisionError):
        browser.post("/slow")
    assert browser.post("/increment").text == "2"


def test_a_lock_that_cannot_be_had_is_a_503(store: Any) -> None:
    """After lock_wait the client is asked to come again, and the session is untouched."""
    manager = SessionManager(store, Options(lock_wait=0.1))
    statuses: list[Any] = []
    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow)

    def other() -> None:
        answer = browser.another().post("/increment", status=503)
        statuses.append(answer.headers["Retry-After"])

    slow.other = other
    assert browser.post("/slow").text == "2"
    assert statuses == ["1"]


def test_an_application_may_catch_a_lock_timeout(store: Any) -> None:
    """The error says who waits for itself."""
    manager = SessionManager(store, Options(lock_wait=0.1))
    caught: list[LockTimeout] = []

    def patient(session: Session) -> str:
        try:
            session["n"]
        except LockTimeout as error:
            caught.append(error)
        return "later"

    slow = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow, patient=patient)
    slow.other = lambda: browser.another().post("/patient")
    browser.post("/slow")
    assert "waits for itself" in str(caught[0])


@pytest.mark.parametrize(
    ("locking", "get", "post"),
    [
        ("auto", "load", "lock"),
        ("always", "lock", "lock"),
        ("never", "load", "load"),
        (lambda environ: environ["PATH_INFO"] == "/n", "lock", "lock"),
        (lambda environ: False, "load", "load"),
    ],
)
def test_who_takes_the_lock(store: Any, locking: Any, get: str, post: str) -> None:
    """By method, always, never, or as a callable says."""
    counting = CountingStore(store)
    browser = visitor(SessionManager(counting, Options(locking=locking)))
    for method, first in (("GET", get), ("POST", post)):
        counting.calls.clear()
        browser.request("/n", method=method)
        assert counting.calls[0] == first


# -- stores that cannot lock -------------------------------------------------------------


class Lockless:
    """A store with the four methods and no more."""

    def __init__(self, store: Any) -> None:
        self.load = store.load
        self.save = store.save
        self.touch = store.touch
        self.delete = store.delete


def test_a_store_without_locks_merges_and_replays(store: Any) -> None:
    """P1 by versions alone, for safe requests."""
    manager = SessionManager(Lockless(store))
    slow = Meanwhile(lambda s: s["n"], increment)
    merged = Meanwhile(lambda s: s["n"], increment)
    browser = visitor(manager, slow=slow, merged=merged)
    slow.other = lambda: browser.another().get("/increment")
    merged.other = lambda: browser.another().get("/other")
    assert browser.get("/slow").text == "3"
    assert browser.post("/merged").text == "4"
    assert values(SessionManager(store)) == {"n": 4, "cart": [], "other": 7}


class Interrupted(Lockless):
    """Lets something else happen just before a save, and just before a later load."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.before_saves: Iterator[Callable[[], object]] = iter(())
        self.before_load: Callable[[], object] | None = None
        self.saving, self.loading = store.save, store.load
        self.save, self.load = self.interrupted_save, self.interrupted_load

    def interrupted_save(self, record: Record, *, expect: int) -> str | None:
        next(self.before_saves, lambda: None)()
        saved: str | None = self.saving(record, expect=expect)
        return saved

    def interrupted_load(self, key: Key) -> Record | None:
        if self.before_load is not None:
            self.before_load()
        record: Record | None = self.loading(key)
        return record


def changed(manager: SessionManager, token: str, **values: Any) -> None:
    """What another request does from its beginning to its end."""
    session = manager.open(token)
    session.update(values)
    session.commit()


def interrupted(store: Any, **options: Any) -> tuple[Interrupted, Session, Any]:
    """A session in a store without locks, and what changes it from elsewhere."""
    plain = SessionManager(store)
    first = plain.create()
    first.update(n=1, cart=[], other=0)
    first.save()
    token = str(first.token)
    without = Interrupted(store)
    session = SessionManager(without, Options(**options)).open(token)
    assert session["n"] == 1
    return without, session, lambda **values: changed(plain, token, **values)


def test_without_locks_a_merge_is_not_tried_for_ever(store: Any) -> None:
    """Among too many writers the client is asked to come again."""
    without, session, change = interrupted(store, lock_wait=0.1)

    def others() -> Iterator[Callable[[], object]]:
        for number in range(1, 10_000):
            yield partial(change, other=number)

    without.before_saves = others()
    session["n"] = 2
    with pytest.raises(LockTimeout):
        session.commit()
    assert values(SessionManager(store))["n"] == 1


def test_without_locks_a_decision_outlives_the_next_conflict(store: Any) -> None:
    """What was decided is merged like any change: keys put in and keys taken away."""
    seen: list[Clash] = []

    def decide(clash: Clash) -> dict[str, Any]:
        seen.append(clash)
        return {"n": clash.ours["n"], "decided": True}

    without, session, change = interrupted(store, on_conflict=decide)
    without.before_saves = iter([partial(change, n=5), partial(change, new=1)])
    session["n"] = 2
    session.save()
    assert values(SessionManager(store)) == {"n": 2, "decided": True, "new": 1}
    assert len(seen) == 1


@pytest.mark.parametrize("end", ["flush", "regenerate"])
def test_without_locks_an_end_in_the_middle_of_a_conflict(
    store: Any, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P2: also where it comes between the conflict and the second look."""
    without, session, change = interrupted(store)

    def finish() -> None:
        other = SessionManager(store).open(str(session.token))
        getattr(other, end)()
        other.commit()

    without.before_saves = iter([partial(change, other=7)])
    without.before_load = finish
    session["n"] = 2
    assert session.commit() is None
    assert [s["n"] for s in SessionManager(store).sessions()] == [1] * (
        end == "regenerate"
    )
    assert caplog.records == []


def test_without_locks_a_login_is_merged_too(store: Any) -> None:
    """The user is who logged in, with what another request wrote meanwhile."""
    manager = SessionManager(Lockless(store))
    slow = Meanwhile(lambda s: s["n"], lambda s: s.login("ann"))
    browser = visitor(manager, slow=slow)
    slow.other = lambda: browser.another().get("/other")
    browser.post("/slow")
    ((user, found),) = [(s.user, s.copy()) for s in SessionManager(store).sessions()]
    assert user == "ann"
    assert found == {"n": 1, "cart": [], "other": 7}


def test_a_store_without_locks_refuses_to_lock(store: Any) -> None:
    """At construction where it is asked to always, else where lock() is called."""
    with pytest.raises(ConfigurationError, match="locking='always' needs a store"):
        SessionManager(Lockless(store), Options(locking="always"))
    browser = visitor(SessionManager(Lockless(store)), slow=lambda s: s.lock())
    with pytest.raises(ConfigurationError, match="cannot lock"):
        browser.get("/slow")


def test_absent_is_not_none() -> None:
    """A key that is not there is told from one whose value is None."""
    assert ABSENT is not None
    assert repr(ABSENT) == "ABSENT"


def test_a_save_by_hand_that_was_overtaken_is_replayed(store: Any) -> None:
    """P1: with auto=False too, where the end of the request drops all but that."""

    def save(session: Session) -> object:
        increment(session)
        session.save()
        return session["n"]

    manager = SessionManager(store, Options(auto=False))
    slow = Meanwhile(lambda s: s.get("n"), save)
    browser = Visitor(manager, {"/save": save, "/slow": slow})
    browser.get("/save")
    slow.other = lambda: browser.another().get("/save")
    assert browser.get("/slow").text == "3"
    assert values(manager)["n"] == 3


def test_without_locks_a_second_decision_counts_from_the_first(store: Any) -> None:
    """Its base is what the first one saw, lest a change be counted twice."""

    def add(clash: Clash) -> dict[str, Any]:
        more = clash.ours["n"] - clash.base["n"]
        return {**clash.theirs, "n": clash.theirs["n"] + more}

    without, session, change = interrupted(store, on_conflict=add)
    without.before_saves = iter([partial(change, n=2), partial(change, n=3)])
    session["n"] += 1
    session.save()
    assert session["n"] == 4


def test_without_locks_a_merge_keeps_the_token(store: Any) -> None:
    """Whoever was overtaken holds the same cookie as before, and knows it."""
    without, session, change = interrupted(store)
    token = session.token
    without.before_saves = iter([partial(change, other=1)])
    session["m"] = 2
    session.save()
    assert session.token == token
