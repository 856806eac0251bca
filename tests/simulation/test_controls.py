"""The positive controls: of each deliberate break of the library the simulator finds one.

What finds it must be an oracle that is about that rule, within a minute of seeds.
"""

from __future__ import annotations

import time

import pytest

from . import breaks_of_identity, breaks_of_users, breaks_of_values, edition
from .breaks import BREAKS
from .hunt import Hunt
from .stages import stage_of

pytestmark = pytest.mark.skipif(
    edition.IS_FIRST, reason="the breaks are of the second edition"
)

SECONDS = 60.0
SEEDS = 60_000


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_a_deliberate_break_is_found(name: str) -> None:
    """An oracle that is about the broken rule accuses it within a minute of seeds; and
    it accuses nothing of the same seed once the rule holds again.
    """
    seed = _found_at(name)
    with stage_of("memory") as stage:
        innocent = Hunt(stage, kind=BREAKS[name].kind, shrink=1)
        innocent.seed(seed)
        assert not innocent.failures, innocent.report(log=True)


def _found_at(name: str) -> int:
    """The seed that finds a break."""
    broken = BREAKS[name]
    began = time.perf_counter()
    with pytest.MonkeyPatch.context() as patch, stage_of("memory") as stage:
        broken.patch(patch)
        hunt = Hunt(stage, kind=broken.kind, shrink=0)
        for seed in range(SEEDS):
            found = hunt.seed(seed)
            if any(each.oracle.startswith(broken.oracles) for each in found):
                return seed
            if time.perf_counter() - began > SECONDS:
                break
    pytest.fail(f"not found in {hunt.count} programs; seen: {dict(hunt.counts)}")


def test_every_break_is_collected() -> None:
    """A break that is defined and not noted would be no control."""
    defined = {
        name
        for module in (breaks_of_identity, breaks_of_users, breaks_of_values)
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__
        and not name.startswith("_")
    }
    assert defined == set(BREAKS)
