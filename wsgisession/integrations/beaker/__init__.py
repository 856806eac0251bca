"""Beaker: ``from wsgisession.integrations.beaker import SessionMiddleware`` is the one
line that changes; what Beaker's sessions are called and can do stays.

It knows Beaker's names.  What its options mean is told by ``options``; what becomes of a
session is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any
from uuid import uuid4

from ..._access import access_of
from ..._core.reserved import Purpose
from ..._core.user_values import UserValues
from ..._http.exchange import MANAGER_KEY, Environ, Exchange
from ..._mapping import StoredMapping
from ...errors import ConfigurationError
from ...manager import SessionManager
from ...middleware import App, StartResponse, get_manager
from ...middleware import SessionMiddleware as Middleware
from ...session import Session as OurSession
from ._options import settings_of

__all__ = [
    "BeakerSession",
    "NamedSession",
    "RequestSession",
    "Session",
    "SessionMiddleware",
    "SessionObject",
    "StoredSession",
]

ENVIRON_KEY = "beaker.session"
GET_SESSION_KEY = "beaker.get_session"
DOMAIN_KEY, PATH_KEY = "wsgisession.beaker.domain", "wsgisession.beaker.path"
TESTING_KEY = "paste.testing_variables"


class BeakerSession(OurSession):
    """The session of a request, with Beaker's names.

    ``save()`` marks it, as in Beaker: it is written when the response begins.
    """

    __slots__ = ("_environ",)

    _environ: Environ

    def __getitem__(self, key: str) -> Any:
        """A value; Beaker kept the moments of a session among them."""
        return MOMENTS[key](self) if key in MOMENTS else super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The same, or a default."""
        return MOMENTS[key](self) if key in MOMENTS else super().get(key, default)

    def __contains__(self, key: object) -> bool:
        """Whether there is such a value, or such a moment."""
        return key in MOMENTS or super().__contains__(key)

    def __bool__(self) -> bool:
        """True: applications ask so whether there is a session at all."""
        return True

    # -- what is known about it ----------------------------------------------------------

    @property
    def is_new(self) -> bool:
        """Whether there was no stored session when this request looked."""
        return self.new

    @property
    def created(self) -> float:  # type: ignore[override]
        """When the session began, in seconds since the epoch."""
        return super().created.timestamp()

    @property
    def last_accessed(self) -> float | None:  # type: ignore[override]
        """When it was used before, in seconds since the epoch; None if it is new."""
        return None if self.new else super().last_accessed.timestamp()

    def accessed(self) -> bool:  # type: ignore[override]
        """Whether the session was used in any way."""
        return access_of(self).transaction is not None

    def dirty(self) -> bool:
        """Whether there is anything to write."""
        return self.modified

    def has_key(self, key: str) -> bool:
        """Whether there is such a value."""
        return key in self

    # -- writing, ending -----------------------------------------------------------------

    def save(self, accessed_only: bool = False) -> None:
        """Have the values written when the response begins."""
        access_of(self).keep()

    def persist(self) -> None:
        """Write now."""
        super().save()

    def clear(self) -> None:
        """Take the values away; the session stays."""
        StoredMapping.clear(self)

    def delete(self) -> None:
        """End the session."""
        self.flush()

    def invalidate(self) -> None:
        """End the session; what is written afterwards begins a new one."""
        self.flush()

    def regenerate_id(self) -> None:
        """A new token for the same session; no older one is good."""
        self.regenerate()

    def get_by_id(self, id: str) -> StoredSession | None:
        """Another session; its ``save()`` writes at once."""
        found = get_manager(self._environ).get(id)
        if found is None:
            return None
        session = found.view(StoredSession)
        session._environ = self._environ
        return session

    # -- the cookie ----------------------------------------------------------------------

    @property
    def domain(self) -> str | None:
        """The cookie's ``Domain``; assigned, it is that of this response's cookie."""
        found: str | None = self._environ.get(DOMAIN_KEY)
        return found

    @domain.setter
    def domain(self, value: str | None) -> None:
        self._environ[DOMAIN_KEY] = value
        access_of(self).resend_token()

    @property
    def path(self) -> str | None:
        """The cookie's ``Path``; assigned, it is that of this response's cookie."""
        found: str | None = self._environ.get(PATH_KEY)
        return found

    @path.setter
    def path(self, value: str | None) -> None:
        self._environ[PATH_KEY] = value
        access_of(self).resend_token()


MOMENTS: Mapping[str, Callable[[BeakerSession], float]] = {
    "_creation_time": lambda session: session.created,
    "_accessed_time": lambda session: session.last_accessed or session.created,
}


class StoredSession(BeakerSession):
    """A session that was found by its id, outside of its requests."""

    __slots__ = ()

    def save(self, accessed_only: bool = False) -> None:
        """Write now."""
        self.persist()


class SessionMiddleware:
    """Beaker's middleware, as applications call it.

    :param wrap_app: the WSGI application.
    :param config: Beaker's options, bare or prefixed ``session.`` or ``beaker.session.``.
    :param environ_key: where the session is found.
    :param options: more of them; they win over ``config``.

    Raises ``ConfigurationError`` for whatever is unknown or refused.
    """

    def __init__(
        self,
        wrap_app: App,
        config: Mapping[str, Any] | None = None,
        environ_key: str = ENVIRON_KEY,
        **options: Any,
    ) -> None:
        settings = settings_of(config, options)
        self.app: App = wrap_app
        self.wrap_app: App = wrap_app
        self.environ_key = environ_key
        self.manager: SessionManager = _manager(settings.ours)
        self._varname = settings.webtest_varname
        self._middleware = Middleware(self._inside, manager=self.manager)

    def __call__(
        self, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        return self._middleware(environ, start_response)

    def _inside(
        self, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        session = environ[self._middleware.environ_key].view(BeakerSession)
        session._environ = environ
        environ[self.environ_key] = session
        environ[GET_SESSION_KEY] = lambda: session
        if self._varname is not None and TESTING_KEY in environ:
            environ[TESTING_KEY][self._varname] = session
        return self.app(environ, start_response)


def _manager(ours: dict[str, Any]) -> SessionManager:
    """The manager; a response may ask for another domain or path of its cookie."""
    domain, path = ours.get("cookie_domain"), ours.get("cookie_path", "/")
    if not callable(domain):
        ours["cookie_domain"] = lambda environ: environ.get(DOMAIN_KEY, domain)
    if not callable(path):
        ours["cookie_path"] = lambda environ: environ.get(PATH_KEY, path)
    return SessionManager.from_config(ours)


# -- for applications that make the session themselves -----------------------------------


@lru_cache(maxsize=16)
def _manager_of(options: tuple[tuple[str, Any], ...]) -> SessionManager:
    """One manager for equal options: applications give them at every request."""
    return _manager(settings_of(None, dict(options)).ours)


class SessionObject(BeakerSession):
    """``SessionObject(environ, **options)``: a request's session without a middleware.

    After ``persist()`` its cookie is in ``session.__dict__["_headers"]``, where
    frameworks look for it.
    """

    def __init__(self, environ: Environ, **options: Any) -> None:
        manager = _manager_of(tuple(sorted(options.items())))
        exchange = Exchange.alone(manager, environ)
        environ[MANAGER_KEY] = manager
        super().__init__(access_of(exchange.session))
        self._exchange = exchange
        self._environ = environ
        self._headers: dict[str, Any] = {"cookie_out": None, "set_cookie": False}

    def _session(self) -> BeakerSession:
        """The session without what a framework's subclass has put over its methods."""
        session = self._exchange.session.view(BeakerSession)
        session._environ = self._environ
        return session

    def persist(self) -> None:
        """Write now, and say which cookie is to be set."""
        for name, value in self._exchange.settle("200 OK", []):
            if name == "Set-Cookie":
                self._headers.update(cookie_out=value, set_cookie=True)
        self._exchange.finish()


class RequestSession(SessionObject):
    """``Session(request, **options)``: the same for a dict with ``cookie``.

    ``save()`` writes at once, and puts ``cookie_out`` and ``set_cookie`` into the dict.
    """

    def __init__(self, request: dict[str, Any], **options: Any) -> None:
        cookie = request.get("cookie") or ""
        super().__init__({"HTTP_COOKIE": cookie, "REQUEST_METHOD": "POST"}, **options)
        request.update(self._headers)
        self._headers = request

    def save(self, accessed_only: bool = False) -> None:
        """Write now."""
        access = access_of(self)
        access.begun()
        access.keep()
        self.persist()


class NamedSession(StoredMapping):
    """A record that the application has named, such as the progress of a job.

    No cookie leads to it.  It is kept for ``timeout`` after its last ``save()``.
    """

    __slots__ = ("_manager", "id")

    def __init__(self, manager: SessionManager, id: str) -> None:
        self._manager = manager
        self.id: str = id
        super().__init__(self._values())

    def _values(self) -> UserValues:
        repository = self._manager.repository
        return UserValues(
            repository,
            self.id,
            "a named session",
            lambda keys: None,
            purpose=Purpose.NAMED,
            lifetime=repository.options.idle_timeout,
        )

    def load(self) -> None:
        """Forget what was not saved, and see what others have saved."""
        self._access = self._values()

    def save(self) -> None:
        """Write now; keys that others have changed are kept."""
        values = self._access
        assert isinstance(values, UserValues)
        values.save()

    def delete(self) -> None:
        """Take the record away."""
        self._manager.store.delete(self._values().key)
        self.load()

    invalidate = delete

    def __json__(self, request: object) -> dict[str, Any]:
        """What Pyramid answers where a view returns it: the progress of a job, say."""
        return self.copy()


def Session(  # noqa: N802 - Beaker's name
    request: dict[str, Any],
    id: str | None = None,
    use_cookies: bool = True,
    **options: Any,
) -> RequestSession | NamedSession:
    """What applications call that make Beaker's sessions themselves.

    With ``use_cookies=False`` it is a record of its own, by an ``id`` that the
    application chooses, or by a new one.  Raises ``ConfigurationError`` for an ``id``
    of a session with a cookie, which only its token leads to.
    """
    if use_cookies:
        if id is not None:
            raise ConfigurationError(
                "Session(request, id=...) names a record of the application's own: add "
                "use_cookies=False; the session of a visitor is session.get_by_id(id)"
            )
        return RequestSession(request, **options)
    manager = _manager_of(tuple(sorted(options.items())))
    return NamedSession(manager, id or uuid4().hex)
