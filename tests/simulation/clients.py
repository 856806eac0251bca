"""Oracles 4, 7 and 8: which tokens are good, and who is logged in afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import edition
from .browsers import Browser, tokens_in
from .promised import KILLS, STRONG, lineage_of
from .serial import rivals, touched

if TYPE_CHECKING:
    from .simulator import Simulation, Task


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
        if any(kind == "ended" for kind, _ in task.reports) or not touched(sim, task):
            continue
        if "clear" in names and edition.IS_FIRST and not names & {"login", "flush"}:
            continue
        old = {first, task.presented}
        again = "login" in names and rivals(sim, task)
        for other in sim.tasks:
            if again or other is task or other.request.names() & STRONG:
                continue  # a second login lets the token of the first live
            if other.request.browser == "forged":
                continue
            is_before = other.begun is not None and other.begun < (task.ended or 0)
            if is_before and lineage_of(sim, other) == lineage:
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


def logged_in(sim: Simulation) -> None:
    """(7) A browser that received a login's answer is logged in at its next request."""
    if sim.has() or sim.is_skewed:
        return
    if any(
        t.request.names() & {*KILLS, "flush", "clear", "regenerate"} for t in sim.tasks
    ):
        return
    logins = [t for t in sim.tasks if "login" in t.request.names() and t.answered]
    failed = [t for t in sim.tasks if "login" in t.request.names() and not t.answered]
    if not logins or failed:
        return
    for name, browser in sim.browsers.items():
        if browser is sim.browsers.get("main") and name != "main":
            continue
        last = _last_answer_to(sim, browser)
        if last not in logins:
            continue  # an answer to a rotation came after it: stated, not curable
        others = [t for t in logins if t is not last]
        users = {v[1] for t in logins for v in t.request.flat() if v[0] == "login"}
        if len(users) > 1 or (others and sim.world.moved >= 9):
            continue
        if others and any(t.begun > (last.ended or 0) for t in others if t.begun):
            continue
        _is_logged_in(sim, name, browser, last)


def _last_answer_to(sim: Simulation, browser: Browser) -> Task | None:
    """The request whose answer was the last to set a cookie in this browser."""
    mine = [
        t
        for t in sim.tasks
        if t.request.method != "ADMIN"
        and sim.browsers[t.request.browser] is browser
        and t.delivered is not None
        and t.cookies
    ]
    return max(mine, key=lambda t: t.delivered or 0, default=None)


def _is_logged_in(sim: Simulation, name: str, browser: Browser, login: Task) -> None:
    user = next(v[1] for v in reversed(login.request.flat()) if v[0] == "login")
    results = sim.request(browser, lambda s: s.user, method="GET")
    if results and results[0] != user:
        sim.problem(
            "7 not logged in",
            f"{name} was answered the login of {user} by {login.name}, and is "
            f"{results[0]} at its next request",
        )


def still_there(sim: Simulation) -> None:
    """Whoever holds a token of a session that nobody ended is in it: a rotation, and a
    lost answer to one, log nobody out.
    """
    if sim.has() or sim.is_skewed or not _is_only_rotated(sim):
        return
    for name, browser in sim.browsers.items():
        if browser.lineage != "main" or browser.token is None:
            continue
        if any(kind == "copy" for _, kind in sim.program.browsers):
            continue  # of two browsers with one token one is left behind
        session = sim.manager.open(browser.token)
        if session.new and not _came_too_late(sim, browser):
            sim.problem(
                "7 logged out", f"{name} holds a token that only rotations have touched"
            )


def _came_too_late(sim: Simulation, browser: Browser) -> bool:
    """Whether the token in the jar came after that of a later rotation, and the grace
    may be over: the answer to it was under way for longer than ``rotate_grace``.
    """
    if sim.world.moved <= sim.program.settings.get("rotate_grace", 300.0):
        return False
    mine = [t for t in sim.tasks if t.delivered is not None and t.cookies]
    late = [t for t in mine if browser.token in tokens_in(t.cookies)]
    return any(
        sim.browsers[other.request.browser] is browser
        and (other.ended or 0) > (task.ended or 0)
        and (other.delivered or 0) < (task.delivered or 0)
        for task in late
        for other in mine
    )


def _is_only_rotated(sim: Simulation) -> bool:
    return not any(t.request.names() & {*STRONG, *KILLS} for t in sim.tasks)


def can_log_in(sim: Simulation) -> None:
    """(8) From any state a form by GET and a login by POST succeed within 10 s."""
    if sim.has() and not sim.stage.fresh:
        return  # a lease may be left, and a server's own clock does not run faster
    for name, browser in sim.browsers.items():
        if browser is sim.browsers.get("main") and name != "main":
            continue
        guarded = _is_unseen(sim)
        tries: list[Any] = []
        # The turn of a fast host counts if it lies less than a window ahead; the lease
        # of a request that a fault has cut off ends by itself.
        fast = (10.0,) if sim.is_skewed else ()
        for wait in (0.0, 10.5, *fast, *((35.0,) if sim.has() else ())):
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
    if lineage_of(sim, task) != "main" or any(
        kind == "ended" for kind, _ in task.reports
    ):
        return
    if task.run is None or task.run.was_new or not _is_only_rotated(sim):
        return
    for record in sim.stage.store.inner.records():
        if (
            record.id == sim.ids["main"]
            and record.expires > sim.world.now() + seconds + 2
        ):
            late = record.expires - sim.world.now()
            sim.problem(
                "P9 an expiry undone",
                f"{task.name} asked for {seconds} s, left are {late}",
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
        first = all(
            other is task or (other.begun or 0) > (task.begun or 0)
            for other in sim.tasks
        )
        if not (alone and first and task.answered and task.request.delay >= 61):
            continue
        if (
            task.saved
            and not task.request.names() & {*STRONG, "stream"}
            and not task.cookies
        ):
            sim.problem(
                "3 a rotation not taken", f"{task.name} saved, and a rotation was due"
            )
