"""What happens to a session at the end of a request: one table, as data.

Pure decisions about facts; the effects are in ``transaction``.  The first row that fits
decides.  An end that was asked for and after which nothing was written is carried out
before, after a failure as well.  What the client is told is decided apart, afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from itertools import product
from typing import NamedTuple


class State(Enum):
    """How a session stands, as far as this request knows."""

    ABSENT = "not stored"
    STORED = "stored"
    FLUSHED = "ended here, and to begin anew"
    ENDED = "ended by another request"

    # By identity, for every request looks its facts up in a table.
    __hash__ = object.__hash__


class Action(Enum):
    """What is done about it: at most one call of the store, and one to unlock."""

    BEGIN_ANEW = "save under the same id and a new proof"
    LOG_IN_ANEW = "insert under a new id, or turn what the user has just begun"
    REPORT = "nothing; what was written is dropped, and that is told"
    INSERT = "save, expecting nothing"
    SAVE = "save, expecting what was loaded"
    ROTATE = "save under a new proof, best effort"
    CONFIRM = "save that the new token was seen, best effort"
    TOUCH = "touch, best effort"
    UNLOCK = "unlock"
    NONE = "nothing"


class Facts(NamedTuple):
    """All that the decision depends on."""

    state: State
    is_worth_storing: bool = False
    """Of a session that is not stored: whether there is something to keep."""
    has_logged_in: bool = False
    wants_token: bool = False
    """A new token was asked for, and is not the one that a rotation has made already."""
    has_changed: bool = False
    rotation_is_due: bool = False
    is_unseen: bool = False
    """The current token was presented, and that is not noted in the record yet."""
    touch_is_due: bool = False
    has_lease: bool = False


class Row(NamedTuple):
    """A line of the table: every fact that is named here must hold."""

    state: State | None
    facts: frozenset[str]
    action: Action

    def fits(self, facts: Facts) -> bool:
        """Whether the row is about such facts."""
        if self.state is not None and self.state is not facts.state:
            return False
        return all(getattr(facts, name) for name in self.facts)


def _row(state: State | None, facts: str, action: Action) -> Row:
    return Row(state, frozenset(facts.split()), action)


TABLE = (
    _row(State.FLUSHED, "is_worth_storing", Action.BEGIN_ANEW),
    _row(State.ENDED, "has_logged_in", Action.LOG_IN_ANEW),
    _row(State.ENDED, "has_changed", Action.REPORT),
    _row(State.ENDED, "", Action.NONE),
    _row(State.ABSENT, "is_worth_storing", Action.INSERT),
    _row(State.ABSENT, "", Action.NONE),
    _row(State.STORED, "wants_token", Action.SAVE),
    _row(State.STORED, "has_changed", Action.SAVE),
    _row(State.STORED, "rotation_is_due", Action.ROTATE),
    _row(State.STORED, "is_unseen", Action.CONFIRM),
    _row(State.STORED, "touch_is_due", Action.TOUCH),
    _row(None, "has_lease", Action.UNLOCK),
    _row(None, "", Action.NONE),
)


def every_combination() -> Iterator[Facts]:
    """All facts that there can be, possible or not."""
    for state in State:
        for flags in product((False, True), repeat=len(Facts._fields) - 1):
            yield Facts(state, *flags)


def first_that_fits(facts: Facts) -> Action:
    """The action of the first row that fits."""
    return next(row.action for row in TABLE if row.fits(facts))


DECISIONS = {facts: first_that_fits(facts) for facts in every_combination()}
"""The table, walked through once: a request looks its facts up."""


class Cookie(Enum):
    """What the client is told."""

    KEEP = "keep"
    SET = "set"
    EXPIRE = "expire"


class Sent(NamedTuple):
    """The facts for the cookie, after the action."""

    has_unsent_token: bool = False
    """A token was saved that the client does not hold yet."""
    has_ended: bool = False
    """This request ended the session, or flushed a cookie that leads nowhere."""
    must_renew: bool = False
    """The expiry was changed and saved, or half of the 400 days is over."""
    holds_current: bool = False
    """The client came with the current token, so that it can be sent again."""


def cookie(sent: Sent) -> Cookie:
    """A reader is sent nothing: its answer may come after that of a login."""
    if sent.has_unsent_token:
        return Cookie.SET
    if sent.has_ended:
        return Cookie.EXPIRE
    if sent.must_renew and sent.holds_current:
        return Cookie.SET
    return Cookie.KEEP
