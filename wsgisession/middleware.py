"""Sessions around a WSGI application: the one file that knows WSGI (PEP 3333).

It decides who may wait and who may be run again, and when the headers really leave: with
the first chunk of the body, with ``write()``, or at the end.  What happens to a session
then is decided elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeAlias

from webob.exc import HTTPServiceUnavailable

from . import caching, cookies
from .errors import LockTimeout, SessionError, StoreError
from .manager import SessionManager
from .session import CookieChange, ReplayNeeded, Session

log = logging.getLogger("wsgisession")

Environ: TypeAlias = dict[str, Any]
Headers: TypeAlias = list[tuple[str, str]]
ExcInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
)
Write: TypeAlias = Callable[[bytes], object]
StartResponse: TypeAlias = Callable[..., Write]
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

ENVIRON_KEY = "wsgisession.session"
MANAGER_KEY = "wsgisession.manager"
SAFE = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
"""Methods that change nothing by their meaning (RFC 9110 9.2.1)."""

RETRY_AFTER = "1"
"""Seconds after which a client may try again what a lock or an outage has refused."""


class SessionMiddleware:
    """Puts a session into the environ of every request.

    :param app: the WSGI application.
    :param config: flat settings; keys are bare or prefixed ``session.``.
    :param manager: one made before, instead of settings.
    :param environ_key: where the session is found.
    :param options: settings in code; they win over ``config``.
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
            raise TypeError("give settings or a manager, not both")
        self.app = app
        self.manager = manager or SessionManager.from_config(config, **options)
        self.environ_key = environ_key

    def __call__(
        self, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        options = self.manager.options
        locking, safe = options.locking, environ["REQUEST_METHOD"] in SAFE
        if locking == "auto":
            lock = not safe
        else:
            lock = bool(locking(environ)) if callable(locking) else locking == "always"
        # Without a cookie there is no session that another could change.
        cookie = "HTTP_COOKIE" in environ
        replay = options.replay and safe and cookie and not _has_body(environ)
        return self._run(environ, start_response, lock=lock, replay=replay)

    def _run(
        self,
        environ: Environ,
        start_response: StartResponse,
        *,
        lock: bool,
        replay: bool,
    ) -> Iterable[bytes]:
        header = environ.get("HTTP_COOKIE", "")
        session = self.manager.open_cookie(header, locking=lock, replay=replay)
        before = environ.copy() if replay else None
        environ[self.environ_key] = session
        environ[MANAGER_KEY] = self.manager
        return _Response(self, environ, start_response, session, before).run()

    def again(
        self,
        environ: Environ,
        start_response: StartResponse,
        before: Environ,
        keys: list[str],
    ) -> Iterable[bytes]:
        """Run a safe request once more, with the lock in hand (RFC 9110 9.2.2)."""
        environ.clear()
        environ.update(before)
        self._announce(environ, keys)
        return self._run(environ, start_response, lock=True, replay=False)

    def _announce(self, environ: Environ, keys: list[str]) -> None:
        log.info(
            "replaying %r: %s changed meanwhile", environ.get("PATH_INFO", ""), keys
        )
        hook = self.manager.options.on_replay
        if hook is not None:
            try:
                hook(environ, keys)
            except Exception:
                log.exception("the on_replay hook failed")

    def secure(self, environ: Environ) -> bool:
        """Whether the cookie of this request is to have the attribute Secure."""
        secure = self.manager.options.cookie_secure
        return (
            environ["wsgi.url_scheme"] == "https" if secure == "auto" else bool(secure)
        )


def get_session(environ: Mapping[str, Any], key: str = ENVIRON_KEY) -> Session:
    """The session of a request; raises ``LookupError`` if no middleware put one there."""
    session = environ.get(key)
    if not isinstance(session, Session):
        raise LookupError(
            f"there is no session at environ[{key!r}]; "
            "is the application wrapped by SessionMiddleware?"
        )
    return session


def _has_body(environ: Environ) -> bool:
    return (
        environ.get("CONTENT_LENGTH") or "0"
    ) != "0" or "HTTP_TRANSFER_ENCODING" in environ


class _Response:
    """One run of the application: its headers are held back until they must leave.

    As an iterator it is the body, wherever that is not at hand as a whole.
    """

    _head: tuple[str, Headers] | None = None
    _sent = False
    _write: Write | None = None
    _body: Iterable[bytes] = ()
    _chunks: Iterator[bytes] | None = None

    def __init__(
        self,
        middleware: SessionMiddleware,
        environ: Environ,
        start_response: StartResponse,
        session: Session,
        before: Environ | None,
    ) -> None:
        self._middleware = middleware
        self._environ = environ
        self._start_response = start_response
        self._session = session
        self._before = before

    def run(self) -> Iterable[bytes]:
        """Call the application, and give the body that the server is to send."""
        try:
            body = self._middleware.app(self._environ, self.start)
        except BaseException as error:
            return self._failed(error)
        if not self._is_whole(body):
            self._body = body
            return self
        if not self._sent:
            try:
                self._send()
            except BaseException as error:
                _abandon(body)
                return self._failed(error)
        self._session.close()
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
        if self._sent:
            return self._start_response(status, headers, exc_info)
        if self._head is not None and not exc_info:
            raise AssertionError("start_response() was called twice without exc_info")
        self._head = status, headers
        return self.write

    def write(self, data: bytes) -> object:
        if not self._sent:
            self._send()
        assert self._write is not None
        return self._write(data)

    # -- when the headers leave --------------------------------------------------------

    def _send(self) -> None:
        """Settle the session, then let the headers leave."""
        if self._head is None:
            raise AssertionError("the body began before start_response() was called")
        status, headers = self._head
        session, options = self._session, self._middleware.manager.options
        if status.startswith("5") and not options.save_on_error:
            change = session.rollback()
        else:
            change = session.commit()
        if session.accessed:
            headers = self._told(headers, change)
        self._write = self._start_response(status, headers)
        self._sent = True

    def _told(self, headers: Headers, change: CookieChange | None) -> Headers:
        headers = caching.vary_on_cookie(headers)
        if change is None:
            return headers
        options = self._middleware.manager.options
        secure = self._middleware.secure(self._environ)
        held = self._environ.get("HTTP_COOKIE", "")
        if change.value is None:
            lines = cookies.expire_all(options, secure=secure, held=held)
        else:
            lines = cookies.write_all(
                options, change.value, max_age=change.max_age, secure=secure, held=held
            )
        headers = caching.keep_private(headers)
        return [*headers, *(("Set-Cookie", line) for line in lines)]

    def _failed(self, error: BaseException) -> Iterable[bytes]:
        """Answer in the application's stead where that is possible, else raise."""
        session = self._session
        try:
            if isinstance(error, ReplayNeeded):
                session.close()
                self._sent = True  # from here on by the second run
                assert self._before is not None
                return self._middleware.again(
                    self._environ,
                    self._start_response,
                    self._before,
                    sorted(error.keys),
                )
            if self._sent or not isinstance(error, (StoreError, LockTimeout)):
                raise error
            log.error("%s; answering 503", error, exc_info=error)
            self._sent = True
            unavailable = HTTPServiceUnavailable(headers={"Retry-After": RETRY_AFTER})
            body: Iterable[bytes] = unavailable(self._environ, self._start_response)
            return body
        finally:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        """Leave the session as a failed request leaves it."""
        keep = self._middleware.manager.options.save_on_error
        try:
            if keep and isinstance(error, Exception):
                self._session.commit_late()
            else:
                self._session.rollback()
        except SessionError:
            # The first error is on its way already; the lease ends by itself.
            log.exception("a session could not be released")
        self._session.close()

    # -- the body ----------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._chunks is None:
                self._chunks = iter(self._body)
            chunk = next(self._chunks, None)
            if not self._sent:
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

    def close(self) -> None:
        """What the server calls at the end, also when the client has gone away."""
        try:
            _close(self._body)
            if self._sent:
                self._session.commit_late()
        finally:
            self._session.close()


def _close(body: Iterable[bytes]) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


def _abandon(body: Iterable[bytes]) -> None:
    """Close what will not be sent; another error is on its way already."""
    try:
        _close(body)
    except Exception:
        log.exception("the close() of a response's body failed")
