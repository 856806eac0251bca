"""A session is a dict that loads itself, sees every change, and ends for good."""

from __future__ import annotations

import collections.abc
from datetime import datetime, timedelta, timezone
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
from wsgisession.stores.memory import MemoryStore

from .conftest import Clock, CountingStore


@pytest.fixture
def manager(clock: Clock) -> SessionManager:
    return SessionManager(MemoryStore(), clock=clock)


def stored(manager: SessionManager, **values: Any) -> Session:
    """A session that was saved with some values, opened again by its token."""
    session = manager.create()
    session.update(values)
    session.save()
    return reopened(manager, session)


def reopened(manager: SessionManager, session: Session) -> Session:
    assert session.token is not None
    return manager.open(session.token)


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
    assert session.has_key("a")
    assert 5 not in session
    assert session.get("z") is None
    assert session.get("z", 3) == 3
    assert session.setdefault("c", 4) == 4
    assert session.pop("c") == 4
    assert session.pop("c", None) is None
    assert session.popitem() in (("a", 1), ("b", [2]))
    session |= {"d": 5}
    assert session | {"e": 6} == session.copy() | {"e": 6}
    assert {"e": 6} | session == {"e": 6} | session.copy()
    del session["d"]
    session.clear()
    assert not session
    with pytest.raises(KeyError, match="nothing"):
        session["nothing"]
    with pytest.raises(KeyError):
        session.pop("nothing")


def test_what_was_set_comes_back(manager: SessionManager) -> None:
    """Values survive the way through the store."""
    when = datetime.now(timezone.utc)
    session = stored(manager, when=when, pair=(1, [2]), keys={1: "a", "b": b"c"})
    assert session.copy() == {
        "when": when,
        "pair": (1, [2]),
        "keys": {1: "a", "b": b"c"},
    }


@pytest.mark.parametrize("key", [1, None, b"a", ("a",)])
def test_keys_are_strings(manager: SessionManager, key: Any) -> None:
    """Another key is refused where it is written, not at the save."""
    session = manager.create()
    with pytest.raises(TypeError, match="session keys are strings, not"):
        session[key] = 1


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["list"].append(1),
        lambda s: s["dict"]["deep"].update(x=1),
        lambda s: s.get("list").pop(),
        lambda s: next(iter(s.values())).append(2),
        lambda s: s.pop("list"),
        lambda s: s.update(n=2),
        lambda s: s.setdefault("new", []).append(1),
        lambda s: s.clear(),
        lambda s: s.__ior__({"n": 3}),
        lambda s: s["set"].add(5),
        lambda s: s["tuple"][0].append(5),
    ],
)
def test_every_change_is_seen(manager: SessionManager, change: Any) -> None:
    """No flag is needed, however deep the change is."""
    session = stored(manager, list=[0], dict={"deep": {}}, n=1, set={1}, tuple=([1],))
    assert not session.modified
    change(session)
    assert session.modified
    expected = session.copy()
    session.save()
    assert reopened(manager, session).copy() == expected


@pytest.mark.parametrize(
    "look",
    [
        lambda s: s["list"],
        lambda s: s.get("list"),
        lambda s: s.copy(),
        lambda s: list(s.items()),
        lambda s: s == {},
        lambda s: s.__setitem__("n", 1),
        lambda s: s["set"].add(1),
        lambda s: s["list"].append(1) or s["list"].pop(),
        lambda s: (s.get("z"), s.id, s.user, s.created, repr(s)),
    ],
)
def test_a_look_is_no_change(look: Any) -> None:
    """What was handed out and came back equal is not written."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store)
    session = stored(manager, list=[0], n=1, set={3, 1, 2})
    store.calls.clear()
    look(session)
    session.commit()
    session.close()
    assert store.calls == ["load"]


def test_a_serializer_without_canonical_bytes_does_not_write_on_reads() -> None:
    """Equal values in other bytes are equal values."""

    class Moody:
        def __init__(self) -> None:
            self.mood = 0

        def dumps(self, values: dict[str, Any]) -> str:
            self.mood += 1
            return repr(values) + " " * (self.mood // 100)

        def loads(self, data: bytes) -> dict[str, Any]:
            self.mood += 50
            return eval(data)  # type: ignore[no-any-return]

    store = CountingStore(MemoryStore())
    moody = Moody()
    manager = SessionManager(store, Options(serializer=moody))
    session = stored(manager, cart=[1])
    store.calls.clear()
    moody.mood = 0
    assert session["cart"] == [1]
    session.commit()
    assert store.calls == ["load"]
    session = stored(manager, cart=[1])
    session["cart"].append(2)
    session.save()
    assert reopened(manager, session)["cart"] == [1, 2]


def test_modified_can_be_forced_and_dropped(manager: SessionManager) -> None:
    """True writes what seems unchanged, False writes nothing."""
    session = stored(manager, n=1)
    session["n"] = 2
    session.modified = False
    session.save()
    assert reopened(manager, session)["n"] == 1
    session = reopened(manager, session)
    version = manager.store.load(_key(session)).version  # type: ignore[union-attr]
    session.modified = True
    session.save()
    assert manager.store.load(_key(session)).version == version + 1  # type: ignore[union-attr]


def _key(session: Session) -> Any:
    from wsgisession import Key

    return Key(session.id)


def test_revert_is_deep(manager: SessionManager) -> None:
    """It goes back to what was loaded, within values too, and saves nothing."""
    session = stored(manager, cart=[1], n=1)
    session["cart"].append(2)
    session["n"] = 5
    session["new"] = True
    del session["n"]
    session.revert()
    assert session == {"cart": [1], "n": 1}
    assert not session.modified
    session.save()
    assert reopened(manager, session) == {"cart": [1], "n": 1}


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
    again.clear()
    assert again.created == session.created


def test_an_unserializable_value_is_refused_by_its_path(
    manager: SessionManager,
) -> None:
    """The error says where it is, and what was stored stays."""
    session = stored(manager, cart=[{"price": 1}])
    session["cart"][0]["price"] = object()
    with pytest.raises(SerializationError, match=r"cart\[0\]\['price'\]") as caught:
        session.save()
    assert caught.value.path == "cart[0]['price']"
    assert reopened(manager, session) == {"cart": [{"price": 1}]}


def test_a_custom_serializers_error_names_the_key() -> None:
    """Whatever the caller's serializer raises, the key is known."""
    import json

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


def test_a_token_is_shown_nowhere(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither repr nor an error nor the store holds it."""
    session = stored(manager, n=1)
    token = session.token
    assert token is not None
    record = manager.store.load(_key(session))
    shown = [repr(session), repr(record), repr(_key(session)), repr(session.commit())]
    assert not any(token in text for text in [*shown, caplog.text])
    assert token not in repr(vars(manager.store))


# -- lives -------------------------------------------------------------------------------


def test_a_new_session_has_a_life_of_its_own(manager: SessionManager) -> None:
    """It is new, has an id before it has a token, and is stored by save()."""
    session = manager.create()
    assert session.new
    assert session.token is None
    assert len(session.id) == 64
    session["a"] = 1
    session.save()
    again = reopened(manager, session)
    assert not again.new
    assert again.id == session.id
    assert again.created == session.created
    assert again.created.tzinfo is timezone.utc


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "A" * 43,
        "A" * 44,
        "../../etc/passwd",
        "é" * 43,
        "\x00" * 43,
        "A" * 9999,
    ],
)
def test_an_id_that_we_did_not_issue_is_never_adopted(
    manager: SessionManager, token: str
) -> None:
    """P3: whatever a client invents, the session is new and its token another."""
    session = manager.open(token)
    session["a"] = 1
    session.save()
    assert session.new
    assert session.token != token
    assert manager.open(token).new


def test_flush_ends_it(manager: SessionManager) -> None:
    """The record goes, the object is empty, and nothing is stored in its place."""
    session = stored(manager, n=1)
    old = session.token
    session.flush()
    assert session == {}
    session.commit()
    assert manager.open(str(old)).new
    assert list(manager.sessions()) == []


def test_after_flush_a_write_begins_a_new_session(manager: SessionManager) -> None:
    """What is written after the end is another session's."""
    session = stored(manager, n=1)
    old = session.id
    session.flush()
    session["m"] = 2
    change = session.commit()
    assert change is not None
    assert session.id != old
    assert manager.get(old) is None
    assert manager.open(str(change.value)) == {"m": 2}


def test_invalidate_begins_a_new_empty_session(manager: SessionManager) -> None:
    """The old one ends, and an empty one is stored under a new token."""
    session = stored(manager, n=1)
    old = session.id
    session.invalidate()
    change = session.commit()
    assert change is not None
    assert manager.get(old) is None
    again = manager.open(str(change.value))
    assert not again.new
    assert again == {}


@pytest.mark.parametrize("how", ["regenerate", "cycle_key", "regenerate_id"])
def test_regenerate_keeps_the_data_and_ends_the_old_token(
    manager: SessionManager, how: str
) -> None:
    """The old token is a tombstone at once: anonymous, and no way to the new session."""
    session = stored(manager, n=1)
    old, old_id = session.token, session.id
    getattr(session, how)()
    assert session.id != old_id
    change = session.commit()
    assert change is not None
    assert change.value not in (None, old)
    assert manager.open(str(change.value)) == {"n": 1}
    leftover = manager.open(str(old))
    assert leftover == {}
    leftover["x"] = 1
    assert leftover.commit() is None
    assert manager.get(old_id) is None


def test_rotate_leaves_a_pointer_for_a_while(manager: SessionManager) -> None:
    """Requests in flight with the old token reach the same session, to write as well."""
    session = stored(manager, n=1)
    old = str(session.token)
    session.rotate()
    change = session.commit()
    assert change is not None
    in_flight = manager.open(old)
    assert in_flight == {"n": 1}
    in_flight["n"] = 2
    assert in_flight.commit() is None
    assert manager.open(str(change.value))["n"] == 2


def test_a_regenerated_session_is_not_reached_through_a_rotation(
    manager: SessionManager,
) -> None:
    """A pointer leads to a tombstone: whoever planted a token never gets past a login."""
    session = stored(manager, n=1)
    planted = str(session.token)
    session.rotate()
    rotated = session.commit()
    assert rotated is not None
    victim = manager.open(str(rotated.value))
    victim.login("ann")
    victim["secret"] = 1
    assert victim.commit() is not None
    assert manager.open(planted) == {}
    assert manager.open(str(rotated.value)) == {}


def test_rotating_and_regenerating_in_one_request_regenerates(
    manager: SessionManager,
) -> None:
    """The stronger of the two holds, in either order."""
    for verbs in (("rotate", "regenerate"), ("regenerate", "rotate")):
        session = stored(manager, n=1)
        old = str(session.token)
        for verb in verbs:
            getattr(session, verb)()
        session.commit()
        assert manager.open(old) == {}


def test_rotate_every_rotates_by_itself(clock: Clock) -> None:
    """A session that is old enough gets a new token on its next request."""
    options = Options(rotate_every=3600, touch_interval=0)
    manager = SessionManager(MemoryStore(), options, clock=clock)
    session = stored(manager, n=1)
    old = str(session.token)
    reader = manager.open(old)
    assert reader["n"] == 1
    reader.commit()
    assert reader.token == old
    clock.pass_by(3601)
    reader = manager.open(old)
    assert reader["n"] == 1
    change = reader.commit()
    assert change is not None
    assert change.value not in (None, old)
    reader = manager.open(str(change.value))
    assert reader["n"] == 1
    reader.commit()
    assert reader.token == change.value


# -- users -------------------------------------------------------------------------------


def test_login_binds_and_regenerates(manager: SessionManager, clock: Clock) -> None:
    """Values are kept, the old token ends, and both clocks begin anew."""
    session = stored(manager, cart=[1])
    old, began = str(session.token), session.created
    clock.pass_by(86400)
    session = manager.open(old)
    session.login("ann", device="phone")
    change = session.commit()
    assert change is not None
    again = manager.open(str(change.value))
    assert (again.user, again["cart"]) == ("ann", [1])
    assert again.created - began == timedelta(days=1)
    assert manager.open(old) == {}


def test_login_of_another_user_begins_empty(manager: SessionManager) -> None:
    """What was one user's is never handed to another."""
    session = manager.create()
    session.login("ann")
    session["secret"] = 1
    session.save()
    session = reopened(manager, session)
    session.login("bob")
    change = session.commit()
    assert change is not None
    again = manager.open(str(change.value))
    assert again == {}
    assert again.user == "bob"
    assert list(manager.sessions_of("ann")) == []


def test_login_of_the_same_user_again_keeps_the_data(manager: SessionManager) -> None:
    """Re-authentication changes the token and nothing else (OWASP ASVS 7.2.4)."""
    session = manager.create()
    session.login("ann")
    session["cart"] = [1]
    session.save()
    old = str(session.token)
    session = manager.open(old)
    session.login("ann")
    session.commit()
    assert session.token != old
    assert session["cart"] == [1]


@pytest.mark.parametrize("user", ["", None, 5, b"ann"])
def test_login_needs_a_name(manager: SessionManager, user: Any) -> None:
    """Anything but a string that is not empty is refused."""
    with pytest.raises(TypeError, match=r"login\(\) takes the user's id as a string"):
        manager.create().login(user)


def test_logout_ends_the_session(manager: SessionManager) -> None:
    """The user's session is gone, and the old token leads nowhere."""
    session = manager.create()
    session.login("ann")
    session.save()
    session = reopened(manager, session)
    old = str(session.token)
    session.logout()
    session.commit()
    assert session.user is None
    assert manager.open(old).new


# -- clocks ------------------------------------------------------------------------------


def test_the_idle_clock_ends_it(manager: SessionManager, clock: Clock) -> None:
    """P9: without a request for idle_timeout, a session is over at the server."""
    token = str(stored(manager, n=1).token)
    clock.pass_by(14 * 86400 - 1)
    assert manager.open(token) == {"n": 1}
    clock.pass_by(2)
    assert manager.open(token) == {}


def test_the_absolute_clock_ends_it(manager: SessionManager, clock: Clock) -> None:
    """P9: however busy it is, it does not live longer than absolute_timeout."""
    token = str(stored(manager, n=1).token)
    for _ in range(29):
        clock.pass_by(86400)
        session = manager.open(token)
        assert session == {"n": 1}
        session.commit()
    clock.pass_by(86400)
    assert manager.open(token) == {}


def test_shorter_options_hold_for_sessions_that_are_stored(clock: Clock) -> None:
    """What an administrator shortens is short at once."""
    store = MemoryStore()
    token = str(stored(SessionManager(store, clock=clock), n=1).token)
    clock.pass_by(3600)
    strict = SessionManager(store, Options(idle_timeout="30m"), clock=clock)
    assert strict.open(token) == {}


def test_reads_move_the_idle_clock_once_in_an_interval(clock: Clock) -> None:
    """Within touch_interval a read writes nothing; past it, it touches once."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store, clock=clock)
    token = str(stored(manager, n=1).token)
    for seconds, expected in ((59, ["load"]), (1, ["load", "touch"]), (1, ["load"])):
        store.calls.clear()
        clock.pass_by(seconds)
        session = manager.open(token)
        assert session["n"] == 1
        change = session.commit()
        assert store.calls == expected
        assert (change is not None) == (expected[-1] == "touch")


def test_a_short_expiry_slides_in_use(manager: SessionManager, clock: Clock) -> None:
    """A session of 30 s does not expire between touches a minute apart."""
    session = stored(manager, n=1)
    session.set_expiry(30)
    session.commit()
    token = str(session.token)
    for _ in range(10):
        clock.pass_by(20)
        session = manager.open(token)
        assert session == {"n": 1}
        session.commit()
    clock.pass_by(31)
    assert manager.open(token) == {}


@pytest.mark.parametrize(
    ("value", "age", "closes"),
    [
        (300, 300, False),
        (timedelta(minutes=5), 300, False),
        (0, 14 * 86400, True),
        (None, 14 * 86400, False),
        (90 * 86400, 30 * 86400, False),
    ],
)
def test_set_expiry_in_djangos_meanings(
    manager: SessionManager, value: Any, age: int, closes: bool
) -> None:
    """Seconds of inactivity, a moment, the browser's close, or the default."""
    session = stored(manager, n=1)
    session.set_expiry(60)
    session.set_expiry(value)
    change = session.commit()
    again = reopened(manager, session)
    assert again.get_expiry_age() == age
    assert again.get_expire_at_browser_close() is closes
    if value is not None:
        assert change is not None
        assert change.max_age == (None if closes else age)


def test_a_moment_does_not_slide(manager: SessionManager, clock: Clock) -> None:
    """A datetime is the end, whatever is done with the session until then."""
    session = stored(manager, n=1)
    end = datetime.fromtimestamp(clock() + 600, timezone.utc)
    session.set_expiry(end)
    session.commit()
    token = str(session.token)
    clock.pass_by(599)
    session = manager.open(token)
    assert session.get_expiry_date() == end == session.expires
    session["n"] = 2
    session.commit()
    clock.pass_by(2)
    assert manager.open(token) == {}


def test_an_expiry_in_the_past_ends_it(manager: SessionManager) -> None:
    """Set to be over, it is over: the record and the cookie go."""
    session = stored(manager, n=1)
    token = str(session.token)
    session.set_expiry(-1)
    change = session.commit()
    assert change is not None
    assert change.value is None
    assert manager.open(token).new


@pytest.mark.parametrize("value", [True, 1.5, "300", [3]])
def test_set_expiry_refuses_other_types(manager: SessionManager, value: Any) -> None:
    """What has no meaning is refused when it is given."""
    with pytest.raises(TypeError, match=r"set_expiry\(\) takes"):
        manager.create().set_expiry(value)


def test_expiry_age_of_other_moments(manager: SessionManager, clock: Clock) -> None:
    """Modification and expiry may be given, as in Django."""
    session = stored(manager, n=1)
    before = datetime.fromtimestamp(clock() - 100, timezone.utc)
    assert session.get_expiry_age(expiry=60) == 60
    assert session.get_expiry_date(modification=before, expiry=60) == (
        before + timedelta(seconds=60)
    )


def test_the_test_cookie(manager: SessionManager) -> None:
    """It works when it has come back, not in the request that set it."""
    session = manager.create()
    session.set_test_cookie()
    assert not session.test_cookie_worked()
    session.save()
    again = reopened(manager, session)
    assert again.test_cookie_worked()
    again.delete_test_cookie()
    again.save()
    assert not reopened(manager, again).test_cookie_worked()


# -- the end of a request ----------------------------------------------------------------


def test_what_outlives_its_request_is_closed(manager: SessionManager) -> None:
    """GitHub, 2021: an object kept too long must not serve another's request."""
    session = stored(manager, n=1)
    session.commit()
    session.close()
    for use in (
        lambda: session["n"],
        lambda: session.get("n"),
        lambda: "n" in session,
        lambda: len(session),
        lambda: list(session),
        lambda: session.__setitem__("n", 1),
        lambda: session.id,
        lambda: session.token,
        session.flush,
        session.save,
        session.lock,
        lambda: session.login("ann"),
    ):
        with pytest.raises(SessionClosed, match="request is over"):
            use()
    assert repr(session) == "<Session closed>"
    assert not session.modified


def test_an_untouched_session_closed_stays_closed(manager: SessionManager) -> None:
    """Also one that nobody looked at."""
    session = manager.open("x")
    session.commit()
    session.close()
    with pytest.raises(SessionClosed):
        session["a"] = 1


def test_nothing_happens_until_it_is_touched() -> None:
    """P4: opening, committing and closing cost no store call."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store)
    token = str(stored(manager, n=1).token)
    store.calls.clear()
    session = manager.open(token)
    assert not session.accessed
    assert not session.locked
    assert repr(session) == "<Session not accessed>"
    assert session.commit() is None
    session.close()
    assert store.calls == []


@pytest.mark.parametrize(
    ("work", "calls"),
    [
        (lambda s: s.get("n"), ["load"]),
        (lambda s: s.__setitem__("n", s["n"] + 1), ["load", "save"]),
        (lambda s: s["cart"].append(1), ["load", "save"]),
        (lambda s: s.flush(), ["load", "delete"]),
        (lambda s: s.save(), ["load"]),
    ],
)
def test_store_calls(work: Any, calls: list[str]) -> None:
    """P4: one call for a read, two for a read-modify-write."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store)
    token = str(stored(manager, n=1, cart=[]).token)
    store.calls.clear()
    session = manager.open(token)
    work(session)
    session.commit()
    session.close()
    assert store.calls == calls


@pytest.mark.parametrize(
    ("work", "calls"),
    [
        (lambda s: s.get("n"), ["lock", "unlock"]),
        (lambda s: s.__setitem__("n", s["n"] + 1), ["lock", "save"]),
        (lambda s: s.flush(), ["load", "delete"]),
        (lambda s: s.login("ann"), ["lock", "save", "save"]),
        (lambda s: s.rotate(), ["lock", "save", "save"]),
    ],
)
def test_store_calls_of_a_locking_request(work: Any, calls: list[str]) -> None:
    """P4: locked or not, a read-modify-write costs two calls; an end takes no lock."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store)
    token = str(stored(manager, n=1).token)
    store.calls.clear()
    session = manager.open(token, locking=True)
    work(session)
    session.commit()
    session.close()
    assert store.calls == calls


def test_a_new_session_costs_one_call() -> None:
    """P4: a first visitor is stored by one save, logged in or not."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store)
    for work in (lambda s: s.update(a=1), lambda s: s.login("ann")):
        store.calls.clear()
        session = manager.create()
        work(session)
        session.commit()
        session.close()
        assert store.calls == ["save"]
