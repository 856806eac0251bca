"""The conformance suites find broken stores: each of these is a mistake of its own.

The positive control of every other test of a store.
"""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from wsgisession.stores.memory import MemoryStore
from wsgisession.testing import (
    BlindStore,
    IterableStoreSuite,
    LockingStoreSuite,
    StoreSuite,
    in_threads,
    key,
    newer,
    record,
)

from . import broken


class Everything(LockingStoreSuite, IterableStoreSuite):
    """All that the memory store is held to."""


BROKEN = [
    (broken.ForgetsWhetherSeen, "whether_a_token_was_seen_comes_back"),
    (broken.ForgetsUntil, "replaced_proofs_come_back"),
    (broken.GivesPlainTuples, "fields_come_back_in_their_types"),
    (broken.RoundsClocks, "touch_moves_the_clocks_only"),
    (broken.RoundsVersions, "versions_are_not_rounded"),
    (broken.CountsVersions, "a_version_has_63_bits"),
    (broken.CutsData, "a_megabyte_comes_back"),
    (broken.KeepsTokens, "what_was_saved_comes_back"),
    (broken.KeepsExpired, "expired_is_none"),
    (broken.FindsIdsLoosely, "an_id_is_compared_exactly"),
    (broken.ComparesFirst, "only_one_of_many_writers_wins"),
    (broken.ComparesFirst, "increments_beside_readers_are_all_kept"),
    (broken.BringsBack, "a_save_never_brings_back_what_was_deleted"),
    (broken.BringsBack, "a_save_never_brings_back_what_expired"),
    (broken.BringsBack, "a_save_never_makes_a_record"),
    (broken.NeverMindsWhatIs, "a_save_needs_the_version_it_expects"),
    (broken.SavesOnTouch, "touch_moves_the_clocks_only"),
    (broken.SavesOnTouch, "increments_beside_readers_are_all_kept"),
    (broken.TouchesAnyVersion, "touch_leaves_another_version_alone"),
    (broken.TouchesBack, "touch_moves_no_clock_back"),
    (broken.SavesForwardOnly, "a_save_writes_the_clocks_it_is_told"),
    (broken.SavesForwardOnly, "a_save_can_end_the_time_of_a_record"),
    (broken.SaysNothingOfTouch, "touch_brings_nothing_back"),
    (broken.SaysNothingOfDelete, "delete_says_whether_it_was_there"),
    (broken.SaysNothingOfDelete, "only_one_of_many_deletes_ended_it"),
    (broken.DeletesAnybodys, "delete_of_a_user_asks_whose_it_is"),
    (broken.DeletesByProof, "delete_asks_for_no_proof"),
    (broken.LoadsByProof, "a_proof_is_not_judged_by_load"),
    (broken.Boasts, "is_what_it_says"),
    (broken.Boasts, "can_lock"),
    (broken.Boasts, "can_list"),
    (broken.NeverLocks, "a_live_lease_shuts_other_writers_out"),
    (broken.NeverLocks, "locked_increments_are_all_kept"),
    (broken.LeasesForEver, "a_lease_ends_by_itself"),
    (broken.LeasesForEver, "a_lease_that_ran_out_shuts_nobody_out"),
    (broken.ShowsLeases, "a_lease_is_shown_to_its_holder_only"),
    (broken.ShowsLeasesInConflicts, "a_lease_is_shown_to_its_holder_only"),
    (broken.LeasesOutliveRecords, "a_lease_ends_with_its_record"),
    (broken.LeasesOutliveExpiry, "a_lease_ends_with_its_record"),
    (broken.WritersPass, "a_live_lease_shuts_other_writers_out"),
    (broken.EndsAnyLease, "who_overran_cannot_end_the_next_lease"),
    (broken.TouchEndsAnyLease, "other_requests_may_touch"),
    (broken.TouchEndsNoLease, "the_lock_is_handed_over"),
    (broken.RefusedKeepsLease, "the_lock_is_handed_over"),
    (broken.LocksForAnyone, "an_unknown_proof_is_given_no_lock"),
    (broken.LocksForAnyone, "a_proof_that_is_over_joins_no_queue"),
    (broken.LocksForAnyone, "a_proof_runs_out_of_time"),
    (broken.LocksForTheNewestOnly, "a_proof_that_is_good_is_given_the_lock"),
    (broken.NeedsAProof, "a_proof_that_is_good_is_given_the_lock"),
    (broken.QueuesBeforeItJudges, "an_unknown_proof_is_given_no_lock"),
    (broken.QueuesBeforeItJudges, "a_proof_that_is_over_joins_no_queue"),
    (broken.JudgesBeforeTheQueue, "a_proof_is_judged_after_the_wait"),
    (broken.CrowdsAreWelcome, "where_nobody_may_wait"),
    (broken.LooksAwayAtZero, "a_free_lock_is_given_without_waiting"),
    (broken.ListsLoosely, "users_are_compared_exactly"),
    (broken.ListsExpired, "all_records_are_seen"),
    (broken.ListsLive, "deleting_while_walking"),
    (broken.SweepsTheRenewed, "a_renewed_record_is_not_swept"),
    (broken.SweepsAllAtOnce, "expired_records_are_swept"),
]


def arguments(test: Any) -> Iterator[dict[str, Any]]:
    """What pytest gives to a test of a suite, once for every parameter."""
    rows = [
        [
            dict(
                zip(names_in(mark.args[0]), values_in(mark.args[0], each), strict=True)
            )
            for each in mark.args[1]
        ]
        for mark in getattr(test, "pytestmark", [])
        if mark.name == "parametrize"
    ]
    for row in itertools.product(*rows):
        yield {name: value for part in row for name, value in part.items()}


def names_in(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def values_in(names: Any, values: Any) -> tuple[Any, ...]:
    return (values,) if isinstance(names, str) else tuple(values)


def run(kind: type[MemoryStore], name: str) -> list[BaseException]:
    """Run a test of the suites on a kind of store, and give what it found."""
    test = getattr(Everything, f"test_{name}")
    found: list[BaseException] = []
    for given in arguments(test):
        store = kind()
        fixtures = {"store": store, "twin": store, **given}
        wanted = list(inspect.signature(test).parameters)[1:]
        try:
            test(Everything(), **{each: fixtures[each] for each in wanted})
        except (Exception, pytest.fail.Exception) as error:
            found.append(error)
    return found


@pytest.mark.parametrize(
    ("kind", "test"),
    BROKEN,
    ids=[f"{kind.__name__}-{test}" for kind, test in BROKEN],
)
def test_a_broken_store_is_found(kind: type[MemoryStore], test: str) -> None:
    """Each by the test that is meant for it."""
    assert run(kind, test), f"{test} does not find: {kind.__doc__}"


@pytest.mark.parametrize("test", sorted({test for _, test in BROKEN}))
def test_a_sound_store_passes(test: str) -> None:
    """The control of the control: what finds the broken ones finds nothing here."""
    assert run(MemoryStore, test) == []


def test_increments_on_a_blind_store_are_lost() -> None:
    """The store with its promises taken out is what it says."""
    store, given = MemoryStore(), record(data=b"0")
    store.save(given, expect=0)
    blind, both_read = BlindStore(store), threading.Barrier(2)

    def increment(_: int) -> None:
        loaded = blind.load(key(given))
        assert loaded is not None
        both_read.wait()
        count = b"%d" % (int(loaded.data) + 1)
        blind.save(newer(loaded, data=count), expect=loaded.version)

    in_threads(2, increment)
    loaded = store.load(key(given))
    assert loaded is not None
    assert loaded.data == b"1"


def test_a_blind_store_brings_back_what_ended() -> None:
    """As the stores of most session libraries do."""
    store, given = MemoryStore(), record()
    store.save(given, expect=0)
    blind = BlindStore(store)
    assert blind.delete(key(given))
    blind.save(newer(given), expect=given.version)
    assert blind.load(key(given)) is not None
    assert not blind.capabilities.locks


def test_the_blind_store_needs_no_pytest() -> None:
    """A demonstration runs where pytest is not installed."""
    program = (
        "import sys; sys.modules['pytest'] = None;"
        "from wsgisession.testing._blind import BlindStore;"
        "from wsgisession.testing import BlindStore as same;"
        "assert same is BlindStore"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_a_wrong_name_is_an_attribute_error() -> None:
    """As of every other module, though the names here are found when they are used."""
    import wsgisession.testing

    with pytest.raises(AttributeError, match="has no attribute 'StoreSuit'"):
        wsgisession.testing.StoreSuit  # noqa: B018
    assert all(hasattr(wsgisession.testing, name) for name in dir(wsgisession.testing))


@pytest.mark.parametrize("suite", [StoreSuite, LockingStoreSuite, IterableStoreSuite])
def test_every_test_says_what_it_shows(suite: type) -> None:
    """The author of a store reads these sentences when one fails."""
    for name in dir(suite):
        if name.startswith("test_"):
            assert getattr(suite, name).__doc__, name
