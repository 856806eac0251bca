"""``doctor``: a configuration, checked against the place where it is to work.

What only a store can know of its server the store finds itself (``examine``).  Here is
what is true of all: whether it can be reached and written to, the cookie, the secrets,
the versions of libraries.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .._health import ExaminedStore, Finding, Level
from ..errors import ConfigurationError, SessionError, StoreError
from ..manager import SessionManager
from ..options import Options

NEEDED = {
    "WebOb": (1, 8, 8),
    "itsdangerous": (2, 1, 2),
    "filelock": (3, 30),
    "redis": (8,),
    "SQLAlchemy": (2, 0, 30),
    "cryptography": (42,),
    "msgspec": (0, 19),
}
"""The oldest versions without a fault that is known to matter here."""

SLOW = 0.1
"""Seconds of a save after which a store is worth a word."""


def examine(
    settings: Mapping[str, Any], place: Path | None, address: str | None
) -> Iterator[Finding]:
    """All findings, of which the first may be the last.

    :param place: the folder or file of the sessions, which is not made by looking.
    :param address: where browsers find the site.
    """
    if place is not None and not place.exists():
        said = f"nothing is at {place} yet"
        advice = (
            "a typing error?  else start the application, or run `wsgisession init`"
        )
        yield Finding(Level.ERROR, "settings", said, advice)
        return
    try:
        manager = SessionManager.from_config(settings)
    except ConfigurationError as error:
        yield Finding(Level.ERROR, "settings", str(error), "mend what it says")
        return
    yield Finding(Level.OK, "settings", f"a {type(manager.store).__name__}")
    yield from _libraries()
    yield from _secrets(manager.options)
    yield from _cookie(manager.options, address)
    with closing(manager):
        yield from _store(manager)


# -- the store ---------------------------------------------------------------------------


def _store(manager: SessionManager) -> Iterator[Finding]:
    try:
        manager.ping()
    except StoreError as error:
        yield Finding(Level.ERROR, "store", str(error), "is it running, and allowed?")
        with suppress(StoreError):  # a database may answer that lacks its table
            yield from _examined(manager)
        return
    if manager.store.capabilities.one_process:
        said = "sessions are in the memory of each process, and gone with it"
        advice = "give a url that all processes share"
        yield Finding(Level.WARNING, "store", said, advice)
    yield _writable(manager)
    yield from _examined(manager)


def _examined(manager: SessionManager) -> Iterator[Finding]:
    if isinstance(manager.store, ExaminedStore):
        yield from manager.store.examine()


def _writable(manager: SessionManager) -> Finding:
    """Save a session, change it under its lock, end it."""
    began = time.perf_counter()
    try:
        session = manager.create()
        session["doctor"] = True
        session.save()
        seconds = time.perf_counter() - began
        if manager.store.capabilities.token_octets is None:
            with manager.edit(session.id) as held:
                held["doctor"] = False
            manager.end(session.id)
    except SessionError as error:
        return Finding(Level.ERROR, "writing", str(error), "sessions cannot be kept")
    said = f"a session was saved in {seconds * 1000:.1f} ms"
    if seconds < SLOW:
        return Finding(Level.OK, "writing", said)
    return Finding(Level.WARNING, "writing", said, "put the store nearer to the site")


# -- secrets -----------------------------------------------------------------------------


def _secrets(options: Options) -> Iterator[Finding]:
    if not options.secret:
        said = "none: tokens are 256 random bits, and junk is asked of the store"
        yield Finding(Level.OK, "secret", said)
        return
    prints = ", ".join(sha256(each).hexdigest()[:8] for each in options.secret)
    said = f"fingerprint {prints}; compare it with that of every other worker"
    yield Finding(Level.OK, "secret", said)


# -- the cookie --------------------------------------------------------------------------


def _cookie(options: Options, address: str | None) -> Iterator[Finding]:
    name = options.cookie_name
    if address is None:
        said = f"{name!r}; give --address to check it against the site"
        yield Finding(Level.OK, "cookie", said)
        return
    place = urlsplit(address if "//" in address else f"https://{address}")
    host, is_https = (place.hostname or "").lower(), place.scheme == "https"
    problems = [
        *_of_transport(options, host, is_https=is_https),
        *_of_domain(options, host),
        *_of_path(options, place.path or "/"),
    ]
    yield from problems
    if not problems:
        yield Finding(Level.OK, "cookie", f"{name!r} fits {place.scheme}://{host}")


def _of_transport(options: Options, host: str, *, is_https: bool) -> Iterator[Finding]:
    is_local = host in ("localhost", "127.0.0.1", "::1") or host.endswith(".localhost")
    if not is_https and not is_local:
        said = (
            "it is Secure, and browsers send it to no address with http"
            if options.cookie_secure is True
            else "it is sent in the clear: anybody who listens can take it over"
        )
        yield Finding(Level.ERROR, "cookie", said, "serve the site by https")
    elif is_https and options.cookie_secure is False:
        said = "the site has https, and the cookie is not Secure"
        advice = "cookie_secure=True, or leave it at 'auto'"
        yield Finding(Level.ERROR, "cookie", said, advice)
    elif is_https and options.cookie_secure == "auto":
        said = "it is Secure only if the server knows that requests came by https"
        advice = "cookie_secure=True, where the site has https alone"
        yield Finding(Level.WARNING, "cookie", said, advice)
    if is_https and not options.cookie_name.startswith(("__Host-", "__Secure-")):
        said = f"a subdomain may set a cookie {options.cookie_name!r} over it"
        advice = f"cookie_name='__Host-{options.cookie_name}' with cookie_secure=True"
        yield Finding(Level.WARNING, "cookie", said, advice)


def _of_domain(options: Options, host: str) -> Iterator[Finding]:
    domain = options.cookie_domain
    if not isinstance(domain, str):
        return
    bare = domain.lstrip(".").lower()
    if host != bare and not host.endswith(f".{bare}"):
        said = f"its domain is {bare}, and browsers refuse that from {host}"
        yield Finding(Level.ERROR, "cookie", said, "leave cookie_domain out")
    elif "." not in bare:
        said = f"its domain {bare} has no dot, and browsers refuse that"
        yield Finding(Level.ERROR, "cookie", said, "leave cookie_domain out")
    else:
        said = f"every host below {bare} is sent it, and can set it"
        yield Finding(Level.WARNING, "cookie", said, "leave cookie_domain out")


def _of_path(options: Options, path: str) -> Iterator[Finding]:
    ours = options.cookie_path
    if not isinstance(ours, str):
        return
    inside = path == ours or path.startswith(ours.rstrip("/") + "/")
    if not inside:
        said = f"its path is {ours}, and browsers do not send it to {path}"
        yield Finding(Level.ERROR, "cookie", said, "cookie_path='/'")


# -- libraries ---------------------------------------------------------------------------


def _libraries() -> Iterator[Finding]:
    found = {name: _version(name) for name in NEEDED}
    said = ", ".join(f"{name} {text}" for name, text in found.items() if text)
    old = [name for name, text in found.items() if text and _is_old(name, text)]
    if not old:
        yield Finding(Level.OK, "libraries", said)
    for name in old:
        least = ".".join(map(str, NEEDED[name]))
        advice = f'python -m pip install "{name}>={least}"'
        yield Finding(Level.ERROR, "libraries", f"{name} {found[name]} is old", advice)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _is_old(name: str, text: str) -> bool:
    numbers = tuple(int(each) for each in re.findall(r"\d+", text)[:3])
    return numbers < NEEDED[name]
