"""What a session costs, beside the raw client of the same storage, in one run.

    python -m benchmarks.sessions                        memory, file, cookie, sqlite
    python -m benchmarks.sessions redis://localhost/0 postgresql+psycopg://me@host/name

One process calls the WSGI application.  A round has a short block of every contestant, in
shuffled order, so that what else the machine does meets all of them alike.  The cost of a
session is what a request takes more than the same application without one.  The table
gives the lowest, the quotient of the lowest, and the median of the quotients within the
rounds; the latter two are worth comparing between machines.

The limits: one GET and the JSON (and SET) in redis-py, one SELECT (and UPDATE) in the
driver, ``open`` (and ``os.replace``), base64, HMAC and JSON for the cookie, one
``pickle.loads`` (and ``dumps``) in memory.  They neither lock nor move an idle clock.
Ours is what the defaults give; the change is made under the lock where there is one.
"""

from __future__ import annotations

import argparse
import base64
import gc
import hmac
import json
import os
import pickle
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from wsgiref.util import setup_testing_defaults

from wsgisession import SessionManager, SessionMiddleware

Work: TypeAlias = Callable[[], object]
Limit: TypeAlias = Mapping[str, Work]
"""The raw client: what ``read`` and ``change`` cost without a session."""

BLOCK = 0.004
SECRET = "a secret of the benchmark, of more than 32 octets"
NAME = "wsgisession.session"
PAYLOAD: dict[str, Any] = {
    "n": 1,
    "user": {"id": 4711, "name": "Ann Lee", "roles": ["editor", "author"]},
    "cart": [{"sku": f"A-{number:04}", "count": number} for number in range(4)],
    "language": "en-GB",
    "seen": "0123456789abcdef" * 5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """One line of the table: ours, and what it is measured by."""

    name: str
    ours: Work
    limit: Work | None
    bare: Work


# -- applications ------------------------------------------------------------------------


def untouched(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answers without a look at the session."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


def reading(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Reads one value."""
    environ[NAME]["n"]
    return untouched(environ, start_response)


def changing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Reads a value and writes another in its place."""
    session = environ[NAME]
    session["n"] = session["n"] + 1
    return untouched(environ, start_response)


def request(app: Any, method: str, cookie: str) -> Work:
    """One request after another to an application, by the same client."""
    environ: dict[str, Any] = {"REQUEST_METHOD": method}
    if cookie:
        environ["HTTP_COOKIE"] = cookie
    setup_testing_defaults(environ)

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        return None

    def call() -> None:
        body = app(dict(environ), start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()

    return call


# -- the raw clients ---------------------------------------------------------------------


def limit_of_memory() -> Limit:
    kept = pickle.dumps(PAYLOAD)

    def change() -> None:
        nonlocal kept
        kept = pickle.dumps(pickle.loads(kept))

    return {"read": lambda: pickle.loads(kept), "change": change}


def limit_of_file(folder: Path) -> Limit:
    path = folder / "raw"
    path.write_text(json.dumps(PAYLOAD))

    def read() -> Any:
        with open(path) as file:
            return json.loads(file.read())

    def change() -> None:
        values = read()
        with open(f"{path}.new", "w") as file:
            file.write(json.dumps(values))
        os.replace(f"{path}.new", path)

    return {"read": read, "change": change}


def limit_of_cookie() -> Limit:
    def seal(values: Any) -> bytes:
        payload = base64.urlsafe_b64encode(json.dumps(values).encode())
        return payload + hmac.digest(SECRET.encode(), payload, "sha256")

    sealed = seal(PAYLOAD)

    def read() -> Any:
        payload, mark = sealed[:-32], sealed[-32:]
        hmac.compare_digest(hmac.digest(SECRET.encode(), payload, "sha256"), mark)
        return json.loads(base64.urlsafe_b64decode(payload))

    return {"read": read, "change": lambda: seal(read())}


def limit_of_redis(url: str) -> Limit:
    import redis

    client = redis.Redis.from_url(url)
    client.set("raw", json.dumps(PAYLOAD), ex=3600)

    def read() -> Any:
        return json.loads(client.get("raw"))

    return {
        "read": read,
        "change": lambda: client.set("raw", json.dumps(read()), ex=3600),
    }


def limit_of_sql(connection: Any, mark: str, octets: str) -> Limit:
    """``mark`` is how the driver spells a parameter, ``octets`` a column of bytes."""
    cursor = connection.cursor()
    cursor.execute("DROP TABLE IF EXISTS raw")
    cursor.execute(
        f"CREATE TABLE raw (id varchar(64) PRIMARY KEY, data {octets}, expires float)"
    )
    cursor.execute(
        f"INSERT INTO raw VALUES ({mark}, {mark}, {mark})",
        ("k" * 64, json.dumps(PAYLOAD).encode(), 1.0),
    )
    select = f"SELECT data, expires FROM raw WHERE id = {mark}"
    update = f"UPDATE raw SET data = {mark}, expires = {mark} WHERE id = {mark}"

    def read() -> Any:
        cursor = connection.cursor()
        cursor.execute(select, ("k" * 64,))
        return json.loads(cursor.fetchone()[0])

    def change() -> None:
        data = json.dumps(read()).encode()
        connection.cursor().execute(update, (data, time.time(), "k" * 64))

    return {"read": read, "change": change}


def limit_of_sqlite(folder: Path, journal: str) -> Limit:
    connection = sqlite3.connect(folder / f"{journal}.db", isolation_level=None)
    connection.execute(f"PRAGMA journal_mode={journal}")
    return limit_of_sql(connection, "?", "blob")


def limit_of_postgresql(url: str) -> Limit:
    import psycopg

    connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
    return limit_of_sql(connection, "%s", "bytea")


# -- the contests ------------------------------------------------------------------------


def contests(name: str, config: Mapping[str, Any], limit: Limit) -> Iterator[Contest]:
    """Reading and changing a session of one backend."""
    manager = SessionManager.from_config(config)
    if hasattr(manager.store, "create_table"):
        manager.store.create_table()
    session = manager.create()
    session.update(PAYLOAD)
    session.save()
    cookie = f"session={session.token}"
    for kind, method, app in (
        ("read", "GET", reading),
        ("change", "POST", changing),
    ):
        yield Contest(
            name=f"{name}, {kind}",
            ours=request(SessionMiddleware(app, manager=manager), method, cookie),
            limit=limit[kind],
            bare=request(untouched, method, cookie),
        )


def untouched_contests() -> Iterator[Contest]:
    """A request that leaves its session alone, beside Beaker's if it is installed."""
    beaker: Any = None
    try:
        from beaker.middleware import SessionMiddleware as Beaker
    except ImportError:
        pass
    else:
        beaker = Beaker(untouched, {"session.type": "memory"})
    ours = SessionMiddleware(untouched, {"type": "memory"})
    for name, cookie in (
        ("untouched, no cookie", ""),
        ("untouched, a cookie", f"session={'a' * 43}; beaker.session.id={'b' * 32}"),
    ):
        yield Contest(
            name=name,
            ours=request(ours, "GET", cookie),
            limit=None if beaker is None else request(beaker, "GET", cookie),
            bare=request(untouched, "GET", cookie),
        )


def all_contests(urls: Sequence[str], folder: Path) -> Iterator[Contest]:
    """What needs no server, then what the urls lead to."""
    yield from untouched_contests()
    yield from contests("memory", {"type": "memory"}, limit_of_memory())
    data_dir = str(folder / "sessions")
    file = {"type": "file", "data_dir": data_dir}
    yield from contests("file", file, limit_of_file(folder))
    cookie = {"type": "cookie", "secret": SECRET}
    yield from contests("cookie", cookie, limit_of_cookie())
    sqlite = {"url": f"sqlite:///{folder / 'sessions.db'}"}
    yield from contests("sqlite", sqlite, limit_of_sqlite(folder, "delete"))
    yield from contests("sqlite (WAL)", sqlite, limit_of_sqlite(folder, "wal"))
    for url in urls:
        scheme = url.partition(":")[0]
        if scheme == "redis":
            yield from contests("redis", {"url": url}, limit_of_redis(url))
        else:
            yield from contests("postgresql", {"url": url}, limit_of_postgresql(url))


# -- measuring ---------------------------------------------------------------------------


def seconds(work: Work, times: int) -> float:
    """What one of so many calls takes."""
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def measure(given: Sequence[Contest], rounds: int) -> Iterator[str]:
    """A line for each contest."""
    works = [
        work for each in given for work in (each.bare, each.ours, each.limit) if work
    ]
    times = {work: max(1, int(BLOCK / seconds(work, 5))) for work in works}
    results: dict[Work, list[float]] = {work: [] for work in works}
    gc.disable()
    for _ in range(rounds):
        for work in random.sample(works, len(works)):
            results[work].append(seconds(work, times[work]))
        gc.collect()
    yield f"{'':22}{'ours':>8}{'limit':>9}{'lowest':>9}{'median':>9}"
    for each in given:
        ours, bare = results[each.ours], results[each.bare]
        cost = min(ours) - min(bare)
        line = f"{each.name:22}{cost * 1e6:8.1f}"
        if each.limit is not None:
            # Beaker is an application as well; a raw client is not.
            limit = results[each.limit]
            off = bare if each.name.startswith("untouched") else [0.0] * rounds
            lowest = min(limit) - min(off)
            rows = zip(ours, bare, limit, off, strict=True)
            paired = statistics.median((o - b) / (li - f) for o, b, li, f in rows)
            line += f"{lowest * 1e6:9.1f}{cost / lowest:8.2f}x{paired:8.2f}x"
        yield line


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("urls", nargs="*", help="of Redis and PostgreSQL")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="for files (default: temporary)")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder))
        )
        for line in measure(list(all_contests(given.urls, folder)), given.rounds):
            print(line)


if __name__ == "__main__":
    main()
