"""Bottle: a plugin, an argument of handlers, and applications inside others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from webtest import TestApp

from wsgisession import (
    ConfigurationError,
    SessionManager,
    SessionMiddleware,
    StoreError,
    external,
    read_only,
)
from wsgisession.stores.memory import MemoryStore

from ..conftest import CountingStore, missing
from .broken import Broken

try:
    from bottle import Bottle, HTTPError, abort, redirect, request, response

    from wsgisession.integrations.bottle import SessionPlugin, get_session
except ImportError:
    missing("Bottle")


def pages(app: Any) -> Any:
    """A few pages for an application."""

    @app.get("/show")
    def show(session: Any) -> str:
        return str(dict(session))

    @app.route("/increment", method=["GET", "POST"])
    def increment(session: Any) -> str:
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    @app.get("/untouched")
    def untouched() -> str:
        return "nothing"

    @app.get("/by-call")
    def by_call() -> str:
        return str(dict(get_session()))

    return app


def elsewhere(ask: Callable[..., Any], path: str, **extra: Any) -> Any:
    """Send a request in the middle of another: Bottle's ``request`` is a thread's."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask, path, **extra).result()


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(MemoryStore())


@pytest.fixture
def plugin(store: CountingStore) -> Any:
    return SessionPlugin(store=store, lock_wait=0)


@pytest.fixture
def app(plugin: Any) -> Any:
    made = Bottle()
    made.install(plugin)
    return pages(made)


@pytest.fixture
def client(app: Any) -> TestApp:
    return TestApp(app)


# -- the session -------------------------------------------------------------------------


def test_a_handler_is_given_the_session(client: TestApp) -> None:
    assert [client.post("/increment").text for _ in range(3)] == ["1", "2", "3"]
    assert client.get("/by-call").text == "{'n': 3}"


def test_a_handler_that_asks_for_nothing_costs_nothing(
    client: TestApp, store: CountingStore
) -> None:
    """P4."""
    client.post("/increment")
    store.calls.clear()
    answer = client.get("/untouched")
    assert store.calls == []
    assert "Vary" not in answer.headers
    client.get("/show")
    assert store.calls == ["load"]


def test_the_argument_may_have_another_name(store: CountingStore) -> None:
    app = Bottle()
    app.install(SessionPlugin(store=store, keyword="visitor"))

    @app.get("/")
    def show(visitor: Any, session: str = "not ours") -> str:
        return f"{dict(visitor)} {session}"

    assert TestApp(app).get("/").text == "{} not ours"


def test_a_part_of_the_path_is_not_overwritten(app: Any) -> None:
    """A route may have a part of that name itself."""

    @app.get("/room/<session>")
    def room(session: str) -> str:
        return session

    assert TestApp(app).get("/room/5").text == "5"


def test_hooks_and_error_pages_have_the_session_too(app: Any) -> None:
    """Before a route is found, and where there is none."""

    @app.hook("before_request")
    def count() -> None:
        session = get_session()
        session["requests"] = session.get("requests", 0) + 1

    @app.error(404)
    def lost(error: Any) -> str:
        return f"lost after {get_session()['requests']}"

    client = TestApp(app)
    client.get("/show")
    assert client.get("/nowhere", status=404).text == "lost after 2"


def test_redirects_and_aborts_keep_what_was_written(app: Any) -> None:
    """Bottle answers by exceptions; only a failure drops."""

    @app.post("/go")
    def go(session: Any) -> None:
        session["went"] = True
        redirect("/show")

    @app.post("/refuse")
    def refuse(session: Any) -> None:
        session["refused"] = True
        abort(403, "no")

    @app.post("/raise")
    def fail(session: Any) -> None:
        session["failed"] = True
        raise RuntimeError("no")

    client = TestApp(app)
    client.post("/go")
    client.post("/refuse", status=403)
    client.post("/raise", status=500, expect_errors=True)
    assert client.get("/show").text == "{'went': True, 'refused': True}"


def test_a_streamed_answer_writes_while_it_is_sent(app: Any) -> None:
    @app.post("/stream")
    def stream(session: Any) -> Iterator[bytes]:
        session["started"] = True
        yield b"one"
        session["sent"] = 1
        yield b"two"

    client = TestApp(app)
    client.post("/increment")
    assert client.post("/stream").text == "onetwo"
    assert client.get("/show").text == "{'n': 1, 'started': True, 'sent': 1}"


def test_a_get_that_was_overtaken_is_run_again(app: Any) -> None:
    """P1, and Bottle's own headers of the first run are gone."""
    runs: list[int] = []

    @app.get("/slow")
    def slow(session: Any) -> str:
        runs.append(session["n"])
        response.add_header("X-Run", str(len(runs)))
        if len(runs) == 1:
            elsewhere(client.post, "/increment")
        session["n"] += 1
        return str(session["n"])

    client = TestApp(app)
    client.post("/increment")
    answer = client.get("/slow")
    assert (answer.text, runs) == ("3", [1, 2])
    assert answer.headers.getall("X-Run") == ["2"]


# -- settings ----------------------------------------------------------------------------


def test_settings_may_come_from_the_applications_ini_file(tmp_path: Any) -> None:
    file = tmp_path / "app.ini"
    file.write_text("[session]\nurl = memory:\nidle_timeout = 30m\n[other]\nurl = x\n")
    app = Bottle()
    app.config.load_config(str(file))
    plugin = SessionPlugin()
    with pytest.raises(LookupError, match="install it first"):
        _ = plugin.manager
    app.install(plugin)
    assert plugin.manager.options.idle_timeout == 1800


def test_what_is_wrong_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="no option 'idel'"):
        SessionPlugin(url="memory:", idel=1)
    with pytest.raises(ConfigurationError, match="not both"):
        SessionPlugin(manager=SessionManager(MemoryStore()), url="memory:")
    with pytest.raises(ConfigurationError, match="no store"):
        Bottle().install(SessionPlugin())


def test_without_the_plugin_it_says_so() -> None:
    app = Bottle()
    app.config["catchall"] = False
    app.get("/", callback=lambda: str(dict(get_session())))
    with pytest.raises(LookupError, match="wrapped by SessionMiddleware"):
        TestApp(app).get("/")


def test_uninstalled_it_is_gone(app: Any, plugin: Any) -> None:
    app.uninstall(plugin)
    answer = TestApp(app).get("/by-call", status=500, expect_errors=True)
    assert "Set-Cookie" not in answer.headers
    app.install(plugin)
    assert TestApp(app).post("/increment").text == "1"


def test_a_route_may_do_without_it(app: Any) -> None:
    """By Bottle's own ``skip``."""

    @app.get("/skipped", skip=["session"])
    def skipped(session: str = "none") -> str:
        return session

    assert TestApp(app).get("/skipped").text == "none"


# -- mounted applications ----------------------------------------------------------------


def cookies(client: TestApp) -> int:
    return len(list(client.cookiejar))


def test_a_mounted_application_brings_its_sessions_along(plugin: Any) -> None:
    """The parent knows nothing of sessions; its routes have one all the same."""
    child, parent = pages(Bottle()), Bottle()
    child.install(plugin)
    parent.get("/parent", callback=lambda: str(dict(get_session())))
    parent.mount("/shop/", child)
    client = TestApp(parent)
    assert [client.post("/shop/increment").text for _ in range(2)] == ["1", "2"]
    assert client.get("/parent").text == "{'n': 2}"
    assert cookies(client) == 1


def test_a_mounted_application_has_the_sessions_of_its_parent(plugin: Any) -> None:
    """It installs nothing itself, and asks by ``get_session()``."""
    child, parent = Bottle(), pages(Bottle())
    parent.install(plugin)
    child.get("/look", callback=lambda: str(dict(get_session())))
    parent.mount("/shop/", child)
    client = TestApp(parent)
    client.post("/increment")
    assert client.get("/shop/look").text == "{'n': 1}"


@pytest.mark.parametrize("order", ["parent first", "child first", "mounted first"])
def test_both_may_have_the_plugin(plugin: Any, order: str) -> None:
    """One session, whatever was said first."""
    child, parent = pages(Bottle()), pages(Bottle())
    if order == "mounted first":
        parent.mount("/shop/", child)
    for app in (parent, child) if order == "parent first" else (child, parent):
        app.install(plugin)
    if order != "mounted first":
        parent.mount("/shop/", child)
    client = TestApp(parent)
    assert client.post("/shop/increment").text == "1"
    assert client.post("/increment").text == "2"
    assert cookies(client) == 1


def test_an_application_inside_one_inside_another(plugin: Any) -> None:
    inner, middle, outer = pages(Bottle()), Bottle(), Bottle()
    inner.install(plugin)
    middle.mount("/b/", inner)
    outer.mount("/a/", middle)
    client = TestApp(outer)
    assert [client.post("/a/b/increment").text for _ in range(2)] == ["1", "2"]


def test_any_wsgi_application_may_be_mounted(plugin: Any) -> None:
    """It finds the session of the parent in the environ."""

    def other(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(dict(environ["wsgisession.session"])).encode()]

    parent = pages(Bottle())
    parent.install(plugin)
    parent.mount("/other/", other)
    client = TestApp(parent)
    client.post("/increment")
    assert client.get("/other/").text == "{'n': 1}"


def test_two_kinds_of_sessions_in_one_tree_are_refused(plugin: Any) -> None:
    """They would have one cookie."""
    child, parent = Bottle(), Bottle()
    child.install(SessionPlugin(url="memory:"))
    parent.install(plugin)
    with pytest.raises(ConfigurationError, match="one manager"):
        parent.mount("/shop/", child)


def test_a_middleware_around_it_with_the_same_manager_is_passed_through(
    app: Any, plugin: Any
) -> None:
    client = TestApp(SessionMiddleware(app, manager=plugin.manager))
    assert [client.post("/increment").text for _ in range(2)] == ["1", "2"]
    assert cookies(client) == 1


# -- failures ----------------------------------------------------------------------------


@pytest.mark.parametrize("catchall", [True, False])
def test_a_store_that_is_gone_is_503(catchall: bool) -> None:
    """P8, also where Bottle makes a page of every error."""
    store = Broken()
    app = Bottle()
    app.config["catchall"] = catchall
    app.install(SessionPlugin(store=store))
    client = TestApp(pages(app))
    client.post("/increment")
    store.is_broken = True
    answer = client.get("/show", status=503, expect_errors=True)
    assert answer.headers["Retry-After"]
    assert "Set-Cookie" not in answer.headers


def test_an_application_may_answer_itself() -> None:
    """By an error page for 500 that answers something else, or in the handler."""
    store = Broken()
    app = pages(Bottle())
    app.install(SessionPlugin(store=store))

    @app.get("/careful")
    def careful(session: Any) -> Any:
        try:
            return str(session["n"])
        except StoreError:
            return HTTPError(502, "come back later")

    client = TestApp(app)
    client.post("/increment")
    store.is_broken = True
    assert client.get("/careful", status=502)


# -- what a handler says of itself -------------------------------------------------------


def test_a_post_that_only_reads_waits_for_nobody(
    app: Any, store: CountingStore
) -> None:
    @app.post("/search")
    @read_only
    def search(session: Any) -> str:
        return str(session["n"])

    @app.post("/wrong")
    @read_only
    def wrong(session: Any) -> str:
        session["n"] = 5
        return "written"

    client = TestApp(app)
    client.post("/increment")
    store.calls.clear()
    assert client.post("/search").text == "1"
    assert store.calls == ["load"]
    client.post("/wrong", status=500, expect_errors=True)
    assert client.get("/show").text == "{'n': 1}"


def test_a_get_that_acts_outside_locks_and_runs_once(app: Any) -> None:
    runs: list[str] = []

    @app.get("/pay")
    @external
    def pay(session: Any) -> str:
        runs.append(request.path + str(session["n"]))
        elsewhere(client.post, "/increment", status=503, expect_errors=True)
        session["n"] += 10
        return "paid"

    client = TestApp(app)
    client.post("/increment")
    assert client.get("/pay").text == "paid"
    assert runs == ["/pay1"]
    assert client.get("/show").text == "{'n': 11}"
