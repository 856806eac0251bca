"""Octets as text: URL-safe base64 without padding (RFC 4648 5), and back.

``base64`` does the same with checks that are made already here, in twice the time.
"""

from __future__ import annotations

import binascii

_SAFE = bytes.maketrans(b"+/", b"-_")
_STANDARD = bytes.maketrans(b"-_", b"+/")


def to_text(octets: bytes) -> str:
    """Octets in URL-safe base64 without padding."""
    text = binascii.b2a_base64(octets, newline=False).translate(_SAFE)
    return text.rstrip(b"=").decode("ascii")


def octets_of(text: str) -> bytes:
    """Octets again, for text whose form was checked: a multiple of four characters."""
    return binascii.a2b_base64(text.encode("ascii").translate(_STANDARD))


def from_text(text: str) -> bytes | None:
    """Octets again; None for all but the one spelling that ``to_text`` writes."""
    try:
        octets = octets_of(text + "=" * (-len(text) % 4))
    except ValueError:  # not ASCII, or of a length that cannot be
        return None
    return octets if to_text(octets) == text else None
