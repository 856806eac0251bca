"""A merge without a conflict is one request after the other: random work, compared."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from .test_merge import Values, copy_of, encoded

KEYS = st.sampled_from("abc")
VALUES = st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("has"), KEYS),
        st.tuples(st.just("set"), KEYS, VALUES),
        st.tuples(st.just("keep"), KEYS),
        st.tuples(st.just("append"), KEYS, st.integers(0, 3)),
        st.tuples(st.just("remove"), KEYS),
        st.tuples(st.just("clear")),
        st.tuples(st.just("keys")),
    ),
    max_size=5,
)
SESSIONS = st.dictionaries(KEYS, VALUES)


class Request:
    """Does steps on a copy, and remembers what it saw and what it has in its hands."""

    def __init__(self, values: Values) -> None:
        self.copy = copy_of(values)
        self.seen: list[Any] = []
        self.kept: dict[str, list[int]] = {}

    def perform(self, steps: list[tuple[Any, ...]]) -> Request:
        for verb, *rest in steps:
            self.seen.append(getattr(self, f"_{verb}")(*rest))
        return self

    def _get(self, key: str) -> str:
        return repr(self.copy.get(key))

    def _has(self, key: str) -> bool:
        return self.copy.has(key)

    def _set(self, key: str, value: Any) -> None:
        self.kept.pop(key, None)
        self.copy.set(key, list(value) if isinstance(value, list) else value)

    def _keep(self, key: str) -> str:
        value = self.copy.get(key)
        if isinstance(value, list):
            self.kept[key] = value
        return repr(value)

    def _append(self, key: str, number: int) -> str:
        """To the list that was kept, if there is one, whatever became of it."""
        value = self.kept.get(key)
        if value is None:
            value = self.copy.get(key)
        if isinstance(value, list):
            value.append(number)
        return repr(value)

    def _remove(self, key: str) -> bool:
        try:
            self.copy.remove(key)
        except KeyError:
            return False
        return True

    def _clear(self) -> None:
        self.copy.clear()

    def _keys(self) -> list[str]:
        return sorted(self.copy.keys())


class TestAgainstTheModel:
    @settings(max_examples=500, deadline=None, database=None)
    @given(SESSIONS, STEPS, st.lists(STEPS, min_size=1, max_size=2), STEPS)
    def test_a_merge_without_a_conflict_is_one_after_the_other(
        self,
        base: Values,
        before: list[tuple[Any, ...]],
        others: list[list[tuple[Any, ...]]],
        after: list[tuple[Any, ...]],
    ) -> None:
        """Without a conflict, our request gives what it had given after theirs.

        We would have seen the same, and the same would be stored.  Theirs come in the
        middle of ours, as they do where we take the lock.
        """
        ours, theirs = Request(base).perform(before), base
        for other in others:
            theirs = Request(theirs).perform(other).copy.values
            ours.copy.rebase(encoded(theirs))
        ours.perform(after)
        if not ours.copy.has_changed():
            assert ours.copy.values == theirs
            return
        if ours.copy.conflicts():
            return
        serial = Request(theirs).perform([*before, *after])
        assert ours.seen == serial.seen
        serial.copy.has_changed()
        assert ours.copy.values == serial.copy.values

    def test_the_control(self) -> None:
        """A merge that forgets a trace breaks the rule, so the rule can be broken."""
        copy = copy_of({"a": 0})
        copy.set("a", copy.get("a") + 1)
        copy.reads.clear()
        copy.rebase(encoded({"a": 1}))
        assert copy.conflicts() == frozenset()
        assert copy.values != {"a": 2}
