"""How costs grow with the number of sessions that are stored.

    python -m benchmarks.growth                        memory, file, sqlite
    python -m benchmarks.growth redis://localhost/0 postgresql+psycopg://me@host/name

Each store is filled to two sizes.  A user has a hundredth of the sessions, and a tenth of
all has expired.  A line gives the cost at both sizes, in microseconds: of a read and a
change by a request; of ``sessions_of()`` and ``end_user()`` for each session that is
returned or ended; of ``delete_expired()`` for each that is removed.  The last column is
the second by the first: 1 means that the cost does not grow with what is stored.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from benchmarks.sessions import configs
from benchmarks.visits import PAYLOAD, changing, reading, request, seconds
from wsgisession import SessionManager, SessionMiddleware

USER = "ann"
SHARE_OF_USER, SHARE_EXPIRED = 100, 10


class Costs(NamedTuple):
    """Seconds, of one request or for one session."""

    read: float
    change: float
    sessions_of: float
    end_user: float
    delete_expired: float


def fill(manager: SessionManager, many: int) -> str:
    """Store so many sessions; the token of the last one, which is nobody's."""
    for number in range(many):
        session = manager.create()
        session.update(PAYLOAD)
        if number % SHARE_OF_USER == 0:
            session.login(USER)
        elif number % SHARE_OF_USER == 1:
            session.login(f"user {number}")
        if number % SHARE_EXPIRED == 2:
            session.set_expiry(1)
        session.save()
    session = manager.create()
    session.update(PAYLOAD)
    session.save()
    token = manager.token_of(session)
    assert token is not None
    return token


def per_item(work: Callable[[], int]) -> float:
    """Seconds for each of what a call returned or removed."""
    gc.collect()
    gc.disable()  # its rounds cost as much as there are objects, whatever is called
    began = time.perf_counter()
    done = work()
    spent = time.perf_counter() - began
    gc.enable()
    return spent / max(1, done)


def costs(manager: SessionManager, many: int) -> Costs:
    """What is done costs in a store of that size."""
    token = fill(manager, many)
    cookie = f"{manager.options.cookie_name}={token}"
    read = request(SessionMiddleware(reading, manager=manager), "GET", cookie)
    change = request(SessionMiddleware(changing, manager=manager), "POST", cookie)
    seconds(read, 50), seconds(change, 50)
    found = Costs(
        read=min(seconds(read, 100) for _ in range(5)),
        change=min(seconds(change, 100) for _ in range(5)),
        sessions_of=per_item(lambda: len(list(manager.sessions_of(USER)))),
        end_user=per_item(lambda: manager.end_user(USER)),
        delete_expired=swept(manager),
    )
    for session in list(manager.sessions()):
        manager.end(session.id)
    return found


def swept(manager: SessionManager) -> float:
    """Seconds for each session that was removed because it had expired."""
    time.sleep(1.1)  # what expires in a second has by now
    return per_item(manager.delete_expired)


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("urls", nargs="*", help="of Redis and of databases")
    parser.add_argument("--sizes", type=int, nargs=2, default=(1_000, 10_000))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        stores = configs(given.urls, Path(room), f"growth_{token_hex(4)}")
        del stores["cookie"]  # nothing is stored
        for name, config in stores.items():
            manager = SessionManager.from_config(config)
            small, large = (costs(manager, size) for size in given.sizes)
            for kind, before, after in zip(Costs._fields, small, large, strict=True):
                line = f"{name:12}{kind:16}{before * 1e6:9.1f}{after * 1e6:9.1f}"
                print(f"{line}{after / before:8.2f}", flush=True)


if __name__ == "__main__":
    main()
