"""Django: the engine, the middleware, and ``django.contrib`` on top; WSGI and ASGI."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
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
    from . import django_site  # configures Django, before anything of it is imported
except ImportError:
    missing("Django")

from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.core.checks import run_checks
from django.core.management import call_command
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.test.utils import override_settings
from django.urls import path
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy

from wsgisession.integrations.django import SessionStore, get_manager
from wsgisession.testing.apps import client_cookie, session_of

KEY = "sessionid"


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    """The users' tables, in memory."""
    call_command("migrate", verbosity=0)
    for name in ("ann", "bob"):
        if not User.objects.filter(username=name).exists():
            User.objects.create_superuser(name, password="pass")


@pytest.fixture(autouse=True)
def store() -> Iterator[CountingStore]:
    """A store for each test, which counts its calls."""
    made = CountingStore(MemoryStore())
    with override_settings(WSGISESSION={"store": made}):
        yield made
    django_site.HOOKS.clear()


@pytest.fixture
def client() -> Any:
    return Client(raise_request_exception=False)


@pytest.fixture
def browser() -> TestApp:
    """The site behind WSGI, without Django's own test client."""
    return TestApp(django_site.application)


def do(step: Callable[[Any], Any]) -> None:
    """The page ``/step`` is to do this."""
    django_site.HOOKS["step"] = step


# -- the middleware ----------------------------------------------------------------------


def test_the_session_is_kept_by_the_store(client: Any) -> None:
    assert [client.post("/increment").content for _ in range(2)] == [b"1", b"2"]
    (kept,) = get_manager().sessions()
    assert kept["n"] == 2
    assert get_manager().open(client.cookies[KEY].value)["n"] == 2


def test_an_untouched_session_costs_nothing(
    browser: TestApp, store: CountingStore
) -> None:
    """P4: no call, no header; with ``request.user`` in sight as well."""
    browser.post("/increment")
    store.calls.clear()
    answer = browser.get("/untouched")
    assert store.calls == []
    assert "Vary" not in answer.headers
    assert browser.get("/show").headers["Vary"] == "Cookie"
    assert store.calls == ["load"]


def test_a_get_that_was_overtaken_is_run_again(browser: TestApp) -> None:
    """P1; nothing of the first run is at the request of the second."""
    runs: list[str] = []
    other = TestApp(django_site.application)

    def slow(request: Any) -> str:
        assert not hasattr(request, "seen")
        request.seen = True
        runs.append(request.user.get_username())
        count = request.session["n"]
        if len(runs) == 1:
            other.post("/increment")
        request.session["n"] = count + 1
        return str(request.session["n"])

    do(slow)
    browser.post("/increment")
    other.set_cookie(KEY, browser.cookies[KEY])
    assert browser.get("/step").text == "3"
    assert len(runs) == 2


def test_djangos_own_engine_loses_that_update() -> None:
    """The positive control: its database engine, and its middleware."""
    with override_settings(
        SESSION_ENGINE="django.contrib.sessions.backends.db",
        MIDDLEWARE=[django_site.DJANGOS],
    ):
        one, two = Client(), Client()
        one.post("/increment")
        two.cookies = one.cookies

        def between() -> None:
            django_site.HOOKS.pop("between")
            two.post("/increment")

        django_site.HOOKS["between"] = between
        assert one.get("/increment").content == b"2"
        assert one.get("/read").content == b"2"


def test_the_engine_alone_keeps_sessions_and_brings_none_back() -> None:
    """With Django's own middleware: a valid first step."""
    with override_settings(MIDDLEWARE=[django_site.DJANGOS]):
        one, two = Client(), Client()
        assert [one.post("/increment").content for _ in range(2)] == [b"1", b"2"]
        two.cookies = one.cookies.copy()
        do(lambda request: request.session.flush() or "out")

        def between() -> None:
            django_site.HOOKS.pop("between")
            two.post("/step")

        django_site.HOOKS["between"] = between
        assert one.post("/increment").status_code == 400  # SessionInterrupted
        assert not list(get_manager().sessions())


def test_a_streamed_answer_writes_while_it_is_sent(browser: TestApp) -> None:
    browser.post("/increment")
    assert browser.post("/stream").text == "onetwo"
    assert browser.get("/show").text == "{'n': 1, 'started': True, 'sent': 1}"


def test_a_failed_view_writes_nothing(client: Any) -> None:
    def fail(request: Any) -> None:
        request.session["n"] = 100
        raise RuntimeError("no")

    do(fail)
    client.post("/increment")
    assert client.post("/step").status_code == 500
    assert client.post("/increment").content == b"2"


def test_a_forced_save_is_a_save(client: Any, store: CountingStore) -> None:
    """``modified = True`` moves the expiry, as Django documents it."""
    do(lambda request: setattr(request.session, "modified", True))
    client.post("/increment")
    store.calls.clear()
    client.get("/step")
    assert store.calls == ["load", "save"]


def test_the_cookie_is_as_the_settings_say() -> None:
    with override_settings(
        SESSION_COOKIE_NAME="shop",
        SESSION_COOKIE_PATH="/shop",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="Strict",
    ):
        cookie = Client().post("/increment", secure=True).cookies["shop"]
        assert (cookie["path"], cookie["samesite"]) == ("/shop", "Strict")
        assert cookie["secure"]
        assert cookie["httponly"]
        assert cookie["max-age"]


def test_a_cookie_is_secure_behind_a_proxy_that_django_trusts() -> None:
    """By its own setting for such proxies; without it nobody believes the header."""
    told = {"HTTP_X_FORWARDED_PROTO": "https"}
    assert not Client().post("/increment", **told).cookies[KEY]["secure"]
    trusted = ("HTTP_X_FORWARDED_PROTO", "https")
    with override_settings(SECURE_PROXY_SSL_HEADER=trusted):
        assert Client().post("/increment", **told).cookies[KEY]["secure"]


def test_a_partitioned_cookie_says_so(store: CountingStore) -> None:
    own = {"store": store, "cookie_partitioned": True, "cookie_secure": True}
    with override_settings(WSGISESSION=own):
        answer = Client().post("/increment", secure=True)
        assert "; Partitioned" in answer.cookies[KEY].OutputString()


def test_a_session_ends_with_its_cookie(client: Any) -> None:
    do(lambda request: request.session.flush())
    client.post("/increment")
    answer = client.post("/step")
    assert answer.cookies[KEY]["max-age"] == "0"
    assert not list(get_manager().sessions())


# -- failures ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("path", ["/increment", "/who", "/swallowed"])
def test_a_store_that_is_gone_is_503(client: Any, method: str, path: str) -> None:
    """P8, also where the application makes its own page of it."""

    def swallow(request: Any) -> Any:
        try:
            return request.session["n"]
        except StoreError:
            return HttpResponse("oops", status=500)

    do(swallow)
    broken = Broken()
    with override_settings(WSGISESSION={"store": broken}):
        client.post("/increment")
        broken.is_broken = True
        answer = getattr(client, method)(path.replace("swallowed", "step"))
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert not answer.cookies


def test_an_application_may_answer_itself(client: Any) -> None:
    """In the view, or in a middleware of its own with ``process_exception``."""

    def careful(request: Any) -> Any:
        try:
            return request.session["n"]
        except StoreError:
            return HttpResponse("come back later", status=502)

    do(careful)
    broken = Broken()
    with override_settings(WSGISESSION={"store": broken}):
        client.post("/increment")
        broken.is_broken = True
        assert client.get("/step").status_code == 502


# -- django.contrib ----------------------------------------------------------------------


def test_a_login_is_a_login_of_ours(client: Any) -> None:
    """A new token, the values kept, and the session one of the user's."""
    client.post("/increment")
    before = client.cookies[KEY].value
    client.post("/login/ann")
    assert client.cookies[KEY].value != before
    assert client.get("/who").content == b"ann"
    (kept,) = get_manager().sessions_of(User.objects.get(username="ann").pk)
    assert kept["n"] == 1
    client.cookies[KEY] = before
    assert client.get("/who").content == b"None"


def test_a_user_is_logged_out_everywhere() -> None:
    """P10."""
    clients = [Client(), Client()]
    for each in clients:
        each.post("/login/ann")
    assert get_manager().end_user(User.objects.get(username="ann").pk) == 2
    assert [each.get("/who").content for each in clients] == [b"None", b"None"]


def test_a_logout_is_final(client: Any) -> None:
    client.post("/login/ann")
    cookie = client.cookies[KEY].value
    client.post("/logout")
    client.cookies[KEY] = cookie
    assert client.get("/who").content == b"None"


def test_another_users_values_do_not_stay(client: Any) -> None:
    client.post("/login/ann")
    client.post("/increment")
    client.post("/login/bob")
    assert client.get("/who").content == b"bob"
    assert client.get("/read").content == b"0"


def test_a_new_password_ends_the_other_sessions(client: Any) -> None:
    """By the hash of the password, which Django keeps in the session."""
    other = Client()
    other.post("/login/bob")
    client.post("/login/bob")
    user = User.objects.get(username="bob")
    user.set_password("new")
    user.save()
    assert other.get("/who").content == b"None"


def test_the_test_client_logs_in_and_prepares_sessions(client: Any) -> None:
    """``force_login``, ``login``, ``client.session``, ``logout``."""
    session = client.session
    session["n"] = 41
    session.save()
    assert client.post("/increment").content == b"42"
    client.force_login(User.objects.get(username="ann"))
    assert client.get("/who").content == b"ann"
    assert client.session["n"] == 42
    client.logout()
    assert client.get("/who").content == b"None"
    assert client.login(username="ann", password="pass")
    assert client.get("/who").content == b"ann"


def test_what_tests_of_applications_are_given_works_here(client: Any) -> None:
    """``wsgisession.testing.apps``, with Django's own client."""
    ann = User.objects.get(username="ann")
    backend = "django.contrib.auth.backends.ModelBackend"
    values = {
        "_auth_user_id": str(ann.pk),
        "_auth_user_backend": backend,
        "_auth_user_hash": ann.get_session_auth_hash(),
    }
    name, value = client_cookie(get_manager(), user=ann.pk, n=41, **values)
    client.cookies[name] = value
    assert client.get("/who").content == b"ann"
    assert client.post("/increment").content == b"42"
    with session_of(get_manager(), client) as session:
        assert session["n"] == 42


def test_messages_are_shown_once(client: Any) -> None:
    storage = "django.contrib.messages.storage.session.SessionStorage"
    with override_settings(MESSAGE_STORAGE=storage):
        client.post("/say")
        assert client.get("/hear").content == b"success:saved <b>"
        assert client.get("/hear").content == b""


def test_the_admin_lets_in_whom_it_knows(browser: TestApp) -> None:
    form = browser.get("/admin/", status=302).follow().form
    form["username"], form["password"] = "ann", "pass"
    answer = form.submit(status=302)
    assert "Site administration" in answer.follow().text


def test_values_of_django_survive(client: Any) -> None:
    """Safe text stays safe; a lazy translation becomes its text."""
    values = {
        "safe": mark_safe("<b>"),
        "lazy": gettext_lazy("Yes"),
        "moment": datetime.now(timezone.utc),
        "tuple": (1, 2),
    }
    do(lambda request: request.session.update(values))
    client.post("/step")

    def look(request: Any) -> str:
        assert dict(request.session.items()) == values
        assert type(request.session["safe"]) is SafeString
        return "equal"

    do(look)
    assert client.get("/step").content == b"equal"


# -- what a view says of itself ----------------------------------------------------------


def test_a_post_that_only_reads_waits_for_nobody(
    client: Any, store: CountingStore
) -> None:
    client.post("/increment")

    @read_only
    def search(request: Any) -> HttpResponse:
        return HttpResponse(str(request.session["n"]))

    @read_only
    def wrong(request: Any) -> HttpResponse:
        request.session["n"] = 2
        return HttpResponse("written")

    @external
    def pay(request: Any) -> HttpResponse:
        assert request.session["n"]
        return HttpResponse(str(request.session.session.locked))

    urls = [path(view.__name__, view) for view in (search, wrong, pay)]
    site = type("urls", (), {"urlpatterns": urls + django_site.urlpatterns})
    with override_settings(ROOT_URLCONF=site):
        store.calls.clear()
        assert client.post("/search").content == b"1"
        assert store.calls == ["load"]
        assert client.post("/wrong").status_code == 500
        assert client.get("/read").content == b"1"
        assert client.get("/pay").content == b"True"


# -- the store by itself -----------------------------------------------------------------


def test_it_is_used_outside_of_views() -> None:
    """As Django's documentation does it, from the key to the end."""
    session = SessionStore()
    session["last_login"] = 1376587691
    session.create()
    key = session.session_key
    assert SessionStore(session_key=key).get("last_login") is None  # as in Django
    session["last_login"] = 1
    session.save()
    assert SessionStore(session_key=key)["last_login"] == 1
    assert session.exists(key)
    session.cycle_key()
    assert not SessionStore().exists(key)
    assert session["last_login"] == 1
    session.flush()
    assert session.session_key is None
    assert not list(get_manager().sessions())


def test_a_request_can_neither_show_nor_lose_its_token(client: Any) -> None:
    """P5: ``session_key`` is the id there; a template may print it, it opens nothing."""
    client.post("/increment")
    do(lambda request: request.session.get("n") and request.session.session_key)
    key = client.get("/step").content.decode()
    (kept,) = get_manager().sessions()
    assert key == kept.id
    assert key not in client.cookies[KEY].value
    assert not SessionStore().exists(key)


def test_a_visitor_has_a_key_once_one_is_made(client: Any) -> None:
    """The usual way to a cart of an anonymous visitor."""

    def cart(request: Any) -> str:
        if not request.session.session_key:
            request.session.create()
        return str(request.session.session_key)

    do(cart)
    key = client.post("/step").content
    assert client.post("/step").content == key
    assert len(list(get_manager().sessions())) == 1


def test_an_ended_session_is_not_brought_back() -> None:
    one = SessionStore()
    one["a"] = 1
    one.save()
    two = SessionStore(one.session_key)
    two.delete()
    one["a"] = 2
    with pytest.raises(UpdateError):
        one.save()
    assert SessionStore(one.session_key).load() == {}


def test_an_expiry_is_kept_by_the_server(client: Any) -> None:
    def expire(request: Any) -> int:
        request.session.set_expiry(timedelta(hours=1))
        return round(request.session.get_expiry_age() / 60)

    client.post("/increment")
    do(expire)
    assert client.post("/step").content == b"60"
    (kept,) = get_manager().sessions()
    left = kept.expires - datetime.now(timezone.utc)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)


def test_every_member_of_a_django_session_works() -> None:
    """The names are taken from Django, so that a new one cannot be forgotten."""
    session = SessionStore()
    session["a"] = 1
    calls: dict[str, tuple[Any, ...]] = {
        "get": ("a",),
        "pop": ("a", None),
        "setdefault": ("b", 2),
        "update": ({"c": 3},),
        "has_key": ("c",),
        "set_expiry": (60,),
        "encode": ({"a": 1},),
        "decode": (session.encode({"a": 1}),),
        "exists": (None,),
        "delete": (None,),
    }
    last = ["save", "cycle_key", "delete", "clear", "flush", "create"]
    names = [
        name
        for name, member in inspect.getmembers(SessionBase, inspect.isfunction)
        if not name.startswith("_") and not inspect.iscoroutinefunction(member)
    ]
    public = sorted(names)
    for name in ["set_test_cookie", *(n for n in public if n not in last), *last]:
        getattr(session, name)(*calls.get(name, ()))


def test_every_asynchronous_member_works() -> None:
    names = [n for n, _ in inspect.getmembers(SessionBase, inspect.iscoroutinefunction)]
    calls: dict[str, tuple[Any, ...]] = {
        "aset": ("a", 1),
        "aget": ("a",),
        "apop": ("a", None),
        "asetdefault": ("b", 2),
        "aupdate": ({"c": 3},),
        "ahas_key": ("c",),
        "aset_expiry": (60,),
        "aexists": (None,),
        "adelete": (None,),
    }

    async def all_of_them() -> None:
        session = SessionStore()
        first = ["aset", "aset_test_cookie"]
        last = ["asave", "acycle_key", "aflush", "acreate"]
        public = sorted(name for name in names if not name.startswith("_"))
        for name in [*first, *(n for n in public if n not in last), *last]:
            await getattr(session, name)(*calls.get(name, ()))

    if names:  # Django 5.1 and newer
        asyncio.run(all_of_them())


def test_what_has_expired_is_cleared(client: Any) -> None:
    """``manage.py clearsessions``."""
    client.post("/increment")
    call_command("clearsessions")
    assert len(list(get_manager().sessions())) == 1


# -- ASGI --------------------------------------------------------------------------------


NEEDS_ASYNC = pytest.mark.skipif(
    not hasattr(SessionBase, "aget"), reason="Django's sessions are so since 5.1"
)


@NEEDS_ASYNC
def test_the_same_under_asgi(store: CountingStore) -> None:
    """Views of both kinds, and a logout."""

    async def visit() -> None:
        client = AsyncClient()
        for page, expected in (("/increment", b"1"), ("/aincrement", b"2")):
            assert (await client.post(page)).content == expected
        assert client.cookies[KEY].value
        await client.post("/login/ann")
        assert (await client.get("/who")).content == b"ann"
        await client.post("/logout")
        assert (await client.get("/who")).content == b"None"

    with override_settings(WSGISESSION={"store": MemoryStore()}):
        asyncio.run(visit())


@NEEDS_ASYNC
def test_an_outage_under_asgi_is_503() -> None:
    broken = Broken()

    async def visit() -> Any:
        client = AsyncClient(raise_request_exception=False)
        await client.post("/increment")
        broken.is_broken = True
        return await client.post("/aincrement")

    with override_settings(WSGISESSION={"store": broken}):
        answer = asyncio.run(visit())
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]


# -- settings, and others beside it ------------------------------------------------------


def test_without_settings_it_says_what_is_missing() -> None:
    wrong = {"urll": "memory:", "url": "memory:"}
    for own, said in ((None, "WSGISESSION = "), (wrong, "did you mean 'url'")):
        refused = pytest.raises(ConfigurationError, match=said)
        with override_settings(WSGISESSION=own), refused:
            get_manager()


def test_the_secret_is_derived_from_djangos() -> None:
    """Fallbacks verify; a new key alone logs everybody out."""
    made = MemoryStore()
    old = "k" * 50
    with override_settings(WSGISESSION={"store": made}, SECRET_KEY=old):
        session = SessionStore()
        session["n"] = 1
        session.save()
    for fallbacks, expected in ([old], 1), ([], None):
        with override_settings(
            WSGISESSION={"store": made},
            SECRET_KEY="new",
            SECRET_KEY_FALLBACKS=fallbacks,
        ):
            assert SessionStore(session.session_key).get("n") == expected


def test_a_check_warns_of_djangos_own_middleware() -> None:
    assert not [each for each in run_checks() if each.id == "wsgisession.W001"]
    with override_settings(MIDDLEWARE=[django_site.DJANGOS]):
        (found,) = [each for each in run_checks() if each.id == "wsgisession.W001"]
        assert "wsgisession.integrations.django.SessionMiddleware" in found.hint


def test_a_middleware_around_it_with_the_same_manager_is_passed_through(
    store: CountingStore,
) -> None:
    manager: SessionManager = get_manager()
    outer = SessionMiddleware(django_site.application, manager=manager)
    browser = TestApp(outer)
    assert [browser.post("/increment").text for _ in range(2)] == ["1", "2"]
    assert len(list(manager.sessions())) == 1
