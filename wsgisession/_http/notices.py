"""What is wrong around a site though nothing fails: told in the log, once a process.

It knows environs, headers and options, and nothing of sessions or stores.  Each sentence
says what was seen, what comes of it, and what to do.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from .._crypto.secret import OTHER_KEY
from ..options import Options

Environ: TypeAlias = Mapping[str, Any]

log = logging.getLogger("wsgisession")

TOLD = 1000
"""Paths of which is remembered that they were logged."""

WAITED = 0.25
"""Seconds of waiting for a lock that are worth a word, where it was for nothing."""

_FRAMES = frozenset(("iframe", "frame", "embed", "object"))
"""What a browser says of a request for a page within another page (Fetch Metadata)."""


class Notices:
    """What was told already, for one manager.

    :param is_alone: whether the store keeps its records within this process.
    """

    __slots__ = ("_is_alone", "_options", "_own_cookie", "_told")

    def __init__(self, options: Options, *, is_alone: bool) -> None:
        self._options = options
        self._is_alone = is_alone
        self._own_cookie = f"{options.cookie_name}="
        self._told: set[tuple[str, str]] = set()

    # -- at the first look -------------------------------------------------------------

    def of_request(self, environ: Environ, *, has_cookie: bool) -> None:
        """Look at how a request came, where a session is used in it."""
        if self._is_alone and environ.get("wsgi.multiprocess"):
            self._once(
                "processes",
                "this server runs several processes, and the store keeps sessions within "
                "each of them: users will seem logged out at random; give a url that all "
                "share, such as file:///var/lib/app/sessions or redis://localhost/0",
            )
        if has_cookie or environ.get("HTTP_SEC_FETCH_SITE") != "cross-site":
            return
        if environ.get("HTTP_SEC_FETCH_DEST") in _FRAMES:
            self._of_frame()

    def _of_frame(self) -> None:
        if self._options.cookie_samesite in ("Lax", "Strict"):
            self._once(
                "frame",
                "a page of this site is in a frame of another site, where the browser "
                "sends no cookie with SameSite=%s: everybody is a new visitor there; if "
                "that is meant to work, set cookie_samesite='None', cookie_secure=True "
                "and cookie_partitioned=True",
                self._options.cookie_samesite,
            )

    # -- at the answer -----------------------------------------------------------------

    def of_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """Look at what the application answers, where a session was used."""
        for name, value in headers:
            # In the spellings that frameworks use: every request comes by here.
            if name == "Set-Cookie" or name == "set-cookie":
                self._of_cookie(value)

    def _of_cookie(self, value: str) -> None:
        if value.startswith(self._own_cookie):
            self._once(
                "name",
                "the application sets a cookie named %r, as the session's is: one takes "
                "the place of the other, and users are logged out; give one of them "
                "another name (option cookie_name)",
                self._options.cookie_name,
            )

    def of_cookie_set(self, environ: Environ) -> None:
        """Look at how a cookie of ours leaves."""
        if (
            environ.get("HTTP_X_FORWARDED_PROTO") == "https"
            and environ.get("wsgi.url_scheme") == "http"
            and self._options.cookie_secure == "auto"
        ):
            self._once(
                "scheme",
                "a proxy says that the client came by https, and the server that it came "
                "by http: the session's cookie is sent without Secure; have the server "
                "trust the proxy (gunicorn: --forwarded-allow-ips; Werkzeug: ProxyFix), "
                "or set cookie_secure=True",
            )

    # -- of tokens and paths -----------------------------------------------------------

    def of_other_secret(self) -> None:
        """A cookie of the right form was signed by a secret that is not ours."""
        self._once("secret", OTHER_KEY)

    def of_replay(self, path: str, keys: Sequence[str]) -> None:
        """A view ran twice; a warning at the first time for a path."""
        level = logging.WARNING if self._is_first("replay", path) else logging.DEBUG
        names = ", ".join(keys)
        log.log(level, "this view ran twice: %r, because %s changed", path, names)

    def of_foreign_post(self, path: str) -> None:
        """A post from another site began no session; told once for a path."""
        if self._is_first("foreign", path):
            log.warning(
                "a post from another site to %r came without a session cookie; what it "
                "wrote into its session was not kept, because a new cookie would take "
                "the place of the one that the browser did not send "
                "(cross_site_posts=True keeps it)",
                path,
            )

    def of_idle_wait(self, path: str, seconds: float) -> None:
        """A request waited for a lock and then wrote nothing; told once for a path."""
        if self._is_first("idle wait", path):
            log.warning(
                "a request to %r waited %.1f s for the lock of its session and wrote "
                "nothing; if requests to this path only read, though they are no GET, "
                "exempt them by the option locking, given as a callable of the environ",
                path,
                seconds,
            )

    # -- once --------------------------------------------------------------------------

    def _once(self, subject: str, message: str, *facts: object) -> None:
        if (subject, "") not in self._told:
            self._told.add((subject, ""))
            log.warning(message, *facts)

    def _is_first(self, subject: str, path: str) -> bool:
        """Whether a path is met for the first time; of very many, some again."""
        if (subject, path) in self._told:
            return False
        if len(self._told) >= TOLD:  # paths are the clients' choice
            self._told = {each for each in self._told if not each[1]}
        self._told.add((subject, path))
        return True
