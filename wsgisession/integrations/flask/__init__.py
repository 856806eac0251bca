"""Flask: ``Sessions(app)`` puts the middleware at ``app.wsgi_app``, and ``flask.session``
is a view of its session.

It knows Flask's ways and what Flask-Login writes.  What the settings mean is told by
``settings``; what becomes of a session is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

from ..._http.exchange import Environ, Exchange
from ...errors import ConfigurationError
from ...manager import SessionManager
from ...middleware import App, SessionMiddleware, StartResponse, session_by
from ...session import Session
from ...views import tell
from .. import needing

with needing("flask"):
    import flask
    from flask import Flask, Request, Response, current_app
    from flask.sessions import SessionInterface, SessionMixin

    from ._settings import settings_of

__all__ = ["FlaskSession", "Sessions"]

EXTENSION = "wsgisession"

USER_KEY = "_user_id"
"""Where Flask-Login keeps who is logged in."""


class FlaskSession(Session):
    """The session with the names that Flask, Flask-Login and Flask-Session use."""

    __slots__ = ()

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a value; Flask-Login's key logs in, under a new token."""
        if key == USER_KEY and value is not None:
            self.login(str(value))
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        """Delete a value; with Flask-Login's key the login ends for good.

        The other values stay, as Flask-Login has it, under a new token.
        """
        if key != USER_KEY:
            super().__delitem__(key)
            return
        rest = self.copy()
        del rest[key]
        self.flush()
        self.update(rest)

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser."""
        return not self.get_expire_at_browser_close()

    @permanent.setter
    def permanent(self, value: bool) -> None:
        # Applications say it at every request: what is so already is no change.
        if bool(value) != self.permanent:
            idle = self._access.repository.options.idle_timeout
            self.set_expiry(int(idle) if value else 0)

    @property
    def accessed(self) -> bool:
        """Whether the session was used in any way."""
        return super().accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        """Flask sets it when a view merely names its session: that is no use of it."""

    @property
    def sid(self) -> str:
        """The id, by Flask-Session's name."""
        return self.id

    def invalidate(self) -> None:
        """End the session, as ``flush()`` does."""
        self.flush()


SessionMixin.register(FlaskSession)


class ContextSession(FlaskSession):
    """The session of a context that no request came for: a test's, a shell's."""

    __slots__ = ("exchange",)

    exchange: Exchange


class Sessions:
    """Sessions for one or more Flask applications.

    :param app: one of them; or call ``init_app``.
    :param manager: made before, instead of settings.
    :param options: settings in code; they win over ``app.config``.

    Raises ``ConfigurationError`` at ``init_app``.  What is changed in ``app.config``
    until the first request counts as well.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        manager: SessionManager | None = None,
        **options: Any,
    ) -> None:
        if manager is not None and options:
            raise ConfigurationError("give settings or a manager, not both")
        self._app = app
        self._manager = manager
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Put the middleware at the application's door.

        Raises ``ConfigurationError`` for wrong settings, and at a second time.
        """
        if EXTENSION in app.extensions:
            raise ConfigurationError(f"{app.name!r} has its sessions already")
        door = app.extensions[EXTENSION] = Door(app, self._manager, self._options)
        app.session_interface = Interface(door)
        app.wsgi_app = door  # type: ignore[method-assign]
        # The first of all, so that nothing has looked at the session before.
        app.before_request_funcs.setdefault(None, []).insert(0, _declare)
        app.teardown_request(_close)

    @property
    def manager(self) -> SessionManager:
        """The manager of the application, or of the current one."""
        door: Door = (self._app or current_app).extensions[EXTENSION]
        return door.manager


class Door:
    """What stands at ``app.wsgi_app``: the middleware, by the settings of the app."""

    manager: SessionManager

    def __init__(
        self, app: Flask, manager: SessionManager | None, options: Mapping[str, Any]
    ) -> None:
        self._app = app
        self._options = options
        self._inside: App = app.wsgi_app
        self._lock = Lock()
        self._settings = {} if manager else settings_of(app, options)
        self._is_given = manager is not None
        self.manager = manager or SessionManager.from_config(self._settings)
        self._middleware: SessionMiddleware | None = None

    def __call__(
        self, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        middleware = self._middleware or self._opened()
        return middleware(environ, start_response)

    def _opened(self) -> SessionMiddleware:
        """At the first request: by now the settings are what they are to be."""
        with self._lock:
            if self._middleware is None:
                if not self._is_given:
                    settings = settings_of(self._app, self._options)
                    if settings != self._settings:
                        self.manager = SessionManager.from_config(settings)
                self._middleware = SessionMiddleware(self._inside, manager=self.manager)
            return self._middleware


class Interface(SessionInterface):
    """What Flask asks for a session: that of the request, or one for a bare context."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def open_session(self, app: Flask, request: Request) -> Any:
        if (found := session_by(self._door.manager, request.environ)) is not None:
            return found.view(FlaskSession)
        exchange = Exchange.alone(self._door.manager, request.environ)
        session = exchange.session.view(ContextSession)
        session.exchange = exchange
        return session

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        """Nothing: the middleware saves.  For a context without one it is done here."""
        if isinstance(session, ContextSession):
            response.headers.extend(session.exchange.settle(response.status, []))
            session.exchange.finish()

    def regenerate(self, session: Session) -> None:
        """A new token for the session; no older one is good (Flask-Session's verb)."""
        session.regenerate()


def _declare() -> None:
    request = flask.request
    tell(current_app.view_functions.get(request.endpoint or ""), request.environ)


def _close(error: BaseException | None) -> None:
    """A context ends without an answer: what its session holds is let go."""
    session = flask.session._get_current_object()  # type: ignore[attr-defined]
    if isinstance(session, ContextSession):
        session.exchange.end()
