"""What is promised, on a store of every kind; see the README for the list.

A promise of a kind of store is a test here with the marker of the promise, and the matrix
of both is printed by ``python -m tests.promises``.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from wsgisession import (
    Key,
    LockTimeout,
    Session,
    SessionEnded,
    SessionManager,
    StoreError,
    VersionConflict,
)
from wsgisession.stores.memory import MemoryStore

from .conftest import KINDS, CountingStore
from .orders import SteppedStore, in_every_order
from .promises import PROMISES, missing_cells
from .tabs import Site

PATIENCE = 30.0


@pytest.fixture
def managed(store_options: dict[str, Any]) -> Iterator[Any]:
    """Makes managers of one store of the kind, around which a wrapper may be put."""
    made: list[Any] = []

    def manage(wrapper: Any = None, **options: Any) -> SessionManager:
        manager = SessionManager.from_config({**store_options, **options})
        made.append(manager.store)
        if wrapper is None:
            return manager
        return SessionManager(wrapper(manager.store), manager.options)

    yield manage
    for store in made:
        getattr(store, "close", lambda: None)()


# -- what pages do -----------------------------------------------------------------------


def make(session: Session) -> None:
    session["n"] = 0


def increment(session: Session) -> int:
    count: int = session.get("n", 0)
    session["n"] = count + 1
    return count + 1


def read(session: Session) -> object:
    return session.get("n")


def login(session: Session) -> None:
    session.login("ann")


def logout(session: Session) -> None:
    session.logout()


def rotate(session: Session) -> None:
    session.rotate()


def regenerate(session: Session) -> None:
    session.regenerate()


PAGES: Mapping[str, Any] = {
    "make": make,
    "increment": increment,
    "read": read,
    "login": login,
    "logout": logout,
    "rotate": rotate,
    "regenerate": regenerate,
}


def leading_to(manager: SessionManager, id: str, cookies: set[str | None]) -> list[str]:
    """The cookies that lead to a session.

    A request that comes with the cookie of a session that has ended is a visitor, and may
    begin a new one, under another id.
    """
    opened = {each: manager.open(each) for each in cookies if each}
    return [each for each, at in opened.items() if not at.new and at.id == id]


# -- P1: no lost update ------------------------------------------------------------------


@pytest.mark.not_in_a_cookie
@pytest.mark.promise("P1")
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_two_increments_at_once_count_two(
    managed: Any, kind: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In every order of their store calls, and with nothing to report."""
    manager = managed(SteppedStore)
    site = Site(manager, **PAGES)

    def prepare() -> Any:
        cookie = site.begun("make")

        def one() -> None:
            assert site.ask(method, "increment", cookie).status == "200 OK"

        def check() -> None:
            assert site.get("read", cookie).body == "2"

        return [one, one], check

    assert in_every_order(manager.store, prepare) > 1
    assert "overwritten" not in caplog.text


class LastWriterWins(SteppedStore):
    """The positive control: it saves whatever comes, and locks nothing."""

    def save(self, record: Any, *, expect: int) -> object:
        try:
            return super().save(record, expect=expect)
        except VersionConflict as conflict:
            there = conflict.record
            return super().save(record, expect=there.version if there else 0)

    def lock(self, key: Key, **_: Any) -> Any:
        return self.load(key)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_store_that_loses_updates_is_found_out(method: str) -> None:
    """The positive control of the test above."""
    store = LastWriterWins(MemoryStore())
    site = Site(SessionManager(store), **PAGES)
    counts = set()

    def prepare() -> Any:
        cookie = site.begun("make")

        def one() -> None:
            site.ask(method, "increment", cookie)

        return [one, one], lambda: counts.add(site.get("read", cookie).body)

    in_every_order(store, prepare)
    assert counts == {"1", "2"}


# -- P2 and P10: no resurrection ---------------------------------------------------------

BESIDE = ["increment", "rotate", "login", "regenerate"]


@pytest.mark.promise("P2")
@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("token", ["current", "replaced"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_logout_ends_every_token(
    managed: Any, kind: str, token: str, beside: str, method: str
) -> None:
    """Whatever another tab does, in every order of the store calls."""
    manager = managed(SteppedStore)
    site = Site(manager, **PAGES)

    def prepare() -> Any:
        cookies: set[str | None] = {first := site.begun("make")}
        if token == "replaced" and kind != "cookie":
            cookies.add(site.begun("rotate", first))

        id = manager.open(first).id

        def other_tab() -> None:
            cookies.add(site.ask(method, beside, first).cookie)

        def log_out() -> None:
            assert site.post("logout", first).status == "200 OK"

        def check() -> None:
            assert leading_to(manager, id, cookies) == []

        return [other_tab, log_out], check

    assert in_every_order(manager.store, prepare) > 1


@pytest.mark.promise("P2")
@pytest.mark.parametrize("beside", ["increment", "rotate", "regenerate"])
def test_an_end_by_id_ends_every_token(managed: Any, kind: str, beside: str) -> None:
    """``manager.end(id)`` beside another tab, in every order."""
    manager = managed(SteppedStore)
    site = Site(manager, **PAGES)

    def prepare() -> Any:
        cookies: set[str | None] = {first := site.begun("make")}
        id = manager.open(first).id

        def other_tab() -> None:
            cookies.add(site.get(beside, first).cookie)

        def check() -> None:
            assert leading_to(manager, id, cookies) == []

        return [other_tab, lambda: manager.end(id)], check

    assert in_every_order(manager.store, prepare) > 1


@pytest.mark.promise("P10")
@pytest.mark.parametrize("beside", ["increment", "rotate", "regenerate"])
def test_a_user_is_ended_everywhere(managed: Any, kind: str, beside: str) -> None:
    """Beside a request of one of the sessions, in every order."""
    manager = managed(SteppedStore)
    site = Site(manager, **PAGES)
    users = iter(range(10_000))

    def prepare() -> Any:
        user = f"{kind}-{beside}-{next(users)}"
        site.handlers["enter"] = lambda session: session.login(user)
        cookies: set[str | None] = set()
        for _ in range(2):
            cookies.add(site.begun("enter", site.begun("make")))
        first = min(filter(None, cookies))
        ids = [manager.open(each).id for each in cookies if each]

        def other_tab() -> None:
            cookies.add(site.get(beside, first).cookie)

        def check() -> None:
            assert not any(leading_to(manager, id, cookies) for id in ids)

        return [other_tab, lambda: manager.end_user(user)], check

    assert in_every_order(manager.store, prepare) > 1


@pytest.mark.promise("P10")
@pytest.mark.parametrize("before", [None, "rotate", "regenerate", "increment"])
def test_everywhere_but_here(managed: Any, kind: str, before: str | None) -> None:
    """With ``keep=session.id`` the caller stays, whatever it did before."""
    manager = managed()
    user = f"keeps-{kind}-{before}"

    def end_others(session: Session) -> None:
        if before is not None:
            PAGES[before](session)
        manager.end_user(user, keep=session.id)

    site = Site(
        manager, **PAGES, enter=lambda session: session.login(user), end=end_others
    )
    here, there = (site.begun("enter", site.begun("make")) for _ in range(2))
    here = site.post("end", here).cookie or here
    assert manager.open(here).user == user
    assert manager.open(there).user is None


@pytest.mark.promise("P10")
def test_a_thousand_sessions_of_a_user_end_under_load(managed: Any, kind: str) -> None:
    """While requests of them all go on: none lives afterwards, and the kept one does."""
    manager, user = managed(), f"many-{kind}"
    tokens: list[str] = []
    done = threading.Event()

    def begun() -> Session:
        session: Session = manager.create()
        session.login(user)
        session["n"] = 0
        session.save()
        tokens.append(str(manager.token_of(session)))
        return session

    def work(number: int) -> int:
        random, saved = Random(number), 0
        while not done.is_set():
            session = manager.open(random.choice(tokens), locking=number % 2 == 0)
            if session.user == user:
                session["n"] = session.get("n", 0) + 1
                with suppress(SessionEnded, LockTimeout):
                    session.save()
                    tokens.append(str(manager.token_of(session)))
                    saved += 1
        return saved

    kept = begun().id
    for _ in range(999):
        begun()
    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work, number) for number in range(4)]
        time.sleep(0.3)
        manager.end_user(user, keep=kept)
        time.sleep(0.1)
        done.set()
        saved = [each.result() for each in working]
    assert all(saved)
    alive = {manager.open(token).id for token in tokens if _is_of(manager, token, user)}
    assert alive == {kept}


def _is_of(manager: SessionManager, token: str, user: str) -> bool:
    return manager.open(token).user == user


# -- P3: no adoption ---------------------------------------------------------------------


@pytest.mark.promise("P3")
def test_an_id_of_the_clients_choice_is_nobodys(managed: Any, kind: str) -> None:
    """Nothing is stored under it, and nothing is found."""
    counting: list[CountingStore] = []

    def count(store: Any) -> CountingStore:
        counting.append(CountingStore(store))
        return counting[0]

    manager = managed(count)
    site = Site(manager, **PAGES)
    invented = "A" * 64
    assert site.get("read", invented).cookie is None
    answer = site.post("make", invented)
    assert answer.cookie not in (None, "", invented)
    assert manager.open(invented).get("n") is None
    assert manager.get("00" * 16) is None if manager.store.capabilities.lists else True


# -- P4: readers are free ----------------------------------------------------------------


@pytest.mark.promise("P4")
def test_a_reader_makes_one_call_and_an_idle_page_none(managed: Any, kind: str) -> None:
    """And a read-modify-write two; no reader is sent a cookie."""
    wrapped: list[CountingStore] = []

    def count(store: Any) -> CountingStore:
        wrapped.append(CountingStore(store))
        return wrapped[0]

    site = Site(managed(count), **PAGES, idle=lambda session: "nothing")
    cookie = site.begun("make")
    calls = wrapped[0].calls
    for path, method, allowed in [
        ("idle", "GET", []),
        ("read", "GET", ["load"]),
        ("increment", "POST", ["lock" if kind != "cookie" else "load", "save"]),
    ]:
        calls.clear()
        answer = site.ask(method, path, cookie)
        assert calls == allowed
        assert answer.cookie is None or (kind == "cookie" and path == "increment")


@pytest.mark.promise("P4")
@pytest.mark.parametrize("is_due", [False, True], ids=["plain", "rotation due"])
def test_a_reader_does_not_wait_for_a_writer(
    managed: Any, kind: str, is_due: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is answered while a POST holds the session, also when a rotation is due.

    Then it makes one store call besides the optional one, which waits for nobody.
    """
    inside, enough = threading.Event(), threading.Event()
    wrapped: list[CountingStore] = []

    def count(store: Any) -> CountingStore:
        wrapped.append(CountingStore(store))
        return wrapped[0]

    def hold(session: Session) -> None:
        session["held"] = True
        inside.set()
        assert enough.wait(PATIENCE)

    site = Site(managed(count, rotate_every=400), **PAGES, hold=hold)
    cookie = site.begun("make")
    thread = threading.Thread(target=site.post, args=("hold", cookie))
    thread.start()
    try:
        assert inside.wait(PATIENCE)
        wrapped[0].calls.clear()
        with at(monkeypatch, 500 if is_due else 0):
            assert site.get("read", cookie).body == "0"
        assert wrapped[0].calls[0] == "load"
        assert wrapped[0].calls[1:] in ([], ["save"] if is_due else [])
        assert thread.is_alive()
    finally:
        enough.set()
        thread.join(PATIENCE)


@pytest.mark.not_in_a_cookie
@pytest.mark.promise("P4")
def test_a_rotation_that_is_due_is_done_by_a_reader(
    managed: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above: where nobody holds the session, it is rotated."""
    site = Site(managed(rotate_every=400), **PAGES)
    cookie = site.begun("make")
    with at(monkeypatch, 500):
        rotated = site.get("read", cookie)
    assert rotated.cookie not in (None, cookie)
    assert site.get("read", rotated.cookie).body == "0"


# -- P5: a leaked store opens no door ----------------------------------------------------


@pytest.mark.not_in_a_cookie
@pytest.mark.promise("P5")
def test_what_a_store_holds_makes_no_token(managed: Any, kind: str) -> None:
    """Neither the token nor its secret is in any field of the record."""
    manager = managed()
    cookie = Site(manager, **PAGES).begun("make")
    session = manager.open(cookie)
    record = manager.store.load(Key(session.id))
    assert cookie not in repr(tuple(record))
    assert cookie[22:] not in repr(tuple(record))
    assert record.proof in repr(tuple(record))
    assert cookie not in repr(session) + repr(record) + repr(Key(session.id))
    assert not hasattr(session, "token")


# -- P6: saved before the client can act on it -------------------------------------------


@pytest.mark.not_in_a_cookie
@pytest.mark.promise("P6")
def test_a_change_is_stored_before_the_first_header_leaves(
    managed: Any, kind: str
) -> None:
    """A client that acts on the headers finds what it was told."""
    manager = managed()
    site = Site(manager, **PAGES)
    cookie = site.begun("make")
    seen = []
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/increment",
        "SERVER_NAME": "localhost",
        "wsgi.url_scheme": "http",
        "HTTP_COOKIE": f"sid={cookie}",
    }

    def start(status: str, headers: Any, exc: Any = None) -> Any:
        seen.append(manager.open(cookie)["n"])

    site.application(environ, start)
    assert seen == [1]


# -- P8: an outage is not a logout -------------------------------------------------------


class Broken:
    """A store that fails at every call."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.capabilities = store.capabilities
        self.fails = False

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name in ("load", "save", "touch", "delete", "lock", "unlock"):
            store = object.__getattribute__(self, "_store")
            if object.__getattribute__(self, "fails"):
                return _fail
            return getattr(store, name)
        return found

    def load(self, key: Any) -> Any: ...
    def save(self, record: Any, *, expect: int) -> Any: ...
    def touch(self, record: Any) -> Any: ...
    def delete(self, key: Any, *, user: Any = None) -> Any: ...
    def lock(self, key: Any, **limits: Any) -> Any: ...
    def unlock(self, record: Any) -> Any: ...
    def records(self, *, user: Any = None) -> Any: ...
    def delete_expired(self, *, batch: int) -> Any: ...
    def end_user(self, user: str, *, keep: Any) -> Any: ...


def _fail(*_: Any, **__: Any) -> Any:
    raise StoreError("the storage is out of reach")


@pytest.mark.promise("P8")
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_store_that_fails_is_a_503_and_no_logout(
    managed: Any, kind: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No cookie is touched, and afterwards everything is as it was."""
    broken: list[Broken] = []

    def breakable(store: Any) -> Broken:
        broken.append(Broken(store))
        return broken[0]

    site = Site(managed(breakable), **PAGES)
    cookie = site.begun("make")
    broken[0].fails = True
    with caplog.at_level(logging.CRITICAL):
        answer = site.ask(method, "increment", cookie)
    assert answer.status.startswith("503")
    assert answer.cookie is None
    assert ("Retry-After", "1") in answer.headers
    broken[0].fails = False
    assert site.get("read", cookie).body == "0"


# -- P9: two clocks ----------------------------------------------------------------------


@contextmanager
def at(monkeypatch: pytest.MonkeyPatch, later: float) -> Iterator[None]:
    """The same a while later, for the manager."""
    import time

    now = time.time() + later
    with monkeypatch.context() as patch:
        patch.setattr("wsgisession._core.repository.time.time", lambda: now)
        yield


@pytest.mark.promise("P9")
def test_both_clocks_end_a_session(
    managed: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle: after ten minutes without a request.  Absolute: after an hour of requests."""
    manager = managed(idle_timeout=600, absolute_timeout=3600)
    site = Site(manager, **PAGES)
    cookie = site.begun("make")
    with at(monkeypatch, 601):
        assert site.get("read", cookie).body == "None"
    cookie = site.begun("make")
    for minutes in range(9, 60, 9):
        with at(monkeypatch, minutes * 60):
            answer = site.get("read", cookie)
            assert answer.body == "0"
            cookie = answer.cookie or cookie
    with at(monkeypatch, 3601):
        assert site.get("read", cookie).body == "None"


@pytest.mark.promise("P9")
@pytest.mark.parametrize("clock", ["idle", "absolute"])
@pytest.mark.parametrize(("off", "is_alive"), [(-1, True), (0, False), (1, False)])
def test_each_clock_to_the_second(
    managed: Any,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    clock: str,
    off: int,
    is_alive: bool,
) -> None:
    """One second before its end a session is there, at its end and later it is not."""
    idle = 600 if clock == "idle" else 3600
    manager = managed(idle_timeout=idle, absolute_timeout=3600)
    site = Site(manager, **PAGES)
    began = float(int(time.time()))

    def asked(seconds: float, page: str, cookie: str | None = None) -> Any:
        with monkeypatch.context() as patch:
            now = began + seconds
            patch.setattr("wsgisession._core.repository.time.time", lambda: now)
            return site.get(page, cookie)

    cookie = asked(0, "make").cookie
    if clock == "absolute":  # a use moves the idle clock, and not the other one
        cookie = asked(1800, "read", cookie).cookie or cookie
    end = 600 if clock == "idle" else 3600
    answer = asked(end + off, "read", cookie)
    assert answer.body == ("0" if is_alive else "None")


# -- P11: a crash holds nobody up --------------------------------------------------------


@pytest.mark.not_in_a_cookie
@pytest.mark.promise("P11")
def test_a_vanished_holder_holds_nobody_up(managed: Any, kind: str) -> None:
    """The session is usable within the lease, and the holder cannot overwrite."""
    manager = managed(lock_lease=0.3)
    site = Site(manager, **PAGES)
    cookie = site.begun("make")
    key = Key(manager.open(cookie).id)
    lost = manager.store.lock(key, wait=1, lease=0.3, waiters=50)
    assert site.post("increment", cookie).body == "1"
    with pytest.raises(VersionConflict):
        manager.store.save(lost._replace(version=lost.version + 1), expect=lost.version)
    assert site.get("read", cookie).body == "1"


@pytest.mark.not_in_a_cookie
@pytest.mark.promise("P11")
def test_a_holder_that_overran_its_lease_is_merged(managed: Any, kind: str) -> None:
    """Its change of another key is kept, and so is what was done since."""
    inside, enough = threading.Event(), threading.Event()

    def overrun(session: Session) -> None:
        session["late"] = True
        inside.set()
        assert enough.wait(PATIENCE)

    manager = managed(lock_lease=0.3)
    site = Site(manager, **PAGES, overrun=overrun)
    cookie = site.begun("make")
    thread = threading.Thread(target=site.post, args=("overrun", cookie))
    thread.start()
    try:
        assert inside.wait(PATIENCE)
        assert site.post("increment", cookie).body == "1"
    finally:
        enough.set()
        thread.join(PATIENCE)
    assert manager.open(cookie).copy() == {"n": 1, "late": True}


# -- P7 and P12; there is more in tests/http ---------------------------------------------


@pytest.mark.promise("P7")
@pytest.mark.parametrize(
    "value", ["", "x", "A" * 64, "A" * 5000, "=;=", "\u20ac", "A" * 63 + "!", "'\\\"'"]
)
def test_a_malformed_cookie_is_an_anonymous_visitor(
    managed: Any, kind: str, value: str
) -> None:
    """No error, no cookie, no value."""
    answer = Site(managed(), **PAGES).get("read", value)
    assert (answer.status, answer.body, answer.cookie) == ("200 OK", "None", None)


@pytest.mark.promise("P12")
def test_a_shared_cache_keeps_nothing_of_a_session(managed: Any, kind: str) -> None:
    """Every access varies on the cookie; what sets one is not stored."""
    site = Site(managed(), **PAGES)
    begun = site.post("make")
    assert ("Vary", "Cookie") in begun.headers
    assert ("Cache-Control", "no-store") in begun.headers
    assert ("Vary", "Cookie") in site.get("read", begun.cookie).headers


# -- the matrix --------------------------------------------------------------------------


def test_every_promise_has_a_test_on_every_kind_of_store() -> None:
    """``python -m tests.promises`` prints the matrix and finds no hole in it."""
    command = [sys.executable, "-m", "tests.promises"]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE * 4,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_hole_in_the_matrix_is_found() -> None:
    """The control: a cell without a test is named."""
    full = Counter({(each, kind): 1 for each in PROMISES for kind in KINDS})
    assert missing_cells(full) == []
    full["P2", "redis"] = 0
    full["P1", "cookie"] = 0
    assert missing_cells(full) == [("P2", "redis")]
