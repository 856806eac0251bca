"""The end of a request: every combination of facts, against a second account of it.

The expected actions are told here in terms of what is in the store and in the client's
jar, and not taken from the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from wsgisession._core import outcome
from wsgisession._core.outcome import (
    DECISIONS,
    TABLE,
    Action,
    Cookie,
    Facts,
    Sent,
    State,
    cookie,
    every_combination,
)


@dataclass(frozen=True)
class After:
    """What the store holds after the request, as far as this request decides it."""

    values: bool = False
    """What the request wrote is in a record."""
    old_token_is_dead: bool = False
    new_id: bool = False
    new_token: bool = False
    clock_moved: bool = False
    token_noted: bool = False
    told: bool = False
    """The application was told that something was dropped."""
    best_effort: bool = False


EFFECTS = {
    Action.BEGIN_ANEW: After(
        values=True, old_token_is_dead=True, new_token=True, clock_moved=True
    ),
    Action.LOG_IN_ANEW: After(
        values=True, new_id=True, new_token=True, clock_moved=True, told=True
    ),
    Action.REPORT: After(told=True),
    Action.INSERT: After(values=True, new_id=True, new_token=True, clock_moved=True),
    Action.SAVE: After(values=True, clock_moved=True),
    Action.ROTATE: After(new_token=True, clock_moved=True, best_effort=True),
    Action.CONFIRM: After(token_noted=True, clock_moved=True, best_effort=True),
    Action.TOUCH: After(clock_moved=True, best_effort=True),
    Action.UNLOCK: After(),
    Action.NONE: After(),
}


def should_be(facts: Facts) -> After:
    """What a user expects to find afterwards, told without the table."""
    gone = facts.state is State.ENDED
    flushed = facts.state is State.FLUSHED
    absent = facts.state is State.ABSENT
    if (flushed or absent) and facts.is_worth_storing:
        # It began here, so it is kept here; after a logout no older token may lead there.
        return After(
            values=True,
            old_token_is_dead=flushed,
            new_id=absent,
            new_token=True,
            clock_moved=True,
        )
    if gone:
        # A logout elsewhere is not undone; but a proven login is not lost either.
        if facts.has_logged_in:
            return EFFECTS[Action.LOG_IN_ANEW]
        return After(told=facts.has_changed)
    if flushed or absent:
        return After()
    if facts.wants_token or facts.has_changed:
        return After(values=True, clock_moved=True)
    if facts.rotation_is_due:
        return After(new_token=True, clock_moved=True, best_effort=True)
    if facts.is_unseen:
        return After(token_noted=True, clock_moved=True, best_effort=True)
    return After(clock_moved=facts.touch_is_due, best_effort=facts.touch_is_due)


def is_right(action: Action, facts: Facts) -> bool:
    """Whether an action leaves things as they should be."""
    unlocks = action is Action.UNLOCK
    return EFFECTS[action] == should_be(facts) and unlocks == only_unlocks(facts)


def only_unlocks(facts: Facts) -> bool:
    """Whether a lease is all that there is to be ended."""
    writes = should_be(facts) != After() or facts.state is State.ENDED
    dropped = facts.state is State.ABSENT
    return facts.has_lease and not writes and not dropped


COMBINATIONS = list(every_combination())
DECIDED_BY = {
    number: [
        facts
        for facts in COMBINATIONS
        if next(n for n, row in enumerate(TABLE) if row.fits(facts)) == number
    ]
    for number in range(len(TABLE))
}
"""The combinations that each row decides."""


def test_every_combination_ends_as_it_should() -> None:
    """All 1024 of them."""
    assert len(DECISIONS) == len(COMBINATIONS) == 4 * 2**8
    assert [f for f in COMBINATIONS if not is_right(DECISIONS[f], f)] == []


@pytest.mark.parametrize("number", range(len(TABLE)))
def test_each_row_matters(number: int) -> None:
    """A row that says something else is found out, whatever it says."""
    assert DECIDED_BY[number]
    for action in set(Action) - {TABLE[number].action}:
        assert not all(is_right(action, facts) for facts in DECIDED_BY[number])


@pytest.mark.parametrize("number", range(len(TABLE) - 1))
def test_no_row_can_be_left_out(number: int) -> None:
    """What it decides would be decided otherwise by a row below."""
    rest = TABLE[number + 1 :]
    without = {
        facts: next(row.action for row in rest if row.fits(facts))
        for facts in DECIDED_BY[number]
    }
    assert not all(is_right(action, facts) for facts, action in without.items())


# -- the cookie --------------------------------------------------------------------------


def in_the_jar(sent: Sent) -> Cookie:
    """What the browser should be told, from what it holds and must be able to do."""
    if sent.has_unsent_token:
        return Cookie.SET  # else it could not come back, whatever else happened
    if sent.has_ended:
        return Cookie.EXPIRE  # what it holds leads nowhere
    renewed = sent.must_renew and sent.holds_current
    return Cookie.SET if renewed else Cookie.KEEP


def test_every_combination_tells_the_client_what_it_needs() -> None:
    """All 16 of them."""
    flags = [False, True]
    for one in flags:
        for two in flags:
            for three in flags:
                for four in flags:
                    sent = Sent(one, two, three, four)
                    assert cookie(sent) is in_the_jar(sent)


def test_a_reader_is_told_nothing() -> None:
    """P4: its answer may arrive after that of a login."""
    assert cookie(Sent(holds_current=True)) is Cookie.KEEP


def test_the_table_names_facts_that_there_are() -> None:
    """A misspelt fact would never hold, or raise at a request."""
    for row in TABLE:
        assert row.facts <= set(Facts._fields[1:])
    assert outcome.first_that_fits(Facts(State.STORED)) is Action.NONE
