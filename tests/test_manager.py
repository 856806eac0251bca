"""Sessions outside a request: opened, edited, listed, ended, swept."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest

from wsgisession import (
    Capabilities,
    ConfigurationError,
    LockTimeout,
    Options,
    SessionEnded,
    SessionManager,
    StoreError,
)
from wsgisession.stores.memory import MemoryStore

from .conftest import Clock, CountingStore, key_of, reopened, stored


@pytest.fixture
def manager(store: Any) -> SessionManager:
    return SessionManager(store)


def logged_in(manager: SessionManager, user: str, **values: Any) -> str:
    """The id of a stored session of a user."""
    session = manager.create()
    session.login(user)
    session.update(values)
    session.save()
    return session.id


def test_a_session_without_a_request(manager: SessionManager) -> None:
    """Created, saved, opened by its token, as in a job or a shell."""
    session = manager.create()
    session["last_login"] = 1376587691
    session.save()
    token = manager.token_of(session)
    assert token is not None
    assert manager.open(token)["last_login"] == 1376587691
    assert manager.open_cookie(f"a=b; sid={token}")["last_login"] == 1376587691


def test_a_client_without_a_token_gets_a_new_session(manager: SessionManager) -> None:
    """As a header that may be missing is read."""
    session = manager.open(None)
    assert session.new
    session["a"] = 1
    session.save()
    assert len(list(manager.sessions())) == 1


def test_get_by_id(manager: SessionManager) -> None:
    """An id is enough for administration, and gives no token away."""
    id = logged_in(manager, "ann", n=1)
    session = manager.get(id)
    assert session is not None
    assert (session["n"], session.user, session.id) == (1, "ann", id)
    assert manager.token_of(session) is None
    session["n"] = 2
    session.save()
    found = manager.get(id)
    assert found is not None
    assert found["n"] == 2
    for unknown in ("0" * 32, "", "x", "../x", "\0"):
        assert manager.get(unknown) is None


def test_edit_holds_the_lock(manager: SessionManager) -> None:
    """For the length of the block, and saves at its end."""
    id = logged_in(manager, "ann", n=1)
    with manager.edit(id) as session:
        assert session.locked
        session["n"] += 1
        with pytest.raises(LockTimeout):
            manager.get(id).lock(wait=0.05)  # type: ignore[union-attr]
    found = manager.get(id)
    assert found is not None
    assert found["n"] == 2


def test_edit_drops_what_an_exception_left(manager: SessionManager) -> None:
    """All or nothing, and the lock is free again."""
    id = logged_in(manager, "ann", n=1)
    with suppress(ZeroDivisionError), manager.edit(id) as session:
        session["n"] = 2
        raise ZeroDivisionError
    with manager.edit(id) as session:
        assert session["n"] == 1


def test_edit_of_nothing(manager: SessionManager) -> None:
    """A session that is not there is a KeyError, and is not made."""
    with pytest.raises(KeyError), manager.edit("0" * 32):
        raise AssertionError("not reached")
    assert list(manager.sessions()) == []


def test_clear_in_edit_drops_the_values(manager: SessionManager) -> None:
    """No client can be given a new token there: the session lives on, and its token."""
    session = stored(manager, n=1)
    token = str(manager.token_of(session))
    with manager.edit(session.id) as edited:
        edited.clear()
        edited["m"] = 2
    assert manager.open(token) == {"m": 2}
    assert manager.open(token).id == session.id


def test_flush_in_edit_ends(manager: SessionManager) -> None:
    """No token leads anywhere any more."""
    session = stored(manager, n=1)
    with manager.edit(session.id) as edited:
        edited.flush()
    assert reopened(manager, session).new
    assert list(manager.sessions()) == []


def test_edit_saves_whatever_the_options_say(store: Any, clock: Clock) -> None:
    """``auto=False`` is for requests; and no token is changed that nobody would learn."""
    options = Options(auto=False, rotate_every=3600)
    manager = SessionManager(store, options, clock=clock)
    session = stored(manager, n=1)
    token = str(manager.token_of(session))
    clock.pass_by(3601)
    with manager.edit(session.id) as edited:
        edited["n"] = 2
    assert manager.open(token) == {"n": 2}
    record = store.load(key_of(session))
    assert record.replaced == ()


def test_end(manager: SessionManager) -> None:
    """Ended by id, once."""
    id = logged_in(manager, "ann")
    assert manager.end(id)
    assert not manager.end(id)
    assert manager.get(id) is None


def test_end_of_one_user(manager: SessionManager) -> None:
    """With ``user`` only what is that user's, so that any id of a form may be given."""
    mine, theirs = logged_in(manager, "42"), logged_in(manager, "bob")
    manager.create().save()  # one without a user
    with manager.edit_user_data("42") as data:
        data["n"] = 1
    known = {record.id for record in manager.store.records()}
    for id in (
        *known - {mine},
        "",
        "../x",
        "\0",
        "\ud800",
        "x" * 100_000,
        mine.upper(),
    ):
        assert not manager.end(id, user=42), id[:40]
    assert {record.id for record in manager.store.records()} == known
    assert manager.end(mine, user=42)
    assert manager.get(mine) is None
    assert manager.get(theirs) is not None


def test_a_users_sessions(manager: SessionManager) -> None:
    """P10: listed, and ended all or all but one."""
    mine = [logged_in(manager, "ann", device=n) for n in range(3)]
    other = logged_in(manager, "bob")
    listed = {s.id: s["device"] for s in manager.sessions_of("ann")}
    assert listed == dict(zip(mine, range(3), strict=True))
    assert manager.end_user("ann", keep=mine[1]) == 2
    assert [s.id for s in manager.sessions_of("ann")] == [mine[1]]
    assert manager.end_user("ann") == 1
    assert manager.end_user("ann") == 0
    assert [s.id for s in manager.sessions()] == [other]


def test_an_ended_users_request_in_flight_brings_nothing_back(
    manager: SessionManager,
) -> None:
    """P10 and P2 together: a password change ends a thief's session for good."""
    id = logged_in(manager, "ann", n=1)
    thief = manager.get(id)
    assert thief is not None
    assert thief["n"] == 1
    manager.end_user("ann")
    thief["n"] = 2
    with pytest.raises(SessionEnded):
        thief.save()
    assert thief.ended
    assert list(manager.sessions()) == []


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda s: s.update(n=1), []),
        (lambda s: s.rotate(), []),
        (lambda s: s.regenerate(), []),
        (lambda s: s.login("bob"), ["bob"]),
    ],
    ids=["save", "rotate", "regenerate", "another user"],
)
def test_end_user_beside_a_request_of_the_session(
    store: Any, change: Any, left: list[str]
) -> None:
    """P10: a session that changes after it was listed is ended too, if it is theirs."""
    manager = SessionManager(store)
    id = logged_in(manager, "ann")

    class Racing(CountingStore):
        """Changes the session right after it was listed."""

        is_armed = True

        def __init__(self) -> None:
            super().__init__(store)
            self.records = self.list_and_change

        def list_and_change(self, *, user: str | None = None) -> Any:
            listed = list(store.records(user=user))
            if self.is_armed:
                self.is_armed = False
                session = manager.get(id)
                assert session is not None
                change(session)
                session.save()
            return iter(listed)

    ended = SessionManager(Racing()).end_user("ann")
    assert ended == (0 if left else 1)
    assert [each.user for each in manager.sessions()] == left


def test_expired_sessions_are_swept(store: Any) -> None:
    """In batches, with progress, and nothing else goes; Redis needs no broom."""
    past = SessionManager(store, clock=lambda: time.time() - 60 * 86400)
    for number in range(5):
        logged_in(past, f"user{number}")
    manager = SessionManager(store)
    alive = logged_in(manager, "ann")
    told: list[int] = []
    assert [manager.delete_expired(told.append)] == (told[-1:] or [0])
    assert told in ([5], [])
    assert manager.delete_expired() == 0
    assert [s.id for s in manager.sessions()] == [alive]


def test_pitfall_a_rotation_makes_no_second_session(manager: SessionManager) -> None:
    """One session is one in every list, whatever became of its token."""
    session = manager.create()
    session.login("ann")
    session.save()
    for verb in ("rotate", "regenerate", "rotate"):
        session = reopened(manager, session)
        getattr(session, verb)()
        session.save()
    assert [each.id for each in manager.sessions()] == [session.id]
    assert [each.id for each in manager.sessions_of("ann")] == [session.id]
    assert manager.end_user("ann") == 1


def test_listing_leaves_out_what_the_options_ended(clock: Clock) -> None:
    """A session whose time is over by the options of today is not listed."""
    manager = SessionManager(MemoryStore(), clock=clock)
    logged_in(manager, "ann")
    clock.pass_by(15 * 86400)
    assert list(manager.sessions_of("ann")) == []


@pytest.mark.parametrize(
    "verb", ["sessions", "sessions_of", "end_user", "delete_expired"]
)
def test_a_store_that_cannot_list_says_so(verb: str) -> None:
    """The sentence names the store and what it lacks."""
    store = MemoryStore()

    class Four:
        load, save, touch, delete = store.load, store.save, store.touch, store.delete
        capabilities = Capabilities()

    call = getattr(SessionManager(Four()), verb)
    with pytest.raises(ConfigurationError, match="Four cannot list its sessions"):
        list(call("ann") if "user" in verb or "_of" in verb else call())


def test_what_is_no_store_is_refused() -> None:
    """At construction, by the methods that are missing."""
    with pytest.raises(ConfigurationError, match="dict is no store"):
        SessionManager({})  # type: ignore[arg-type]


def test_a_store_that_is_less_than_it_says_is_refused() -> None:
    """A misspelt method is found at construction, not at the first request."""
    store = MemoryStore()

    class Four:
        load, save, touch, delete = store.load, store.save, store.touch, store.delete

    for can, lacks in (
        (Capabilities(locks=True), "LockingStore"),
        (Capabilities(lists=True), "IterableStore"),
        (Capabilities(ends_users=True), "UserEndingStore"),
    ):
        four = Four()
        four.capabilities = can  # type: ignore[attr-defined]
        with pytest.raises(ConfigurationError, match=f"lacks methods of .*{lacks}"):
            SessionManager(four)  # type: ignore[arg-type]


def test_a_broken_store_is_an_error_and_not_an_absence() -> None:
    """P8: get() of a session does not say None when the store is away."""

    class Away(MemoryStore):
        def load(self, key: Any) -> Any:
            raise StoreError("away")

    with pytest.raises(StoreError):
        SessionManager(Away()).get("0" * 32)
