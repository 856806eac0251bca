"""What a view says of itself, before its session is looked at for the first time.

An adapter of a framework finds the mark at the view and tells it to the environ; without
one the environ is told by the application.  This file knows no framework.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["EXTERNAL_KEY", "READ_ONLY_KEY", "external", "read_only"]

READ_ONLY_KEY = "wsgisession.read_only"
"""True in the environ: the request takes no lock, whatever its method; a write raises
``SessionReadOnly``."""

EXTERNAL_KEY = "wsgisession.external"
"""True in the environ: the request takes the lock at its first look, whatever its method,
and is never run again."""

_View = TypeVar("_View", bound=Callable[..., Any])


def read_only(view: _View) -> _View:
    """Declare that a view only reads its session, though it may answer a POST.

    It then waits for no lock, and holds none.  A change raises ``SessionReadOnly``.  For
    views of the frameworks that there are adapters for; elsewhere set
    ``environ["wsgisession.read_only"] = True``.
    """
    setattr(view, READ_ONLY_KEY, True)
    return view


def external(view: _View) -> _View:
    """Declare that a view acts on the outside world, though it may answer a GET.

    Its first look at the session takes the lock, and the view is never run again.  For
    views of the frameworks that there are adapters for; elsewhere set
    ``environ["wsgisession.external"] = True``.
    """
    setattr(view, EXTERNAL_KEY, True)
    return view


def tell(view: object, environ: dict[str, Any]) -> None:
    """Tell the environ what a view has been declared to be; for adapters.

    ``functools.wraps`` carries the mark through decorators.  A request that has looked
    at its session already goes on as it began.
    """
    for key in (READ_ONLY_KEY, EXTERNAL_KEY):
        if getattr(view, key, False) is True:
            environ[key] = True
