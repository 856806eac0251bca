"""Sweeping a million expired sessions beside a running load: what does the load notice?

    python -m benchmarks.sql_cleanup sqlite:////var/tmp/sessions.db
    python -m benchmarks.sql_cleanup postgresql+psycopg://user@host/name --rows 1000000

Four threads change sessions of their own, under the lock: first alone, and then while
another process sweeps in batches.  It prints the median and the 99th percentile of a
change in milliseconds, and how long the sweep took.  The load is paced, because a load
that takes the whole machine is slowed down by anything beside it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from wsgisession.record import Key
from wsgisession.stores.sqlalchemy import SQLAlchemyStore
from wsgisession.stores.sqlalchemy._rows import to_row
from wsgisession.testing import newer, record

THREADS = 4
CHUNK = 5000
BATCH = 1000
WAITERS = 50
DATA = b"{}\n" + b"x" * 300


@dataclass(frozen=True, slots=True)
class Load:
    """What a load has seen: seconds that each change took, in order of size."""

    times: list[float]

    @property
    def median(self) -> float:
        return self.times[len(self.times) // 2]

    @property
    def p99(self) -> float:
        return self.times[len(self.times) * 99 // 100]

    def __str__(self) -> str:
        return (
            f"{len(self.times)} changes, median {self.median * 1e3:.2f} ms, "
            f"99th percentile {self.p99 * 1e3:.2f} ms"
        )


@dataclass(frozen=True, slots=True)
class Result:
    """The load alone, the load beside the sweep, and the sweep."""

    alone: Load
    beside: Load
    swept: int
    seconds: float


def fill_with_expired(store: SQLAlchemyStore, url: str, rows: int) -> None:
    """Put expired sessions into the table, quicker than one by one."""
    now = time.time()
    insert = sql.insert(store.table)
    engine = sql.create_engine(url)
    for start in range(0, rows, CHUNK):
        values = list(_expired(range(start, min(start + CHUNK, rows)), now))
        with engine.begin() as connection:
            connection.execute(insert, values)
    if engine.name == "postgresql":
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as connection:
            connection.exec_driver_sql(f"VACUUM ANALYZE {store.table.name}")
    engine.dispose()


def _expired(numbers: range, now: float) -> Iterator[Mapping[str, Any]]:
    for number in numbers:
        expires = now - 60 - number % (30 * 86400)
        yield to_row(
            record(
                f"expired-{number}",
                data=DATA,
                created=expires - 86400,
                accessed=expires - 3600,
                expires=expires,
            )
        )


def load(store: SQLAlchemyStore, done: threading.Event, pace: float) -> Load:
    """Let ``THREADS`` threads change sessions every ``pace`` seconds until ``done``."""
    times: list[float] = []

    def work(number: int) -> None:
        mine = record(f"load-{number}-{time.time()}", data=DATA)
        store.save(mine, expect=0)
        while not done.is_set():
            began = time.perf_counter()
            held = store.lock(Key(mine.id), wait=30, lease=30, waiters=WAITERS)
            assert held is not None
            store.save(newer(held), expect=held.version)
            times.append(time.perf_counter() - began)
            done.wait(pace)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(sorted(times))


def measure(url: str, *, rows: int, seconds: float, pace: float = 0.01) -> Result:
    """Fill the table, run the load alone for some seconds, then beside the sweep."""
    store = SQLAlchemyStore(url)
    store.create_table()
    fill_with_expired(store, url, rows)
    done = threading.Event()
    threading.Timer(seconds, done.set).start()
    alone = load(store, done, pace)

    done.clear()
    sweep = _Sweep(url, done)
    sweep.start()
    beside = load(store, done, pace)
    sweep.join()
    store.close()
    return Result(alone, beside, sweep.swept, sweep.seconds)


class _Sweep(threading.Thread):
    """Another process that sweeps, as ``python -m wsgisession cleanup`` does."""

    def __init__(self, url: str, done: threading.Event) -> None:
        super().__init__()
        self.swept = 0
        self.seconds = 0.0
        self._url = url
        self._done = done

    def run(self) -> None:
        try:
            command = [sys.executable, "-m", __spec__.name, self._url, "--sweep"]
            root = Path(__file__).parents[1]
            output = subprocess.run(
                command, check=True, capture_output=True, cwd=root
            ).stdout
            self.swept, self.seconds = int(output.split()[0]), float(output.split()[1])
        finally:
            self._done.set()


def sweep(url: str) -> None:
    """Sweep until nothing is left, and print how many there were and the seconds."""
    store = SQLAlchemyStore(url)
    began = time.perf_counter()
    total = 0
    while swept := store.delete_expired(batch=BATCH):
        total += swept
    print(total, time.perf_counter() - began)
    store.close()


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("url", help="of an empty database")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="of the load alone")
    parser.add_argument("--sweep", action="store_true", help="only sweep")
    given = parser.parse_args()
    if given.sweep:
        sweep(given.url)
        return
    result = measure(given.url, rows=given.rows, seconds=given.seconds)
    print("alone: ", result.alone)
    print("beside:", result.beside)
    print(f"swept {result.swept} in {result.seconds:.1f} s")


if __name__ == "__main__":
    main()
