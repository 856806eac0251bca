"""Marks: what no cookie can know, namely that its session or its user's sessions ended.

A mark is a random tag in a store on the server, filed under a hash of what it marks.
Every token carries the tags under which it was issued, and a mark with another tag has
ended it.  So no clocks are compared.  A mark that ends all sessions of a user but one
names the tags that the tokens of that one may carry.  This file knows records and one
store, and no cookie.

A mark is kept until every token that it has ended is over; where there is none, nothing
is known to have ended.  A store that evicts forgets marks before their time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...errors import StoreError, VersionConflict
from ...record import Key, Record
from ...store import Store

NO_TAG = bytes(8)
"""Carried by tokens that were issued while there was no mark."""

SLACK = 3600.0
"""Seconds that a mark outlives the longest token by, for clocks of hosts that differ."""

_TRIES = 50
"""Times that a mark is written before the store counts as broken."""

_MOST_TAGS = 50
"""Tags that are remembered of a session which is kept again and again."""

_log = logging.getLogger("wsgisession")


class Tags(NamedTuple):
    """The tags under which a token was issued."""

    session: bytes = NO_TAG
    user: bytes = NO_TAG


class Origin(NamedTuple):
    """What the token said from which a record was read."""

    tags: Tags
    user: str | None
    turned: float


def unknown_origin(user: str | None) -> Origin:
    """For a record whose token is not known: it ends all tokens, and revives none."""
    return Origin(Tags(), user, math.nan)


Kept = Mapping[str, "list[bytes] | None"]
"""The tags that tokens of a kept session may carry, by its id; None: any."""


class _Mark(NamedTuple):
    tag: bytes | None
    """None: the mark cannot be read, and no token is issued under it."""
    kept: Kept


class Revocations:
    """The marks of one application in a store.

    :param store: keeps the marks; any store on a server.
    :param scope: tells this application's marks from those of others.
    :param longest: seconds that a token can live.
    :param fail_open: whether tokens count as good while the store is out of reach.
        Marks are never taken for written, whatever this says.
    """

    def __init__(
        self, store: Store, *, scope: str, longest: float, fail_open: bool
    ) -> None:
        self._store = store
        self._scope = scope
        self._longest = longest
        self._fail_open = fail_open

    # -- the tags of tokens ------------------------------------------------------------

    def begun(self, user: str | None) -> Tags:
        """The tags for a session that begins; no mark can name it yet."""
        return Tags(NO_TAG, self._login_tag(user))

    def current(self, id: str, origin: Origin) -> Tags | None:
        """The tags for what follows a token; None if that token has ended."""
        session = self._tag("session", id, id, origin.tags.session)
        if session is None:
            return None
        user = self._user_tag(id, origin)
        return None if user is None else Tags(session, user)

    def following(self, record: Record, origin: Origin) -> Tags | None:
        """The tags for the next token of a session; None if the one before has ended.

        Where the record was turned since, every token from before ends.
        """
        if record.turned == origin.turned:
            tags = self.current(record.id, origin)
        else:
            tags = self._turned(record.id, origin)
        if tags is None or record.user == origin.user:
            return tags
        return tags._replace(user=self._login_tag(record.user))

    def _turned(self, id: str, origin: Origin) -> Tags | None:
        user = self._user_tag(id, origin)
        if user is None:
            return None
        before = origin.tags.session
        session = self._write(
            "session", id, lambda mark: {} if _allows(mark, id, before) else None
        )
        return None if session is None else Tags(session, user)

    def _user_tag(self, id: str, origin: Origin) -> bytes | None:
        if origin.user is None:
            return NO_TAG
        return self._tag("user", origin.user, id, origin.tags.user)

    def _login_tag(self, user: str | None) -> bytes:
        """The tag for a login, which comes after every end of the user's sessions."""
        if user is None:
            return NO_TAG
        _, mark = self._load("user", user)
        if mark is None:
            return NO_TAG
        if mark.tag is None:  # it has ended all that there was: write it anew
            return self.end_user(user, keep=None)
        return mark.tag

    def ended_at(self, id: str) -> float | None:
        """When older tokens of a session were last ended, in epoch seconds."""
        record, _ = self._load("session", id)
        return None if record is None else record.created

    # -- ends --------------------------------------------------------------------------

    def end(self, id: str) -> None:
        """End every token of a session."""
        self._write("session", id, lambda mark: {})

    def end_user(self, user: str, *, keep: str | None) -> bytes:
        """End every token of a user, but those of the session with the id ``keep``.

        Returns the tag for the logins that follow.
        """
        tag = self._write("user", user, lambda mark: _keeping(mark, keep))
        assert tag is not None
        return tag

    # -- marks in the store ------------------------------------------------------------

    def _tag(self, kind: str, name: str, id: str, tag: bytes) -> bytes | None:
        """The tag of a mark now; None if it ends the tokens of a session with ``tag``."""
        try:
            _, mark = self._load(kind, name)
        except StoreError as error:
            if not self._fail_open:
                raise
            _log.error("no revocation is known, every cookie counts: %r", error)
            return tag
        if mark is None:
            return tag
        return mark.tag if _allows(mark, id, tag) else None

    def _write(
        self, kind: str, name: str, decide: Callable[[_Mark | None], Kept | None]
    ) -> bytes | None:
        """Put a fresh tag, with what is kept under it; nothing if that is None."""
        for _ in range(_TRIES):
            record, mark = self._load(kind, name)
            kept = decide(mark)
            if kept is None:
                return None
            tag, now = os.urandom(len(NO_TAG)), time.time()
            until = now + self._longest + SLACK
            fresh = Record(
                id=self._id(kind, name),
                version=(int.from_bytes(os.urandom(8), "big") >> 1) or 1,
                data=_encoded(tag, kept),
                created=now,
                accessed=now,
                expires=until if record is None else max(until, record.expires),
            )
            try:
                self._store.save(fresh, expect=0 if record is None else record.version)
            except VersionConflict:
                continue
            return tag
        raise StoreError(f"a mark could not be written in {_TRIES} tries")

    def _id(self, kind: str, name: str) -> str:
        marked = f"wsgisession.mark.{kind}.{self._scope}\0{name}"
        return hashlib.sha256(marked.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _load(self, kind: str, name: str) -> tuple[Record | None, _Mark | None]:
        record = self._store.load(Key(self._id(kind, name)))
        if record is None:
            return None, None
        try:
            return record, _decoded(record.data)
        except (ValueError, TypeError, LookupError, AttributeError):
            _log.error("mark %s cannot be read and counts as an end", record.id)
            return record, _Mark(None, {})


def _allows(mark: _Mark | None, id: str, tag: bytes) -> bool:
    """Whether a token that carries a tag is good under a mark."""
    if mark is None or tag == mark.tag:
        return True
    kept = mark.kept.get(id, [])
    return kept is None or tag in kept


def _keeping(mark: _Mark | None, keep: str | None) -> Kept:
    """What is kept under the mark that follows: what is good now, and nothing else.

    So a session that the mark before has ended is not revived by keeping it.
    """
    if keep is None:
        return {}
    if mark is None:
        return {keep: None}
    tags = mark.kept.get(keep, [])
    if tags is None or mark.tag is None:
        return {keep: tags}
    return {keep: [*tags, mark.tag][-_MOST_TAGS:]}


def _encoded(tag: bytes, kept: Kept) -> bytes:
    texts = {
        id: None if tags is None else [each.hex() for each in tags]
        for id, tags in kept.items()
    }
    return json.dumps({"tag": tag.hex(), "kept": texts}).encode("ascii")


def _decoded(data: bytes) -> _Mark:
    mark: dict[str, Any] = json.loads(data)
    tag = bytes.fromhex(mark["tag"])
    if len(tag) != len(NO_TAG):
        raise ValueError("a tag has another length")
    kept: dict[str, list[bytes] | None] = {
        id: None if tags is None else list(map(bytes.fromhex, tags))
        for id, tags in mark["kept"].items()
    }
    return _Mark(tag, kept)
