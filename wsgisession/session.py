"""The session as an application holds it: a dict that loads itself, and a few verbs.

Nothing happens until it is used.  It knows the work behind it and neither HTTP nor any
concrete store; the verbs of who answers the request are not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

from ._core.access import Access, OfUser
from ._core.expiry import DEFAULT, Expiry, Wish, utc
from ._core.outcome import State
from ._core.standing import Turn
from ._core.transaction import Transaction
from ._mapping import StoredMapping
from ._settings import user_id
from .user_data import UserData

__all__ = ["LockGuard", "Session"]

_View = TypeVar("_View", bound="Session")


class _Asked:
    """The type of the default of ``expiry=``, where None is a wish of its own."""


_AS_ASKED = _Asked()


class Session(StoredMapping):
    """A visitor's values, by string keys; saved by itself when the response begins.

    Changes inside a value are seen as well: ``session["cart"].append(...)`` is enough.
    Made by the middleware or by a ``SessionManager``, never by an application.
    """

    __slots__ = ()

    _access: Access

    def view(self, cls: type[_View]) -> _View:
        """The same session with the methods of a subclass, for a framework's names."""
        return cls(self._access)

    # -- the mapping -------------------------------------------------------------------

    def clear(self) -> None:
        """End the session, as ``flush()`` does: this is how people log out.

        In ``manager.edit()``, where no client can be given a new token, only the values
        go.
        """
        transaction = self._access.transaction
        if transaction is not None and transaction.work.is_administered:
            self._access.writing().work.copy.clear()
        else:
            self.flush()

    def __repr__(self) -> str:
        transaction = self._access.transaction
        if transaction is None:
            return f"<{type(self).__name__} not accessed>"
        work = transaction.work
        state = "new" if work.new else work.id[:8]
        return f"<{type(self).__name__} {state} {sorted(work.copy.values)}>"

    # -- what is known about it --------------------------------------------------------

    def _work(self) -> Transaction:
        return self._access.begun()

    @property
    def id(self) -> str:
        """Names the session from its beginning to its end, through every login; safe to
        log, because nobody can make a token of it.
        """
        return self._work().work.id

    @property
    def new(self) -> bool:
        """Whether there was no stored session when this request looked."""
        return self._work().work.new

    @property
    def ended(self) -> bool:
        """Whether another request has ended the session, as far as this one knows."""
        return self._work().work.state is State.ENDED

    @property
    def created(self) -> datetime:
        """When the session began, in UTC; ``login()`` begins anew."""
        return utc(self._work().work.meta.created)

    @property
    def last_accessed(self) -> datetime:
        """When it was used before, in UTC, by up to ``touch_interval`` too early."""
        return utc(self._work().work.meta.accessed)

    @property
    def expires(self) -> datetime:
        """When it is over if nobody comes back, in UTC."""
        meta = self._work().work.meta
        return utc(meta.deadline(self._access.repository.options, meta.accessed))

    @property
    def user(self) -> str | None:
        """The user that ``login()`` bound it to."""
        return self._work().work.meta.user

    @property
    def user_data(self) -> UserData:
        """What all sessions of this user share; ``LookupError`` without a user."""
        if (user := self.user) is None:
            raise LookupError(
                "this session has no user; user_data needs a login() first"
            )
        return UserData(OfUser(self._access, user))

    @property
    def login_details(self) -> Mapping[str, Any]:
        """What ``login()`` was told beside the user."""
        return dict(self._work().work.meta.login)

    @property
    def accessed(self) -> bool:
        """Whether the session was used in any way; asking this is no use of it."""
        return self._access.transaction is not None

    @property
    def modified(self) -> bool:
        """Whether there is something to write; True forces it, False drops it."""
        transaction = self._access.transaction
        if transaction is None or self._access.is_closed:
            return False
        return transaction.work.has_changed()

    @modified.setter
    def modified(self, value: bool) -> None:
        work = self._access.writing().work
        if value:
            work.force()
        else:
            work.revert()

    @property
    def locked(self) -> bool:
        """Whether this request holds the session's lock."""
        transaction = self._access.transaction
        return transaction is not None and transaction.work.locked

    # -- writing, taking, leaving ------------------------------------------------------

    def save(self) -> None:
        """Write now, an empty session too, and let other requests in.

        Returns only when that has happened; raises ``SessionEnded`` where another request
        has ended the session.  In a request that locks, the next look takes the lock
        again.
        """
        self._access.save()

    def revert(self) -> None:
        """Go back to what was loaded, in depth; a login or an end persists."""
        self._access.in_store().work.revert()

    def lock(self, wait: float | None = None) -> LockGuard:
        """Take the session for this request, and load what is stored now.

        Changes made before are kept and put on top.  ``wait`` is in seconds (default: the
        option ``lock_wait``).  Raises ``LockTimeout``.  ``with session.lock():`` saves
        what was changed and unlocks at its end; it may be nested.
        """
        guard = LockGuard(self, locked_before=self._access.locks)
        self._access.lock(wait)
        return guard

    def unlock(self) -> None:
        """Write what was changed and let other requests in, for the rest of this one.

        What is read from now on may change at any time; a conflict is then settled as
        ``on_conflict`` says.
        """
        self._access.unlock()

    def no_replay(self) -> None:
        """Let this request never be run again.

        For a handler that speaks to the outside world on a GET.
        """
        self._access.forbid_replay()

    # -- identity ----------------------------------------------------------------------

    def rotate(self) -> None:
        """A new token for the same session; the one before stays good for a while.

        For renewal only: a stolen token would keep the session.
        """
        self._access.writing("rotate()").work.turn(Turn.ROTATE)

    def regenerate(self) -> None:
        """A new token at a change of privilege; no older one is good from then on.

        Against session fixation (OWASP ASVS 7.2.4).
        """
        self._access.writing("regenerate()").work.turn(Turn.REGENERATE)

    def flush(self) -> None:
        """End the session: its record and the cookie go, and the object is empty.

        It stays unsaved unless written to.  The end is final even if the request fails.
        """
        self._access.flush()

    def logout(self) -> None:
        """End the session, as ``flush()`` does."""
        self.flush()

    def login(self, user: str | int, **details: Any) -> None:
        """Bind the session to a user, under a new token; no older token is good.

        An id that is a whole number is kept as its digits: ``login(42)`` is ``"42"``.
        Values are kept, unless they are another user's.  Both clocks begin anew (NIST
        SP 800-63B-4 5.2).  ``details`` (text, numbers: device, address, ...) are for a
        list of the user's sessions.  Raises ``TooManySessions`` where the options limit
        them and ``at_session_limit`` is "refuse".
        """
        self._access.log_in(user_id(user), details)

    # -- expiry, in Django's words -----------------------------------------------------

    def set_expiry(self, value: Wish) -> None:
        """Let this session expire otherwise than the options say.

        An int is seconds of inactivity, 0 the browser's close, a ``datetime`` or
        ``timedelta`` a moment, None the default.  Never later than
        ``absolute_timeout`` and ``profile`` allow: that is cut, and logged once.
        """
        expiry = Expiry.of(value, now=self._access.repository.now())
        work = self._access.writing().work
        work.meta = work.meta._replace(expiry=expiry)
        self._access.repository.warn_if_cut(work.meta)

    def get_expiry_age(
        self,
        *,
        modification: datetime | None = None,
        expiry: Wish | _Asked = _AS_ASKED,
    ) -> int:
        """Seconds until the session is over, from now or from ``modification``."""
        start = self._moment(modification)
        return int(self._deadline(start, expiry) - start)

    def get_expiry_date(
        self,
        *,
        modification: datetime | None = None,
        expiry: Wish | _Asked = _AS_ASKED,
    ) -> datetime:
        """When the session is over, in UTC, if it is used now or at ``modification``."""
        return utc(self._deadline(self._moment(modification), expiry))

    def _moment(self, at: datetime | None) -> float:
        return self._access.repository.now() if at is None else at.timestamp()

    def _deadline(self, start: float, expiry: Wish | _Asked) -> float:
        meta = self._work().work.meta
        if not isinstance(expiry, _Asked):
            asked = DEFAULT if expiry is None else Expiry.of(expiry, now=start)
            meta = meta._replace(expiry=asked)
        return meta.deadline(self._access.repository.options, start)

    def get_expire_at_browser_close(self) -> bool:
        """Whether the cookie goes when the browser is closed."""
        return self._work().work.meta.ends_with_browser(self._access.repository.options)

    # -- the test cookie ---------------------------------------------------------------

    def set_test_cookie(self) -> None:
        """Begin a test of whether the browser keeps cookies."""
        work = self._access.writing().work
        work.meta = work.meta._replace(test_cookie=True)

    def test_cookie_worked(self) -> bool:
        """Whether an earlier ``set_test_cookie()`` came back with this request."""
        work = self._work().work
        return work.meta.test_cookie and not work.new

    def delete_test_cookie(self) -> None:
        """Clean up after the test."""
        work = self._access.writing().work
        work.meta = work.meta._replace(test_cookie=False)


class LockGuard:
    """What ``with session.lock():`` holds: the outermost saves at its end and unlocks."""

    __slots__ = ("_locked_before", "_session")

    def __init__(self, session: Session, *, locked_before: bool) -> None:
        self._session = session
        self._locked_before = locked_before

    def __enter__(self) -> Session:
        self._session._access.enter_lock()
        return self._session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session._access.leave_lock(
            is_failed=kind is not None, locked_before=self._locked_before
        )
