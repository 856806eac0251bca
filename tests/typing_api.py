"""Not run: type-checked, so that the public names keep the types they promise.

Whatever may be given for an option passes, and what may not is an error: an ``ignore``
that is not needed fails as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from configparser import ConfigParser
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import make_server

import pytest

from wsgisession import (
    ABSENT,
    Capabilities,
    Key,
    LockTimeout,
    MergeConflict,
    Record,
    Session,
    SessionConflict,
    SessionManager,
    SessionMiddleware,
    SessionTooLarge,
    VersionConflict,
    events,
    get_session,
)
from wsgisession.store import IterableStore, LockingStore, Store, TokenStore
from wsgisession.stores.cookie import CookieStore
from wsgisession.stores.file import FileStore
from wsgisession.stores.memory import MemoryStore
from wsgisession.stores.redis import RedisStore
from wsgisession.stores.sqlalchemy import SQLAlchemyStore
from wsgisession.testing import IterableStoreSuite, LockingStoreSuite

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SECRET = "a secret of at least thirty-two octets"


# -- in a request ------------------------------------------------------------------------


class Basket(Session):
    """A framework's own names."""

    def invalidate(self) -> None:
        self.flush()


def application(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    session: Session = get_session(environ)
    session["visits"] = session.get("visits", 0) + 1
    session.setdefault("cart", []).append("milk")
    session.update({"a": 1}, b=2)
    session |= {"c": 3}
    values: dict[str, Any] = session | {"d": 4}
    values = {"e": 5} | session
    values = session.copy()
    names: list[str] = sorted(session)
    first: str = session.pop("name", "")
    with session.lock(wait=1) as held:
        held["n"] = len(values) + len(names) + len(first)
    session.lock(0.5)
    session.unlock()
    session.login("ann", device="phone", floor=3)
    session.set_expiry(3600)
    session.set_expiry(timedelta(hours=1))
    session.set_expiry(datetime.now())
    session.set_expiry(None)
    age: int = session.get_expiry_age(expiry=60, modification=session.last_accessed)
    date: datetime = session.get_expiry_date(expiry=timedelta(seconds=age))
    user: str | None = session.user
    details: Mapping[str, Any] = session.login_details
    flags: list[bool] = [session.new, session.ended, session.modified, session.locked]
    session.modified = False
    session.view(Basket).invalidate()
    session.set_expiry("1h")  # type: ignore[arg-type]
    session[1] = 2  # type: ignore[index]
    session.login(7)
    session.login(None)  # type: ignore[arg-type]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{date} {user} {details} {flags}".encode()]


wrapped = SessionMiddleware(application, {"session.url": "memory:"})
served: WSGIApplication = wrapped
nested = SessionMiddleware(served, type="memory", idle_timeout="30m")
make_server("127.0.0.1", 8000, nested)
ini = ConfigParser()
by_ini = SessionMiddleware(application, ini["session"])
by_manager = SessionMiddleware(application, manager=wrapped.manager, environ_key="mine")


# -- options -----------------------------------------------------------------------------


class Packer:
    """A serializer of the application's; what its parameters are called is its own."""

    def dumps(self, obj: Mapping[str, Any]) -> str:
        return json.dumps(dict(obj))

    def loads(self, octets: bytes | str) -> Any:
        return json.loads(octets)


def domain(environ: Mapping[str, Any]) -> str | None:
    return "example.com" if environ["HTTP_HOST"] else None


def path(environ: WSGIEnvironment) -> str:
    return str(environ["SCRIPT_NAME"] or "/")


def add(conflict: MergeConflict) -> dict[str, Any]:
    keys: frozenset[str] = conflict.keys
    if "n" in keys and conflict.base.get("n", ABSENT) is ABSENT:
        return conflict.theirs
    return {**conflict.theirs, "n": conflict.ours["n"]}


def happened(event: events.Event) -> None:
    if isinstance(event, events.Conflicted):
        assert event.id or event.keys or event.overwritten


def facts(error: Exception) -> object:
    if isinstance(error, LockTimeout):
        return error.waited + (error.waiters or 0)
    if isinstance(error, SessionConflict | SessionTooLarge):
        keys: tuple[str, ...] = error.keys
        return keys
    return error.record if isinstance(error, VersionConflict) else None


# -- stores ------------------------------------------------------------------------------


class Mine:
    """A store of the caller's; it inherits nothing."""

    capabilities = Capabilities(lists=True)

    def load(self, key: Key) -> Record | None:
        return None

    def save(self, record: Record, *, expect: int) -> None:
        raise VersionConflict(record.id, record._replace(version=expect))

    def touch(self, record: Record) -> bool:
        return False

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        return False

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        return iter(())

    def delete_expired(self, *, batch: int) -> int:
        return 0


redis, database = RedisStore("redis://"), SQLAlchemyStore("sqlite:///sessions.db")
stores: list[Store] = [MemoryStore(), FileStore("sessions"), redis, database, Mine()]
locking: list[LockingStore] = [MemoryStore(), FileStore("sessions"), redis, database]
iterable: list[IterableStore] = [FileStore("sessions"), redis, database, Mine()]
cookie: TokenStore = CookieStore(secret=[SECRET.encode()], revocation=MemoryStore())
SessionManager(cookie)
SessionManager(Mine())
SessionManager(object())  # type: ignore[arg-type]
record: Record | None = stores[0].load(Key("id"))


class TestMine(LockingStoreSuite, IterableStoreSuite):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()
