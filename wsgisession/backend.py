"""What all sessions of one manager share, and how a key leads to a record in there.

It reads and never writes.  It knows stores by their protocol, and nothing of what becomes
of a session.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .envelope import About, Envelope
from .options import Options
from .record import Key, Record
from .store import LockingStore, Store
from .tokens import Tokens

log = logging.getLogger("wsgisession")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A store, and what it takes to make sessions of its records."""

    store: Store
    locks: LockingStore | None
    """The store again if it can lock, else None."""
    tokens: Tokens
    envelope: Envelope
    options: Options
    clock: Callable[[], float]
    room: int | None = None
    """Octets that a token may have, where it is the record; None: it always fits."""

    def only_live(self, keys: Sequence[Key]) -> Key | None:
        """Of several keys the one that leads somewhere, if it is one."""
        live = []
        for key in keys:
            record = self.store.load(key)
            if record is not None and record.state != "ended":
                live.append(key)
        if len(live) > 1:
            log.warning("%d session cookies are valid at once; none is used", len(live))
        return live[0] if len(live) == 1 else None

    def follow(
        self, key: Key, get: Callable[[Key], Record | None]
    ) -> tuple[Record | None, str | None]:
        """What a key leads to, through the pointers that rotations leave behind.

        And its token, where that is known: a pointer names its successor by id.
        """
        record, token = get(key), key.token
        while record is not None and record.state == "moved" and record.successor:
            record, token = get(Key(record.successor)), None
        return record, (token if record is not None else None)

    def open(self, record: Record) -> tuple[About, dict[str, Any]] | None:
        """What is in a record; None if it is corrupt.

        Then somebody's bytes are damaged and not the storage: the visitor is anonymous,
        and the record stays as it is for whoever has to look at it.
        """
        try:
            return self.envelope.open(record.data)
        except Exception:
            log.exception("session %s is corrupt and was left alone", record.id[:8])
            return None

    def is_over(self, about: About, record: Record) -> bool:
        """Whether a record's time has passed by the options as they are now.

        The store knows the deadline of the options as they were at the last save.
        """
        deadline = about.expiry.deadline(
            self.options, created=record.created, accessed=record.accessed
        )
        return deadline <= self.clock()
