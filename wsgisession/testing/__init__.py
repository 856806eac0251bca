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

pytest is imported with the first name that is taken from here, so that
``wsgisession.testing.blind`` can be had without it.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .blind import BlindStore as BlindStore
    from .listing import IterableStoreSuite as IterableStoreSuite
    from .locking import LockingStoreSuite as LockingStoreSuite
    from .records import in_threads as in_threads
    from .records import key as key
    from .records import newer as newer
    from .records import proof as proof
    from .records import record as record
    from .records import refused as refused
    from .records import stored as stored
    from .stores import StoreSuite as StoreSuite
    from .tokens import TokenStoreSuite as TokenStoreSuite

_HOMES = {
    "BlindStore": "blind",
    "IterableStoreSuite": "listing",
    "LockingStoreSuite": "locking",
    "StoreSuite": "stores",
    "TokenStoreSuite": "tokens",
    "in_threads": "records",
    "key": "records",
    "newer": "records",
    "proof": "records",
    "record": "records",
    "refused": "records",
    "stored": "records",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if home != "blind" and f"{__name__}.records" not in sys.modules:
        import pytest

        # So that a failure shows the values, and not only the line.
        for each in ("leases", "listing", "locking", "records", "stores", "tokens"):
            pytest.register_assert_rewrite(f"{__name__}.{each}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
