"""What no run may show; each oracle is a sentence of section 11 of the design.

An oracle looks at a run that is over.  Where a program goes beyond what a promise covers
(a fault, a lease overrun, a request that can neither lock nor be run again) the oracle
says nothing: it must never accuse a library that keeps the design.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import edition
from .clients import (
    can_log_in,
    due_rotation,
    expiry_stands,
    logged_in,
    rotated_tokens,
    still_there,
    tokens,
)
from .programs import READS
from .promised import (
    KILLS,
    STRONG,
    TURNS,
    is_calm,
    is_promised_silence,
    must_not_run_again,
)
from .serial import serial_order
from .shared import shared_values

if TYPE_CHECKING:
    from .simulator import Simulation, Task


def silence(sim: Simulation) -> None:
    """(2) Among requests that lock or can be run again, nothing is reported."""
    if not is_calm(sim):
        return
    ending = any(
        task.request.names() & {*STRONG, *KILLS} or task.request.browser == "forged"
        for task in sim.tasks
    )
    for task in sim.tasks:
        for kind, text in task.reports:
            if kind == "ended":
                if not ending:
                    sim.problem("2 ended by nobody", f"{task.name} was told: {text}")
            elif ending and "login" in task.request.names():
                continue  # the second of two clicks finds its token ended: it has no lock
            elif sim.program.settings.get("save_on_error") and not task.answered:
                continue  # what failed cannot be run again, and is saved all the same
            elif is_promised_silence(sim, task.request):
                sim.problem(
                    "2 reported",
                    f"{task.name} locks or can be run again: {kind}, {text}",
                )
        _no_timeout(sim, task)


def _no_timeout(sim: Simulation, task: Task) -> None:
    if sim.world.moved:
        return
    errors = [task.error, *(step.error for run in task.runs for step in run.trace)]
    gave_up = any(isinstance(error, edition.LockTimeout) for error in errors)
    if gave_up and "trylock" not in task.request.names():
        sim.problem("2 lock timeout", f"{task.name} gave up on a lock that nobody kept")


def failures(sim: Simulation) -> None:
    """A request fails only for a reason: a fault, a conflict that is raised, a lock."""
    for task in sim.tasks:
        if not task.request.verbs or task.dead:
            continue
        fails = task.request.names() & {"fail", "answer"}
        error = task.error
        if task.faults:
            if task.answered and not sim.has("rollback") and _swallowed_nothing(task):
                _answered_in_spite(sim, task)
            continue
        if error is None and not task.status.startswith("5"):
            continue
        name = type(error).__name__
        known = ("SessionConflict", "SessionClosed", "LockTimeout", "KeyError")
        ended = any(kind == "ended" for kind, _ in task.reports)
        if name == "ReplayNeeded":
            sim.problem(
                "0 leaked", f"ReplayNeeded left the middleware from {task.name}"
            )
        if fails or name in known or (ended and name == "SessionEnded"):
            continue
        if task.status.startswith("503") and (
            sim.has() or sim.world.moved or _tries(task)
        ):
            continue
        if task.status.startswith("503") and task.waits:
            continue
        sim.problem("0 failed", f"{task.name} failed: {task.status} {name}: {error}")


def _tries(task: Task) -> bool:
    return "trylock" in task.request.names()


def _swallowed_nothing(task: Task) -> bool:
    return "try" not in task.request.names()


def _answered_in_spite(sim: Simulation, task: Task) -> None:
    """A store that failed at what the request needed is a 503 (P8)."""
    calls = task.calls
    for fault in sim.program.faults:
        if fault.request != task.name or fault.kind not in ("fail", "lose"):
            continue
        if fault.call >= len(calls):
            continue
        if fault.call == 0 and calls[0] == "load" and task.request.method != "ADMIN":
            sim.problem(
                "8 outage hidden", f"{task.name}: the load failed, and it answers"
            )


def readers(sim: Simulation) -> None:
    """(5) A reader makes one store call, waits for nobody and sends no cookie."""
    if sim.has() or sim.is_skewed:
        return
    due = bool(sim.program.settings.get("rotate_every"))
    always = sim.program.settings.get("locking") == "always"
    saves = sim.program.settings.get("save_every_request")
    for task in sim.tasks:
        request = task.request
        if not request.is_safe or not request.names() <= READS or always or saves:
            continue
        if not task.answered or ("sleep" in request.names() and sim.world.moved > 60):
            continue
        calls = task.final_calls
        if task.waits:
            sim.problem("5 a reader waits", f"{task.name} waited for a lock: {calls}")
        late = sim.world.moved >= 59 or due or _turned(sim)
        if len(calls) > (2 if late else 1):
            sim.problem("5 a reader calls", f"{task.name} called {calls}")
        if task.cookies and not due:
            sim.problem("5 a reader's cookie", f"{task.name} read, and set a cookie")


def _turned(sim: Simulation) -> bool:
    """Whether a token was changed, which its first presentation confirms."""
    return sim.program.user is not None or any(
        task.request.names() & {*TURNS, "rotate", "clear", "flush"}
        for task in sim.tasks
    )


def effects(sim: Simulation) -> None:
    """(9) A view runs once an answered request, twice only where section 4 allows."""
    for task in sim.tasks:
        if len(task.runs) < 2:
            continue
        if len(task.runs) > 2:
            sim.problem("9 ran thrice", f"{task.name} ran {len(task.runs)} times")
        why = must_not_run_again(sim, task)
        if why is not None:
            sim.problem("9 ran twice", f"{task.name} ran twice, though {why}")


def no_strangers(sim: Simulation) -> None:
    """(P3) A forged token reads nothing, ends nothing, and nothing is stored for it."""
    for task in sim.tasks:
        if task.request.browser != "forged" or task.presented is None:
            continue
        if task.request.after or (task.delivered is not None and task.run is None):
            continue
        if len([t for t in sim.tasks if t.request.browser == "forged"]) > 1:
            continue
        run = task.run
        if run is None:
            continue
        for step in run.trace:
            if step.verb[0] == "get" and step.result and "0" in str(step.result):
                sim.problem("P3 a stranger reads", f"{task.name} read {step.result}")
        looks = task.request.names() <= {*READS, "with"}
        if looks and (task.saved or task.cookies):
            sim.problem("P7 a row for junk", f"{task.name} looked, and was stored")
        if any(id == sim.ids["main"] for _, id in task.deleted):
            sim.problem(
                "P3 a stranger ends", f"{task.name} ended main by a forged token"
            )


ALL = (
    failures,
    silence,
    readers,
    effects,
    no_strangers,
    serial_order,
    shared_values,
    tokens,
    expiry_stands,
    due_rotation,
    still_there,
    logged_in,
    rotated_tokens,
    can_log_in,
)
