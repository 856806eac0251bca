"""A page on which users see where they are logged in, and end what they do not know.

``YourSessions`` is a WSGI application that a site mounts inside its
``SessionMiddleware``.  It knows the public interface of the library and nothing beneath
it; it works without JavaScript, and shows neither tokens nor values.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from hmac import compare_digest
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, TypeAlias
from urllib.parse import parse_qsl
from wsgiref.util import request_uri

from ..errors import ConfigurationError
from ..manager import SessionManager
from ..middleware import get_manager, get_session
from ..session import Session
from ._devices import name_of

with warnings.catch_warnings():
    # WebOb imports ``cgi``, of which Python 3.11 and 3.12 say that it will go.
    warnings.simplefilter("ignore", DeprecationWarning)
    from webob import Request, Response

__all__ = ["YourSessions"]

Environ: TypeAlias = dict[str, Any]

PAGE = files(__package__).joinpath("page.html").read_text("utf-8")
FIELDS = ("nonce", "user", "sessions", "end_others")
"""What a template may name; ``sessions`` it must."""

NOTE = Template(files(__package__).joinpath("note.html").read_text("utf-8"))
"""The page where there are no sessions to show."""

METHODS = ("GET", "HEAD", "POST")

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
    :param log_in: where a visitor logs in: the page links to it; None: no link.

    Raises ``ConfigurationError`` for a template that cannot be filled.
    """

    def __init__(
        self, *, template: str | None = None, log_in: str | None = None
    ) -> None:
        self._template = Template(PAGE if template is None else template)
        self._log_in = log_in
        try:
            filled = self._template.substitute(
                {**dict.fromkeys(FIELDS, ""), "sessions": "\0"}
            )
        except (KeyError, ValueError) as error:
            raise ConfigurationError(
                f"the template cannot be filled ({error}); it may name "
                f"{', '.join(f'${field}' for field in FIELDS)}, and a dollar is $$"
            ) from error
        if "\0" not in filled:
            raise ConfigurationError("the template does not name $sessions")

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        request, nonce = Request(environ), secrets.token_urlsafe(16)
        answer = self._answered(request, nonce)
        answer.headerlist.extend(_protection(nonce))
        # Not by WebOb, which would make an address of the Location, with a scheme and a
        # host that a proxy may not have passed on: a browser then refuses to follow it.
        start_response(answer.status, answer.headerlist)
        body: Iterable[bytes] = answer.app_iter
        return [] if request.method == "HEAD" else body

    def _answered(self, request: Request, nonce: str) -> Response:
        if request.environ.get("PATH_INFO") not in (None, "", "/"):
            return _note(404, nonce, "There is no such page.")
        if request.method not in METHODS:
            answer = _note(405, nonce, "This page can be read and posted to.")
            answer.allow = METHODS
            return answer
        session, manager = get_session(request.environ), get_manager(request.environ)
        if not manager.store.capabilities.lists:
            raise ConfigurationError(
                "YourSessions needs a store that lists sessions; "
                f"{type(manager.store).__name__} cannot"
            )
        if session.user is None:
            # A link and no redirect: after a form of the page browsers follow none that
            # leaves the site, as that to a login often does.
            sentence = "You are not logged in. Log in to see your sessions."
            return _note(403, nonce, sentence, link="Log in", to=self._log_in)
        if request.method == "POST":
            return _ended(request, nonce, session, manager)
        return self._page(session, manager, nonce)

    # -- the page ----------------------------------------------------------------------

    def _page(self, session: Session, manager: SessionManager, nonce: str) -> Response:
        user = session.user
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
        return Response(text)


def _protection(nonce: str) -> list[tuple[str, str]]:
    """Headers of every answer: no script, no frame, no copy."""
    policy = (
        f"default-src 'none'; style-src 'self' 'nonce-{nonce}'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return [
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", policy),
        ("Referrer-Policy", "same-origin"),
        ("X-Content-Type-Options", "nosniff"),
    ]


def _note(
    status: int, nonce: str, sentence: str, *, link: str = "", to: str | None = None
) -> Response:
    """A page that says one thing, with a way on where there is one."""
    way = "" if to is None else f'<p><a href="{escape(to)}">{link}</a></p>'
    text = NOTE.substitute(nonce=nonce, sentence=sentence, link=way)
    return Response(text, status=status)


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


def _ended(
    request: Request, nonce: str, session: Session, manager: SessionManager
) -> Response:
    """Do what a form asks for, and send the browser back to the page."""
    form, guard = _form_of(request), str(session.get(GUARD, ""))
    here = _here(request.environ)
    if not guard or not compare_digest(form.get("guard", "").encode(), guard.encode()):
        sentence = "This form is too old, or not from this site. Nothing was ended."
        return _note(403, nonce, sentence, link="Back to your sessions", to=here)
    assert session.user is not None
    if "others" in form:
        manager.end_user(session.user, keep=session.id)
    elif (id := form.get("end", "")) == session.id:
        session.logout()
    else:
        manager.end(id, user=session.user)
    return Response(status=303, location=here)


def _form_of(request: Request) -> Mapping[str, str]:
    """The fields of a form as the page sends it; no others are read."""
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    return dict(parse_qsl(request.body.decode("latin-1")))


def _here(environ: Environ) -> str:
    """The page, seen from itself: right under any prefix, also one that a proxy took
    away.
    """
    return f"./{request_uri(environ, include_query=False).rpartition('/')[2]}"
