"""Records as rows and back.

This file knows the columns and the record; it knows no statement and no database.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sql

from ...errors import ConfigurationError, StoreError
from ...record import Record, decode_replaced, encode_replaced

HOUR = 3600

Fill = Callable[[str | None, Mapping[str, Any]], Mapping[str, Any]]
"""Gives the values of columns for a user and the values of a session."""

_log = logging.getLogger("wsgisession")


class Filling:
    """The caller's columns, and the function that gives their values.

    :param columns: of the caller's.  Each must do without a value, because a record may
        have none for it.
    :param fill: gives the values by name, for a session that is about to be saved.
    """

    __slots__ = ("_absent", "_fill", "_processors")

    def __init__(
        self,
        columns: Sequence[sql.Column[Any]],
        fill: Fill | None,
        dialect: sql.Dialect,
    ) -> None:
        if bool(columns) != (fill is not None):
            raise ConfigurationError(
                "columns and fill belong together: fill gives the values of the columns"
            )
        self._fill = fill
        self._absent = {column.key: _value_of_none(column) for column in columns}
        self._processors = {
            column.key: column.type.dialect_impl(dialect).bind_processor(dialect)
            for column in columns
        }

    def values(self, record: Record) -> dict[str, Any]:
        """The values for a record, in the driver's types.

        ``fill`` is called for a session that has a user or values.  A record without a
        proof belongs to no client, and is kept for this library's own use.
        """
        if self._fill is None:
            return {}
        user, values = record.user, record.values or {}
        is_asked = record.proof and (values or user is not None)
        filled = self._fill(user, values) if is_asked else self._absent
        if filled.keys() != self._processors.keys():
            raise StoreError(
                f"fill gave values for {sorted(filled)}, "
                f"but the columns are {sorted(self._processors)}"
            )
        return {
            name: process(filled[name]) if process else filled[name]
            for name, process in self._processors.items()
        }


def _value_of_none(column: sql.Column[Any]) -> Any:
    default: Any = column.default
    value = default.arg if default is not None and default.is_scalar else None
    if value is None and not column.nullable:
        raise ConfigurationError(
            f"the column {column.key} must be nullable or have a plain default, because "
            "records that are no sessions have no value for it"
        )
    return value


def to_row(record: Record) -> dict[str, Any]:
    """All columns of ours for a record that is about to be saved, without a lease."""
    user = None if record.user is None else _encode(record.user)
    return {
        "id": record.id,
        "data": record.data,
        "version": record.version,
        "created": record.created,
        "user_name": user,
        "user_hash": None if user is None else _hash(user),
        "proof": record.proof,
        "turned": record.turned,
        "seen": record.seen,
        "replaced": encode_replaced(record.replaced),
        "lease": None,
        "lease_until": 0.0,
        "lease_since": None,
        "lease_by": None,
        **clocks(record),
    }


def clocks(record: Record) -> dict[str, Any]:
    """The columns that a touch moves."""
    return {
        "accessed": record.accessed,
        "expires": record.expires,
        "expires_hour": record.expires // HOUR,
    }


def from_row(row: Sequence[Any]) -> Record | None:
    """The record in a row of ``FIELDS``; None, and logged, if it cannot be read."""
    (
        id,
        data,
        version,
        created,
        accessed,
        expires,
        user,
        proof,
        turned,
        seen,
        replaced,
    ) = row[:11]
    try:
        return Record(
            id=id,
            data=bytes(data),
            version=version,
            created=created,
            accessed=accessed,
            expires=expires,
            user=None if user is None else bytes(user).decode("utf-8", "surrogatepass"),
            proof=proof,
            turned=turned,
            seen=seen,
            replaced=decode_replaced(replaced),
        )
    except (TypeError, ValueError) as error:
        _log.error("session %s cannot be read: %s", id[:8], type(error).__name__)
        return None


def user_hash(user: str) -> str:
    """What a user's rows are found by."""
    return _hash(_encode(user))


def _encode(user: str) -> bytes:
    return user.encode("utf-8", "surrogatepass")


def _hash(user: bytes) -> str:
    return hashlib.sha256(user).hexdigest()
