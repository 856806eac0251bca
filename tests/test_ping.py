"""A health check tells a store that is out of reach from one that answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wsgisession import SessionManager, StoreError
from wsgisession.stores.memory import MemoryStore

from .conftest import SECRET


def test_a_store_that_answers(store: Any) -> None:
    """Nothing is stored by it."""
    manager = SessionManager(store)
    for _ in range(2):
        manager.ping()
    assert list(manager.sessions()) == []


@pytest.mark.parametrize("revocation", [None, MemoryStore()], ids=["alone", "revoked"])
def test_a_cookie_store(revocation: Any) -> None:
    """Without revocations it needs nobody."""
    options = {"revocation": revocation} if revocation else {}
    SessionManager.from_config(url="cookie:", secret=SECRET, **options).ping()


@pytest.mark.parametrize("kind", ["redis", "postgresql+psycopg", "mysql+pymysql"])
@pytest.mark.parametrize("is_revocation", [False, True])
def test_a_server_that_is_not_there(kind: str, is_revocation: bool) -> None:
    """The error names the place; behind a cookie it is the store of the revocations."""
    url = f"{kind}://127.0.0.1:1/0"
    options = {"url": "cookie:", "secret": SECRET, "revocation": url}
    manager = SessionManager.from_config(options if is_revocation else {"url": url})
    with pytest.raises(StoreError, match=r"127\.0\.0\.1"):
        manager.ping()


def test_a_cache_that_is_not_there(tmp_path: Path) -> None:
    """It costs speed only, so the store is well."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    manager = SessionManager.from_config(url=url, cache_url="redis://127.0.0.1:1/0")
    manager.ping()
    manager.store.within.close()  # type: ignore[union-attr]
