"""One piece of work on one session: from the first look at it to the one write.

The heart of the library.  It knows records and stores, and decides who waits, who merges,
who is run again, and what happens at the end: that table is ``Transaction.commit``.  It
knows neither HTTP nor any concrete store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from typing import Any, Literal

from .backend import Backend
from .envelope import About
from .errors import (
    ConfigurationError,
    Conflict,
    LockTimeout,
    SessionClosed,
    SessionConflict,
    SessionEnded,
    SessionTooLarge,
    StoreError,
)
from .expiry import GRACE, TOMBSTONE
from .merge import Clash, Draft
from .options import COOKIE_OCTETS
from .record import Key, Record, id_for
from .tokens import new_token

log = logging.getLogger("wsgisession")

Identity = Literal["rotate", "regenerate"]


class ReplayNeeded(BaseException):
    """What was read has changed, and the work can be done once more.

    A message to whoever runs the application, never an error; it passes through the
    application's ``except Exception`` where that called ``write()``.
    """

    def __init__(self, keys: frozenset[str]) -> None:
        super().__init__(sorted(keys))
        self.keys = keys


class Cookie(Enum):
    """What is to become of the client's cookie."""

    KEEP = "keep"
    SET = "set"
    EXPIRE = "expire"


class Transaction:
    """The state of a session that has been touched.

    :param replay: whether the work can be run again on a conflict.
    """

    def __init__(self, backend: Backend, *, replay: bool) -> None:
        self.backend = backend
        self.replay = replay
        self.outage: StoreError | None = None
        self.cookie = Cookie.KEEP
        self._doomed: list[Record] = []
        self._replay_due: ReplayNeeded | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.draft = Draft({})
        self.record: Record | None = None
        """As it is stored now; it carries our lease, if we have one."""
        self.user: str | None = None
        self.about = self._stored_about = About()
        self.created = self.accessed = self.backend.clock()
        self.new = True
        self.gone: str | None = None
        """The id, if the session was ended meanwhile: nothing will be written."""
        self.forced = False
        """Whether to write even if nothing has changed."""
        self.token: str | None = None
        """What the client holds or is to hold; None if we cannot know it."""
        self._upcoming: str | None = None
        self._identity: Identity | None = None
        self._origin = b""

    # -- the first look ----------------------------------------------------------------

    def begin(self, keys: Sequence[Key], *, locking: bool) -> None:
        """Load what the keys lead to, or lock and load it: one store call."""
        get = self._lock if locking and self.backend.locks else self.backend.store.load
        try:
            key = keys[0] if len(keys) == 1 else self.backend.only_live(keys)
            record = self._follow(key, get) if key is not None else None
        except StoreError as error:
            if self.backend.options.on_store_error == "raise":
                raise
            log.error("session store out of reach, serving an empty session: %r", error)
            self.outage = error
            return
        if record is not None:
            self.adopt(record)

    def adopt(self, record: Record) -> None:
        """Take a record as the state of the session, unless its time is over."""
        if record.state == "ended":
            self.gone, self.token = record.id, None
            return
        opened = self.backend.open(record)
        if opened is None or self.backend.is_over(opened[0], record):
            self.token = None
            self._release(record)
            return
        self.record, self.user, self.new = record, record.user, False
        self.about, self.draft.values = opened
        self._stored_about, self._origin = self.about, record.data
        self.created, self.accessed = record.created, record.accessed

    def _follow(self, key: Key, get: Callable[[Key], Record | None]) -> Record | None:
        """What a key leads to; and whether the client holds the token of it."""
        record, self.token = self.backend.follow(key, get)
        return record

    # -- the lock ----------------------------------------------------------------------

    @property
    def locked(self) -> bool:
        return self.record is not None and self.record.lease is not None

    def lock(self, wait: float | None = None) -> None:
        """Take the session for ourselves and put our changes on what is stored now."""
        if self.record is None or self.locked or self.gone:
            return
        if self.backend.locks is None:
            raise ConfigurationError(
                f"{type(self.backend.store).__name__} cannot lock; "
                "locks need a store that can, on the server"
            )
        fresh = self._follow(
            Key(self.record.id, self.token), lambda key: self._lock(key, wait)
        )
        if fresh is None or fresh.state == "ended":
            self._lost()
        else:
            self._rebase(fresh)

    def _lock(self, key: Key, wait: float | None = None) -> Record | None:
        assert self.backend.locks is not None
        options = self.backend.options
        wait = options.lock_wait if wait is None else wait
        return self.backend.locks.lock(key, wait=wait, lease=options.lock_lease)

    def unlock(self) -> None:
        """End our lease without writing."""
        if (record := self.record) is not None and record.lease is not None:
            self.record = record.bare()  # once: what cannot be freed ends by itself
            self._release(record)

    def _release(self, record: Record) -> None:
        if record.lease is not None and self.backend.locks is not None:
            self.backend.locks.unlock(record)

    def _rebase(self, fresh: Record) -> None:
        """Put our changes on a newer record, and note what we had read differently."""
        old = self.record
        assert old is not None
        if (fresh.id, fresh.version) != (old.id, old.version):
            opened = self.backend.open(fresh)
            if opened is None:
                self._release(fresh)
                return self._lost()
            about, theirs = opened
            base, encode = self.backend.envelope.open(old.data)[1], self._encode
            self.draft.rebase(base, theirs, encode)
            self.about = self.about.onto(about, self._stored_about)
            self._stored_about = about
        self.record = fresh
        return None

    @property
    def _encode(self) -> Callable[[dict[str, Any]], bytes]:
        return self.backend.envelope.encode

    def _lost(self) -> None:
        """The session was ended under our hands: what we wrote is dropped, aloud."""
        assert self.record is not None
        self.gone = self.record.id
        self._report()
        self.draft.settle()

    def _report(self) -> None:
        assert self.gone is not None
        ended = SessionEnded(self.gone)
        log.info("%s; its changes were dropped", ended)
        hook = self.backend.options.on_ended
        if hook is not None:
            try:
                hook(ended)
            except Exception:
                log.exception("the on_ended hook failed")

    # -- identity ----------------------------------------------------------------------

    @property
    def id(self) -> str:
        if self._upcoming is None and self.record is not None:
            return self.record.id
        return id_for(self._next())

    def _next(self) -> str:
        if self._upcoming is None:
            self._upcoming = new_token()
        return self._upcoming

    def change_identity(self, how: Identity) -> None:
        """Give the session another token when it is written.

        The lock is taken now, so that the two saves at the end, of the new record and
        of what stays in the place of the old one, cannot meet a conflict half way.
        """
        if self.backend.locks is not None:
            self.lock()
        if self.record is None or self.gone:
            return
        if self._identity != "regenerate":
            self._identity = how
        self._upcoming = new_token()

    def _renew(self) -> None:
        """Rotate because it is time, unless that would mean to wait."""
        only_read = not self.changed()
        with suppress(LockTimeout):
            if self.backend.locks is not None:
                self.lock()
            if self._rotation_is_due():  # and nobody has rotated it meanwhile
                self.change_identity("rotate")
        if only_read:
            self.draft.accept()  # nothing was made of what another has changed

    def end(self) -> None:
        """End the session at the commit, and go on with a new, empty one."""
        if self.record is not None and not self.gone:
            self._doomed.append(self.record)
        self._begin_anew()

    def revert(self) -> None:
        """Go back to what was loaded, deeply."""
        record = self.record
        values = (
            self.backend.envelope.open(record.data)[1] if record is not None else {}
        )
        self.forget()
        self.draft.revert(values)

    # -- the end -----------------------------------------------------------------------

    def commit(self) -> None:
        """The end of a request, as a table; ``cookie`` tells what the client must learn.

        ========  ======  =============================  ======================  ========
        touched   stored  state at commit                store call              cookie
        ========  ======  =============================  ======================  ========
        ended     yes     any, after a failure as well   delete                  expire
        read      no      empty                          none                    keep
        changed   no      not empty                      save (expect 0)         set
        rotated   yes     any                            save new, old := moved  set
        regener.  yes     any                            save new, old := ended  set
        changed   yes     bytes, user or expiry differ   save (expect n)         set [1]_
        read      yes     idle clock is late             touch                   set [2]_
        read      yes     unchanged, leased              unlock                  keep
        read      yes     unchanged                      none                    keep
        ========  ======  =============================  ======================  ========

        .. [1] where its expiry moved or its token changed
        .. [2] where it has an expiry

        Raises ``ReplayNeeded`` where the work is to be done again.
        """
        if self._replay_due is not None:
            raise self._replay_due
        if self._deadline(self.backend.clock()) <= self.backend.clock():
            self.end()
        elif self._rotation_is_due():
            self._renew()
        self.bury()
        if self.gone is not None:
            if self.draft.changed:
                self._report()
        elif self.record is None:
            if self.forced or self._worth_storing():
                self._store(self._sealed())
        elif self._identity is not None:
            self.draft.reclaim(self._encode)
            self._store(self._sealed())
        elif (data := self._to_write()) is not None:
            self._store(data)
        elif self._clock_is_late():
            self._touch(self.record)
        else:
            self.unlock()

    def commit_late(self) -> None:
        """Write what was changed after the headers have left, where no cookie is due."""
        self.replay = False
        self.bury()
        if self.record is None or self.gone or self._identity is not None:
            return  # a new identity would need a cookie
        data = self._to_write()
        if data is not None and self.backend.room is not None:
            raise SessionClosed(
                "the headers have left, and this session is held in a cookie; write to "
                "it before the response begins"
            )
        if data is not None:
            self._store(data)

    def save(self) -> None:
        """Commit in the middle of the work, by the same table; the lease ends."""
        self.forced = self.forced or self.record is None
        try:
            self.commit()
        except ReplayNeeded as replay:
            # Nothing was written, and the application goes on; all of its work will be
            # done again at the end.
            self._replay_due = replay
            return
        self.draft.settle()
        self.replay = False  # what has been written cannot be taken back
        self._origin = self.record.data if self.record is not None else b""

    def bury(self) -> None:
        """Delete what was ended; done also where everything else is dropped."""
        while self._doomed:
            self.backend.store.delete(self._doomed[-1])
            self._doomed.pop()
            self.cookie = Cookie.EXPIRE

    def forget(self) -> None:
        """Drop what was changed: nothing of it will be written."""
        self.draft.forget()
        self.forced, self._identity, self._upcoming = False, None, None
        self.about, self.user = self._stored_about, None
        if (record := self.record) is not None:
            self.user, self.created = record.user, record.created
            self.accessed = record.accessed

    def changed(self) -> bool:
        """Whether there is something to write."""
        if self.record is None:
            return self.forced or self._worth_storing()
        return self._identity is not None or self._to_write() is not None

    def _worth_storing(self) -> bool:
        new = bool(self.draft.changed and self.draft.values)
        return new or self.user is not None or self.about != About()

    def _sealed(self) -> bytes:
        return self.backend.envelope.seal(self.about, self.draft.values)

    def _to_write(self) -> bytes | None:
        """The bytes to write, or None if they are stored already."""
        record = self.record
        assert record is not None
        if self.draft.orphans:
            self.draft.reclaim(self._encode)
        aside = (
            self.forced or self.user != record.user or self.about != self._stored_about
        )
        if not aside and not self.draft.suspect:
            return None
        data = self._sealed()
        if aside:
            return data
        if data == record.data:
            # Also what two have made alike may be a loss: of two that add one each.
            return data if self.draft.changed and self.draft.doubtful else None
        if not self.draft.changed:
            # Only handed out: a serializer that writes equal values in different bytes
            # must not turn every read into a write.
            envelope = self.backend.envelope
            if data == envelope.seal(*envelope.open(record.data)):
                return None
        return data

    # -- writing -----------------------------------------------------------------------

    def _store(self, data: bytes) -> None:
        """Write, and on a conflict: gone, merge, replay or decide, in this order."""
        began = time.monotonic()
        while self.gone is None:
            if self.draft.doubtful:
                self._decide()
                data = self._sealed()
            try:
                self._write(data)
                return
            except Conflict as conflict:
                self._meet(conflict)
            data = self._sealed()
            waited = time.monotonic() - began
            if self.backend.locks is None and waited > self.backend.options.lock_wait:
                raise LockTimeout(self.id, waited)

    def _meet(self, conflict: Conflict) -> None:
        """Another was quicker: see what is there now, and go on from it."""
        if self.record is None:
            self._upcoming = None  # the id was taken: take another
            return
        self.record = self.record.bare()
        theirs = conflict.record
        if theirs is None or theirs.state == "ended":
            self._lost()
            return
        if theirs.state == "live" and self.replay:
            self._replay_if(self._clashes(self.record, theirs))
        if self.backend.locks is not None:
            # Bare retries do not end among many writers; with the lock the second does.
            self.lock()
            return
        followed = self._follow(Key(theirs.id, self.token), self.backend.store.load)
        if followed is None or followed.state == "ended":
            self._lost()
        else:
            self._rebase(followed)

    def _clashes(self, ours: Record, theirs: Record) -> frozenset[str]:
        opened = self.backend.open(theirs)
        if opened is None:
            return frozenset()
        base = self.backend.envelope.open(ours.data)[1]
        return self.draft.clashes(base, opened[1], self._encode)

    def _replay_if(self, keys: frozenset[str]) -> None:
        if keys:
            self.unlock()
            raise ReplayNeeded(keys)

    def _decide(self) -> None:
        """What to do about keys that we read and another has changed since."""
        keys = self.draft.doubtful
        if self.replay:
            self._replay_if(keys)
        record, decide = self.record, self.backend.options.on_conflict
        assert record is not None
        if decide == "raise":
            self.unlock()
            raise SessionConflict(record.id, keys)
        self.draft.accept()
        if callable(decide):
            envelope = self.backend.envelope
            clash = Clash(
                id=record.id,
                keys=keys,
                base=envelope.open(self._origin)[1],
                ours=dict(self.draft.values),
                theirs=envelope.open(record.data)[1],
            )
            self.draft.values = dict(decide(clash))
            self.draft.changed |= self.draft.values.keys() | clash.theirs.keys()
            self._origin = record.data
            return
        log.warning(
            "session %s: %s changed while in use and could be neither locked nor "
            "replayed; what this request made of it was written over the other's",
            record.id[:8],
            ", ".join(sorted(keys)),
        )

    def _write(self, data: bytes) -> None:
        old, store = self.record, self.backend.store
        if self._identity is not None:
            return self._write_successor(data)
        if old is None:
            record = self._next_record(data, 1, self._next(), None)
            return self._noted(record, self._fitting(store.save(record, expect=0)))
        record = self._next_record(data, old.version + 1, self.token, old.lease)
        issued = self._fitting(store.save(record, expect=old.version))
        return self._noted(record, issued)

    def _write_successor(self, data: bytes) -> None:
        """The new record first, then what stays in the place of the old one.

        A crash between the two leaves the old session live and the new one out of
        everybody's reach, never the reverse.
        """
        old, store, moved = self.record, self.backend.store, self._identity == "rotate"
        assert old is not None
        now = self.backend.clock()
        if self.backend.options.rotate_every is not None:
            self.about = replace(self.about, rotated=now)
            data = self._sealed()
        new = self._next_record(data, 1, self._next(), None)
        rest = replace(
            old,
            data=b"",
            version=old.version + 1,
            expires=now + (GRACE if moved else TOMBSTONE),
            user=None,
            state="moved" if moved else "ended",
            successor=new.id if moved else None,
        )
        issued = self._fitting(store.save(new, expect=0))
        try:
            store.save(rest, expect=old.version)
        except Conflict:
            store.delete(new)
            raise
        self._noted(new, issued)

    def _fitting(self, issued: str | None) -> str | None:
        """A token, unless no browser would keep it."""
        room = self.backend.room
        if issued is None or room is None or len(issued) <= room:
            return issued
        biggest = self.backend.envelope.biggest(self.draft.values)
        limit = COOKIE_OCTETS * self.backend.options.cookie_chunks
        raise SessionTooLarge(limit + len(issued) - room, limit, biggest)

    def _next_record(
        self, data: bytes, version: int, token: str | None, lease: object | None
    ) -> Record:
        """What is to be written, under the upcoming id if there is one."""
        late = self.record is None or self._clock_is_late()
        accessed = self.backend.clock() if late else self.accessed
        return Record(
            id=self.id,
            data=data,
            version=version,
            created=self.created,
            accessed=accessed,
            expires=self._deadline(accessed),
            user=self.user,
            token=token,
            lease=lease,
        )

    def _deadline(self, accessed: float) -> float:
        options = self.backend.options
        return self.about.expiry.deadline(
            options, created=self.created, accessed=accessed
        )

    def _clock_is_late(self) -> bool:
        late = self.backend.clock() - self.accessed
        return late >= self.about.expiry.touch_after(self.backend.options)

    def _rotation_is_due(self) -> bool:
        every = self.backend.options.rotate_every
        # Without the token, as behind a pointer, the client has just been given another.
        if every is None or self.token is None or self._identity:
            return False
        since = self.created if self.about.rotated is None else self.about.rotated
        return self.backend.clock() - since >= every

    def _touch(self, record: Record) -> None:
        now = self.backend.clock()
        touched = replace(
            record, accessed=now, expires=self._deadline(now), token=self.token
        )
        self._noted(touched, self._fitting(self.backend.store.touch(touched)))

    def _noted(self, record: Record, issued: str | None) -> None:
        """The store holds ``record`` now; see whether the client must learn of it."""
        old, expiry = self.record, self.about.expiry
        moved = (old is None or record.expires != old.expires) and not (
            expiry.closes_with_browser(self.backend.options)
        )
        asked = expiry != self._stored_about.expiry
        if issued is not None and (issued != self.token or moved or asked):
            self.cookie = Cookie.SET
        self.record, self.forced = record.bare(), False
        self.accessed, self._stored_about = record.accessed, self.about
        self.token, self._identity, self._upcoming = issued, None, None
