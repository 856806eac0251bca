"""The middleware keeps PEP 3333 on both sides, and acts when the headers really leave."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from webtest import TestApp

from wsgisession import (
    Options,
    Session,
    SessionClosed,
    SessionManager,
    SessionMiddleware,
    StoreError,
    get_session,
)
from wsgisession.stores.memory import MemoryStore

from .conftest import CountingStore

App = Callable[[dict[str, Any], Any], Iterable[bytes]]
PLAIN = [("Content-Type", "text/plain")]


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(MemoryStore())


@pytest.fixture
def manager(store: CountingStore) -> SessionManager:
    return SessionManager(store)


def around(manager: SessionManager, app: App) -> TestApp:
    """A visitor to an application that is watched on both sides."""
    middleware = SessionMiddleware(validator(app), manager=manager)
    return TestApp(validator(middleware), lint=False)


class Server:
    """What a WSGI server does, step by step, so that a test can stop between."""

    def __init__(self, app: App, cookie: str = "", method: str = "GET") -> None:
        self.environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "QUERY_STRING": "",
            "HTTP_COOKIE": cookie,
        }
        setup_testing_defaults(self.environ)
        self.environ["wsgi.file_wrapper"] = FileWrapper
        self.heads: list[tuple[str, list[tuple[str, str]]]] = []
        self.written = b""
        self.body = app(self.environ, self.start_response)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info and self.heads:
            raise exc_info[1]
        self.heads.append((status, headers))
        return self.write

    def write(self, data: bytes) -> None:
        self.written += data

    def cookies(self) -> list[str]:
        return [v for _, headers in self.heads for k, v in headers if k == "Set-Cookie"]


def with_session(manager: SessionManager, **values: Any) -> str:
    """The Cookie header of a visitor whose session holds some values."""
    session = manager.create()
    session.update(values)
    session.save()
    return f"session={session.token}"


def read(manager: SessionManager, cookie: str) -> dict[str, Any]:
    return manager.open_cookie(cookie).copy()


# -- when the headers leave --------------------------------------------------------------


def test_a_session_filled_after_start_response_is_saved(
    manager: SessionManager,
) -> None:
    """Beaker loses what is written after start_response() was called."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        get_session(environ)["a"] = 1
        return [b"done"]

    browser = around(manager, app)
    assert "Set-Cookie" in browser.get("/").headers
    assert [dict(s) for s in manager.sessions()] == [{"a": 1}]


def test_a_generator_may_write_until_its_first_chunk(manager: SessionManager) -> None:
    """The application runs at the first next(), start_response() included."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        get_session(environ)["a"] = 1
        yield b"one"
        yield b"two"

    browser = around(manager, app)
    answer = browser.get("/")
    assert answer.text == "onetwo"
    assert "Set-Cookie" in answer.headers
    assert [dict(s) for s in manager.sessions()] == [{"a": 1}]


def test_a_body_without_chunks_is_answered_too(manager: SessionManager) -> None:
    """An empty iterator has headers that leave at its end."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ)["a"] = 1
        start_response("204 No Content", [])
        return iter(())

    assert "Set-Cookie" in around(manager, app).get("/").headers


def test_write_lets_the_headers_leave(manager: SessionManager) -> None:
    """P6: what write() sends is preceded by the save."""
    stored: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ)["a"] = 1
        write = start_response("200 OK", PLAIN)
        write(b"one")
        stored.append(len(list(manager.sessions())))
        write(b"two")
        return [b"three"]

    answer = around(manager, app).get("/")
    assert answer.text == "onetwothree"
    assert "Set-Cookie" in answer.headers
    assert stored == [1]


def test_the_headers_leave_once(manager: SessionManager, store: CountingStore) -> None:
    """However often write() is called, and if the rest is a list."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ)["a"] = 1
        write = start_response("200 OK", PLAIN)
        write(b"one")
        write(b"two")
        return [b"three"]

    server = Server(SessionMiddleware(app, manager=manager))
    assert server.body == [b"three"]
    assert server.written == b"onetwo"
    assert len(server.heads) == 1
    assert store.calls == ["save"]


def test_it_is_saved_before_the_first_header(
    manager: SessionManager, store: CountingStore
) -> None:
    """P6: nobody can follow a redirect to a session that is not there yet."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ)["a"] = 1
        start_response("302 Found", [("Location", "/next"), *PLAIN])
        return [b""]

    class Watching(Server):
        def start_response(self, *args: Any) -> Callable[[bytes], None]:
            assert store.calls == ["save"]
            return super().start_response(*args)

    assert len(Watching(SessionMiddleware(app, manager=manager)).cookies()) == 1


def test_the_second_start_response_counts(manager: SessionManager) -> None:
    """With exc_info the headers of an error replace the first; one cookie is set."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ)["a"] = 1
        start_response("200 OK", PLAIN)
        try:
            raise ValueError
        except ValueError:
            import sys

            start_response("400 Bad Request", PLAIN, sys.exc_info())
        return [b"sorry"]

    answer = around(manager, app).get("/", status=400)
    assert len(answer.headers.getall("Set-Cookie")) == 1


def test_an_error_after_the_headers_left_is_the_servers(
    manager: SessionManager,
) -> None:
    """start_response() with exc_info raises then, as PEP 3333 wants."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"one"
        try:
            raise ValueError("late")
        except ValueError:
            import sys

            start_response("500 Error", PLAIN, sys.exc_info())
            yield b"never"

    server = Server(SessionMiddleware(app, manager=manager))
    body = iter(server.body)
    assert next(body) == b"one"
    with pytest.raises(ValueError, match="late"):
        next(body)


def test_start_response_twice_without_exc_info_is_refused(
    manager: SessionManager,
) -> None:
    """The application's mistake is not hidden by holding the headers back."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        start_response("200 OK", PLAIN)
        return [b""]

    with pytest.raises(AssertionError, match="twice without exc_info"):
        Server(SessionMiddleware(app, manager=manager))


def test_a_body_before_start_response_is_refused(manager: SessionManager) -> None:
    """An application that never calls it is told so."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return iter([b"one"])

    server = Server(SessionMiddleware(app, manager=manager))
    with pytest.raises(AssertionError, match=r"before start_response\(\)"):
        next(iter(server.body))


def test_a_list_before_start_response_is_refused(manager: SessionManager) -> None:
    """The same for a body that is there as a whole."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return [b"one"]

    with pytest.raises(AssertionError, match=r"before start_response\(\)"):
        list(Server(SessionMiddleware(app, manager=manager)).body)


def test_only_the_first_chunk_is_held_back(manager: SessionManager) -> None:
    """A stream flows: what is yielded is sent before the next is asked for."""
    made: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        for number in range(3):
            made.append(number)
            yield b"%d" % number

    server = Server(SessionMiddleware(app, manager=manager))
    for number, _ in enumerate(iter(server.body)):
        assert made[-1] == number


# -- bodies ------------------------------------------------------------------------------


@pytest.mark.parametrize("touch", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda environ: [b"whole"],
        lambda environ: (b"whole",),
        lambda environ: environ["wsgi.file_wrapper"](io.BytesIO(b"whole")),
    ],
)
def test_a_whole_body_is_handed_on_untouched(
    manager: SessionManager, make: Any, touch: bool
) -> None:
    """The server sees the list, or the file wrapper that it gave, by its own type."""
    bodies: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if touch:
            get_session(environ)["a"] = 1
        start_response("200 OK", PLAIN)
        bodies.append(make(environ))
        return bodies[0]  # type: ignore[no-any-return]

    server = Server(SessionMiddleware(app, manager=manager))
    assert server.body is bodies[0]
    assert len(server.cookies()) == touch


def test_a_file_wrapper_need_not_be_a_type(manager: SessionManager) -> None:
    """PEP 3333 asks for a callable: what it made is then iterated like any body."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.file_wrapper"] = lambda file: FileWrapper(file)
        start_response("200 OK", PLAIN)
        body: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"whole"))
        return body

    assert list(Server(SessionMiddleware(app, manager=manager)).body) == [b"whole"]


def test_a_whole_body_closes_the_session(manager: SessionManager) -> None:
    """There is no close() of ours after which it could not be used."""
    kept: list[Session] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        kept.append(get_session(environ))
        kept[0]["a"] = 1
        start_response("200 OK", PLAIN)
        return [b"whole"]

    Server(SessionMiddleware(app, manager=manager))
    with pytest.raises(SessionClosed, match="request is over"):
        kept[0]["a"]


@pytest.mark.parametrize("kind", ["list", "file", "iterator"])
def test_a_save_that_fails_closes_the_body_and_answers_503(kind: str) -> None:
    """Nothing of what the application said leaves, whatever it is made of."""

    class Full(MemoryStore):
        def save(self, *_: Any, **__: Any) -> Any:
            raise StoreError("no space left")

    files: list[io.BytesIO] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ)["a"] = 1
        start_response("200 OK", PLAIN)
        files.append(io.BytesIO(b"whole"))
        if kind == "list":
            return [b"whole"]
        body: Iterable[bytes] = environ["wsgi.file_wrapper"](files[0])
        return body if kind == "file" else iter(body)

    server = Server(SessionMiddleware(app, manager=SessionManager(Full())))
    assert b"whole" not in b"".join(server.body)
    assert [status for status, _ in server.heads] == ["503 Service Unavailable"]
    assert files[0].closed is (kind != "list")


def test_a_list_is_replayed_like_any_body(manager: SessionManager) -> None:
    """The second list is handed on, and the first is never seen."""
    runs: list[list[bytes]] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = get_session(environ)
        found = session["n"]
        if not runs:
            with manager.edit(session.id) as other:
                other["n"] += 1
        session["n"] = found + 1
        start_response("200 OK", PLAIN)
        runs.append([b"%d" % session["n"]])
        return runs[-1]

    cookie = with_session(manager, n=1)
    server = Server(SessionMiddleware(app, manager=manager), cookie)
    assert server.body is runs[1]
    assert server.body == [b"3"]
    assert len(server.heads) == 1


def test_the_applications_body_is_closed_once(manager: SessionManager) -> None:
    """close() is the server's duty, and reaches the application."""
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"one"

        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return Body()

    around(manager, app).get("/")
    assert closed == [True]


@pytest.mark.parametrize("chunks", [0, 1])
@pytest.mark.parametrize("error", [ZeroDivisionError, StoreError])
def test_a_body_whose_iteration_fails_is_closed_exactly_once(
    manager: SessionManager, error: type[Exception], chunks: int
) -> None:
    """Before or after the headers left, answered by a 503 or not, and then by close()."""
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield from [b"one"] * chunks
            raise error("late")

        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return Body()

    server = Server(SessionMiddleware(app, manager=manager))
    unavailable = error is StoreError and not chunks
    with nullcontext() if unavailable else pytest.raises(error, match="late"):
        list(server.body)
    server.body.close()  # type: ignore[attr-defined]
    assert closed == [True]
    statuses = [status for status, _ in server.heads]
    if unavailable:
        assert statuses == ["503 Service Unavailable"]
    else:
        assert statuses == ["200 OK"] * chunks


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
                SessionMiddleware(bump, manager=manager)
                with manager.edit(self.session.id) as other:
                    other["n"] += 1
            self.session["n"] = found + 1
            yield b"%d" % self.session["n"]
            yield b"!"

        def close(self) -> None:
            closed.append(len(runs))

    def bump(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raise AssertionError("not called")

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        runs.append(1)
        environ["app.leftover"] = environ.get("app.leftover", 0) + 1
        assert environ["app.leftover"] == 1
        start_response("200 OK", [*PLAIN, ("X-Run", str(len(runs)))])
        return Body(get_session(environ))

    cookie = with_session(manager, n=1)
    server = Server(validator(SessionMiddleware(app, manager=manager)), cookie)
    chunks = list(server.body)
    server.body.close()  # type: ignore[attr-defined]
    assert b"".join(chunks) == b"3!"
    assert [dict(h)["X-Run"] for _, h in server.heads] == ["2"]
    assert closed == [1, 2]
    assert read(manager, cookie) == {"n": 3}


def test_close_may_come_on_another_thread(manager: SessionManager) -> None:
    """A lease taken on one thread is ended on another."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        get_session(environ).get("n")
        start_response("200 OK", PLAIN)
        yield b"one"

    cookie = with_session(manager, n=1)
    server = Server(SessionMiddleware(app, manager=manager), cookie, "POST")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(next, iter(server.body)).result() == b"one"
    with ThreadPoolExecutor(1) as pool:
        pool.submit(server.body.close).result()  # type: ignore[attr-defined]
    with manager.edit(manager.open_cookie(cookie).id) as session:
        assert session["n"] == 1


def test_a_client_that_went_away_frees_the_lock(manager: SessionManager) -> None:
    """close() without a single next(): nothing is saved, nobody has to wait."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = get_session(environ)
        session["n"] = 2
        assert session.locked
        start_response("200 OK", PLAIN)
        return iter([b"never asked for"])

    cookie = with_session(manager, n=1)
    server = Server(SessionMiddleware(app, manager=manager), cookie, "POST")
    server.body.close()  # type: ignore[attr-defined]
    assert read(manager, cookie) == {"n": 1}
    with manager.edit(manager.open_cookie(cookie).id) as session:
        session["n"] = 5


@pytest.mark.parametrize("status", ["200 OK", "500 Oops"])
@pytest.mark.parametrize("write", [1, 0])
def test_no_lock_is_held_through_a_stream(
    manager: SessionManager, status: str, write: int
) -> None:
    """The lease ends at the headers, saved or not, not with the last chunk."""
    streaming, finish = threading.Event(), threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        session = get_session(environ)
        assert session["n"] == 1
        if write:
            session["n"] = 2
        start_response(status, PLAIN)
        yield b"one"
        streaming.set()
        finish.wait(60)
        yield b"two"

    cookie = with_session(manager, n=1)
    server = Server(SessionMiddleware(app, manager=manager), cookie, "POST")
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, server.body)
        assert streaming.wait(60)
        with manager.edit(manager.open_cookie(cookie).id) as session:
            session["n"] += 1
        finish.set()
        assert rest.result(60) == [b"one", b"two"]
    saved = write if status == "200 OK" else 0
    assert read(manager, cookie) == {"n": 2 + saved}


# -- after the headers -------------------------------------------------------------------


def test_a_change_while_streaming_is_saved_at_the_end(manager: SessionManager) -> None:
    """The client holds the id already, so nothing is lost."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        session = get_session(environ)
        cart = session["cart"]
        start_response("200 OK", PLAIN)
        yield b"one"
        session["late"] = True
        cart.append(1)
        yield b"two"

    cookie = with_session(manager, cart=[])
    browser = around(manager, app)
    browser.get("/", headers={"Cookie": cookie})
    assert read(manager, cookie) == {"cart": [1], "late": True}


def test_a_first_look_while_streaming_still_works(manager: SessionManager) -> None:
    """Lazy to the end: loaded in the stream, saved at its end, without a lock."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"one"
        session = get_session(environ)
        session["n"] += 1
        assert not session.locked
        yield b"two"

    cookie = with_session(manager, n=1)
    around(manager, app).post("/", headers={"Cookie": cookie})
    assert read(manager, cookie) == {"n": 2}


def test_a_new_session_while_streaming_is_refused(manager: SessionManager) -> None:
    """A cookie would be needed and cannot be set: an error, not a silent loss."""
    refused: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"one"
        for verb in (
            lambda s: s.update(a=1),
            lambda s: s.login("ann"),
            lambda s: s.regenerate(),
            lambda s: s.set_expiry(60),
        ):
            try:
                verb(get_session(environ))
            except SessionClosed as error:
                refused.append(str(error))
        yield b"two"

    around(manager, app).get("/")
    assert len(refused) == 4
    assert all("the headers have left" in text for text in refused)
    assert list(manager.sessions()) == []


def test_a_conflict_while_streaming_is_never_replayed(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: a byte has left, so ours are kept with a warning."""
    runs: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        runs.append(1)
        start_response("200 OK", PLAIN)
        yield b"one"
        session = get_session(environ)
        found = session["n"]
        with manager.edit(session.id) as other:
            other["n"] = 5
        session["n"] = found + 1
        yield b"two"

    cookie = with_session(manager, n=1)
    around(manager, app).get("/", headers={"Cookie": cookie})
    assert runs == [1]
    assert read(manager, cookie) == {"n": 2}
    assert "n changed while in use" in caplog.text


def test_a_logout_while_streaming_ends_the_session(manager: SessionManager) -> None:
    """An end needs no cookie to be an end."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"one"
        get_session(environ).flush()
        yield b"two"

    cookie = with_session(manager, n=1)
    around(manager, app).get("/", headers={"Cookie": cookie})
    assert list(manager.sessions()) == []


# -- failures ----------------------------------------------------------------------------


def failing(how: str) -> App:
    """An application that writes n=2 and then fails in one of many places."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ)["n"] = 2
        if how == "before":
            raise ZeroDivisionError
        start_response("500 Oops" if how == "status" else "200 OK", PLAIN)
        if how == "after":
            raise ZeroDivisionError
        if how == "iterator":
            return (b"%d" % (1 // number) for number in [0])
        return [b"sorry"]

    return app


@pytest.mark.parametrize("how", ["before", "after", "iterator", "status"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_failed_request_saves_nothing(
    store: CountingStore, method: str, how: str
) -> None:
    """An exception or a status >= 500 leaves the session as it was, and unlocked."""
    manager = SessionManager(store)
    cookie = with_session(manager, n=1)
    app = validator(SessionMiddleware(validator(failing(how)), manager=manager))
    try:
        server = Server(app, cookie, method)
        try:
            list(server.body)
            assert server.heads[0][0] == "500 Oops"
            assert not server.cookies()
        finally:
            server.body.close()  # type: ignore[attr-defined]
    except ZeroDivisionError:
        pass
    assert read(manager, cookie) == {"n": 1}
    assert "save" not in store.calls[1:]
    with manager.edit(manager.open_cookie(cookie).id) as session:
        session["n"] = 3


@pytest.mark.parametrize("how", ["before", "after", "iterator", "status"])
def test_save_on_error_saves_all_the_same(store: CountingStore, how: str) -> None:
    """For whoever counts failures in the session."""
    manager = SessionManager.from_config({"store": store, "save_on_error": "true"})
    cookie = with_session(manager, n=1)
    app = SessionMiddleware(failing(how), manager=manager)
    with suppress(ZeroDivisionError):
        list(Server(app, cookie).body)
    assert read(manager, cookie) == {"n": 2}


def test_a_logout_stands_even_if_the_page_fails(manager: SessionManager) -> None:
    """An end is final: the user asked for it."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ).flush()
        start_response("500 Oops", PLAIN)
        return [b"template error"]

    cookie = with_session(manager, n=1)
    server = Server(SessionMiddleware(app, manager=manager), cookie)
    assert "Max-Age=0" in server.cookies()[0]
    assert list(manager.sessions()) == []


def test_a_logout_stands_even_if_the_application_raises(
    manager: SessionManager,
) -> None:
    """Where no header of ours can leave, the record goes all the same."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ).flush()
        raise ZeroDivisionError

    cookie = with_session(manager, n=1)
    with pytest.raises(ZeroDivisionError):
        Server(SessionMiddleware(app, manager=manager), cookie)
    assert list(manager.sessions()) == []


def test_save_on_error_does_not_save_at_an_exit(store: CountingStore) -> None:
    """A worker that is told to stop has not failed: it has not finished."""
    manager = SessionManager.from_config({"store": store, "save_on_error": "true"})

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ)["n"] = 2
        raise SystemExit

    cookie = with_session(manager, n=1)
    with pytest.raises(SystemExit):
        Server(SessionMiddleware(app, manager=manager), cookie)
    assert read(manager, cookie) == {"n": 1}


def test_an_error_is_not_hidden_by_an_end_that_cannot_be_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The application's is the one that is raised, the store's is in the log."""

    class Away(MemoryStore):
        def delete(self, record: Any) -> None:
            raise StoreError("away")

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ).flush()
        raise ZeroDivisionError

    manager = SessionManager(Away())
    cookie = with_session(manager, n=1)
    with pytest.raises(ZeroDivisionError):
        Server(SessionMiddleware(app, manager=manager), cookie)
    assert "a session could not be released" in caplog.text


def test_after_a_failure_the_session_is_closed(manager: SessionManager) -> None:
    """What was kept of it serves nobody."""
    kept: list[Session] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        kept.append(get_session(environ))
        assert kept[0] == {"n": 1}
        raise ZeroDivisionError

    cookie = with_session(manager, n=1)
    with pytest.raises(ZeroDivisionError):
        Server(SessionMiddleware(app, manager=manager), cookie)
    with pytest.raises(SessionClosed, match="request is over"):
        kept[0]["n"]


def test_after_an_error_page_the_stream_saves_nothing(manager: SessionManager) -> None:
    """A status >= 500 holds for what is written later in the same response too."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        session = get_session(environ)
        session["n"]
        start_response("500 Oops", PLAIN)
        yield b"sorry"
        session["n"] = 2
        yield b"!"

    cookie = with_session(manager, n=1)
    around(manager, app).get("/", headers={"Cookie": cookie}, status=500)
    assert read(manager, cookie) == {"n": 1}


# -- the environ -------------------------------------------------------------------------


def test_session_and_manager_are_in_the_environ(manager: SessionManager) -> None:
    """Under the documented keys, or under one of the caller's choice."""
    seen: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        seen.append((environ["mine"], environ["wsgisession.manager"]))
        assert get_session(environ, "mine") is environ["mine"]
        start_response("200 OK", PLAIN)
        return [b""]

    Server(SessionMiddleware(app, manager=manager, environ_key="mine"))
    ((session, found),) = seen
    assert isinstance(session, Session)
    assert found is manager


def test_two_middlewares_do_not_see_each_other() -> None:
    """With cookies, keys and stores of their own, sessions can be nested."""
    outer = SessionManager.from_config(type="memory", cookie_name="outer")
    inner = SessionManager.from_config(type="memory", cookie_name="inner")

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ, "outer")["where"] = "outer"
        get_session(environ)["where"] = "inner"
        start_response("200 OK", PLAIN)
        return [b""]

    stack = SessionMiddleware(
        SessionMiddleware(app, manager=inner), manager=outer, environ_key="outer"
    )
    browser = TestApp(validator(stack), lint=False)
    browser.get("/")
    assert set(browser.cookies) == {"outer", "inner"}
    assert [s["where"] for s in inner.sessions()] == ["inner"]


def test_without_a_middleware_get_session_says_so() -> None:
    """The error asks the question that helps."""
    for environ in ({}, {"wsgisession.session": {"another": "library's"}}):
        with pytest.raises(LookupError, match="wrapped by SessionMiddleware"):
            get_session(environ)


def test_settings_or_a_manager(manager: SessionManager) -> None:
    """Both at once would leave it open which of them holds."""
    with pytest.raises(TypeError, match="not both"):
        SessionMiddleware(failing("before"), {"type": "memory"}, manager=manager)
    with pytest.raises(TypeError, match="not both"):
        SessionMiddleware(failing("before"), manager=manager, cookie_name="mine")


def test_settings_in_a_mapping_and_in_code() -> None:
    """Both are heard, and what stands in the code wins."""
    config = {"session.type": "memory", "session.cookie_name": "mapping"}
    options = {"cookie_name": "code", "cookie_path": "/app"}
    middleware = SessionMiddleware(failing("status"), config, **options)
    assert middleware.manager.options.cookie_name == "code"
    assert middleware.manager.options.cookie_path == "/app"
    middleware = SessionMiddleware(failing("status"), config)
    assert middleware.manager.options.cookie_name == "mapping"


@pytest.mark.parametrize("verb", ["login", "rotate", "regenerate"])
def test_save_on_error_keeps_the_cookie_good(verb: str) -> None:
    """Where an exception lets no cookie leave, the identity is not changed."""
    manager = SessionManager(MemoryStore(), Options(save_on_error=True))

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = get_session(environ)
        session["n"] = 2
        session.login("ann") if verb == "login" else getattr(session, verb)()
        raise ZeroDivisionError

    cookie = with_session(manager, n=1)
    with pytest.raises(ZeroDivisionError):
        Server(SessionMiddleware(app, manager=manager), cookie)
    session = manager.open_cookie(cookie)
    assert session["n"] in (1, 2)
    assert f"session={session.token}" == cookie
    assert session.user is None


def test_an_error_is_not_hidden_by_a_lock_that_cannot_be_freed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The application's is the one that is raised, the store's is in the log."""

    class Away(MemoryStore):
        def unlock(self, record: Any) -> None:
            raise StoreError("away")

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        assert get_session(environ)["n"] == 1
        raise ZeroDivisionError

    manager = SessionManager(Away())
    cookie = with_session(manager, n=1)
    with pytest.raises(ZeroDivisionError):
        Server(SessionMiddleware(app, manager=manager), cookie, "POST")
    assert "a session could not be released" in caplog.text


def test_a_body_that_fails_twice_saves_nothing(manager: SessionManager) -> None:
    """Neither where close() fails after the iteration has."""

    class Body:
        def __init__(self, session: Session) -> None:
            self.session = session

        def __iter__(self) -> Iterator[bytes]:
            assert self.session["n"] == 1
            yield b"one"
            self.session["n"] = 2
            raise ZeroDivisionError

        def close(self) -> None:
            raise OSError

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return Body(get_session(environ))

    cookie = with_session(manager, n=1)
    server = Server(SessionMiddleware(app, manager=manager), cookie)
    with pytest.raises((ZeroDivisionError, OSError)):
        list(server.body)
    server.body.close()  # type: ignore[attr-defined]
    assert read(manager, cookie) == {"n": 1}


def test_a_body_that_cannot_be_closed_hides_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is raised is why it was not sent; the session's lock is free again."""

    class Body(list[bytes]):
        def close(self) -> None:
            raise OSError

    class Refusing(MemoryStore):
        full = False

        def save(self, record: Any, *, expect: int) -> str | None:
            if self.full:
                raise StoreError("full")
            return super().save(record, expect=expect)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        get_session(environ)["n"] = 2
        start_response("200 OK", PLAIN)
        return Body([b"one"])

    store = Refusing()
    manager = SessionManager(store)
    cookie = with_session(manager, n=1)
    store.full = True
    server = Server(SessionMiddleware(app, manager=manager), cookie, "POST")
    assert server.heads[0][0].startswith("503")
    assert "the close() of a response's body failed" in caplog.text
    (session,) = manager.sessions()
    session.lock(wait=0)
