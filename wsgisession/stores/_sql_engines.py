"""How a SQL database is reached, and what its drivers mean by their errors.

It knows SQLAlchemy's engines, and no statement of ours.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError

from ..errors import ConfigurationError, StoreError
from ._sql_statements import NOW

# WAL lets SQLite read while another writes.  READ COMMITTED keeps MySQL from locking the
# gaps between rows, where a sweep would meet new sessions.
SETTINGS = {
    "sqlite": "PRAGMA journal_mode=WAL",
    "mysql": "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
}
SETTINGS["mariadb"] = SETTINGS["mysql"]

# What was rolled back for another's sake and may run again: serialization failure and
# deadlock (PostgreSQL), deadlock, lock wait and changed snapshot (MySQL), busy (SQLite).
TRANSIENT = {"40001", "40P01", 1213, 1205, 1020, "database is locked"}
NO_TABLE = {"42P01", 1146, "no such table"}


def make_engine(url: str | None, engine: sql.Engine | None) -> sql.Engine:
    if (url is None) == (engine is None):
        raise ConfigurationError("give either the url of a database or an engine")
    if url is not None:
        engine = _engine_of(url)
    elif isinstance(engine, sql.Engine):
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    else:
        raise ConfigurationError(
            f"engine must be SQLAlchemy's Engine, not {type(engine).__name__}"
        )
    if engine.dialect.name not in NOW:
        raise ConfigurationError(
            f"sessions are kept in {', '.join(sorted(NOW))}, not in "
            f"{engine.dialect.name}"
        )
    return engine


def _engine_of(url: str) -> sql.Engine:
    try:
        parsed = sql.make_url(url)
        pool: dict[str, Any] = {}
        if in_memory(parsed):
            # The database is the connection: all threads share it, one at a time.
            pool = {"poolclass": sql.QueuePool, "pool_size": 1, "max_overflow": 0}
            pool["connect_args"] = {"check_same_thread": False}
        elif parsed.get_backend_name() == "sqlite" and "timeout" not in parsed.query:
            # SQLite would wait longer and longer, and be overtaken: it is asked again.
            pool = {"connect_args": {"timeout": 0.005}}
        # Where each statement is its own transaction, there is nothing to begin and
        # nothing to roll back: a call is one round trip.
        engine = sql.create_engine(
            parsed,
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
            **pool,
        )
    except ImportError as error:
        raise ConfigurationError(
            f"the driver that url asks for is not installed: {error.name}"
        ) from error
    except ArgumentError as error:
        raise ConfigurationError(
            "url must name a database as SQLAlchemy does, such as "
            "postgresql+psycopg://user:password@host/name"
        ) from error
    if (setting := SETTINGS.get(engine.dialect.name)) is not None:
        sql.event.listen(engine, "connect", partial(_set, setting))
    return engine


def in_memory(url: sql.URL) -> bool:
    return url.get_backend_name() == "sqlite" and (
        url.database in (None, "", ":memory:") or url.query.get("mode") == "memory"
    )


def _set(setting: str, connection: Any, _: object) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute(setting)


def broken(error: Exception) -> StoreError:
    if not NO_TABLE.isdisjoint(codes(error)):
        return StoreError(
            "the table of sessions is missing; "
            "create it by create_table() or `python -m wsgisession init`"
        )
    return StoreError(f"the database failed: {type(error).__name__}")


def codes(error: Exception) -> set[Any]:
    """What the driver calls an error: its SQLSTATE, its number, or the text of SQLite."""
    cause = getattr(error, "orig", None) or error
    text = str(cause).partition(":")[0]
    states = {getattr(cause, name, None) for name in ("sqlstate", "pgcode")}
    return {text, *states, *cause.args[:1]}
