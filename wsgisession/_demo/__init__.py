"""What the sessions promise, shown on a page: ``python -m wsgisession demo``.

One WSGI application behind ``SessionMiddleware``, and what it promises once more as other
libraries do it: with a store that saves blindly, and with a lock for every request.  It
knows the public interface of the library and nothing beneath it.
"""

from __future__ import annotations

import re
import secrets
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from errno import EADDRINUSE
from html import escape
from importlib.resources import files
from socketserver import ThreadingMixIn
from string import Template
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.util import shift_path_info

from ..errors import ConfigurationError
from ..manager import SessionManager
from ..middleware import App, SessionMiddleware, get_manager, get_session
from ..session import Session
from ..store import Store
from ..testing._blind import BlindStore
from .trials import SLOW, TRIALS, Trial

with warnings.catch_warnings():
    # WebOb imports ``cgi``, of which Python 3.11 and 3.12 say that it will go.
    warnings.simplefilter("ignore", DeprecationWarning)
    from webob import Request, Response
    from webob.exc import HTTPMethodNotAllowed, HTTPNotFound

PORT = 8000
AT_ONCE = 50
THINK = 0.005
"""Seconds between reading the counter and writing it, as a real request has them."""

BLIND = "/blind"
"""Where a store saves blindly."""
LOCKED = "/locked"
"""Where every request takes the lock."""

PAGE = Template(files(__package__).joinpath("demo.html").read_text("utf-8"))
BROWSER = re.compile("Firefox|Chrome|Safari")
"""Found in a User-Agent; Chrome names Safari as well, further on."""

Environ: TypeAlias = dict[str, Any]
Handler = Callable[[Request], Response]
Routes = Mapping[str, Mapping[str, Handler]]


# -- the counter -------------------------------------------------------------------------


def _told(session: Session, **facts: Any) -> Response:
    """An answer to a script, with what is true of its session now."""
    return Response(json={**facts, "user": session.user})


def _counter(request: Request) -> Response:
    session = get_session(request.environ)
    return _told(session, counter=session.get("counter", 0))


def _reset(request: Request) -> Response:
    session = get_session(request.environ)
    session["counter"] = 0
    return _told(session, counter=0)


def _increment(request: Request) -> Response:
    session = get_session(request.environ)
    count = session.get("counter", 0)
    locked = session.locked
    replayed = request.environ.get("wsgisession.replay") is True
    time.sleep(THINK)
    session["counter"] = count + 1
    return _told(session, locked=locked, replayed=replayed)


def _tried(trial: Trial) -> Handler:
    def respond(request: Request) -> Response:
        return Response(json=trial(request.environ, request.GET))

    return respond


# -- the page ----------------------------------------------------------------------------


def _page(request: Request) -> Response:
    session, manager = get_session(request.environ), get_manager(request.environ)
    session["visits"] = session.get("visits", 0) + 1
    session.setdefault("counter", 0)
    nonce = secrets.token_urlsafe(16)
    text = PAGE.substitute(
        nonce=nonce,
        at_once=AT_ONCE,
        think=round(THINK * 1000),
        blind=BLIND,
        locked=LOCKED,
        slow=round(SLOW * 1000),
        if_listed="" if manager.store.capabilities.lists else "hidden",
        if_in_cookie="hidden" if manager.store.capabilities.lists else "",
        facts="".join(_facts(session)),
        values="".join(_values(session)),
        user=escape(session.user or ""),
        if_anonymous="hidden" if session.user else "",
        if_known="" if session.user else "hidden",
        sessions="".join(_sessions(session, manager)),
    )
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
        "img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
    response = Response(text, cache_control="no-store")
    response.headers["Content-Security-Policy"] = policy
    return response


def _facts(session: Session) -> Iterator[str]:
    facts = {
        "id": session.id[:8],
        "created": _moment(session.created),
        "last used": _moment(session.last_accessed),
        "expires": _moment(session.expires),
        "user": session.user or "nobody",
    }
    for name, fact in facts.items():
        yield f"<dt>{name}</dt><dd>{escape(fact)}</dd>"


def _values(session: Session) -> Iterator[str]:
    for name, value in sorted(session.items()):
        name, shown = escape(name), escape(repr(value))
        yield f'<dt>{name}</dt><dd data-value="{name}">{shown}</dd>'


def _sessions(session: Session, manager: SessionManager) -> Iterator[str]:
    if session.user is None or not manager.store.capabilities.lists:
        return
    listed = manager.sessions_of(session.user)
    for each in sorted(listed, key=lambda each: each.created):
        id, this = each.id, each.id == session.id
        browser = escape(str(each.login_details.get("browser", "")))
        used = "this one" if this else f"last used {each.last_accessed:%H:%M:%S} UTC"
        yield (
            f"<li{' aria-current=true' if this else ''}><code>{id[:8]}</code> "
            f"<span>{browser}, {used}</span>"
            f'<form method="post" action="/end"><button name="id" value="{id}" '
            f'aria-label="End session {id[:8]}">End</button></form></li>'
        )


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


# -- the forms: each acts, and sends the browser back to the page ------------------------


def _field(request: Request, name: str) -> str:
    value = request.POST.get(name)
    return value if isinstance(value, str) else ""  # a file is none


def _home() -> Response:
    return Response(status=303, location="/")


def _log_in(request: Request) -> Response:
    user = _field(request, "user").strip()[:40]
    if user:
        known = BROWSER.search(request.user_agent or "")
        browser = known[0] if known else "a client"
        get_session(request.environ).login(user, browser=browser)
    return _home()


def _log_out(request: Request) -> Response:
    get_session(request.environ).logout()
    return _home()


def _end(request: Request) -> Response:
    """End a session, if it is one of the same user."""
    session, manager = get_session(request.environ), get_manager(request.environ)
    id = _field(request, "id")
    if session.user is not None and id == session.id:
        session.logout()
    elif session.user is not None:
        manager.end(id, user=session.user)
    return _home()


def _end_others(request: Request) -> Response:
    session, manager = get_session(request.environ), get_manager(request.environ)
    if session.user is not None and manager.store.capabilities.lists:
        manager.end_user(session.user, keep=session.id)
    return _home()


COUNTER: Routes = {
    "/counter": {"GET": _counter},
    "/counter/reset": {"POST": _reset},
    "/counter/increment": {"GET": _increment, "POST": _increment},
}
TRIED: Routes = {
    path: {method: _tried(trial) for method, trial in methods.items()}
    for path, methods in TRIALS.items()
}
PAGES: Routes = {
    "/": {"GET": _page, "HEAD": _page},
    "/login": {"POST": _log_in},
    "/logout": {"POST": _log_out},
    "/end": {"POST": _end},
    "/end-others": {"POST": _end_others},
}


# -- the application ---------------------------------------------------------------------


def application(routes: Routes) -> App:
    """A WSGI application from a table of routes; the session is in the environ."""

    def respond(environ: Environ, start_response: Any) -> Iterable[bytes]:
        methods = routes.get(environ["PATH_INFO"])
        if methods is None:
            return HTTPNotFound()(environ, start_response)
        handler = methods.get(environ["REQUEST_METHOD"])
        if handler is None:
            return HTTPMethodNotAllowed(allow=methods)(environ, start_response)
        answer = handler(Request(environ))
        # Not by WebOb, which would make an address of the Location, with a scheme and a
        # host that a proxy may not have passed on: a browser then refuses to follow it.
        start_response(answer.status, answer.headerlist)
        body: Iterable[bytes] = answer.app_iter
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body

    return respond


def demo(settings: Mapping[str, Any]) -> App:
    """The whole demonstration, on the store that the settings name."""
    seeing = SessionMiddleware(
        application({**PAGES, **COUNTER}),
        settings,
        cookie_name="demo",
        lock_wait=60,  # the last of fifty, on a slow machine
    )
    store = seeing.manager.store
    can = store.capabilities
    if can.token_octets is not None:
        return seeing  # of what it cannot promise the page speaks
    if not (can.locks and can.lists):
        raise ConfigurationError(
            f"{type(store).__name__} cannot show it all: the demo locks and lists "
            "sessions, which needs a store on the server"
        )
    return _mounted(seeing, cast(Store, store))


def _mounted(seeing: App, store: Store) -> App:
    """The pages, and beside them the same trials in three ways."""
    routes = application({**TRIED, **COUNTER})
    apart = {
        "": SessionMiddleware(routes, store=store, cookie_name="demo_trial"),
        BLIND: SessionMiddleware(
            routes,
            store=BlindStore(store),
            cookie_name="demo_blind",
            cookie_path=BLIND,
        ),
        LOCKED: SessionMiddleware(
            routes,
            store=store,
            cookie_name="demo_locked",
            cookie_path=LOCKED,
            locking="always",
        ),
    }

    def mounted(environ: Environ, start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        for prefix, way in apart.items():
            if prefix and path.startswith(f"{prefix}/"):
                shift_path_info(environ)
                return way(environ, start_response)
        if path.startswith("/trial/"):
            return apart[""](environ, start_response)
        return seeing(environ, start_response)

    return mounted


# -- the server --------------------------------------------------------------------------


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 2 * AT_ONCE

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # the browser has left
            super().handle_error(request, client_address)


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the page shows it all."""


def run(
    say: Callable[[str], None], *, host: str, port: int | None, url: str | None
) -> None:
    """Serve the demonstration until it is interrupted.

    :param say: is told the address, and how to stop.
    :param port: None: 8000, or any that is free if that is taken.
    :param url: where the sessions go; None: files that are removed at the end.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _store(url) as settings, suppress(KeyboardInterrupt):
        app = demo(settings)
        with _listen(host, port) as server:
            server.set_app(app)
            say(f"The demo runs at http://{host}:{server.server_port}/")
            say("Press Ctrl-C to stop it.")
            server.serve_forever()
    say("\nStopped.")


@contextmanager
def _store(url: str | None) -> Iterator[dict[str, Any]]:
    """The settings of the store; a folder of our own is removed at the end."""
    if url is not None:
        # A cookie has to be signed; its sessions end with the demo.
        secret = secrets.token_urlsafe(32)
        yield {"url": url, "secret": secret} if url == "cookie:" else {"url": url}
        return
    with TemporaryDirectory(
        prefix="wsgisession-demo-", ignore_cleanup_errors=True
    ) as folder:
        yield {"type": "file", "data_dir": f"{folder}/sessions"}


def _listen(host: str, port: int | None) -> _Server:
    wanted = PORT if port is None else port
    try:
        return _Server((host, wanted), _QuietHandler)
    except OSError as error:
        if port is None and error.errno == EADDRINUSE:
            return _listen(host, 0)
        raise ConfigurationError(
            f"cannot listen on {host}:{wanted}: {error.strerror}"
        ) from error
