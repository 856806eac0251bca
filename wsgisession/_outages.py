"""What is logged while a store fails: one line a minute, however many requests meet it.

It knows when something was said, and nothing of stores, requests or sessions.
"""

from __future__ import annotations

import logging
import threading

log = logging.getLogger("wsgisession")

EVERY = 60.0
"""Seconds between two lines about one outage, and without a failure until it is over."""


class Outages:
    """Tells the log of a store's failures.

    The first line of an outage has the traceback, the later ones the number of failures
    since the line before.  What is not said at level ERROR is said at DEBUG.
    """

    __slots__ = ("_guard", "_said", "_seen", "_unsaid")

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._said = self._seen = -EVERY
        self._unsaid = 0

    def note(self, error: Exception, consequence: str, *, now: float) -> None:
        """Log a failure, and what it meant for the request; ``now`` in epoch seconds."""
        with self._guard:
            # A clock that was set back starts anew.
            is_new = abs(now - self._seen) >= EVERY
            is_due = is_new or abs(now - self._said) >= EVERY
            unsaid, self._seen = self._unsaid, now
            self._unsaid = 0 if is_due else unsaid + 1
            self._said = now if is_due else self._said
        if not is_due:
            log.debug("%s; %s", error, consequence)
            return
        more = f" ({unsaid} more since the last line)" if unsaid else ""
        log.error(
            "%s; %s%s", error, consequence, more, exc_info=error if is_new else None
        )
