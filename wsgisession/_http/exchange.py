"""One request's session, for the code that answers the request; without WSGI's callables.

It decides from the environ who takes the lock and who may be run again, settles the
session before the headers leave, and writes what the client and the caches must know.
What happens to the session is decided elsewhere.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from .._core.access import Access
from .._core.first_look import Plan, never
from .._core.outcome import Cookie
from .._core.transaction import ReplayNeeded
from .._made import made
from ..errors import LockTimeout, StoreError
from ..session import Session
from ..views import EXTERNAL_KEY, READ_ONLY_KEY
from . import caching
from .notices import WAITED

if TYPE_CHECKING:
    from ..manager import SessionManager

log = logging.getLogger("wsgisession")

Environ: TypeAlias = dict[str, Any]
Headers: TypeAlias = list[tuple[str, str]]

_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
SAFE = frozenset((*_SAFE, *(method.lower() for method in _SAFE)))
"""Methods that change nothing by their meaning (RFC 9110 9.2.1), as careless clients
spell them too."""

REPLAY_KEY = "wsgisession.replay"
"""True in the environ of a second run."""

MANAGER_KEY = "wsgisession.manager"
"""In the environ: the manager of the innermost session."""

# The answer of an OAuth or OpenID provider (RFC 6749 4.1.2): it comes by GET, and its
# code is good for one use.
_OAUTH = re.compile(r"(?:^|&)(?:code|error|oauth_token)=")
_OAUTH_STATE = re.compile(r"(?:^|&)(?:state|oauth_verifier)=")
_LOOPBACK = re.compile(
    r"(?:(?:.+\.)?localhost|127\.\d+\.\d+\.\d+|\[::1\])(?::\d*)?|::1", re.IGNORECASE
)

# What a proxy adds, which may have put a loopback address of its own for the host.
_FORWARDED = (
    "HTTP_FORWARDED",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_REAL_IP",
)


class Exchange:
    """The session of one request, from the environ to the headers of the answer.

    Tell it of the ``answer`` as soon as there is one.  Call ``settle`` before the headers
    leave, ``fail`` where there is no answer of the application, and ``finish`` at the
    very end.
    """

    __slots__ = (
        "_access",
        "_environ",
        "_has_settled",
        "_is_inner",
        "_manager",
        "answer",
        "cleanup_is_due",
        "session",
    )

    def __init__(self, manager: SessionManager, environ: Environ) -> None:
        self._manager = manager
        self._environ = environ
        self._is_inner = environ.get(MANAGER_KEY, manager) is not manager
        """Whether the request has a session of another manager already."""
        self._has_settled = False
        self.cleanup_is_due: bool = False
        """``cleanup_is_due``: whether what has expired is to be removed afterwards."""
        self.answer: tuple[str, Headers] | None = None
        """Status and headers, as the application has begun them."""
        self._access = Access(manager.repository, self._plan)
        self.session: Session = Session(self._access)

    @classmethod
    def alone(cls, manager: SessionManager, environ: Environ) -> Exchange:
        """For a context that no middleware is around: a test's, a shell's, a subrequest.

        It may be answered or not, so it is to be ended by ``end``; and there is nobody
        who would run it again.
        """
        exchange = cls(manager, environ)
        exchange.session.no_replay()
        return exchange

    # -- how the request is treated ----------------------------------------------------

    def _plan(self) -> Plan:
        environ, manager = self._environ, self._manager
        values = manager.cookies.values(environ.get("HTTP_COOKIE"))
        is_safe = environ.get("REQUEST_METHOD", "GET") in SAFE
        is_second = environ.get(REPLAY_KEY) is True
        manager.notices.of_request(environ, has_cookie=bool(values))
        reads_only = READ_ONLY_KEY in environ and environ[READ_ONLY_KEY] is True
        is_external = EXTERNAL_KEY in environ and environ[EXTERNAL_KEY] is True
        runs_once = is_second or is_external or not is_safe
        locks = is_second or is_external or self._locks(is_safe)
        locks = locks and not reads_only
        facts = (
            manager.recognised(values) if values else (),
            locks,
            None,
            never if runs_once or not values else self._can_replay,
            bool(values),
            is_safe or bool(values) or not self._is_foreign(),
            reads_only,
            named(environ) if locks else "",
        )
        return made(Plan, facts)

    def _locks(self, is_safe: bool) -> bool:
        locking = self._manager.options.locking
        if locking == "auto":
            if not is_safe or not self._environ.get("QUERY_STRING"):
                return not is_safe
            return is_oauth_answer(self._environ)
        return (
            bool(locking(self._environ)) if callable(locking) else locking == "always"
        )

    def _can_replay(self) -> bool:
        environ = self._environ
        return (
            self._manager.options.replay
            and not has_body(environ)
            and not is_oauth_answer(environ)
            and comes_from_this_site(environ)
            and self._is_alone()
            and (self.answer is None or can_be_repeated(*self.answer))
        )

    def _is_alone(self) -> bool:
        """Whether no other session of ours would see the request twice."""
        is_innermost = self._environ.get(MANAGER_KEY, self._manager) is self._manager
        return is_innermost and not self._is_inner

    def _is_foreign(self) -> bool:
        """Whether a post came from another site, and so without our cookie.

        Such a post (a payment, SAML) must not begin a session: its new cookie would take
        the place of the one that the browser holds and did not send.
        """
        options = self._manager.options
        return (
            self._environ.get("HTTP_SEC_FETCH_SITE") == "cross-site"
            and options.cookie_samesite in ("Lax", "Strict")
            and not options.cross_site_posts
        )

    # -- the answer --------------------------------------------------------------------

    @property
    def failure(self) -> StoreError | LockTimeout | None:
        """What the application was told by the store, and may have swallowed."""
        return self._access.failure

    @property
    def replay_due(self) -> ReplayNeeded | None:
        """That the request is to be run again, which may have been swallowed as well."""
        transaction = self._access.transaction
        return None if transaction is None else transaction.replay_due

    def settle(self, status: str, headers: Headers) -> Headers:
        """Commit or roll back, and return the headers that are to leave.

        Raises ``ReplayNeeded`` where the request is to be run again, and whatever keeps
        the session from being saved; then nothing has left.
        """
        access, options = self._access, self._manager.options
        self._has_settled = True
        if access.transaction is None and not options.save_every_request:
            access.leave()
            return headers if access.failure is None else self.told(headers)
        self.answer = status, headers
        if status.startswith("5") and not options.save_on_error:
            if (due := self.replay_due) is not None:
                raise due
            access.roll_back()
        else:
            access.commit()
        headers = self.told(headers)
        access.leave()
        return headers

    def told(self, headers: Headers) -> Headers:
        """The headers with what the client and the caches must know of the session."""
        transaction = self._access.transaction
        if transaction is None:
            is_used = self._access.failure is not None
            return caching.vary_on_cookie(headers) if is_used else headers
        work, cookies = transaction.work, self._manager.cookies
        notices = self._manager.notices
        notices.of_headers(headers)
        if work.waited > WAITED:
            notices.of_idle_wait(self._environ.get("PATH_INFO", ""), work.waited)
        if not work.plan.may_begin and work.is_kept_back:
            notices.of_foreign_post(self._environ.get("PATH_INFO", ""))
        cookie, environ = work.cookie(), self._environ
        if cookie is Cookie.KEEP:
            return caching.vary_on_cookie(headers)
        lines = []
        if work.presented_several:
            lines += cookies.heal(environ)
        if cookie is Cookie.EXPIRE:
            lines += cookies.expire(environ)
        elif (token := work.token) is not None:
            options, now = self._manager.options, transaction.repository.now()
            # New sessions are what a store grows by: where none are made nothing is due.
            self.cleanup_is_due = now >= self._manager.cleanup.at
            max_age = work.meta.max_age(options, now)
            value = self._manager.tokens.issue(token)
            lines += cookies.set(environ, value, max_age=max_age)
            notices.of_cookie_set(environ)
        ours = [("Set-Cookie", line) for line in lines]
        return caching.keep_private(headers) + ours

    def fail(self, error: BaseException) -> None:
        """Leave the session as a failed request leaves it.

        An answer that is made afterwards is to be ``told``: a token that was saved
        already leaves with whatever answer leaves.
        """
        # What could not be settled is not tried again: it would fail in the same way.
        keep = self._manager.options.save_on_error and not self._has_settled
        keep = keep and isinstance(error, Exception)
        try:
            if keep:
                self._access.commit_late()
            else:
                self._access.roll_back()
        except StoreError as failure:
            # The first error is on its way already; the lease ends by itself.
            self._manager.repository.failed(failure, "a session could not be released")
        except Exception:
            log.exception("a session could not be released")
        self._access.close()

    def end(self) -> None:
        """The context is over, answered or not: without an answer only an end stands."""
        if self._access.is_closed:
            return
        if self._has_settled:
            self.finish()
        else:
            self.fail(sys.exc_info()[1] or GeneratorExit())

    def close(self) -> None:
        """The request is over, and nothing more is written."""
        self._access.close()

    def finish(self) -> None:
        """The body has been sent: write what was changed since the headers left."""
        try:
            self._access.commit_late()
        finally:
            self._access.close()
            if self.cleanup_is_due:
                self._manager.cleanup.run()


def named(environ: Mapping[str, Any]) -> str:
    """A request as it is named to others that wait for it: its method and its path."""
    text = f"{environ.get('REQUEST_METHOD', 'GET')} {environ.get('PATH_INFO') or '/'}"
    return text if text.isprintable() else ascii(text)[1:-1]


def has_body(environ: Mapping[str, Any]) -> bool:
    """Whether a request brings a body, which can be read once only."""
    length = environ.get("CONTENT_LENGTH") or "0"
    return length != "0" or "HTTP_TRANSFER_ENCODING" in environ


def is_oauth_answer(environ: Mapping[str, Any]) -> bool:
    """Whether a request is the answer of an OAuth or OpenID provider."""
    query = environ.get("QUERY_STRING") or ""
    return bool(
        query and _OAUTH_STATE.search(query) is not None and _OAUTH.search(query)
    )


def comes_from_this_site(environ: Mapping[str, Any]) -> bool:
    """Whether a page of this site made the request.

    Payment returns, links in mails and one-time downloads come from outside, and the
    browser says so (Fetch Metadata).  Over plain http it says nothing: then the referer
    has to be ours, or the host a loopback one and no proxy before it.  The schemes are
    not compared, because a proxy may have ended TLS.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return bool(site == "same-origin")
    host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME") or ""
    is_forwarded = any(environ.get(name) for name in _FORWARDED)
    if _LOOPBACK.fullmatch(host) and not is_forwarded:
        return True
    try:
        return bool(urlsplit(environ.get("HTTP_REFERER") or "").netloc == host != "")
    except ValueError:
        return False


def can_be_repeated(status: str, headers: Headers) -> bool:
    """A GET that redirects is an action, and a download may be good for one use."""
    if not status.startswith("200"):
        return False
    return not any(name.lower() == "content-disposition" for name, _ in headers)
