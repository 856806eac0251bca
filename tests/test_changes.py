"""Every change of a session is seen, and what is dropped is dropped for good."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wsgisession import Options, Session, SessionManager
from wsgisession._access import access_of
from wsgisession.stores.memory import MemoryStore

from .conftest import Clock, CountingStore, key_of, reopened, stored


@pytest.fixture
def manager(clock: Clock) -> SessionManager:
    return SessionManager(MemoryStore(), clock=clock)


def finish(session: Session) -> None:
    """What the middleware does when the request is over."""
    access = access_of(session)
    access.commit()
    access.close()


def version(manager: SessionManager, session: Session) -> int:
    record = manager.store.load(key_of(session))
    assert record is not None
    return record.version


# -- what is seen ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["list"].append(1),
        lambda s: s["dict"]["deep"].update(x=1),
        lambda s: s.get("list").pop(),
        lambda s: next(iter(s.values())).append(2),
        lambda s: dict(s.items())["list"].append(2),
        lambda s: s.copy()["list"].append(2),
        lambda s: s.pop("list"),
        lambda s: s.popitem(),
        lambda s: s.update(n=2),
        lambda s: s.setdefault("new", []).append(1),
        lambda s: s.setdefault("list", []).append(1),
        lambda s: s.__ior__({"n": 3}),
        lambda s: s["set"].add(5),
        lambda s: s["tuple"][0].append(5),
        lambda s: [s.pop(key) for key in list(s)],
    ],
)
def test_every_change_is_seen(manager: SessionManager, change: Any) -> None:
    """No flag is needed, however deep the change is; also if nothing is left."""
    session = stored(manager, list=[0], dict={"deep": {}}, n=1, set={1}, tuple=([1],))
    assert not session.modified
    change(session)
    assert session.modified
    expected = session.copy()
    session.save()
    assert not session.modified
    again = reopened(manager, session)
    assert not again.new
    assert again.copy() == expected


@pytest.mark.parametrize(
    "look",
    [
        lambda s: s["list"],
        lambda s: s.get("list"),
        lambda s: s.copy(),
        lambda s: list(s.items()),
        lambda s: s == {},
        lambda s: s["set"].add(1),
        lambda s: s["list"].append(1) or s["list"].pop(),
        lambda s: s.setdefault("n", 5),
        lambda s: s.pop("z", None),
        lambda s: (s.get("z"), s.id, s.user, s.created, s.expires, s.new, repr(s)),
        lambda s: s.save(),
    ],
)
def test_a_look_is_no_change(look: Any) -> None:
    """What was handed out and came back equal is not written."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store)
    session = stored(manager, list=[0], n=1, set={3, 1, 2})
    store.calls.clear()
    look(session)
    finish(session)
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
    finish(session)
    assert store.calls == ["load"]
    session = reopened(manager, session)
    session["cart"].append(2)
    session.save()
    assert reopened(manager, session)["cart"] == [1, 2]


# -- forced, dropped, reverted -----------------------------------------------------------


def test_modified_forces_a_save(manager: SessionManager) -> None:
    """True writes what seems unchanged, once."""
    session = stored(manager, n=1)
    before = version(manager, session)
    session.modified = True
    assert session.modified
    session.save()
    assert version(manager, session) != before
    assert not session.modified


DROPS: dict[str, Any] = {
    "modified": lambda s: setattr(s, "modified", False),
    "revert": lambda s: s.revert(),
    "auto": lambda s: None,
}


@pytest.mark.parametrize("drop", DROPS)
@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(n=2),
        lambda s: s["cart"].append(1),
        lambda s: (s.pop("n"), s["cart"].append(1), s.update(new=True)),
        lambda s: setattr(s, "modified", True),
        lambda s: s.set_expiry(300),
        lambda s: s.set_test_cookie(),
    ],
)
def test_what_was_dropped_leaves_no_trace(drop: str, change: Any) -> None:
    """``modified = False``, ``revert()`` and ``auto=False`` are one function."""
    store = CountingStore(MemoryStore())
    manager = SessionManager(store, Options(auto=drop != "auto"))
    session = stored(manager, n=1, cart=[])
    age = session.get_expiry_age()
    change(session)
    assert session.modified
    DROPS[drop](session)
    assert session.modified is (drop == "auto")
    store.calls.clear()
    finish(session)
    assert store.calls == []
    again = reopened(manager, session)
    assert again == {"n": 1, "cart": []}
    assert again.get_expiry_age() == age
    assert not again.test_cookie_worked()


@pytest.mark.parametrize("drop", DROPS)
def test_an_identity_is_never_dropped(drop: str) -> None:
    """Values go back; a login, a regeneration, a rotation and an end persist."""
    manager = SessionManager(MemoryStore(), Options(auto=drop != "auto"))
    for verb in ("login", "regenerate", "rotate", "flush"):
        session = stored(manager, n=1)
        id, old = session.id, manager.token_of(session)
        session["n"] = 2
        session.login("ann") if verb == "login" else getattr(session, verb)()
        DROPS[drop](session)
        access_of(session).commit()
        if verb == "flush":
            assert manager.get(id) is None
            continue
        assert manager.token_of(session) != old
        again = reopened(manager, session)
        assert again == {"n": 1}
        assert again.user == ("ann" if verb == "login" else None)


def test_what_was_handed_out_and_dropped_is_let_go(manager: SessionManager) -> None:
    """A list from before a revert is watched no more; what is stored comes back."""
    session = stored(manager, cart=[1])
    before = session["cart"]
    before.append(2)
    session.revert()
    before.append(3)
    assert not session.modified
    assert session["cart"] == [1]
    session.save()
    assert reopened(manager, session) == {"cart": [1]}


def test_revert_of_a_new_session_takes_all_back(manager: SessionManager) -> None:
    """Nothing is left that would be worth storing."""
    session = manager.create()
    session["n"] = 1
    session.set_expiry(60)
    session.set_test_cookie()
    session.revert()
    assert session == {}
    assert session.get_expiry_age() == 14 * 86400
    assert not session.modified
    finish(session)
    assert list(manager.sessions()) == []


def test_a_new_session_is_modified_when_there_is_something_to_store(
    manager: SessionManager,
) -> None:
    """Values, or something asked for; not what was put in and taken out again."""
    session = manager.create()
    assert not session.modified
    session["n"] = 1
    assert session.modified
    del session["n"]
    session.set_expiry(60)
    assert not session.modified
    finish(session)
    assert list(manager.sessions()) == []
    for count, ask in enumerate(
        (
            lambda s: setattr(s, "modified", True),
            lambda s: s.set_test_cookie(),
            lambda s: s.login("ann"),
        ),
        1,
    ):
        session = manager.create()
        ask(session)
        assert session.modified
        finish(session)
        assert len(list(manager.sessions())) == count


def test_asking_whether_it_is_modified_is_not_looking(manager: SessionManager) -> None:
    """Neither before the first access nor after the end."""
    session = stored(manager, n=1)
    assert not session.modified
    assert not session.accessed
    session["n"] = 2
    access_of(session).close()
    assert not session.modified
