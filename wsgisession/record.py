"""What stands in a store: a record, the key that leads to it, and who may use it.

This file knows neither stores nor sessions.  A record is bytes and bookkeeping; what the
bytes mean is decided above, where they are kept is decided below.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hmac import compare_digest
from typing import Any, NamedTuple

from ._made import made

__all__ = ["Key", "Record", "Replaced"]


class Key(NamedTuple):
    """Leads to a record.

    A store on the server looks at ``id`` and compares ``proof``; a store whose token is
    the record itself opens ``token``.
    """

    id: str
    """32 hexadecimal digits, safe to log; what a client sends may be anything else."""
    proof: str | None = None
    """SHA-256 of the secret that a client presented, as 64 hexadecimal digits.

    None for administration, where no client is asked for a proof.
    """
    token: str | None = None
    """What a client holds, where the token is the record."""

    def __repr__(self) -> str:
        return f"Key({self.id!r})"


class Replaced(NamedTuple):
    """A proof that was replaced by a newer one."""

    proof: str
    until: float | None
    """None: good until the newer token has been seen; a moment in epoch seconds; or 0: no
    longer good, because a login or a regeneration replaced it."""

    def __repr__(self) -> str:
        return f"Replaced(until={self.until})"


class Record(NamedTuple):
    """One session as a store keeps it.

    Times are epoch seconds.  ``lease``, ``token`` and ``values`` travel with a record and
    are never stored.
    """

    id: str
    """Names the record from its first save to its end; nobody can make a token of it."""
    version: int
    """63 random bits, new with every save; 0 never."""
    data: bytes
    created: float
    accessed: float
    """The idle clock: when the session was last used."""
    expires: float
    """The moment from which the record counts as absent."""
    user: str | None = None
    proof: str = ""
    """SHA-256 of the current secret, as 64 hexadecimal digits."""
    turned: float = 0.0
    """When the token was last changed."""
    seen: float | None = None
    """When the current token was first presented, if it replaced an older one."""
    replaced: tuple[Replaced, ...] = ()
    """At most three proofs from before."""
    lease: object | None = None
    """Says that the lock of the session is ours; only its store knows what it is."""
    token: str | None = None
    """What the client is to hold, where the token is the record."""
    values: Mapping[str, Any] | None = None
    """What is in ``data``, for a store that asks for it by ``Capabilities.fills``."""

    def admits(self, proof: str | None, now: float) -> bool:
        """Whether a client with this proof may use the session; None always may.

        ``now`` is in seconds since the epoch.
        """
        if proof is None or compare_digest(proof, self.proof):
            return True
        return any(
            compare_digest(proof, each.proof)
            and (each.until is None or each.until > now)
            for each in self.replaced
        )

    def knows(self, proof: str | None) -> bool:
        """Whether a proof is the current one or one of those it replaced."""
        if proof is None or compare_digest(proof, self.proof):
            return True
        return any(compare_digest(proof, each.proof) for each in self.replaced)

    def bare(self, *, lease: object | None = None) -> Record:
        """The record without what is never stored, but for a lease on it."""
        if self.lease is lease and self.token is None and self.values is None:
            return self
        return made(Record, (*self[:11], lease, None, None))

    def __repr__(self) -> str:
        return (
            f"Record({self.id!r}, version={self.version}, {len(self.data)} octets, "
            f"user={self.user!r}, expires={self.expires})"
        )


def encode_replaced(replaced: Sequence[Replaced]) -> str:
    """Replaced proofs as JSON, for stores that keep text: ``[[proof, until], ...]``."""
    return json.dumps(replaced, separators=(",", ":")) if replaced else "[]"


def decode_replaced(text: str | bytes) -> tuple[Replaced, ...]:
    """Replaced proofs again; ValueError or TypeError if the text is not of that form."""
    if text in ("[]", b"[]"):
        return ()
    return tuple(Replaced(str(proof), until) for proof, until in json.loads(text))
