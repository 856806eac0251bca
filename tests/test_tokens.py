"""Tokens are random, recognised by form and signature, and nobody else's are taken."""

from __future__ import annotations

import ast
import base64
import hashlib
import random
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from itsdangerous import Signer, URLSafeSerializer

from wsgisession import Key, Options, SessionManager, tokens
from wsgisession.record import id_for
from wsgisession.stores.memory import MemoryStore
from wsgisession.tokens import (
    OpaqueTokens,
    PlainTokens,
    SignedTokens,
    Tokens,
    new_token,
)

from .conftest import CountingStore

fuzz = settings(deadline=None, database=None)

ALPHABET = re.compile(r"[A-Za-z0-9_-]{43}")
NEW, OLD, DROPPED = (hashlib.sha256(name).digest() for name in (b"n", b"o", b"d"))


@pytest.fixture
def signed() -> SignedTokens:
    return SignedTokens([NEW, OLD], "session")


@pytest.fixture
def token() -> str:
    return new_token()


class TestNewTokens:
    def test_are_all_different(self) -> None:
        """A hundred thousand tokens: no two alike, each 43 characters for 256 bits."""
        many = [new_token() for _ in range(100_000)]
        assert len(set(many)) == len(many)
        assert all(map(ALPHABET.fullmatch, many))
        assert all(map(PlainTokens().recognise, many))

    def test_are_random_in_every_bit(self) -> None:
        """Each of the 256 bits is set about half of the time."""
        count = 10_000
        raw = [base64.urlsafe_b64decode(new_token() + "=") for _ in range(count)]
        assert {len(octets) for octets in raw} == {32}
        numbers = [int.from_bytes(octets, "big") for octets in raw]
        for bit in range(256):
            ones = sum(number >> bit & 1 for number in numbers)
            # Eight standard deviations: a false alarm in 10**13 runs.
            assert abs(ones - count / 2) < 8 * (count / 4) ** 0.5

    def test_without_randomness_there_are_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A broken random source is an error, never a guessable id (CVE-2025-66630)."""

        def broken(size: int) -> bytes:
            raise NotImplementedError("no randomness")

        monkeypatch.setattr(random, "_urandom", broken)
        with pytest.raises(NotImplementedError):
            new_token()

    def test_come_from_the_system_s_random_source_alone(self) -> None:
        """``tokens`` imports nothing that could be guessed (OWASP ASVS 7.2.3)."""
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


class TestPlainTokens:
    def test_are_recognised_by_their_form(self, token: str) -> None:
        """What we issue leads to the id that is its SHA-256."""
        plain = PlainTokens()
        assert plain.issue(token) == token
        key = plain.recognise(token)
        assert key == Key(hashlib.sha256(token.encode()).hexdigest(), token)

    @pytest.mark.parametrize(
        "change",
        [
            lambda t: "",
            lambda t: t[:-1],
            lambda t: t + "a",
            lambda t: t + "\n",
            lambda t: "\n" + t,
            lambda t: t + " ",
            lambda t: f'"{t}"',
            lambda t: t[:-1] + "=",
            lambda t: t[:-1] + "B",  # two bits more than the octets have
            lambda t: t[:-1] + "\xe9",
            lambda t: t[:-1] + "\u0660",
            lambda t: "../" + t[3:],
            lambda t: t[:-1] + "\0",
            lambda t: t * 1000,
            lambda t: SignedTokens([NEW], "session").issue(t),
        ],
    )
    def test_of_another_form_are_nobody_s(self, token: str, change: Any) -> None:
        """What cannot have been issued never reaches the store."""
        assert PlainTokens().recognise(change(token)) is None


class TestSignedTokens:
    def test_are_recognised_by_their_signature(
        self, signed: SignedTokens, token: str
    ) -> None:
        """What we issue leads to the token, whose SHA-256 is the id."""
        assert signed.issue(token) != token
        for each in [token, *(new_token() for _ in range(1000))]:
            assert signed.recognise(signed.issue(each)) == Key(id_for(each), each)

    def test_fit_into_a_cookie(self, signed: SignedTokens, token: str) -> None:
        """A value needs no quoting and is 87 octets long."""
        assert re.fullmatch(r"[A-Za-z0-9_.-]{87}", signed.issue(token))

    def test_cut_short_are_refused(self, signed: SignedTokens, token: str) -> None:
        """No beginning and no end of a value is one."""
        value = signed.issue(token)
        for place in range(len(value)):
            assert signed.recognise(value[:place]) is None
            assert place == 0 or signed.recognise(value[place:]) is None

    def test_changed_in_one_byte_lead_nowhere_else(
        self, signed: SignedTokens, token: str
    ) -> None:
        """Each octet in turn replaced by every other: no other session is reached."""
        value = signed.issue(token)
        for place, octet in enumerate(value):
            for other in map(chr, range(256)):
                key = signed.recognise(value[:place] + other + value[place + 1 :])
                assert key is None or key.token == token
                if other != octet and place <= len(token):
                    assert key is None

    def test_changed_in_one_byte_are_refused(
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
        """What is appended to a value makes it another's."""
        assert signed.recognise(signed.issue(token) + junk) is None

    def test_spliced_from_two_are_refused(self, signed: SignedTokens) -> None:
        """The signature of one value is good for no other."""
        values = [signed.issue(new_token()) for _ in range(5)]
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
            lambda t: SignedTokens([NEW], "Session").issue(t),
            lambda t: SignedTokens([DROPPED], "session").issue(t),
            lambda t: Signer(NEW).sign(t).decode(),
            lambda t: Signer(NEW, salt="session").sign(t).decode(),
            lambda t: Signer(NEW, salt="cookie-session").sign(t).decode(),
            lambda t: str(URLSafeSerializer(NEW, salt="session").dumps(t)),
            lambda t: f"{t}.{base64.urlsafe_b64encode(b'').decode()}",
        ],
    )
    def test_forged_or_of_another_purpose_are_refused(
        self, signed: SignedTokens, token: str, forge: Any
    ) -> None:
        """A value of nobody's, of another name, secret or library is no session."""
        assert signed.recognise(forge(token)) is None

    @pytest.mark.parametrize("text", ["", "a", "x" * 42, "x" * 44, "a.b", "\n" * 43])
    def test_signed_but_no_token_are_refused(
        self, signed: SignedTokens, text: str
    ) -> None:
        """A signature does not make a token of what has not its form."""
        assert signed.recognise(signed.issue(text)) is None

    def test_do_not_show_their_secret(self, signed: SignedTokens, token: str) -> None:
        """Neither the object nor a key tells what it knows."""
        key = signed.recognise(signed.issue(token))
        assert key is not None
        assert token not in repr(key)
        assert repr(NEW) not in repr(signed)


class TestPitfallOrderOfSecrets:
    """Keys tried in the wrong order: Flask CVE-2025-47278 signed with the oldest."""

    def test_the_first_signs(self, token: str) -> None:
        """A value of several secrets is recognised by the newest alone."""
        value = SignedTokens([NEW, OLD, DROPPED], "session").issue(token)
        assert value == SignedTokens([NEW], "session").issue(token)
        for other in (OLD, DROPPED):
            assert SignedTokens([other], "session").recognise(value) is None

    def test_all_verify(self, token: str) -> None:
        """A value of an older secret is still good, at whatever place that stands."""
        several = SignedTokens([NEW, OLD, DROPPED], "session")
        for key in (NEW, OLD, DROPPED):
            value = SignedTokens([key], "session").issue(token)
            assert several.recognise(value) == Key(id_for(token), token)

    def test_a_secret_that_was_dropped_is_refused(self, token: str) -> None:
        """Taking a secret out of the list ends what it has signed."""
        value = SignedTokens([DROPPED, OLD], "session").issue(token)
        assert SignedTokens([NEW, OLD], "session").recognise(value) is None

    def test_three_secrets_in_turn_lose_no_session(self) -> None:
        """Sessions survive each turn, and get the newest signature with the next save."""
        store = MemoryStore()
        manager = SessionManager(store, Options(secret=[OLD]))
        session = manager.create()
        session["a"] = 1
        session.save()
        value = session.token
        for ring in ([NEW, OLD], [NEW], [DROPPED, NEW], [DROPPED]):
            assert value is not None
            session = SessionManager(store, Options(secret=ring)).open(value)
            assert session["a"] == 1
            value = session.token
        assert value is not None
        gone = SessionManager(store, Options(secret=[OLD, NEW])).open(value)
        assert gone.new


class TestPitfallForeignCookie:
    """A cookie of another application, name or purpose must not be accepted here."""

    def test_another_name_is_another_purpose(self) -> None:
        """Two cookies of one secret and one store are not exchangeable."""
        store = MemoryStore()
        shop, admin = (
            SessionManager(store, Options(secret=NEW, cookie_name=name))
            for name in ("shop", "admin")
        )
        session = shop.create()
        session["a"] = 1
        session.save()
        assert session.token is not None
        assert not shop.open(session.token).new
        assert admin.open(session.token).new

    def test_what_is_forged_never_reaches_the_store(self) -> None:
        """With a secret, junk costs no store call (Django CVE-2015-5143)."""
        store = CountingStore(MemoryStore())
        manager = SessionManager(store, Options(secret=NEW))
        for value in (new_token(), "", "x", "." * 99, f"{new_token()}.{'A' * 43}"):
            assert manager.open_cookie(f"session={value}").new
        assert store.calls == []


TOKENS: list[Tokens] = [
    PlainTokens(),
    SignedTokens([NEW], "session"),
    OpaqueTokens(4096),
]
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
    def test_a_header_can_carry_is_examined_without_an_error(
        self, kind: Tokens, value: str
    ) -> None:
        """Empty, huge or binary: it is a key or it is None."""
        key = kind.recognise(value)
        assert key is None or key.id == id_for(value)
        if not isinstance(kind, OpaqueTokens):
            assert key is None or ALPHABET.fullmatch(value)

    @pytest.mark.parametrize("kind", TOKENS, ids=NAMES)
    @pytest.mark.parametrize("value", ["\ud800", "\ud800.\udfff", "a\ud800" * 20])
    def test_code_can_pass_is_examined_without_an_error(
        self, kind: Tokens, value: str
    ) -> None:
        """Nor does text that no header could carry raise, given to ``open()``."""
        kind.recognise(value)

    def test_of_opaque_tokens_is_limited(self) -> None:
        """An opaque token is looked at up to its longest, and no octet further."""
        opaque = OpaqueTokens(10)
        assert opaque.recognise("") is None
        assert opaque.recognise("a" * 10) == Key(id_for("a" * 10), "a" * 10)
        assert opaque.recognise("a" * 11) is None
        assert opaque.issue("abc") == "abc"


class TestIds:
    def test_are_the_sha256_of_the_token(self, token: str) -> None:
        """A leaked store holds nothing that a client could send."""
        assert id_for(token) == hashlib.sha256(token.encode()).hexdigest()
        store = MemoryStore()
        manager = SessionManager(store)
        session = manager.create()
        session.save()
        assert session.token is not None
        (record,) = store.records()
        assert record.id == id_for(session.token)
        assert record.token is None
        assert session.token not in repr(record) + repr(session) + repr(vars(store))

    def test_are_no_tokens(self) -> None:
        """Who has read an id cannot present it as a cookie."""
        id = id_for(secrets.token_urlsafe(32))
        assert PlainTokens().recognise(id) is None
        manager = SessionManager(MemoryStore())
        session = manager.create()
        session.save()
        assert manager.open(session.id).new
