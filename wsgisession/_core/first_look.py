"""The first look at a session: which record the presented tokens lead to.

It reads and locks, and never writes.  This file knows nothing of what becomes of the
session.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .._made import made
from ..errors import StoreError
from ..record import Key
from .repository import Repository, Stored, is_good, log

LOOKED_AT = 4
"""Cookies of our name that are looked at: a browser has no reason to send more.  The last
ones, because those of longer paths, which a subdomain may have planted, come first."""


def never() -> bool:
    """For a request that can in no case be run again."""
    return False


class Plan(NamedTuple):
    """How a request is to be treated, decided before its first look at the session."""

    keys: Sequence[Key] = ()
    """What the client presented."""
    locks: bool = False
    """Whether the first look takes the lock."""
    wait: float | None = None
    """Seconds to wait for it; None: as the options say."""
    can_replay: Callable[[], bool] = never
    """Whether the request can be run again; asked where that matters, which is rare."""
    has_cookie: bool = False
    """Whether the client sent a cookie of ours, whatever it leads to."""
    may_begin: bool = True
    """Whether a new session may begin without a login (not for another site's post)."""
    reads_only: bool = False
    """Whether the request was declared to change nothing."""
    by: str = ""
    """Method and path, for requests that wait for the lock of this one."""


NO_PLAN = Plan()
"""For who has looked already."""


class Found(NamedTuple):
    """What the first look came upon."""

    stored: Stored | None = None
    key: Key | None = None
    """The one that leads to it."""
    rivals: Sequence[Key] = ()
    """Several live sessions that were presented at once, of which none is used."""
    waited: float = 0.0
    """Seconds until the lock was had."""


NOTHING_FOUND = Found()
"""Where nothing was presented, and nothing is to be loaded."""


def look(repository: Repository, plan: Plan) -> Found:
    """Load what was presented, or lock and load it: one call where it is one token."""
    if len(plan.keys) == 1:
        key = plan.keys[0]
        if plan.locks:
            return _locked(repository, key, plan)
        return made(Found, (repository.find(key), key, (), 0.0))
    best: dict[str, tuple[Stored, Key]] = {}
    for key in plan.keys[-LOOKED_AT:]:
        stored = repository.find(key)
        if stored is None:
            continue
        before = best.get(stored.record.id)
        if before is None or _rank(before[0]) <= _rank(stored):
            best[stored.record.id] = stored, key
    live = [each for each in best.values() if is_good(each[0])]
    if len(live) > 1:
        log.warning("%d session cookies are valid at once; none is used", len(live))
        return Found(rivals=[Key(stored.record.id) for stored, _ in live])
    for stored, key in live or best.values():
        return _locked(repository, key, plan) if plan.locks else Found(stored, key)
    return NOTHING_FOUND


def _rank(stored: Stored) -> tuple[int, float, float]:
    """Of two cookies of one session the newer counts, where both are good: they differ
    in what they hold, if the session is in the cookie.
    """
    return stored.standing, stored.record.turned, stored.record.accessed


def _locked(repository: Repository, key: Key, plan: Plan) -> Found:
    began = time.monotonic()
    try:
        stored = repository.take(key, plan.wait, plan.by)
        return made(Found, (stored, key, (), time.monotonic() - began))
    except StoreError as error:
        # A store that cannot write still serves requests that only read.
        found = Found(repository.find(key), key)
        repository.failed(error, "a session was read without its lock")
        return found
