"""A session is a dict that loads itself, sees every change, and ends for good."""

from __future__ import annotations

import collections.abc
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from wsgisession import (
    Options,
    SerializationError,
    SessionClosed,
    SessionManager,
    SessionTooLarge,
)
from wsgisession.stores.memory import MemoryStore

from .conftest import SECRET, Clock, CountingStore, key_of, reopened, stored


@pytest.fixture
def manager(clock: Clock) -> SessionManager:
    return SessionManager(MemoryStore(), clock=clock)


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
    assert [] not in session
    assert session.setdefault("c", 4) == 4
    assert session.pop("c") == 4
    assert session.pop("c", None) is None
    assert session.popitem() in (("a", 1), ("b", [2]))
    session |= {"d": 5}
    assert session | {"d": 6} == session.copy() | {"d": 6}
    assert {"d": 6} | session == {"d": 6} | session.copy()
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


def test_none_is_a_value(manager: SessionManager) -> None:
    """A key that holds None is there, and the default is not asked."""
    session = stored(manager, a=None)
    assert "a" in session
    assert session.get("a", 5) is None


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

    class Restless:
        """Writes what it has read in other bytes than what is new."""

        class Loaded(dict[str, Any]):
            pass

        def dumps(self, values: dict[str, Any]) -> str:
            return json.dumps(values, indent=isinstance(values, self.Loaded) or None)

        def loads(self, data: bytes) -> dict[str, Any]:
            return self.Loaded(json.loads(data))

    store = CountingStore(MemoryStore())
    manager = SessionManager(store, Options(serializer=Restless()))
    session = stored(manager, cart=[1])
    store.calls.clear()
    assert session["cart"] == [1]
    session.commit()
    assert store.calls == ["load"]
    session = reopened(manager, session)
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
    version = manager.store.load(key_of(session)).version  # type: ignore[union-attr]
    session.modified = True
    session.save()
    assert manager.store.load(key_of(session)).version == version + 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(n=2),
        lambda s: s["cart"].append(1),
        lambda s: setattr(s, "modified", True),
        lambda s: s.set_expiry(300),
        lambda s: s.login("ann"),
        lambda s: s.rotate(),
    ],
)
def test_what_was_dropped_leaves_no_trace(change: Any) -> None:
    """modified=False after any change: nothing is written, under no other name."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store)
    session = stored(manager, n=1, cart=[])
    id, user, age = session.id, session.user, session.get_expiry_age()
    change(session)
    assert session.modified
    session.modified = False
    assert not session.modified
    assert (session.id, session.user, session.get_expiry_age()) == (id, user, age)
    store.calls.clear()
    assert session.commit() is None
    assert "save" not in store.calls
    assert reopened(manager, session) == {"n": 1, "cart": []}


def test_a_new_session_is_modified_when_there_is_something_to_store(
    manager: SessionManager,
) -> None:
    """Values, or something asked for; not what was put in and taken out again."""
    session = manager.create()
    assert not session.modified
    session["n"] = 1
    assert session.modified
    del session["n"]
    assert not session.modified
    assert session.commit() is None
    assert list(manager.sessions()) == []
    for ask in (
        lambda s: setattr(s, "modified", True),
        lambda s: s.set_test_cookie(),
        lambda s: s.login("ann"),
    ):
        session = manager.create()
        ask(session)
        assert session.modified
        assert session.commit() is not None


def test_asking_whether_it_is_modified_is_not_looking(manager: SessionManager) -> None:
    """Neither before the first access nor after the end."""
    session = stored(manager, n=1)
    assert not session.modified
    assert not session.accessed
    session["n"] = 2
    session.close()
    assert not session.modified


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


def test_revert_takes_back_what_was_asked_for(manager: SessionManager) -> None:
    """The expiry of a stored session, and everything of a new one."""
    session = stored(manager, n=1)
    age = session.get_expiry_age()
    session.set_expiry(60)
    session.revert()
    assert session.get_expiry_age() == age
    new = manager.create()
    new["n"] = 1
    new.set_expiry(60)
    new.revert()
    assert new == {}
    assert new.get_expiry_age() == age
    assert not new.modified
    assert new.commit() is None


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


def test_a_custom_serializers_error_names_thekey_of() -> None:
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
    token = str(session.token)
    session["n"] = "x" * 9000
    with pytest.raises(SessionTooLarge) as caught:
        session.commit()
    assert caught.value.limit == 4096 * chunks < caught.value.size
    assert manager.open(token) == {"n": 1}


def test_a_token_is_shown_nowhere(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither repr nor an error nor the store holds it."""
    session = stored(manager, n=1)
    token = session.token
    assert token is not None
    record = manager.store.load(key_of(session))
    assert repr(session) == f"<Session {session.id[:8]} ['n']>"
    session.set_expiry(60)
    change = session.commit()
    assert change is not None
    assert change.value == token
    shown = [repr(session), repr(record), repr(key_of(session)), repr(change)]
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


def test_a_token_that_leads_nowhere_is_not_told_back(
    manager: SessionManager, clock: Clock
) -> None:
    """P3: unknown, ended or over, there is no token before the first save."""
    ended, over = (str(stored(manager, n=1).token) for _ in range(2))
    session = manager.open(ended)
    session.regenerate()
    session.commit()
    assert manager.open("A" * 43).token is None
    assert manager.open(ended).token is None
    clock.pass_by(15 * 86400)
    assert manager.open(over).token is None


@pytest.mark.parametrize(
    ("locking", "calls"), [(False, ["load"]), (True, ["lock", "unlock"])]
)
def test_a_session_that_is_over_is_left_unlocked(
    clock: Clock, locking: bool, calls: list[str]
) -> None:
    """There is nothing to write in it, and nobody has to wait for it."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store, clock=clock)
    token = str(stored(manager, n=1).token)
    clock.pass_by(15 * 86400)
    store.calls.clear()
    session = manager.open(token, locking=locking)
    assert session == {}
    session.commit()
    session.close()
    assert store.calls == calls


def test_an_empty_session_is_stored_by_save(manager: SessionManager) -> None:
    """save() makes the token, whatever is in it; unlock() does not."""
    session = manager.create()
    session.unlock()
    assert session.token is None
    session.save()
    assert not reopened(manager, session).new


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


def test_a_pointer_leads_on_to_the_next(manager: SessionManager) -> None:
    """After two rotations the first token still leads there, also to the lock."""
    session = stored(manager, n=1)
    first = str(session.token)
    for _ in range(2):
        session = reopened(manager, session)
        session.rotate()
        session.commit()
    in_flight = manager.open(first, locking=True)
    assert in_flight == {"n": 1}
    assert in_flight.locked
    assert in_flight.token is None


def test_a_late_reader_behind_a_pointer_sets_no_cookie(clock: Clock) -> None:
    """It moves the idle clock, and the browser keeps the new cookie."""
    options = Options(touch_interval=0)
    manager = SessionManager(MemoryStore(), options, clock=clock)
    session = stored(manager, n=1)
    old = str(session.token)
    session.rotate()
    session.commit()
    clock.pass_by(1)
    in_flight = manager.open(old)
    assert in_flight["n"] == 1
    assert in_flight.commit() is None


def test_what_stays_in_the_place_of_the_old_one_tells_nothing(
    manager: SessionManager,
) -> None:
    """P5: neither values nor the user; and a tombstone names no successor."""
    for verb in ("rotate", "regenerate"):
        session = manager.create()
        session.login("ann")
        session["n"] = 1
        session.save()
        old = key_of(session)
        getattr(session, verb)()
        session.commit()
        left = manager.store.load(old)
        assert left is not None
        assert (left.data, left.user) == (b"", None)
        pointer = ("moved", session.id)
        assert (left.state, left.successor) == (
            pointer if verb == "rotate" else ("ended", None)
        )


@pytest.mark.parametrize(
    ("verb", "seconds", "there"),
    [("rotate", 20, True), ("rotate", 40, False)]
    + [("regenerate", 40, True), ("regenerate", 70, False)],
)
def test_how_long_the_old_token_is_remembered(
    clock: Clock, verb: str, seconds: int, there: bool
) -> None:
    """A pointer for 30 s, a tombstone for 60."""
    clock.pass_by(-seconds)
    manager = SessionManager(MemoryStore(), clock=clock)
    session = stored(manager, n=1)
    old = key_of(session)
    getattr(session, verb)()
    session.commit()
    assert (manager.store.load(old) is not None) is there


def test_a_new_identity_is_made_once(manager: SessionManager) -> None:
    """The id that was told before the save is the one it is stored under, for good."""
    store = CountingStore(manager.store)
    manager = SessionManager(store, Options(rotate_every=3600))
    for verb in ("rotate", "regenerate"):
        session = stored(manager, n=1)
        session["n"] = 2
        getattr(session, verb)()
        id = session.id
        store.calls.clear()
        session.save()
        session.commit()
        assert store.calls == ["save", "save"]
        assert session.id == id
        assert reopened(manager, session).id == id


def test_a_login_is_saved_once(manager: SessionManager) -> None:
    """After save() there is nothing left for the end of the request."""
    store = CountingStore(manager.store)
    manager = SessionManager(store)
    session = stored(manager, n=1)
    session.login("ann", device="phone")
    session.set_expiry(300)
    store.calls.clear()
    session.save()
    session.commit()
    assert store.calls == ["save", "save"]


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
    assert manager.open(old) == {"n": 1}, "as after rotate()"
    reader = manager.open(str(change.value))
    assert reader["n"] == 1
    reader.commit()
    assert reader.token == change.value


def test_a_rotation_is_due_to_the_second(clock: Clock) -> None:
    """Not before rotate_every, and then at once; an identity is not changed twice."""
    clock.now = float(int(clock.now))
    manager = SessionManager(MemoryStore(), Options(rotate_every=3600), clock=clock)
    token = str(stored(manager, n=1).token)
    for seconds, rotated in ((3599, False), (1, True)):
        clock.pass_by(seconds)
        session = manager.open(token)
        assert session["n"] == 1
        session.commit()
        assert (session.token != token) is rotated
    clock.pass_by(3600)
    session = reopened(manager, session)
    session.regenerate()
    id = session.id
    session.commit()
    assert session.id == id


def test_a_rotation_that_is_due_waits_for_nobody(clock: Clock) -> None:
    """A reader is not refused because another holds the lock: it rotates next time."""
    options = Options(rotate_every=3600, lock_wait=0)
    manager = SessionManager(MemoryStore(), options, clock=clock)
    session = stored(manager, n=1)
    token = session.token
    holder = reopened(manager, session)
    holder.lock()
    clock.pass_by(3600.5)
    reader = reopened(manager, session)
    assert reader["n"] == 1
    reader.commit()
    assert reader.token == token
    holder.unlock()
    reader = reopened(manager, session)
    assert reader["n"] == 1
    reader.commit()
    assert reader.token != token


def test_a_rotation_that_is_due_writes_over_nothing(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What was only read may have changed: no loss to report, nothing to run again."""
    store = MemoryStore()
    manager = SessionManager(store, Options(rotate_every=3600), clock=clock)
    session = stored(manager, n=1)
    clock.pass_by(3600)
    reader = manager.open(str(session.token), replay=True)
    assert reader["n"] == 1
    writer = SessionManager(store, clock=clock).open(str(session.token))
    writer["n"] = 2
    writer.commit()
    change = reader.commit()
    assert change is not None
    assert manager.open(str(change.value)) == {"n": 2}
    assert "written over" not in caplog.text


def test_two_that_are_due_at_once_rotate_once(clock: Clock) -> None:
    """The second finds that it has been done, and sets no cookie over the first's."""
    manager = SessionManager(MemoryStore(), Options(rotate_every=3600), clock=clock)
    session = stored(manager, n=1)
    clock.pass_by(3600)
    first, second = reopened(manager, session), reopened(manager, session)
    assert first["n"] == second["n"] == 1
    change = first.commit()
    assert change is not None
    second["m"] = 2
    assert second.commit() is None
    assert manager.open(str(change.value)) == {"n": 1, "m": 2}
    assert [each.id for each in manager.sessions()] == [first.id]


def test_a_change_that_is_dropped_leaves_the_clocks(
    manager: SessionManager, clock: Clock
) -> None:
    """After ``modified = False`` a login has not happened, nor a new beginning."""
    session = stored(manager, n=1)
    began, used = session.created, session.last_accessed
    clock.pass_by(100)
    session = reopened(manager, session)
    session.login("ann")
    session.modified = False
    assert (session.user, session.created, session.last_accessed) == (None, began, used)


def test_an_edit_by_id_rotates_nothing(clock: Clock) -> None:
    """The client would not learn of the new token."""
    manager = SessionManager(MemoryStore(), Options(rotate_every=3600), clock=clock)
    session = stored(manager, n=1)
    id, token = session.id, str(session.token)
    clock.pass_by(3601)
    with manager.edit(id) as edited:
        edited["n"] = 2
    assert manager.open(token) == {"n": 2}
    assert manager.open(token).id == id


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


def test_login_begins_the_idle_clock_anew(
    manager: SessionManager, clock: Clock
) -> None:
    """Also within touch_interval."""
    session = stored(manager, n=1)
    began = session.last_accessed
    clock.pass_by(30)
    session.login("ann")
    change = session.commit()
    assert change is not None
    assert change.max_age == 14 * 86400
    assert reopened(manager, session).last_accessed - began == timedelta(seconds=30)


def test_what_is_told_of_a_login_is_a_copy(manager: SessionManager) -> None:
    """Changing it changes nothing."""
    session = stored(manager)
    session.login("ann", device="phone")
    session.login_details["device"] = "laptop"  # type: ignore[index]
    assert session.login_details == {"device": "phone"}


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


def test_a_write_does_not_make_a_session_younger(
    manager: SessionManager, clock: Clock
) -> None:
    """P9: one clock runs from the beginning, the other from the last use."""
    session = stored(manager, n=1)
    began = session.created
    for day in range(1, 30):
        clock.pass_by(86400)
        session = reopened(manager, session)
        session["n"] = day
        session.commit()
        assert session.last_accessed - began == timedelta(days=day)
        session = reopened(manager, session)
        assert session.created == began
        assert session.last_accessed - began == timedelta(days=day)
        assert session.expires == min(
            began + timedelta(days=30), session.last_accessed + timedelta(days=14)
        )
    assert session.get_expiry_age() == 86400
    clock.pass_by(86400)
    assert manager.open(str(session.token)) == {}


def test_a_write_within_the_interval_moves_no_clock(
    manager: SessionManager, clock: Clock
) -> None:
    """It is stored, and the cookie of the browser is good enough."""
    session = stored(manager, n=1)
    used = session.last_accessed
    clock.pass_by(59)
    session = reopened(manager, session)
    session["n"] = 2
    assert session.commit() is None
    assert reopened(manager, session).last_accessed == used
    assert reopened(manager, session).expires == used + timedelta(days=14)


def test_a_late_clock_is_moved_once(clock: Clock) -> None:
    """By the save in the middle of a request, and not by its end as well."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store, clock=clock)
    session = reopened(manager, stored(manager, n=1))
    began = session.last_accessed
    clock.pass_by(61)
    session["n"] = 2
    store.calls.clear()
    session.save()
    assert session.last_accessed - began == timedelta(seconds=61)
    session.commit()
    assert store.calls == ["save"]


def test_a_new_sessions_idle_clock_begins_when_it_is_stored(
    manager: SessionManager, clock: Clock
) -> None:
    """A first request that takes longer than the expiry it asks for is no end."""
    session = manager.create()
    session["n"] = 1
    clock.pass_by(30)
    change = session.commit()
    assert change is not None
    assert change.max_age == 14 * 86400
    session = manager.create()
    session["n"] = 1
    session.set_expiry(30)
    clock.pass_by(40)
    change = session.commit()
    assert change is not None
    assert change.max_age == 30
    assert reopened(manager, session) == {"n": 1}


def test_a_session_whose_time_is_over_at_the_end_is_ended(clock: Clock) -> None:
    """P9: to the second, also where it was not over when it was looked at."""
    clock.now = float(int(clock.now))
    month = Options(idle_timeout="30d", absolute_timeout="30d")
    manager = SessionManager(MemoryStore(), month, clock=clock)
    session = stored(manager, n=1)
    clock.pass_by(30 * 86400 - 1)
    assert session["n"] == 1
    clock.pass_by(1)
    change = session.commit()
    assert change is not None
    assert change.value is None
    assert list(manager.sessions()) == []


def test_a_last_moment_is_a_second_to_the_browser(manager: SessionManager) -> None:
    """Max-Age=0 would take the cookie away while the session lives."""
    session = stored(manager, n=1)
    session.set_expiry(timedelta(seconds=0.3))
    change = session.commit()
    assert change is not None
    assert change.max_age == 1


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
    clock.now = float(int(clock.now))
    session = stored(manager, n=1)
    before = datetime.fromtimestamp(clock() - 100, timezone.utc)
    assert session.get_expiry_age(expiry=60) == 60
    minute = timedelta(seconds=60)
    assert session.get_expiry_date(modification=before, expiry=60) == before + minute
    assert session.get_expiry_age(modification=before, expiry=60) == 60
    assert session.get_expiry_age(modification=before, expiry=minute) == 60
    later = session.created + timedelta(days=20)
    assert session.get_expiry_age(modification=later) == 10 * 86400


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
    assert session["n"] == 1
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
    assert not session.locked
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


def test_the_test_cookie_alone_is_worth_storing(manager: SessionManager) -> None:
    """Django's login page stores nothing else."""
    session = manager.create()
    session.set_test_cookie()
    change = session.commit()
    assert change is not None
    assert manager.open(str(change.value)).test_cookie_worked()
    plain = stored(manager, n=1)
    assert not plain.test_cookie_worked()


def test_revert_takes_a_login_back(manager: SessionManager) -> None:
    """Whoever thinks better of it stays who they were, under the token they had."""
    session = stored(manager, n=1)
    token, id = session.token, session.id
    session.login("ann")
    session["n"] = 2
    session.revert()
    assert (session.user, session.id, session["n"]) == (None, id, 1)
    assert session.commit() is None
    assert session.token == token
    assert list(manager.sessions_of("ann")) == []


def test_what_is_known_about_it_takes_no_lock_again(manager: SessionManager) -> None:
    """After save() the token can be given to another, who need not wait for us."""
    store = CountingStore(manager.store)
    manager = SessionManager(store)
    session = manager.open(str(stored(manager, n=1).token), locking=True)
    session["n"] = 2
    session.save()
    store.calls.clear()
    known = [session.id, session.token, session.user, session.new, session.created]
    known += [session.expires, session.last_accessed, session.login_details]
    known += [session.get_expiry_age(), session.test_cookie_worked()]
    assert store.calls == []
    assert not session.locked
    assert manager.open(str(session.token), locking=True)["n"] == 2
