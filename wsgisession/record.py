"""What stands in a store: a record, the key that leads to it, and how an id is made.

This file knows neither stores nor sessions.  A record is bytes and bookkeeping; what
the bytes mean is decided above, where it is kept is decided below.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

State = Literal["live", "moved", "ended"]


@dataclass(frozen=True, slots=True)
class Key:
    """Leads to a record: the id it is filed under and, if known, the client's token.

    A store on the server looks at ``id`` only; a store whose token is the record itself
    opens ``token``.
    """

    id: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One session as a store keeps it.

    ``id`` is safe to log: nobody can make a token from it.  ``version`` is numbered by
    the caller, from 1.  Times are epoch seconds: ``created``, ``accessed`` (the idle
    clock) and ``expires``, after which the store may forget the record.

    A ``moved`` record is the pointer that a rotation leaves behind (``successor`` is the
    id it leads to), an ``ended`` one the tombstone of a regeneration.

    ``token`` and ``lease`` travel with a record but are never stored: what the client
    holds, and the proof that the session's lock is ours.
    """

    id: str
    data: bytes = field(repr=False)
    version: int
    created: float
    accessed: float
    expires: float
    user: str | None = None
    state: State = "live"
    successor: str | None = None
    token: str | None = field(default=None, repr=False, compare=False)
    lease: object | None = field(default=None, repr=False, compare=False)

    def bare(self, *, lease: object | None = None) -> Record:
        """The record without what is never stored, but for a lease on it."""
        return Record(
            id=self.id,
            data=self.data,
            version=self.version,
            created=self.created,
            accessed=self.accessed,
            expires=self.expires,
            user=self.user,
            state=self.state,
            successor=self.successor,
            lease=lease,
        )


def id_for(token: str) -> str:
    """The id of a token: its SHA-256, as 64 hexadecimal digits.

    Stores are keyed by it, so that a leaked store holds nothing that a client could send
    (OWASP ASVS 7.2.3; rack CVE-2019-16782).
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
