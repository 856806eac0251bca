"""The data of a user, as an application holds it: one mapping for all sessions of a user.

It knows a session's access, and nothing of how the values are kept.
"""

from __future__ import annotations

from ._core.access import OfUser
from ._mapping import StoredMapping

__all__ = ["UserData"]


class UserData(StoredMapping):
    """What all sessions of a user share, with the guarantees of a session.

    It is loaded when it is looked at, saved with the session, and kept until
    ``manager.forget_user()``.  Of two devices that append to one list nothing is lost.
    """

    __slots__ = ()

    _access: OfUser

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._access.user!r}>"

    def lock(self, wait: float | None = None) -> None:
        """Take the session and then the user's values, for the rest of the request.

        ``session.unlock()`` or the end of ``with session.lock():`` saves both and
        unlocks.  ``wait`` is in seconds for each.  Raises ``LockTimeout``.
        """
        self._access.access.lock_values_of(self._access.user, wait)

    def save(self) -> None:
        """Write now, and nothing of the session.

        Raises ``SessionEnded`` where the session was ended, or the user forgotten.
        """
        self._access.access.save_values_of_user()
