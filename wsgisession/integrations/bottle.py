"""Bottle: a plugin that puts the middleware at ``app.wsgi``, and gives handlers that ask
for it an argument ``session``.

It knows how Bottle wraps and mounts applications.  What becomes of a session is decided
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from typing import Any

from ..errors import ConfigurationError
from ..manager import SessionManager
from ..middleware import SessionMiddleware
from ..middleware import get_session as session_in
from ..options import PREFIX
from ..session import Session
from ..views import tell
from . import needing

with needing("bottle"):
    from bottle import Bottle, Route, request

__all__ = ["SessionPlugin", "get_session"]

Handler = Callable[..., Any]

MOUNTED_IN = "_mount.app"
"""The setting by which Bottle notes where an application was mounted."""


def get_session() -> Session:
    """The session of the request that Bottle is handling.

    Raises ``LookupError`` where no plugin is installed at the application that is served.
    """
    return session_in(request.environ)


class SessionPlugin:
    """Sessions for a Bottle application: ``app.install(SessionPlugin(url=...))``.

    An application that is mounted brings its sessions along.  Give the same plugin, or
    the same manager, to applications that are to share theirs.

    :param config: flat settings; without any those of ``app.config`` that begin with
        ``session.``, as they are read from an ``.ini`` file.
    :param manager: one made before, instead of settings.
    :param keyword: the name of the argument that a handler is given the session by.
    :param options: settings in code; they win over ``config``.

    Raises ``ConfigurationError`` for whatever is unknown or wrong, and where it is
    installed, if settings are missing.
    """

    name = "session"
    api = 2

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        manager: SessionManager | None = None,
        keyword: str = "session",
        **options: Any,
    ) -> None:
        if manager is not None and (config or options):
            raise ConfigurationError("give settings or a manager, not both")
        if manager is None and (config or options):
            manager = SessionManager.from_config(config, **options)
        self._manager = manager
        self._keyword = keyword
        self._doors: list[Bottle] = []
        """The applications that have the middleware at their door by this plugin."""

    @property
    def manager(self) -> SessionManager:
        """Lists and ends the sessions; ``LookupError`` before the plugin is installed."""
        if self._manager is None:
            raise LookupError("the plugin has no settings yet; install it first")
        return self._manager

    def setup(self, app: Bottle) -> None:
        """Called by Bottle's ``install()``."""
        if self._manager is None:
            known = {k: v for k, v in app.config.items() if k.startswith(PREFIX)}
            self._manager = SessionManager.from_config(known)
        self._open(app)

    def _open(self, app: Bottle) -> None:
        """Put the middleware at the door of an application that has none yet."""
        outside = app.__dict__.get("wsgi")
        if isinstance(outside, SessionMiddleware):
            if outside.manager is self.manager:
                return
            raise ConfigurationError(
                "this Bottle application has sessions of another plugin already; give "
                "one plugin, or one manager, to applications that are mounted together"
            )
        middleware = SessionMiddleware(app.wsgi, manager=self.manager)
        object.__setattr__(app, "wsgi", middleware)  # Bottle's own takes no second one
        self._doors.append(app)
        # Once it is mounted nobody calls the application: another one has its routes.
        app.add_hook("config", self._follow)
        if (outer := app.config.get(MOUNTED_IN)) is not None:
            self._open(outer)

    def _follow(self, config: Mapping[str, Any], key: str, value: Any) -> None:
        """Called by Bottle at a change of an application's settings."""
        if key == MOUNTED_IN:
            self._open(value)

    def apply(self, callback: Handler, route: Route) -> Handler:
        """Called by Bottle for each route."""
        view, keyword = route.callback, self._keyword
        # Bottle's own search for the names may not end, with a view that is a closure.
        wants_session = keyword in signature(view).parameters

        @wraps(callback)
        def handler(*args: Any, **kwargs: Any) -> Any:
            tell(view, request.environ)
            if wants_session:
                kwargs.setdefault(keyword, get_session())
            return callback(*args, **kwargs)

        return handler

    def close(self) -> None:
        """Called by Bottle's ``uninstall()``: the application has no sessions then."""
        for app in self._doors:
            app.__dict__.pop("wsgi", None)
            app.remove_hook("config", self._follow)
        self._doors.clear()
