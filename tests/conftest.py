"""What the tests share: visitors, sessions, and stores that count and travel in time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from wsgiref.validate import validator

import pytest
from webtest import TestApp

from wsgisession import (
    Capabilities,
    Key,
    Session,
    SessionManager,
    SessionMiddleware,
    events,
    get_session,
)
from wsgisession.stores.file import FileStore
from wsgisession.stores.memory import MemoryStore
from wsgisession.testing.apps import Clock as Clock
from wsgisession.testing.apps import clock as clock

Handler = Callable[[Session], object]
SECRET = "u7Zk1vXq0bH3nW9sRfT5yLpC8dJ2gMaE6iOxQwKz4A"


def missing(what: str) -> NoReturn:
    """Skip a test for want of ``what`` on a laptop; on CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI must have it")
    pytest.skip(f"{what} is missing")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """On CI nothing may be left out, for whatever reason: then the run has failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """A session in a cookie cannot make every promise; such tests are not collected."""
    left_out = [
        item
        for item in items
        if item.get_closest_marker("not_in_a_cookie")
        and getattr(item, "callspec", None)
        and item.callspec.params.get("kind") == "cookie"
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


class Watch:
    """A hook for ``on_event`` that keeps the events of some kinds."""

    def __init__(self, *kinds: type[Any]) -> None:
        self.kinds = kinds
        self.seen: list[Any] = []

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, self.kinds):
            self.seen.append(event)

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.seen]


def stored(manager: SessionManager, **values: Any) -> Session:
    """A session that was saved with some values, opened again by its token."""
    session = manager.create()
    session.update(values)
    session.save()
    return reopened(manager, session)


def reopened(manager: SessionManager, session: Session) -> Session:
    """The same session as the next request opens it."""
    token = manager.token_of(session)
    assert token is not None
    return manager.open(token)


def key_of(session: Session) -> Key:
    """Leads a store to the record of a session."""
    return Key(session.id)


class CountingStore:
    """A proxy in front of a store that writes down every call."""

    def __init__(self, store: Any) -> None:
        self.calls: list[str] = []
        self.capabilities: Capabilities = store.capabilities
        for name in ("load", "save", "touch", "delete", "lock", "unlock"):
            if hasattr(store, name):
                setattr(self, name, self._counted(name, getattr(store, name)))
        for name in ("records", "delete_expired", "end_user"):
            if hasattr(store, name):
                setattr(self, name, getattr(store, name))

    def _counted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            return method(*args, **kwargs)

        return counted


class Visitor(TestApp):  # type: ignore[misc]
    """A browser with a cookie jar, in front of the middleware and a handler.

    The handler is given the session, and returns what the page says.
    ``wsgiref.validate`` watches both sides of the middleware.
    """

    __test__ = False

    def __init__(
        self, manager: SessionManager, handlers: dict[str, Handler], **extra: Any
    ) -> None:
        def application(
            environ: dict[str, Any], start_response: Any
        ) -> Iterable[bytes]:
            handler = handlers[environ["PATH_INFO"]]
            body = str(handler(get_session(environ))).encode()
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [body]

        self.middleware = SessionMiddleware(validator(application), manager=manager)
        super().__init__(validator(self.middleware), lint=False, **extra)

    def another(self) -> Visitor:
        """The same browser in another tab: it holds the same cookies now."""
        tab = Visitor.__new__(Visitor)
        TestApp.__init__(tab, self.app, lint=False)
        for cookie in self.cookiejar:
            tab.cookiejar.set_cookie(cookie)
        return tab


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis for whoever asks first, and for all after."""
    from .redis_servers import RedisServer

    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(params=["memory", "file", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """One store of every kind, in turn."""
    made = _made(request.param, request, tmp_path)
    yield made
    if request.param == "sqlite":
        made.close()


def _made(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if kind == "memory":
        return MemoryStore()
    if kind == "file":
        return FileStore(tmp_path / "sessions")
    if kind == "redis":
        pytest.importorskip("redis")
        from wsgisession.stores.redis import RedisStore

        url = request.getfixturevalue("redis_url")
        return RedisStore(url, key_prefix=f"{tmp_path.name}:")
    pytest.importorskip("sqlalchemy")
    from wsgisession.stores.sqlalchemy import SQLAlchemyStore

    made = SQLAlchemyStore(f"sqlite:///{tmp_path / 'sessions.db'}")
    made.create_table()
    return made


# -- one store of each of the seven kinds, for the promises ------------------------------

KINDS = ("memory", "file", "sqlite", "postgresql", "mariadb", "redis", "cookie")
"""The cookie store is the one with revocation."""


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of a store, in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def url_of_kind(
    kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where a store of this kind keeps its sessions, on a real server."""
    if kind in ("postgresql", "mariadb"):
        from . import sql_servers

        with getattr(sql_servers, kind)() as server:
            yield server.url
    elif kind == "redis":
        yield request.getfixturevalue("redis_url")
    else:
        folder = tmp_path_factory.mktemp("kind")
        yield {
            "memory": "memory:",
            "file": f"file://{folder}/sessions",
            "sqlite": f"sqlite:///{folder}/sessions.db",
            "cookie": "cookie:",
        }[kind]


@pytest.fixture
def store_options(kind: str, url_of_kind: str) -> dict[str, Any]:
    """The settings that lead to a store of this kind."""
    if kind == "cookie":
        return {"url": url_of_kind, "secret": SECRET, "revocation": MemoryStore()}
    return {"url": url_of_kind}
