"""How a SQL database is reached, and what its drivers mean by their errors.

This file knows SQLAlchemy's engines and the errors of drivers; it knows no statement of
ours and no session.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from ...errors import ConfigurationError, StoreError
from . import _drivers as drivers

DIALECTS = ("mariadb", "mysql", "postgresql", "sqlite")

# Rolled back in favour of another statement, and may run again: serialization failure
# and deadlock (PostgreSQL), deadlock, lock wait and changed snapshot (MySQL), busy
# (SQLite).
TRANSIENT = {"40001", "40P01", 1213, 1205, 1020, "database is locked"}

# Refused because of the connection, so that a new one may do: read-only after a failover
# (PostgreSQL, MySQL, a file of SQLite that was replaced), a cached plan, a prepared
# statement that is unknown or there already, a node of Galera that is not ready.
STALE = {"25006", 1290, 1836, "attempt to write a readonly database"}
STALE |= {"0A000", "26000", "42P05", 1047}

NO_TABLE = {"42P01", 1146, "no such table"}
FULL = {"database or disk is full"}
NO_FILE = {"unable to open database file", "disk I/O error"}

SPEAKING = {"OperationalError", "InterfaceError", "InternalError"}
"""Errors of the server and the connection; those of other classes may repeat values."""

WORDS = 200
"""Characters that are repeated of what a driver says."""


class Fault(Enum):
    """What an error says about the next try."""

    TRANSIENT = auto()
    """Nothing was done; the same again will do."""
    STALE = auto()
    """Nothing was done; a new connection may do."""
    BROKEN = auto()
    """The connection is lost, and nobody can know whether it was done."""
    FULL = auto()
    """SQLite has no room to write; its connection still reads."""
    NO_TABLE = auto()
    REFUSED = auto()
    """A constraint stands against the row."""
    OTHER = auto()
    """No second try helps."""


class Failure(Exception):
    """A statement failed; never leaves this folder."""

    def __init__(self, cause: Exception, fault: Fault) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause
        self.fault = fault


def fault_of(error: Exception, dialect: sql.Dialect, connection: Any) -> Fault:
    """What became of a statement, and of the connection that it was sent over."""
    driver: Any = dialect.loaded_dbapi
    if isinstance(error, (TypeError, ValueError, OverflowError)):
        return Fault.OTHER  # a value that the driver cannot send
    # Drivers raise others than those of the DB-API: OSError, PyMySQL's RuntimeError.
    if not isinstance(error, driver.Error):
        return Fault.BROKEN
    if dialect.is_disconnect(error, connection, None):
        return Fault.BROKEN
    if isinstance(error, driver.IntegrityError):
        return Fault.REFUSED
    return _fault_of_codes(error)


def fault_of_connecting(error: Exception) -> Fault:
    """The same, where not even a connection was had: TRANSIENT or OTHER."""
    fault = _fault_of_codes(error)
    return fault if fault is Fault.TRANSIENT else Fault.OTHER


def _fault_of_codes(error: Exception) -> Fault:
    found = codes(error)
    for fault, known in (
        (Fault.TRANSIENT, TRANSIENT),
        (Fault.STALE, STALE),
        (Fault.NO_TABLE, NO_TABLE),
        (Fault.FULL, FULL),
    ):
        if not known.isdisjoint(found):
            return fault
    return Fault.OTHER


def codes(error: Exception) -> set[Any]:
    """What the driver calls an error: its SQLSTATE, its number, or the text of SQLite."""
    cause = getattr(error, "orig", None) or error
    found = {getattr(cause, name, None) for name in ("sqlstate", "pgcode", "errno")}
    found.add(str(cause).partition(":")[0])
    first = cause.args[0] if cause.args else None
    if isinstance(first, dict):  # pg8000: the fields of the server's answer
        first = first.get("C")
    if isinstance(first, (int, str)):
        found.add(first)
    return found


def place_of(url: sql.URL) -> str:
    """Where a database is, for messages."""
    if url.host:
        return f"{url.host}:{url.port}" if url.port else url.host
    if url.get_backend_name() == "sqlite":
        return url.database or "this process"
    return str(url.query.get("host", "the local socket"))


def broken(error: Exception, place: str) -> StoreError:
    """The error that callers are given: what kind it is and where, and no value."""
    cause = getattr(error, "orig", None) or error
    name = type(cause).__name__
    if not NO_TABLE.isdisjoint(codes(error)):
        return StoreError(
            f"the table of sessions is missing ({name}); create it by a migration, by "
            "create_table() or by `python -m wsgisession init`"
        )
    known = TRANSIENT | STALE | FULL | NO_FILE
    code = next((each for each in codes(error) if each in known), None)
    words = _words_of(cause)
    reason = name if code is None or str(code) in words else f"{name} ({code})"
    if words:
        reason += f": {words}"
    return StoreError(f"the database at {place} failed: {reason}")


def _words_of(cause: BaseException) -> str:
    """What a driver says of a failure, on one line, where that can repeat no value."""
    if type(cause).__name__ not in SPEAKING and not isinstance(cause, OSError):
        return ""
    words = str(cause.args[-1]) if cause.args else ""
    return " ".join(words.split())[:WORDS]


def checked_engine(engine: object) -> sql.Engine:
    """One that connects as an engine of the caller's does, and commits each statement.

    It has a pool of its own: requests that hold a connection of the application's and
    wait for one to save their sessions with would wait for each other.
    """
    if not isinstance(engine, sql.Engine):
        raise ConfigurationError(
            f"engine must be SQLAlchemy's Engine, not {type(engine).__name__}"
        )
    _check(engine.dialect)
    alone = isinstance(engine.pool, (sql.SingletonThreadPool, sql.StaticPool))
    if not alone and not in_memory(engine.url):
        engine = sql.Engine(
            engine.pool.recreate(),
            engine.dialect,
            engine.url,
            execution_options=engine.get_execution_options(),
            hide_parameters=engine.hide_parameters,
        )
        drivers.prepare_where_proven(engine)
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def make_engine(url: str | sql.URL) -> sql.Engine:
    """An engine of our own, whose connections its user keeps.

    Nothing of the url is in an error, not even in its cause: there may be a password.
    """
    parsed, dialect = _parsed(url)
    _check(dialect)
    if isinstance(url, str) and url.count("@") > 1 and dialect.name != "sqlite":
        raise ConfigurationError(
            "url has more than one @, and which of them stands before the host cannot be "
            "told; in a user, a password or an option it is written %40"
        )
    drivers.check_names(parsed)
    try:
        pool = _pool(parsed)
        # Where each statement is a transaction of its own, there is nothing to begin
        # and nothing to roll back: a call is one round trip.
        engine = sql.create_engine(
            parsed, isolation_level="AUTOCOMMIT", pool_reset_on_return=None, **pool
        )
    except ImportError as error:
        raise _not_installed(error) from error
    except (ArgumentError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"url cannot be used: {type(error).__name__} by the driver {dialect.driver}"
        ) from None
    drivers.check_options(engine, pool.get("connect_args", {}))
    drivers.prepare(engine)
    return engine


def _parsed(url: str | sql.URL) -> tuple[sql.URL, type[sql.Dialect]]:
    try:
        parsed = sql.make_url(url)
        dialect = parsed.get_dialect()
    except NoSuchModuleError:
        name = str(url).partition(":")[0]
        raise ConfigurationError(
            f"SQLAlchemy knows no driver {name!r}; write one such as postgresql+psycopg, "
            "mysql+pymysql or sqlite, and install the driver that it names"
        ) from None
    except (ArgumentError, ValueError, TypeError):
        raise ConfigurationError(
            "url must name a database as SQLAlchemy does, such as "
            "postgresql+psycopg://user:password@host/name"
        ) from None
    except ImportError as error:
        raise _not_installed(error) from error
    return parsed, dialect


def in_memory(url: sql.URL) -> bool:
    """Whether the database is within this process, and gone with its connection."""
    return url.get_backend_name() == "sqlite" and (
        url.database in (None, "", ":memory:", "file::memory:")
        or url.query.get("mode") == "memory"
    )


def _pool(url: sql.URL) -> dict[str, Any]:
    if in_memory(url):
        # The database is the connection: all threads share it, one at a time.
        return {
            "poolclass": sql.QueuePool,
            "pool_size": 1,
            "max_overflow": 0,
            "connect_args": {"check_same_thread": False},
        }
    pool: dict[str, Any] = {"poolclass": sql.NullPool}
    if url.get_backend_name() == "sqlite":
        pool["connect_args"] = {"check_same_thread": False}
        if "timeout" not in url.query:
            # SQLite waits longer and longer, and is overtaken: it is asked again.
            pool["connect_args"]["timeout"] = 0.005
    elif url.get_driver_name() == "psycopg" and "prepare_threshold" in url.query:
        wanted: Any = url.query["prepare_threshold"]
        pool["connect_args"] = {"prepare_threshold": int(wanted) if wanted else None}
    return pool


def _check(dialect: Any) -> None:
    if dialect.name not in DIALECTS:
        raise ConfigurationError(
            f"sessions are kept in {', '.join(DIALECTS)}, not in {dialect.name}"
        )
    if dialect.is_async:
        raise ConfigurationError(
            f"the driver {dialect.driver} is asynchronous; WSGI needs another, such as "
            "postgresql+psycopg, mysql+pymysql or sqlite"
        )


def _not_installed(error: ImportError) -> ConfigurationError:
    return ConfigurationError(
        f"the driver that url asks for is not installed: {error.name}; install it with "
        "pip, or name another, as in postgresql+psycopg://"
    )
