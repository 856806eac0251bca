"""The tables of the documentation name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
TABLES = ["situations.rst", "seeds.rst"]


def named(text: str) -> list[tuple[str, list[str]]]:
    """Files of tests, each with the names of a class and a function within it."""
    found: list[tuple[str, list[str]]] = []
    for quoted in re.findall(r"``([^`\n]*(?:\.py|::)[^`\n]*)``", text):
        file, *parts = quoted.split("::")
        if file:
            name = file if file.startswith("tests/") else _below(file)
            found.append((name, parts))
        else:
            found.append((found[-1][0], parts))
    return found


def _below(file: str) -> str:
    return f"tests/{'' if '/' in file else 'deployments/'}{file}"


def missing_of(tests: list[tuple[str, list[str]]]) -> list[str]:
    """What of it is not there."""
    gone = []
    for file, parts in tests:
        path = PROJECT / file
        source = path.read_text("utf-8") if path.is_file() else ""
        lacks = [p for p in parts if not re.search(rf"(def|class) {p}\b", source)]
        if not source or lacks:
            gone.append("::".join([file, *parts]))
    return gone


@pytest.mark.parametrize("table", TABLES)
def test_every_row_names_a_test_that_exists(table: str) -> None:
    """A row without its test would be a promise that nobody holds."""
    text = (PROJECT / "docs" / table).read_text("utf-8")
    tests = named(text)
    assert len(tests) >= text.count("   * - ") > 40
    assert missing_of(tests) == []


def test_each_promise_says_what_it_does_not_cover_and_who_holds_it() -> None:
    """A heading for each, and tests that exist."""
    text = (PROJECT / "docs" / "promises.rst").read_text("utf-8")
    first, *parts = re.split(r"^(P\d+): .*\n-+\n", text, flags=re.MULTILINE)
    assert parts[::2] == [f"P{number}" for number in range(1, 13)]
    assert missing_of(named(first)) == []
    for said in parts[1::2]:
        tests = named(said.split("*Tests.*")[1])
        assert tests
        assert missing_of(tests) == []


def test_a_name_that_is_gone_is_found() -> None:
    """The control."""
    text = "``test_table.py::test_gone``, ``::test_too``, ``stores/test_gone.py``"
    assert len(missing_of(named(text))) == 3
    assert (
        missing_of(named("``test_table.py``, ``tests/conftest.py::redis_url``")) == []
    )
