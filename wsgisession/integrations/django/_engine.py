"""``SessionStore``, as Django and its applications know it, over a session of ours.

Bound to a request by our middleware it is a view of that request's session.  By itself,
as a test, a task or Django's own middleware makes it, it opens and saves one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import SESSION_KEY as USER_KEY
from django.contrib.sessions.backends.base import SessionBase, UpdateError

from ..._mapping import StoredMapping
from ...errors import SessionEnded
from ...session import Session
from ._settings import get_manager


class Values(Session):
    """The session's values, as ``django.contrib.auth`` uses them."""

    __slots__ = ()

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a value; that of Django's ``login()`` logs in here, under a new token."""
        if key == USER_KEY:
            self.login(str(value))
        super().__setitem__(key, value)

    def clear(self) -> None:
        """Take the values away; the session stays, as in Django."""
        StoredMapping.clear(self)


class SessionStore(SessionBase):
    """Django's session.

    ``session_key`` is the token that a client presents.  Bound to a request it is the
    id, which never changes and opens nothing: the token of a request is in no attribute.
    """

    accessed: bool
    modified: bool
    _session_cache: Any

    def __init__(
        self, session_key: str | None = None, *, bound: Session | None = None
    ) -> None:
        super().__init__(session_key)
        self._bound = bound

    @property
    def session(self) -> Session:
        """The session of ours behind it."""
        values: Session = self._get_session()
        return values

    # -- values --------------------------------------------------------------------------

    def _get_session(self, no_load: bool = False) -> Any:
        """What all methods of Django's base class work on."""
        self.accessed = True
        try:
            return self._session_cache
        except AttributeError:
            self._session_cache = self._opened(None if no_load else self.session_key)
        return self._session_cache

    _session = property(_get_session)

    def _opened(self, key: str | None) -> Values:
        if self._bound is not None:
            values = self._bound.view(Values)
            self._session_key = None if values.new else values.id
            return values
        manager = get_manager()
        session = manager.create() if key is None else manager.open(key)
        if session.new:
            self._session_key = None
        return session.view(Values)

    async def _aget_session(self, no_load: bool = False) -> Any:
        """The same, loaded: what follows is done in memory."""

        def loaded() -> Any:
            values = self._get_session(no_load)
            return values, values.new

        values, _ = await sync_to_async(loaded)()
        return values

    def clear(self) -> None:
        """Take all values away; the session stays."""
        self._get_session().clear()
        self.modified = True

    def set_expiry(self, value: int | datetime | timedelta | None) -> None:
        """Let this session expire otherwise than the settings say."""
        super().set_expiry(value)
        self.session.set_expiry(value)

    async def aset_expiry(self, value: int | datetime | timedelta | None) -> None:
        """The same."""
        await sync_to_async(self.set_expiry)(value)

    # -- the store -----------------------------------------------------------------------

    def load(self) -> Any:
        """The values of the stored session; none if there is none."""
        if self._bound is None:
            return self._opened(self.session_key)
        return get_manager().get(self.session.id) or {}

    def exists(self, session_key: str | None) -> bool:
        """Whether a session has that key."""
        return session_key is not None and not get_manager().open(session_key).new

    def create(self) -> None:
        """Store a new session, without values as well."""
        if self._bound is None:
            self._session_cache = get_manager().create().view(Values)
        self._save()
        self.modified = True

    def save(self, must_create: bool = False) -> None:
        """Write now.  Raises ``UpdateError`` where another request ended the session."""
        if must_create and self._bound is None:
            rest = self._get_session(no_load=True).copy()
            self._session_cache = get_manager().create().view(Values)
            self._session_cache.update(rest)
        self._save()

    def _save(self) -> None:
        values = self.session
        values.modified = True
        try:
            values.save()
        except SessionEnded as error:
            raise UpdateError from error
        bound = self._bound is not None
        self._session_key = values.id if bound else get_manager().token_of(values)

    def delete(self, session_key: str | None = None) -> None:
        """End a session, this one if none is named."""
        if session_key is None and self._bound is not None:
            self.flush()
            return
        key = session_key or self.session_key
        if key is not None and not (session := get_manager().open(key)).new:
            get_manager().end(session.id)

    def flush(self) -> None:
        """End the session; what is written afterwards begins a new one."""
        if self._bound is not None:
            self.session.flush()
            self.accessed = self.modified = True
        else:
            self.delete()
            self._session_cache = get_manager().create().view(Values)
        self._session_key = None

    def force(self) -> None:
        """Write even if nothing has changed; but nothing of a visitor without values."""
        values = self.session
        if not values.new or values:
            values.modified = True

    async def aflush(self) -> None:
        """The same."""
        await sync_to_async(self.flush)()

    def cycle_key(self) -> None:
        """A new token for the same values; no older one is good."""
        self.session.regenerate()
        self.modified = True
        if self._bound is None:
            self._save()

    async def acycle_key(self) -> None:
        """The same."""
        await sync_to_async(self.cycle_key)()

    @classmethod
    def clear_expired(cls) -> None:
        """Forget what has expired, where the store does not by itself (clearsessions)."""
        if get_manager().store.capabilities.lists:
            get_manager().delete_expired()
