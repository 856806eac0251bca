"""Two whole requests of one session, of which one runs in the middle of the other.

No thread and no luck: a handler lets the other request run, from its beginning to its
end, at a place of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wsgisession import Capabilities, Session, SessionManager

from .conftest import Visitor
from .pages import increment

Step = Callable[[Session], object]


class Between:
    """A handler that, in its first run, lets another request run in the middle."""

    def __init__(self, before: Step, after: Step) -> None:
        self.before = before
        self.after = after
        self.other: Callable[[], object] = lambda: None
        self.runs = 0

    def __call__(self, session: Session) -> object:
        self.runs += 1
        self.before(session)
        if self.runs == 1:
            self.other()
        return self.after(session)


def read(session: Session) -> object:
    return session["n"]


def visitor(manager: SessionManager, **handlers: Any) -> Visitor:
    """A visitor with a stored session of n=1 and an empty cart."""
    pages = {
        "/start": lambda s: s.update(n=1, cart=[], other=0),
        "/n": lambda s: s.get("n"),
        "/all": lambda s: s.copy(),
        "/increment": increment,
        "/other": lambda s: s.update(other=7),
        "/append": lambda s: s["cart"].append("theirs"),
        "/login": lambda s: s.login("ann"),
        "/regenerate": lambda s: s.regenerate(),
        "/rotate": lambda s: s.rotate(),
        "/logout": lambda s: s.flush(),
        **{f"/{name}": handler for name, handler in handlers.items()},
    }
    browser = Visitor(manager, pages)
    browser.get("/start")
    return browser


def between(
    manager: SessionManager,
    other: str,
    before: Step = read,
    after: Step = increment,
    *,
    method: str = "GET",
    **handlers: Any,
) -> tuple[Visitor, Between]:
    """A visitor whose page ``/slow`` is overtaken by its page ``other``."""
    slow = Between(before, after)
    browser = visitor(manager, slow=slow, **handlers)
    slow.other = lambda: browser.another().request(other, method=method)
    return browser, slow


def values(manager: SessionManager) -> dict[str, Any]:
    """The values of the one session that is stored."""
    (session,) = manager.sessions()
    return session.copy()


class Lockless:
    """A store with the four methods and no more."""

    capabilities = Capabilities()

    def __init__(self, store: Any) -> None:
        self.load = store.load
        self.save = store.save
        self.touch = store.touch
        self.delete = store.delete
