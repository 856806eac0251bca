"""Pyramid: ``config.include("wsgisession.integrations.pyramid")`` puts the middleware
around the execution policy, and ``request.session`` is a view of its session.

It knows Pyramid's interfaces, and what pyramid_retry does with an attempt that failed.
What becomes of a session is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from secrets import token_urlsafe
from typing import Any

from .._access import access_of
from .._core.transaction import ReplayNeeded
from .._http.exchange import Environ, Exchange
from ..errors import ConfigurationError
from ..manager import SessionManager
from ..middleware import ENVIRON_KEY, SessionMiddleware, StartResponse, session_by
from ..options import PREFIX
from ..serializers import JSONSerializer, Kind
from ..session import Session
from ..views import tell
from . import needing

with needing("pyramid"):
    from pyramid.i18n import TranslationString
    from pyramid.interfaces import IApplicationCreated, ISession, ISessionFactory
    from pyramid.tweens import MAIN
    from pyramid.viewderivers import INGRESS
    from zope.interface import implementer

try:
    from pyramid_retry import IBeforeRetry
except ModuleNotFoundError:
    IBeforeRetry = None

__all__ = [
    "PyramidSession",
    "SessionFactory",
    "includeme",
    "session_factory_from_settings",
]

MANAGER_SETTING = f"{PREFIX}manager"
"""The setting that may hold a manager made before, in place of all others."""

VIEW_KEY = "wsgisession.pyramid.view"
"""In the environ: what the view of the request has said of itself."""

CSRF_KEY = "_csrft_"
FLASH_PREFIX = "_f_"
"""Where Pyramid's own sessions keep the same."""


def _of_translation(value: Any) -> list[Any]:
    return [str(value), value.domain, value.default, value.mapping, value.context]


def _translation(parts: list[Any]) -> Any:
    msgid, domain, default, mapping, context = parts
    return TranslationString(msgid, domain, default, mapping, context)


SERIALIZER = JSONSerializer(
    kinds=[
        Kind(
            tag="translation",
            knows=lambda value: isinstance(value, TranslationString),
            write=_of_translation,
            read=_translation,
        )
    ]
)
"""A flashed translation string is translated when it is shown, not when it is stored."""


@implementer(ISession)
class PyramidSession(Session):
    """The session with the members of ``ISession``, and Beaker's verbs beyond them."""

    __slots__ = ()

    @property
    def created(self) -> int:  # type: ignore[override]
        """When the session began, in seconds since the epoch."""
        return int(super().created.timestamp())

    def changed(self) -> None:
        """Nothing: a change inside a value is seen without a word."""

    def invalidate(self) -> None:
        """End the session; what is written afterwards begins a new one."""
        self.flush()

    def delete(self) -> None:
        """End the session, by Beaker's name."""
        self.flush()

    def flash(self, msg: Any, queue: str = "", allow_duplicate: bool = True) -> None:
        """Keep a message until it is shown."""
        messages = self.setdefault(FLASH_PREFIX + queue, [])
        if allow_duplicate or msg not in messages:
            messages.append(msg)

    def pop_flash(self, queue: str = "") -> list[Any]:
        """The messages, which are forgotten by that."""
        found: list[Any] = self.pop(FLASH_PREFIX + queue, [])
        return found

    def peek_flash(self, queue: str = "") -> list[Any]:
        """The messages, which stay."""
        found: list[Any] = self.get(FLASH_PREFIX + queue, [])
        return found

    def new_csrf_token(self) -> str:
        """A new token against cross-site requests."""
        token = self[CSRF_KEY] = token_urlsafe(32)
        return token

    def get_csrf_token(self) -> str:
        """The token against cross-site requests, made where there is none."""
        token: str | None = self.get(CSRF_KEY)
        return token or self.new_csrf_token()


class SessionFactory:
    """What ``config.set_session_factory()`` takes.

    With this module included it gives the session of the request.  Where there is no
    request, as for a subrequest or in a shell, it opens one: a response settles it, and
    without a response only ``session.save()`` keeps anything.  Raises
    ``ConfigurationError`` for a manager that is none.
    """

    def __init__(self, manager: SessionManager) -> None:
        if not isinstance(manager, SessionManager):
            raise ConfigurationError(f"{manager!r} is no SessionManager")
        self.manager = manager

    def __call__(self, request: Any) -> PyramidSession:
        if (session := session_by(self.manager, request.environ)) is not None:
            return session.view(PyramidSession)
        exchange = Exchange.alone(self.manager, request.environ)

        def settle(request: Any, response: Any) -> None:
            headers = exchange.settle(response.status, response.headerlist)
            response.headerlist = headers

        request.add_response_callback(settle)
        request.add_finished_callback(lambda request: exchange.end())
        return exchange.session.view(PyramidSession)


def session_factory_from_settings(settings: Mapping[str, Any]) -> SessionFactory:
    """A factory by the settings that begin with ``session.``.

    Raises ``ConfigurationError`` for whatever is unknown or wrong.
    """
    known = {key: v for key, v in settings.items() if key.startswith(PREFIX)}
    manager = known.pop(MANAGER_SETTING, None)
    if manager is not None and known:
        raise ConfigurationError(f"give {MANAGER_SETTING} or {min(known)}, not both")
    if manager is None:
        known.setdefault(f"{PREFIX}serializer", SERIALIZER)
        manager = SessionManager.from_config(known)
    return SessionFactory(manager)


def includeme(config: Any) -> None:
    """Called by ``config.include()``.

    Without settings that begin with ``session.`` the application has to set a factory of
    this module by itself.
    """
    settings = config.get_settings()
    if any(key.startswith(PREFIX) for key in settings):
        config.set_session_factory(session_factory_from_settings(settings))
    config.add_view_deriver(
        _declared_view, name="wsgisession", under=INGRESS, over="secured_view"
    )
    around = ("pyramid_tm.tm_tween_factory", MAIN)
    config.add_tween(f"{__name__}.aborting_tween", over=around)
    # The application is the last to be made, whatever else sets an execution policy.
    config.add_subscriber(_open_door, IApplicationCreated)
    if IBeforeRetry is not None:
        config.add_subscriber(_start_over, IBeforeRetry)


def _open_door(event: Any) -> None:
    """Put the middleware around the execution policy that there is."""
    router = event.app
    factory = router.registry.queryUtility(ISessionFactory)
    if not isinstance(factory, SessionFactory):
        raise ConfigurationError(
            "the application's session factory is not one of wsgisession: give settings "
            "such as session.url = redis://localhost/0, or call "
            "config.set_session_factory(session_factory_from_settings(settings))"
        )
    policy = router.execution_policy

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        answered: Iterable[bytes] = policy(environ, router)(environ, start_response)
        return answered

    middleware = SessionMiddleware(application, manager=factory.manager)
    router.execution_policy = lambda environ, router: middleware


def _start_over(event: Any) -> None:
    """An attempt has failed, and pyramid_retry makes another: it counts for nothing."""
    environ = event.request.environ
    for key in environ.pop(VIEW_KEY, ()):
        environ.pop(key, None)  # the next attempt may lead to another view
    session = environ.get(ENVIRON_KEY)
    if isinstance(session, Session):
        access_of(session).start_over()


def aborting_tween(handler: Callable[[Any], Any], registry: Any) -> Any:
    """A run that counts for nothing leaves no transaction open.

    pyramid_tm aborts for an ``Exception``, which ``ReplayNeeded`` is not, so that no
    view catches it.
    """

    def tween(request: Any) -> Any:
        try:
            return handler(request)
        except ReplayNeeded:
            if (manager := request.environ.get("tm.manager")) is not None:
                manager.abort()
            raise

    return tween


def _declared_view(view: Callable[..., Any], info: Any) -> Callable[..., Any]:
    """What a view says of itself is told before anything looks at the session.

    Only the view of the request speaks for it, and none that is rendered within.
    """
    marks: Environ = {}
    tell(info.original_view, marks)
    method = info.options.get("attr") or "__call__"
    tell(getattr(info.original_view, method, None), marks)

    def telling(context: Any, request: Any) -> Any:
        if VIEW_KEY not in request.environ:
            request.environ.update(marks)
            request.environ[VIEW_KEY] = tuple(marks)
        return view(context, request)

    return telling
