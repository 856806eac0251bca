"""What a cookie cannot know by itself: that its session, or its user's sessions, ended.

A mark is a record of its own in a store on the server, filed under a hash of what it is
about and kept for as long as any copy of a cookie could live.  Its ``accessed`` is the
moment from which it counts.  This file knows records and one store, and no cookie.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from ..errors import Conflict, StoreError
from ..record import Key, Record
from ..store import Store

_log = logging.getLogger("wsgisession")


class Revocations:
    """The marks of one application in a store.

    :param store: keeps the marks; any store on the server.
    :param scope: tells this application's marks from another's.
    :param longest: seconds that a session can live, and a mark has to.
    :param fail_open: whether a session counts as not ended while the store is away.
    """

    def __init__(
        self, store: Store, *, scope: str, longest: float, fail_open: bool
    ) -> None:
        self._store = store
        self._scope = scope
        self._longest = longest
        self._fail_open = fail_open

    def over(self, record: Record, *, at: float) -> bool:
        """Whether a session has been ended by the moment ``at``."""
        mark = self._look("session", record.id)
        if mark is not None and mark.accessed <= at:
            return True
        if record.user is None:
            return False
        mark = self._look("user", record.user)
        if mark is None or record.created > mark.accessed:
            return False
        return record.created <= _kept(mark).get(record.id, mark.accessed)

    def end(self, record: Record, *, since: float) -> None:
        """Let no copy of a session's cookie count from ``since`` on."""
        until = max(record.expires, record.created + self._longest)
        self._put(self._mark("session", record.id, since, until), _the_sooner)

    def end_user(self, user: str, *, keep: str | None) -> None:
        """End all sessions that a user has begun by now, but the one with an id."""
        now = time.time()
        mark = self._mark("user", user, now, now + self._longest)
        kept = {} if keep is None else {keep: 0.0}
        self._put(replace(mark, data=json.dumps(kept).encode()), _the_stricter)

    def _id(self, kind: str, name: str) -> str:
        about = f"wsgisession.ended.{kind}.{self._scope}\0{name}"
        return hashlib.sha256(about.encode("utf-8", "surrogatepass")).hexdigest()

    def _mark(self, kind: str, name: str, since: float, until: float) -> Record:
        return Record(
            id=self._id(kind, name),
            data=b"",
            version=1,
            created=time.time(),
            accessed=since,
            expires=until,
            state="ended",  # so that no list of sessions shows it
        )

    def _look(self, kind: str, name: str) -> Record | None:
        try:
            return self._store.load(Key(self._id(kind, name)))
        except StoreError as error:
            if not self._fail_open:
                raise
            _log.error("no revocation is known, every cookie counts: %r", error)
            return None

    def _put(self, mark: Record, merged: Callable[[Record, Record], Record]) -> None:
        # An end that could not be written is never taken for done, fail_open or not.
        expect = 0
        while True:
            try:
                self._store.save(mark, expect=expect)
                return
            except Conflict as conflict:
                there = conflict.record
            if there is not None:
                mark = replace(merged(mark, there), version=there.version + 1)
            expect = mark.version - 1


def _kept(mark: Record) -> dict[str, float]:
    """The sessions a user keeps, by id, if they began after the moment that stands there.

    An end before it had ended them too, and what has ended is not revived.
    """
    kept: dict[str, float] = json.loads(mark.data) if mark.data else {}
    return kept


def _the_sooner(ours: Record, theirs: Record) -> Record:
    return replace(
        ours,
        accessed=min(ours.accessed, theirs.accessed),
        expires=max(ours.expires, theirs.expires),
    )


def _the_stricter(ours: Record, theirs: Record) -> Record:
    """The later end, which spares only what the sooner one had spared as well."""
    late, soon = sorted((ours, theirs), key=lambda mark: -mark.accessed)
    before = _kept(soon)
    spared = {
        id: max(floor, before.get(id, soon.accessed))
        for id, floor in _kept(late).items()
    }
    return replace(late, data=json.dumps(spared).encode())
