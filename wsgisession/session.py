"""The session as an application sees it: a dict that loads itself, and a few verbs.

Nothing happens until it is touched.  It knows the work behind it (``transaction``) and
neither HTTP nor any concrete store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from .backend import Backend
from .errors import SessionClosed
from .expiry import Expiry, utc
from .merge import ABSENT, Draft
from .record import Key, Record
from .transaction import Cookie, ReplayNeeded, Transaction

__all__ = ["CookieChange", "ReplayNeeded", "Session"]


@dataclass(frozen=True, slots=True)
class CookieChange:
    """What the client must be told: another cookie, or none any more."""

    value: str | None
    """None takes the cookie away."""
    max_age: int | None = None
    """Seconds; None until the browser closes."""

    def __repr__(self) -> str:
        return f"CookieChange(max_age={self.max_age}, expire={self.value is None})"


class Session(MutableMapping[str, Any]):
    """A visitor's values, by string keys; saved by itself when the response begins.

    Changes inside a value are seen as well: ``session["cart"].append(...)`` is enough.

    :param find: gives the keys in what the client presented; called at the first access.
    :param presented: a token or a header.
    :param locking: whether the first access takes the lock.
    :param replay: whether the caller can run its work once more on a conflict.
    """

    _transaction: Transaction | None = None
    _draft: Draft | None = None
    _sent = False
    _dropped = False
    _closed = False

    def __init__(
        self,
        backend: Backend,
        find: Callable[[str], Sequence[Key]],
        presented: str,
        *,
        locking: bool = False,
        replay: bool = False,
    ) -> None:
        self._backend = backend
        self._find = find
        self._presented = presented
        self._locking = locking
        self._replay = replay

    @classmethod
    def of_record(cls, backend: Backend, record: Record) -> Session:
        """A session that has been loaded already."""
        session = cls(backend, no_keys, "")
        session._work().adopt(record)
        return session

    # -- the first access --------------------------------------------------------------

    def _begun(self) -> Transaction:
        """The transaction, begun at the first call."""
        if self._closed:
            raise SessionClosed(
                "this session's request is over; what outlives a request must open the "
                "session by the manager"
            )
        if self._transaction is None:
            work = Transaction(self._backend, replay=self._replay)
            keys = self._find(self._presented)
            if keys:
                work.begin(keys, locking=self._locking)
            self._transaction, self._draft = work, work.draft
        return self._transaction

    def _work(self) -> Transaction:
        """The same, with the lock again that a ``save()`` in the middle has ended."""
        work = self._begun()
        if self._draft is None:
            if self._locking and self._backend.locks is not None:
                work.lock()
            self._draft = work.draft
        return work

    def _read(self) -> Draft:
        return self._draft if self._draft is not None else self._work().draft

    def _writable(self) -> Draft:
        draft = self._draft if self._draft is not None else self._work().draft
        work = self._transaction
        assert work is not None
        if work.outage is not None:
            raise work.outage
        # A cookie is needed by a new session, and by every change of one held in it.
        cookie = work.record is None or self._backend.room is not None
        if self._sent and cookie and work.gone is None:
            raise SessionClosed(
                "the headers have left, and this change would need a cookie; "
                "write to the session before the response begins"
            )
        return draft

    # -- the mapping -------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        value = self._read().get(key)
        if value is ABSENT:
            raise KeyError(key)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        value = self._read().get(key)
        return default if value is ABSENT else value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._read().has(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"session keys are strings, not {type(key).__name__}")
        self._writable().set(key, value)

    def __delitem__(self, key: str) -> None:
        self._writable().remove(key)

    def __iter__(self) -> Iterator[str]:
        return self._read().survey()

    def __len__(self) -> int:
        draft = self._read()
        draft.survey()
        return len(draft.values)

    def __ior__(self, other: Any) -> Session:  # type: ignore[misc]
        self.update(other)
        return self

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return self.copy() | dict(other)

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return dict(other) | self.copy()

    def clear(self) -> None:
        self._writable().clear()

    def copy(self) -> dict[str, Any]:
        """The values as a plain dict."""
        return dict(self.items())

    def has_key(self, key: str) -> bool:
        """``key in session``, as Django and Beaker spell it."""
        return key in self

    def __repr__(self) -> str:
        if self._closed:
            return "<Session closed>"
        if self._transaction is None:
            return "<Session not accessed>"
        work = self._transaction
        state = "new" if work.new else work.id[:8]
        return f"<Session {state} {sorted(work.draft.values)}>"

    # -- what is known about it --------------------------------------------------------

    @property
    def id(self) -> str:
        """Names the record: the SHA-256 of the token, safe to log.

        After ``rotate()``, ``regenerate()`` and ``login()`` already the new one.
        """
        return self._begun().id

    @property
    def token(self) -> str | None:
        """What the client's cookie carries; None before the first save.  Never log it."""
        token = self._begun().token
        return None if token is None else self._backend.tokens.issue(token)

    @property
    def new(self) -> bool:
        """Whether there was no stored session when this request looked."""
        return self._begun().new

    @property
    def created(self) -> datetime:
        """When the session began, in UTC; ``login()`` begins anew."""
        return utc(self._begun().created)

    @property
    def last_accessed(self) -> datetime:
        """When it was used before, in UTC, by up to ``touch_interval`` too early."""
        return utc(self._begun().accessed)

    @property
    def expires(self) -> datetime:
        """When it is over if nobody comes back, in UTC."""
        work = self._begun()
        return utc(
            work.about.expiry.deadline(
                self._backend.options, created=work.created, accessed=work.accessed
            )
        )

    @property
    def user(self) -> str | None:
        """Whom ``login()`` bound it to."""
        return self._begun().user

    @property
    def login_details(self) -> Mapping[str, Any]:
        """What ``login()`` was told beside the user."""
        return dict(self._begun().about.login)

    @property
    def accessed(self) -> bool:
        """Whether anybody has looked, in any way; asking this is not looking."""
        return self._transaction is not None

    @property
    def modified(self) -> bool:
        """Whether there is something to write; True forces it, False drops it."""
        work = self._transaction
        return work is not None and not self._closed and work.changed()

    @modified.setter
    def modified(self, value: bool) -> None:
        self._writable()
        work = self._work()
        if value:
            work.forced = True
        else:
            work.forget()

    @property
    def locked(self) -> bool:
        """Whether this request holds the session's lock."""
        return self._transaction is not None and self._transaction.locked

    @property
    def replay(self) -> bool:
        """Whether this request may be run again when what it read has changed.

        Set it to False in a handler that speaks to the outside world on a GET.
        """
        work = self._transaction
        return self._replay if work is None else work.replay

    @replay.setter
    def replay(self, value: bool) -> None:
        self._replay = self.replay and value
        if self._transaction is not None:
            self._transaction.replay = self._replay

    # -- writing, taking, leaving ------------------------------------------------------

    def save(self) -> None:
        """Write now, an empty session too, and let others in.

        Also after it what this request reads is protected: in a request that locks, the
        next look at its values takes the lock again.
        """
        self._writable()
        work = self._work()
        work.save()
        self._draft = None

    def revert(self) -> None:
        """Go back to what was loaded, in depth."""
        self._work().revert()

    def lock(self, wait: float | None = None) -> Held:
        """Take the session for this request, and load what is stored now.

        Changes made before are kept and put on top.  ``wait`` is in seconds (default:
        ``lock_wait``).  Raises ``LockTimeout``.  ``with session.lock():`` saves and
        unlocks at the end, in one store call.
        """
        self._work().lock(wait)
        return Held(self)

    def unlock(self) -> None:
        """Write what was changed and let others in, for the rest of the request.

        What is read from now on may change meanwhile; a conflict is then settled as
        ``on_conflict`` says.
        """
        self._locking = False
        work = self._work()
        if work.changed():
            work.save()
        work.unlock()

    # -- identity ----------------------------------------------------------------------

    def rotate(self) -> None:
        """A new token for the same session; the old one still leads here for 30 s.

        For renewal only: whoever planted the old token would keep the session.
        """
        self._identify("rotate").change_identity("rotate")

    def regenerate(self) -> None:
        """A new token at a change of privilege; the old one ends at once.

        Against session fixation (OWASP ASVS 7.2.4).
        """
        self._identify("regenerate").change_identity("regenerate")

    cycle_key = regenerate
    regenerate_id = regenerate

    def flush(self) -> None:
        """End the session: its record and the cookie go, and the object is empty.

        It stays unsaved unless written to.  The end is final even if the request fails.
        """
        if self._transaction is None:
            self._locking = False  # an end waits for nobody
        work = self._work()
        if work.outage is not None:
            raise work.outage
        work.end()
        self._draft = work.draft

    delete = flush
    logout = flush

    def invalidate(self) -> None:
        """End the session and begin a new one, empty but stored, with a new token."""
        self._identify("invalidate")
        self.flush()
        self._work().forced = True

    def login(self, user: str, **details: Any) -> None:
        """Bind the session to a user, under a new token.

        Values are kept, unless they are another user's.  Both clocks begin anew (NIST
        SP 800-63B-4 5.2).  ``details`` (text, numbers: device, address, ...) are for a
        list of the user's sessions.
        """
        if not isinstance(user, str) or not user:
            raise TypeError("login() takes the user's id as a string that is not empty")
        work = self._identify("login")
        if work.user in (None, user):
            work.change_identity("regenerate")
        if work.gone or work.user not in (None, user):
            self.flush()
        work.user = user
        work.about = replace(work.about, login=details)
        work.created = work.accessed = self._backend.clock()

    def _identify(self, verb: str) -> Transaction:
        work = self._work()
        if work.outage is not None:
            raise work.outage
        if self._sent:
            raise SessionClosed(
                f"the headers have left, and {verb}() would need a cookie; "
                "call it before the response begins"
            )
        return work

    # -- expiry, in Django's words -----------------------------------------------------

    def set_expiry(self, value: int | datetime | timedelta | None) -> None:
        """Let this session expire otherwise than the options say.

        An int is seconds of inactivity, 0 the browser's close, a ``datetime`` or
        ``timedelta`` a moment, None the default.  Never later than
        ``absolute_timeout`` allows.
        """
        expiry = Expiry.of(value, now=self._backend.clock())
        self._writable()
        work = self._work()
        work.about = replace(work.about, expiry=expiry)

    def get_expiry_age(
        self,
        *,
        modification: datetime | None = None,
        expiry: int | datetime | timedelta | None = None,
    ) -> int:
        """Seconds until the session is over, from now or from ``modification``."""
        start = self._moment(modification)
        return int(self._deadline(start, expiry) - start)

    def get_expiry_date(
        self,
        *,
        modification: datetime | None = None,
        expiry: int | datetime | timedelta | None = None,
    ) -> datetime:
        """When the session is over, in UTC, if it is used now or at ``modification``."""
        return utc(self._deadline(self._moment(modification), expiry))

    def _moment(self, at: datetime | None) -> float:
        return self._backend.clock() if at is None else at.timestamp()

    def _deadline(
        self, start: float, expiry: int | datetime | timedelta | None
    ) -> float:
        work = self._begun()
        asked = work.about.expiry if expiry is None else Expiry.of(expiry, now=start)
        return asked.deadline(
            self._backend.options, created=work.created, accessed=start
        )

    def get_expire_at_browser_close(self) -> bool:
        """Whether the cookie goes when the browser is closed."""
        return self._begun().about.expiry.closes_with_browser(self._backend.options)

    # -- the test cookie ---------------------------------------------------------------

    def set_test_cookie(self) -> None:
        """Begin a test of whether the browser keeps cookies."""
        self._writable()
        work = self._work()
        work.about = replace(work.about, test_cookie=True)

    def test_cookie_worked(self) -> bool:
        """Whether an earlier ``set_test_cookie()`` came back with this request."""
        work = self._begun()
        return work.about.test_cookie and not work.new

    def delete_test_cookie(self) -> None:
        """Clean up after the test."""
        self._writable()
        work = self._work()
        work.about = replace(work.about, test_cookie=False)

    # -- the end of the request; for whoever opened the session ------------------------

    def commit(self) -> CookieChange | None:
        """Settle the session before the first header leaves.

        Returns what the client must be told.  Raises ``ReplayNeeded`` where the work is
        to be done again, and whatever keeps it from being saved.
        """
        work = self._transaction
        if work is None and self._backend.options.save_every_request:
            work = self._work() if self._find(self._presented) else None
        if work is not None:
            if self._backend.options.save_every_request and work.record is not None:
                work.forced = True
            if not self._backend.options.auto:
                work.forget()
            work.commit()
        return self._leave()

    def rollback(self) -> CookieChange | None:
        """Drop what a failed request changed, but for an end, which stands."""
        if self._closed:
            return None
        self._dropped = True
        if self._transaction is not None:
            self._transaction.bury()
            self._transaction.unlock()
        return self._leave()

    def commit_late(self) -> None:
        """Write what was changed where no cookie can be set: after the headers left."""
        work = self._transaction
        if work is None or self._closed or self._dropped:
            return
        if self._backend.options.auto:
            work.commit_late()

    def _leave(self) -> CookieChange | None:
        """From here on no cookie can be set, and no lock is held by itself."""
        self._sent, self._locking = True, False
        work = self._transaction
        if work is None:
            return None
        work.draft.settle()
        if work.cookie is Cookie.EXPIRE:
            return CookieChange(None)
        if work.cookie is Cookie.KEEP or work.record is None:
            return None
        if work.gone or self.token is None:
            return None  # the client holds another by now, or none
        if self.get_expire_at_browser_close():
            return CookieChange(self.token)
        seconds = work.record.expires - self._backend.clock()
        return CookieChange(self.token, max(1, round(seconds)))

    def close(self) -> None:
        """Be closed for good; a lock that is still held goes without a save."""
        closed, self._closed, self._draft = self._closed, True, None
        if self._transaction is not None and not closed:
            self._transaction.unlock()


def no_keys(presented: str) -> Sequence[Key]:
    """What there is to find for a session that nobody presented."""
    return ()


class Held:
    """What ``with session.lock():`` holds: at its end the session is saved."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> Session:
        return self._session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._session.save()
        elif self._session._transaction is not None:
            self._session._transaction.unlock()
