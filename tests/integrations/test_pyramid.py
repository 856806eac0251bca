"""Pyramid: ``request.session`` with everything that ``ISession`` and Beaker have, and
with our promises; in attempts that are made again, subrequests and shells as well.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from webtest import TestApp

from wsgisession import (
    ConfigurationError,
    SessionManager,
    SessionMiddleware,
    StoreError,
    external,
    get_manager,
    read_only,
)
from wsgisession.stores.memory import MemoryStore

from ..conftest import CountingStore, missing
from .broken import Broken

try:
    from pyramid.config import Configurator
    from pyramid.httpexceptions import HTTPForbidden, HTTPSeeOther
    from pyramid.i18n import TranslationString
    from pyramid.interfaces import ISession
    from pyramid.request import Request
    from pyramid.response import Response
    from pyramid.scripting import prepare
    from pyramid_retry import mark_error_retryable
    from zope.interface.verify import verifyObject

    from wsgisession.integrations.pyramid import (
        SessionFactory,
        session_factory_from_settings,
    )
except ImportError:
    missing("Pyramid or pyramid_retry")

ADAPTER = "wsgisession.integrations.pyramid"

View = Callable[[Any], object]


def show(request: Any) -> object:
    return dict(request.session)


def increment(request: Any) -> object:
    session = request.session
    session["n"] = session.get("n", 0) + 1
    return session["n"]


def page(view: View) -> Callable[[Any], Any]:
    """A view that answers with the text of what it gives, or with a response."""

    def answered(request: Any) -> Any:
        answer = view(request)
        return answer if isinstance(answer, Response) else Response(str(answer))

    answered.__dict__.update(getattr(view, "__dict__", {}))
    return answered


def configured(store: Any = None, **views: View) -> Any:
    """A configuration with the adapter included, and a view for each path."""
    manager = SessionManager(store or MemoryStore())
    config = Configurator(settings={"session.manager": manager})
    config.include(ADAPTER)
    add(config, show=show, increment=increment, untouched=lambda r: "nothing", **views)
    return config


def add(config: Any, **views: View) -> None:
    for name, view in views.items():
        config.add_route(name, f"/{name}")
        config.add_view(page(view), route_name=name)


def client_of(config: Any) -> TestApp:
    return TestApp(config.make_wsgi_app(), lint=False)


def visitor(store: Any = None, **views: View) -> TestApp:
    return client_of(configured(store, **views))


def manager_of(config: Any) -> SessionManager:
    manager: SessionManager = config.registry.settings["session.manager"]
    return manager


# -- the session -------------------------------------------------------------------------


def test_a_view_finds_the_session_at_the_request() -> None:
    client = visitor()
    assert [client.post("/increment").text for _ in range(3)] == ["1", "2", "3"]
    assert client.get("/show").text == "{'n': 3}"


def test_it_is_what_pyramid_calls_a_session() -> None:
    def members(request: Any) -> str:
        session = request.session
        verifyObject(ISession, session)
        assert type(session.created) is int
        age = datetime.now(timezone.utc).timestamp() - session.created
        assert 0 <= age < 60
        assert session.new
        session["list"] = []
        session["list"].append(1)
        assert session.changed() is None
        return "complete"

    client = visitor(members=members)
    assert client.post("/members").text == "complete"
    assert client.get("/show").text == "{'list': [1]}"


def test_an_untouched_session_costs_nothing() -> None:
    """P4."""
    store = CountingStore(MemoryStore())
    client = visitor(store)
    client.post("/increment")
    store.calls.clear()
    assert "Vary" not in client.get("/untouched").headers
    assert store.calls == []
    assert client.get("/show").headers["Vary"] == "Cookie"
    assert store.calls == ["load"]


def test_a_get_that_was_overtaken_is_run_again() -> None:
    """P1; the second run has a request of its own, and nothing of the first."""
    runs: list[Any] = []

    def slow(request: Any) -> object:
        runs.append(request)
        count = request.session["n"]
        if len(runs) == 1:
            request.seen = True
            client.post("/increment")
        assert hasattr(request, "seen") is (len(runs) == 1)
        request.session["n"] = count + 1
        return request.session["n"]

    client = visitor(slow=slow)
    client.post("/increment")
    assert client.get("/slow").text == "3"
    assert len(runs) == 2


def test_an_ended_session_is_used_on_as_a_new_one() -> None:
    """``invalidate()``, and the same by Beaker's name: the way against fixation."""

    def log_in(request: Any) -> str:
        request.session.invalidate()
        assert dict(request.session) == {}
        request.session["user"] = "ann"
        return "in"

    def log_out(request: Any) -> str:
        request.session.delete()
        return "out"

    client = visitor(log_in=log_in, log_out=log_out)
    client.post("/increment")
    planted = client.cookies["sid"]
    client.post("/log_in")
    assert client.get("/show").text == "{'user': 'ann'}"
    assert client.cookies["sid"] != planted
    kept = client.cookies["sid"]
    client.post("/log_out")
    for token in (planted, kept):
        client.set_cookie("sid", token)
        assert client.get("/show").text == "{}"


def test_beakers_verbs_are_there() -> None:
    """Applications that come from pyramid_beaker call them."""

    def verbs(request: Any) -> object:
        session = request.session
        session["kept"] = 1
        session.save()
        session["dropped"] = 2
        session.revert()
        return dict(session)

    client = visitor(verbs=verbs)
    assert client.post("/verbs").text == "{'kept': 1}"
    assert client.get("/show").text == "{'kept': 1}"


# -- flash and CSRF ----------------------------------------------------------------------


def test_flashes_are_kept_in_queues_until_they_are_shown() -> None:
    def say(request: Any) -> str:
        session = request.session
        session.flash("one")
        session.flash("two")
        session.flash("two", allow_duplicate=False)
        session.flash("bad", "errors")
        return "said"

    def peek(request: Any) -> object:
        return request.session.peek_flash()

    def hear(request: Any) -> object:
        return request.session.pop_flash(), request.session.pop_flash("errors")

    client = visitor(say=say, peek=peek, hear=hear)
    client.post("/say")
    assert client.get("/peek").text == "['one', 'two']"
    assert client.get("/hear").text == "(['one', 'two'], ['bad'])"
    assert client.get("/hear").text == "([], [])"
    assert client.get("/peek").text == "[]"


def test_a_translation_is_made_when_the_flash_is_shown() -> None:
    """Its default, its mapping and its domain are kept beside its name."""
    text = TranslationString("hi", "shop", "Hello ${name}", {"name": "Ann"})

    def hear(request: Any) -> str:
        (heard,) = request.session.pop_flash()
        assert heard.domain == "shop"
        return str(heard.interpolate())

    settings = {"session.url": "memory:"}
    config = Configurator(settings=settings)
    config.include(ADAPTER)
    add(config, say=lambda request: request.session.flash(text), hear=hear)
    client = client_of(config)
    client.post("/say")
    assert client.get("/hear").text == "Hello Ann"


@pytest.mark.parametrize("policy", ["the session's own", "in the session"])
def test_a_form_without_its_csrf_token_is_refused(policy: str) -> None:
    """By both of Pyramid's policies that keep the token in the session."""
    from pyramid.csrf import SessionCSRFStoragePolicy, get_csrf_token

    config = configured()
    config.set_default_csrf_options(require_csrf=True)
    if policy == "in the session":
        config.set_csrf_storage_policy(SessionCSRFStoragePolicy())
    add(config, token=get_csrf_token)
    client = client_of(config)
    client.post("/increment", status=400)
    token = client.get("/token").text
    assert client.get("/token").text == token
    assert client.post("/increment", {"csrf_token": token}).text == "1"
    client.post("/increment", {"csrf_token": "x" + token}, status=400)


# -- attempts that are made again --------------------------------------------------------


class Deadlock(Exception):
    """What a database says; the request may be tried again."""


mark_error_retryable(Deadlock)


@pytest.mark.parametrize("order", ["before", "after", "committed in between"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_failed_attempt_counts_for_nothing(order: str, method: str) -> None:
    """pyramid_retry, included before us or after us: the last attempt is kept."""
    attempts: list[int] = []

    def flaky(request: Any) -> object:
        session = request.session
        attempts.append(session["n"])
        session["n"] += 1
        session.flash(f"attempt {len(attempts)}")
        if len(attempts) < 3:
            raise Deadlock
        return session["n"]

    manager = SessionManager(MemoryStore())
    config = Configurator(settings={"session.manager": manager, "retry.attempts": 3})
    adapters = [ADAPTER, "pyramid_retry"]
    for adapter in reversed(adapters) if order == "before" else adapters:
        config.include(adapter)
        if order == "committed in between":
            config.commit()
    add(config, show=show, increment=increment, flaky=flaky)
    client = client_of(config)
    client.post("/increment")
    assert getattr(client, method)("/flaky").text == "2"
    assert attempts == [1, 1, 1]
    assert client.get("/show").text == "{'n': 2, '_f_': ['attempt 3']}"


def test_an_attempt_that_is_not_made_again_keeps_nothing() -> None:
    """The last one fails as well: neither its changes nor its lock are left."""

    def flaky(request: Any) -> object:
        request.session["n"] = 100
        raise Deadlock

    config = configured(flaky=flaky)
    config.include("pyramid_retry")
    client = client_of(config)
    client.post("/increment")
    with pytest.raises(Deadlock):
        client.post("/flaky")
    assert client.post("/increment").text == "2"


def test_a_transaction_that_is_aborted_keeps_nothing() -> None:
    """pyramid_tm beside us; what it commits is kept."""
    pytest.importorskip("pyramid_tm")

    def fail(request: Any) -> object:
        request.session["n"] = 100
        raise RuntimeError("no")

    config = configured(fail=fail)
    config.include("pyramid_tm")
    client = client_of(config)
    assert client.post("/increment").text == "1"
    with pytest.raises(RuntimeError):
        client.post("/fail")
    assert client.post("/increment").text == "2"


class Database:
    """What joins a transaction, and remembers how it ended."""

    transaction_manager = None

    def __init__(self, ends: list[str]) -> None:
        self.ends = ends

    def abort(self, transaction: Any) -> None:
        self.ends.append("aborted")

    def tpc_finish(self, transaction: Any) -> None:
        self.ends.append("committed")

    def commit(self, transaction: Any) -> None: ...

    tpc_begin = tpc_vote = tpc_abort = commit

    def sortKey(self) -> str:  # noqa: N802
        return "database"


def test_a_run_that_counts_for_nothing_leaves_no_transaction() -> None:
    """The second run is asked for within the view, by ``save()``."""
    pytest.importorskip("pyramid_tm")
    ends: list[str] = []
    runs: list[int] = []

    def slow(request: Any) -> object:
        request.tm.get().join(Database(ends))
        runs.append(request.session["n"])
        if len(runs) == 1:
            client.post("/increment")
        request.session["n"] = runs[-1] + 1
        request.session.save()
        return request.session["n"]

    config = configured(slow=slow)
    config.add_settings({"tm.manager_hook": "pyramid_tm.explicit_manager"})
    config.include("pyramid_tm")
    client = client_of(config)
    client.post("/increment")
    assert client.get("/slow").text == "3"
    assert runs == [1, 2]
    assert ends == ["aborted", "committed"]


# -- without a request -------------------------------------------------------------------


def test_a_subrequest_has_a_session_of_its_own() -> None:
    """It has no cookie, as Pyramid makes it; its answer has the new session's."""

    def outer(request: Any) -> object:
        request.session["outer"] = True
        answer = request.invoke_subrequest(Request.blank("/increment"))
        assert answer.headers["Set-Cookie"].startswith("sid=")
        return answer.text, dict(request.session)

    client = visitor(outer=outer)
    assert client.post("/outer").text == "('1', {'outer': True})"
    assert client.get("/show").text == "{'outer': True}"


def test_a_subrequest_may_share_the_session() -> None:
    """As Pyramid's documentation does it: by its attribute, or by a copied request."""

    def outer(request: Any) -> object:
        sub = Request.blank("/increment")
        sub.session = request.session
        request.invoke_subrequest(sub)
        copied = request.copy()
        copied.path_info = "/increment"
        return request.invoke_subrequest(copied).text

    client = visitor(outer=outer)
    assert client.post("/outer").text == "2"
    assert client.get("/show").text == "{'n': 2}"


def test_a_shell_has_a_session() -> None:
    """It keeps what it saves, and lets go of what it locked."""
    config = configured()
    client = client_of(config)
    client.post("/increment")
    cookie = f"sid={client.cookies['sid']}"
    request = Request.blank("/", method="POST", headers={"Cookie": cookie})
    with prepare(request=request, registry=config.registry) as shell:
        session = shell["request"].session
        assert session["n"] == 1
        session["n"] = 41
        session.save()
        session["n"] = 0
    assert client.post("/increment").text == "42"


# -- failures ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("catches", [True, False])
def test_a_store_that_is_gone_is_503(method: str, catches: bool) -> None:
    """P8, also where the application has a page for every error."""
    store = Broken()
    config = configured(store)
    if catches:
        config.add_exception_view(lambda e, r: Response("oops", 500), context=Exception)
    client = client_of(config)
    client.post("/increment")
    store.is_broken = True
    answer = getattr(client, method)("/increment", status=503)
    assert answer.headers["Retry-After"]
    assert "Set-Cookie" not in answer.headers


def test_an_application_may_answer_itself() -> None:
    store = Broken()
    config = configured(store)
    config.add_exception_view(
        lambda error, request: Response(f"later: {error}", 502), context=StoreError
    )
    client = client_of(config)
    client.post("/increment")
    store.is_broken = True
    assert client.get("/increment", status=502).text == "later: out of reach"


def test_raised_responses_keep_what_was_written() -> None:
    """Pyramid answers by exceptions too; only a failure drops."""

    def go(request: Any) -> object:
        request.session["went"] = True
        raise HTTPSeeOther("/show")

    def refuse(request: Any) -> object:
        request.session["refused"] = True
        raise HTTPForbidden

    client = visitor(go=go, refuse=refuse)
    client.post("/go", status=303)
    client.post("/refuse", status=403)
    assert client.get("/show").text == "{'went': True, 'refused': True}"


def test_an_exception_view_has_the_session() -> None:
    config = configured(fail=lambda request: 1 / 0)

    def sorry(error: Any, request: Any) -> Any:
        request.session["failed"] = True
        return Response(f"after {request.session['n']}", 400)

    config.add_exception_view(sorry, context=ZeroDivisionError)
    client = client_of(config)
    client.post("/increment")
    assert client.get("/fail", status=400).text == "after 1"
    assert client.get("/show").text == "{'n': 1, 'failed': True}"


# -- what a view says of itself ----------------------------------------------------------


class Account:
    """A view as a class, with a method that only reads."""

    def __init__(self, request: Any) -> None:
        self.request = request

    @read_only
    def search(self) -> Any:
        return Response(str(self.request.session["n"]))

    @read_only
    def wrong(self) -> Any:
        self.request.session["n"] = 2
        return Response("written")


def test_a_post_that_only_reads_waits_for_nobody() -> None:
    """As a function and as a method; CSRF is looked at after the mark."""
    store = CountingStore(MemoryStore())

    @read_only
    def search(request: Any) -> object:
        return request.session["n"]

    config = configured(store, search=search)
    for name in ("search", "wrong"):
        config.add_route(f"by_{name}", f"/by_{name}")
        config.add_view(Account, attr=name, route_name=f"by_{name}")
    config.set_default_csrf_options(require_csrf=False)
    client = client_of(config)
    client.post("/increment")
    for path in ("/search", "/by_search"):
        store.calls.clear()
        assert client.post(path).text == "1"
        assert store.calls == ["load"]
    with pytest.raises(Exception, match="only read"):
        client.post("/by_wrong")
    assert client.get("/show").text == "{'n': 1}"


def test_a_get_that_acts_outside_runs_once() -> None:
    runs: list[bool] = []

    @external
    def pay(request: Any) -> object:
        assert request.session["n"]
        runs.append(request.session.locked)
        return "paid"

    client = visitor(pay=pay)
    client.post("/increment")
    client.get("/pay")
    assert runs == [True]


# -- settings ----------------------------------------------------------------------------


def test_settings_come_from_the_ini_file() -> None:
    config = Configurator(
        settings={"session.url": "memory:", "session.idle_timeout": "30m", "debug": "1"}
    )
    config.include(ADAPTER)
    config.commit()
    add(config, idle=lambda r: get_manager(r.environ).options.idle_timeout)
    assert client_of(config).get("/idle").text == "1800.0"


def test_what_is_wrong_is_refused_when_it_is_included() -> None:
    for name, value, said in (
        ("url", "redsi://localhost", "redsi"),
        ("idel_timeout", "30m", "did you mean 'idle_timeout'"),
    ):
        settings = {"session.url": "memory:", f"session.{name}": value}
        with pytest.raises(ConfigurationError, match=said):
            Configurator(settings=settings).include(ADAPTER)


def test_without_a_factory_it_says_what_to_do() -> None:
    config = Configurator()
    config.include(ADAPTER)
    with pytest.raises(ConfigurationError, match="session_factory_from_settings"):
        config.make_wsgi_app()


def test_an_application_may_set_the_factory_itself() -> None:
    """As those on pyramid_beaker do; the door is that factory's."""
    settings = {"session.url": "memory:", "session.cookie_name": "mine"}
    config = Configurator()
    config.include(ADAPTER)
    config.set_session_factory(session_factory_from_settings(settings))
    add(config, increment=increment)
    client = client_of(config)
    assert [client.post("/increment").text for _ in range(2)] == ["1", "2"]
    assert list(client.cookies) == ["mine"]


def test_the_factory_alone_keeps_sessions_too() -> None:
    """Without the door, by Pyramid's callbacks: headers, values and locks."""
    config = Configurator()
    config.set_session_factory(SessionFactory(SessionManager(MemoryStore())))
    add(config, increment=increment, show=show)
    client = client_of(config)
    assert [client.post("/increment").text for _ in range(3)] == ["1", "2", "3"]
    answer = client.get("/show")
    assert (answer.text, answer.headers["Vary"]) == ("{'n': 3}", "Cookie")


# -- beside others -----------------------------------------------------------------------


def test_a_middleware_around_it_with_the_same_manager_is_passed_through() -> None:
    config = configured()
    app = SessionMiddleware(config.make_wsgi_app(), manager=manager_of(config))
    client = TestApp(app, lint=False)
    assert [client.post("/increment").text for _ in range(2)] == ["1", "2"]
    assert len(list(manager_of(config).sessions())) == 1


def test_two_applications_in_one_process_know_nothing_of_each_other() -> None:
    one, two = visitor(), visitor()
    assert one.post("/increment").text == "1"
    two.set_cookie("sid", one.cookies["sid"])
    assert two.post("/increment").text == "1"


def test_a_tween_may_use_the_session() -> None:
    """On the way in and on the way out."""
    config = configured()
    config.add_tween(f"{__name__}.counting_tween")
    client = client_of(config)
    client.get("/untouched")
    client.get("/untouched")
    assert client.get("/show").text == "{'in': 3, 'out': 2}"


def counting_tween(handler: Any, registry: Any) -> Any:
    def tween(request: Any) -> Any:
        session = request.session
        session["in"] = session.get("in", 0) + 1
        answer = handler(request)
        session["out"] = session.get("out", 0) + 1
        return answer

    return tween


# -- what a failure leaves, with and without the door ----------------------------------


def without_the_door(**views: View) -> tuple[TestApp, SessionManager]:
    manager = SessionManager(MemoryStore())
    config = Configurator()
    config.set_session_factory(SessionFactory(manager))
    add(config, show=show, increment=increment, **views)
    return client_of(config), manager


def log_out_and_fail(request: Any) -> object:
    request.session.invalidate()
    raise ZeroDivisionError


def test_an_end_stands_where_the_request_failed() -> None:
    """P2, by the factory alone and by the door."""
    config = configured(out=log_out_and_fail)
    alone = without_the_door(out=log_out_and_fail)
    for client, manager in ((client_of(config), manager_of(config)), alone):
        client.post("/increment")
        with pytest.raises(ZeroDivisionError):
            client.post("/out")
        assert list(manager.sessions()) == []


def test_an_end_stands_where_a_subrequest_failed() -> None:
    def outer(request: Any) -> object:
        cookie = {"Cookie": request.headers["Cookie"]}
        with pytest.raises(ZeroDivisionError):
            request.invoke_subrequest(Request.blank("/out", headers=cookie))
        return "caught"

    config = configured(out=log_out_and_fail, outer=outer)
    client = client_of(config)
    client.post("/increment")
    client.post("/outer")
    assert list(manager_of(config).sessions()) == []


def test_a_callback_may_write_without_the_door() -> None:
    """Also one that was added after the session's own."""

    def late(request: Any) -> object:
        assert request.session["n"]
        request.add_response_callback(lambda r, a: r.session.update(late=True))
        return "answered"

    client, _ = without_the_door(late=late)
    client.post("/increment")
    client.post("/late")
    assert client.get("/show").text == "{'n': 1, 'late': True}"


# -- whose mark counts -------------------------------------------------------------------


def test_a_view_that_is_rendered_within_does_not_speak_for_the_request() -> None:
    from pyramid.view import render_view_to_response

    @read_only
    def aside(context: Any, request: Any) -> Any:
        return Response(str(request.session["n"]))

    def outer(request: Any) -> object:
        render_view_to_response(None, request, "aside")
        return increment(request)

    config = configured(outer=outer)
    config.add_view(aside, name="aside")
    client = client_of(config)
    client.post("/increment")
    assert client.post("/outer").text == "2"


def test_another_attempt_may_lead_to_another_view() -> None:
    """The mark of the first one's view is gone."""

    @read_only
    def first(request: Any) -> object:
        assert request.session["n"]
        raise Deadlock

    config = configured()
    config.include("pyramid_retry")
    config.add_route("page", "/page")
    for view, is_last in ((first, False), (increment, True)):
        config.add_view(page(view), route_name="page", last_retry_attempt=is_last)
    client = client_of(config)
    client.post("/increment")
    assert client.post("/page").text == "2"


class Search:
    """A view as a class, or as an object, that is called."""

    def __init__(self, request: Any = None) -> None:
        self.request = request

    @read_only
    def __call__(self, request: Any = None) -> Any:
        return Response(str((request or self.request).session["n"]))


@pytest.mark.parametrize("view", [Search, Search()], ids=["class", "object"])
def test_the_mark_is_found_where_a_view_is_called(view: Any) -> None:
    store = CountingStore(MemoryStore())
    config = configured(store)
    config.add_route("search", "/search")
    config.add_view(view, route_name="search")
    client = client_of(config)
    client.post("/increment")
    store.calls.clear()
    assert client.post("/search").text == "1"
    assert store.calls == ["load"]


@pytest.mark.parametrize(
    "settings",
    [
        {"session.manager": "no manager"},
        {"session.manager": SessionManager(MemoryStore()), "session.auto": "off"},
    ],
    ids=["not one", "and an option"],
)
def test_a_manager_is_one_and_stands_alone(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="manager"):
        Configurator(settings=settings).include(ADAPTER)
