"""What is ever asked of a SQL database, and the table that it is asked of.

It knows SQL and its dialects, and neither connections nor what a record is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import ArgumentError

from ..errors import ConfigurationError

# One clock decides what has expired and whose lease is live, and it is the database's:
# hosts whose clocks differ would take each other's leases for over.  It counts in UTC,
# because local time runs twice through one hour of autumn.  It stands still during a
# statement, so that the sweep can look it up in an index.
NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) AS double precision)",
    "mysql": "(timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)) / 1e6)",
}
NOW["mariadb"] = NOW["mysql"]

FIELDS = (
    "id, data, version, created, accessed, expires, user_name, state, successor, mark"
)
CLAUSES = {
    "here": "id = :key AND expires > {now}",
    "free": "(lease_until <= {now} OR lease = :held)",
    "live": "state = 'live' AND expires > {now}",
    "expired": "expires_hour <= {now} / 3600 AND expires <= {now}",
}

# What is "relaxed" writes nothing that a crash of the server may not take back: a clock
# moves again, and of two who were given the same lease the version lets one save.  So on
# PostgreSQL it does not wait for the disk.  The log keeps its order: what is saved on top
# of such a change is durable together with it.
SQL = {
    "load": "SELECT {fields} FROM {table} WHERE {here}",
    "look": "SELECT state, lease_until <= {now} FROM {table} WHERE {here}",
    "find": "SELECT id FROM {table} WHERE id = :key",
    "make_room": "DELETE FROM {table} WHERE id = :key AND expires <= {now} AND {free}",
    "touch": (
        "UPDATE {table} SET accessed = :accessed, expires = :expires, "
        "expires_hour = :expires_hour, "
        "lease_until = CASE WHEN lease = :held THEN 0 ELSE lease_until END "
        "WHERE {here} AND version = :expect {relaxed}"
    ),
    "delete": "DELETE FROM {table} WHERE id = :key",
    "lock": (
        "UPDATE {table} SET lease = :held, lease_until = {now} + :seconds "
        "WHERE {here} AND state = 'live' AND {free} {returning}"
    ),
    "leased": "SELECT {fields} FROM {table} WHERE {here} AND lease = :held",
    "unlock": (
        "UPDATE {table} SET lease_until = 0 WHERE id = :key AND lease = :held {relaxed}"
    ),
    "page": (
        "SELECT {fields} FROM {table} WHERE {live} AND id > :after "
        "ORDER BY id LIMIT :page"
    ),
    "page_of_user": (
        "SELECT {fields} FROM {table} WHERE {live} AND id > :after AND user_hash = :user "
        "ORDER BY id LIMIT :page"
    ),
    "sweep": (
        "DELETE FROM {table} WHERE id IN "
        "(SELECT id FROM {table} WHERE {expired} LIMIT :batch) AND expires <= {now}"
    ),
}
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
    # Whoever fills the log has it written back: else the next to save pays for it.
    "write_back": "PRAGMA wal_checkpoint(PASSIVE)",
}
OF = {
    "sqlite": OF_SQLITE,
    "postgresql": OF_POSTGRESQL,
    "mysql": OF_MYSQL,
    "mariadb": OF_MYSQL,
}

# Rows that a sweep takes at once.  SQLite has one writer: all others wait meanwhile.
SWEEP = {"sqlite": 50, "postgresql": 100, "mysql": 100, "mariadb": 100}


class Statement:
    """SQL in the dialect of a database, ready for its driver.

    SQLAlchemy writes it once and lends the connection: when it runs it too, reading a
    record from SQLite takes three times as long.
    """

    __slots__ = ("_order", "gives_rows", "text")

    def __init__(
        self,
        statement: sql.ClauseElement,
        dialect: sql.Dialect,
        columns: Sequence[str] = (),
    ) -> None:
        compiled: Any = statement.compile(dialect=dialect, column_keys=list(columns))
        self.text = str(compiled)
        self.gives_rows = self.text.startswith("SELECT") or "RETURNING" in self.text
        self._order = compiled.positiontup

    def parameters(self, values: Mapping[str, Any]) -> Any:
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
        "returning": f"RETURNING {FIELDS}" if dialect.update_returning else "",
    }
    if dialect.name == "postgresql":
        relaxed = "set_config('synchronous_commit', 'off', true)"
        parts["relaxed"] = f"RETURNING {relaxed}"
        parts["returning"] += f", {relaxed}"
    for name, clause in CLAUSES.items():
        parts[name] = clause.format(**parts)
    made = {
        name: Statement(sql.text(text.format(**parts)), dialect)
        for name, text in (SQL | OF.get(dialect.name, {})).items()
    }
    # These two have columns of the caller's, of whatever type.
    unchanged = sql.text("{here} AND version = :expect AND {free}".format(**parts))
    insert, update = sql.insert(table).inline(), sql.update(table).where(unchanged)
    id, *others = table.c.keys()
    made["insert"] = Statement(insert, dialect, [id, *others])
    made["update"] = Statement(update, dialect, others)
    return made


def make_table(
    name: str, metadata: sql.MetaData, columns: Sequence[sql.Column[Any]]
) -> sql.Table:
    # LONGBLOB, for a BLOB of MySQL ends at 64 KiB.  Users are bytes, found by their hash,
    # so that every string is a user, at any length, and 'ann' is neither 'ANN' nor 'ann '
    # whatever the collation.
    blob = sql.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
    try:
        return sql.Table(
            name,
            metadata,
            sql.Column("id", sql.String(64), primary_key=True),
            sql.Column("data", blob, nullable=False),
            sql.Column("version", sql.Integer, nullable=False),
            sql.Column("created", sql.Double, nullable=False),
            sql.Column("accessed", sql.Double, nullable=False),
            sql.Column("expires", sql.Double, nullable=False),
            # The hour of the expiry, for the index: an index on ``expires`` itself would
            # be written at each touch, and keep PostgreSQL from updating in place (HOT).
            sql.Column("expires_hour", sql.Double, nullable=False, index=True),
            sql.Column("user_name", blob),
            sql.Column("user_hash", sql.String(64), index=True),
            sql.Column("state", sql.String(5), nullable=False),
            sql.Column("successor", sql.String(64)),
            # By ``mark`` a save is recognised whose answer was lost with the connection.
            sql.Column("mark", sql.String(32), nullable=False),
            sql.Column("lease", sql.String(32)),
            sql.Column("lease_until", sql.Double, nullable=False),
            *columns,
        )
    except ArgumentError as error:
        raise ConfigurationError(f"columns cannot be added: {error}") from error
