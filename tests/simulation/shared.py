"""Oracle 1 for what the sessions of a user share: nothing is lost, nothing comes twice.

The values only grow: a list of markers, and a count.  So it is enough to know of each
write whether it was acknowledged, and whether it may have happened.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from . import edition

if TYPE_CHECKING:
    from .machine import Step
    from .simulator import Simulation, Task

BOUNDARIES = frozenset(("save", "usave", "unlock", "exit"))


def shared_values(sim: Simulation) -> None:
    """(1) What was acknowledged is there once, and what was not done is not there."""
    if edition.IS_FIRST or sim.has("rollback"):
        return
    must: Counter[str] = Counter()
    may: Counter[str] = Counter()
    for task in sim.tasks:
        _count(task, must, may)
    if not may:
        return
    found = _found(sim)
    is_lost = any(
        kind == "overwritten" for task in sim.tasks for kind, _ in task.reports
    )
    for name in must | may | found:
        if found[name] > may[name]:
            sim.problem(
                "1 shared twice",
                f"{name}: {found[name]} times, not {may[name]}: {found}",
            )
        if found[name] < must[name] and not is_lost:
            sim.problem(
                "1 shared lost",
                f"{name}: {found[name]} times, not {must[name]}: {found}",
            )


def _found(sim: Simulation) -> Counter[str]:
    """What is stored: each marker, and the count under the name ``n``."""
    from wsgisession._core.reserved import Purpose, key_of

    record = sim.manager.store.load(key_of(Purpose.USER_DATA, "ann"))
    if record is None:
        return Counter()
    values = sim.manager.repository.codec.values(record.data)
    return Counter({**Counter(values.get("list", ())), "n": values.get("n", 0)})


def _count(task: Task, must: Counter[str], may: Counter[str]) -> None:
    run = task.run
    if run is None:
        return
    told = {kind for kind, _ in task.reports}
    doubtful = bool(task.faults or task.dead) or "ended" in told
    since: Counter[str] = Counter()
    for step in run.trace:
        if step.verb[0] in ("upush", "uinc") and step.result == "done":
            since[step.verb[1] if step.verb[0] == "upush" else "n"] += 1
        elif step.verb[0] in BOUNDARIES and (step.is_boundary or _saved(step)):
            may.update(since)
            must.update({} if doubtful else since)
            since.clear()
    if task.answered or doubtful:
        may.update(since)
    if task.answered and not doubtful:
        must.update(since)
    if "raised" in told:  # two saves: where the second one fails the first one stands
        may.update(since)


def _saved(step: Step) -> bool:
    return step.verb[0] == "usave" and step.error is None
