"""Two or more pieces of work in every order of their store calls.

One thread each, of which one runs at a time: before every store call it stops, and is let
go on in the order that is tried.  A lock is tried without waiting; where it is taken, the
others run first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from wsgisession import Capabilities, Key, LockTimeout, Record

Work = Callable[[], object]
PATIENCE = 60.0


class Steps:
    """Lets threads go on one at a time."""

    def __init__(self, count: int) -> None:
        self._go = [threading.Semaphore(0) for _ in range(count)]
        self._stopped = threading.Semaphore(0)
        self._number = threading.local()
        self.done = [False] * count
        self.blocked = [False] * count
        self.errors: list[BaseException] = []

    def start(self, works: Sequence[Work]) -> None:
        for number, work in enumerate(works):
            threading.Thread(target=self._run, args=(number, work), daemon=True).start()

    def _run(self, number: int, work: Work) -> None:
        self._number.value = number
        self._go[number].acquire()
        try:
            work()
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.done[number] = True
            self._stopped.release()

    def stop_here(self, *, blocked: bool = False) -> None:
        """Called before a store call, by the thread that is about to make it."""
        number = getattr(self._number, "value", None)
        if number is None:
            return  # not one of ours: preparing or checking
        self.blocked[number] = blocked
        self._stopped.release()
        assert self._go[number].acquire(timeout=PATIENCE)

    def step(self, number: int) -> None:
        """Let one thread go on until it stops again or is done."""
        self._go[number].release()
        assert self._stopped.acquire(timeout=PATIENCE)
        if not self.blocked[number]:  # it did something: the others may try again
            self.blocked = [False] * len(self.blocked)

    def ready(self) -> list[int]:
        """Who may go on: whoever waits for a lock only if there is nobody else."""
        left = [n for n, done in enumerate(self.done) if not done]
        return [n for n in left if not self.blocked[n]] or left


class SteppedStore:
    """A store whose every call is a step."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.capabilities: Capabilities = store.capabilities
        self.steps = Steps(0)

    def load(self, key: Key) -> Record | None:
        self.steps.stop_here()
        found: Record | None = self._store.load(key)
        return found

    def save(self, record: Record, *, expect: int, **room: int) -> object:
        self.steps.stop_here()
        return self._store.save(record, expect=expect, **room)

    def touch(self, record: Record) -> bool:
        self.steps.stop_here()
        return bool(self._store.touch(record))

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        self.steps.stop_here()
        return bool(self._store.delete(key, user=user))

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        self.steps.stop_here()
        for _ in range(50):
            try:
                found: Record | None = self._store.lock(
                    key, wait=0, lease=lease, waiters=waiters, by=by
                )
            except LockTimeout:
                self.steps.stop_here(blocked=True)
            else:
                return found
        raise LockTimeout(key.id, wait)

    def unlock(self, record: Record) -> None:
        self.steps.stop_here()
        self._store.unlock(record)

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        self.steps.stop_here()
        return iter(list(self._store.records(user=user)))

    def delete_expired(self, *, batch: int) -> int:
        self.steps.stop_here()
        return int(self._store.delete_expired(batch=batch))

    def end_user(self, user: str, *, keep: str | None) -> None:
        self.steps.stop_here()
        self._store.end_user(user, keep=keep)


def in_every_order(
    store: SteppedStore, prepare: Callable[[], tuple[Sequence[Work], Work]]
) -> int:
    """Run what ``prepare`` makes once for every order, and say how many there were.

    ``prepare`` gives the pieces of work, and a check that is called after each order.
    """
    orders: list[list[int]] = [[]]
    count = 0
    while orders:
        order = orders.pop()
        store.steps = Steps(0)
        works, check = prepare()
        taken = _run(store, works, order)
        for at in range(len(order), len(taken)):
            chosen, ready = taken[at]
            orders += [
                [each for each, _ in taken[:at]] + [other]
                for other in ready
                if other > chosen
            ]
        store.steps = Steps(0)
        check()
        count += 1
    return count


def _run(
    store: SteppedStore, works: Sequence[Work], order: Sequence[int]
) -> list[tuple[int, list[int]]]:
    """One order: its beginning is given, then the first that is ready goes on."""
    steps = store.steps = Steps(len(works))
    steps.start(works)
    taken: list[tuple[int, list[int]]] = []
    while ready := steps.ready():
        at = len(taken)
        number = order[at] if at < len(order) else ready[0]
        taken.append((number, ready))
        steps.step(number)
    if steps.errors:
        raise steps.errors[0]
    return taken
