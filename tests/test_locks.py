"""Locks that are taken by hand, who takes one by itself, and stores that have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from wsgisession import (
    ConfigurationError,
    LockTimeout,
    MergeConflict,
    Options,
    Session,
    SessionEnded,
    SessionManager,
)
from wsgisession.record import Record
from wsgisession.stores.memory import MemoryStore

from .between import Between, Lockless, between, read, values, visitor
from .conftest import Clock, CountingStore, reopened, stored
from .http.asking import PLAIN, asked, cookie_with, cookies
from .pages import increment, shop, warned


@pytest.fixture
def manager(store: Any) -> SessionManager:
    return SessionManager(store)


# -- locks by hand -----------------------------------------------------------------------


def test_lock_reloads_and_keeps_our_changes(manager: SessionManager) -> None:
    """What other requests wrote is seen under the lock; ours from before is on top."""

    def locked(session: Session) -> object:
        with session.lock():
            assert session.locked
            session["n"] = session["n"] + 1
        assert not session.locked
        return session["n"]

    browser, slow = between(manager, "/increment", lambda s: s.update(other=8), locked)
    assert browser.get("/slow").text == "3"
    assert slow.runs == 1
    assert values(manager) == {"n": 3, "cart": [], "other": 8}


def test_what_was_read_before_the_lock_and_changed_is_run_again(
    manager: SessionManager,
) -> None:
    """P1: the lock does not excuse a decision made on an older value."""
    found: list[Any] = []

    def write(session: Session) -> None:
        with session.lock():
            session["other"] = found[-1]

    browser, slow = between(
        manager, "/increment", lambda s: found.append(s["n"]), write
    )
    browser.get("/slow")
    assert slow.runs == 2
    assert values(manager)["other"] == 2


def test_the_with_form_costs_two_calls(store: Any) -> None:
    """Lock and load in one, save and unlock in one."""
    counting = CountingStore(store)

    def locked(session: Session) -> None:
        with session.lock():
            session["n"] += 1

    browser = visitor(SessionManager(counting), slow=locked)
    for method in ("GET", "POST"):
        counting.calls.clear()
        browser.request("/slow", method=method)
        assert counting.calls == ["lock", "save"]


def test_locks_can_be_nested(manager: SessionManager) -> None:
    """The outermost saves and unlocks, also around a function that locks by itself."""
    seen: list[bool] = []

    def nested(session: Session) -> None:
        with session.lock():
            with session.lock():
                session["n"] += 1
            seen.append(session.locked)
            session["n"] += 1
        seen.append(session.locked)

    browser = visitor(manager, slow=nested)
    browser.get("/slow")
    assert seen == [True, False]
    assert values(manager)["n"] == 3


def test_save_in_the_middle_is_followed_by_a_new_lock(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: what a POST reads after save() is protected again, and nothing is lost."""

    def twice(session: Session) -> object:
        increment(session)
        session.save()
        browser.another().post("/increment")
        return increment(session)

    browser = visitor(manager, slow=twice)
    assert browser.post("/slow").text == "4"
    assert values(manager)["n"] == 4
    assert warned(caplog) == []


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
    assert browser.post("/slow").text == "2"
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
    browser, slow = between(manager, "/increment")

    def other() -> None:
        answer = browser.another().post("/increment", status=503)
        statuses.append(answer.headers["Retry-After"])

    slow.other = other
    assert browser.post("/slow").text == "2"
    assert statuses == ["1"]


def test_an_application_may_catch_a_lock_timeout(store: Any) -> None:
    """The error says what an application that waits for itself can do."""
    manager = SessionManager(store, Options(lock_wait=0.1))
    caught: list[LockTimeout] = []

    def patient(session: Session) -> str:
        try:
            read(session)
        except LockTimeout as error:
            caught.append(error)
        return "later"

    browser, slow = between(manager, "/increment", patient=patient)
    slow.other = lambda: browser.another().post("/patient")
    browser.post("/slow")
    (error,) = caught
    assert "calls its own application with the same cookie" in str(error)
    assert "session.unlock()" in str(error)
    assert 0.1 <= error.waited < 5


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


@pytest.mark.parametrize("look", [True, False])
def test_lock_waits_as_long_as_it_is_told(manager: SessionManager, look: bool) -> None:
    """Not at all if that is said, whatever the options say; also as the first access."""
    holder = stored(manager, n=1)
    session = reopened(manager, holder)
    assert not look or session["n"] == 1
    holder.lock()
    with pytest.raises(LockTimeout) as caught:
        session.lock(wait=0)
    assert caught.value.waited < manager.options.lock_wait


def test_a_lock_by_hand_leaves_the_token_alone(clock: Clock) -> None:
    """The idle clock moves with the save, and the browser is told nothing."""
    manager = SessionManager(MemoryStore(), clock=clock)
    cookie = cookie_with(manager, n=1)
    clock.pass_by(61)
    exchange = asked(manager, "GET", cookie)
    with exchange.session.lock():
        exchange.session["n"] = 2
    assert cookies(exchange.settle("200 OK", PLAIN)) == []
    exchange.finish()
    again = manager.open_cookie(cookie)
    assert again == {"n": 2}
    assert again.last_accessed.timestamp() == pytest.approx(clock())


def test_an_exception_in_the_with_form_saves_nothing(manager: SessionManager) -> None:
    """The lock is free again, and what was changed is not written."""
    session = stored(manager, n=1)
    with suppress(ZeroDivisionError), session.lock():
        session["n"] = 2
        raise ZeroDivisionError
    assert not session.locked
    assert reopened(manager, session) == {"n": 1}


@pytest.mark.parametrize("verb", ["with", "save", "flush"])
def test_a_locking_request_locks_again(manager: SessionManager, verb: str) -> None:
    """P1: what it reads after a save is protected, whatever was saved."""
    token = manager.token_of(stored(manager, n=1))
    assert token is not None
    session = manager.open(token, locking=True)
    assert session["n"] == 1
    if verb == "with":
        with session.lock():
            session["n"] = 2
    else:
        if verb == "flush":
            session.flush()
        session["n"] = 2
        session.save()
    assert not session.locked
    assert session["n"] == 2
    assert session.locked


def test_unlock_is_for_the_rest_of_the_request(manager: SessionManager) -> None:
    """With or without something to save, and over a save."""
    token = manager.token_of(stored(manager, n=1))
    assert token is not None
    session = manager.open(token, locking=True)
    assert session["n"] == 1
    assert session.locked
    session.unlock()
    assert not session.locked
    session["n"] = 2
    session.save()
    assert session["n"] == 2
    assert not session.locked


# -- stores that cannot lock -------------------------------------------------------------


def test_a_store_without_locks_merges_and_runs_again(store: Any) -> None:
    """P1 by versions alone, for safe requests."""
    manager = SessionManager(Lockless(store))
    slow, merged = Between(read, increment), Between(read, increment)
    browser = visitor(manager, slow=slow, merged=merged)
    slow.other = lambda: browser.another().get("/increment")
    merged.other = lambda: browser.another().get("/other")
    assert browser.get("/slow").text == "3"
    assert browser.post("/merged").text == "4"
    assert values(SessionManager(store)) == {"n": 4, "cart": [], "other": 7}


def test_without_locks_a_login_is_merged_too(store: Any) -> None:
    """The user is who logged in, with what another request wrote at that time."""
    browser, _ = between(
        SessionManager(Lockless(store)), "/other", read, lambda s: s.login("ann")
    )
    browser.post("/slow")
    (session,) = SessionManager(store).sessions_of("ann")
    assert session == {"n": 1, "cart": [], "other": 7}
    assert browser.get("/n").text == "1"


def test_a_store_without_locks_refuses_to_lock(store: Any) -> None:
    """At construction where it is asked to always, else where lock() is called."""
    with pytest.raises(ConfigurationError, match="locking='always' needs a store"):
        SessionManager(Lockless(store), Options(locking="always"))
    browser = visitor(SessionManager(Lockless(store)), slow=lambda s: s.lock())
    with pytest.raises(ConfigurationError, match="cannot lock"):
        browser.get("/slow")


def test_a_store_without_locks_can_save_in_the_middle(store: Any) -> None:
    """A request that would lock goes on without."""
    manager = SessionManager(Lockless(store))
    token = manager.token_of(stored(manager, n=1))
    session = manager.open(str(token), locking=True)
    session["n"] += 1
    session.save()
    session["n"] += 1
    session.rotate()
    session.save()
    assert reopened(manager, session) == {"n": 3}


class Interrupted(Lockless):
    """Lets something else happen just before each of its next saves."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.before_saves: Iterator[Callable[[], object]] = iter(())
        self.save = self.interrupted_save
        self._save = store.save

    def interrupted_save(self, record: Record, *, expect: int) -> object:
        next(self.before_saves, lambda: None)()
        return self._save(record, expect=expect)


def interrupted(
    store: Any, **options: Any
) -> tuple[Interrupted, Session, Callable[..., None]]:
    """A session that has read n, in a store without locks, and how another changes it."""
    plain = SessionManager(store)
    first = stored(plain, n=1, cart=[], other=0)
    without = Interrupted(store)
    token = str(plain.token_of(first))
    session = SessionManager(without, Options(**options)).open(token)
    assert session["n"] == 1

    def change(verb: str = "update", **values: Any) -> None:
        other = plain.open(token)
        assert not other.new
        getattr(other, verb)(**values)
        other.save()

    return without, session, change


def add(conflict: MergeConflict) -> dict[str, Any]:
    """What both have counted, counted together."""
    more = conflict.ours["n"] - conflict.base["n"]
    return {**conflict.theirs, "n": conflict.theirs["n"] + more}


def test_without_locks_a_merge_is_not_tried_for_ever(store: Any) -> None:
    """Among too many writers the client is asked to come again."""
    without, session, change = interrupted(store, lock_wait=0.1)
    without.before_saves = (partial(change, other=each) for each in range(1, 10_000))
    session["n"] = 2
    with pytest.raises(LockTimeout):
        session.save()
    assert values(SessionManager(store))["n"] == 1


def test_without_locks_a_decision_outlives_the_next_conflict(store: Any) -> None:
    """What was decided is merged like any change: keys put in and keys taken away."""
    seen: list[MergeConflict] = []

    def decide(conflict: MergeConflict) -> dict[str, Any]:
        seen.append(conflict)
        return {"n": conflict.ours["n"], "decided": True}

    without, session, change = interrupted(store, on_conflict=decide)
    without.before_saves = iter([partial(change, n=5), partial(change, new=1)])
    session["n"] = 2
    session.save()
    assert values(SessionManager(store)) == {"n": 2, "decided": True, "new": 1}
    assert len(seen) == 1


def test_without_locks_a_second_decision_counts_from_the_first(store: Any) -> None:
    """Its base is what the first one saw, lest a change be counted twice."""
    without, session, change = interrupted(store, on_conflict=add)
    without.before_saves = iter([partial(change, n=2), partial(change, n=3)])
    session["n"] += 1
    session.save()
    assert session["n"] == 4


@pytest.mark.parametrize("end", ["flush", "regenerate"])
def test_without_locks_an_end_in_the_middle_of_a_conflict(
    store: Any, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P2: also where it comes between the conflict and the next try."""
    without, session, change = interrupted(store)
    without.before_saves = iter([partial(change, other=7), partial(change, end)])
    session["n"] = 2
    with pytest.raises(SessionEnded):
        session.save()
    left = [each["n"] for each in SessionManager(store).sessions()]
    assert left == [1] * (end == "regenerate")
    assert warned(caplog) == []


def test_without_locks_a_merge_keeps_the_token(store: Any) -> None:
    """A request that was overtaken holds the same cookie as before, and knows it."""
    without, session, change = interrupted(store)
    manager = SessionManager(without)
    token = manager.token_of(session)
    without.before_saves = iter([partial(change, other=1)])
    session["m"] = 2
    session.save()
    assert manager.token_of(session) == token
    assert manager.open(str(token)) == {"n": 1, "cart": [], "other": 1, "m": 2}


def test_who_waits_in_vain_is_told_who_holds_the_session(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """On every store that locks: method, path and since when; and what to do about it."""
    site = shop(store, lock_wait=0.05)
    cookie = site.begun("increment")
    told: list[str] = []

    def slow(session: Session) -> None:
        session["n"]
        told.append(site.post("increment", cookie).status)

    site.handlers["slow"] = slow
    assert site.post("slow", cookie).status == "200 OK"
    assert told == ["503 Service Unavailable"]
    (said,) = warned(caplog)
    assert "POST /slow has held it for 0." in said
    assert "session.unlock()" in said
    assert "option locking" in said
