"""Seals open what was sealed, for the same purpose, and nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from itsdangerous import Signer

from wsgisession import ConfigurationError
from wsgisession._crypto.sealing import (
    Encrypted,
    EncryptedText,
    Signed,
    compressed,
    expanded,
    uncompressed,
)
from wsgisession._crypto.text import from_text, to_text
from wsgisession.stores.cookie import CookieStore

NEW, OLD = (hashlib.sha256(name).digest() for name in (b"n", b"o"))
TEXT_SEALS = [Signed, EncryptedText]
fuzz = settings(deadline=None, database=None)


# -- text --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TEXT_SEALS)
class TestTextSeals:
    @fuzz
    @given(content=st.binary(max_size=300))
    def test_what_was_sealed_is_opened(self, kind: Any, content: bytes) -> None:
        """Any octets come back as they were."""
        seal = kind([NEW], "p")
        assert seal.open(seal.seal(content)) == content

    @fuzz
    @given(text=st.text(max_size=200))
    def test_any_other_text_is_none(self, kind: Any, text: str) -> None:
        """And no exception, whatever it is."""
        seal = kind([NEW], "p")
        for junk in (text, f"A{text}", f"B{text}", f"A.{text}", seal.seal(b"x") + text):
            assert seal.open(junk) is None or (junk == seal.seal(b"x") or not text)

    def test_another_purpose_or_key(self, kind: Any) -> None:
        """Opens nothing."""
        sealed = kind([NEW], "p").seal(b"content")
        assert kind([NEW], "p").open(sealed) == b"content"
        assert kind([NEW, OLD], "p").open(sealed) == b"content"
        assert kind([OLD, NEW], "p").open(sealed) == b"content"
        for other in (kind([NEW], "q"), kind([NEW], ""), kind([OLD], "p")):
            assert other.open(sealed) is None

    def test_of_the_other_kind(self, kind: Any) -> None:
        """The first character says which algorithm, and only one is tried."""
        others = [other for other in TEXT_SEALS if other is not kind]
        for other in others:
            sealed = other([NEW], "p").seal(b"content")
            assert kind([NEW], "p").open(sealed) is None
            dressed = kind([NEW], "p").seal(b"")[0] + sealed[1:]
            assert kind([NEW], "p").open(dressed) is None

    def test_a_surrogate_is_none(self, kind: Any) -> None:
        """What no encoding can write is refused before anything is tried."""
        assert kind([NEW], "p").open("A\ud800") is None
        assert kind([NEW], "p").open("B\ud800") is None


def test_text_is_signed_as_itsdangerous_signs() -> None:
    """The same octets as its ``Signer``, which others can use to check them."""
    theirs = Signer(
        [OLD, NEW],
        salt="wsgisession.signed.A.p",
        key_derivation="hmac",
        digest_method=hashlib.sha256,
    )
    for content in (b"", b"x", os.urandom(400)):
        ours = Signed([NEW, OLD], "p").seal(content)
        assert ours == theirs.sign(f"A{to_text(content)}").decode()
        assert theirs.validate(ours)


def test_the_signed_form_stays() -> None:
    """A release that signs otherwise would end every session."""
    sealed = "AY29udGVudA._0Qtevpcvs6NcdiFkxN6zO01Hv7LAdIP3dgCmNQKCuA"
    assert Signed([NEW], "p").seal(b"content") == sealed


def test_the_encrypted_form_stays() -> None:
    """What an earlier release has sealed opens."""
    octets = from_text(
        "AdC68qD0WxmE-y6MdD5YHOxGi4IE65uREoowSGdYnCp7IiaCh0iJ6v5lV7xTNNKiBISijHPT1cc"
    )
    assert octets is not None
    assert Encrypted([NEW], "p").open(octets, associated=b"this") == b"content"


@fuzz
@given(octets=st.binary(max_size=64), noise=st.text(max_size=3))
def test_there_is_one_spelling(octets: bytes, noise: str) -> None:
    """Base64 has several for most octets; all but one are refused."""
    text = to_text(octets)
    assert from_text(text) == octets
    if noise:
        for other in (text + noise, noise + text):
            found = from_text(other)
            assert found is None or to_text(found) == other


# -- encryption --------------------------------------------------------------------------


class TestEncrypted:
    def test_nothing_repeats(self) -> None:
        """Equal contents, equal blocks: no two seals share a salt or a block."""
        seal = Encrypted([NEW], "p")
        many = [seal.seal(bytes(160)) for _ in range(1000)]
        assert len({each[1:33] for each in many}) == 1000
        blocks = [each[n : n + 16] for each in many for n in range(33, 193, 16)]
        assert len(set(blocks)) == len(blocks)

    def test_every_message_has_a_key_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There is no ceiling of 2**32 messages, for no key is used twice."""
        seal, keys = Encrypted([NEW], "p"), []
        aead = seal._aead

        def watched(key: bytes) -> Any:
            keys.append(key)
            return aead(key)

        monkeypatch.setattr(seal, "_aead", watched)
        for _ in range(500):
            seal.seal(b"x")
        assert len(set(keys)) == 500
        assert {len(key) for key in keys} == {32}

    def test_without_randomness_there_is_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A broken random source is an error, never a salt of zeros."""

        def broken(size: int) -> bytes:
            raise NotImplementedError("no randomness")

        monkeypatch.setattr(os, "urandom", broken)
        with pytest.raises(NotImplementedError):
            Encrypted([NEW], "p").seal(b"x")

    def test_associated_data_are_bound(self) -> None:
        """With other data, or with none, it does not open."""
        seal = Encrypted([NEW], "p")
        sealed = seal.seal(b"content", associated=b"this")
        assert seal.open(sealed, associated=b"this") == b"content"
        for other in (b"", b"that", b"this "):
            assert seal.open(sealed, associated=other) is None

    def test_cut_flipped_or_of_another_version(self) -> None:
        """Every octet counts."""
        seal = Encrypted([NEW], "p")
        sealed = seal.seal(b"content")
        for place in range(len(sealed)):
            assert seal.open(sealed[:place]) is None
            for bit in range(8):
                octet = bytes([sealed[place] ^ 1 << bit])
                forged = sealed[:place] + octet + sealed[place + 1 :]
                assert seal.open(forged) is None
        assert seal.open(sealed + b"\x00") is None


# -- compression -------------------------------------------------------------------------


class TestCompression:
    @fuzz
    @given(content=st.binary(max_size=500))
    def test_comes_back_and_never_grows(self, content: bytes) -> None:
        """Whatever it is, by at most the one octet that says which."""
        for whole in (content, content * 50):
            for packed in (compressed(whole), uncompressed(whole)):
                assert expanded(packed, at_most=25_000) == whole
        assert len(compressed(content)) <= len(content) + 1

    def test_has_a_limit(self) -> None:
        """At the limit it is opened, one octet past it refused, and a bomb at once."""
        for packed in (compressed(bytes(1000)), uncompressed(bytes(1000))):
            assert expanded(packed, at_most=1000) == bytes(1000)
            assert expanded(packed, at_most=999) is None
        bomb = compressed(bytes(50_000_000))
        tracemalloc.start()
        try:
            assert expanded(bomb, at_most=1000) is None
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    def test_what_is_broken_is_none(self) -> None:
        """Cut, followed by more, of an unknown kind, or nothing at all."""
        packed = b"z" + zlib.compress(b"content" * 9)
        assert expanded(packed, at_most=1000) == b"content" * 9
        for broken in (packed[:-1], packed + b"x", b"z", b"zjunk", b"q" + packed, b""):
            assert expanded(broken, at_most=1000) is None


# -- what is imported --------------------------------------------------------------------


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_cryptography_is_imported_for_encryption_alone() -> None:
    """A signed cookie works where it is not installed."""
    code = (
        "import sys\n"
        "from wsgisession.stores.cookie import CookieStore\n"
        f"CookieStore(secret=[{NEW!r}], encrypt=%s)\n"
        "print('cryptography' in sys.modules)"
    )
    assert run(code % False) == "False"
    assert run(code % True) == "True"


def test_where_it_is_missing_the_sentence_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asked for encryption without it, nothing is left unencrypted."""
    for name in [n for n in sys.modules if n.startswith("cryptography")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ConfigurationError, match=r"middleware\[encrypt\]"):
        CookieStore(secret=[NEW], encrypt=True)
