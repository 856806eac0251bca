"""Sessions in Redis or Valkey."""

from ._store import RedisStore

__all__ = ["RedisStore"]
