"""Directed programs: how they are written down, and what may be checked at their end.

A check looks at what one rule says of this very program; all oracles watch it as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from . import edition
from .browsers import tokens_in
from .programs import Fault, Program, Request, Verb

if TYPE_CHECKING:
    from .simulator import Simulation

Check = Callable[["Simulation"], str | None]


class Directed(NamedTuple):
    """A program with the sentence that it shows."""

    sentence: str
    program: Program
    check: Check | None = None
    orders: int = 60
    choices: tuple[int, ...] = ()
    """An order that is played first: in it the first edition fails."""


def program(
    *requests: Request,
    user: str | None = None,
    browsers: tuple[tuple[str, str], ...] = (),
    faults: tuple[Fault, ...] = (),
    **options: object,
) -> Program:
    return Program(
        requests,
        tuple(options.items()),
        user,
        (("main", "own"), ("tab", "same"), *browsers),
        faults,
    )


def post(name: str, *verbs: Verb, **more: object) -> Request:
    return Request(name, verbs, "POST", **more)  # type: ignore[arg-type]


def get(name: str, *verbs: Verb, **more: object) -> Request:
    return Request(name, verbs, "GET", **more)  # type: ignore[arg-type]


COPY = (("copy", "copy"),)
FORGED = (("forged", "forged"),)
DEVICE = (("device", "own"),)


# -- checks ----------------------------------------------------------------------------


def main_lives(sim: Simulation) -> str | None:
    """The session is there."""
    if any(each.get("birth") == "birth-main" for each in sim.stored()):
        return None
    return "the session is gone"


def logged_in_by_two_clicks(sim: Simulation) -> str | None:
    """The same, where both clicks are under way before the first answer is there."""
    first, second = sim.by_name["A"], sim.by_name["B"]
    if first.begun is None or second.begun is None:
        return "a click was never sent"
    if first.begun > (second.delivered or 0):
        return None  # a new login, whose answer was lost: it logs its user out
    return logged_in(sim)


def logged_in(sim: Simulation) -> str | None:
    """The main browser is logged in, with its cart."""
    token = sim.browsers["main"].token
    session = sim.manager.open(token or "")
    if session.user != "ann":
        return f"the browser is {session.user}"
    return None if session.get("a", [])[:1] == ["a0"] else "the cart is gone"


def ran_once(name: str) -> Check:
    def check(sim: Simulation) -> str | None:
        runs = len(sim.by_name[name].runs)
        return None if runs == 1 else f"{name} ran {runs} times"

    return check


def sent(name: str, expected: bool) -> Check:
    """Whether the answer to a request set a token."""

    def check(sim: Simulation) -> str | None:
        tokens = tokens_in(sim.by_name[name].cookies)
        if bool(tokens) is expected:
            return None
        return f"{name} was {'sent a' if tokens else 'not sent its'} token"

    return check


def counted(number: int) -> Check:
    def check(sim: Simulation) -> str | None:
        found = [s.get("n") for s in sim.stored() if s.get("birth") == "birth-main"]
        return None if found == [number] else f"n is {found}, not {number}"

    return check


def nobody_has_a_new_session(sim: Simulation) -> str | None:
    more = [s.id for s in sim.stored() if s.id not in sim.ids.values()]
    return f"{len(more)} sessions more" if more and not edition.IS_FIRST else None


def only_the_caller(sim: Simulation) -> str | None:
    """Of ann's sessions the one that asked for the end of the others is left."""
    births = [s.get("birth") for s in sim.stored()]
    return None if births == ["birth-main"] else f"left are {births}"
