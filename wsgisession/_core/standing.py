"""Whether a client's secret is good, and how a session gets a new token.

Pure functions of a record, a proof and the time; this file knows neither stores nor
values.  The id of a session never changes; its token does, and the record remembers the
proofs of at most three tokens from before.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from hmac import compare_digest

from .._crypto.tokens import Token
from ..record import Record, Replaced

WINDOW_UNSEEN = 10.0
"""Seconds after a change of the token for which an older one is ended, not unknown.

Not longer while nobody has presented the new token: of two clicks on "Log in" the browser
drops the first answer and its cookie, and the user has to get in by another try."""

WINDOW_SEEN = 60.0
"""The same, from the moment in which the new token was first presented."""

KEPT = 3
"""Proofs from before that a record remembers."""


class Standing(IntEnum):
    """What a presented secret is worth, from nothing to everything."""

    STRANGER = 0
    """It leads nowhere."""
    REUSED = 1
    """It was replaced by a rotation long ago: perhaps a stolen copy."""
    ENDED = 2
    """It was replaced just now: it reads nothing, and gets no cookie."""
    PREVIOUS = 3
    """It was replaced by a rotation and is still good."""
    CURRENT = 4


class Turn(IntEnum):
    """A change of the token; the strongest wish of a request counts."""

    NONE = 0
    ROTATE = 1
    """Renewal: the token before stays good for a while."""
    AGAIN = 2
    """A second login of one user with the same old token: the first login's token stays
    good until the new one has been seen."""
    REGENERATE = 3
    """A change of privilege: no older token is good from now on."""


def judge(record: Record, proof: str | None, now: float) -> Standing:
    """The standing of a client; None for administration, which may do anything, but for
    records without a proof: they are reserved for our own use, and no sessions.
    """
    if proof is None:
        return Standing.CURRENT if record.proof else Standing.STRANGER
    if compare_digest(proof, record.proof):
        return Standing.CURRENT
    if record.admits(proof, now):
        return Standing.PREVIOUS
    if record.replaced and window_is_open(record, now):
        return Standing.ENDED
    for each in record.replaced:
        if compare_digest(proof, each.proof) and each.until != 0:
            return Standing.REUSED
    return Standing.STRANGER


def window_is_open(record: Record, now: float) -> bool:
    """Whether the token was changed so lately that requests with an old one may come.

    A change that lies far ahead was made by a host whose clock is fast; it counts as
    long ago, or nobody could log in until our clock gets there.
    """
    if record.seen is None:
        return abs(now - record.turned) < WINDOW_UNSEEN
    return abs(now - record.seen) < WINDOW_SEEN


def may_end(record: Record, proof: str | None, now: float) -> bool:
    """Whether a client with this proof may end the session.

    Who may use it may end it; any known proof may during the window, for the client that
    logs out may not have met the new token yet.  Later a planted token has no power.
    """
    if record.admits(proof, now):
        return True
    return window_is_open(record, now) and record.knows(proof)


def may_rotate(record: Record, standing: Standing, now: float, grace: float) -> bool:
    """Whether a rotation is still to be done, where one is asked for or due.

    With a previous token it has been done already, unless nobody has presented the
    successor for so long that it must be taken as lost.
    """
    if standing is Standing.CURRENT:
        return True
    return record.seen is None and now >= record.turned + grace


def is_unseen(record: Record, standing: Standing) -> bool:
    """Whether a client presents the current token, and that has not been noted yet."""
    return (
        standing is Standing.CURRENT and record.seen is None and bool(record.replaced)
    )


def confirmed(record: Record, now: float, grace: float) -> Record:
    """The record once its current token was presented: rotated ones end after a grace."""
    replaced = tuple(
        each._replace(until=now + grace) if each.until is None else each
        for each in record.replaced
    )
    return record._replace(seen=now, replaced=replaced)


def turned(
    record: Record,
    turn: Turn,
    token: Token,
    now: float,
    *,
    presented: str | None,
    is_unsent: bool,
) -> Record:
    """The record under a new token.

    :param presented: the proof of the client that asks.
    :param is_unsent: the current token was made by this very request and has not left:
        it is simply replaced.
    """
    current = [] if is_unsent else [record.proof]
    first = presented if presented is not None else record.proof
    proofs = _unique([first, *current, *(each.proof for each in record.replaced)])
    if is_unsent:
        proofs = [each for each in proofs if each != record.proof]
    until = {each.proof: each.until for each in record.replaced}
    if turn is Turn.REGENERATE:
        until = dict.fromkeys(proofs, 0.0)
    elif not is_unsent:
        good = [record.proof] if turn is Turn.AGAIN else [first, record.proof]
        until |= dict.fromkeys(good)
    kept = [Replaced(each, until.get(each, 0.0)) for each in proofs[:KEPT]]
    return record._replace(
        proof=token.proof,
        turned=max(now, record.turned + 0.001),
        seen=None,
        replaced=tuple(kept),
    )


def _unique(proofs: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(proofs))
