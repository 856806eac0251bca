"""Sessions of one store: opened, listed, edited and ended, in a request or outside.

It knows stores by their protocols and cookies by their values.  It must not know WSGI.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from . import cookies
from .backend import Backend
from .envelope import Envelope
from .errors import ConfigurationError
from .options import Options, flatten, refuse_unknown
from .record import Key
from .serializers import JSONSerializer
from .session import Session, no_keys
from .store import (
    IterableStore,
    LockingStore,
    Store,
    TokenStore,
    UserEndingStore,
)
from .stores import choose, encrypted
from .tokens import OpaqueTokens, PlainTokens, SignedTokens, Tokens

log = logging.getLogger("wsgisession")

SWEEP = 1000
"""Records that are forgotten in one step of a clean-up."""


class SessionManager:
    """Opens the sessions of one store.

    :param store: keeps the records.
    :param options: see ``Options``.
    :param clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        options: Options | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(store, Store):
            raise ConfigurationError(
                f"{type(store).__name__} is no store: it needs the methods load, save, "
                "touch and delete of wsgisession.store.Store"
            )
        options = options or Options()
        if options.encrypt:
            store = _encrypted(store, options)
        if options.locking == "always" and not isinstance(store, LockingStore):
            raise ConfigurationError(
                f"locking='always' needs a store that can lock; "
                f"{type(store).__name__} cannot"
            )
        serializer = options.serializer
        self.store = store
        self.options = options
        self._backend = Backend(
            store=store,
            locks=store if isinstance(store, LockingStore) else None,
            tokens=_tokens(store, options),
            envelope=Envelope(
                JSONSerializer() if serializer == "json" else serializer,
                options.max_size,
            ),
            options=options,
            clock=clock,
            room=cookies.room(options) if isinstance(store, TokenStore) else None,
        )

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] | None = None, **options: Any
    ) -> SessionManager:
        """Make the store and the manager from flat settings.

        Raises ``ConfigurationError`` for whatever is unknown or wrong.
        """
        settings = flatten(config, options)
        store = settings.pop("store", None)
        names = Options.names()
        if store is not None:
            refuse_unknown(settings, names)
            return cls(store, Options(**settings))
        choice = choose(settings)
        refuse_unknown(settings, {*names, "url", "type"} | choice.options)
        own = Options(**{k: v for k, v in settings.items() if k in names})
        settings = {
            k: v for k, v in settings.items() if k not in {*names, "url", "type"}
        }
        arguments = {k: getattr(own, k) for k in choice.options & set(names)}
        arguments |= choice.arguments
        for name in settings.keys() & arguments.keys():
            raise ConfigurationError(f"{name} is given twice, once by the url")
        arguments |= settings
        if isinstance(url := arguments.get("revocation"), str):
            arguments["revocation"] = _revocation(url)
        for name in sorted(choice.needed - arguments.keys()):
            raise ConfigurationError(f"this store needs the option {name}")
        return cls(choice.make(**arguments), own)

    # -- one session -------------------------------------------------------------------

    def create(self) -> Session:
        """A new session; it is stored by ``save()``, which makes its ``token``."""
        return Session(self._backend, no_keys, "")

    def open(
        self, token: str, *, locking: bool = False, replay: bool = False
    ) -> Session:
        """The session of a token, or a new one if the token leads nowhere.

        Nothing is looked up before the first access.
        """
        return Session(
            self._backend, self._keys_of, token, locking=locking, replay=replay
        )

    def open_cookie(
        self, header: str, *, locking: bool = False, replay: bool = False
    ) -> Session:
        """The same, from a ``Cookie`` header, however malformed."""
        return Session(
            self._backend, self._keys_in, header, locking=locking, replay=replay
        )

    def _keys_of(self, token: str) -> Sequence[Key]:
        return self._recognised([token])

    def _keys_in(self, header: str) -> Sequence[Key]:
        values = cookies.find(self.options, header)
        if len(values) > cookies.MAX_VALUES:
            log.warning("more than %d session cookies at once", cookies.MAX_VALUES)
            return ()
        return self._recognised(values)

    def _recognised(self, values: Sequence[str]) -> Sequence[Key]:
        recognise = self._backend.tokens.recognise
        return [key for value in values if (key := recognise(value)) is not None]

    def get(self, id: str) -> Session | None:
        """The session with an id, for administration; None if there is none."""
        record = self.store.load(Key(id))
        if record is None or record.state != "live":
            return None
        session = Session.of_record(self._backend, record)
        return None if session.new else session

    @contextmanager
    def edit(self, id: str) -> Iterator[Session]:
        """Hold the lock of a session for a ``with`` block, and save it at the end.

        An exception in the block drops what it changed.  Raises ``KeyError`` if there
        is no such session.
        """
        locking = self._backend.locks is not None
        session = Session(self._backend, lambda id: [Key(id)], id, locking=locking)
        try:
            if session.new:
                raise KeyError(id)
            yield session
            session.commit()
        finally:
            session.close()

    def end(self, id: str) -> bool:
        """End a session, whoever holds its lock; False if there was none."""
        record = self.store.load(Key(id))
        if record is None or record.state != "live":
            return False
        self.store.delete(record)
        return True

    # -- many sessions -----------------------------------------------------------------

    def sessions(self) -> Iterator[Session]:
        """All live sessions, streamed; each may be edited or ended meanwhile."""
        return self._opened(None)

    def sessions_of(self, user: str) -> Iterator[Session]:
        """The live sessions of one user, in no particular order."""
        return self._opened(user)

    def _opened(self, user: str | None) -> Iterator[Session]:
        for record in self._iterable().records(user=user):
            session = Session.of_record(self._backend, record)
            if not session.new:
                yield session

    def end_user(self, user: str, *, keep: str | None = None) -> int:
        """End all sessions of a user, but the one with the id ``keep``.

        Returns how many there were, where the store can see them; else 0.  It looks
        until there are none, for one may get another id while it is at work.
        """
        if isinstance(self.store, UserEndingStore):
            self.store.end_user(user, keep=keep)
            return 0
        store, ended = self._iterable(), 0
        while True:
            doomed = [r for r in store.records(user=user) if r.id != keep]
            if not doomed:
                return ended
            for record in doomed:
                store.delete(record)
            ended += len(doomed)

    def delete_expired(self, progress: Callable[[int], object] | None = None) -> int:
        """Forget what has expired, in batches; returns how many records it was.

        ``progress`` is called with the number so far after each batch.
        """
        store, total = self._iterable(), 0
        while (swept := store.delete_expired(batch=SWEEP)) > 0:
            total += swept
            if progress is not None:
                progress(total)
        return total

    def _iterable(self) -> IterableStore:
        if isinstance(self.store, IterableStore):
            return self.store
        raise ConfigurationError(
            f"{type(self.store).__name__} cannot list its sessions; "
            "that needs a store on the server with records() and delete_expired()"
        )


def _encrypted(store: Store, options: Options) -> Store:
    if not isinstance(store, TokenStore):
        return encrypted(store, options.secret)
    if getattr(store, "encrypted", False):
        return store
    raise ConfigurationError(
        f"encrypt=True, but {type(store).__name__} was made without it: what a client "
        "holds is encrypted by the store that issues it; give it the option too"
    )


def _revocation(url: str) -> Store:
    choice = choose({"url": url})
    for name in sorted(choice.needed - choice.arguments.keys()):
        raise ConfigurationError(
            f"revocation must be a store on the server, and this one needs {name}; "
            "make it first, and give the object"
        )
    store: Store = choice.make(**choice.arguments)
    return store


def _tokens(store: Store, options: Options) -> Tokens:
    if isinstance(store, TokenStore):
        return OpaqueTokens(min(store.max_token, cookies.room(options)))
    if options.secret:
        return SignedTokens(options.secret, options.cookie_name)
    return PlainTokens()
