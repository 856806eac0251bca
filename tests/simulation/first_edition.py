"""The faults of the first edition: what shows each, a directed program and a seed.

A command for people: ``python -m tests.simulation --edition first --path FOLDER
--faults``.  On the second edition the same command finds none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import directed, edition
from .programs import Program, Verb, draw, show
from .scenes import Directed
from .shrink import Failure, attempt, shrunk
from .simulator import Simulation, Stage
from .world import listening

SHRUNK = 12
"""Programs that are made smaller for one fault, before its search is given up."""


def verbs(*names: str) -> Callable[[Program], bool]:
    """Whether a program has all of these verbs."""

    def has(program: Program) -> bool:
        return set(names) <= {n for r in program.requests for n in r.names()}

    return has


def nested(program: Program) -> bool:
    """Whether a program has a lock inside of a lock."""
    return any(_has_nested(request.verbs) for request in program.requests)


def _has_nested(given: tuple[Verb, ...]) -> bool:
    blocks = [verb[1] for verb in given if verb[0] == "with"]
    return any(inner[0] == "with" for block in blocks for inner in block)


class Fault(NamedTuple):
    """A fault that was met, and how it is told from others."""

    name: str
    scene: str
    """The sentence of the directed program that shows it."""
    oracle: str
    """What accuses it."""
    is_like: Callable[[Program], bool]
    """Whether a random program, made as small as it gets, is about the same."""


FAULTS = (
    Fault(
        "a logout undone by a rotation",
        "A logout beside a rotation ends the session",
        "3 an end undone",
        verbs("rotate", "flush"),
    ),
    Fault(
        "end_user(keep=) that ends the caller",
        "end_user(keep=session.id) keeps the caller, who has just rotated",
        "3 vanished",
        verbs("rotate", "end_others"),
    ),
    Fault(
        "a save() that lies",
        "save() that met a conflict does not return",
        "6 a save that lies",
        verbs("save"),
    ),
    Fault(
        "an update lost by a second look under the lock",
        "A second look under the lock does not clear what was written from the first",
        "1 lost update",
        verbs("lock", "get"),
    ),
    Fault(
        "an update lost by a list put in, and appended to after save()",
        "A list that was put in, saved and appended to again is watched",
        "1 lost update",
        verbs("putheld", "save", "heldpush"),
    ),
    Fault(
        "an update lost by a nested lock",
        "What was read before a nested lock stays read after it",
        "1 lost update",
        nested,
    ),
    Fault(
        "a reader made to wait",
        "The rotation that is due makes no reader wait",
        "5 a reader waits",
        verbs(),
    ),
    Fault(
        "a lost answer to a rotation that logs its user out",
        "A lost answer to a rotation logs nobody out",
        "7 logged out",
        verbs("rotate"),
    ),
    Fault(
        "a rotation cut off half way that leaves two sessions",
        "A rotation whose call 1 fails (die after) leaves one session",
        "4 forked",
        verbs("rotate"),
    ),
    Fault(
        "a dropped change that a rotation writes",
        "A rotation that is due does not write what was dropped",
        "1 lost update",
        verbs("discard"),
    ),
    Fault(
        "a row for a forged cookie",
        "A lock that only reads stores nothing for a forged token",
        "P7 a row for junk",
        verbs("with"),
    ),
    Fault(
        "a GET from outside that is run twice",
        "A payment return is not run twice",
        "9 ran twice",
        verbs(),
    ),
)


class Shown(NamedTuple):
    """A run that shows a fault."""

    by: str
    program: Program
    steps: int
    log: list[str]


def table(stage: Stage, *, seeds: int, log: bool) -> int:
    """Print what shows each fault; the exit status is 0 where that is as it must be."""
    with listening():
        random = _in_seeds(stage, seeds)
        found = 0
        for fault in FAULTS:
            shown = [_in_scene(stage, fault), random.get(fault.name)]
            found += shown[0] is not None
            print("\n".join(_told(fault, [s for s in shown if s is not None], log)))
    print(f"{found} of {len(FAULTS)} faults are found by their directed programs")
    return 0 if found == (len(FAULTS) if edition.IS_FIRST else 0) else 1


def _told(fault: Fault, shown: list[Shown], log: bool) -> Iterator[str]:
    yield f"{fault.name}  ({fault.oracle})" + ("" if shown else ": not found")
    for each in shown:
        yield f"    {each.by}, {each.steps} steps"
        lines = show(each.program).splitlines()
        yield from (f"        {line}" for line in [*lines, *(each.log if log else [])])
    yield ""


def _in_scene(stage: Stage, fault: Fault) -> Shown | None:
    (scene,) = (each for each in directed.ALL if each.sentence == fault.scene)
    for order, choices in directed.orders_of(scene):
        found = _ran(stage, scene, order, choices, fault.oracle)
        if found is not None:
            return found._replace(by=f'directed  "{fault.scene}", order {order}')
    return None


def _ran(
    stage: Stage,
    scene: Directed,
    seed: int,
    choices: list[int] | None,
    oracle: str,
) -> Shown | None:
    sim = Simulation(stage, scene.program, seed, choices=choices, logs=True)
    if not any(each.oracle == oracle for each in sim.go(scene.check)):
        return None
    return Shown("", scene.program, sim.world.step, sim.world.log or [])


def _in_seeds(stage: Stage, seeds: int) -> dict[str, Shown]:
    """The first seed that shows each fault, its program made as small as it gets."""
    found: dict[str, Shown] = {}
    tried = dict.fromkeys((fault.name for fault in FAULTS), 0)
    for seed in range(seeds):
        for failure in attempt(stage, draw(seed), seed):
            for fault in FAULTS:
                is_wanted = fault.name not in found and tried[fault.name] < SHRUNK
                if is_wanted and _may_be(fault, failure):
                    tried[fault.name] += 1
                    smaller = shrunk(stage, failure)
                    if fault.is_like(smaller.program):
                        found[fault.name] = _of(stage, smaller, seed)
    return found


def _may_be(fault: Fault, failure: Failure) -> bool:
    return failure.oracle == fault.oracle and fault.is_like(failure.program)


def _of(stage: Stage, failure: Failure, seed: int) -> Shown:
    choices = list(failure.choices)
    sim = Simulation(stage, failure.program, failure.seed, choices=choices, logs=True)
    sim.go()
    by = f"random    seed {seed}"
    return Shown(by, failure.program, sim.world.step, sim.world.log or [])
