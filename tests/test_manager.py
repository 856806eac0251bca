"""Sessions outside a request: opened, edited, listed, ended, swept."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest

from wsgisession import (
    ConfigurationError,
    LockTimeout,
    SessionManager,
    StoreError,
)
from wsgisession.stores.memory import MemoryStore

from .conftest import Clock, CountingStore


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
    assert session.token is not None
    assert manager.open(session.token)["last_login"] == 1376587691


def test_get_by_id(manager: SessionManager) -> None:
    """An id is enough for administration, and gives no token away."""
    id = logged_in(manager, "ann", n=1)
    session = manager.get(id)
    assert session is not None
    assert (session["n"], session.user, session.id) == (1, "ann", id)
    assert session.token is None
    session["n"] = 2
    session.save()
    found = manager.get(id)
    assert found is not None
    assert found["n"] == 2
    assert manager.get("0" * 64) is None


def test_edit_holds_the_lock(manager: SessionManager) -> None:
    """For the length of the block, and saves at its end."""
    id = logged_in(manager, "ann", n=1)
    with manager.edit(id) as session:
        assert session.locked
        session["n"] += 1
        with pytest.raises(LockTimeout):
            manager.store.lock(_key(id), wait=0.05, lease=1)  # type: ignore[attr-defined]
    found = manager.get(id)
    assert found is not None
    assert found["n"] == 2


def _key(id: str) -> Any:
    from wsgisession import Key

    return Key(id)


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
    with pytest.raises(KeyError), manager.edit("0" * 64):
        raise AssertionError("not reached")
    assert list(manager.sessions()) == []


def test_end(manager: SessionManager) -> None:
    """Ended by id, once."""
    id = logged_in(manager, "ann")
    assert manager.end(id)
    assert not manager.end(id)
    assert manager.get(id) is None


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
    thief.save()
    assert list(manager.sessions()) == []


def test_end_user_follows_a_change_of_identity(store: Any) -> None:
    """P10: a session that regenerates while the user is being ended is ended too."""
    manager = SessionManager(store)
    id = logged_in(manager, "ann")

    class Racing(CountingStore):
        """Regenerates the session right after it was listed."""

        armed = True

        def __init__(self) -> None:
            super().__init__(store)
            self.records = self.list_and_regenerate

        def list_and_regenerate(self, *, user: str | None = None) -> Any:
            listed = list(store.records(user=user))
            if self.armed:
                self.armed = False
                session = manager.get(id)
                assert session is not None
                session.regenerate()
                session.commit()
            return iter(listed)

    assert SessionManager(Racing()).end_user("ann") == 2
    assert list(manager.sessions_of("ann")) == []


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

    call = getattr(SessionManager(Four()), verb)
    with pytest.raises(ConfigurationError, match="Four cannot list its sessions"):
        list(call("ann") if "user" in verb or "_of" in verb else call())


def test_what_is_no_store_is_refused() -> None:
    """At construction, by the methods that are missing."""
    with pytest.raises(ConfigurationError, match="dict is no store"):
        SessionManager({})  # type: ignore[arg-type]


def test_a_broken_store_is_an_error_and_not_an_absence() -> None:
    """P8: get() of a session does not say None when the store is away."""

    class Away(MemoryStore):
        def load(self, key: Any) -> Any:
            raise StoreError("away")

    with pytest.raises(StoreError):
        SessionManager(Away()).get("0" * 64)
