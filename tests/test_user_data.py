"""``session.user_data``: what all sessions of a user share, with the same promises.

Each test is about two sessions of one user, on every store on a server.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from wsgisession import (
    ConfigurationError,
    LockTimeout,
    Options,
    SerializationError,
    Session,
    SessionConflict,
    SessionEnded,
    SessionError,
    SessionManager,
    StoreError,
    UserData,
    events,
)
from wsgisession._core.reserved import Purpose, key_of
from wsgisession.stores.memory import MemoryStore
from wsgisession.testing import in_threads

from .conftest import SECRET, CountingStore, Visitor, Watch

Handler = Callable[[Session], object]


def append(session: Session) -> None:
    session.user_data.setdefault("cart", []).append(session["device"])


def increment(session: Session) -> int:
    count: int = session.user_data.get("n", 0) + 1
    session.user_data["n"] = count
    return count


def both(session: Session) -> None:
    """A change of the session, and one of the user's data."""
    session["n"] = session.get("n", 0) + 1
    increment(session)


HANDLERS: dict[str, Handler] = {
    "/phone": lambda s: (s.login("ann"), s.update(device="phone")),
    "/laptop": lambda s: (s.login("ann"), s.update(device="laptop")),
    "/bob": lambda s: s.login("bob"),
    "/append": append,
    "/increment": increment,
    "/both": both,
    "/cart": lambda s: s.user_data.get("cart"),
    "/n": lambda s: s.user_data.get("n"),
    "/all": lambda s: dict(s.user_data),
    "/own": lambda s: s.get("n"),
    "/user": lambda s: s.user,
    "/logout": lambda s: s.logout(),
}


class Household:
    """Two devices of ann, and what they share."""

    def __init__(self, store: Any, **options: Any) -> None:
        self.manager = SessionManager(store, Options(**options))
        self.handlers = dict(HANDLERS)
        self.phone = self._device("/phone")
        self.laptop = self._device("/laptop")

    def _device(self, page: str) -> Visitor:
        device = Visitor(self.manager, self.handlers)
        device.post(page)
        return device

    def token(self, device: Visitor) -> str:
        return str(device.cookies["sid"])


@pytest.fixture
def home(store: Any) -> Household:
    return Household(store)


# -- what is shared ----------------------------------------------------------------------


def test_what_one_device_writes_the_other_reads(home: Household) -> None:
    """A list, changed inside; the sessions themselves stay apart."""
    home.phone.post("/append")
    home.laptop.post("/append")
    home.phone.get("/append")
    assert home.laptop.get("/cart").text == "['phone', 'laptop', 'phone']"
    home.phone.post("/both")
    assert home.laptop.get("/n").text == "1"
    assert home.laptop.get("/own").text == "None"


def test_it_is_a_mapping(home: Household) -> None:
    """With all that a dict can, and a session can."""
    session = home.manager.open(home.token(home.phone))
    data = session.user_data
    assert isinstance(data, UserData)
    assert data == {}
    data.update(a=1, b=[2])
    data["c"] = {"d": 3}
    del data["a"]
    assert data | {"e": 5} == {"b": [2], "c": {"d": 3}, "e": 5}
    assert (len(data), "b" in data, data.pop("b")) == (2, True, [2])
    assert repr(data) == "<UserData of 'ann'>"
    with pytest.raises(TypeError, match="strings"):
        data[1] = 2  # type: ignore[index]
    data["d"] = object()
    with pytest.raises(SerializationError):
        data.save()
    del data["d"]
    session.save()
    assert home.laptop.get("/all").text == "{'c': {'d': 3}}"
    data.clear()
    session.save()
    assert home.laptop.get("/all").text == "{}"


def test_it_outlives_the_sessions(home: Household) -> None:
    """The next login finds it, and another user does not."""
    home.phone.post("/increment")
    home.phone.post("/logout")
    home.laptop.post("/logout")
    home.phone.post("/bob")
    assert home.phone.get("/n").text == "None"
    home.phone.post("/phone")
    assert home.phone.get("/n").text == "1"


def test_without_a_user_there_is_none(home: Household) -> None:
    """The message says what to do."""
    session = home.manager.create()
    with pytest.raises(LookupError, match=r"login\(\) first"):
        _ = session.user_data
    assert not session.modified


def test_the_last_request_of_a_session_may_write_it(home: Household) -> None:
    """What was written before the logout in the same request is kept."""
    home.handlers["/bye"] = lambda s: (increment(s), s.logout())
    home.phone.post("/bye")
    assert home.phone.get("/user").text == "None"
    assert home.laptop.get("/n").text == "1"


def test_a_login_may_write_it_at_once(store: Any) -> None:
    """In the same request."""
    home = Household(store)
    home.handlers["/in"] = lambda s: (s.login("carol"), increment(s))
    home.phone.post("/in")
    assert home.phone.get("/n").text == "1"
    assert home.laptop.get("/n").text == "None"


def test_another_user_cannot_log_in_over_unsaved_data(home: Household) -> None:
    """It would be lost, or written to the wrong user."""
    session = home.manager.open(home.token(home.phone))
    data = session.user_data
    data["n"] = 5
    with pytest.raises(SessionError, match=r"'ann' has changes .*save\(\)"):
        session.login("bob")
    data.save()
    session.login("bob")
    with pytest.raises(LookupError, match="no longer one of user 'ann'"):
        data["n"] = 6
    assert "n" not in session.user_data
    session.save()
    assert home.laptop.get("/n").text == "5"


def test_a_failed_request_writes_nothing(home: Household) -> None:
    """As with a session; and the lock is free afterwards."""

    def fail(session: Session) -> None:
        increment(session)
        raise RuntimeError("no")

    home.handlers["/fail"] = fail
    for ask in (home.phone.post, home.phone.get):
        with pytest.raises(RuntimeError):
            ask("/fail")
    home.laptop.post("/increment")
    assert home.laptop.get("/n").text == "1"


def test_without_auto_only_save_writes_it(store: Any) -> None:
    """``session.save()`` writes both, ``user_data.save()`` itself."""
    home = Household(store)
    session = home.manager.open(home.token(home.phone))
    session.user_data["n"] = 1
    session["n"] = 7
    session.user_data.save()
    session.revert()
    session.save()
    assert (home.laptop.get("/n").text, home.phone.get("/own").text) == ("1", "None")
    manual = Household(store, auto=False)
    manual.handlers["/save"] = lambda s: (increment(s), s.save())
    before = home.laptop.get("/n").text
    session = manual.manager.create()
    session.login("ann")
    session.save()
    manual.phone.cookies["sid"] = str(manual.manager.token_of(session))
    manual.phone.post("/increment")
    assert home.laptop.get("/n").text == before
    manual.phone.post("/save")
    assert home.laptop.get("/n").text == str(int(before) + 1)


def test_what_is_written_while_the_body_is_sent_is_kept(home: Household) -> None:
    """It needs no cookie."""
    session = home.manager.open(home.token(home.phone))
    data = session.user_data
    assert data.get("n") is None
    access = session._access
    access.commit()
    access.leave()
    data["n"] = 1
    access.commit_late()
    access.close()
    assert home.laptop.get("/n").text == "1"


# -- no update is lost -------------------------------------------------------------------


@pytest.mark.promise("P1")
@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("page", ["/increment", "/both", "/append"])
def test_two_devices_at_once_lose_nothing(
    home: Household, method: str, page: str
) -> None:
    """P1: six of each device at once, by GET (run again) and POST (one after another)."""
    home.phone.post(page)
    devices = [home.phone, home.laptop]

    def work(number: int) -> None:
        tab = devices[number % 2].another()
        for _ in range(3):
            getattr(tab, method)(page)

    in_threads(4, work)
    if page == "/append":
        cart = home.phone.get("/cart").text
        assert (cart.count("phone"), cart.count("laptop")) == (7, 6)
    else:
        assert home.phone.get("/n").text == "13"
    if page == "/both":
        assert home.phone.get("/own").text == "7"
        assert home.laptop.get("/own").text == "6"


def test_a_get_that_was_overtaken_is_run_again(home: Household) -> None:
    """And nothing of its first run is kept, in the session neither."""
    home.phone.post("/both")
    runs: list[int] = []

    def slow(session: Session) -> None:
        session["runs"] = session.get("runs", 0) + 1
        increment(session)
        runs.append(1)
        if len(runs) == 1:
            home.laptop.post("/increment")

    home.handlers["/slow"] = slow
    home.phone.get("/slow")
    assert len(runs) == 2
    assert home.phone.get("/n").text == "3"
    session = home.manager.open(home.token(home.phone))
    assert session["runs"] == 1


def test_different_keys_are_merged(home: Household) -> None:
    """Without a second run."""
    watch = Watch(events.Merged, events.Replayed)
    home = Household(home.manager.store, on_event=watch)
    late = home.manager.open(home.token(home.phone))
    late.user_data["a"] = 1
    home.laptop.post("/increment")
    late.save()
    assert home.laptop.get("/all").text in ("{'a': 1, 'n': 1}", "{'n': 1, 'a': 1}")
    assert [type(event) for event in watch.seen] == [events.Merged]


@pytest.mark.parametrize("on_conflict", ["ours", "raise", "callable"])
def test_what_can_neither_wait_nor_be_run_again_is_decided(
    store: Any, on_conflict: Any
) -> None:
    """By ``on_conflict``, as for a session; the session is not written before."""

    def add(conflict: Any) -> dict[str, Any]:
        assert conflict.keys == {"n"}
        mine = conflict.ours["n"] - conflict.base.get("n", 0)
        return {**conflict.theirs, "n": conflict.theirs["n"] + mine}

    watch = Watch(events.Conflicted)
    decide = add if on_conflict == "callable" else on_conflict
    home = Household(store, on_conflict=decide, on_event=watch)
    late = home.manager.open(home.token(home.phone))
    increment(late)
    late["n"] = 1
    home.laptop.post("/increment")
    home.laptop.post("/increment")
    if on_conflict == "raise":
        with pytest.raises(SessionConflict) as caught:
            late.save()
        assert caught.value.keys == ("n",)
    else:
        late.save()
    count = {"ours": "1", "raise": "2", "callable": "3"}[on_conflict]
    assert home.laptop.get("/n").text == count
    assert home.phone.get("/own").text == str(None if on_conflict == "raise" else 1)
    assert [event.keys for event in watch.seen] == [("n",)]


def test_of_two_locks_the_session_s_comes_first(home: Household) -> None:
    """So that no two requests wait for each other; a POST holds both to its end."""
    inside, enough = threading.Event(), threading.Event()

    def hold(session: Session) -> None:
        increment(session)
        inside.set()
        enough.wait(20)

    home.handlers["/hold"] = hold
    thread = threading.Thread(target=home.phone.post, args=("/hold",))
    thread.start()
    assert inside.wait(20)
    began = time.monotonic()
    assert home.laptop.get("/n").text == "None"  # a reader waits for nobody
    assert time.monotonic() - began < 2
    other = home.manager.open(home.token(home.laptop), locking=True)
    assert other["device"] == "laptop"
    with pytest.raises(LockTimeout) as caught:
        other.user_data.lock(wait=0)
    assert caught.value.id == key_of(Purpose.USER_DATA, "ann").id
    enough.set()
    thread.join(20)
    assert increment(other) == 2
    other.save()
    assert home.phone.get("/n").text == "2"


def test_a_get_may_hold_both(home: Household) -> None:
    """``user_data.lock()`` takes the session first; the end of a block frees both."""
    session = home.manager.open(home.token(home.phone))
    with session.lock():
        session.user_data.lock()
        assert session.locked
        increment(session)
    assert not session.locked
    assert home.laptop.get("/n").text == "1"
    home.laptop.post("/increment")
    session.user_data.lock()
    assert session.locked
    assert increment(session) == 3
    session.unlock()
    assert home.laptop.post("/increment").text == "4"


def test_a_save_in_the_middle_gives_both_locks_back(home: Household) -> None:
    """And the next look takes them again."""
    session = home.manager.open(home.token(home.phone), locking=True)
    increment(session)
    session.save()
    home.laptop.post("/increment")
    assert increment(session) == 3
    session.save()
    assert home.laptop.get("/n").text == "3"


# -- an end stops both -------------------------------------------------------------------


@pytest.mark.promise("P2")
@pytest.mark.parametrize("changes_session", [True, False])
@pytest.mark.parametrize("method", ["get", "post"])
def test_of_a_session_that_was_ended_nothing_is_written(
    home: Household, method: str, changes_session: bool
) -> None:
    """Neither its own values nor those of the user."""
    watch = Watch(events.Dropped)
    home = Household(home.manager.store, on_event=watch)

    def slow(session: Session) -> None:
        increment(session)
        if changes_session:
            session["n"] = 1
        home.manager.end(session.id)

    home.handlers["/slow"] = slow
    answer = getattr(home.phone, method)("/slow")
    assert "Set-Cookie" not in answer.headers
    assert home.laptop.get("/n").text == "None"
    assert home.phone.get("/user").text == "None"
    assert len(watch.seen) == 1


def test_save_says_that_the_session_had_ended(home: Household) -> None:
    """``user_data.save()`` never claims what has not happened."""
    session = home.manager.open(home.token(home.phone))
    increment(session)
    home.phone.post("/logout")
    with pytest.raises(SessionEnded):
        session.user_data.save()
    assert home.laptop.get("/n").text == "None"


def test_a_user_is_forgotten(home: Household) -> None:
    """The sessions end, and the data is gone; the next login begins with nothing."""
    home.phone.post("/increment")
    assert home.manager.forget_user("ann") == 2
    assert home.phone.get("/user").text == "None"
    assert home.manager.store.load(key_of(Purpose.USER_DATA, "ann")) is None
    home.phone.post("/phone")
    assert home.phone.get("/n").text == "None"
    assert home.manager.forget_user("nobody") == 0


@pytest.mark.parametrize("method", ["get", "post"])
def test_who_is_forgotten_does_not_come_back(home: Household, method: str) -> None:
    """By a request that was under way."""
    home.phone.post("/increment")

    def slow(session: Session) -> None:
        increment(session)
        home.manager.forget_user("ann")

    home.handlers["/slow"] = slow
    getattr(home.phone, method)("/slow")
    assert home.manager.store.load(key_of(Purpose.USER_DATA, "ann")) is None
    watch = Watch(events.Dropped)
    manager = SessionManager(home.manager.store, Options(on_event=watch))
    session = manager.create()
    session.login("ann")
    session.save()
    data = session.user_data
    data["n"] = 1
    data.save()
    home.manager.store.delete(key_of(Purpose.USER_DATA, "ann"))
    data["n"] = 2
    with pytest.raises(SessionEnded):
        data.save()
    assert len(watch.seen) == 1
    assert home.manager.store.load(key_of(Purpose.USER_DATA, "ann")) is None


# -- where it stands ---------------------------------------------------------------------


def test_no_list_shows_it(home: Household) -> None:
    """It is no session: not among all of them, nor among the user's, nor by its id."""
    home.phone.post("/increment")
    ids = {session.id for session in home.manager.sessions()}
    assert len(ids) == 2
    assert {session.id for session in home.manager.sessions_of("ann")} == ids
    id = key_of(Purpose.USER_DATA, "ann").id
    assert home.manager.get(id) is None
    with pytest.raises(KeyError), home.manager.edit(id):
        pass
    assert home.manager.end_user("ann") == 2


@pytest.mark.promise("P3")
@pytest.mark.parametrize("method", ["get", "post"])
def test_no_token_leads_to_it(home: Household, method: str) -> None:
    """Whatever secret a client makes up for its id."""
    home.phone.post("/increment")
    id = bytes.fromhex(key_of(Purpose.USER_DATA, "ann").id)
    for secret in (bytes(32), b"\xff" * 32):
        token = base64.urlsafe_b64encode(id + secret).decode()
        thief = Visitor(home.manager, home.handlers)
        thief.set_cookie("sid", token)
        assert getattr(thief, method)("/own").text == "None"
        thief.set_cookie("sid", token)
        thief.post("/logout")
    assert home.laptop.get("/n").text == "1"


def test_it_is_edited_outside_of_a_request(home: Household) -> None:
    """By a job, under its lock; an exception drops what was changed."""
    with home.manager.edit_user_data("ann") as data:
        data["mail"] = [1]
    with home.manager.edit_user_data("ann") as data:
        data["mail"].append(2)
    with suppress(RuntimeError), home.manager.edit_user_data("ann") as data:
        data["mail"].append(3)
        raise RuntimeError("no")
    assert home.laptop.get("/all").text == "{'mail': [1, 2]}"
    with home.manager.edit_user_data(42) as data:
        data["n"] = 1
    session = home.manager.create()
    session.login(42)
    assert session.user_data["n"] == 1


def test_an_administrator_may_write_it_beside_the_session(home: Household) -> None:
    """In ``manager.edit()``, which saves both, or neither where its block fails."""
    id = home.manager.open(home.token(home.phone)).id
    with home.manager.edit(id) as held:
        both(held)
    with suppress(RuntimeError), home.manager.edit(id) as held:
        both(held)
        raise RuntimeError("no")
    assert (home.laptop.get("/n").text, home.phone.get("/own").text) == ("1", "1")
    assert home.laptop.post("/increment").text == "2"


def test_encrypted_it_cannot_be_read(store: Any) -> None:
    """As all that a session holds."""
    pytest.importorskip("cryptography")
    home = Household(store, encrypt=True, secret=SECRET)
    session = home.manager.open(home.token(home.phone))
    session.user_data["card"] = "4711 0815"
    session.save()
    assert "4711" in home.laptop.get("/all").text
    record = store.load(key_of(Purpose.USER_DATA, "ann"))
    assert b"4711" not in record.data


def test_a_cookie_cannot_share() -> None:
    """The message says what is needed."""
    manager = SessionManager.from_config(url="cookie:", secret=SECRET)
    session = manager.create()
    session.login("ann")
    session.save()
    with pytest.raises(ConfigurationError, match="needs a store on the server"):
        session.user_data.get("n")


def test_who_does_not_use_it_pays_nothing() -> None:
    """No call of the store; a reader of it makes one more."""
    store = CountingStore(MemoryStore())
    home = Household(store)
    home.phone.post("/increment")
    store.calls.clear()
    home.phone.get("/own")
    assert store.calls == ["load"]
    store.calls.clear()
    home.phone.get("/n")
    assert store.calls == ["load", "load"]


def test_what_cannot_be_read_is_left_alone(store: Any) -> None:
    """A 503, and the bytes are kept."""
    home = Household(store)
    home.phone.post("/increment")
    key = key_of(Purpose.USER_DATA, "ann")
    found = store.load(key)
    store.save(found._replace(version=5, data=b"1\nno json"), expect=found.version)
    session = home.manager.open(home.token(home.phone))
    with pytest.raises(StoreError, match="of user 'ann' cannot be read"):
        session.user_data.get("n")
    assert home.phone.get("/n", status=503).status_int == 503
    assert store.load(key).data == b"1\nno json"
