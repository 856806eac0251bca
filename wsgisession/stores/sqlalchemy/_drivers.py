"""What drivers must be told before they are used, and what urls may not tell them.

This file knows the drivers of databases; it knows no statement of ours and no session.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy as sql

from ...errors import ConfigurationError

OBJECTS = {"connection_factory", "context", "conv", "cursor_factory", "cursorclass"}
OBJECTS |= {"converter", "ssl_context", "row_factory"}
"""Parameters of drivers that no text in a url can give."""

OF_SQLITE = {"cached_statements", "check_same_thread", "detect_types"}
OF_SQLITE |= {"isolation_level", "timeout"}
"""Options of a url of SQLite; with ``uri=true`` there are more."""

NOWHERE = "/nonexistent/wsgisession"
"""A folder for a socket, where no server listens."""


# -- options in a url --------------------------------------------------------------------


def check_names(url: sql.URL) -> None:
    """Raise ``ConfigurationError`` for an option that SQLAlchemy would not pass on."""
    if url.get_backend_name() == "sqlite" and "uri" not in url.query:
        for name in sorted(url.query.keys() - OF_SQLITE):
            raise _refused(url.get_driver_name(), name)


def check_options(engine: sql.Engine, ours: Mapping[str, Any]) -> None:
    """Raise ``ConfigurationError`` for an option of the url that the driver cannot take.

    :param ours: what is given to the driver beside the url.

    Nothing is asked of a server.  Drivers that do not say what they take say it at the
    first connection.
    """
    dialect: Any = engine.dialect
    driver = dialect.loaded_dbapi
    _, options = dialect.create_connect_args(engine.url)
    options = {**options, **ours}
    if (option := _unfit(driver, options)) is not None:
        raise _refused(dialect.driver, option)
    check = _CHECKS.get(dialect.driver)
    if check is not None and (complaint := check(driver, options)) is not None:
        # A value may be a password: of the complaint nothing is repeated but a name.
        named = (name for name in engine.url.query if name in complaint)
        raise _refused(dialect.driver, next(named, ""))


def _unfit(driver: Any, options: Mapping[str, Any]) -> str | None:
    """The option that cannot be, by the parameters that the driver has names for."""
    try:
        parameters = inspect.signature(driver.connect).parameters
    except ValueError:  # it is written in C
        return None
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for name, value in options.items():
        parameter = parameters.get(name)
        if parameter is None and not takes_any:
            return name
        wants_number = parameter and isinstance(parameter.default, (bool, int, float))
        if isinstance(value, str) and (name in OBJECTS or wants_number):
            return name
    return None


def _sqlite(driver: Any, options: dict[str, Any]) -> str | None:
    try:
        driver.connect(":memory:", **options).close()
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _pymysql(driver: Any, options: dict[str, Any]) -> str | None:
    try:
        driver.connect(**options, defer_connect=True)
    except OSError:  # a certificate may come later
        return None
    except Exception as error:
        return str(error)
    return None


def _libpq(driver: Any, options: dict[str, Any]) -> str | None:
    """Let libpq read all options, and then find no socket where it looks for one."""
    try:
        driver.connect(**{**options, "host": NOWHERE, "hostaddr": "", "port": "1"})
    except driver.OperationalError as error:
        said = str(error)
        return said if "invalid" in said and NOWHERE not in said else None
    except driver.Error as error:
        return str(error)
    return None


_CHECKS = {
    "pysqlite": _sqlite,
    "pymysql": _pymysql,
    "psycopg": _libpq,
    "psycopg2": _libpq,
}


def _refused(driver: str, option: str) -> ConfigurationError:
    return ConfigurationError(
        f"url has an option that the driver {driver} cannot take"
        + (f": {option}" if option else "")
    )


# -- a new connection --------------------------------------------------------------------


def prepare(engine: sql.Engine) -> None:
    """Let each new connection of an engine of ours be as its statements need it."""
    if (
        engine.dialect.driver == "psycopg"
        and "prepare_threshold" not in engine.url.query
    ):
        prepare_where_proven(engine)
    elif engine.dialect.name == "sqlite":
        sql.event.listen(engine, "do_connect", _make_private)
        sql.event.listen(engine, "connect", _let_readers_pass)
    elif engine.dialect.name in ("mysql", "mariadb"):
        sql.event.listen(engine, "connect", _isolate)


def prepare_where_proven(engine: sql.Engine) -> None:
    """Let psycopg prepare statements where the server is proven to be always the same.

    PgBouncer gives each transaction another connection of the server, where a name of
    ours may be a statement of another client.
    """
    if engine.dialect.driver == "psycopg":
        sql.event.listen(engine.pool, "connect", _prepare_where_proven)


def _prepare_where_proven(connection: Any, _: object) -> None:
    if connection.prepare_threshold is None:
        return
    before, connection.autocommit = connection.autocommit, True
    (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone()
    connection.autocommit = before
    if pid != connection.info.backend_pid:
        connection.prepare_threshold = None


def _make_private(
    dialect: Any, record: Any, arguments: list[Any], options: dict[str, Any]
) -> None:
    """Make the file of SQLite, where it is missing, for its owner alone.

    The files that SQLite makes beside it are given its mode.
    """
    path = str(arguments[0])
    if options.get("uri"):
        parts = urlsplit(path)
        if "mode=" in parts.query and "mode=rwc" not in parts.query:
            return  # it must not be made
        path = unquote(parts.path)
    if path in ("", ":memory:"):
        return
    # SQLite says what cannot be done.
    with suppress(OSError, ValueError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _let_readers_pass(connection: Any, _: object) -> None:
    # A reader waits for no writer in WAL.
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")


def _isolate(connection: Any, _: object) -> None:
    """Set the level of isolation that suits one statement a transaction.

    READ COMMITTED keeps MySQL from locking the gaps between rows, where a sweep would
    meet new sessions; but it cannot write that into a binary log of statements.
    """
    with closing(connection.cursor()) as cursor:
        cursor.execute("SELECT @@log_bin AND @@binlog_format = 'STATEMENT'")
        (keeps_statements,) = cursor.fetchone()
        level = "REPEATABLE READ" if keeps_statements else "READ COMMITTED"
        cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
