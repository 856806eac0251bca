"""What a session costs, beside the raw client of the same storage, in one run.

    python -m benchmarks.sessions                        memory, file, cookie, sqlite
    python -m benchmarks.sessions redis://localhost/0 postgresql+psycopg://me@host/name
    python -m benchmarks.sessions --beside FOLDER        beside another checkout

One process calls the WSGI application.  A round has a short block of every contestant, in
shuffled order, so that whatever else the machine does meets all of them alike.  The cost
of a session is what a request takes more than the same application without one.  The
table gives the lowest cost, the quotient of the lowest, and the median of the quotients
within the rounds; the latter two are worth comparing between machines.

The limits: one GET and the JSON (a change and a new session: SET) in redis-py; one SELECT
(UPDATE, INSERT) in the driver; ``open`` (``os.replace``); base64, HMAC and JSON for the
cookie; one ``pickle.loads`` (``dumps``) in memory.  They neither lock nor move an idle
clock.  Ours is what the defaults give: a change is made under the lock where there is
one.  With ``--beside`` there are no limits; see ``benchmarks.beside``.  Sessions and
tables are left behind: give databases that are there for this alone.
"""

from __future__ import annotations

import argparse
import base64
import gc
import hmac
import itertools
import json
import os
import pickle
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeAlias

from benchmarks.beside import BLOCK, compare
from benchmarks.visits import PAYLOAD, Work, request, seconds, untouched, visits

ROOT = Path(__file__).parents[1]

Limit: TypeAlias = Mapping[str, Work]
"""The raw client: what each kind of request costs without a session."""
Config: TypeAlias = Mapping[str, Any]

SECRET = "a secret of the benchmark, of more than 32 octets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """One line of the table: ours, and what it is measured by."""

    name: str
    ours: Work
    limit: Work | None
    bare: Work


# -- the raw clients ---------------------------------------------------------------------


def limit_of_memory() -> Limit:
    kept = pickle.dumps(PAYLOAD)

    def change() -> None:
        nonlocal kept
        kept = pickle.dumps(pickle.loads(kept))

    return {
        "read": lambda: pickle.loads(kept),
        "change": change,
        "new": lambda: pickle.dumps(PAYLOAD),
    }


def limit_of_file(folder: Path) -> Limit:
    path, numbers = folder / "raw", itertools.count()
    path.write_text(json.dumps(PAYLOAD))

    def read() -> Any:
        with open(path) as file:
            return json.loads(file.read())

    def write(values: Any, path: Path) -> None:
        with open(f"{path}.new", "w") as file:
            file.write(json.dumps(values))
        os.replace(f"{path}.new", path)

    return {
        "read": read,
        "change": lambda: write(read(), path),
        "new": lambda: write(PAYLOAD, folder / f"raw{next(numbers)}"),
    }


def limit_of_cookie() -> Limit:
    def seal(values: Any) -> bytes:
        payload = base64.urlsafe_b64encode(json.dumps(values).encode())
        return payload + hmac.digest(SECRET.encode(), payload, "sha256")

    sealed = seal(PAYLOAD)

    def read() -> Any:
        payload, mark = sealed[:-32], sealed[-32:]
        hmac.compare_digest(hmac.digest(SECRET.encode(), payload, "sha256"), mark)
        return json.loads(base64.urlsafe_b64decode(payload))

    return {
        "read": read,
        "change": lambda: seal(read()),
        "new": lambda: seal(PAYLOAD),
    }


def limit_of_redis(url: str) -> Limit:
    import redis

    client: Any = redis.Redis.from_url(url)
    numbers = itertools.count()
    client.set("raw", json.dumps(PAYLOAD), ex=3600)

    def read() -> Any:
        return json.loads(client.get("raw"))

    def write(values: Any, name: str) -> None:
        client.set(name, json.dumps(values), ex=3600)

    return {
        "read": read,
        "change": lambda: write(read(), "raw"),
        "new": lambda: write(PAYLOAD, f"raw{next(numbers)}"),
    }


def limit_of_sql(connection: Any, mark: str, octets: str) -> Limit:
    """``mark`` is how the driver spells a parameter, ``octets`` a column of bytes."""
    numbers = itertools.count()
    connection.cursor().execute("DROP TABLE IF EXISTS raw")
    connection.cursor().execute(
        f"CREATE TABLE raw (id varchar(64) PRIMARY KEY, data {octets}, expires float)"
    )
    select = f"SELECT data, expires FROM raw WHERE id = {mark}"
    update = f"UPDATE raw SET data = {mark}, expires = {mark} WHERE id = {mark}"
    insert = f"INSERT INTO raw VALUES ({mark}, {mark}, {mark})"

    def begin() -> None:
        data, id = json.dumps(PAYLOAD).encode(), f"{next(numbers):064}"
        connection.cursor().execute(insert, (id, data, time.time()))

    def read() -> Any:
        cursor = connection.cursor()
        cursor.execute(select, (f"{0:064}",))
        return json.loads(cursor.fetchone()[0])

    def change() -> None:
        data = json.dumps(read()).encode()
        connection.cursor().execute(update, (data, time.time(), f"{0:064}"))

    begin()
    return {"read": read, "change": change, "new": begin}


def limit_of_sqlite(folder: Path, journal: str) -> Limit:
    connection = sqlite3.connect(folder / f"{journal}.db", isolation_level=None)
    connection.execute(f"PRAGMA journal_mode={journal}")
    return limit_of_sql(connection, "?", "blob")


def limit_of_postgresql(url: str) -> Limit:
    import psycopg

    connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
    return limit_of_sql(connection, "%s", "bytea")


# -- the contests ------------------------------------------------------------------------


def configs(urls: Sequence[str], folder: Path, tag: str) -> dict[str, Config]:
    """The settings of each store: without a server, then those that the urls lead to."""
    found: dict[str, Config] = {
        "memory": {"type": "memory"},
        "file": {"type": "file", "data_dir": str(folder / f"sessions-{tag}")},
        "cookie": {"type": "cookie", "secret": SECRET},
        "sqlite": {"url": f"sqlite:///{folder / f'sessions-{tag}.db'}"},
    }
    for url in urls:
        scheme = url.partition(":")[0].partition("+")[0]
        own = {"key_prefix": f"{tag}:"} if scheme == "redis" else {"table_name": tag}
        found[scheme] = {"url": url, "idle_timeout": "10m", **own}
    return found


def limits(name: str, config: Config, folder: Path) -> Iterator[tuple[str, Limit]]:
    """The raw clients that a store is measured by, with a name for each."""
    match name:
        case "memory":
            yield name, limit_of_memory()
        case "file":
            yield name, limit_of_file(folder)
        case "cookie":
            yield name, limit_of_cookie()
        case "sqlite":
            yield name, limit_of_sqlite(folder, "delete")
            yield "sqlite (WAL)", limit_of_sqlite(folder, "wal")
        case "redis":
            yield name, limit_of_redis(config["url"])
        case "postgresql":
            yield name, limit_of_postgresql(config["url"])
        case _:
            raise SystemExit(f"there is no raw client for {name}: here")


def contests(urls: Sequence[str], folder: Path) -> Iterator[Contest]:
    """Every kind of request to every store, beside the raw client."""
    for name, config in configs(urls, folder, "benchmark").items():
        found = list(visits(config))
        if name == "memory":
            yield untouched_contest(found[0].work)
        for title, limit in limits(name, config, folder):
            for visit in found[1:]:
                yield Contest(
                    name=f"{title}, {visit.kind}",
                    ours=visit.work,
                    limit=limit[visit.kind],
                    bare=visit.bare,
                )


def untouched_contest(ours: Work) -> Contest:
    """A request that leaves its session alone, beside Beaker's if it is installed."""
    cookie, limit = f"beaker.session.id={'b' * 32}", None
    with suppress(ImportError):
        beaker = import_module("beaker.middleware").SessionMiddleware
        limit = request(beaker(untouched, {"session.type": "memory"}), "GET", cookie)
    return Contest(
        name="untouched",
        ours=ours,
        limit=limit,
        bare=request(untouched, "GET", cookie),
    )


# -- measuring ---------------------------------------------------------------------------


def measure(given: Sequence[Contest], rounds: int) -> Iterator[str]:
    """A line for each contest."""
    works = list(
        dict.fromkeys(  # a store with two limits is measured once
            work
            for each in given
            for work in (each.bare, each.ours, each.limit)
            if work
        )
    )
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("urls", nargs="*", help="of Redis and PostgreSQL")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="for files (default: temporary)")
    parser.add_argument(
        "--beside", type=Path, help="another checkout, the first edition"
    )
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder))
        )
        if given.beside is None:
            lines = measure(list(contests(given.urls, folder)), given.rounds)
        else:
            run = token_hex(4)  # editions do not read each other's tables
            both = (
                configs(given.urls, folder, f"first_{run}"),
                configs(given.urls, folder, f"second_{run}"),
            )
            lines = compare(given.beside, ROOT, both, given.rounds)
        for line in lines:
            print(line)


if __name__ == "__main__":
    main()
