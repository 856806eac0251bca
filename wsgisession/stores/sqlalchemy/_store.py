"""The store: what each promise of the protocol means in statements.

This file knows records, statements by name and who waits in this process; it knows
neither SQL nor connections.

Extra columns are the caller's, by ``columns`` and ``fill``.  That is called at each save
of a session that has a user or values, with both, and what it returns is never encrypted.
In an emptied session the columns have their defaults::

    def account(user, values):
        return {"account_id": values.get("account_id"), "login_name": user}

    columns = [
        Column("account_id", Integer, index=True),
        Column("login_name", String(80)),
    ]
    store = SQLAlchemyStore(url, columns=columns, fill=account)
"""

from __future__ import annotations

import random
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import SQLAlchemyError

from ..._health import Finding
from ...errors import ConfigurationError, LockTimeout, StoreError, VersionConflict
from ...record import Key, Record
from ...store import Capabilities
from ._connections import PATIENCE, Connections, Database, Kept, Lent, sleep
from ._engines import (
    TRANSIENT,
    broken,
    checked_engine,
    codes,
    in_memory,
    make_engine,
    place_of,
)
from ._health import examine
from ._lines import Line, Lines
from ._rows import Fill, Filling, clocks, from_row, to_row, user_hash
from ._statements import BY, SWEEP, make_table, statements

PAGE = 200
TRIES = 3
BLIND = 0.1
"""Seconds after which a lock is tried although it looks taken."""
ID = re.compile(r"[0-9a-f]{32}")
PROOF = re.compile(r"[0-9a-f]{64}")


class SQLAlchemyStore:
    """A table of records, each with its lease in its own row.

    :param url: of the database, for an engine of our own.  It has up to 16 connections
        in a process.  With psycopg statements are prepared where no pooler like PgBouncer
        is in between, unless the url says so by ``prepare_threshold``.  A SQLite database
        in memory lives in one process, and the file of another is its owner's alone.
    :param engine: the caller's instead.  The store connects as it does, in a pool of its
        own of the same size, because a request may hold a connection of the application's
        when its session is saved; each statement is committed.  With
        ``isolation_level="AUTOCOMMIT"`` in it, some drivers spare a round trip.
    :param table_name: of the table, which is in ``schema`` if one is given.
    :param columns: more columns, of the caller's; nullable, or with a plain default.
    :param fill: gives their values, by name, of the user and the values of a session that
        is about to be saved.
    :param create_table: whether the table is made when it is found missing; by default
        with ``url`` only.

    Of the requests that wait for a lock, those of other processes are not counted.

    A table that is not made so is made by ``create_table()`` or by a migration of the
    caller's: ``metadata`` holds ``table`` and nothing else, and can be Alembic's
    ``target_metadata``.  Raises ``ConfigurationError`` for what cannot work.
    """

    def __init__(
        self,
        url: str | sql.URL | None = None,
        *,
        engine: sql.Engine | None = None,
        table_name: str = "wsgisession",
        schema: str | None = None,
        columns: Sequence[sql.Column[Any]] = (),
        fill: Fill | None = None,
        create_table: bool | None = None,
    ) -> None:
        if (url is None) == (engine is None):
            raise ConfigurationError("give either the url of a database or an engine")
        self._engine = checked_engine(engine) if url is None else make_engine(url)
        self._may_close = self._engine.pool is not getattr(engine, "pool", None)
        dialect = self._engine.dialect
        self.capabilities: Capabilities = Capabilities(
            locks=True,
            lists=True,
            one_process=in_memory(self._engine.url),
            fills=fill is not None,
        )
        self._place = place_of(self._engine.url)
        self._filling = Filling(columns, fill, dialect)
        self.metadata: sql.MetaData = sql.MetaData(schema=schema)
        self.table: sql.Table = make_table(table_name, self.metadata, columns)
        # The connection to a database in memory is the database: its pool has one.
        kept = url is not None and not in_memory(self._engine.url)
        self._connections: Connections = (Kept if kept else Lent)(self._engine)
        creates = url is not None if create_table is None else create_table
        self._database = Database(
            self._connections,
            statements(self.table, dialect),
            self.create_table if creates else None,
            self._place,
        )
        self._lines = Lines()

    def create_table(self) -> None:
        """Create the table and its indexes, as far as they are missing.

        Raises ``StoreError`` if the database refuses.
        """
        began = time.monotonic()
        # At each of its parts another process may have been quicker.
        tries = TRIES + 1 + len(self.table.indexes)
        for attempt in count(1):
            try:
                self.table.create(self._engine, checkfirst=True)
                for index in self.table.indexes:
                    index.create(self._engine, checkfirst=True)
                return
            except SQLAlchemyError as error:
                busy = not TRANSIENT.isdisjoint(codes(error))  # another one writes now
                patient = time.monotonic() - began < PATIENCE
                if not (patient if busy else attempt < tries):
                    raise broken(error, self._place) from error
            sleep(0.1)

    def close(self) -> None:
        """Close the idle connections that are the store's own; it may be used on."""
        if self._may_close:
            self._connections.close()

    def examine(self) -> Iterator[Finding]:
        """What there is to know of the database; asked on a connection of its own."""
        try:
            yield from examine(self._engine, self.table)
        except SQLAlchemyError as error:
            raise broken(error, self._place) from error

    # -- Store -------------------------------------------------------------------------

    def load(self, key: Key) -> Record | None:
        if not ID.fullmatch(key.id):
            return None
        rows = self._rows("load", {"id_is": key.id})
        return from_row(rows[0]) if rows else None

    def save(self, record: Record, *, expect: int) -> None:
        values = to_row(record)
        values.update(self._filling.values(record))
        values.update(id_is=record.id, version_is=expect, lease_is=record.lease)
        if expect == 0:
            self._insert(record, values)
        else:
            self._update(record, values)
        self._lines.wake(record.id)

    def touch(self, record: Record) -> bool:
        values = {
            **clocks(record),
            "id_is": record.id,
            "version_is": record.version,
            "lease_is": record.lease,
        }
        touched = self._count("touch", values) == 1
        if not touched:
            self.unlock(record)
        self._lines.wake(record.id)
        return touched

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        if not ID.fullmatch(key.id):
            return False
        if user is None:
            deleted = self._count("delete", {"id_is": key.id})
        else:
            values = {"id_is": key.id, "user_is": user_hash(user)}
            deleted = self._count("delete_of_user", values)
        self._lines.wake(key.id)
        return deleted == 1

    # -- LockingStore ------------------------------------------------------------------

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        if not ID.fullmatch(key.id):
            return None
        began = time.monotonic()
        values = {
            "id_is": key.id,
            "lease_is": secrets.token_hex(16),
            "seconds": lease,
            "by": by[:BY],
            "proof_is": key.proof or "",
            "proof_in": _pattern(key.proof),
        }
        # A request that comes while others wait lines up behind them.
        if key.id not in self._lines and (taken := self._take(key, values)):
            return taken
        found = self._for_lock(key)
        if found is None or not found.admits(key.proof, time.time()):
            return found
        with self._lines.join(key.id, waiters) as line:
            if not line.first.acquire(timeout=wait):
                raise self._timeout(key.id, time.monotonic() - began)
            try:
                return self._wait(line, key, values, began, wait)
            finally:
                line.first.release()

    def unlock(self, record: Record) -> None:
        if record.lease is not None:
            self._count("unlock", {"id_is": record.id, "lease_is": record.lease})
            self._lines.wake(record.id)

    # -- IterableStore -----------------------------------------------------------------

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        statement = "page" if user is None else "page_of_user"
        values: dict[str, Any] = {"after": "", "page": PAGE}
        if user is not None:
            values["user_is"] = user_hash(user)
        # Pages, for a cursor left open would keep SQLite from letting the caller write.
        while rows := self._rows(statement, values):
            yield from filter(None, map(from_row, rows))
            values["after"] = rows[-1][0]

    def delete_expired(self, *, batch: int) -> int:
        began = time.monotonic()
        most = SWEEP[self._engine.dialect.name]
        swept = self._count("sweep", {"batch": min(batch, most)})
        if "write_back" in self._database:
            self._database.run("write_back", {})
        # Those who waited for it come before the next batch: SQLite keeps no queue.
        time.sleep(time.monotonic() - began)
        return swept

    # -- saving ------------------------------------------------------------------------

    def _update(self, record: Record, values: Mapping[str, Any]) -> None:
        answer = self._database.run("update", values)
        if answer.refused is not None:
            raise broken(answer.refused, self._place) from answer.refused
        if answer.met == 1:
            return
        self.unlock(record)
        found = self._current(record.id)
        if answer.unsure:
            if found is not None and found.version == record.version:
                return
            if found is None or found.version != values["version_is"]:
                raise _unknown(record)
        raise VersionConflict(record.id, found)

    def _current(self, id: str) -> Record | None:
        rows = self._rows("current", {"id_is": id})
        return from_row(rows[0]) if rows else None

    def _insert(self, record: Record, values: Mapping[str, Any]) -> None:
        """Insert a row; where an expired one is in its place, that is removed.

        No INSERT .. ON CONFLICT, which MySQL has not got: a random id is never there
        already, so that one statement does.
        """
        unsure = False
        for attempt in count(1):
            answer = self._database.run("insert", values)
            if answer.refused is None:
                return
            unsure = unsure or answer.unsure
            found = self._current(record.id)
            if found is not None:
                if unsure and found.version == record.version:
                    return
                if unsure:
                    raise _unknown(record)
                self.unlock(record)
                raise VersionConflict(record.id, found)
            if self._count("make_room", values) == 0 and attempt == TRIES:
                # Nothing is in its place: it is a constraint of the caller's.
                raise broken(answer.refused, self._place) from answer.refused

    # -- locking -----------------------------------------------------------------------

    def _take(self, key: Key, values: Mapping[str, Any]) -> Record | None:
        """Lease the record if it is free, and give it as it is under the lease.

        The statement gives a lease to every proof that the record knows.  One that is no
        longer good gives it back, and the record is returned without it.
        """
        answer = self._database.run("lock", values)
        rows = answer.rows
        if answer.met == 1 and not rows:
            # MySQL cannot change a row and read it at once.  No transaction is needed
            # around the two, because the lease keeps all other writers out.
            rows = self._rows("leased", values)
        if not rows:
            return None
        record = from_row(rows[0])
        if record is not None and record.admits(key.proof, time.time()):
            return record._replace(lease=values["lease_is"])
        self._count("unlock", values)
        self._lines.wake(key.id)
        return record

    def _wait(
        self,
        line: Line,
        key: Key,
        values: Mapping[str, Any],
        began: float,
        wait: float,
    ) -> Record | None:
        """Look every few milliseconds, and take the record when it is free.

        Looking only reads, so that it is not in the way of the one who is to save.  Where
        it may have been shown a replica that lags behind, taking is tried all the same.
        """
        version = None
        pause = 0.001
        tried, is_woken = began, False
        while True:
            seen, is_free = (self._rows("watch", values) or [(None, True)])[0]
            if seen is None or seen != version:
                found = self._for_lock(key)
                if found is None or not found.admits(key.proof, time.time()):
                    return found
                version = found.version
            now = time.monotonic()
            if is_free or is_woken or seen != version or now - tried > BLIND:
                tried = now
                if taken := self._take(key, values):
                    return taken
            waited = now - began
            if waited >= wait:
                raise self._timeout(key.id, waited)
            pausing = pause * random.uniform(0.5, 1.5)  # noqa: S311
            is_woken = line.freed.wait(min(wait - waited, pausing))
            line.freed.clear()
            pause = min(pause * 1.2, 0.01)

    def _timeout(
        self, id: str, waited: float, waiters: int | None = None
    ) -> LockTimeout:
        """The error, with what is known of the holder."""
        for by, held_for in self._rows("holder", {"id_is": id}):
            return LockTimeout(id, waited, waiters, held_by=by, held_for=held_for)
        return LockTimeout(id, waited, waiters)

    def _for_lock(self, key: Key) -> Record | None:
        """The record; that nobody may lock it is never believed to a replica."""
        found = self.load(key)
        if found is None or not found.admits(key.proof, time.time()):
            return self._current(key.id)
        return found

    # -- asking ------------------------------------------------------------------------

    def _rows(self, name: str, values: Mapping[str, Any]) -> Sequence[Any]:
        return self._database.run(name, values).rows

    def _count(self, name: str, values: Mapping[str, Any]) -> int:
        return self._database.run(name, values).met


def _pattern(proof: str | None) -> str:
    """What LIKE finds a proof by among those that were replaced; None is always found."""
    if proof is None:
        return "%"
    return f'%"{proof}"%' if PROOF.fullmatch(proof) else ""


def _unknown(record: Record) -> StoreError:
    return StoreError(
        f"the connection broke while session {record.id[:8]} was saved, and what is "
        "stored now does not tell whether it was"
    )
