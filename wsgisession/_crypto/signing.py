"""Signatures of text: HMAC with SHA-256, as itsdangerous makes them.

The key for a purpose is derived once by itsdangerous; each signature is then one call of
``hmac.digest``, which costs less than half of a ``Signer`` that derives anew each time.
This file knows nothing of what is signed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from itsdangerous import Signer

from .text import to_text

FORM = "[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"
"""A pattern for signatures.

32 octets in base64 leave two bits of the last character unused.  They must be 0, or four
spellings would be taken for one signature.
"""


class Signatures:
    """Signs text for one purpose, and checks what was signed for it.

    :param keys: the secrets, the newest first: it signs, all of them verify.
    :param purpose: bound into the keys; a signature is good for no other purpose.
    """

    def __init__(self, keys: Sequence[bytes], purpose: str) -> None:
        self._derived = tuple(_derived(key, purpose) for key in keys)

    def sign(self, text: str) -> str:
        """``text`` and its signature, with a dot between them; ``text`` is ASCII."""
        return f"{text}.{_signature(self._derived[0], text)}"

    def verify(self, text: str, signature: str) -> bool:
        """Whether one of the keys has made this signature; both are ASCII."""
        return any(
            hmac.compare_digest(_signature(key, text), signature)
            for key in self._derived
        )


def _derived(key: bytes, purpose: str) -> bytes:
    signer = Signer(
        key, salt=purpose, key_derivation="hmac", digest_method=hashlib.sha256
    )
    return signer.derive_key()


def _signature(derived: bytes, text: str) -> str:
    return to_text(hmac.digest(derived, text.encode("ascii"), "sha256"))
