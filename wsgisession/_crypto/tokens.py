"""Tokens: how they are made, signed and recognised.

A token is 48 random octets in 64 characters.  The first 16 octets are the id of the
session: it names the record and is safe to log.  The other 32 are the secret, of which a
record holds the SHA-256 only (the selector and verifier pattern).  This file knows
neither cookies nor stores.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from .._made import made
from ..record import Key
from . import signing
from .text import octets_of, to_text

ID_OCTETS = 16
"""Of a token, the octets that are the id: as random as a UUID."""

SECRET_OCTETS = 32
"""Of a token, the octets that are the secret: 256 bits (OWASP ASVS 7.2.3 asks 128)."""

# 48 octets fill 64 characters to the last bit, so each token has one spelling.
_OCTETS = "[A-Za-z0-9_-]{64}"
_FORM = re.compile(_OCTETS)
_SIGNED = re.compile(rf"({_OCTETS})\.({signing.FORM})")


class Token(NamedTuple):
    """A token and what follows from it."""

    text: str
    """64 characters of URL-safe base64, for the client alone."""
    id: str
    """The first 16 octets as 32 hexadecimal digits."""
    proof: str
    """SHA-256 of the last 32 octets, as 64 hexadecimal digits."""

    def __repr__(self) -> str:
        return f"Token({self.id!r})"


def new_token() -> Token:
    """A token of a session that does not exist yet."""
    return _token(secrets.token_bytes(ID_OCTETS + SECRET_OCTETS))


def renewed(id: str) -> Token:
    """A token of the same session with a new secret.

    ``id`` is 32 hexadecimal digits; anything else is a ValueError.
    """
    octets = bytes.fromhex(id)
    if len(octets) != ID_OCTETS:
        raise ValueError(f"an id has {2 * ID_OCTETS} hexadecimal digits")
    return _token(octets + secrets.token_bytes(SECRET_OCTETS))


class Tokens(Protocol):
    """How tokens reach a client and come back."""

    def recognise(self, value: str) -> Key | None:
        """The key for what a client sent; None for what was never issued here."""

    def is_signed_elsewhere(self, value: str) -> bool:
        """Whether a value that is not recognised has the form of one that is."""

    def issue(self, token: str) -> str:
        """What the client is to hold for the text of a token."""


class PlainTokens:
    """Tokens as they are: recognised by their form, proven by the store alone."""

    def recognise(self, value: str) -> Key | None:
        return _key(value) if _FORM.fullmatch(value) else None

    def is_signed_elsewhere(self, value: str) -> bool:
        return False

    def issue(self, token: str) -> str:
        return token


class SignedTokens:
    """Tokens with a signature, so that what others invent never reaches the store.

    :param keys: the secrets, the newest first: it signs, all of them verify.
    :param purpose: bound into the signature, so that it is good for nothing else.
    """

    def __init__(self, keys: Sequence[bytes], purpose: str) -> None:
        self._signatures = signing.Signatures(keys, f"wsgisession.token.2.{purpose}")

    def recognise(self, value: str) -> Key | None:
        form = _SIGNED.fullmatch(value)
        if form is None or not self._signatures.verify(form[1], form[2]):
            return None
        return _key(form[1])

    def is_signed_elsewhere(self, value: str) -> bool:
        return _SIGNED.fullmatch(value) is not None

    def issue(self, token: str) -> str:
        return self._signatures.sign(token)


class OpaqueTokens:
    """Tokens that only the store can read, because the record is inside them.

    :param longest: octets; anything longer was not issued.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest

    def recognise(self, value: str) -> Key | None:
        if 0 < len(value) <= self._longest and value.isascii():
            return Key("", hashlib.sha256(value.encode()).hexdigest(), value)
        return None

    def is_signed_elsewhere(self, value: str) -> bool:
        return False  # the store tells

    def issue(self, token: str) -> str:
        return token


def _token(octets: bytes) -> Token:
    proof = hashlib.sha256(octets[ID_OCTETS:]).hexdigest()
    return made(Token, (to_text(octets), octets[:ID_OCTETS].hex(), proof))


def _key(text: str) -> Key:
    octets = octets_of(text)
    proof = hashlib.sha256(octets[ID_OCTETS:]).hexdigest()
    return made(Key, (octets[:ID_OCTETS].hex(), proof, text))
