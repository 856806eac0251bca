"""A record as the octets of a file, and back.

It knows records and octets, and neither files nor folders.  The form is one line and
the data::

    wsgisession-record-2 5f1c0a9e {"id":"...","version":...,...}
    ...

The number is the major format.  The checksum (CRC-32, eight hexadecimal digits) covers
all that follows it, so that a file that is cut or mixed up is never taken for a record.
A later edition may add fields to the header: a reader leaves out what it does not know.
It raises the number if older readers would be misled.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

from ...errors import StoreError
from ...record import Record, Replaced

ID = re.compile(r"[0-9a-f]{32}")
"""The id of a record, which is also the name of its file."""

MAJOR = 2

_MAGIC = b"wsgisession-record-%d " % MAJOR
_HEADER = len(_MAGIC) + 9  # where the header begins: magic, checksum, a blank
_ANY_MAGIC = re.compile(rb"wsgisession-record-(\d{1,9}) ")
_dumps = json.JSONEncoder(separators=(",", ":")).encode


def encode(record: Record) -> bytes:
    """What the file of a record holds."""
    header = {
        "id": record.id,
        "version": record.version,
        "created": record.created,
        "accessed": record.accessed,
        "expires": record.expires,
        "user": record.user,
        "proof": record.proof,
        "turned": record.turned,
        "seen": record.seen,
        "replaced": record.replaced,
    }
    line = _dumps(header).encode() + b"\n"
    checksum = zlib.crc32(record.data, zlib.crc32(line))
    return b"%s%08x %s%s" % (_MAGIC, checksum, line, record.data)


def decode(id: str, content: bytes) -> Record:
    """The record in a file.

    ValueError if the file is not whole, of an older format or of another record;
    ``StoreError`` if its format is a newer one.
    """
    checksum = zlib.crc32(memoryview(content)[_HEADER:])
    if content[:_HEADER] != b"%s%08x " % (_MAGIC, checksum):
        _refuse_newer(id, content)
        raise ValueError("no record of this format, or not a whole one")
    end = content.index(b"\n", _HEADER)
    header = json.loads(content[_HEADER:end])
    if header["id"] != id:
        raise ValueError("the record of another session")
    return Record(
        id,
        header["version"],
        content[end + 1 :],
        header["created"],
        header["accessed"],
        header["expires"],
        header["user"],
        header["proof"],
        header["turned"],
        header["seen"],
        tuple([Replaced(*each) for each in header["replaced"]]),
    )


def expiry(start: bytes) -> float:
    """When a record expires, from the first octets of its file.

    0 where it takes a closer look to tell: the header is longer, or damaged.
    """
    try:
        header: dict[str, Any] = json.loads(start[_HEADER:].partition(b"\n")[0])
        return float(header["expires"])
    except (ValueError, KeyError, TypeError):
        return 0.0


def _refuse_newer(id: str, content: bytes) -> None:
    found = _ANY_MAGIC.match(content)
    if found is not None and int(found[1]) > MAJOR:
        raise StoreError(
            f"the file of session {id[:8]} has format {int(found[1])}, which a newer "
            f"wsgisession wrote; this one reads format {MAJOR}"
        )
