"""python -m tests.simulation: run many seeds, and print what was found, by kind.

--path puts another edition of the library first, for example an older checkout.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .simulator import Stage


def main() -> int:
    parser = _parser()
    given = parser.parse_args()
    if given.path:
        sys.path.insert(0, given.path)
    from . import edition

    if (given.edition == "first") != edition.IS_FIRST:
        parser.error(f"this is not the {given.edition} edition: {edition.wsgisession}")
    from .stages import stage_of

    with stage_of(given.store, given.url) as stage:
        if given.faults:
            from . import first_edition

            return first_edition.table(stage, seeds=given.seeds, log=given.log)
        if given.scenes:
            return _scenes(stage, log=given.log)
        return _seeds(stage, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--edition", choices=("first", "second"), default="second")
    parser.add_argument("--path", help="folder of the edition, put first on sys.path")
    parser.add_argument("--store", default="memory")
    parser.add_argument("--seeds", type=int, default=5000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--kind", help="values, identity, readers, faults or clocks")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after")
    parser.add_argument("--shrink", type=int, default=6, help="of each oracle")
    parser.add_argument("--log", action="store_true", help="with what happened")
    parser.add_argument("--seed", type=int, help="run this seed alone, with its log")
    parser.add_argument("--only", help="an oracle's name or the beginning of it")
    parser.add_argument("--url", help="of the store, where it needs one")
    parser.add_argument("--scenes", action="store_true", help="the directed programs")
    parser.add_argument("--faults", action="store_true", help="of the first edition")
    return parser


def _seeds(stage: Stage, given: argparse.Namespace) -> int:
    """Run many seeds, or one with its log."""
    from .hunt import Hunt

    hunt = Hunt(stage, kind=given.kind, shrink=given.shrink, only=given.only)
    if given.seed is not None:
        print(hunt.one(given.seed))
        return 0
    began = time.perf_counter()
    for seed in range(given.start, given.start + given.seeds):
        hunt.seed(seed)
        if given.seconds and time.perf_counter() - began > given.seconds:
            break
    took = time.perf_counter() - began
    print(hunt.report(log=given.log))
    print(f"{hunt.count} programs in {took:.1f} s, {hunt.count / took:.0f} a second")
    return 1 if hunt.counts else 0


def _scenes(stage: Stage, *, log: bool) -> int:
    """Play every directed program; one line each."""
    from . import directed

    failed = 0
    for scene in directed.ALL:
        wrong = directed.played(stage, scene)
        failed += wrong is not None
        print("fails" if wrong else "holds", scene.sentence, sep="  ")
        if wrong and log:
            print(wrong, "\n")
    print(f"{failed} of {len(directed.ALL)} fail")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
