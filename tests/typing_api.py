"""Not run: type-checked, so that the public names keep the types they promise."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from wsgisession import (
    JSONSerializer,
    Key,
    Kind,
    MergeConflict,
    Options,
    Record,
    Session,
    SessionManager,
    SessionMiddleware,
    get_session,
)
from wsgisession.options import Settings
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


def domain(environ: dict[str, Any]) -> str | None:
    return None


def add(clash: MergeConflict) -> dict[str, Any]:
    return {**clash.theirs, "n": clash.ours["n"]}


wrapped = SessionMiddleware(application, {"session.url": "memory:"})
nested = SessionMiddleware(wrapped, type="memory", on_conflict=add)
options = Options(
    idle_timeout="30m",
    absolute_timeout=None,
    touch_interval=timedelta(minutes=1),
    cookie_domain=domain,
    cookie_samesite=False,
    cookie_secure="true",
    secret=[
        "a secret of at least thirty-two octets",
        b"and the one before it ........",
    ],
    locking=lambda environ: environ["PATH_INFO"] != "/poll",
    on_conflict=add,
    serializer=JSONSerializer([Kind(tag="a", knows=bool, write=str, read=str)]),
    on_token_reuse=print,
)
by_class = Options(serializer=JSONSerializer)
by_path = Options(serializer="shop.data.Packer")
idle: float = options.idle_timeout
end: float | None = options.absolute_timeout
secrets: tuple[bytes, ...] = options.secret
given: Settings = {"idle_timeout": 600, "replay": "no"}
spread = Options(**given)
Options(idle_timeut="30m")  # type: ignore[call-arg]
Options(idle_timeout=["30m"])  # type: ignore[arg-type]
Options(locking="often")  # type: ignore[arg-type]
options.idle_timeout = 5  # type: ignore[misc]
manager = SessionManager(MemoryStore(), Options(idle_timeout=600))
stores: list[Store] = [MemoryStore(), FileStore("sessions")]
locking: list[LockingStore] = [MemoryStore(), FileStore("sessions")]
iterable: list[IterableStore] = [MemoryStore(), FileStore("sessions")]
record: Record | None = stores[0].load(Key("id"))
found: Session | None = manager.get("id")
ended: int = manager.end_user("ann", keep=None)
