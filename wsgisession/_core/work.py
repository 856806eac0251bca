"""The unit of work: all that one request knows of its session, and wants of it.

Bookkeeping without I/O: of the repository it asks the time, the options and the codec.
The calls of the store are in ``transaction``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._crypto.tokens import Token, new_token, renewed
from .._made import made
from ..record import Key, Record
from .expiry import DEFAULT, Meta
from .first_look import Found, Plan
from .merge import WorkingCopy
from .outcome import Cookie, Facts, Sent, State, cookie
from .repository import Repository, Stored, is_good
from .standing import (
    Standing,
    Turn,
    confirmed,
    is_unseen,
    may_end,
    may_rotate,
    turned,
)


class Work:
    """What a request knows of its session and wants of it."""

    __slots__ = (
        "_begins_anyway",
        "_has_ended",
        "_id",
        "_is_client",
        "_is_forced",
        "_is_unsent",
        "_key",
        "_renews_cookie",
        "_repository",
        "_runs_once",
        "_token",
        "_turn",
        "copy",
        "has_logged_in",
        "meta",
        "new",
        "plan",
        "presented_several",
        "rivals",
        "state",
        "stored",
        "waited",
    )

    def __init__(self, repository: Repository, plan: Plan, found: Found) -> None:
        self._repository = repository
        self.plan = plan
        self.state = State.ABSENT
        self.stored: Stored | None = None
        """As it is stored now, with our lease if we have one."""
        self.meta: Meta
        """As it is to be stored."""
        self.copy: WorkingCopy
        self.new, self.has_logged_in = True, False
        self.rivals = found.rivals
        """Several live sessions that the client presented at once; none is used."""
        self.presented_several = len(plan.keys) > 1
        self.waited = found.waited
        """Seconds for which the lock was waited for, until something is written."""
        self._runs_once = False
        """Whether the request must not be run again, whatever the plan says."""
        self._id: str | None = None
        self._key = key = found.key
        """What the client presented for this session."""
        self._is_client = key is not None and (key.proof or key.token) is not None
        """Whether a client presented it, and not administration by an id."""
        self._token: Token | None = None
        """A token that this request has made."""
        self._turn = Turn.NONE
        self._begins_anyway = False
        """Whether what a post from another site may do was done here as well."""
        self._is_unsent = self._is_forced = self._has_ended = False
        self._renews_cookie = False
        if found.stored is not None:
            self._id = found.stored.record.id
            if is_good(found.stored):
                # Any exception from here means that the record is corrupt.
                self.copy = WorkingCopy(repository.codec, found.stored.record.data)
                self.state, self.stored = State.STORED, found.stored
                self.meta, self.new = found.stored.meta, False
                return
            self.state, self.stored = State.ENDED, found.stored
        now = repository.now()
        self.meta, self.copy = Meta(now, now), WorkingCopy(repository.codec)

    @property
    def can_replay(self) -> bool:
        """Whether the request can still be run again."""
        return not self._runs_once and self.plan.can_replay()

    def forbid_replay(self) -> None:
        """From here on the request must not be run again."""
        self._runs_once = True

    # -- identity ----------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Of the stored session, or of the one that would be stored."""
        if self._id is None:
            self._id = self.own_token().id
        return self._id

    @property
    def is_administered(self) -> bool:
        """Whether the session was opened by its id, so that no client is answered."""
        return self._key is not None and not self._is_client

    @property
    def _is_by_client(self) -> bool:
        """Whether a client presented the token: it is seen and in use."""
        return self._is_client and self._token is None

    def own_token(self) -> Token:
        """The token for a session that is not stored."""
        if self._token is None:
            self._token = new_token()
        return self._token

    def take_another_id(self) -> None:
        """The session that would be stored is to be another one."""
        self.state, self.stored = State.ABSENT, None
        self._id, self._token = None, None

    @property
    def token(self) -> str | None:
        """What the client holds or is to hold; None if we cannot know it."""
        if self.stored is None or self.state is not State.STORED:
            return None
        if self.stored.record.token is not None:
            return self.stored.record.token
        if self._token is not None:
            return self._token.text
        if self._key is not None and self.stored.standing is Standing.CURRENT:
            return self._key.token
        return None

    @property
    def presented(self) -> str | None:
        """The proof that the client came with."""
        return None if self._key is None else self._key.proof

    @property
    def own_key(self) -> Key:
        """Leads to the record, with the newest proof that we know to be good."""
        if self._token is not None:
            return Key(self.id, self._token.proof)
        return Key(self.id, self.presented)

    def turn(self, turn: Turn) -> None:
        """Ask for a new token; of several wishes the strongest counts."""
        self._turn = max(self._turn, turn)
        if turn is Turn.REGENERATE:
            self._runs_once = self._begins_anyway = True

    def log_in(self, user: str, details: Mapping[str, Any]) -> None:
        """Bind the session to a user.  The values of another user go."""
        now = self._repository.now()
        if self.state is State.STORED and self.meta.user not in (None, user):
            self.copy = WorkingCopy(self._repository.codec, replaces_all=True)
        self.meta = self.meta._replace(
            user=user, login=dict(details), created=now, accessed=now
        )
        self.has_logged_in = True
        self.turn(Turn.REGENERATE)

    def flush(self) -> None:
        """End the session; what is written from here on begins anew."""
        now = self._repository.now()
        if self.state is State.STORED:
            self.state = State.FLUSHED
        elif self.state is State.ENDED:
            stored = self.stored
            known = stored is not None and may_end(stored.record, self.presented, now)
            self.state = State.FLUSHED if known else State.ABSENT
        if self.state is State.ABSENT:
            self.take_another_id()
        flushed = self.state is State.FLUSHED
        self.copy = WorkingCopy(self._repository.codec, replaces_all=flushed)
        self.meta, self.new = Meta(now, now), True
        self._runs_once, self.has_logged_in = True, False
        self._is_forced = self._is_unsent = False
        self._turn, self._token = Turn.NONE, None
        self._has_ended, self._begins_anyway = self.plan.has_cookie, True

    @property
    def has_to_end(self) -> bool:
        """Whether an end that was asked for here has not been carried out yet."""
        return self.state is State.FLUSHED or (self._has_ended and bool(self.rivals))

    # -- values that are dropped or forced ---------------------------------------------

    def force(self) -> None:
        """Write even if nothing has changed."""
        self._is_forced = True

    def revert(self) -> None:
        """Go back to the stored values; an identity that was asked for persists."""
        self.copy.revert()
        self._is_forced = False
        base = self.stored.meta if self.state is State.STORED and self.stored else None
        self.meta = self.meta._replace(
            expiry=DEFAULT if base is None else base.expiry,
            test_cookie=base is not None and base.test_cookie,
        )

    def has_changed(self) -> bool:
        """Whether the end of the request has anything to write, to end or to drop."""
        facts = self.facts(self._repository.now(), is_first=False)
        if facts.state is State.STORED or facts.state is State.ENDED:
            return facts.wants_token or facts.has_changed or facts.has_logged_in
        return facts.state is State.FLUSHED or facts.is_worth_storing

    def needs_cookie(self) -> bool:
        """Whether what is to be written is of no use without a new cookie."""
        is_new = self.state is State.ABSENT or self.state is State.FLUSHED
        return is_new or self._turn is not Turn.NONE

    # -- the facts ---------------------------------------------------------------------

    def facts(self, now: float, *, is_first: bool) -> Facts:
        """What the table decides on; a rotation is due at the first try only."""
        state, stored = self.state, self.stored
        if state is State.ABSENT or state is State.FLUSHED:
            return Facts(state, is_worth_storing=self.is_worth_storing())
        changed = self.copy.has_changed() or self._is_forced
        if state is State.ENDED or stored is None:
            return Facts(
                State.ENDED, has_logged_in=self.has_logged_in, has_changed=changed
            )
        options, meta = self._repository.options, self.meta
        by_client = self._is_client and self._token is None
        facts = (
            state,
            False,
            False,
            self._turn is not Turn.NONE and self.wanted_turn(now) is not Turn.NONE,
            changed or (meta is not stored.meta and meta != stored.meta),
            is_first and options.rotate_every is not None and self.rotation_is_due(now),
            by_client
            and bool(stored.record.replaced)
            and is_unseen(stored.record, stored.standing),
            by_client and meta.touch_is_due(options, now),
            stored.record.lease is not None,
        )
        return made(Facts, facts)

    @property
    def locked(self) -> bool:
        """Whether this request holds the lock."""
        stored = self.stored
        if stored is None or stored.record.lease is None:
            return False
        return self._repository.locks is not None

    def is_worth_storing(self) -> bool:
        """An expiry alone is not; a test cookie is, because it was asked for."""
        if not (self._may_begin() or self._is_forced):
            return False
        has_values = bool(self.copy.values) and self.copy.has_changed()
        has_meta = self.meta.user is not None or self.meta.test_cookie
        return has_values or has_meta or self._is_forced

    @property
    def is_kept_back(self) -> bool:
        """Whether a post from another site wrote what its browser will not find."""
        if self.plan.may_begin or self._begins_anyway:
            return False
        if self.state is State.ABSENT:
            return bool(self.copy.values)
        return self._is_unsent

    def _may_begin(self) -> bool:
        """Whether a new session may begin: also a post from another site may end one,
        or ask for a new token, as a login does.
        """
        return self.plan.may_begin or self._begins_anyway

    def wanted_turn(self, now: float) -> Turn:
        """The change of the token that was asked for and is still to be done."""
        stored = self.stored
        if self._turn is not Turn.ROTATE or stored is None:
            return self._turn
        if self._is_unsent:
            return Turn.NONE  # nobody holds the token that it would renew
        grace = self._repository.options.rotate_grace
        todo = may_rotate(stored.record, stored.standing, now, grace)
        return Turn.ROTATE if todo else Turn.NONE

    def turn_at(self, now: float, *, is_first: bool) -> Turn:
        """The change of the token that a save makes; a due one at the first try."""
        turn = self._turn if self._turn is Turn.NONE else self.wanted_turn(now)
        is_due = turn is Turn.NONE and is_first and self.rotation_is_due(now)
        return Turn.ROTATE if is_due else turn

    def rotation_is_due(self, now: float) -> bool:
        """Whether the token is older than ``rotate_every``."""
        options, stored = self._repository.options, self.stored
        every = options.rotate_every
        if every is None or not self._is_by_client:
            return False
        if stored is None or self._repository.token_room is not None:
            return False
        return now - stored.record.turned >= every and may_rotate(
            stored.record, stored.standing, now, options.rotate_grace
        )

    # -- what is written ---------------------------------------------------------------

    def data(self, now: float) -> bytes:
        """What is to be saved; every save moves the idle clock."""
        options = self._repository.options
        meta = self.meta.used(now)
        if options.absolute_timeout is None and (
            self.stored is None or meta.cookie_is_late(options, now)
        ):
            meta = meta._replace(sent=now)
        self.meta = meta
        return self._repository.codec.encode(meta, self.copy.values)

    def record(self, turn: Turn, now: float) -> tuple[Record, Token | None]:
        """The record that the data goes into, and its new token."""
        if (stored := self.stored) is None:
            token = self.own_token()
            record = Record(token.id, 0, b"", now, now, now, None, token.proof, now)
            return record, token
        record = stored.record
        if (
            record.replaced
            and self._is_by_client
            and is_unseen(record, stored.standing)
        ):
            grace = self._repository.options.rotate_grace
            record = confirmed(record, now, grace)
        return (record, None) if turn is Turn.NONE else self._turned(record, turn, now)

    def _turned(self, record: Record, turn: Turn, now: float) -> tuple[Record, Token]:
        token = renewed(record.id)
        if self._repository.token_room is not None:  # the record is the token
            if turn is not Turn.ROTATE:
                record = record._replace(turned=max(now, record.turned + 0.001))
            return record, token
        presented, is_unsent = self.presented, self._is_unsent
        new = turned(record, turn, token, now, presented=presented, is_unsent=is_unsent)
        return new, token

    def note(self, new: Stored, token: Token | None) -> None:
        """The store holds ``new`` now."""
        if self.stored is not None:
            old = self.stored.meta
            if (old.expiry, old.sent) != (new.meta.expiry, new.meta.sent):
                self._renews_cookie = True
        if token is not None:
            self._token, self._is_unsent, self._turn = token, True, Turn.NONE
        if new.record.token is not None:
            self._is_unsent = True
        if self.stored is None:
            self._key, self._is_client = None, False
        self.stored, self.meta, self.state = new, new.meta, State.STORED
        self._is_forced, self._runs_once = False, True
        self.waited = 0.0
        self.copy.settle(new.record.data)

    # -- what the client is told -------------------------------------------------------

    def cookie(self) -> Cookie:
        """What the client has to be told."""
        if not (self._is_unsent or self._has_ended or self._renews_cookie):
            return Cookie.KEEP
        is_stored = self.state is State.STORED
        return cookie(
            Sent(
                has_unsent_token=is_stored and self._is_unsent and self._may_begin(),
                has_ended=self._has_ended and not self.has_to_end,
                must_renew=self._renews_cookie,
                holds_current=self.token is not None,
            )
        )

    def renew_cookie(self) -> None:
        """Send the token that the client holds once more."""
        self._renews_cookie = True

    def sent(self) -> None:
        """The headers have left, and the token with them."""
        self._turn = Turn.NONE
        self._is_unsent = self._renews_cookie = False
        self._runs_once = True
