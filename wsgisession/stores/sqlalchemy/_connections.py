"""Running one statement: on which connection, and what is done when it fails.

Each statement is a transaction of its own, and between two calls no connection is in
use: a lock is a lease written into the row, so that requests may hold their sessions as
long as they like while a few connections serve all the others.  This file knows
connections and faults; it knows neither the statements nor the records.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sql

from ._engines import Failure, Fault, broken, fault_of, fault_of_connecting
from ._statements import Statement

PATIENCE = 10.0
"""Seconds for which a transient fault is tried again."""
MOST = 16
"""Connections of an engine of ours; another thread waits until one is free."""

Given = tuple[Sequence[Any], int]


class Answer(NamedTuple):
    """What the database said."""

    rows: Sequence[Any]
    met: int
    """How many rows were changed, or would have been."""
    unsure: bool
    """A connection broke, so that this is the answer to a second try."""
    refused: Exception | None = None
    """The constraint that stands against the row; nothing was written."""


class Connections(Protocol):
    """Where a connection for one statement comes from.

    Both methods raise ``Failure``.
    """

    def ask(self, statement: Statement, values: Mapping[str, Any]) -> Given:
        """Run a statement."""

    def ask_anew(self, statement: Statement, values: Mapping[str, Any]) -> Given:
        """Run it on a connection that is opened for it."""

    def close(self) -> None:
        """Close what is idle; more may be asked afterwards."""


class Database:
    """Statements by name, and the connections to run them on.

    :param create: makes the table where it is found missing; None: it is not ours.
    :param place: where the database is, for messages.
    """

    __slots__ = ("_connections", "_create", "_place", "_statements")

    def __init__(
        self,
        connections: Connections,
        statements: Mapping[str, Statement],
        create: Callable[[], None] | None,
        place: str,
    ) -> None:
        self._place = place
        self._connections = connections
        self._statements = statements
        self._create = create

    def __contains__(self, name: str) -> bool:
        return name in self._statements

    def run(self, name: str, values: Mapping[str, Any]) -> Answer:
        """Run a statement, and try again where that helps.

        Every statement may run twice: by the version or by the lease it finds what it
        did the first time.
        """
        statement = self._statements[name]
        ask = self._connections.ask
        began = time.monotonic()
        done: set[Fault] = set()
        while True:
            try:
                return Answer(*ask(statement, values), Fault.BROKEN in done)
            except Failure as failure:
                cause, fault = failure.cause, failure.fault
            ask = self._connections.ask
            if fault is Fault.REFUSED:
                return Answer((), 0, Fault.BROKEN in done, cause)
            if fault is Fault.TRANSIENT and time.monotonic() - began < PATIENCE:
                sleep(0.005)
            elif fault in (Fault.STALE, Fault.BROKEN) and done.isdisjoint(
                (Fault.STALE, Fault.BROKEN)
            ):
                ask = self._connections.ask_anew
            elif fault is Fault.NO_TABLE and self._create and fault not in done:
                self._create()
            else:
                raise broken(cause, self._place) from cause
            done.add(fault)


class _Link:
    """A connection of the driver's, and the cursor that is used again and again."""

    __slots__ = ("connection", "cursor", "durable", "generation")

    def __init__(self, connection: Any, generation: int) -> None:
        self.connection = connection
        self.cursor = connection.cursor()
        self.durable: bool | None = None
        self.generation = generation

    def close(self) -> None:
        # First the cursor: as long as it is open SQLite keeps its files open, and an
        # error on its way to the log holds it.
        for each in (self.cursor, self.connection):
            with suppress(Exception):
                each.close()


class Kept:
    """The connections of an engine of ours, which are ours alone and stay open.

    A read from SQLite takes a fraction of the time that it takes through a pool.
    """

    def __init__(self, engine: sql.Engine) -> None:
        self._engine = engine
        self._pragmas = engine.dialect.name == "sqlite"
        self._generation = 0
        self._left: list[deque[_Link]] = []
        self._begin()

    def ask(self, statement: Statement, values: Mapping[str, Any]) -> Given:
        if self._process != os.getpid():
            self._follow_fork()
        slots = self._slots
        if not slots.acquire(timeout=PATIENCE):
            cause = TimeoutError(f"all {MOST} connections are in use")
            raise Failure(cause, Fault.OTHER)
        try:
            try:
                link = self._link()
            except Failure:
                if not self._pragmas or statement.durable is not None:
                    raise
                if (given := read_unopened(self._engine, statement, values)) is None:
                    raise
                return given
            try:
                if self._pragmas:
                    _synchronise(link, statement)
                given = statement.run(link.cursor, values)
            except BaseException as error:
                raise self._given_up(link, error) from None
            self._idle.append(link)
            return given
        finally:
            slots.release()

    def ask_anew(self, statement: Statement, values: Mapping[str, Any]) -> Given:
        # What closed one connection has closed the idle ones as well.
        self.close()
        return self.ask(statement, values)

    def close(self) -> None:
        if self._process != os.getpid():
            self._follow_fork()
        self._generation += 1
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _link(self) -> _Link:
        """An idle connection, the one used last, or a new one."""
        with suppress(IndexError):
            while True:
                link = self._idle.pop()
                if link.generation == self._generation:
                    return link
                link.close()
        generation = self._generation
        try:
            lent = self._engine.raw_connection()
            connection = lent.dbapi_connection
            lent.detach()  # else it would be closed with ``lent``, in a child too
            return _Link(connection, generation)
        except Exception as error:
            raise Failure(error, fault_of_connecting(error)) from None

    def _given_up(self, link: _Link, error: BaseException) -> BaseException:
        """The error to raise; what may still send an answer is closed."""
        if not isinstance(error, Exception):
            link.close()
            return error
        fault = fault_of(error, self._engine.dialect, link.connection)
        if fault in (Fault.TRANSIENT, Fault.REFUSED, Fault.NO_TABLE, Fault.FULL):
            self._idle.append(link)
        else:
            link.close()
        return Failure(error, fault)

    def _begin(self) -> None:
        self._slots = threading.Semaphore(MOST)
        self._idle: deque[_Link] = deque()
        self._process = os.getpid()

    def _follow_fork(self) -> None:
        # They are the parent's.  Were they forgotten, some drivers would say goodbye to
        # the server in the parent's name.
        self._left.append(self._idle)
        self._begin()


class Lent:
    """Connections of an engine's pool, lent for one statement each."""

    def __init__(self, engine: sql.Engine) -> None:
        self._engine = engine
        self._process = os.getpid()

    def ask(self, statement: Statement, values: Mapping[str, Any]) -> Given:
        self._follow_fork()
        try:
            connection = self._engine.connect()
        except Exception as error:
            # Some drivers ask the server something here, on a connection that it may
            # have closed long ago.
            fault = fault_of_connecting(error)
            if fault is Fault.OTHER:
                fault = Fault.STALE
            raise Failure(error, fault) from None
        try:
            with closing(connection.connection.cursor()) as cursor:
                return statement.run(cursor, values)
        except Exception as error:
            raise self._given_up(connection, error) from None
        except BaseException:
            # The answer is still under way: nobody shall take it for theirs.
            connection.invalidate()
            raise
        finally:
            # What happens on the way back to the pool does not change the answer.
            with suppress(Exception):
                connection.close()

    def ask_anew(self, statement: Statement, values: Mapping[str, Any]) -> Given:
        # The pool may hold more connections like the one that failed; it is the
        # caller's, and goes on as it is.
        dialect = self._engine.dialect
        with _pool_like(self._engine.pool) as pool:
            try:
                link = pool.connect()
                driver: Any = link.dbapi_connection
                dialect.set_isolation_level(driver, "AUTOCOMMIT")
            except Exception as error:
                raise Failure(error, fault_of_connecting(error)) from None
            try:
                with closing(link.cursor()) as cursor:
                    return statement.run(cursor, values)
            except Exception as error:
                raise Failure(error, fault_of(error, dialect, driver)) from None
            finally:
                link.invalidate()

    def close(self) -> None:
        self._follow_fork()
        self._engine.dispose()

    def _follow_fork(self) -> None:
        if self._process != os.getpid():
            self._engine.dispose(close=False)  # they are the parent's
            self._process = os.getpid()

    def _given_up(self, connection: sql.Connection, error: Exception) -> Failure:
        driver = connection.connection.dbapi_connection
        fault = fault_of(error, self._engine.dialect, driver)
        if fault is Fault.BROKEN:
            # SQLAlchemy gives up all idle connections when it finds a broken one itself.
            with suppress(Exception):
                connection.exec_driver_sql("SELECT 1")
        # An error of another kind may have left half of an answer unread.  (In SQLite
        # there is no such thing, and the connection may be the database.)
        dialect: Any = self._engine.dialect
        torn = not isinstance(error, dialect.loaded_dbapi.Error)
        if fault in (Fault.BROKEN, Fault.STALE) or (torn and dialect.name != "sqlite"):
            connection.invalidate()
        return Failure(error, fault)


@contextmanager
def _pool_like(pool: sql.Pool) -> Iterator[sql.Pool]:
    """An empty pool that connects as another one does."""
    empty = pool.recreate()
    try:
        yield empty
    finally:
        empty.dispose()


def _synchronise(link: _Link, statement: Statement) -> None:
    """Let SQLite wait for the disk where the statement must be durable, or not."""
    durable = statement.durable
    if durable is not None and durable is not link.durable:
        link.cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        link.durable = durable


def read_unopened(
    engine: sql.Engine, statement: Statement, values: Mapping[str, Any]
) -> Given | None:
    """Read a database of SQLite that has no room, or no right, for the files beside it.

    None where another process has it open, whose log is not seen here, or changed it.
    """
    driver: Any = engine.dialect.loaded_dbapi
    path = Path(engine.url.database or "").absolute()
    log = path.with_name(path.name + "-wal")
    try:
        before = path.stat()
        uri = f"{path.as_uri()}?immutable=1"
        with closing(driver.connect(uri, uri=True)) as connection:
            given = statement.run(connection.cursor(), values)
        after = path.stat()
        is_logged = log.exists() and log.stat().st_size > 0
    except (OSError, driver.Error):
        return None
    is_same = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    return given if is_same and not is_logged else None


def sleep(longest: float) -> None:
    """Sleep for a random while, so that those who wait do not fall into step."""
    time.sleep(random.uniform(0, longest))  # noqa: S311
