"""What to know of a database that keeps sessions: its table, its role, its clock.

It knows SQLAlchemy, and the few questions that each dialect has its own words for.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from ..._health import Finding, Level, clock_finding

LAG = 10.0
"""Seconds that a replica may be behind."""

CLOCKS = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "mysql": "SELECT unix_timestamp(now(6))",
    "mariadb": "SELECT unix_timestamp(now(6))",
}
READ_ONLY = {
    "postgresql": "SELECT pg_is_in_recovery() OR"
    " current_setting('default_transaction_read_only')::bool",
    "mysql": "SELECT @@global.read_only",
    "mariadb": "SELECT @@global.read_only",
}
OLDEST = {"postgresql": (12,), "mysql": (8, 0), "mariadb": (10, 5), "sqlite": (3, 35)}


def examine(engine: sql.Engine, table: sql.Table) -> Iterator[Finding]:
    """All findings."""
    with engine.connect() as connection:
        kind = engine.dialect.name
        if getattr(engine.dialect, "is_mariadb", False):
            kind = "mariadb"
        yield _version(connection, kind)
        yield _table(connection, table)
        if kind in READ_ONLY:
            yield _writable(connection, READ_ONLY[kind])
            now = connection.exec_driver_sql(CLOCKS[kind]).scalar_one()
            yield clock_finding(float(now) - time.time())
        if kind == "postgresql":
            yield _pooler(connection)
            yield from _replicas(connection)
        if kind == "sqlite":
            yield from _file(engine.url.database)


def _version(connection: sql.Connection, kind: str) -> Finding:
    version = tuple(connection.dialect.server_version_info or ())
    said = f"{kind} {'.'.join(map(str, version))}"
    if version[:2] >= OLDEST.get(kind, ()):
        return Finding(Level.OK, "version", said)
    oldest = ".".join(map(str, OLDEST[kind]))
    return Finding(Level.ERROR, "version", said, f"upgrade to {oldest} or newer")


def _table(connection: sql.Connection, table: sql.Table) -> Finding:
    look, name = sql.inspect(connection), table.fullname
    if not look.has_table(table.name, schema=table.schema):
        said = f"there is no table {name}"
        return Finding(Level.ERROR, "table", said, "run `wsgisession init`")
    there = {each["name"] for each in look.get_columns(table.name, schema=table.schema)}
    missing = sorted({column.name for column in table.columns} - there)
    if missing:
        said = f"the table {name} has no column {', '.join(missing)}"
        advice = "migrate it to what the store's metadata says"
        return Finding(Level.ERROR, "table", said, advice)
    indexes = {i["name"] for i in look.get_indexes(table.name, schema=table.schema)}
    lost = sorted(str(each.name) for each in table.indexes if each.name not in indexes)
    if lost:
        said = f"the table {name} has no index {', '.join(lost)}: lists are slow"
        return Finding(Level.WARNING, "table", said, "run `wsgisession init`")
    return Finding(Level.OK, "table", f"{name}, with its columns and indexes")


def _writable(connection: sql.Connection, question: str) -> Finding:
    if not connection.exec_driver_sql(question).scalar_one():
        return Finding(Level.OK, "role", "it takes writes")
    said = "the server is read-only, or a standby"
    return Finding(Level.ERROR, "role", said, "give the address of the primary")


def _pooler(connection: sql.Connection) -> Finding:
    driver: Any = connection.connection.driver_connection
    told = getattr(getattr(driver, "info", None), "backend_pid", None)
    served = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    if told is None or told == served:
        return Finding(
            Level.OK, "pooler", "the connection leads straight to the server"
        )
    said = "PgBouncer or the like stands in between; statements are not prepared"
    return Finding(Level.OK, "pooler", said)


def _replicas(connection: sql.Connection) -> Iterator[Finding]:
    question = (
        "SELECT application_name, coalesce(extract(epoch FROM replay_lag), 0),"
        " sync_state FROM pg_stat_replication"
    )
    for name, lag, state in connection.exec_driver_sql(question):
        said = f"the standby {name} ({state}) is {float(lag):.1f} s behind"
        if float(lag) <= LAG:
            yield Finding(Level.OK, "replica", said)
        else:
            advice = "a failover now would take back logins and logouts"
            yield Finding(Level.WARNING, "replica", said, advice)


def _file(path: str | None) -> Iterator[Finding]:
    if path and Path(path).exists():
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        said = f"{path} has the mode {mode:04o}"
        if mode & 0o077:
            advice = f"chmod 600 {path}: sessions are nobody else's business"
            yield Finding(Level.WARNING, "permissions", said, advice)
        else:
            yield Finding(Level.OK, "permissions", said)
