"""Tells a secret from what anybody could guess.

This file knows no option and no cipher.  Most stolen signing keys were never stolen: they
stood in a tutorial, or in a product's example configuration (CVE-2023-27524,
CVE-2020-17526).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import ConfigurationError

SHORTEST = 32
"""Octets: 256 bits, if they are random."""

OTHER_KEY = (
    "a session's cookie was signed by a secret that this process does not have: if it is "
    "no forgery, the workers have different secrets, or the secret was changed; keep the "
    "old one as the second of the option secret until its cookies have expired"
)
"""What to log where that is seen: users are logged out by it, and nothing fails."""

# Parts of words that only people write; too long to turn up in random text.
_WORDS = re.compile(
    r"change[-_ ]?(me|this|it|in)|replace[-_ ]?me|placeholder|insecure|example|"
    r"secret[-_ ]?(key|token)|(my|your|super|this[-_]is[-_]a)[-_ ]?secret|"
    r"thisis|secretsecret|password|your[-_]own|string[-_]secret|random[-_]alpha|"
    r"privatekey|masterkey|0123456789|1234567890|abcdefghij|keyboard[-_ ]cat",
    re.IGNORECASE,
)

# The beginnings of secrets that look random and stand in everybody's documentation.
_PUBLISHED = (
    "c292a0a3aa32397cdb05",  # Redash
    "09d25e094faa6ca2556c",  # FastAPI's tutorial
    "192b9bdd22ab9ed4d12e",  # Flask's tutorial
    "VGhpc0lzTXlDdXN0b21T",  # Nacos
    "e11fl1oa-*ytql8p)(06",  # Paperless
    "sk-9f73s3ljTXVcMT3Bl",  # Dify
    "UpNVntn3cDxHJpq99YMc",  # Supabase Realtime
    "r(m)9nLGnz$(_q3N4z1k",  # NetBox
    "16f8c0ef4a5d391b2603",  # LibreChat
    "edd1c9f034335f136f87",  # APISIX
    "60gp0byfz2dvffa45cxl",  # Plane
    "6116487b-cda1-52c2-b",  # Directus
)


def weakness(secret: bytes) -> str | None:
    """What is wrong with a secret, as the rest of a sentence; None if nothing is."""
    if not secret:
        return "is empty"
    if len(secret) < SHORTEST:
        return f"is too short: it has {len(secret)} bytes and needs {SHORTEST}"
    text = secret.decode("latin-1")
    if len(set(secret)) < 8 or _WORDS.search(text) or text.startswith(_PUBLISHED):
        return "is a placeholder that anybody could guess"
    return None


def key_ring(secret: bytes | Sequence[bytes]) -> tuple[bytes, ...]:
    """The keys, if there is at least one and nobody could guess any of them.

    Raises ``ConfigurationError``, which never repeats a key.
    """
    keys = (secret,) if isinstance(secret, bytes) else tuple(secret)
    for key in keys or (b"",):
        if (problem := weakness(key)) is not None:
            raise ConfigurationError(
                f"secret {problem}; make one with: python -m wsgisession secret"
            )
    return keys
