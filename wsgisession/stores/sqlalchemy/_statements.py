"""What is ever asked of a SQL database, and the table that it is asked of.

This file knows SQL and its dialects; it knows neither connections nor what a record is
for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import ArgumentError

from ...errors import ConfigurationError

# One clock decides what has expired and which lease is live, and it is the database's:
# hosts whose clocks differ would take each other's leases for over.  It counts in UTC,
# because local time runs twice through one hour of autumn.  It stands still during a
# statement, so that the sweep can look it up in an index.  SQLite's is that of the host
# anyway, and is asked of Python, whose clock a test may have stopped.
NOW = {
    "sqlite": ":host_now",
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) AS double precision)",
    "mysql": "(timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)) / 1e6)",
}
NOW["mariadb"] = NOW["mysql"]

FIELDS = (
    "id, data, version, created, accessed, expires, user_name, "
    "proof, turned, seen, replaced"
)
CLAUSES = {
    "here": "id = :id_is AND expires > {now}",
    "free": "(lease_until <= {now} OR lease = :lease_is)",
    "expired": "expires_hour <= {now} / 3600 AND expires <= {now}",
}

# What is "relaxed" writes nothing that a crash of the server may not take back: a clock
# moves again, and of two requests that were given the same lease the version lets one
# save.  So it does not wait for the disk.  The log keeps its order: what is saved on top
# of such a change is durable together with it.
#
# ``expires_hour`` stands before ``expires``, because MySQL computes an assignment from
# what the ones before it wrote.
SQL = {
    "load": "SELECT {fields} FROM {table} WHERE {here}",
    # What a save is judged by: never what a replica that lags behind remembers.
    "current": "SELECT {fields} FROM {table} WHERE {here} {primary}",
    "watch": "SELECT version, lease_until <= {now} FROM {table} WHERE {here}",
    "make_room": "DELETE FROM {table} WHERE id = :id_is AND expires <= {now}",
    "touch": (
        "UPDATE {table} SET "
        "accessed = CASE WHEN accessed < :accessed THEN :accessed ELSE accessed END, "
        "expires_hour = "
        "CASE WHEN expires < :expires THEN :expires_hour ELSE expires_hour END, "
        "expires = CASE WHEN expires < :expires THEN :expires ELSE expires END, "
        "lease_until = CASE WHEN lease = :lease_is THEN 0 ELSE lease_until END "
        "WHERE {here} AND version = :version_is {relaxed}"
    ),
    "delete": "DELETE FROM {table} WHERE {here}",
    "delete_of_user": "DELETE FROM {table} WHERE {here} AND user_hash = :user_is",
    "lock": (
        "UPDATE {table} SET lease = :lease_is, lease_until = {now} + :seconds, "
        "lease_since = {now}, lease_by = :by "
        "WHERE {here} AND {free} AND (proof = :proof_is OR replaced LIKE :proof_in) "
        "{returning}"
    ),
    "holder": (
        "SELECT lease_by, {now} - lease_since FROM {table} "
        "WHERE id = :id_is AND lease_until > {now}"
    ),
    "leased": (
        "SELECT {fields} FROM {table} WHERE {here} AND lease = :lease_is {primary}"
    ),
    "unlock": (
        "UPDATE {table} SET lease_until = 0 "
        "WHERE id = :id_is AND lease = :lease_is {relaxed}"
    ),
    "page": (
        "SELECT {fields} FROM {table} WHERE expires > {now} AND id > :after "
        "ORDER BY id LIMIT :page"
    ),
    "page_of_user": (
        "SELECT {fields} FROM {table} WHERE expires > {now} "
        "AND user_hash = :user_is AND id > :after ORDER BY id LIMIT :page"
    ),
    "sweep": (
        "DELETE FROM {table} WHERE id IN "
        "(SELECT id FROM {table} WHERE {expired} LIMIT :batch) AND expires <= {now}"
    ),
}
RELAXED = {"touch", "lock", "unlock", "sweep"}

OF_POSTGRESQL = {
    # Of two sweepers each takes what the other has not, and neither waits for a writer.
    # The array is made once; a subquery within IN may be asked again for every row.
    "sweep": (
        "DELETE FROM {table} WHERE id = ANY (ARRAY("
        "SELECT id FROM {table} WHERE {expired} LIMIT :batch FOR UPDATE SKIP LOCKED))"
    ),
}
OF_MYSQL = {
    # Which has no LIMIT within IN, and would walk through the table for it.
    "sweep": "DELETE FROM {table} WHERE {expired} LIMIT :batch",
}
OF_SQLITE = {
    # The sweep fills the log, so it writes it back: else the next save pays for it.
    "write_back": "PRAGMA wal_checkpoint(PASSIVE)",
}
OF = {
    "sqlite": OF_SQLITE,
    "postgresql": OF_POSTGRESQL,
    "mysql": OF_MYSQL,
    "mariadb": OF_MYSQL,
}

BY = 200
"""Characters of who holds a lock, for messages."""

# Rows that a sweep takes at once.  SQLite has one writer: all others wait for it.
SWEEP = {"sqlite": 50, "postgresql": 100, "mysql": 100, "mariadb": 100}


class Statement:
    """SQL in the dialect of a database, ready for its driver.

    SQLAlchemy writes it once; when it runs it too, reading a record from SQLite takes
    three times as long.
    """

    __slots__ = ("_gives_rows", "_is_timed", "_order", "durable", "text")

    durable: bool | None
    """Whether its change must be on the disk when it returns; None: there is none."""

    def __init__(
        self,
        name: str,
        statement: sql.ClauseElement,
        dialect: sql.Dialect,
        columns: Sequence[str] = (),
    ) -> None:
        compiled: Any = statement.compile(dialect=dialect, column_keys=list(columns))
        self.text = str(compiled)
        reads = self.text.startswith("SELECT")
        self._gives_rows = reads or "RETURNING" in self.text
        self._order = compiled.positiontup
        self._is_timed = "host_now" in compiled.params
        self.durable = None if reads else name not in RELAXED

    def run(self, cursor: Any, values: Mapping[str, Any]) -> tuple[Sequence[Any], int]:
        """Its rows, and how many rows it met."""
        cursor.execute(self.text, self.parameters(values))
        rows = cursor.fetchall() if self._gives_rows else ()
        return rows, cursor.rowcount

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """The values in the form that the driver takes."""
        if self._is_timed:
            values = {**values, "host_now": time.time()}
        if self._order is None:
            return values
        return [values[name] for name in self._order]


def statements(table: sql.Table, dialect: sql.Dialect) -> dict[str, Statement]:
    """All that is ever asked of the database, by name."""
    parts = {
        "table": dialect.identifier_preparer.format_table(table),
        "now": NOW[dialect.name],
        "fields": FIELDS,
        "relaxed": "",
        # A proxy that sends reads to replicas sends a locking one to the primary.
        "primary": "" if dialect.name == "sqlite" else "FOR UPDATE",
        "returning": f"RETURNING {FIELDS}" if dialect.update_returning else "",
    }
    if dialect.name == "postgresql":
        relaxed = "set_config('synchronous_commit', 'off', true)"
        parts["relaxed"] = f"RETURNING {relaxed}"
        parts["returning"] += f", {relaxed}"
    for name, clause in CLAUSES.items():
        parts[name] = clause.format(**parts)
    made = {
        name: Statement(name, sql.text(text.format(**parts)), dialect)
        for name, text in (SQL | OF[dialect.name]).items()
    }
    # These two have columns of the caller's, of whatever type.
    unchanged = sql.text("{here} AND version = :version_is AND {free}".format(**parts))
    insert, update = sql.insert(table).inline(), sql.update(table).where(unchanged)
    id, *others = table.c.keys()
    made["insert"] = Statement("insert", insert, dialect, [id, *others])
    made["update"] = Statement("update", update, dialect, others)
    return made


def make_table(
    name: str, metadata: sql.MetaData, columns: Sequence[sql.Column[Any]]
) -> sql.Table:
    """The table, with the caller's columns at its end."""
    # LONGBLOB, for a BLOB of MySQL ends at 64 KiB.  Users are bytes, found by their hash,
    # so that every string is a user, at any length, and 'ann' is neither 'ANN' nor 'ann '
    # whatever the collation.
    blob = sql.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
    try:
        return sql.Table(
            name,
            metadata,
            sql.Column("id", sql.String(32), primary_key=True),
            sql.Column("data", blob, nullable=False),
            # 63 random bits, so that a save whose answer was lost is recognised by it.
            sql.Column("version", sql.BigInteger, nullable=False),
            sql.Column("created", sql.Double, nullable=False),
            sql.Column("accessed", sql.Double, nullable=False),
            sql.Column("expires", sql.Double, nullable=False),
            # The hour of the expiry, for the index: an index on ``expires`` itself would
            # be written at each touch, and keep PostgreSQL from updating in place (HOT).
            sql.Column("expires_hour", sql.Double, nullable=False, index=True),
            sql.Column("user_name", blob),
            sql.Column("user_hash", sql.String(64)),
            sql.Column("proof", sql.String(64), nullable=False),
            sql.Column("turned", sql.Double, nullable=False),
            sql.Column("seen", sql.Double),
            sql.Column("replaced", sql.Text, nullable=False),
            sql.Column("lease", sql.String(32)),
            sql.Column("lease_until", sql.Double, nullable=False),
            sql.Column("lease_since", sql.Double),
            sql.Column("lease_by", sql.String(BY)),
            *columns,
            # With the id, so that a user's sessions are read page by page in its order.
            sql.Index(None, "user_hash", "id"),
        )
    except ArgumentError as error:
        raise ConfigurationError(f"columns cannot be added: {error}") from error
