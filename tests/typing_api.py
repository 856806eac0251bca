"""Not run: type-checked, so that the public names keep the types they promise."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from wsgisession import (
    Clash,
    Key,
    Options,
    Record,
    Session,
    SessionManager,
    SessionMiddleware,
    get_session,
)
from wsgisession.store import IterableStore, LockingStore, Store
from wsgisession.stores.file import FileStore
from wsgisession.stores.memory import MemoryStore


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    session: Session = get_session(environ)
    session["visits"] = session.get("visits", 0) + 1
    with session.lock(wait=1) as held:
        held["n"] = 1
    when: datetime = session.created
    session.set_expiry(timedelta(hours=1))
    session.login("ann", device="phone")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(when).encode()]


def add(clash: Clash) -> dict[str, Any]:
    return {**clash.theirs, "n": clash.ours["n"]}


wrapped = SessionMiddleware(application, {"session.url": "memory:"})
nested = SessionMiddleware(wrapped, type="memory", on_conflict=add)
manager = SessionManager(MemoryStore(), Options(idle_timeout=600))
stores: list[Store] = [MemoryStore(), FileStore("sessions")]
locking: list[LockingStore] = [MemoryStore(), FileStore("sessions")]
iterable: list[IterableStore] = [MemoryStore(), FileStore("sessions")]
record: Record | None = stores[0].load(Key("id"))
found: Session | None = manager.get("id")
ended: int = manager.end_user("ann", keep=None)
