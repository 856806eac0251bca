"""The cookie store: what it seals nobody forges, and what has ended may be told to it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import re
import secrets
import string
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from wsgisession import ConfigurationError, Conflict, Key, Record, StoreError
from wsgisession.record import id_for
from wsgisession.store import Store
from wsgisession.stores.cookie import CookieStore
from wsgisession.stores.memory import MemoryStore
from wsgisession.testing import TokenStoreSuite, in_threads, record, stored
from wsgisession.tokens import SignedTokens

from ..conftest import Clock

ALPHABET = string.ascii_letters + string.digits + "-_"
NEW, OLD, OLDEST = (hashlib.sha256(name).digest() for name in (b"n", b"o", b"t"))
LONG = os.environ.get("WSGISESSION_LONG") == "1"
RANDOM_TOKENS = 1_000_000 if LONG else 100_000


def opened(store: Store, token: str | None) -> Record | None:
    """What a store makes of a token that some client sends."""
    return store.load(Key(id_for(token or ""), token))


def issued(store: Store, record: Record) -> str:
    token = store.save(record, expect=record.version - 1)
    assert token is not None
    return token


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
    @pytest.fixture
    def store(self) -> CookieStore:
        return CookieStore(secret=[NEW], revocation=MemoryStore())


# -- forgery -----------------------------------------------------------------------------


def five(store: Store) -> list[str]:
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
        """A hundred thousand of them (a million where WSGISESSION_LONG=1)."""
        (real, *_), pick = five(store), random.Random(7)
        for number in range(RANDOM_TOKENS):
            junk = "".join(pick.choices(ALPHABET, k=pick.randrange(1, 200)))
            forged = (junk, real[0] + junk, f"{real[:-43]}{junk[:43]}")[number % 3]
            assert opened(store, forged) is None

    def test_a_seal_of_other_content_is_no_record(self, store: CookieStore) -> None:
        """Whatever comes out of our own seal, no exception comes out of the store."""
        for content in (b"", b"x", b"\xff" * 70, b"\x00" * 70, b"\x00" * 71 + b"zjunk"):
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

    def test_only_what_was_asked_for_is_compressed(self) -> None:
        """Zeros become no shorter, unless compression is asked for."""
        given = record(data=bytes(1500))
        assert len(issued(CookieStore(secret=[NEW]), given)) > 2000
        assert len(issued(CookieStore(secret=[NEW], encrypt=True), given)) > 2000
        squeezed = CookieStore(secret=[NEW], encrypt=True, compression="zlib")
        assert len(issued(squeezed, given)) < 400


# -- what it is bound to -----------------------------------------------------------------


def strangers(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What others issue, each with what makes it another's."""
    given = record()
    yield "secret", issued(CookieStore(secret=[OLD], **options), given)
    name = CookieStore(secret=[NEW], cookie_name="admin", **options)
    yield "cookie name", issued(name, given)
    turned = {**options, "encrypt": not options.get("encrypt", False)}
    yield "algorithm", issued(CookieStore(secret=[NEW], **turned), given)
    own = issued(CookieStore(secret=[NEW], **options), given)
    for version in "".join(sorted(set(ALPHABET + "~.") - {own[0]})):
        yield "format version", version + own[1:]
    for purpose in ("session", "cookie.session", "record"):
        signed = SignedTokens([NEW], purpose).issue(secrets.token_urlsafe(32))
        yield "purpose", signed
        yield "purpose, dressed up", f"{own[0]}{signed}"


class TestBinding:
    def test_what_is_another_s_is_refused(self, options: dict[str, Any]) -> None:
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
        for salt in ("wsgisession.token.1.session", "wsgisession.signed.A.session"):
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
            held = record(f"session-{number}", data=b"0")
            token = issued(servers[0], held)
            for turn in range(rounds):
                stage = turn * len(servers) // rounds
                found = opened(servers[stage], token)
                assert found is not None
                count = b"%d" % (int(found.data) + 1)
                found = replace(found, version=found.version + 1, data=count)
                token = issued(servers[stage], found)
                assert opened(alone[stage], token) is not None
            return int(found.data)

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
        day = replace(record(), created=clock(), expires=clock() + 86400)
        short = replace(day, expires=clock() + 10)
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


# -- revocation --------------------------------------------------------------------------


class Away:
    """A store that cannot be reached."""

    def load(self, key: Key) -> Record | None:
        raise StoreError("out of reach")

    def save(self, record: Record, *, expect: int) -> str | None:
        raise StoreError("out of reach")

    def touch(self, record: Record) -> str | None:
        raise StoreError("out of reach")

    def delete(self, record: Record) -> None:
        raise StoreError("out of reach")


@pytest.fixture
def marks() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def revocable(marks: MemoryStore) -> CookieStore:
    return CookieStore(secret=[NEW], revocation=marks)


class TestRevocation:
    def test_a_copy_outlives_the_logout_without_it(
        self, store: CookieStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The documented limit; the first end says so in the log, and no other."""
        given = record()
        token = issued(store, given)
        for _ in range(3):
            store.delete(given)
        assert opened(store, token) == stored(given)
        assert [each.levelno for each in caplog.records] == [logging.WARNING]
        assert "revocation" in caplog.text

    def test_a_copy_is_refused_after_the_logout(
        self, revocable: CookieStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """All copies, also later ones; other sessions stay."""
        given, other = record("one"), record("two")
        tokens = [issued(revocable, replace(given, version=n)) for n in (1, 2)]
        stays = issued(revocable, other)
        revocable.delete(given)
        assert not any(opened(revocable, token) for token in tokens)
        assert opened(revocable, stays) == stored(other)
        assert not caplog.records

    def test_nothing_brings_it_back(self, revocable: CookieStore) -> None:
        """P2: a request in flight can neither save nor touch what has ended."""
        given = record()
        issued(revocable, given)
        revocable.delete(given)
        with pytest.raises(Conflict) as caught:
            revocable.save(replace(given, version=2), expect=1)
        assert caught.value.record is None
        assert revocable.touch(given) is None

    def test_a_tombstone_ends_at_once(self, revocable: CookieStore) -> None:
        """What regenerate leaves behind, and no second one may follow."""
        given = record()
        token = issued(revocable, given)
        rest = replace(given, version=2, data=b"", state="ended")
        revocable.save(rest, expect=1)
        assert opened(revocable, token) is None
        with pytest.raises(Conflict):
            revocable.save(rest, expect=1)

    def test_a_pointer_ends_after_its_grace(self, clock: Clock) -> None:
        """After a rotation the old token reads for a while, and never writes."""
        marks = MemoryStore()
        store = CookieStore(secret=[NEW], revocation=marks)
        given = record(expires=clock() + 3600)
        token = issued(store, given)
        rest = replace(given, version=2, state="moved", expires=clock() + 30)
        store.save(rest, expect=1)
        assert opened(store, token) is not None
        with pytest.raises(Conflict):
            store.save(replace(given, version=2), expect=1)
        clock.pass_by(31)
        assert opened(store, token) is None

    def test_a_mark_outlives_every_copy(self, clock: Clock) -> None:
        """Also one from before the session was made shorter."""
        marks = MemoryStore()
        store = CookieStore(secret=[NEW], revocation=marks, absolute_timeout=5000)
        given = record(created=clock(), expires=clock() + 4000)
        copy = issued(store, given)
        store.delete(replace(given, expires=clock() + 10))
        for _ in range(50):
            clock.pass_by(100)
            assert opened(store, copy) is None
        clock.pass_by(1)
        while marks.delete_expired(batch=10):
            pass
        assert not marks._records

    def test_a_user_is_ended_everywhere(self, revocable: CookieStore) -> None:
        """P10: all sessions of that user, those that are saved again too; no others."""
        ann = [record(f"ann{n}", user="ann") for n in range(3)]
        others = [record("bob", user="bob"), record("nobody")]
        tokens = [issued(revocable, each) for each in ann]
        stay = [issued(revocable, each) for each in others]
        revocable.end_user("ann")
        assert not any(opened(revocable, token) for token in tokens)
        assert all(opened(revocable, token) for token in stay)
        with pytest.raises(Conflict):
            revocable.save(replace(ann[0], version=2), expect=1)
        again = record("again", user="ann", created=time.time())
        assert opened(revocable, issued(revocable, again)) is not None

    def test_all_but_one(self, revocable: CookieStore) -> None:
        """The kept session stays, also through later saves, until it is not kept."""
        kept, other = record("kept", user="ann"), record("other", user="ann")
        tokens = {each.id: issued(revocable, each) for each in (kept, other)}
        revocable.end_user("ann", keep=kept.id)
        assert opened(revocable, tokens[kept.id]) is not None
        assert opened(revocable, tokens[other.id]) is None
        later = issued(revocable, replace(kept, version=2))
        revocable.end_user("ann", keep=kept.id)
        assert opened(revocable, later) is not None
        revocable.end_user("ann")
        assert opened(revocable, later) is None

    def test_a_kept_session_is_kept_by_its_id(self, revocable: CookieStore) -> None:
        """The documented limit: under another id it needs a login, which begins anew."""
        kept = record("kept", user="ann")
        issued(revocable, kept)
        revocable.end_user("ann", keep=kept.id)
        regenerated = replace(record("new", user="ann"), created=kept.created)
        assert opened(revocable, issued(revocable, regenerated)) is None
        logged_in = replace(regenerated, created=time.time())
        assert opened(revocable, issued(revocable, logged_in)) is not None

    def test_keeping_revives_nothing(self, revocable: CookieStore) -> None:
        """A session that an earlier end has ended cannot be kept by a later one."""
        given = record(user="ann")
        token = issued(revocable, given)
        revocable.end_user("ann")
        revocable.end_user("ann", keep=given.id)
        assert opened(revocable, token) is None

    def test_many_ends_at_once(self, revocable: CookieStore) -> None:
        """Eight threads end one session and its user, and each end counts."""
        given = record(user="ann")
        token = issued(revocable, given)

        def end(number: int) -> None:
            if number % 2:
                revocable.delete(given)
            else:
                revocable.end_user("ann", keep=f"{number}")

        in_threads(8, end)
        assert opened(revocable, token) is None

    def test_the_marks_tell_nothing(
        self, revocable: CookieStore, marks: MemoryStore
    ) -> None:
        """Neither the user nor the session can be read, and no list shows a session."""
        given = record(user="ann", data=b"thoughts")
        issued(revocable, given)
        revocable.delete(given)
        revocable.end_user("ann")
        assert list(marks.records()) == []
        text = repr([(each, each.data) for each in marks._records.values()])
        assert len(marks._records) == 2
        assert not re.search(f"{given.id}|ann|thoughts", text)

    def test_applications_that_share_a_store(self, marks: MemoryStore) -> None:
        """Ending a user of one cookie does not end the namesake of another."""
        one, two = (
            CookieStore(secret=[NEW], cookie_name=name, revocation=marks)
            for name in ("one", "two")
        )
        token = issued(two, record(user="ann"))
        one.end_user("ann")
        assert opened(two, token) is not None

    def test_closed_while_the_store_is_away(self) -> None:
        """P8: by default every look is an error, never an anonymous visitor."""
        store = CookieStore(secret=[NEW], revocation=Away())
        token = issued(store, record())
        with pytest.raises(StoreError):
            opened(store, token)

    def test_open_while_the_store_is_away(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """By choice cookies count then, and the log says so; an end is never lost."""
        store = CookieStore(secret=[NEW], revocation=Away(), revocation_fail="open")
        given = record(user="ann")
        token = issued(store, given)
        assert opened(store, token) == stored(given)
        assert "every cookie counts" in caplog.text
        with pytest.raises(StoreError):
            store.delete(given)
        with pytest.raises(StoreError):
            store.end_user("ann")


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
        ],
    )
    def test_is_refused_at_construction(
        self, options: dict[str, Any], said: str
    ) -> None:
        """With a sentence that says what is allowed."""
        with pytest.raises(ConfigurationError, match=said):
            CookieStore(secret=[NEW], **options)

    def test_a_user_cannot_be_ended_without_revocation(self) -> None:
        """And the sentence says what that would need."""
        with pytest.raises(ConfigurationError, match="revocation"):
            CookieStore(secret=[NEW]).end_user("ann")

    def test_secrets_are_in_no_repr(self) -> None:
        """Nothing that is logged by accident holds a key."""
        store = CookieStore(secret=[NEW], revocation=MemoryStore())
        token = issued(store, record())
        assert NEW.hex() not in json.dumps([repr(store), repr(opened(store, token))])


def test_threads_share_a_store(store: CookieStore) -> None:
    """P7: sealing and opening from many threads at once give everyone his own."""

    def work(number: int) -> bool:
        given = record(f"s{number}", data=b"%d" % number)
        return all(
            opened(store, issued(store, given)) == stored(given) for _ in range(200)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
