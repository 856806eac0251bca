"""A counter in a session, for tests of real servers; ``application`` is for gunicorn.

Environment: ``SESSION_URL`` and, for a cache, ``SESSION_CACHE_URL``; ``SESSION_THINK``,
seconds between reading and writing (default 0); ``SESSION_BLIND=1`` takes the promises
out of the store (positive control).

/increment?key=n    read, think, write one more; any method
/read?key=n         the number, 0 if there is none
/append?value=v     put a value into a list in a dict in the session; any method
/values             those values, with a blank between them
/login?user=u       log in
/user               who is logged in
/time               of this host
/share?value=v      count one more in the user's data, and put a value into a list there
/shared             the count, and those values, with a blank between them
/slow?until=path    look at the session, say on stderr who does, and stay until there is
                    a file at the path, a minute at most
/hold?until=path    the same, with the session's lock taken by hand
/pid                of the worker
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

from wsgisession import Session, SessionManager, SessionMiddleware, get_session
from wsgisession.testing._blind import BlindStore

THINK = float(os.environ.get("SESSION_THINK", "0"))

Query = dict[str, str]


def increment(session: Session, query: Query) -> int:
    key = query["key"]
    count: int = session.get(key, 0)
    time.sleep(THINK)
    session[key] = count + 1
    return count + 1


def read(session: Session, query: Query) -> int:
    count: int = session.get(query["key"], 0)
    return count


def append(session: Session, query: Query) -> str:
    session.setdefault("cart", {}).setdefault("items", []).append(query["value"])
    return "appended"


def values(session: Session, query: Query) -> str:
    return " ".join(session["cart"]["items"])


def log_in(session: Session, query: Query) -> str:
    session.login(query["user"])
    return "logged in"


def user(session: Session, query: Query) -> str | None:
    return session.user


def now(session: Session, query: Query) -> float:
    return time.time()


def share(session: Session, query: Query) -> str:
    data = session.user_data
    count = data.get("n", 0)
    time.sleep(THINK)
    data["n"] = count + 1
    data.setdefault("cart", {}).setdefault("items", []).append(query["value"])
    return "shared"


def shared(session: Session, query: Query) -> str:
    data = session.user_data
    return " ".join([str(data["n"]), *data["cart"]["items"]])


def slow(session: Session, query: Query) -> str:
    len(session)
    return stay(query)


def hold(session: Session, query: Query) -> str:
    session.lock()
    return stay(query)


def stay(query: Query) -> str:
    os.write(2, b"inside %d\n" % os.getpid())
    end = time.monotonic() + 60
    while not os.path.exists(query["until"]) and time.monotonic() < end:
        time.sleep(0.02)
    return "stayed"


def pid(session: Session, query: Query) -> int:
    return os.getpid()


ROUTES: dict[str, Callable[[Session, Query], object]] = {
    "/increment": increment,
    "/read": read,
    "/append": append,
    "/values": values,
    "/login": log_in,
    "/user": user,
    "/time": now,
    "/share": share,
    "/shared": shared,
    "/slow": slow,
    "/hold": hold,
    "/pid": pid,
}


def counter(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    answer = str(ROUTES[environ["PATH_INFO"]](get_session(environ), query)).encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))]
    start_response("200 OK", headers)
    return [answer]


def make_application() -> SessionMiddleware:
    settings = {"session.url": os.environ["SESSION_URL"]}
    if "SESSION_CACHE_URL" in os.environ:
        settings["session.cache_url"] = os.environ["SESSION_CACHE_URL"]
    manager = SessionManager.from_config(settings)
    if os.environ.get("SESSION_BLIND") == "1":
        manager = SessionManager(BlindStore(manager.store), manager.options)
    return SessionMiddleware(counter, manager=manager)


application = make_application()
