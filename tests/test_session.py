"""A session is a dict that loads itself, sees every change, and ends for good."""

from __future__ import annotations

import collections.abc
import json
import logging
from datetime import datetime, timezone
from typing import Any

import pytest

from wsgisession import (
    Options,
    SerializationError,
    Session,
    SessionClosed,
    SessionManager,
    SessionTooLarge,
)
from wsgisession._access import access_of
from wsgisession.stores.memory import MemoryStore

from .conftest import SECRET, Clock, CountingStore, key_of, reopened, stored


@pytest.fixture
def manager(clock: Clock) -> SessionManager:
    return SessionManager(MemoryStore(), clock=clock)


def finish(session: Session) -> None:
    """What the middleware does when the request is over."""
    access = access_of(session)
    access.commit()
    access.close()


# -- a mapping ---------------------------------------------------------------------------


def test_it_is_a_mutable_mapping(manager: SessionManager) -> None:
    """Everything that a dict can do by name, a session can."""
    session = stored(manager, a=1, b=[2])
    assert isinstance(session, collections.abc.MutableMapping)
    assert len(session) == 2
    assert list(session) == ["a", "b"]
    assert dict(session.items()) == {"a": 1, "b": [2]} == session.copy()
    assert session == {"a": 1, "b": [2]}
    assert session != {"a": 1}
    assert "a" in session
    assert 5 not in session
    assert [] not in session
    assert session.get("z") is None
    assert session.get("z", 3) == 3
    assert session.setdefault("c", 4) == 4
    assert session.pop("c") == 4
    assert session.pop("c", None) is None
    assert session.popitem() in (("a", 1), ("b", [2]))
    same = session
    session |= {"d": 5}
    session.update({"e": 1}, f=2)
    assert session is same
    assert session | {"d": 6} == session.copy() | {"d": 6}
    assert {"d": 6} | session == {"d": 6} | session.copy()
    assert type(session | {}) is type({} | session) is dict
    del session["d"]
    session.clear()
    assert not session
    for missing in (lambda: session["nothing"], lambda: session.pop("nothing")):
        with pytest.raises(KeyError, match="nothing"):
            missing()
    with pytest.raises(KeyError):
        del session["nothing"]
    with pytest.raises(KeyError):
        session.popitem()


def test_what_was_set_comes_back(manager: SessionManager) -> None:
    """Values survive the way through the store."""
    when = datetime.now(timezone.utc)
    values = {"when": when, "pair": (1, [2]), "keys": {1: "a", "b": b"c"}}
    assert stored(manager, **values).copy() == values


def test_none_is_a_value(manager: SessionManager) -> None:
    """A key that holds None is there, and the default is not asked."""
    session = stored(manager, a=None)
    assert "a" in session
    assert session.get("a", 5) is None
    assert session.setdefault("a", 5) is None


@pytest.mark.parametrize("key", [1, None, b"a", ("a",)])
def test_keys_are_strings(manager: SessionManager, key: Any) -> None:
    """Another key is refused where it is written, not at the save."""
    session = manager.create()
    with pytest.raises(TypeError, match="session keys are strings, not"):
        session[key] = 1


# -- what is not put into it -------------------------------------------------------------


def test_none_of_our_keys_is_among_the_users(manager: SessionManager) -> None:
    """What the library keeps about a session is not in the mapping."""
    session = manager.create()
    session.login("ann", device="phone")
    session.set_expiry(300)
    session.set_test_cookie()
    session.save()
    again = reopened(manager, session)
    assert again == {}
    assert again.user == "ann"
    assert again.login_details == {"device": "phone"}
    assert again.test_cookie_worked()
    assert again.get_expiry_age() == 300


def test_an_unserializable_value_is_refused_by_its_path(
    manager: SessionManager,
) -> None:
    """The error says where it is, and what was stored stays."""
    session = stored(manager, cart=[{"price": 1}])
    session["cart"][0]["price"] = object()
    assert session.modified
    with pytest.raises(SerializationError, match=r"cart\[0\]\['price'\]") as caught:
        session.save()
    assert caught.value.path == "cart[0]['price']"
    assert reopened(manager, session) == {"cart": [{"price": 1}]}


def test_a_custom_serializers_error_names_the_key() -> None:
    """Whatever the caller's serializer raises, the key is known."""
    manager = SessionManager(MemoryStore(), Options(serializer=json))
    session = manager.create()
    session.update(fine=1, bad={1, 2})
    with pytest.raises(SerializationError, match="bad cannot be stored: TypeError"):
        session.save()


def test_too_large_a_session_is_refused_with_its_biggest_keys() -> None:
    """Nothing is cut off, and nothing is written."""
    manager = SessionManager(MemoryStore(), Options(max_size=2000))
    session = manager.create()
    session.update(small=1, big="x" * 3000, medium="y" * 500)
    with pytest.raises(SessionTooLarge) as caught:
        session.save()
    assert caught.value.keys == ("big", "medium", "small")
    assert caught.value.limit == 2000 < caught.value.size
    assert list(manager.sessions()) == []


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_cookie_that_grows_too_large_is_refused(chunks: int) -> None:
    """What no browser would keep is an error, and the session stays as it was."""
    manager = SessionManager.from_config(
        url="cookie:", secret=SECRET, cookie_chunks=chunks
    )
    session = stored(manager, n=1)
    token = manager.token_of(session)
    session["n"] = "x" * 9000
    with pytest.raises(SessionTooLarge) as caught:
        session.save()
    assert caught.value.limit == 4096 * chunks < caught.value.size
    assert manager.open(str(token)) == {"n": 1}


def test_a_token_is_shown_nowhere(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """P5: no repr, no attribute, no error and no log line holds it."""
    caplog.set_level(logging.DEBUG)
    session = stored(manager, n=1)
    session.login("ann")
    session.save()
    token = str(manager.token_of(session))
    record = manager.store.load(key_of(session))
    assert repr(session) == f"<Session {session.id[:8]} ['n']>"
    manager.open(token[:-4] + "AAAA").get("n")
    shown = [repr(session), repr(record), repr(manager.recognised([token]))]
    named = [str(getattr(session, name)) for name in dir(session) if name[0] != "_"]
    for text in [*shown, *named, caplog.text, repr(vars(manager.store))]:
        assert token not in text
        assert token[22:] not in text, "the part of it that is secret"


# -- what it is for who works with it ----------------------------------------------------


@pytest.mark.parametrize(
    "name", ["modifed", "permanent", "token", "ended", "id", "user", "expires", "n"]
)
@pytest.mark.parametrize("is_begun", [False, True])
def test_a_misspelt_attribute_raises(
    manager: SessionManager, name: str, is_begun: bool
) -> None:
    """A wish that nobody would have obeyed does not pass in silence."""
    session = stored(manager, n=1)
    if is_begun:
        assert session["n"] == 1
    with pytest.raises(AttributeError):
        setattr(session, name, True)
    assert session == {"n": 1}


def test_its_members_are_few() -> None:
    """So that ``help(Session)`` can be read: what a dict has, and some thirty more."""
    names = {name for name in dir(Session) if not name.startswith("_")}
    mapping = {name for name in dir(dict) if not name.startswith("_")}
    assert len(names) <= 45
    assert mapping - names == {"fromkeys"}
    assert not names & {"token", "commit", "close", "has_key", "invalidate", "delete"}


class Named(Session):
    """A view with the names of a framework."""

    __slots__ = ()

    @property
    def permanent(self) -> bool:
        return not self.get_expire_at_browser_close()

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self.set_expiry(None if value else 0)

    def invalidate(self) -> None:
        self.flush()


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_view_is_the_same_session(is_begun: bool) -> None:
    """A subclass that shares the state, whichever is used first; one load for both."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store)
    session = stored(manager, cart=[1])
    store.calls.clear()
    if is_begun:
        assert session["cart"] == [1]
    view = session.view(Named)
    assert type(view) is Named
    view["n"] = 2
    view["cart"].append(2)
    assert session == view == {"cart": [1, 2], "n": 2}
    assert session["cart"] is view["cart"]
    assert view.view(Session) == session
    view.permanent = False
    assert session.get_expire_at_browser_close()
    session.save()
    assert not view.modified
    assert store.calls == ["load", "save"]
    view.invalidate()
    assert session == {}
    finish(session)
    with pytest.raises(SessionClosed):
        view["n"] = 1
    with pytest.raises(AttributeError):
        view.permanet = True  # type: ignore[attr-defined]


# -- lives -------------------------------------------------------------------------------


def test_a_new_session_has_a_life_of_its_own(manager: SessionManager) -> None:
    """It is new, has an id before it has a token, and is stored by ``save()``."""
    session = manager.create()
    assert session.new
    assert not session.ended
    assert len(session.id) == 32
    session["a"] = 1
    session.save()
    again = reopened(manager, session)
    assert not again.new
    assert again.id == session.id
    assert again.created == session.created
    assert again.created.tzinfo is timezone.utc


@pytest.mark.parametrize(
    "token",
    ["", "x", "A" * 63, "A" * 64, "A" * 65, "../../etc/passwd", "é" * 64]
    + ["\x00" * 64, "A" * 9999],
)
@pytest.mark.parametrize("locking", [False, True])
def test_pitfall_an_id_that_we_did_not_issue_is_never_adopted(
    manager: SessionManager, token: str, locking: bool
) -> None:
    """P3: whatever a client invents, the session is new and its token another."""
    session = manager.open(token, locking=locking)
    assert manager.token_of(session) is None
    session["a"] = 1
    session.save()
    assert session.new
    assert session.id != "00" * 16
    assert manager.token_of(session) != token
    assert manager.open(token).new


@pytest.mark.parametrize("locking", [False, True])
def test_pitfall_a_lock_for_a_forged_cookie_stores_nothing(
    manager: SessionManager, locking: bool
) -> None:
    """P7: a view that only reads under a lock makes no empty row."""
    session = manager.open("A" * 64, locking=locking)
    with session.lock():
        assert session.get("n") is None
    session.unlock()
    finish(session)
    assert list(manager.sessions()) == []


@pytest.mark.parametrize(
    ("locking", "calls"), [(False, ["load"]), (True, ["lock", "unlock"])]
)
def test_a_session_that_is_over_is_left_unlocked(
    clock: Clock, locking: bool, calls: list[str]
) -> None:
    """There is nothing to write in it, and nobody has to wait for it."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store, clock=clock)
    token = str(manager.token_of(stored(manager, n=1)))
    clock.pass_by(15 * 86400)
    store.calls.clear()
    session = manager.open(token, locking=locking)
    assert session == {}
    finish(session)
    assert store.calls == calls


def test_an_empty_session_is_stored_by_save(manager: SessionManager) -> None:
    """``save()`` makes the token, whatever is in it; ``unlock()`` does not."""
    session = manager.create()
    session.unlock()
    assert manager.token_of(session) is None
    session.save()
    assert not reopened(manager, session).new


@pytest.mark.parametrize("verb", ["flush", "logout", "clear"])
def test_an_end_leaves_nothing(manager: SessionManager, verb: str) -> None:
    """The record goes, the object is empty, and nothing is stored in its place."""
    session = stored(manager, n=1)
    session.login("ann")
    session.save()
    token = manager.token_of(session)
    session = reopened(manager, session)
    getattr(session, verb)()
    assert session == {}
    assert session.user is None
    assert session.new
    finish(session)
    assert manager.open(str(token)).new
    assert list(manager.sessions()) == []


def test_what_is_written_after_an_end_begins_anew(
    manager: SessionManager, clock: Clock
) -> None:
    """Under the same id: no old value, no user, a beginning of its own."""
    session = stored(manager, n=1)
    session.login("ann", device="phone")
    session.set_expiry(300)
    session.save()
    old, id, began = manager.token_of(session), session.id, session.created
    clock.pass_by(100)
    session = reopened(manager, session)
    session.flush()
    session["m"] = 2
    session.save()
    assert manager.open(str(old)) == {}
    again = reopened(manager, session)
    assert again == {"m": 2}
    assert (again.id, again.user, again.login_details) == (id, None, {})
    assert (again.created - began).total_seconds() == pytest.approx(100)
    assert again.get_expiry_age() == 14 * 86400


# -- users -------------------------------------------------------------------------------


def test_login_of_the_same_user_again_keeps_the_data(manager: SessionManager) -> None:
    """Re-authentication changes the token and nothing else (OWASP ASVS 7.2.4)."""
    session = manager.create()
    session.login("ann", device="phone")
    session["cart"] = [1]
    session.save()
    old = manager.token_of(session)
    session = reopened(manager, session)
    session.login("ann", device="laptop")
    session.save()
    assert manager.token_of(session) != old
    again = reopened(manager, session)
    assert (again.user, again["cart"]) == ("ann", [1])
    assert again.login_details == {"device": "laptop"}


def test_what_is_told_of_a_login_is_a_copy(manager: SessionManager) -> None:
    """Changing it changes nothing."""
    session = stored(manager)
    session.login("ann", device="phone")
    session.login_details["device"] = "laptop"  # type: ignore[index]
    assert session.login_details == {"device": "phone"}


@pytest.mark.parametrize("user", ["", None, True, b"ann"])
def test_login_needs_a_name(manager: SessionManager, user: Any) -> None:
    """Anything but a string that is not empty is refused."""
    with pytest.raises(TypeError, match="a string or a whole number, not"):
        manager.create().login(user)


def test_the_test_cookie(manager: SessionManager) -> None:
    """It works when it has come back, not in the request that set it."""
    session = manager.create()
    session.set_test_cookie()
    assert not session.test_cookie_worked()
    finish(session)
    (again,) = manager.sessions()  # Django's login page stores nothing else
    assert again.test_cookie_worked()
    again.delete_test_cookie()
    again.save()
    (again,) = manager.sessions()
    assert not again.test_cookie_worked()


# -- what it costs -----------------------------------------------------------------------


def test_nothing_happens_until_it_is_touched() -> None:
    """P4: opening, committing and closing cost no store call."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store)
    session = stored(manager, n=1)
    store.calls.clear()
    assert not session.accessed
    assert not session.locked
    assert repr(session) == "<Session not accessed>"
    finish(session)
    assert store.calls == []


@pytest.mark.parametrize(
    ("work", "calls", "locking"),
    [
        (lambda s: s.get("n"), ["load"], ["lock", "unlock"]),
        (lambda s: s.__setitem__("n", s["n"] + 1), ["load", "save"], ["lock", "save"]),
        (lambda s: s["cart"].append(1), ["load", "save"], ["lock", "save"]),
        (lambda s: s.flush(), ["load", "delete"], ["load", "delete"]),
        (lambda s: s.clear(), ["load", "delete"], ["load", "delete"]),
        (lambda s: s.login("ann"), ["load", "save"], ["lock", "save"]),
        (lambda s: s.rotate(), ["load", "save"], ["lock", "save"]),
        (lambda s: s.save(), ["load"], ["lock", "unlock"]),
        (lambda s: (s.login("a"), s.save()), ["load", "save"], ["lock", "save"]),
    ],
)
def test_store_calls(work: Any, calls: list[str], locking: list[str]) -> None:
    """P4: one for a read, two for a read-modify-write; an end takes no lock."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store)
    for locks, expected in ((False, calls), (True, locking)):
        token = str(manager.token_of(stored(manager, n=1, cart=[])))
        store.calls.clear()
        session = manager.open(token, locking=locks)
        work(session)
        access_of(session).commit()
        assert not session.locked
        access_of(session).close()
        assert store.calls == expected


def test_a_new_session_costs_one_call() -> None:
    """P4: a first visitor is stored by one save, logged in or not."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store)
    for work in (lambda s: s.update(a=1), lambda s: s.login("ann")):
        store.calls.clear()
        session = manager.create()
        work(session)
        finish(session)
        assert store.calls == ["save"]


def test_what_is_known_about_it_takes_no_lock_again(manager: SessionManager) -> None:
    """After ``save()`` the token can be handed on, and nobody need wait for us."""
    store = CountingStore(manager.store)
    manager = SessionManager(store)
    token = str(manager.token_of(stored(manager, n=1)))
    session = manager.open(token, locking=True)
    session["n"] = 2
    session.save()
    store.calls.clear()
    known = [session.id, session.user, session.new, session.created, session.ended]
    known += [session.expires, session.last_accessed, session.login_details]
    known += [session.get_expiry_age(), session.test_cookie_worked()]
    assert manager.token_of(session) == token
    assert store.calls == []
    assert not session.locked
    assert manager.open(token, locking=True)["n"] == 2


# -- after the request -------------------------------------------------------------------


@pytest.mark.parametrize("locking", [False, True])
def test_it_may_be_read_after_its_request(
    manager: SessionManager, locking: bool
) -> None:
    """From memory: a template that is rendered late, a line in a log."""
    store = CountingStore(manager.store)
    manager = SessionManager(store)
    token = str(manager.token_of(stored(manager, n=1, cart=[1])))
    session = manager.open(token, locking=locking)
    session["n"] = 2
    session.save()
    finish(session)
    store.calls.clear()
    assert session["n"] == 2
    assert session.get("z") is None
    assert ("n" in session, len(session), sorted(session)) == (True, 2, ["cart", "n"])
    assert session == {"n": 2, "cart": [1]} == session.copy()
    assert (session.user, session.new, session.ended) == (None, False, False)
    assert session.id in repr(session) or session.id[:8] in repr(session)
    assert manager.token_of(session) == token
    assert not session.modified
    assert not session.locked
    assert store.calls == []


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.__setitem__("n", 1),
        lambda s: s.__delitem__("n"),
        lambda s: s.pop("n"),
        lambda s: s.update(n=2),
        lambda s: s.setdefault("new", 1),
        lambda s: s.clear(),
        lambda s: s.flush(),
        lambda s: s.logout(),
        lambda s: s.save(),
        lambda s: s.revert(),
        lambda s: s.lock(),
        lambda s: s.unlock(),
        lambda s: s.login("ann"),
        lambda s: s.rotate(),
        lambda s: s.regenerate(),
        lambda s: s.set_expiry(60),
        lambda s: s.set_test_cookie(),
        lambda s: setattr(s, "modified", True),
    ],
)
def test_pitfall_what_outlives_its_request_is_closed(
    manager: SessionManager, use: Any
) -> None:
    """GitHub, 2021: an object that was kept must not serve another client's request."""
    session = stored(manager, n=1)
    assert session["n"] == 1
    finish(session)
    with pytest.raises(SessionClosed, match="request is over"):
        use(session)
    assert session.copy() == {"n": 1} == reopened(manager, session).copy()


def test_an_untouched_session_closed_stays_closed(manager: SessionManager) -> None:
    """What would need the store is refused, a look included."""
    session = stored(manager, n=1)
    finish(session)
    for use in (
        lambda: session["n"],
        lambda: len(session),
        lambda: session.id,
        lambda: session.flush(),
        lambda: session.lock(),
    ):
        with pytest.raises(SessionClosed, match="must open the session by the manager"):
            use()
    assert repr(session) == "<Session not accessed>"
    assert not session.modified
