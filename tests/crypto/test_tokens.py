"""Tokens are random, have one spelling, and nothing that others made is recognised."""

from __future__ import annotations

import ast
import base64
import hashlib
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from itsdangerous import Signer, URLSafeSerializer

from wsgisession import Key
from wsgisession._crypto import tokens
from wsgisession._crypto.tokens import (
    OpaqueTokens,
    PlainTokens,
    SignedTokens,
    Tokens,
    new_token,
    renewed,
)

fuzz = settings(deadline=None, database=None)

STAYS = "AUtOEz7rTciv4e5p4_OpRQJTnBuQ5ElQ7iR9irdgqU0"
FORM = re.compile(r"[A-Za-z0-9_-]{64}")
NEW, OLD, DROPPED = (hashlib.sha256(name).digest() for name in (b"n", b"o", b"d"))


def key_of(text: str) -> Key:
    """The key for a token, by the rule alone: 16 octets of id, 32 of secret."""
    octets = base64.urlsafe_b64decode(text)
    return Key(octets[:16].hex(), hashlib.sha256(octets[16:]).hexdigest(), text)


@pytest.fixture
def signed() -> SignedTokens:
    return SignedTokens([NEW, OLD], "sid")


@pytest.fixture
def token() -> str:
    return new_token().text


class TestNewTokens:
    def test_are_all_different(self) -> None:
        """Of many tokens no two share a text, an id or a proof."""
        many = [new_token() for _ in range(20_000)]
        for field in zip(*many, strict=True):
            assert len(set(field)) == len(many)
        assert all(FORM.fullmatch(token.text) for token in many)

    def test_are_random_in_every_bit(self) -> None:
        """Each of the 384 bits is set about half of the time."""
        count = 5_000
        raw = [base64.urlsafe_b64decode(new_token().text) for _ in range(count)]
        assert {len(octets) for octets in raw} == {48}
        numbers = [int.from_bytes(octets, "big") for octets in raw]
        for bit in range(384):
            ones = sum(number >> bit & 1 for number in numbers)
            # Eight standard deviations: a false alarm in 10**12 runs.
            assert abs(ones - count / 2) < 8 * (count / 4) ** 0.5

    def test_without_randomness_there_are_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A broken random source is an error, never a guessable id (CVE-2025-66630)."""

        def broken(size: int) -> bytes:
            raise NotImplementedError("no randomness")

        monkeypatch.setattr(secrets, "token_bytes", broken)
        with pytest.raises(NotImplementedError):
            new_token()
        with pytest.raises(NotImplementedError):
            renewed("ab" * 16)

    def test_come_from_the_random_source_of_the_system_alone(self) -> None:
        """The module imports nothing that could be guessed (OWASP ASVS 7.2.3)."""
        tree = ast.parse(Path(tokens.__file__).read_text("utf-8"))
        imported = {
            name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
            )
        }
        assert "secrets" in imported
        assert not imported & {"random", "uuid", "time", "datetime", "os"}

    def test_say_what_they_lead_to(self) -> None:
        """The id is of the first 16 octets, the proof of the other 32."""
        token = new_token()
        assert Key(token.id, token.proof, token.text) == key_of(token.text)
        assert re.fullmatch("[0-9a-f]{32}", token.id)
        assert re.fullmatch("[0-9a-f]{64}", token.proof)

    def test_show_nothing_but_their_id(self) -> None:
        """Neither the token nor its proof is in a repr, also not within a tuple."""
        token = new_token()
        shown = f"{token!r} {token} {(token,)} {[token]!r}"
        assert token.id in shown
        assert token.text not in shown
        assert token.proof not in shown


class TestRenewedTokens:
    def test_keep_the_id_and_nothing_else(self) -> None:
        """The secret is new each time, all of it."""
        first = new_token()
        more = [renewed(first.id) for _ in range(1000)]
        assert {token.id for token in more} == {first.id}
        assert len({token.proof for token in [first, *more]}) == 1001
        for token in more:
            assert key_of(token.text) == Key(first.id, token.proof, token.text)

    @pytest.mark.parametrize("id", ["", "ab", "ab" * 15, "ab" * 17, "xy" * 16])
    def test_of_what_is_no_id_are_an_error(self, id: str) -> None:
        """An id has 32 hexadecimal digits."""
        with pytest.raises(ValueError):
            renewed(id)


class TestPlainTokens:
    def test_are_recognised_by_their_form(self, token: str) -> None:
        """What we issue leads to its id and its proof."""
        plain = PlainTokens()
        assert plain.issue(token) == token
        assert plain.recognise(token) == key_of(token)

    def test_have_one_spelling(self, token: str) -> None:
        """No other text of the form leads to the same id and proof."""
        seen = {PlainTokens().recognise(token)}
        for place, octet in enumerate(token):
            for other in "ABCDwxyz0189-_":
                if other != octet:
                    text = token[:place] + other + token[place + 1 :]
                    seen.add(PlainTokens().recognise(text))
        keys = {(key.id, key.proof) for key in seen if key is not None}
        assert len(keys) == len(seen) > 64

    @pytest.mark.parametrize(
        "change",
        [
            lambda t: "",
            lambda t: t[:-1],
            lambda t: t[:43],
            lambda t: t + "a",
            lambda t: t + "\n",
            lambda t: "\n" + t,
            lambda t: t + " ",
            lambda t: f'"{t}"',
            lambda t: t[:-1] + "=",
            lambda t: t[:-1] + "+",
            lambda t: t[:-1] + "\xe9",
            lambda t: t[:-1] + "\u0660",
            lambda t: "../" + t[3:],
            lambda t: t[:-1] + "\0",
            lambda t: t * 1000,
            lambda t: SignedTokens([NEW], "sid").issue(t),
        ],
    )
    def test_of_another_form_are_not_recognised(self, token: str, change: Any) -> None:
        """What cannot have been issued never reaches the store."""
        assert PlainTokens().recognise(change(token)) is None

    def test_an_id_or_a_proof_is_no_token(self) -> None:
        """P5: who has read a store cannot make a token of what it holds."""
        token = new_token()
        assert PlainTokens().recognise(token.id) is None
        key = PlainTokens().recognise(token.proof)  # 64 hexadecimal digits are a form
        assert key is None or (key.id, key.proof) != (token.id, token.proof)


class TestSignedTokens:
    def test_are_recognised_by_their_signature(self, signed: SignedTokens) -> None:
        """What we issue leads to the token."""
        for _ in range(1000):
            token = new_token().text
            assert signed.issue(token) != token
            assert signed.recognise(signed.issue(token)) == key_of(token)

    def test_are_signed_as_itsdangerous_signs(self, token: str) -> None:
        """The same octets as its ``Signer``, which others can use to check them."""
        theirs = Signer(
            [OLD, NEW],
            salt="wsgisession.token.2.sid",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
        ours = SignedTokens([NEW, OLD], "sid").issue(token)
        assert theirs.sign(token).decode() == ours
        assert theirs.validate(ours)

    def test_the_form_stays(self) -> None:
        """A release that signs otherwise would end every session."""
        value = SignedTokens([NEW], "sid").issue("A" * 64)
        assert value == f"{'A' * 64}.{STAYS}"

    def test_fit_into_a_cookie(self, signed: SignedTokens, token: str) -> None:
        """A value needs no quoting and is 108 octets long."""
        assert re.fullmatch(r"[A-Za-z0-9_.-]{108}", signed.issue(token))

    def test_cut_short_are_refused(self, signed: SignedTokens, token: str) -> None:
        """No beginning and no end of a value is one."""
        value = signed.issue(token)
        for place in range(len(value)):
            assert signed.recognise(value[:place]) is None
            assert place == 0 or signed.recognise(value[place:]) is None

    def test_changed_in_one_octet_are_refused(
        self, signed: SignedTokens, token: str
    ) -> None:
        """A value has one form: what differs in one octet is no value of ours."""
        value = signed.issue(token)
        for place, octet in enumerate(value):
            for other in map(chr, range(256)):
                if other != octet:
                    forged = value[:place] + other + value[place + 1 :]
                    assert signed.recognise(forged) is None

    @pytest.mark.parametrize("junk", ["!!", "====", "!" * 100_000], ids=len)
    def test_with_something_behind_are_refused(
        self, signed: SignedTokens, token: str, junk: str
    ) -> None:
        """Nothing can be appended to a value."""
        assert signed.recognise(signed.issue(token) + junk) is None

    def test_spliced_from_two_are_refused(self, signed: SignedTokens) -> None:
        """The signature of one value is good for no other."""
        values = [signed.issue(new_token().text) for _ in range(5)]
        for one in values:
            for two in values:
                spliced = f"{one.partition('.')[0]}.{two.partition('.')[2]}"
                assert (signed.recognise(spliced) is not None) == (one is two)

    @pytest.mark.parametrize(
        "forge",
        [
            lambda t: t,
            lambda t: f"{t}.",
            lambda t: f".{t}",
            lambda t: f"{t}.{'A' * 43}",
            lambda t: f"{t}.{t}",
            lambda t: f"{t}..{t}",
            lambda t: SignedTokens([NEW], "other").issue(t),
            lambda t: SignedTokens([NEW], "").issue(t),
            lambda t: SignedTokens([NEW], "Sid").issue(t),
            lambda t: SignedTokens([DROPPED], "sid").issue(t),
            lambda t: Signer(NEW).sign(t).decode(),
            lambda t: Signer(NEW, salt="sid").sign(t).decode(),
            lambda t: Signer(NEW, salt="cookie-session").sign(t).decode(),
            lambda t: str(URLSafeSerializer(NEW, salt="sid").dumps(t)),
        ],
    )
    def test_forged_or_of_another_purpose_are_refused(
        self, signed: SignedTokens, token: str, forge: Any
    ) -> None:
        """Unsigned, or signed for another name, with another secret or library."""
        assert signed.recognise(signed.issue(token)) is not None
        assert signed.recognise(forge(token)) is None

    @pytest.mark.parametrize("text", ["", "a", "x" * 63, "x" * 65, "a.b", "\n" * 64])
    def test_signed_but_no_token_are_refused(
        self, signed: SignedTokens, text: str
    ) -> None:
        """A signature does not make a token of what has another form."""
        assert signed.recognise(signed.issue(text)) is None

    def test_show_no_secret(self, signed: SignedTokens, token: str) -> None:
        """Neither the object nor a key tells what it knows."""
        key = signed.recognise(signed.issue(token))
        assert key is not None
        assert token not in repr(key)
        assert repr(NEW) not in repr(signed)


class TestPitfallOrderOfSecrets:
    """Keys tried in the wrong order: Flask CVE-2025-47278 signed with the oldest."""

    def test_the_first_signs(self, token: str) -> None:
        """A value of several secrets is recognised by the newest alone."""
        value = SignedTokens([NEW, OLD, DROPPED], "sid").issue(token)
        assert value == SignedTokens([NEW], "sid").issue(token)
        for other in (OLD, DROPPED):
            assert SignedTokens([other], "sid").recognise(value) is None

    def test_all_verify(self, token: str) -> None:
        """A value of an older secret is still good, at whatever place that stands."""
        several = SignedTokens([NEW, OLD, DROPPED], "sid")
        for secret in (NEW, OLD, DROPPED):
            value = SignedTokens([secret], "sid").issue(token)
            assert several.recognise(value) == key_of(token)

    def test_a_secret_that_was_dropped_is_refused(self, token: str) -> None:
        """Taking a secret out of the list ends what it has signed."""
        value = SignedTokens([DROPPED, OLD], "sid").issue(token)
        assert SignedTokens([NEW, OLD], "sid").recognise(value) is None


class TestOpaqueTokens:
    def test_are_keys_as_they_are(self) -> None:
        """Only the store can say whose they are."""
        opaque = OpaqueTokens(10)
        proof = hashlib.sha256(b"aaaaaaaaaa").hexdigest()
        assert opaque.recognise("a" * 10) == Key("", proof, "a" * 10)
        assert opaque.issue("abc") == "abc"

    @pytest.mark.parametrize("value", ["", "a" * 11, "\xe9", "a\ud800", "\u0660"])
    def test_have_limits(self, value: str) -> None:
        """Nothing that is empty, too long or not ASCII reaches the store."""
        assert OpaqueTokens(10).recognise(value) is None


TOKENS: list[Tokens] = [PlainTokens(), SignedTokens([NEW], "sid"), OpaqueTokens(4096)]
NAMES = ["plain", "signed", "opaque"]


class TestAnyValue:
    @pytest.mark.parametrize("kind", TOKENS, ids=NAMES)
    @fuzz
    @given(st.text(st.characters(max_codepoint=255)))
    @example("")
    @example("." * 100_000)
    @example("\xff" * 1_000_000)
    @example("a" * 1_000_000 + "." + "b" * 43)
    @example("." + "=" * 100_000)
    @example("a" * 64)
    def test_of_a_header_is_examined_without_an_error(
        self, kind: Tokens, value: str
    ) -> None:
        """P7: empty, huge or binary, it is a key or it is None."""
        key = kind.recognise(value)
        assert key is None or key.token == value
        if not isinstance(kind, OpaqueTokens):
            assert (key is not None) == (
                isinstance(kind, PlainTokens) and FORM.fullmatch(value) is not None
            )

    @pytest.mark.parametrize("kind", TOKENS, ids=NAMES)
    @pytest.mark.parametrize("value", ["\ud800", "\ud800.\udfff", "a\ud800" * 32])
    def test_of_code_is_examined_without_an_error(
        self, kind: Tokens, value: str
    ) -> None:
        """Text that no header could carry is no token either."""
        assert kind.recognise(value) is None
