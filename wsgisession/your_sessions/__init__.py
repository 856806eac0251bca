"""A page on which users see where they are logged in, and end what they do not know.

``YourSessions`` is a WSGI application that a site mounts inside its
``SessionMiddleware``.  It knows the public interface of the library and nothing beneath
it; it works without JavaScript, and shows neither tokens nor values.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from hmac import compare_digest
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, TypeAlias

from ..errors import ConfigurationError
from ..manager import SessionManager
from ..middleware import get_manager, get_session
from ..session import Session
from .devices import name_of

with warnings.catch_warnings():
    # WebOb imports ``cgi``, of which Python 3.11 and 3.12 say that it will go.
    warnings.simplefilter("ignore", DeprecationWarning)
    from webob import Request, Response
    from webob.exc import HTTPMethodNotAllowed, HTTPNotFound, HTTPSeeOther

Environ: TypeAlias = dict[str, Any]

PAGE = files(__package__).joinpath("page.html").read_text("utf-8")
FIELDS = ("nonce", "user", "sessions", "end_others")
"""What a template may name; ``$$sessions`` it must."""

GUARD = "_your_sessions"
"""The key of the value that a form has to bring along, so that no other site can post."""

MINUTE, HOUR, DAY, WEEK = 60, 3600, 86400, 7 * 86400


class YourSessions:
    """Lists the sessions of the user who is logged in; ends one, or all others.

    Tell ``login()`` of the device: ``session.login(user, user_agent=...)``, or
    ``device=`` with a name of your own.

    :param template: the page, instead of ours: text for ``string.Template`` with the
        fields ``$sessions`` (list items), ``$end_others`` (a form, or nothing),
        ``$user``, and ``$nonce`` for style sheets of its own.  All are escaped already.
    :param log_in: where a visitor who is not logged in is sent; None: a plain sentence.

    Raises ``ConfigurationError`` for a template that cannot be filled.
    """

    def __init__(
        self, *, template: str | None = None, log_in: str | None = None
    ) -> None:
        self._template = Template(PAGE if template is None else template)
        self._log_in = log_in
        try:
            filled = self._template.substitute(dict.fromkeys(FIELDS, "\0"))
        except (KeyError, ValueError) as error:
            raise ConfigurationError(
                f"the template cannot be filled ({error}); it may name "
                f"{', '.join(f'${field}' for field in FIELDS)}, and a dollar is $$"
            ) from error
        if "\0" not in filled or "$sessions" not in self._template.template:
            raise ConfigurationError("the template does not name $sessions")

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        answer: Response = self._answered(request)
        answer.headers.setdefault("X-Content-Type-Options", "nosniff")
        return answer(environ, start_response)

    def _answered(self, request: Request) -> Response:
        if request.path_info not in ("", "/"):
            return HTTPNotFound()
        if request.method not in ("GET", "HEAD", "POST"):
            return HTTPMethodNotAllowed(allow=("GET", "HEAD", "POST"))
        session, manager = get_session(request.environ), get_manager(request.environ)
        if not manager.store.capabilities.lists:
            raise ConfigurationError(
                "YourSessions needs a store that lists sessions; "
                f"{type(manager.store).__name__} cannot"
            )
        if session.user is None:
            return self._is_nobody()
        if request.method == "POST":
            return _ended(request, session, manager)
        return self._page(session, manager)

    def _is_nobody(self) -> Response:
        if self._log_in is not None:
            return HTTPSeeOther(location=self._log_in)
        text = "Log in to see where you are logged in.\n"
        return Response(text, status=403, content_type="text/plain", charset="utf-8")

    # -- the page ----------------------------------------------------------------------

    def _page(self, session: Session, manager: SessionManager) -> Response:
        nonce, user = secrets.token_urlsafe(16), session.user
        assert user is not None
        others = [each for each in manager.sessions_of(user) if each.id != session.id]
        others.sort(key=lambda each: each.last_accessed, reverse=True)
        guard = session.setdefault(GUARD, secrets.token_urlsafe(16))
        text = self._template.substitute(
            nonce=nonce,
            user=escape(user),
            sessions="\n".join(_items(session, others, guard)),
            end_others=_form(guard, "others", "1", "End all others") if others else "",
        )
        response = Response(text, cache_control="no-store")
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; style-src 'self' 'nonce-{nonce}'; img-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        response.headers["Referrer-Policy"] = "same-origin"
        return response


def _items(this: Session, others: Iterable[Session], guard: str) -> Iterator[str]:
    now = datetime.now(timezone.utc)
    yield _item(this, '<p class="this">This session</p>', "Log out", guard, now)
    for each in others:
        seen = f"<p>Last seen {_time(each.last_accessed, now)}</p>"
        yield _item(each, seen, "End", guard, now)


def _item(each: Session, seen: str, verb: str, guard: str, now: datetime) -> str:
    device = escape(name_of(each.login_details))
    label = f"{verb}: {device}, since {each.created:%d %B %Y, %H:%M} UTC"
    return (
        f"<li><div><h2>{device}</h2>{seen}"
        f"<p>Logged in {_time(each.created, now)}</p></div>"
        f"{_form(guard, 'end', each.id, verb, label)}</li>"
    )


def _form(guard: str, name: str, value: str, verb: str, label: str = "") -> str:
    spoken = f' aria-label="{label}"' if label else ""
    kind = "" if label else ' class="all"'
    return (
        f'<form method="post"{kind}><input type="hidden" name="guard" value="{guard}">'
        f'<button name="{name}" value="{value}"{spoken}>{verb}</button></form>'
    )


def _time(when: datetime, now: datetime) -> str:
    """A moment as people say it, with the exact one behind it."""
    exact = f"{when:%Y-%m-%dT%H:%M:%SZ}"
    return f'<time datetime="{exact}" title="{exact}">{ago(when, now)}</time>'


def ago(when: datetime, now: datetime) -> str:
    """How long ago a moment was, in words; a date from a week on."""
    seconds = (now - when).total_seconds()
    for least, unit, name in (
        (WEEK, 0, ""),
        (DAY, DAY, "day"),
        (HOUR, HOUR, "hour"),
        (MINUTE, MINUTE, "minute"),
    ):
        if seconds >= least:
            if not unit:
                return f"on {when.day} {when:%B %Y}"
            count = int(seconds // unit)
            return f"{count} {name}{'s' * (count != 1)} ago"
    return "just now"


# -- the forms ---------------------------------------------------------------------------


def _ended(request: Request, session: Session, manager: SessionManager) -> Response:
    """Do what a form asks for, and send the browser back to the page."""
    guard = str(session.get(GUARD, ""))
    if not guard or not compare_digest(
        _field(request, "guard").encode(), guard.encode()
    ):
        text = "This form is too old, or not from this site. Go back and try again.\n"
        return Response(text, status=403, content_type="text/plain", charset="utf-8")
    assert session.user is not None
    if _field(request, "others"):
        manager.end_user(session.user, keep=session.id)
    elif (id := _field(request, "end")) == session.id:
        session.logout()
    elif (chosen := manager.get(id)) is not None and chosen.user == session.user:
        manager.end(id)
    return HTTPSeeOther(location=request.path_url)


def _field(request: Request, name: str) -> str:
    value = request.POST.get(name)
    return value if isinstance(value, str) else ""  # a file is none
