"""Flask: ``flask.session`` with everything that Flask, Flask-Session, Flask-Login and
Flask-WTF do with it, and with our promises.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest

from wsgisession import (
    ConfigurationError,
    LockTimeout,
    Session,
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
    import flask_login
    from flask import (
        Flask,
        abort,
        copy_current_request_context,
        flash,
        get_flashed_messages,
        request,
        session,
        stream_with_context,
    )
    from flask.sessions import SecureCookieSessionInterface, SessionMixin
    from markupsafe import Markup

    from wsgisession.integrations.flask import Sessions
except ImportError:
    missing("Flask or Flask-Login")

STRONG = "d3f0a1c2" * 8


def make(store: Any = None, **config: Any) -> Any:
    """A Flask application with a few pages, its sessions in a store."""
    app = Flask(__name__)
    app.config.update(config)
    if not any(name in config for name in ("SESSION_URL", "SESSION_TYPE")):
        config["store"] = store or MemoryStore()
        Sessions(app, store=config["store"])
    else:
        Sessions(app)

    @app.get("/")
    def show() -> str:
        return str(dict(session))

    @app.route("/increment", methods=["GET", "POST"])
    def increment() -> str:
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    @app.get("/untouched")
    def untouched() -> str:
        return "nothing"

    return app


def manager_of(app: Any) -> SessionManager:
    manager: SessionManager = app.extensions["wsgisession"].manager
    return manager


def cookie_lines(answer: Any) -> list[str]:
    lines: list[str] = answer.headers.getlist("Set-Cookie")
    return lines


# -- the session -------------------------------------------------------------------------


def test_the_session_is_kept_by_the_store() -> None:
    """``flask.session`` is ours, and the cookie holds a token and no values."""
    app = make()
    client = app.test_client()
    assert [client.post("/increment").text for _ in range(3)] == ["1", "2", "3"]
    (kept,) = manager_of(app).sessions()
    assert kept["n"] == 3
    cookie = client.get_cookie("session")
    assert manager_of(app).open(cookie.value)["n"] == 3


def test_it_is_what_flask_calls_a_session() -> None:
    """With every member that Flask's documentation names."""
    app = make()

    @app.get("/members")
    def members() -> str:
        assert isinstance(session._get_current_object(), SessionMixin)  # type: ignore[attr-defined]
        assert session.new
        assert not session.modified
        session["a"] = 1
        assert session.modified
        assert session.accessed
        session.accessed = True
        session.modified = True
        session.modified = False
        assert "a" not in session
        return repr(session)

    assert "FlaskSession new" in app.test_client().get("/members").text


def test_a_typing_error_in_a_member_is_no_new_attribute() -> None:
    app = make()

    @app.get("/")
    def typo() -> str:
        with pytest.raises(AttributeError):
            session.permament = True
        return "refused"

    app.view_functions["show"] = typo
    assert app.test_client().get("/").text == "refused"


def test_an_untouched_session_costs_nothing() -> None:
    """P4: no store call, no header, whatever Flask does with its own session object."""
    store = CountingStore(MemoryStore())
    client = make(store).test_client()
    client.post("/increment")
    store.calls.clear()
    answer = client.get("/untouched")
    assert store.calls == []
    assert "Vary" not in answer.headers
    assert not cookie_lines(answer)
    answer = client.get("/")
    assert store.calls == ["load"]
    assert answer.headers["Vary"] == "Cookie"
    assert not cookie_lines(answer)


def test_a_get_that_was_overtaken_is_run_again() -> None:
    """P1, and its view runs twice; a view that merely reads runs once."""
    app = make()
    runs: list[str] = []

    @app.get("/slow")
    def slow() -> str:
        runs.append(request.method)
        count = session["n"]
        if len(runs) == 1:
            tab.post("/increment")
        session["n"] = count + 1
        return str(session["n"])

    client, tab = app.test_client(), app.test_client()
    client.post("/increment")
    tab.set_cookie("session", client.get_cookie("session").value)
    assert client.get("/slow", base_url="http://localhost").text == "3"
    assert len(runs) == 2


def test_flasks_own_session_loses_that_update() -> None:
    """The positive control: the same with the session that comes with Flask."""
    app = Flask(__name__)
    app.secret_key = STRONG

    @app.post("/increment")
    def increment() -> str:
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    @app.get("/slow")
    def slow() -> str:
        count = session["n"]
        tab.post("/increment")
        session["n"] = count + 1
        return str(session["n"])

    client, tab = app.test_client(), app.test_client()
    client.post("/increment")
    tab.set_cookie("session", client.get_cookie("session").value)
    assert client.get("/slow").text == "2"


def test_values_of_flask_and_others_survive() -> None:
    """What its own serializer of sessions knows, and lazy translations."""

    class LazyString:
        def __str__(self) -> str:
            return "Willkommen"

        def __eq__(self, other: object) -> bool:
            return str(self) == other

        __hash__ = None  # type: ignore[assignment]

    app = make()
    values = {
        "tuple": (1, "two"),
        "bytes": b"\x00\xff",
        "markup": Markup("<b>bold</b>"),
        "uuid": uuid4(),
        "moment": datetime.now(timezone.utc).replace(microsecond=0),
        "nested": {"list": [("a", Markup("<i>"))]},
        "lazy": LazyString(),
    }

    @app.post("/keep")
    def keep() -> str:
        session.update(values)
        return "kept"

    @app.get("/compare")
    def compare() -> str:
        assert dict(session) == values
        assert type(session["markup"]) is Markup
        assert type(session["nested"]["list"][0][1]) is Markup
        assert type(session["lazy"]) is str
        return "equal"

    client = app.test_client()
    client.post("/keep")
    assert client.get("/compare").text == "equal"


def test_flashes_are_shown_once() -> None:
    """As tuples with categories, and markup unescaped; each once."""
    app = make()

    @app.post("/say")
    def say() -> str:
        flash("plain <b>")
        flash(Markup("<b>bold</b>"), "warning")
        return "said"

    @app.get("/hear")
    def hear() -> str:
        heard = get_flashed_messages(with_categories=True)
        return "|".join(f"{category}:{Markup.escape(text)}" for category, text in heard)

    client = app.test_client()
    client.post("/say")
    assert client.get("/hear").text == "message:plain &lt;b&gt;|warning:<b>bold</b>"
    assert client.get("/hear").text == ""


# -- permanent ---------------------------------------------------------------------------


def test_a_session_goes_with_the_browser_unless_it_is_permanent() -> None:
    """Flask's default, and ``session.permanent``, which is no change where it is so."""
    store = CountingStore(MemoryStore())
    app = make(store, PERMANENT_SESSION_LIFETIME=timedelta(hours=1))

    @app.post("/stay")
    def stay() -> str:
        session.permanent = True
        session["a"] = 1
        return str(session.permanent)

    @app.get("/again")
    def again() -> str:
        session.permanent = True
        return str(session.permanent)

    @app.post("/go")
    def go() -> str:
        session.permanent = False
        return str(session.permanent)

    client = app.test_client()
    assert "Max-Age" not in cookie_lines(client.post("/increment"))[0]
    answer = client.post("/stay")
    assert answer.text == "True"
    assert "Max-Age" in cookie_lines(answer)[0]
    store.calls.clear()
    answer = client.get("/again")
    assert (answer.text, cookie_lines(answer)) == ("True", [])
    assert store.calls == ["load"]
    assert "Max-Age" not in cookie_lines(client.post("/go"))[0]
    (kept,) = manager_of(app).sessions()
    assert kept.expires - kept.last_accessed == timedelta(hours=1)


def test_a_lifetime_slides_unless_flask_is_told_otherwise() -> None:
    """``SESSION_REFRESH_EACH_REQUEST``: False counts from the last change."""
    assert manager_of(make()).options.touch_interval == 60
    app = make(SESSION_REFRESH_EACH_REQUEST=False)
    assert manager_of(app).options.touch_interval is None


# -- settings ----------------------------------------------------------------------------


def test_flasks_settings_say_what_the_cookie_is_like() -> None:
    app = make(
        SESSION_COOKIE_NAME="shop",
        SESSION_COOKIE_DOMAIN="example.com",
        SESSION_COOKIE_PATH="/shop",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_HTTPONLY=False,
    )
    (line,) = cookie_lines(app.test_client().post("/increment"))
    assert line.startswith("shop=")
    for part in ("Domain=example.com", "Path=/shop", "secure", "SameSite=Strict"):
        assert part.lower() in line.lower()
    assert "httponly" not in line.lower()


def test_flasks_defaults_are_made_stricter() -> None:
    """Flask sends no SameSite, and Secure only where it is told to."""
    client = make().test_client()
    (line,) = cookie_lines(client.post("/increment", base_url="https://localhost"))
    assert "; secure" in line.lower()
    assert "; samesite=lax" in line.lower()
    (line,) = cookie_lines(make().test_client().post("/increment"))
    assert "; secure" not in line.lower()


def test_our_options_go_by_upper_case_names(tmp_path: Any) -> None:
    app = make(
        SESSION_URL=(tmp_path / "sessions").as_uri(),
        SESSION_IDLE_TIMEOUT="30m",
        SESSION_LOCK_WAIT=2,
    )
    options = manager_of(app).options
    assert (options.idle_timeout, options.lock_wait) == (1800, 2)
    assert type(manager_of(app).store).__name__ == "FileStore"


def test_without_a_store_it_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match=r"SESSION_URL, SESSION_TYPE"):
        Sessions(Flask(__name__))


def test_a_wrong_value_is_refused_at_construction() -> None:
    app = Flask(__name__)
    app.config["SESSION_LOCK_WAIT"] = "soon"
    with pytest.raises(ConfigurationError, match="lock_wait"):
        Sessions(app, url="memory:")
    with pytest.raises(ConfigurationError, match="there is no option 'idel'"):
        Sessions(Flask(__name__), url="memory:", idel=3)
    with pytest.raises(ConfigurationError, match="not both"):
        Sessions(manager=SessionManager(MemoryStore()), url="memory:")


def test_settings_of_other_extensions_are_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """``SESSION_PROTECTION`` is Flask-Login's; a typing error of ours is told."""
    make(SESSION_TYPE="memory", SESSION_PROTECTION="strong", SESSION_FOO=1)
    assert not caplog.records
    make(SESSION_TYPE="memory", SESSION_LOCK_WIAT=1)
    (record,) = caplog.records
    assert "SESSION_LOCK_WIAT is no option" in record.getMessage()
    assert "SESSION_LOCK_WAIT" in record.getMessage()


def test_the_secret_key_signs_the_tokens() -> None:
    """The newest signs and older ones verify; a new key alone logs everybody out."""
    store = MemoryStore()
    old = make(store, SECRET_KEY=STRONG)
    client = old.test_client()
    client.post("/increment")
    cookie = client.get_cookie("session").value

    def count(**config: Any) -> str:
        client = make(store, **config).test_client()
        client.set_cookie("session", cookie)
        return str(client.post("/increment").text)

    assert count(SECRET_KEY="e" * 8 + STRONG, SECRET_KEY_FALLBACKS=[STRONG]) == "2"
    assert count(SECRET_KEY="e" * 8 + STRONG) == "1"


@pytest.mark.parametrize("key", ["dev", b"\x01" * 16, "change me" * 8])
def test_a_tutorials_secret_does_no_harm(key: Any) -> None:
    """A token is 256 random bits; with a store on the server no key is needed."""
    app = make(SECRET_KEY=key)
    assert app.test_client().post("/increment").text == "1"
    assert manager_of(app).options.secret == ()
    with pytest.raises(ConfigurationError, match="secret is"):
        make(SESSION_TYPE="cookie", SECRET_KEY=key)


def test_sessions_in_the_cookie_itself() -> None:
    """As with Flask's own, but encrypted where that is asked for."""
    client = make(SESSION_TYPE="cookie", SECRET_KEY=STRONG).test_client()
    assert [client.post("/increment").text for _ in range(2)] == ["1", "2"]


def test_what_is_set_until_the_first_request_counts() -> None:
    """Applications are configured in any order; later it is too late."""
    app = make(SESSION_TYPE="memory")
    app.config["SESSION_COOKIE_NAME"] = "later"
    app.secret_key = STRONG
    client = app.test_client()
    client.post("/increment")
    assert client.get_cookie("later") is not None
    assert manager_of(app).options.secret
    app.config["SESSION_COOKIE_NAME"] = "too_late"
    client.post("/increment")
    assert client.get_cookie("too_late") is None


def test_threads_at_the_first_request_share_one_manager() -> None:
    app = make(SESSION_TYPE="memory")
    app.config["SESSION_COOKIE_NAME"] = "later"
    seen: list[object] = []

    @app.get("/manager")
    def manager() -> str:
        seen.append(get_manager(request.environ))
        return ""

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: app.test_client().get("/manager"), range(16)))
    assert set(map(id, seen)) == {id(manager_of(app))}


def test_two_initialisations_are_refused() -> None:
    app = make()
    with pytest.raises(ConfigurationError, match="already"):
        Sessions(app, url="memory:")


def test_one_object_for_several_applications() -> None:
    """The factory pattern; each has a store of its own, and a manager."""
    sessions = Sessions(url="memory:")
    apps = [Flask("one"), Flask("two")]
    managers = []
    for app in apps:
        sessions.init_app(app)
        with app.app_context():
            managers.append(sessions.manager)
    assert managers[0] is not managers[1]


# -- Flask-Session -----------------------------------------------------------------------


def test_an_application_of_flask_session_changes_one_import(redis_url: str) -> None:
    """Its settings mean what they meant."""
    import redis

    client = redis.Redis.from_url(redis_url)
    app = make(
        SESSION_TYPE="redis",
        SESSION_REDIS=client,
        SESSION_KEY_PREFIX="migrated:",
        SESSION_PERMANENT=True,
        SESSION_USE_SIGNER=True,
        SESSION_ID_LENGTH=32,
        SESSION_SERIALIZATION_FORMAT="json",
    )
    (line,) = cookie_lines(app.test_client().post("/increment"))
    assert "Max-Age" in line
    assert client.keys("migrated:*")


def test_its_filesystem_is_a_folder(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = make(SESSION_TYPE="filesystem", SESSION_FILE_DIR=str(tmp_path / "named"))
    default = make(SESSION_TYPE="filesystem", SESSION_FILE_THRESHOLD=500)
    for app in (named, default):
        app.test_client().post("/increment")
    assert {path.name for path in tmp_path.iterdir()} == {"named", "flask_session"}


def test_its_database_is_that_of_flask_sqlalchemy(tmp_path: Any) -> None:
    flask_sqlalchemy = pytest.importorskip("flask_sqlalchemy")
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'app.db'}"
    database = flask_sqlalchemy.SQLAlchemy(app)
    app.config.update(
        SESSION_TYPE="sqlalchemy",
        SESSION_SQLALCHEMY=database,
        SESSION_SQLALCHEMY_TABLE="web_sessions",
    )
    Sessions(app)
    app.add_url_rule("/", view_func=lambda: str(session.setdefault("n", 1)))
    assert app.test_client().get("/").text == "1"
    with app.app_context():
        tables = database.inspect(database.engine).get_table_names()
    assert tables == ["web_sessions"]


@pytest.mark.parametrize("kind", ["memcached", "mongodb", "cachelib", "dynamodb"])
def test_its_other_stores_are_refused_with_a_way_out(kind: str) -> None:
    with pytest.raises(ConfigurationError, match="set SESSION_URL"):
        make(SESSION_TYPE=kind)


def test_its_verbs_are_there() -> None:
    """``session.sid``, the interface's ``regenerate()``, and CKAN's ``invalidate()``."""
    app = make()

    @app.get("/verbs")
    def verbs() -> str:
        before = session.sid
        app.session_interface.regenerate(session)
        assert session.sid == before == session.id
        session.invalidate()
        assert not session
        return "done"

    client = app.test_client()
    client.post("/increment")
    assert client.get("/verbs").text == "done"
    assert not list(manager_of(app).sessions())


# -- contexts without a request ----------------------------------------------------------


def test_a_session_transaction_writes_and_reads() -> None:
    """Flask's way to prepare a session in a test."""
    app = make()
    client = app.test_client()
    with client.session_transaction() as prepared:
        prepared["n"] = 41
    assert client.get_cookie("session") is not None
    assert client.post("/increment").text == "42"
    with client.session_transaction() as prepared:
        assert prepared["n"] == 42
        prepared.clear()
    assert client.get("/").text == "{}"
    assert not list(manager_of(app).sessions())


def test_a_test_request_context_has_a_session() -> None:
    """It is kept where Flask is asked to make an answer of it, and else dropped."""
    app = make()
    with app.test_request_context("/", method="POST"):
        session["a"] = 1
        assert session["a"] == 1
    assert not list(manager_of(app).sessions())
    with app.test_request_context("/"):
        session["a"] = 1
        answer = app.process_response(app.response_class("ok"))
        assert cookie_lines(answer)
        assert answer.headers["Vary"] == "Cookie"
    assert len(list(manager_of(app).sessions())) == 1


def test_a_context_that_ends_lets_the_lock_go() -> None:
    app = make(SESSION_TYPE="memory", SESSION_LOCK_WAIT=0)
    client = app.test_client()
    client.post("/increment")
    cookie = f"session={client.get_cookie('session').value}"
    with app.test_request_context("/", method="POST", headers={"Cookie": cookie}):
        assert session["n"] == 1
        assert client.post("/increment").status_code == 503  # the control: it is held
    assert client.post("/increment").text == "2"


def test_an_end_in_a_context_stands_without_an_answer() -> None:
    """P2: it is final, whatever becomes of the context; what was written is dropped."""
    app = make()
    client = app.test_client()
    client.post("/increment")
    cookie = {"Cookie": f"session={client.get_cookie('session').value}"}
    with app.test_request_context("/", headers=cookie):
        session["n"] = 5
    assert client.get("/").text == "{'n': 1}"
    with app.test_request_context("/", headers=cookie):
        session.clear()
    assert client.get("/").text == "{}"
    assert not list(manager_of(app).sessions())


def test_a_preserved_context_can_still_be_read() -> None:
    app = make()
    with app.test_client() as client:
        client.post("/increment")
        assert session["n"] == 1


def test_a_copied_context_reads_after_the_request() -> None:
    """In a thread that outlives it; a write there is refused, never lost in silence."""
    app = make()
    go = threading.Event()
    found: list[Any] = []

    @app.get("/work")
    def work() -> str:
        session["a"] = 1

        @copy_current_request_context
        def later() -> None:
            go.wait(10)
            found.append(session["a"])
            try:
                session["a"] = 2
            except Exception as error:
                found.append(type(error).__name__)

        thread = threading.Thread(target=later)
        thread.start()
        app.config["thread"] = thread
        return "started"

    client = app.test_client()
    client.get("/work").close()  # as every server does
    go.set()
    app.config["thread"].join()
    assert found == [1, "SessionClosed"]
    assert "'a': 1" in client.get("/").text


def test_a_streamed_answer_writes_while_it_is_sent() -> None:
    app = make()

    @app.post("/stream")
    def stream() -> Any:
        session["started"] = True

        @stream_with_context
        def body() -> Iterator[str]:
            yield "one"
            session["sent"] = 1
            yield "two"

        return body()

    client = app.test_client()
    client.post("/increment")
    assert client.post("/stream", buffered=True).text == "onetwo"
    assert client.get("/").text == "{'n': 1, 'started': True, 'sent': 1}"


def test_an_async_view_has_the_session() -> None:
    pytest.importorskip("asgiref")
    app = make()

    @app.post("/async")
    async def view() -> str:
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    client = app.test_client()
    assert [client.post("/async").text for _ in range(2)] == ["1", "2"]


# -- failures ----------------------------------------------------------------------------


@pytest.fixture(params=["plain", "testing", "debug", "a page for every error"])
def broken(request: pytest.FixtureRequest) -> Any:
    """A client with a session in a store that has gone, in each way of Flask."""
    store = Broken()
    app = make(store, TESTING=request.param == "testing")
    app.debug = request.param == "debug"
    if request.param == "a page for every error":
        app.register_error_handler(Exception, lambda error: ("oops", 500))
    client = app.test_client()
    client.post("/increment")
    store.is_broken = True
    return client


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_store_that_is_gone_is_503(broken: Any, method: str) -> None:
    """P8: it is no logout, whatever the application makes of errors."""
    answer = getattr(broken, method)("/increment")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert not cookie_lines(answer)


def test_an_application_may_answer_itself() -> None:
    """A handler for ``StoreError`` or ``LockTimeout`` sees it, and its answer stands."""
    store = Broken()
    app = make(store)
    seen: list[BaseException] = []

    @app.errorhandler(StoreError)
    @app.errorhandler(LockTimeout)
    def sorry(error: Exception) -> Any:
        seen.append(error)
        return "come back later", 502

    client = app.test_client()
    client.post("/increment")
    store.is_broken = True
    answer = client.get("/increment")
    assert (answer.status_code, answer.text) == (502, "come back later")
    assert type(seen[0]) is StoreError


def test_a_failed_request_writes_nothing() -> None:
    app = make()

    @app.post("/fail")
    def fail() -> str:
        session["n"] = 100
        raise RuntimeError("no")

    @app.post("/forbidden")
    def forbidden() -> str:
        session["refused"] = True
        abort(403)

    client = app.test_client()
    client.post("/increment")
    assert client.post("/fail").status_code == 500
    assert client.get("/").text == "{'n': 1}"
    client.post("/forbidden")
    assert "refused" in client.get("/").text


# -- what a view says of itself ----------------------------------------------------------


def test_a_post_that_only_reads_waits_for_nobody() -> None:
    """``@read_only``, though something before the view looks at the session."""
    store = CountingStore(MemoryStore())
    app = make(store)

    @app.before_request
    def look() -> None:
        session.get("user")

    @app.post("/search")
    @read_only
    def search() -> str:
        return str(session["n"])

    @app.post("/wrong")
    @read_only
    def wrong() -> str:
        session["n"] = 2
        return "written"

    client = app.test_client()
    client.post("/increment")
    store.calls.clear()
    assert client.post("/search").text == "1"
    assert store.calls == ["load"]
    assert client.post("/wrong").status_code == 500
    assert client.get("/").text == "{'n': 1}"


def test_a_get_that_acts_outside_locks_and_runs_once() -> None:
    app = make(SESSION_TYPE="memory", SESSION_LOCK_WAIT=0)
    runs: list[int] = []

    @app.get("/pay")
    @external
    def pay() -> str:
        runs.append(session["n"])
        assert client.post("/increment").status_code == 503
        session["n"] += 10
        return "paid"

    client = app.test_client()
    client.post("/increment")
    assert client.get("/pay").text == "paid"
    assert runs == [1]
    assert client.get("/").text == "{'n': 11}"


# -- Flask's tutorial --------------------------------------------------------------------


@pytest.fixture
def tutorial() -> Any:
    """The login of Flask's tutorial, as it is printed."""
    app = make(SECRET_KEY="dev")

    @app.post("/login")
    def login() -> str:
        session.clear()
        session["user_id"] = 1
        return "welcome"

    @app.get("/who")
    def who() -> str:
        return str(session.get("user_id"))

    @app.get("/logout")
    def logout() -> str:
        session.clear()
        return "bye"

    return app


def test_a_planted_cookie_is_not_logged_in(tutorial: Any) -> None:
    """Session fixation: the attacker's cookie leads nowhere after the victim's login."""
    attacker, victim = tutorial.test_client(), tutorial.test_client()
    attacker.post("/increment")
    planted = attacker.get_cookie("session").value
    victim.set_cookie("session", planted)
    victim.post("/login")
    assert victim.get("/who").text == "1"
    assert victim.get_cookie("session").value != planted
    assert attacker.get("/who").text == "None"


def test_a_logout_by_clear_is_final(tutorial: Any) -> None:
    client = tutorial.test_client()
    client.post("/login")
    cookie = client.get_cookie("session").value
    client.get("/logout")
    client.set_cookie("session", cookie)
    assert client.get("/who").text == "None"


# -- Flask-Login -------------------------------------------------------------------------


class User(flask_login.UserMixin):
    def __init__(self, id: str) -> None:
        self.id = id


@pytest.fixture
def members() -> Any:
    """An application with Flask-Login."""
    app = make(SECRET_KEY=STRONG)
    logins = flask_login.LoginManager(app)
    logins.user_loader(User)

    @app.post("/login/<name>")
    def login(name: str) -> str:
        flask_login.login_user(User(name), remember="remember" in request.args)
        return "welcome"

    @app.get("/logout")
    def logout() -> str:
        flask_login.logout_user()
        return "bye"

    @app.get("/who")
    def who() -> str:
        user = flask_login.current_user
        return str(user.id if user.is_authenticated else None)

    @app.post("/cart")
    def cart() -> str:
        session.setdefault("cart", []).append("book")
        return "added"

    return app


def test_a_login_is_a_login_of_ours(members: Any) -> None:
    """A new token, the values kept, and the session one of the user's."""
    client = members.test_client()
    client.post("/cart")
    before = client.get_cookie("session").value
    client.post("/login/ann")
    assert client.get_cookie("session").value != before
    assert client.get("/who").text == "ann"
    (kept,) = manager_of(members).sessions_of("ann")
    assert kept["cart"] == ["book"]


def test_a_user_is_logged_out_everywhere(members: Any) -> None:
    """P10."""
    phone, laptop = members.test_client(), members.test_client()
    for client in (phone, laptop):
        client.post("/login/ann")
    assert manager_of(members).end_user("ann") == 2
    assert [client.get("/who").text for client in (phone, laptop)] == ["None", "None"]


def test_a_logout_ends_the_login_and_keeps_the_cart(members: Any) -> None:
    """As Flask-Login has it; but the token from before leads nowhere."""
    client, thief = members.test_client(), members.test_client()
    client.post("/cart")
    client.post("/login/ann")
    thief.set_cookie("session", client.get_cookie("session").value)
    assert thief.get("/who").text == "ann"
    client.get("/logout")
    assert client.get("/who").text == "None"
    assert "book" in client.get("/").text
    assert thief.get("/").text == "{}"
    assert not list(manager_of(members).sessions_of("ann"))


def test_another_users_values_do_not_stay(members: Any) -> None:
    client = members.test_client()
    client.post("/login/ann")
    client.post("/cart")
    client.post("/login/bob")
    assert client.get("/who").text == "bob"
    assert "book" not in client.get("/").text


def test_a_remembered_user_gets_a_session_of_ours(members: Any) -> None:
    """Flask-Login's other cookie is unharmed: set, used, and cleared at the logout."""
    client = members.test_client()
    client.post("/login/ann?remember=1")
    assert client.get_cookie("remember_token") is not None
    client.delete_cookie("session")
    assert client.get("/who").text == "ann"
    assert len(list(manager_of(members).sessions_of("ann"))) == 2
    client.get("/logout")
    assert client.get_cookie("remember_token") is None
    assert client.get("/who").text == "None"


def test_a_planted_cookie_is_worth_nothing_after_a_login(members: Any) -> None:
    attacker, victim = members.test_client(), members.test_client()
    attacker.post("/cart")
    victim.set_cookie("session", attacker.get_cookie("session").value)
    victim.post("/login/ann")
    assert (victim.get("/who").text, attacker.get("/who").text) == ("ann", "None")


# -- Flask-WTF ---------------------------------------------------------------------------


def test_a_form_of_flask_wtf_is_accepted_once_it_has_its_token() -> None:
    flask_wtf = pytest.importorskip("flask_wtf.csrf")
    app = make(SECRET_KEY=STRONG)
    flask_wtf.CSRFProtect(app)
    app.add_url_rule("/token", view_func=flask_wtf.generate_csrf)
    client = app.test_client()
    assert client.post("/increment").status_code == 400
    token = client.get("/token").text
    headers = {"X-CSRFToken": token}
    assert client.post("/increment", headers=headers).text == "1"
    other = app.test_client()
    assert other.post("/increment", headers=headers).status_code == 400


# -- beside others -----------------------------------------------------------------------


def test_a_middleware_around_it_with_the_same_manager_is_passed_through() -> None:
    """One session, seen from the environ and from Flask."""
    manager = SessionManager(MemoryStore())
    app = Flask(__name__)
    Sessions(app, manager=manager)
    app.add_url_rule("/", view_func=lambda: str(session.get("n")))
    inside = app.wsgi_app

    def outer(environ: Any, start_response: Any) -> Any:
        found: Session = environ["wsgisession.session"]
        found["n"] = 7
        return inside(environ, start_response)

    app.wsgi_app = SessionMiddleware(outer, manager=manager)  # type: ignore[method-assign]
    client = app.test_client()
    assert client.get("/").text == "7"
    assert len(list(manager.sessions())) == 1


def test_an_application_inside_another_has_its_own_session() -> None:
    """Two managers, two cookies, though one request goes through both."""
    inner = make(SESSION_TYPE="memory", SESSION_COOKIE_NAME="inner")
    outer = make(SESSION_TYPE="memory", SESSION_COOKIE_NAME="outer")
    outside: Callable[..., Any] = outer.extensions["wsgisession"]._inside

    def dispatch(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"].startswith("/inner"):
            environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/inner")
            return inner(environ, start_response)
        return outside(environ, start_response)

    outer.extensions["wsgisession"]._inside = dispatch
    client = outer.test_client()
    assert client.post("/inner/increment").text == "1"
    assert client.post("/increment").text == "1"
    assert client.post("/inner/increment").text == "2"
    assert {cookie.key for cookie in client._cookies.values()} == {"inner", "outer"}


def test_it_leaves_applications_without_it_alone() -> None:
    """Nothing of Flask is changed but the application itself."""
    make()
    app = Flask(__name__)
    assert type(app.session_interface) is SecureCookieSessionInterface


def test_it_says_nothing_in_the_log_when_all_is_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    client = make(SECRET_KEY=STRONG).test_client()
    for _ in range(3):
        client.post("/increment")
    assert not caplog.records
