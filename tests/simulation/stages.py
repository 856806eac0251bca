"""The stores that programs run on, by name."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import edition
from .simulator import Stage


@contextmanager
def stage_of(name: str, url: str | None = None) -> Iterator[Stage]:
    """A stage for a kind of store, at a url where it needs one."""
    if name == "memory":
        yield Stage(edition.MemoryStore)
        return
    with tempfile.TemporaryDirectory(prefix="simulation") as folder:
        store = _real(name, url, Path(folder))
        stage = Stage(lambda: store, fresh=False)
        stage.base = time.time()
        try:
            yield stage
        finally:
            getattr(store, "close", lambda: None)()


def _real(name: str, url: str | None, folder: Path) -> Any:
    if name == "file":
        from wsgisession.stores.file import FileStore

        return FileStore(folder / "sessions")
    if name == "redis":
        from wsgisession.stores.redis import RedisStore

        return RedisStore(url, key_prefix=f"simulation-{uuid.uuid4().hex[:8]}:")
    from wsgisession.stores.sqlalchemy import SQLAlchemyStore

    store = SQLAlchemyStore(url or f"sqlite:///{folder / 'sessions.db'}")
    if hasattr(store, "create_table"):
        store.create_table()
    return store
