"""Sessions in a SQL database, one row each: SQLite, PostgreSQL, MySQL and MariaDB.

It knows one table and how each database compares and writes a row in one step; it knows
neither what the bytes mean nor who asks.  Between two calls no transaction is open and no
connection in use: a lock is a lease written into the row, so that requests may hold their
sessions as long as they like while a small pool serves all the others.

Extra columns are yours, by ``columns`` and ``fill``, a function of the record.  Its
``data`` is a header line, a newline, and the serialized session, JSON by default::

    def account(record):
        session = json.loads(record.data.split(b"\\n", 1)[1])
        return {"account_id": session.get("account_id")}

    SQLAlchemyStore(url, columns=[Column("account_id", Integer)], fill=account)
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import count
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..errors import ConfigurationError, Conflict, LockTimeout, StoreError
from ..record import Key, Record
from ._sql_engines import TRANSIENT, broken, codes, in_memory, make_engine
from ._sql_statements import SWEEP, Statement, make_table, statements

PAGE = 200
TRIES = 5
PATIENCE = 10.0
HOUR = 3600
ID = re.compile(r"[0-9a-f]{64}")


class SQLAlchemyStore:
    """A table of records, each with its lease in its own row.

    :param url: of the database, for an engine of our own.  A SQLite database in memory
        has its table already, and lives in one process.
    :param engine: yours instead; it is not changed, but each statement is committed.
        With ``isolation_level="AUTOCOMMIT"`` in it, some drivers spare a round trip.
    :param table_name: of the table, which is in ``schema`` if one is given.
    :param columns: more columns, of yours.
    :param fill: gives their values, by name, for a record that is about to be saved.
    :param lock_waiters: how many threads of this process may wait for one session before
        ``LockTimeout``; the waiters of other processes are not counted.

    The table is made by ``create_table()`` or by a migration of yours: ``metadata`` holds
    ``table`` and nothing else, and can be Alembic's ``target_metadata``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        engine: sql.Engine | None = None,
        table_name: str = "wsgisession",
        schema: str | None = None,
        columns: Sequence[sql.Column[Any]] = (),
        fill: Callable[[Record], Mapping[str, Any]] | None = None,
        lock_waiters: int = 50,
    ) -> None:
        if bool(columns) != (fill is not None):
            raise ConfigurationError(
                "columns and fill belong together: fill gives the values of the columns"
            )
        if lock_waiters < 0:
            raise ConfigurationError("lock_waiters must be 0 or more")
        self._engine = make_engine(url, engine)
        self._ours = url is not None
        self._driver = self._engine.dialect.loaded_dbapi
        self.metadata = sql.MetaData(schema=schema)
        self.table = make_table(table_name, self.metadata, columns)
        self._sql = statements(self.table, self._engine.dialect)
        self._fill = fill
        self._processors = {
            column.key: column.type.dialect_impl(self._engine.dialect).bind_processor(
                self._engine.dialect
            )
            for column in columns
        }
        self._lock_waiters = lock_waiters
        self._private = url is not None and in_memory(self._engine.url)
        self._begin_process()

    def create_table(self) -> None:
        """Create the table and its indexes, as far as they are missing."""
        began = time.monotonic()
        for attempt in count(1):
            try:
                self.table.create(self._engine, checkfirst=True)
                for index in self.table.indexes:
                    index.create(self._engine, checkfirst=True)
                return
            except SQLAlchemyError as error:
                # Another process may have been quicker after we looked, or writes now.
                busy = not TRANSIENT.isdisjoint(codes(error))
                patient = time.monotonic() - began < PATIENCE
                if not (patient if busy else attempt < TRIES):
                    raise broken(error) from error
            _sleep(0.1)

    def close(self) -> None:
        """Close the idle connections of an engine of our own; it may be used on."""
        if self._ours:
            self._engine.dispose()

    # -- Store -------------------------------------------------------------------------

    def load(self, key: Key) -> Record | None:
        if not ID.fullmatch(key.id):
            return None
        rows = self._rows("load", {"key": key.id})
        return _record(rows[0]) if rows else None

    def save(self, record: Record, *, expect: int) -> str | None:
        mark = secrets.token_hex(16)
        values = self._values(record, mark)
        values.update(key=record.id, expect=expect, held=record.lease)
        if expect == 0:
            saved = self._insert(values)
        else:
            saved = self._count("update", values) == 1
        if not saved:
            self.unlock(record)
            rows = self._rows("load", {"key": record.id})
            # Where our mark is, we had saved, and only the answer was lost.
            if not rows or rows[0][-1] != mark:
                raise Conflict(record.id, _record(rows[0]) if rows else None)
        self._wake(record.id)
        return record.token

    def touch(self, record: Record) -> str | None:
        values = {**_clock(record), "key": record.id, "expect": record.version}
        if self._count("touch", {**values, "held": record.lease}) == 0:
            self.unlock(record)
        self._wake(record.id)
        return record.token

    def delete(self, record: Record) -> None:
        self._count("delete", {"key": record.id})
        self._wake(record.id)

    # -- LockingStore ------------------------------------------------------------------

    def lock(self, key: Key, *, wait: float, lease: float) -> Record | None:
        if not ID.fullmatch(key.id):
            return None
        self._follow_fork()
        values = {"key": key.id, "held": secrets.token_hex(16), "seconds": lease}
        # Whoever comes while others wait lines up behind them.
        if key.id not in self._lines and (taken := self._take(values)):
            return taken
        began = time.monotonic()
        with self._line(key.id) as line:
            if not line.first.acquire(timeout=wait):
                raise LockTimeout(key.id, time.monotonic() - began)
            try:
                return self._wait(line, values, began, wait)
            finally:
                line.first.release()

    def unlock(self, record: Record) -> None:
        if record.lease is not None:
            self._count("unlock", {"key": record.id, "held": record.lease})
            self._wake(record.id)

    # -- IterableStore -----------------------------------------------------------------

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        statement = "page" if user is None else "page_of_user"
        values: dict[str, Any] = {"after": "", "page": PAGE}
        if user is not None:
            values["user"] = _hash(_encode(user))
        # Pages, for a cursor left open would keep SQLite from letting the caller write.
        while rows := self._rows(statement, values):
            yield from map(_record, rows)
            values["after"] = rows[-1][0]

    def delete_expired(self, *, batch: int) -> int:
        began = time.monotonic()
        most = SWEEP[self._engine.dialect.name]
        swept = self._count("sweep", {"batch": min(batch, most)})
        if "write_back" in self._sql:
            self._run("write_back", {})
        # Whoever waited meanwhile comes before the next batch: SQLite keeps no queue.
        time.sleep(time.monotonic() - began)
        return swept

    # -- talking to the database -------------------------------------------------------

    def _rows(self, name: str, values: Mapping[str, Any]) -> Sequence[Any]:
        return self._run(name, values)[0]

    def _count(self, name: str, values: Mapping[str, Any]) -> int:
        return self._run(name, values)[1]

    def _run(self, name: str, values: Mapping[str, Any]) -> tuple[Sequence[Any], int]:
        """Run a statement, a transaction of its own, and give its rows and its count.

        Every statement may run twice: by the version, the lease or the mark it finds
        what it did the first time.
        """
        self._follow_fork()
        began = time.monotonic()
        reconnected = False
        while True:
            try:
                with self._engine.connect() as connection:
                    return self._ask(connection, self._sql[name], values)
            except (SQLAlchemyError, self._driver.Error) as error:
                cut = isinstance(error, DBAPIError) and error.connection_invalidated
                again = (
                    not reconnected if cut else not TRANSIENT.isdisjoint(codes(error))
                )
                if not again or time.monotonic() - began > PATIENCE:
                    raise broken(error) from error
                reconnected = reconnected or cut
            _sleep(0.005)

    def _ask(
        self,
        connection: sql.Connection,
        statement: Statement,
        values: Mapping[str, Any],
    ) -> tuple[Sequence[Any], int]:
        link = connection.connection
        try:
            with closing(link.cursor()) as cursor:
                cursor.execute(statement.text, statement.parameters(values))
                return (
                    cursor.fetchall() if statement.gives_rows else (),
                    cursor.rowcount,
                )
        except self._driver.Error as error:
            if self._engine.dialect.is_disconnect(error, link.dbapi_connection, None):
                # Whatever closed this connection has closed the idle ones as well:
                # SQLAlchemy gives them all up when it comes upon a broken one itself.
                connection.exec_driver_sql("SELECT 1")
            raise
        except BaseException:
            # The answer is still under way: nobody shall take it for theirs.
            connection.invalidate()
            raise

    def _insert(self, values: Mapping[str, Any]) -> bool:
        """Insert a row, and say whether the id was free, as it is after an expiry.

        No INSERT .. ON CONFLICT, which MySQL has not got: an id from a random token is
        never there already, so that here, too, one statement does.
        """
        try:
            return self._count("insert", values) == 1
        except StoreError as error:
            if not isinstance(error.__cause__, self._driver.IntegrityError):
                raise
            if self._count("make_room", values) == 1:
                return self._insert(values)
            if not self._rows("find", values):
                raise
            return False

    def _take(self, values: Mapping[str, Any]) -> Record | None:
        """Lease the record if it is free, and load it as it is under the lease."""
        rows, count = self._run("lock", values)
        if count == 1 and not rows:
            # MySQL cannot change a row and read it at once.  No transaction is needed
            # around the two, because the lease keeps all other writers out.
            rows = self._rows("leased", values)
        return _record(rows[0], values["held"]) if rows else None

    def _values(self, record: Record, mark: str) -> dict[str, Any]:
        """The columns of a record that is about to be saved, in the driver's types."""
        user = None if record.user is None else _encode(record.user)
        values = {
            "id": record.id,
            "data": record.data,
            "version": record.version,
            "created": record.created,
            "user_name": user,
            "user_hash": None if user is None else _hash(user),
            "state": record.state,
            "successor": record.successor,
            "mark": mark,
            "lease": None,
            "lease_until": 0.0,
            **_clock(record),
        }
        if self._fill is not None:
            filled = self._fill(record)
            if filled.keys() != self._processors.keys():
                raise StoreError(
                    f"fill gave values for {sorted(filled)}, "
                    f"but the columns are {sorted(self._processors)}"
                )
            for name, process in self._processors.items():
                values[name] = process(filled[name]) if process else filled[name]
        return values

    # -- waiting -----------------------------------------------------------------------

    def _wait(
        self, line: _Line, values: Mapping[str, Any], began: float, wait: float
    ) -> Record | None:
        """Look every few milliseconds, and take the record when it is free.

        Looking only reads, so that it is not in the way of the one who is to save.
        """
        id = values["key"]
        pause = 0.001
        while True:
            rows = self._rows("look", values)
            if not rows or rows[0][0] != "live":
                return self.load(Key(id))
            if rows[0][1] and (taken := self._take(values)):
                return taken
            waited = time.monotonic() - began
            if waited >= wait:
                raise LockTimeout(id, waited)
            line.freed.wait(min(wait - waited, pause * random.uniform(0.5, 1.5)))  # noqa: S311
            line.freed.clear()
            pause = min(pause * 1.2, 0.01)

    @contextmanager
    def _line(self, id: str) -> Iterator[_Line]:
        """The line of this process for a session, with us in it."""
        with self._mutex:
            line = self._lines.get(id) or _Line()
            if line.length >= self._lock_waiters:
                raise LockTimeout(id, 0.0, line.length)
            self._lines[id] = line
            line.length += 1
        try:
            yield line
        finally:
            with self._mutex:
                line.length -= 1
                if line.length == 0:
                    self._lines.pop(id, None)

    def _wake(self, id: str) -> None:
        if (line := self._lines.get(id)) is not None:
            line.freed.set()

    # -- forking -----------------------------------------------------------------------

    def _begin_process(self) -> None:
        self._mutex = threading.Lock()
        self._lines: dict[str, _Line] = {}
        self._process = os.getpid()
        if self._private:
            self.create_table()

    def _follow_fork(self) -> None:
        """Leave the connections to the parent that opened them, and open our own."""
        if self._process != os.getpid():
            self._engine.dispose(close=False)
            self._begin_process()


class _Line:
    """The threads of this process that wait for one session.

    Only the first one asks the database.  It is told when the holder is of this process.
    """

    __slots__ = ("first", "freed", "length")

    def __init__(self) -> None:
        self.first = threading.Lock()
        self.freed = threading.Event()
        self.length = 0


def _record(row: Sequence[Any], lease: str | None = None) -> Record:
    id, data, version, created, accessed, expires, user, state, successor, *_ = row
    return Record(
        id=id,
        data=bytes(data),
        version=version,
        created=created,
        accessed=accessed,
        expires=expires,
        user=None if user is None else bytes(user).decode("utf-8", "surrogatepass"),
        state=state,
        successor=successor,
        lease=lease,
    )


def _clock(record: Record) -> dict[str, Any]:
    return {
        "accessed": record.accessed,
        "expires": record.expires,
        "expires_hour": record.expires // HOUR,
    }


def _encode(user: str) -> bytes:
    return user.encode("utf-8", "surrogatepass")


def _hash(user: bytes) -> str:
    return hashlib.sha256(user).hexdigest()


def _sleep(longest: float) -> None:
    time.sleep(random.uniform(0, longest))  # noqa: S311
