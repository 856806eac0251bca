"""Sessions in a SQL database: SQLite, PostgreSQL, MySQL and MariaDB.

The folder is named as the option ``type`` is; within it ``import sqlalchemy`` still means
the driver, because an import without dots is absolute.
"""

from ._store import SQLAlchemyStore

__all__ = ["SQLAlchemyStore"]
