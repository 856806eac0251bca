"""The conformance suites: what every store must do, as tests for pytest.

The tests of a store inherit the classes that fit it and give a fixture::

    from wsgisession.testing import IterableStoreSuite, LockingStoreSuite

    class TestMine(LockingStoreSuite, IterableStoreSuite):
        @pytest.fixture
        def store(self):
            return MyStore()

``LockingStoreSuite`` contains ``StoreSuite``.  A second fixture, ``twin``, is another
client of the same storage, as another process would be; override it where the store has
one.  The suites know the protocol and no store.

pytest is imported with the first name that is taken from here, but for ``BlindStore``,
which can be had without it.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._blind import BlindStore as BlindStore
    from ._listing import IterableStoreSuite as IterableStoreSuite
    from ._locking import LockingStoreSuite as LockingStoreSuite
    from ._records import in_threads as in_threads
    from ._records import key as key
    from ._records import newer as newer
    from ._records import proof as proof
    from ._records import record as record
    from ._records import refused as refused
    from ._records import stored as stored
    from ._stores import StoreSuite as StoreSuite
    from ._tokens import TokenStoreSuite as TokenStoreSuite

__all__ = [
    "BlindStore",
    "IterableStoreSuite",
    "LockingStoreSuite",
    "StoreSuite",
    "TokenStoreSuite",
    "in_threads",
    "key",
    "newer",
    "proof",
    "record",
    "refused",
    "stored",
]

_HOMES = {
    "BlindStore": "_blind",
    "IterableStoreSuite": "_listing",
    "LockingStoreSuite": "_locking",
    "StoreSuite": "_stores",
    "TokenStoreSuite": "_tokens",
    "in_threads": "_records",
    "key": "_records",
    "newer": "_records",
    "proof": "_records",
    "record": "_records",
    "refused": "_records",
    "stored": "_records",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if home != "_blind" and f"{__name__}._records" not in sys.modules:
        import pytest

        # So that a failure shows the values, and not only the line.
        for each in ("leases", "listing", "locking", "records", "stores", "tokens"):
            pytest.register_assert_rewrite(f"{__name__}._{each}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
