"""Faults: what a store does at the call of a request that the program names."""

from __future__ import annotations

from collections.abc import Iterable

from .programs import Fault
from .world import Actor


class Faults:
    """Says at each call whether it fails, and how.

    fail: nothing was done.  lose: it was done, and the answer did not come back.  die and
    die after: the process is gone, before or after the call; its lease stays until it
    ends.  rollback: the store goes back to the state of the beginning.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._due = {(fault.request, fault.call): fault.kind for fault in faults}

    def __call__(self, actor: Actor, call: str) -> str | None:
        return self._due.get((actor.name, actor.total - 1))
