"""The middleware keeps PEP 3333 on both sides, and acts when the headers really leave.

What becomes of the session is in ``tests/http/test_exchange.py``.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

from wsgisession import (
    LockTimeout,
    Session,
    SessionClosed,
    SessionManager,
    SessionMiddleware,
    StoreError,
    get_session,
)
from wsgisession.stores.memory import MemoryStore

from .conftest import CountingStore
from .wsgi_server import PLAIN, App, Server, around, read, with_session


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(MemoryStore())


@pytest.fixture
def manager(store: CountingStore) -> SessionManager:
    return SessionManager(store)


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
    """P6: no client can follow a redirect to a session that is not there yet."""

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


@pytest.mark.parametrize("body", [[b"one"], iter([b"one"])], ids=["list", "iterator"])
def test_a_body_before_start_response_is_refused(
    manager: SessionManager, body: Iterable[bytes]
) -> None:
    """An application that never calls it is told so."""
    app = SessionMiddleware(lambda environ, start_response: body, manager=manager)
    with pytest.raises(AssertionError, match=r"before start_response\(\)"):
        Server(app).finish()


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


def empty_first(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """A template whose first block is empty."""
    get_session(environ)["a"] = 1
    start_response("200 OK", PLAIN)
    yield b""
    if environ["QUERY_STRING"] == "fail":
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oops", PLAIN, sys.exc_info())
            yield b"sorry"
            return
    get_session(environ)["b"] = 2
    yield b"one"


def test_pitfall_an_empty_first_chunk_commits_nothing(manager: SessionManager) -> None:
    """What is written after it is saved, and the answer has its cookie."""
    app = validator(SessionMiddleware(validator(empty_first), manager=manager))
    server = Server(app)
    assert server.finish() == b"one"
    assert len(server.cookies()) == 1
    assert [dict(s) for s in manager.sessions()] == [{"a": 1, "b": 2}]


def test_pitfall_an_error_after_an_empty_chunk_replaces_the_headers(
    manager: SessionManager,
) -> None:
    """With ours still in them: the second start is told of the session too."""
    app = validator(SessionMiddleware(validator(empty_first), manager=manager))
    server = Server(app, QUERY_STRING="fail")
    assert server.finish() == b"sorry"
    ((status, headers),) = server.heads
    assert status == "500 Oops"
    assert dict(headers)["Vary"] == "Cookie"
    assert list(manager.sessions()) == []


@pytest.mark.parametrize("body", [[], (), iter(())], ids=["list", "tuple", "iterator"])
def test_a_connection_that_was_taken_over_is_let_be(
    manager: SessionManager, store: CountingStore, body: Any
) -> None:
    """A WebSocket's handler never starts a response; its lock goes, unsaved."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = get_session(environ)
        session["n"] = 2
        assert session.locked
        return body  # type: ignore[no-any-return]

    cookie = with_session(manager, n=1)
    store.calls.clear()
    server = Server(SessionMiddleware(app, manager=manager), cookie, "POST")
    assert server.finish() == b""
    assert server.heads == []
    assert store.calls == ["lock", "unlock"]


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


@pytest.mark.parametrize("streamed", [True, False])
def test_a_session_may_be_read_after_its_request(
    manager: SessionManager, streamed: bool
) -> None:
    """From memory; whatever would write, or need the store, is refused."""
    kept: list[Session] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        kept.append(get_session(environ))
        kept[0]["a"] = 1
        start_response("200 OK", PLAIN)
        return iter([b"whole"]) if streamed else [b"whole"]

    Server(SessionMiddleware(app, manager=manager)).finish()
    assert kept[0]["a"] == 1
    with pytest.raises(SessionClosed, match="request is over"):
        kept[0]["a"] = 2
    assert [dict(s) for s in manager.sessions()] == [{"a": 1}]


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
    server.close()
    assert closed == [True]
    statuses = [status for status, _ in server.heads]
    if unavailable:
        assert statuses == ["503 Service Unavailable"]
    else:
        assert statuses == ["200 OK"] * chunks


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
        pool.submit(server.close).result()
    with manager.edit(manager.open_cookie(cookie).id) as session:
        assert session["n"] == 1


def test_a_client_that_went_away_frees_the_lock(manager: SessionManager) -> None:
    """close() without a single next(): nothing is saved, and no request has to wait."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = get_session(environ)
        session["n"] = 2
        assert session.locked
        start_response("200 OK", PLAIN)
        return iter([b"never asked for"])

    cookie = with_session(manager, n=1)
    server = Server(SessionMiddleware(app, manager=manager), cookie, "POST")
    server.close()
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


def test_a_first_look_while_streaming_is_refused(
    manager: SessionManager, store: CountingStore
) -> None:
    """P12: the headers have left, and have told the caches nothing."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"one"
        with pytest.raises(SessionClosed, match="before the response begins"):
            get_session(environ).get("n")
        yield b"two"

    cookie = with_session(manager, n=1)
    store.calls.clear()
    assert around(manager, app).get("/", headers={"Cookie": cookie}).text == "onetwo"
    assert store.calls == []


def test_a_new_session_while_streaming_is_refused(manager: SessionManager) -> None:
    """A cookie would be needed and cannot be set: an error, not a silent loss."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        session = get_session(environ)
        assert session.new
        start_response("200 OK", PLAIN)
        yield b"one"
        with pytest.raises(SessionClosed, match="the headers have left"):
            session["a"] = 1
        yield b"two"

    assert around(manager, app).get("/").text == "onetwo"
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
    with nullcontext() if how == "status" else pytest.raises(ZeroDivisionError):
        server = Server(app, cookie, method)
        server.finish()
        assert server.heads[0][0] == "500 Oops"
        assert not server.cookies()
    assert read(manager, cookie) == {"n": 1}
    assert "save" not in store.calls[1:]
    with manager.edit(manager.open_cookie(cookie).id) as session:
        session["n"] = 3


@pytest.mark.parametrize("how", ["before", "after", "iterator", "status"])
def test_save_on_error_saves_all_the_same(store: CountingStore, how: str) -> None:
    """For an application that counts failures in the session."""
    manager = SessionManager.from_config({"store": store, "save_on_error": "true"})
    cookie = with_session(manager, n=1)
    app = SessionMiddleware(failing(how), manager=manager)
    with suppress(ZeroDivisionError):
        list(Server(app, cookie).body)
    assert read(manager, cookie) == {"n": 2}


@pytest.mark.parametrize("error", [StoreError("away"), LockTimeout("f" * 32, 1.0)])
@pytest.mark.parametrize("status", ["500 Oops", "404 Not Found"])
def test_pitfall_a_failure_of_the_store_is_not_the_frameworks_500(
    error: Exception, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Frameworks catch everything: their 500 becomes our 503, and no other answer."""

    class Away(MemoryStore):
        def lock(self, *_: Any, **__: Any) -> Any:
            raise error

        def load(self, *_: Any, **__: Any) -> Any:
            raise error

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with suppress(Exception):
            get_session(environ)["n"] = 2
        start_response(status, PLAIN)
        return [b"a page of the framework"]

    manager = SessionManager(Away())
    server = Server(SessionMiddleware(app, manager=manager), f"sid={'A' * 64}", "POST")
    body = server.finish()
    ((sent, headers),) = server.heads
    if status.startswith("500"):
        assert sent == "503 Service Unavailable"
        assert dict(headers)["Retry-After"] == "1"
        assert b"framework" not in body
        assert "answering 503" in caplog.text
    else:
        assert (sent, body) == (status, b"a page of the framework")
    assert server.cookies() == []


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
    server.close()
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

        def save(self, *args: Any, **keywords: Any) -> None:
            if self.full:
                raise StoreError("full")
            super().save(*args, **keywords)

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
