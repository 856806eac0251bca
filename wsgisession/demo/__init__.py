"""What the sessions promise, shown on a page: ``python -m wsgisession demo``.

One WSGI application behind ``SessionMiddleware``, and its counter once more behind a
second one whose store saves blindly, as most libraries do.  It knows the public interface
of the library and nothing beneath it.
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
from ..http.exchange import MANAGER_KEY
from ..manager import SessionManager
from ..middleware import App, SessionMiddleware, get_session
from ..session import Session
from ..store import Store
from ..testing.blind import BlindStore

with warnings.catch_warnings():
    # WebOb imports ``cgi``, of which Python 3.11 and 3.12 say that it will go.
    warnings.simplefilter("ignore", DeprecationWarning)
    from webob import Request, Response
    from webob.exc import HTTPMethodNotAllowed, HTTPNotFound, HTTPSeeOther

PORT = 8000
AT_ONCE = 50
THINK = 0.005
"""Seconds between reading the counter and writing it, as a real request has them."""

BLIND = "/blind"
"""Where the counter is whose store saves blindly."""

PAGE = Template(files(__package__).joinpath("demo.html").read_text("utf-8"))
BROWSER = re.compile("Firefox|Chrome|Safari")
"""Found in a User-Agent; Chrome names Safari as well, further on."""

Environ: TypeAlias = dict[str, Any]
Handler = Callable[[Request], Response]
Routes = Mapping[str, Mapping[str, Handler]]


# -- the counter -------------------------------------------------------------------------


def _counter(request: Request) -> Response:
    return Response(json={"counter": get_session(request.environ).get("counter", 0)})


def _reset(request: Request) -> Response:
    get_session(request.environ)["counter"] = 0
    return Response(json={"counter": 0})


def _increment(request: Request) -> Response:
    session = get_session(request.environ)
    count = session.get("counter", 0)
    locked = session.locked
    replayed = request.environ.get("wsgisession.replay") is True
    time.sleep(THINK)
    session["counter"] = count + 1
    return Response(json={"locked": locked, "replayed": replayed})


# -- the page ----------------------------------------------------------------------------


def _page(request: Request) -> Response:
    session, manager = get_session(request.environ), request.environ[MANAGER_KEY]
    session["visits"] = session.get("visits", 0) + 1
    session.setdefault("counter", 0)
    nonce = secrets.token_urlsafe(16)
    text = PAGE.substitute(
        nonce=nonce,
        at_once=AT_ONCE,
        think=round(THINK * 1000),
        blind=BLIND,
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
    if session.user is None:
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


def _log_in(request: Request) -> Response:
    user = _field(request, "user").strip()[:40]
    if user:
        known = BROWSER.search(request.user_agent or "")
        browser = known[0] if known else "a client"
        get_session(request.environ).login(user, browser=browser)
    return HTTPSeeOther(location="/")


def _log_out(request: Request) -> Response:
    get_session(request.environ).logout()
    return HTTPSeeOther(location="/")


def _end(request: Request) -> Response:
    """End a session, if it is one of the same user."""
    session, manager = get_session(request.environ), request.environ[MANAGER_KEY]
    chosen = manager.get(_field(request, "id"))
    if chosen is not None and session.user is not None and chosen.user == session.user:
        if chosen.id == session.id:
            session.logout()
        else:
            manager.end(chosen.id)
    return HTTPSeeOther(location="/")


def _end_others(request: Request) -> Response:
    session, manager = get_session(request.environ), request.environ[MANAGER_KEY]
    if session.user is not None:
        manager.end_user(session.user, keep=session.id)
    return HTTPSeeOther(location="/")


COUNTER: Routes = {
    "/counter": {"GET": _counter},
    "/counter/reset": {"POST": _reset},
    "/counter/increment": {"GET": _increment, "POST": _increment},
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
        return handler(Request(environ))(environ, start_response)

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
    if not (can.locks and can.lists):
        raise ConfigurationError(
            f"{type(store).__name__} cannot show it all: the demo locks and lists "
            "sessions, which needs a store on the server"
        )
    blind = SessionMiddleware(
        application(COUNTER),
        store=BlindStore(cast(Store, store)),
        cookie_name="demo_blind",
        cookie_path=BLIND,
    )

    def mounted(environ: Environ, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith(f"{BLIND}/"):
            shift_path_info(environ)
            return blind(environ, start_response)
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
        yield {"url": url}
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
