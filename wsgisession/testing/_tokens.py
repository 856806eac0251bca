"""What a store must do whose token is the record.

It knows the protocol and no store.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from ..record import Key, Record
from ..store import TokenStore
from ._records import newer, record


def said(record: Record | None) -> dict[str, object]:
    """What a token tells.  It is a proof itself, so it need not hold proofs."""
    assert record is not None
    fields = "id version data created accessed expires user turned"
    return {name: getattr(record, name) for name in fields.split()}


def opened(store: TokenStore, token: str) -> Record:
    """The record in a token that must be good."""
    record = store.load(Key("", token=token))
    assert record is not None
    return record


class TokenStoreSuite:
    """What a store must do whose token is the record, such as a signed cookie."""

    @pytest.fixture
    def store(self) -> Any:
        """The store to be tested; the class that inherits this one gives it."""
        raise NotImplementedError("give a fixture named store")

    @pytest.fixture
    def twin(self, store: TokenStore) -> TokenStore:
        """The same store in another process."""
        return store

    def test_promises_no_more_than_it_can(self, store: TokenStore) -> None:
        """It has the three methods, and says how long its tokens may be."""
        assert isinstance(store, TokenStore)
        assert store.capabilities == store.capabilities
        assert store.capabilities.token_octets is not None
        assert store.capabilities.token_octets > 0
        assert not store.capabilities.locks
        assert not store.capabilities.lists

    def test_what_was_issued_comes_back(
        self, store: TokenStore, twin: TokenStore
    ) -> None:
        """The token alone leads to what the session is, after every save."""
        given = record(
            data=bytes(range(256)), user="ann\u00e9 \u4e2d 'x' :*?[", turned=1.25
        )
        token = store.save(given, expect=0)
        assert isinstance(token, str)
        assert len(token.encode()) <= (store.capabilities.token_octets or 0)
        assert said(twin.load(Key(given.id, token=token))) == said(given)
        later = newer(opened(store, token), data=b"", turned=given.turned)
        token = store.save(later, expect=given.version)
        assert said(twin.load(Key("", token=token))) == said(later)

    @pytest.mark.parametrize("user", ["Ann", "ann", "ann ", "\u00e1nn", None])
    def test_a_user_comes_back_exactly(
        self, store: TokenStore, user: str | None
    ) -> None:
        """Nobody becomes a user who is written nearly like another one."""
        token = store.save(record(user=user), expect=0)
        assert opened(store, token).user == user

    def test_a_clock_moves_with_the_token(
        self, store: TokenStore, twin: TokenStore
    ) -> None:
        """There is no touch: a save is a new token with later clocks."""
        given = opened(store, store.save(record(), expect=0))
        later = newer(given, accessed=given.accessed + 60, expires=given.expires + 60)
        token = store.save(later, expect=given.version)
        assert said(twin.load(Key("", token=token))) == said(later)

    def test_without_its_token_nothing_is_found(self, store: TokenStore) -> None:
        """An id leads nowhere, with and without its proof."""
        given = record()
        store.save(given, expect=0)
        assert store.load(Key(given.id)) is None
        assert store.load(Key(given.id, given.proof)) is None

    @pytest.mark.parametrize(
        "token", ["", ".", "..", "\x00", "x" * 9999, "%s", "\u00e9", "\ud800", "A" * 64]
    )
    def test_a_malformed_token_is_none(self, store: TokenStore, token: str) -> None:
        """What a client sends may be anything: it is unknown, and no error."""
        assert store.load(Key(token, token=token)) is None

    def test_a_changed_token_is_none(self, store: TokenStore) -> None:
        """No octet of a token can be changed, cut off or added."""
        given = record()
        token = store.save(given, expect=0)
        changed = [
            token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
            for at in range(len(token) - 1)  # the last may carry unused bits
        ]
        for wrong in [*changed, token[:-1], token[:-2], token + "A", token + "="]:
            assert store.load(Key(given.id, token=wrong)) is None

    def test_expired_is_none(self, store: TokenStore) -> None:
        """A record whose time is over is absent, whatever the client holds."""
        token = store.save(record(expires=time.time() + 0.2), expect=0)
        time.sleep(0.3)
        assert store.load(Key("", token=token)) is None

    def test_savers_cannot_see_each_other(self, store: TokenStore) -> None:
        """The limit of what a client holds: of two saves both are good."""
        first = opened(store, store.save(record(), expect=0))
        for data in (b"one", b"two"):
            mine = newer(first, data=data)
            token = store.save(mine, expect=first.version)
            assert said(opened(store, token)) == said(mine)

    def test_delete_is_idempotent(self, store: TokenStore) -> None:
        """Ending what is not there is no error, with a user and without."""
        given = record(user="ann")
        store.delete(Key(given.id))
        token = store.save(given, expect=0)
        for key in (Key(given.id), Key(given.id, given.proof, token)):
            store.delete(key)
            store.delete(key, user="ann")
