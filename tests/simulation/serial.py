"""Oracles 1, 3 and 4: the end is that of some serial order, and no end is undone.

The run is cut into what each request did between two saves; the model looks for an order.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import edition
from .model import Search, Segment, State
from .programs import Verb
from .promised import STRONG, is_calm, lineage_of

if TYPE_CHECKING:
    from .simulator import Simulation, Task


def serial_order(sim: Simulation) -> None:
    """(1) The end is that of an order, or a loss was reported; (3) no end is undone."""
    if sim.has("rollback"):
        return
    for name in sim.ids:
        _serial_order_of(sim, name)


def _serial_order_of(sim: Simulation, lineage: str) -> None:
    birth = f"birth-{lineage}"
    stored = [(s.copy(), s.user) for s in sim.stored()]
    found = [each for each in stored if each[0].get("birth") == birth]
    if len(found) > 1:
        sim.problem(
            "4 forked", f"{len(found)} stored sessions hold the values of {lineage}"
        )
        return
    if reported(sim, lineage):
        return
    segments: list[Segment] = []
    for task in sim.tasks:
        segments += segments_of(sim, task, lineage)
    from .simulator import SETUP

    start = State(True, {"birth": birth, **SETUP}, sim.program.user)
    search = Search(start, segments)
    ends = search.run()
    if search.is_undecided:
        return
    if any(_matches(end, found, stored) for end in ends):
        return
    if not found and any(end.values in _begun(sim, lineage) for end in ends):
        return
    ending = any(
        verb[0] in ("flush", "kill") for segment in segments for verb in segment.verbs
    )
    sim.problem(*_accuse(lineage, ends, found, ending=ending))


def reported(sim: Simulation, lineage: str) -> bool:
    """Whether a loss was reported, so that the end may be any."""
    return any(kind == "overwritten" for task in sim.tasks for kind, _ in task.reports)


def _matches(end: State, found: list[Any], stored: list[Any]) -> bool:
    if not end.alive:
        return not found
    if "birth" in end.values:
        return found == [(end.values, end.user)]
    if found:
        return False
    return (end.values, end.user) in stored or not (end.values or end.user)


def _begun(sim: Simulation, lineage: str) -> list[Any]:
    """The values with which sessions began that follow an ended one: by now other
    requests may have changed them.
    """
    if edition.IS_FIRST:
        return []
    saved = [each for task in sim.tasks for each in task.saved]
    return [
        json.loads(data.partition(b"\n")[2])
        for _, id, data in saved
        if id != sim.ids[lineage]
    ]


def _accuse(
    lineage: str, ends: list[State], found: list[Any], *, ending: bool
) -> tuple[str, str]:
    alive = [end for end in ends if end.alive and "birth" in end.values]
    if not ends:
        if found and ending:
            return "3 an end undone", f"{lineage} was ended and is there again: {found}"
        return (
            "1 no order",
            f"no serial order of what was acknowledged exists; {lineage} ends as {found}",
        )
    if found and not alive:
        return "3 an end undone", f"{lineage} was ended and is there again: {found}"
    if not found:
        return (
            "3 vanished",
            f"{lineage} is gone, and no order of the requests ends it",
        )
    orders = " or ".join(str((end.values, end.user)) for end in alive[:3])
    return "1 lost update", f"{lineage} ends as {found[0]}, and not as {orders}"


def segments_of(sim: Simulation, task: Task, lineage: str) -> list[Segment]:
    """What a task did to a session, cut at the saves that were acknowledged."""
    run = task.run
    if run is None:
        return []
    if task.request.method == "ADMIN":
        return _of_administrator(task, lineage)
    mine = lineage_of(sim, task) == lineage and task.request.browser != "forged"
    segments = [] if mine else _kills(task, lineage)
    if not mine:
        return segments
    names = task.request.names()
    strong = names & {*STRONG}
    if run.was_new and not strong:
        return []
    is_elsewhere = task.saved and all(id != sim.ids[lineage] for _, id, _ in task.saved)
    if strong and not edition.IS_FIRST and is_elsewhere and not touched(sim, task):
        return []  # it has a session of its own
    segments = _cut(task)
    kept = []
    for segment in segments:
        judged = _judge(sim, task, segment, last=segment is segments[-1])
        if judged is not None:
            kept.append(judged)
    return kept


def _cut(task: Task) -> list[Segment]:
    run = task.run
    assert run is not None
    segments: list[Segment] = []
    verbs: list[Verb] = []
    begin: int | None = None
    for step in run.trace:
        # What it reads later may be what it loaded at first.
        begin = run.trace[0].begin if begin is None else begin
        inner = step.verb[0] == "exit" and not step.is_boundary
        if not inner and (step.error is None or step.verb[0] in ("flush", "clear")):
            verbs.append(step.verb)
        if step.is_boundary:
            segments.append(
                Segment(task.name, len(segments), tuple(verbs), begin, step.end)
            )
            verbs, begin = [], None
    if verbs:
        end = task.ended if task.ended is not None else 10**9
        segments.append(
            Segment(task.name, len(segments), tuple(verbs), begin or 0, end)
        )
    return segments


def _judge(
    sim: Simulation, task: Task, segment: Segment, *, last: bool
) -> Segment | None:
    """The segment as it counts: done, possibly done, or not at all."""
    acknowledged = bool(segment.verbs) and segment.verbs[-1][0] in (
        "save",
        "unlock",
        "exit",
    )
    ends = _ends(segment)
    if _turns(segment) and (
        sim.world.moved >= 9.5 or sim.is_skewed or rivals(sim, task)
    ):
        done = touched(sim, task) or (ends and _must_end(sim, task))
        if ends:
            segment = segment._replace(optional=not done)
            if done and _went_on_elsewhere(sim, task):
                return segment._replace(keeps=False)
        elif not done and not acknowledged:
            doubtful = bool(task.faults or task.dead)
            return segment._replace(optional=True) if doubtful else None
    if any(kind == "ended" for kind, _ in task.reports) and not acknowledged:
        return segment._replace(optional=True, keeps=False) if ends else None
    return _as_told(sim, task, segment, last=last, acknowledged=acknowledged)


def _as_told(
    sim: Simulation, task: Task, segment: Segment, *, last: bool, acknowledged: bool
) -> Segment | None:
    """What the client or the application was told of the segment decides."""
    settings, doubtful = sim.program.settings, bool(task.faults or task.dead)
    sent = segment.verbs[-1][0] == "stream"
    assert task.run is not None
    streamed = any(step.verb[0] == "stream" for step in task.run.trace)
    late = streamed and last and not sent
    if late and not acknowledged and task.error is not None and not doubtful:
        return None  # too late for another answer
    raised = any(kind == "raised" for kind, _ in task.reports)
    is_told = acknowledged or ((last or sent) and task.answered and not doubtful)
    is_kept = not last or acknowledged or not (raised and not task.answered)
    if is_told and is_kept:
        if settings.get("auto") is False and not acknowledged:
            kept = tuple(v for v in segment.verbs if v[0] in {*STRONG, "rotate"})
            return segment._replace(verbs=kept) if kept else None
        return segment
    if doubtful or settings.get("save_on_error"):
        return segment._replace(optional=True)
    return segment._replace(keeps=False) if _ends(segment) else None


def _ends(segment: Segment) -> bool:
    """Whether it ends the session."""
    names = {verb[0] for verb in segment.verbs}
    return "flush" in names or ("clear" in names and edition.CLEAR_ENDS)


def _turns(segment: Segment) -> bool:
    """Whether it changes the token, or ends the session."""
    names = {verb[0] for verb in segment.verbs}
    return bool(names & {"rotate", "login", "regenerate"}) or _ends(segment)


def _must_end(sim: Simulation, task: Task) -> bool:
    """Whether its flush ends the session: a known proof may, during the window."""
    turns = [t for t in sim.tasks if t.request.names() & {*STRONG, "rotate"}]
    return (
        is_calm(sim)
        and sim.world.moved < 9
        and len(turns) <= 3
        and task.answered
        and not task.request.names() & {"login", "save", "with", "unlock"}
        and not sim.program.settings.get("rotate_every")
    )


def rivals(sim: Simulation, task: Task) -> bool:
    """Whether other requests change the token or end the session as well."""
    return any(
        other is not task
        and other.request.names() & {*STRONG, "end", "end_user", "end_others"}
        for other in sim.tasks
    )


def touched(sim: Simulation, task: Task) -> bool:
    """Whether the task saved or deleted the record of the session that it began with."""
    lineage = lineage_of(sim, task)
    if lineage is None:
        return False
    id, birth = sim.ids[lineage], f'"birth-{lineage}"'.encode()
    if edition.IS_FIRST:
        return bool(task.deleted) or any(birth in data for _, _, data in task.saved)
    if task.saved and task.saved[-1][1] == id:
        return True
    return any(deleted == id for _, deleted in task.deleted)


def _went_on_elsewhere(sim: Simulation, task: Task) -> bool:
    """Whether what was written after an end is a session of its own."""
    ids = [id for name, id in sim.ids.items() if name == lineage_of(sim, task)]
    return bool(task.saved) and not edition.IS_FIRST and task.saved[-1][1] not in ids


def _of_administrator(task: Task, lineage: str) -> list[Segment]:
    run = task.run
    assert run is not None
    assert task.begun is not None
    doubtful = bool(task.faults or task.dead or task.error)
    end = task.ended or 10**9
    verb = task.request.verbs[0] if task.request.verbs else ("nothing",)
    if verb[0] == "edit":
        inner = tuple(s.verb for s in run.trace[1:] if s.error is None)
        if lineage != "main" or not inner or (task.error and not doubtful):
            return []
        return [Segment(task.name, 0, inner, task.begun, end, optional=doubtful)]
    if verb[0] == "end" and lineage == "main":
        result = run.trace[0].result if run.trace else None
        if result or doubtful:
            kill = (("kill",),)
            return [Segment(task.name, 0, kill, task.begun, end, optional=doubtful)]
    if verb[0] == "end_user":
        kill = (("kill_user", verb[1]),)
        return [Segment(task.name, 0, kill, task.begun, end, optional=doubtful)]
    return []


def _kills(task: Task, lineage: str) -> list[Segment]:
    """What a request of another session did to this one."""
    run = task.run
    assert run is not None
    segments = []
    for step in run.trace:
        if step.verb[0] != "end_others":
            continue
        doubtful = step.error is not None
        if doubtful or step.result is not None:
            # Whose sessions were ended is known only to the request.
            for user in ("ann", "bob"):
                kill = (("kill_user", user),)
                segments.append(
                    Segment(task.name, len(segments), kill, step.begin, step.end, True)
                )
    return segments
