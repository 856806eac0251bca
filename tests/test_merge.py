"""An update is lost only where a key was read, and changed by another since."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsgisession import ABSENT, JSONSerializer, SessionManager
from wsgisession.merge import Draft
from wsgisession.stores.memory import MemoryStore

from .conftest import reopened, stored

fuzz = settings(deadline=None, database=None)
encode = JSONSerializer().dumps

Values = dict[str, Any]
Work = Callable[[Draft], object]


class Meeting:
    """Our draft of a base, and what another has stored meanwhile."""

    def __init__(self, base: Values, work: Work, theirs: Values) -> None:
        self.base, self.theirs = base, theirs
        self.draft = Draft(copy.deepcopy(base))
        work(self.draft)

    @property
    def clashes(self) -> set[str]:
        return set(self.draft.clashes(self.base, self.theirs, encode))

    @property
    def changes(self) -> Values:
        return self.draft.changes(self.base, encode)

    @property
    def merged(self) -> Values:
        self.draft.rebase(self.base, copy.deepcopy(self.theirs), encode)
        return self.draft.values


def set_(key: str, value: Any) -> Work:
    return lambda draft: draft.set(key, value)


def increment(draft: Draft) -> None:
    draft.set("n", draft.get("n") + 1)


def look(draft: Draft) -> None:
    draft.get("n")


def survey(draft: Draft) -> None:
    list(draft.survey())


# Base, what we do, theirs; then which keys clash, and what is to be stored.
TABLE: dict[str, tuple[Values, Work, Values, set[str], Values]] = {
    "a blind set wins": ({"n": 1}, set_("n", 5), {"n": 2}, set(), {"n": 5}),
    "a blind set of a new key": ({}, set_("a", 1), {"b": 2}, set(), {"a": 1, "b": 2}),
    "a blind set of what they ended": ({"n": 1}, set_("n", 5), {}, set(), {"n": 5}),
    "read and set": ({"n": 1}, increment, {"n": 2}, {"n"}, {"n": 2}),
    "read and set beside": (
        {"n": 1, "x": 1},
        increment,
        {"n": 1, "x": 2, "y": 3},
        set(),
        {"n": 2, "x": 2, "y": 3},
    ),
    "read alone": ({"n": 1}, look, {"n": 2}, {"n"}, {"n": 2}),
    "read what they removed": ({"n": 1}, look, {}, {"n"}, {}),
    "read what was not there": ({}, look, {"n": 1}, {"n"}, {"n": 1}),
    "asked and got no": ({}, lambda d: d.has("n"), {"n": 1}, {"n"}, {"n": 1}),
    "asked and got yes": ({"n": 1}, lambda d: d.has("n"), {}, {"n"}, {}),
    "asked beside": ({"n": 1}, lambda d: d.has("x"), {"n": 2}, set(), {"n": 2}),
    "removed": ({"n": 1}, lambda d: d.remove("n"), {"n": 1, "x": 1}, set(), {"x": 1}),
    "removed what they changed": (
        {"n": 1},
        lambda d: d.remove("n"),
        {"n": 2},
        {"n"},
        {},
    ),
    "removed what they removed": ({"n": 1}, lambda d: d.remove("n"), {}, {"n"}, {}),
    "cleared": ({"n": 1}, lambda d: d.clear(), {"n": 2, "x": 3}, set(), {}),
    "cleared and set": (
        {"n": 1},
        lambda d: (d.clear(), d.set("a", 1)),
        {"n": 2, "x": 3},
        set(),
        {"a": 1},
    ),
    "surveyed, one came": ({"n": 1}, survey, {"n": 1, "x": 1}, {"x"}, {"n": 1, "x": 1}),
    "surveyed, one went": ({"n": 1, "x": 1}, survey, {"n": 1}, {"x"}, {"n": 1}),
    "surveyed, one changed": ({"n": 1}, survey, {"n": 2}, set(), {"n": 2}),
    "nothing done": (
        {"n": 1},
        lambda d: None,
        {"n": 2, "x": 1},
        set(),
        {"n": 2, "x": 1},
    ),
    "they changed nothing": ({"n": 1}, increment, {"n": 1}, set(), {"n": 2}),
    "both the same": ({"n": 1}, increment, {"n": 2}, {"n"}, {"n": 2}),
    "nested beside": (
        {"a": [1], "b": [2]},
        lambda d: d.get("a").append(9),
        {"a": [1], "b": [2, 3]},
        set(),
        {"a": [1, 9], "b": [2, 3]},
    ),
    "nested in the same": (
        {"a": [1]},
        lambda d: d.get("a").append(9),
        {"a": [1, 2]},
        {"a"},
        {"a": [1, 9]},
    ),
}


class TestMerge:
    @pytest.mark.parametrize("case", TABLE)
    def test_what_clashes(self, case: str) -> None:
        """Only a key that was read here and changed there."""
        base, work, theirs, clashes, _ = TABLE[case]
        assert Meeting(base, work, theirs).clashes == clashes

    @pytest.mark.parametrize("case", TABLE)
    def test_what_is_stored(self, case: str) -> None:
        """Our changed keys over theirs, key by key; all others are theirs."""
        base, work, theirs, _, merged = TABLE[case]
        assert Meeting(base, work, theirs).merged == merged

    @pytest.mark.parametrize("case", TABLE)
    def test_a_clash_is_remembered(self, case: str) -> None:
        """After the merge the draft still knows what it had read and lost."""
        base, work, theirs, clashes, _ = TABLE[case]
        meeting = Meeting(base, work, theirs)
        assert meeting.merged is not None
        assert meeting.draft.stale == clashes
        assert meeting.draft.clashes(theirs, theirs, encode) == clashes

    def test_merging_twice_with_the_same_is_merging_once(self) -> None:
        """Theirs that did not change again changes nothing again."""
        for base, work, theirs, _, merged in TABLE.values():
            meeting = Meeting(base, work, theirs)
            assert meeting.merged == merged
            meeting.draft.rebase(theirs, copy.deepcopy(theirs), encode)
            assert meeting.draft.values == merged

    def test_two_others_one_after_the_other(self) -> None:
        """Our changes survive a second merge, and so do both of theirs."""
        draft = Draft({"a": 1, "n": 0})
        draft.set("a", 2)
        draft.rebase({"a": 1, "n": 0}, {"a": 1, "n": 1}, encode)
        draft.rebase({"a": 1, "n": 1}, {"a": 9, "n": 1, "z": 3}, encode)
        assert draft.values == {"a": 2, "n": 1, "z": 3}
        assert draft.stale == set()

    def test_a_value_that_went_and_came_back_is_still_a_clash(self) -> None:
        """What was read stays stale, even if another restores the old value."""
        draft = Draft({"n": 1})
        increment(draft)
        draft.rebase({"n": 1}, {"n": 5}, encode)
        draft.rebase({"n": 5}, {"n": 1}, encode)
        assert draft.stale == {"n"}


class TestPitfallRecursiveMerge:
    """Merging inside values turned dates into ``{}`` (connect-redis #346)."""

    def test_a_value_is_ours_or_theirs_and_never_a_mixture(self) -> None:
        """Two who change one dict: one of both dicts is stored, and the clash is told."""
        base = {"d": {"x": 1, "y": 1}}
        meeting = Meeting(
            base, lambda d: d.get("d").update(x=2), {"d": {"x": 1, "y": 2}}
        )
        assert meeting.clashes == {"d"}
        assert meeting.merged == {"d": {"x": 2, "y": 1}}


class TestWhatHasChanged:
    @pytest.mark.parametrize(
        ("base", "work", "changes"),
        [
            ({}, lambda d: None, {}),
            ({"n": 1}, look, {}),
            ({"n": 1}, increment, {"n": 2}),
            ({"n": 1}, set_("n", 1), {"n": 1}),
            ({"n": 1}, lambda d: d.remove("n"), {"n": ABSENT}),
            ({"n": 1, "x": 2}, lambda d: d.clear(), {"n": ABSENT, "x": ABSENT}),
            ({"n": 1}, lambda d: (d.clear(), d.set("n", 2)), {"n": 2}),
            ({"n": 1}, lambda d: (d.remove("n"), d.set("n", 1)), {"n": 1}),
            ({}, lambda d: (d.set("n", 1), d.remove("n")), {"n": ABSENT}),
            ({"a": [1]}, lambda d: d.get("a"), {}),
            ({"a": [1]}, lambda d: d.get("a").append(2), {"a": [1, 2]}),
            ({"a": [[1]]}, lambda d: d.get("a")[0].append(2), {"a": [[1, 2]]}),
            ({"a": {"b": {1}}}, lambda d: d.get("a")["b"].add(2), {"a": {"b": {1, 2}}}),
            ({"a": ([1],)}, lambda d: d.get("a")[0].append(2), {"a": ([1, 2],)}),
            ({"a": [1]}, lambda d: (d.get("a").append(2), d.get("a").pop()), {}),
            ({"a": [1]}, lambda d: d.values["a"].append(2), {}),
        ],
    )
    def test_a_table(self, base: Values, work: Work, changes: Values) -> None:
        """Changes come from writing, or from a list or dict that was handed out."""
        assert Meeting(base, work, base).changes == changes

    @pytest.mark.parametrize(
        ("one", "two"),
        [(1, True), (1, 1.0), (True, 1.0), (0, False), (0.0, -0.0), ((1,), [1])],
        ids=repr,
    )
    def test_equal_in_python_is_not_the_same(self, one: Any, two: Any) -> None:
        """1, True and 1.0 are three values, for changes and for clashes."""
        handed = Meeting(
            {"a": [one]}, lambda d: d.get("a").__setitem__(0, two), {"a": [one]}
        )
        assert set(handed.changes) == {"a"}
        assert Meeting({"n": one}, look, {"n": two}).clashes == {"n"}

    def test_a_scalar_that_was_read_is_above_suspicion(self) -> None:
        """Reading scalars costs no encoding at the end; reading a list does."""
        draft = Draft({"n": 1, "s": "a", "a": [1], "t": ()})
        draft.get("n"), draft.get("s"), draft.has("a"), list(draft.survey())
        assert not draft.suspect
        draft.get("a")
        assert draft.suspect
        assert draft.changes({"n": 1, "s": "a", "a": [1], "t": ()}, encode) == {}

    def test_none_is_a_value(self) -> None:
        """A key whose value is None is there; one that is absent is not."""
        draft = Draft({"n": None})
        assert draft.get("n") is None
        assert draft.get("x") is ABSENT
        assert Meeting({"n": None}, look, {}).clashes == {"n"}
        assert Meeting({}, look, {"n": None}).clashes == {"n"}

    def test_removing_what_is_not_there_is_a_look(self) -> None:
        """A KeyError has told the caller something, and has changed nothing."""
        draft = Draft({})
        with pytest.raises(KeyError):
            draft.remove("n")
        assert not draft.suspect
        assert draft.clashes({}, {"n": 1}, encode) == {"n"}


class TestStale:
    """What was read, changed by another since, and not read again."""

    @pytest.fixture
    def stale(self) -> Draft:
        """A draft that has read ``n`` as 1; by now it is 5."""
        draft = Draft({"n": 1})
        draft.get("n")
        draft.rebase({"n": 1}, {"n": 5}, encode)
        assert draft.stale == {"n"}
        return draft

    def test_reading_again_sees_theirs_and_settles_it(self, stale: Draft) -> None:
        """Under the lock, a second look makes up for the first."""
        assert stale.get("n") == 5
        assert stale.stale == set()
        increment(stale)
        assert stale.clashes({"n": 5}, {"n": 5}, encode) == frozenset()
        assert stale.changes({"n": 5}, encode) == {"n": 6}

    def test_writing_again_does_not_settle_it(self, stale: Draft) -> None:
        """What is written may come from the stale look."""
        stale.set("n", 2)
        assert stale.stale == {"n"}

    def test_reading_one_s_own_does_not_settle_it(self) -> None:
        """After a write, a second look shows our own value, made from the stale one."""
        draft = Draft({"n": 1})
        increment(draft)
        draft.rebase({"n": 1}, {"n": 5}, encode)
        assert draft.get("n") == 2
        assert draft.stale == {"n"}

    def test_reading_another_key_does_not_settle_it(self, stale: Draft) -> None:
        """Each key is settled by itself."""
        stale.get("x")
        assert stale.stale == {"n"}


class TestSettle:
    """After a save in the middle, everything begins anew from there."""

    def test_what_was_read_before_is_forgotten(self) -> None:
        """The save has checked it; from here on nothing has been read."""
        draft = Draft({"n": 1})
        increment(draft)
        draft.settle()
        assert not draft.changed
        assert draft.clashes({"n": 2}, {"n": 3}, encode) == frozenset()

    def test_a_list_that_was_put_in_is_still_seen(self) -> None:
        """Whoever put a list in may go on with it after the save."""
        draft = Draft({})
        cart: list[int] = []
        draft.set("cart", cart)
        draft.settle()
        cart.append(1)
        assert draft.suspect
        assert draft.changes({"cart": []}, encode) == {"cart": [1]}

    def test_a_list_that_was_handed_out_is_still_seen(self) -> None:
        """So may who has taken one out."""
        draft = Draft({"cart": []})
        cart = draft.get("cart")
        draft.settle()
        cart.append(1)
        assert draft.changes({"cart": []}, encode) == {"cart": [1]}


class TestAlias:
    """A list in somebody's hands stays the session's list."""

    def test_changed_before_the_merge(self) -> None:
        """What was appended before another's change came is ours to keep."""
        draft = Draft({"cart": [], "x": 0})
        cart = draft.get("cart")
        cart.append("book")
        draft.rebase({"cart": [], "x": 0}, {"cart": [], "x": 1}, encode)
        assert draft.values == {"cart": ["book"], "x": 1}
        cart.append("pen")
        assert draft.changes({"cart": [], "x": 1}, encode) == {"cart": ["book", "pen"]}

    def test_changed_after_the_merge(self) -> None:
        """So is what is appended after it, where the other did not touch the list."""
        draft = Draft({"cart": [], "x": 0})
        cart = draft.get("cart")
        draft.rebase({"cart": [], "x": 0}, {"cart": [], "x": 1}, encode)
        cart.append("book")
        assert draft.changes({"cart": [], "x": 1}, encode) == {"cart": ["book"]}

    @pytest.mark.parametrize("how", ["lock", "save"])
    def test_over_a_lock_or_a_save_in_the_middle(self, how: str) -> None:
        """``cart = session["cart"]; session.lock(); cart.append(..)`` loses nothing."""
        manager = SessionManager(MemoryStore())
        one = stored(manager, cart=[], x=0)
        two = reopened(manager, one)
        cart = one["cart"]
        two["x"] = 1
        two.save()
        if how == "save":
            one["y"] = 1
            one.save()
        else:
            one.lock()
        cart.append("book")
        one.save()
        assert reopened(manager, one)["cart"] == ["book"]

    def test_one_that_theirs_replaced_is_watched(self) -> None:
        """What is appended to a list that another has replaced is a clash."""
        draft = Draft({"cart": []})
        cart = draft.get("cart")
        draft.rebase({"cart": []}, {"cart": ["theirs"]}, encode)
        assert draft.get("cart") == ["theirs"]
        assert draft.stale == set()
        draft.reclaim(encode)
        assert draft.changes({"cart": ["theirs"]}, encode) == {}
        cart.append("ours")
        draft.reclaim(encode)
        assert draft.changes({"cart": ["theirs"]}, encode) == {"cart": ["ours"]}
        assert draft.stale == {"cart"}

    @pytest.mark.parametrize("verb", ["lock", "rotate", "regenerate", "login"])
    def test_one_that_theirs_replaced_over_any_verb_that_locks(self, verb: str) -> None:
        """By ``on_conflict="ours"`` our list is the one that is stored."""
        manager = SessionManager(MemoryStore())
        one = stored(manager, cart=[])
        two = reopened(manager, one)
        cart = one["cart"]
        two["cart"] = ["theirs"]
        two.save()
        getattr(one, verb)(*["somebody"][: verb == "login"])
        cart.append("ours")
        one.commit()
        assert reopened(manager, one)["cart"] == ["ours"]

    def test_one_that_theirs_replaced_is_dropped_with_the_rest(self) -> None:
        """``modified = False`` drops it as it drops every other change."""
        manager = SessionManager(MemoryStore())
        one = stored(manager, cart=[])
        two = reopened(manager, one)
        cart = one["cart"]
        two["cart"] = ["theirs"]
        two.save()
        one.lock()
        cart.append("ours")
        one.modified = False
        one.commit()
        assert reopened(manager, one)["cart"] == ["theirs"]


# -- against a model ---------------------------------------------------------------------

KEYS = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("has"), KEYS),
        st.tuples(st.just("set"), KEYS, st.integers(0, 3)),
        st.tuples(st.just("set"), KEYS, st.lists(st.integers(0, 3), max_size=2)),
        st.tuples(st.just("append"), KEYS, st.integers(0, 3)),
        st.tuples(st.just("remove"), KEYS),
        st.tuples(st.just("clear")),
        st.tuples(st.just("survey")),
    ),
    max_size=6,
)
SESSIONS = st.dictionaries(
    KEYS, st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
)


def perform(draft: Draft, steps: list[tuple[Any, ...]]) -> list[Any]:
    """Do some steps, and give what they saw."""
    seen: list[Any] = []
    for verb, *rest in copy.deepcopy(steps):
        if verb == "append":
            value = draft.get(rest[0])
            if isinstance(value, list):
                value.append(rest[1])
            seen.append(repr(value))
        elif verb == "remove":
            try:
                draft.remove(rest[0])
            except KeyError:
                seen.append("KeyError")
            else:
                seen.append("removed")
        elif verb == "survey":
            seen.append(sorted(draft.survey()))
        else:
            seen.append(repr(getattr(draft, verb)(*rest)))
    return seen


class TestTheRule:
    @settings(fuzz, max_examples=300)
    @given(SESSIONS, STEPS, STEPS)
    def test_a_merge_without_a_clash_is_one_after_the_other(
        self,
        base: Values,
        theirs: list[tuple[Any, ...]],
        ours: list[tuple[Any, ...]],
    ) -> None:
        """If nothing clashes, merging gives what running us after them had given.

        We would have seen the same, and the same would be stored.
        """
        other = Draft(copy.deepcopy(base))
        perform(other, theirs)
        mine = Draft(copy.deepcopy(base))
        seen = perform(mine, ours)
        if mine.clashes(base, other.values, encode):
            return
        mine.rebase(base, copy.deepcopy(other.values), encode)
        serial = Draft(copy.deepcopy(other.values))
        assert perform(serial, ours) == seen
        assert mine.values == serial.values

    def test_the_control(self) -> None:
        """A merge that forgets a trace breaks the rule, so the rule can be broken."""
        base, theirs = {"a": 0}, {"a": 1}
        mine = Draft(dict(base))
        mine.set("a", mine.get("a") + 1)
        mine.read.clear()
        assert not mine.clashes(base, theirs, encode)
        mine.rebase(base, dict(theirs), encode)
        assert mine.values != {"a": 2}
