"""Adapters: each puts the middleware at the door of its framework, and makes the
framework's own session object a view of ours.

They translate names and settings, and decide nothing.  None knows another, and each can
be deleted without a change elsewhere.  What several need is in a file with an underscore.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__: tuple[str, ...] = ()
"""Nothing for applications: an adapter is imported from its own module."""


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Around the imports of a framework: say how to install it where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"wsgisession.integrations.{extra} needs {extra}; install it with: "
            f'python -m pip install "wsgisession-middleware[{extra}]"',
            name=error.name,
        ) from error
