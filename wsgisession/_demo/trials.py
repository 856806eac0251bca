"""Two of the promises, tried on a session made for it: a logout during a slow request,
and a reader beside a slow writer.

The same handlers stand behind three middlewares: ours, one whose store saves blindly, and
one that locks every request.  They know the public interface of the library alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ..middleware import get_manager, get_session

SLOW = 0.8
"""Seconds that the slow request takes."""

Json = dict[str, Any]
Trial = Callable[[Mapping[str, Any], Mapping[str, str]], Json]


def begin(environ: Mapping[str, Any], query: Mapping[str, str]) -> Json:
    """A session for one trial, logged in."""
    session = get_session(environ)
    session.clear()
    session.login("a trial")
    session["n"] = 0
    return {"id": session.id}


def write_slowly(environ: Mapping[str, Any], query: Mapping[str, str]) -> Json:
    """Read, think, write: whatever happens in between."""
    session = get_session(environ)
    count = session.get("n", 0)
    time.sleep(SLOW)
    session["n"] = count + 1
    return {}


def read(environ: Mapping[str, Any], query: Mapping[str, str]) -> Json:
    """A look, as a page takes it."""
    return {"n": get_session(environ).get("n")}


def log_out(environ: Mapping[str, Any], query: Mapping[str, str]) -> Json:
    """The user leaves."""
    get_session(environ).logout()
    return {}


def is_alive(environ: Mapping[str, Any], query: Mapping[str, str]) -> Json:
    """Whether the store has the session of a trial, so that its old cookie is good."""
    found = get_manager(environ).get(query.get("id", ""))
    return {"alive": found is not None and found.user == "a trial"}


TRIALS: Mapping[str, Mapping[str, Trial]] = {
    "/trial/begin": {"POST": begin},
    "/trial/slow": {"POST": write_slowly},
    "/trial/read": {"GET": read},
    "/trial/logout": {"POST": log_out},
    "/trial/alive": {"GET": is_alive},
}
