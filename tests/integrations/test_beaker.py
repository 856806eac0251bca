"""Beaker's applications, with one line changed; and those that make its classes
themselves.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from webtest import TestApp

from wsgisession import ConfigurationError, get_manager
from wsgisession.integrations.beaker import (
    NamedSession,
    Session,
    SessionMiddleware,
    SessionObject,
)
from wsgisession.integrations.beaker._options import (
    TABLE,
    TYPES_REFUSED,
    Fate,
    settings_of,
)
from wsgisession.stores.memory import MemoryStore

from ..conftest import CountingStore
from .broken import Broken

KEY = "beaker.session.id"

View = Callable[[Any], object]


def show(session: Any) -> object:
    return dict(session)


def increment(session: Any) -> object:
    session["n"] = session.get("n", 0) + 1
    session.save()
    return session["n"]


def application(**views: View) -> Any:
    """A Beaker application with a page for each view, which is given the session."""
    pages = {"show": show, "increment": increment, **views}

    def app(environ: Any, start_response: Any) -> list[bytes]:
        view = pages[environ["PATH_INFO"].strip("/")]
        body = str(view(environ["beaker.session"])).encode()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    return app


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(MemoryStore())


@pytest.fixture
def visit(store: CountingStore) -> Callable[..., TestApp]:
    """A browser before an application with these views."""

    def visiting(config: Any = None, **views: View) -> TestApp:
        settings = {"session.store": store, **(config or {})}
        return TestApp(SessionMiddleware(application(**views), settings), lint=False)

    return visiting


Visit = Callable[..., TestApp]


def thief(client: TestApp, cookie: str) -> TestApp:
    """A browser with a cookie that was copied."""
    browser = TestApp(client.app, lint=False)
    browser.set_cookie(KEY, cookie)
    return browser


# -- the session -------------------------------------------------------------------------


def test_the_documented_application_runs(visit: Visit) -> None:
    """That of Beaker's own introduction, with ``save()``."""
    client = visit()
    assert [client.post("/increment").text for _ in range(3)] == ["1", "2", "3"]
    assert list(client.cookies) == [KEY]


def test_what_is_not_saved_is_dropped(visit: Visit) -> None:
    """``auto=False``, Beaker's default; ``auto=True`` keeps it."""

    def forget(session: Any) -> str:
        session["x"] = 1
        return "forgotten"

    client = visit(forget=forget)
    client.post("/increment")
    client.post("/forget")
    assert client.get("/show").text == "{'n': 1}"
    client = visit({"session.auto": "true"}, forget=forget)
    client.post("/forget")
    assert client.get("/show").text == "{'x': 1}"


def test_a_save_marks_and_is_written_once(visit: Visit, store: CountingStore) -> None:
    """As in Beaker: also what is changed after it; two calls of the store."""

    def twice(session: Any) -> object:
        session["a"] = 1
        session.save()
        session["b"] = 2
        session.save()
        return session.dirty()

    client = visit(twice=twice)
    client.post("/increment")
    store.calls.clear()
    assert client.post("/twice").text == "True"
    assert store.calls == ["lock", "save"]
    assert client.get("/show").text == "{'n': 1, 'a': 1, 'b': 2}"


def test_persist_writes_now(visit: Visit, store: CountingStore) -> None:
    found: list[object] = []

    def now(session: Any) -> str:
        session["a"] = 1
        session.persist()
        (kept,) = [each.copy() for each in manager.sessions()]
        found.append(kept)
        return "done"

    client = visit(now=now)
    manager = client.app.manager
    client.post("/now")
    assert found == [{"a": 1}]


def test_its_members_say_what_they_said(visit: Visit) -> None:
    def members(session: Any) -> str:
        assert not session.accessed()
        assert session.is_new is (session.get("n") is None)
        assert session.accessed()
        assert session.has_key("n") is ("n" in session)
        assert abs(session.created - time.time()) < 60
        assert session["_creation_time"] == session.created
        assert session["_accessed_time"] >= session.created
        assert (session.last_accessed is None) is session.is_new
        assert len(session.id) == 32
        return "said"

    client = visit(members=members)
    client.get("/members")
    client.post("/increment")
    client.get("/members")


@pytest.mark.parametrize("verb", ["delete", "invalidate"])
def test_an_end_is_an_end(visit: Visit, verb: str) -> None:
    """P2: the old cookie leads nowhere, and what is written afterwards begins anew."""

    def end(session: Any) -> str:
        getattr(session, verb)()
        session["after"] = True
        session.save()
        return "ended"

    client = visit(end=end)
    client.post("/increment")
    before = client.cookies[KEY]
    client.post("/end")
    assert client.get("/show").text == "{'after': True}"
    assert thief(client, before).get("/show").text == "{}"


def test_a_cleared_session_stays(visit: Visit) -> None:
    def clear(session: Any) -> str:
        session.clear()
        session.save()
        return session.id

    client = visit(clear=clear)
    client.post("/increment")
    before = client.cookies[KEY]
    assert client.post("/clear").text
    assert client.get("/show").text == "{}"
    assert client.cookies[KEY] == before


def test_a_new_id_is_a_new_token(visit: Visit) -> None:
    """The values stay; the old cookie leads nowhere, which it does in Beaker."""
    client = visit(renew=lambda session: session.regenerate_id())
    client.post("/increment")
    before = client.cookies[KEY]
    client.post("/renew")
    assert client.cookies[KEY] != before
    assert client.get("/show").text == "{'n': 1}"
    assert thief(client, before).get("/show").text == "{}"


def test_revert_goes_back(visit: Visit) -> None:
    def back(session: Any) -> object:
        session["n"] = 100
        session.revert()
        session.save()
        return session["n"]

    client = visit(back=back)
    client.post("/increment")
    assert client.post("/back").text == "1"
    assert client.get("/show").text == "{'n': 1}"


def test_another_session_is_found_by_its_id(visit: Visit) -> None:
    """Its ``save()`` writes at once."""
    ids: list[str] = []

    def other(session: Any) -> object:
        assert session.get_by_id("0" * 32) is None
        found = session.get_by_id(ids[0])
        found["seen"] = True
        found.save()
        return "seen"

    client = visit(other=other, id=lambda session: ids.append(session.id))
    client.post("/increment")
    client.get("/id")
    visit(other=other).post("/other")
    assert client.get("/show").text == "{'n': 1, 'seen': True}"


def test_a_session_is_never_false_and_holds_its_moments(visit: Visit) -> None:
    """Applications ask ``if not session`` whether there is a middleware."""

    def moments(session: Any) -> object:
        return bool(session), "_creation_time" in session, "n" in session

    assert visit(moments=moments).get("/moments").text == "(True, True, False)"


def test_a_lock_is_a_lock(visit: Visit) -> None:
    def locked(session: Any) -> object:
        session.lock()
        held = session.locked
        session.unlock()
        return held, session.locked

    client = visit(locked=locked)
    client.post("/increment")
    assert client.get("/locked").text == "(True, False)"


def test_domain_and_path_are_those_of_the_cookie(visit: Visit) -> None:
    def move(session: Any) -> str:
        assert (session.domain, session.path) == (None, None)
        session.domain, session.path = "example.com", "/shop"
        session.save()
        return session.domain

    client = visit(move=move)
    client.post("/increment")
    line = client.post("/move").headers["Set-Cookie"]
    assert "Domain=example.com" in line
    assert "Path=/shop" in line


def test_tests_of_applications_find_the_session(visit: Visit) -> None:
    """``webtest_varname``."""
    client = visit({"session.webtest_varname": "visitor"})
    assert client.post("/increment").visitor["n"] == 1


# -- the promises ------------------------------------------------------------------------


def between(wrap: Callable[[Any], Any]) -> int:
    """What is counted where another request comes in the middle of one."""
    runs: list[int] = []

    def slow(session: Any) -> object:
        count = session["n"]
        runs.append(count)
        if len(runs) == 1:
            other.post("/increment")
        session["n"] = count + 1
        session.save()
        return session["n"]

    client = TestApp(wrap(application(slow=slow)), lint=False)
    other = TestApp(client.app, lint=False)
    client.post("/increment")
    other.set_cookie(KEY, client.cookies[KEY])
    client.get("/slow")
    return int(client.get("/show").text.split("'n': ")[1].rstrip("}").split(",")[0])


def test_no_update_is_lost(store: CountingStore) -> None:
    """P1."""
    assert between(lambda app: SessionMiddleware(app, store=store)) == 3


def test_beaker_loses_it(tmp_path: Any) -> None:
    """The positive control: the same application over Beaker itself."""
    beaker = pytest.importorskip("beaker.middleware")
    options = {"type": "file", "data_dir": str(tmp_path)}
    assert between(lambda app: beaker.SessionMiddleware(app, **options)) == 2


def test_an_invented_id_is_not_adopted(visit: Visit, store: CountingStore) -> None:
    """P3."""
    client = visit()
    client.set_cookie(KEY, "attackerchosen")
    client.post("/increment")
    assert client.cookies[KEY] != "attackerchosen"


def test_a_store_that_is_gone_is_503() -> None:
    """P8."""
    store = Broken()
    client = TestApp(SessionMiddleware(application(), store=store), lint=False)
    client.post("/increment")
    store.is_broken = True
    answer = client.get("/show", status=503)
    assert answer.headers["Retry-After"]


def test_bottles_documented_application(tmp_path: Path) -> None:
    """That of its FAQ, which asks readers to seek another session library."""
    bottle = pytest.importorskip("bottle")
    app = bottle.Bottle()

    @app.route("/test")
    def count() -> str:
        session = bottle.request.environ.get("beaker.session")
        session["test"] = session.get("test", 0) + 1
        session.save()
        return f"Test counter: {session['test']}"

    settings = {
        "session.type": "file",
        "session.cookie_expires": 300,
        "session.data_dir": str(tmp_path / "data"),
        "session.auto": True,
    }
    client = TestApp(SessionMiddleware(app, settings), lint=False)
    assert [client.get("/test").text for _ in range(2)] == [
        "Test counter: 1",
        "Test counter: 2",
    ]


def test_pyramids_documented_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyramid_beaker makes a class of its own of the one that it imports."""
    pyramid_beaker = pytest.importorskip("pyramid_beaker")
    from pyramid.config import Configurator
    from pyramid.response import Response

    monkeypatch.setattr(pyramid_beaker, "SessionObject", SessionObject)
    settings = {"session.type": "memory", "session.key": "mine"}
    config = Configurator()
    factory = pyramid_beaker.session_factory_from_settings(settings)
    config.set_session_factory(factory)

    def view(request: Any) -> Any:
        session = request.session
        session["n"] = session.get("n", 0) + 1
        session.flash("counted")
        return Response(f"{session['n']} {session.pop_flash()}")

    config.add_route("count", "/")
    config.add_view(view, route_name="count")
    client = TestApp(config.make_wsgi_app(), lint=False)
    assert [client.post("/").text for _ in range(2)] == [
        "1 ['counted']",
        "2 ['counted']",
    ]


# -- options -----------------------------------------------------------------------------


def options(**beaker: Any) -> dict[str, Any]:
    return settings_of(None, beaker).ours


MAPPED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "type": ({"type": "ext:database", "url": "sqlite://"}, {"url": "sqlite://"}),
    "data_dir": (
        {"data_dir": "/var/x"},
        {"type": "file", "data_dir": "/var/x/wsgisession"},
    ),
    "file_dir": (
        {"type": "file", "file_dir": "/var/y"},
        {"data_dir": "/var/y/wsgisession"},
    ),
    "url": (
        {"type": "ext:redis", "url": "localhost:6379"},
        {"url": "redis://localhost:6379"},
    ),
    "table_name": (
        {"type": "ext:database", "url": "sqlite://", "table_name": "t"},
        {"table_name": "t"},
    ),
    "schema_name": (
        {"type": "ext:database", "url": "sqlite://", "schema_name": "s"},
        {"schema": "s"},
    ),
    "bind": ({"type": "ext:sqla", "bind": object}, {"engine": object}),
    "key": ({"key": "sid"}, {"cookie_name": "sid"}),
    "secret": ({"secret": "x" * 40}, {}),
    "validate_key": ({"type": "cookie", "validate_key": "x" * 40}, {}),
    "encrypt_key": (
        {"type": "cookie", "encrypt_key": "x" * 40, "validate_key": "y"},
        {"encrypt": True},
    ),
    "timeout": ({"timeout": "600"}, {"idle_timeout": "600"}),
    "save_accessed_time": ({"save_accessed_time": False}, {"touch_interval": None}),
    "auto": ({"auto": True}, {"auto": True}),
    "cookie_expires": (
        {"cookie_expires": timedelta(days=1)},
        {"expire_at_browser_close": False, "absolute_timeout": 86400},
    ),
    "cookie_domain": ({"cookie_domain": "a.com"}, {"cookie_domain": "a.com"}),
    "cookie_path": ({"cookie_path": "/a"}, {"cookie_path": "/a"}),
    "secure": ({"secure": "true"}, {"cookie_secure": True}),
    "httponly": ({"httponly": False}, {"cookie_httponly": False}),
    "samesite": ({"samesite": None}, {"cookie_samesite": False}),
    "data_serializer": ({"data_serializer": "json"}, {"serializer": "json"}),
}


@pytest.mark.parametrize(
    "name",
    [
        row.name
        for row in TABLE
        if row.fate is Fate.MAPPED and row.name != "webtest_varname"
    ],
)
def test_an_option_of_beaker_means_what_it_meant(name: str) -> None:
    given, expected = MAPPED[name]
    assert expected.items() <= options(**given).items()


@pytest.mark.parametrize("name", [r.name for r in TABLE if r.fate is Fate.REFUSED])
def test_what_cannot_be_is_refused_with_a_way_out(name: str) -> None:
    (row,) = [row for row in TABLE if row.name == name]
    with pytest.raises(ConfigurationError, match="is refused") as refused:
        options(**{name: "x"})
    assert row.said in str(refused.value)


@pytest.mark.parametrize("name", [r.name for r in TABLE if r.fate is Fate.NOT_NEEDED])
def test_what_has_lost_its_purpose_is_accepted(name: str) -> None:
    assert options(**{name: "x"}) == options()


@pytest.mark.parametrize("kind", TYPES_REFUSED)
def test_a_type_without_a_store_says_what_to_take(kind: str) -> None:
    with pytest.raises(ConfigurationError, match="give"):
        options(type=kind)


def test_the_documentation_has_every_option() -> None:
    """The table of ``docs/frameworks.rst`` is the one in the code."""
    page = (Path(__file__).parents[2] / "docs" / "frameworks.rst").read_text()
    rows = [re.split(r"  +", line) for line in page.splitlines()]
    told = [row for row in rows if len(row) == 3 and row[1] in {f.value for f in Fate}]
    kinds = [(f"``type={k}``", "refused", said) for k, said in TYPES_REFUSED.items()]
    expected = [(f"``{row.name}``", row.fate.value, row.said) for row in TABLE]
    assert list(map(tuple, told)) == expected + kinds


def test_prefixes_are_beakers(visit: Visit) -> None:
    """Both of them, in an ``.ini`` file with other things in it."""
    config = {
        "beaker.session.type": "memory",
        "session.key": "mine",
        "cache.type": "file",
        "debug": "true",
    }
    client = TestApp(SessionMiddleware(application(), config), lint=False)
    client.post("/increment")
    assert list(client.cookies) == ["mine"]


def test_options_by_name_may_have_a_prefix_too() -> None:
    """As Beaker's own tests write them."""
    given = {"session.type": "memory", "beaker.session.key": "mine", "auto": True}
    client = TestApp(SessionMiddleware(application(), None, **given), lint=False)
    client.post("/increment")
    assert list(client.cookies) == ["mine"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tiemout": 5}, "did you mean 'timeout'"),
        ({"cookie_expires": datetime.now(timezone.utc)}, "one date for all"),
        ({"data_serializer": "pickle"}, "run code"),
        ({"timeout": "soon"}, "idle_timeout"),
    ],
)
def test_what_is_wrong_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        SessionMiddleware(application(), type="memory", **given)


def test_a_short_secret_works_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    client = TestApp(SessionMiddleware(application(), secret="short"), lint=False)
    assert "may be guessed" in caplog.text
    assert [client.post("/increment").text for _ in range(2)] == ["1", "2"]


def test_sessions_in_cookies_run_with_beakers_keys() -> None:
    keys = {"validate_key": "v" * 40, "encrypt_key": "e" * 40}
    client = TestApp(
        SessionMiddleware(application(), type="cookie", **keys), lint=False
    )
    assert [client.post("/increment").text for _ in range(2)] == ["1", "2"]


def test_a_session_goes_with_the_browser_as_in_beaker(visit: Visit) -> None:
    assert "Max-Age" not in visit().post("/increment").headers["Set-Cookie"]
    stays = visit({"session.cookie_expires": "3600"}).post("/increment")
    assert "Max-Age=3600" in stays.headers["Set-Cookie"]


# -- applications that make Beaker's classes themselves ----------------------------------


@pytest.fixture
def folder(tmp_path: Any) -> dict[str, Any]:
    """The options of an application, equal at every request."""
    return {"type": "file", "data_dir": str(tmp_path), "key": "mine"}


def test_a_session_object_is_made_of_an_environ(folder: dict[str, Any]) -> None:
    """As pyramid_beaker makes it."""
    environ = {"REQUEST_METHOD": "POST"}
    session = SessionObject(environ, **folder)
    session["n"] = 1
    session.save()
    session.persist()
    assert session._headers["set_cookie"]
    cookie = session._headers["cookie_out"].split(";")[0]
    again = SessionObject({"HTTP_COOKIE": cookie, "REQUEST_METHOD": "GET"}, **folder)
    assert again["n"] == 1
    again.persist()
    assert not again._headers["set_cookie"]


def test_a_session_is_made_of_a_dict(folder: dict[str, Any]) -> None:
    """``save()`` writes at once, and the dict says which cookie to set."""
    request: dict[str, Any] = {"cookie": None}
    session = Session(request, **folder)
    session["n"] = 1
    session.save()
    assert request["set_cookie"]
    again = Session({"cookie": request["cookie_out"].split(";")[0]}, **folder)
    assert again["n"] == 1


def test_a_job_tells_of_its_progress(folder: dict[str, Any]) -> None:
    """A record beside the session, by an id of the application's: a thread writes, pages
    poll.
    """
    job = Session({}, id="abc.progress.upload", use_cookies=False, **folder)
    page = Session({}, id="abc.progress.upload", use_cookies=False, **folder)
    assert isinstance(job, NamedSession)
    for done in (10, 20):
        job["done"] = done
        job.save()
        page.load()
        assert page["done"] == done
    page["cancel"] = True
    page.save()
    job["done"] = 30
    job.save()
    job.load()
    assert dict(job) == {"done": 30, "cancel": True}
    job.delete()
    page.load()
    assert dict(page) == {}


def test_a_session_with_a_cookie_takes_no_id(folder: dict[str, Any]) -> None:
    """P3: it would be that of all visitors, or of one that the client has chosen."""
    with pytest.raises(ConfigurationError, match="use_cookies=False"):
        Session({}, id="chosen", **folder)


def test_a_session_that_was_not_looked_at_has_an_id_after_a_save(
    folder: dict[str, Any],
) -> None:
    session = Session({}, **folder)
    session.save()
    assert len(session.id) == 32


def test_no_cookie_leads_to_such_a_record(folder: dict[str, Any]) -> None:
    """P3: whatever a client sends, and no list shows it."""
    job = Session({}, id="f" * 32, use_cookies=False, **folder)
    job["secret"] = 1
    job.save()
    for sent in ("f" * 32, "f" * 64, "f" * 96):
        environ = {"HTTP_COOKIE": f"mine={sent}", "REQUEST_METHOD": "GET"}
        session = SessionObject(environ, **folder)
        assert dict(session) == {}
        assert not list(get_manager(environ).sessions())
