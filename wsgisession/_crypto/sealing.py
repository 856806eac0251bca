"""Seals: bytes that nobody else can write, and if wanted nobody else can read.

Made of a ring of keys; this file knows neither cookies, records nor stores.  A seal is
bound to a purpose, so that it is good for nothing else, and each kind of seal has one
algorithm: what it does not open, nothing opens (CVE-2026-39324).
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Sequence

from ..errors import ConfigurationError
from . import signing
from .secret import key_ring
from .text import from_text, to_text

SALT = 32
"""Random octets from which the key of each message is derived."""

TAG = 16
"""Octets at the end of an encrypted message that authenticate it."""

_SIGNED = re.compile(rf"(A([A-Za-z0-9_-]*))\.({signing.FORM})")


class Signed:
    """Text that everybody can read and nobody else can write: HMAC with SHA-256.

    :param secret: the keys, the newest first: it signs, all of them verify.
    :param purpose: what the text is for; it opens for no other.
    """

    def __init__(self, secret: Sequence[bytes], purpose: str) -> None:
        self._signatures = signing.Signatures(
            key_ring(secret), f"wsgisession.signed.A.{purpose}"
        )

    def has_form(self, text: str) -> bool:
        """Whether a text looks like a sealed one, whatever secret sealed it."""
        return _SIGNED.fullmatch(text) is not None

    def seal(self, content: bytes) -> str:
        return self._signatures.sign(f"A{to_text(content)}")

    def open(self, sealed: str) -> bytes | None:
        """What was sealed; None for anything that was not."""
        form = _SIGNED.fullmatch(sealed)
        if form is None or not self._signatures.verify(form[1], form[3]):
            return None
        return from_text(form[2])


class Encrypted:
    """Bytes that nobody else can read or write: AES-256-GCM.

    Each message has a key of its own, derived (HKDF with SHA-256) from the secret and 256
    random bits that travel with it.  Under one key, random nonces would be used up after
    2**32 messages: 50 days at a thousand a second (NIST SP 800-38D 8.3).

    :param secret: the keys, the newest first: it seals, all of them open.
    :param purpose: what the bytes are for; they open for no other.

    Raises ``ConfigurationError`` where the package cryptography is not installed.
    """

    VERSION = b"\x01"

    def __init__(self, secret: Sequence[bytes], purpose: str) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            from cryptography.hazmat.primitives.hashes import SHA256
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF
        except ImportError as error:
            raise ConfigurationError(
                "encryption needs cryptography; install it with: "
                'python -m pip install "wsgisession-middleware[encrypt]"'
            ) from error
        self._keys = key_ring(secret)
        self._info = b"wsgisession.encrypted.1." + purpose.encode()
        self._aead, self._hkdf, self._hash = AESGCM, HKDF, SHA256
        self._invalid = InvalidTag

    def seal(self, content: bytes, *, associated: bytes = b"") -> bytes:
        """Encrypt ``content``; it opens only with the same associated data."""
        salt = os.urandom(SALT)
        key, nonce = self._derived(self._keys[0], salt)
        body = self._aead(key).encrypt(nonce, content, associated or None)
        return self.VERSION + salt + body

    def open(self, sealed: bytes, *, associated: bytes = b"") -> bytes | None:
        """What was sealed; None for anything that was not, or not with this data."""
        if len(sealed) < 1 + SALT + TAG or sealed[:1] != self.VERSION:
            return None
        salt, body = sealed[1 : 1 + SALT], sealed[1 + SALT :]
        for secret in self._keys:
            key, nonce = self._derived(secret, salt)
            try:
                return self._aead(key).decrypt(nonce, body, associated or None)
            except self._invalid:
                continue
        return None

    def _derived(self, secret: bytes, salt: bytes) -> tuple[bytes, bytes]:
        hkdf = self._hkdf(algorithm=self._hash(), length=44, salt=salt, info=self._info)
        derived = hkdf.derive(secret)
        return derived[:32], derived[32:]


class EncryptedText:
    """The same as text, for where only text can go.

    :param secret: the keys, the newest first.
    :param purpose: what the text is for.
    """

    def __init__(self, secret: Sequence[bytes], purpose: str) -> None:
        self._encrypted = Encrypted(secret, purpose)

    def has_form(self, text: str) -> bool:
        """Whether a text looks like a sealed one, whatever secret sealed it."""
        octets = from_text(text[1:]) if text.startswith("B") else None
        return octets is not None and octets[:1] == Encrypted.VERSION

    def seal(self, content: bytes) -> str:
        return f"B{to_text(self._encrypted.seal(content))}"

    def open(self, sealed: str) -> bytes | None:
        """What was sealed; None for anything that was not."""
        if not sealed.startswith("B"):
            return None
        octets = from_text(sealed[1:])
        return None if octets is None else self._encrypted.open(octets)


def compressed(content: bytes) -> bytes:
    """The content compressed where that makes it smaller; ``expanded`` is told which.

    Only where it was asked for: where a client can put text beside a secret, the length
    of the whole tells about the secret, encrypted or not.
    """
    shorter = zlib.compress(content, 9)
    return b"z" + shorter if len(shorter) < len(content) else uncompressed(content)


def uncompressed(content: bytes) -> bytes:
    """The content as it is, for ``expanded``."""
    return b"p" + content


def expanded(packed: bytes, *, at_most: int) -> bytes | None:
    """The content again; None past ``at_most`` octets (5 MB fit into 7 kB)."""
    kind, content = packed[:1], packed[1:]
    if kind == b"p":
        return content if len(content) <= at_most else None
    if kind != b"z":
        return None
    inflater = zlib.decompressobj()
    try:
        whole = inflater.decompress(content, at_most + 1)
    except zlib.error:
        return None
    is_whole = inflater.eof and not inflater.unused_data
    return whole if is_whole and len(whole) <= at_most else None
