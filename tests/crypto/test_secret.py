"""A secret that anybody could guess is refused, in words that do not repeat it."""

from __future__ import annotations

import base64
import hashlib
import random
from typing import Any

import pytest

from wsgisession import ConfigurationError
from wsgisession._crypto.sealing import Encrypted, EncryptedText, Signed
from wsgisession._crypto.secret import key_ring, weakness

GOOD = hashlib.sha256(b"good").digest()


@pytest.mark.parametrize("secret", [(), (b"",), b"", (b"short",), (b"password" * 9,)])
@pytest.mark.parametrize("kind", [Signed, Encrypted, EncryptedText])
def test_a_weak_key_is_refused(kind: Any, secret: Any) -> None:
    """With a sentence that says how to make one."""
    with pytest.raises(ConfigurationError) as caught:
        kind(secret, "p")
    assert "python -m wsgisession secret" in str(caught.value)
    assert "passwordpassword" not in str(caught.value)


def test_one_weak_key_spoils_the_ring() -> None:
    """It would verify as well as the good one does."""
    assert key_ring([GOOD]) == key_ring(GOOD) == (GOOD,)
    with pytest.raises(ConfigurationError, match="too short"):
        key_ring([GOOD, b"short"])


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        (b"", "empty"),
        (GOOD[:31], "too short"),
        (b"x" * 40, "placeholder"),
        (b"change-me-" * 4, "placeholder"),
        (b"09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7", "placeh"),
        (GOOD, None),
    ],
)
def test_what_is_wrong_is_said(secret: bytes, said: str | None) -> None:
    """Empty, short, made of words, published in a tutorial; or nothing."""
    found = weakness(secret)
    assert found is None if said is None else said in (found or "")


def test_random_secrets_are_good() -> None:
    """None of thousands looks like a word of people, in any usual spelling."""
    source = random.Random(7)
    for _ in range(3000):
        octets = source.randbytes(32)
        for secret in (octets, octets.hex().encode(), base64.b64encode(octets)):
            assert weakness(secret) is None
