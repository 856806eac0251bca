"""What a request has read and written, and how that meets what another has stored.

The working copy by itself: no store, no request.  Random work on it is in
``test_merge_model.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wsgisession import ABSENT, JSONSerializer
from wsgisession._core.codec import Codec
from wsgisession._core.expiry import Meta
from wsgisession._core.merge import WorkingCopy

Values = dict[str, Any]
Work = Callable[[WorkingCopy], object]

CODEC = Codec(JSONSerializer(), 2**20)


def encoded(values: Values) -> bytes:
    return CODEC.encode(Meta(0.0, 0.0), values)


def copy_of(values: Values) -> WorkingCopy:
    """What a request is given that loads these values."""
    return WorkingCopy(CODEC, encoded(values))


def met(base: Values, work: Work, theirs: Values) -> WorkingCopy:
    """Some work on a base, put on what another request has stored since."""
    copy = copy_of(base)
    work(copy)
    copy.rebase(encoded(theirs))
    return copy


def changes(copy: WorkingCopy) -> Values:
    """What is written, with ``ABSENT`` for what is taken away."""
    copy.has_changed()
    return {key: copy.values.get(key, ABSENT) for key in copy.writes}


def set_(key: str, value: Any) -> Work:
    return lambda copy: copy.set(key, value)


def count(copy: WorkingCopy) -> None:
    copy.set("n", copy.get("n") + 1)


def look(copy: WorkingCopy) -> None:
    copy.get("n")


def survey(copy: WorkingCopy) -> None:
    list(copy.keys())


# Base, what we do, theirs; then which keys are in conflict as soon as anything is
# written, and what is to be stored.
TABLE: dict[str, tuple[Values, Work, Values, set[str], Values]] = {
    "a blind set wins": ({"n": 1}, set_("n", 5), {"n": 2}, set(), {"n": 5}),
    "a blind set of a new key": ({}, set_("a", 1), {"b": 2}, set(), {"a": 1, "b": 2}),
    "a blind set of what they removed": (
        {"n": 1},
        set_("n", 5),
        {},
        set(),
        {"n": 5},
    ),
    "read and set": ({"n": 1}, count, {"n": 2}, {"n"}, {"n": 2}),
    "read and set beside": (
        {"n": 1, "x": 1},
        count,
        {"n": 1, "x": 2, "y": 3},
        set(),
        {"n": 2, "x": 2, "y": 3},
    ),
    "read alone": ({"n": 1}, look, {"n": 2}, {"n"}, {"n": 2}),
    "read what they removed": ({"n": 1}, look, {}, {"n"}, {}),
    "read what was not there": ({}, look, {"n": 1}, {"n"}, {"n": 1}),
    "asked and got no": ({}, lambda c: c.has("n"), {"n": 1}, {"n"}, {"n": 1}),
    "asked and got yes": ({"n": 1}, lambda c: c.has("n"), {}, {"n"}, {}),
    "asked beside": ({"n": 1}, lambda c: c.has("x"), {"n": 2}, set(), {"n": 2}),
    "removed": ({"n": 1}, lambda c: c.remove("n"), {"n": 1, "x": 1}, set(), {"x": 1}),
    "removed what they changed": (
        {"n": 1},
        lambda c: c.remove("n"),
        {"n": 2},
        {"n"},
        {},
    ),
    "removed what they removed": ({"n": 1}, lambda c: c.remove("n"), {}, {"n"}, {}),
    "cleared": ({"n": 1}, lambda c: c.clear(), {"n": 2, "x": 3}, set(), {}),
    "cleared and set": (
        {"n": 1},
        lambda c: (c.clear(), c.set("a", 1)),
        {"n": 2, "x": 3},
        set(),
        {"a": 1},
    ),
    "surveyed, one came": ({"n": 1}, survey, {"n": 1, "x": 1}, {"x"}, {"n": 1, "x": 1}),
    "surveyed, one went": ({"n": 1, "x": 1}, survey, {"n": 1}, {"x"}, {"n": 1}),
    "surveyed, one changed": ({"n": 1}, survey, {"n": 2}, set(), {"n": 2}),
    "nothing done": (
        {"n": 1},
        lambda c: None,
        {"n": 2, "x": 1},
        set(),
        {"n": 2, "x": 1},
    ),
    "they changed nothing": ({"n": 1}, count, {"n": 1}, set(), {"n": 2}),
    "both the same": ({"n": 1}, count, {"n": 2}, {"n"}, {"n": 2}),
    "nested beside": (
        {"a": [1], "b": [2]},
        lambda c: c.get("a").append(9),
        {"a": [1], "b": [2, 3]},
        set(),
        {"a": [1, 9], "b": [2, 3]},
    ),
    "nested in the same": (
        {"a": [1]},
        lambda c: c.get("a").append(9),
        {"a": [1, 2]},
        {"a"},
        {"a": [1, 9]},
    ),
}


class TestMerge:
    @pytest.mark.parametrize("case", TABLE)
    def test_what_is_in_conflict(self, case: str) -> None:
        """Only a key that was read here and changed there, if anything is written."""
        base, work, theirs, conflicts, _ = TABLE[case]
        copy = met(base, work, theirs)
        copy.set("ours", 1)
        assert copy.conflicts() == conflicts

    @pytest.mark.parametrize("case", TABLE)
    def test_who_writes_nothing_is_in_no_conflict(self, case: str) -> None:
        """Who only reads may have come before or after the other request."""
        base, work, theirs, conflicts, _ = TABLE[case]
        copy = met(base, work, theirs)
        assert copy.conflicts() == (conflicts if copy.has_changed() else set())

    @pytest.mark.parametrize("case", TABLE)
    def test_what_is_stored(self, case: str) -> None:
        """Our changed keys over theirs, key by key; all others are theirs."""
        base, work, theirs, _, merged = TABLE[case]
        assert met(base, work, theirs).values == merged

    @pytest.mark.parametrize("case", TABLE)
    def test_merging_twice_with_the_same_is_merging_once(self, case: str) -> None:
        """Theirs that did not change again changes nothing, and settles nothing."""
        base, work, theirs, conflicts, merged = TABLE[case]
        copy = met(base, work, theirs)
        copy.rebase(encoded(theirs))
        assert copy.values == merged
        copy.set("ours", 1)
        assert copy.conflicts() == conflicts

    def test_two_others_one_after_the_other(self) -> None:
        """Our changes survive a second merge, and so do both of theirs."""
        copy = met({"a": 1, "n": 0}, set_("a", 2), {"a": 1, "n": 1})
        copy.rebase(encoded({"a": 9, "n": 1, "z": 3}))
        assert copy.values == {"a": 2, "n": 1, "z": 3}
        assert copy.conflicts() == frozenset()

    def test_a_value_that_went_and_came_back_is_no_conflict(self) -> None:
        """What counts is whether it has another value now than when it was read."""
        copy = met({"n": 1}, count, {"n": 5})
        assert copy.conflicts() == {"n"}
        copy.rebase(encoded({"n": 1}))
        assert copy.conflicts() == frozenset()

    def test_pitfall_a_value_is_ours_or_theirs_and_never_a_mixture(self) -> None:
        """Merging inside values turned dates into ``{}`` (connect-redis #346)."""
        copy = met(
            {"d": {"x": 1, "y": 1}},
            lambda c: c.get("d").update(x=2),
            {"d": {"x": 1, "y": 2}},
        )
        assert copy.conflicts() == {"d"}
        assert copy.values == {"d": {"x": 2, "y": 1}}

    def test_what_of_theirs_is_overwritten(self) -> None:
        """What both have changed, read or not; a value that was only read is theirs."""
        copy = met(
            {"n": 1, "x": 1, "y": 1},
            lambda c: (count(c), c.set("x", 2), c.get("y")),
            {"n": 2, "x": 3, "y": 4},
        )
        assert copy.conflicts() == {"n", "y"}
        assert copy.overwritten() == {"n", "x"}

    def test_what_they_stored_is_not_ours_to_change(self) -> None:
        """A list that came with a merge is watched like one that was loaded."""
        copy = met({"a": [1]}, set_("n", 1), {"a": [2]})
        copy.get("a").append(3)
        assert changes(copy) == {"n": 1, "a": [2, 3]}
        assert copy.base == {"a": [2]}


class TestWhatHasChanged:
    @pytest.mark.parametrize(
        ("base", "work", "changed"),
        [
            ({}, lambda c: None, {}),
            ({"n": 1}, look, {}),
            ({"n": 1}, count, {"n": 2}),
            ({"n": 1}, set_("n", 1), {"n": 1}),
            ({"n": 1}, lambda c: c.remove("n"), {"n": ABSENT}),
            ({"n": 1, "x": 2}, lambda c: c.clear(), {"n": ABSENT, "x": ABSENT}),
            ({"n": 1}, lambda c: (c.clear(), c.set("n", 2)), {"n": 2}),
            ({"n": 1}, lambda c: (c.remove("n"), c.set("n", 1)), {"n": 1}),
            ({}, lambda c: (c.set("n", 1), c.remove("n")), {"n": ABSENT}),
            ({"a": [1]}, lambda c: c.get("a"), {}),
            ({"a": [1]}, lambda c: c.get("a").append(2), {"a": [1, 2]}),
            ({"a": [[1]]}, lambda c: c.get("a")[0].append(2), {"a": [[1, 2]]}),
            ({"a": {"b": {1}}}, lambda c: c.get("a")["b"].add(2), {"a": {"b": {1, 2}}}),
            ({"a": ([1],)}, lambda c: c.get("a")[0].append(2), {"a": ([1, 2],)}),
            ({"a": [1]}, lambda c: (c.get("a").append(2), c.get("a").pop()), {}),
        ],
    )
    def test_a_table(self, base: Values, work: Work, changed: Values) -> None:
        """Changes come from writing, or from a list or dict that was handed out."""
        copy = copy_of(base)
        work(copy)
        assert changes(copy) == changed
        assert copy.has_changed() is bool(changed)

    def test_clearing_what_is_empty_is_a_change(self) -> None:
        """Keys that another request has written go as well."""
        copy = copy_of({})
        copy.clear()
        assert copy.has_changed()
        copy.rebase(encoded({"n": 1}))
        assert copy.values == {}

    @pytest.mark.parametrize(
        ("one", "two"),
        [(1, True), (1, 1.0), (True, 1.0), (0, False), (0.0, -0.0), ((1,), [1])],
        ids=repr,
    )
    def test_equal_in_python_is_not_the_same(self, one: Any, two: Any) -> None:
        """1, True and 1.0 are three values, for changes and for conflicts."""
        copy = copy_of({"a": [one]})
        copy.get("a")[0] = two
        assert set(changes(copy)) == {"a"}
        copy = met({"n": one}, look, {"n": two})
        copy.set("ours", 1)
        assert copy.conflicts() == {"n"}

    def test_a_scalar_that_was_read_costs_nothing_at_the_end(self) -> None:
        """Only what can be changed in the caller's hands is encoded to be compared."""

        class Counting(JSONSerializer):
            calls = 0

            def dumps(self, values: Values) -> str:
                self.calls += 1
                return super().dumps(values)

        serializer = Counting()
        codec = Codec(serializer, 2**20)
        data = encoded({"n": 1, "s": "a", "none": None, "a": [1]})
        copy = WorkingCopy(codec, data)
        copy.get("n"), copy.get("s"), copy.get("none"), copy.has("a"), copy.keys()
        assert not copy.has_changed()
        assert serializer.calls == 0
        copy.get("a")
        assert not copy.has_changed()
        assert serializer.calls > 0

    def test_none_is_a_value(self) -> None:
        """A key whose value is None is there; one that is absent is not."""
        copy = copy_of({"n": None})
        assert copy.get("n") is None
        assert copy.get("x") is ABSENT
        for base, theirs in (({"n": None}, {}), ({}, {"n": None})):
            copy = met(base, look, theirs)
            copy.set("ours", 1)
            assert copy.conflicts() == {"n"}

    def test_absent_shows_itself_by_name(self) -> None:
        """It may be seen in a debugger or in a callable of ``on_conflict``."""
        assert repr(ABSENT) == "ABSENT"

    def test_removing_what_is_not_there_is_a_look(self) -> None:
        """A KeyError has told the caller something, and has changed nothing."""
        copy = copy_of({})
        with pytest.raises(KeyError):
            copy.remove("n")
        assert not copy.has_changed()
        copy.rebase(encoded({"n": 1}))
        copy.set("ours", 1)
        assert copy.conflicts() == {"n"}


class TestTheRuleOfReading:
    """What was read stays read, until a save has agreed with the store."""

    @pytest.mark.parametrize(
        "verb",
        [look, lambda c: c.has("n"), set_("n", 7), survey, lambda c: c.get("x")],
    )
    def test_a_second_look_does_not_settle_it(self, verb: Work) -> None:
        """Another key may have been computed from the first one; nor does a write."""
        copy = met({"n": 1}, look, {"n": 5})
        verb(copy)
        copy.set("made of n", 2)
        assert copy.conflicts() == {"n"}

    def test_what_was_read_counts_from_the_save(self) -> None:
        """After a save it has the value that was saved, and stays read."""
        copy = copy_of({"n": 1})
        count(copy)
        copy.settle(encoded({"n": 2}))
        assert not copy.has_changed()
        copy.rebase(encoded({"n": 3}))
        copy.set("ours", 1)
        assert copy.conflicts() == {"n"}
        copy.rebase(encoded({"n": 2}))
        assert copy.conflicts() == frozenset()

    @pytest.mark.parametrize("verb", [look, lambda c: c.has("n")])
    def test_a_look_after_a_save_agrees_anew(self, verb: Work) -> None:
        """While nothing is unsaved: what is written then comes from the newer value."""
        copy = copy_of({"n": 1})
        count(copy)
        copy.settle(encoded({"n": 2}))
        copy.rebase(encoded({"n": 5}))
        verb(copy)
        copy.set("ours", copy.get("n"))
        assert copy.conflicts() == frozenset()

    def test_a_save_that_had_nothing_to_write_is_a_boundary_too(self) -> None:
        """A later look agrees anew, and what was not looked at again stays read."""
        copy = copy_of({"n": 1, "m": 1})
        copy.get("n"), copy.get("m")
        copy.agree()
        copy.rebase(encoded({"n": 5, "m": 5}))
        count(copy)
        assert copy.conflicts() == {"m"}

    def test_a_look_with_something_unsaved_does_not(self) -> None:
        """What is unsaved may have been made of the older value."""
        copy = copy_of({"n": 1})
        count(copy)
        copy.settle(encoded({"n": 2}))
        copy.set("made of n", 2)
        copy.rebase(encoded({"n": 5}))
        assert copy.get("n") == 5
        assert copy.conflicts() == {"n"}

    def test_which_keys_there_are_is_agreed_on_anew(self) -> None:
        """A loop after a save has seen what another request has added."""
        copy = copy_of({"n": 1})
        survey(copy)
        copy.set("m", 1)
        copy.settle(encoded({"n": 1, "m": 1}))
        copy.rebase(encoded({"n": 1, "m": 1, "x": 1}))
        copy.set("ours", 1)
        assert copy.conflicts() == {"x"}
        copy.revert()
        survey(copy)
        copy.set("ours", 1)
        assert copy.conflicts() == frozenset()

    def test_dropping_what_was_written_does_not_undo_the_reading(self) -> None:
        """The caller still knows what it has read."""
        copy = copy_of({"n": 1})
        count(copy)
        copy.revert()
        assert copy.values == {"n": 1}
        assert not copy.has_changed()
        copy.rebase(encoded({"n": 5}))
        copy.set("n", 2)
        assert copy.conflicts() == {"n"}

    def test_a_revert_after_a_merge_goes_back_to_theirs(self) -> None:
        """To what is stored now, not to what was loaded first."""
        copy = met({"n": 1, "a": [1]}, count, {"n": 5, "a": [2]})
        copy.revert()
        assert copy.values == {"n": 5, "a": [2]}
        assert not copy.has_changed()


class TestLent:
    """A list in the caller's hands stays the session's list."""

    def test_one_that_was_put_in_is_watched_over_a_save(self) -> None:
        """Who put a list in may go on with it after the save."""
        copy = copy_of({})
        cart: list[int] = []
        copy.set("cart", cart)
        copy.settle(encoded({"cart": []}))
        assert not copy.has_changed()
        cart.append(1)
        assert changes(copy) == {"cart": [1]}

    def test_one_that_was_put_in_and_changed_after_a_save_counts_as_read(self) -> None:
        """What it is now was made of what was stored."""
        copy = copy_of({})
        cart: list[str] = []
        copy.set("cart", cart)
        copy.settle(encoded({"cart": []}))
        cart.append("ours")
        copy.rebase(encoded({"cart": ["theirs"]}))
        assert copy.values == {"cart": ["ours"]}
        assert copy.conflicts() == {"cart"}

    def test_one_that_was_handed_out_is_watched_over_a_save(self) -> None:
        """So may who has taken one out, as often as there is a save."""
        copy = copy_of({"cart": []})
        cart = copy.get("cart")
        for number in (1, 2):
            cart.append(number)
            assert changes(copy) == {"cart": list(cart)}
            copy.settle(encoded({"cart": list(cart)}))
            assert not copy.has_changed()

    def test_one_changed_before_a_merge(self) -> None:
        """What was appended before another request's change came is ours to keep."""
        copy = copy_of({"cart": [], "x": 0})
        cart = copy.get("cart")
        cart.append("book")
        copy.rebase(encoded({"cart": [], "x": 1}))
        assert copy.values == {"cart": ["book"], "x": 1}
        cart.append("pen")
        assert changes(copy) == {"cart": ["book", "pen"]}
        assert copy.conflicts() == frozenset()

    def test_one_changed_after_a_merge(self) -> None:
        """So is what is appended after it, where theirs left the list alone."""
        copy = copy_of({"cart": [], "x": 0})
        cart = copy.get("cart")
        copy.rebase(encoded({"cart": [], "x": 1}))
        cart.append("book")
        assert changes(copy) == {"cart": ["book"]}
        assert copy.conflicts() == frozenset()

    def test_one_that_theirs_replaced_is_watched(self) -> None:
        """What is appended to a list that is no longer the stored one is a conflict."""
        copy = copy_of({"cart": []})
        cart = copy.get("cart")
        copy.rebase(encoded({"cart": ["theirs"]}))
        assert copy.get("cart") == ["theirs"]
        assert not copy.has_changed()
        cart.append("ours")
        assert changes(copy) == {"cart": ["ours"]}
        assert copy.conflicts() == {"cart"}
        assert copy.overwritten() == {"cart"}

    def test_one_that_theirs_replaced_is_watched_over_a_save(self) -> None:
        """As long as the request lives."""
        copy = copy_of({"cart": []})
        cart = copy.get("cart")
        copy.rebase(encoded({"cart": ["theirs"]}))
        copy.settle(encoded({"cart": ["theirs"]}))
        cart.append("ours")
        assert changes(copy) == {"cart": ["ours"]}
        assert copy.conflicts() == {"cart"}

    @pytest.mark.parametrize(
        "let_go",
        [set_("cart", ["new"]), lambda c: c.remove("cart"), lambda c: c.clear()],
    )
    @pytest.mark.parametrize("is_replaced", [True, False])
    def test_one_is_let_go_by_what_takes_its_place(
        self, let_go: Work, is_replaced: bool
    ) -> None:
        """What becomes of the old list then is no matter of the session."""
        copy = copy_of({"cart": []})
        cart = copy.get("cart")
        if is_replaced:
            copy.rebase(encoded({"cart": ["theirs"]}))
        let_go(copy)
        kept = changes(copy)
        cart.append("ours")
        assert changes(copy) == kept

    def test_one_that_theirs_removed_is_let_go_by_clear(self) -> None:
        """It does not come back into what was emptied."""
        copy = copy_of({"cart": [], "n": 1})
        cart = copy.get("cart")
        copy.rebase(encoded({"n": 1}))
        copy.clear()
        cart.append("ours")
        assert copy.has_changed()
        assert copy.values == {}

    def test_one_is_let_go_by_a_revert(self) -> None:
        """The stored list is another object."""
        copy = copy_of({"cart": []})
        cart = copy.get("cart")
        copy.revert()
        cart.append("ours")
        assert not copy.has_changed()
        assert copy.get("cart") == []

    def test_one_that_cannot_be_encoded_any_more_is_a_change(self) -> None:
        """So that the save says which key it is."""
        copy = copy_of({"cart": []})
        copy.get("cart").append(object())
        assert copy.has_changed()
        assert copy.writes == {"cart"}


class TestDecisions:
    """What ``on_conflict`` is given, and what its answer does."""

    @pytest.fixture
    def copy(self) -> WorkingCopy:
        """In conflict about ``n`` and ``seen``; ``blind`` was set, ``new`` is theirs."""
        return met(
            {"n": 1, "seen": 1, "blind": 1, "gone": 1},
            lambda c: (count(c), c.get("seen"), c.set("blind", 9)),
            {"n": 5, "seen": 5, "blind": 5, "new": 5},
        )

    def test_three_versions(self, copy: WorkingCopy) -> None:
        """For every key ours and base differ only in what this request made of it."""
        conflict = copy.conflict("an id")
        assert conflict.id == "an id"
        assert conflict.keys == {"n", "seen"}
        assert conflict.theirs == {"n": 5, "seen": 5, "blind": 5, "new": 5}
        assert conflict.base == {"n": 1, "seen": 1, "blind": 1, "new": 5}
        assert conflict.ours == {"n": 2, "seen": 1, "blind": 9, "new": 5}

    def test_a_key_that_was_removed_is_in_no_version(self) -> None:
        """Neither ours that we removed, nor theirs that they did."""
        copy = met(
            {"n": 1, "m": 1}, lambda c: (c.remove("n"), c.get("m")), {"n": 2, "x": 1}
        )
        conflict = copy.conflict("an id")
        assert conflict.keys == {"n", "m"}
        assert conflict.ours == {"m": 1, "x": 1}
        assert conflict.base == {"n": 1, "m": 1, "x": 1}
        assert conflict.theirs == {"n": 2, "x": 1}

    def test_what_is_given_may_be_changed(self) -> None:
        """The callable may build its answer in what it was given."""
        copy = met({"a": [1], "n": 1}, count, {"a": [1], "n": 2})
        conflict = copy.conflict("an id")
        conflict.theirs["a"].append(2)
        assert copy.base == {"a": [1], "n": 2}
        copy.accept(conflict.theirs)
        assert copy.values == {"a": [1, 2], "n": 2}
        assert copy.writes == {"a"}

    def test_ours_stand(self, copy: WorkingCopy) -> None:
        """And the next conflict counts from what was stored at the decision."""
        copy.keep_ours()
        assert copy.conflicts() == frozenset()
        assert copy.values == {"n": 2, "seen": 5, "blind": 9, "new": 5}
        copy.rebase(encoded({"n": 6, "seen": 5}))
        assert copy.conflicts() == {"n"}
        assert copy.conflict("an id").base["n"] == 5

    def test_an_answer_is_stored_as_it_is(self, copy: WorkingCopy) -> None:
        """Its keys are put in, all others are taken away."""
        copy.accept({"n": 6, "decided": True})
        assert copy.values == {"n": 6, "decided": True}
        assert copy.conflicts() == frozenset()
        assert copy.has_changed()

    def test_an_answer_outlives_the_next_merge(self, copy: WorkingCopy) -> None:
        """It is merged like any change, and counts from what it was given."""
        copy.accept({"n": 6, "decided": True})
        theirs = {"n": 5, "seen": 5, "blind": 5, "new": 5, "newer": 1}
        copy.rebase(encoded(theirs))
        assert copy.values == {"n": 6, "decided": True, "newer": 1}
        assert copy.conflicts() == frozenset()
        copy.rebase(encoded({**theirs, "n": 8}))
        assert copy.conflicts() == {"n"}
        assert copy.conflict("an id").base["n"] == 5
        assert copy.conflict("an id").ours["n"] == 6

    def test_a_list_of_ours_in_the_answer_stays_in_the_callers_hands(self) -> None:
        """Where the answer keeps it; where it takes theirs the list is let go."""
        for keeps, stored in ((True, ["ours", "later"]), (False, ["theirs"])):
            copy = copy_of({"cart": []})
            cart = copy.get("cart")
            cart.append("ours")
            copy.rebase(encoded({"cart": ["theirs"]}))
            conflict = copy.conflict("an id")
            copy.accept(conflict.ours if keeps else conflict.theirs)
            cart.append("later")
            assert copy.values == {"cart": stored}

    @pytest.mark.parametrize("is_replaced", [True, False])
    def test_a_list_that_the_answer_leaves_alone_is_still_watched(
        self, is_replaced: bool
    ) -> None:
        """An answer is made of copies; what is the same in it was not assigned."""
        theirs = {"n": 5, "cart": ["theirs"] if is_replaced else []}
        copy = copy_of({"n": 1, "cart": []})
        cart = copy.get("cart")
        count(copy)
        copy.rebase(encoded(theirs))
        copy.accept({**copy.conflict("an id").theirs, "n": 6})
        copy.settle(encoded({**theirs, "n": 6}))
        assert not copy.has_changed()
        cart.append("later")
        assert changes(copy) == {"cart": ["later"]}
        assert copy.conflicts() == ({"cart"} if is_replaced else set())

    def test_what_is_moved_to_another_session(self) -> None:
        """What was written, and nothing that was stored before; what is there counts."""
        copy = copy_of({"n": 1, "x": 1, "a": [1]})
        count(copy)
        copy.get("x")
        copy.get("a").append(2)
        copy.remove("x")
        moved = copy.moved(encoded({"n": 7, "y": 7}))
        assert moved.values == {"n": 2, "a": [1, 2], "y": 7}
        assert moved.conflicts() == {"n"}, (
            "it was read, and another request has made it"
        )
        assert copy.moved(encoded({"y": 7})).conflicts() == frozenset()
        assert copy.moved(None).values == {"n": 2, "a": [1, 2]}

    def test_what_takes_the_place_of_everything_is_merged_with_nothing(self) -> None:
        """A session that was flushed and written again, or is another user's now."""
        copy = WorkingCopy(CODEC, replaces_all=True)
        assert copy.has_changed()
        copy.set("n", 1)
        copy.rebase(encoded({"n": 5, "x": 5}))
        assert copy.values == {"n": 1}
        copy.revert()
        assert copy.values == {}
        assert copy.has_changed()
