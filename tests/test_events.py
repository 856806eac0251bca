"""``on_event`` is told what happens: small facts, and nothing that a thief can use."""

from __future__ import annotations

import dataclasses
import threading
from contextlib import suppress
from typing import Any

import pytest

from wsgisession import (
    Options,
    Session,
    SessionConflict,
    SessionManager,
    StoreError,
    events,
)
from wsgisession.stores.cookie import CookieStore
from wsgisession.stores.memory import MemoryStore

from .between import between
from .conftest import SECRET, Clock, CountingStore, Visitor, Watch
from .tabs import Site

EVENTS: tuple[type[Any], ...] = events.Event.__args__  # type: ignore[attr-defined]

HANDLERS: dict[str, Any] = {
    "/read": lambda session: session.get("n"),
    "/write": lambda session: session.update(n=session.get("n", 0) + 1),
    "/login": lambda session: session.login("ann"),
    "/rotate": lambda session: session.rotate(),
    "/logout": lambda session: session.logout(),
    "/anew": lambda session: (session.clear(), session.login("bob")),
}


def watched(
    store: Any = None, *kinds: type[Any], clock: Clock | None = None, **options: Any
) -> tuple[Visitor, Watch]:
    """A visitor to an application whose events are kept."""
    watch = Watch(*(kinds or EVENTS))
    options_ = Options(on_event=watch, **options)
    manager = SessionManager(store or MemoryStore(), options_, clock=clock)
    return Visitor(manager, HANDLERS), watch


def names(watch: Watch) -> list[str]:
    """What has happened since the last look."""
    seen = [type(event).__name__ for event in watch.seen]
    watch.seen.clear()
    return seen


def test_the_life_of_a_session(store: Any) -> None:
    """On every store: each request tells what it did, in the order in which it did it."""
    visitor, watch = watched(store)
    for method, page, told in (
        ("get", "/read", []),
        ("post", "/write", ["Saved", "Created"]),
        ("get", "/read", ["Loaded"]),
        ("post", "/write", ["Waited", "Saved"]),
        ("get", "/write", ["Loaded", "Saved"]),
        ("post", "/login", ["Waited", "Saved"]),
        ("post", "/anew", ["Loaded", "Saved", "Ended", "Created"]),
        ("post", "/logout", ["Loaded", "Ended"]),
        ("get", "/read", []),
    ):
        getattr(visitor, method)(page)
        seen = names(watch)
        assert [name for name in seen if name != "Refused"] == told, page


def test_the_facts() -> None:
    """Ids, a user, seconds, octets."""
    visitor, watch = watched()
    visitor.post("/login")
    saved, created = watch.seen
    (record,) = visitor.middleware.manager.store.records()
    assert created == events.Created(id=record.id, user="ann")
    assert saved.id == record.id
    assert saved.octets == len(record.data)
    assert 0 <= saved.seconds < 5
    visitor.get("/read")
    assert 0 <= watch.seen[2].seconds < 5


def test_a_cookie_session_tells_as_well() -> None:
    """What is issued is saved."""
    visitor, watch = watched(
        CookieStore(secret=(SECRET.encode(),), revocation=MemoryStore()),
        secret=SECRET,
    )
    visitor.post("/write")
    assert names(watch) == ["Saved", "Created"]
    visitor.get("/read")
    assert names(watch) == ["Loaded"]
    visitor.post("/logout")
    assert names(watch) == ["Loaded", "Ended"]


def test_a_lock_tells_how_long_it_was_waited_for() -> None:
    """The seconds in the queue are part of it."""
    watch = Watch(events.Waited)
    manager = SessionManager(MemoryStore(), Options(on_event=watch))
    session = manager.create()
    session["n"] = 1
    session.save()
    token = str(manager.token_of(session))
    first = manager.open(token, locking=True)
    assert first["n"] == 1
    releasing = threading.Timer(0.3, first.unlock)
    releasing.start()
    assert manager.open(token, locking=True)["n"] == 1
    assert watch.seen[0].seconds < 0.2
    assert 0.2 < watch.seen[1].seconds < 5


def test_two_requests_at_once_tell_how_they_were_settled() -> None:
    """Different keys are merged; what was read is run again."""
    watch = Watch(events.Merged, events.Replayed)
    manager = SessionManager(MemoryStore(), Options(on_event=watch))
    browser, _ = between(manager, "/increment")
    browser.get("/slow")
    (replayed,) = watch.seen
    (session,) = manager.sessions()
    assert replayed == events.Replayed(id=session.id, keys=("n",), path="/slow")
    watch.seen.clear()
    session = manager.open(browser.cookies["sid"])
    session["other"] = 1
    browser.get("/increment")
    session.save()
    assert watch.seen == [events.Merged(id=session.id)]


@pytest.mark.parametrize("on_conflict", ["ours", "raise"])
def test_a_conflict_that_is_decided_is_told(on_conflict: str) -> None:
    """With the keys, and those whose changes are overwritten."""
    watch = Watch(events.Conflicted)
    options = Options(on_event=watch, on_conflict=on_conflict)  # type: ignore[arg-type]
    manager = SessionManager(MemoryStore(), options)
    session = manager.create()
    session.update(a=1, b=1)
    session.save()
    token = str(manager.token_of(session))
    late = manager.open(token)
    late["a"] = late["a"] + late["b"]
    with manager.edit(late.id) as other:
        other.update(a=5, b=5)
    with suppress(SessionConflict):
        late.save()
    assert watch.seen == [
        events.Conflicted(id=session.id, keys=("a", "b"), overwritten=("a",))
    ]


def test_an_end_from_outside_is_told_and_what_came_too_late() -> None:
    """By id, or of a user; and the request that still wrote."""
    visitor, watch = watched()
    manager = visitor.middleware.manager
    visitor.post("/login")
    late = manager.open(visitor.cookies["sid"])
    late["n"] = 1
    names(watch)
    assert manager.end_user("ann") == 1
    assert names(watch) == ["Ended"]
    assert not manager.end(late.id)
    assert names(watch) == []
    with pytest.raises(Exception, match="ended"):
        late.save()
    assert names(watch) == ["Dropped"]


def test_a_session_that_is_over_is_told(clock: Clock) -> None:
    """By the clock of the manager, which the store does not know."""
    visitor, watch = watched(None, events.Expired, clock=clock, idle_timeout=60)
    visitor.post("/write")
    clock.pass_by(61)
    visitor.get("/read")
    assert names(watch) == ["Expired"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("junk", "malformed"),
        ("{unknown}", "unknown"),
        ("{forged}", "wrong secret"),
        ("{old}", "ended"),
    ],
)
def test_a_refused_cookie_is_told_with_its_reason(value: str, reason: str) -> None:
    """And never with the cookie."""
    watch = Watch(events.Refused)
    manager = SessionManager(MemoryStore(), Options(on_event=watch))
    site = Site(manager, login=lambda s: s.login("ann"), read=lambda s: s.get("n"))
    old = site.begun("login")
    site.post("login", old)
    elsewhere = SessionManager(MemoryStore())
    session = elsewhere.create()
    session.save()
    cookie = value.format(
        unknown=elsewhere.token_of(session),
        forged=site.begun("login")[:22] + "A" * 42,
        old=old,
    )
    watch.seen.clear()
    site.get("read", cookie)
    assert [event.reason for event in watch.seen] == [reason]
    assert cookie not in repr(watch.seen)


def test_a_bad_signature_is_told() -> None:
    """By another worker's secret, or by somebody's."""
    watch = Watch(events.Refused)
    manager = SessionManager(MemoryStore(), Options(secret=SECRET[::-1]))
    session = manager.create()
    session.save()
    other = SessionManager(MemoryStore(), Options(on_event=watch, secret=SECRET))
    assert other.open(str(manager.token_of(session))).new
    assert watch.seen == [events.Refused(id=None, reason="bad signature")]


def test_a_store_that_fails_is_told_each_time() -> None:
    """The log says one line a minute; who counts failures is told of each."""

    class Broken(MemoryStore):
        def load(self, key: Any) -> Any:
            raise StoreError("the disk is on fire")

    visitor, watch = watched(Broken(), events.StoreFailed)
    for _ in range(3):
        visitor.get("/read", headers={"Cookie": f"sid={'A' * 64}"}, status=503)
    assert [str(event.error) for event in watch.seen] == ["the disk is on fire"] * 3
    assert watch.seen[0].consequence == "answering 503"


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_no_event_has_a_place_for_a_token(kind: type[Any]) -> None:
    """P5: ids, names of keys, numbers."""
    fields = {field.name for field in dataclasses.fields(kind)}
    assert not fields & {"token", "cookie", "secret", "proof", "values", "data"}


def test_a_hook_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """At any event: pages are answered, values are kept, the log has the error."""

    def fail(event: events.Event) -> None:
        raise RuntimeError("no network today")

    manager = SessionManager(MemoryStore(), Options(on_event=fail))
    visitor = Visitor(manager, HANDLERS)
    for _ in range(2):
        visitor.post("/write")
        visitor.get("/read")
    assert visitor.get("/read").text == "2"
    visitor.post("/logout")
    assert list(manager.sessions()) == []
    assert "the hook on_event failed at Created" in caplog.text


def test_without_a_hook_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is called as it is."""
    store = CountingStore(MemoryStore())
    assert SessionManager(store).repository.store is store
    told = SessionManager(store, Options(on_event=print))
    assert told.repository.store is not store
    assert told.store is store


def test_a_session_may_be_ended_by_the_hook() -> None:
    """It is called in the thread of the request, and may use the manager."""
    ended: list[bool] = []

    def end(event: events.Event) -> None:
        if isinstance(event, events.Created) and event.user == "mallory":
            ended.append(manager.end(event.id))

    manager = SessionManager(MemoryStore(), Options(on_event=end))
    session: Session = manager.create()
    session.login("mallory")
    session.save()
    assert ended == [True]
    assert list(manager.sessions()) == []
