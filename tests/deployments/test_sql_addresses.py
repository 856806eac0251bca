"""What a url of a SQL database may say, and what works with nothing but a url."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from wsgisession import SessionManager
from wsgisession.errors import ConfigurationError, StoreError
from wsgisession.stores.sqlalchemy import SQLAlchemyStore
from wsgisession.testing import key, record

from ..conftest import Visitor


def test_sqlite_works_with_nothing_else_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its url is enough; its files are the owner's alone, however generous the mask."""
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0)
    try:
        manager = SessionManager.from_config({"session.url": "sqlite:///x.db"})
        handlers = {
            "/read": lambda session: session.get("n"),
            "/write": lambda session: session.update(n=1),
        }
        visitor = Visitor(manager, handlers)
        visitor.post("/write")
        assert visitor.get("/read").text == "1"
        modes = {
            each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()
        }
    finally:
        os.umask(mask)
    manager.store.close()  # type: ignore[union-attr]
    assert modes == {"x.db": 0o600, "x.db-wal": 0o600, "x.db-shm": 0o600}


@pytest.mark.parametrize("uri", ["", "?mode=rwc", "?cache=private"])
def test_sqlite_by_a_uri(tmp_path: Path, uri: str) -> None:
    """A file that SQLite finds by a URI of its own is no different."""
    more = uri.replace("?", "&")
    store = SQLAlchemyStore(f"sqlite:///file:{tmp_path}/a%20b.db?uri=true{more}")
    store.save(record(), expect=0)
    assert store.load(key(record())) is not None
    (path,) = tmp_path.glob("*.db")
    assert path.name == "a b.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store.close()


def test_an_existing_file_of_sqlite_keeps_its_mode(tmp_path: Path) -> None:
    """Who shares it among users has a reason."""
    path = tmp_path / "x.db"
    path.touch()
    path.chmod(0o660)
    store = SQLAlchemyStore(f"sqlite:///{path}")
    store.save(record(), expect=0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    store.close()


@pytest.mark.parametrize("character", "[]#?%:/ &=+;'\"\\@")
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mysql+pymysql"])
def test_a_bare_password_is_understood_or_refused(driver: str, character: str) -> None:
    """Never is a part of it taken for a host, and never is it repeated."""
    url = f"{driver}://ann:hush{character}tail@127.0.0.1:1/db"
    if character == "@":
        with pytest.raises(ConfigurationError, match="written %40") as refusal:
            SQLAlchemyStore(url)
        assert "hush" not in str(refusal.value)
        assert "tail" not in str(refusal.value)
        return
    store = SQLAlchemyStore(url)
    with pytest.raises(StoreError) as caught:
        store.load(key(record()))
    assert "127.0.0.1" in str(caught.value.__cause__)
    assert "hush" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("postgresql+psycopg://h/d?timeout=5", "timeout"),
        ("postgresql+psycopg://h/d?sslmode=sometimes", "sslmode"),
        ("postgresql+psycopg://h/d?connect_timeout=x", "connect_timeout"),
        ("postgresql+psycopg://h/d?row_factory=dict_row", "row_factory"),
        ("postgresql+psycopg2://h/d?timeout=5", "timeout"),
        ("mysql+pymysql://h/d?sslmode=require", "sslmode"),
        ("mysql+pymysql://h/d?cursorclass=Dict", "cursorclass"),
        ("mysql+pymysql://h/d?max_allowed_packet=1", "max_allowed_packet"),
        ("sqlite:///x.db?busy_timeout=5", "busy_timeout"),
        ("sqlite:///x.db?mode=ro", "mode"),
    ],
)
def test_an_option_that_the_driver_cannot_take(url: str, option: str) -> None:
    """It is named when the store is made, not at the first request."""
    with pytest.raises(ConfigurationError, match=f"cannot take: {option}$"):
        SQLAlchemyStore(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://h/d?sslmode=require&connect_timeout=3&application_name=a",
        "postgresql+psycopg://u:p@/d?host=h1:5432&host=h2:5432&gssencmode=require",
        "postgresql+psycopg2://h/d?sslmode=verify-full&sslrootcert=/nowhere",
        "mysql+pymysql://h/d?charset=utf8mb4&read_timeout=3&ssl_ca=/nowhere",
        "sqlite:////nowhere/x.db?timeout=3",
        "sqlite:///file:/nowhere/x.db?mode=ro&uri=true",
    ],
)
def test_an_option_that_the_driver_takes(url: str) -> None:
    """Without a server, and without the files that it may name."""
    SQLAlchemyStore(url)
