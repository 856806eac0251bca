"""The middleware and its environ: settings, several of them, and views that run twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
from webob import Request
from webtest import TestApp

from wsgisession import (
    ConfigurationError,
    Options,
    Session,
    SessionManager,
    SessionMiddleware,
    get_manager,
    get_session,
)
from wsgisession.stores.memory import MemoryStore

from .conftest import CountingStore
from .wsgi_server import PLAIN, Server, read, with_session


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(MemoryStore())


@pytest.fixture
def manager(store: CountingStore) -> SessionManager:
    return SessionManager(store)


def empty(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return [b""]


def counting(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    session = get_session(environ)
    session["n"] = session.get("n", 0) + 1
    start_response("200 OK", PLAIN)
    return [b"%d" % session["n"]]


# -- settings ----------------------------------------------------------------------------


def test_settings_or_a_manager(manager: SessionManager) -> None:
    """Both at once would leave it open which of them holds."""
    with pytest.raises(ConfigurationError, match="not both"):
        SessionMiddleware(empty, {"type": "memory"}, manager=manager)
    with pytest.raises(ConfigurationError, match="not both"):
        SessionMiddleware(empty, manager=manager, cookie_name="mine")


def test_settings_in_a_mapping_and_in_code() -> None:
    """Both are heard, and what stands in the code wins."""
    config = {"session.type": "memory", "session.cookie_name": "mapping"}
    options: dict[str, Any] = {"cookie_name": "code", "cookie_path": "/app"}
    middleware = SessionMiddleware(empty, config, **options)
    assert middleware.manager.options.cookie_name == "code"
    assert middleware.manager.options.cookie_path == "/app"
    middleware = SessionMiddleware(empty, config)
    assert middleware.manager.options.cookie_name == "mapping"


# -- the environ -------------------------------------------------------------------------


def test_session_and_manager_are_in_the_environ(manager: SessionManager) -> None:
    """Under the documented keys, or under one of the caller's choice."""
    seen: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        seen.append((environ["mine"], environ["wsgisession.manager"]))
        assert get_session(environ, "mine") is environ["mine"]
        return empty(environ, start_response)

    Server(SessionMiddleware(app, manager=manager, environ_key="mine"))
    ((session, found),) = seen
    assert isinstance(session, Session)
    assert found is manager


def test_without_a_middleware_get_session_says_so() -> None:
    """The error asks the question that helps."""
    for environ in ({}, {"wsgisession.session": {"another": "library's"}}):
        with pytest.raises(LookupError, match="wrapped by SessionMiddleware"):
            get_session(environ)


def test_the_manager_of_a_request() -> None:
    """``get_manager`` gives the one whose session it is, or asks the same question."""
    manager = SessionManager(MemoryStore())
    environ = {"wsgisession.manager": manager}
    assert get_manager(environ) is manager
    for wrong in ({}, {"wsgisession.manager": "another library's"}):
        with pytest.raises(LookupError, match="wrapped by SessionMiddleware"):
            get_manager(wrong)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_asked_again_with_the_same_environ(
    manager: SessionManager, store: CountingStore, method: str
) -> None:
    """As WebOb's ``Request.get_response`` does, called twice."""
    middleware = SessionMiddleware(counting, manager=manager)
    cookie = with_session(manager, n=1)
    request = Request.blank("/", method=method, headers={"Cookie": cookie})
    assert [request.get_response(middleware).text for _ in range(3)] == ["2", "3", "4"]
    assert read(manager, cookie) == {"n": 4}


def test_a_request_that_is_tried_again_after_an_error(manager: SessionManager) -> None:
    """As ``repoze.retry`` does, which gives the same environ to every try."""
    tries: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        tries.append(1)
        answer = counting(environ, start_response)
        if len(tries) < 3:
            raise ConnectionError
        return answer

    middleware = SessionMiddleware(app, manager=manager)

    def trying(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        for _ in range(2):
            try:
                return middleware(environ, start_response)
            except ConnectionError:
                pass
        return middleware(environ, start_response)

    cookie = with_session(manager, n=1)
    assert Server(trying, cookie, "POST").finish() == b"2"
    assert read(manager, cookie) == {"n": 2}


# -- a client that went away -------------------------------------------------------------


def test_a_logout_stands_where_the_client_went_away(manager: SessionManager) -> None:
    """Before a byte of the answer was asked for: an end is final."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = get_session(environ)
        session.flush()
        session["next"] = "/"
        start_response("200 OK", PLAIN)
        return iter([b"good-bye"])

    server = Server(
        SessionMiddleware(app, manager=manager), with_session(manager, n=1), "POST"
    )
    server.close()
    assert server.heads == []
    assert list(manager.sessions()) == []


# -- several middlewares -----------------------------------------------------------------


def test_two_middlewares_do_not_see_each_other() -> None:
    """With cookies, keys and stores of their own, sessions can be nested."""
    outer = SessionManager.from_config(type="memory", cookie_name="outer")
    inner = SessionManager.from_config(type="memory", cookie_name="inner")

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ, "outer")["where"] = "outer"
        get_session(environ)["where"] = "inner"
        return empty(environ, start_response)

    stack = SessionMiddleware(
        SessionMiddleware(app, manager=inner), manager=outer, environ_key="outer"
    )
    browser = TestApp(validator(stack), lint=False)
    browser.get("/")
    assert set(browser.cookies) == {"outer", "inner"}
    assert [s["where"] for s in inner.sessions()] == ["inner"]
    assert [s["where"] for s in outer.sessions()] == ["outer"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_middleware_of_the_same_manager_is_passed_through(
    manager: SessionManager, store: CountingStore, method: str
) -> None:
    """One session, one lock, one save, one cookie, however often it is wrapped."""
    sessions: list[Session] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        sessions.append(get_session(environ))
        return counting(environ, start_response)

    def between(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        sessions.append(get_session(environ))
        sessions[0]["m"] = 1
        return inner(environ, start_response)

    inner = SessionMiddleware(app, manager=manager)
    outer = SessionMiddleware(between, manager=manager)
    server = Server(validator(outer), "", method)
    assert server.finish() == b"1"
    assert sessions[0] is sessions[1]
    assert store.calls == ["save"]
    (line,) = server.cookies()
    assert read(manager, line.split(";")[0]) == {"m": 1, "n": 1}


# -- a view that runs twice --------------------------------------------------------------


def moved_on(manager: SessionManager, session: Session) -> None:
    """Another request of the same session counts."""
    with manager.edit(session.id) as other:
        other["n"] += 1


def test_a_list_is_replayed_like_any_body(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """The second list is handed on, and the first is never seen."""
    runs: list[list[bytes]] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = get_session(environ)
        found = session["n"]
        assert environ.get("wsgisession.replay") is (True if runs else None)
        assert session.locked is bool(runs)
        if not runs:
            moved_on(manager, session)
        session["n"] = found + 1
        start_response("200 OK", PLAIN)
        runs.append([b"%d" % session["n"]])
        return runs[-1]

    cookie = with_session(manager, n=1)
    middleware = SessionMiddleware(app, manager=manager)
    server = Server(middleware, cookie, PATH_INFO="/count")
    assert server.body is runs[1]
    assert server.body == [b"3"]
    assert len(server.heads) == 1
    (record,) = caplog.records
    assert record.getMessage() == "this view ran twice: '/count', because n changed"


def test_a_replayed_body_is_closed_and_never_sent(manager: SessionManager) -> None:
    """The first response is thrown away whole, the second reaches the client whole."""
    closed: list[int] = []
    runs: list[int] = []

    class Body:
        def __init__(self, session: Session) -> None:
            self.session = session

        def __iter__(self) -> Iterator[bytes]:
            found = self.session["n"]
            if len(runs) == 1:
                moved_on(manager, self.session)
            self.session["n"] = found + 1
            yield b"%d" % self.session["n"]
            yield b"!"

        def close(self) -> None:
            closed.append(len(runs))

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        runs.append(1)
        environ["app.leftover"] = environ.get("app.leftover", 0) + 1
        assert environ["app.leftover"] == 1, "each run begins with what was given"
        start_response("200 OK", [*PLAIN, ("X-Run", str(len(runs)))])
        return Body(get_session(environ))

    cookie = with_session(manager, n=1)
    server = Server(validator(SessionMiddleware(app, manager=manager)), cookie)
    assert server.finish() == b"3!"
    assert [dict(h)["X-Run"] for _, h in server.heads] == ["2"]
    assert closed == [1, 2]
    assert read(manager, cookie) == {"n": 3}


@pytest.mark.parametrize(
    "made_of_it",
    [
        "200 OK",
        "400 Bad Request",
        "500 Oops",
        "error",
    ],
)
def test_an_application_cannot_swallow_a_replay(
    manager: SessionManager, made_of_it: str
) -> None:
    """Whatever a bare ``except`` makes of it: nothing of the first run counts."""
    runs: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        runs.append(1)
        session = get_session(environ)
        found = session["n"]
        if len(runs) == 1:
            moved_on(manager, session)
        session["n"] = found + 1
        try:
            session.save()
        except BaseException as error:
            if made_of_it == "error":
                raise ValueError from error
            start_response(made_of_it, PLAIN)
            return [b"swallowed"]
        start_response("200 OK", PLAIN)
        return [b"%d" % session["n"]]

    cookie = with_session(manager, n=1)
    assert Server(SessionMiddleware(app, manager=manager), cookie).finish() == b"3"
    assert len(runs) == 2


def acting(head: tuple[str, list[tuple[str, str]]], runs: list[int]) -> Any:
    """A view that begins its answer, and then saves what another request changed."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        runs.append(1)
        start_response(*head)
        session = get_session(environ)
        found = session["n"]
        if len(runs) == 1:
            moved_on(environ["wsgisession.manager"], session)
        session["n"] = found + 1
        session.save()
        return [b"done"]

    return app


@pytest.mark.parametrize(
    "head",
    [
        ("302 Found", [("Location", "/thanks")]),
        ("200 OK", [*PLAIN, ("Content-Disposition", "attachment")]),
    ],
    ids=["redirect", "download"],
)
def test_an_answer_that_has_begun_decides_whether_to_run_again(
    manager: SessionManager, head: tuple[str, list[tuple[str, str]]]
) -> None:
    """A GET that redirects is an action, also where it saves by hand."""
    runs: list[int] = []
    middleware = SessionMiddleware(acting(head, runs), manager=manager)
    Server(middleware, with_session(manager, n=1)).finish()
    assert len(runs) == 1


@pytest.mark.parametrize("which", ["inner", "outer"])
@pytest.mark.parametrize("saves", [False, True])
def test_pitfall_two_sessions_in_one_request_count_once(
    which: str, saves: bool
) -> None:
    """A view that runs again doubles what it has written into another session."""
    managers = {
        name: SessionManager(MemoryStore(), Options(cookie_name=name))
        for name in ("outer", "inner")
    }
    cookies = [with_session(each, n=1) for each in managers.values()]
    runs: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        runs.append(1)
        sessions = {"outer": get_session(environ, "o"), "inner": get_session(environ)}
        contended = sessions.pop(which)
        (other,) = sessions.values()
        other["n"] += 1
        found = contended["n"]
        if len(runs) == 1:
            moved_on(managers[which], contended)
        contended["n"] = found + 1
        if saves:
            contended.save()
        return empty(environ, start_response)

    inner = SessionMiddleware(app, manager=managers["inner"])
    outer = SessionMiddleware(inner, manager=managers["outer"], environ_key="o")
    Server(outer, "; ".join(cookies)).finish()
    (other,) = {"outer", "inner"} - {which}
    assert [s["n"] for s in managers[other].sessions()] == [2]
    assert len(runs) == 1
