"""What no run may show; each oracle is a sentence of section 11 of the design.

An oracle looks at a run that is over.  Where a program goes beyond what a promise covers
(a fault, a lease overrun, a request that can neither lock nor be run again) the oracle
says nothing: it must never accuse a library that keeps the design.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import edition
from .browsers import Browser, tokens_in
from .model import Search, Segment, State
from .programs import READS, Request, Verb
from .world import Died

if TYPE_CHECKING:
    from .simulator import Simulation, Task

TOUCHING = frozenset(("no_replay", "sleep", "pause", "look"))
"""Verbs that may follow a save without making a new transaction of the rest."""
TURNS = frozenset(("login", "regenerate"))
STRONG = frozenset(("login", "regenerate", "flush", "clear"))
KILLS = frozenset(("end", "end_user", "end_others"))


# -- what a request is promised ------------------------------------------------------------


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
    boundary = any(step.is_boundary for step in first.trace)
    mark = task.marks[1] if len(task.marks) > 1 else len(task.calls)
    if boundary and "save" in task.calls[:mark] and task.saved and (
        task.saved[0][0] < task.runs[1].trace[0].begin if task.runs[1].trace else True
    ):
        return "a save() had succeeded"
    return None


def is_one_transaction(request: Request) -> bool:
    """Whether nothing of the session is used after a save, an unlock or a block."""
    after = False
    for name, *_ in request.verbs:
        if after and name not in TOUCHING:
            return False
        if name in ("save", "unlock", "with", "stream"):
            after = True
        if name == "with" and _saves_inside(request.verbs):
            return False
    return True


def _saves_inside(verbs: tuple[Verb, ...]) -> bool:
    for verb in verbs:
        if verb[0] == "with":
            inner = [v[0] for v in Request("", verb[1]).flat()]
            if "save" in inner or "unlock" in inner:
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


# -- 1: serial order, 3: ends, 4: forks ------------------------------------------------------


def serial_order(sim: Simulation) -> None:
    """(1) The end equals some serial order, or a loss was reported; (3) no end is undone."""
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
    ending = any(
        verb[0] in ("flush", "kill") for segment in segments for verb in segment.verbs
    )
    sim.problem(*_accuse(lineage, ends, found, ending=ending))


def reported(sim: Simulation, lineage: str) -> bool:
    """Whether a loss was reported, so that the end may be any."""
    return any(
        kind == "overwritten" for task in sim.tasks for kind, _ in task.reports
    )


def _matches(end: State, found: list[Any], stored: list[Any]) -> bool:
    if not end.alive:
        return not found
    if "birth" in end.values:
        return found == [(end.values, end.user)]
    if found:
        return False
    return (end.values, end.user) in stored or not (end.values or end.user)


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
    if strong and not edition.IS_FIRST and task.saved and not _touched(sim, task):
        if all(id != sim.ids[lineage] for _, id, _ in task.saved):
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
        segments.append(Segment(task.name, len(segments), tuple(verbs), begin or 0, end))
    return segments


def _judge(
    sim: Simulation, task: Task, segment: Segment, *, last: bool
) -> Segment | None:
    """The segment as it counts: done, possibly done, or not at all."""
    names = {verb[0] for verb in segment.verbs}
    ends = bool(names & {"flush"}) or ("clear" in names and edition.CLEAR_ENDS)
    acknowledged = bool(segment.verbs) and segment.verbs[-1][0] in (
        "save",
        "unlock",
        "exit",
    )
    doubtful = bool(task.faults or task.dead)
    ended = any(kind == "ended" for kind, _ in task.reports)
    raised = any(kind == "raised" for kind, _ in task.reports)
    turning = {"rotate", "login", "regenerate", "flush"}
    if names & (turning | {"clear"} if edition.CLEAR_ENDS else turning) and (
        sim.world.moved >= 9.5 or sim.is_skewed or _rivals(sim, task)
    ):
        done = _touched(sim, task) or (ends and _must_end(sim, task))
        if ends:
            segment = segment._replace(optional=not done)
            if done and _went_on_elsewhere(sim, task):
                return segment._replace(keeps=False)
        elif not done and not acknowledged:
            return segment._replace(optional=True) if doubtful else None
    if ended and not acknowledged:
        return segment._replace(optional=True, keeps=False) if ends else None
    sent = segment.verbs[-1][0] == "stream"
    assert task.run is not None
    streamed = any(step.verb[0] == "stream" for step in task.run.trace)
    late = streamed and last and not sent
    if late and task.error is not None and not doubtful:
        return None  # too late for another answer
    if acknowledged or ((last or sent) and task.answered and not doubtful):
        if not last or acknowledged or not (raised and not task.answered):
            settings = sim.program.settings
            if settings.get("auto") is False and not acknowledged:
                kept = tuple(
                    v for v in segment.verbs if v[0] in {*STRONG, "rotate"}
                )
                return segment._replace(verbs=kept) if kept else None
            return segment
    if doubtful:
        return segment._replace(optional=True)
    saves = sim.program.settings.get("save_on_error")
    if saves:
        return segment._replace(optional=True)
    if ends:
        return segment._replace(keeps=False)
    return None


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


def _rivals(sim: Simulation, task: Task) -> bool:
    """Whether other requests change the token or end the session as well."""
    return any(
        other is not task
        and other.request.names() & {*STRONG, "end", "end_user", "end_others"}
        for other in sim.tasks
    )


def _touched(sim: Simulation, task: Task) -> bool:
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
    assert run is not None and task.begun is not None
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


# -- 2: silence ------------------------------------------------------------------------------


def silence(sim: Simulation) -> None:
    """(2) Among requests that lock or can be run again, nothing is reported."""
    if not is_calm(sim):
        return
    writers = [task for task in sim.tasks]
    ending = any(
        task.request.names() & {*STRONG, *KILLS} or task.request.browser == "forged"
        for task in writers
    )
    for task in sim.tasks:
        for kind, text in task.reports:
            if kind == "ended":
                if not ending:
                    sim.problem("2 ended by nobody", f"{task.name} was told: {text}")
            elif ending and "login" in task.request.names():
                continue  # the second of two clicks finds its token ended: it has no lock
            elif is_promised_silence(sim, task.request):
                sim.problem(
                    "2 reported", f"{task.name} locks or can be run again: {kind}, {text}"
                )
        _no_timeout(sim, task)


def _no_timeout(sim: Simulation, task: Task) -> None:
    if sim.world.moved:
        return
    errors = [task.error, *(step.error for run in task.runs for step in run.trace)]
    if any(isinstance(e, edition.LockTimeout) for e in errors) and not (
        "trylock" in task.request.names()
    ):
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
            sim.problem("0 leaked", f"ReplayNeeded left the middleware from {task.name}")
        if fails or name in known or (ended and name == "SessionEnded"):
            continue
        if task.status.startswith("503") and (sim.has() or sim.world.moved or _tries(task)):
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
            sim.problem("8 outage hidden", f"{task.name}: the load failed, and it answers")


# -- 4: tokens -------------------------------------------------------------------------------


def tokens(sim: Simulation) -> None:
    """(4) Of one session at most one token is good besides a rotation's previous one."""
    if sim.has() or sim.is_skewed:
        return
    for lineage, first in sim.first_tokens.items():
        _no_older_token(sim, lineage, first)


def _no_older_token(sim: Simulation, lineage: str, first: str) -> None:
    """After a login, a regeneration or an end no older token is good."""
    for task in sim.tasks:
        names = task.request.names()
        strong = names & STRONG
        if not task.answered or not strong or lineage_of(sim, task) != lineage:
            continue
        if task.request.browser == "forged":
            continue
        if names == {"clear"} and edition.IS_FIRST:
            continue
        if any(kind == "ended" for kind, _ in task.reports) or not _touched(sim, task):
            continue
        if "clear" in names and edition.IS_FIRST and not names & {"login", "flush"}:
            continue
        old = {first, task.presented}
        again = "login" in names and _rivals(sim, task)
        for other in sim.tasks:
            if again or other is task or other.request.names() & STRONG:
                continue  # a second login lets the token of the first live
            if other.request.browser == "forged":
                continue
            if other.begun is not None and other.begun < (task.ended or 0):
                if lineage_of(sim, other) == lineage:
                    old |= set(tokens_in(other.cookies))
        old -= set(tokens_in(task.cookies))
        for token in old - {None}:
            session = sim.manager.open(token)
            if not session.new and _belongs(sim, session, lineage):
                sim.problem(
                    "4 an old token is good",
                    f"after {sorted(strong)} of {task.name} a token from before leads to "
                    f"{session.copy()} of {session.user}",
                )


def _belongs(sim: Simulation, session: Any, lineage: str) -> bool:
    if edition.IS_FIRST:
        return bool(session.get("birth") == f"birth-{lineage}" or session.user)
    return bool(session.id == sim.ids[lineage])


def rotated_tokens(sim: Simulation) -> None:
    """(4) Once the newest token was seen and the grace is over, it alone is good."""
    if sim.has() or sim.is_skewed:
        return
    rotating = [t for t in sim.tasks if t.request.names() & {"rotate"}]
    due = sim.program.settings.get("rotate_every")
    if not rotating and not due:
        return
    if due or not all(task.answered for task in sim.tasks):
        return  # whoever looks would be given yet another token, or one was lost
    issued = {sim.first_tokens["main"]}
    for task in sim.tasks:
        if lineage_of(sim, task) == "main":
            issued |= set(tokens_in(task.cookies))
    for token in issued:
        browser = Browser("probe", token)
        sim.request(browser, lambda s: s.get("a"), method="POST")
    sim.world.pass_by(301)
    good = [t for t in issued if sim.manager.open(t).get("birth") == "birth-main"]
    if len(good) > 1:
        sim.problem(
            "4 two tokens are good", f"{len(good)} tokens lead to main after the grace"
        )


# -- 5: readers ------------------------------------------------------------------------------


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
        if not task.answered or "sleep" in request.names() and sim.world.moved > 60:
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
        task.request.names() & {*TURNS, "rotate", "clear", "flush"} for task in sim.tasks
    )


# -- 7, 8: browsers --------------------------------------------------------------------------


def logged_in(sim: Simulation) -> None:
    """(7) A browser that received a login's answer is logged in at its next request."""
    if sim.has() or sim.is_skewed:
        return
    if any(t.request.names() & {*KILLS, "flush", "clear", "regenerate"} for t in sim.tasks):
        return
    logins = [t for t in sim.tasks if "login" in t.request.names() and t.answered]
    failed = [
        t for t in sim.tasks if "login" in t.request.names() and not t.answered
    ]
    if not logins or failed:
        return
    for name, browser in sim.browsers.items():
        if browser is sim.browsers.get("main") and name != "main":
            continue
        mine = [
            t
            for t in sim.tasks
            if t.request.method != "ADMIN"
            and sim.browsers[t.request.browser] is browser
            and t.delivered is not None
            and t.cookies
        ]
        if not mine:
            continue
        last = max(mine, key=lambda t: t.delivered or 0)
        if last not in logins:
            continue  # an answer to a rotation came after it: stated, not curable
        others = [t for t in logins if t is not last]
        users = {v[1] for t in logins for v in t.request.flat() if v[0] == "login"}
        if len(users) > 1 or (others and sim.world.moved >= 9):
            continue
        if others and any(t.begun > (last.ended or 0) for t in others if t.begun):
            continue
        user = next(v[1] for v in reversed(last.request.flat()) if v[0] == "login")
        results = sim.request(browser, lambda s: s.user, method="GET")
        if results and results[0] != user:
            sim.problem(
                "7 not logged in",
                f"{name} was answered the login of {user} by {last.name}, and is "
                f"{results[0]} at its next request",
            )


def still_there(sim: Simulation) -> None:
    """Whoever holds a token of a session that nobody ended is in it: a rotation, and a
    lost answer to one, log nobody out."""
    if sim.has() or sim.is_skewed or not _is_only_rotated(sim):
        return
    for name, browser in sim.browsers.items():
        if browser.lineage != "main" or browser.token is None:
            continue
        if any(kind == "copy" for _, kind in sim.program.browsers):
            continue  # of two browsers with one token one is left behind
        session = sim.manager.open(browser.token)
        if session.new:
            sim.problem(
                "7 logged out", f"{name} holds a token that only rotations have touched"
            )


def _is_only_rotated(sim: Simulation) -> bool:
    return not any(t.request.names() & {*STRONG, *KILLS} for t in sim.tasks)


def can_log_in(sim: Simulation) -> None:
    """(8) From any state a form by GET and a login by POST succeed within 10 s."""
    for name, browser in sim.browsers.items():
        if browser is sim.browsers.get("main") and name != "main":
            continue
        guarded = _is_unseen(sim)
        tries: list[Any] = []
        # The lease of a request that a fault has cut off ends by itself.
        for wait in (0.0, 10.5, *((35.0,) if sim.has() else ())):
            sim.world.pass_by(wait)
            tries.append(_try_to_log_in(sim, browser, guarded=guarded))
            if tries[-1] == "eve":
                break
        else:
            form = "a form with a CSRF value" if guarded else "a plain form"
            sim.problem("8 no way in", f"{name} cannot log in by {form}: {tries}")


def _try_to_log_in(sim: Simulation, browser: Browser, *, guarded: bool) -> Any:
    """A form by GET, which keeps a value in the session, and a login by POST."""

    def form(session: Any) -> Any:
        session["csrf"] = "value"

    def login(session: Any) -> Any:
        if not guarded or session.get("csrf") == "value":
            session.login("eve")

    sim.request(browser, form, method="GET")
    sim.request(browser, login, method="POST")
    return sim.request(browser, lambda s: s.user, method="GET")[0]


def _is_unseen(sim: Simulation) -> bool:
    """Whether no new token has been presented yet: else an old one waits for 60 s."""
    if sim.program.settings.get("auto") is False or sim.program.settings.get(
        "rotate_every"
    ):
        return False  # the form would not be saved, or is given yet another token
    issued = {t for task in sim.tasks for t in tokens_in(task.cookies)}
    presented = {task.presented for task in sim.tasks}
    jars = {id(browser) for browser in sim.browsers.values()}
    rotated = any("rotate" in task.request.names() for task in sim.tasks)
    return not issued & presented and len(jars) == 1 and not rotated and not sim.has()


def expiry_stands(sim: Simulation) -> None:
    """(P9) An expiry that was acknowledged is not undone by a touch."""
    if edition.IS_FIRST or sim.has() or sim.is_skewed:
        return
    if sim.program.settings.get("auto") is False:
        return
    asked = [
        (task, verb[1])
        for task in sim.tasks
        for verb in task.request.flat()
        if verb[0] == "expiry"
    ]
    if len(asked) != 1 or not asked[0][1]:
        return
    task, seconds = asked[0]
    names = task.request.names()
    if not task.answered or names & {*STRONG, "revert", "discard", "fail", "stream"}:
        return
    if lineage_of(sim, task) != "main" or any(kind == "ended" for kind, _ in task.reports):
        return
    if task.run is None or task.run.was_new or not _is_only_rotated(sim):
        return
    for record in sim.stage.store.inner.records():
        if record.id == sim.ids["main"] and record.expires > sim.world.now() + seconds + 2:
            late = record.expires - sim.world.now()
            sim.problem(
                "P9 an expiry undone", f"{task.name} asked for {seconds} s, left are {late}"
            )


def due_rotation(sim: Simulation) -> None:
    """A rotation that is due goes along with a change."""
    if not sim.program.settings.get("rotate_every") or sim.has() or sim.is_skewed:
        return
    for task in sim.tasks:
        alone = all(
            other is task
            or (other.begun or 0) > (task.ended or 0)
            or (other.ended or 0) < (task.begun or 0)
            for other in sim.tasks
        )
        first = all(other is task or (other.begun or 0) > (task.begun or 0) for other in sim.tasks)
        if not (alone and first and task.answered and task.request.delay >= 61):
            continue
        if task.saved and not task.request.names() & {*STRONG, "stream"} and not task.cookies:
            sim.problem("3 a rotation not taken", f"{task.name} saved, and a rotation was due")


# -- 9: effects ------------------------------------------------------------------------------


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
        if task.request.after or task.delivered is not None and task.run is None:
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
            sim.problem("P3 a stranger ends", f"{task.name} ended main by a forged token")


ALL = (
    failures,
    silence,
    readers,
    effects,
    no_strangers,
    serial_order,
    tokens,
    expiry_stands,
    due_rotation,
    still_there,
    logged_in,
    rotated_tokens,
    can_log_in,
)
__all__ = ["ALL", "Browser", "Died", "READS"]
