"""What a client holds: how a token is made, signed and recognised.

This file knows neither cookies nor stores.  A token is 256 random bits as 43 characters;
its SHA-256 is the id that the record is filed under.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Protocol

from itsdangerous import Signer

from .record import Key, id_for

# 32 octets in base64: the last character has four bits to spare, which must be 0, or
# sixteen spellings would mean the same.
_OCTETS = r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"
_FORM = re.compile(_OCTETS)
_SIGNED = re.compile(rf"({_OCTETS})\.{_OCTETS}")


class Tokens(Protocol):
    """How tokens reach a client and come back."""

    def recognise(self, value: str) -> Key | None:
        """The key for what a client sent, or None if it was never issued here."""

    def issue(self, token: str) -> str:
        """What the client is to hold for a token."""


def new_token() -> str:
    """256 bits from the system's random source (OWASP ASVS 7.2.3), URL-safe."""
    return secrets.token_urlsafe(32)


class PlainTokens:
    """Tokens as they are: recognised by their form, proven by the store alone."""

    def recognise(self, value: str) -> Key | None:
        return Key(id_for(value), value) if _FORM.fullmatch(value) else None

    def issue(self, token: str) -> str:
        return token


class SignedTokens:
    """Tokens with a signature, so that what others invent never reaches the store.

    :param keys: the secrets, the newest first: it signs, all of them verify.
    :param purpose: bound into the signature, so that it is good for nothing else.
    """

    def __init__(self, keys: Sequence[bytes], purpose: str) -> None:
        self._signer = Signer(
            list(reversed(keys)),
            salt=f"wsgisession.token.1.{purpose}",
            sep=".",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )

    def recognise(self, value: str) -> Key | None:
        signed = _SIGNED.fullmatch(value)
        if signed is None or not self._signer.validate(value):
            return None
        return Key(id_for(signed[1]), signed[1])

    def issue(self, token: str) -> str:
        return self._signer.sign(token).decode()


class OpaqueTokens:
    """Tokens that only the store can read, because the record is inside them.

    :param longest: octets; anything longer was not issued.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest

    def recognise(self, value: str) -> Key | None:
        return Key(id_for(value), value) if 0 < len(value) <= self._longest else None

    def issue(self, token: str) -> str:
        return token
