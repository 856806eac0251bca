"""Mistakes that everybody makes once: the message says what is wrong, what to write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from wsgisession import (
    ConfigurationError,
    JSONSerializer,
    Options,
    Session,
    SessionManager,
    SessionMiddleware,
    StoreError,
    get_session,
)
from wsgisession.stores.memory import MemoryStore

sql = pytest.importorskip("sqlalchemy")
pytest.importorskip("redis")
pytest.importorskip("filelock")


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b""]


def made(**config: Any) -> SessionManager:
    return SessionMiddleware(application, config).manager


def used(**config: Any) -> None:
    session = made(**config).create()
    session["n"] = 1
    session.save()


# -- settings ----------------------------------------------------------------------------

MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "misspelt": ({"idle_timout": 3}, ["no option 'idle_timout'", "'idle_timeout'?"]),
    "a part of a name": ({"timeout": 3}, ["'absolute_timeout' or 'idle_timeout'"]),
    "nothing like it": (
        {"colour": 3},
        ["no option 'colour'", "known: absolute_timeout"],
    ),
    "of another store": (
        {"key_prefix": "a:"},
        ["'key_prefix'", "type of store 'redis'"],
    ),
    "of another store, too": (
        {"data_dir": "/a"},
        ["'data_dir'", "type of store 'file'"],
    ),
    "of Beaker": ({"cookie_expires": True}, ["no option 'cookie_expires'", "known:"]),
    "a type": ({"idle_timeout": [3]}, ["must be seconds", "'30m'", "not [3]"]),
    "words": ({"idle_timeout": "30 minutes"}, ["must be seconds", "'30m'"]),
    "a flag": ({"idle_timeout": True}, ["must be seconds", "not True"]),
    "a negative time": ({"idle_timeout": -1}, ["from 1 to", "not -1"]),
    "too long": (
        {"idle_timeout": "40d", "absolute_timeout": "30d"},
        ["idle_timeout", "above absolute_timeout", "lower the one or raise the other"],
    ),
    "too quick": (
        {"rotate_every": "1m"},
        ["rotate_every", "below rotate_grace", "raise the one or lower the other"],
    ),
    "a short secret": ({"secret": "short"}, ["too short", "wsgisession secret"]),
    "a placeholder": ({"secret": "change-me" * 9}, ["guess", "wsgisession secret"]),
    "no secret": ({"secret": None}, ["must be text", "wsgisession secret"]),
    "encrypt alone": ({"encrypt": True}, ["needs a secret", "wsgisession secret"]),
    "no serializer": ({"serializer": object()}, ["'json'", "dumps and loads"]),
    "a word for locking": (
        {"locking": "often"},
        ["'auto', 'always', 'never'", "often"],
    ),
    "a word for SameSite": ({"cookie_samesite": "no"}, ["'Lax', 'Strict', 'None'"]),
    "a url for a domain": ({"cookie_domain": "http://a"}, ["host name", "'http://a'"]),
    "a name with a blank": ({"cookie_name": "a b"}, ["must be a cookie name", "'a b'"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_option(mistake: str) -> None:
    """What is wrong, and what may stand there."""
    config, parts = MISTAKES[mistake]
    with pytest.raises(ConfigurationError) as caught:
        made(type="memory", **config)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


STORES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "none": (
        {},
        ["no store: give session.url", "redis://localhost/0", "Types: cookie"],
    ),
    "an unknown type": ({"type": "File"}, ["no store type 'File'", "known are cookie"]),
    "a folder": (
        {"type": "file"},
        ["needs the option data_dir", "/var/lib/app/sessions"],
    ),
    "a path": ({"url": "/var/a"}, ["no scheme", "file:///var/lib/app/sessions"]),
    "a Path": ({"url": Path("/var/a")}, ["must be text, not", "as data_dir"]),
    "a relative one": ({"url": "file:a"}, ["after three slashes", "data_dir"]),
    "two slashes": ({"url": "file://a"}, ["after three slashes", "data_dir"]),
    "a home": (
        {"url": "file:///~/a"},
        ["~ has no meaning", "file:///home/ann/sessions"],
    ),
    "an old name": ({"url": "postgres://u:hidden@h"}, ["write 'postgresql:'"]),
    "another server": ({"url": "memcached://:hidden@h"}, ["'memcached:'", "redis:"]),
    "no such driver": (
        {"url": "postgresql+pg://u:hidden@h/d"},
        ["no driver 'postgresql+pg'", "postgresql+psycopg"],
    ),
    "asynchronous": (
        {"url": "sqlite+aiosqlite:///a.db"},
        ["asynchronous", "sqlite"],
    ),
    "both": ({"url": "memory:", "type": "memory"}, ["not both"]),
    "a class": ({"store": MemoryStore}, ["the class MemoryStore", "MemoryStore(...)"]),
    "no store": ({"store": "redis://:hidden@h"}, ["str is no store", "capabilities"]),
    "a cookie": ({"type": "cookie"}, ["needs a secret", "wsgisession secret"]),
}


@pytest.mark.parametrize("mistake", STORES)
def test_a_store(mistake: str) -> None:
    """The right form is in the message, and no password."""
    config, parts = STORES[mistake]
    with pytest.raises(ConfigurationError) as caught:
        made(**config)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: SessionMiddleware(application, "memory:"), ["mapping", "url=..."]),  # type: ignore[arg-type]
        (lambda: SessionMiddleware("memory:"), ["WSGI application", "not str"]),  # type: ignore[arg-type]
        (
            lambda: SessionMiddleware(application, SessionManager(MemoryStore())),  # type: ignore[arg-type]
            ["mapping", "manager=..."],
        ),
        (lambda: SessionMiddleware(application, Options()), ["mapping", "not Options"]),  # type: ignore[arg-type]
        (lambda: SessionManager(MemoryStore), ["the class MemoryStore"]),  # type: ignore[arg-type]
    ],
)
def test_the_wrong_argument(call: Callable[[], object], parts: list[str]) -> None:
    """What belongs there, and how the thing that was given is given."""
    with pytest.raises(ConfigurationError) as caught:
        call()
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_serializer_by_its_class() -> None:
    """That is no mistake: it is made."""
    assert made(type="memory", serializer=JSONSerializer).options.serializer is not None


def test_a_forgotten_prefix() -> None:
    """A bare name of ours beside prefixed ones was forgotten."""
    with pytest.raises(ConfigurationError, match=r"write session\.secret"):
        SessionMiddleware(application, {"session.type": "memory", "secret": "x"})


# -- servers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://:hidden@127.0.0.1:1", ["Redis at 127.0.0.1:1 failed", "refused"]),
        (
            "postgresql+psycopg://u:hidden@127.0.0.1:1/d",
            ["the database at 127.0.0.1:1 failed", "refused"],
        ),
        (
            "mysql+pymysql://u:hidden@127.0.0.1:1/d",
            ["the database at 127.0.0.1:1 failed", "refused"],
        ),
        ("sqlite:////nowhere/a.db", ["/nowhere/a.db failed", "unable to open"]),
    ],
)
def test_no_server_there(url: str, parts: list[str]) -> None:
    """The place and the cause, and no password."""
    with pytest.raises(StoreError) as caught:
        used(url=url)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert "hidden" not in str(caught.value)


def test_no_table(tmp_path: Path) -> None:
    """An engine of yours is yours to migrate; the three ways are named."""
    engine = sql.create_engine(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(StoreError, match="table of sessions is missing") as caught:
        used(engine=engine)
    assert "create_table()" in str(caught.value)
    assert "python -m wsgisession init" in str(caught.value)
    engine.dispose()


# -- sessions ----------------------------------------------------------------------------


@pytest.fixture
def session() -> Session:
    return made(type="memory").create()


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (object(), ["cart cannot be stored", "object", "Kind"]),
        (lambda: 1, ["cart cannot be stored", "function", "Kind"]),
        (CIRCLE, ["cart[0] cannot be stored", "contains itself"]),
        ({"books": [1, object()]}, ["cart['books'][1] cannot be stored", "Kind"]),
        ({b"x": 1}, ["its key is bytes", "str or int"]),
    ],
    ids=["object", "function", "circle", "nested", "bytes"],
)
def test_a_value_that_cannot_be_stored(
    session: Session, value: Any, parts: list[str]
) -> None:
    """Where it is, what it is, and what to do."""
    session["cart"] = value
    with pytest.raises(TypeError) as caught:
        session.save()
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_key_that_is_no_string(session: Session) -> None:
    with pytest.raises(TypeError, match="session keys are strings, not int"):
        session[3] = 1  # type: ignore[index]


@pytest.mark.parametrize("name", ["modifed", "permanent", "token", "user", "id"])
def test_an_attribute_that_is_none(session: Session, name: str) -> None:
    """It raises, and is not kept in silence."""
    with pytest.raises(AttributeError, match=name):
        setattr(session, name, True)


@pytest.mark.parametrize("user", [None, "", True, 1.5, object, ["ann"]], ids=repr)
def test_a_user_that_is_none(session: Session, user: Any) -> None:
    """Everywhere the same sentence, and never nobody in silence."""
    manager = made(type="memory")
    for call in (session.login, manager.sessions_of, manager.end_user):
        with pytest.raises(TypeError, match="a string or a whole number, not"):
            call(user)


def test_a_user_that_is_a_number(session: Session) -> None:
    """As most tables of users have it; it is kept as its digits."""
    manager = made(type="memory")
    one = manager.create()
    one.login(42)
    one.save()
    assert one.user == "42"
    assert [each.id for each in manager.sessions_of(42)] == [one.id]
    assert manager.end_user(42) == 1


def test_no_middleware() -> None:
    with pytest.raises(LookupError, match="wrapped by SessionMiddleware"):
        get_session({})
