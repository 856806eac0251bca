"""The matrix of promises and kinds of stores: ``python -m tests.promises``.

It collects the tests that hold a promise on a kind of store, and says where none does.
"""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from .conftest import KINDS

PROMISES = [f"P{number}" for number in range(1, 13)]
NOT_IN_A_COOKIE = ("P1", "P5", "P6", "P11")
"""What a session that is held in a cookie does not promise, or has no need to."""


class Collected:
    """Counts the tests of every promise and kind."""

    def __init__(self) -> None:
        self.tests: Counter[tuple[str, str]] = Counter()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            kind = getattr(item, "callspec", None) and item.callspec.params.get("kind")
            for marker in item.iter_markers("promise"):
                self.tests[marker.args[0], str(kind)] += 1


def matrix() -> Counter[tuple[str, str]]:
    """How many tests hold each promise on each kind of store."""
    collected = Collected()
    arguments = ["--collect-only", "-p", "no:terminal", "-p", "no:cacheprovider"]
    status = pytest.main([*arguments, "tests/test_promises.py"], plugins=[collected])
    assert status == pytest.ExitCode.OK, status
    return collected.tests


def missing_cells(tests: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """The cells that ought to have a test and have none."""
    return [
        (promise, kind)
        for promise in PROMISES
        for kind in KINDS
        if not tests[promise, kind]
        and not (kind == "cookie" and promise in NOT_IN_A_COOKIE)
    ]


def main() -> int:
    tests = matrix()
    print("     " + " ".join(f"{kind:>10}" for kind in KINDS))
    for promise in PROMISES:
        cells = (tests[promise, kind] or "-" for kind in KINDS)
        print(f"{promise:>4} " + " ".join(f"{cell:>10}" for cell in cells))
    for promise, kind in missing_cells(tests):
        print(f"no test holds {promise} on {kind}")
    return 1 if missing_cells(tests) else 0


if __name__ == "__main__":
    sys.exit(main())
