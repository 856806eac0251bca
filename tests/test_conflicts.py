"""What becomes of a session that another request changes or ends at the same time.

Step by step, without an application; whole requests are in ``test_concurrency.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from wsgisession import (
    MergeConflict,
    Options,
    Session,
    SessionConflict,
    SessionEnded,
    SessionManager,
    events,
)
from wsgisession._core.transaction import ReplayNeeded
from wsgisession._http.exchange import Exchange
from wsgisession.stores.memory import MemoryStore

from .conftest import SECRET, Clock, CountingStore, Watch, key_of, reopened, stored
from .http.asking import PLAIN, asked, cookie_with, cookies, is_free, managed, read
from .pages import warned

Change = Callable[[Session], object]


@pytest.fixture
def manager(clock: Clock) -> SessionManager:
    return SessionManager(MemoryStore(), clock=clock)


@pytest.fixture
def behind() -> MemoryStore:
    return MemoryStore()


def answered(exchange: Exchange) -> list[str]:
    """The request comes to its end; the cookies that it sets."""
    headers = exchange.settle("200 OK", PLAIN)
    exchange.finish()
    return cookies(headers)


def by_another(manager: SessionManager, cookie: str, change: Change) -> list[str]:
    """What another request of the same browser does, from its beginning to its end."""
    exchange = asked(manager, "GET", cookie)
    change(exchange.session)
    return answered(exchange)


def do(session: Session, verb: str) -> None:
    """Call a verb that takes nothing, or log in."""
    session.login("ann") if verb == "login" else getattr(session, verb)()


def overtaken(
    behind: MemoryStore, change: Change, **options: Any
) -> tuple[CountingStore, Exchange, str]:
    """A GET that has read n and cart, of a session that was changed since.

    Its calls of the store are counted, the other request's are not.  At the end there is
    the cookie of both.
    """
    plain = managed(behind)
    cookie = cookie_with(plain, n=1, cart=[], other=0)
    counting = CountingStore(behind)
    exchange = asked(managed(counting, **options), "GET", cookie)
    assert (exchange.session["n"], exchange.session["cart"]) == (1, [])
    by_another(plain, cookie, change)
    return counting, exchange, cookie


def add(conflict: MergeConflict) -> dict[str, Any]:
    """What both have counted, counted together."""
    more = conflict.ours["n"] - conflict.base["n"]
    return {**conflict.theirs, "n": conflict.theirs["n"] + more}


# -- when another request was quicker ----------------------------------------------------


@pytest.mark.parametrize(
    ("change", "calls"),
    [
        (lambda s: s.flush(), ["load", "save"]),
        (lambda s: s.regenerate(), ["load", "save"]),
        (lambda s: s.update(other=7), ["load", "save", "lock", "save"]),
    ],
)
def test_store_calls_of_a_conflict(
    behind: MemoryStore, change: Change, calls: list[str]
) -> None:
    """A conflict tells what is there now: an end costs no more, a merge two calls."""
    counting, exchange, _ = overtaken(behind, change)
    exchange.session["mine"] = 1
    answered(exchange)
    assert counting.calls == calls


def test_store_calls_of_a_second_run(behind: MemoryStore) -> None:
    """That the request must be run again is seen without waiting."""
    counting, exchange, _ = overtaken(behind, lambda s: s.update(n=2))
    exchange.session["n"] = 2
    with pytest.raises(ReplayNeeded) as caught:
        exchange.settle("200 OK", PLAIN)
    assert caught.value.keys == {"n"}
    exchange.close()
    assert counting.calls == ["load", "save"]


def test_a_merge_is_whole_when_it_is_written(
    behind: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """By the save itself, not by what happens after it."""
    _, exchange, cookie = overtaken(behind, lambda s: s.update(other=7))
    exchange.session["n"] = 2
    exchange.session.save()
    assert read(managed(behind), cookie) == {"n": 2, "cart": [], "other": 7}
    assert warned(caplog) == []


def test_what_each_asked_for_itself_is_merged(behind: MemoryStore) -> None:
    """An expiry here and a test cookie there do not disturb each other."""
    _, exchange, cookie = overtaken(behind, lambda s: s.set_test_cookie())
    exchange.session.set_expiry(300)
    exchange.session.save()
    again = managed(behind).open_cookie(cookie)
    assert again.get_expiry_age() == 300
    assert again.test_cookie_worked()


def test_what_another_request_asked_for_is_not_written_again(
    behind: MemoryStore,
) -> None:
    """A reader that takes the lock has nothing to save."""
    counting, exchange, _ = overtaken(behind, lambda s: s.set_expiry(300))
    exchange.session.lock()
    assert exchange.session.get_expiry_age() == 300
    answered(exchange)
    assert counting.calls == ["load", "lock", "unlock"]


def test_what_was_saved_is_not_written_again(manager: SessionManager) -> None:
    """P1: after the headers only what is changed then is ours."""
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, "GET", cookie)
    exchange.session["n"] = 2
    exchange.settle("200 OK", PLAIN)
    by_another(manager, cookie, lambda s: s.update(n=5))
    exchange.session["late"] = True
    exchange.finish()
    assert read(manager, cookie) == {"n": 5, "late": True}


@pytest.mark.parametrize("verb", ["create", "rotate", "regenerate", "login"])
def test_a_lock_under_a_token_of_one_s_own_loads_what_is_there_now(
    manager: SessionManager, verb: str
) -> None:
    """The token that this request has made leads to the session, before it has left."""
    session = manager.create() if verb == "create" else stored(manager, n=1)
    session["n"] = 1
    if verb != "create":
        do(session, verb)
    session.save()
    other = reopened(manager, session)
    other.rotate()
    other.save()
    other["n"] = 3
    other.save()
    with session.lock():
        assert session["n"] == 3
        session["n"] = 4
    assert session.id == other.id
    assert reopened(manager, other) == {"n": 4}


@pytest.mark.parametrize("junk", [b"junk", b"1\njunk"])
@pytest.mark.parametrize("verb", ["lock", "save"])
def test_a_record_that_is_damaged_at_that_time_is_left_alone(
    behind: MemoryStore, verb: str, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """P8: it is neither overwritten nor locked, and the answer stands."""

    def damage(session: Session) -> None:
        record = behind.load(key_of(session))
        assert record is not None
        damaged = record._replace(data=junk, version=record.version + 1)
        behind.save(damaged, expect=record.version)

    _, exchange, _ = overtaken(behind, damage)
    session = exchange.session
    key = key_of(session)
    session["n"] = 2
    if verb == "lock":
        session.lock()
    assert answered(exchange) == []
    assert session.ended
    found = behind.lock(key, wait=0, lease=1, waiters=0)
    assert found is not None
    assert found.data == junk
    assert "is corrupt and was left alone" in caplog.text


# -- lists in the caller's hands ---------------------------------------------------------


@pytest.mark.parametrize("how", ["lock", "save"])
def test_a_list_in_hand_over_a_lock_or_a_save(
    manager: SessionManager, how: str
) -> None:
    """``cart = session["cart"]; session.lock(); cart.append(..)`` loses nothing."""
    one = stored(manager, cart=[], x=0)
    cart = one["cart"]
    two = reopened(manager, one)
    two["x"] = 1
    two.save()
    if how == "save":
        one["y"] = 1
        one.save()
    else:
        one.lock()
    cart.append("book")
    one.save()
    assert reopened(manager, one)["cart"] == ["book"]


@pytest.mark.parametrize("verb", ["lock", "rotate", "regenerate", "login"])
def test_a_list_in_hand_is_watched_when_another_request_has_replaced_it(
    behind: MemoryStore, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: what is appended to it then wins over theirs with a warning, not in silence."""
    _, exchange, _ = overtaken(behind, lambda s: s["cart"].append("theirs"))
    session = exchange.session
    session.no_replay()
    cart = session["cart"]
    do(session, verb)
    cart.append("ours")
    answered(exchange)
    (found,) = managed(behind).sessions()
    assert found["cart"] == ["ours"]
    (line,) = warned(caplog)
    assert "another request changed cart" in line
    assert line.endswith("overwritten: cart")


def test_a_list_in_hand_that_was_replaced_is_dropped_with_the_rest(
    manager: SessionManager,
) -> None:
    """``modified = False`` drops it as it drops every other change."""
    one = stored(manager, cart=[])
    cart = one["cart"]
    two = reopened(manager, one)
    two["cart"] = ["theirs"]
    two.save()
    one.lock()
    cart.append("ours")
    one.modified = False
    one.save()
    assert reopened(manager, one)["cart"] == ["theirs"]


# -- what on_conflict decides ------------------------------------------------------------


def test_a_conflict_is_decided_between_three_versions(
    behind: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """What on_conflict returns is stored as it is, and there is nothing to warn of.

    A key that this request had nothing to do with is the same in all three versions, so
    that what it made of a key is the difference of ours and base.
    """
    seen: list[MergeConflict] = []

    def decide(conflict: MergeConflict) -> dict[str, Any]:
        seen.append(conflict)
        return {**add(conflict), "x": 1}

    _, exchange, cookie = overtaken(
        behind, lambda s: s.update(n=5, new=1), on_conflict=decide
    )
    session = exchange.session
    session.no_replay()
    session["n"] += 10
    session.save()
    (conflict,) = seen
    assert (conflict.id, conflict.keys) == (session.id, {"n"})
    assert conflict.base == {"n": 1, "cart": [], "other": 0, "new": 1}
    assert conflict.ours == {"n": 11, "cart": [], "other": 0, "new": 1}
    assert conflict.theirs == {"n": 5, "cart": [], "other": 0, "new": 1}
    found = read(managed(behind), cookie)
    assert found == {"n": 15, "cart": [], "other": 0, "new": 1, "x": 1}
    assert warned(caplog) == []


def test_what_was_saved_is_the_base_of_what_follows(behind: MemoryStore) -> None:
    """After save() in the middle: not run again, and counted from what was saved."""
    _, exchange, cookie = overtaken(behind, lambda s: s.get("n"), on_conflict=add)
    exchange.session["n"] += 1
    exchange.session.save()
    exchange.session["n"] += 1
    by_another(managed(behind), cookie, lambda s: s.update(n=s["n"] + 1))
    answered(exchange)
    assert read(managed(behind), cookie)["n"] == 4


def test_a_list_in_hand_outlives_a_decision_that_left_it_alone(
    behind: MemoryStore,
) -> None:
    """P1: ``{**conflict.theirs, ...}`` is no assignment of what is the same in it."""
    _, exchange, cookie = overtaken(behind, lambda s: s.update(n=2), on_conflict=add)
    session = exchange.session
    session.no_replay()
    cart = session["cart"]
    session["n"] += 1
    session.save()
    cart.append("book")
    answered(exchange)
    found = read(managed(behind), cookie)
    assert (found["n"], found["cart"]) == (3, ["book"])


def test_a_conflict_that_was_caught_is_raised_again(behind: MemoryStore) -> None:
    """on_conflict="raise": the end of the request writes nothing over theirs either."""
    _, exchange, cookie = overtaken(
        behind, lambda s: s.update(n=5), on_conflict="raise"
    )
    exchange.session.no_replay()
    exchange.session["n"] = 2
    for end in (exchange.session.save, lambda: exchange.settle("200 OK", PLAIN)):
        with pytest.raises(SessionConflict) as caught:
            end()
        assert caught.value.keys == ("n",)
    assert read(managed(behind), cookie)["n"] == 5
    assert is_free(managed(behind), cookie)


@pytest.mark.parametrize("look", [True, False])
def test_a_request_can_decline_to_be_run_again(
    behind: MemoryStore, look: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Before its first look or after it: then the conflict is decided."""
    plain = managed(behind)
    cookie = cookie_with(plain, n=1)
    exchange = asked(plain, "GET", cookie)
    assert not look or exchange.session["n"] == 1
    exchange.session.no_replay()
    assert exchange.session["n"] == 1
    by_another(plain, cookie, lambda s: s.update(n=7))
    exchange.session["n"] += 1
    answered(exchange)
    assert read(plain, cookie)["n"] == 2
    assert len(warned(caplog)) == 1


# -- when another request has ended it ---------------------------------------------------


@pytest.mark.parametrize("end", ["flush", "regenerate", "login"])
def test_a_lock_on_what_has_ended_finds_nothing(
    end: str, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """P2: it is told once, and then nothing that is done has any effect."""
    told = Watch(events.Dropped)
    options = Options(on_event=told)
    manager = SessionManager(MemoryStore(), options, clock=clock)
    cookie = cookie_with(manager, n=1, cart=[])
    exchange = asked(manager, "GET", cookie)
    session = exchange.session
    assert session["cart"] == []
    by_another(manager, cookie, lambda s: do(s, end))
    left = list(manager.store.records())
    id = session.id
    session.lock()
    session.lock()
    assert session.ended
    assert not session.locked
    session.regenerate()
    session["n"] = 2
    assert session.id == id
    clock.pass_by(61)
    assert answered(exchange) == []
    assert told.ids == [id]
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert list(manager.store.records()) == left
    assert manager.open_cookie(cookie).new


@pytest.mark.parametrize("seconds", [0, 61])
def test_a_logout_of_what_a_login_has_ended(
    manager: SessionManager, clock: Clock, seconds: int
) -> None:
    """Within the window it is meant for that login; later it has no power over it."""
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, "GET", cookie)
    assert exchange.session["n"] == 1
    by_another(manager, cookie, lambda s: s.login("ann"))
    exchange.session.lock()
    assert exchange.session.ended
    clock.pass_by(seconds)
    exchange.session.flush()
    assert answered(exchange) == ["sid="]
    assert len(list(manager.sessions_of("ann"))) == (seconds > 0)


def test_a_write_with_a_token_that_has_ended_is_told() -> None:
    """P2: to the hook, by whatever way it would be saved; a reader is not spoken of."""
    told = Watch(events.Dropped)
    manager = managed(on_event=told)
    cookie = cookie_with(manager, n=1)
    by_another(manager, cookie, lambda s: s.regenerate())
    reader = asked(manager, "GET", cookie)
    assert reader.session == {}
    assert answered(reader) == []
    assert told.seen == []
    late = asked(manager, "GET", cookie)
    late.session["n"] = 2
    with pytest.raises(SessionEnded):
        late.session.save()
    assert len(told.seen) == 1
    assert cookies(late.settle("200 OK", PLAIN)) == []
    late.session["n"] = 3
    late.finish()
    assert len(told.seen) == 1
    assert [dict(each) for each in manager.sessions()] == [{"n": 1}]


@pytest.mark.parametrize("how", ["lock", "save", "settle"])
def test_an_end_is_told_once(manager: SessionManager, how: str) -> None:
    """Not where it is met, and again for the same changes at the end of the request."""
    told = Watch(events.Dropped)
    manager = managed(manager.store, on_event=told)
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, "GET", cookie)
    exchange.session["n"] = 2
    by_another(manager, cookie, lambda s: s.flush())
    if how != "settle":
        with suppress(SessionEnded):
            getattr(exchange.session, how)()
    assert answered(exchange) == []
    assert len(told.seen) == 1


@pytest.mark.parametrize("is_more", [True, False])
@pytest.mark.parametrize("end", ["regenerate", "flush"])
def test_a_late_change_of_a_cookie_that_was_ended_is_no_error(
    end: str, is_more: bool
) -> None:
    """P2: the answer stands; nothing can be written, before the headers or after."""
    manager = SessionManager.from_config(
        url="cookie:", secret=SECRET, revocation=MemoryStore()
    )
    cookie = cookie_with(manager, cart=[])
    exchange = asked(manager, "GET", cookie)
    cart = exchange.session["cart"]
    by_another(manager, cookie, lambda s: do(s, end))
    cart.append(1)
    assert cookies(exchange.settle("200 OK", PLAIN)) == []
    if is_more:
        cart.append(2)
    exchange.finish()


def test_a_late_write_to_what_has_ended_is_dropped(manager: SessionManager) -> None:
    """P2: it would need no cookie, for it will never be stored."""
    cookie = cookie_with(manager, n=1)
    by_another(manager, cookie, lambda s: s.regenerate())
    exchange = asked(manager, "GET", cookie)
    assert exchange.session == {}
    assert cookies(exchange.settle("200 OK", PLAIN)) == []
    exchange.session["n"] = 2
    exchange.finish()
    assert [dict(each) for each in manager.sessions()] == [{"n": 1}]


@pytest.mark.parametrize("verb", ["lock", "change"])
@pytest.mark.parametrize("end", ["login", "regenerate", "flush"])
def test_pitfall_a_cookie_that_was_due_is_not_set_over_a_newer_one(
    manager: SessionManager, end: str, verb: str
) -> None:
    """P2, express #923: after save() the browser's cookie was changed once more."""
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, "POST", cookie)
    exchange.session.rotate()
    exchange.session.save()
    by_another(manager, cookie, lambda s: do(s, end))
    if verb == "lock":
        exchange.session.lock()
    else:
        exchange.session["n"] = 3
    assert answered(exchange) == []


# -- the one rule of reading -------------------------------------------------------------


@pytest.mark.parametrize(
    "drop", [lambda s: s.revert(), lambda s: setattr(s, "modified", False)]
)
def test_what_was_read_before_is_still_read(behind: MemoryStore, drop: Change) -> None:
    """P1: dropping what was changed does not undo the reading."""
    _, exchange, _ = overtaken(behind, lambda s: s.update(n=5))
    found = exchange.session["n"]
    drop(exchange.session)
    exchange.session["n"] = found + 1
    with pytest.raises(ReplayNeeded):
        exchange.settle("200 OK", PLAIN)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("end", ["save", "settle", "with"])
def test_what_was_read_before_a_save_and_is_written_after_it(
    manager: SessionManager, method: str, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: what another request changed in between may be lost, but not in silence."""
    cookie = cookie_with(manager, n=1, m=0)
    exchange = asked(manager, method, cookie)
    session = exchange.session
    found = session["n"]
    if end == "with":
        with session.lock():
            session["m"] = 1
    else:
        session["m"] = 1
        session.save() if end == "save" else exchange.settle("200 OK", PLAIN)
    by_another(manager, cookie, lambda s: s.update(n=s["n"] + 1))
    session["n"] = found + 1
    if end != "settle":
        exchange.settle("200 OK", PLAIN)
    exchange.finish()
    assert read(manager, cookie) == {"n": 2, "m": 1}
    (line,) = warned(caplog)
    assert "another request changed n, which this request had read" in line
    assert line.endswith("overwritten: n")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("is_written", [True, False])
def test_what_is_read_again_after_a_save_is_in_no_doubt(
    manager: SessionManager,
    method: str,
    is_written: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nor is what is written without a look; also where the save had nothing to do."""
    cookie = cookie_with(manager, n=1, m=0, k=0)
    exchange = asked(manager, method, cookie)
    session = exchange.session
    assert session["n"] == 1
    if is_written:
        session["j"] = 1
    session.save()
    by_another(manager, cookie, lambda s: s.update(n=2, m=2, k=2))
    session.lock()
    session["n"] += 1
    session["m"] = 3
    answered(exchange)
    found = read(manager, cookie)
    assert (found["n"], found["m"], found["k"]) == (3, 3, 2)
    assert warned(caplog) == []


def test_a_doubt_is_told_at_the_first_write_and_once(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: of whatever key, for it may derive from what is no longer true.

    It says truthfully that nothing of the other request's was overwritten.
    """
    cookie = cookie_with(manager, n=1)
    exchange = asked(manager, "POST", cookie)
    session = exchange.session
    found = session["n"]
    session.save()
    by_another(manager, cookie, lambda s: s.update(n=s["n"] + 1))
    assert caplog.text == ""
    session["m"] = found
    session.save()
    (line,) = warned(caplog)
    assert "another request changed n" in line
    assert line.endswith("overwritten: none")
    for _ in range(2):
        session["m"] += 1
        session.save()
    answered(exchange)
    assert read(manager, cookie) == {"n": 2, "m": 3}
    assert len(warned(caplog)) == 1


def test_two_that_add_one_each_to_the_same_number(behind: MemoryStore) -> None:
    """P1: after lock() ours is the same as theirs, and yet an increment is missing."""
    _, exchange, _ = overtaken(behind, lambda s: s.update(n=2))
    found = exchange.session["n"]
    exchange.session.lock()
    exchange.session["n"] = found + 1
    with pytest.raises(ReplayNeeded):
        exchange.settle("200 OK", PLAIN)


@pytest.mark.parametrize("decide", ["ours", "raise"])
def test_no_lock_is_held_by_a_save_in_conflict(
    behind: MemoryStore, decide: str
) -> None:
    """Decided or raised: other requests need not wait for the rest of this one."""
    _, exchange, cookie = overtaken(
        behind, lambda s: s.update(n=2), on_conflict=decide, lock_wait=0
    )
    session = exchange.session
    session.no_replay()
    session.lock()
    assert session.locked
    session["other"] = 1
    if decide == "raise":
        with pytest.raises(SessionConflict):
            session.save()
    else:
        session.save()
    assert not session.locked
    assert is_free(managed(behind), cookie)
