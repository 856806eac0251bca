"""Requests to the sessions of one store, of every kind that is measured.

It uses only what each edition of the library has, so that it can measure any of them: no
name of a cookie or a token, and no verb of the manager.  As a program it is a worker of
``benchmarks.beside``: it measures the edition that PYTHONPATH leads to.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from wsgiref.util import setup_testing_defaults

Work: TypeAlias = Callable[[], object]
Environ: TypeAlias = dict[str, Any]
App: TypeAlias = Callable[[Environ, Any], list[bytes]]

NAME = "wsgisession.session"
PAYLOAD: dict[str, Any] = {
    "n": 1,
    "user": {"id": 4711, "name": "Ann Lee", "roles": ["editor", "author"]},
    "cart": [{"sku": f"A-{number:04}", "count": number} for number in range(4)],
    "language": "en-GB",
    "seen": "0123456789abcdef" * 5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One kind of request, and the same request without a session."""

    kind: str
    work: Work
    bare: Work


# -- applications ------------------------------------------------------------------------


def untouched(environ: Environ, start_response: Any) -> list[bytes]:
    """Answers without a look at the session."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


def reading(environ: Environ, start_response: Any) -> list[bytes]:
    """Reads one value."""
    environ[NAME]["n"]
    return untouched(environ, start_response)


def changing(environ: Environ, start_response: Any) -> list[bytes]:
    """Reads a value and writes another in its place."""
    session = environ[NAME]
    session["n"] = session["n"] + 1
    return untouched(environ, start_response)


def beginning(environ: Environ, start_response: Any) -> list[bytes]:
    """Begins a session."""
    environ[NAME].update(PAYLOAD)
    return untouched(environ, start_response)


KINDS: tuple[tuple[str, str, App], ...] = (
    ("untouched", "GET", untouched),
    ("read", "GET", reading),
    ("change", "POST", changing),
    ("new", "GET", beginning),
)


# -- requests ----------------------------------------------------------------------------


def request(app: Any, method: str, cookie: str) -> Work:
    """One request after another to an application, by the same client."""
    environ = made(method, cookie)

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        return None

    def call() -> None:
        body = app(dict(environ), start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()

    return call


def made(method: str, cookie: str) -> Environ:
    """The environ of a request."""
    environ: Environ = {"REQUEST_METHOD": method}
    if cookie:
        environ["HTTP_COOKIE"] = cookie
    setup_testing_defaults(environ)
    return environ


def cookie_of(app: Any) -> str:
    """The cookie that an application sends to a new visitor."""
    sent: list[tuple[str, str]] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        sent.extend(headers)

    for _ in app(made("GET", ""), start_response):
        pass
    lines = [value for name, value in sent if name.lower() == "set-cookie"]
    return "; ".join(line.partition(";")[0] for line in lines)


def visits(config: Mapping[str, Any]) -> Iterator[Visit]:
    """A request of each kind to a store that the settings name."""
    from wsgisession import SessionManager, SessionMiddleware

    manager = SessionManager.from_config(config)
    create_table = getattr(manager.store, "create_table", None)
    if create_table is not None:
        create_table()
    known = cookie_of(SessionMiddleware(beginning, manager=manager))
    for kind, method, app in KINDS:
        cookie = "" if kind == "new" else known
        yield Visit(
            kind=kind,
            work=request(SessionMiddleware(app, manager=manager), method, cookie),
            bare=request(untouched, method, cookie),
        )


def seconds(work: Work, times: int) -> float:
    """The seconds that one of so many calls takes."""
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def main() -> None:
    """Answer each ``[line, times]`` with the seconds with a session and without."""
    import wsgisession

    configs = json.loads(sys.argv[1])
    known = {
        f"{name}, {visit.kind}": visit
        for name, config in configs.items()
        for visit in visits(config)
    }
    print(json.dumps([wsgisession.__file__, list(known)]), flush=True)
    gc.disable()
    for line in sys.stdin:
        name, times = json.loads(line)
        visit = known[name]
        visit.work()  # the caches of the processor held the other edition
        answer = seconds(visit.work, times), seconds(visit.bare, times)
        gc.collect()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
