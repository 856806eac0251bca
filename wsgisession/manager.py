"""Sessions of one store: opened, listed, edited and ended, in a request or outside.

It knows stores by their protocols and cookies by their values.  It must not know WSGI.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from ._access import access_of
from ._core.access import Access
from ._core.cleanup import BATCH, Cleanup
from ._core.codec import Codec
from ._core.first_look import Found, Plan
from ._core.repository import Repository, Stored
from ._core.reserved import OF_A_USER, key_of
from ._core.standing import Standing
from ._core.transaction import ReplayNeeded, Transaction
from ._core.user_values import UserValues
from ._core.watched import WatchedStore
from ._crypto.tokens import OpaqueTokens, PlainTokens, SignedTokens, Tokens
from ._http.cookies import Cookies
from ._http.notices import Notices
from ._mapping import StoredMapping
from ._outages import Outages
from ._settings import user_id
from .errors import ConfigurationError, LockTimeout
from .events import Replayed
from .options import Options, flatten, refuse_unknown
from .record import Key, Record
from .session import Session
from .store import (
    Capabilities,
    ClosingStore,
    IterableStore,
    LockingStore,
    MarkingStore,
    Store,
    TokenStore,
    UserEndingStore,
)
from .stores import SELECTORS, choose, encrypted, owners

__all__ = ["SessionManager"]

_log = logging.getLogger("wsgisession")


class SessionManager:
    """Opens the sessions of one store.

    :param store: keeps the records.
    :param options: see ``Options``.
    :param clock: seconds since the epoch, for tests; None: the system's.

    Raises ``ConfigurationError`` for a store and options that do not fit together.

    ``repository``, ``tokens``, ``cookies``, ``notices`` and ``cleanup`` are for the code
    that answers requests.
    """

    def __init__(
        self,
        store: Store | TokenStore,
        options: Options | None = None,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        options = options or Options()
        can = _capabilities(store)
        for problem in _beyond(can, options):
            raise ConfigurationError(f"{problem}; {type(store).__name__} cannot")
        if options.encrypt and not can.encrypts:
            store = encrypted(cast(Store, store), options.secret)
        self.store = store
        self.options = options
        self.cookies: Cookies = Cookies(options)
        self.tokens: Tokens = _tokens(can, options, self.cookies.room)
        if options.on_event is not None:
            store = cast(Store, WatchedStore(store, options.on_event))
        self.repository: Repository = Repository(
            store=store,
            locks=cast(LockingStore, store) if can.locks else None,
            codec=Codec(options.serializer, options.max_size),
            options=options,
            clock=clock,
            token_room=None if can.token_octets is None else self.cookies.room,
            fills=can.fills,
            outages=Outages(),
        )
        sweeps = can.lists and can.locks and not can.forgets
        self.cleanup: Cleanup = Cleanup(
            self.repository, cast(IterableStore, self.store) if sweeps else None
        )
        self.notices: Notices = Notices(options, is_alone=can.one_process)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any] | None = None,
        *,
        clock: Callable[[], float] | None = None,
        **options: Any,
    ) -> SessionManager:
        """Make the store and the manager from flat settings.

        ``clock`` gives seconds since the epoch, for tests.  Raises
        ``ConfigurationError`` for whatever is unknown or wrong.
        """
        settings = flatten(config, options)
        choice, names = choose(settings), Options.names()
        refuse_unknown(settings, cls.option_names(settings), owners)
        own = Options(**{k: v for k, v in settings.items() if k in names})
        return cls(choice.made(settings, own), own, clock=clock)

    @staticmethod
    def option_names(settings: Mapping[str, Any]) -> frozenset[str]:
        """The bare names of all options that may stand beside these settings.

        They depend on the store.  Raises ``ConfigurationError`` where none is chosen.
        """
        return frozenset(Options.names()) | {*SELECTORS} | choose(settings).options

    # -- one session -------------------------------------------------------------------

    def create(self) -> Session:
        """A new session; it is stored by ``save()``, which makes its token."""
        return self._opened(())

    def open(
        self, token: str | None, *, locking: bool = False, replay: bool = False
    ) -> Session:
        """The session of a token, or a new one if the token leads nowhere.

        None is a client that has none.  Nothing is looked up before the first access.
        """
        keys = () if token is None else self.recognised([token])
        return self._opened(keys, locking=locking, replay=replay)

    def open_cookie(
        self, header: str, *, locking: bool = False, replay: bool = False
    ) -> Session:
        """The same, from a ``Cookie`` header, however malformed."""
        keys = self.recognised(self.cookies.values(header))
        return self._opened(keys, locking=locking, replay=replay)

    def _opened(
        self, keys: Sequence[Key], *, locking: bool = False, replay: bool = False
    ) -> Session:
        plan = Plan(keys, locking, can_replay=lambda: replay, has_cookie=bool(keys))
        return Session(Access(self.repository, lambda: plan))

    def recognised(self, values: Sequence[str]) -> Sequence[Key]:
        """The keys in what a client presented; what was not issued here is left out."""
        keys = []
        for value in values:
            if (key := self.tokens.recognise(value)) is not None:
                keys.append(key)
            elif self.tokens.is_signed_elsewhere(value):
                self.repository.is_refused(None, "bad signature")
                self.notices.of_other_secret()
            else:
                self.repository.is_refused(None, "malformed")
        return keys

    def token_of(self, session: Session) -> str | None:
        """What a client has to present to get this session; never log it.

        None before the first save, and where only the client knows it.
        """
        token = access_of(session).begun().work.token
        return None if token is None else self.tokens.issue(token)

    def get(self, id: str) -> Session | None:
        """The session with an id, for administration; None if there is none."""
        key = Key(id)
        stored = self.repository.find(key)
        return None if stored is None else self._session(stored)

    def _session(self, stored: Stored) -> Session | None:
        """A session of a record that was loaded; None if that is corrupt."""
        access = Access(self.repository, Plan)
        found = Found(stored, Key(stored.record.id))
        access.transaction = Transaction(self.repository, Plan(), found)
        return None if access.transaction.work.new else Session(access)

    @contextmanager
    def edit(self, id: str) -> Iterator[Session]:
        """Hold the lock of a session for a ``with`` block, and save it at the end.

        An exception in the block drops what it changed.  Raises ``KeyError`` if there
        is no such session.
        """
        access = Access(
            self.repository, lambda: Plan([Key(id)], locks=True, by="edit()")
        )
        session = Session(access)
        try:
            if session.new:
                raise KeyError(id)
            yield session
            access.commit_whatever_auto_says()
        finally:
            access.close()

    def end(self, id: str, *, user: str | int | None = None) -> bool:
        """End a session at once; False if there was none.

        With ``user`` only if it is that user's, in the same step: for an id that comes
        from a form.  A store of cookies cannot tell, and ends nothing then.
        """
        owner = None if user is None else user_id(user)
        return self.repository.delete(Key(id), user=owner)

    # -- many sessions -----------------------------------------------------------------

    def sessions(self) -> Iterator[Session]:
        """All live sessions, streamed; each may be edited or ended in between."""
        return self._listed(None)

    def sessions_of(self, user: str | int) -> Iterator[Session]:
        """The live sessions of one user, in no particular order."""
        return self._listed(user_id(user))

    def _listed(self, user: str | None) -> Iterator[Session]:
        for record in self._iterable().records(user=user):
            if not record.proof:
                continue  # reserved for our own use, and no session
            now = self.repository.now()
            stored = self.repository.opened(record, Standing.CURRENT, now)
            session = None if stored is None else self._session(stored)
            if session is not None:
                yield session

    def end_user(self, user: str | int, *, keep: str | None = None) -> int:
        """End all sessions of a user, but the one with the id ``keep``.

        Returns how many there were, where the store can see them; else 0.  A session that
        the user begins while this is at work may be a later login, and stay.
        """
        user, lists = user_id(user), _capabilities(self.store).lists
        if not lists and isinstance(self.store, UserEndingStore):
            self.store.end_user(user, keep=keep)
            return 0
        store, ended = self._iterable(), 0
        while True:
            found = sum(
                self.repository.delete(Key(record.id), user=user)
                for record in store.records(user=user)
                if record.id != keep
            )
            if not found:
                return ended
            ended += found

    def forget_user(self, user: str | int) -> int:
        """End all sessions of a user, and then delete the user's data.

        Returns how many sessions there were, as ``end_user()`` does.
        """
        ended = self.end_user(user)
        if _capabilities(self.store).token_octets is None:
            for purpose in OF_A_USER:
                self.store.delete(key_of(purpose, user_id(user)))
        return ended

    @contextmanager
    def edit_user_data(self, user: str | int) -> Iterator[StoredMapping]:
        """Hold the lock of a user's data for a ``with`` block, and save it at the end.

        An exception in the block drops what it changed.
        """
        values = UserValues(
            self.repository, user_id(user), "edit_user_data()", lambda keys: None
        )
        try:
            values.lock(None)
            yield StoredMapping(values)
            values.save()
        finally:
            values.release()

    def delete_expired(self, progress: Callable[[int], object] | None = None) -> int:
        """Forget what has expired, in batches; returns how many records it was.

        ``progress`` is called with the number so far after each batch.
        """
        store, total = self._sweepable(), 0
        while (swept := store.delete_expired(batch=BATCH)) > 0:
            total += swept
            if progress is not None:
                progress(total)
        return total

    def _sweepable(self) -> IterableStore:
        """Where something expires: of cookies it is what is remembered of their ends."""
        marks = self.store.marks if isinstance(self.store, MarkingStore) else None
        if marks is not None and _capabilities(marks).lists:
            return cast(IterableStore, marks)
        return self._iterable()

    def _iterable(self) -> IterableStore:
        if _capabilities(self.store).lists:
            return cast(IterableStore, self.store)
        raise ConfigurationError(
            f"{type(self.store).__name__} cannot list its sessions; "
            "that needs a store on the server with records() and delete_expired()"
        )

    # -- the store -----------------------------------------------------------------------

    def ping(self) -> None:
        """Ask the store for a session that nobody has; for a health check.

        Raises ``StoreError`` where the store is out of reach.
        """
        now, token = self.repository.now(), None
        probe = Record("0" * 32, 1, b"", now, now, now + 60)
        if _capabilities(self.store).token_octets is not None:
            token = cast(TokenStore, self.store).save(probe, expect=0)
        self.store.load(Key(probe.id, "0" * 64, token))

    def close(self) -> None:
        """Close what the store keeps open while it is idle; it may be used on."""
        if isinstance(self.store, ClosingStore):
            self.store.close()

    # -- what is logged ----------------------------------------------------------------

    def tell_of_replay(self, path: str, due: ReplayNeeded) -> None:
        """Tell that a request is run a second time, and because of which keys."""
        keys = tuple(sorted(due.keys))
        self.notices.of_replay(path, keys)
        self.repository.tell(Replayed(id=due.id, keys=keys, path=path))

    def tell_of_failure(self, error: Exception) -> None:
        """Log that a request was refused because its session could not be had or kept.

        An outage meets every request, and is one line a minute; a lock that could not
        be had is a matter of one session.
        """
        if isinstance(error, LockTimeout):
            _log.warning("%s; answering 503", error)
        else:
            self.repository.failed(error, "answering 503")


def _capabilities(store: object) -> Capabilities:
    can = getattr(store, "capabilities", None)
    if isinstance(store, type):
        raise ConfigurationError(
            f"store is the class {store.__name__}; give an object of it, as in "
            f"{store.__name__}(...)"
        )
    if not isinstance(can, Capabilities):
        raise ConfigurationError(
            f"{type(store).__name__} is no store: it needs the attribute capabilities "
            "and the methods of wsgisession.store.Store"
        )
    needs: list[type] = [TokenStore if can.token_octets is not None else Store]
    needs += [LockingStore] if can.locks else []
    needs += [IterableStore] if can.lists else []
    needs += [UserEndingStore] if can.ends_users else []
    for protocol in needs:
        if not isinstance(store, protocol):
            raise ConfigurationError(
                f"{type(store).__name__} is not what its capabilities say: it lacks "
                f"methods of wsgisession.store.{protocol.__name__}"
            )
    return can


def _beyond(can: Capabilities, options: Options) -> Iterator[str]:
    """What the options ask of a store that cannot do it."""
    if options.encrypt and can.token_octets is not None and not can.encrypts:
        yield (
            "with encrypt=True a store that issues what clients hold has to encrypt it, "
            "and must be given the option too"
        )
    if options.max_sessions_per_user is not None and not (can.locks and can.lists):
        yield "max_sessions_per_user needs a store on the server that locks and lists"
    if options.locking == "always" and not can.locks:
        yield "locking='always' needs a store that can lock"


def _tokens(can: Capabilities, options: Options, room: int) -> Tokens:
    if can.token_octets is not None:
        return OpaqueTokens(min(can.token_octets, room))
    if options.secret:
        return SignedTokens(options.secret, options.cookie_name)
    return PlainTokens()
