"""Deliberate breaks of the rules about what the sessions of a user share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .breaks import breaks


@breaks("1", "9", kind="shared")
def a_session_is_saved_before_what_its_user_shares(patch: pytest.MonkeyPatch) -> None:
    """Then the request is run again, and what it did to the session counts twice."""
    from wsgisession._core.access import Access

    def wrong(self: Any, end: Callable[[], None]) -> None:
        end()
        side = self._user_side
        if side is not None:
            self.transaction.work._runs_once = False
            try:
                side.save()
            finally:
                side.release()

    patch.setattr(Access, "_carry_out", wrong)


@breaks("1", kind="shared")
def shared_values_are_written_blindly(patch: pytest.MonkeyPatch) -> None:
    """After a conflict nothing is merged: what this request knew is written."""
    from wsgisession._core.user_values import UserValues

    def blind(self: Any, record: Any) -> None:
        before, self._record = self._record, record
        if self._copy is None or before is None or record is None:
            meet(self, record)

    meet = UserValues._meet
    patch.setattr(UserValues, "_meet", blind)


@breaks("2", kind="shared")
def a_post_does_not_lock_what_it_shares(patch: pytest.MonkeyPatch) -> None:
    """Two posts of two sessions of a user meet, and neither can be run again."""
    from wsgisession._core.user_values import UserValues

    look = UserValues.look

    def bare(self: Any, *, locks: bool) -> Any:
        return look(self, locks=False)

    patch.setattr(UserValues, "look", bare)


@breaks("2", kind="shared")
def a_conflict_of_shared_values_is_not_run_again(patch: pytest.MonkeyPatch) -> None:
    """It is decided by ``on_conflict``, though the request is a GET of this site."""
    from wsgisession._core.user_side import UserSide

    patch.setattr(UserSide, "_overtaken", lambda self, keys: None)


@breaks("1", kind="shared")
def a_failed_request_keeps_what_it_shared(patch: pytest.MonkeyPatch) -> None:
    """It is saved when the leases end."""
    from wsgisession._core.user_side import UserSide

    release = UserSide.release

    def saving(self: Any) -> None:
        if self._transaction.replay_due is None:
            self.save_values()
        release(self)

    patch.setattr(UserSide, "release", saving)
