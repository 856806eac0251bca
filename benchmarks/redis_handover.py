"""How long a contended lock takes from hand to hand, in Redis.

    python -m benchmarks.redis_handover

In each round several processes want one lock at the same moment.  Each in turn holds it
for 5 ms and releases it.  A hand-over is the time from the moment at which the holder
begins to release the lock until the next process has the lock and the record.  Beside
it stands the same with a lock that is polled every 20 ms, as other libraries do.  The
benchmark starts its own server, by the program that the tests use.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, TypeAlias

import redis

from tests.redis_servers import RedisServer
from wsgisession.record import Key
from wsgisession.stores.redis import RedisStore
from wsgisession.testing import record

HOLD = 0.005
POLL = 0.020
WAITERS = 50
RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

Lock: TypeAlias = Callable[[], Callable[[], object]]
"""Waits for the lock, and returns the function that releases it."""
Turn: TypeAlias = tuple[int, float, float, float]
"""The round, and when a process began to wait, had the lock, and began to release it."""


def ours(url: str, id: str) -> Lock:
    """The lock of the store."""
    store = RedisStore(url)

    def lock() -> Callable[[], object]:
        held = store.lock(Key(id), wait=60, lease=30, waiters=WAITERS)
        assert held is not None
        return lambda: store.unlock(held)

    return lock


def polled(url: str, id: str) -> Lock:
    """A key that is set if it is absent, tried every 20 ms; then the data is read."""
    client = redis.Redis.from_url(url)
    release = client.register_script(RELEASE)

    def lock() -> Callable[[], object]:
        token = secrets.token_hex(8)
        while not client.set(f"lock:{id}", token, nx=True, px=30_000):
            time.sleep(POLL)
        client.hgetall(f"session:{id}")
        return lambda: release(keys=[f"lock:{id}"], args=[token])

    return lock


KINDS: dict[str, Callable[[str, str], Lock]] = {
    "wsgisession": ours,
    "20 ms polling": polled,
}


def take_turns(
    kind: str, url: str, id: str, rounds: int, ready: Barrier, turns: Any
) -> None:
    """What one process does.  The monotonic clock is the same in all of them."""
    lock = KINDS[kind](url, id)
    lock()()
    for number in range(rounds):
        ready.wait()
        began = time.monotonic()
        unlock = lock()
        had = time.monotonic()
        time.sleep(HOLD)
        released = time.monotonic()
        unlock()
        turns.put((number, began, had, released))


def measure(server: RedisServer, kind: str, processes: int, rounds: int) -> str:
    """One line of the table."""
    given = record(kind)
    store = RedisStore(server.url)
    store.delete(Key(given.id))
    store.save(given, expect=0)
    ready = multiprocessing.Barrier(processes)
    queue: Any = multiprocessing.Queue()
    arguments = (kind, server.url, given.id, rounds, ready, queue)
    with server.client() as client:
        before = client.info()["total_commands_processed"]
        workers = [
            multiprocessing.Process(target=take_turns, args=arguments)
            for _ in range(processes)
        ]
        for worker in workers:
            worker.start()
        turns: list[Turn] = [queue.get() for _ in range(rounds * processes)]
        for worker in workers:
            worker.join()
        asked = client.info()["total_commands_processed"] - before
    turns.sort(key=lambda turn: (turn[0], turn[2]))
    handed = [
        1000 * (had - released)
        for (last, _, _, released), (number, _, had, _) in itertools.pairwise(turns)
        if last == number
    ]
    longest = max(1000 * (had - began) for _, began, had, _ in turns)
    return (
        f"{kind:14}{processes - 1:8}{len(handed):11}{statistics.median(handed):10.2f}"
        f"{statistics.quantiles(handed, n=10)[8]:8.2f}{longest:14.0f}"
        f"{asked / len(turns):16.0f}"
    )


def main() -> None:
    """Measure all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    print(
        "               waiting hand-overs median ms  p90 ms longest wait commands a turn"
    )
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        for processes, times in ((2, 5), (5, 2), (17, 1)):
            for kind in KINDS:
                print(measure(server, kind, processes, rounds * times))


if __name__ == "__main__":
    main()
