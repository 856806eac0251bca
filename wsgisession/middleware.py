"""Sessions around a WSGI application: PEP 3333, and nothing else.

The headers of the application are held back until they must leave: with the first chunk
of the body, with ``write()``, or at the end.  What happens to a session then is decided
elsewhere.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeAlias

from ._access import access_of
from ._core.transaction import ReplayNeeded
from ._http.exchange import (
    MANAGER_KEY,
    REPLAY_KEY,
    SAFE,
    Environ,
    Exchange,
    Headers,
)
from .errors import ConfigurationError, LockTimeout, StoreError
from .manager import SessionManager
from .session import Session

with warnings.catch_warnings():
    # WebOb imports ``cgi``, of which Python 3.11 and 3.12 say that it will go.
    warnings.simplefilter("ignore", DeprecationWarning)
    from webob.exc import HTTPServiceUnavailable

__all__ = ["ENVIRON_KEY", "SessionMiddleware", "get_manager", "get_session"]

_log = logging.getLogger("wsgisession")

ExcInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
)
Write: TypeAlias = Callable[[bytes], object]
StartResponse: TypeAlias = Callable[..., Write]
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

ENVIRON_KEY = "wsgisession.session"

RETRY_AFTER = "1"
"""Seconds after which a client may try again what a lock or an outage has refused."""


class SessionMiddleware:
    """Puts a session into the environ of every request.

    :param app: the WSGI application.
    :param config: flat settings; keys are bare or prefixed ``session.``.
    :param manager: one made before, instead of settings.
    :param environ_key: where the session is found.
    :param options: settings in code; they win over ``config``.

    Raises ``ConfigurationError`` for whatever is unknown, wrong or contradictory.
    """

    def __init__(
        self,
        app: App,
        config: Mapping[str, Any] | None = None,
        *,
        manager: SessionManager | None = None,
        environ_key: str = ENVIRON_KEY,
        **options: Any,
    ) -> None:
        if manager is not None and (config or options):
            raise ConfigurationError("give settings or a manager, not both")
        if not callable(app):
            raise ConfigurationError(
                f"app must be a WSGI application, not {type(app).__name__}; write "
                "SessionMiddleware(app, {'url': ...})"
            )
        self.app = app
        self.manager: SessionManager = manager or SessionManager.from_config(
            config, **options
        )
        self.environ_key = environ_key

    def __call__(
        self, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        if MANAGER_KEY in environ and self._is_inside(environ):
            return self.app(environ, start_response)
        # A second run has to begin with what the first one was given.
        method = environ.get("REQUEST_METHOD", "GET")
        may_replay = "HTTP_COOKIE" in environ and method in SAFE
        before = environ.copy() if may_replay else None
        return self._run(environ, start_response, before)

    def _is_inside(self, environ: Environ) -> bool:
        """Whether the request is wrapped by the same manager already."""
        return session_by(self.manager, environ, self.environ_key) is not None

    def _run(
        self, environ: Environ, start_response: StartResponse, before: Environ | None
    ) -> Iterable[bytes]:
        exchange = Exchange(self.manager, environ)
        environ[self.environ_key] = exchange.session
        environ[MANAGER_KEY] = self.manager
        return _Response(self, environ, start_response, exchange, before).run()

    def again(
        self,
        environ: Environ,
        start_response: StartResponse,
        before: Environ,
        due: ReplayNeeded,
    ) -> Iterable[bytes]:
        """Run a safe request once more, with the lock in hand (RFC 9110 9.2.2)."""
        environ.clear()
        environ.update(before)
        environ[REPLAY_KEY] = True
        self.manager.tell_of_replay(environ.get("PATH_INFO", ""), due)
        return self._run(environ, start_response, None)


def get_session(environ: Mapping[str, Any], key: str = ENVIRON_KEY) -> Session:
    """The session of a request; raises ``LookupError`` if no middleware put one there."""
    session = environ.get(key)
    if not isinstance(session, Session):
        raise LookupError(
            f"there is no session at environ[{key!r}]; "
            "is the application wrapped by SessionMiddleware?"
        )
    return session


def session_by(
    manager: SessionManager, environ: Mapping[str, Any], key: str = ENVIRON_KEY
) -> Session | None:
    """The session that a middleware of this manager has put into the environ, if any.

    An environ may have been used before, by a middleware that tries a request again: then
    the session in it is over, and does not count.
    """
    session = environ.get(key)
    if environ.get(MANAGER_KEY) is not manager or not isinstance(session, Session):
        return None
    return None if access_of(session).is_closed else session


def get_manager(environ: Mapping[str, Any]) -> SessionManager:
    """The manager of a request's session; raises ``LookupError`` where there is none.

    By it a view lists and ends the sessions of a user, or edits another session.
    """
    manager = environ.get(MANAGER_KEY)
    if not isinstance(manager, SessionManager):
        raise LookupError(
            f"there is no manager at environ[{MANAGER_KEY!r}]; "
            "is the application wrapped by SessionMiddleware?"
        )
    return manager


class _Response:
    """One run of the application: its headers are held back until they must leave.

    As an iterator it is the body, wherever that is not at hand as a whole.
    """

    __slots__ = (
        "_before",
        "_body",
        "_chunks",
        "_environ",
        "_exchange",
        "_head",
        "_is_sent",
        "_middleware",
        "_start_response",
        "_write",
    )

    def __init__(
        self,
        middleware: SessionMiddleware,
        environ: Environ,
        start_response: StartResponse,
        exchange: Exchange,
        before: Environ | None,
    ) -> None:
        self._middleware = middleware
        self._environ = environ
        self._start_response = start_response
        self._exchange = exchange
        self._before = before
        self._head: tuple[str, Headers] | None = None
        self._is_sent = False
        self._write: Write | None = None
        self._body: Iterable[bytes] = ()
        self._chunks: Iterator[bytes] | None = None

    def run(self) -> Iterable[bytes]:
        """Call the application, and give the body that the server is to send."""
        try:
            body = self._middleware.app(self._environ, self.start)
        except BaseException as error:
            return self._failed(error)
        if not self._is_whole(body):
            self._body = body
            return self
        if self._is_sent:
            self._exchange.finish()  # the headers left by write()
            return body
        if self._head is not None or body:
            try:
                self._send()
            except BaseException as error:
                _abandon(body)
                return self._failed(error)
        self._exchange.close()
        if self._exchange.cleanup_is_due:
            return _Then(body, self._exchange.finish)
        return body

    def _is_whole(self, body: Iterable[bytes]) -> bool:
        """Whether nothing more will be computed, so that it can be handed on untouched.

        A server recognises the file wrapper it gave by its type, and sends the file by
        itself.
        """
        if isinstance(body, (list, tuple)):
            return True
        wrapper = self._environ.get("wsgi.file_wrapper")
        return isinstance(wrapper, type) and isinstance(body, wrapper)

    # -- what the application calls ----------------------------------------------------

    def start(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /
    ) -> Write:
        """``start_response`` as the application sees it."""
        if self._is_sent:
            return self._start_response(status, headers, exc_info)
        if self._head is not None and not exc_info:
            raise AssertionError("start_response() was called twice without exc_info")
        self._head = self._exchange.answer = status, headers
        return self.write

    def write(self, data: bytes) -> object:
        """The callable that ``start_response`` returns."""
        if not self._is_sent:
            self._send()
        assert self._write is not None
        return self._write(data)

    # -- when the headers leave --------------------------------------------------------

    def _send(self) -> None:
        """Settle the session, then let the headers leave."""
        if self._head is None:
            raise AssertionError("the body began before start_response() was called")
        status, headers = self._head
        if status.startswith("500") and self._exchange.failure is not None:
            raise self._exchange.failure  # the application made its own page of it
        headers = self._exchange.settle(status, headers)
        self._write = self._start_response(status, headers)
        self._is_sent = True

    def _failed(self, error: BaseException) -> Iterable[bytes]:
        """Answer in the application's place where that is possible, else raise."""
        exchange = self._exchange
        due = error if isinstance(error, ReplayNeeded) else exchange.replay_due
        # Once only: an error of the second run comes through here as well.
        before, self._before = self._before, None
        if due is not None and before is not None:
            exchange.close()
            self._is_sent = True  # from here on by the second run
            return self._middleware.again(
                self._environ, self._start_response, before, due
            )
        exchange.fail(error)
        if self._is_sent or not isinstance(error, (StoreError, LockTimeout)):
            raise error
        self._middleware.manager.tell_of_failure(error)
        self._is_sent = True
        unavailable = HTTPServiceUnavailable(headers={"Retry-After": RETRY_AFTER})
        body: Iterable[bytes] = unavailable(self._environ, self._start_unavailable)
        return body

    def _start_unavailable(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Write:
        return self._start_response(status, self._exchange.told(headers))

    # -- the body ----------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._chunks is None:
                self._chunks = iter(self._body)
            chunk = next(self._chunks, None)
            while chunk == b"" and self._head is not None and not self._is_sent:
                # It commits nothing (PEP 3333), and no server takes a chunk before the
                # head.
                chunk = next(self._chunks, None)
            if not self._is_sent and (chunk or self._is_over(chunk)):
                self._send()
        except BaseException as error:
            body, self._body = self._body, ()  # the server's close() comes as well
            _abandon(body)
            self._body = self._failed(error)
            self._chunks = iter(self._body)
            chunk = next(self._chunks, None)
        if chunk is None:
            raise StopIteration
        return chunk

    def _is_over(self, chunk: bytes | None) -> bool:
        """Whether the body ended without a chunk, after a proper start.

        A handler that has taken over the connection, as for a WebSocket, never starts a
        response.
        """
        return chunk is None and self._head is not None

    def close(self) -> None:
        """What the server calls at the end, also when the client has gone away."""
        try:
            _close(self._body)
        finally:
            if self._is_sent:
                self._exchange.finish()
            else:
                self._exchange.fail(GeneratorExit())


class _Then:
    """A body that is there as a whole, and what is to be done when it has left."""

    __slots__ = ("_after", "_body")

    def __init__(self, body: Iterable[bytes], after: Callable[[], object]) -> None:
        self._body = body
        self._after = after

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """What the server calls at the end."""
        try:
            _close(self._body)
        finally:
            self._after()


def _close(body: Iterable[bytes]) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


def _abandon(body: Iterable[bytes]) -> None:
    """Close what will not be sent; another error is on its way already."""
    try:
        _close(body)
    except Exception:
        _log.exception("the close() of a response's body failed")
