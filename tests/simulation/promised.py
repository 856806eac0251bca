"""What the design promises to a request, as far as the request alone tells.

The oracles ask here before they accuse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import edition
from .programs import Request, Verb

if TYPE_CHECKING:
    from .machine import Run
    from .simulator import Simulation, Task


BLANKS = frozenset((b"1\n{}",))
"""The data of a record that is made only to be locked."""
TOUCHING = frozenset(("no_replay", "sleep", "pause", "look"))
"""Verbs that may follow a save without making a new transaction of the rest."""
TURNS = frozenset(("login", "regenerate"))
STRONG = frozenset(("login", "regenerate", "flush", "clear"))
KILLS = frozenset(("end", "end_user", "end_others"))


def may_run_again(sim: Simulation, request: Request) -> bool:
    """Whether section 4 promises a second run, as far as the request alone tells."""
    names = request.names()
    return (
        request.is_safe
        and request.site == "same-origin"
        and sim.program.settings.get("replay", True) is True
        and not names & {*STRONG, "no_replay", "stream", "end_others"}
        and not request.query
        and request.browser != "forged"
    )


def must_not_run_again(sim: Simulation, task: Task) -> str | None:
    """Why a view must not have run twice."""
    request = task.request
    first = task.runs[0]
    if not request.is_safe:
        return "its method is not safe"
    if "code=" in request.query and "state=" in request.query:
        return "it is an OAuth answer"
    if request.site in ("cross-site", "none"):
        return f"it came from outside ({request.site})"
    if request.site == "" and request.scheme == "https":
        return "nothing says that it came from this site"
    if sim.program.settings.get("replay", True) is not True:
        return "replay is off"
    done = {step.verb[0] for step in first.trace if step.error is None}
    if done & STRONG:
        return f"{sorted(done & STRONG)} was called in the first run"
    if "no_replay" in done:
        return "no_replay() was called"
    if _saved_for_the_user(first):
        return "what the sessions of the user share had been saved"
    saved = [each for each in task.saved if each[2] not in BLANKS]
    boundary = any(step.is_boundary for step in first.trace)
    mark = task.marks[1] if len(task.marks) > 1 else len(task.calls)
    if (
        boundary
        and "save" in task.calls[:mark]
        and saved
        and (saved[0][0] < task.runs[1].trace[0].begin if task.runs[1].trace else True)
    ):
        return "a save() had succeeded"
    return None


def _saved_for_the_user(run: Run) -> bool:
    wrote = False
    for step in run.trace:
        wrote = wrote or (step.verb[0] in ("upush", "uinc") and step.result == "done")
        is_saved = step.is_boundary or (step.verb[0] == "usave" and step.error is None)
        if wrote and is_saved:
            return True
    return False


def is_one_transaction(request: Request) -> bool:
    """Whether nothing of the session is used after a save, an unlock or a block."""
    after = False
    for name, *_ in request.verbs:
        if after and name not in TOUCHING:
            return False
        if name in ("save", "usave", "unlock", "with", "stream"):
            after = True
        if name == "with" and _saves_inside(request.verbs):
            return False
    return True


def _saves_inside(verbs: tuple[Verb, ...]) -> bool:
    for verb in verbs:
        if verb[0] == "with":
            inner = [v[0] for v in Request("", verb[1]).flat()]
            if {"save", "usave", "unlock"} & {*inner}:
                return True
    return False


def is_promised_silence(sim: Simulation, request: Request) -> bool:
    """Whether this request locks or can be run again from its beginning to its end."""
    if not is_one_transaction(request) or "fail" in request.names():
        return False
    if request.method == "ADMIN":
        return True
    locking = sim.program.settings.get("locking", "auto")
    locks = locking == "always" or (locking == "auto" and not request.is_safe)
    if "lock" in request.names() or "trylock" in request.names():
        return may_run_again(sim, request) or locks
    return locks or may_run_again(sim, request)


def is_calm(sim: Simulation) -> bool:
    """No fault, no clock that is off, and no lease that may have ended."""
    return not sim.has() and not sim.is_skewed and sim.world.moved < 25


def lineage_of(sim: Simulation, task: Task) -> str | None:
    """Whose session the last run found; an id never changes in the second edition."""
    for id, data in reversed(task.loaded):
        if not edition.IS_FIRST:
            for name, first in sim.ids.items():
                if id == first:
                    return name
        at = data.find(b"birth-")
        if at >= 0:
            return data[at + 6 :].partition(b'"')[0].decode()
    return None
