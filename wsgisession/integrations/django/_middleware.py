"""The middleware in the place of Django's: it gives each request its session, runs a view
again where that is needed, and settles the session before the answer leaves.

It knows how Django answers.  What becomes of a session is decided elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.sessions.middleware import SessionMiddleware as DjangoMiddleware
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from ..._core.transaction import ReplayNeeded
from ..._http.exchange import MANAGER_KEY, REPLAY_KEY, SAFE, Exchange
from ...errors import LockTimeout, StoreError
from ...manager import SessionManager
from ...middleware import ENVIRON_KEY, RETRY_AFTER, session_by
from ...views import tell
from ._engine import SessionStore
from ._settings import get_manager

log = logging.getLogger("wsgisession")


class SessionMiddleware(DjangoMiddleware):
    """Gives ``request.session``, for views of both kinds, under WSGI and ASGI."""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        get_manager()  # settings that are wrong are told at the start

    def __call__(self, request: HttpRequest) -> Any:
        if iscoroutinefunction(self.get_response):
            return self._acall(request)
        if self._is_inside(request):
            return self.get_response(request)
        run = Run(get_manager(), request)
        while True:
            try:
                response = run.begin(self.get_response)
                return run.settled(response)
            except BaseException as error:
                if (answer := run.failed(error)) is not None:
                    return answer

    async def _acall(self, request: HttpRequest) -> Any:
        if self._is_inside(request):
            return await cast(Any, self.get_response(request))
        run = Run(get_manager(), request)
        while True:
            try:
                response = await cast(Any, run.begin(self.get_response))
                return await sync_to_async(run.settled)(response)
            except BaseException as error:
                if (answer := await sync_to_async(run.failed)(error)) is not None:
                    return answer

    def _is_inside(self, request: HttpRequest) -> bool:
        """Whether a middleware around Django has given the request a session already."""
        session = session_by(get_manager(), request.META)
        if session is not None:
            request.session = SessionStore(bound=session)
        return session is not None

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], *_: object
    ) -> None:
        """What a view says of itself is told before anything looks at the session."""
        tell(view, request.META)

    def process_exception(
        self, request: HttpRequest, error: Exception
    ) -> HttpResponse | None:
        """A view failed for its session: that is an outage, and no fault of the site.

        Middleware further inside is asked first, and may answer otherwise.
        """
        if isinstance(error, (StoreError, LockTimeout)):
            get_manager().tell_of_failure(error)
            return _unavailable()
        return None


class Run:
    """A request and its session, which may be run a second time."""

    def __init__(self, manager: SessionManager, request: HttpRequest) -> None:
        self._manager = manager
        self._request = request
        meta = request.META
        # Django knows of proxies (SECURE_PROXY_SSL_HEADER), and ASGI has no such key.
        meta["wsgi.url_scheme"] = request.scheme
        may_replay = "HTTP_COOKIE" in meta and request.method in SAFE
        # A second run has to begin with what the first one was given.
        self._before = (dict(vars(request)), dict(meta)) if may_replay else None
        self._exchange: Exchange
        self._store: SessionStore

    def begin(self, get_response: Callable[[HttpRequest], Any]) -> Any:
        """Give the request its session, and call what is inside."""
        meta = self._request.META
        exchange = self._exchange = Exchange(self._manager, meta)
        meta[ENVIRON_KEY] = exchange.session
        meta[MANAGER_KEY] = self._manager
        self._request.session = self._store = SessionStore(bound=exchange.session)
        return get_response(self._request)

    def settled(self, response: HttpResponseBase) -> HttpResponseBase:
        """The answer, with the session saved and the headers that tell of it."""
        exchange, store = self._exchange, self._store
        if response.status_code == 500 and exchange.failure is not None:
            raise exchange.failure  # the application made its own page of it
        if store.modified and response.status_code < 500:
            store.force()
        status = f"{response.status_code} {response.reason_phrase}"
        _put_headers(response, exchange.settle(status, list(response.items())))
        response._resource_closers.append(self._finish)  # type: ignore[attr-defined]
        return response

    def failed(self, error: BaseException) -> HttpResponse | None:
        """The answer in the application's place; None if the request is to be run again.

        Raises the error where there is no answer to it.
        """
        exchange, before, self._before = self._exchange, self._before, None
        due = error if isinstance(error, ReplayNeeded) else exchange.replay_due
        if due is not None and before is not None:
            exchange.close()
            attributes, meta = before
            self._manager.tell_of_replay(self._request.path, due)
            vars(self._request).clear()
            vars(self._request).update(attributes)
            self._request.META.clear()
            self._request.META.update(meta)
            self._request.META[REPLAY_KEY] = True
            return None
        exchange.fail(error)
        if not isinstance(error, (StoreError, LockTimeout)):
            raise error
        self._manager.tell_of_failure(error)
        answer = _unavailable()
        _put_headers(answer, exchange.told(list(answer.items())))
        return answer

    def _finish(self) -> None:
        """The body has been sent; Django does not tell of errors from here on."""
        try:
            self._exchange.finish()
        except Exception:
            log.exception("what was written after the headers could not be saved")


def _unavailable() -> HttpResponse:
    answer = HttpResponse("The session is out of reach; try again.", status=503)
    answer.headers["Retry-After"] = RETRY_AFTER
    return answer


# -- headers -----------------------------------------------------------------------------


def _put_headers(response: HttpResponseBase, headers: list[tuple[str, str]]) -> None:
    """Django keeps cookies beside the other headers."""
    for name, value in headers:
        if name == "Set-Cookie":
            _put_cookie(response, value)
        else:
            response.headers[name] = value


def _put_cookie(response: HttpResponseBase, line: str) -> None:
    """Have this line sent, and its attributes known to Django's test client."""
    pair, *attributes = line.split("; ")
    name, _, value = pair.partition("=")
    # One name may be set on two paths, to heal a browser that has both.
    place = name if name not in response.cookies else f"{name}.{len(response.cookies)}"
    response.cookies[place] = value
    morsel = response.cookies[place]
    for attribute in attributes:
        key, _, text = attribute.partition("=")
        if morsel.isReservedKey(key):  # older Pythons do not know Partitioned
            morsel[key] = text or True
    morsel.OutputString = lambda attrs=None: line  # type: ignore[method-assign]
