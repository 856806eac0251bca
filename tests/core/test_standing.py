"""Whether a secret is good, at every moment after each change of the token."""

from __future__ import annotations

import pytest

from wsgisession._core.standing import (
    Standing,
    Turn,
    confirmed,
    is_unseen,
    judge,
    may_end,
    may_rotate,
    turned,
)
from wsgisession._crypto.tokens import new_token, renewed
from wsgisession.record import Record

NOW = 1_800_000_000.0
GRACE = 300.0
FIRST, SECOND, THIRD = (renewed("ab" * 16) for _ in range(3))
RECORD = Record(
    "ab" * 16, 1, b"", NOW, NOW, NOW + 9e6, proof=FIRST.proof, turned=NOW - 1000
)


def turn(
    record: Record,
    how: Turn,
    token: object = SECOND,
    *,
    at: float = NOW,
    presented: str | None = FIRST.proof,
    is_unsent: bool = False,
) -> Record:
    return turned(
        record,
        how,
        token,  # type: ignore[arg-type]
        at,
        presented=presented,
        is_unsent=is_unsent,
    )


ROTATED = turn(RECORD, Turn.ROTATE)
SEEN = confirmed(ROTATED, NOW + 100, GRACE)
LOGGED_IN = turn(RECORD, Turn.REGENERATE)
LOGGED_IN_SEEN = confirmed(LOGGED_IN, NOW + 5, GRACE)


TOKENS = {"FIRST": FIRST, "SECOND": SECOND, "THIRD": THIRD}


@pytest.mark.parametrize(
    ("record", "token", "after", "standing"),
    [
        (RECORD, "FIRST", 0, Standing.CURRENT),
        (RECORD, None, 0, Standing.CURRENT),
        (RECORD, "SECOND", 0, Standing.STRANGER),
        # a rotation whose answer may have been lost: the old token stays good
        (ROTATED, "SECOND", 0, Standing.CURRENT),
        (ROTATED, "FIRST", 0, Standing.PREVIOUS),
        (ROTATED, "FIRST", 1e6, Standing.PREVIOUS),
        (ROTATED, "THIRD", 5, Standing.ENDED),
        (ROTATED, "THIRD", 15, Standing.STRANGER),
        # once the new token was seen, a grace, then it is a copy that was kept
        (SEEN, "FIRST", 100 + 299, Standing.PREVIOUS),
        (SEEN, "FIRST", 100 + 301, Standing.REUSED),
        (SEEN, "THIRD", 100 + 59, Standing.ENDED),
        (SEEN, "THIRD", 100 + 61, Standing.STRANGER),
        # a login: ended for a short while, then forgotten
        (LOGGED_IN, "FIRST", 0, Standing.ENDED),
        (LOGGED_IN, "FIRST", 9, Standing.ENDED),
        (LOGGED_IN, "FIRST", 11, Standing.STRANGER),
        (LOGGED_IN_SEEN, "FIRST", 5 + 59, Standing.ENDED),
        (LOGGED_IN_SEEN, "FIRST", 5 + 61, Standing.STRANGER),
        (LOGGED_IN_SEEN, "SECOND", 5 + 61, Standing.CURRENT),
    ],
)
def test_the_standing_of_a_secret(
    record: Record, token: str | None, after: float, standing: Standing
) -> None:
    """By what replaced it, and when."""
    proof = None if token is None else TOKENS[token].proof
    assert judge(record, proof, NOW + after) is standing


def test_a_fast_host_does_not_keep_the_window_open() -> None:
    """A change an hour ahead of our clock counts as over, or nobody could log in."""
    ahead = turn(RECORD, Turn.REGENERATE, at=NOW + 3600)
    assert judge(ahead, FIRST.proof, NOW) is Standing.STRANGER
    little = turn(RECORD, Turn.REGENERATE, at=NOW + 3)
    assert judge(little, FIRST.proof, NOW) is Standing.ENDED


def test_no_turn_goes_back_in_time() -> None:
    """``turned`` is later than it was, also where the clock is behind."""
    behind = turn(LOGGED_IN, Turn.ROTATE, THIRD, at=NOW - 50, presented=SECOND.proof)
    assert behind.turned > LOGGED_IN.turned


class TestTurning:
    def test_a_rotation_leaves_the_presented_token_good(self) -> None:
        """A lost answer logs nobody out, however long it takes to come back."""
        assert ROTATED.replaced == ((FIRST.proof, None),)
        assert ROTATED.seen is None

    def test_ten_lost_answers_log_nobody_out(self) -> None:
        """The token that the client holds is kept first, whatever is rotated."""
        record = RECORD
        for number in range(1, 11):
            at = NOW + number * GRACE
            standing = judge(record, FIRST.proof, at)
            assert may_rotate(record, standing, at, GRACE)
            token = renewed(record.id)
            record = turn(record, Turn.ROTATE, token, at=at)
            assert judge(record, FIRST.proof, at) is Standing.PREVIOUS
            assert len(record.replaced) <= 3

    def test_also_the_token_before_stays_good_then(self) -> None:
        """An answer that comes late must not be worth less than none."""
        again = turn(ROTATED, Turn.ROTATE, THIRD, at=NOW + GRACE)
        assert judge(again, SECOND.proof, NOW + GRACE) is Standing.PREVIOUS
        assert judge(again, FIRST.proof, NOW + GRACE) is Standing.PREVIOUS

    def test_a_previous_token_rotates_only_what_nobody_has_seen(self) -> None:
        """A copy in its grace cannot take the session over."""
        previous = Standing.PREVIOUS
        assert not may_rotate(SEEN, previous, NOW + 1000, GRACE)
        assert not may_rotate(ROTATED, previous, NOW + GRACE - 1, GRACE)
        assert may_rotate(ROTATED, previous, NOW + GRACE, GRACE)
        assert may_rotate(SEEN, Standing.CURRENT, NOW, GRACE)

    def test_after_a_regeneration_no_older_token_is_good(self) -> None:
        """Whatever is rotated after it."""
        login = turn(ROTATED, Turn.REGENERATE, THIRD, presented=SECOND.proof)
        fourth = renewed(RECORD.id)
        rotated = turn(login, Turn.ROTATE, fourth, presented=THIRD.proof)
        for record in (login, rotated):
            for token in (FIRST, SECOND):
                for after in (0, 5, 100, 1e6):
                    assert judge(record, token.proof, NOW + after) < Standing.PREVIOUS
        assert judge(rotated, THIRD.proof, NOW) is Standing.PREVIOUS

    def test_a_token_that_has_not_left_is_simply_replaced(self) -> None:
        """It is nobody's, so it is not remembered."""
        login = turn(ROTATED, Turn.REGENERATE, THIRD, is_unsent=True)
        assert [each.proof for each in login.replaced] == [FIRST.proof]
        assert judge(login, FIRST.proof, NOW) is Standing.ENDED

    def test_the_second_click_on_log_in_leaves_the_first_one_good(self) -> None:
        """The browser has dropped one of the two answers, and nobody knows which."""
        again = turn(LOGGED_IN, Turn.AGAIN, THIRD)
        assert judge(again, THIRD.proof, NOW) is Standing.CURRENT
        assert judge(again, SECOND.proof, NOW) is Standing.PREVIOUS
        assert judge(again, FIRST.proof, NOW) is Standing.ENDED

    def test_three_proofs_are_remembered(self) -> None:
        """The presented one first, then the newest."""
        record, presented = RECORD, FIRST.proof
        for _ in range(6):
            token = renewed(record.id)
            record = confirmed(record, NOW, GRACE)
            record = turn(record, Turn.ROTATE, token, presented=presented)
            presented = token.proof
        assert len(record.replaced) == 3


class TestEnding:
    def test_who_may_use_a_session_may_end_it(self) -> None:
        """The current token, and one that a rotation has replaced."""
        assert may_end(ROTATED, SECOND.proof, NOW + 1e6)
        assert may_end(ROTATED, FIRST.proof, NOW + 1e6)

    def test_a_known_token_may_during_the_window(self) -> None:
        """A logout under way at a login is meant."""
        assert may_end(LOGGED_IN, FIRST.proof, NOW + 9)
        assert not may_end(LOGGED_IN, FIRST.proof, NOW + 11)
        assert may_end(LOGGED_IN_SEEN, FIRST.proof, NOW + 5 + 59)
        assert not may_end(LOGGED_IN_SEEN, FIRST.proof, NOW + 5 + 61)

    def test_an_invented_secret_never_may(self) -> None:
        """The id alone, which is in every log, ends nothing."""
        invented = new_token().proof
        for after in (0, 5, 100):
            assert not may_end(LOGGED_IN, invented, NOW + after)


class TestConfirming:
    def test_the_first_look_with_the_new_token_is_noted(self) -> None:
        """Only where there is an older token that has to end."""
        assert is_unseen(ROTATED, Standing.CURRENT)
        assert not is_unseen(ROTATED, Standing.PREVIOUS)
        assert not is_unseen(SEEN, Standing.CURRENT)
        assert not is_unseen(RECORD, Standing.CURRENT)

    def test_what_a_login_ended_stays_ended(self) -> None:
        """Noting the new token gives no grace to the old one."""
        assert LOGGED_IN_SEEN.replaced == ((FIRST.proof, 0.0),)
