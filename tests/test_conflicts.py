"""What becomes of a session that another request has changed or ended meanwhile.

Step by step on the session itself; whole requests are in ``test_concurrency.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from wsgisession import (
    ConfigurationError,
    LockTimeout,
    Options,
    Session,
    SessionClosed,
    SessionConflict,
    SessionEnded,
    SessionManager,
)
from wsgisession.session import ReplayNeeded
from wsgisession.stores.memory import MemoryStore

from .conftest import SECRET, Clock, CountingStore, key_of, reopened, stored


@pytest.fixture
def manager(clock: Clock) -> SessionManager:
    return SessionManager(MemoryStore(), clock=clock)


# -- when another was quicker ------------------------------------------------------------


def conflicted(
    behind: MemoryStore, other: Callable[[Session], object], **options: Any
) -> tuple[CountingStore, SessionManager, Session]:
    """A session that has read n and cart, and which another has changed since.

    Its calls are counted, the other's are not.
    """
    plain = SessionManager(behind)
    first = stored(plain, n=1, cart=[], other=0)
    counting = CountingStore(behind)
    manager = SessionManager(counting, Options(**options))
    session = manager.open(str(first.token), replay=True)
    assert (session["n"], session["cart"]) == (1, [])
    meanwhile = reopened(plain, first)
    other(meanwhile)
    meanwhile.commit()
    return counting, manager, session


@pytest.fixture
def behind() -> MemoryStore:
    return MemoryStore()


@pytest.mark.parametrize(
    ("other", "calls"),
    [
        (lambda s: s.flush(), ["load", "save"]),
        (lambda s: s.regenerate(), ["load", "save"]),
        (lambda s: s.update(other=7), ["load", "save", "lock", "save"]),
    ],
)
def test_store_calls_of_a_conflict(
    behind: MemoryStore, other: Any, calls: list[str]
) -> None:
    """A conflict tells what is there now: an end costs no more, a merge two calls."""
    counting, _, session = conflicted(behind, other)
    session["mine"] = 1
    session.commit()
    session.close()
    assert counting.calls == calls


def test_store_calls_of_a_replay(behind: MemoryStore) -> None:
    """That it must be run again is seen without waiting for anybody."""
    counting, _, session = conflicted(behind, lambda s: s.update(n=2))
    session["n"] = 2
    with pytest.raises(ReplayNeeded) as caught:
        session.commit()
    assert caught.value.keys == {"n"}
    session.close()
    assert counting.calls == ["load", "save"]


def test_a_merge_is_whole_when_it_is_written(behind: MemoryStore) -> None:
    """By the save itself, not by what happens after it."""
    _, manager, session = conflicted(behind, lambda s: s.update(other=7))
    session["n"] = 2
    session.save()
    assert reopened(manager, session) == {"n": 2, "cart": [], "other": 7}


def test_what_each_asked_for_itself_is_merged(behind: MemoryStore) -> None:
    """An expiry here and a test cookie there do not disturb each other."""
    _, manager, session = conflicted(behind, lambda s: s.set_test_cookie())
    session.set_expiry(300)
    session.save()
    again = reopened(manager, session)
    assert again.get_expiry_age() == 300
    assert again.test_cookie_worked()


def test_what_another_asked_for_is_not_written_again(behind: MemoryStore) -> None:
    """A reader that takes the lock has nothing to save."""
    counting, _, session = conflicted(behind, lambda s: s.set_expiry(300))
    session.lock()
    assert session.get_expiry_age() == 300
    session.commit()
    assert counting.calls == ["load", "lock", "unlock"]


def test_a_conflict_is_decided_between_three_versions(
    behind: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """What on_conflict returns is stored as it is, and there is nothing to warn of."""
    seen: list[Any] = []

    def decide(clash: Any) -> dict[str, Any]:
        seen.append(clash)
        return {"n": clash.ours["n"] + clash.theirs["n"] - clash.base["n"], "x": 1}

    _, manager, session = conflicted(
        behind, lambda s: s.update(n=5, new=1), on_conflict=decide
    )
    session.replay = False
    session["n"] += 10
    session.save()
    assert reopened(manager, session) == {"n": 15, "x": 1}
    (clash,) = seen
    assert clash.base == {"n": 1, "cart": [], "other": 0}
    assert clash.ours == {"n": 11, "cart": [], "other": 0, "new": 1}
    assert clash.theirs == {"n": 5, "cart": [], "other": 0, "new": 1}
    assert caplog.records == []


def test_what_was_saved_is_the_base_of_what_follows(behind: MemoryStore) -> None:
    """After save() in the middle: not run again, and counted from what was saved."""

    def add(clash: Any) -> dict[str, Any]:
        more = clash.ours["n"] - clash.base["n"]
        return {**clash.theirs, "n": clash.theirs["n"] + more}

    _, manager, session = conflicted(behind, lambda s: s.get("n"), on_conflict=add)
    session["n"] += 1
    session.save()
    assert not session.replay
    session["n"] += 1
    other = reopened(manager, session)
    other["n"] += 1
    other.commit()
    assert session.commit() is None
    assert reopened(manager, session)["n"] == 4


def test_what_was_saved_is_not_written_again(manager: SessionManager) -> None:
    """P1: after the commit only what is changed then is ours."""
    session = stored(manager, n=1)
    session["n"] = 2
    session.commit()
    other = reopened(manager, session)
    other["n"] = 5
    other.commit()
    session["late"] = True
    session.commit_late()
    assert reopened(manager, session) == {"n": 5, "late": True}


@pytest.mark.parametrize("verb", ["lock", "rotate"])
def test_a_list_in_hand_is_watched_when_another_has_replaced_it(
    behind: MemoryStore, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: what is appended to it then wins over theirs with a warning, not in silence."""
    _, manager, session = conflicted(behind, lambda s: s["cart"].append("theirs"))
    session.replay = False
    cart = session["cart"]
    getattr(session, verb)()
    cart.append("ours")
    session.commit()
    assert reopened(manager, session)["cart"] == ["ours"]
    assert "cart changed while in use" in caplog.text


@pytest.mark.parametrize("verb", ["create", "regenerate"])
def test_a_lock_after_a_rotation_loads_what_is_there_now(
    manager: SessionManager, verb: str
) -> None:
    """Versions are numbered anew there, and ours count for nothing."""
    session = stored(manager, n=1)
    if verb == "create":
        session = manager.create()
        session["n"] = 1
    else:
        session.regenerate()
    session.save()
    session["n"] = 2
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


@pytest.mark.parametrize("verb", ["lock", "commit"])
def test_a_record_that_is_damaged_meanwhile_is_left_alone(
    behind: MemoryStore, verb: str
) -> None:
    """P8: it is neither overwritten nor locked, and the answer stands."""

    def damage(session: Session) -> None:
        record = behind.load(key_of(session))
        junk = replace(record, data=b"junk", version=record.version + 1)
        behind.save(junk, expect=record.version)

    _, _, session = conflicted(behind, damage)
    key = key_of(session)
    session["n"] = 2
    if verb == "lock":
        session.lock()
    assert session.commit() is None
    session.close()
    assert behind.load(key).data == b"junk"
    assert behind.lock(key, wait=0, lease=1) is not None


@pytest.mark.parametrize("end", ["flush", "regenerate", "login"])
def test_a_lock_on_what_has_ended_finds_nothing(
    end: str, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """P2: it is told once, and then nothing that is done has any effect."""
    told: list[SessionEnded] = []
    options = Options(on_ended=told.append)
    manager = SessionManager(MemoryStore(), options, clock=clock)
    session = stored(manager, n=1, cart=[])
    old = str(session.token)
    assert session["cart"] == []
    other = reopened(manager, session)
    other.login("ann") if end == "login" else getattr(other, end)()
    other.commit()
    session.lock()
    session.lock()
    assert not session.locked
    id = session.id
    session.regenerate()
    assert session.id == id
    clock.pass_by(61)
    assert session.commit() is None
    assert len(told) == 1
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
    session = manager.open(old)
    assert session.token is None


def test_a_logout_of_what_has_ended_takes_no_cookie(manager: SessionManager) -> None:
    """Express #923: the browser holds that of a login by now, and the tombstone stays."""
    session = stored(manager, n=1)
    old = str(session.token)
    assert session["n"] == 1
    other = reopened(manager, session)
    other.login("ann")
    other.commit()
    session.lock()
    session.flush()
    assert session.commit() is None
    late = manager.open(old)
    late["n"] = 2
    assert late.commit() is None


def test_a_write_to_a_tombstone_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """P2: to the hook, by whatever way it would be saved; a reader is not spoken of."""
    told: list[SessionEnded] = []
    manager = SessionManager(MemoryStore(), Options(on_ended=told.append))
    session = stored(manager, n=1)
    old = str(session.token)
    session.regenerate()
    session.commit()
    reader = manager.open(old)
    assert reader == {}
    assert reader.commit() is None
    assert told == []
    late = manager.open(old)
    late["n"] = 2
    late.save()
    assert len(told) == 1
    assert late.commit() is None
    late["n"] = 3
    late.commit_late()
    assert len(list(manager.sessions())) == 1


def test_a_late_change_of_a_cookie_that_was_ended_is_no_error() -> None:
    """P2: the answer stands, where there is nothing to write as well."""
    manager = SessionManager.from_config(
        url="cookie:", secret=SECRET, revocation=MemoryStore()
    )
    session = stored(manager, cart=[])
    cart = session["cart"]
    other = reopened(manager, session)
    other.regenerate()
    other.commit()
    cart.append(1)
    assert session.commit() is None
    cart.append(2)
    session.commit_late()


@pytest.mark.parametrize(
    "drop", [lambda s: s.revert(), lambda s: setattr(s, "modified", False)]
)
def test_what_was_read_before_is_still_read(behind: MemoryStore, drop: Any) -> None:
    """P1: dropping what was changed does not undo the reading."""
    _, _, session = conflicted(behind, lambda s: s.update(n=5))
    found = session["n"]
    drop(session)
    session["n"] = found + 1
    with pytest.raises(ReplayNeeded):
        session.commit()


@pytest.mark.parametrize("verb", ["lock", "change"])
@pytest.mark.parametrize("end", ["rotate", "login", "flush"])
def test_a_cookie_that_was_due_is_not_set_over_a_newer_one(
    manager: SessionManager, clock: Clock, end: str, verb: str
) -> None:
    """P2, express #923: after save() another has changed the browser's cookie."""
    session = stored(manager, n=1)
    assert session["n"] == 1
    clock.pass_by(61)
    session["n"] = 2
    session.save()
    other = reopened(manager, session)
    other.login("ann") if end == "login" else getattr(other, end)()
    other.commit()
    if verb == "lock":
        session.lock()
    else:
        session["n"] = 3
    assert session.commit() is None


def test_a_conflict_that_was_caught_is_raised_again(behind: MemoryStore) -> None:
    """on_conflict="raise": the end of the request writes nothing over theirs either."""
    _, manager, session = conflicted(
        behind, lambda s: s.update(n=5), on_conflict="raise"
    )
    session.replay = False
    session["n"] = 2
    for save in (session.save, session.commit):
        with pytest.raises(SessionConflict):
            save()
    assert reopened(manager, session)["n"] == 5


def test_an_end_is_told_once(clock: Clock) -> None:
    """Not when it is met, and again for the same changes at the end of the request."""
    told: list[Any] = []
    manager = SessionManager(MemoryStore(), Options(on_ended=told.append))
    session = stored(manager, n=1)
    session["n"] = 2
    other = reopened(manager, session)
    other.flush()
    other.commit()
    session.lock()
    session.commit()
    assert len(told) == 1


@pytest.mark.parametrize("locking", [True, False])
@pytest.mark.parametrize("end", ["save", "commit", "with"])
def test_what_was_read_before_a_save_and_is_written_after_it(
    manager: SessionManager, locking: bool, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: another's change in between may be lost, but not in silence."""
    token = str(stored(manager, n=1, m=0).token)
    session = manager.open(token, locking=locking)
    found = session["n"]
    if end == "with":
        with session.lock():
            session["m"] = 1
    else:
        getattr(session, end)()
    other = manager.open(token)
    other["n"] += 1
    other.commit()
    session["n"] = found + 1
    session.commit_late()
    assert "n changed while in use" in caplog.text


@pytest.mark.parametrize("locking", [True, False])
def test_what_is_read_again_after_a_save_is_in_no_doubt(
    manager: SessionManager, locking: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither that, nor what is written without a look, nor what is left alone."""
    token = str(stored(manager, n=1, m=0, k=0).token)
    session = manager.open(token, locking=locking)
    assert (session["n"], session["k"]) == (1, 0)
    session.save()
    other = manager.open(token)
    other.update(n=2, m=2, k=2)
    other.commit()
    session.lock()
    session["n"] += 1
    session["m"] = 3
    session.commit()
    assert manager.open(token) == {"n": 3, "m": 3, "k": 2}
    assert caplog.text == ""


def test_a_doubt_stays_over_the_next_save(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: until the key is read again, or written; and it is told once."""
    token = str(stored(manager, n=1).token)
    session = manager.open(token, locking=True)
    found = session["n"]
    session.save()
    other = manager.open(token)
    other["n"] += 1
    other.commit()
    session["m"] = 1
    session.save()
    assert caplog.text == ""
    for _ in range(2):
        session["n"] = found + 1
        session.save()
    assert caplog.text.count("n changed while in use") == 1


def test_two_that_add_one_each_to_the_same_number(behind: MemoryStore) -> None:
    """P1: after lock() ours is the same as theirs, and yet an increment is missing."""
    _, _, session = conflicted(behind, lambda s: s.update(n=2))
    found = session["n"]
    session.lock()
    session["n"] = found + 1
    with pytest.raises(ReplayNeeded):
        session.commit()


# -- locks by hand -----------------------------------------------------------------------


def test_lock_waits_as_long_as_it_is_told() -> None:
    """Not at all if that is said, whatever the options say."""
    manager = SessionManager(MemoryStore())
    session = stored(manager, n=1)
    holder = reopened(manager, session)
    holder.lock()
    with pytest.raises(LockTimeout):
        session.lock(wait=0)


def test_what_was_locked_by_hand_keeps_its_cookie(
    manager: SessionManager, clock: Clock
) -> None:
    """The idle clock slides, and the browser is told."""
    session = stored(manager, n=1)
    token = str(session.token)
    clock.pass_by(61)
    session = manager.open(token)
    with session.lock():
        session["n"] = 2
    assert session.token == token
    change = session.commit()
    assert change is not None
    assert change.value == token


def test_an_exception_in_the_with_form_saves_nothing(manager: SessionManager) -> None:
    """The lock is free again, and what was changed is not written."""
    session = stored(manager, n=1)
    with suppress(ZeroDivisionError), session.lock():
        session["n"] = 2
        raise ZeroDivisionError
    assert not session.locked
    assert reopened(manager, session) == {"n": 1}


def test_after_the_with_form_a_locking_request_locks_again(
    manager: SessionManager,
) -> None:
    """P1: what it reads then is protected, as after save()."""
    token = str(stored(manager, n=1).token)
    session = manager.open(token, locking=True)
    with session.lock():
        session["n"] = 2
    assert not session.locked
    assert session["n"] == 2
    assert session.locked


def test_unlock_is_for_the_rest_of_the_request(manager: SessionManager) -> None:
    """With or without something to save, and over a save."""
    token = str(stored(manager, n=1).token)
    session = manager.open(token, locking=True)
    assert session["n"] == 1
    assert session.locked
    session.unlock()
    assert not session.locked
    session["n"] = 2
    session.save()
    assert session["n"] == 2
    assert not session.locked


def test_a_session_after_a_flush_is_locked_like_the_one_before(
    manager: SessionManager,
) -> None:
    """P1: in a request that locks, what is read after a save is protected."""
    token = str(stored(manager, n=1).token)
    session = manager.open(token, locking=True)
    assert session["n"] == 1
    session.flush()
    session["m"] = 1
    session.save()
    assert session["m"] == 1
    assert session.locked


def test_no_lock_is_held_by_a_save_that_failed(behind: MemoryStore) -> None:
    """Whether it is to be run again or raised: others need not wait for the rest."""
    for decide in ("ours", "raise"):
        _, _, session = conflicted(behind, lambda s: s.update(n=2), on_conflict=decide)
        session.replay = decide == "ours"
        session.lock()
        assert session.locked
        session["other"] = 1
        if decide == "raise":
            with pytest.raises(SessionConflict):
                session.save()
        else:
            session.save()
        assert not session.locked


def test_a_store_without_locks_can_save_in_the_middle(manager: SessionManager) -> None:
    """A request that would lock goes on without; lock() itself is refused."""
    store = MemoryStore()

    class Four:
        load, save, touch, delete = store.load, store.save, store.touch, store.delete

    manager = SessionManager(Four())
    token = str(stored(manager, n=1).token)
    session = manager.open(token, locking=True)
    session["n"] += 1
    session.save()
    session["n"] += 1
    session.rotate()
    session.commit()
    assert reopened(manager, session) == {"n": 3}
    with pytest.raises(ConfigurationError, match="cannot lock"):
        reopened(manager, session).lock()


# -- replays and late verbs --------------------------------------------------------------


def test_a_replay_can_be_declined_and_not_asked_for(manager: SessionManager) -> None:
    """Before and after the first look; only the caller knows whether it could be."""
    token = str(stored(manager, n=1).token)
    for look in (True, False):
        session = manager.open(token, replay=True)
        assert session.replay
        assert not look or session["n"] == 1
        session.replay = False
        assert not session.replay
        assert session["n"] == 1
        assert not session.replay
        session.replay = True
        assert not session.replay


def test_a_declined_replay_is_decided(behind: MemoryStore) -> None:
    """Also where it was declined after the first look."""
    _, manager, session = conflicted(behind, lambda s: s.update(n=7))
    session.replay = False
    session["n"] += 1
    session.commit()
    assert reopened(manager, session)["n"] == 2


def test_a_late_conflict_is_decided(
    behind: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: after the headers nothing can be run again, and the loss is told."""
    plain = SessionManager(behind)
    token = str(stored(plain, n=1).token)
    session = plain.open(token, replay=True)
    session.commit()
    session["n"] += 1
    other = plain.open(token)
    other["n"] = 5
    other.commit()
    session.commit_late()
    assert plain.open(token) == {"n": 2}
    assert "n changed while in use" in caplog.text


def test_a_late_write_to_what_has_ended_is_dropped(manager: SessionManager) -> None:
    """P2: it would need no cookie, for it will never be stored."""
    session = stored(manager, n=1)
    old = str(session.token)
    session.regenerate()
    session.commit()
    late = manager.open(old)
    assert late == {}
    late.commit()
    late["n"] = 2
    late.commit_late()
    assert manager.open(old) == {}


def test_auto_off_saves_nothing_late(clock: Clock) -> None:
    """Only save() persists, after the headers too."""
    manager = SessionManager(MemoryStore(), Options(auto=False))
    session = stored(manager, n=1)
    assert session["n"] == 1
    session.commit()
    session["n"] = 2
    session.commit_late()
    assert reopened(manager, session) == {"n": 1}


@pytest.mark.parametrize(
    "verb",
    [
        lambda s: s.rotate(),
        lambda s: s.regenerate(),
        lambda s: s.login("ann"),
        lambda s: s.invalidate(),
    ],
)
def test_a_change_of_identity_is_refused_after_the_headers(
    manager: SessionManager, verb: Any
) -> None:
    """The client could not learn of it; the session stays as it is."""
    session = stored(manager, n=1)
    assert session["n"] == 1
    session.commit()
    with pytest.raises(SessionClosed, match="the headers have left"):
        verb(session)
    session.commit_late()
    assert reopened(manager, session) == {"n": 1}


@pytest.mark.parametrize(
    "verb",
    [
        lambda s: s.update(n=1),
        lambda s: s.clear(),
        lambda s: s.save(),
        lambda s: setattr(s, "modified", True),
        lambda s: s.set_expiry(60),
        lambda s: s.set_test_cookie(),
        lambda s: s.delete_test_cookie(),
    ],
)
def test_a_new_session_is_refused_after_the_headers(
    manager: SessionManager, verb: Any
) -> None:
    """Whatever would need a cookie says so."""
    session = manager.create()
    assert session == {}
    session.commit()
    with pytest.raises(SessionClosed, match="the headers have left"):
        verb(session)
