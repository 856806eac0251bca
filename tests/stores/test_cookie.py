"""The cookie store: what it seals nobody forges, and what has ended may be told to it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import re
import string
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from wsgisession import ConfigurationError, Key, Record, StoreError, VersionConflict
from wsgisession._crypto.tokens import SignedTokens, new_token
from wsgisession.store import Capabilities, TokenStore, UserEndingStore
from wsgisession.stores.cookie import CookieStore
from wsgisession.stores.memory import MemoryStore
from wsgisession.testing import TokenStoreSuite, in_threads, newer, record

ALPHABET = string.ascii_letters + string.digits + "-_"
NEW, OLD, OLDEST = (hashlib.sha256(name).digest() for name in (b"n", b"o", b"t"))
LONG = os.environ.get("LONG_TESTS") == "1"
RANDOM_TOKENS = 1_000_000 if LONG else 100_000


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def opened(store: TokenStore, token: str) -> Record | None:
    """What a store makes of a token that some client sends."""
    return store.load(Key("", None, token))


def loaded(store: TokenStore, token: str) -> Record:
    """The record in a token that is good."""
    found = opened(store, token)
    assert found is not None
    return found


def issued(store: TokenStore, record: Record) -> str:
    """The token of a new session."""
    return store.save(record, expect=0)


def saved(store: TokenStore, token: str, **changes: Any) -> str:
    """The token after a request that came with ``token`` and changed the session."""
    before = loaded(store, token)
    return store.save(newer(before, **changes), expect=before.version)


def turned(store: TokenStore, token: str, **changes: Any) -> str:
    """The same with a change of the token, as by a login or a regeneration."""
    before = loaded(store, token)
    return saved(store, token, turned=before.turned + 0.001, **changes)


def is_same(found: Record | None, given: Record) -> bool:
    """Whether a record came back with all that a cookie keeps."""
    kept = given._replace(proof="", seen=None, replaced=(), lease=None, token=None)
    return found is not None and found._replace(lease=None) == kept


@pytest.fixture(params=["signed", "encrypted", "compressed"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each of the ways to seal."""
    return {
        "signed": {},
        "encrypted": {"encrypt": True},
        "compressed": {"encrypt": True, "compression": "zlib"},
    }[request.param]


@pytest.fixture
def store(options: dict[str, Any]) -> CookieStore:
    return CookieStore(secret=[NEW], **options)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of every store here, which passes when it is told to."""
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


class TestConformance(TokenStoreSuite):
    @pytest.fixture
    def store(self, options: dict[str, Any]) -> CookieStore:
        return CookieStore(secret=[NEW], **options)

    @pytest.fixture
    def twin(self, options: dict[str, Any]) -> CookieStore:
        return CookieStore(secret=[NEW], **options)


class TestRevocableConformance(TokenStoreSuite):
    """With revocation a record carries what its token said, and is saved with that."""

    @pytest.fixture
    def store(self) -> CookieStore:
        return CookieStore(secret=[NEW], revocation=MemoryStore())

    @staticmethod
    def _is(loaded: Record | None, given: Record) -> None:
        assert is_same(loaded, given)

    def test_savers_cannot_see_each_other(self, store: TokenStore) -> None:
        """The limit of what a client holds: of two saves both are good."""
        token = issued(store, record())
        both = [saved(store, token, data=data) for data in (b"2", b"3")]
        assert [loaded(store, each).data for each in both] == [b"2", b"3"]


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("marks", [None, MemoryStore()])
def test_capabilities_do_not_lie(encrypt: bool, marks: MemoryStore | None) -> None:
    """It ends users if something remembers it, and has as much room as cookies have."""
    store = CookieStore(
        secret=[NEW], encrypt=encrypt, revocation=marks, cookie_chunks=3
    )
    assert isinstance(store, TokenStore)
    assert isinstance(store, UserEndingStore)
    assert store.capabilities == Capabilities(
        token_octets=3 * 4096, ends_users=marks is not None, encrypts=encrypt
    )


def test_a_cookie_keeps_what_a_session_is(store: CookieStore) -> None:
    """Every field but the proofs, for which the seal stands, comes back exactly."""
    given = record(data=bytes(range(256)), user="ann\ud800\u4e2d", turned=1.25)
    assert is_same(opened(store, issued(store, given)), given)
    assert loaded(store, issued(store, given)).proof == ""


# -- forgery -----------------------------------------------------------------------------


def five(store: TokenStore) -> list[str]:
    """Five real tokens, no two of one length."""
    texts = [f"name{n}" * (n + 1) for n in range(5)]
    return [
        issued(store, record(text, data=text.encode(), user=text[:n] or None))
        for n, text in enumerate(texts)
    ]


class TestForgery:
    def test_every_single_byte_change_is_refused(self, store: CookieStore) -> None:
        """Any character of five tokens turned into any other, of the alphabet or not."""
        for token in five(store):
            assert opened(store, token) is not None
            for place in range(len(token)):
                for other in ALPHABET + ".~=+/ é\x00":
                    if other != token[place]:
                        forged = token[:place] + other + token[place + 1 :]
                        assert opened(store, forged) is None

    def test_every_truncation_is_refused(self, store: CookieStore) -> None:
        """From either end, and with anything taken out or put in."""
        for token in five(store):
            for place in range(len(token)):
                assert opened(store, token[:place]) is None
                assert opened(store, token[place + 1 :]) is None
                assert opened(store, token[:place] + token[place + 1 :]) is None
            for more in ("=", ".", "A", "==", " ", token):
                assert opened(store, token + more) is None
                assert opened(store, more + token) is None

    def test_every_splice_is_refused(self, store: CookieStore) -> None:
        """The beginning of one of five tokens with the end of another."""
        tokens = five(store)
        for one in tokens:
            for two in tokens:
                for place in range(1, min(len(one), len(two))):
                    spliced = {one[:place] + two[place:], one[:-place] + two[-place:]}
                    for forged in spliced - set(tokens):
                        assert opened(store, forged) is None

    def test_random_tokens_are_refused(self, store: CookieStore) -> None:
        """A hundred thousand of them (a million where LONG_TESTS=1)."""
        (real, *_), pick = five(store), random.Random(7)
        for number in range(RANDOM_TOKENS):
            junk = "".join(pick.choices(ALPHABET, k=pick.randrange(1, 200)))
            forged = (junk, real[0] + junk, f"{real[:-43]}{junk[:43]}")[number % 3]
            assert opened(store, forged) is None

    def test_a_seal_of_other_content_is_no_record(self, store: CookieStore) -> None:
        """Whatever comes out of our own seal, no exception comes out of the store."""
        for content in (b"", b"x", b"\xff" * 90, b"\x00" * 90, b"\x00" * 90 + b"zjunk"):
            assert opened(store, store._seal.seal(content)) is None

    def test_nobody_reads_what_is_encrypted(self) -> None:
        """The signed one is readable, as the control; two seals of one record differ."""
        given = record(data=b"a secret thought " * 9, user="ann")
        plain = CookieStore(secret=[NEW])
        assert CookieStore(secret=[OLD])._seal.open(issued(plain, given)) is None
        hidden = CookieStore(secret=[NEW], encrypt=True)
        tokens = [issued(hidden, given) for _ in range(50)]
        assert len({token[1:40] for token in tokens}) == 50
        assert len({token[44:84] for token in tokens}) == 50

    def test_a_bomb_does_not_go_off(self) -> None:
        """What expands past max_size is refused without being expanded."""
        options: dict[str, Any] = {"secret": [NEW], "compression": "zlib"}
        big = CookieStore(**options, cookie_chunks=10, max_size=10_000_000)
        token = issued(big, record(data=bytes(9_000_000)))
        assert len(token) < 15_000
        assert opened(big, token) is not None
        small = CookieStore(**options, cookie_chunks=10)
        tracemalloc.start()
        try:
            assert opened(small, token) is None
            assert tracemalloc.get_traced_memory()[1] < 3_000_000
        finally:
            tracemalloc.stop()

    def test_no_longer_token_is_opened(self) -> None:
        """What is longer than all our cookies together was not issued here."""
        big = CookieStore(secret=[NEW], cookie_chunks=3)
        token = issued(big, record(data=bytes(5000)))
        assert opened(big, token) is not None
        assert opened(CookieStore(secret=[NEW]), token) is None

    def test_only_what_was_asked_for_is_compressed(self) -> None:
        """Zeros become no shorter, unless compression is asked for."""
        given = record(data=bytes(1500))
        assert len(issued(CookieStore(secret=[NEW]), given)) > 2000
        assert len(issued(CookieStore(secret=[NEW], encrypt=True), given)) > 2000
        squeezed = CookieStore(secret=[NEW], encrypt=True, compression="zlib")
        assert len(issued(squeezed, given)) < 400


# -- what it is bound to -----------------------------------------------------------------


def strangers(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What others issue, each with what makes it no token of ours."""
    given = record()
    yield "secret", issued(CookieStore(secret=[OLD], **options), given)
    name = CookieStore(secret=[NEW], cookie_name="admin", **options)
    yield "cookie name", issued(name, given)
    turned = {**options, "encrypt": not options.get("encrypt", False)}
    yield "algorithm", issued(CookieStore(secret=[NEW], **turned), given)
    own = issued(CookieStore(secret=[NEW], **options), given)
    for version in "".join(sorted(set(ALPHABET + "~.") - {own[0]})):
        yield "format version", version + own[1:]
    for purpose in ("sid", "cookie.2.sid", "record"):
        signed = SignedTokens([NEW], purpose).issue(new_token().text)
        yield "purpose", signed
        yield "purpose, dressed up", f"{own[0]}{signed}"


class TestBinding:
    def test_what_is_not_ours_is_refused(self, options: dict[str, Any]) -> None:
        """Another secret, cookie name, algorithm, format version or purpose."""
        store = CookieStore(secret=[NEW], **options)
        own = CookieStore(secret=[NEW, OLD], **options)
        assert opened(store, issued(own, record())) is not None
        for why, token in strangers(options):
            assert opened(store, token) is None, why

    def test_another_application_with_the_same_secret(self) -> None:
        """Flask's cookie, by itsdangerous with the same secret, is not taken."""
        from itsdangerous import TimestampSigner, URLSafeTimedSerializer

        store = CookieStore(secret=[NEW])
        content = issued(store, record()).rpartition(".")[0]
        theirs = [
            URLSafeTimedSerializer(NEW, salt="cookie-session").dumps({"_id": 1}),
            TimestampSigner(NEW).sign(content).decode(),
        ]
        for salt in ("wsgisession.token.2.sid", "wsgisession.signed.A.sid"):
            signer = TimestampSigner(
                NEW, salt=salt, key_derivation="hmac", digest_method=hashlib.sha256
            )
            theirs.append(super(TimestampSigner, signer).sign(content).decode())
        for token in theirs:
            assert opened(store, token) is None

    def test_pitfall_no_fallback(self) -> None:
        """CVE-2026-39324: configured to encrypt, a well signed token is no token."""
        signed, encrypted = (
            CookieStore(secret=[NEW], encrypt=encrypt) for encrypt in (False, True)
        )
        assert opened(encrypted, issued(signed, record())) is None
        assert opened(signed, issued(encrypted, record())) is None


# -- keys --------------------------------------------------------------------------------


class TestKeys:
    def test_the_first_signs_and_all_verify(self, options: dict[str, Any]) -> None:
        """CVE-2025-47278: what the ring seals opens with its newest key alone."""
        ring = CookieStore(secret=[NEW, OLD, OLDEST], **options)
        token = issued(ring, record())
        assert opened(CookieStore(secret=[NEW], **options), token) is not None
        assert opened(CookieStore(secret=[OLD, OLDEST], **options), token) is None
        for key in (OLD, OLDEST):
            before = issued(CookieStore(secret=[key], **options), record())
            assert opened(ring, before) is not None

    def test_keys_rotate_under_eight_writers(self, options: dict[str, Any]) -> None:
        """Through three secrets, no session is lost and the oldest key never seals."""
        rings = [[OLDEST], [OLD, OLDEST], [NEW, OLD], [NEW]]
        servers = [CookieStore(secret=ring, **options) for ring in rings]
        alone = [CookieStore(secret=[ring[0]], **options) for ring in rings]
        rounds = 200

        def write(number: int) -> int:
            token = issued(servers[0], record(f"session-{number}", data=b"0"))
            for turn in range(rounds):
                stage = turn * len(servers) // rounds
                found = loaded(servers[stage], token)
                token = saved(servers[stage], token, data=b"%d" % (int(found.data) + 1))
                assert opened(alone[stage], token) is not None
            return int(loaded(servers[-1], token).data)

        assert in_threads(8, write) == [rounds] * 8

    @pytest.mark.parametrize(
        "secret", [[], [b""], [b"short"], [b"change-me" * 5], [NEW, b"x" * 40]]
    )
    def test_a_secret_that_anybody_could_guess_is_refused(
        self, secret: list[bytes]
    ) -> None:
        """None, empty, short, famous, behind a good one; with the way to a better."""
        for encrypt in (False, True):
            with pytest.raises(ConfigurationError) as caught:
                CookieStore(secret=secret, encrypt=encrypt)
            assert "python -m wsgisession secret" in str(caught.value)
            assert not re.search("change-me|xxxx", str(caught.value))


# -- clocks ------------------------------------------------------------------------------


class TestClocks:
    def test_both_clocks_are_inside_the_seal(self, clock: Clock) -> None:
        """Past its expiry, and past the absolute lifetime, a token is none."""
        store = CookieStore(secret=[NEW], absolute_timeout=1000)
        day = record(created=clock(), expires=clock() + 86400)
        short = day._replace(expires=clock() + 10)
        tokens = [issued(store, each) for each in (day, short)]
        assert all(opened(store, token) for token in tokens)
        clock.pass_by(10)
        assert [bool(opened(store, token)) for token in tokens] == [True, False]
        clock.pass_by(990)
        assert not any(opened(store, token) for token in tokens)

    @pytest.mark.parametrize(("ahead", "taken"), [(59, True), (61, False)])
    def test_issued_in_the_future(self, clock: Clock, ahead: int, taken: bool) -> None:
        """A server whose clock is a minute ahead is believed, and no more."""
        token = issued(CookieStore(secret=[NEW]), record())
        clock.pass_by(-ahead)
        here = CookieStore(secret=[NEW])
        assert (opened(here, token) is not None) is taken


class TestWithoutAnEnd:
    def test_a_token_is_good_for_at_most_400_days(self, clock: Clock) -> None:
        """Where no absolute lifetime is set, for browsers keep no cookie longer."""
        store = CookieStore(secret=[NEW], absolute_timeout=None)
        old = clock() - 5000 * 86400
        token = issued(store, record(created=old, expires=clock() + 5000 * 86400))
        clock.pass_by(399 * 86400)
        later = saved(store, token)
        clock.pass_by(2 * 86400)
        assert opened(store, token) is None
        assert opened(store, later) is not None


# -- revocation --------------------------------------------------------------------------


class Marks(MemoryStore):
    """A store of marks that counts its calls, and can be out of reach."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.is_away = False

    def load(self, key: Key) -> Record | None:
        self._called("load")
        return super().load(key)

    def save(self, record: Record, *, expect: int) -> None:
        self._called("save")
        super().save(record, expect=expect)

    def touch(self, record: Record) -> bool:
        raise AssertionError("a mark is never touched")

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        raise AssertionError("a mark is never deleted")

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.is_away:
            raise StoreError("out of reach")

    def spoil(self, data: bytes) -> None:
        """Overwrite what every mark says."""
        for mark in list(self.records()):
            super().save(newer(mark, data=data), expect=mark.version)


@pytest.fixture
def marks() -> Marks:
    return Marks()


@pytest.fixture
def revocable(marks: Marks) -> CookieStore:
    return CookieStore(secret=[NEW], revocation=marks)


def key(record: Record) -> Key:
    return Key(record.id)


class TestWithoutRevocation:
    def test_a_copy_outlives_the_logout(
        self, store: CookieStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The documented limit; the first end says so in the log, and no other."""
        given = record()
        token = issued(store, given)
        for _ in range(3):
            assert store.delete(key(given)) is False
        assert is_same(opened(store, token), given)
        assert [each.levelno for each in caplog.records] == [logging.WARNING]
        assert "revocation" in caplog.text

    def test_an_older_token_stays_good(self, store: CookieStore) -> None:
        """The documented limit of a login and of a regeneration."""
        before = issued(store, record())
        after = turned(store, before, user="ann")
        assert opened(store, before) is not None
        assert loaded(store, after).user == "ann"

    def test_a_user_cannot_be_ended(self, store: CookieStore) -> None:
        """And the sentence says what that would need."""
        with pytest.raises(ConfigurationError, match="revocation"):
            store.end_user("ann", keep=None)


class TestEndedSessions:
    def test_a_copy_is_refused_after_the_logout(
        self, revocable: CookieStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """All copies, those of later saves too; other sessions stay."""
        given = record("one")
        first = issued(revocable, given)
        second = saved(revocable, first, data=b"more")
        stays = issued(revocable, record("two"))
        assert revocable.delete(key(given)) is True
        assert opened(revocable, first) is None
        assert opened(revocable, second) is None
        assert opened(revocable, stays) is not None
        assert not caplog.records

    def test_nothing_brings_it_back(self, revocable: CookieStore) -> None:
        """P2: a request under way can neither save nor turn what has ended."""
        token = issued(revocable, record())
        held = loaded(revocable, token)
        revocable.delete(key(held))
        for change in ({}, {"turned": held.turned + 1}, {"user": "ann"}):
            with pytest.raises(VersionConflict) as caught:
                revocable.save(newer(held, **change), expect=held.version)
            assert caught.value.record is None
        assert opened(revocable, token) is None

    def test_an_end_by_the_token_alone(self, revocable: CookieStore) -> None:
        """Where the id is not known, the token says it."""
        token = issued(revocable, record())
        assert revocable.delete(Key("", None, token)) is True
        assert opened(revocable, token) is None
        assert revocable.delete(Key("", None, token)) is False
        assert revocable.delete(Key("", None, "junk")) is False

    def test_an_end_of_one_user_s_session(self, revocable: CookieStore) -> None:
        """Only where the token says that it is that user's, for nothing else can."""
        given = record(user="ann")
        token = issued(revocable, given)
        by_token = Key(given.id, None, token)
        assert revocable.delete(by_token, user="bob") is False
        assert revocable.delete(key(given), user="ann") is False
        assert opened(revocable, token) is not None
        assert revocable.delete(by_token, user="ann") is True
        assert opened(revocable, token) is None

    def test_an_end_between_look_and_mark(
        self, revocable: CookieStore, marks: Marks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """P2: a logout that comes while another request turns the session wins."""
        token = issued(revocable, record())
        save, ended = marks.save, []

        def late(mark: Record, *, expect: int) -> None:
            if not ended:
                ended.append(mark)
                revocable.delete(key(loaded(revocable, token)))
            save(mark, expect=expect)

        monkeypatch.setattr(marks, "save", late)
        with pytest.raises(VersionConflict):
            turned(revocable, token)
        assert opened(revocable, token) is None


class TestTurnedSessions:
    def test_every_older_token_is_ended(self, revocable: CookieStore) -> None:
        """By a login or a regeneration; the new token stays good, and its saves."""
        planted = issued(revocable, record())
        copy = saved(revocable, planted, data=b"other")
        new = turned(revocable, planted, user="ann")
        assert opened(revocable, planted) is None
        assert opened(revocable, copy) is None
        later = saved(revocable, saved(revocable, new))
        assert loaded(revocable, later).user == "ann"
        assert opened(revocable, new) is not None

    def test_a_request_under_way_is_dropped(self, revocable: CookieStore) -> None:
        """What it read before the turn can no longer be saved."""
        token = issued(revocable, record())
        held = loaded(revocable, token)
        turned(revocable, token)
        with pytest.raises(VersionConflict):
            revocable.save(newer(held), expect=held.version)

    def test_a_token_that_has_ended_is_no_stranger(
        self, revocable: CookieStore
    ) -> None:
        """With its proof it comes back as replaced just now, and opens nothing."""
        token = issued(revocable, record())
        later = turned(revocable, token)
        proof = "ab" * 32
        found = revocable.load(Key("", proof, token))
        assert found is not None
        assert not found.admits(proof, time.time())
        assert found.knows(proof)
        assert abs(found.turned - time.time()) < 60
        good = revocable.load(Key("", proof, later))
        assert good is not None
        assert good.admits(proof, time.time())

    def test_one_of_two_turns_wins(self, revocable: CookieStore) -> None:
        """Of many at once from one token, one is done and the others are refused."""
        token = issued(revocable, record())

        def turn(number: int) -> str | None:
            try:
                return turned(revocable, token, user=f"user{number}")
            except (VersionConflict, AssertionError):
                return None

        new = [each for each in in_threads(8, turn) if each is not None]
        assert len(new) == 1
        assert opened(revocable, new[0]) is not None

    def test_two_saves_in_one_request(self, revocable: CookieStore) -> None:
        """A record is saved again with the token of its first save."""
        token = issued(revocable, record())
        held = loaded(revocable, token)
        once = newer(held, turned=held.turned + 1, user="ann")
        first = revocable.save(once, expect=held.version)
        again = newer(once, token=first, data=b"more")
        second = revocable.save(again, expect=once.version)
        assert opened(revocable, first) is not None
        assert is_same(opened(revocable, second), again)
        last = newer(again, token=second, turned=again.turned + 1)
        third = revocable.save(last, expect=again.version)
        assert [bool(opened(revocable, t)) for t in (token, first, second, third)] == [
            False,
            False,
            False,
            True,
        ]

    def test_a_new_session_saved_twice(
        self, revocable: CookieStore, marks: Marks
    ) -> None:
        """Its first token says all that the second save has to know."""
        given = record(user="ann")
        first = revocable.save(given, expect=0)
        again = newer(given, token=first)
        second = revocable.save(again, expect=given.version)
        assert opened(revocable, first) is not None
        assert opened(revocable, second) is not None
        assert list(marks.records()) == []

    @pytest.mark.parametrize("moment", [0.0, 1.5])
    def test_a_record_of_no_known_token(
        self, revocable: CookieStore, moment: float
    ) -> None:
        """Saved all the same, it ends all tokens from before."""
        given = record(turned=moment)
        before = issued(revocable, given)
        token = revocable.save(newer(given), expect=given.version)
        assert opened(revocable, before) is None
        assert opened(revocable, token) is not None

    def test_a_record_of_no_known_token_revives_nothing(
        self, revocable: CookieStore
    ) -> None:
        """Neither a session that has ended nor one of a user who has."""
        for given in (record("one"), record("two", user="ann")):
            token = issued(revocable, given)
            revocable.delete(key(record("one")))
            revocable.end_user("ann", keep=None)
            with pytest.raises(VersionConflict):
                revocable.save(newer(given), expect=given.version)
            assert opened(revocable, token) is None

    def test_what_a_session_costs(self, revocable: CookieStore, marks: Marks) -> None:
        """One look for a session and one for its user; a mark only where it is turned."""

        def costs(work: Any, *args: Any, **kwargs: Any) -> tuple[str, Any]:
            marks.calls.clear()
            found = work(*args, **kwargs)
            return " ".join(marks.calls), found

        calls, token = costs(revocable.save, record(), expect=0)
        assert calls == ""
        assert costs(opened, revocable, token)[0] == "load"
        held = loaded(revocable, token)
        calls, _ = costs(revocable.save, newer(held), expect=held.version)
        assert calls == "load"
        login = newer(held, user="ann", turned=held.turned + 1)
        calls, token = costs(revocable.save, login, expect=held.version)
        assert calls == "load save load"
        assert costs(opened, revocable, token)[0] == "load load"


class TestEndedUsers:
    def test_a_user_is_ended_everywhere(self, revocable: CookieStore) -> None:
        """P10: all sessions of that user, those that are saved again too; no others."""
        tokens = [issued(revocable, record(f"ann{n}", user="ann")) for n in range(3)]
        stay = [issued(revocable, record(n, user=n)) for n in ("bob", "Ann", "ann ")]
        stay.append(issued(revocable, record("nobody")))
        held = loaded(revocable, tokens[0])
        revocable.end_user("ann", keep=None)
        assert not any(opened(revocable, token) for token in tokens)
        assert all(opened(revocable, token) for token in stay)
        for change in ({}, {"turned": held.turned + 1}, {"user": "bob"}):
            with pytest.raises(VersionConflict):
                revocable.save(newer(held, **change), expect=held.version)

    def test_a_later_login_is_good(self, revocable: CookieStore) -> None:
        """In a session of its own, and in one that was there, each time."""
        for number in range(3):
            revocable.end_user("ann", keep=None)
            new = issued(revocable, record(f"new{number}", user="ann"))
            visitor = issued(revocable, record(f"visitor{number}"))
            old = turned(revocable, visitor, user="ann")
            other = issued(revocable, record(f"other{number}", user="bob"))
            changed = turned(revocable, other, user="ann")
            tokens = [new, old, changed]
            assert all(opened(revocable, token) for token in tokens)
            tokens = [saved(revocable, token) for token in tokens]
            revocable.end_user("ann", keep=None)
            assert not any(opened(revocable, token) for token in tokens)

    def test_a_logged_out_session_of_a_user_is_that_user_s_no_more(
        self, revocable: CookieStore
    ) -> None:
        """A session that changed hands is ended with its new user alone."""
        token = turned(revocable, issued(revocable, record(user="ann")), user="bob")
        revocable.end_user("ann", keep=None)
        assert opened(revocable, token) is not None
        revocable.end_user("bob", keep=None)
        assert opened(revocable, token) is None

    def test_no_clock_decides(self, revocable: CookieStore, clock: Clock) -> None:
        """Hosts an hour apart: no login is dead at birth, and no end is undone."""
        before = issued(revocable, record(user="ann"))
        clock.pass_by(3600)
        revocable.end_user("ann", keep=None)
        clock.pass_by(-3600)
        assert opened(revocable, before) is None
        assert opened(revocable, issued(revocable, record("b", user="ann"))) is not None

    def test_many_ends_at_once(self, revocable: CookieStore) -> None:
        """Eight threads end one session and its user, and each end counts."""
        tokens = [issued(revocable, record(f"{n}", user="ann")) for n in range(8)]
        ids = [loaded(revocable, token).id for token in tokens]

        def end(number: int) -> None:
            if number % 2:
                revocable.delete(Key(ids[number]))
            else:
                revocable.end_user("ann", keep=None)

        in_threads(8, end)
        assert not any(opened(revocable, token) for token in tokens)


class TestKeptSessions:
    def test_all_but_one(self, revocable: CookieStore) -> None:
        """The kept session stays through saves and turns, until it is not kept."""
        kept, other = record("kept", user="ann"), record("other", user="ann")
        token, gone = issued(revocable, kept), issued(revocable, other)
        revocable.end_user("ann", keep=kept.id)
        assert opened(revocable, gone) is None
        token = saved(revocable, token)
        for _ in range(3):
            revocable.end_user("ann", keep=kept.id)
            assert opened(revocable, token) is not None
        token = turned(revocable, token)
        revocable.end_user("ann", keep=kept.id)
        assert opened(revocable, token) is not None
        assert opened(revocable, gone) is None
        revocable.end_user("ann", keep=other.id)
        assert opened(revocable, token) is None
        assert opened(revocable, gone) is None

    @pytest.mark.parametrize("keep", [None, record("third").id])
    def test_keeping_revives_nothing(
        self, revocable: CookieStore, keep: str | None
    ) -> None:
        """P10: what an end has ended cannot be kept by a later one."""
        given = record(user="ann")
        token = issued(revocable, given)
        held = loaded(revocable, token)
        revocable.end_user("ann", keep=given.id)
        revocable.end_user("ann", keep=keep)
        for _ in range(3):
            revocable.end_user("ann", keep=given.id)
            assert opened(revocable, token) is None
            with pytest.raises(VersionConflict):
                revocable.save(newer(held), expect=held.version)

    def test_keeping_does_not_undo_a_logout(self, revocable: CookieStore) -> None:
        """A kept session is ended by itself all the same."""
        given = record(user="ann")
        token = issued(revocable, given)
        revocable.delete(key(given))
        revocable.end_user("ann", keep=given.id)
        assert opened(revocable, token) is None

    def test_each_session_keeps_itself(self, revocable: CookieStore) -> None:
        """Of many that end all others at once, at most one is left."""
        given = [record(f"{n}", user="ann") for n in range(8)]
        tokens = [issued(revocable, each) for each in given]
        in_threads(8, lambda n: revocable.end_user("ann", keep=given[n].id))
        assert sum(opened(revocable, token) is not None for token in tokens) <= 1

    def test_a_mark_does_not_grow_for_ever(
        self, revocable: CookieStore, marks: Marks
    ) -> None:
        """A session that is kept at every login stays good, and its mark small."""
        token = issued(revocable, record(user="ann"))
        id = loaded(revocable, token).id
        for _ in range(300):
            revocable.end_user("ann", keep=None)
            token = issued(revocable, record(user="ann"))
            for _ in range(3):
                revocable.end_user("ann", keep=id)
        for _ in range(300):
            revocable.end_user("ann", keep=id)
            token = saved(revocable, token)
        assert opened(revocable, token) is not None
        assert max(len(mark.data) for mark in marks.records()) < 2000


class TestMarks:
    def test_outlive_every_copy(self, clock: Clock, marks: Marks) -> None:
        """And then they go, so that the store does not grow."""
        store = CookieStore(secret=[NEW], revocation=marks, absolute_timeout=5000)
        given = record(created=clock() + 50, expires=clock() + 9000)
        copy = issued(store, given)
        store.delete(key(given))
        for _ in range(51):
            assert opened(store, copy) is None
            clock.pass_by(100)
        clock.pass_by(3600)
        marks.delete_expired(batch=10)
        assert list(marks.records()) == []

    def test_are_never_shortened(self, clock: Clock, marks: Marks) -> None:
        """A second end, by a host whose clock is behind, forgets no sooner."""
        store = CookieStore(secret=[NEW], revocation=marks, absolute_timeout=9000)
        copy = issued(store, record(user="ann", expires=clock() + 9000))
        store.end_user("ann", keep=None)
        clock.pass_by(-9000)
        store.end_user("ann", keep=None)
        clock.pass_by(9000 + 8999)
        assert opened(store, copy) is None

    def test_outlive_every_copy_where_there_is_no_end(
        self, clock: Clock, marks: Marks
    ) -> None:
        """Without an absolute lifetime a token lives 400 days, and a mark longer."""
        store = CookieStore(secret=[NEW], revocation=marks, absolute_timeout=None)
        given = record(expires=clock() + 5000 * 86400)
        copy = issued(store, given)
        store.delete(key(given))
        for _ in range(401):
            assert opened(store, copy) is None
            clock.pass_by(86400)

    def test_may_go_before_the_tokens_issued_under_them(
        self, clock: Clock, marks: Marks
    ) -> None:
        """A login long after an end outlives the mark of that end."""
        store = CookieStore(secret=[NEW], revocation=marks, absolute_timeout=100_000)
        store.end_user("ann", keep=None)
        clock.pass_by(99_000)
        token = issued(store, record(user="ann", expires=clock() + 99_999))
        id = loaded(store, token).id
        clock.pass_by(50_000)
        assert marks.delete_expired(batch=10) == 1
        assert opened(store, token) is not None
        store.end_user("ann", keep=id)
        assert opened(store, token) is not None
        store.end_user("ann", keep=None)
        assert opened(store, token) is None

    @pytest.mark.parametrize(
        "junk",
        [
            b"",
            b"\xff\xfe",
            b"junk",
            b"[]",
            b"{}",
            b"null",
            b'{"tag": "", "kept": {}}',
            b'{"tag": "00", "kept": {}}',
            b'{"tag": 7, "kept": {}}',
            b'{"tag": "0000000000000000", "kept": []}',
            b'{"tag": "0000000000000000", "kept": {"a": 7}}',
            b'{"tag": "0000000000000000", "kept": {"a": ["x"]}}',
        ],
    )
    def test_that_cannot_be_read_count_as_ends(
        self,
        revocable: CookieStore,
        marks: Marks,
        junk: bytes,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A logout is not undone by a broken mark; a login puts a good one there."""
        token = turned(revocable, issued(revocable, record("a")), user="ann")
        held = loaded(revocable, token)
        ended = issued(revocable, record("b", user="bob"))
        revocable.end_user("bob", keep=None)
        marks.spoil(junk)
        caplog.clear()
        assert opened(revocable, token) is None
        assert opened(revocable, ended) is None
        assert "counts as an end" in caplog.text
        with pytest.raises(VersionConflict):
            revocable.save(newer(held), expect=held.version)
        revocable.delete(key(held))
        again = issued(revocable, record("c", user="bob"))
        assert opened(revocable, again) is not None
        revocable.end_user("bob", keep=loaded(revocable, again).id)
        assert opened(revocable, again) is not None
        assert opened(revocable, ended) is None
        assert opened(revocable, token) is None

    def test_that_cannot_be_read_are_not_kept(
        self, revocable: CookieStore, marks: Marks
    ) -> None:
        """P10: keeping a session over a broken mark does not revive it."""
        given = record(user="ann")
        token = issued(revocable, given)
        revocable.end_user("ann", keep=None)
        marks.spoil(b"junk")
        revocable.end_user("ann", keep=given.id)
        assert opened(revocable, token) is None

    def test_that_cannot_be_written_are_an_error(
        self, revocable: CookieStore, marks: Marks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a number of tries, not never: an end is not taken for done."""

        def stubborn(mark: Record, *, expect: int) -> None:
            raise VersionConflict(mark.id, None)

        token = issued(revocable, record(user="ann"))
        monkeypatch.setattr(marks, "save", stubborn)
        for end in (
            lambda: revocable.delete(key(record())),
            lambda: revocable.end_user("ann", keep=None),
            lambda: turned(revocable, token),
        ):
            with pytest.raises(StoreError, match="tries"):
                end()

    def test_tell_nothing(self, revocable: CookieStore, marks: Marks) -> None:
        """Neither the user nor the session nor a token can be read or made of them."""
        given = record(user="ann", data=b"thoughts")
        token = issued(revocable, given)
        revocable.delete(key(given))
        revocable.end_user("ann", keep=None)
        found = list(marks.records())
        assert len(found) == 2
        assert not re.search(
            f"{given.id}|ann|thoughts|{token}", repr(list(map(tuple, found)))
        )
        for mark in found:
            assert (mark.user, mark.proof, len(mark.id)) == (None, "", 32)

    def test_of_applications_that_share_a_store(self, marks: Marks) -> None:
        """Ending a user or a session of one cookie ends none of another."""
        one, two = (
            CookieStore(secret=[NEW], cookie_name=name, revocation=marks)
            for name in ("one", "two")
        )
        token = issued(two, record(user="ann"))
        one.end_user("ann", keep=None)
        one.delete(key(record()))
        assert opened(two, token) is not None


class TestOutage:
    def test_closed(self, revocable: CookieStore, marks: Marks) -> None:
        """P8: by default every look is an error, never an anonymous visitor."""
        token = issued(revocable, record())
        held = loaded(revocable, token)
        marks.is_away = True
        with pytest.raises(StoreError):
            opened(revocable, token)
        with pytest.raises(StoreError):
            revocable.save(newer(held), expect=held.version)

    def test_open(self, marks: Marks, caplog: pytest.LogCaptureFixture) -> None:
        """By choice cookies count then, and the log says so; changes are saved."""
        store = CookieStore(secret=[NEW], revocation=marks, revocation_fail="open")
        before = issued(store, record(user="ann"))
        store.end_user("bob", keep=None)
        token = issued(store, record("b", user="bob"))
        marks.is_away = True
        assert opened(store, before) is not None
        assert "every cookie counts" in caplog.text
        token = saved(store, token)
        marks.is_away = False
        assert opened(store, token) is not None
        store.end_user("bob", keep=None)
        assert opened(store, token) is None

    def test_an_end_is_never_lost(self, marks: Marks) -> None:
        """Ends, logins and turns need the store in any case."""
        store = CookieStore(secret=[NEW], revocation=marks, revocation_fail="open")
        token = issued(store, record(user="ann"))
        marks.is_away = True
        for work in (
            lambda: store.delete(key(record())),
            lambda: store.end_user("ann", keep=None),
            lambda: turned(store, token),
            lambda: issued(store, record("new", user="ann")),
        ):
            with pytest.raises(StoreError):
                work()


class NoStorage(MemoryStore):
    """A store whose token is the record, though it has every method."""

    capabilities = Capabilities(token_octets=4096)


class TestMisuse:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"compression": "gzip"}, "'none' or 'zlib'"),
            ({"cookie_chunks": 0}, "from 1 to 10"),
            ({"cookie_chunks": 11}, "from 1 to 10"),
            ({"revocation_fail": "ajar"}, "'closed' or 'open'"),
            ({"revocation": object()}, "a store on the server, not object"),
            ({"revocation": CookieStore(secret=[NEW])}, "not CookieStore"),
            ({"revocation": NoStorage()}, "not NoStorage"),
        ],
    )
    def test_is_refused_at_construction(
        self, options: dict[str, Any], said: str
    ) -> None:
        """With a sentence that says what is allowed."""
        with pytest.raises(ConfigurationError, match=said):
            CookieStore(secret=[NEW], **options)

    def test_secrets_are_in_no_repr(self) -> None:
        """Nothing that is logged by accident holds a key."""
        store = CookieStore(secret=[NEW], revocation=MemoryStore())
        token = issued(store, record())
        assert NEW.hex() not in json.dumps([repr(store), repr(opened(store, token))])


def test_threads_share_a_store(store: CookieStore) -> None:
    """P7: sealing and opening from many threads at once give each its own."""

    def work(number: int) -> bool:
        given = record(f"s{number}", data=b"%d" % number)
        return all(
            is_same(opened(store, issued(store, given)), given) for _ in range(200)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
