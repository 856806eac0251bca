"""What a record is in Redis: the fields of its hash, and their text.

It knows records and nothing of connections, scripts or leases.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from typing import Any

from ...record import Record, Replaced

log = logging.getLogger("wsgisession")

FAR = 253_402_300_800
"""The year 10000: a server refuses ends that are much further."""

FIELDS = ("version", "data", "meta", "accessed", "expires")
"""What a client is told of a record, in this order."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def record_of(id: str, values: list[Any]) -> Record | None:
    """The record in the values of ``FIELDS``; None if there is none, or it is corrupt."""
    version, data, meta, accessed, expires = values[: len(FIELDS)]
    if version is None:
        return None
    try:
        known = json.loads(to_text(meta))
        return Record(
            id=id,
            version=int(version),
            data=bytes(data),
            created=float(known["created"]),
            accessed=float(accessed),
            expires=float(expires),
            user=known.get("user"),
            proof=known.get("proof", ""),
            turned=known.get("turned", 0.0),
            seen=known.get("seen"),
            replaced=tuple([Replaced(*each) for each in known.get("replaced", ())]),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        log.error("session %s is corrupt in Redis: left there, treated as absent", id)
        return None


def texts(record: Record) -> tuple[bytes, str, str]:
    """``meta``, ``accessed`` and ``expires``; what has no value is left out."""
    meta: dict[str, Any] = {"created": record.created}
    if record.user is not None:
        meta["user"] = record.user
    if record.proof:
        meta["proof"] = record.proof
    if record.turned:
        meta["turned"] = record.turned
    if record.seen is not None:
        meta["seen"] = record.seen
    if record.replaced:
        meta["replaced"] = record.replaced
    return to_bytes(_encode(meta)), repr(record.accessed), repr(record.expires)


def life(record: Record) -> int:
    """Milliseconds that a record still has, on the clock of the host that set its end."""
    return max(int((min(record.expires, FAR) - time.time()) * 1000), 0)


def listed_until(record: Record) -> int:
    """Until when an index lists a record at least, in milliseconds."""
    return min(int(min(record.expires, FAR) * 1000) + life(record), FAR * 1000)


def digest(user: str) -> str:
    """What an index is named by: nobody reads a user from a key."""
    return hashlib.sha256(to_bytes(user)).hexdigest()


def to_bytes(text: str) -> bytes:
    """Text as octets, halves of a surrogate pair too: ids of users are the caller's."""
    return text.encode("utf-8", "surrogatepass")


def to_text(octets: bytes) -> str:
    """The text again."""
    return octets.decode("utf-8", "surrogatepass")
